//! Programs that are started, and what they cost.

use crate::Result;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a program is looked at: the resolution of all times of whole programs.
const LOOK: Duration = Duration::from_millis(1);
/// The kernel counts processor time in hundredths of a second (`USER_HZ`).
const TICKS: f64 = 100.0;

/// A program that ends when this is dropped.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        Self::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Starts a program whose output goes to a file.
    pub(crate) fn logging(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        Self::spawn(command.stdout(log.try_clone()?).stderr(log))
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        Ok(Self(command.stdin(Stdio::null()).spawn()?))
    }

    pub(crate) fn resident_kib(&self) -> Result<u64> {
        self.status("VmRSS:")?.ok_or_else(|| "no VmRSS in /proc".into())
    }

    /// A figure of `/proc/PID/status`; `None` once the program has ended.
    fn status(&self, field: &str) -> Result<Option<u64>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        match line.and_then(|line| line.split_whitespace().next()) {
            Some(number) => Ok(Some(number.parse()?)),
            None => Ok(None),
        }
    }

    /// Whether the program has ended, and the processor time it has used.
    fn state(&self) -> Result<(bool, Duration)> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name of the program stands in parentheses and may hold anything.
        let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/PID/stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |at: usize| -> Result<u64> { Ok(fields.get(at).ok_or("too few fields")?.parse()?) };
        #[expect(clippy::cast_precision_loss, reason = "a program does not run for so long")]
        let seconds = (ticks(11)? + ticks(12)?) as f64 / TICKS;
        Ok((fields.first() == Some(&"Z"), Duration::from_secs_f64(seconds)))
    }
}

/// What one run of a program took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    pub(crate) processor: Duration,
    pub(crate) peak_kib: u64,
}

/// Runs a program to its end. The kernel keeps the processor time until somebody waits for the program, and forgets its
/// memory at once; what memory it had is what it had a millisecond before.
pub(crate) async fn measure(command: &mut Command, log: &Path) -> Result<(bool, Cost)> {
    let began = Instant::now();
    let mut running = Running::logging(command, log)?;
    let mut cost = Cost::default();
    loop {
        let (ended, processor) = running.state()?;
        cost.wall = began.elapsed();
        cost.processor = processor;
        if ended {
            return Ok((running.0.wait()?.success(), cost));
        }
        if let Some(peak) = running.status("VmHWM:")? {
            cost.peak_kib = peak;
        }
        tokio::time::sleep(LOOK).await;
    }
}
