//! Blobs on disk, by digest: what keeps the memory of the lab bounded, however large the layers are.
//!
//! Writes are plain blocking writes to the page cache. They are short, and they cannot be torn by a request that is
//! dropped half way, which is what a client that loses its connection looks like from here.

use crate::LabError;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use towpath_core::{Digest, Hasher};

/// The blobs of one registry.
#[derive(Debug)]
pub(super) struct Blobs {
    folder: TempDir,
    sizes: Mutex<HashMap<Digest, u64>>,
}

/// A blob that is not complete yet. Dropping it throws its bytes away.
#[derive(Debug)]
pub(super) struct Upload {
    file: NamedTempFile,
    hasher: Hasher,
    received: u64,
}

impl Blobs {
    pub(super) fn new() -> Result<Self, LabError> {
        let folder = TempDir::with_prefix("towpath-lab-blobs-").map_err(|source| LabError::File {
            action: "make a folder in",
            path: std::env::temp_dir(),
            source,
        })?;
        Ok(Self {
            folder,
            sizes: Mutex::default(),
        })
    }

    pub(super) fn begin(&self) -> io::Result<Upload> {
        Ok(Upload {
            file: NamedTempFile::with_prefix_in("upload-", self.folder.path())?,
            hasher: Hasher::sha256(),
            received: 0,
        })
    }

    /// Keeps a complete upload under its digest, unless its bytes have another one: then that one is the error.
    pub(super) fn keep(&self, upload: Upload, expected: &Digest) -> io::Result<Result<u64, Digest>> {
        let found = upload.hasher.finish();
        if found != *expected {
            return Ok(Err(found));
        }
        upload
            .file
            .persist(self.path(&found))
            .map_err(|error| error.error)?;
        self.sizes().insert(found, upload.received);
        Ok(Ok(upload.received))
    }

    /// Keeps bytes that are in memory anyway.
    pub(super) fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::sha256_of(bytes);
        if self.size(&digest).is_none() {
            std::fs::write(self.path(&digest), bytes)?;
            self.sizes().insert(digest.clone(), bytes.len() as u64);
        }
        Ok(digest)
    }

    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        self.sizes().get(digest).copied()
    }

    /// Takes a blob for one that is not there.
    pub(super) fn forget(&self, digest: &Digest) {
        self.sizes().remove(digest);
    }

    pub(super) fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.size(digest)?;
        std::fs::read(self.path(digest)).ok()
    }

    /// The answer to a HEAD or GET of a blob that is known to be there, with `Range` as in RFC 9110 §14.
    pub(super) async fn respond(&self, method: &Method, headers: &HeaderMap, digest: &Digest) -> Response {
        let Some(size) = self.size(digest) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        let (status, start, length) = match range.map(|range| span(range, size)) {
            None | Some(None) => (StatusCode::OK, 0, size),
            Some(Some(Ok((start, length)))) => (StatusCode::PARTIAL_CONTENT, start, length),
            Some(Some(Err(()))) => {
                let unsatisfied = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
                return (StatusCode::RANGE_NOT_SATISFIABLE, unsatisfied).into_response();
            }
        };
        let body = if method == Method::HEAD {
            Ok(Body::empty())
        } else {
            self.stream(digest, start, length).await
        };
        let Ok(body) = body else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        if let Ok(value) = HeaderValue::from_str(digest.as_str()) {
            headers.insert("docker-content-digest", value);
        }
        if status == StatusCode::PARTIAL_CONTENT
            && let Ok(value) = HeaderValue::from_str(&format!(
                "bytes {start}-{}/{size}",
                start + length.saturating_sub(1)
            ))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        response
    }

    async fn stream(&self, digest: &Digest, start: u64, length: u64) -> io::Result<Body> {
        let mut file = tokio::fs::File::open(self.path(digest)).await?;
        file.seek(SeekFrom::Start(start)).await?;
        Ok(Body::from_stream(ReaderStream::with_capacity(
            file.take(length),
            64 * 1024,
        )))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join(digest.encoded())
    }

    fn sizes(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, u64>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file: &mut File = self.file.as_file_mut();
        file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes are here.
    pub(super) fn received(&self) -> u64 {
        self.received
    }
}

/// Where a `Range` starts and how long it is: `None` where it is not one to follow, an error where it lies outside.
fn span(range: &str, size: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let length = last.parse::<u64>().ok()?.min(size);
        return Some(if length == 0 {
            Err(())
        } else {
            Ok((size - length, length))
        });
    }
    let first = first.parse::<u64>().ok()?;
    let last = if last.is_empty() {
        u64::MAX
    } else {
        last.parse::<u64>().ok()?
    };
    if last < first {
        return None;
    }
    if first >= size {
        return Some(Err(()));
    }
    Some(Ok((first, last.min(size - 1) - first + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_clipped_refused_or_ignored() {
        for (range, expected) in [
            ("bytes=0-3", Some(Ok((0, 4)))),
            ("bytes=5-", Some(Ok((5, 5)))),
            ("bytes=-4", Some(Ok((6, 4)))),
            ("bytes=-40", Some(Ok((0, 10)))),
            ("bytes=9-100", Some(Ok((9, 1)))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=4-2", None),
            ("bytes=1-2,4-5", None),
            ("lines=1-2", None),
            ("bytes=x-", None),
        ] {
            assert_eq!(span(range, 10), expected, "{range}");
        }
        assert_eq!(span("bytes=0-", 0), Some(Err(())));
    }

    #[test]
    fn an_upload_is_kept_only_under_its_own_digest() {
        let blobs = Blobs::new().unwrap();
        let mut upload = blobs.begin().unwrap();
        upload.append(b"he").unwrap();
        upload.append(b"llo").unwrap();
        let digest = Digest::sha256_of("hello");
        assert_eq!(
            blobs.keep(upload, &Digest::sha256_of("x")).unwrap(),
            Err(digest.clone())
        );
        assert_eq!(blobs.size(&digest), None);
        assert_eq!(blobs.put(b"hello").unwrap(), digest);
        assert_eq!(blobs.read(&digest).unwrap(), b"hello");
    }
}
