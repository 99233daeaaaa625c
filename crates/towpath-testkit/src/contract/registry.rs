//! The contract of [`Registry`].

use super::{refused, word};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use towpath_core::wait::Policy;
use towpath_core::{Cancellation, Digest, ImageRef, RepositoryName};
use towpath_elements::registry::{Assembly, Layer, NoResult, Platform, ResolvedImage, ScanStatus};
use towpath_elements::{ErrorKind, Registry, RegistryExt};

/// Makes one test of each clause of [`Registry`](towpath_elements::Registry)'s contract.
#[macro_export]
macro_rules! registry_contract {
    ($fixture:expr) => { $crate::registry_contract!($fixture, #[tokio::test]); };
    ($fixture:expr, $($attribute:tt)+) => {
        $crate::registry_data_plane_contract!($fixture, $($attribute)+);
        $crate::contract_suite!(registry, [$($attribute)+], $fixture,
            an_immutable_tag_that_is_taken_is_a_conflict
            an_import_is_what_the_upstream_has
            a_missing_rule_is_told_apart
            a_scan_is_reported_per_platform
            a_scan_that_never_comes_ends_the_wait
            an_end_without_its_findings_is_not_an_end
            what_has_ended_is_not_asked_for_again
        );
    };
}

/// Makes one test of each clause that any registry of the distribution protocol can hold: the part of
/// [`registry_contract!`](crate::registry_contract) that asks for no service around the registry.
#[macro_export]
macro_rules! registry_data_plane_contract {
    ($fixture:expr, $($attribute:tt)+) => {
        $crate::contract_suite!(registry, [$($attribute)+], $fixture,
            what_is_not_there_resolves_to_none
            an_assembled_image_is_the_same_every_time
            an_assembled_image_stands_on_its_base
            a_tag_that_is_right_stays
            a_copy_has_the_same_digest
        );
    };
}

/// Prepares registries for the clauses.
#[async_trait]
pub trait RegistryFixture: Send + Sync {
    /// The implementation.
    fn registry(&self) -> Arc<dyn Registry>;

    /// An image at an upstream with a pull-through rule, by tag: an index with `linux/amd64` and `linux/arm64`.
    async fn upstream_image(&self) -> ImageRef;

    /// The digest that the upstream serves for it.
    async fn upstream_digest(&self, upstream: &ImageRef) -> Digest;

    /// An image at an upstream without a pull-through rule.
    async fn upstream_without_a_rule(&self) -> ImageRef;

    /// The bytes of a manifest or index of the private registry, by digest, as the registry serves them: fetched past the
    /// implementation.
    async fn served(&self, image: &ImageRef) -> Option<Vec<u8>>;

    /// How many writes the private registry has carried out so far: uploads, manifests and tags, however often the same
    /// bytes. Counted past the implementation.
    async fn writes(&self) -> usize;

    /// Makes the tags of a repository of the private registry immutable.
    async fn make_immutable(&self, repository: &RepositoryName);

    /// Stops the scanner: images that are stored from now on are not scanned.
    async fn hold_scans(&self);

    /// Lets the scanner go on, with the images it has not scanned too.
    async fn release_scans(&self);

    /// Takes every rule away by which repositories are scanned.
    async fn uncover(&self);

    /// Has the scanner say at once that it has ended, and keeps its findings back.
    async fn hold_findings(&self);

    /// Has the scanner list its findings, one at least for each image that was stored meanwhile.
    async fn release_findings(&self);

    /// A folder that is empty, exists, and may be written into.
    fn scratch(&self) -> PathBuf;

    /// How often to look at a scan, and for how long.
    fn policy(&self) -> Policy;
}

fn repository(name: &str) -> RepositoryName {
    word(&format!("contract/{name}"))
}

async fn base(fixture: &dyn RegistryFixture) -> ResolvedImage {
    let upstream = fixture.upstream_image().await;
    fixture.registry().import(&upstream).await.unwrap().cached
}

async fn assembly(
    fixture: &dyn RegistryFixture,
    name: &str,
    base: &ResolvedImage,
    contents: &str,
) -> Assembly {
    let folder = fixture.scratch().join(format!("{name}-{contents}"));
    std::fs::create_dir_all(folder.join("etc")).unwrap();
    std::fs::write(folder.join("etc/contents"), contents).unwrap();
    std::fs::write(folder.join("run"), "#!/bin/sh\n").unwrap();
    let target = fixture
        .registry()
        .ensure_repository(&repository(name))
        .await
        .unwrap();
    let mut assembly = Assembly::on(base.image.clone(), target.tagged(word("v1")));
    assembly.layers = vec![Layer::files(folder, "/srv")];
    assembly.config.entrypoint = Some(vec!["/srv/run".into()]);
    assembly.annotations = BTreeMap::from([("org.opencontainers.image.revision".into(), "1".into())]);
    assembly.created = word("2026-01-02T03:04:05Z");
    assembly
}

async fn document(fixture: &dyn RegistryFixture, image: &ImageRef) -> Value {
    serde_json::from_slice(&fixture.served(image).await.unwrap()).unwrap()
}

fn layers(manifest: &Value) -> Vec<Value> {
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].clone()).collect()
}

/// Clause 1.
pub async fn what_is_not_there_resolves_to_none(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let nowhere = registry.locate(&repository("never-made")).await.unwrap();
    assert_eq!(registry.resolve(&nowhere.tagged(word("v1"))).await.unwrap(), None);
    let base = base(fixture).await;
    let made = registry
        .assemble(assembly(fixture, "resolve", &base, "a").await)
        .await
        .unwrap();
    let name = registry.locate(&repository("resolve")).await.unwrap();
    assert_eq!(registry.resolve(&name.tagged(word("v2"))).await.unwrap(), None);
    let other = name.at(Digest::sha256_of("nothing"));
    assert_eq!(registry.resolve(&other).await.unwrap(), None);
    let found = registry.resolve(&name.tagged(word("v1"))).await.unwrap().unwrap();
    assert_eq!(found, made);
    let bytes = fixture.served(&found.image).await.unwrap();
    assert_eq!(
        found.digest,
        Digest::sha256_of(&bytes),
        "the digest of the bytes served"
    );
}

/// Clause 2.
pub async fn an_assembled_image_is_the_same_every_time(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let base = base(fixture).await;
    let first = registry
        .assemble(assembly(fixture, "same", &base, "a").await)
        .await
        .unwrap();
    let before = fixture.writes().await;
    assert!(before > 0, "the first assembly is written");
    let again = registry
        .assemble(assembly(fixture, "same", &base, "a").await)
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(fixture.writes().await, before, "the second stores nothing new");
    let other = registry
        .assemble(assembly(fixture, "other", &base, "b").await)
        .await
        .unwrap();
    assert_ne!(first.digest, other.digest, "other files make another image");
}

/// Clause 3.
pub async fn an_assembled_image_stands_on_its_base(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let base = base(fixture).await;
    let made = registry
        .assemble(assembly(fixture, "stands", &base, "a").await)
        .await
        .unwrap();
    assert_eq!(
        made.platforms.len(),
        base.platforms.len(),
        "every platform of the base"
    );
    for platform in &made.platforms {
        let below = base
            .platforms
            .iter()
            .find(|one| one.platform == platform.platform);
        let below = document(fixture, &base.image.at(below.unwrap().digest.clone())).await;
        let above = document(fixture, &made.image.at(platform.digest.clone())).await;
        let (below, above) = (layers(&below), layers(&above));
        assert_eq!(
            above[..below.len()],
            below[..],
            "the base's layers first, unchanged"
        );
        assert_eq!(above.len(), below.len() + 1);
    }
    let mut one = assembly(fixture, "one-platform", &base, "a").await;
    one.platforms = vec![Platform::linux("arm64")];
    let made = registry.assemble(one).await.unwrap();
    let platforms: Vec<_> = made
        .platforms
        .iter()
        .filter_map(|one| one.platform.as_ref())
        .collect();
    assert_eq!(platforms.len(), 1);
    assert_eq!(platforms[0].architecture, "arm64");
}

/// Clause 4.
pub async fn a_tag_that_is_right_stays(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let base = base(fixture).await;
    let made = registry
        .assemble(assembly(fixture, "right-tag", &base, "a").await)
        .await
        .unwrap();
    registry.tag(&made.image, &word("v1")).await.unwrap();
    fixture.make_immutable(&repository("right-tag")).await;
    registry.tag(&made.image, &word("v1")).await.unwrap();
    let named = registry.resolve(&made.image.tagged(word("v1"))).await.unwrap();
    assert_eq!(named.unwrap().digest, made.digest);
}

/// Clause 5.
pub async fn an_immutable_tag_that_is_taken_is_a_conflict(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let base = base(fixture).await;
    let first = registry
        .assemble(assembly(fixture, "taken", &base, "a").await)
        .await
        .unwrap();
    fixture.make_immutable(&repository("taken")).await;
    let mut second = assembly(fixture, "taken", &base, "b").await;
    second.target = second.target.tagged(word("v2"));
    let second = registry.assemble(second).await.unwrap();
    let taken = registry.tag(&second.image, &word("v1")).await;
    refused(taken, ErrorKind::Conflict, "moving an immutable tag");
    let named = registry.resolve(&first.image.tagged(word("v1"))).await.unwrap();
    assert_eq!(named.unwrap().digest, first.digest, "the tag names what it did");
}

/// Clause 6.
pub async fn an_import_is_what_the_upstream_has(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let upstream = fixture.upstream_image().await;
    let digest = fixture.upstream_digest(&upstream).await;
    let imported = registry.import(&upstream).await.unwrap();
    assert_eq!(imported.upstream, upstream);
    assert_eq!(imported.cached.digest, digest);
    let name = registry.cached(&upstream).await.unwrap();
    assert_eq!(imported.cached.image, name.at(digest.clone()));
    assert!(imported.cached.platforms.len() >= 2, "{imported:?}");
    for platform in &imported.cached.platforms {
        let bytes = fixture.served(&name.at(platform.digest.clone())).await.unwrap();
        assert_eq!(Digest::sha256_of(bytes), platform.digest);
    }
    let again = registry.import(&upstream).await.unwrap();
    assert_eq!(again, imported);
}

/// Clause 7.
pub async fn a_missing_rule_is_told_apart(fixture: &dyn RegistryFixture) {
    let upstream = fixture.upstream_without_a_rule().await;
    let error = refused(
        fixture.registry().cached(&upstream).await,
        ErrorKind::NotFound,
        "the cached name of an upstream without a rule",
    );
    assert!(
        error.to_string().contains("rule"),
        "it says that the rule is missing: {error}"
    );
}

/// Clause 8.
pub async fn a_scan_is_reported_per_platform(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let base = base(fixture).await;
    fixture.hold_scans().await;
    let made = registry
        .assemble(assembly(fixture, "scanned", &base, "a").await)
        .await
        .unwrap();
    let digests = |report: &towpath_elements::registry::ScanReport| {
        let mut digests: Vec<_> = report
            .platforms
            .iter()
            .map(|scan| scan.image.digest.clone())
            .collect();
        digests.sort();
        digests
    };
    let mut expected: Vec<_> = made
        .platforms
        .iter()
        .map(|platform| platform.digest.clone())
        .collect();
    expected.sort();
    let before = registry.scan(&made.image).await.unwrap();
    assert_eq!(digests(&before), expected, "each platform by its own digest");
    for scan in &before.platforms {
        let unscanned = matches!(scan.status, ScanStatus::Pending | ScanStatus::InProgress);
        assert!(unscanned && scan.findings.is_empty(), "{scan:?}");
    }
    fixture.release_scans().await;
    let after = registry
        .wait_for_scan(&made.image, &fixture.policy(), &Cancellation::new())
        .await
        .unwrap();
    assert_eq!(digests(&after), expected);
    for scan in &after.platforms {
        assert!(
            matches!(scan.status, ScanStatus::Complete | ScanStatus::Active),
            "{scan:?}"
        );
    }
}

/// Clause 9.
pub async fn a_copy_has_the_same_digest(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let base = base(fixture).await;
    let made = registry
        .assemble(assembly(fixture, "copied", &base, "a").await)
        .await
        .unwrap();
    let to = registry.ensure_repository(&repository("copy")).await.unwrap();
    let copied = registry.copy(&made.image, &to.tagged(word("v1"))).await.unwrap();
    assert_eq!(copied.digest, made.digest);
    assert_eq!(copied.platforms, made.platforms);
    for platform in &copied.platforms {
        let there = fixture.served(&to.at(platform.digest.clone())).await;
        assert!(there.is_some(), "{platform:?} was copied too");
    }
    let named = registry.resolve(&to.tagged(word("v1"))).await.unwrap();
    assert_eq!(named.unwrap().digest, made.digest);
}

/// Clause 10.
pub async fn a_scan_that_never_comes_ends_the_wait(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let base = base(fixture).await;
    fixture.uncover().await;
    let made = registry
        .assemble(assembly(fixture, "uncovered", &base, "a").await)
        .await
        .unwrap();
    let report = registry.scan(&made.image).await.unwrap();
    assert_eq!(report.platforms.len(), made.platforms.len());
    for scan in &report.platforms {
        assert!(matches!(scan.status, ScanStatus::Unavailable(_)), "{scan:?}");
        assert_eq!(scan.no_result, Some(NoResult::NotCovered));
    }
    // So long a pause that a second look would be too late.
    let hour = Duration::from_secs(3600);
    let once = Policy::every(hour).within(2 * hour);
    let waited = registry
        .wait_for_scan(&made.image, &once, &Cancellation::new())
        .await
        .unwrap();
    assert_eq!(waited, report);
}

/// Clause 11.
pub async fn an_end_without_its_findings_is_not_an_end(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let base = base(fixture).await;
    fixture.hold_findings().await;
    let made = registry
        .assemble(assembly(fixture, "unlisted", &base, "a").await)
        .await
        .unwrap();
    let briefly = Policy::every(Duration::from_millis(20)).within(Duration::from_millis(200));
    let early = registry
        .wait_for_scan(&made.image, &briefly, &Cancellation::new())
        .await;
    refused(early, ErrorKind::TimedOut, "waiting for findings that are held");
    fixture.release_findings().await;
    let report = registry
        .wait_for_scan(&made.image, &fixture.policy(), &Cancellation::new())
        .await
        .unwrap();
    assert_eq!(report.platforms.len(), made.platforms.len());
    for scan in &report.platforms {
        assert!(matches!(scan.status, ScanStatus::Complete | ScanStatus::Active));
        assert!(!scan.findings.is_empty(), "{scan:?}");
    }
}

/// Clause 12.
pub async fn what_has_ended_is_not_asked_for_again(fixture: &dyn RegistryFixture) {
    let registry = fixture.registry();
    let base = base(fixture).await;
    let made = registry
        .assemble(assembly(fixture, "scanned", &base, "a").await)
        .await
        .unwrap();
    let ended = registry
        .wait_for_scan(&made.image, &fixture.policy(), &Cancellation::new())
        .await
        .unwrap();
    fixture.hold_scans().await;
    let anew = registry.scan(&made.image).await.unwrap();
    assert!(anew.platforms.iter().all(|scan| !scan.has_ended()), "{anew:?}");
    assert_eq!(registry.scan_again(&ended).await.unwrap(), ended);
    fixture.release_scans().await;
    let policy = Policy::every(Duration::from_millis(20)).within(Duration::from_secs(60));
    let later = registry
        .wait_for_scan(&made.image, &policy, &Cancellation::new())
        .await
        .unwrap();
    assert!(later.platforms.iter().all(|scan| scan.has_ended()), "{later:?}");
}
