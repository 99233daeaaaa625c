//! One command that takes a reviewed commit through steps 1 to 13, on this machine.
//!
//! `cargo run --example whole-path` starts a lab, pushes four sample repositories into it, and lets the flows of Towpath do
//! the rest: CI runs as a process of the lab's Actions runner, Argo CD's cluster really pulls the image, Spacelift's workers
//! really run Terraform.

mod args;
pub mod ci;
mod fault;
mod git;
pub mod live;
mod offer;
mod path;
mod project;
mod reach;
mod show;

pub use args::{Args, Command, Fault};
pub use path::{Outcome, Path, Problem};
pub use project::Projects;
pub use reach::Reach;
pub use show::main;
