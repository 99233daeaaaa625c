//! Element D3: a library's dependencies, its package, and the place where it is stored.

use crate::effect::evidence;
use crate::toolchain::Packaged;
use crate::{Effect, Elements, Evidence};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use towpath_core::{ArtifactRepository, Digest, PackageFormat, PackageVersion};
use towpath_elements::artifacts::{Publication, StoredVersion, VersionStatus};
use towpath_elements::{Error, ErrorKind, Result};

/// Fetches a project's dependencies from a repository, and from nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchDependencies {
    /// The project's folder.
    pub project: PathBuf,
    /// The repository.
    pub repository: ArtifactRepository,
}

#[async_trait]
impl Effect for FetchDependencies {
    const NAME: &'static str = "artifacts.fetch";
    const FRESH: bool = true;
    type Output = Vec<PackageVersion>;

    fn title(&self) -> String {
        format!("fetch dependencies from {}", self.repository)
    }

    fn evidence(&self, fetched: &Vec<PackageVersion>) -> Evidence {
        let list = match fetched.as_slice() {
            [] => "none needed".to_owned(),
            some => some
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        };
        evidence([("dependencies", list), ("from", self.repository.to_string())])
    }

    async fn observe(&self, _: &Elements) -> Result<Option<Vec<PackageVersion>>> {
        Ok(None)
    }

    async fn apply(&self, elements: &Elements) -> Result<Vec<PackageVersion>> {
        let access = elements
            .artifacts()?
            .access(&self.repository, PackageFormat::Cargo)
            .await?;
        elements.toolchain().fetch(&self.project, &access).await
    }
}

/// Builds a library and packs it for publishing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageLibrary {
    /// The project's folder.
    pub project: PathBuf,
    /// The repository its dependencies came from.
    pub repository: ArtifactRepository,
}

#[async_trait]
impl Effect for PackageLibrary {
    const NAME: &'static str = "library.package";
    const FRESH: bool = true;
    type Output = Packaged;

    fn title(&self) -> String {
        "build and pack the library".to_owned()
    }

    fn evidence(&self, packaged: &Packaged) -> Evidence {
        evidence([("built", format!("{} ({})", packaged.version, packaged.digest))])
    }

    async fn observe(&self, _: &Elements) -> Result<Option<Packaged>> {
        Ok(None)
    }

    async fn apply(&self, elements: &Elements) -> Result<Packaged> {
        let access = elements
            .artifacts()?
            .access(&self.repository, PackageFormat::Cargo)
            .await?;
        elements.toolchain().package(&self.project, &access).await
    }
}

/// Stores a package. The same version with the same bytes is there already; with other bytes it is a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishPackage {
    /// Where it goes.
    pub repository: ArtifactRepository,
    /// What it is.
    pub version: PackageVersion,
    /// The file on this machine.
    pub file: PathBuf,
    /// The file's SHA-256 digest.
    pub digest: Digest,
}

#[async_trait]
impl Effect for PublishPackage {
    const NAME: &'static str = "artifacts.publish";
    type Output = StoredVersion;

    fn title(&self) -> String {
        format!("store {} in {}", self.version, self.repository)
    }

    fn evidence(&self, stored: &StoredVersion) -> Evidence {
        evidence([
            ("package", stored.version.to_string()),
            ("package digest", self.digest.to_string()),
            ("package repository", self.repository.to_string()),
        ])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<StoredVersion>> {
        let Some(stored) = elements
            .artifacts()?
            .version(&self.repository, &self.version)
            .await?
        else {
            return Ok(None);
        };
        if stored.status == VersionStatus::Unfinished {
            return Ok(None);
        }
        match stored.assets.iter().find_map(|asset| asset.digest.as_ref()) {
            Some(digest) if *digest == self.digest => Ok(Some(stored)),
            Some(other) => Err(
                Error::new(ErrorKind::Conflict, "package repository", "store", &self.version)
                    .because(format!(
                        "{} has it with {other}, this build has {}",
                        self.repository, self.digest
                    ))
                    .advise("give the new build a version of its own"),
            ),
            // The service does not say what it has: publishing decides, since it refuses other bytes.
            None => Ok(None),
        }
    }

    async fn apply(&self, elements: &Elements) -> Result<StoredVersion> {
        let (repository, version) = (self.repository.clone(), self.version.clone());
        elements
            .artifacts()?
            .publish(Publication {
                repository,
                version,
                files: vec![self.file.clone()],
            })
            .await
    }
}
