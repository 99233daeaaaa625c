//! The element's trait on top of the client.

use crate::client::{Purpose, failed};
use crate::model::{PlannedRun, RunDetails, RunSummary, RunType};
use crate::runs::{Named, RunRequest, was_confirmed};
use crate::{
    ChangeCounts, Confirmation, Infrastructure, Plan, PlannedChange, Run, RunState, Spacelift, Stack,
};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use towpath_core::{CommitSha, RunId, StackId};
use towpath_elements::{Error, ErrorKind, Result};

/// How many tracked runs are looked at for that of a commit, from the newest on.
const MOST_RUNS: usize = 500;

#[async_trait]
impl Infrastructure for Spacelift {
    async fn stack(&self, stack: &StackId) -> Result<Stack> {
        let found = self.get_stack(stack).await?;
        let ends = |edges: Vec<crate::model::Dependency>| edges.into_iter().map(|edge| edge.stack).collect();
        Ok(Stack {
            id: found.summary.id,
            name: found.summary.name,
            worker_pool: found.worker_pool.map(|pool| pool.id),
            depends_on: ends(found.depends_on),
            dependents: ends(found.dependents),
            blocked_by: found.blocker,
            locked: found.locked_by.map(|by| match found.lock_note {
                Some(note) if !note.is_empty() => format!("{by}: {note}"),
                _ => by,
            }),
            autodeploy: found.summary.autodeploy,
        })
    }

    async fn find_run(&self, stack: &StackId, commit: &CommitSha) -> Result<Option<Run>> {
        let mut runs = self.list_runs(stack);
        let mut looked = 0;
        while looked < MOST_RUNS
            && let Some(run) = runs.try_next().await?
        {
            looked += 1;
            if run.kind == RunType::Tracked && commit_of(&run).as_ref() == Some(commit) {
                return Infrastructure::run(self, stack, &run.id).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn run(&self, stack: &StackId, run: &RunId) -> Result<Run> {
        Ok(as_run(stack, &self.get_run(stack, run).await?))
    }

    async fn plan(&self, stack: &StackId, run: &RunId) -> Result<Plan> {
        let planned = self.planned_run(stack, run).await?;
        as_plan(stack, run, planned, "read the plan of")
    }

    async fn trigger(&self, stack: &StackId, commit: &CommitSha) -> Result<Run> {
        let run = self.trigger_run(stack, RunRequest::of(commit)).await?;
        Infrastructure::run(self, stack, &run.id).await
    }

    async fn confirm(&self, confirmation: Confirmation) -> Result<()> {
        if self.may_confirm(&confirmation).await? == Standing::Confirmed {
            return Ok(());
        }
        let Confirmation { stack, run, note, .. } = &confirmation;
        let confirmed = self.confirm_run(stack, run, Some(note)).await;
        // Spacelift confirms whatever plan the run has by the time it is asked. So look again at what was confirmed.
        match self.may_confirm(&confirmation).await {
            Ok(Standing::Confirmed) => Ok(()),
            Ok(Standing::Waits) => Err(confirmed.err().unwrap_or_else(|| {
                let named = Named(stack, run);
                failed(ErrorKind::Conflict, ("confirm", &named))
                    .because("Spacelift took the confirmation, and the run waits for one all the same")
                    .advise("look at the run before confirming it again")
            })),
            Err(now) if confirmed.is_ok() && now.is_conflict() => {
                let named = Named(stack, run);
                Err(
                    failed(ErrorKind::Conflict, ("be sure of the confirmation of", &named))
                        .because(format!("it was sent, and then: {}", now.detail()))
                        .advise("look at once at what the run applies")
                        .caused_by(now),
                )
            }
            Err(now) => Err(confirmed.err().unwrap_or(now)),
        }
    }

    async fn discard(&self, stack: &StackId, run: &RunId, note: &str) -> Result<()> {
        self.discard_run(stack, run, Some(note).filter(|note| !note.is_empty()))
            .await
    }

    async fn log(&self, stack: &StackId, run: &RunId, lines: usize) -> Result<String> {
        self.tail(stack, run, lines).await
    }

    async fn outputs(&self, stack: &StackId) -> Result<BTreeMap<String, String>> {
        let outputs = self.stack_outputs(stack).await?;
        let shown = outputs.into_iter().filter(|output| !output.sensitive);
        let json = |text: String| match serde_json::from_str::<IgnoredAny>(&text) {
            Ok(_) => text,
            // Some vendors' outputs are plain text.
            Err(_) => serde_json::Value::String(text).to_string(),
        };
        Ok(shown
            .filter_map(|output| Some((output.name, json(output.value?))))
            .collect())
    }
}

/// How a run stands to a confirmation that fits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It waits for it.
    Waits,
    /// It has been confirmed.
    Confirmed,
}

impl Spacelift {
    /// Whether the run is still what was seen, and waits for a confirmation or has been confirmed already.
    async fn may_confirm(&self, confirmation: &Confirmation) -> Result<Standing> {
        let Confirmation { stack, run, .. } = confirmation;
        let named = Named(stack, run);
        let refuse = |why: String| failed(ErrorKind::Conflict, ("confirm", &named)).because(why);
        let planned = self.planned_run(stack, run).await?;
        let (state, needs_approval) = (
            planned.run.summary.state.clone(),
            planned.run.summary.needs_approval,
        );
        let confirmed = was_confirmed(&planned.run.history);
        let note = planned.run.history.last().and_then(|step| step.note.clone());
        if state != RunState::Unconfirmed && !confirmed {
            let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
            return Err(refuse(format!(
                "it does not wait for a confirmation: it is {state}{note}"
            )));
        }
        let plan = as_plan(stack, run, planned, "confirm")?;
        if plan.commit != confirmation.commit {
            return Err(refuse(format!(
                "it is planned from commit {}, and {} was seen",
                plan.commit.short(),
                confirmation.commit.short()
            )));
        }
        let digest = plan.digest();
        if digest != confirmation.plan {
            return Err(refuse(format!(
                "its plan is not the one that was seen: {digest} ({}) instead of {}",
                plan.counts, confirmation.plan
            ))
            .advise("look at the new plan and decide anew"));
        }
        if confirmed {
            return Ok(Standing::Confirmed);
        }
        if needs_approval {
            return Err(refuse("an approval policy is undecided".into())
                .advise("somebody whom the policy accepts must approve the run first"));
        }
        Ok(Standing::Waits)
    }
}

fn commit_of(run: &RunSummary) -> Option<CommitSha> {
    run.commit.as_ref().and_then(|commit| commit.hash.parse().ok())
}

fn counts_of(run: &RunSummary) -> Option<ChangeCounts> {
    run.delta.map(|delta| ChangeCounts {
        add: delta.add,
        change: delta.change,
        delete: delta.delete,
    })
}

fn as_run(stack: &StackId, details: &RunDetails) -> Run {
    let run = &details.summary;
    let last = details.history.last();
    Run {
        id: run.id.clone(),
        stack: stack.clone(),
        commit: commit_of(run),
        state: run.state.clone(),
        // The service leaves it set on runs that are over, where it means nothing.
        needs_approval: run.needs_approval && !run.state.is_terminal(),
        counts: counts_of(run),
        note: last.and_then(|step| step.note.clone()),
        since: last.and_then(|step| step.at),
    }
}

/// The run's latest plan, if it stands.
fn as_plan(stack: &StackId, run: &RunId, planned: PlannedRun, attempted: &'static str) -> Result<Plan> {
    let named = Named(stack, run);
    let purpose: Purpose<'_> = (attempted, &named);
    let PlannedRun {
        run: details,
        changes,
    } = planned;
    let none = |why: &str| -> Error {
        failed(ErrorKind::Conflict, purpose)
            .because(format!(
                "there is no plan {why}: the run is {}",
                details.summary.state
            ))
            .advise("wait until it is planned")
    };
    let counts = counts_of(&details.summary).ok_or_else(|| none("of it"))?;
    match details.summary.state {
        RunState::Queued
        | RunState::Ready
        | RunState::Preparing
        | RunState::Initializing
        | RunState::Planning
        | RunState::ReplanRequested
        | RunState::PreparingReplan => return Err(none("that stands")),
        _ => {}
    }
    let commit = commit_of(&details.summary).ok_or_else(|| {
        failed(ErrorKind::Protocol, purpose).because("the service does not say which commit the plan is of")
    })?;
    let changes = changes.into_iter().map(|change| PlannedChange {
        address: change.address,
        action: change.action.unwrap_or_else(|| "unknown".into()).to_lowercase(),
    });
    Ok(Plan {
        stack: stack.clone(),
        run: run.clone(),
        commit,
        changes: changes.collect(),
        counts,
    })
}
