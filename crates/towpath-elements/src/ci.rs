//! Element C: the CI pipeline, seen from outside.

use crate::{Error, ErrorKind, Result};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use towpath_core::wait::{self, Judgement, Outcome, Policy};
use towpath_core::{BranchName, Cancellation, CiRunId, CommitSha, RepoSlug};
use url::Url;

/// What a flow asks of the CI system.
///
/// # Contract
/// 1. `runs_are_those_of_the_commit`: [`runs`](Self::runs) lists the runs that this commit started and no others,
///    newest first; none is an empty list, not an error.
/// 2. `an_unfinished_run_is_not_a_success`: a run is `Completed` only once every job is, and its conclusion is a
///    success only if the service says so; an unknown word is kept and is not a success.
/// 3. `a_missing_run_is_not_found`: [`run`](Self::run) and [`jobs`](Self::jobs) of an unknown run are *not found*.
/// 4. `a_rerun_is_a_new_attempt`: after [`rerun`](Self::rerun) the same run has a higher attempt.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Ci: Debug + Send + Sync {
    /// The runs that a commit started, newest first.
    async fn runs(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<CiRun>>;

    /// One run as it stands.
    async fn run(&self, repository: &RepoSlug, run: CiRunId) -> Result<CiRun>;

    /// The jobs of a run's latest attempt.
    async fn jobs(&self, repository: &RepoSlug, run: CiRunId) -> Result<Vec<CiJob>>;

    /// The end of a job's log, at most `lines` lines.
    async fn log(&self, repository: &RepoSlug, job: u64, lines: usize) -> Result<String>;

    /// Starts a workflow by hand on a branch, and finds the run that this started.
    async fn start(&self, request: StartRun) -> Result<CiRunId>;

    /// Runs a finished run again.
    async fn rerun(&self, repository: &RepoSlug, run: CiRunId) -> Result<()>;

    /// Asks a run to stop.
    async fn cancel(&self, repository: &RepoSlug, run: CiRunId) -> Result<()>;
}

/// A workflow run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CiRun {
    /// Its number.
    pub id: CiRunId,
    /// The workflow's name.
    pub workflow: String,
    /// The commit it runs on.
    pub commit: CommitSha,
    /// What started it, such as `push`.
    pub event: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How it stands.
    pub state: CiState,
    /// Where people see it.
    pub url: Option<Url>,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// How a run or a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CiState {
    /// Waiting for a runner, for another run, or for an approval.
    Queued,
    /// Running.
    Running,
    /// Over.
    Completed(Conclusion),
    /// A word of the service that this version does not know; it is not an end.
    Other(String),
}

/// How a run or a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Conclusion {
    /// Good.
    Success,
    /// Not good.
    Failure,
    /// Somebody stopped it.
    Cancelled,
    /// It did not have to run.
    Skipped,
    /// It ran out of time.
    TimedOut,
    /// A word of the service that this version does not know; it is not a success.
    Other(String),
}

/// One job of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CiJob {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: CiState,
    /// The first step that failed, where one did.
    pub failed_step: Option<String>,
}

/// A workflow to be started by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRun {
    /// The repository.
    pub repository: RepoSlug,
    /// The workflow's file name, such as `ci.yml`.
    pub workflow: String,
    /// The branch whose version of the workflow runs.
    pub branch: BranchName,
    /// The workflow's inputs.
    pub inputs: std::collections::BTreeMap<String, String>,
}

/// What users of [`Ci`] get on top of it.
#[async_trait]
pub trait CiExt {
    /// Waits until a run of the commit, of the given workflow where one is named, is over, and returns it.
    ///
    /// A commit that has no run yet is waited for. A run that ends without success is returned, not an error.
    ///
    /// # Errors
    /// *Timed out* with what was seen last, *cancelled*, or what the service said when it could not be asked.
    async fn wait_for_commit(
        &self,
        repository: &RepoSlug,
        commit: &CommitSha,
        workflow: Option<&str>,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<CiRun>;
}

#[async_trait]
impl<T: Ci + ?Sized> CiExt for T {
    async fn wait_for_commit(
        &self,
        repository: &RepoSlug,
        commit: &CommitSha,
        workflow: Option<&str>,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<CiRun> {
        let subject = format!("the CI run of {repository} at {}", commit.short());
        let outcome = wait::until(
            policy,
            cancellation,
            || async {
                let mut runs = self.runs(repository, commit).await?;
                runs.retain(|run| workflow.is_none_or(|wanted| run.workflow == wanted));
                Ok(runs.into_iter().next())
            },
            Error::retry,
            |run: &Option<CiRun>| match run.as_ref().map(|run| &run.state) {
                None => Judgement::pending("a run to start"),
                Some(CiState::Completed(_)) => Judgement::Met,
                Some(CiState::Queued) => Judgement::pending("a runner to take the run"),
                Some(_) => Judgement::pending("the run to end"),
            },
        )
        .await;
        ended("wait for", subject, outcome)?
            .ok_or_else(|| Error::new(ErrorKind::Protocol, "CI", "wait for", commit))
    }
}

/// Turns the end of a wait into its value or an error that says what was missing.
pub(crate) fn ended<T: Debug>(
    attempted: &'static str,
    subject: String,
    outcome: Outcome<T, Error>,
) -> Result<T> {
    let error = |kind| Error::new(kind, "Towpath", attempted, &subject).retrying(towpath_core::Retry::Spent);
    match outcome {
        Outcome::Met(value) => Ok(value),
        Outcome::Failed { reason, .. } => Err(error(ErrorKind::Conflict).because(reason)),
        Outcome::TimedOut {
            waiting_for,
            elapsed,
            looks,
            error: last,
            ..
        } => {
            let timed_out = error(ErrorKind::TimedOut).because(format!(
                "after {elapsed:.1?} and {looks} looks, still waiting for {waiting_for}"
            ));
            Err(match last {
                Some(last) => timed_out.caused_by(last),
                None => timed_out,
            })
        }
        Outcome::Cancelled { .. } => Err(error(ErrorKind::Cancelled)),
        Outcome::Blind { error, .. } => Err(error),
        other => Err(error(ErrorKind::Protocol).because(format!("the wait ended as {other:?}"))),
    }
}
