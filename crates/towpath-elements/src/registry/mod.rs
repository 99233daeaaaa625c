//! Elements D1, D2, E1 and E2: the private registry, its pull-through cache, and the public registries behind it.
//!
//! Whoever uses `towpath-ecr` finds all of this there, too: read `towpath_ecr::registry` for
//! `towpath_elements::registry`, and `towpath_ecr` for `towpath_core`.

mod gate_report;
mod policy;
mod scan;
mod verdict;

pub use gate_report::GateReport;
pub use policy::{Allowance, Packages, ScanPolicy};
pub use scan::{
    Availability, Coverage, Finding, NoResult, PlatformScan, RegistryExt, ScanReport, ScanStatus, Scanner,
    Score, Severity,
};
pub use verdict::{AllowanceUse, Fate, JudgedFinding, PlatformVerdict, ScanVerdict, Use};

use crate::Result;
pub use crate::assembly::{Assembly, Compression, ConfigChange, Files, FilesFrom, Layer};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use towpath_core::{Digest, ImageRef, RepositoryName, Tag};

/// What a flow asks of the registry.
///
/// # Contract
/// 1. `what_is_not_there_resolves_to_none`: [`resolve`](Self::resolve) is `None` for an unknown tag, digest or
///    repository, and otherwise names the digest of the exact bytes that the registry serves.
/// 2. `an_assembled_image_is_the_same_every_time`: [`assemble`](Self::assemble) with equal input gives an equal digest;
///    doing it twice stores nothing new and succeeds.
/// 3. `an_assembled_image_stands_on_its_base`: the base's layers come first and unchanged, for every platform asked for.
/// 4. `a_tag_that_is_right_stays`: [`tag`](Self::tag) succeeds where the tag already names this digest, immutable or not.
/// 5. `an_immutable_tag_that_is_taken_is_a_conflict`: where it names another digest and may not move, `tag` is a
///    *conflict*, and the tag still names what it did.
/// 6. `an_import_is_what_the_upstream_has`: [`import`](Self::import) gives the digest that the upstream serves, and
///    afterwards the cache holds the image for every platform.
/// 7. `a_missing_rule_is_told_apart`: [`cached`](Self::cached) of an upstream without a pull-through rule is *not
///    found* and says that the rule is missing.
/// 8. `a_scan_is_reported_per_platform`: [`scan`](Self::scan) of an index reports each runnable platform by its own
///    digest; what has not been scanned is *pending*, never complete.
/// 9. `a_copy_has_the_same_digest`: [`copy`](Self::copy) gives the digest it was given, every platform included.
/// 10. `a_scan_that_never_comes_ends_the_wait`: where no rule has the repository scanned and nobody asked for a scan,
///     each platform is *unavailable* as [`NotCovered`](NoResult::NotCovered), and
///     [`wait_for_scan`](RegistryExt::wait_for_scan) says so with its first look.
/// 11. `an_end_without_its_findings_is_not_an_end`: while the scanner says that it has ended and its findings are not
///     listed yet, the platform is *in progress*.
/// 12. `what_has_ended_is_not_asked_for_again`: [`scan_again`](Self::scan_again) takes over the platforms whose scan had
///     ended in the report before.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Registry: fmt::Debug + Send + Sync {
    /// Where images of this repository live in the private registry (D1).
    async fn locate(&self, repository: &RepositoryName) -> Result<ImageRef>;

    /// Creates the repository where it is missing, and says where it is.
    async fn ensure_repository(&self, repository: &RepositoryName) -> Result<ImageRef>;

    /// What a reference names now; `None` where the registry has no such image, or no such repository. What a registry
    /// answers to a caller who may not read looks the same: `Ecr::diagnose` of `towpath-ecr` tells these apart.
    async fn resolve(&self, image: &ImageRef) -> Result<Option<ResolvedImage>>;

    /// The name that an upstream image has behind the pull-through cache (D2).
    async fn cached(&self, upstream: &ImageRef) -> Result<ImageRef>;

    /// Brings an upstream image, every platform of it, into the cache. What was asked for by digest is what the upstream
    /// has; a tag is compared with the upstream's where the client reaches the upstream itself, and may else be as old
    /// as the cache lets it be.
    async fn import(&self, upstream: &ImageRef) -> Result<ImportedImage>;

    /// Makes an image from a base and layers, and pushes it: stores it under its digest and, last, its tag. What was pushed
    /// before an error stays, without a tag.
    async fn assemble(&self, assembly: Assembly) -> Result<ResolvedImage>;

    /// Makes a tag name the image, which must be given by digest.
    async fn tag(&self, image: &ImageRef, tag: &Tag) -> Result<()>;

    /// Copies an image, given by digest, with everything it consists of and everything that refers to it (signatures,
    /// SBOMs). Both places are reached with this registry's credentials: between accounts, use `oci::copy` of
    /// `towpath-ecr` with a client for each.
    async fn copy(&self, from: &ImageRef, to: &ImageRef) -> Result<ResolvedImage>;

    /// What the registry's scanner knows of an image, given by digest, right now: its vulnerabilities (CVEs).
    async fn scan(&self, image: &ImageRef) -> Result<ScanReport>;

    /// What the scanner knows of the same image later on. What the report before says of the registry, and of platforms
    /// whose scan had ended, is taken over and not asked for again.
    async fn scan_again(&self, before: &ScanReport) -> Result<ScanReport>;
}

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// The image by digest, without a tag.
    pub image: ImageRef,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The media type of the manifest or index.
    pub media_type: String,
    /// The runnable platforms, each with the digest of its own manifest. One for an image that is not an index.
    pub platforms: Vec<PlatformImage>,
    /// The annotations of the manifest or index.
    pub annotations: BTreeMap<String, String>,
}

/// One platform of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformImage {
    /// The platform; `None` where a single manifest does not say.
    pub platform: Option<Platform>,
    /// The digest of its manifest.
    pub digest: Digest,
}

/// An operating system and a processor architecture, in the words of Go (`linux/arm64/v8`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, such as `linux`.
    pub os: String,
    /// The architecture, such as `amd64`.
    pub architecture: String,
    /// The variant, such as `v8`.
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on this architecture.
    pub fn linux(architecture: impl Into<String>) -> Self {
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// An upstream image that the cache now holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedImage {
    /// Where it came from, as asked.
    pub upstream: ImageRef,
    /// Where it is now, by digest.
    pub cached: ResolvedImage,
}
