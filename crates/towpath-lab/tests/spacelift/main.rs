//! The lab's Spacelift over plain HTTP: GraphQL documents as text, real git, real plans.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod api;
mod outgoing;
mod runs;
mod support;
