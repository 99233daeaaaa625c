//! Commit statuses, check runs and deployments: what a commit carries.

use super::{User, words};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_core::CommitSha;
use url::Url;

words! {
    /// How a commit status stands.
    StatusState {
        /// It could not be told.
        Error = "error",
        /// Not good.
        Failure = "failure",
        /// Not known yet.
        Pending = "pending",
        /// Good.
        Success = "success",
    }
}

/// A commit status.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// Its number; a later one replaces an earlier one of the same context.
    #[serde(default)]
    pub id: u64,
    /// Which status of the commit.
    #[serde(default)]
    pub context: String,
    /// How it stands.
    pub state: StatusState,
    /// One line about it.
    pub description: Option<String>,
    /// Where to read more.
    pub target_url: Option<String>,
    /// Who wrote it; the combined status leaves it out.
    pub creator: Option<User>,
    /// When it was written.
    pub created_at: Option<Timestamp>,
}

/// A commit status to be written.
#[derive(Clone, Debug, Serialize)]
pub struct NewStatus {
    /// How it stands.
    pub state: StatusState,
    /// Which status of the commit; compared without regard to case.
    pub context: String,
    /// One line about it, at most 140 characters.
    pub description: String,
    /// Where to read more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_url: Option<Url>,
}

/// The latest status of each context of a commit.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct CombinedStatus {
    /// The worst of them. It is `pending` also where there is none at all: look at [`statuses`](Self::statuses).
    pub state: StatusState,
    /// The commit.
    pub sha: CommitSha,
    /// The latest status of each context.
    #[serde(default)]
    pub statuses: Vec<Status>,
}

words! {
    /// How far a check run, a workflow run, a job or a step is.
    CheckStatus {
        /// It waits for a runner.
        Queued = "queued",
        /// It runs.
        InProgress = "in_progress",
        /// It is over.
        Completed = "completed",
        /// It waits for a rule of its environment.
        Waiting = "waiting",
        /// It was asked for, and is not queued yet.
        Requested = "requested",
        /// It waits for others of its group.
        Pending = "pending",
    }
}

words! {
    /// How a check run, a workflow run, a job or a step ended.
    CheckConclusion {
        /// Good.
        Success = "success",
        /// Not good.
        Failure = "failure",
        /// Neither good nor bad.
        Neutral = "neutral",
        /// Stopped.
        Cancelled = "cancelled",
        /// Not needed.
        Skipped = "skipped",
        /// Out of time.
        TimedOut = "timed_out",
        /// A person has to act.
        ActionRequired = "action_required",
        /// Never finished; GitHub gave up on it.
        Stale = "stale",
        /// It could not even start.
        StartupFailure = "startup_failure",
    }
}

/// A check run on a commit.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct CheckRun {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The commit.
    pub head_sha: CommitSha,
    /// How far it is.
    pub status: CheckStatus,
    /// How it ended.
    pub conclusion: Option<CheckConclusion>,
    /// Where to read more.
    pub details_url: Option<String>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
}

/// A deployment.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Deployment {
    /// Its number.
    pub id: u64,
    /// The commit.
    pub sha: CommitSha,
    /// The branch, tag or commit that was asked for.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// Where it goes.
    pub environment: Option<String>,
}

/// A status of a deployment.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct DeploymentStatus {
    /// Its number.
    pub id: u64,
    /// How the deployment stands, such as `in_progress` or `success`.
    pub state: String,
    /// One line about it.
    pub description: Option<String>,
}
