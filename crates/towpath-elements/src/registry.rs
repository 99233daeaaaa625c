//! Elements D1, D2, E1 and E2: the private registry, its pull-through cache, and the public registries behind it.

pub use crate::assembly::{Assembly, Compression, ConfigChange, Files, FilesFrom, Layer};
use crate::ci::ended;
use crate::{Error, Result};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use towpath_core::wait::{self, Judgement, Policy};
use towpath_core::{Cancellation, Digest, ImageRef, RepositoryName, Tag};

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
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Registry: fmt::Debug + Send + Sync {
    /// Where images of this repository live in the private registry (D1).
    async fn locate(&self, repository: &RepositoryName) -> Result<ImageRef>;

    /// Creates the repository where it is missing, and says where it is.
    async fn ensure_repository(&self, repository: &RepositoryName) -> Result<ImageRef>;

    /// What a reference names now.
    async fn resolve(&self, image: &ImageRef) -> Result<Option<ResolvedImage>>;

    /// The name that an upstream image has behind the pull-through cache (D2).
    async fn cached(&self, upstream: &ImageRef) -> Result<ImageRef>;

    /// Brings an upstream image, every platform of it, into the cache, and checks that it is what the upstream has.
    async fn import(&self, upstream: &ImageRef) -> Result<ImportedImage>;

    /// Makes an image from a base and layers, and stores it under its digest and, last, its tag.
    async fn assemble(&self, assembly: Assembly) -> Result<ResolvedImage>;

    /// Makes a tag name the image, which must be given by digest.
    async fn tag(&self, image: &ImageRef, tag: &Tag) -> Result<()>;

    /// Copies an image, given by digest, with everything it consists of and everything that refers to it.
    async fn copy(&self, from: &ImageRef, to: &ImageRef) -> Result<ResolvedImage>;

    /// What the registry's scanner knows of an image, given by digest, right now.
    async fn scan(&self, image: &ImageRef) -> Result<ScanReport>;
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

/// What the scanner knows of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanReport {
    /// The image asked about, by digest.
    pub image: ImageRef,
    /// One entry for each runnable platform.
    pub platforms: Vec<PlatformScan>,
}

/// What the scanner knows of one platform of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformScan {
    /// The platform and its digest.
    pub image: PlatformImage,
    /// How the scan stands.
    pub status: ScanStatus,
    /// When it was completed, where the service says so.
    pub completed: Option<Timestamp>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// How a scan stands. Only [`Complete`](Self::Complete) and [`Active`](Self::Active) carry a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScanStatus {
    /// Not begun, or nothing known yet.
    Pending,
    /// Going on.
    InProgress,
    /// Done, with a result that stays as it is.
    Complete,
    /// Done, with a result that the service keeps up to date.
    Active,
    /// There will be no result; the text says why.
    Unavailable(String),
    /// A word of the service that this version does not know; it is not a result.
    Other(String),
}

/// One weakness that a scanner found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name, such as `CVE-2026-12345`.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// The package it is in, where the scanner says so.
    pub package: Option<String>,
    /// The version of that package.
    pub version: Option<String>,
    /// The version that mends it; `None` where there is none, or the scanner does not say.
    pub fixed_in: Option<String>,
}

/// How bad a finding is, from nothing to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Informational,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
    /// Not graded, or with a word that this version does not know. It ranks above all others, so that no threshold
    /// lets it pass unseen.
    Undefined,
}

/// What users of [`Registry`] get on top of it.
#[async_trait]
pub trait RegistryExt {
    /// Waits until every platform's scan has an end, good or bad, and returns the report.
    ///
    /// # Errors
    /// *Timed out* naming the platform that is still missing, *cancelled*, or what the service said.
    async fn wait_for_scan(
        &self,
        image: &ImageRef,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<ScanReport>;
}

#[async_trait]
impl<T: Registry + ?Sized> RegistryExt for T {
    async fn wait_for_scan(
        &self,
        image: &ImageRef,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<ScanReport> {
        let outcome = wait::until(
            policy,
            cancellation,
            || self.scan(image),
            Error::retry,
            scan_has_ended,
        )
        .await;
        ended("wait for the scan of", image.to_string(), outcome)
    }
}

fn scan_has_ended(report: &ScanReport) -> Judgement {
    if report.platforms.is_empty() {
        return Judgement::failed("the image has no runnable platform that could be scanned");
    }
    let unfinished = report.platforms.iter().find(|platform| {
        matches!(
            platform.status,
            ScanStatus::Pending | ScanStatus::InProgress | ScanStatus::Other(_)
        )
    });
    match unfinished {
        None => Judgement::Met,
        Some(scan) => {
            let platform = scan
                .image
                .platform
                .as_ref()
                .map_or("the image".into(), ToString::to_string);
            Judgement::pending(format!("the scan of {platform} ({:?})", scan.status))
        }
    }
}
