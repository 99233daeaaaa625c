//! Element D3: package repositories with their bytes.

use super::faults::Element;
use super::{State, World, refusal};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use towpath_core::{ArtifactRepository, Digest, PackageFormat, PackageId, PackageVersion, Secret};
use towpath_elements::artifacts::{Access, Asset, Publication, StoredVersion, VersionStatus};
use towpath_elements::{Artifacts, Error, ErrorKind, Result};
use url::Url;

/// How long a token is good for.
const TOKEN: Duration = Duration::from_secs(12 * 3600);

#[derive(Default)]
pub(super) struct Packages {
    repositories: HashMap<ArtifactRepository, Stored>,
}

type Assets = BTreeMap<String, Bytes>;
type Stored = BTreeMap<String, (PackageVersion, Assets)>;

impl Packages {
    fn get(&self, repository: &ArtifactRepository) -> Result<&Stored> {
        self.repositories
            .get(repository)
            .ok_or_else(|| unknown(repository))
    }

    fn assets(&self, repository: &ArtifactRepository, version: &PackageVersion) -> Result<&Assets> {
        let stored = self.get(repository)?.get(&version.to_string());
        stored.map(|(_, assets)| assets).ok_or_else(|| {
            let detail = format!("{repository} does not have it");
            refusal(ErrorKind::NotFound, "read", version, detail)
        })
    }

    pub(super) fn snapshot(&self) -> Value {
        let repositories: BTreeMap<_, _> = self
            .repositories
            .iter()
            .map(|(repository, stored)| {
                let versions: BTreeMap<_, Vec<_>> = stored
                    .iter()
                    .map(|(version, (_, assets))| (version, assets.values().map(Digest::sha256_of).collect()))
                    .collect();
                (repository.to_string(), versions)
            })
            .collect();
        json!(repositories)
    }
}

fn unknown(repository: &ArtifactRepository) -> Error {
    refusal(
        ErrorKind::NotFound,
        "find the repository",
        repository,
        "there is no such repository",
    )
}

fn described(version: &PackageVersion, assets: &Assets) -> StoredVersion {
    let digest = |bytes: &Bytes| Digest::sha256_of(bytes);
    let all: Vec<_> = assets.iter().map(|(name, bytes)| (name, digest(bytes))).collect();
    StoredVersion {
        version: version.clone(),
        status: VersionStatus::Published,
        revision: Some(Digest::sha256_of(format!("{all:?}")).encoded()[..16].to_owned()),
        assets: assets
            .iter()
            .map(|(name, bytes)| Asset {
                name: name.clone(),
                size: Some(bytes.len() as u64),
                digest: Some(digest(bytes)),
            })
            .collect(),
    }
}

impl State {
    /// Stores a version; the same bytes again change nothing, others are a conflict.
    fn store_version(
        &mut self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
        assets: Assets,
    ) -> Result<StoredVersion> {
        let packages = &mut self.artifacts;
        let stored = packages
            .repositories
            .get_mut(repository)
            .ok_or_else(|| unknown(repository))?;
        let digests = |assets: &Assets| assets.values().map(Digest::sha256_of).collect::<Vec<_>>();
        match stored.get(&version.to_string()) {
            None => {
                stored.insert(version.to_string(), (version.clone(), assets.clone()));
                self.changed = true;
            }
            Some((_, before)) if digests(before) == digests(&assets) => {}
            Some((_, before)) => {
                let named = |assets| {
                    digests(assets)
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                let detail = format!(
                    "{repository} has it as {}, this is {}",
                    named(before),
                    named(&assets)
                );
                return Err(refusal(ErrorKind::Conflict, "store", version, detail));
            }
        }
        Ok(described(version, &assets))
    }
}

/// The file of a package as its repository names it. A Cargo package is one `.crate` file, whose name says the version.
fn read(publication: &Publication) -> Result<Assets> {
    let Publication { version, files, .. } = publication;
    let mut assets = Assets::new();
    for file in files {
        let invalid = |detail: String| refusal(ErrorKind::Invalid, "publish", file.display(), detail);
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if version.package().format() == PackageFormat::Cargo {
            let expected = format!("{}-{}.crate", version.package().name(), version.version());
            if name != expected || files.len() != 1 {
                return Err(invalid(format!("{version} is one file named {expected}")));
            }
        }
        let bytes = std::fs::read(file)
            .map_err(|error| invalid("the file cannot be read".to_owned()).caused_by(error))?;
        assets.insert(name, bytes.into());
    }
    if assets.is_empty() {
        return Err(refusal(
            ErrorKind::Invalid,
            "publish",
            version,
            "there is no file in it",
        ));
    }
    Ok(assets)
}

#[async_trait]
impl Artifacts for World {
    async fn access(&self, repository: &ArtifactRepository, format: PackageFormat) -> Result<Access> {
        self.call(Element::Artifacts, "access", repository, |state, moment| {
            state.artifacts.get(repository)?;
            let endpoint = format!(
                "https://packages.invalid/{}/{}/{}/",
                format.as_str(),
                repository.domain(),
                repository.name()
            );
            let endpoint = Url::parse(&endpoint)
                .map_err(|error| refusal(ErrorKind::Protocol, "name the endpoint of", repository, error))?;
            Ok(Access {
                endpoint,
                token: Secret::new(format!("token-for-{repository}-from-{}", moment.now.as_millis())),
                expires: moment.stamp(moment.now + TOKEN),
            })
        })
        .await
    }

    async fn version(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<Option<StoredVersion>> {
        self.call(Element::Artifacts, "version", version, |state, _| {
            let stored = state.artifacts.get(repository)?.get(&version.to_string());
            Ok(stored.map(|(version, assets)| described(version, assets)))
        })
        .await
    }

    fn versions(
        &self,
        repository: &ArtifactRepository,
        package: &PackageId,
    ) -> BoxStream<'static, Result<PackageVersion>> {
        let (world, repository, package) = (self.clone(), repository.clone(), package.clone());
        stream::once(async move {
            let versions = world
                .call(Element::Artifacts, "versions", &package, |state, _| {
                    let stored = state.artifacts.get(&repository)?.values();
                    Ok(stored
                        .filter(|(version, _)| *version.package() == package)
                        .map(|(version, _)| Ok(version.clone()))
                        .collect::<Vec<_>>())
                })
                .await?;
            Ok::<_, Error>(stream::iter(versions))
        })
        .try_flatten()
        .boxed()
    }

    async fn publish(&self, publication: Publication) -> Result<StoredVersion> {
        let assets = read(&publication)?;
        let Publication {
            repository, version, ..
        } = &publication;
        self.call(Element::Artifacts, "publish", version, |state, _| {
            state.store_version(repository, version, assets)
        })
        .await
    }

    async fn asset(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
        asset: &str,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.call(
            Element::Artifacts,
            "asset",
            format!("{version} {asset}"),
            |state, _| {
                let assets = state.artifacts.assets(repository, version)?;
                let bytes = assets.get(asset).cloned().ok_or_else(|| {
                    refusal(
                        ErrorKind::NotFound,
                        "read the asset",
                        asset,
                        "the version has no such asset",
                    )
                })?;
                Ok(stream::iter([Ok(bytes)]).boxed())
            },
        )
        .await
    }

    async fn promote(
        &self,
        from: &ArtifactRepository,
        to: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<StoredVersion> {
        self.call(Element::Artifacts, "promote", version, |state, _| {
            if (from.domain(), from.owner()) != (to.domain(), to.owner()) {
                let detail = format!("{from} and {to} are not of one domain");
                return Err(refusal(ErrorKind::Invalid, "promote", version, detail));
            }
            let assets = state.artifacts.assets(from, version)?.clone();
            state.store_version(to, version, assets)
        })
        .await
    }
}

impl World {
    /// Makes an empty package repository.
    pub fn create_packages(&self, repository: &ArtifactRepository) {
        self.with(|state, _| {
            state
                .artifacts
                .repositories
                .entry(repository.clone())
                .or_default();
        });
    }

    /// The bytes of a stored version's files, by name.
    pub fn package(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
    ) -> BTreeMap<String, Bytes> {
        self.with(|state, _| {
            let assets = state.artifacts.assets(repository, version);
            assets.cloned().unwrap_or_default()
        })
    }
}
