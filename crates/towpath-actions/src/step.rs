//! The step itself: what it hands to the runner.

use crate::annotation::Annotation;
use crate::{Context, Environment, Error, Result, command, file};
use std::fmt;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use towpath_core::Secret;
use uuid::Uuid;

/// The most that the runner takes as the summary of one step: 1024 KiB.
pub const SUMMARY_LIMIT: u64 = 1024 * 1024;

/// A step inside GitHub Actions.
///
/// It holds the variables that the runner set and the output on which the runner reads commands, and no global state.
/// It may be shared between threads; each command is one write.
pub struct Step {
    environment: Environment,
    output: Mutex<Output>,
    #[cfg(feature = "oidc")]
    pub(crate) id_tokens: crate::IdTokenPolicy,
}

struct Output {
    writer: Box<dyn Write + Send>,
    /// The word that resumes commands, while they are stopped.
    stopped: Option<String>,
}

impl Step {
    /// The step that this process runs in; its commands go to standard output.
    ///
    /// # Errors
    /// [`Error::NotInActions`] outside GitHub Actions.
    pub fn from_env() -> Result<Self> {
        let environment = Environment::of_process();
        if environment.get("GITHUB_ACTIONS")? != Some("true") {
            return Err(Error::NotInActions);
        }
        Ok(Self::new(environment, std::io::stdout()))
    }

    /// A step with this environment, whose commands go to `output`. Tests use it; so can another runner.
    pub fn new(environment: Environment, output: impl Write + Send + 'static) -> Self {
        Self {
            environment,
            output: Mutex::new(Output {
                writer: Box::new(output),
                stopped: None,
            }),
            #[cfg(feature = "oidc")]
            id_tokens: crate::IdTokenPolicy::default(),
        }
    }

    /// The variables of the step.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What the run is about: repository, commit, event, and where the services are.
    pub fn context(&self) -> Result<Context> {
        Context::read(&self.environment)
    }

    /// Sets an output of the step, for later steps and jobs. The outputs of a job may take 1 MB together.
    pub fn output(&self, name: &str, value: &str) -> Result<()> {
        let record = file::record("output", name, value)?;
        file::append(&self.environment, "GITHUB_OUTPUT", &record)
    }

    /// Sets an environment variable for the later steps of the job. This process keeps its own.
    ///
    /// # Errors
    /// [`Error::Refused`] for the names that the runner does not let a step change.
    pub fn export_variable(&self, name: &str, value: &str) -> Result<()> {
        let upper = name.to_ascii_uppercase();
        if upper.starts_with("GITHUB_") || upper.starts_with("RUNNER_") || upper == "NODE_OPTIONS" {
            return Err(Error::Refused {
                what: format!("the variable {name:?}"),
                reason:
                    "the runner keeps GITHUB_*, RUNNER_* and NODE_OPTIONS for itself; choose another name"
                        .into(),
            });
        }
        let record = file::record("variable", name, value)?;
        file::append(&self.environment, "GITHUB_ENV", &record)
    }

    /// Puts a folder in front of the `PATH` of the later steps of the job.
    pub fn add_path(&self, folder: &str) -> Result<()> {
        if folder.trim().is_empty() || folder.contains(['\r', '\n']) {
            return Err(Error::Refused {
                what: format!("the folder {folder:?}"),
                reason: "it must be one line that is not blank".into(),
            });
        }
        file::append(&self.environment, "GITHUB_PATH", &format!("{folder}\n"))
    }

    /// Keeps a value for the `post` part of this action, which reads it with [`state`](Self::state).
    pub fn save_state(&self, name: &str, value: &str) -> Result<()> {
        let record = file::record("state", name, value)?;
        file::append(&self.environment, "GITHUB_STATE", &record)
    }

    /// What the main part of this action kept with [`save_state`](Self::save_state).
    pub fn state(&self, name: &str) -> Result<Option<&str>> {
        self.environment.get(&format!("STATE_{name}"))
    }

    /// Appends Markdown to the summary of the step, and a newline where it does not end with one.
    ///
    /// # Errors
    /// [`Error::SummaryTooLarge`] above [`SUMMARY_LIMIT`]; nothing is written then, since the runner would drop it all.
    pub fn summary(&self, markdown: &str) -> Result<()> {
        const VARIABLE: &str = "GITHUB_STEP_SUMMARY";
        let path = file::path(&self.environment, VARIABLE)?;
        let written = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(source) => {
                return Err(Error::File {
                    action: "read",
                    variable: VARIABLE,
                    path,
                    source,
                });
            }
        };
        let end = if markdown.ends_with('\n') { "" } else { "\n" };
        let size = written + (markdown.len() + end.len()) as u64;
        if size > SUMMARY_LIMIT {
            return Err(Error::SummaryTooLarge {
                size,
                limit: SUMMARY_LIMIT,
            });
        }
        file::append(&self.environment, VARIABLE, &format!("{markdown}{end}"))
    }

    /// Tells the runner to replace the secret by `***` in the log from now on. Do it before anything can print it.
    ///
    /// Each line is masked on its own, because the log is searched line by line.
    pub fn mask(&self, secret: &Secret) -> Result<()> {
        let lines = secret.expose().split(['\r', '\n']);
        for line in lines.filter(|line| !line.trim().is_empty()) {
            self.command("add-mask", &[], line)?;
        }
        Ok(())
    }

    /// Shows an error. It does not fail the step: the exit code of the process does.
    pub fn error(&self, annotation: impl Into<Annotation>) -> Result<()> {
        self.annotate("error", annotation.into())
    }

    /// Shows a warning.
    pub fn warning(&self, annotation: impl Into<Annotation>) -> Result<()> {
        self.annotate("warning", annotation.into())
    }

    /// Shows a notice.
    pub fn notice(&self, annotation: impl Into<Annotation>) -> Result<()> {
        self.annotate("notice", annotation.into())
    }

    /// Writes a line that the log shows only when debug logging is on.
    pub fn debug(&self, message: &str) -> Result<()> {
        self.command("debug", &[], message)
    }

    /// Whether debug logging is on.
    pub fn is_debug(&self) -> Result<bool> {
        Ok(self.environment.get("RUNNER_DEBUG")? == Some("1"))
    }

    /// Begins a group of lines that the log shows folded; it ends with the returned guard. Groups do not nest.
    pub fn group(&self, title: &str) -> Result<Group<'_>> {
        self.command("group", &[], title)?;
        Ok(Group { step: Some(self) })
    }

    /// Makes the runner take what follows as plain text, until the returned guard ends.
    ///
    /// Use it around the output of others (a compiler, a test, a commit message): a line of theirs that looks like a
    /// command would be obeyed. While it lasts every command of this step is refused, since nobody would read it.
    pub fn stop_commands(&self) -> Result<StoppedCommands<'_>> {
        let resume = Uuid::new_v4().to_string();
        self.command("stop-commands", &[], &resume)?;
        self.lock().stopped = Some(resume);
        Ok(StoppedCommands { step: Some(self) })
    }

    fn annotate(&self, kind: &'static str, annotation: Annotation) -> Result<()> {
        self.command(kind, &annotation.properties, &annotation.message)
    }

    fn command(&self, name: &'static str, properties: &[(&str, String)], data: &str) -> Result<()> {
        let mut output = self.lock();
        if output.stopped.is_some() {
            return Err(Error::CommandsStopped { command: name });
        }
        output.line(&command::line(name, properties, data))
    }

    fn resume_commands(&self) -> Result<()> {
        let mut output = self.lock();
        match output.stopped.take() {
            // What came before may have ended in the middle of a line.
            Some(resume) => output.line(&format!("\n::{resume}::")),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    fn line(&mut self, line: &str) -> Result<()> {
        self.writer.write_all(format!("{line}\n").as_bytes())?;
        Ok(self.writer.flush()?)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

/// A group of lines in the log. It ends when this is dropped.
#[derive(Debug)]
#[must_use = "the group ends when this is dropped"]
pub struct Group<'a> {
    step: Option<&'a Step>,
}

impl Group<'_> {
    /// Ends the group, and says where that failed; dropping cannot.
    pub fn end(mut self) -> Result<()> {
        self.step
            .take()
            .map_or(Ok(()), |step| step.command("endgroup", &[], ""))
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        // A destructor has nobody to report to; the runner ends an open group with the step.
        let _ = self.step.take().map(|step| step.command("endgroup", &[], ""));
    }
}

/// A time in which the runner obeys no commands. It ends when this is dropped.
#[derive(Debug)]
#[must_use = "commands are obeyed again when this is dropped"]
pub struct StoppedCommands<'a> {
    step: Option<&'a Step>,
}

impl StoppedCommands<'_> {
    /// Writes foreign text to the step's output.
    pub fn print(&self, text: &str) -> Result<()> {
        if let Some(step) = self.step {
            let mut output = step.lock();
            output.writer.write_all(text.as_bytes())?;
            output.writer.flush()?;
        }
        Ok(())
    }

    /// Resumes commands, and says where that failed; dropping cannot.
    pub fn resume(mut self) -> Result<()> {
        self.step.take().map_or(Ok(()), Step::resume_commands)
    }
}

impl Drop for StoppedCommands<'_> {
    fn drop(&mut self) {
        // A destructor has nobody to report to.
        let _ = self.step.take().map(Step::resume_commands);
    }
}
