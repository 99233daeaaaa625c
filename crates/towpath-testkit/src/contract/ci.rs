//! The contract of [`Ci`].

use super::{refused, until};
use async_trait::async_trait;
use std::sync::Arc;
use towpath_core::wait::Policy;
use towpath_core::{CiRunId, CommitSha, RepoSlug};
use towpath_elements::ci::{CiRun, CiState, Conclusion};
use towpath_elements::{Ci, ErrorKind};

/// Makes one test of each clause of [`Ci`](towpath_elements::Ci)'s contract.
#[macro_export]
macro_rules! ci_contract {
    ($fixture:expr) => { $crate::ci_contract!($fixture, #[tokio::test]); };
    ($fixture:expr, $($attribute:tt)+) => {
        $crate::contract_suite!(ci, [$($attribute)+], $fixture,
            runs_are_those_of_the_commit
            an_unfinished_run_is_not_a_success
            a_missing_run_is_not_found
            a_rerun_is_a_new_attempt
        );
    };
}

/// Prepares a repository with a workflow for the clauses.
#[async_trait]
pub trait CiFixture: Send + Sync {
    /// The implementation.
    fn ci(&self) -> Arc<dyn Ci>;

    /// The repository.
    fn repository(&self) -> RepoSlug;

    /// Pushes a commit that starts one run, whose end is good or not.
    async fn push(&self, ends_well: bool) -> CommitSha;

    /// A commit that starts no run.
    async fn quiet_commit(&self) -> CommitSha;

    /// How often to look at a run, and for how long, so that it is seen before, during and after.
    fn policy(&self) -> Policy;
}

async fn the_run(fixture: &dyn CiFixture, commit: &CommitSha) -> CiRun {
    let (ci, repository, policy) = (fixture.ci(), fixture.repository(), fixture.policy());
    let look = || ci.runs(&repository, commit);
    let mut runs = until(&policy, "a run of the commit", look, |runs: &Vec<CiRun>| {
        !runs.is_empty()
    })
    .await;
    runs.remove(0)
}

async fn ended(fixture: &dyn CiFixture, run: CiRunId, attempt: u32) -> CiRun {
    let (ci, repository) = (fixture.ci(), fixture.repository());
    let is_over = |run: &CiRun| run.attempt >= attempt && matches!(run.state, CiState::Completed(_));
    until(
        &fixture.policy(),
        "the end of the run",
        || ci.run(&repository, run),
        is_over,
    )
    .await
}

/// Clause 1.
pub async fn runs_are_those_of_the_commit(fixture: &dyn CiFixture) {
    let (ci, repository) = (fixture.ci(), fixture.repository());
    let (first, second) = (fixture.push(true).await, fixture.push(true).await);
    for commit in [&first, &second] {
        the_run(fixture, commit).await;
        let runs = ci.runs(&repository, commit).await.unwrap();
        assert_eq!(runs.len(), 1, "{runs:?}");
        assert_eq!(runs[0].commit, *commit);
    }
    let quiet = fixture.quiet_commit().await;
    assert_eq!(ci.runs(&repository, &quiet).await.unwrap(), []);
}

/// Clause 2.
pub async fn an_unfinished_run_is_not_a_success(fixture: &dyn CiFixture) {
    let (ci, repository) = (fixture.ci(), fixture.repository());
    for ends_well in [true, false] {
        let commit = fixture.push(ends_well).await;
        let run = the_run(fixture, &commit).await.id;
        let look = async || {
            let run = ci.run(&repository, run).await?;
            // The run first: jobs that are asked for later can only be further on.
            Ok((run.clone(), ci.jobs(&repository, run.id).await?))
        };
        let over = |(run, jobs): &(CiRun, Vec<_>)| {
            let over = matches!(run.state, CiState::Completed(_));
            let all = jobs
                .iter()
                .all(|job: &towpath_elements::ci::CiJob| matches!(job.state, CiState::Completed(_)));
            assert!(
                all || !over,
                "a completed run with a job that is not: {run:?} {jobs:?}"
            );
            over
        };
        let (run, jobs) = until(&fixture.policy(), "the end of the run", look, over).await;
        let success = run.state == CiState::Completed(Conclusion::Success);
        assert_eq!(success, ends_well, "{run:?}");
        let jobs_succeeded = jobs
            .iter()
            .all(|job| job.state == CiState::Completed(Conclusion::Success));
        assert_eq!(jobs_succeeded, ends_well, "{jobs:?}");
        assert!(!jobs.is_empty());
    }
}

/// Clause 3.
pub async fn a_missing_run_is_not_found(fixture: &dyn CiFixture) {
    let (ci, repository) = (fixture.ci(), fixture.repository());
    let missing = CiRunId(987_654_321);
    refused(
        ci.run(&repository, missing).await,
        ErrorKind::NotFound,
        "a missing run",
    );
    refused(
        ci.jobs(&repository, missing).await,
        ErrorKind::NotFound,
        "the jobs of a missing run",
    );
}

/// Clause 4.
pub async fn a_rerun_is_a_new_attempt(fixture: &dyn CiFixture) {
    let (ci, repository) = (fixture.ci(), fixture.repository());
    let commit = fixture.push(true).await;
    let run = the_run(fixture, &commit).await;
    let before = ended(fixture, run.id, 1).await;
    ci.rerun(&repository, run.id).await.unwrap();
    let after = ended(fixture, run.id, before.attempt + 1).await;
    assert_eq!((after.id, after.commit), (before.id, before.commit));
    assert!(after.attempt > before.attempt);
}
