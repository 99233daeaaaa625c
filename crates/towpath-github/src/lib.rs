#![doc = include_str!("../README.md")]

mod actions;
mod auth;
mod checks;
mod client;
mod commit;
mod config;
mod connection;
mod element;
mod element_ci;
mod error;
mod hooks;
mod page;
mod pulls;
mod remote;
mod review;
pub mod webhook;
pub mod wire;

pub use checks::Verdict;
pub use client::GitHub;
pub use config::{AppInstallation, Credential, GitHubConfig};

pub use towpath_core::{BranchName, Cancellation, CiRunId, CommitSha, RepoSlug, Retry, Secret};
pub use towpath_elements::{Ci, CiExt, Error, ErrorKind, Result, RevisionOracle, Source, ci, source};
pub use towpath_http::RetryPolicy;
