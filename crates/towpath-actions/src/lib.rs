#![doc = include_str!("../README.md")]

mod annotation;
mod command;
mod context;
mod environment;
mod error;
mod file;
mod inputs;
#[cfg(feature = "oidc")]
mod oidc;
mod step;

pub use annotation::Annotation;
pub use context::Context;
pub use environment::Environment;
pub use error::{Error, Result};
#[cfg(feature = "oidc")]
pub use oidc::IdTokenPolicy;
pub use step::{Group, SUMMARY_LIMIT, Step, StoppedCommands};
pub use towpath_core::{BranchName, CiRunId, CommitSha, RepoSlug, Secret};
