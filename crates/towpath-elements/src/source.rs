//! Elements A and B: the reviewed pull request, and the repository.

use crate::Result;
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;
use towpath_core::{BranchName, CommitSha, RepoSlug};
use url::Url;

/// What a flow asks of the source repository.
///
/// # Contract
/// 1. `head_of_a_missing_branch_is_none`: [`head`](Self::head) is `None` for a branch that does not exist, and an
///    error of kind *not found* for a repository that does not.
/// 2. `a_commit_moves_the_head_from_where_it_was_expected`: [`commit`](Self::commit) adds exactly one commit on top of
///    `expected_head` that changes exactly the given files, and returns its name.
/// 3. `a_moved_head_is_a_conflict_and_nothing_is_written`: if the branch is no longer at `expected_head`, `commit` is a
///    *conflict*, and the branch is untouched.
/// 4. `a_file_is_read_at_its_commit`: [`file`](Self::file) gives the exact bytes at that commit, and `None` where there
///    is no such file.
/// 5. `ancestry_is_told_from_history`: [`ancestry`](Self::ancestry) compares by history, not by time.
/// 6. `a_report_replaces_the_one_before`: [`report`](Self::report) with a context that the commit has already replaces
///    it; the same report twice is one report.
/// 7. `a_review_names_who_approved_what`: [`review`](Self::review) lists every pull request that brought the commit in,
///    and each reviewer's latest verdict with the commit it was given on; comments are not verdicts.
/// 8. `history_is_newest_first`: [`history`](Self::history) starts at the head of the branch.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// The commit that a branch points to.
    async fn head(&self, repository: &RepoSlug, branch: &BranchName) -> Result<Option<CommitSha>>;

    /// How `head` stands to `base`.
    async fn ancestry(&self, repository: &RepoSlug, base: &CommitSha, head: &CommitSha) -> Result<Ancestry>;

    /// Who reviewed what brought this commit in.
    async fn review(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Review>;

    /// The bytes of a file at a commit.
    async fn file(&self, repository: &RepoSlug, commit: &CommitSha, path: &str) -> Result<Option<Vec<u8>>>;

    /// Adds a commit to a branch, if the branch is still where it is expected.
    async fn commit(&self, change: Change) -> Result<CommitSha>;

    /// The commits of a branch, newest first, of one path only where one is given.
    fn history(
        &self,
        repository: &RepoSlug,
        branch: &BranchName,
        path: Option<String>,
    ) -> BoxStream<'static, Result<Commit>>;

    /// Writes news of a build onto a commit.
    async fn report(&self, report: Report) -> Result<()>;

    /// The news that a commit carries, the latest of each context.
    async fn reports(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<Report>>;
}

/// How one commit stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ancestry {
    /// They are the same commit.
    Identical,
    /// The head contains the base, and more.
    Ahead,
    /// The base contains the head, and more.
    Behind,
    /// Each has commits that the other lacks.
    Diverged,
}

impl Ancestry {
    /// Whether the head contains the base.
    pub fn contains_base(self) -> bool {
        matches!(self, Self::Identical | Self::Ahead)
    }
}

/// The pull requests that brought a commit in, with what their reviewers said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// The commit asked about.
    pub commit: CommitSha,
    /// Every merged pull request that brought it in.
    pub pull_requests: Vec<PullRequest>,
}

/// One merged pull request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Its number in the repository.
    pub number: u64,
    /// Where people see it.
    pub url: Option<Url>,
    /// Who opened it.
    pub author: String,
    /// The last commit of its branch: what was merged.
    pub head: CommitSha,
    /// The latest verdict of each reviewer.
    pub verdicts: Vec<ReviewVerdict>,
}

/// What a reviewer said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewVerdict {
    /// The reviewer.
    pub by: String,
    /// What they said.
    pub state: ReviewState,
    /// The commit they said it of, where the service still knows.
    pub commit: Option<CommitSha>,
    /// When.
    pub at: Option<Timestamp>,
}

/// A verdict on a pull request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReviewState {
    /// Yes.
    Approved,
    /// No, not like this.
    ChangesRequested,
    /// Taken back: neither yes nor no.
    Dismissed,
    /// A word of the service that this version does not know. It is never a yes.
    Other(String),
}

impl PullRequest {
    /// Who approved exactly what was merged: approvals of an older commit and the author's own do not count.
    pub fn approvers(&self) -> Vec<&str> {
        self.verdicts
            .iter()
            .filter(|verdict| {
                verdict.state == ReviewState::Approved
                    && verdict.commit.as_ref() == Some(&self.head)
                    && !verdict.by.eq_ignore_ascii_case(&self.author)
            })
            .map(|verdict| verdict.by.as_str())
            .collect()
    }

    /// Who asked for changes and has not taken it back.
    pub fn objectors(&self) -> Vec<&str> {
        let objecting = |verdict: &&ReviewVerdict| verdict.state == ReviewState::ChangesRequested;
        self.verdicts
            .iter()
            .filter(objecting)
            .map(|verdict| verdict.by.as_str())
            .collect()
    }
}

/// A commit to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The repository.
    pub repository: RepoSlug,
    /// The branch that moves.
    pub branch: BranchName,
    /// Where the branch must still be.
    pub expected_head: CommitSha,
    /// New contents by path; `None` deletes the file.
    pub files: BTreeMap<String, Option<Vec<u8>>>,
    /// The commit message, trailers included.
    pub message: String,
}

/// A commit that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its name.
    pub sha: CommitSha,
    /// Its message, trailers included.
    pub message: String,
    /// When it was committed.
    pub at: Option<Timestamp>,
}

impl Commit {
    /// The value of a trailer such as `Source-Commit: …` in the message's last paragraph; the last one wins.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        let (_, last) = self.message.trim_end().rsplit_once("\n\n")?;
        last.lines().rev().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// News of a build, as a commit carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The repository.
    pub repository: RepoSlug,
    /// The commit the news is about.
    pub commit: CommitSha,
    /// What kind of news, such as `towpath/image`. A commit has one report per context.
    pub context: String,
    /// How it stands.
    pub state: ReportState,
    /// One line for people; services cut it at 140 characters.
    pub description: String,
    /// Where to read more.
    pub url: Option<Url>,
}

/// How a build stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// Still going.
    Pending,
    /// Done, and good.
    Success,
    /// Done, and not good.
    Failure,
    /// It could not be done.
    Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approval_of_an_older_commit_or_by_the_author_does_not_count() {
        let head: CommitSha = "1".repeat(40).parse().unwrap();
        let older: CommitSha = "2".repeat(40).parse().unwrap();
        let verdict = |by: &str, state, commit: &CommitSha| ReviewVerdict {
            by: by.into(),
            state,
            commit: Some(commit.clone()),
            at: None,
        };
        let pull = PullRequest {
            number: 1,
            url: None,
            author: "ann".into(),
            head: head.clone(),
            verdicts: vec![
                verdict("Ann", ReviewState::Approved, &head),
                verdict("bob", ReviewState::Approved, &older),
                verdict("cy", ReviewState::Approved, &head),
                verdict("di", ReviewState::ChangesRequested, &older),
                verdict("ed", ReviewState::Other("MAYBE".into()), &head),
            ],
        };
        assert_eq!(pull.approvers(), ["cy"]);
        assert_eq!(pull.objectors(), ["di"]);
    }

    #[test]
    fn trailers_are_read_from_the_last_paragraph() {
        let commit = Commit {
            sha: "1".repeat(40).parse().unwrap(),
            message: "Promote\n\nBuild-Id: not this\n\nBuild-Id: 7\nImage-Digest: sha256:ab\n".into(),
            at: None,
        };
        assert_eq!(commit.trailer("build-id"), Some("7"));
        assert_eq!(commit.trailer("Image-Digest"), Some("sha256:ab"));
        assert_eq!(commit.trailer("Other"), None);
    }
}
