//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Takes a reviewed commit through steps 1 to 13: pull request, CI, registry, Argo CD and Spacelift, all on this machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "whole-path", version)]
pub struct Args {
    /// Confirm every plan without asking.
    #[arg(long)]
    pub yes: bool,
    /// Print the run record on the standard output when the path is done.
    #[arg(long)]
    pub json: bool,
    /// Build this crate instead of the sample library.
    #[arg(long, value_name = "DIR")]
    pub library: Option<PathBuf>,
    /// Put these files into the image instead of the sample service.
    #[arg(long, value_name = "DIR")]
    pub service: Option<PathBuf>,
    /// Apply this Terraform instead of the sample infrastructure.
    #[arg(long, value_name = "DIR")]
    pub infra: Option<PathBuf>,
    /// Leave the lab up when the path is done, and say how to reach it.
    #[arg(long)]
    pub keep: bool,
    /// Let something fail, and see what a user sees.
    #[arg(long, value_name = "NAME")]
    pub fail: Option<Fault>,
    /// What runs inside CI.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program does besides taking the path.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// The step inside GitHub Actions: builds what is checked out in the workspace.
    #[command(hide = true)]
    Ci,
}

/// A failure that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// The registry's scan finds a critical weakness.
    ScanCritical,
    /// Argo CD never sees the commit.
    ArgocdBlind,
    /// The human says no to the plan.
    PlanRejected,
    /// The registry throttles every upload.
    RegistryThrottles,
    /// The library does not compile.
    CiFails,
}
