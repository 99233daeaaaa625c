//! Towpath beside outside tools: both sides of each figure come from one run, and are printed with their ratio.
//!
//! ```sh
//! tests/compare/install          # once: moto_server, for `lab-start`; docker-registry, for `registry`
//! cargo run --release -p towpath-tests-compare -- all
//! ```

mod calls;
mod child;
mod lab_start;
mod listing;
mod registry;
mod report;
mod waits;

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
    /// How many applications are waited for at once, each number in a lab of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,100,2000")]
    applications: Vec<usize>,
    /// What a program of its own is told.
    #[arg(hide = true)]
    words: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum What {
    /// The lab's start beside moto_server's.
    LabStart,
    /// One call of each client beside the same request made by hand.
    Calls,
    /// Copies between registries beside skopeo.
    Registry,
    /// Listing images of the lab beside a bare SDK loop.
    Listing,
    /// Waits for Argo CD beside other rules.
    Waits,
    /// All of it.
    All,
    /// One listing by the bare SDK, in a program of its own.
    #[value(hide = true)]
    ListBare,
    /// The same by Towpath.
    #[value(hide = true)]
    ListImages,
    /// Waits for applications in a program of its own, in each of the ways.
    #[value(hide = true)]
    WaitTowpath,
    /// By looking every second.
    #[value(hide = true)]
    WaitPolling,
    /// By a stream for each application.
    #[value(hide = true)]
    WaitStreaming,
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
    match (args.what, args.words.as_slice()) {
        (What::CopyImage, [from, to]) => return registry::copy_image(from, to).await,
        (What::ListBare, [endpoint, images]) => return listing::list(true, endpoint, images).await,
        (What::ListImages, [endpoint, images]) => return listing::list(false, endpoint, images).await,
        (What::WaitTowpath, words) => return waits::wait("wait-towpath", words).await,
        (What::WaitPolling, words) => return waits::wait("wait-polling", words).await,
        (What::WaitStreaming, words) => return waits::wait("wait-streaming", words).await,
        _ => {}
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
    if wanted(What::Listing) {
        listing::compare(args.copies).await?;
    }
    if wanted(What::Waits) {
        waits::compare(&args.applications).await?;
    }
    Ok(())
}
