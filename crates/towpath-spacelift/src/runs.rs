//! Runs: reading, triggering, and everything a person can do to one.
//!
//! Spacelift's mutations are not idempotent and have no key that would make them so: after a lost answer each method here
//! looks at what became of the run before it says anything.

use crate::client::{Purpose, failed, is_ambiguous, misnamed};
use crate::documents as d;
use crate::model::{
    Change, DiscardedRuns, ForceApply, PlannedRun, Review, ReviewDecision, RunDetails, RunSummary, RunType,
    Transition,
};
use crate::stacks::{missing_if_denied, no_stack};
use crate::wire::{history, time};
use crate::{RunState, Spacelift};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use std::fmt;
use towpath_core::{CommitSha, RunId, StackId};
use towpath_elements::{Error, ErrorKind, Result};

/// How to start a run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RunRequest {
    /// The commit; the stack's tracked one where there is none.
    pub commit: Option<CommitSha>,
    /// What for; a tracked run where nothing is said.
    pub kind: Option<RunType>,
    /// Whether to apply an empty plan too. Self-hosted versions before 5.1.0 refuse a request that says so.
    pub force: Option<ForceApply>,
    /// Opaque text that policies see with the run. It is no place for secrets.
    pub metadata: Option<String>,
}

impl RunRequest {
    /// A tracked run of a commit.
    pub fn of(commit: &CommitSha) -> Self {
        Self {
            commit: Some(commit.clone()),
            kind: Some(RunType::Tracked),
            ..Self::default()
        }
    }
}

/// A run, as errors speak of it.
pub(crate) struct Named<'a>(pub(crate) &'a StackId, pub(crate) &'a RunId);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} of stack {}", self.1, self.0)
    }
}

/// Reads `stack { run }` out of an answer's data, or says which of them is missing.
macro_rules! run_of {
    ($client:expr, $document:ty, $variables:expr, $purpose:expr) => {{
        let data = $client.query::<$document>($variables, $purpose).await;
        let stack = data.map_err(missing_if_denied)?.stack;
        stack
            .ok_or_else(|| no_stack($purpose))?
            .run
            .ok_or_else(|| failed(ErrorKind::NotFound, $purpose).because("the stack has no such run"))
    }};
}
pub(crate) use run_of;

impl Spacelift {
    /// A run with its history.
    ///
    /// # Errors
    /// *Not found* where there is no such run or stack, or the caller may not see it.
    pub async fn get_run(&self, stack: &StackId, run: &RunId) -> Result<RunDetails> {
        let named = Named(stack, run);
        let purpose: Purpose<'_> = ("read", &named);
        let variables = d::get_run::Variables {
            stack: stack.to_string(),
            run: run.to_string(),
        };
        let found = run_of!(self, d::GetRun, variables, purpose)?;
        Ok(RunDetails {
            summary: found.run_summary.try_into().map_err(misnamed(purpose))?,
            history: history(found.history),
        })
    }

    /// A run with its history and the changes of its plan, all as they were at one time.
    ///
    /// # Errors
    /// *Not found* like [`get_run`](Self::get_run).
    pub async fn planned_run(&self, stack: &StackId, run: &RunId) -> Result<PlannedRun> {
        let named = Named(stack, run);
        let purpose: Purpose<'_> = ("read the plan of", &named);
        let variables = d::run_plan::Variables {
            stack: stack.to_string(),
            run: run.to_string(),
        };
        let found = run_of!(self, d::RunPlan, variables, purpose)?;
        let resources = found.changes_v3.into_iter().flat_map(|part| part.resources);
        let changes = resources.map(|resource| Change {
            address: resource.address.unwrap_or_default(),
            previous_address: resource.previous_address,
            action: resource.metadata.and_then(|metadata| metadata.type_),
        });
        Ok(PlannedRun {
            changes: changes.collect(),
            run: RunDetails {
                summary: found.run_summary.try_into().map_err(misnamed(purpose))?,
                history: history(found.history),
            },
        })
    }

    /// The states a run went through, oldest first.
    ///
    /// # Errors
    /// *Not found* like [`get_run`](Self::get_run).
    pub async fn run_history(&self, stack: &StackId, run: &RunId) -> Result<Vec<Transition>> {
        let named = Named(stack, run);
        let purpose: Purpose<'_> = ("read the history of", &named);
        let variables = d::run_history::Variables {
            stack: stack.to_string(),
            run: run.to_string(),
        };
        Ok(history(run_of!(self, d::RunHistory, variables, purpose)?.history))
    }

    /// The tracked runs of a stack, newest first, page by page.
    pub fn list_runs(&self, stack: &StackId) -> BoxStream<'static, Result<RunSummary>> {
        self.list(stack, false)
    }

    /// The proposed runs of a stack, newest first, page by page.
    pub fn list_proposed_runs(&self, stack: &StackId) -> BoxStream<'static, Result<RunSummary>> {
        self.list(stack, true)
    }

    fn list(&self, stack: &StackId, proposed: bool) -> BoxStream<'static, Result<RunSummary>> {
        let (client, stack) = (self.clone(), stack.clone());
        let pages = stream::try_unfold(Some(None::<RunId>), move |next| {
            let (client, stack) = (client.clone(), stack.clone());
            async move {
                let Some(before) = next else {
                    return Ok::<_, Error>(None);
                };
                let page = client.run_page(&stack, before.as_ref(), proposed).await?;
                // An empty page is the end, and so is one that begins anew: its server knows no `before`.
                let last = page.last().map(|run| run.id.clone());
                let next = last.filter(|last| before.as_ref() != Some(last)).map(Some);
                Ok(Some((stream::iter(page.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn run_page(
        &self,
        stack: &StackId,
        before: Option<&RunId>,
        proposed: bool,
    ) -> Result<Vec<RunSummary>> {
        let purpose: Purpose<'_> = ("list the runs of stack", stack);
        let (id, before) = (stack.to_string(), before.map(ToString::to_string));
        let runs: Result<Vec<RunSummary>, _> = if proposed {
            let variables = d::list_proposed_runs::Variables { stack: id, before };
            let data = self.query::<d::ListProposedRuns>(variables, purpose).await;
            let found = data.map_err(missing_if_denied)?.stack;
            let runs = found.ok_or_else(|| no_stack(purpose))?.proposed_runs;
            runs.into_iter().map(TryInto::try_into).collect()
        } else {
            let variables = d::list_runs::Variables { stack: id, before };
            let data = self.query::<d::ListRuns>(variables, purpose).await;
            let found = data.map_err(missing_if_denied)?.stack;
            let runs = found.ok_or_else(|| no_stack(purpose))?.runs;
            runs.into_iter().map(TryInto::try_into).collect()
        };
        runs.map_err(misnamed(purpose))
    }

    /// Starts a run. Where the answer is lost, the run is looked for before anything else is done; it is never started
    /// twice.
    ///
    /// # Errors
    /// *Not found* for an unknown stack; *conflict* where it is locked by somebody else or switched off.
    pub async fn trigger_run(&self, stack: &StackId, request: RunRequest) -> Result<RunSummary> {
        let purpose: Purpose<'_> = ("trigger a run of stack", stack);
        let kind = request.kind.clone().unwrap_or(RunType::Tracked);
        let proposed = kind == RunType::Proposed;
        let known = self.newest(stack, proposed).await?;
        let (id, sha) = (
            stack.to_string(),
            request.commit.as_ref().map(ToString::to_string),
        );
        let metadata = request.metadata.as_deref();
        let made: Result<Option<Result<RunSummary, _>>> = match request.force {
            None => {
                let variables = d::run_trigger::Variables {
                    stack: id,
                    sha,
                    type_: Some(kind.clone()),
                };
                let data = self.mutate::<d::RunTrigger>(variables, metadata, purpose).await;
                data.map(|data| data.run_trigger.map(TryInto::try_into))
            }
            Some(force) => {
                let variables = d::run_trigger_force::Variables {
                    stack: id,
                    sha,
                    type_: Some(kind.clone()),
                    force: Some(force),
                };
                let data = self
                    .mutate::<d::RunTriggerForce>(variables, metadata, purpose)
                    .await;
                data.map(|data| data.run_trigger.map(TryInto::try_into))
            }
        };
        let wanted = |run: &RunSummary| {
            let same = |commit: &CommitSha| run.commit.as_ref().is_some_and(|c| c.hash == commit.as_str());
            run.kind == kind && request.commit.as_ref().is_none_or(same)
        };
        match made {
            Ok(Some(run)) => run.map_err(misnamed(purpose)),
            Ok(None) => Err(failed(ErrorKind::Protocol, purpose).because("the answer holds no run")),
            Err(error) if is_ambiguous(&error) => {
                let found = self.appeared(stack, known.as_ref(), proposed, wanted).await?;
                found.ok_or(error)
            }
            Err(error) => Err(self.missing_stack(stack, error).await),
        }
    }

    /// The newest run there is, so that one which appears later can be told from those before.
    async fn newest(&self, stack: &StackId, proposed: bool) -> Result<Option<RunId>> {
        let page = self.run_page(stack, None, proposed).await?;
        Ok(page.into_iter().next().map(|run| run.id))
    }

    /// The run of these credentials that appeared after `known`, where there is one.
    async fn appeared(
        &self,
        stack: &StackId,
        known: Option<&RunId>,
        proposed: bool,
        wanted: impl Fn(&RunSummary) -> bool,
    ) -> Result<Option<RunSummary>> {
        let ours = self.credentials().trigger_name();
        let page = self.run_page(stack, None, proposed).await?;
        let mut new = page.into_iter().take_while(|run| Some(&run.id) != known);
        Ok(new.find(|run| wanted(run) && (ours.is_none() || run.triggered_by == ours)))
    }

    /// Confirms a run that waits. It says nothing about what the run would do: the trait's
    /// [`confirm`](crate::Infrastructure::confirm) binds the confirmation to a plan.
    ///
    /// # Errors
    /// *Conflict* where the run does not wait, or an approval is missing.
    pub async fn confirm_run(&self, stack: &StackId, run: &RunId, note: Option<&str>) -> Result<()> {
        let variables = d::run_confirm::Variables {
            stack: stack.to_string(),
            run: run.to_string(),
            note: note.map(ToOwned::to_owned),
        };
        let named = Named(stack, run);
        let done = self
            .mutate::<d::RunConfirm>(variables, None, ("confirm", &named))
            .await;
        let past = |details: &RunDetails| was_confirmed(&details.history);
        self.look_back(stack, run, done.map(drop), past).await
    }

    /// Discards a run that waits. A run that is discarded already is no error.
    ///
    /// # Errors
    /// *Conflict* where the run is past that.
    pub async fn discard_run(&self, stack: &StackId, run: &RunId, note: Option<&str>) -> Result<()> {
        let variables = d::run_discard::Variables {
            stack: stack.to_string(),
            run: run.to_string(),
            note: note.map(ToOwned::to_owned),
        };
        let named = Named(stack, run);
        let done = self
            .mutate::<d::RunDiscard>(variables, None, ("discard", &named))
            .await;
        self.look_back(stack, run, done.map(drop), ended_as(RunState::Discarded))
            .await
    }

    /// Discards every run of a stack that waits. That there is none is no error.
    pub async fn discard_all_runs(&self, stack: &StackId, note: Option<&str>) -> Result<DiscardedRuns> {
        let purpose: Purpose<'_> = ("discard the runs of stack", stack);
        let variables = d::run_discard_all::Variables {
            stack: stack.to_string(),
            note: note.map(ToOwned::to_owned),
        };
        let data = match self.mutate::<d::RunDiscardAll>(variables, None, purpose).await {
            Ok(data) => data,
            Err(error) if error.detail().contains("no runs found that can be discarded") => {
                return Ok(DiscardedRuns::default());
            }
            Err(error) => return Err(self.missing_stack(stack, error).await),
        };
        let done = data
            .run_discard_all
            .ok_or_else(|| failed(ErrorKind::Protocol, purpose).because("the answer says nothing of them"))?;
        let discarded = done.discarded_runs.into_iter().map(|run| run.id.parse());
        Ok(DiscardedRuns {
            discarded: discarded.collect::<Result<_, _>>().map_err(misnamed(purpose))?,
            failed: done.failed_discarding.unwrap_or_default(),
        })
    }

    /// Cancels a run that has not started. A run that is cancelled already is no error.
    ///
    /// # Errors
    /// *Conflict* where it has started.
    pub async fn cancel_run(&self, stack: &StackId, run: &RunId, note: Option<&str>) -> Result<()> {
        let variables = d::run_cancel::Variables {
            stack: stack.to_string(),
            run: run.to_string(),
            note: note.map(ToOwned::to_owned),
        };
        let named = Named(stack, run);
        let done = self
            .mutate::<d::RunCancel>(variables, None, ("cancel", &named))
            .await;
        self.look_back(stack, run, done.map(drop), ended_as(RunState::Canceled))
            .await
    }

    /// Asks the worker of a run to stop. The run is over only once the worker has done so.
    ///
    /// # Errors
    /// *Conflict* where it cannot be stopped: while it waits, and once it applies.
    pub async fn stop_run(&self, stack: &StackId, run: &RunId, note: Option<&str>) -> Result<()> {
        let variables = d::run_stop::Variables {
            stack: stack.to_string(),
            run: run.to_string(),
            note: note.map(ToOwned::to_owned),
        };
        let named = Named(stack, run);
        let done = self.mutate::<d::RunStop>(variables, None, ("stop", &named)).await;
        self.look_back(stack, run, done.map(drop), ended_as(RunState::Stopped))
            .await
    }

    /// Runs a finished proposed run once more.
    ///
    /// # Errors
    /// *Conflict* where it cannot be retried.
    pub async fn retry_run(&self, stack: &StackId, run: &RunId) -> Result<RunSummary> {
        let named = Named(stack, run);
        let purpose: Purpose<'_> = ("retry", &named);
        let known = self.newest(stack, true).await?;
        let variables = d::run_retry::Variables {
            stack: stack.to_string(),
            run: run.to_string(),
        };
        let made = self.mutate::<d::RunRetry>(variables, None, purpose).await;
        let made = made.map(|data| data.run_retry.map(TryInto::try_into));
        match made {
            Ok(Some(made)) => made.map_err(misnamed(purpose)),
            Ok(None) => Err(failed(ErrorKind::Protocol, purpose).because("the answer holds no run")),
            Err(error) if is_ambiguous(&error) => {
                let found = self.appeared(stack, known.as_ref(), true, |_| true).await?;
                found.ok_or(error)
            }
            Err(error) => Err(self.missing_stack(stack, error).await),
        }
    }

    /// Starts a tracked run of a proposed run's commit. The stack must allow run promotion.
    ///
    /// # Errors
    /// *Conflict* where it cannot be promoted.
    pub async fn promote_run(&self, stack: &StackId, run: &RunId) -> Result<RunSummary> {
        let named = Named(stack, run);
        let purpose: Purpose<'_> = ("promote", &named);
        let known = self.newest(stack, false).await?;
        let variables = d::run_promote::Variables {
            stack: stack.to_string(),
            run: run.to_string(),
        };
        let made = self.mutate::<d::RunPromote>(variables, None, purpose).await;
        let made = made.map(|data| data.run_promote.map(TryInto::try_into));
        match made {
            Ok(Some(made)) => made.map_err(misnamed(purpose)),
            Ok(None) => Err(failed(ErrorKind::Protocol, purpose).because("the answer holds no run")),
            Err(error) if is_ambiguous(&error) => {
                let found = self.appeared(stack, known.as_ref(), false, |_| true).await?;
                found.ok_or(error)
            }
            Err(error) => Err(self.missing_stack(stack, error).await),
        }
    }

    /// Reviews a run, for the stack's approval policy. Only each reviewer's newest review counts, so that sending it again
    /// after a lost answer does no harm.
    ///
    /// # Errors
    /// *Conflict* where the run takes no review.
    pub async fn review_run(
        &self,
        stack: &StackId,
        run: &RunId,
        decision: ReviewDecision,
        note: Option<&str>,
    ) -> Result<Review> {
        let named = Named(stack, run);
        let purpose: Purpose<'_> = ("review", &named);
        let variables = d::run_review::Variables {
            stack: stack.to_string(),
            run: run.to_string(),
            decision,
            note: note.map(ToOwned::to_owned),
        };
        let data = match self.mutate::<d::RunReview>(variables, None, purpose).await {
            Ok(data) => data,
            Err(error) => return Err(self.missing_stack(stack, error).await),
        };
        let review = data
            .run_review
            .ok_or_else(|| failed(ErrorKind::Protocol, purpose).because("the answer holds no review"))?;
        Ok(Review {
            id: review.id,
            author: review.author,
            note: review.note,
            at: time(review.timestamp),
        })
    }

    /// After a failure: what was asked for may have happened all the same, or may have been so before. Otherwise the error
    /// says how the run stands.
    async fn look_back(
        &self,
        stack: &StackId,
        run: &RunId,
        done: Result<()>,
        is_so: impl Fn(&RunDetails) -> bool,
    ) -> Result<()> {
        let Err(error) = done else { return Ok(()) };
        if !(is_ambiguous(&error) || error.is_conflict() || error.is_denied()) {
            return Err(error);
        }
        match self.get_run(stack, run).await {
            Ok(now) if is_so(&now) => Ok(()),
            Ok(now) if error.is_conflict() => {
                Err(failed(ErrorKind::Conflict, ("change", &Named(stack, run)))
                    .because(format!("{} (the run is {})", error.detail(), now.summary.state))
                    .caused_by(error))
            }
            Ok(_) => Err(error),
            Err(missing) if missing.is_not_found() => Err(missing),
            // What failed first matters more than that it could not be looked at.
            Err(_) => Err(error),
        }
    }
}

fn ended_as(state: RunState) -> impl Fn(&RunDetails) -> bool {
    move |run| run.summary.state == state
}

/// Whether the newest plan was confirmed by somebody, whatever came of it since.
pub(crate) fn was_confirmed(history: &[Transition]) -> bool {
    let mut newest = history.iter().rev();
    let last = newest.find(|step| matches!(step.state, RunState::Confirmed | RunState::Unconfirmed));
    last.is_some_and(|step| step.state == RunState::Confirmed)
}
