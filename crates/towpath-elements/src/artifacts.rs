//! Element D3: the package repositories.

use crate::Result;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::path::PathBuf;
use towpath_core::{ArtifactRepository, Digest, PackageFormat, PackageId, PackageVersion, Secret};
use url::Url;

/// What a flow asks of the package repositories.
///
/// # Contract
/// 1. `what_is_not_stored_is_none`: [`version`](Self::version) is `None` for a version that the repository does not hold
///    itself; what an upstream could give does not count.
/// 2. `what_was_published_is_served_byte_for_byte`: after [`publish`](Self::publish) the version is *published*, and
///    [`asset`](Self::asset) gives the very bytes.
/// 3. `the_same_bytes_again_succeed`: publishing a stored version with the same bytes changes nothing and succeeds.
/// 4. `other_bytes_are_a_conflict`: publishing a stored version with other bytes is a *conflict* that names both digests,
///    and the stored bytes stay.
/// 5. `access_is_for_one_repository_and_format`: [`access`](Self::access) gives the endpoint that the service names, and a
///    token that is still good for some time.
/// 6. `a_promotion_copies_the_bytes`: [`promote`](Self::promote) makes the version appear in the other repository with
///    the same assets; doing it twice succeeds.
/// 7. `versions_are_all_listed`: [`versions`](Self::versions) lists every version, over any number of pages.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Artifacts: Debug + Send + Sync {
    /// How a package manager reaches a repository: its endpoint, and a token.
    async fn access(&self, repository: &ArtifactRepository, format: PackageFormat) -> Result<Access>;

    /// A version as a repository holds it.
    async fn version(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<Option<StoredVersion>>;

    /// Every version of a package that a repository holds.
    fn versions(
        &self,
        repository: &ArtifactRepository,
        package: &PackageId,
    ) -> BoxStream<'static, Result<PackageVersion>>;

    /// Stores a version.
    async fn publish(&self, publication: Publication) -> Result<StoredVersion>;

    /// The bytes of one asset of a stored version.
    async fn asset(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
        asset: &str,
    ) -> Result<BoxStream<'static, Result<Bytes>>>;

    /// Copies a version from one repository of a domain to another.
    async fn promote(
        &self,
        from: &ArtifactRepository,
        to: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<StoredVersion>;
}

/// How a package manager reaches a repository. It is never written to a journal.
#[derive(Clone, Debug)]
pub struct Access {
    /// The endpoint, with a slash at its end.
    pub endpoint: Url,
    /// The token.
    pub token: Secret,
    /// When the token ends.
    pub expires: Timestamp,
}

/// A version as a repository holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredVersion {
    /// The version.
    pub version: PackageVersion,
    /// Whether it can be installed.
    pub status: VersionStatus,
    /// The repository's own mark for this state of the version, where it has one.
    pub revision: Option<String>,
    /// Its files.
    pub assets: Vec<Asset>,
}

/// One file of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    /// Its name.
    pub name: String,
    /// Its size in bytes, where the service says so.
    pub size: Option<u64>,
    /// Its SHA-256 digest, where the service says so.
    pub digest: Option<Digest>,
}

/// Whether a version can be installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VersionStatus {
    /// It can be found and installed.
    Published,
    /// Some of its files are still missing; it cannot be installed.
    Unfinished,
    /// It can be installed by its exact version, and is hidden from lists.
    Unlisted,
    /// It cannot be installed, and can be restored.
    Archived,
    /// Its files are gone.
    Disposed,
    /// A word of the service that this version does not know.
    Other(String),
}

/// A version to be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Where it goes.
    pub repository: ArtifactRepository,
    /// What it is. For formats whose file names its own version, the two must agree.
    pub version: PackageVersion,
    /// Its files: for Cargo, the one `.crate` file that `cargo package` made.
    pub files: Vec<PathBuf>,
}
