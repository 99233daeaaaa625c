#![doc = include_str!("../README.md")]
// The JSON objects of GitHub have more fields than a macro may nest by default.
#![recursion_limit = "512"]

pub mod actions;
pub mod argocd;
pub mod codeartifact;
pub mod ecr;
mod error;
mod faults;
pub mod github;
mod server;
pub mod spacelift;

pub use error::LabError;
pub use faults::{Fault, Faults};
pub use server::{RequestLog, Seen};
