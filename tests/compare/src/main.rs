//! Towpath beside outside tools: both sides of each figure come from one run, and are printed with their ratio.
//!
//! ```sh
//! tests/compare/install          # once: moto_server, for `lab-start`; docker-registry, for `registry`
//! cargo run --release -p towpath-tests-compare -- all
//! ```

mod calls;
mod child;
mod lab_start;
mod registry;
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
    /// How often each image is copied.
    #[arg(long, default_value_t = 5)]
    copies: usize,
    /// What `copy-image` copies, and where to.
    #[arg(hide = true)]
    images: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum What {
    /// The lab's start beside moto_server's.
    LabStart,
    /// One call of each client beside the same request made by hand.
    Calls,
    /// Copies between registries beside skopeo.
    Registry,
    /// All of it.
    All,
    /// One copy, as `registry` measures it in a program of its own.
    #[value(hide = true)]
    CopyImage,
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
    if let What::CopyImage = args.what {
        let [from, to] = args.images.as_slice() else {
            return Err("copy-image takes two images".into());
        };
        return registry::copy_image(from, to).await;
    }
    let wanted = |what| args.what == what || args.what == What::All;
    if wanted(What::LabStart) {
        lab_start::compare(args.starts).await?;
    }
    if wanted(What::Calls) {
        calls::compare(args.rounds).await?;
    }
    if wanted(What::Registry) {
        registry::compare(args.copies).await?;
    }
    Ok(())
}
