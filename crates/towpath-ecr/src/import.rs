//! Bringing an upstream image through the cache, whole (*Amazon ECR User Guide*, "Pulling an image with a pull through
//! cache rule").

use crate::client::Ecr;
use crate::error::SERVICE;
use crate::oci::copy::{digest_of, is_foreign};
use crate::oci::{Manifest, OciClient};
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::Descriptor;
use std::collections::HashSet;
use towpath_core::ImageRef;
use towpath_elements::{Error, ErrorKind, Result};

const ATTEMPTED: &str = "import";

/// Reads an upstream image through the cache until the cache has all of it. Returns its cached name and its manifest.
pub(crate) async fn import(ecr: &Ecr, upstream: &ImageRef) -> Result<(ImageRef, Manifest)> {
    let cached = ecr.cached_reference(upstream).await?;
    let manifest =
        ecr.oci.manifest(&cached).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, SERVICE, ATTEMPTED, upstream)
            .because(format!("the cache has no {cached}, and did not get it from the upstream"))
            .advise(
                "check that the upstream has it, and that the caller may ecr:BatchImportUpstreamImage and \
                 ecr:CreateRepository: their absence looks the same",
            )
        })?;
    compare_with_upstream(ecr, upstream, &manifest).await?;
    let mut blobs: Vec<Descriptor> = manifest.blobs().into_iter().cloned().collect();
    for child in manifest.children() {
        let child = ecr.oci.required_manifest(&cached.at(digest_of(child)?)).await?;
        if !child.children().is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, SERVICE, ATTEMPTED, upstream)
                .because("it is an index within an index"));
        }
        blobs.extend(child.blobs().into_iter().cloned());
    }
    let mut seen = HashSet::new();
    blobs.retain(|blob| !is_foreign(blob) && seen.insert(blob.digest().to_string()));
    let (oci, cached_ref) = (&ecr.oci, &cached);
    stream::iter(blobs)
        .map(|blob| async move { warm(oci, cached_ref, &blob).await })
        .buffered(oci.settings().parallel.max(1))
        .try_collect::<Vec<()>>()
        .await?;
    Ok((cached, manifest))
}

/// Makes sure that the cache has a blob: asked for where it says so, read in full where it does not.
async fn warm(oci: &OciClient, cached: &ImageRef, blob: &Descriptor) -> Result<()> {
    let digest = digest_of(blob)?;
    match oci.blob_size(cached, &digest).await? {
        Some(size) if size == blob.size() => Ok(()),
        Some(size) => Err(
            Error::new(ErrorKind::Protocol, SERVICE, ATTEMPTED, cached.at(digest)).because(format!(
                "the cache has {size} bytes of it, its descriptor says {}",
                blob.size()
            )),
        ),
        None => {
            let mut stream = oci.blob(cached, &digest, blob.size()).await?;
            while stream.try_next().await?.is_some() {}
            Ok(())
        }
    }
}

/// Asks the upstream itself, where this client was told how to reach it.
async fn compare_with_upstream(ecr: &Ecr, upstream: &ImageRef, cached: &Manifest) -> Result<()> {
    if upstream.digest().is_some()
        || !ecr
            .upstreams
            .settings()
            .endpoints
            .contains_key(upstream.registry())
    {
        return Ok(());
    }
    match ecr.upstreams.manifest_digest(upstream).await? {
        Some(digest) if digest == cached.digest => Ok(()),
        Some(digest) => Err(Error::new(ErrorKind::Conflict, SERVICE, ATTEMPTED, upstream)
            .because(format!(
                "the upstream has {digest}, the cache still {}",
                cached.digest
            ))
            .advise("the cache looks again after 24 hours; import by digest to get this one now")),
        None => Err(
            Error::new(ErrorKind::NotFound, SERVICE, ATTEMPTED, upstream).because(format!(
                "the upstream no longer has it; the cache still has {}",
                cached.digest
            )),
        ),
    }
}
