#![doc = include_str!("../README.md")]

mod assemble;
mod batch;
mod client;
mod config;
mod element;
mod error;
mod images;
mod import;
mod json;
pub mod oci;
mod pages;
mod platform;
mod rules;
mod scanning;
mod token;

pub use assemble::source_date_epoch;
pub use batch::{Batch, BatchFailure, FailureCode, ImageManifest, LayerAvailability, LayerState};
pub use client::Ecr;
pub use config::EcrConfig;
pub use images::{
    Described, ImageFilter, ImageId, ImageKey, ImageStatus, Referrer, ReferrerFilter, StoredImage,
};
pub use rules::CacheRule;
pub use scanning::ManifestScan;
pub use towpath_core::{
    Cancellation, Digest, ImageRef, Region, RegistryHost, RepositoryName, Secret, Tag, wait,
};
pub use towpath_elements::registry;
pub use towpath_elements::{Error, ErrorKind, Registry, RegistryExt, Result};
