//! The contract of [`Delivery`].

use super::{refused, word};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use towpath_core::{Application, Cancellation, CommitSha, Digest, ImageRef};
use towpath_elements::delivery::{DeliveryOutcome, DeliveryReport, Expected};
use towpath_elements::{Delivery, ErrorKind, Result};

/// Makes one test of each clause of [`Delivery`](towpath_elements::Delivery)'s contract.
#[macro_export]
macro_rules! delivery_contract {
    ($fixture:expr) => { $crate::delivery_contract!($fixture, #[tokio::test]); };
    ($fixture:expr, $($attribute:tt)+) => {
        $crate::contract_suite!(delivery, [$($attribute)+], $fixture,
            the_old_commit_is_never_live
            another_image_is_never_live
            what_is_live_costs_no_change
            a_newer_commit_is_told
            a_failure_is_told_before_the_deadline
            a_wait_ends
            a_missing_application_is_an_error
        );
    };
}

/// Prepares applications for the clauses.
#[async_trait]
pub trait DeliveryFixture: Send + Sync {
    /// The implementation.
    fn delivery(&self) -> Arc<dyn Delivery>;

    /// A new application that syncs on its own, and is synced and healthy.
    async fn deployed(&self) -> Promoted;

    /// Makes the application look at its repository no more, or lets it look again.
    async fn hold(&self, application: &Application, held: bool);

    /// Commits a new image to the application's deployment file.
    async fn promote(&self, application: &Application, promotion: Promotion) -> Promoted;

    /// Moves the application's branch to a new commit that does not contain the head, and waits until the application has
    /// looked at it.
    async fn take_over(&self, application: &Application) -> CommitSha;

    /// How many syncs the application has begun so far.
    async fn sync_count(&self, application: &Application) -> usize;

    /// How long everything takes at most.
    fn within(&self) -> Duration;

    /// How long to wait for what does not happen: longer than a good promotion takes.
    fn in_vain(&self) -> Duration;

    /// How long health shall hold.
    fn settle(&self) -> Duration;
}

/// A promotion, good or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// It will run.
    Good,
    /// The sync will fail.
    SyncFails,
    /// The server cannot make manifests of the file.
    ManifestsBroken,
    /// The image cannot be pulled.
    WorkloadFails,
}

/// What a fixture has promoted.
#[derive(Clone, Debug)]
pub struct Promoted {
    /// The application.
    pub application: Application,
    /// The commit of the deployment repository.
    pub revision: CommitSha,
    /// The image that shall run, by digest.
    pub image: ImageRef,
}

impl Promoted {
    fn expected(&self, fixture: &dyn DeliveryFixture, within: Duration) -> Expected {
        Expected {
            application: self.application.clone(),
            revision: self.revision.clone(),
            images: vec![self.image.clone()],
            platform_digests: Vec::new(),
            within,
            settle: fixture.settle(),
        }
    }
}

async fn wait(fixture: &dyn DeliveryFixture, expected: Expected) -> DeliveryReport {
    let delivery = fixture.delivery();
    delivery.wait(expected, &Cancellation::new()).await.unwrap()
}

async fn wait_for(fixture: &dyn DeliveryFixture, promoted: &Promoted) -> Result<DeliveryReport> {
    let expected = promoted.expected(fixture, fixture.within());
    fixture.delivery().wait(expected, &Cancellation::new()).await
}

/// Clause 1.
pub async fn the_old_commit_is_never_live(fixture: &dyn DeliveryFixture) {
    let before = fixture.deployed().await;
    fixture.hold(&before.application, true).await;
    // The image that runs already, so that only the commit tells the two apart.
    let promoted = fixture.promote(&before.application, Promotion::Good).await;
    let old_image = Promoted {
        image: before.image.clone(),
        ..promoted.clone()
    };
    let report = wait(fixture, old_image.expected(fixture, fixture.in_vain())).await;
    assert_ne!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    fixture.hold(&before.application, false).await;
    let report = wait(fixture, promoted.expected(fixture, fixture.within())).await;
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    // A commit that contains the expected one is as good.
    let newer = fixture.promote(&before.application, Promotion::Good).await;
    wait(fixture, newer.expected(fixture, fixture.within())).await;
    let contained = Promoted {
        image: newer.image.clone(),
        ..promoted
    };
    let report = wait(fixture, contained.expected(fixture, fixture.within())).await;
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
}

/// Clause 2.
pub async fn another_image_is_never_live(fixture: &dyn DeliveryFixture) {
    let live = fixture.deployed().await;
    let other_digest = live.image.at(Digest::sha256_of("another image"));
    let name = format!("{}-elsewhere@{}", live.image.name(), Digest::sha256_of("x"));
    let other_repository: ImageRef = word(&name);
    for image in [other_digest, other_repository] {
        let expected = Promoted {
            image,
            ..live.clone()
        };
        let report = wait(fixture, expected.expected(fixture, fixture.in_vain())).await;
        assert_ne!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    }
}

/// Clause 3.
pub async fn what_is_live_costs_no_change(fixture: &dyn DeliveryFixture) {
    let live = fixture.deployed().await;
    let before = fixture.sync_count(&live.application).await;
    for _ in 0..2 {
        let report = wait(fixture, live.expected(fixture, fixture.within())).await;
        assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
        let digests: Vec<_> = report
            .running
            .iter()
            .filter_map(|pod| pod.digest.as_ref())
            .collect();
        assert!(digests.contains(&live.image.digest().unwrap()), "{report:?}");
    }
    assert_eq!(
        fixture.sync_count(&live.application).await,
        before,
        "nothing was synced"
    );
}

/// Clause 4.
pub async fn a_newer_commit_is_told(fixture: &dyn DeliveryFixture) {
    let live = fixture.deployed().await;
    let promoted = fixture.promote(&live.application, Promotion::Good).await;
    wait(fixture, promoted.expected(fixture, fixture.within())).await;
    let newer = fixture.take_over(&live.application).await;
    let report = wait(fixture, promoted.expected(fixture, fixture.within())).await;
    assert_eq!(report.outcome, DeliveryOutcome::Superseded, "{report:?}");
    assert!(
        report.reason.contains(newer.short().get(..7).unwrap()),
        "it names {newer}: {report:?}"
    );
}

/// Clause 5.
pub async fn a_failure_is_told_before_the_deadline(fixture: &dyn DeliveryFixture) {
    for (promotion, outcome) in [
        (Promotion::SyncFails, DeliveryOutcome::SyncFailed),
        (Promotion::ManifestsBroken, DeliveryOutcome::ComparisonError),
        (Promotion::WorkloadFails, DeliveryOutcome::Degraded),
    ] {
        let live = fixture.deployed().await;
        let promoted = fixture.promote(&live.application, promotion).await;
        let started = Instant::now();
        let report = wait(fixture, promoted.expected(fixture, fixture.within())).await;
        assert_eq!(report.outcome, outcome, "{promotion:?}: {report:?}");
        assert!(!report.reason.is_empty(), "{promotion:?} has a reason");
        assert!(
            started.elapsed() < fixture.within(),
            "{promotion:?} before the deadline"
        );
    }
}

/// Clause 6.
pub async fn a_wait_ends(fixture: &dyn DeliveryFixture) {
    let live = fixture.deployed().await;
    fixture.hold(&live.application, true).await;
    let promoted = fixture.promote(&live.application, Promotion::Good).await;
    let report = wait(fixture, promoted.expected(fixture, fixture.in_vain())).await;
    assert_eq!(report.outcome, DeliveryOutcome::TimedOut, "{report:?}");
    assert!(!report.reason.is_empty(), "it says what was still missing");

    let (delivery, cancellation) = (fixture.delivery(), Cancellation::new());
    let started = Instant::now();
    let wait = delivery.wait(promoted.expected(fixture, fixture.within()), &cancellation);
    let stop = async {
        tokio::time::sleep(fixture.in_vain() / 10).await;
        cancellation.cancel();
    };
    let (result, ()) = tokio::join!(wait, stop);
    refused(result, ErrorKind::Cancelled, "a wait that was cancelled");
    assert!(started.elapsed() < fixture.within(), "cancelling ends it at once");
}

/// Clause 7.
pub async fn a_missing_application_is_an_error(fixture: &dyn DeliveryFixture) {
    let live = fixture.deployed().await;
    let missing = Promoted {
        application: word("default/towpath-no-such-application"),
        ..live
    };
    let delivery = fixture.delivery();
    let status = delivery.status(&missing.application).await;
    refused(status, ErrorKind::NotFound, "the status of a missing application");
    let wait = wait_for(fixture, &missing).await;
    refused(wait, ErrorKind::NotFound, "the wait for a missing application");
}
