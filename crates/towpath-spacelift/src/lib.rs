#![doc = include_str!("../README.md")]

mod client;
mod config;
mod credentials;
mod documents;
mod element;
mod logs;
pub mod model;
mod reply;
mod runs;
mod stacks;
mod wire;

pub use client::Spacelift;
pub use config::SpaceliftBuilder;
pub use credentials::{EnvSecret, SecretFn, SecretSource};
pub use runs::RunRequest;
pub use stacks::StackSearch;

pub use towpath_core::{CommitSha, Digest, RunId, Secret, StackId};
pub use towpath_elements::infrastructure::{
    ChangeCounts, Confirmation, Infrastructure, InfrastructureExt, Plan, PlannedChange, Run, RunState, Stack,
};
pub use towpath_elements::{Error, ErrorKind, Result};
pub use towpath_http::RetryPolicy;
