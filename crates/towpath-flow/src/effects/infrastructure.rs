//! Elements G to K: the run, its plan, the confirmation, and the apply.

use crate::effect::evidence;
use crate::{Effect, Elements, Evidence};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use towpath_core::{CommitSha, RunId, StackId};
use towpath_elements::infrastructure::{Confirmation, Plan, Run, RunState};
use towpath_elements::{Error, ErrorKind, InfrastructureExt, Result};

/// How many lines of a failed run's log an error shows.
const LOG_LINES: usize = 15;

/// Finds the run that a commit started on a stack, and waits for it to appear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindRun {
    /// The stack.
    pub stack: StackId,
    /// The commit.
    pub commit: CommitSha,
    /// How long to wait at most.
    pub within: Duration,
}

#[async_trait]
impl Effect for FindRun {
    const NAME: &'static str = "infrastructure.find_run";
    type Output = Run;

    fn title(&self) -> String {
        format!("find the run of stack {} on {}", self.stack, self.commit.short())
    }

    fn evidence(&self, run: &Run) -> Evidence {
        evidence([
            ("run", format!("{}/{}", run.stack, run.id)),
            ("commit", self.commit.to_string()),
        ])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<Run>> {
        elements
            .infrastructure()?
            .find_run(&self.stack, &self.commit)
            .await
    }

    async fn apply(&self, elements: &Elements) -> Result<Run> {
        let policy = elements.policy().clone().within(self.within);
        let wait = elements.infrastructure()?.wait_for_run(
            &self.stack,
            &self.commit,
            &policy,
            elements.cancellation(),
        );
        wait.await.map_err(|error| match error.is_timed_out() {
            true => error.advise(
                "check the webhook from the repository to Spacelift, the stack's branch and project root, \
                 and its push policy",
            ),
            false => error,
        })
    }
}

/// Waits until a run has something to decide, and reads its plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPlan {
    /// The stack.
    pub stack: StackId,
    /// The run.
    pub run: RunId,
    /// How long to wait at most.
    pub within: Duration,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanMade {
    /// The run as it stands.
    pub run: Run,
    /// Its plan; `None` where there was nothing to change.
    pub plan: Option<Plan>,
}

#[async_trait]
impl Effect for ReadPlan {
    const NAME: &'static str = "infrastructure.read_plan";
    type Output = PlanMade;

    fn title(&self) -> String {
        format!("read the plan of stack {}", self.stack)
    }

    fn evidence(&self, made: &PlanMade) -> Evidence {
        match &made.plan {
            Some(plan) => evidence([
                ("plan", format!("{}: {}", self.stack, plan.counts)),
                ("plan digest", plan.digest().to_string()),
            ]),
            None => evidence([("plan", format!("{}: nothing to change", self.stack))]),
        }
    }

    async fn observe(&self, _: &Elements) -> Result<Option<PlanMade>> {
        // A plan is made anew by the service without notice: it is always read.
        Ok(None)
    }

    async fn apply(&self, elements: &Elements) -> Result<PlanMade> {
        let infrastructure = elements.infrastructure()?;
        let policy = elements.policy().clone().within(self.within);
        let run = infrastructure
            .wait_for_decision(&self.stack, &self.run, &policy, elements.cancellation())
            .await?;
        match run.state {
            ref state if state.waits_for_a_human() => {
                let plan = infrastructure.plan(&self.stack, &self.run).await?;
                Ok(PlanMade {
                    run,
                    plan: Some(plan),
                })
            }
            ref state if state.is_past_confirmation() => {
                // A run without changes has no plan to read, and that is an answer.
                let plan = match infrastructure.plan(&self.stack, &self.run).await {
                    Ok(plan) => Some(plan).filter(|plan| !plan.changes.is_empty()),
                    Err(error) if error.is_conflict() || error.is_not_found() => None,
                    Err(error) => return Err(error),
                };
                Ok(PlanMade { run, plan })
            }
            _ => Err(ended_badly(elements, run).await),
        }
    }
}

/// Confirms a run, bound to the plan and the commit that were seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmRun {
    /// What was seen, and who said yes.
    pub confirmation: Confirmation,
}

#[async_trait]
impl Effect for ConfirmRun {
    const NAME: &'static str = "infrastructure.confirm";
    type Output = ();

    fn title(&self) -> String {
        format!("confirm the run of stack {}", self.confirmation.stack)
    }

    fn evidence(&self, (): &()) -> Evidence {
        evidence([("confirmed plan", self.confirmation.plan.to_string())])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<()>> {
        let Confirmation {
            stack,
            run,
            plan: seen,
            ..
        } = &self.confirmation;
        let infrastructure = elements.infrastructure()?;
        let standing = infrastructure.run(stack, run).await?;
        if !standing.state.is_past_confirmation() {
            return Ok(None);
        }
        // Past confirmation is not enough: somebody else may have confirmed a plan that was made anew.
        match infrastructure.plan(stack, run).await {
            Ok(plan) if plan.digest() == *seen => Ok(Some(())),
            Ok(plan) => Err(Error::new(
                ErrorKind::Conflict,
                "Spacelift",
                "confirm",
                format!("run {run} of stack {stack}"),
            )
            .because(format!(
                "it is {} with the plan {}, and the one that was approved is {seen}",
                standing.state,
                plan.digest()
            ))
            .advise("ask whoever confirmed it, and start another run of the flow to follow it")),
            // The plan is no longer shown: the service decides whether this confirmation is the one it has.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn apply(&self, elements: &Elements) -> Result<()> {
        elements
            .infrastructure()?
            .confirm(self.confirmation.clone())
            .await
    }
}

/// Sees that a run needs no confirmation any more: it was given, or there was nothing to confirm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeeConfirmed {
    /// The stack.
    pub stack: StackId,
    /// The run.
    pub run: RunId,
}

#[async_trait]
impl Effect for SeeConfirmed {
    const NAME: &'static str = "infrastructure.see_confirmed";
    type Output = Run;

    fn title(&self) -> String {
        format!("see that the run of stack {} needs no confirmation", self.stack)
    }

    fn evidence(&self, run: &Run) -> Evidence {
        evidence([(
            "confirmation",
            format!("{}/{}: none needed, it is {}", run.stack, run.id, run.state),
        )])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<Run>> {
        let run = elements.infrastructure()?.run(&self.stack, &self.run).await?;
        // A run that failed had been let through; one that was discarded or cancelled had not.
        Ok((run.state.is_past_confirmation() || run.state == RunState::Failed).then_some(run))
    }

    async fn apply(&self, elements: &Elements) -> Result<Run> {
        let run = elements.infrastructure()?.run(&self.stack, &self.run).await?;
        Err(Error::new(
            ErrorKind::Conflict,
            "Spacelift",
            "go on with",
            format!("run {} of stack {}", run.id, run.stack),
        )
        .because(format!("it is {} since its plan was read", run.state))
        .advise("start the run again: the new plan is a new question"))
    }
}

/// Discards a run that a human rejected, so that it does not hold the stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardRun {
    /// The stack.
    pub stack: StackId,
    /// The run.
    pub run: RunId,
    /// Who said no, and why.
    pub note: String,
}

#[async_trait]
impl Effect for DiscardRun {
    const NAME: &'static str = "infrastructure.discard";
    type Output = ();

    fn title(&self) -> String {
        format!("discard the run of stack {}", self.stack)
    }

    fn evidence(&self, (): &()) -> Evidence {
        evidence([("discarded", format!("{}/{}", self.stack, self.run))])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<()>> {
        let run = elements.infrastructure()?.run(&self.stack, &self.run).await?;
        Ok((run.state == RunState::Discarded).then_some(()))
    }

    async fn apply(&self, elements: &Elements) -> Result<()> {
        elements
            .infrastructure()?
            .discard(&self.stack, &self.run, &self.note)
            .await
    }
}

/// Follows a run to its end. Only *finished* is success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowRun {
    /// The stack.
    pub stack: StackId,
    /// The run.
    pub run: RunId,
    /// How long to wait at most.
    pub within: Duration,
}

#[async_trait]
impl Effect for FollowRun {
    const NAME: &'static str = "infrastructure.follow";
    type Output = Run;

    fn title(&self) -> String {
        format!("apply stack {}", self.stack)
    }

    fn evidence(&self, run: &Run) -> Evidence {
        let counts = run
            .counts
            .map_or_else(String::new, |counts| format!(" ({counts})"));
        evidence([(
            "applied",
            format!("{}/{} {}{counts}", run.stack, run.id, run.state),
        )])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<Run>> {
        let run = elements.infrastructure()?.run(&self.stack, &self.run).await?;
        Ok((run.state == RunState::Finished).then_some(run))
    }

    async fn apply(&self, elements: &Elements) -> Result<Run> {
        let policy = elements.policy().clone().within(self.within);
        let run = elements
            .infrastructure()?
            .wait_for_end(&self.stack, &self.run, &policy, elements.cancellation())
            .await?;
        match run.state {
            RunState::Finished => Ok(run),
            _ => Err(ended_badly(elements, run).await),
        }
    }
}

async fn ended_badly(elements: &Elements, run: Run) -> Error {
    let kind = match run.state {
        RunState::Failed => ErrorKind::Invalid,
        _ => ErrorKind::Conflict,
    };
    let mut why = format!("it ended as {}", run.state);
    if let Some(note) = &run.note {
        why.push_str(&format!(" ({note})"));
    }
    if let Ok(infrastructure) = elements.infrastructure()
        && let Ok(log) = infrastructure.log(&run.stack, &run.id, LOG_LINES).await
        && !log.trim().is_empty()
    {
        why.push_str(&format!("; its log ends:\n{}", log.trim_end()));
    }
    Error::new(
        kind,
        "Spacelift",
        "apply",
        format!("run {} of stack {}", run.id, run.stack),
    )
    .because(why)
}
