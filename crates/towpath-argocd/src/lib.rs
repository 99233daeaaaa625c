#![doc = include_str!("../README.md")]

mod applications;
mod client;
mod config;
mod element;
mod error;
mod evidence;
mod hub;
mod images;
pub mod judge;
mod session;
mod sync;
mod wait;
mod watch;
pub mod wire;

pub use applications::{Deletion, ListFilter, Refresh};
pub use client::ArgoCd;
pub use config::{ArgoCdBuilder, Login, Trigger, WaitPolicy};
pub use error::ApiError;
pub use evidence::ImageEvidence;
pub use images::image_id_digest;
pub use sync::{Strategy, SyncRequest, SyncResource};
pub use wait::{Backend, Change, Changes, Progress, Waiter};
pub use watch::{WatchEvent, WatchFilter};

pub use towpath_core::{Application, ApplicationName, Cancellation, CommitSha, Digest, ImageRef, Secret};
pub use towpath_elements::delivery::{
    Delivery, DeliveryOutcome, DeliveryReport, DeliveryStatus, Expected, HealthState, RevisionOracle,
    RunningImage, SyncState,
};
pub use towpath_elements::{Error, ErrorKind, Result};
pub use towpath_http::RetryPolicy;
