//! What the tests of the flows share: a world that is set up like a small company's, a toolchain that needs no compiler,
//! and a journal that crashes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of this is for tests, which fail by panicking"
)]

mod company;
mod crashing;
mod toolchain;

pub use company::{Company, Inputs, Says, at_rest, effects, main_branch};
pub use crashing::{Crash, CrashingJournal};
pub use toolchain::Pretend;
