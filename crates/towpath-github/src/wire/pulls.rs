//! Pull requests and their reviews.

use super::{User, words};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_core::CommitSha;
use url::Url;

words! {
    /// Whether a pull request is open.
    PullRequestState {
        /// It can still be merged.
        Open = "open",
        /// It was merged or given up.
        Closed = "closed",
    }
}

/// A pull request.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct PullRequest {
    /// Its number in the repository.
    pub number: u64,
    /// Whether it is open.
    pub state: PullRequestState,
    /// Its title.
    #[serde(default)]
    pub title: String,
    /// Who opened it; an account that was deleted is `None`.
    pub user: Option<User>,
    /// What is to be merged.
    pub head: PullRequestSide,
    /// What it is to be merged into.
    pub base: PullRequestSide,
    /// The commit that merging made; before that, of a trial merge.
    pub merge_commit_sha: Option<CommitSha>,
    /// When it was merged; `None` as long as it was not.
    pub merged_at: Option<Timestamp>,
    /// Whether it can be merged without conflict; `None` while the server still works that out.
    pub mergeable: Option<bool>,
    /// Where people see it.
    pub html_url: Option<Url>,
}

impl PullRequest {
    /// Who opened it; `ghost` for an account that was deleted, as GitHub shows it.
    pub fn author(&self) -> &str {
        self.user.as_ref().map_or("ghost", |user| &user.login)
    }
}

/// One side of a pull request.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct PullRequestSide {
    /// The branch.
    #[serde(rename = "ref")]
    pub branch: String,
    /// The commit.
    pub sha: CommitSha,
}

/// A pull request to be opened.
#[derive(Clone, Debug, Serialize)]
pub struct NewPullRequest {
    /// Its title.
    pub title: String,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The branch to be merged; `owner:branch` for one of a fork.
    pub head: String,
    /// The branch to merge into.
    pub base: String,
}

words! {
    /// What a review says.
    ReviewWord {
        /// Yes.
        Approved = "APPROVED",
        /// Not like this.
        ChangesRequested = "CHANGES_REQUESTED",
        /// Only remarks.
        Commented = "COMMENTED",
        /// Taken back.
        Dismissed = "DISMISSED",
        /// Not sent yet; only its author sees it.
        Pending = "PENDING",
    }
}

/// A review of a pull request.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct PullRequestReview {
    /// Its number.
    pub id: u64,
    /// Who wrote it; an account that was deleted is `None`.
    pub user: Option<User>,
    /// What it says.
    pub state: ReviewWord,
    /// The commit that was reviewed, where the server still knows.
    pub commit_id: Option<CommitSha>,
    /// When it was sent.
    pub submitted_at: Option<Timestamp>,
}

/// What a new review says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReviewEvent {
    /// Yes.
    Approve,
    /// Not like this.
    RequestChanges,
    /// Only remarks.
    Comment,
}

/// A review to be sent.
#[derive(Clone, Debug, Serialize)]
pub struct NewReview {
    /// What it says.
    pub event: ReviewEvent,
    /// Its text; GitHub wants one unless it approves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The commit it speaks of; the head of the pull request without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_id: Option<CommitSha>,
}

/// How to merge a pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MergeMethod {
    /// A merge commit.
    Merge,
    /// One new commit.
    Squash,
    /// Its commits anew on top of the base.
    Rebase,
}

/// A merge to be made.
#[derive(Clone, Debug, Serialize)]
pub struct Merge {
    /// Where the head must still be: what was reviewed is what is merged.
    pub sha: CommitSha,
    /// How to merge.
    pub merge_method: MergeMethod,
    /// The first line of the commit; GitHub makes one up without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_title: Option<String>,
}

/// A merge that was made.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Merged {
    /// The commit on the base branch.
    pub sha: CommitSha,
}
