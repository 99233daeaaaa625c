//! Spacelift: steps 9 to 13. The commit's run, its plan, a human, the apply in Shared Services, and then in Apps.

use super::Flow;
use crate::effects::{ConfirmRun, DiscardRun, FindRun, FollowRun, ReadPlan, SeeConfirmed};
use crate::runner::Question;
use crate::{Context, Step, Stop};
use async_trait::async_trait;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use towpath_core::{CommitSha, StackId};
use towpath_elements::infrastructure::{Confirmation, Plan, Run};

/// Brings a commit's infrastructure through plan, confirmation and apply: Shared Services first, then every app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spacelift {
    /// The commit of the infrastructure repository.
    pub commit: CommitSha,
    /// The stack of Shared Services.
    pub shared_services: StackId,
    /// The stacks of the apps; each is applied only after Shared Services is.
    pub apps: Vec<StackId>,
    /// How long to wait for a machine at each step. Humans may take as long as they need.
    pub within: Duration,
}

/// Infrastructure that is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The run of Shared Services.
    pub shared_services: Run,
    /// The runs of the apps, in the order they were given.
    pub apps: Vec<Run>,
}

#[async_trait]
impl Flow for Spacelift {
    const NAME: &'static str = "spacelift";
    type Outcome = Applied;

    async fn run(&self, context: &Context<'_>) -> Result<Applied, Stop> {
        let shared = self.find(context, &self.shared_services).await?;
        let shared_services = self.apply(context, shared, Step::ApplySharedServices).await?;
        let found = try_join_all(self.apps.iter().map(|stack| self.find(context, stack))).await?;
        let mut apps = Vec::new();
        // One after the other: people answer one question at a time, and a failed app stops the ones behind it.
        for run in found {
            apps.push(self.apply(context, run, Step::ApplyApps).await?);
        }
        Ok(Applied {
            shared_services,
            apps,
        })
    }
}

impl Spacelift {
    async fn find(&self, context: &Context<'_>, stack: &StackId) -> Result<Run, Stop> {
        let find = FindRun {
            stack: stack.clone(),
            commit: self.commit.clone(),
            within: self.within,
        };
        context.perform(Step::TriggerInfrastructure, &find).await
    }

    async fn apply(&self, context: &Context<'_>, run: Run, step: Step) -> Result<Run, Stop> {
        let (stack, id) = (run.stack, run.id);
        let read = ReadPlan {
            stack: stack.clone(),
            run: id.clone(),
            within: self.within,
        };
        let mut made = context.perform(Step::Plan, &read).await?;
        let mut confirmed = false;
        while let Some(plan) = made.plan.take_if(|_| made.run.state.waits_for_a_human()) {
            let stop = match self.confirm(context, &plan).await {
                Ok(()) => {
                    confirmed = true;
                    break;
                }
                Err(stop) if stop.is_conflict() => stop,
                Err(stop) => return Err(stop),
            };
            // The service may have planned anew while the human thought: then the answer is void, and the new plan is a
            // new question.
            made = context.perform(Step::Plan, &read).await?;
            let is_new = made
                .plan
                .as_ref()
                .is_some_and(|anew| anew.digest() != plan.digest());
            if !(is_new && made.run.state.waits_for_a_human()) {
                return Err(stop);
            }
        }
        if !confirmed {
            let settled = SeeConfirmed {
                stack: stack.clone(),
                run: id.clone(),
            };
            context.perform(Step::Confirm, &settled).await?;
        }
        let follow = FollowRun {
            stack,
            run: id,
            within: self.within,
        };
        context.perform(step, &follow).await
    }

    async fn confirm(&self, context: &Context<'_>, plan: &Plan) -> Result<(), Stop> {
        let question = question(plan);
        let what = question.text.clone();
        let decision = context.decision(Step::Confirm, question).await?;
        let said = decision
            .note
            .as_ref()
            .map_or_else(String::new, |note| format!(": {note}"));
        if !decision.approved {
            let note = format!("rejected by {}{said}", decision.by);
            let discard = DiscardRun {
                stack: plan.stack.clone(),
                run: plan.run.clone(),
                note,
            };
            context.perform(Step::Confirm, &discard).await?;
            return Err(Stop::Rejected {
                step: Step::Confirm,
                what,
                by: decision.by,
                note: decision.note,
            });
        }
        let confirmation = Confirmation {
            stack: plan.stack.clone(),
            run: plan.run.clone(),
            commit: plan.commit.clone(),
            plan: plan.digest(),
            note: format!("confirmed by {}{said}", decision.by),
        };
        context.perform(Step::Confirm, &ConfirmRun { confirmation }).await
    }
}

fn question(plan: &Plan) -> Question {
    let mut details = vec![format!("commit {}, run {}", plan.commit, plan.run)];
    details.extend(
        plan.changes
            .iter()
            .map(|change| format!("{:>8} {}", change.action, change.address)),
    );
    Question {
        text: format!("the plan of stack {} ({})", plan.stack, plan.counts),
        details,
        binds: plan.digest(),
    }
}
