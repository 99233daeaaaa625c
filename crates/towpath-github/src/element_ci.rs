//! GitHub Actions as element C: the CI pipeline, seen from outside.

use crate::client::GitHub;
use crate::wire::{CheckConclusion, CheckStatus, Job, WorkflowRun};
use async_trait::async_trait;
use towpath_core::{CiRunId, CommitSha, RepoSlug};
use towpath_elements::ci::{CiJob, CiRun, CiState, Conclusion, StartRun};
use towpath_elements::{Ci, Result};

#[async_trait]
impl Ci for GitHub {
    async fn runs(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<CiRun>> {
        Ok(self
            .workflow_runs(repository, commit)
            .await?
            .into_iter()
            .map(run)
            .collect())
    }

    async fn run(&self, repository: &RepoSlug, id: CiRunId) -> Result<CiRun> {
        self.workflow_run(repository, id).await.map(run)
    }

    async fn jobs(&self, repository: &RepoSlug, id: CiRunId) -> Result<Vec<CiJob>> {
        Ok(self
            .workflow_jobs(repository, id)
            .await?
            .into_iter()
            .map(job)
            .collect())
    }

    async fn log(&self, repository: &RepoSlug, job: u64, lines: usize) -> Result<String> {
        self.job_log(repository, job, lines).await
    }

    async fn start(&self, request: StartRun) -> Result<CiRunId> {
        self.dispatch_workflow(&request).await
    }

    async fn rerun(&self, repository: &RepoSlug, id: CiRunId) -> Result<()> {
        self.rerun_workflow(repository, id).await
    }

    async fn cancel(&self, repository: &RepoSlug, id: CiRunId) -> Result<()> {
        self.cancel_workflow(repository, id).await
    }
}

fn run(run: WorkflowRun) -> CiRun {
    CiRun {
        id: CiRunId(run.id),
        state: state(run.status, run.conclusion),
        // A workflow without a name of its own goes by its file.
        workflow: run
            .name
            .filter(|name| !name.is_empty())
            .or(run.path)
            .unwrap_or_default(),
        commit: run.head_sha,
        event: run.event,
        attempt: run.run_attempt.unwrap_or(1),
        url: run.html_url,
        created: run.created_at,
    }
}

fn job(job: Job) -> CiJob {
    let failed = |conclusion: &Option<CheckConclusion>| {
        matches!(
            conclusion,
            Some(CheckConclusion::Failure | CheckConclusion::TimedOut)
        )
    };
    CiJob {
        id: job.id,
        name: job.name,
        state: state(Some(job.status), job.conclusion),
        failed_step: job
            .steps
            .into_iter()
            .find(|step| failed(&step.conclusion))
            .map(|step| step.name),
    }
}

fn state(status: Option<CheckStatus>, conclusion: Option<CheckConclusion>) -> CiState {
    match status {
        // GitHub may leave the status out before a run is queued.
        None
        | Some(CheckStatus::Queued | CheckStatus::Waiting | CheckStatus::Requested | CheckStatus::Pending) => {
            CiState::Queued
        }
        Some(CheckStatus::InProgress) => CiState::Running,
        Some(CheckStatus::Completed) => CiState::Completed(match conclusion {
            Some(CheckConclusion::Success) => Conclusion::Success,
            Some(CheckConclusion::Failure | CheckConclusion::StartupFailure) => Conclusion::Failure,
            Some(CheckConclusion::Cancelled) => Conclusion::Cancelled,
            Some(CheckConclusion::Skipped) => Conclusion::Skipped,
            Some(CheckConclusion::TimedOut) => Conclusion::TimedOut,
            Some(other) => Conclusion::Other(other.as_str().to_owned()),
            None => Conclusion::Other(String::new()),
        }),
        Some(CheckStatus::Other(word)) => CiState::Other(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_completed_success_is_a_success() {
        let success = Some(CheckConclusion::Success);
        assert_eq!(
            state(Some(CheckStatus::InProgress), success.clone()),
            CiState::Running
        );
        assert_eq!(
            state(Some(CheckStatus::Completed), success),
            CiState::Completed(Conclusion::Success)
        );
        let odd = Some(CheckConclusion::from("reviewed".to_owned()));
        assert_eq!(
            state(Some(CheckStatus::Completed), odd),
            CiState::Completed(Conclusion::Other("reviewed".into()))
        );
        assert_eq!(
            state(Some(CheckStatus::from("thinking".to_owned())), None),
            CiState::Other("thinking".into())
        );
        assert_eq!(state(None, None), CiState::Queued);
    }
}
