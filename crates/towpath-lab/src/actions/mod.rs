//! GitHub Actions: workflows of the pushed commit, run by a self-hosted runner that executes real processes under the
//! contract of "Variables reference" and "Workflow commands for GitHub Actions".
//!
//! A background process ends with the step that started it. `strategy`, `services`, `container` and actions other
//! than `actions/checkout` and composite ones of the repository are refused by name.

mod commands;
mod expression;
mod files;
mod job;
mod oidc;
mod process;
mod routes;
mod run;
mod workflow;

use crate::github::{Account, CheckRun, GitError, GitHubConfig, Hub, RefMove, Repository};
pub(crate) use routes::routes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use towpath_core::{RepoSlug, Secret};
use workflow::{StepSpec, Workflow};

pub(crate) use oidc::routes as oidc_routes;

const OS: &str = if cfg!(target_os = "macos") {
    "macOS"
} else {
    "Linux"
};
const ARCH: &str = if cfg!(target_arch = "aarch64") {
    "ARM64"
} else {
    "X64"
};

/// What the runner is like.
#[derive(Clone, Debug)]
pub struct RunnerConfig {
    /// Variables of every job: what is installed on the runner. Nothing else of the lab's own environment reaches a
    /// job but the PATH, the home folder, and where Rust and the certificates are.
    pub env: Vec<(String, String)>,
    /// How long a run waits for the runner.
    pub queue_delay: Duration,
    /// How long a cancelled process may take to end by itself.
    pub cancel_grace: Duration,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self {
            env: Vec::new(),
            queue_delay: Duration::from_millis(10),
            cancel_grace: Duration::from_millis(500),
        }
    }
}

/// One run of a workflow, as it is now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run {
    /// The number on the server.
    pub id: u64,
    /// The number within the workflow.
    pub number: u64,
    /// The repository.
    pub repository: RepoSlug,
    /// The name of the workflow.
    pub workflow: String,
    /// The title: `run-name`, or the first line of the commit's message.
    pub title: String,
    /// The path of the workflow's file.
    pub path: String,
    /// `push` or `workflow_dispatch`.
    pub event: String,
    /// The branch.
    pub branch: String,
    /// The commit.
    pub sha: String,
    /// Who started it.
    pub actor: String,
    /// 1, and one more for each re-run.
    pub attempt: u64,
    /// `queued`, `in_progress` or `completed`.
    pub status: String,
    /// `success`, `failure`, `cancelled` or `startup_failure`, once completed.
    pub conclusion: Option<String>,
    /// Why it could not start.
    pub error: Option<String>,
    /// The jobs, in the order of the file.
    pub jobs: Vec<Job>,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// When this attempt started.
    pub started: jiff::Timestamp,
    /// When it last changed.
    pub updated: jiff::Timestamp,
    plan: Arc<Plan>,
    cancel: CancellationToken,
    earlier: Vec<Run>,
}

/// One job of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Job {
    /// The number on the server; its check run has the same one.
    pub id: u64,
    /// Its key in the file.
    pub key: String,
    /// Its name.
    pub name: String,
    /// `queued`, `in_progress` or `completed`.
    pub status: String,
    /// `success`, `failure`, `cancelled` or `skipped`, once completed.
    pub conclusion: Option<String>,
    /// Its steps, as far as they have ended.
    pub steps: Vec<Step>,
    /// Its outputs.
    pub outputs: BTreeMap<String, String>,
    /// Its log, secrets covered.
    pub log: String,
    /// When it started.
    pub started: Option<jiff::Timestamp>,
    /// When it ended.
    pub completed: Option<jiff::Timestamp>,
}

/// One step of a job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Step {
    /// 1 for the first.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// `success`, `failure`, `cancelled` or `skipped`.
    pub conclusion: String,
    /// What it wrote to `GITHUB_OUTPUT`.
    pub outputs: BTreeMap<String, String>,
    /// What it wrote to `GITHUB_STEP_SUMMARY`, secrets covered.
    pub summary: String,
    /// When it started.
    pub started: jiff::Timestamp,
    /// When it ended.
    pub completed: jiff::Timestamp,
}

impl Step {
    fn begin(spec: &StepSpec) -> Self {
        let name = match (&spec.name, &spec.what) {
            (Some(name), _) => name.clone(),
            (None, workflow::StepKind::Uses { action, .. }) => format!("Run {action}"),
            (None, workflow::StepKind::Run { .. }) => "Run".into(),
        };
        let now = jiff::Timestamp::now();
        Self {
            number: 0,
            name,
            conclusion: String::new(),
            outputs: BTreeMap::new(),
            summary: String::new(),
            started: now,
            completed: now,
        }
    }

    fn end(&mut self, conclusion: &str) {
        conclusion.clone_into(&mut self.conclusion);
        self.completed = jiff::Timestamp::now();
    }
}

/// What a run was made from; a re-run is made from the same.
#[derive(Debug)]
struct Plan {
    workflow: Option<Workflow>,
    payload: Value,
    inputs: Value,
}

/// What the steps of a job work on.
#[derive(Clone, Debug)]
struct Target {
    slug: RepoSlug,
    sha: String,
    reference: String,
    server: String,
}

/// The runs, and what they may know.
#[derive(Debug)]
pub(crate) struct Actions {
    config: RunnerConfig,
    runs: Mutex<Vec<Run>>,
    secrets: Mutex<BTreeMap<String, Secret>>,
    variables: Mutex<BTreeMap<String, String>>,
    /// The claims behind each request token, with the run and the job that it belongs to.
    identities: Mutex<BTreeMap<String, (u64, u64, Value)>>,
    key: OnceLock<oidc::Key>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Actions {
    pub(crate) fn new(config: &GitHubConfig) -> Self {
        Self {
            config: config.runner.clone(),
            runs: Mutex::default(),
            secrets: Mutex::new(config.secrets.iter().cloned().collect()),
            variables: Mutex::new(config.variables.iter().cloned().collect()),
            identities: Mutex::default(),
            key: OnceLock::new(),
        }
    }

    pub(crate) fn runs(&self) -> Vec<Run> {
        lock(&self.runs).clone()
    }

    pub(crate) fn set_secret(&self, name: &str, value: Secret) {
        lock(&self.secrets).insert(name.to_ascii_uppercase(), value);
    }

    pub(crate) fn set_variable(&self, name: &str, value: &str) {
        lock(&self.variables).insert(name.to_ascii_uppercase(), value.to_owned());
    }

    fn key(&self) -> Result<&oidc::Key, String> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let key = oidc::Key::generate()?;
        Ok(self.key.get_or_init(|| key))
    }

    fn claims(&self, token: &str, run: u64, job: u64) -> Option<Value> {
        let identities = lock(&self.identities);
        let (of_run, of_job, claims) = identities.get(token)?;
        (*of_run == run && *of_job == job).then(|| claims.clone())
    }

    fn run(&self, id: u64) -> Option<Run> {
        lock(&self.runs).iter().find(|run| run.id == id).cloned()
    }

    fn change(&self, id: u64, edit: impl FnOnce(&mut Run)) -> Option<Run> {
        let mut runs = lock(&self.runs);
        let run = runs.iter_mut().find(|run| run.id == id)?;
        edit(run);
        run.updated = jiff::Timestamp::now();
        Some(run.clone())
    }
}

/// Starts the workflows that a push to a branch triggers. A push by the token of a job triggers none.
pub(crate) async fn pushed(
    hub: &Arc<Hub>,
    repository: &Arc<Repository>,
    moved: &RefMove,
    payload: Value,
    actor: &Account,
) -> Result<(), GitError> {
    const SKIPS: [&str; 5] = [
        "[skip ci]",
        "[ci skip]",
        "[no ci]",
        "[skip actions]",
        "[actions skip]",
    ];
    let Some(branch) = moved.branch().filter(|_| payload["deleted"] != true) else {
        return Ok(());
    };
    let message = payload["head_commit"]["message"].as_str().unwrap_or_default();
    if actor.login == crate::github::BOT || SKIPS.iter().any(|skip| message.contains(skip)) {
        return Ok(());
    }
    for (path, parsed) in workflows(repository, &moved.after).await? {
        let triggered = match &parsed {
            Ok(workflow) => workflow
                .push
                .as_ref()
                .is_some_and(|branches| branches.matches(branch)),
            Err(_) => true,
        };
        if triggered {
            let trigger = Trigger {
                event: "push",
                branch: branch.to_owned(),
                sha: moved.after.clone(),
                payload: payload.clone(),
                inputs: json!({}),
            };
            start(hub, repository, path, parsed, trigger, actor);
        }
    }
    Ok(())
}

/// The workflow files of a commit.
async fn workflows(
    repository: &Repository,
    sha: &str,
) -> Result<Vec<(String, Result<Workflow, String>)>, GitError> {
    let mut found = Vec::new();
    for entry in repository.git.tree(sha, &[".github/workflows/"]).await? {
        if entry.kind == "blob" && (entry.path.ends_with(".yml") || entry.path.ends_with(".yaml")) {
            let bytes = repository.git.blob(&entry.sha).await?;
            found.push((entry.path, workflow::parse(&String::from_utf8_lossy(&bytes))));
        }
    }
    Ok(found)
}

struct Trigger {
    event: &'static str,
    branch: String,
    sha: String,
    payload: Value,
    inputs: Value,
}

/// Makes a run and sets it going.
fn start(
    hub: &Arc<Hub>,
    repository: &Arc<Repository>,
    path: String,
    parsed: Result<Workflow, String>,
    trigger: Trigger,
    actor: &Account,
) {
    let (workflow, error) = match parsed {
        Ok(workflow) => (Some(workflow), None),
        Err(error) => (None, Some(format!("{path}: {error}"))),
    };
    let name = workflow
        .as_ref()
        .and_then(|workflow| workflow.name.clone())
        .unwrap_or_else(|| path.clone());
    let message = trigger.payload["head_commit"]["message"]
        .as_str()
        .and_then(|text| text.lines().next());
    let plan = Arc::new(Plan {
        workflow,
        payload: trigger.payload.clone(),
        inputs: trigger.inputs,
    });
    let now = jiff::Timestamp::now();
    let mut run = Run {
        id: hub.next_id(),
        number: 0,
        repository: repository.slug.clone(),
        title: message.unwrap_or(&name).to_owned(),
        workflow: name,
        path,
        event: trigger.event.to_owned(),
        branch: trigger.branch,
        sha: trigger.sha,
        actor: actor.login.clone(),
        attempt: 1,
        status: "queued".into(),
        conclusion: None,
        error,
        jobs: Vec::new(),
        created: now,
        started: now,
        updated: now,
        plan,
        cancel: CancellationToken::new(),
        earlier: Vec::new(),
    };
    run.jobs = run::new_jobs(hub, repository, &run);
    {
        let mut runs = lock(&hub.actions.runs);
        let same = |other: &&Run| other.repository == run.repository && other.path == run.path;
        run.number = runs.iter().filter(same).count() as u64 + 1;
        runs.push(run.clone());
    }
    run::begin(hub, repository, run);
}

/// The folder that an attempt of a job works in.
fn folder(hub: &Hub, run: &Run, job: &Job) -> PathBuf {
    hub.root
        .path()
        .join(format!("runner/{}-{}-{}", run.id, run.attempt, job.id))
}

/// The check run that stands for a job.
fn check_of(hub: &Hub, run: &Run, job: &Job) -> CheckRun {
    CheckRun {
        id: job.id,
        sha: run.sha.clone(),
        name: job.name.clone(),
        status: job.status.clone(),
        conclusion: job.conclusion.clone(),
        external_id: uuid::Uuid::new_v4().to_string(),
        details_url: Some(format!(
            "{}/{}/actions/runs/{}/job/{}",
            hub.base, run.repository, run.id, job.id
        )),
        output: json!({"title": null, "summary": null, "text": null}),
        annotations: Vec::new(),
        app: "github-actions".into(),
        started: job.started,
        completed: job.completed,
    }
}
