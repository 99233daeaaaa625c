//! The contract of [`Artifacts`].

use super::refused;
use async_trait::async_trait;
use futures_util::TryStreamExt;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use towpath_core::{ArtifactRepository, Digest, PackageFormat, PackageVersion};
use towpath_elements::artifacts::{Publication, StoredVersion, VersionStatus};
use towpath_elements::{Artifacts, ErrorKind};

/// Makes one test of each clause of [`Artifacts`](towpath_elements::Artifacts)' contract.
#[macro_export]
macro_rules! artifacts_contract {
    ($fixture:expr) => { $crate::artifacts_contract!($fixture, #[tokio::test]); };
    ($fixture:expr, $($attribute:tt)+) => {
        $crate::contract_suite!(artifacts, [$($attribute)+], $fixture,
            what_is_not_stored_is_none
            what_was_published_is_served_byte_for_byte
            the_same_bytes_again_succeed
            other_bytes_are_a_conflict
            access_is_for_one_repository_and_format
            a_promotion_copies_the_bytes
            versions_are_all_listed
        );
    };
}

/// Prepares package repositories for the clauses.
#[async_trait]
pub trait ArtifactsFixture: Send + Sync {
    /// The implementation.
    fn artifacts(&self) -> Arc<dyn Artifacts>;

    /// An empty repository.
    fn repository(&self) -> ArtifactRepository;

    /// Another empty repository of the same domain.
    fn other_repository(&self) -> ArtifactRepository;

    /// A version that an upstream of [`repository`](Self::repository) has and the repository itself does not. `None`
    /// where the world behind the implementation knows no upstreams.
    fn upstream_version(&self) -> Option<PackageVersion>;

    /// Makes a package file that the service accepts for this version, in a folder of its own. Other contents make other
    /// bytes; equal contents make equal bytes.
    async fn package(&self, name: &str, version: &str, contents: &str) -> (PackageVersion, PathBuf);

    /// How many versions are more than one page of the service's list. Smaller where making them takes long.
    fn many(&self) -> usize {
        3
    }
}

async fn publication(
    fixture: &dyn ArtifactsFixture,
    name: &str,
    version: &str,
    contents: &str,
) -> (Publication, Vec<u8>) {
    let (version, file) = fixture.package(name, version, contents).await;
    let bytes = std::fs::read(&file).unwrap();
    let publication = Publication {
        repository: fixture.repository(),
        version,
        files: vec![file],
    };
    (publication, bytes)
}

async fn bytes_of(
    fixture: &dyn ArtifactsFixture,
    repository: &ArtifactRepository,
    stored: &StoredVersion,
) -> Vec<Vec<u8>> {
    let artifacts = fixture.artifacts();
    let mut all = Vec::new();
    for asset in &stored.assets {
        let stream = artifacts
            .asset(repository, &stored.version, &asset.name)
            .await
            .unwrap();
        let pieces: Vec<_> = stream.try_collect().await.unwrap();
        let bytes = pieces.concat();
        if let Some(digest) = &asset.digest {
            assert_eq!(*digest, Digest::sha256_of(&bytes), "the digest of {}", asset.name);
        }
        all.push(bytes);
    }
    all
}

/// Clause 1.
pub async fn what_is_not_stored_is_none(fixture: &dyn ArtifactsFixture) {
    let artifacts = fixture.artifacts();
    let (version, _) = fixture.package("contract-absent", "1.0.0", "a").await;
    assert_eq!(
        artifacts.version(&fixture.repository(), &version).await.unwrap(),
        None
    );
    if let Some(upstream) = fixture.upstream_version() {
        let found = artifacts.version(&fixture.repository(), &upstream).await.unwrap();
        assert_eq!(found, None, "what an upstream could give does not count");
    }
}

/// Clause 2.
pub async fn what_was_published_is_served_byte_for_byte(fixture: &dyn ArtifactsFixture) {
    let artifacts = fixture.artifacts();
    let (publication, bytes) = publication(fixture, "contract-bytes", "1.0.0", "a").await;
    let version = publication.version.clone();
    let stored = artifacts.publish(publication).await.unwrap();
    assert_eq!(
        (&stored.version, &stored.status),
        (&version, &VersionStatus::Published)
    );
    let found = artifacts
        .version(&fixture.repository(), &version)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.status, VersionStatus::Published);
    let served = bytes_of(fixture, &fixture.repository(), &found).await;
    assert!(
        served.contains(&bytes),
        "the very bytes are among {} assets",
        served.len()
    );
}

/// Clause 3.
pub async fn the_same_bytes_again_succeed(fixture: &dyn ArtifactsFixture) {
    let artifacts = fixture.artifacts();
    let (publication, bytes) = publication(fixture, "contract-again", "1.0.0", "a").await;
    artifacts.publish(publication.clone()).await.unwrap();
    let before = artifacts
        .version(&publication.repository, &publication.version)
        .await
        .unwrap();
    let again = artifacts.publish(publication.clone()).await.unwrap();
    assert_eq!(again.status, VersionStatus::Published);
    let after = artifacts
        .version(&publication.repository, &publication.version)
        .await
        .unwrap();
    assert_eq!(before, after, "nothing changes");
    let served = bytes_of(fixture, &publication.repository, &after.unwrap()).await;
    assert!(served.contains(&bytes));
}

/// Clause 4.
pub async fn other_bytes_are_a_conflict(fixture: &dyn ArtifactsFixture) {
    let artifacts = fixture.artifacts();
    let (first, bytes) = publication(fixture, "contract-other", "1.0.0", "a").await;
    let stored = artifacts.publish(first.clone()).await.unwrap();
    let (second, others) = publication(fixture, "contract-other", "1.0.0", "b").await;
    assert_ne!(bytes, others, "the fixture makes other bytes of other contents");
    let error = refused(
        artifacts.publish(second).await,
        ErrorKind::Conflict,
        "other bytes for a stored version",
    );
    for digest in [Digest::sha256_of(&bytes), Digest::sha256_of(&others)] {
        assert!(
            error.to_string().contains(digest.encoded()),
            "{digest} is not in: {error}"
        );
    }
    let served = bytes_of(fixture, &first.repository, &stored).await;
    assert!(served.contains(&bytes), "the stored bytes stay");
}

/// Clause 5.
pub async fn access_is_for_one_repository_and_format(fixture: &dyn ArtifactsFixture) {
    let artifacts = fixture.artifacts();
    let one = artifacts
        .access(&fixture.repository(), PackageFormat::Cargo)
        .await
        .unwrap();
    let other = artifacts
        .access(&fixture.other_repository(), PackageFormat::Cargo)
        .await
        .unwrap();
    assert_ne!(one.endpoint, other.endpoint);
    assert!(one.endpoint.path().ends_with('/'), "{}", one.endpoint);
    assert!(
        one.endpoint.path().contains(fixture.repository().name()),
        "{}",
        one.endpoint
    );
    assert!(!one.token.is_empty());
    let left = one.expires.duration_since(jiff::Timestamp::now());
    assert!(left.as_secs() > 60, "good for {left:?} more");
    assert!(
        !format!("{one:?}").contains(one.token.expose()),
        "Debug shows the token"
    );
}

/// Clause 6.
pub async fn a_promotion_copies_the_bytes(fixture: &dyn ArtifactsFixture) {
    let artifacts = fixture.artifacts();
    let (from, to) = (fixture.repository(), fixture.other_repository());
    let (publication, bytes) = publication(fixture, "contract-promoted", "1.0.0", "a").await;
    let version = publication.version.clone();
    artifacts.publish(publication).await.unwrap();
    assert_eq!(artifacts.version(&to, &version).await.unwrap(), None);
    for _ in 0..2 {
        let promoted = artifacts.promote(&from, &to, &version).await.unwrap();
        assert_eq!(promoted.version, version);
    }
    let here = artifacts.version(&from, &version).await.unwrap().unwrap();
    let there = artifacts.version(&to, &version).await.unwrap().unwrap();
    assert_eq!(there.status, VersionStatus::Published);
    assert_eq!(there.assets, here.assets);
    assert!(bytes_of(fixture, &to, &there).await.contains(&bytes));
}

/// Clause 7.
pub async fn versions_are_all_listed(fixture: &dyn ArtifactsFixture) {
    let artifacts = fixture.artifacts();
    let mut published = BTreeSet::new();
    let mut package = None;
    for number in 0..fixture.many() {
        let number = format!("1.0.{number}");
        let (publication, _) = publication(fixture, "contract-many", &number, "a").await;
        published.insert(publication.version.to_string());
        package = Some(publication.version.package().clone());
        artifacts.publish(publication).await.unwrap();
    }
    let (other, _) = publication(fixture, "contract-many-others", "1.0.0", "a").await;
    artifacts.publish(other).await.unwrap();
    let listed = artifacts.versions(&fixture.repository(), &package.unwrap());
    let listed: Vec<PackageVersion> = listed.try_collect().await.unwrap();
    assert_eq!(listed.len(), published.len(), "each once: {listed:?}");
    let listed: BTreeSet<_> = listed.iter().map(ToString::to_string).collect();
    assert_eq!(listed, published);
}
