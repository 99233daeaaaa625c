//! Element C: workflows that start on a push, take their time, and end as they were told to.

use super::faults::Element;
use super::repositories::main_branch;
use super::{Moment, State, World, refusal};
use async_trait::async_trait;
use std::time::Duration;
use towpath_core::{BranchName, CiRunId, CommitSha, RepoSlug};
use towpath_elements::ci::{CiJob, CiRun, CiState, Conclusion, StartRun};
use towpath_elements::{Ci, ErrorKind, Result};

/// A workflow of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workflow {
    /// Its name.
    pub name: String,
    /// Its file's name, such as `ci.yml`.
    pub file: String,
    /// Its jobs, which run one after the other.
    pub jobs: Vec<String>,
}

impl Workflow {
    /// A workflow `ci` in `ci.yml` with the jobs `build` and `test`.
    pub fn ci() -> Self {
        Self {
            name: "ci".to_owned(),
            file: "ci.yml".to_owned(),
            jobs: vec!["build".to_owned(), "test".to_owned()],
        }
    }
}

/// How a run will end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CiEnding {
    /// Well.
    #[default]
    Success,
    /// Its last job fails at this step.
    FailsAt(String),
}

#[derive(Default)]
pub(super) struct Pipelines {
    workflows: Vec<(RepoSlug, Workflow)>,
    runs: Vec<StoredRun>,
    next: Vec<(RepoSlug, CiEnding)>,
}

struct StoredRun {
    repository: RepoSlug,
    workflow: Workflow,
    commit: CommitSha,
    event: &'static str,
    attempt: u32,
    created: Duration,
    cancelled: Option<Duration>,
    ending: CiEnding,
}

/// Jobs are numbered by their run and their place in it.
const JOBS_PER_RUN: u64 = 1_000;

impl StoredRun {
    fn conclusion(&self) -> Conclusion {
        match self.ending {
            CiEnding::Success => Conclusion::Success,
            CiEnding::FailsAt(_) => Conclusion::Failure,
        }
    }

    /// When a job begins and ends: each takes an equal share of the run.
    fn hours(&self, job: usize, moment: Moment<'_>) -> (Duration, Duration) {
        let share = moment.timing.ci_run / self.workflow.jobs.len().max(1) as u32;
        let from = self.created + moment.timing.ci_queue + share * job as u32;
        (from, from + share)
    }

    fn job(&self, run: CiRunId, at: usize, moment: Moment<'_>) -> CiJob {
        let (from, to) = self.hours(at, moment);
        let last = at + 1 == self.workflow.jobs.len();
        let now = self.cancelled.unwrap_or(moment.now);
        let state = match now {
            now if now >= to && last => CiState::Completed(self.conclusion()),
            now if now >= to => CiState::Completed(Conclusion::Success),
            _ if self.cancelled.is_some() => CiState::Completed(Conclusion::Cancelled),
            now if now >= from => CiState::Running,
            _ => CiState::Queued,
        };
        let failed_step = match (&self.ending, &state) {
            (CiEnding::FailsAt(step), CiState::Completed(Conclusion::Failure)) => Some(step.clone()),
            _ => None,
        };
        CiJob {
            id: run.0 * JOBS_PER_RUN + at as u64,
            name: self.workflow.jobs[at].clone(),
            state,
            failed_step,
        }
    }

    fn state(&self, moment: Moment<'_>) -> CiState {
        let (from, _) = self.hours(0, moment);
        let (_, to) = self.hours(self.workflow.jobs.len().saturating_sub(1), moment);
        match self.cancelled {
            Some(_) => CiState::Completed(Conclusion::Cancelled),
            None if moment.now >= to => CiState::Completed(self.conclusion()),
            None if moment.now >= from => CiState::Running,
            None => CiState::Queued,
        }
    }

    fn show(&self, id: CiRunId, moment: Moment<'_>) -> CiRun {
        CiRun {
            id,
            workflow: self.workflow.name.clone(),
            commit: self.commit.clone(),
            event: self.event.to_owned(),
            attempt: self.attempt,
            state: self.state(moment),
            url: None,
            created: Some(moment.stamp(self.created)),
        }
    }
}

impl Pipelines {
    fn get(&mut self, repository: &RepoSlug, run: CiRunId) -> Result<&mut StoredRun> {
        let at = usize::try_from(run.0).unwrap_or(usize::MAX).wrapping_sub(1);
        self.runs
            .get_mut(at)
            .filter(|stored| stored.repository == *repository)
            .ok_or_else(|| refusal(ErrorKind::NotFound, "find CI run", run, "there is no such run"))
    }

    fn add(
        &mut self,
        repository: &RepoSlug,
        workflow: Workflow,
        commit: &CommitSha,
        event: &'static str,
        created: Duration,
    ) -> CiRunId {
        let scripted = self.next.iter().position(|(slug, _)| slug == repository);
        let ending = scripted.map(|at| self.next.remove(at).1).unwrap_or_default();
        self.runs.push(StoredRun {
            repository: repository.clone(),
            workflow,
            commit: commit.clone(),
            event,
            attempt: 1,
            created,
            cancelled: None,
            ending,
        });
        CiRunId(self.runs.len() as u64)
    }
}

/// A push to the default branch starts a run of every workflow of the repository.
pub(super) fn pushed(
    state: &mut State,
    repository: &RepoSlug,
    branch: &BranchName,
    commit: &CommitSha,
    moment: Moment<'_>,
) {
    if *branch != main_branch() {
        return;
    }
    let workflows: Vec<Workflow> = state
        .ci
        .workflows
        .iter()
        .filter(|(slug, _)| slug == repository)
        .map(|(_, workflow)| workflow.clone())
        .collect();
    for workflow in workflows {
        state.ci.add(repository, workflow, commit, "push", moment.now);
    }
}

#[async_trait]
impl Ci for World {
    async fn runs(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<CiRun>> {
        self.call(Element::Ci, "runs", commit, |state, moment| {
            state.source.get(repository)?;
            let mut runs: Vec<CiRun> = (1..)
                .map(CiRunId)
                .zip(&state.ci.runs)
                .filter(|(_, run)| run.repository == *repository && run.commit == *commit)
                .map(|(id, run)| run.show(id, moment))
                .collect();
            runs.reverse();
            Ok(runs)
        })
        .await
    }

    async fn run(&self, repository: &RepoSlug, run: CiRunId) -> Result<CiRun> {
        self.call(Element::Ci, "run", run, |state, moment| {
            Ok(state.ci.get(repository, run)?.show(run, moment))
        })
        .await
    }

    async fn jobs(&self, repository: &RepoSlug, run: CiRunId) -> Result<Vec<CiJob>> {
        self.call(Element::Ci, "jobs", run, |state, moment| {
            let stored = state.ci.get(repository, run)?;
            Ok((0..stored.workflow.jobs.len())
                .map(|at| stored.job(run, at, moment))
                .collect())
        })
        .await
    }

    async fn log(&self, repository: &RepoSlug, job: u64, lines: usize) -> Result<String> {
        self.call(Element::Ci, "log", job, |state, moment| {
            let (run, at) = (CiRunId(job / JOBS_PER_RUN), (job % JOBS_PER_RUN) as usize);
            let stored = state.ci.get(repository, run)?;
            if at >= stored.workflow.jobs.len() {
                return Err(refusal(
                    ErrorKind::NotFound,
                    "read the log of CI job",
                    job,
                    "no such job",
                ));
            }
            let CiJob {
                name,
                state,
                failed_step,
                ..
            } = stored.job(run, at, moment);
            let mut log = vec![
                format!("job {name} of {}", stored.commit),
                format!("state {state:?}"),
            ];
            log.extend(failed_step.map(|step| format!("failed at {step}")));
            let from = log.len().saturating_sub(lines);
            Ok(log[from..].join("\n"))
        })
        .await
    }

    async fn start(&self, request: StartRun) -> Result<CiRunId> {
        let StartRun {
            repository,
            workflow: file,
            branch,
            ..
        } = &request;
        self.call(
            Element::Ci,
            "start",
            format!("{file} on {branch}"),
            |state, moment| {
                let head = state.source.get(repository)?.branches.get(branch);
                let Some(head) = head.map(|branch| branch.head.clone()) else {
                    return Err(refusal(
                        ErrorKind::NotFound,
                        "start a run on",
                        branch,
                        "no such branch",
                    ));
                };
                let known = state
                    .ci
                    .workflows
                    .iter()
                    .find(|(slug, workflow)| slug == repository && workflow.file == *file);
                let Some((_, workflow)) = known.cloned() else {
                    return Err(refusal(
                        ErrorKind::NotFound,
                        "start the workflow",
                        file,
                        "no such workflow",
                    ));
                };
                state.changed = true;
                Ok(state
                    .ci
                    .add(repository, workflow, &head, "workflow_dispatch", moment.now))
            },
        )
        .await
    }

    async fn rerun(&self, repository: &RepoSlug, run: CiRunId) -> Result<()> {
        self.call(Element::Ci, "rerun", run, |state, moment| {
            let next = state.ci.next.iter().position(|(slug, _)| slug == repository);
            let ending = next.map(|at| state.ci.next.remove(at).1);
            let stored = state.ci.get(repository, run)?;
            if !matches!(stored.state(moment), CiState::Completed(_)) {
                return Err(refusal(
                    ErrorKind::Conflict,
                    "run again",
                    run,
                    "it is not over yet",
                ));
            }
            stored.attempt += 1;
            stored.created = moment.now;
            stored.cancelled = None;
            stored.ending = ending.unwrap_or_default();
            state.changed = true;
            Ok(())
        })
        .await
    }

    async fn cancel(&self, repository: &RepoSlug, run: CiRunId) -> Result<()> {
        self.call(Element::Ci, "cancel", run, |state, moment| {
            let stored = state.ci.get(repository, run)?;
            if matches!(stored.state(moment), CiState::Completed(_)) {
                return Err(refusal(ErrorKind::Conflict, "cancel", run, "it is over already"));
            }
            stored.cancelled = Some(moment.now);
            state.changed = true;
            Ok(())
        })
        .await
    }
}

impl World {
    /// Gives a repository a workflow, which runs on every push to `main` from now on.
    pub fn add_workflow(&self, repository: &RepoSlug, workflow: Workflow) {
        self.with(|state, _| state.ci.workflows.push((repository.clone(), workflow)));
    }

    /// Says how the next run of a repository will end.
    pub fn next_ci_run(&self, repository: &RepoSlug, ending: CiEnding) {
        self.with(|state, _| state.ci.next.push((repository.clone(), ending)));
    }

    /// The newest run that a commit started, as the run's own environment would name it.
    pub fn ci_run_of(&self, repository: &RepoSlug, commit: &CommitSha) -> Option<CiRunId> {
        self.with(|state, _| {
            let of_the_commit = |run: &StoredRun| run.repository == *repository && run.commit == *commit;
            let at = state.ci.runs.iter().rposition(of_the_commit)?;
            Some(CiRunId(at as u64 + 1))
        })
    }
}
