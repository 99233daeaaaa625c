//! Copying: blobs that stream from one registry to another, and whole images with what refers to them.

use super::{Blob, BlobSource, Manifest, OciClient, Pushed};
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::Descriptor;
use std::collections::HashSet;
use towpath_core::{Digest, ImageRef};
use towpath_elements::{Error, ErrorKind, Result};

/// Indexes within indexes, and referrers of referrers, deeper than this are refused.
const DEEPEST: usize = 4;

/// The digest of a descriptor, as the words of this workspace have it.
pub(crate) fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    Ok(descriptor.digest().to_string().parse()?)
}

/// Whether a layer lies elsewhere by design and no registry holds it.
pub(crate) fn is_foreign(descriptor: &Descriptor) -> bool {
    let media_type = descriptor.media_type().to_string();
    media_type.contains("nondistributable") || media_type.contains("foreign")
}

impl OciClient {
    /// Pushes blobs, a few at once, all or the first error.
    ///
    /// # Errors
    /// Those of [`push_blob`](Self::push_blob).
    pub async fn push_blobs(&self, repository: &ImageRef, blobs: Vec<Blob>) -> Result<Vec<Pushed>> {
        let mut seen = HashSet::new();
        let distinct: Vec<Blob> = blobs
            .into_iter()
            .filter(|blob| seen.insert(blob.digest.clone()))
            .collect();
        stream::iter(distinct)
            .map(|blob| async move { self.push_blob(repository, &blob).await })
            .buffered(self.settings().parallel.max(1))
            .try_collect()
            .await
    }

    /// Copies an image, given by digest, with everything it consists of and what refers to it. Byte for byte: the
    /// digest stays. The tag of `to`, where it has one, is set last.
    ///
    /// # Errors
    /// *Invalid* without a digest, *not found* where the source has no such image.
    pub async fn copy_image(&self, from: &ImageRef, to: &ImageRef) -> Result<Manifest> {
        let refuse = |detail: &str| {
            Error::new(ErrorKind::Invalid, self.service(), "copy", from).because(detail.to_owned())
        };
        let digest = from
            .digest()
            .ok_or_else(|| refuse("it is not given by digest").advise("resolve it first"))?;
        if to.digest().is_some_and(|wanted| wanted != digest) {
            return Err(refuse("the target names another digest"));
        }
        let manifest = self.required_manifest(from).await?;
        let mut seen = HashSet::new();
        self.copy_closure(from, to, &manifest, None, 0, &mut seen).await?;
        if let Some(tag) = to.tag() {
            self.put_tag(to, tag, &manifest).await?;
        }
        Ok(manifest)
    }

    /// The manifest, or *not found*.
    pub(crate) async fn required_manifest(&self, image: &ImageRef) -> Result<Manifest> {
        self.manifest(image).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, self.service(), "read the manifest of", image)
                .because("the registry has no such image")
                .advise(
                    "check the name and the digest; a missing permission or a missing pull-through rule looks the same",
                )
        })
    }

    async fn copy_closure(
        &self,
        from: &ImageRef,
        to: &ImageRef,
        manifest: &Manifest,
        subject: Option<(&Digest, &Descriptor)>,
        depth: usize,
        seen: &mut HashSet<Digest>,
    ) -> Result<()> {
        if depth > DEEPEST {
            return Err(Error::new(ErrorKind::Invalid, self.service(), "copy", from)
                .because(format!("it is nested more than {DEEPEST} deep")));
        }
        if !seen.insert(manifest.digest.clone()) {
            return Ok(());
        }
        // A registry takes a manifest only with all its parts, so one that is there is whole.
        let there = self
            .manifest_digest(&to.at(manifest.digest.clone()))
            .await?
            .is_some();
        if !there {
            for child in manifest.children() {
                let child = self.required_manifest(&from.at(digest_of(child)?)).await?;
                Box::pin(self.copy_closure(from, to, &child, None, depth + 1, seen)).await?;
            }
            let mut blobs = Vec::new();
            for descriptor in manifest.blobs().into_iter().filter(|blob| !is_foreign(blob)) {
                blobs.push(remote_blob(from, descriptor)?);
            }
            self.push_blobs(to, blobs).await?;
        }
        match subject {
            Some((subject, descriptor)) => self.put_referrer(to, subject, manifest, descriptor).await?,
            None if !there => self.put_manifest(to, manifest).await?,
            None => {}
        }
        let referrers = self.referrers(from, &manifest.digest).await?;
        let known = match referrers.is_empty() {
            true => Vec::new(),
            false => self.referrers(to, &manifest.digest).await?,
        };
        for referrer in referrers {
            if known.iter().any(|known| known.digest() == referrer.digest()) {
                continue;
            }
            let found = self.required_manifest(&from.at(digest_of(&referrer)?)).await?;
            let subject = Some((&manifest.digest, &referrer));
            Box::pin(self.copy_closure(from, to, &found, subject, depth + 1, seen)).await?;
        }
        Ok(())
    }
}

/// A blob that lies in the repository of `from`.
pub(crate) fn remote_blob(from: &ImageRef, descriptor: &Descriptor) -> Result<Blob> {
    let digest = digest_of(descriptor)?;
    Ok(Blob {
        source: BlobSource::Registry {
            repository: from.clone(),
            digest: digest.clone(),
            size: descriptor.size(),
        },
        digest,
        size: descriptor.size(),
    })
}
