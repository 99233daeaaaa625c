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
mod lab;
mod server;
mod sigv4;
pub mod spacelift;

pub use error::LabError;
pub use faults::{Fault, Faults};
pub use lab::{AUTHOR, Lab, LabConfig, ORGANIZATION, REVIEWER};
pub use server::{RequestLog, Seen};
