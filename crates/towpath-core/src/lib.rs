#![doc = include_str!("../README.md")]

mod commit;
mod deadline;
mod digest;
mod ecr_host;
mod image;
mod names;
mod package;
mod parse;
mod repo;
pub mod requests;
mod retry;
mod secret;
pub mod wait;

pub use commit::{BranchName, CommitSha, HashKind};
pub use deadline::{Cancellation, Deadline};
pub use digest::{Digest, Hasher};
pub use ecr_host::{EcrHost, Partition};
pub use image::{ImageRef, RegistryHost, RepositoryName, Tag};
pub use names::{
    AccountId, Application, ApplicationName, ArtifactDomain, ArtifactRepository, CiRunId, Region, RunId,
    StackId,
};
pub use package::{PackageFormat, PackageId, PackageVersion};
pub use parse::ParseError;
pub use repo::RepoSlug;
pub use retry::Retry;
pub use secret::Secret;
