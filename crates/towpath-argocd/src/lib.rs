#![doc = include_str!("../README.md")]

mod accounts;
mod application_sets;
mod applications;
mod capabilities;
mod children;
mod client;
mod config;
mod element;
mod error;
mod evidence;
mod exchange;
mod hub;
mod images;
pub mod judge;
mod logs;
mod operations;
mod projects;
mod resources;
mod rollback;
mod session;
mod sync;
mod token;
mod wait;
mod watch;
pub mod wire;

pub use application_sets::{ApplicationSetFilter, ApplicationSetOptions};
pub use applications::{CreateOptions, Deletion, ListFilter, Refresh};
pub use capabilities::{Capabilities, Feature};
pub use client::ArgoCd;
pub use config::{ArgoCdBuilder, Login, Trigger, WaitPolicy};
pub use error::ApiError;
pub use evidence::ImageEvidence;
pub use exchange::TokenExchange;
pub use images::image_id_digest;
pub use logs::{LogLine, LogRequest};
pub use resources::ManifestsRequest;
pub use rollback::PausedAutoSync;
pub use sync::{Strategy, SyncRequest, SyncResource};
pub use token::TokenClaims;
pub use wait::{Backend, Change, Changes, FailingPod, Progress, Waiter};
pub use watch::{WatchEvent, WatchFilter};

pub use towpath_core::{Application, ApplicationName, Cancellation, CommitSha, Digest, ImageRef, Secret};
pub use towpath_elements::delivery::{
    Delivery, DeliveryOutcome, DeliveryReport, DeliveryStatus, Expected, HealthState, RevisionOracle,
    RunningImage, SyncState,
};
pub use towpath_elements::{Error, ErrorKind, Result};
pub use towpath_http::RetryPolicy;
