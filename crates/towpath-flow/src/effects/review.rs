//! Elements A and B: what the review says, and news of the build on the commit.

use crate::effect::evidence;
use crate::gate::ReviewPolicy;
use crate::{Effect, Elements, Evidence};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use towpath_core::{CommitSha, RepoSlug};
use towpath_elements::source::{Report, ReportState, Review};
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// Reads who reviewed a commit, and closes the gate where that is not enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReview {
    /// The repository.
    pub repository: RepoSlug,
    /// The commit.
    pub commit: CommitSha,
    /// What is asked of the review.
    pub policy: ReviewPolicy,
}

#[async_trait]
impl Effect for ReadReview {
    const NAME: &'static str = "source.review";
    type Output = Review;

    fn title(&self) -> String {
        format!(
            "check the review of {} at {}",
            self.repository,
            self.commit.short()
        )
    }

    fn evidence(&self, review: &Review) -> Evidence {
        let verdict = self.policy.judge(review).unwrap_or_else(|missing| missing);
        evidence([
            ("commit", format!("{}@{}", self.repository, self.commit)),
            ("review", format!("{}: {verdict}", self.repository)),
        ])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<Review>> {
        let review = elements.source()?.review(&self.repository, &self.commit).await?;
        match self.policy.judge(&review) {
            Ok(_) => Ok(Some(review)),
            Err(missing) => Err(Error::new(
                ErrorKind::Denied,
                "review gate",
                "let through",
                self.commit.short(),
            )
            .because(missing)
            .advise("have the pull request approved as it is, and merge it again")),
        }
    }

    async fn apply(&self, elements: &Elements) -> Result<Review> {
        elements.source()?.review(&self.repository, &self.commit).await
    }
}

/// Writes news of a build onto its commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportBuild {
    /// The repository.
    pub repository: RepoSlug,
    /// The commit that was built.
    pub commit: CommitSha,
    /// The kind of news, such as `towpath/image`.
    pub context: String,
    /// The news in one line.
    pub description: String,
    /// Where to read more.
    pub url: Option<Url>,
}

impl ReportBuild {
    fn report(&self) -> Report {
        Report {
            repository: self.repository.clone(),
            commit: self.commit.clone(),
            context: self.context.clone(),
            state: ReportState::Success,
            description: self.description.clone(),
            url: self.url.clone(),
        }
    }
}

#[async_trait]
impl Effect for ReportBuild {
    const NAME: &'static str = "source.report";
    type Output = ();

    fn title(&self) -> String {
        format!(
            "report {} on {} at {}",
            self.context,
            self.repository,
            self.commit.short()
        )
    }

    fn evidence(&self, (): &()) -> Evidence {
        evidence([("status", format!("{}: {}", self.context, self.description))])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<()>> {
        let reports = elements.source()?.reports(&self.repository, &self.commit).await?;
        let same = |report: &Report| {
            report.context == self.context
                && report.state == ReportState::Success
                && report.description == self.description
        };
        Ok(reports.iter().any(same).then_some(()))
    }

    async fn apply(&self, elements: &Elements) -> Result<()> {
        elements.source()?.report(self.report()).await
    }
}
