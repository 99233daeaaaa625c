//! Seeing to it that the cache has blobs: those that it has are left alone, those that it has not are read through it.

use crate::batch::LayerAvailability;
use crate::client::Ecr;
use crate::error::SERVICE;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use towpath_core::{Digest, ImageRef};
use towpath_elements::{Error, ErrorKind, Result};

/// How a cache came to its blobs.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// How many were read through the cache, since it did not have them.
    pub(super) read: usize,
    /// How many bytes that took.
    pub(super) bytes: u64,
    /// What the cache did not get.
    pub(super) missing: Vec<Digest>,
    /// What was read in full, and the cache does not list yet.
    pub(super) arriving: Vec<Digest>,
}

pub(super) async fn fill(ecr: &Ecr, cached: &ImageRef, blobs: &[(Digest, u64)]) -> Result<Filled> {
    let known = sizes(ecr, cached, blobs).await?;
    let asked = known.is_some();
    let there = known.unwrap_or_default();
    let mut filled = Filled::default();
    let mut absent = Vec::new();
    for (digest, size) in blobs {
        match there.get(digest) {
            Some(found) if found == size => {}
            Some(found) => {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    SERVICE,
                    "read the blob behind the cache",
                    cached.at(digest.clone()),
                )
                .because(format!(
                    "the cache has {found} bytes of it, its descriptor says {size}"
                )));
            }
            None => absent.push((digest.clone(), *size)),
        }
    }
    let outcomes: Vec<_> = stream::iter(absent)
        .map(|(digest, size)| async move {
            let read = read_through(ecr, cached, &digest, size).await?;
            Ok::<_, Error>((digest, size, read))
        })
        .buffered(ecr.oci.settings().parallel.max(1))
        .try_collect()
        .await?;
    let mut read = Vec::new();
    for (digest, size, came) in outcomes {
        match came {
            true => {
                filled.bytes += size;
                read.push((digest, size));
            }
            false => filled.missing.push(digest),
        }
    }
    filled.read = read.len();
    if asked && !read.is_empty() {
        // The service may store what it hands on only after it has handed it on.
        let there = sizes(ecr, cached, &read).await?.unwrap_or_default();
        filled.arriving = read
            .into_iter()
            .map(|(digest, _)| digest)
            .filter(|digest| !there.contains_key(digest))
            .collect();
    }
    Ok(filled)
}

/// Reads a blob to its end, verified; `false` where the cache does not get it.
async fn read_through(ecr: &Ecr, cached: &ImageRef, digest: &Digest, size: u64) -> Result<bool> {
    let read = async {
        let mut stream = ecr.oci.blob(cached, digest, size).await?;
        while stream.try_next().await?.is_some() {}
        Ok(())
    };
    match read.await {
        Ok(()) => Ok(true),
        Err(error) if Error::is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The sizes of the blobs that the cache has; `None` where the caller may not `ecr:BatchCheckLayerAvailability`, which
/// stands behind the registry's `HEAD` too.
async fn sizes(
    ecr: &Ecr,
    cached: &ImageRef,
    blobs: &[(Digest, u64)],
) -> Result<Option<HashMap<Digest, u64>>> {
    let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| digest.clone()).collect();
    let mut batches = ecr.check_layers(cached.repository(), stream::iter(digests));
    let mut sizes = HashMap::new();
    while let Some(batch) = batches.next().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) if error.is_denied() => return Ok(None),
            Err(error) => return Err(error),
        };
        for layer in batch.done {
            if let (LayerAvailability::Available, Some(size)) = (layer.availability, layer.size) {
                sizes.insert(layer.digest, size);
            }
        }
    }
    Ok(Some(sizes))
}
