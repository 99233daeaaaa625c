//! The run state machine, after Spacelift's documentation of runs, stack locks and stack dependencies.
//!
//! Everything here is a step of [`World`] under its lock. Workers, people and pushes make the steps; [`World::settle`]
//! makes those that nobody asks for.

use super::run::{Commit, Environment, ForceApply, Plan, Run, RunState, RunType, Transition};
use super::world::{Worker, World, now, ulid};
use std::time::Instant;

/// A run that is to be made.
#[derive(Clone, Debug)]
pub(super) struct NewRun {
    pub(super) stack: String,
    pub(super) kind: RunType,
    pub(super) commit: Option<Commit>,
    pub(super) branch: Option<String>,
    pub(super) triggered_by: Option<String>,
    pub(super) force: Option<ForceApply>,
    pub(super) environment: Environment,
    pub(super) project_root: Option<String>,
    pub(super) external: Vec<String>,
    pub(super) metadata: Vec<String>,
}

/// Whether a queued run may go on.
enum Gate {
    Wait,
    Open,
    Skip(String),
    Fail(String),
}

impl NewRun {
    pub(super) fn new(stack: &str, kind: RunType, commit: Option<Commit>) -> Self {
        Self {
            stack: stack.to_owned(),
            kind,
            commit,
            branch: None,
            triggered_by: None,
            force: None,
            environment: Environment::default(),
            project_root: None,
            external: Vec::new(),
            metadata: Vec::new(),
        }
    }
}

impl World {
    /// Makes a run in QUEUED and says its id. Dependent stacks are not looked at: see [`World::cascade`].
    pub(super) fn create_run(&mut self, new: NewRun, note: Option<String>) -> String {
        let id = ulid();
        let approval = self.stack(&new.stack).is_some_and(|stack| stack.approval);
        self.runs.push(Run {
            id: id.clone(),
            approval: approval && matches!(new.kind, RunType::Tracked | RunType::Destroy),
            stack: new.stack,
            kind: new.kind,
            commit: new.commit,
            branch: new.branch,
            created_at: now(),
            history: Vec::new(),
            plan: None,
            reviews: Vec::new(),
            comments: Vec::new(),
            workers: Vec::new(),
            waits_for: Vec::new(),
            metadata: new.metadata,
            environment: Environment::default(),
            external: new.external,
            force: new.force,
            extra_environment: new.environment,
            project_root: new.project_root,
            missing_inputs: Vec::new(),
            targets: Vec::new(),
            stop: false,
            workspace: None,
            triggered_by: new.triggered_by.clone(),
        });
        self.transition(&id, RunState::Queued, note, new.triggered_by);
        id
    }

    /// Queues tracked runs on everything that depends on the stacks of `runs`, and makes them wait for those. A stack
    /// that already has a run among `runs` waits with that one. Returns `runs` and the new ones.
    pub(super) fn cascade(&mut self, mut runs: Vec<String>) -> Vec<String> {
        let mut at = 0;
        while let Some(parent_id) = runs.get(at).cloned() {
            at += 1;
            let Some(parent) = self
                .run(&parent_id)
                .filter(|run| run.kind == RunType::Tracked)
                .cloned()
            else {
                continue;
            };
            let children: Vec<String> = self
                .dependencies
                .iter()
                .filter(|edge| edge.depends_on == parent.stack)
                .map(|edge| edge.stack.clone())
                .collect();
            for child in children {
                let known = runs
                    .iter()
                    .find(|id| self.run(id).is_some_and(|run| run.stack == child))
                    .cloned();
                let id = match known {
                    Some(id) => id,
                    None => {
                        let Some(stack) = self.stack(&child).filter(|stack| !stack.disabled) else {
                            continue;
                        };
                        let id = self.create_run(
                            NewRun {
                                branch: Some(stack.branch.clone()),
                                triggered_by: Some(parent.stack.clone()),
                                force: parent.force.filter(|force| *force == ForceApply::Cascade),
                                ..NewRun::new(&child, RunType::Tracked, stack.tracked_commit.clone())
                            },
                            None,
                        );
                        runs.push(id.clone());
                        id
                    }
                };
                if let Some(run) = self.run_mut(&id)
                    && !run.waits_for.contains(&parent_id)
                {
                    run.waits_for.push(parent_id.clone());
                }
            }
        }
        runs
    }

    /// Moves a run on. A run that has ended stays as it ended.
    pub(super) fn transition(&mut self, id: &str, state: RunState, note: Option<String>, by: Option<String>) {
        let Some(run) = self.run_mut(id).filter(|run| !run.state().is_terminal()) else {
            return;
        };
        let version = run.history.last().map_or(1, |last| last.version + 1);
        run.history.push(Transition {
            state,
            version,
            at: now(),
            note,
            by,
            log: Vec::new(),
        });
        self.news.push((id.to_owned(), version));
        if state.is_terminal() {
            let due = Instant::now() + self.release_delay;
            let held = self
                .stacks
                .iter()
                .filter(|stack| stack.blocker.as_deref() == Some(id));
            let held: Vec<_> = held.map(|stack| (due, stack.id.clone())).collect();
            self.releases.extend(held);
        }
    }

    /// Writes a line to the log of the state a run is in.
    pub(super) fn log(&mut self, id: &str, line: &str) {
        if let Some(last) = self.run_mut(id).and_then(|run| run.history.last_mut()) {
            last.log.push((now(), format!("{line}\n")));
        }
    }

    /// Does what time and other runs allow: frees stacks, lets queued runs through. Says whether anything moved, and
    /// when to look again at the latest.
    pub(super) fn settle(&mut self, at: Instant) -> (bool, Option<Instant>) {
        let mut moved = false;
        let (due, later): (Vec<_>, Vec<_>) = self.releases.drain(..).partition(|(when, _)| *when <= at);
        self.releases = later;
        for (_, stack) in due {
            if let Some(stack) = self.stack_mut(&stack) {
                stack.blocker = None;
                moved = true;
            }
        }
        let queued: Vec<String> = self
            .runs
            .iter()
            .filter(|run| run.state() == RunState::Queued)
            .map(|run| run.id.clone())
            .collect();
        for id in queued {
            match self.gate(&id) {
                Gate::Wait => continue,
                Gate::Skip(note) => self.transition(&id, RunState::Skipped, Some(note), None),
                Gate::Fail(note) => self.transition(&id, RunState::Failed, Some(note), None),
                Gate::Open => {
                    self.hand_over_outputs(&id);
                    let stack = self
                        .run(&id)
                        .map(|run| (run.stack.clone(), run.kind.is_blocking()));
                    if let Some((stack, true)) = stack
                        && let Some(stack) = self.stack_mut(&stack)
                    {
                        stack.blocker = Some(id.clone());
                    }
                    self.transition(&id, RunState::Ready, None, None);
                }
            }
            moved = true;
        }
        (moved, self.releases.iter().map(|(when, _)| *when).min())
    }

    fn gate(&self, id: &str) -> Gate {
        let Some(run) = self.run(id) else {
            return Gate::Wait;
        };
        for name in &run.external {
            match self.external.get(name).map(String::as_str) {
                None => return Gate::Wait,
                Some("FAILED") => return Gate::Fail(format!("external dependency {name} has failed")),
                Some("SKIPPED") => return Gate::Skip(format!("external dependency {name} was skipped")),
                Some(_) => {}
            }
        }
        match self.upstream(run) {
            Gate::Open => {}
            gate => return gate,
        }
        let held = self.stack(&run.stack).is_none_or(|stack| stack.blocker.is_some());
        if run.kind.is_blocking() && held {
            return Gate::Wait;
        }
        Gate::Open
    }

    /// What the runs that this one waits for say. With references, one of them must have changed.
    fn upstream(&self, run: &Run) -> Gate {
        let parents: Vec<&Run> = run.waits_for.iter().filter_map(|id| self.run(id)).collect();
        if parents.iter().any(|parent| !parent.state().is_terminal()) {
            return Gate::Wait;
        }
        if let Some(parent) = parents.iter().find(|parent| parent.state() != RunState::Finished) {
            let state = serde_json::json!(parent.state());
            let state = state.as_str().unwrap_or_default().to_lowercase();
            return Gate::Skip(format!(
                "dependency on stack {} was not satisfied: its run is {state}",
                parent.stack
            ));
        }
        if parents.is_empty() || run.force == Some(ForceApply::Cascade) {
            return Gate::Open;
        }
        let mut unchanged = Vec::new();
        for parent in parents {
            let edges = &self.dependencies;
            let edge = edges
                .iter()
                .find(|edge| edge.stack == run.stack && edge.depends_on == parent.stack);
            let Some(edge) = edge.filter(|edge| !edge.trigger_always && !edge.references.is_empty()) else {
                return Gate::Open;
            };
            for reference in &edge.references {
                if reference.trigger_always
                    || self.output(&parent.stack, &reference.output) != reference.delivered.as_ref()
                {
                    return Gate::Open;
                }
                unchanged.push(format!("{}.{}", parent.stack, reference.output));
            }
        }
        Gate::Skip(format!(
            "This run has dependency references ({}) which have not changed since the last run",
            unchanged.join(", ")
        ))
    }

    fn output(&self, stack: &str, name: &str) -> Option<&serde_json::Value> {
        let stack = self.stack(stack)?;
        let output = stack.applied.outputs.get(name)?;
        (!output.sensitive || stack.sensitive_outputs).then_some(&output.value)
    }

    /// Fixes the environment of a run: the stack's own, the outputs of what it depends on, and its own.
    pub(super) fn hand_over_outputs(&mut self, id: &str) {
        let Some(run) = self.run(id).cloned() else { return };
        let Some(stack) = self.stack(&run.stack) else {
            return;
        };
        let mut environment = stack.environment.clone().0;
        let mut missing = Vec::new();
        let mut delivered = Vec::new();
        for edge in self.dependencies.iter().filter(|edge| edge.stack == run.stack) {
            let upstream = self
                .stack(&edge.depends_on)
                .map_or("", |stack| stack.name.as_str());
            for reference in &edge.references {
                match self.output(&edge.depends_on, &reference.output) {
                    Some(value) => {
                        let text = value
                            .as_str()
                            .map_or_else(|| value.to_string(), ToOwned::to_owned);
                        environment.insert(reference.input.clone(), text);
                        delivered.push((reference.id.clone(), value.clone()));
                    }
                    None => missing.push(format!("{upstream}.{} => {}", reference.output, reference.input)),
                }
            }
        }
        environment.extend(run.extra_environment.0);
        if run.kind == RunType::Tracked {
            for reference in self.dependencies.iter_mut().flat_map(|edge| &mut edge.references) {
                if let Some((_, value)) = delivered.iter().find(|(id, _)| *id == reference.id) {
                    reference.delivered = Some(value.clone());
                }
            }
        }
        if let Some(run) = self.run_mut(id) {
            run.environment = Environment(environment);
            run.missing_inputs = missing;
        }
    }

    /// Gives a free worker the next run of its pool, and moves that run on.
    pub(super) fn claim(&mut self, pool: Option<&str>, worker: &str) -> Option<Run> {
        let free =
            |candidate: &Worker| candidate.id == worker && !candidate.drained && candidate.run.is_none();
        self.pool(pool)
            .filter(|pool| !pool.paused)?
            .workers
            .iter()
            .find(|worker| free(worker))?;
        let run = self.schedulable(pool).first().map(|run| run.id.clone())?;
        let next = match self.run(&run)?.state() {
            RunState::Confirmed => RunState::PreparingApply,
            RunState::ReplanRequested => RunState::PreparingReplan,
            _ => RunState::Preparing,
        };
        let workers = &mut self.pool_mut(pool)?.workers;
        workers.iter_mut().find(|candidate| candidate.id == worker)?.run = Some(run.clone());
        self.transition(&run, next, None, None);
        let run = self.run_mut(&run)?;
        run.workers.push(worker.to_owned());
        Some(run.clone())
    }

    /// A plan is there: says where the run goes with it.
    pub(super) fn planned(&mut self, id: &str, plan: Plan) {
        let Some(run) = self.run_mut(id) else { return };
        let has_changes = plan.has_changes;
        run.plan = Some(plan);
        let (kind, forced) = (run.kind, run.force.is_some());
        let replanned = run.states().contains(&RunState::ReplanRequested);
        let (autodeploy, locked) = self
            .stack(&self.run(id).map(|run| run.stack.clone()).unwrap_or_default())
            .map_or((false, false), |stack| (stack.autodeploy, stack.lock.is_some()));
        if kind == RunType::Proposed || !(has_changes || forced) {
            self.transition(id, RunState::Finished, None, None);
        } else if autodeploy && !locked && !replanned {
            self.transition(id, apply_state(kind), None, None);
        } else {
            let note = if locked {
                "Stack is locked"
            } else {
                "Autodeploy is off"
            };
            self.transition(id, RunState::Unconfirmed, Some(note.into()), None);
        }
    }
}

/// The state in which a run of this kind changes the world.
pub(super) fn apply_state(kind: RunType) -> RunState {
    if kind == RunType::Destroy {
        RunState::Destroying
    } else {
        RunState::Applying
    }
}
