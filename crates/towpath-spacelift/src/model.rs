//! Spacelift's own things, as the client hands them over: what a server leaves out is `None`, and a word that this
//! version does not know is kept.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use towpath_core::{RunId, StackId};
use towpath_elements::infrastructure::RunState;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A word that this version does not know.
            Other(String),
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                Ok(match word.as_str() {
                    $($word => Self::$variant,)*
                    _ => Self::Other(word),
                })
            }
        }
    };
}

words! {
    /// What a run is for.
    RunType {
        /// A plan only, such as that of a pull request.
        Proposed = "PROPOSED",
        /// A plan, a confirmation, an apply.
        Tracked = "TRACKED",
        /// One command.
        Task = "TASK",
        /// A module's test case.
        Testing = "TESTING",
        /// Everything of the stack is destroyed.
        Destroy = "DESTROY",
    }
}

words! {
    /// Whether an empty plan is applied all the same. Self-hosted versions before 5.1.0 do not know it.
    ForceApply {
        /// By this run.
        Single = "SINGLE",
        /// By this run and the dependent runs it triggers.
        Cascade = "CASCADE",
    }
}

words! {
    /// What a reviewer says of a run, for an approval policy.
    ReviewDecision {
        /// Go on.
        Approve = "APPROVE",
        /// Do not.
        Reject = "REJECT",
    }
}

/// Who the caller is, as the service sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Viewer {
    /// The id, such as `api::01HX…` for an API key.
    pub id: String,
    /// The name.
    pub name: Option<String>,
}

/// What lists and searches say about a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackSummary {
    /// The slug.
    pub id: StackId,
    /// The name, for people.
    pub name: String,
    /// The state of its latest run; `NONE` (as [`RunState::Other`]) where it never ran.
    pub state: RunState,
    /// The branch it follows.
    pub branch: Option<String>,
    /// The repository, without its owner.
    pub repository: Option<String>,
    /// The folder in the repository.
    pub project_root: Option<String>,
    /// The space it is in.
    pub space: Option<String>,
    /// Labels.
    pub labels: Vec<String>,
    /// Whether it applies without asking.
    pub autodeploy: bool,
    /// Whether its runs may administer Spacelift itself.
    pub administrative: bool,
    /// Whether it is switched off.
    pub is_disabled: bool,
}

/// A stack with what surrounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackDetails {
    /// What lists say too.
    pub summary: StackSummary,
    /// Who locked it, where somebody did.
    pub locked_by: Option<String>,
    /// When.
    pub locked_at: Option<Timestamp>,
    /// Why.
    pub lock_note: Option<String>,
    /// The run that holds it. It goes some time after that run has ended.
    pub blocker: Option<RunId>,
    /// The commit that runs start from.
    pub tracked_commit: Option<Commit>,
    /// The private worker pool; `None` for the service's own workers.
    pub worker_pool: Option<PoolName>,
    /// The stacks that must be applied before it.
    pub depends_on: Vec<Dependency>,
    /// The stacks that are applied after it.
    pub dependents: Vec<Dependency>,
    /// What it runs.
    pub vendor: Option<Vendor>,
}

/// What a stack runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the version and the workspace of each")]
pub enum Vendor {
    /// Terraform.
    Terraform {
        version: Option<String>,
        workspace: Option<String>,
    },
    /// OpenTofu.
    OpenTofu {
        version: Option<String>,
        workspace: Option<String>,
    },
    /// Something else.
    Other,
}

/// A private worker pool's id and name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolName {
    /// The id.
    pub id: String,
    /// The name, for people.
    pub name: Option<String>,
}

/// One edge between two stacks, seen from one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dependency {
    /// The edge's id.
    pub id: String,
    /// The stack at the other end.
    pub stack: StackId,
    /// How many outputs are handed over.
    pub references: u64,
    /// Whether a run follows even where no referenced output changed.
    pub trigger_always: bool,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// The full name, as the service writes it.
    pub hash: String,
    /// The first line of its message.
    pub message: Option<String>,
    /// The author's name.
    pub author: Option<String>,
    /// Its page.
    pub url: Option<String>,
}

/// An output of a stack.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// The name.
    pub name: String,
    /// The value as JSON text; `None` for sensitive ones.
    pub value: Option<String>,
    /// Whether it is a secret.
    pub sensitive: bool,
    /// What it is, for people.
    pub description: Option<String>,
}

impl std::fmt::Debug for Output {
    /// Shows no value: what a stack hands over can be private without being marked.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("name", &self.name)
            .field("sensitive", &self.sensitive)
            .finish_non_exhaustive()
    }
}

/// A run, without its history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunSummary {
    /// The id, a ULID.
    pub id: RunId,
    /// What it is for.
    pub kind: RunType,
    /// How it stands.
    pub state: RunState,
    /// The title, for people.
    pub title: Option<String>,
    /// The branch.
    pub branch: Option<String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// `None` for a push, `api::<key>` for an API key, the id of a stack for a dependency.
    pub triggered_by: Option<String>,
    /// Whether an approval policy is undecided: it cannot be confirmed then.
    pub needs_approval: bool,
    /// Whether it only looks for drift.
    pub drift_detection: bool,
    /// The commit it runs on.
    pub commit: Option<Commit>,
    /// How many resources its plan touches, once there is one.
    pub delta: Option<Delta>,
}

/// A run with its history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunDetails {
    /// What lists say too.
    pub summary: RunSummary,
    /// The states it went through, oldest first.
    pub history: Vec<Transition>,
}

/// A run with its history and its plan, read in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedRun {
    /// The run.
    pub run: RunDetails,
    /// The resources that the latest plan touches, in the service's order; empty before there is one.
    pub changes: Vec<Change>,
}

/// How many resources a plan touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delta {
    /// To be created.
    pub add: u64,
    /// To be changed in place.
    pub change: u64,
    /// To be deleted.
    pub delete: u64,
    /// How many there will be.
    pub resources: u64,
}

/// One resource that a plan touches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The address, such as `terraform_data.network`.
    pub address: String,
    /// The address before a move.
    pub previous_address: Option<String>,
    /// What happens to it, in the service's word.
    pub action: Option<String>,
}

/// One step in the life of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The state that was entered.
    pub state: RunState,
    /// Its number within the run, rising. A state can be entered more than once; the number tells the visits apart.
    pub version: i64,
    /// Whether nothing follows.
    pub terminal: bool,
    /// Whether there are logs of it.
    pub has_logs: bool,
    /// When.
    pub at: Option<Timestamp>,
    /// Why, where there is something to say.
    pub note: Option<String>,
    /// Who, where a person or a key did it.
    pub by: Option<String>,
}

/// What became of the runs that were to be discarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiscardedRuns {
    /// Those that were.
    pub discarded: Vec<RunId>,
    /// The ids of those that were not.
    pub failed: Vec<String>,
}

/// A review of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Review {
    /// The id.
    pub id: String,
    /// Who.
    pub author: Option<String>,
    /// What was said.
    pub note: Option<String>,
    /// When.
    pub at: Option<Timestamp>,
}

/// A private worker pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerPool {
    /// The id.
    pub id: String,
    /// The name, for people.
    pub name: Option<String>,
    /// How many runs wait for a worker.
    pub pending_runs: u64,
    /// How many workers are at work.
    pub busy_workers: u64,
    /// The workers that are connected.
    pub workers: Vec<Worker>,
}

impl WorkerPool {
    /// Whether any worker takes new runs. Where none does, a run sits in READY until one comes.
    pub fn takes_runs(&self) -> bool {
        self.workers.iter().any(|worker| !worker.drained)
    }
}

/// A worker of a private pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Worker {
    /// The id.
    pub id: String,
    /// Whether it is at work.
    pub busy: bool,
    /// Whether it takes no more runs.
    pub drained: bool,
}
