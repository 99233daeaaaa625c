//! GitHub as elements A and B, the reviewed pull request and the repository, and as the one who knows what contains what.

use crate::checks::cut;
use crate::client::GitHub;
use crate::connection::SERVICE;
use crate::review::latest_verdicts;
use crate::wire::{ComparisonStatus, NewStatus, Status, StatusState};
use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use towpath_core::{BranchName, CommitSha, RepoSlug};
use towpath_elements::source::{Ancestry, Change, Commit, PullRequest, Report, ReportState, Review};
use towpath_elements::{Error, ErrorKind, Result, RevisionOracle, Source};
use url::Url;

#[async_trait]
impl Source for GitHub {
    async fn head(&self, repository: &RepoSlug, branch: &BranchName) -> Result<Option<CommitSha>> {
        self.branch_head(repository, branch).await
    }

    async fn ancestry(&self, repository: &RepoSlug, base: &CommitSha, head: &CommitSha) -> Result<Ancestry> {
        ancestry(self, repository, base, head).await
    }

    async fn review(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Review> {
        let mut pull_requests = Vec::new();
        for pull in self.pull_requests_of(repository, commit).await? {
            // One that is open, or was given up, has brought nothing in.
            if pull.merged_at.is_none() {
                continue;
            }
            let reviews = self.reviews(repository, pull.number).await?;
            pull_requests.push(PullRequest {
                number: pull.number,
                author: pull.author().to_owned(),
                url: pull.html_url,
                head: pull.head.sha,
                verdicts: latest_verdicts(reviews),
            });
        }
        Ok(Review {
            commit: commit.clone(),
            pull_requests,
        })
    }

    async fn file(&self, repository: &RepoSlug, commit: &CommitSha, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(self
            .contents(repository, commit.as_str(), path)
            .await?
            .map(Into::into))
    }

    async fn commit(&self, change: Change) -> Result<CommitSha> {
        self.create_commit(&change).await
    }

    fn history(
        &self,
        repository: &RepoSlug,
        branch: &BranchName,
        path: Option<String>,
    ) -> BoxStream<'static, Result<Commit>> {
        self.commits(repository, branch.as_str(), path.as_deref())
            .map_ok(|commit| Commit {
                sha: commit.sha,
                message: commit.commit.message,
                at: commit.commit.committer.and_then(|committer| committer.date),
            })
            .boxed()
    }

    async fn report(&self, report: Report) -> Result<()> {
        let wanted = NewStatus {
            state: match report.state {
                ReportState::Pending => StatusState::Pending,
                ReportState::Success => StatusState::Success,
                ReportState::Failure => StatusState::Failure,
                ReportState::Error => StatusState::Error,
            },
            context: report.context,
            description: cut(&report.description),
            target_url: report.url,
        };
        if self.carries(&report.repository, &report.commit, &wanted).await? {
            return Ok(());
        }
        match self
            .create_status(&report.repository, &report.commit, &wanted)
            .await
        {
            Ok(_) => Ok(()),
            // The answer may have been lost after the work was done.
            Err(lost) if lost.is_unavailable() || lost.is_timed_out() => {
                match self.carries(&report.repository, &report.commit, &wanted).await {
                    Ok(true) => Ok(()),
                    _ => Err(lost),
                }
            }
            Err(refused) => Err(refused),
        }
    }

    async fn reports(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<Report>> {
        let report = |status: Status| Report {
            repository: repository.clone(),
            commit: commit.clone(),
            state: match status.state {
                StatusState::Success => ReportState::Success,
                StatusState::Pending => ReportState::Pending,
                StatusState::Failure => ReportState::Failure,
                // A word of tomorrow is not known to be good.
                StatusState::Error | StatusState::Other(_) => ReportState::Error,
            },
            context: status.context,
            description: status.description.unwrap_or_default(),
            url: status.target_url.and_then(|url| Url::parse(&url).ok()),
        };
        Ok(self
            .latest_statuses(repository, commit)
            .await?
            .into_iter()
            .map(report)
            .collect())
    }
}

impl GitHub {
    /// Whether the commit's latest status of the context is this one already.
    async fn carries(&self, repository: &RepoSlug, commit: &CommitSha, wanted: &NewStatus) -> Result<bool> {
        let latest = self.latest_statuses(repository, commit).await?;
        let same_url = |found: &Option<String>| match (found.as_deref(), &wanted.target_url) {
            (None | Some(""), None) => true,
            (Some(found), Some(wanted)) => Url::parse(found).as_ref() == Ok(wanted),
            _ => false,
        };
        Ok(latest.iter().any(|status| {
            status.context.eq_ignore_ascii_case(&wanted.context)
                && status.state == wanted.state
                && status.description.as_deref().unwrap_or_default() == wanted.description
                && same_url(&status.target_url)
        }))
    }
}

/// How `head` stands to `base`, by history.
pub(crate) async fn ancestry(
    github: &GitHub,
    repository: &RepoSlug,
    base: &CommitSha,
    head: &CommitSha,
) -> Result<Ancestry> {
    let found = match github.compare(repository, base, head).await {
        Ok(comparison) => comparison.status,
        // Two histories that never met: GitHub says 404 to that too, and names the reason.
        Err(error)
            if error.is_not_found() && error.detail().to_ascii_lowercase().contains("common ancestor") =>
        {
            ComparisonStatus::Diverged
        }
        Err(error) => return Err(error),
    };
    match found {
        ComparisonStatus::Identical => Ok(Ancestry::Identical),
        ComparisonStatus::Ahead => Ok(Ancestry::Ahead),
        ComparisonStatus::Behind => Ok(Ancestry::Behind),
        ComparisonStatus::Diverged => Ok(Ancestry::Diverged),
        ComparisonStatus::Other(word) => Err(Error::new(
            ErrorKind::Protocol,
            SERVICE,
            "compare",
            format!("{} with {} of {repository}", base.short(), head.short()),
        )
        .because(format!("the server calls the outcome {word:?}"))),
    }
}

#[async_trait]
impl RevisionOracle for GitHub {
    /// # Errors
    /// *Unsupported* for a repository of another server; *not found* where one of the commits is not in it.
    async fn contains(
        &self,
        repository_url: &str,
        revision: &CommitSha,
        expected: &CommitSha,
    ) -> Result<bool> {
        let repository = crate::remote::repository_of(self.api(), repository_url)?;
        Ok(ancestry(self, &repository, expected, revision)
            .await?
            .contains_base())
    }
}
