//! Element C: the run a flow is in.

use crate::effect::evidence;
use crate::{Effect, Elements, Evidence};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use towpath_core::{CiRunId, CommitSha, RepoSlug};
use towpath_elements::ci::CiRun;
use towpath_elements::{Error, ErrorKind, Result};

/// Checks that the CI run a flow is in was started for the commit it is about to build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmCiRun {
    /// The repository.
    pub repository: RepoSlug,
    /// The commit.
    pub commit: CommitSha,
    /// The run, as the run's own environment names it.
    pub run: CiRunId,
}

#[async_trait]
impl Effect for ConfirmCiRun {
    const NAME: &'static str = "ci.confirm_run";
    type Output = CiRun;

    fn title(&self) -> String {
        format!("confirm CI run {} of {}", self.run, self.repository)
    }

    fn evidence(&self, run: &CiRun) -> Evidence {
        evidence([(
            "run",
            format!(
                "{}: {} ({}, attempt {})",
                self.repository, run.id, run.workflow, run.attempt
            ),
        )])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<CiRun>> {
        let run = elements.ci()?.run(&self.repository, self.run).await?;
        if run.commit == self.commit {
            return Ok(Some(run));
        }
        Err(
            Error::new(ErrorKind::Conflict, "CI", "build", self.commit.short())
                .because(format!("run {} was started for {}", self.run, run.commit.short()))
                .advise("give the flow the commit of its own run"),
        )
    }

    async fn apply(&self, elements: &Elements) -> Result<CiRun> {
        elements.ci()?.run(&self.repository, self.run).await
    }
}
