//! Towpath beside outside tools: both sides of each figure come from one run, and are printed with their ratio.
//!
//! ```sh
//! tests/compare/install          # once: moto_server, for `lab-start`
//! cargo run --release -p towpath-tests-compare -- all
//! ```

mod calls;
mod lab_start;
mod report;

use clap::{Parser, ValueEnum};
use std::error::Error;
use std::process::ExitCode;

/// What any step may fail with: this is a program for people, who read the message.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Compares Towpath with outside tools.
#[derive(Parser)]
#[command(name = "compare")]
struct Args {
    /// What to compare.
    #[arg(value_enum)]
    what: What,
    /// How often each call is made.
    #[arg(long, default_value_t = 400)]
    rounds: usize,
    /// How often each server is started.
    #[arg(long, default_value_t = 20)]
    starts: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum What {
    /// The lab's start beside moto_server's.
    LabStart,
    /// One call of each client beside the same request made by hand.
    Calls,
    /// Both.
    All,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&format!("compare: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    if args.what != What::Calls {
        lab_start::compare(args.starts).await?;
    }
    if args.what != What::LabStart {
        calls::compare(args.rounds).await?;
    }
    Ok(())
}
