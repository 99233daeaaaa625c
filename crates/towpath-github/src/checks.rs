//! What a commit carries: statuses (`/statuses`, `/status`) and check runs (`/check-runs`).
//!
//! The two are apart at GitHub, and people see them as one. [`GitHub::verdicts`] merges them.

use crate::client::GitHub;
use crate::connection::Request;
use crate::page::{Items, all};
use crate::wire::{CheckConclusion, CheckRun, CheckStatus, CombinedStatus, NewStatus, Status, StatusState};
use http::Method;
use towpath_core::{CommitSha, RepoSlug};
use towpath_elements::Result;

/// How GitHub cuts a status's description: longer ones are refused.
const LONGEST_DESCRIPTION: usize = 140;

/// One thing that a commit was checked for, whichever way it was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The status's context or the check run's name.
    pub name: String,
    /// Whether it came as a check run.
    pub is_check_run: bool,
    /// `None` as long as it is not known; then whether it lets the commit pass.
    pub passed: Option<bool>,
}

impl GitHub {
    /// Writes a status onto a commit; it replaces the one of the same context. A description above 140 characters is cut.
    ///
    /// It is sent once. If its answer is lost, read before writing again: GitHub keeps a thousand per context.
    ///
    /// # Errors
    /// *Not found* where there is no such commit.
    pub async fn create_status(
        &self,
        repository: &RepoSlug,
        commit: &CommitSha,
        new: &NewStatus,
    ) -> Result<Status> {
        let new = NewStatus {
            description: cut(&new.description),
            ..new.clone()
        };
        let request = Request::repository(Method::POST, repository, ["statuses", commit.as_str()])
            .doing(
                "report",
                format!("{} on {repository} at {}", new.context, commit.short()),
            )
            .body(&new)?;
        self.connection.json(&request).await
    }

    /// Every status of a commit, the latest first: those that later ones replaced too.
    pub async fn statuses(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<Status>> {
        let request = Request::repository(Method::GET, repository, ["commits", commit.as_str(), "statuses"])
            .doing(
                "list the statuses of",
                format!("{repository} at {}", commit.short()),
            );
        all(&self.connection, request, Items::Whole).await
    }

    /// The latest status of each context, and the worst of them. The list is the first hundred;
    /// [`latest_statuses`](Self::latest_statuses) has them all.
    pub async fn combined_status(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<CombinedStatus> {
        self.connection
            .json(&status_request(repository, commit).query("per_page", "100"))
            .await
    }

    /// The latest status of each context.
    pub async fn latest_statuses(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<Status>> {
        all(
            &self.connection,
            status_request(repository, commit),
            Items::Under("statuses"),
        )
        .await
    }

    /// The latest check run of each name on a commit.
    pub async fn check_runs(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<CheckRun>> {
        let request = Request::repository(
            Method::GET,
            repository,
            ["commits", commit.as_str(), "check-runs"],
        )
        .query("filter", "latest")
        .doing(
            "list the check runs of",
            format!("{repository} at {}", commit.short()),
        );
        all(&self.connection, request, Items::Under("check_runs")).await
    }

    /// Everything a commit was checked for. No verdict at all is an empty list: neither a yes nor a no.
    pub async fn verdicts(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<Verdict>> {
        let statuses = self.latest_statuses(repository, commit).await?;
        let runs = self.check_runs(repository, commit).await?;
        let of_status = |status: Status| Verdict {
            passed: match status.state {
                StatusState::Pending => None,
                state => Some(state == StatusState::Success),
            },
            name: status.context,
            is_check_run: false,
        };
        let of_run = |run: CheckRun| Verdict {
            // Neutral and skipped let a required check pass; anything else but success does not.
            passed: match (run.status, run.conclusion) {
                (
                    CheckStatus::Completed,
                    Some(CheckConclusion::Success | CheckConclusion::Neutral | CheckConclusion::Skipped),
                ) => Some(true),
                (CheckStatus::Completed, _) => Some(false),
                _ => None,
            },
            name: run.name,
            is_check_run: true,
        };
        Ok(statuses
            .into_iter()
            .map(of_status)
            .chain(runs.into_iter().map(of_run))
            .collect())
    }
}

fn status_request(repository: &RepoSlug, commit: &CommitSha) -> Request {
    Request::repository(Method::GET, repository, ["commits", commit.as_str(), "status"]).doing(
        "read the status of",
        format!("{repository} at {}", commit.short()),
    )
}

/// The description as GitHub takes it: one that is too long ends in `…`.
pub(crate) fn cut(description: &str) -> String {
    if description.chars().count() <= LONGEST_DESCRIPTION {
        return description.to_owned();
    }
    description
        .chars()
        .take(LONGEST_DESCRIPTION - 1)
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_description_is_cut_between_characters() {
        assert_eq!(cut(&"ü".repeat(140)), "ü".repeat(140));
        let long = cut(&"ü".repeat(141));
        assert_eq!((long.chars().count(), long.ends_with("ü…")), (140, true));
    }
}
