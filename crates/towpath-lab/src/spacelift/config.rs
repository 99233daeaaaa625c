//! What a lab's Spacelift is started with.

use std::time::Duration;
use towpath_core::Secret;
use url::Url;

/// How to start [`Spacelift`](super::Spacelift). The default has two private worker pools, `shared-services` and `apps`,
/// no stacks, and random secrets.
#[derive(Clone, Debug)]
pub struct SpaceliftConfig {
    /// The port on 127.0.0.1; 0 takes any free one.
    pub port: u16,
    /// The id of the one API key.
    pub api_key_id: String,
    /// The secret of the API key.
    pub api_key_secret: Secret,
    /// How long a token lives after the exchange.
    pub token_lifetime: Duration,
    /// Where repositories are cloned from: `{git_base}/{owner}/{name}.git`. `http`, `https` and `file` URLs work.
    pub git_base: Option<Url>,
    /// User name and password for git over HTTP.
    pub git_credentials: Option<(String, Secret)>,
    /// The secret that GitHub signs its webhooks with.
    pub webhook_secret: Secret,
    /// GitHub's REST base and a token; with it, every run is reported as a check run.
    pub github_api: Option<(Url, Secret)>,
    /// The stacks that exist from the start.
    pub stacks: Vec<StackSeed>,
    /// The private worker pools that exist from the start.
    pub worker_pools: Vec<PoolSeed>,
    /// How many workers the public pool has; they take the runs of stacks without a pool.
    pub public_workers: usize,
    /// What workers plan and apply with.
    pub planner: Planner,
    /// How long things take beyond the work itself.
    pub delays: Delays,
    /// How many lines a page of logs has at most.
    pub log_page: usize,
    /// How many runs a page of `stack.runs` has at most.
    pub run_page: usize,
}

/// A stack that exists from the start.
#[derive(Clone, Debug, Default)]
pub struct StackSeed {
    /// The slug.
    pub id: String,
    /// The name shown to people.
    pub name: String,
    /// `owner/name` of the repository.
    pub repository: String,
    /// The tracked branch.
    pub branch: String,
    /// The folder in the repository, such as `infra/apps`; empty for the top.
    pub project_root: String,
    /// The id of its worker pool; `None` for the public pool.
    pub worker_pool: Option<String>,
    /// Whether a tracked run with changes is applied without asking.
    pub autodeploy: bool,
    /// Whether an approval policy is attached: a run at UNCONFIRMED then needs an approving review first.
    pub approval: bool,
    /// Labels.
    pub labels: Vec<String>,
    /// The stacks this one depends on.
    pub depends_on: Vec<DependencySeed>,
    /// External dependencies of runs that a push starts, as a push policy would name them. `{sha}` stands for the
    /// pushed commit.
    pub external_dependencies: Vec<String>,
    /// Environment of every run, such as `TF_VAR_size`.
    pub environment: Vec<(String, String)>,
}

/// A dependency of a stack on another one.
#[derive(Clone, Debug, Default)]
pub struct DependencySeed {
    /// The stack depended on.
    pub stack: String,
    /// Outputs that are handed over: name of the output, name of the environment variable.
    pub references: Vec<(String, String)>,
    /// Whether a run follows even where no referenced output changed.
    pub trigger_always: bool,
}

/// A private worker pool that exists from the start.
#[derive(Clone, Debug)]
pub struct PoolSeed {
    /// The id, which is also the name.
    pub id: String,
    /// How many workers are connected.
    pub workers: usize,
}

/// What workers plan and apply with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Planner {
    /// `terraform`, else `tofu`, where one is on the `PATH`; else the built-in planner.
    #[default]
    FromPath,
    /// The built-in planner, which knows `terraform_data`, variables and outputs.
    BuiltIn,
}

/// How long things take beyond the work itself.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// Before a worker starts on a run it took.
    pub pickup: Duration,
    /// At the start of each phase of a run.
    pub phase: Duration,
    /// Between the end of a blocking run and its stack being free for the next.
    pub blocker_release: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            pickup: Duration::from_millis(10),
            phase: Duration::from_millis(10),
            blocker_release: Duration::from_millis(30),
        }
    }
}

impl PoolSeed {
    /// A pool with so many workers.
    pub fn new(id: impl Into<String>, workers: usize) -> Self {
        Self {
            id: id.into(),
            workers,
        }
    }
}

impl StackSeed {
    /// A stack on branch `main`, at the top of the repository, on the public pool, that asks before it applies.
    pub fn new(id: impl Into<String>, repository: impl Into<String>) -> Self {
        let id = id.into();
        Self {
            name: id.clone(),
            id,
            repository: repository.into(),
            branch: "main".into(),
            ..Self::default()
        }
    }

    /// Sets the folder.
    #[must_use]
    pub fn with_project_root(mut self, folder: impl Into<String>) -> Self {
        self.project_root = folder.into();
        self
    }

    /// Sets the worker pool.
    #[must_use]
    pub fn with_worker_pool(mut self, pool: impl Into<String>) -> Self {
        self.worker_pool = Some(pool.into());
        self
    }

    /// Applies without asking.
    #[must_use]
    pub fn with_autodeploy(mut self) -> Self {
        self.autodeploy = true;
        self
    }

    /// Adds a dependency without references: a run of this stack always follows.
    #[must_use]
    pub fn with_dependency(mut self, stack: impl Into<String>) -> Self {
        self.depends_on.push(DependencySeed {
            stack: stack.into(),
            ..DependencySeed::default()
        });
        self
    }

    /// Adds a dependency that hands over one output.
    #[must_use]
    pub fn with_reference(
        mut self,
        stack: impl Into<String>,
        output: impl Into<String>,
        variable: impl Into<String>,
    ) -> Self {
        self.depends_on.push(DependencySeed {
            stack: stack.into(),
            references: vec![(output.into(), variable.into())],
            trigger_always: false,
        });
        self
    }
}

impl Default for SpaceliftConfig {
    fn default() -> Self {
        Self {
            port: 0,
            api_key_id: super::world::ulid(),
            api_key_secret: Secret::new(uuid::Uuid::new_v4().simple().to_string()),
            token_lifetime: Duration::from_secs(36_000),
            git_base: None,
            git_credentials: None,
            webhook_secret: Secret::new(uuid::Uuid::new_v4().simple().to_string()),
            github_api: None,
            stacks: Vec::new(),
            worker_pools: vec![PoolSeed::new("shared-services", 1), PoolSeed::new("apps", 2)],
            public_workers: 1,
            planner: Planner::FromPath,
            delays: Delays::default(),
            log_page: 100,
            run_page: 50,
        }
    }
}
