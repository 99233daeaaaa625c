//! Elements G to K: Spacelift, its plans, the human who confirms them, and the workers that apply them.

use crate::ci::ended;
use crate::{Error, ErrorKind, Result};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use towpath_core::wait::{self, Judgement, Policy};
use towpath_core::{Cancellation, CommitSha, Digest, RunId, StackId};

/// What a flow asks of the infrastructure system.
///
/// # Contract
/// 1. `a_commit_without_a_run_is_none`: [`find_run`](Self::find_run) is the newest tracked run of this very commit, and
///    `None` where there is none yet; a run of another commit is never returned.
/// 2. `a_plan_is_what_the_run_would_do`: [`plan`](Self::plan) lists every change of the run's latest plan; asking before
///    there is one is a *conflict*.
/// 3. `equal_plans_have_equal_digests`: [`Plan::digest`] depends on the stack, the run, the commit and the changes, and on
///    nothing else.
/// 4. `only_what_was_seen_is_confirmed`: [`confirm`](Self::confirm) is a *conflict*, and confirms nothing, if the run's
///    plan or commit is not the one that was seen, or the run no longer waits.
/// 5. `confirming_twice_succeeds`: confirming what this very confirmation has already set going succeeds.
/// 6. `a_discarded_run_changes_nothing`: after [`discard`](Self::discard) the run ends as *discarded*.
/// 7. `only_finished_is_success`: of the ends of a run only [`RunState::Finished`] is one.
/// 8. `an_unknown_stack_is_not_found`.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Infrastructure: Debug + Send + Sync {
    /// A stack as it stands.
    async fn stack(&self, stack: &StackId) -> Result<Stack>;

    /// The newest tracked run of a commit, if there is one yet.
    async fn find_run(&self, stack: &StackId, commit: &CommitSha) -> Result<Option<Run>>;

    /// A run as it stands.
    async fn run(&self, stack: &StackId, run: &RunId) -> Result<Run>;

    /// What a run would change.
    async fn plan(&self, stack: &StackId, run: &RunId) -> Result<Plan>;

    /// Starts a tracked run of a commit.
    async fn trigger(&self, stack: &StackId, commit: &CommitSha) -> Result<Run>;

    /// Confirms a run, if it is still what was seen.
    async fn confirm(&self, confirmation: Confirmation) -> Result<()>;

    /// Discards a run that waits for confirmation, with a note for people.
    async fn discard(&self, stack: &StackId, run: &RunId, note: &str) -> Result<()>;

    /// The end of a run's log, at most `lines` lines.
    async fn log(&self, stack: &StackId, run: &RunId, lines: usize) -> Result<String>;

    /// The outputs of a stack that are not sensitive, as JSON text by name.
    async fn outputs(&self, stack: &StackId) -> Result<BTreeMap<String, String>>;
}

/// A stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Its slug.
    pub id: StackId,
    /// Its name, for people.
    pub name: String,
    /// The private worker pool that runs it; `None` for the service's own workers.
    pub worker_pool: Option<String>,
    /// The stacks that must be applied before it.
    pub depends_on: Vec<StackId>,
    /// The stacks that are applied after it.
    pub dependents: Vec<StackId>,
    /// The run that holds the stack, where one does.
    pub blocked_by: Option<RunId>,
    /// Who locked it and why, where somebody did.
    pub locked: Option<String>,
    /// Whether it applies without asking.
    pub autodeploy: bool,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// The stack it belongs to.
    pub stack: StackId,
    /// The commit it runs on, where the service says so.
    pub commit: Option<CommitSha>,
    /// How it stands.
    pub state: RunState,
    /// Whether somebody must approve it before it can be confirmed.
    pub needs_approval: bool,
    /// How many resources its plan touches, once there is one.
    pub counts: Option<ChangeCounts>,
    /// What the service noted at the last change of state.
    pub note: Option<String>,
    /// When the state last changed.
    pub since: Option<Timestamp>,
}

/// How a run stands, in the words of Spacelift.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the service's own words")]
pub enum RunState {
    Queued,
    Ready,
    Preparing,
    Initializing,
    Planning,
    Unconfirmed,
    PendingReview,
    Confirmed,
    PreparingApply,
    Applying,
    ReplanRequested,
    PreparingReplan,
    Performing,
    Destroying,
    Finished,
    Failed,
    Canceled,
    Discarded,
    Stopped,
    Skipped,
    /// A word that this version does not know; it is not an end.
    Other(String),
}

impl RunState {
    /// Whether the run is over.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Finished | Self::Failed | Self::Canceled | Self::Discarded | Self::Stopped | Self::Skipped
        )
    }

    /// Whether the run waits for a human.
    pub fn waits_for_a_human(&self) -> bool {
        matches!(self, Self::Unconfirmed | Self::PendingReview)
    }

    /// Whether the run has got past the human: confirmed, or needing no confirmation.
    pub fn is_past_confirmation(&self) -> bool {
        matches!(
            self,
            Self::Confirmed | Self::PreparingApply | Self::Applying | Self::Finished
        )
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(word) => f.write_str(word),
            known => {
                for (at, c) in format!("{known:?}").char_indices() {
                    if at > 0 && c.is_ascii_uppercase() {
                        f.write_str(" ")?;
                    }
                    write!(f, "{}", c.to_ascii_lowercase())?;
                }
                Ok(())
            }
        }
    }
}

/// How many resources a plan touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// To be created.
    pub add: u64,
    /// To be changed in place.
    pub change: u64,
    /// To be deleted.
    pub delete: u64,
}

impl fmt::Display for ChangeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} to add, {} to change, {} to delete",
            self.add, self.change, self.delete
        )
    }
}

/// What a run would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The stack.
    pub stack: StackId,
    /// The run whose plan it is.
    pub run: RunId,
    /// The commit it was planned from.
    pub commit: CommitSha,
    /// The changes, in the order of the service.
    pub changes: Vec<PlannedChange>,
    /// How many there are of each kind.
    pub counts: ChangeCounts,
}

/// One resource that a plan touches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlannedChange {
    /// The resource's address, such as `terraform_data.network`.
    pub address: String,
    /// What happens to it, in the service's word, lower case.
    pub action: String,
}

impl Plan {
    /// Names the plan: what a human approves is this digest, and a plan with another one is another plan.
    ///
    /// It is the SHA-256 of a canonical JSON text of stack, run, commit, counts and changes sorted by address.
    pub fn digest(&self) -> Digest {
        let mut changes: Vec<_> = self.changes.iter().map(|c| (&c.address, &c.action)).collect();
        changes.sort();
        let counts = (self.counts.add, self.counts.change, self.counts.delete);
        let canonical = serde_json::json!([self.stack, self.run, self.commit, counts, changes]);
        Digest::sha256_of(canonical.to_string())
    }
}

/// A human's yes to a plan, bound to what the human saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The stack.
    pub stack: StackId,
    /// The run.
    pub run: RunId,
    /// The commit it was planned from.
    pub commit: CommitSha,
    /// The digest of the plan that was seen.
    pub plan: Digest,
    /// Who said yes, and why, for the service's history.
    pub note: String,
}

/// What users of [`Infrastructure`] get on top of it.
#[async_trait]
pub trait InfrastructureExt {
    /// Waits for the commit's tracked run to appear.
    ///
    /// # Errors
    /// *Timed out*, *cancelled*, or what the service said.
    async fn wait_for_run(
        &self,
        stack: &StackId,
        commit: &CommitSha,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<Run>;

    /// Waits until a run waits for a human or is over.
    ///
    /// # Errors
    /// *Timed out* naming the state it was stuck in, *cancelled*, or what the service said.
    async fn wait_for_decision(
        &self,
        stack: &StackId,
        run: &RunId,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<Run>;

    /// Waits until a run is over, however it ends.
    ///
    /// # Errors
    /// A *conflict* if the run waits for a human again; *timed out*, *cancelled*, or what the service said.
    async fn wait_for_end(
        &self,
        stack: &StackId,
        run: &RunId,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<Run>;
}

#[async_trait]
impl<T: Infrastructure + ?Sized> InfrastructureExt for T {
    async fn wait_for_run(
        &self,
        stack: &StackId,
        commit: &CommitSha,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<Run> {
        let subject = format!("a run of stack {stack} on {}", commit.short());
        let outcome = wait::until(
            policy,
            cancellation,
            || self.find_run(stack, commit),
            Error::retry,
            |run| match run {
                Some(_) => Judgement::Met,
                None => Judgement::pending("the push to start a run"),
            },
        )
        .await;
        ended("wait for", subject, outcome)?
            .ok_or_else(|| Error::new(ErrorKind::Protocol, "Spacelift", "find a run of", stack))
    }

    async fn wait_for_decision(
        &self,
        stack: &StackId,
        run: &RunId,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<Run> {
        let ready = |run: &Run| match run.state {
            RunState::Unconfirmed | RunState::PendingReview => Judgement::Met,
            ref state if state.is_terminal() || state.is_past_confirmation() => Judgement::Met,
            ref state => Judgement::pending(stuck(state, run)),
        };
        let outcome = wait::until(policy, cancellation, || self.run(stack, run), Error::retry, ready).await;
        ended(
            "wait for the plan of",
            format!("run {run} of stack {stack}"),
            outcome,
        )
    }

    async fn wait_for_end(
        &self,
        stack: &StackId,
        run: &RunId,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<Run> {
        let over = |run: &Run| match run.state {
            ref state if state.is_terminal() => Judgement::Met,
            RunState::Unconfirmed | RunState::PendingReview => {
                Judgement::failed("it waits for a human again: its plan was made anew")
            }
            ref state => Judgement::pending(stuck(state, run)),
        };
        let outcome = wait::until(policy, cancellation, || self.run(stack, run), Error::retry, over).await;
        ended(
            "wait for the end of",
            format!("run {run} of stack {stack}"),
            outcome,
        )
    }
}

fn stuck(state: &RunState, run: &Run) -> String {
    let why = match state {
        RunState::Queued if run.needs_approval => "an approval",
        RunState::Queued => "the stack to be free, or the stacks it depends on",
        RunState::Ready | RunState::Confirmed => "a worker of the stack's pool",
        _ => "the worker",
    };
    format!("{why} (the run is {state})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_named_by_what_it_does() {
        let change = |address: &str, action: &str| PlannedChange {
            address: address.into(),
            action: action.into(),
        };
        let plan = |changes: Vec<PlannedChange>| Plan {
            stack: "shared".parse().unwrap(),
            run: "01J".parse().unwrap(),
            commit: "1".repeat(40).parse().unwrap(),
            counts: ChangeCounts {
                add: changes.len() as u64,
                ..Default::default()
            },
            changes,
        };
        let one = plan(vec![change("a", "add"), change("b", "add")]);
        assert_eq!(
            one.digest(),
            plan(vec![change("b", "add"), change("a", "add")]).digest()
        );
        assert_ne!(
            one.digest(),
            plan(vec![change("a", "add"), change("b", "delete")]).digest()
        );
    }

    #[test]
    fn states_read_as_words() {
        assert_eq!(RunState::PreparingApply.to_string(), "preparing apply");
        assert_eq!(RunState::Other("NEW".into()).to_string(), "NEW");
    }
}
