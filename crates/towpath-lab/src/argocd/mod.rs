//! Argo CD: the API server, the application controller, and the cluster that it delivers to.
//!
//! It follows the REST API of Argo CD 3.5 (`swagger.json`, and the source where that differs), the controller's two
//! loops, and GitHub's push webhook. Known losses of the real one are kept, since clients have to live with them, and
//! [`KnobSettings`] brings about each of the races that they lead to. All its times pass on a clock of its own, which
//! [`ArgoCd::advance`] puts forward.
//!
//! Sources are folders of manifests and simple kustomizations in git, one or several, Helm charts whose manifests the
//! configuration gives, and the source hydrator. A sync goes through phases and waves; its hooks are Jobs that run in the
//! cluster. An Application in the manifests of another one is made.
//!
//! It does not check what a project permits (`sourceRepos`, `destinations`, resource lists), whether a destination's cluster
//! is known, whether a path exists before it is compared, or how a label selector is written; ApplicationSets have the `list`
//! generator only, and their stream does not tell what becomes of their Applications later; resources have the action
//! `restart`.
//!
//! ```
//! # async fn start() -> Result<(), towpath_lab::LabError> {
//! use towpath_lab::argocd::{ArgoCd, ArgoCdConfig};
//! let argocd = ArgoCd::start(ArgoCdConfig::default()).await?;
//! println!("{} has {} applications", argocd.url(), argocd.applications().len());
//! # Ok(()) }
//! ```

mod access;
mod accounts;
mod actions;
mod api;
mod applications;
mod apply;
mod auto_sync;
mod children;
mod clock;
mod cluster;
mod controller;
mod cron;
mod dex;
mod error;
mod git;
mod hydrator;
mod knobs;
mod logs;
mod model;
mod operation;
mod phases;
mod projects;
mod render;
mod repos;
mod request;
mod resource_actions;
mod sets;
mod store;
mod stream;
mod tasks;
mod token;
mod views;
mod webhook;
mod windows;

pub use cluster::{Cluster, ClusterDelays, RegistryAccess, RunningContainer};
pub use dex::DexConnector;
pub use git::GitCredentials;
pub use knobs::{HealthFlap, KnobSettings, Knobs, StreamCut, SummaryImages};
pub use repos::ChartVersion;
pub use windows::SyncWindow;

use crate::server::{Bound, Server};
use crate::{Faults, LabError, RequestLog};
use clock::Clock;
use git::Git;
use jiff::Timestamp;
use repos::Repos;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{Level, Store};
use tasks::Tasks;
use tokio::sync::Semaphore;
use tokio_util::sync::DropGuard;
use towpath_core::Secret;

/// How an Argo CD is set up. Every field has a default: the project `default`, the account `towpath`, the password
/// `lab-admin` for `admin`, the namespace `argocd`, no root path, any port.
#[derive(Clone, Debug)]
pub struct ArgoCdConfig {
    /// The port on 127.0.0.1; 0 takes any free one.
    pub port: u16,
    /// The version that it says it is. Routes that came later than it are missing, as in that version; what cannot be
    /// read has them all.
    pub version: String,
    /// `server.rootpath`: the path under which everything is, beginning with a slash; empty for none.
    pub root_path: String,
    /// The namespace of the control plane, where Applications live.
    pub namespace: String,
    /// The projects that exist.
    pub projects: Vec<String>,
    /// The account whose ready-made token [`ArgoCd::token`] gives.
    pub account: String,
    /// The password of `admin`.
    pub admin_password: Secret,
    /// The connectors of its Dex, for the exchange of tokens; without any it runs no Dex.
    pub dex_connectors: Vec<DexConnector>,
    /// `application.links`: title and address of what every Application is linked to.
    pub application_links: Vec<(String, String)>,
    /// Credentials for git repositories.
    pub git_credentials: Vec<GitCredentials>,
    /// The registries that nodes may pull from with credentials; others are tried without.
    pub registry_access: Vec<RegistryAccess>,
    /// `webhook.github.secret`: with one, a push must be signed with it.
    pub webhook_secret: Option<Secret>,
    /// `timeout.reconciliation`: how often the repository is looked at without being asked to.
    pub poll_interval: Duration,
    /// How long a resolved branch is believed where nobody insists; never longer than `poll_interval`.
    pub revision_cache: Duration,
    /// How long repository errors are kept quiet (`ARGOCD_REPO_ERROR_GRACE_PERIOD_SECONDS`).
    pub repo_error_grace: Duration,
    /// How many comparisons look at repositories at a time (`--status-processors`).
    pub status_processors: usize,
    /// The versions of Helm charts that its Applications may name.
    pub charts: Vec<ChartVersion>,
    /// The time that applying takes.
    pub operation_delay: Duration,
    /// The pause between two waves of a sync (`ARGOCD_SYNC_WAVE_DELAY`).
    pub wave_delay: Duration,
    /// The first pause before a failed operation is tried again, where it does not say.
    pub retry_back_off: Duration,
    /// The least time between two self-heal operations.
    pub self_heal_delay: Duration,
    /// The time between two keep-alives of an event stream.
    pub keep_alive: Duration,
    /// The times of the cluster.
    pub cluster: ClusterDelays,
}

impl Default for ArgoCdConfig {
    fn default() -> Self {
        Self {
            port: 0,
            version: "v3.5.1+lab".into(),
            root_path: String::new(),
            namespace: "argocd".into(),
            projects: vec!["default".into()],
            account: "towpath".into(),
            admin_password: Secret::new("lab-admin"),
            dex_connectors: Vec::new(),
            application_links: Vec::new(),
            git_credentials: Vec::new(),
            registry_access: Vec::new(),
            webhook_secret: None,
            poll_interval: Duration::from_secs(120),
            revision_cache: Duration::from_secs(180),
            repo_error_grace: Duration::from_secs(180),
            status_processors: 20,
            charts: Vec::new(),
            operation_delay: Duration::from_millis(20),
            wave_delay: Duration::from_millis(20),
            retry_back_off: Duration::from_millis(200),
            self_heal_delay: Duration::from_millis(200),
            keep_alive: Duration::from_secs(15),
            cluster: ClusterDelays::default(),
        }
    }
}

/// An Argo CD and its cluster, until it is dropped.
#[derive(Debug)]
pub struct ArgoCd {
    shared: Arc<Shared>,
    server: Server,
    token: Secret,
    _work: DropGuard,
}

/// What the parts of one Argo CD share.
#[derive(Debug)]
struct Shared {
    config: ArgoCdConfig,
    url: String,
    clock: Clock,
    tasks: Tasks,
    knobs: Knobs,
    store: Store,
    repos: Repos,
    cluster: Cluster,
    tokens: token::Tokens,
    /// The sync windows of each project.
    windows: Mutex<BTreeMap<String, Vec<SyncWindow>>>,
    /// How many comparisons are held.
    held: AtomicUsize,
    processors: Semaphore,
    accounts: accounts::Accounts,
    projects: projects::Projects,
    sets: sets::Sets,
    /// What each project role may do: `proj:<project>:<role>` and its actions.
    roles: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Shared {
    /// Whether it is of this release, major and minor, or of a later one.
    fn has(&self, release: (u64, u64)) -> bool {
        let version = self.config.version.trim_start_matches('v');
        let mut numbers = version
            .split(['.', '-', '+'])
            .map(|part| part.parse::<u64>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) => (major, minor) >= release,
            _ => true,
        }
    }
}

impl ArgoCd {
    /// Starts it, with no Applications.
    ///
    /// # Errors
    /// Where the port is taken, or no temporary folder can be made.
    pub async fn start(config: ArgoCdConfig) -> Result<Self, LabError> {
        let bound = Bound::new("Argo CD", config.port).await?;
        let (clock, tasks, knobs) = (Clock::start(), Tasks::default(), Knobs::default());
        let git = Git::new(config.git_credentials.clone()).map_err(|source| LabError::File {
            action: "make a folder in",
            path: std::env::temp_dir(),
            source,
        })?;
        let (cluster, mut changed) = Cluster::new(
            config.registry_access.clone(),
            config.cluster.clone(),
            clock.clone(),
            knobs.clone(),
            tasks.clone(),
        );
        let shared = Arc::new(Shared {
            url: format!("http://{}{}", bound.address(), config.root_path),
            knobs: knobs.clone(),
            store: Store::new(clock.clone()),
            repos: Repos::new(
                git,
                config.charts.clone(),
                knobs,
                clock.clone(),
                config.revision_cache.min(config.poll_interval),
            ),
            clock: clock.clone(),
            cluster,
            tokens: token::Tokens::new(),
            windows: Mutex::default(),
            held: AtomicUsize::new(0),
            processors: Semaphore::new(config.status_processors.max(1)),
            accounts: accounts::Accounts::new(&config.account),
            projects: projects::Projects::new(&config.projects, &config.namespace, &clock.now().to_string()),
            sets: sets::Sets::default(),
            roles: Mutex::default(),
            tasks: tasks.clone(),
            config,
        });
        let watched = shared.clone();
        tasks.spawn(async move {
            while let Some(app) = changed.recv().await {
                if let Some(loops) = watched.store.loops(&app) {
                    loops.ask(Level::Recent);
                }
            }
        });
        let token = accounts::issue(&shared, &shared.config.account, None, None);
        Ok(Self {
            server: bound.serve(api::router(shared.clone())),
            shared,
            token,
            _work: tasks.guard(),
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The base URL, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// A token of the configured account that may do everything and does not expire.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// A token of an account, with a lifetime in whole seconds.
    pub fn account_token(&self, account: &str, lifetime: Duration) -> Secret {
        accounts::issue(&self.shared, account, Some(lifetime), None)
    }

    /// A token of the issuer that a Dex connector trusts, with a lifetime in whole seconds: what a CI job would have to
    /// exchange. `None` where there is no such connector.
    pub fn subject_token(&self, connector: &str, user: &str, lifetime: Duration) -> Option<Secret> {
        let mut connectors = self.shared.config.dex_connectors.iter();
        let connector = connectors.find(|known| known.id == connector)?;
        Some(connector.issue(user, self.shared.clock.now(), lifetime))
    }

    /// A token of a project role that may do these actions (`get`, `sync`, `action/*`, …) on the project's Applications;
    /// `logs` lets it read their logs.
    pub fn project_token(&self, project: &str, role: &str, actions: &[&str]) -> Secret {
        let subject = format!("proj:{project}:{role}");
        let token = self
            .shared
            .tokens
            .mint(&subject, None, self.shared.clock.now(), None)
            .0;
        let mut roles = self.shared.roles.lock().unwrap_or_else(PoisonError::into_inner);
        roles.insert(subject, actions.iter().map(|&action| action.to_owned()).collect());
        token
    }

    /// Every Application as JSON, by name.
    pub fn applications(&self) -> Vec<Value> {
        let apps = self.shared.store.all();
        apps.iter()
            .filter_map(|app| serde_json::to_value(&**app).ok())
            .collect()
    }

    /// One Application as JSON.
    pub fn application(&self, name: &str) -> Option<Value> {
        serde_json::to_value(&*self.shared.store.get(name)?).ok()
    }

    /// The cluster that it delivers to.
    pub fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    /// The ways in which it can be made to misbehave.
    pub fn knobs(&self) -> &Knobs {
        &self.shared.knobs
    }

    /// How many comparisons are held now, by [`KnobSettings::hold_comparisons`].
    pub fn held_comparisons(&self) -> usize {
        self.shared.held.load(Ordering::SeqCst)
    }

    /// Puts the clock of Argo CD and its cluster forward: polls, pauses, grace periods, windows and lifetimes pass. What
    /// really has to be done, such as pulling an image or running `git`, takes the time that it takes.
    ///
    /// ```
    /// # async fn f() -> Result<(), towpath_lab::LabError> {
    /// # use towpath_lab::argocd::{ArgoCd, ArgoCdConfig};
    /// let argocd = ArgoCd::start(ArgoCdConfig::default()).await?;
    /// // The next poll of the repositories is due at once.
    /// argocd.advance(ArgoCdConfig::default().poll_interval);
    /// # Ok(()) }
    /// ```
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
    }

    /// The time by that clock.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.precise()
    }

    /// Gives a project these sync windows, in place of those that it had.
    pub fn set_sync_windows(&self, project: &str, windows: Vec<SyncWindow>) {
        let mut all = self.shared.windows.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(project.to_owned(), windows);
        drop(all);
        // Operations that a window holds look again.
        self.shared.knobs.set(|_| {});
    }

    /// What it was asked so far.
    pub fn requests(&self) -> &RequestLog {
        self.server.log()
    }

    /// The faults in front of it.
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }
}
