//! A run: its states, its history, its plan. The names follow Spacelift's `RunState` and `RunType`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    missing_docs,
    reason = "the names are Spacelift's own; the schema says what each means"
)]
pub enum RunState {
    Queued,
    Ready,
    Preparing,
    Initializing,
    Planning,
    Unconfirmed,
    Confirmed,
    PreparingApply,
    Applying,
    ReplanRequested,
    PreparingReplan,
    PendingReview,
    Performing,
    Destroying,
    Pending,
    None,
    Finished,
    Failed,
    Canceled,
    Discarded,
    Stopped,
    Skipped,
}

impl RunState {
    /// Whether nothing follows this state.
    pub fn is_terminal(self) -> bool {
        use RunState::{Canceled, Discarded, Failed, Finished, Skipped, Stopped};
        matches!(self, Finished | Failed | Canceled | Discarded | Stopped | Skipped)
    }

    /// Whether a worker writes logs in this state.
    pub fn has_logs(self) -> bool {
        use RunState::{
            Applying, Destroying, Initializing, Planning, Preparing, PreparingApply, PreparingReplan,
        };
        matches!(
            self,
            Preparing | Initializing | Planning | PreparingApply | PreparingReplan | Applying | Destroying
        )
    }
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RunType {
    /// A plan only.
    Proposed,
    /// A plan, a confirmation, an apply.
    Tracked,
    /// One command.
    Task,
    /// A module's test case.
    Testing,
    /// Everything of the stack is destroyed.
    Destroy,
}

impl RunType {
    /// Whether only one such run at a time may hold its stack.
    pub(super) fn is_blocking(self) -> bool {
        matches!(self, Self::Tracked | Self::Task | Self::Destroy)
    }
}

/// Whether an empty plan is applied all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ForceApply {
    /// By this run.
    Single,
    /// By this run and the dependent runs it triggers.
    Cascade,
}

/// Environment variables by name. Its `Debug` shows only the names, since a value can be secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(pub(super) BTreeMap<String, String>);

impl Environment {
    /// The value of a variable, where it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The commit of a run. All but the hash is known once a push told it or a worker has cloned it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Commit {
    /// The full name.
    pub hash: String,
    /// The first line of the message.
    pub message: Option<String>,
    /// The author's name.
    pub author_name: Option<String>,
    /// The author's login at GitHub, where a push told it.
    pub author_login: Option<String>,
    /// When it was made, in Unix seconds.
    pub timestamp: Option<i64>,
    /// Its page.
    pub url: Option<String>,
}

impl Commit {
    pub(super) fn bare(hash: impl Into<String>) -> Self {
        Self {
            hash: hash.into(),
            message: None,
            author_name: None,
            author_login: None,
            timestamp: None,
            url: None,
        }
    }
}

/// One step in the life of a run.
#[derive(Clone, Debug)]
pub struct Transition {
    /// The state that was entered.
    pub state: RunState,
    /// 1 for the first transition of the run, rising by one.
    pub version: i64,
    /// When, in Unix seconds.
    pub at: i64,
    /// Why, where there is something to say.
    pub note: Option<String>,
    /// Who did it, where a person or key did.
    pub by: Option<String>,
    /// What was written in this state: Unix seconds and the line with its newline.
    pub log: Vec<(i64, String)>,
}

/// How a plan changes the resources: the numbers Terraform prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Resources to add; a replacement counts here and in `delete`.
    pub add: i64,
    /// Resources to change in place.
    pub change: i64,
    /// Resources to delete.
    pub delete: i64,
    /// Resources there will be.
    pub resources: i64,
}

/// What happens to one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The address, such as `terraform_data.queue`.
    pub address: String,
    /// `ADD`, `CHANGE`, `DELETE` or `REPLACE`.
    pub action: &'static str,
}

/// A plan as it was calculated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The numbers.
    pub delta: Delta,
    /// Each resource that changes, in order of address.
    pub changes: Vec<Change>,
    /// Whether applying it would do anything, outputs included.
    pub has_changes: bool,
}

/// A decision of an approval policy's reviewer.
#[derive(Clone, Debug)]
pub struct Review {
    /// The id.
    pub id: String,
    /// Who.
    pub author: String,
    /// Whether it approves.
    pub approves: bool,
    /// What was said.
    pub note: Option<String>,
    /// The state of the run at that time.
    pub state: RunState,
    /// When, in Unix seconds.
    pub at: i64,
}

/// A run as the lab knows it.
#[derive(Clone, Debug)]
pub struct Run {
    /// The id, a ULID.
    pub id: String,
    /// The stack it belongs to.
    pub stack: String,
    /// What it is for.
    pub kind: RunType,
    /// Its commit; `None` until a worker has looked up the head of the branch.
    pub commit: Option<Commit>,
    /// The branch, where it is known.
    pub branch: Option<String>,
    /// `None` for a push, `api::<key>` for an API key, the id of a stack for a dependency.
    pub triggered_by: Option<String>,
    /// When it was made, in Unix seconds.
    pub created_at: i64,
    /// Its life so far, oldest first; never empty.
    pub history: Vec<Transition>,
    /// The plan, once there is one.
    pub plan: Option<Plan>,
    /// The reviews, oldest first.
    pub reviews: Vec<Review>,
    /// Comments: who, when, what.
    pub comments: Vec<(String, i64, String)>,
    /// The workers that ran a phase of it, oldest first.
    pub workers: Vec<String>,
    /// The upstream runs it waits for.
    pub waits_for: Vec<String>,
    /// The metadata header that came with the calls that made or confirmed it, oldest first.
    pub metadata: Vec<String>,
    /// The environment it was planned with, without what every process gets.
    pub environment: Environment,
    pub(super) external: Vec<String>,
    pub(super) force: Option<ForceApply>,
    pub(super) extra_environment: Environment,
    pub(super) project_root: Option<String>,
    pub(super) missing_inputs: Vec<String>,
    pub(super) targets: Vec<String>,
    pub(super) approval: bool,
    pub(super) stop: bool,
    pub(super) workspace: Option<PathBuf>,
}

impl Run {
    /// Where it stands now.
    pub fn state(&self) -> RunState {
        self.history.last().map_or(RunState::None, |last| last.state)
    }

    /// The states it went through, oldest first.
    pub fn states(&self) -> Vec<RunState> {
        self.history.iter().map(|transition| transition.state).collect()
    }

    /// Everything logged in a state, over all its visits.
    pub fn log(&self, state: RunState) -> String {
        self.history
            .iter()
            .filter(|transition| transition.state == state)
            .flat_map(|transition| transition.log.iter().map(|(_, line)| line.as_str()))
            .collect()
    }

    /// Whether an approving review is still missing: only each author's newest review counts.
    pub fn needs_approval(&self) -> bool {
        let newest_approves = |author: &str| {
            self.reviews
                .iter()
                .rev()
                .find(|review| review.author == author)
                .is_some_and(|review| review.approves)
        };
        self.approval
            && !self.state().is_terminal()
            && !self.reviews.iter().any(|review| newest_approves(&review.author))
    }
}
