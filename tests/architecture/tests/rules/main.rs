//! The rules of `docs/architecture.md`, as tests. Each says what to do when it fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod dependencies;
mod documents;
mod sources;
mod workspace;
