//! From the start of a program to its first answer, and the memory it then has: the lab beside `moto_server`.
//!
//! The lab starts all of its services; moto_server loads a service when it is first asked for. Both are asked the same,
//! ECR's `DescribeRepositories`, by the same SDK client.

use crate::Result;
use crate::child::Running;
use crate::report::{header, mebibytes, median, milliseconds, row, text};
use aws_sdk_ecr::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use towpath_lab::Lab;

/// How long any server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(1);

/// One start of a program.
struct Start {
    answered: Duration,
    resident_kib: u64,
}

pub(crate) async fn compare(starts: usize) -> Result<()> {
    let moto = moto_server()?;
    let program = build_the_lab()?;
    let folder = tempfile::tempdir()?;
    let mut in_process = Vec::new();
    let (mut ready, mut lab, mut moto_starts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..starts {
        let began = Instant::now();
        let started = Lab::start().await?;
        in_process.push(began.elapsed());
        drop(started);
        let (up, start) = lab_program(&program, folder.path()).await?;
        ready.push(up);
        lab.push(start);
        moto_starts.push(moto_program(&moto).await?);
    }
    let answered = |starts: &[Start]| median(starts.iter().map(|start| start.answered).collect());
    let resident = |starts: &[Start]| median(starts.iter().map(|start| start.resident_kib).collect());
    text(&format!("Start-up, median of {starts}, {} build\n", profile()));
    header(["", "towpath-lab", "moto_server", "lab / moto_server"]);
    let (ours, theirs) = (answered(&lab), answered(&moto_starts));
    let times = crate::report::ratio(ours, theirs);
    row([
        "program start to first answer",
        &milliseconds(ours),
        &milliseconds(theirs),
        &times,
    ]);
    let (ours, theirs) = (resident(&lab), resident(&moto_starts));
    #[expect(clippy::cast_precision_loss, reason = "sizes of programs fit")]
    let times = format!("{:.3}", ours as f64 / theirs as f64);
    row([
        "resident memory then",
        &mebibytes(ours),
        &mebibytes(theirs),
        &times,
    ]);
    row([
        "program start to environment file",
        &milliseconds(median(ready)),
        "",
        "",
    ]);
    row([
        "`Lab::start()` in process",
        &milliseconds(median(in_process)),
        "",
        "",
    ]);
    text("");
    Ok(())
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    }
}

/// The workspace: this package's folder is two below it.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What `tests/compare/install` has installed.
fn moto_server() -> Result<PathBuf> {
    let path = workspace().join("target/compare/venv/bin/moto_server");
    match path.is_file() {
        true => Ok(path),
        false => Err("moto_server is not installed; run tests/compare/install first".into()),
    }
}

/// The lab's program in the profile of this one.
fn build_the_lab() -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Built together with this package, it has the same features of everything below, and nothing is built twice.
    cargo
        .args(["build", "--quiet", "--bin", "towpath-lab"])
        .args(["--package", "towpath-lab", "--package", env!("CARGO_PKG_NAME")])
        .current_dir(workspace());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    if !cargo.status()?.success() {
        return Err("the lab does not build".into());
    }
    let own = std::env::current_exe()?;
    Ok(own.with_file_name("towpath-lab"))
}

async fn lab_program(program: &Path, folder: &Path) -> Result<(Duration, Start)> {
    let file = folder.join("lab.env");
    let _ = std::fs::remove_file(&file);
    let began = Instant::now();
    let running = Running::start(Command::new(program).arg("serve").arg("--env-file").arg(&file))?;
    let environment = loop {
        match std::fs::read_to_string(&file) {
            Ok(environment) => break environment,
            Err(_) if began.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(format!("the lab has not come up: {error}").into()),
        }
    };
    let up = began.elapsed();
    let value = |key: &str| {
        let line = environment
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(ToOwned::to_owned)
            .ok_or(format!("the lab's environment has no {key}"))
    };
    let client = client(
        &value("AWS_ENDPOINT_URL_ECR")?,
        &value("AWS_REGION")?,
        &value("AWS_ACCESS_KEY_ID")?,
        &value("AWS_SECRET_ACCESS_KEY")?,
    );
    let answered = first_answer(&client, began).await?;
    Ok((
        up,
        Start {
            answered,
            resident_kib: running.resident_kib()?,
        },
    ))
}

async fn moto_program(program: &Path) -> Result<Start> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let began = Instant::now();
    let running = Running::start(Command::new(program).args(["-H", "127.0.0.1", "-p", &port.to_string()]))?;
    let client = client(
        &format!("http://127.0.0.1:{port}"),
        "eu-west-1",
        "AKIAEXAMPLE",
        "example",
    );
    let answered = first_answer(&client, began).await?;
    Ok(Start {
        answered,
        resident_kib: running.resident_kib()?,
    })
}

async fn first_answer(client: &aws_sdk_ecr::Client, began: Instant) -> Result<Duration> {
    loop {
        match client.describe_repositories().send().await {
            Ok(_) => return Ok(began.elapsed()),
            Err(_) if began.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(format!("no answer within a minute: {error:?}").into()),
        }
    }
}

/// A bare SDK client that does not retry: the loop above does.
fn client(endpoint: &str, region: &str, key: &str, secret: &str) -> aws_sdk_ecr::Client {
    let config = aws_sdk_ecr::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .retry_config(RetryConfig::disabled())
        .endpoint_url(endpoint)
        .region(Region::new(region.to_owned()))
        .credentials_provider(Credentials::new(key, secret, None, None, "compare"))
        .build();
    aws_sdk_ecr::Client::from_conf(config)
}
