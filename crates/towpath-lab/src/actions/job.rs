//! One job: its workspace, its environment, its steps one after another.

use super::commands::Log;
use super::expression::{Scope, text_of};
use super::files::parse_pairs;
use super::process::{Ended, Process, run};
use super::workflow::{JobSpec, Pairs, StepKind, StepSpec, composite};
use super::{Step, Target};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A summary above this size is not taken.
const SUMMARY_LIMIT: usize = 1024 * 1024;

/// What the machine of a runner gives to every job, where the lab's own process has it.
const FROM_THE_MACHINE: [&str; 11] = [
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LANG",
    "LC_ALL",
    "USER",
];

/// What a job needs to know beside its own text.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) target: Target,
    /// `github`, `vars`, `secrets`, `needs`, `inputs`.
    pub(super) contexts: Map<String, Value>,
    /// The variables of the contract, and what the runner has installed.
    pub(super) env: Pairs,
    pub(super) workflow_env: Pairs,
    pub(super) directory: PathBuf,
    pub(super) token: String,
    pub(super) masks: Vec<String>,
    pub(super) cancel: CancellationToken,
    pub(super) grace: Duration,
}

/// What a job came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) conclusion: &'static str,
    pub(super) outputs: BTreeMap<String, String>,
    pub(super) log: Log,
}

/// A job while it runs.
struct Running<'a> {
    spec: &'a JobSpec,
    around: &'a Surroundings,
    log: Log,
    env: BTreeMap<String, String>,
    path: Vec<String>,
    success: bool,
    until: Instant,
    files: usize,
}

/// The steps that see each other's outputs: those of the job, or those of one composite action.
struct Frame {
    steps: Map<String, Value>,
    inputs: Value,
}

/// The variables that come from the machine.
pub(super) fn machine_env() -> Pairs {
    let given = FROM_THE_MACHINE
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    given.collect()
}

/// Runs a job to its end. `report` is told after each step.
pub(super) async fn execute(
    spec: &JobSpec,
    around: &Surroundings,
    mut report: impl FnMut(&[Step], &str),
) -> Outcome {
    let mut job = Running {
        spec,
        around,
        log: Log::default(),
        env: BTreeMap::new(),
        path: Vec::new(),
        success: true,
        until: Instant::now() + spec.timeout,
        files: 0,
    };
    for mask in &around.masks {
        job.log.mask(mask);
    }
    let inputs = around.contexts.get("inputs").cloned().unwrap_or(Value::Null);
    let mut frame = Frame {
        steps: Map::new(),
        inputs,
    };
    if let Err(reason) = job.prepare(&frame).await {
        job.success = false;
        job.log.fail(&reason);
    }
    let mut steps = Vec::new();
    for (at, step) in spec.steps.iter().enumerate() {
        job.log.begin_step();
        let mut done = job.step(step, &mut frame).await;
        done.number = at as u64 + 1;
        steps.push(done);
        report(&steps, job.log.text());
    }
    let outputs = job.outputs(&frame);
    let conclusion = match (around.cancel.is_cancelled(), job.success) {
        (true, _) => "cancelled",
        (false, true) => "success",
        (false, false) => "failure",
    };
    Outcome {
        conclusion,
        outputs,
        log: job.log,
    }
}

impl Running<'_> {
    async fn prepare(&mut self, frame: &Frame) -> Result<(), String> {
        for folder in ["work", "temp", "tools", "commands"] {
            let path = self.around.directory.join(folder);
            tokio::fs::create_dir_all(&path)
                .await
                .map_err(|error| format!("cannot make {folder}: {error}"))?;
        }
        for (name, value) in self.around.workflow_env.iter().chain(&self.spec.env) {
            let value = self.scope(frame).fill(value)?;
            self.env.insert(name.clone(), value);
        }
        Ok(())
    }

    fn scope(&self, frame: &Frame) -> Scope {
        let mut contexts = self.around.contexts.clone();
        contexts.insert("env".into(), json!(self.env));
        contexts.insert("steps".into(), Value::Object(frame.steps.clone()));
        contexts.insert("inputs".into(), frame.inputs.clone());
        contexts.insert(
            "job".into(),
            json!({"status": if self.success { "success" } else { "failure" }}),
        );
        let folder = |name: &str| self.around.directory.join(name).to_string_lossy().into_owned();
        contexts.insert(
            "runner".into(),
            json!({"os": super::OS, "arch": super::ARCH, "name": "towpath-lab", "temp": folder("temp"), "tool_cache": folder("tools")}),
        );
        Scope {
            contexts: Value::Object(contexts),
            success: self.success,
            cancelled: self.around.cancel.is_cancelled(),
        }
    }

    async fn step(&mut self, spec: &StepSpec, frame: &mut Frame) -> Step {
        let mut done = Step::begin(spec);
        let result = match self.scope(frame).holds(spec.condition.as_deref()) {
            Ok(false) => {
                done.end("skipped");
                self.remember(spec, frame, &done, "skipped");
                return done;
            }
            Ok(true) => self.run_step(spec, frame, &mut done).await,
            Err(reason) => Err(reason),
        };
        let outcome = match result {
            Ok(Ended::Code(0)) => "success",
            Ok(Ended::Code(code)) => {
                self.log
                    .fail(&format!("Process completed with exit code {code}."));
                "failure"
            }
            Ok(Ended::Cancelled) => {
                self.log.fail("The operation was canceled.");
                "cancelled"
            }
            Ok(Ended::TimedOut) => {
                self.log.fail("The action has timed out.");
                "failure"
            }
            Err(reason) => {
                self.log.fail(&reason);
                "failure"
            }
        };
        let conclusion = if spec.continue_on_error && outcome == "failure" {
            "success"
        } else {
            outcome
        };
        self.success &= conclusion == "success";
        done.end(conclusion);
        self.remember(spec, frame, &done, outcome);
        done
    }

    fn remember(&self, spec: &StepSpec, frame: &mut Frame, done: &Step, outcome: &str) {
        if let Some(id) = &spec.id {
            let entry = json!({"outputs": done.outputs, "outcome": outcome, "conclusion": done.conclusion});
            frame.steps.insert(id.clone(), entry);
        }
    }

    async fn run_step(
        &mut self,
        spec: &StepSpec,
        frame: &mut Frame,
        done: &mut Step,
    ) -> Result<Ended, String> {
        let scope = self.scope(frame);
        let mut env = self.env.clone();
        for (name, value) in &spec.env {
            env.insert(name.clone(), scope.fill(value)?);
        }
        let until = spec
            .timeout
            .map_or(self.until, |timeout| self.until.min(Instant::now() + timeout));
        match &spec.what {
            StepKind::Run { script, shell } => {
                let script = scope.fill(script)?;
                let first = script.lines().next().unwrap_or_default().to_owned();
                if spec.name.is_none() {
                    done.name = format!("Run {first}");
                }
                self.log.write(&format!("##[group]Run {first}"));
                for line in script.lines() {
                    self.log.write(line);
                }
                self.log.write("##[endgroup]");
                let (program, mut args) = shell_of(shell.as_deref())?;
                let file = self
                    .around
                    .directory
                    .join(format!("temp/step-{}.sh", uuid::Uuid::new_v4()));
                tokio::fs::write(&file, script)
                    .await
                    .map_err(|error| format!("cannot write the script: {error}"))?;
                args.push(file.to_string_lossy().into_owned());
                let directory = scope.fill(spec.directory.as_deref().unwrap_or_default())?;
                let directory = self.workspace().join(directory);
                self.process(program, &args, &directory, env, until, done).await
            }
            StepKind::Uses { action, with } => {
                let with = with
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), scope.fill(value)?)));
                let with = with.collect::<Result<BTreeMap<_, _>, String>>()?;
                self.log.write(&format!("##[group]Run {action}"));
                self.log.write("##[endgroup]");
                if action.starts_with("actions/checkout@") {
                    return self.checkout(&with, until, done).await;
                }
                let Some(folder) = action.strip_prefix("./") else {
                    return Err(format!(
                        "Unable to resolve action {action}: the lab has actions/checkout and actions of the \
                         repository itself (./path) only"
                    ));
                };
                self.composite(folder, &with, done).await
            }
        }
    }

    fn workspace(&self) -> PathBuf {
        self.around.directory.join("work")
    }

    /// Runs one process of a step, with the files of the contract, and takes in what it wrote to them.
    async fn process(
        &mut self,
        program: &str,
        args: &[String],
        directory: &Path,
        env: BTreeMap<String, String>,
        until: Instant,
        done: &mut Step,
    ) -> Result<Ended, String> {
        self.files += 1;
        let mut files = BTreeMap::new();
        for name in [
            "GITHUB_OUTPUT",
            "GITHUB_ENV",
            "GITHUB_PATH",
            "GITHUB_STATE",
            "GITHUB_STEP_SUMMARY",
        ] {
            let path = self
                .around
                .directory
                .join(format!("commands/{}-{name}", self.files));
            tokio::fs::write(&path, "")
                .await
                .map_err(|error| format!("cannot make {name}: {error}"))?;
            files.insert(name, path);
        }
        let mut all: BTreeMap<String, String> = self.around.env.iter().cloned().collect();
        all.extend(env);
        // The contract's own variables cannot be set from a workflow.
        let fixed = self
            .around
            .env
            .iter()
            .filter(|(name, _)| name.starts_with("GITHUB_") || name.starts_with("RUNNER_"));
        all.extend(fixed.cloned());
        all.extend(
            files
                .iter()
                .map(|(name, path)| ((*name).to_owned(), path.to_string_lossy().into_owned())),
        );
        if !self.path.is_empty() {
            let path = all.get("PATH").cloned().unwrap_or_default();
            let added: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
            all.insert("PATH".into(), format!("{}:{path}", added.join(":")));
        }
        let env: Pairs = all.into_iter().collect();
        let process = Process {
            program,
            args,
            directory,
            env: &env,
            until,
            cancel: &self.around.cancel,
            grace: self.around.grace,
        };
        let log = &mut self.log;
        let ended = run(process, |line| log.take(line)).await;
        let ended =
            ended.map_err(|error| format!("cannot run {program} in {}: {error}", directory.display()))?;
        let mut texts = BTreeMap::new();
        for (name, path) in files {
            // A step may remove the file; that is as if it wrote nothing.
            let bytes = tokio::fs::read(&path).await.unwrap_or_default();
            texts.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
        self.take_files(&texts, done)?;
        Ok(ended)
    }

    fn take_files(&mut self, texts: &BTreeMap<&str, String>, done: &mut Step) -> Result<(), String> {
        let read = |name: &str| {
            let text = texts.get(name).map_or("", String::as_str);
            parse_pairs(text).map_err(|error| format!("Unable to process file command '{name}': {error}"))
        };
        for (name, value) in read("GITHUB_ENV")? {
            if name == "NODE_OPTIONS" || name.starts_with("GITHUB_") || name.starts_with("RUNNER_") {
                return Err(format!("Can't store {name} using the GITHUB_ENV file"));
            }
            self.env.insert(name, value);
        }
        read("GITHUB_STATE")?;
        done.outputs.extend(read("GITHUB_OUTPUT")?);
        let paths = texts.get("GITHUB_PATH").map_or("", String::as_str);
        self.path.extend(
            paths
                .lines()
                .filter(|line| !line.is_empty())
                .map(ToOwned::to_owned),
        );
        let summary = texts.get("GITHUB_STEP_SUMMARY").map_or("", String::as_str);
        if summary.len() > SUMMARY_LIMIT {
            self.log.fail(&format!(
                "$GITHUB_STEP_SUMMARY upload aborted, supports content up to a size of 1024k, got {}k.",
                summary.len() / 1024
            ));
        } else {
            done.summary.push_str(&self.log.cover(summary));
        }
        Ok(())
    }

    async fn composite(
        &mut self,
        folder: &str,
        with: &BTreeMap<String, String>,
        done: &mut Step,
    ) -> Result<Ended, String> {
        let mut found = None;
        for name in ["action.yml", "action.yaml"] {
            let path = self.workspace().join(folder).join(name);
            if let Ok(text) = tokio::fs::read_to_string(&path).await {
                found = Some(text);
                break;
            }
        }
        let text = found.ok_or_else(|| {
            format!("Can't find 'action.yml' or 'action.yaml' under '{folder}'. Did you forget to run actions/checkout before running your local action?")
        })?;
        let (steps, defaults, outputs) =
            composite(&text).map_err(|error| format!("{folder}/action.yml: {error}"))?;
        let mut inputs: BTreeMap<String, String> = defaults.into_iter().collect();
        inputs.extend(with.clone());
        let mut frame = Frame {
            steps: Map::new(),
            inputs: json!(inputs),
        };
        let before = self.success;
        for step in &steps {
            let inner = Box::pin(self.step(step, &mut frame)).await;
            done.summary.push_str(&inner.summary);
        }
        let failed = before && !self.success;
        let scope = self.scope(&frame);
        for (name, value) in outputs {
            done.outputs.insert(name, scope.fill(&value)?);
        }
        // The step itself decides what a failure inside it means for the job.
        self.success = before;
        Ok(if failed { Ended::Code(1) } else { Ended::Code(0) })
    }

    /// `actions/checkout`: a fetch of the commit over smart HTTP with the token of the job.
    async fn checkout(
        &mut self,
        with: &BTreeMap<String, String>,
        until: Instant,
        done: &mut Step,
    ) -> Result<Ended, String> {
        use base64::Engine;
        let known = [
            "repository",
            "ref",
            "token",
            "path",
            "fetch-depth",
            "persist-credentials",
            "clean",
        ];
        if let Some(other) = with.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!(
                "actions/checkout: the lab does not know the input {other:?}"
            ));
        }
        let target = &self.around.target;
        let given = |name: &str| with.get(name).filter(|value| !value.is_empty()).cloned();
        let own = target.slug.to_string();
        let repository = given("repository").unwrap_or_else(|| own.clone());
        let token = given("token").unwrap_or_else(|| self.around.token.clone());
        let folder = self.workspace().join(given("path").unwrap_or_default());
        let (commit, name) = match given("ref") {
            Some(name) => (name.clone(), name),
            None if repository == own => (target.sha.clone(), target.reference.clone()),
            None => ("HEAD".to_owned(), "HEAD".to_owned()),
        };
        if commit.starts_with('-') {
            return Err("actions/checkout: a ref cannot start with -".into());
        }
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(|error| format!("cannot make the folder: {error}"))?;
        let env: BTreeMap<String, String> = [("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned())].into();
        let credential = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
        self.log.mask(&credential);
        let url = format!("{}/{repository}", target.server);
        let mut fetch = vec!["fetch", "--no-tags", "--prune", "--no-recurse-submodules"];
        let depth = format!("--depth={}", given("fetch-depth").unwrap_or_else(|| "1".into()));
        if depth != "--depth=0" {
            fetch.push(&depth);
        }
        let branch = name.strip_prefix("refs/heads/");
        let tracking = branch.map(|branch| format!("refs/remotes/origin/{branch}"));
        let refspec = tracking
            .as_ref()
            .map_or_else(|| commit.clone(), |tracking| format!("+{commit}:{tracking}"));
        fetch.extend(["origin", &refspec]);
        let switch: Vec<&str> = match (branch, &tracking) {
            (Some(branch), Some(tracking)) => {
                vec!["checkout", "--progress", "--force", "-B", branch, tracking]
            }
            _ => vec!["checkout", "--progress", "--force", "--detach", "FETCH_HEAD"],
        };
        let config = folder.join(".git/config");
        let header = format!(
            "[http \"{}/\"]\n\textraheader = AUTHORIZATION: basic {credential}\n",
            target.server
        );
        let steps = [
            vec!["init", "--quiet", "-b", "main", "."],
            vec!["remote", "add", "origin", &url],
            fetch,
            switch,
        ];
        for (at, args) in steps.iter().enumerate() {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            let ended = self
                .process("git", &args, &folder, env.clone(), until, done)
                .await?;
            if ended != Ended::Code(0) {
                return Ok(ended);
            }
            if at == 1 {
                // Written to the file, so that the token is on no command line.
                let mut text = tokio::fs::read_to_string(&config)
                    .await
                    .map_err(|error| error.to_string())?;
                text.push_str(&header);
                tokio::fs::write(&config, text)
                    .await
                    .map_err(|error| error.to_string())?;
            }
        }
        if given("persist-credentials").as_deref() == Some("false") {
            let text = tokio::fs::read_to_string(&config)
                .await
                .map_err(|error| error.to_string())?;
            tokio::fs::write(&config, text.replace(&header, ""))
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(Ended::Code(0))
    }

    /// The outputs of the job; one that holds a secret is left out, as GitHub does.
    fn outputs(&mut self, frame: &Frame) -> BTreeMap<String, String> {
        let scope = self.scope(frame);
        let mut outputs = BTreeMap::new();
        for (name, text) in &self.spec.outputs {
            match scope.fill(text) {
                Ok(value) if self.log.holds_secret(&value) => {
                    self.log.write(&format!(
                        "##[warning]Skip output '{name}' since it may contain secret."
                    ));
                }
                Ok(value) => {
                    outputs.insert(name.clone(), value);
                }
                Err(reason) => {
                    self.success = false;
                    self.log.fail(&format!("output {name}: {reason}"));
                }
            }
        }
        outputs
    }
}

fn shell_of(shell: Option<&str>) -> Result<(&'static str, Vec<String>), String> {
    let args = |args: &[&str]| args.iter().map(ToString::to_string).collect();
    match shell {
        None | Some("sh") => Ok(("sh", args(&["-e"]))),
        Some("bash") => Ok(("bash", args(&["--noprofile", "--norc", "-eo", "pipefail"]))),
        Some(other) => Err(format!("the lab has no shell {other:?}: use sh or bash")),
    }
}

/// The value of a context for a log line or a name, where an expression may fail.
pub(super) fn plain(value: &Value) -> String {
    text_of(value)
}
