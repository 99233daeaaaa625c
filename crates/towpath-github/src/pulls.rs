//! Pull requests and reviews (`/repos/{owner}/{repo}/pulls`).

use crate::client::GitHub;
use crate::connection::Request;
use crate::page::{Items, all};
use crate::wire::{Merge, Merged, NewPullRequest, NewReview, PullRequest, PullRequestReview};
use http::Method;
use towpath_core::{BranchName, CommitSha, RepoSlug};
use towpath_elements::Result;

impl GitHub {
    /// Opens a pull request.
    ///
    /// # Errors
    /// *Conflict* where there is one for the same branches; *invalid* where the head has nothing that the base lacks.
    pub async fn create_pull_request(
        &self,
        repository: &RepoSlug,
        new: &NewPullRequest,
    ) -> Result<PullRequest> {
        let request = Request::repository(Method::POST, repository, ["pulls"])
            .doing("open", format!("a pull request of {} in {repository}", new.head))
            .body(new)?;
        self.connection.json(&request).await
    }

    /// A pull request; `None` where there is none of this number.
    pub async fn pull_request(&self, repository: &RepoSlug, number: u64) -> Result<Option<PullRequest>> {
        let request = Request::repository(Method::GET, repository, ["pulls", &number.to_string()])
            .doing("read", format!("{repository}#{number}"));
        self.connection.find(&request).await
    }

    /// The open pull requests of a branch of the repository itself; of every branch without one.
    pub async fn open_pull_requests(
        &self,
        repository: &RepoSlug,
        head: Option<&BranchName>,
    ) -> Result<Vec<PullRequest>> {
        let mut request = Request::repository(Method::GET, repository, ["pulls"])
            .query("state", "open")
            .doing("list the pull requests of", repository);
        if let Some(head) = head {
            request = request.query("head", format!("{}:{head}", repository.owner()));
        }
        all(&self.connection, request, Items::Whole).await
    }

    /// The pull requests that a commit belongs to: for a commit of the default branch those that brought it in, merged
    /// or not otherwise.
    ///
    /// # Errors
    /// *Not found* where there is no such commit.
    pub async fn pull_requests_of(
        &self,
        repository: &RepoSlug,
        commit: &CommitSha,
    ) -> Result<Vec<PullRequest>> {
        let request = Request::repository(Method::GET, repository, ["commits", commit.as_str(), "pulls"])
            .doing(
                "list the pull requests of",
                format!("{repository} at {}", commit.short()),
            );
        all(&self.connection, request, Items::Whole).await
    }

    /// Merges a pull request whose head is still the given commit. It is sent once: look before trying again.
    ///
    /// # Errors
    /// *Conflict* where the head moved, or the pull request cannot be merged as it stands.
    pub async fn merge_pull_request(
        &self,
        repository: &RepoSlug,
        number: u64,
        merge: &Merge,
    ) -> Result<Merged> {
        let request = Request::repository(Method::PUT, repository, ["pulls", &number.to_string(), "merge"])
            .doing("merge", format!("{repository}#{number}"))
            .once()
            .body(merge)?;
        self.connection.json(&request).await
    }

    /// Reviews a pull request.
    pub async fn create_review(
        &self,
        repository: &RepoSlug,
        number: u64,
        new: &NewReview,
    ) -> Result<PullRequestReview> {
        let request = Request::repository(
            Method::POST,
            repository,
            ["pulls", &number.to_string(), "reviews"],
        )
        .doing("review", format!("{repository}#{number}"))
        .body(new)?;
        self.connection.json(&request).await
    }

    /// Every review of a pull request, oldest first: those that later ones replace too.
    pub async fn reviews(&self, repository: &RepoSlug, number: u64) -> Result<Vec<PullRequestReview>> {
        let request = Request::repository(Method::GET, repository, ["pulls", &number.to_string(), "reviews"])
            .doing("list the reviews of", format!("{repository}#{number}"));
        all(&self.connection, request, Items::Whole).await
    }
}
