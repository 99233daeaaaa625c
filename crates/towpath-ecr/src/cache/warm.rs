//! Bringing an upstream image through the cache, whole (*Amazon ECR User Guide*, "Pulling an image with a pull through
//! cache rule in Amazon ECR").

use super::closure::Closure;
use super::diagnose::{Behind, usual_name};
use super::fill::fill;
use super::problem::CacheProblem;
use crate::client::Ecr;
use crate::oci::Manifest;
use towpath_core::{Digest, ImageRef};
use towpath_elements::Result;
use towpath_elements::registry::{Platform, PlatformImage};

/// What is brought through the cache, and how sure it must be. By default every platform, and the upstream is asked where
/// this client reaches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmOptions {
    /// The platforms to fill, with their attestations; all of them where empty, as by default. The service itself stores every child
    /// of an index when it imports one; their layers come when they are read.
    pub platforms: Vec<Platform>,
    /// Whether the upstream is asked if the cache is right; [`Verify::WhereReachable`] by default.
    pub verify: Verify,
}

impl WarmOptions {
    /// Restricts it to these platforms.
    #[must_use]
    pub fn platforms(mut self, platforms: impl IntoIterator<Item = Platform>) -> Self {
        self.platforms = platforms.into_iter().collect();
        self
    }

    /// Sets whether the upstream is asked.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }
}

/// Whether the upstream is asked which digest a tag has there, with one `HEAD`. A digest needs no asking: the bytes that
/// the cache serves are always compared with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// It is not.
    Never,
    /// It is, where [`EcrConfig::upstream`](crate::EcrConfig::upstream) says how this client reaches it. No answer is no
    /// failure: [`Warmed::verification`] says so.
    #[default]
    WhereReachable,
    /// It is, at its own address unless the configuration has another, and has to answer.
    Required,
}

/// How sure it is that the cache has what the upstream has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verification {
    /// It was asked for by digest.
    ByDigest,
    /// The upstream has the same digest at this tag now.
    ByUpstream,
    /// The upstream was not asked: the cache may be up to a day behind.
    NotAsked,
    /// The upstream did not say; the text is why.
    NoAnswer(String),
}

/// An image that the cache now has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warmed {
    /// Its name at the upstream, as asked.
    pub upstream: ImageRef,
    /// Its name behind the cache, by digest.
    pub cached: ImageRef,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Its runnable platforms, those that were asked for.
    pub platforms: Vec<PlatformImage>,
    /// How many manifests and indexes it has.
    pub manifests: usize,
    /// How many blobs it has.
    pub blobs: usize,
    /// How many of them the cache did not have, so that they were read through it. 0 where the service had brought them
    /// in with the manifest.
    pub filled: usize,
    /// How many bytes were read for that.
    pub bytes_read: u64,
    /// Blobs that were read in full, and that the cache does not list yet.
    pub arriving: Vec<Digest>,
    /// How sure it is that this is what the upstream has.
    pub verification: Verification,
}

impl Ecr {
    /// Brings an upstream image through the cache: its manifest or index, every platform or chosen ones, and every blob.
    ///
    /// What the cache has is not read again: the API is asked for a hundred blobs at a time. What it lacks is read
    /// through it, a few blobs at once, verified and thrown away. A second call costs the manifests and that question. A
    /// caller who may not `ecr:BatchCheckLayerAvailability` reads all of it each time.
    ///
    /// A reference with a tag and a digest is taken by digest; where the cache does not get that, it is asked for the tag
    /// first, which brings in all that the tag names.
    ///
    /// # Errors
    /// Most carry a [`CacheProblem`]: what the registry answers with 404, 403, 429 or 503 is looked into. *Conflict* where
    /// the cache is behind the upstream, *not found* where parts do not come, *invalid* where a chosen platform is not
    /// among those of the image.
    pub async fn warm(&self, upstream: &ImageRef, options: &WarmOptions) -> Result<Warmed> {
        let (warmed, _) = self.warm_image(upstream, options, "warm the cache with").await?;
        Ok(warmed)
    }

    /// [`warm`](Self::warm), with the manifest.
    pub(crate) async fn warm_image(
        &self,
        upstream: &ImageRef,
        options: &WarmOptions,
        attempted: &'static str,
    ) -> Result<(Warmed, Manifest)> {
        let asked = usual_name(upstream)?;
        let (rule, cached) = self.cached_name(&asked).await?;
        let behind = Behind {
            ask: match options.verify {
                Verify::Never => false,
                Verify::WhereReachable => self.reaches(&asked),
                Verify::Required => true,
            },
            rule,
            upstream: asked,
            cached,
        };
        let root = match self.root(&behind).await {
            Ok(Some(root)) => root,
            Ok(None) => return Err(self.explain(&behind, attempted, None).await),
            Err(error) => return Err(self.explain(&behind, attempted, Some(error)).await),
        };
        let verification = self.verify(&behind, options.verify, &root, attempted).await?;
        let by_digest = behind.cached.at(root.digest.clone());
        let outcome = self.complete(&by_digest, &root, &options.platforms).await;
        let (closure, filled) = match outcome {
            Ok(done) => done,
            Err(error) => return Err(self.explain(&behind, attempted, Some(error)).await),
        };
        let mut missing = closure.missing;
        missing.extend(filled.missing);
        if !missing.is_empty() {
            return Err(CacheProblem::HalfFilled { missing }.error(attempted, &behind.upstream, None));
        }
        let warmed = Warmed {
            upstream: upstream.clone(),
            cached: by_digest,
            digest: root.digest.clone(),
            platforms: closure.platforms,
            manifests: closure.manifests,
            blobs: closure.blobs.len(),
            filled: filled.read,
            bytes_read: filled.bytes,
            arriving: filled.arriving,
            verification,
        };
        Ok((warmed, root))
    }

    async fn complete(
        &self,
        cached: &ImageRef,
        root: &Manifest,
        platforms: &[Platform],
    ) -> Result<(Closure, super::fill::Filled)> {
        let closure = Closure::read(self, cached, root, platforms).await?;
        let filled = fill(self, cached, &closure.blobs).await?;
        Ok((closure, filled))
    }

    /// The manifest or index that the reference names behind the cache.
    async fn root(&self, behind: &Behind) -> Result<Option<Manifest>> {
        let found = self.oci.manifest(&behind.cached).await?;
        let (None, Some(tag), Some(_)) = (&found, behind.cached.tag(), behind.cached.digest()) else {
            return Ok(found);
        };
        // Some have seen the service bring in tags only. With the tag come the children that a digest may name.
        match self.oci.manifest(&behind.cached.tagged(tag.clone())).await? {
            Some(_) => self.oci.manifest(&behind.cached).await,
            None => Ok(None),
        }
    }

    async fn verify(
        &self,
        behind: &Behind,
        verify: Verify,
        root: &Manifest,
        attempted: &'static str,
    ) -> Result<Verification> {
        let upstream = &behind.upstream;
        if upstream.digest().is_some() {
            return Ok(Verification::ByDigest);
        }
        if !behind.ask {
            return Ok(Verification::NotAsked);
        }
        let cached = root.digest.clone();
        match self.upstreams.manifest_digest(upstream).await {
            Ok(Some(found)) if found == cached => Ok(Verification::ByUpstream),
            Ok(Some(found)) => {
                // A tag that moved leaves its old image behind; one that was never there was put into the cache.
                let old = self.upstreams.manifest_digest(&upstream.at(cached.clone())).await;
                let problem = match old {
                    Ok(None) => CacheProblem::Mismatch {
                        cached,
                        upstream: found,
                    },
                    Ok(Some(_)) | Err(_) => CacheProblem::StaleTag {
                        cached,
                        upstream: found,
                    },
                };
                Err(problem.error(attempted, upstream, None))
            }
            Ok(None) => Err(CacheProblem::UpstreamRemoved { cached }.error(attempted, upstream, None)),
            Err(error) if verify == Verify::Required => Err(error),
            Err(error) => {
                tracing::warn!(%upstream, %error, "the upstream does not say whether the cache is right");
                Ok(Verification::NoAnswer(error.to_string()))
            }
        }
    }
}
