//! CodeArtifact at the wire: signed requests as an SDK sends them, and real cargo.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod api;
mod caller;
mod cargo;
