//! The races of a wait, each brought about at the lab's Argo CD: what is on the wire would fool a naive waiter, and the wait
//! says *live* only when the cluster really runs what is expected. The cluster itself is asked, not the API.
//!
//! No test depends on how fast the machine is: what has to pass in time passes on the lab's clock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../lab_world/mod.rs"]
mod lab_world;
mod open;
mod operation;
mod revision;
mod schedules;
mod server;
mod sources;
mod wire;
