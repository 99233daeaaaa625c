//! Users, repositories, branches and commits.

use super::words;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_core::CommitSha;
use url::Url;

/// What the server says about itself (`GET /meta`).
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Meta {
    /// The version of GitHub Enterprise Server, such as `3.19.1`; github.com has none.
    pub installed_version: Option<String>,
}

/// A user, an organisation or a bot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// The name it signs in with.
    pub login: String,
    /// Its number.
    #[serde(default)]
    pub id: u64,
    /// `User`, `Organization` or `Bot`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Repository {
    /// Its number, which survives a rename.
    #[serde(default)]
    pub id: u64,
    /// `owner/name`.
    pub full_name: String,
    /// Whether only some may see it.
    #[serde(default)]
    pub private: bool,
    /// The branch that pull requests go to.
    pub default_branch: Option<String>,
    /// The HTTPS address for git.
    pub clone_url: Option<String>,
    /// Where people see it.
    pub html_url: Option<Url>,
    /// Whether it is read-only.
    #[serde(default)]
    pub archived: bool,
}

/// A repository to be created.
#[derive(Clone, Debug, Serialize)]
pub struct NewRepository {
    /// Its name within its owner.
    pub name: String,
    /// One line about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether only some may see it.
    pub private: bool,
    /// Whether it starts with a commit that holds a README; without one it has no branch.
    pub auto_init: bool,
}

impl NewRepository {
    /// A private, empty repository.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: None,
            private: true,
            auto_init: false,
        }
    }
}

/// A branch.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Branch {
    /// Its short name.
    pub name: String,
    /// Where it points.
    pub commit: BranchHead,
    /// Whether rules guard it.
    #[serde(default)]
    pub protected: bool,
}

/// Where a branch points.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct BranchHead {
    /// The commit.
    pub sha: CommitSha,
}

/// A commit, as the repository API shows it.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Commit {
    /// Its name.
    pub sha: CommitSha,
    /// What git keeps of it.
    pub commit: CommitDetail,
    /// The commits before it.
    #[serde(default)]
    pub parents: Vec<BranchHead>,
    /// The account of its author, where the address belongs to one.
    pub author: Option<User>,
    /// Where people see it.
    pub html_url: Option<Url>,
}

/// What git keeps of a commit.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct CommitDetail {
    /// Its message.
    #[serde(default)]
    pub message: String,
    /// Who wrote it.
    pub author: Option<Signature>,
    /// Who committed it.
    pub committer: Option<Signature>,
}

/// Who, and when.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Signature {
    /// The name.
    pub name: Option<String>,
    /// The address.
    pub email: Option<String>,
    /// The time.
    pub date: Option<Timestamp>,
}

words! {
    /// How one commit stands to another.
    ComparisonStatus {
        /// The same commit.
        Identical = "identical",
        /// The head contains the base.
        Ahead = "ahead",
        /// The base contains the head.
        Behind = "behind",
        /// Neither contains the other.
        Diverged = "diverged",
    }
}

/// Two commits beside each other.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Comparison {
    /// How the head stands to the base.
    pub status: ComparisonStatus,
    /// How many commits the head has that the base lacks.
    #[serde(default)]
    pub ahead_by: u64,
    /// How many commits the base has that the head lacks.
    #[serde(default)]
    pub behind_by: u64,
}

/// Any object whose name is all that matters.
#[derive(Debug, Deserialize)]
pub(crate) struct Sha {
    pub(crate) sha: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GitRef {
    pub(crate) object: GitObject,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GitObject {
    pub(crate) sha: CommitSha,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GitCommit {
    pub(crate) sha: CommitSha,
    pub(crate) tree: Sha,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GitTree {
    #[serde(default)]
    pub(crate) tree: Vec<GitTreeEntry>,
    #[serde(default)]
    pub(crate) truncated: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct GitTreeEntry {
    pub(crate) path: String,
    pub(crate) mode: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) sha: Option<String>,
}
