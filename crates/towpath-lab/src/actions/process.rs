//! Processes of a step: each in a process group of its own, which ends as a whole when the step ends, is cancelled,
//! takes too long, or the lab is dropped.

use rustix::process::{Pid, Signal, kill_process_group};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this exit code; 128 and the signal's number where a signal ended it.
    Code(i32),
    Cancelled,
    TimedOut,
}

/// One process to run.
#[derive(Debug)]
pub(crate) struct Process<'a> {
    pub(crate) program: &'a str,
    pub(crate) args: &'a [String],
    pub(crate) directory: &'a Path,
    pub(crate) env: &'a [(String, String)],
    pub(crate) until: Instant,
    pub(crate) cancel: &'a CancellationToken,
    /// How long a cancelled process may take to end by itself.
    pub(crate) grace: Duration,
}

struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // A group that has ended already needs no signal.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Runs a process with exactly this environment, and hands over each line that it prints.
pub(crate) async fn run(process: Process<'_>, mut on_line: impl FnMut(&str)) -> std::io::Result<Ended> {
    let mut child = Command::new(process.program)
        .args(process.args)
        .current_dir(process.directory)
        .env_clear()
        .envs(process.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = Group(
        child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw),
    );
    let (sender, mut lines) = mpsc::channel(256);
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(forward(stdout, sender.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(forward(stderr, sender.clone()));
    }
    drop(sender);
    let (mut stopping, mut kill_at) = (None, process.until);
    let mut open = true;
    let status = loop {
        tokio::select! {
            biased;
            line = lines.recv(), if open => match line {
                Some(line) => on_line(&line),
                None => open = false,
            },
            status = child.wait() => break status?,
            () = process.cancel.cancelled(), if stopping.is_none() => {
                stopping = Some(Ended::Cancelled);
                kill_at = Instant::now() + process.grace;
                group.signal(Signal::INT);
            }
            () = tokio::time::sleep_until(kill_at) => {
                stopping.get_or_insert(Ended::TimedOut);
                group.signal(Signal::KILL);
                kill_at = Instant::now() + Duration::from_secs(1);
            }
        }
    };
    drop(group);
    // Only a process that left the group can still hold the pipes open.
    while let Ok(Some(line)) = tokio::time::timeout(Duration::from_secs(5), lines.recv()).await {
        on_line(&line);
    }
    if let Some(ended) = stopping {
        return Ok(ended);
    }
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    Ok(Ended::Code(
        status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0)),
    ))
}

async fn forward(pipe: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(read) = reader.read_until(b'\n', &mut line).await {
        if read == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&line)
            .trim_end_matches(['\n', '\r'])
            .to_owned();
        if lines.send(text).await.is_err() {
            return;
        }
        line.clear();
    }
}
