//! A blob on its way into the bodies of requests.

use super::Blob;
use super::blob::BlobStream;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use towpath_elements::Result;

/// Hands out the bytes of a blob in portions, one for the body of each request. What is open of the source after a
/// portion serves the next one, so that a source elsewhere is asked once, however many requests carry it on.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    blob: Blob,
    left: Arc<Mutex<Option<Left>>>,
}

/// What is open of the source, between two portions.
struct Left {
    at: u64,
    rest: Bytes,
    stream: BlobStream,
}

impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Left")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Feed {
    pub(super) fn new(blob: &Blob) -> Self {
        Self {
            blob: blob.clone(),
            left: Arc::default(),
        }
    }

    /// The `length` bytes from `offset` on. Reads the source anew unless the portion before ended there.
    pub(super) async fn portion(&self, offset: u64, length: u64) -> Result<BlobStream> {
        let left = self.take().filter(|left| left.at == offset);
        let left = match left {
            Some(left) => left,
            None => Left {
                at: offset,
                rest: Bytes::new(),
                stream: self.blob.to_push(offset).await?,
            },
        };
        let feed = self.clone();
        let pieces = stream::try_unfold((Some(left), length), move |(left, missing)| {
            let feed = feed.clone();
            async move {
                let Some(mut left) = left.filter(|_| missing > 0) else {
                    return Ok(None);
                };
                while left.rest.is_empty() {
                    match left.stream.try_next().await? {
                        Some(bytes) => left.rest = bytes,
                        None => return Ok(None),
                    }
                }
                let most = usize::try_from(missing).unwrap_or(usize::MAX);
                let piece = left.rest.split_to(left.rest.len().min(most));
                left.at += piece.len() as u64;
                let missing = missing - piece.len() as u64;
                // With the last piece, not after it: who knows the length does not ask for what follows.
                let left = match missing {
                    0 => feed.keep(left),
                    _ => Some(left),
                };
                Ok(Some((piece, (left, missing))))
            }
        });
        Ok(pieces.boxed())
    }

    fn take(&self) -> Option<Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, left: Left) -> Option<Left> {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{BlobSource, ReadBlob};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Bytes in pieces of three, and how often they were opened.
    #[derive(Debug)]
    struct Counted(Bytes, AtomicUsize);

    #[async_trait::async_trait]
    impl ReadBlob for Counted {
        async fn read(&self, offset: u64) -> Result<BlobStream> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let rest = self.0.slice(offset as usize..);
            let pieces: Vec<_> = rest
                .chunks(3)
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect();
            Ok(stream::iter(pieces).boxed())
        }
    }

    async fn read(feed: &Feed, offset: u64, length: u64) -> Bytes {
        let pieces: Vec<Bytes> = feed
            .portion(offset, length)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        pieces.concat().into()
    }

    #[tokio::test]
    async fn portions_that_follow_each_other_read_the_source_once() {
        let source = Arc::new(Counted("0123456789".into(), AtomicUsize::new(0)));
        let blob = Blob {
            source: BlobSource::Other(Arc::<Counted>::clone(&source)),
            ..Blob::from_bytes("0123456789")
        };
        let feed = Feed::new(&blob);
        assert_eq!(read(&feed, 0, 4).await, "0123");
        assert_eq!(read(&feed, 4, 4).await, "4567");
        assert_eq!(read(&feed, 8, 2).await, "89");
        assert_eq!(source.1.load(Ordering::Relaxed), 1);
        assert_eq!(read(&feed, 5, 5).await, "56789");
        assert_eq!(source.1.load(Ordering::Relaxed), 2);
    }
}
