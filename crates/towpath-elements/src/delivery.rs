//! Element F: Argo CD, which brings what the repository says to the cluster.

use crate::Result;
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::time::Duration;
use towpath_core::{Application, Cancellation, CommitSha, Digest, ImageRef};

/// What a flow asks of the delivery system.
///
/// # Contract
/// 1. `the_old_commit_is_never_live`: [`wait`](Self::wait) does not say *live* while the expected commit, or one that
///    contains it, is not what was compared and synced, however healthy the application is.
/// 2. `another_image_is_never_live`: nor while a running image of an expected repository has another digest, or none
///    runs.
/// 3. `what_is_live_costs_no_change`: waiting for what is already live changes nothing and says *live*.
/// 4. `a_newer_commit_is_told`: a commit that takes over and does not contain the expected one is *superseded*.
/// 5. `a_failure_is_told_before_the_deadline`: a failed sync, an error in the manifests, and a workload that cannot start
///    are outcomes of their own, with the reason.
/// 6. `a_wait_ends`: at the deadline the outcome is *timed out* and says what was still missing; cancelling ends it at
///    once with an error of kind *cancelled*.
/// 7. `a_missing_application_is_an_error`: an application that does not exist, or may not be seen, is *not found*.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Delivery: Debug + Send + Sync {
    /// The application as it stands.
    async fn status(&self, application: &Application) -> Result<DeliveryStatus>;

    /// Asks the server to look at the repository now.
    async fn refresh(&self, application: &Application) -> Result<()>;

    /// Asks the server to bring a commit to the cluster. For applications that sync on their own, a refresh is right.
    async fn sync(&self, application: &Application, revision: &CommitSha) -> Result<()>;

    /// Waits until what is expected runs, or cannot. It refreshes or syncs as the application needs.
    async fn wait(&self, expected: Expected, cancellation: &Cancellation) -> Result<DeliveryReport>;

    /// The images that run for an application now, container by container.
    async fn running(&self, application: &Application) -> Result<Vec<RunningImage>>;
}

/// Tells whether one commit contains another, for a wait that meets a newer commit than it expects.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RevisionOracle: Debug + Send + Sync {
    /// Whether `revision`, found in the repository at `repository_url`, contains `expected`.
    async fn contains(
        &self,
        repository_url: &str,
        revision: &CommitSha,
        expected: &CommitSha,
    ) -> Result<bool>;
}

/// What shall run, and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The application.
    pub application: Application,
    /// The commit of the deployment repository that must be synced.
    pub revision: CommitSha,
    /// The images that must run, by digest. Every container of such a repository must have the digest.
    pub images: Vec<ImageRef>,
    /// Other digests that a container runtime may report for an expected image: the manifests of an index's platforms.
    pub platform_digests: Vec<Digest>,
    /// How long to wait at most.
    pub within: Duration,
    /// How long health must hold before it counts.
    pub settle: Duration,
}

/// An application as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// The application.
    pub application: Application,
    /// The revision that was compared last: a commit, or whatever else the source has for one.
    pub revision: Option<String>,
    /// Whether the cluster has what the repository says.
    pub sync: SyncState,
    /// How the workloads are.
    pub health: HealthState,
    /// The message that goes with the health or the last operation, where there is one.
    pub message: Option<String>,
    /// Whether an operation is going on.
    pub busy: bool,
    /// When the last comparison began.
    pub reconciled: Option<Timestamp>,
}

/// Whether the cluster has what the repository says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SyncState {
    /// It has.
    Synced,
    /// It has not.
    OutOfSync,
    /// It is not known, or a word that this version does not know.
    Unknown,
}

/// How the workloads are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthState {
    /// Good.
    Healthy,
    /// On their way.
    Progressing,
    /// Failing.
    Degraded,
    /// Paused on purpose.
    Suspended,
    /// Not there.
    Missing,
    /// Not known, or a word that this version does not know.
    Unknown,
}

/// How a wait ended, on what evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// How it ended.
    pub outcome: DeliveryOutcome,
    /// Why, in a sentence that says what to do where something is to be done.
    pub reason: String,
    /// The last state seen.
    pub status: Option<DeliveryStatus>,
    /// The images that were running, as they were read last. A wait reads them once all else holds: after another end there
    /// may be none here although some run.
    pub running: Vec<RunningImage>,
}

/// How a wait for an application ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeliveryOutcome {
    /// The expected commit is synced, healthy, and its images run.
    Live,
    /// A commit that does not contain the expected one took over.
    Superseded,
    /// The sync of the expected commit failed.
    SyncFailed,
    /// The expected commit is synced, and its workloads, or pods with an expected image, fail.
    Degraded,
    /// A sync window forbids the sync.
    Rejected,
    /// The application does not sync on its own, and nobody asked it to; or its automatic sync is paused.
    AutoSyncOff,
    /// The server cannot make manifests of the repository.
    ComparisonError,
    /// The application was deleted and made anew during the wait.
    Replaced,
    /// The application went away during the wait, is being deleted, or may no longer be seen.
    Missing,
    /// The expected commit is synced, and its manifests do not ask for the expected images.
    NotDesired,
    /// The time ran out.
    TimedOut,
}

/// One image that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningImage {
    /// The pod, as `namespace/name`.
    pub pod: String,
    /// The image as the pod's specification names it.
    pub image: ImageRef,
    /// The digest that the runtime reports; `None` until it has pulled the image.
    pub digest: Option<Digest>,
    /// Whether the container is ready.
    pub ready: bool,
}
