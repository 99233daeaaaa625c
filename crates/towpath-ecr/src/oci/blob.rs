//! Blobs: whether they are there, where their bytes come from, and reading them with digest and size verified.

use super::OciClient;
use super::transport::{Reply, Request, chunk};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use http::header::{CONTENT_LENGTH, HeaderValue, RANGE};
use http::{Method, StatusCode};
use std::io::SeekFrom;
use std::path::PathBuf;
use tokio::io::AsyncSeekExt;
use towpath_core::{Digest, Hasher, ImageRef};
use towpath_elements::{Error, ErrorKind, Result};

/// The bytes of a blob, piece by piece. An item that is an error ends it. The last piece comes only once all are verified.
pub type BlobStream = BoxStream<'static, Result<Bytes>>;

/// A blob that can be pushed.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where its bytes are.
    pub source: BlobSource,
}

impl Blob {
    /// A blob in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: Digest::sha256_of(&bytes),
            size: bytes.len() as u64,
            source: BlobSource::Bytes(bytes),
        }
    }
}

/// Where the bytes of a blob are. All can be read again from any offset, so that an upload that was cut goes on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BlobSource {
    /// In memory.
    Bytes(Bytes),
    /// In a file of this machine.
    File(PathBuf),
    /// In the repository of this image, in the same registry as the target or another one.
    Registry {
        /// The repository.
        repository: ImageRef,
        /// The blob's digest.
        digest: Digest,
        /// The blob's size in bytes.
        size: u64,
    },
}

impl OciClient {
    /// The size of a blob in the image's repository; `None` where it is not there.
    ///
    /// # Errors
    /// What the registry refuses other than with 404.
    pub async fn blob_size(&self, repository: &ImageRef, digest: &Digest) -> Result<Option<u64>> {
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        let subject = repository.at(digest.clone()).to_string();
        let request = Request::new(Method::HEAD, repository, url, "look for the blob").about(subject);
        let reply = self.send(&request).await?;
        match reply.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(content_length(&reply).unwrap_or(0))),
            _ => Err(reply.refuse(self.service(), request.attempted, &request.subject)),
        }
    }

    /// The bytes of a blob, verified against its digest and size while they stream. A transfer that is cut goes on
    /// where it was.
    ///
    /// # Errors
    /// *Not found*; in the stream also *protocol* where the bytes are not what the digest promises.
    pub async fn blob(&self, repository: &ImageRef, digest: &Digest, size: u64) -> Result<BlobStream> {
        let Some(hasher) = digest.hasher() else {
            return Err(
                Error::new(ErrorKind::Unsupported, self.service(), "read the blob", digest)
                    .because("its digest is of an algorithm that cannot be verified"),
            );
        };
        let mut reader = Reader {
            client: self.clone(),
            repository: repository.clone(),
            digest: digest.clone(),
            size,
            offset: 0,
            response: None,
            skip: 0,
            cuts: 0,
        };
        reader.ask().await?;
        Ok(
            stream::try_unfold((reader, Some(hasher)), |(mut reader, hasher)| async move {
                let Some(mut hasher) = hasher else { return Ok(None) };
                match reader.next().await? {
                    Some(bytes) => {
                        hasher.update(&bytes);
                        // Before the last piece is let go: who writes it on stops reading there.
                        if reader.offset == reader.size {
                            reader.verify(hasher.clone())?;
                        }
                        Ok(Some((bytes, (reader, Some(hasher)))))
                    }
                    None => reader.verify(hasher).map(|()| None),
                }
            })
            .boxed(),
        )
    }

    /// The whole of a small blob, such as a configuration.
    ///
    /// # Errors
    /// As [`blob`](Self::blob); *invalid* where it is larger than `limit`.
    pub async fn small_blob(
        &self,
        repository: &ImageRef,
        digest: &Digest,
        size: u64,
        limit: u64,
    ) -> Result<Bytes> {
        if size > limit {
            return Err(
                Error::new(ErrorKind::Invalid, self.service(), "read the blob", digest)
                    .because(format!("it has {size} bytes, more than the {limit} allowed")),
            );
        }
        let stream = self.blob(repository, digest, size).await?;
        let pieces: Vec<Bytes> = stream.try_collect().await?;
        Ok(pieces.concat().into())
    }

    /// A source's bytes from an offset. Boxed, because reading from a registry sends requests, and those open sources.
    pub(super) fn open<'a>(
        &'a self,
        source: &'a BlobSource,
        offset: u64,
    ) -> BoxFuture<'a, Result<BlobStream>> {
        Box::pin(self.open_source(source, offset))
    }

    async fn open_source(&self, source: &BlobSource, offset: u64) -> Result<BlobStream> {
        match source {
            BlobSource::Bytes(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(stream::iter([Ok(bytes.slice(from..))]).boxed())
            }
            BlobSource::File(path) => {
                let refuse = |error: std::io::Error| {
                    Error::new(ErrorKind::Invalid, "Towpath", "read the file", path.display())
                        .caused_by(error)
                };
                let mut file = tokio::fs::File::open(path).await.map_err(refuse)?;
                file.seek(SeekFrom::Start(offset)).await.map_err(refuse)?;
                let path = path.clone();
                let pieces = tokio_util::io::ReaderStream::with_capacity(file, 128 * 1024);
                Ok(pieces
                    .map_err(move |error| {
                        Error::new(ErrorKind::Invalid, "Towpath", "read the file", path.display())
                            .caused_by(error)
                    })
                    .boxed())
            }
            BlobSource::Registry {
                repository,
                digest,
                size,
            } => {
                if offset == 0 {
                    return self.blob(repository, digest, *size).await;
                }
                // The registry that is written to verifies the whole when the upload is committed.
                let mut reader = Reader {
                    client: self.clone(),
                    repository: repository.clone(),
                    digest: digest.clone(),
                    size: *size,
                    offset,
                    response: None,
                    skip: 0,
                    cuts: 0,
                };
                reader.ask().await?;
                Ok(stream::try_unfold(reader, |mut reader| async move {
                    Ok(reader.next().await?.map(|bytes| (bytes, reader)))
                })
                .boxed())
            }
        }
    }
}

fn content_length(reply: &Reply) -> Option<u64> {
    reply.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a blob, and asks for the rest where the connection breaks.
struct Reader {
    client: OciClient,
    repository: ImageRef,
    digest: Digest,
    size: u64,
    offset: u64,
    response: Option<reqwest::Response>,
    /// How many bytes of the answer were seen already, where the server does not know ranges.
    skip: u64,
    cuts: u32,
}

impl Reader {
    const ATTEMPTED: &'static str = "read the blob";

    fn subject(&self) -> String {
        self.repository.at(self.digest.clone()).to_string()
    }

    async fn ask(&mut self) -> Result<()> {
        let url = self
            .client
            .url(&self.repository, &format!("blobs/{}", self.digest))?;
        let mut request =
            Request::new(Method::GET, &self.repository, url, Self::ATTEMPTED).about(self.subject());
        if self.offset > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.offset))
        {
            request.headers.insert(RANGE, range);
        }
        let reply = self.client.send(&request).await?;
        self.skip = match reply.status {
            StatusCode::OK => self.offset,
            StatusCode::PARTIAL_CONTENT => 0,
            _ => return Err(reply.refuse(self.client.service(), Self::ATTEMPTED, &self.subject())),
        };
        self.response = reply.body;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let settings = self.client.settings().clone();
        loop {
            let Some(response) = &mut self.response else {
                return Ok(None);
            };
            match chunk(response, settings.idle_timeout).await {
                Ok(Some(bytes)) if (bytes.len() as u64) <= self.skip => self.skip -= bytes.len() as u64,
                Ok(Some(bytes)) => {
                    let bytes = bytes.slice(self.skip as usize..);
                    self.skip = 0;
                    self.offset += bytes.len() as u64;
                    if self.offset > self.size {
                        return Err(self.broken("it has more bytes than its descriptor says"));
                    }
                    return Ok(Some(bytes));
                }
                Ok(None) => {
                    self.response = None;
                    return Ok(None);
                }
                Err(cut) => {
                    self.cuts += 1;
                    if self.cuts >= settings.attempts {
                        return Err(cut.spent(self.client.service(), Self::ATTEMPTED, &self.subject()));
                    }
                    tokio::time::sleep(self.client.pause(self.cuts)).await;
                    self.ask().await?;
                }
            }
        }
    }

    fn verify(&self, hasher: Hasher) -> Result<()> {
        if self.offset != self.size {
            let detail = format!("it has {} bytes, its descriptor says {}", self.offset, self.size);
            return Err(self.broken(&detail));
        }
        let found = hasher.finish();
        if found != self.digest {
            return Err(self.broken(&format!("the bytes have the digest {found}")));
        }
        Ok(())
    }

    fn broken(&self, detail: &str) -> Error {
        let error = Error::new(
            ErrorKind::Protocol,
            self.client.service(),
            Self::ATTEMPTED,
            self.subject(),
        );
        error.because(detail)
    }
}
