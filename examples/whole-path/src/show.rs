//! What a person sees: progress, the question, the table at the end, and what to do when it stopped.

use crate::live::Live;
use crate::{Args, Command, Fault, Outcome, Path, Problem, Projects, ci};
use clap::Parser;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use towpath_core::Cancellation;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_flow::{
    Approver, Decision, Event, Happening, PageFacts, Question, RunRecord, StepState, page_with, table,
};
use towpath_lab::{Lab, ORGANIZATION};

/// The run stopped, and says why.
const FAILED: u8 = 1;
/// A human has to answer before it can go on.
const WAITING: u8 = 3;

/// The whole program.
pub async fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Ci) = args.command {
        return ci::main().await;
    }
    match run(&args).await {
        Ok(code) => code,
        Err(error) => {
            say(&format!("whole-path: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

async fn run(args: &Args) -> Result<ExitCode> {
    let broken = |error: towpath_lab::LabError| {
        Error::new(ErrorKind::Unavailable, "lab", "start", "the lab").caused_by(error)
    };
    let lab = Lab::start().await.map_err(broken)?;
    let projects = Projects::lay_out(args, lab.ecr().registry_host())?;
    if let Some(own) = &projects.own_library {
        crate::offer::offer_dependencies(own, &projects.library, &lab).await?;
    }
    let display = Arc::new(Display::new());
    let watcher = Arc::clone(&display);
    let live = Live::new("whole-path", move |event| watcher.show(event));
    let cancellation = Cancellation::new();
    let stop = cancellation.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    let program = std::env::current_exe().map_err(|error| {
        Error::new(ErrorKind::Invalid, "whole-path", "find", "its own program").caused_by(error)
    })?;
    let path = Path {
        lab: &lab,
        projects: &projects,
        fail: args.fail,
        program: &program,
        live: live.clone(),
        approver: Arc::new(Person {
            args: args.clone(),
            display: Arc::clone(&display),
        }),
        cancellation: cancellation.clone(),
    };
    let outcome = path.take().await?;
    display.finish();
    let record = live.record();
    let next_move = match &outcome {
        Outcome::Stopped(problems) => problems.first().map(|problem| problem.next.clone()),
        Outcome::Waiting(_) => Some("Run it again with --yes, or in a terminal to be asked.".to_owned()),
        Outcome::Complete => None,
    };
    let title = Some("A reviewed commit, steps 1 to 13".to_owned());
    let folder = write_record(
        &record,
        &PageFacts {
            title,
            next_move,
            ..PageFacts::default()
        },
    )?;
    say(&format!("\n{}", table(&record)));
    say(&format!("record  {}", folder.join("whole-path.json").display()));
    say(&format!("page    {}", folder.join("whole-path.html").display()));
    if args.json {
        print_json(&record)?;
    }
    let code = conclude(&outcome, &record);
    if args.keep && !cancellation.is_cancelled() {
        keep(&lab, &folder, &cancellation).await?;
    }
    Ok(ExitCode::from(code))
}

fn conclude(outcome: &Outcome, record: &RunRecord) -> u8 {
    match outcome {
        Outcome::Complete => 0,
        Outcome::Waiting(question) => {
            say(&format!(
                "\nA human has to decide: {question}.\nNothing was applied. There is no terminal to ask on: \
                 run it again with --yes to confirm every plan, or in a terminal to be asked."
            ));
            WAITING
        }
        Outcome::Stopped(problems) => {
            problems.iter().for_each(|problem| explain(problem, record));
            FAILED
        }
    }
}

fn explain(problem: &Problem, record: &RunRecord) {
    let place = problem.step.map_or_else(
        || "The path stopped.".to_owned(),
        |step| format!("Stopped at {step}."),
    );
    say(&format!(
        "\n{place}\n  cause     {}",
        problem.cause.replace('\n', "\n            ")
    ));
    let list = |wanted: fn(StepState) -> bool| {
        let steps: Vec<String> = record
            .steps
            .iter()
            .filter(|step| wanted(step.state))
            .map(|step| format!("{} {}", step.step.number(), step.step.title()))
            .collect();
        if steps.is_empty() {
            "nothing".to_owned()
        } else {
            steps.join(", ")
        }
    };
    say(&format!("  done      {}", list(|state| state == StepState::Done)));
    say(&format!("  not done  {}", list(|state| state != StepState::Done)));
    say(&format!("  next      {}", problem.next));
}

/// Where results go: `target/towpath` of the workspace, or of wherever cargo builds into.
fn write_record(record: &RunRecord, facts: &PageFacts) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = target.join("towpath");
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Invalid, "whole-path", "write to", folder.display()).because(error)
    };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let json = serde_json::to_vec_pretty(record).map_err(|error| failed(error.into()))?;
    std::fs::write(folder.join("whole-path.json"), json).map_err(failed)?;
    std::fs::write(folder.join("whole-path.html"), page_with(record, facts)).map_err(failed)?;
    Ok(folder)
}

fn print_json(record: &RunRecord) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Invalid, "whole-path", "print", "the record").because(error)
    };
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, record).map_err(|error| failed(error.into()))?;
    writeln!(out).map_err(failed)
}

async fn keep(lab: &Lab, folder: &std::path::Path, cancellation: &Cancellation) -> Result<()> {
    let file = folder.join("lab.env");
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Invalid, "whole-path", "write", file.display()).because(error)
    };
    let mut open = std::fs::OpenOptions::new();
    use std::os::unix::fs::OpenOptionsExt;
    let mut out = open
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&file)
        .map_err(failed)?;
    for (key, value) in lab.environment() {
        writeln!(out, "{key}={value}").map_err(failed)?;
    }
    say(&format!(
        "\nThe lab stays up until Ctrl-C.\n  keys      {}\n  try       set -a; . {}; set +a; aws ecr describe-images \
         --repository-name shop/web\n            git clone {}/{ORGANIZATION}/deploy.git (any user, password \
         $TOWPATH_LAB_GITHUB_TOKEN)",
        file.display(),
        file.display(),
        lab.github().server_url(),
    ));
    cancellation.cancelled().await;
    Ok(())
}

/// Who answers the question: the options, the failure that was asked for, or the person at the terminal.
struct Person {
    args: Args,
    display: Arc<Display>,
}

#[async_trait::async_trait]
impl Approver for Person {
    async fn decide(&self, question: &Question) -> Option<Decision> {
        if self.args.fail == Some(Fault::PlanRejected) {
            let note = Some("the network must not change this week".to_owned());
            return Some(Decision {
                approved: false,
                by: "the operator".into(),
                note,
            });
        }
        if self.args.yes {
            return Some(Decision {
                approved: true,
                by: "--yes".into(),
                note: None,
            });
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return None;
        }
        let text = format!("\n{}\n{}\n", question.text, question.details.join("\n"));
        let display = Arc::clone(&self.display);
        let answer = tokio::task::spawn_blocking(move || display.ask(&text, "Apply exactly this? [y/N] "));
        let approved = answer.await.ok()?;
        Some(Decision {
            approved,
            by: "the person at the terminal".into(),
            note: None,
        })
    }
}

/// Progress: one line for each thing that goes on where there is a terminal, plain lines where there is none.
#[derive(Debug)]
struct Display {
    bars: Option<MultiProgress>,
    open: Mutex<HashMap<(u8, String), ProgressBar>>,
    /// What happened while a question stands on the terminal: shown once it is answered, so that nothing waits for it.
    held_back: Mutex<Option<Vec<Event>>>,
}

impl Display {
    fn new() -> Self {
        let bars = std::io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self {
            bars,
            open: Mutex::default(),
            held_back: Mutex::default(),
        }
    }

    fn show(&self, event: &Event) {
        if let Some(held_back) = &mut *self.held_back.lock().unwrap_or_else(PoisonError::into_inner) {
            return held_back.push(event.clone());
        }
        self.draw(event);
    }

    fn draw(&self, event: &Event) {
        let number = event.step.number();
        let line = |mark: &str, rest: &str| format!("{mark} {number:>2}  {}{rest}", event.title);
        match &event.happening {
            Happening::Started | Happening::Asked { .. } => match &self.bars {
                Some(bars) => {
                    let bar = bars.add(ProgressBar::new_spinner());
                    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
                        bar.set_style(style);
                    }
                    bar.set_message(format!("{number:>2}  {}", event.title));
                    bar.enable_steady_tick(Duration::from_millis(100));
                    let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                    open.insert((number, event.title.clone()), bar);
                }
                None => self.line(&line("…", "")),
            },
            Happening::Done { already, .. } => {
                self.close(event);
                self.line(&line("✓", if *already { " (was there already)" } else { "" }));
            }
            Happening::Failed { reason, .. } => {
                self.close(event);
                self.line(&line(
                    "✗",
                    &format!(": {}", reason.lines().next().unwrap_or_default()),
                ));
            }
            Happening::Decided { approved, by } => {
                self.close(event);
                let said = if *approved { "confirmed" } else { "rejected" };
                self.line(&line(
                    if *approved { "✓" } else { "✗" },
                    &format!(": {said} by {by}"),
                ));
            }
            _ => {}
        }
    }

    fn close(&self, event: &Event) {
        let key = (event.step.number(), event.title.clone());
        if let Some(bar) = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key)
        {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.bars {
            // A line that cannot be drawn is progress nobody sees; the record has it all the same.
            Some(bars) => drop(bars.println(text)),
            None => say(text),
        }
    }

    fn ask(&self, text: &str, question: &str) -> bool {
        let ask = || {
            say(text);
            let mut out = std::io::stderr().lock();
            let _ = write!(out, "{question}");
            let _ = out.flush();
            let mut answer = String::new();
            match std::io::stdin().read_line(&mut answer) {
                Ok(_) => matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"),
                Err(_) => false,
            }
        };
        *self.held_back.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        let answer = match &self.bars {
            Some(bars) => bars.suspend(ask),
            None => ask(),
        };
        let held_back = self
            .held_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        held_back.iter().flatten().for_each(|event| self.draw(event));
        answer
    }

    fn finish(&self) {
        for (_, bar) in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            bar.finish_and_clear();
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program speaks to whoever started it")]
fn say(text: &str) {
    eprintln!("{text}");
}
