//! The domains of the lab's account, and the rules by which versions come into a repository: by publishing, through
//! upstreams, and by copying.
//!
//! Follows "Working with upstream repositories" and "Editing package origin controls" of the CodeArtifact user guide.

use super::model::{Asset, Domain, ExternalConnection, Package, Repository, Restrictions, Status, Version};
use super::public::PublicCrates;
use super::tokens::Tokens;
use jiff::Timestamp;
use std::collections::BTreeMap;
use towpath_core::{PackageFormat, PackageId};
use uuid::Uuid;

/// How many repositories are searched for one package.
const SEARCHED: usize = 25;

/// Everything the service knows.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) domains: BTreeMap<String, Domain>,
    pub(super) tokens: Tokens,
    pub(super) crates_io: PublicCrates,
}

/// Why a version was not taken in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublishError {
    /// The origin controls of the package forbid it.
    Blocked,
    /// The version is there, with other bytes or complete already.
    Conflict(String),
}

/// A version of a package as a client of a repository sees it, wherever it is kept.
pub(super) struct Visible {
    pub(super) version: Version,
    /// The repositories that keep it once it has been fetched; empty where it is kept already.
    retain_in: Vec<String>,
}

impl Store {
    /// Makes a domain; does nothing where there is one of this name.
    pub(super) fn create_domain(&mut self, name: &str, encryption_key: Option<String>) {
        let key = || {
            format!(
                "arn:aws:kms:{}:{}:key/{}",
                self.region,
                self.account,
                Uuid::new_v4()
            )
        };
        let encryption_key = encryption_key.unwrap_or_else(key);
        let domain = Domain {
            name: name.into(),
            created: Timestamp::now(),
            encryption_key,
            repositories: BTreeMap::new(),
        };
        self.domains.entry(name.into()).or_insert(domain);
    }

    pub(super) fn repository(&self, domain: &str, repository: &str) -> Option<&Repository> {
        self.domains.get(domain)?.repositories.get(repository)
    }

    pub(super) fn repository_mut(&mut self, domain: &str, repository: &str) -> Option<&mut Repository> {
        self.domains.get_mut(domain)?.repositories.get_mut(repository)
    }

    /// `repository` and what is upstream of it, nearest first, each once. For a package, the way on ends at a
    /// repository whose origin controls for it block upstreams.
    fn searched<'s>(
        &'s self,
        domain: &str,
        repository: &str,
        package: Option<&PackageId>,
    ) -> Vec<&'s Repository> {
        let mut found: Vec<&Repository> = Vec::new();
        let mut next = vec![repository.to_owned()];
        while let Some(name) = next.pop() {
            if found.len() == SEARCHED || found.iter().any(|known| known.name == name) {
                continue;
            }
            if let Some(repository) = self.repository(domain, &name) {
                found.push(repository);
                if package.is_none_or(|package| repository.takes_from_upstream(package)) {
                    next.extend(repository.upstreams.iter().rev().cloned());
                }
            }
        }
        found
    }

    /// The versions of a package that a client of this repository sees. What is nearer hides what is further away.
    pub(super) fn visible(&self, domain: &str, repository: &str, package: &PackageId) -> Vec<Visible> {
        let mut seen: Vec<Visible> = Vec::new();
        let mut see = |version: &Version, retain_in: &[&str]| {
            if !seen.iter().any(|known| known.version.version == version.version) {
                let retain_in = retain_in.iter().map(|name| (*name).to_owned()).collect();
                seen.push(Visible {
                    version: version.clone(),
                    retain_in,
                });
            }
        };
        for place in self.searched(domain, repository, Some(package)) {
            let here = place.name == repository;
            // Kept where it was asked for, and where the external connection is, but not in between.
            let both = [repository, place.name.as_str()];
            for version in place
                .packages
                .get(package)
                .into_iter()
                .flat_map(|package| &package.versions)
            {
                see(version, if here { &[] } else { &both[..1] });
            }
            if place.external_connection == Some(ExternalConnection::CRATES_IO)
                && package.format() == PackageFormat::Cargo
                && place.takes_from_upstream(package)
            {
                for version in self.crates_io.versions(package) {
                    see(version, if here { &both[..1] } else { &both });
                }
            }
        }
        seen
    }

    /// The crate that an index path means: index paths are in lower case, names need not be.
    pub(super) fn spelled(&self, domain: &str, repository: &str, lower: &str) -> Option<PackageId> {
        let searched = self.searched(domain, repository, None);
        let kept = searched
            .iter()
            .flat_map(|place| place.packages.keys())
            .find(|package| {
                package.format() == PackageFormat::Cargo && package.name().eq_ignore_ascii_case(lower)
            });
        kept.or_else(|| self.crates_io.spelled(lower)).cloned()
    }

    /// A version for a client that is about to fetch an asset of it; keeps it in the repository from now on.
    pub(super) fn fetch(
        &mut self,
        domain: &str,
        repository: &str,
        package: &PackageId,
        version: &str,
    ) -> Option<Version> {
        let mut visible = self.visible(domain, repository, package);
        visible.retain(|candidate| candidate.version.version == version);
        let found = visible.pop()?;
        for keeper in &found.retain_in {
            if let Some(repository) = self.repository_mut(domain, keeper) {
                repository.keep(package, found.version.clone(), Restrictions::INGESTED);
            }
        }
        Some(found.version)
    }
}

impl Repository {
    pub(super) fn new(name: &str, description: Option<String>, upstreams: Vec<String>) -> Self {
        Self {
            name: name.into(),
            description,
            upstreams,
            external_connection: None,
            created: Timestamp::now(),
            packages: BTreeMap::new(),
        }
    }

    fn takes_from_upstream(&self, package: &PackageId) -> bool {
        self.packages
            .get(package)
            .is_none_or(|package| package.restrictions.upstream)
    }

    /// Takes a version over from elsewhere, in place of one of the same name. A package that is new here starts with
    /// these origin controls.
    pub(super) fn keep(&mut self, package: &PackageId, version: Version, restrictions: Restrictions) {
        let kept = self.packages.entry(package.clone()).or_insert_with(|| Package {
            restrictions,
            versions: Vec::new(),
        });
        kept.versions.retain(|known| known.version != version.version);
        kept.versions.push(version);
    }

    pub(super) fn version(&self, package: &PackageId, version: &str) -> Option<&Version> {
        self.packages.get(package)?.version(version)
    }

    /// Publishes one asset. The same bytes once more change nothing; the version is complete unless `unfinished`.
    pub(super) fn publish(
        &mut self,
        package: &PackageId,
        new: Version,
        asset_name: &str,
        asset: Asset,
        unfinished: bool,
    ) -> Result<&Version, PublishError> {
        let kept = self.packages.entry(package.clone()).or_insert_with(|| Package {
            restrictions: Restrictions::PUBLISHED,
            versions: Vec::new(),
        });
        let at = kept
            .versions
            .iter()
            .position(|known| known.version == new.version);
        if let Some(existing) = at.and_then(|at| kept.versions.get(at)) {
            if let Some(same) = existing.assets.get(asset_name)
                && same.sha256 != asset.sha256
            {
                return Err(PublishError::Conflict(format!(
                    "Asset {asset_name} of version {} exists already, with different content",
                    new.version
                )));
            }
            if existing.status != Status::Unfinished && !existing.assets.contains_key(asset_name) {
                return Err(PublishError::Conflict(format!(
                    "Version {} is {}: assets can be added only while it is Unfinished",
                    new.version, existing.status
                )));
            }
        }
        let repeated = at
            .and_then(|at| kept.versions.get(at))
            .is_some_and(|existing| existing.status != Status::Unfinished);
        if !kept.restrictions.publish && !repeated {
            return Err(PublishError::Blocked);
        }
        let at = at.unwrap_or_else(|| {
            kept.versions.push(new);
            kept.versions.len() - 1
        });
        let version = &mut kept.versions[at];
        if !repeated {
            version.add(asset_name, asset);
            version.status = if unfinished {
                Status::Unfinished
            } else {
                Status::Published
            };
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Metadata, Origin};
    use super::*;

    fn store(repositories: &[(&str, &[&str])]) -> Store {
        let mut store = Store {
            account: "111122223333".into(),
            region: "eu-west-1".into(),
            domains: BTreeMap::new(),
            tokens: Tokens::default(),
            crates_io: PublicCrates::default(),
        };
        store.create_domain("d", None);
        for (name, upstreams) in repositories {
            let upstreams = upstreams.iter().map(|name| (*name).to_owned()).collect();
            let repository = Repository::new(name, None, upstreams);
            store
                .domains
                .get_mut("d")
                .unwrap()
                .repositories
                .insert((*name).into(), repository);
        }
        store
    }

    fn publish(store: &mut Store, repository: &str, version: &str) {
        let origin = Origin::Internal {
            repository: repository.into(),
        };
        let new = Version::new(version, origin, Metadata::default());
        let asset = Asset::new(format!("{version} of {repository}").into());
        let repository = store.repository_mut("d", repository).unwrap();
        repository.publish(&package(), new, "a", asset, false).unwrap();
    }

    fn package() -> PackageId {
        PackageId::cargo("p").unwrap()
    }

    fn seen(store: &Store, repository: &str) -> Vec<String> {
        let visible = store.visible("d", repository, &package());
        visible
            .into_iter()
            .map(|visible| visible.version.version)
            .collect()
    }

    #[test]
    fn what_was_fetched_from_an_upstream_does_not_hide_what_comes_there_later() {
        let mut store = store(&[("team", &["middle"]), ("middle", &["base"]), ("base", &["team"])]);
        publish(&mut store, "base", "1.0.0");
        assert!(store.fetch("d", "team", &package(), "1.0.0").is_some());
        assert!(
            store
                .repository("d", "team")
                .unwrap()
                .version(&package(), "1.0.0")
                .is_some()
        );
        assert!(store.repository("d", "middle").unwrap().packages.is_empty());
        publish(&mut store, "base", "1.1.0");
        assert_eq!(seen(&store, "team"), ["1.0.0", "1.1.0"]);
        assert!(store.fetch("d", "team", &package(), "2.0.0").is_none());
    }

    #[test]
    fn a_block_ends_one_way_upstream_and_leaves_the_others() {
        let mut store = store(&[
            ("team", &["guarded", "open"]),
            ("guarded", &["secret"]),
            ("secret", &[]),
            ("open", &[]),
        ]);
        publish(&mut store, "secret", "9.0.0");
        publish(&mut store, "guarded", "1.0.0");
        publish(&mut store, "open", "2.0.0");
        assert_eq!(seen(&store, "team"), ["1.0.0", "2.0.0"]);
        publish(&mut store, "team", "0.1.0");
        assert_eq!(seen(&store, "team"), ["0.1.0"]);
    }
}
