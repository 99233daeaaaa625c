#![doc = include_str!("../README.md")]

mod assemble;
mod client;
mod config;
mod element;
mod error;
mod import;
mod json;
pub mod oci;
mod platform;
mod rules;
mod scanning;
mod token;

pub use client::Ecr;
pub use config::EcrConfig;
pub use rules::CacheRule;
pub use scanning::ManifestScan;
pub use towpath_core::{
    Cancellation, Digest, ImageRef, Region, RegistryHost, RepositoryName, Secret, Tag, wait,
};
pub use towpath_elements::registry;
pub use towpath_elements::{Error, ErrorKind, Registry, RegistryExt, Result};
