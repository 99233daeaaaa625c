//! GitHub Enterprise Server 3.19 on loopback: the REST API that a delivery needs, real git over smart HTTP on bare
//! repositories, signed webhooks, and Actions (see [`crate::actions`]).
//!
//! REST stands below [`GitHub::api_url`], repositories are cloned from [`GitHub::git_url`]. GraphQL is not served.

mod commits;
mod contents;
mod events;
mod git;
mod git_data;
mod hook_routes;
mod hooks;
mod hub;
mod pull_routes;
mod pulls;
mod render;
mod reply;
mod repos;
mod smart_http;
mod statuses;

pub use crate::actions::{Job, Run, RunnerConfig, Step};
pub use hooks::{Delivery, DeliveryFault};
pub use pulls::{Pull, Review};
pub use statuses::{CheckRun, Status};

pub(crate) use events::{RefMove, add_organization};
pub(crate) use git::GitError;
pub(crate) use hub::{Account, BOT, Caller, Hub, Identity, JobScope, Repository};
pub(crate) use render::node_id;
pub(crate) use reply::{ApiError, Input, Paging, Reply, answer, no_content, ok, time};

use crate::server::{Bound, Server};
use crate::{Faults, LabError, RequestLog, actions};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use towpath_core::{RepoSlug, Secret};

/// One user of the server.
#[derive(Clone, Debug)]
pub struct GitHubUser {
    /// The login.
    pub login: String,
    /// The name in commits.
    pub name: String,
    /// The address in commits.
    pub email: String,
    /// A token that acts as the user, for REST and for git.
    pub token: Secret,
    /// Whether the user belongs to the organisations of the server. One who does not sees public repositories only.
    pub member: bool,
}

impl GitHubUser {
    /// A member of the organisations, with a token.
    pub fn new(login: impl Into<String>, token: Secret) -> Self {
        let login = login.into();
        Self {
            name: login.clone(),
            email: format!("{login}@users.noreply.github.com"),
            login,
            token,
            member: true,
        }
    }
}

/// How the server is set up.
#[derive(Clone, Debug)]
pub struct GitHubConfig {
    /// The port; 0 for any free one.
    pub port: u16,
    /// The organisations. Every member may write to every repository of theirs.
    pub organizations: Vec<String>,
    /// The users.
    pub users: Vec<GitHubUser>,
    /// Requests per hour and token.
    pub rate_limit: u32,
    /// How long a webhook waits before it is sent.
    pub webhook_delay: Duration,
    /// How long a receiver may take to answer; 30 seconds on GitHub Enterprise Server.
    pub webhook_timeout: Duration,
    /// The runner of Actions.
    pub runner: RunnerConfig,
    /// `secrets.NAME` of every repository; names in capitals.
    pub secrets: Vec<(String, Secret)>,
    /// `vars.NAME` of every repository; names in capitals.
    pub variables: Vec<(String, String)>,
}

impl Default for GitHubConfig {
    /// The organisation `acme`, and its members `mona` and `hubot` with new tokens.
    fn default() -> Self {
        let user = |login: &str| {
            GitHubUser::new(
                login,
                Secret::new(format!("ghp_{}", uuid::Uuid::new_v4().simple())),
            )
        };
        Self {
            port: 0,
            organizations: vec!["acme".into()],
            users: vec![user("mona"), user("hubot")],
            rate_limit: 15_000,
            webhook_delay: Duration::from_millis(5),
            webhook_timeout: Duration::from_secs(30),
            runner: RunnerConfig::default(),
            secrets: Vec::new(),
            variables: Vec::new(),
        }
    }
}

/// The rules of a branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// How many approvals a pull request needs. Above 0, the branch takes no direct push.
    pub required_approvals: u32,
    /// Whether a push to a pull request dismisses its approvals.
    pub dismiss_stale_reviews: bool,
    /// Statuses or check runs that must have succeeded on the head.
    pub required_checks: Vec<String>,
    /// Who may push all the same.
    pub may_push: Vec<String>,
}

/// GitHub Enterprise Server, until it is dropped.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), towpath_lab::LabError> {
/// use towpath_lab::github::{GitHub, GitHubConfig};
/// let github = GitHub::start(GitHubConfig::default()).await?;
/// github.create_repository(&"acme/shop".parse().expect("a valid name"), false).await?;
/// assert_eq!(github.repositories().len(), 1);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct GitHub {
    hub: Arc<Hub>,
    server: Server,
}

impl Drop for GitHub {
    fn drop(&mut self) {
        self.hub.stop.cancel();
    }
}

impl GitHub {
    /// Starts the server. Fails where the port is taken, git is not on the PATH, or there is no temporary folder.
    pub async fn start(config: GitHubConfig) -> Result<Self, LabError> {
        find_git()?;
        let bound = Bound::new("GitHub", config.port).await?;
        let root = tempfile::Builder::new()
            .prefix("towpath-lab-github-")
            .tempdir()
            .map_err(|source| LabError::File {
                action: "make a temporary folder in",
                path: std::env::temp_dir(),
                source,
            })?;
        let hub = Arc::new(Hub::new(format!("http://{}", bound.address()), config, root));
        let server = bound.serve(router(&hub));
        Ok(Self { hub, server })
    }

    /// The address of the server.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where pages and git repositories are, without a slash at the end.
    pub fn server_url(&self) -> &str {
        &self.hub.base
    }

    /// The base of the REST API, without a slash at the end.
    pub fn api_url(&self) -> String {
        self.hub.api()
    }

    /// The address that git clones a repository from, without credentials.
    pub fn git_url(&self, repository: &RepoSlug) -> String {
        format!("{}/{repository}.git", self.hub.base)
    }

    /// The token of a user.
    pub fn token(&self, login: &str) -> Option<Secret> {
        let users = &self.hub.config.users;
        users
            .iter()
            .find(|user| user.login.eq_ignore_ascii_case(login))
            .map(|user| user.token.clone())
    }

    /// What it was asked.
    pub fn requests(&self) -> &RequestLog {
        self.server.log()
    }

    /// The faults in front of it.
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    /// Makes an empty repository, if it is not there yet.
    pub async fn create_repository(&self, slug: &RepoSlug, private: bool) -> Result<(), LabError> {
        match self.hub.create(slug.clone(), private, String::new()).await {
            Ok(_) | Err(hub::CreateError::Exists) => Ok(()),
            Err(hub::CreateError::Git(error)) => Err(error),
        }
    }

    /// All repositories.
    pub fn repositories(&self) -> Vec<RepoSlug> {
        self.hub
            .repositories()
            .iter()
            .map(|repository| repository.slug.clone())
            .collect()
    }

    fn find(&self, slug: &RepoSlug) -> Option<Arc<Repository>> {
        self.hub.find(slug.owner(), slug.name())
    }

    /// Branches and tags by full name, with their commits. Empty where there is no such repository.
    pub async fn refs(&self, slug: &RepoSlug) -> Result<BTreeMap<String, String>, LabError> {
        match self.find(slug) {
            Some(repository) => repository.git.refs().await.map_err(program),
            None => Ok(BTreeMap::new()),
        }
    }

    /// The commits of a branch or commit, newest first, as `(sha, message)`.
    pub async fn commits(&self, slug: &RepoSlug, revision: &str) -> Result<Vec<(String, String)>, LabError> {
        let Some(repository) = self.find(slug) else {
            return Ok(Vec::new());
        };
        let Some(sha) = repository
            .git
            .resolve(revision, "commit")
            .await
            .map_err(program)?
        else {
            return Ok(Vec::new());
        };
        let commits = repository.git.log(&[&sha]).await.map_err(program)?;
        Ok(commits
            .into_iter()
            .map(|commit| (commit.sha, commit.message))
            .collect())
    }

    /// The bytes of a file at a branch or commit; `None` where there is none.
    pub async fn file(
        &self,
        slug: &RepoSlug,
        revision: &str,
        path: &str,
    ) -> Result<Option<Vec<u8>>, LabError> {
        let Some(repository) = self.find(slug) else {
            return Ok(None);
        };
        let object = format!("{revision}:{path}");
        let output = repository
            .git
            .output(&["cat-file", "blob", &object], &[], None)
            .await
            .map_err(program)?;
        Ok(output.status.success().then_some(output.stdout))
    }

    /// The pull requests of a repository.
    pub fn pulls(&self, slug: &RepoSlug) -> Vec<Pull> {
        self.find(slug)
            .map_or_else(Vec::new, |repository| repository.records().pulls.clone())
    }

    /// All statuses of a commit, oldest first.
    pub fn statuses(&self, slug: &RepoSlug, sha: &str) -> Vec<Status> {
        let mut all = self
            .find(slug)
            .map_or_else(Vec::new, |repository| repository.records().statuses.clone());
        all.retain(|status| status.sha == sha);
        all
    }

    /// All check runs of a commit, oldest first; those of Actions among them.
    pub fn check_runs(&self, slug: &RepoSlug, sha: &str) -> Vec<CheckRun> {
        let mut all = self
            .find(slug)
            .map_or_else(Vec::new, |repository| repository.records().checks.clone());
        all.retain(|check| check.sha == sha);
        all
    }

    /// Sets the rules of a branch.
    pub async fn protect(&self, slug: &RepoSlug, branch: &str, rules: Protection) -> Result<(), LabError> {
        let Some(repository) = self.find(slug) else {
            return Ok(());
        };
        repository.records().protections.insert(branch.to_owned(), rules);
        write_update_hook(&repository).await
    }

    /// Adds a webhook of one repository, or of the organisation that owns it where `organization` is set.
    pub fn add_hook(&self, slug: &RepoSlug, url: &str, secret: Option<Secret>, events: &[&str]) {
        let hook = hooks::Hook {
            id: self.hub.next_id(),
            url: url.to_owned(),
            secret,
            events: events.iter().map(ToString::to_string).collect(),
            form: false,
            active: true,
            created: jiff::Timestamp::now(),
            organization: None,
        };
        if let Some(repository) = self.find(slug) {
            repository.records().hooks.push(hook);
        }
    }

    /// Adds a webhook of all repositories of an organisation, those made later among them.
    pub fn add_organization_hook(&self, login: &str, url: &str, secret: Option<Secret>, events: &[&str]) {
        self.hub.hooks.add_for_organization(hooks::Hook {
            id: self.hub.next_id(),
            url: url.to_owned(),
            secret,
            events: events.iter().map(ToString::to_string).collect(),
            form: false,
            active: true,
            created: jiff::Timestamp::now(),
            organization: Some(login.to_owned()),
        });
    }

    /// Every delivery so far, oldest first.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.hub.hooks.log()
    }

    /// Lets this happen to the next `times` deliveries to an address that contains this text.
    pub fn inject_delivery_fault(&self, url_contains: &str, fault: DeliveryFault, times: u32) {
        self.hub.hooks.inject(url_contains, fault, times);
    }

    /// All runs of Actions, oldest first.
    pub fn runs(&self) -> Vec<Run> {
        self.hub.actions.runs()
    }

    /// Sets `secrets.NAME` of every repository.
    pub fn set_secret(&self, name: &str, value: Secret) {
        self.hub.actions.set_secret(name, value);
    }

    /// Sets `vars.NAME` of every repository.
    pub fn set_variable(&self, name: &str, value: &str) {
        self.hub.actions.set_variable(name, value);
    }
}

fn program(error: GitError) -> LabError {
    LabError::Program {
        program: "git",
        reason: error.to_string(),
    }
}

/// Looks for git without starting it: starting takes longer than the rest of the server.
fn find_git() -> Result<(), LabError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join("git").is_file()) {
        return Ok(());
    }
    let reason = "it is not on the PATH; install git and start the lab again".to_owned();
    Err(LabError::Program {
        program: "git",
        reason,
    })
}

/// A push meets the rules of its branch in git's own `update` hook.
async fn write_update_hook(repository: &Repository) -> Result<(), LabError> {
    let mut script = String::from("#!/bin/sh\ncase \"$1\" in\n");
    for (branch, rules) in &repository.records().protections {
        let plain = |text: &str| {
            text.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_./[]".contains(c))
        };
        if rules.required_approvals == 0 || !plain(branch) {
            continue;
        }
        let may: String = rules
            .may_push
            .iter()
            .filter(|login| plain(login))
            .map(|login| format!("'{login}') exit 0;; "))
            .collect();
        script.push_str(&format!(
            "'refs/heads/{branch}')\n  case \"$2\" in *[!0]*) ;; *) exit 0;; esac\n  \
             case \"$REMOTE_USER\" in {may}esac\n  \
             echo 'error: GH006: Protected branch update failed for refs/heads/{branch}.' >&2\n  \
             echo 'error: Changes must be made through a pull request.' >&2\n  exit 1;;\n"
        ));
    }
    script.push_str("esac\nexit 0\n");
    let folder = repository.git.path().join("hooks");
    let path = folder.join("update");
    let written = async {
        tokio::fs::create_dir_all(&folder).await?;
        tokio::fs::write(&path, script).await?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        tokio::fs::set_permissions(&path, mode).await
    };
    written.await.map_err(|source| LabError::File {
        action: "write",
        path: path.clone(),
        source,
    })
}

fn router(hub: &Arc<Hub>) -> Router {
    let api = repos::routes()
        .merge(contents::routes())
        .merge(git_data::routes())
        .merge(commits::routes())
        .merge(pull_routes::routes())
        .merge(statuses::routes())
        .merge(hook_routes::routes())
        .merge(actions::routes())
        .fallback(repos::missing)
        .layer(DefaultBodyLimit::max(64 * 1024 * 1024))
        .layer(from_fn_with_state(Arc::clone(hub), reply::common));
    Router::new()
        .nest("/api/v3", api)
        .merge(actions::oidc_routes())
        .route("/{owner}/{repo}/info/refs", get(smart_http::info_refs))
        .route("/{owner}/{repo}/git-upload-pack", post(smart_http::upload_pack))
        .route("/{owner}/{repo}/git-receive-pack", post(smart_http::receive_pack))
        .fallback(repos::missing)
        .with_state(Arc::clone(hub))
}
