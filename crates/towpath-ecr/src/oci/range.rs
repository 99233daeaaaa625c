//! A part of a file, where a blob lies within an archive.

use super::blob::{BlobStream, ReadBlob, read_file};
use super::{Blob, BlobSource};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use towpath_core::Digest;
use towpath_elements::{Error, ErrorKind, Result};

/// Some bytes of a file, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileRange {
    pub(crate) path: PathBuf,
    pub(crate) start: u64,
    pub(crate) size: u64,
}

impl FileRange {
    /// The blob that these bytes are said to be.
    pub(crate) fn blob(self, digest: Digest) -> Blob {
        Blob {
            digest,
            size: self.size,
            source: BlobSource::Other(Arc::new(self)),
        }
    }

    /// All of the bytes, in memory. The caller knows that they are few.
    pub(crate) async fn bytes(self, service: &'static str) -> Result<Bytes> {
        blocking(self.path.clone(), service, move || {
            let read = || {
                let mut file = File::open(&self.path)?;
                file.seek(SeekFrom::Start(self.start))?;
                let mut bytes = Vec::new();
                file.take(self.size).read_to_end(&mut bytes)?;
                Ok(bytes)
            };
            let bytes = read().map_err(failed(service, "read", &self.path))?;
            match bytes.len() as u64 == self.size {
                true => Ok(bytes.into()),
                false => Err(
                    Error::new(ErrorKind::Conflict, service, "read", self.path.display())
                        .because("it became shorter while it was read"),
                ),
            }
        })
        .await
    }
}

#[async_trait]
impl ReadBlob for FileRange {
    async fn read(&self, offset: u64) -> Result<BlobStream> {
        let offset = offset.min(self.size);
        read_file(
            &self.path,
            self.start.saturating_add(offset),
            Some(self.size - offset),
        )
        .await
    }
}

/// Does work on files where it may take its time.
pub(crate) async fn blocking<T: Send + 'static>(
    path: PathBuf,
    service: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::new(ErrorKind::Unavailable, service, "work on", path.display()).caused_by(error)
    })?
}

/// What an operation on a file meets.
pub(crate) fn failed(
    service: &'static str,
    attempted: &'static str,
    path: &Path,
) -> impl Fn(std::io::Error) -> Error + Send + Sync + 'static {
    let path = path.to_owned();
    move |error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, service, attempted, path.display())
            .because(error.to_string())
            .caused_by(error)
    }
}
