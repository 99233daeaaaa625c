//! Elements G to K: stacks that plan on a push, wait for a human, and apply one after the other.

mod prepare;
mod runs;

pub use prepare::StackSetup;

use super::faults::Element;
use super::{World, refusal, terraform};
use async_trait::async_trait;
use runs::StoredRun;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use towpath_core::{CommitSha, RunId, StackId};
use towpath_elements::infrastructure::{Confirmation, Plan, Run, RunState, Stack};
use towpath_elements::{ErrorKind, Infrastructure, Result};

pub(super) use runs::{advance, pushed};

#[derive(Default)]
pub(super) struct Stacks {
    stacks: BTreeMap<StackId, StoredStack>,
    /// In the order in which they were made.
    runs: Vec<StoredRun>,
}

struct StoredStack {
    setup: StackSetup,
    applied: terraform::Resources,
    outputs: BTreeMap<String, String>,
    locked: Option<String>,
    next_apply_fails: Option<String>,
}

impl Stacks {
    fn stack(&self, stack: &StackId) -> Result<&StoredStack> {
        self.stacks.get(stack).ok_or_else(|| {
            refusal(
                ErrorKind::NotFound,
                "find the stack",
                stack,
                "there is no such stack",
            )
        })
    }

    fn stack_mut(&mut self, stack: &StackId) -> Result<&mut StoredStack> {
        self.stacks.get_mut(stack).ok_or_else(|| {
            refusal(
                ErrorKind::NotFound,
                "find the stack",
                stack,
                "there is no such stack",
            )
        })
    }

    fn run(&self, stack: &StackId, run: &RunId) -> Result<&StoredRun> {
        self.stack(stack)?;
        self.runs
            .iter()
            .find(|stored| stored.id == *run && stored.stack == *stack)
            .ok_or_else(|| {
                refusal(
                    ErrorKind::NotFound,
                    "find the run",
                    run,
                    "the stack has no such run",
                )
            })
    }

    fn run_mut(&mut self, stack: &StackId, run: &RunId) -> Result<&mut StoredRun> {
        self.run(stack, run)?;
        self.runs
            .iter_mut()
            .find(|stored| stored.id == *run && stored.stack == *stack)
            .ok_or_else(|| {
                refusal(
                    ErrorKind::NotFound,
                    "find the run",
                    run,
                    "the stack has no such run",
                )
            })
    }

    fn show(&self, id: &StackId) -> Result<Stack> {
        let StoredStack { setup, locked, .. } = self.stack(id)?;
        let dependents = self
            .stacks
            .iter()
            .filter(|(_, other)| other.setup.depends_on.contains(id))
            .map(|(other, _)| other.clone())
            .collect();
        let holds = |run: &&StoredRun| run.stack == *id && run.holds_the_stack();
        Ok(Stack {
            id: id.clone(),
            name: setup.name.clone(),
            worker_pool: setup.worker_pool.clone(),
            depends_on: setup.depends_on.clone(),
            dependents,
            blocked_by: self.runs.iter().find(holds).map(|run| run.id.clone()),
            locked: locked.clone(),
            autodeploy: setup.autodeploy,
        })
    }

    pub(super) fn snapshot(&self) -> Value {
        let stacks: BTreeMap<_, _> = self
            .stacks
            .iter()
            .map(|(id, stack)| (id, &stack.applied))
            .collect();
        let runs: Vec<_> = self
            .runs
            .iter()
            .map(|run| json!([run.stack, run.commit, run.state]))
            .collect();
        json!({"applied": stacks, "runs": runs})
    }
}

#[async_trait]
impl Infrastructure for World {
    async fn stack(&self, stack: &StackId) -> Result<Stack> {
        self.call(Element::Infrastructure, "stack", stack, |state, _| {
            state.infrastructure.show(stack)
        })
        .await
    }

    async fn find_run(&self, stack: &StackId, commit: &CommitSha) -> Result<Option<Run>> {
        self.call(Element::Infrastructure, "find_run", stack, |state, moment| {
            state.infrastructure.stack(stack)?;
            let of_the_commit = |run: &&StoredRun| run.stack == *stack && run.commit == *commit;
            let newest = state.infrastructure.runs.iter().rev().find(of_the_commit);
            Ok(newest.map(|run| run.show(moment)))
        })
        .await
    }

    async fn run(&self, stack: &StackId, run: &RunId) -> Result<Run> {
        self.call(Element::Infrastructure, "run", run, |state, moment| {
            Ok(state.infrastructure.run(stack, run)?.show(moment))
        })
        .await
    }

    async fn plan(&self, stack: &StackId, run: &RunId) -> Result<Plan> {
        self.call(Element::Infrastructure, "plan", run, |state, _| {
            let stored = state.infrastructure.run(stack, run)?;
            stored.plan().ok_or_else(|| {
                let detail = format!("there is no plan yet, the run is {}", stored.state);
                refusal(ErrorKind::Conflict, "read the plan of run", run, detail)
            })
        })
        .await
    }

    async fn trigger(&self, stack: &StackId, commit: &CommitSha) -> Result<Run> {
        self.call(Element::Infrastructure, "trigger", stack, |state, moment| {
            runs::queue(state, stack, commit, moment)?;
            state.advance(moment);
            state.changed = true;
            let newest = state
                .infrastructure
                .runs
                .iter()
                .rev()
                .find(|run| run.stack == *stack);
            newest
                .map(|run| run.show(moment))
                .ok_or_else(|| refusal(ErrorKind::Protocol, "trigger", stack, "the run is gone"))
        })
        .await
    }

    async fn confirm(&self, confirmation: Confirmation) -> Result<()> {
        self.call(
            Element::Infrastructure,
            "confirm",
            confirmation.run.clone(),
            |state, moment| {
                let Confirmation { stack, run, .. } = &confirmation;
                let stored = state.infrastructure.run_mut(stack, run)?;
                if stored.state.is_past_confirmation() && stored.confirmation.as_ref() == Some(&confirmation)
                {
                    return Ok(());
                }
                let conflict = |detail: String| Err(refusal(ErrorKind::Conflict, "confirm run", run, detail));
                if stored.state != RunState::Unconfirmed {
                    return conflict(format!(
                        "it does not wait for a confirmation, it is {}",
                        stored.state
                    ));
                }
                if stored.commit != confirmation.commit {
                    return conflict(format!(
                        "it runs on {}, not on the commit that was seen",
                        stored.commit
                    ));
                }
                match stored.plan() {
                    Some(plan) if plan.digest() == confirmation.plan => {}
                    _ => return conflict("its plan is not the one that was seen".to_owned()),
                }
                stored.confirm(confirmation.clone(), moment);
                state.changed = true;
                Ok(())
            },
        )
        .await
    }

    async fn discard(&self, stack: &StackId, run: &RunId, note: &str) -> Result<()> {
        self.call(Element::Infrastructure, "discard", run, |state, moment| {
            let stored = state.infrastructure.run_mut(stack, run)?;
            if stored.state != RunState::Unconfirmed {
                let detail = format!("it does not wait for a confirmation, it is {}", stored.state);
                return Err(refusal(ErrorKind::Conflict, "discard run", run, detail));
            }
            stored.enter(RunState::Discarded, Some(note.to_owned()), moment.now, None);
            state.changed = true;
            state.advance(moment);
            Ok(())
        })
        .await
    }

    async fn log(&self, stack: &StackId, run: &RunId, lines: usize) -> Result<String> {
        self.call(Element::Infrastructure, "log", run, |state, _| {
            let log = &state.infrastructure.run(stack, run)?.log;
            Ok(log[log.len().saturating_sub(lines)..].join("\n"))
        })
        .await
    }

    async fn outputs(&self, stack: &StackId) -> Result<BTreeMap<String, String>> {
        self.call(Element::Infrastructure, "outputs", stack, |state, _| {
            Ok(state.infrastructure.stack(stack)?.outputs.clone())
        })
        .await
    }
}
