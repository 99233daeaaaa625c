//! How runs go on by themselves: queued, planned, applied, one at a time on a stack and after the stacks it depends on.

use super::super::repositories::{Files, Repository};
use super::super::{Moment, State, refusal, terraform};
use super::{StackSetup, Stacks};
use std::time::Duration;
use towpath_core::{BranchName, CommitSha, RepoSlug, RunId, StackId};
use towpath_elements::infrastructure::{Confirmation, Plan, PlannedChange, Run, RunState};
use towpath_elements::{ErrorKind, Result};

pub(super) struct StoredRun {
    pub(super) id: RunId,
    pub(super) stack: StackId,
    pub(super) commit: CommitSha,
    pub(super) state: RunState,
    since: Duration,
    /// When it goes on by itself.
    due: Option<Duration>,
    changes: Option<Vec<PlannedChange>>,
    /// What there shall be once it is applied.
    target: terraform::Resources,
    pub(super) confirmation: Option<Confirmation>,
    note: Option<String>,
    pub(super) log: Vec<String>,
}

impl StoredRun {
    pub(super) fn enter(
        &mut self,
        state: RunState,
        note: Option<String>,
        at: Duration,
        due: Option<Duration>,
    ) {
        self.log.push(match &note {
            Some(note) => format!("{state}: {note}"),
            None => state.to_string(),
        });
        self.state = state;
        self.note = note;
        self.since = at;
        self.due = due;
    }

    pub(super) fn confirm(&mut self, confirmation: Confirmation, moment: Moment<'_>) {
        let note = Some(confirmation.note.clone());
        self.confirmation = Some(confirmation);
        let due = moment.now + moment.timing.apply / 4;
        self.enter(RunState::Confirmed, note, moment.now, Some(due));
    }

    /// Goes back to planning, as after a replan that somebody asked for.
    pub(super) fn replan(&mut self, moment: Moment<'_>) {
        self.changes = None;
        self.confirmation = None;
        let due = moment.now + moment.timing.plan;
        self.enter(RunState::Planning, None, moment.now, Some(due));
    }

    pub(super) fn holds_the_stack(&self) -> bool {
        !self.state.is_terminal() && self.state != RunState::Queued
    }

    pub(super) fn plan(&self) -> Option<Plan> {
        let changes = self.changes.clone()?;
        Some(Plan {
            stack: self.stack.clone(),
            run: self.id.clone(),
            commit: self.commit.clone(),
            counts: terraform::counts(&changes),
            changes,
        })
    }

    pub(super) fn show(&self, moment: Moment<'_>) -> Run {
        Run {
            id: self.id.clone(),
            stack: self.stack.clone(),
            commit: Some(self.commit.clone()),
            state: self.state.clone(),
            needs_approval: false,
            counts: self.changes.as_deref().map(terraform::counts),
            note: self.note.clone(),
            since: Some(moment.stamp(self.since)),
        }
    }
}

/// A push starts a tracked run of every stack whose files it touches on the branch that the stack follows.
pub(in super::super) fn pushed(
    state: &mut State,
    repository: &RepoSlug,
    branch: &BranchName,
    before: Option<&CommitSha>,
    to: &CommitSha,
    moment: Moment<'_>,
) -> Result<()> {
    let stored = state.source.get(repository)?;
    let touched: Vec<StackId> = state
        .infrastructure
        .stacks
        .iter()
        .filter(|(_, stack)| stack.setup.repository == *repository && stack.setup.branch == *branch)
        .filter(|(_, stack)| {
            before.is_none_or(|before| below(stored, before, &stack.setup) != below(stored, to, &stack.setup))
        })
        .map(|(id, _)| id.clone())
        .collect();
    for stack in touched {
        queue(state, &stack, to, moment)?;
    }
    advance(state, moment);
    Ok(())
}

/// The files of a stack at a commit.
fn below(repository: &Repository, commit: &CommitSha, setup: &StackSetup) -> Files {
    let files = repository.commits.get(commit).map(|commit| commit.files.iter());
    files
        .into_iter()
        .flatten()
        .filter(|(path, _)| setup.owns(path))
        .map(|(path, bytes)| (path.clone(), bytes.clone()))
        .collect()
}

/// Adds a run behind all others.
pub(super) fn queue(
    state: &mut State,
    stack: &StackId,
    commit: &CommitSha,
    moment: Moment<'_>,
) -> Result<()> {
    let setup = &state.infrastructure.stack(stack)?.setup;
    let repository = state.source.get(&setup.repository)?;
    repository.commit(commit)?;
    let texts = below(repository, commit, setup);
    let target = texts
        .iter()
        .filter(|(path, _)| path.ends_with(".tf"))
        .flat_map(|(_, bytes)| terraform::resources(&String::from_utf8_lossy(bytes)))
        .collect();
    let id = RunId::new(format!("RUN{:04}", state.infrastructure.runs.len() + 1))
        .map_err(|error| refusal(ErrorKind::Protocol, "name a run of", stack, error))?;
    let mut run = StoredRun {
        id,
        stack: stack.clone(),
        commit: commit.clone(),
        state: RunState::Queued,
        since: moment.now,
        due: None,
        changes: None,
        target,
        confirmation: None,
        note: None,
        log: Vec::new(),
    };
    run.enter(RunState::Queued, None, moment.now, None);
    state.infrastructure.runs.push(run);
    Ok(())
}

/// Everything that was due by now, in the order in which it was due.
pub(in super::super) fn advance(state: &mut State, moment: Moment<'_>) {
    let stacks = &mut state.infrastructure;
    loop {
        let due = stacks
            .runs
            .iter()
            .enumerate()
            .filter_map(|(at, run)| Some((run.due.filter(|due| *due <= moment.now)?, at)))
            .min();
        let Some((when, at)) = due else {
            break;
        };
        start_queued(stacks, when, moment);
        go_on(stacks, at, when, moment);
        start_queued(stacks, when, moment);
    }
    start_queued(stacks, moment.now, moment);
}

fn go_on(stacks: &mut Stacks, at: usize, when: Duration, moment: Moment<'_>) {
    let run = &mut stacks.runs[at];
    run.due = None;
    let Some(stack) = stacks.stacks.get_mut(&run.stack) else {
        return;
    };
    let apply = when + moment.timing.apply;
    match run.state {
        RunState::Planning => {
            let changes = terraform::changes(&stack.applied, &run.target);
            run.log.extend(
                changes
                    .iter()
                    .map(|change| format!("plan: {} {}", change.action, change.address)),
            );
            let nothing = changes.is_empty();
            run.changes = Some(changes);
            match (nothing, stack.setup.autodeploy) {
                (true, _) => run.enter(RunState::Finished, Some("no changes".to_owned()), when, None),
                (false, true) => run.enter(RunState::Applying, None, when, Some(apply)),
                (false, false) => run.enter(RunState::Unconfirmed, None, when, None),
            }
        }
        RunState::Confirmed => run.enter(RunState::Applying, None, when, Some(apply)),
        RunState::Applying => match stack.next_apply_fails.take() {
            Some(message) => run.enter(RunState::Failed, Some(message), when, None),
            None => {
                stack.applied = run.target.clone();
                run.enter(RunState::Finished, None, when, None);
            }
        },
        _ => {}
    }
}

/// Lets queued runs begin whose stack is free and whose dependencies are applied.
fn start_queued(stacks: &mut Stacks, when: Duration, moment: Moment<'_>) {
    for at in 0..stacks.runs.len() {
        if stacks.runs[at].state != RunState::Queued {
            continue;
        }
        match gate(stacks, at) {
            Gate::Open => {
                let due = when + moment.timing.plan;
                stacks.runs[at].enter(RunState::Planning, None, when, Some(due));
            }
            Gate::Closed => {}
            Gate::Never(note) => stacks.runs[at].enter(RunState::Skipped, Some(note), when, None),
        }
    }
}

enum Gate {
    Open,
    Closed,
    Never(String),
}

fn gate(stacks: &Stacks, at: usize) -> Gate {
    let run = &stacks.runs[at];
    let Some(stack) = stacks.stacks.get(&run.stack) else {
        return Gate::Closed;
    };
    let held = stacks
        .runs
        .iter()
        .any(|other| other.stack == run.stack && other.holds_the_stack());
    if held || stack.locked.is_some() {
        return Gate::Closed;
    }
    for dependency in &stack.setup.depends_on {
        let newest = stacks
            .runs
            .iter()
            .rev()
            .find(|other| other.stack == *dependency && other.commit == run.commit);
        match newest.map(|other| &other.state) {
            None | Some(RunState::Finished) => {}
            Some(state) if state.is_terminal() => {
                return Gate::Never(format!("stack {dependency}, which it depends on, was {state}"));
            }
            Some(_) => return Gate::Closed,
        }
    }
    Gate::Open
}
