//! What GitHub's REST API sends, by its published OpenAPI descriptions (github.com and Enterprise Server 3.17 to 3.19).
//!
//! The models hold the fields that delivery needs and ignore the rest. What a server may leave out is optional, and a
//! word that this version does not know is kept, so that a newer server does not break an older client.

mod actions;
mod checks;
mod hooks;
mod pulls;
mod repos;

pub(crate) use actions::Dispatched;
pub use actions::{Job, Step, Workflow, WorkflowRun};
pub use checks::{
    CheckConclusion, CheckRun, CheckStatus, CombinedStatus, Deployment, DeploymentStatus, NewStatus, Status,
    StatusState,
};
pub use hooks::{Hook, HookConfig, HookDelivery};
pub use pulls::{
    Merge, MergeMethod, Merged, NewPullRequest, NewReview, PullRequest, PullRequestReview, PullRequestSide,
    PullRequestState, ReviewEvent, ReviewWord,
};
pub use repos::{
    Branch, BranchHead, Commit, CommitDetail, Comparison, ComparisonStatus, Meta, NewRepository, Repository,
    Signature, User,
};
pub(crate) use repos::{GitCommit, GitRef, GitTree, GitTreeEntry, Sha};

use serde::{Deserialize, Deserializer};
use towpath_core::CommitSha;

/// Reads a commit, where absent, `null` and git's all-zero name mean none.
pub(crate) fn commit_or_none<'de, D: Deserializer<'de>>(input: D) -> Result<Option<CommitSha>, D::Error> {
    match Option::<String>::deserialize(input)? {
        Some(text) if !text.bytes().all(|byte| byte == b'0') => {
            CommitSha::new(text).map(Some).map_err(serde::de::Error::custom)
        }
        _ => Ok(None),
    }
}

/// Reads a value, and its default where there is `null`.
pub(crate) fn default_on_null<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// Declares an enum of the words that GitHub uses, with a last variant for those it may use tomorrow.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A word that this version does not know.
            Other(String),
        }

        impl $name {
            /// The word as GitHub writes it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                // The API and the webhooks write some words in different cases.
                $(if word.eq_ignore_ascii_case($word) {
                    return Self::$variant;
                })+
                Self::Other(word)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                String::deserialize(input).map(Self::from)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
                output.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;
