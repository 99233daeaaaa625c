#![doc = include_str!("../README.md")]

mod assemble;
mod batch;
mod cache;
mod client;
mod config;
mod differences;
mod doctor;
mod element;
mod error;
mod image_status;
mod images;
mod json;
mod lifecycle;
mod lifecycle_rules;
pub mod oci;
mod paced;
mod pacing;
mod pages;
mod platform;
mod policy;
mod registry_settings;
mod repositories;
mod scanning;
mod templates;
mod token;
mod unreferenced;
mod waiting;

pub use assemble::source_date_epoch;
pub use batch::{Batch, BatchFailure, FailureCode, ImageManifest, LayerAvailability, LayerState};
pub use cache::{
    CacheProblem, CacheRule, CacheRules, CredentialFault, EnsuredRule, RuleChange, RuleCredentials,
    RuleValidity, Upstream, UpstreamNeeds, Verification, Verify, WantedRule, WarmOptions, Warmed,
};
pub use client::Ecr;
pub use config::EcrConfig;
pub use differences::{Difference, Differences, Reconciled};
pub use doctor::{Checked, Diagnosis, Observation, Outcome};
pub use image_status::{Progress, Replication, Signing};
pub use images::{
    Described, ImageFilter, ImageId, ImageKey, ImageStatus, Referrer, ReferrerFilter, StoredImage,
};
pub use jiff::Timestamp;
pub use lifecycle::{LifecycleMatch, LifecyclePolicy, LifecyclePreview, StoredLifecyclePolicy};
pub use lifecycle_rules::{
    LifecycleAction, LifecycleDue, LifecycleRule, LifecycleRuleBuilder, LifecycleSelection,
};
pub use pacing::{Pacing, Rate};
pub use policy::PolicyDocument;
pub use registry_settings::{
    AccountSetting, ReplicationConfiguration, ReplicationDestination, ReplicationRule, SigningConfiguration,
    SigningRule,
};
pub use repositories::{
    DeleteRepository, Encryption, KmsKey, RepositoryDetail, RepositorySettings, TagMutability,
};
pub use scanning::{ScanFrequency, ScanRule, ScanSettings, ScanningConfiguration};
pub use templates::{AppliedFor, CreationTemplate};
pub use towpath_core::{
    AccountId, Cancellation, Digest, ImageRef, ParseError, Region, RegistryHost, RepositoryName, Retry,
    Secret, Tag, requests, wait,
};
pub use towpath_elements::registry;
pub use towpath_elements::{BoxError, Error, ErrorKind, Registry, RegistryExt, Result};
pub use url::Url;
