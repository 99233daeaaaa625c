//! Images on disk: layouts and archives as sources and sinks, between each other and a registry of the lab, and bytes
//! that are meant to do harm.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod docker;
mod hostile;
mod layouts;
mod made;
mod peers;
mod places;
#[path = "../support/mod.rs"]
mod support;
mod tars;
