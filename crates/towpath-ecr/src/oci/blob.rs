//! Blobs: whether they are there, where their bytes come from, and reading them with digest and size verified.

use super::transport::{Reply, Request, chunk};
use super::{OciClient, PROGRESS, Repository};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use http::{Method, StatusCode};
use std::fmt;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncSeekExt;
use towpath_core::{Digest, Hasher, ImageRef};
use towpath_elements::{Error, ErrorKind, Result};

/// The bytes of a blob, piece by piece. An item that is an error ends it.
pub type BlobStream = BoxStream<'static, Result<Bytes>>;

/// A blob, and where to read it.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where its bytes are.
    pub source: BlobSource,
}

/// Where the bytes of a blob are. All can be read again from any offset, so that an upload that was cut goes on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BlobSource {
    /// In memory.
    Bytes(Bytes),
    /// In a file of this machine.
    File(PathBuf),
    /// In a repository, of the same registry as the target or another one.
    Registry(Repository),
    /// Anywhere else.
    Other(Arc<dyn ReadBlob>),
}

/// The bytes of one blob, in a place that this crate has no word for.
#[async_trait]
pub trait ReadBlob: fmt::Debug + Send + Sync {
    /// The bytes from an offset to the end. They need not be verified.
    ///
    /// # Errors
    /// What keeps them from being read.
    async fn read(&self, offset: u64) -> Result<BlobStream>;
}

impl Blob {
    const ATTEMPTED: &'static str = "read the blob";

    /// A blob in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: Digest::sha256_of(&bytes),
            size: bytes.len() as u64,
            source: BlobSource::Bytes(bytes),
        }
    }

    /// The bytes from an offset to the end, as they are; a transfer that is cut goes on where it was.
    ///
    /// # Errors
    /// What keeps the bytes from being read, here or in the stream.
    pub async fn read(&self, offset: u64) -> Result<BlobStream> {
        match &self.source {
            BlobSource::Bytes(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(stream::iter([Ok(bytes.slice(from..))]).boxed())
            }
            BlobSource::File(path) => read_file(path, offset, None).await,
            BlobSource::Registry(repository) => {
                let mut reader = Reader {
                    repository: repository.clone(),
                    digest: self.digest.clone(),
                    size: self.size,
                    offset,
                    response: None,
                    skip: 0,
                    cuts: 0,
                    cut_at: offset,
                };
                reader.ask().await?;
                Ok(stream::try_unfold(reader, |mut reader| async move {
                    Ok(reader.next().await?.map(|bytes| (bytes, reader)))
                })
                .boxed())
            }
            BlobSource::Other(place) => place.read(offset).await,
        }
    }

    /// All bytes, verified against digest and size while they stream: the last piece comes only once all are.
    ///
    /// # Errors
    /// *Unsupported* for a digest that cannot be computed; in the stream *protocol* where the bytes are not what the
    /// digest promises, and what keeps them from being read.
    pub async fn verified(&self) -> Result<BlobStream> {
        let (service, place) = self.place();
        let refuse =
            move |kind, detail: String| Error::new(kind, service, Self::ATTEMPTED, &place).because(detail);
        let Some(hasher) = self.digest.hasher() else {
            return Err(refuse(
                ErrorKind::Unsupported,
                "its digest is of an algorithm that cannot be verified".into(),
            ));
        };
        let state = Verifying {
            stream: self.read(0).await?,
            hasher: Some(hasher),
            digest: self.digest.clone(),
            size: self.size,
            seen: 0,
            refuse: Box::new(move |detail| refuse(ErrorKind::Protocol, detail)),
        };
        Ok(stream::try_unfold(state, Verifying::next).boxed())
    }

    /// The whole of a small blob, such as a configuration, verified.
    ///
    /// # Errors
    /// As [`verified`](Self::verified); *invalid* where it is larger than `limit` bytes.
    pub async fn bytes(&self, limit: u64) -> Result<Bytes> {
        if self.size > limit {
            let (service, place) = self.place();
            return Err(
                Error::new(ErrorKind::Invalid, service, Self::ATTEMPTED, place).because(format!(
                    "it has {} bytes, more than the {limit} allowed",
                    self.size
                )),
            );
        }
        let pieces: Vec<Bytes> = self.verified().await?.try_collect().await?;
        Ok(pieces.concat().into())
    }

    /// The bytes from an offset, to be pushed. What comes from elsewhere is verified on the way, so that the blame is
    /// with who gave it; the registry verifies all of it once more. What follows a cut is verified by the registry
    /// alone.
    pub(super) fn to_push(&self, offset: u64) -> BoxFuture<'_, Result<BlobStream>> {
        // Boxed, because reading from a registry sends requests, and those may read blobs.
        let local = matches!(self.source, BlobSource::Bytes(_) | BlobSource::File(_));
        Box::pin(async move {
            match offset == 0 && !local {
                true => self.verified().await,
                false => self.read(offset).await,
            }
        })
    }

    /// Who answers for the bytes, and what they are called in errors.
    fn place(&self) -> (&'static str, String) {
        match &self.source {
            BlobSource::Registry(repository) => (
                repository.client().service(),
                repository.image().at(self.digest.clone()).to_string(),
            ),
            BlobSource::File(path) => ("Towpath", path.display().to_string()),
            _ => ("Towpath", self.digest.to_string()),
        }
    }
}

/// The bytes of a file from an offset, `length` of them or all.
pub(super) async fn read_file(path: &Path, offset: u64, length: Option<u64>) -> Result<BlobStream> {
    let refuse = {
        let path = path.display().to_string();
        move |error: std::io::Error| {
            Error::new(ErrorKind::Invalid, "Towpath", "read the file", &path).caused_by(error)
        }
    };
    let mut file = tokio::fs::File::open(path).await.map_err(&refuse)?;
    file.seek(SeekFrom::Start(offset)).await.map_err(&refuse)?;
    let part = tokio::io::AsyncReadExt::take(file, length.unwrap_or(u64::MAX));
    let pieces = tokio_util::io::ReaderStream::with_capacity(part, 128 * 1024);
    Ok(pieces.map_err(refuse).boxed())
}

/// A stream whose bytes are hashed on the way.
struct Verifying {
    stream: BlobStream,
    hasher: Option<Hasher>,
    digest: Digest,
    size: u64,
    seen: u64,
    refuse: Box<dyn Fn(String) -> Error + Send + Sync>,
}

impl Verifying {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        let next = self.stream.try_next().await?;
        let Some(bytes) = next else {
            return match self.seen == self.size {
                true => self.verify().map(|()| None),
                false => {
                    let detail = format!("it has {} bytes, its descriptor says {}", self.seen, self.size);
                    Err((self.refuse)(detail))
                }
            };
        };
        self.seen += bytes.len() as u64;
        if self.seen > self.size {
            return Err((self.refuse)("it has more bytes than its descriptor says".into()));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        // Before the last piece is let go: who writes it on stops reading there.
        if self.seen == self.size {
            self.verify()?;
        }
        Ok(Some((bytes, self)))
    }

    /// Once; there is nothing to do the second time.
    fn verify(&mut self) -> Result<()> {
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.digest => {
                Err((self.refuse)(format!("the bytes have the digest {found}")))
            }
            _ => Ok(()),
        }
    }
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
        self.located(repository, digest, size).verified().await
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
        self.located(repository, digest, size).bytes(limit).await
    }

    fn located(&self, repository: &ImageRef, digest: &Digest, size: u64) -> Blob {
        Blob {
            digest: digest.clone(),
            size,
            source: BlobSource::Registry(self.repository(repository)),
        }
    }
}

fn content_length(reply: &Reply) -> Option<u64> {
    reply.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Where the bytes of a partial answer begin: `bytes 100-199/200` (RFC 9110 §14.4).
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
    let (first, _) = range.strip_prefix("bytes")?.trim_start().split_once('-')?;
    first.parse().ok()
}

/// Reads a blob, and asks for the rest where the connection breaks.
struct Reader {
    repository: Repository,
    digest: Digest,
    size: u64,
    offset: u64,
    response: Option<reqwest::Response>,
    /// How many bytes of the answer were seen already, where the server does not know ranges.
    skip: u64,
    cuts: u32,
    cut_at: u64,
}

impl Reader {
    fn subject(&self) -> String {
        self.repository.image().at(self.digest.clone()).to_string()
    }

    async fn ask(&mut self) -> Result<()> {
        let (client, image) = (self.repository.client(), self.repository.image());
        let url = client.url(image, &format!("blobs/{}", self.digest))?;
        let mut request = Request::new(Method::GET, image, url, Blob::ATTEMPTED).about(self.subject());
        if self.offset > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.offset))
        {
            request.headers.insert(RANGE, range);
        }
        let reply = client.send(&request).await?;
        self.skip = match reply.status {
            StatusCode::OK => self.offset,
            StatusCode::PARTIAL_CONTENT => {
                if let Some(start) = range_start(&reply.headers).filter(|start| *start != self.offset) {
                    return Err(self.broken(&format!(
                        "asked from byte {} on, the answer begins at byte {start}",
                        self.offset
                    )));
                }
                0
            }
            _ => return Err(reply.refuse(client.service(), Blob::ATTEMPTED, &self.subject())),
        };
        self.response = reply.body;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let (attempts, idle) = {
            let settings = self.repository.client().settings();
            (settings.attempts.max(1), settings.idle_timeout)
        };
        loop {
            let Some(response) = &mut self.response else {
                return Ok(None);
            };
            match chunk(response, idle).await {
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
                // All bytes are here; what broke after them is nothing to us.
                Err(_) if self.offset == self.size => {
                    self.response = None;
                    return Ok(None);
                }
                Err(cut) => {
                    if self.offset - self.cut_at >= PROGRESS {
                        self.cuts = 0;
                    }
                    self.cuts += 1;
                    self.cut_at = self.offset;
                    let client = self.repository.client();
                    if self.cuts >= attempts {
                        return Err(cut.spent(client.service(), Blob::ATTEMPTED, &self.subject()));
                    }
                    tracing::debug!(offset = self.offset, digest = %self.digest, "download was cut");
                    tokio::time::sleep(client.pause(self.cuts)).await;
                    self.ask().await?;
                }
            }
        }
    }

    fn broken(&self, detail: &str) -> Error {
        let service = self.repository.client().service();
        Error::new(ErrorKind::Protocol, service, Blob::ATTEMPTED, self.subject()).because(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_answers_say_where_they_begin() {
        let start = |text: &'static str| {
            range_start(&HeaderMap::from_iter([(
                CONTENT_RANGE,
                HeaderValue::from_static(text),
            )]))
        };
        assert_eq!(start("bytes 100-199/200"), Some(100));
        assert_eq!(start("bytes */200"), None);
        assert_eq!(start(""), None);
        assert_eq!(range_start(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn bytes_of_any_place_are_verified() {
        #[derive(Debug)]
        struct Elsewhere;
        #[async_trait]
        impl ReadBlob for Elsewhere {
            async fn read(&self, offset: u64) -> Result<BlobStream> {
                let all = Bytes::from_static(b"0123456789").slice(offset as usize..);
                Ok(stream::iter([Ok(all)]).boxed())
            }
        }
        let blob = |text: &str| Blob {
            source: BlobSource::Other(Arc::new(Elsewhere)),
            ..Blob::from_bytes(text.to_owned())
        };
        assert_eq!(blob("0123456789").bytes(10).await.unwrap(), "0123456789");
        for (promised, reason) in [
            ("9876543210", "the bytes have the digest"),
            ("0123", "more bytes than its descriptor"),
            ("0123456789a", "has 10 bytes, its descriptor says 11"),
        ] {
            let error = blob(promised).bytes(20).await.unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        let rest: Vec<Bytes> = blob("0123456789")
            .read(7)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert_eq!(rest.concat(), b"789");
    }
}
