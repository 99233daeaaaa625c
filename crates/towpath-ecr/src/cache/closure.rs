//! What an image consists of, as the cache has it: manifests, and the blobs that they name.

use crate::client::Ecr;
use crate::error::SERVICE;
use crate::oci::copy::{digest_of, is_foreign};
use crate::oci::{Manifest, ManifestContent};
use crate::platform::{matches, platforms, runnable};
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::Descriptor;
use std::collections::HashSet;
use towpath_core::{Digest, ImageRef};
use towpath_elements::registry::{Platform, PlatformImage};
use towpath_elements::{Error, ErrorKind, Result};

/// Indexes within indexes deeper than this are refused.
const DEEPEST: usize = 4;

/// By this annotation BuildKit says which platform's manifest an attestation is about.
const ATTESTED: &str = "vnd.docker.reference.digest";

/// An image and everything below it.
#[derive(Debug, Default)]
pub(super) struct Closure {
    /// How many manifests and indexes there are.
    pub(super) manifests: usize,
    /// Every blob once.
    pub(super) blobs: Vec<(Digest, u64)>,
    /// The runnable platforms.
    pub(super) platforms: Vec<PlatformImage>,
    /// Manifests that an index names and the cache does not have.
    pub(super) missing: Vec<Digest>,
}

impl Closure {
    /// Reads everything below `root` from the cache. With `wanted` platforms only those, and what attests to them.
    pub(super) async fn read(
        ecr: &Ecr,
        cached: &ImageRef,
        root: &Manifest,
        wanted: &[Platform],
    ) -> Result<Self> {
        let mut closure = Self::default();
        let mut seen_manifests = HashSet::from([root.digest.clone()]);
        let mut seen_blobs = HashSet::new();
        let mut level = vec![root.clone()];
        let mut depth = 0;
        while !level.is_empty() {
            let mut below = Vec::new();
            for manifest in &level {
                closure.manifests += 1;
                for blob in manifest.blobs().into_iter().filter(|blob| !is_foreign(blob)) {
                    let digest = digest_of(blob)?;
                    if seen_blobs.insert(digest.clone()) {
                        closure.blobs.push((digest, blob.size()));
                    }
                }
                for child in closure.children(manifest, wanted)? {
                    if seen_manifests.insert(child.clone()) {
                        below.push(child);
                    }
                }
            }
            if depth == DEEPEST && !below.is_empty() {
                return Err(
                    refuse(cached).because(format!("its indexes are nested more than {DEEPEST} deep"))
                );
            }
            depth += 1;
            level = closure.fetch(ecr, cached, below).await?;
        }
        if matches!(root.content, ManifestContent::Image(_)) {
            closure.platforms = platforms(&ecr.oci.repository(cached), root).await?;
            // One that does not say what it is for may be for anything.
            let known = closure.platforms.iter().all(|part| part.platform.is_some());
            if known {
                closure.require(cached, wanted)?;
            }
        } else {
            closure.require(cached, wanted)?;
        }
        Ok(closure)
    }

    /// The children of an index that are wanted.
    fn children(&mut self, manifest: &Manifest, wanted: &[Platform]) -> Result<Vec<Digest>> {
        let mut children = Vec::new();
        for child in manifest.children() {
            let digest = digest_of(child)?;
            match runnable(child) {
                Some(platform) => {
                    let is_wanted =
                        wanted.is_empty() || wanted.iter().any(|wanted| matches(wanted, &platform));
                    if is_wanted {
                        children.push(digest.clone());
                    }
                    if is_wanted || !wanted.is_empty() {
                        self.platforms.push(PlatformImage {
                            platform: Some(platform),
                            digest,
                        });
                    }
                }
                None if wanted.is_empty() || is_index(child) => children.push(digest),
                None => {}
            }
        }
        if !wanted.is_empty() {
            for child in manifest.children() {
                let about = child.annotations().as_ref().and_then(|found| found.get(ATTESTED));
                if about.is_some_and(|about| children.iter().any(|chosen| chosen.as_str() == about)) {
                    children.push(digest_of(child)?);
                }
            }
        }
        Ok(children)
    }

    async fn fetch(&mut self, ecr: &Ecr, cached: &ImageRef, wanted: Vec<Digest>) -> Result<Vec<Manifest>> {
        let found: Vec<_> = stream::iter(wanted)
            .map(|digest| async move {
                let manifest = ecr.oci.manifest(&cached.at(digest.clone())).await?;
                Ok::<_, Error>((digest, manifest))
            })
            .buffered(ecr.oci.settings().parallel.max(1))
            .try_collect()
            .await?;
        let mut manifests = Vec::new();
        for (digest, manifest) in found {
            match manifest {
                Some(manifest) => manifests.push(manifest),
                None => self.missing.push(digest),
            }
        }
        Ok(manifests)
    }

    /// Keeps the platforms that are wanted; refuses where one of them is not there.
    fn require(&mut self, cached: &ImageRef, wanted: &[Platform]) -> Result<()> {
        let has = |wanted: &Platform, part: &PlatformImage| {
            part.platform.as_ref().is_some_and(|found| matches(wanted, found))
        };
        let absent = |wanted: &&Platform| !self.platforms.iter().any(|part| has(wanted, part));
        if let Some(absent) = wanted.iter().find(absent) {
            let there: Vec<String> = self
                .platforms
                .iter()
                .filter_map(|part| part.platform.as_ref().map(ToString::to_string))
                .collect();
            return Err(refuse(cached)
                .because(format!("it has no {absent}; it has {}", there.join(", ")))
                .advise("choose among the platforms it has"));
        }
        if !wanted.is_empty() {
            self.platforms
                .retain(|part| wanted.iter().any(|wanted| has(wanted, part)));
        }
        Ok(())
    }
}

fn refuse(cached: &ImageRef) -> Error {
    Error::new(
        ErrorKind::Invalid,
        SERVICE,
        "read the image behind the cache",
        cached,
    )
}

fn is_index(descriptor: &Descriptor) -> bool {
    use crate::oci::media;
    [media::OCI_INDEX, media::DOCKER_LIST].contains(&descriptor.media_type().to_string().as_str())
}
