//! The lab as a program: serves until it is interrupted, and says in a file how to reach it.

use clap::{Parser, Subcommand};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use towpath_lab::{Lab, LabConfig, LabError};

/// Every outside service of a delivery on loopback, in one process.
#[derive(Parser)]
#[command(name = "towpath-lab", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts every service and serves until SIGINT or SIGTERM.
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    /// Where to write `KEY=value` lines once every service is up. The file holds secrets of the lab: only its owner may
    /// read it.
    #[arg(long, value_name = "FILE")]
    env_file: PathBuf,
    /// The port of ECR's JSON API; any free one where nothing is said. The same goes for the other ports.
    #[arg(long, default_value_t = 0)]
    ecr_port: u16,
    /// The port of ECR's `/v2/`.
    #[arg(long, default_value_t = 0)]
    registry_port: u16,
    /// The port of the ECR public gallery.
    #[arg(long, default_value_t = 0)]
    ecr_public_port: u16,
    /// The port of Quay.io.
    #[arg(long, default_value_t = 0)]
    quay_port: u16,
    /// The port of CodeArtifact's API.
    #[arg(long, default_value_t = 0)]
    codeartifact_port: u16,
    /// The port of CodeArtifact's package endpoints.
    #[arg(long, default_value_t = 0)]
    packages_port: u16,
    /// The port of GitHub, its API and git.
    #[arg(long, default_value_t = 0)]
    github_port: u16,
    /// The port of Argo CD.
    #[arg(long, default_value_t = 0)]
    argocd_port: u16,
    /// The port of Spacelift.
    #[arg(long, default_value_t = 0)]
    spacelift_port: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args {
        command: Command::Serve(serve),
    } = Args::parse();
    match run(serve).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("towpath-lab: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(serve: Serve) -> Result<(), LabError> {
    let mut config = LabConfig::default();
    config.ecr.api_port = serve.ecr_port;
    config.ecr.registry_port = serve.registry_port;
    config.ecr_public_port = serve.ecr_public_port;
    config.quay_port = serve.quay_port;
    config.codeartifact.api_port = serve.codeartifact_port;
    config.codeartifact.packages_port = serve.packages_port;
    config.github.port = serve.github_port;
    config.argocd.port = serve.argocd_port;
    config.spacelift.port = serve.spacelift_port;
    let lab = Lab::with(config).await?;
    write_environment(&serve.env_file, &lab)?;
    say(&format!(
        "the lab is up; {} says how to reach it; end it with Ctrl-C",
        serve.env_file.display()
    ));
    interrupted().await;
    drop(lab);
    Ok(())
}

/// Writes beside the file and moves it there, so that whoever waits for the file never reads half of it.
fn write_environment(path: &Path, lab: &Lab) -> Result<(), LabError> {
    let failed = |action| {
        move |source| LabError::File {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let mut text = String::new();
    for (key, value) in lab.environment() {
        let _ = writeln!(text, "{key}={value}");
    }
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // A temporary file can be read by its owner only, and stays so when it is moved.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed("write"))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed("write"))?;
    file.persist(path).map_err(|error| failed("write")(error.error))?;
    Ok(())
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let ctrl_c = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = ctrl_c => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = ctrl_c.await;
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program speaks to whoever started it")]
fn say(text: &str) {
    eprintln!("{text}");
}
