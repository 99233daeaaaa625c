#![doc = include_str!("../README.md")]

mod access;
mod client;
mod config;
mod crate_file;
mod element;
mod error;
mod generic;
mod manifest;
mod publish;
mod registry;
mod transport;

pub use aws_sdk_codeartifact as sdk;
pub use client::CodeArtifact;
pub use config::CodeArtifactConfig;
pub use towpath_core::{
    ArtifactDomain, ArtifactRepository, Digest, PackageFormat, PackageId, PackageVersion, Region, Secret,
    wait,
};
pub use towpath_elements::artifacts::{Access, Asset, Publication, StoredVersion, VersionStatus};
pub use towpath_elements::{Artifacts, Error, ErrorKind, Result};
