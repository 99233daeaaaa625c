//! Everything a Spacelift account knows: stacks, runs, worker pools, dependencies.

use super::config::{PoolSeed, SpaceliftConfig, StackSeed};
use super::run::{Commit, Environment, Run, RunState};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// The account. All of it stands behind one lock; nothing here waits or does I/O.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) stacks: Vec<Stack>,
    /// Oldest first.
    pub(super) runs: Vec<Run>,
    pub(super) pools: Vec<Pool>,
    pub(super) public: Pool,
    pub(super) dependencies: Vec<Dependency>,
    /// External dependencies that were marked, with `FINISHED`, `FAILED` or `SKIPPED`.
    pub(super) external: HashMap<String, String>,
    /// Stacks whose blocker ended, and when they are free again.
    pub(super) releases: Vec<(Instant, String)>,
    pub(super) release_delay: Duration,
    /// Transitions that the outside has not been told about: run id and version.
    pub(super) news: Vec<(String, i64)>,
}

/// A stack as the lab knows it.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    /// The slug.
    pub id: String,
    /// The name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Labels.
    pub labels: Vec<String>,
    /// `owner/name` of the repository.
    pub repository: String,
    /// The tracked branch.
    pub branch: String,
    /// The folder, without slashes at its ends; empty for the top.
    pub project_root: String,
    /// The worker pool; `None` for the public one.
    pub worker_pool: Option<String>,
    /// Whether changes are applied without asking.
    pub autodeploy: bool,
    /// Whether it may manage other stacks; shown, without further effect here.
    pub administrative: bool,
    /// Whether proposed runs can be promoted.
    pub promotion: bool,
    /// Whether sensitive outputs are handed to dependents.
    pub sensitive_outputs: bool,
    /// Whether new runs are refused.
    pub disabled: bool,
    /// Who locked it, when (Unix seconds) and why.
    pub lock: Option<(String, i64, Option<String>)>,
    /// The commit that tracked runs use.
    pub tracked_commit: Option<Commit>,
    /// The run that holds the stack.
    pub blocker: Option<String>,
    /// Environment of every run.
    pub environment: Environment,
    /// What the last apply left behind.
    pub applied: Applied,
    pub(super) config: Vec<ConfigElement>,
    pub(super) webhooks: Vec<Webhook>,
    pub(super) approval: bool,
    pub(super) external: Vec<String>,
    pub(super) created_at: i64,
}

/// What a stack's state file says.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Applied {
    /// The resources, in order of address.
    pub resources: Vec<AppliedResource>,
    /// The outputs by name.
    pub outputs: BTreeMap<String, Output>,
}

/// One applied resource.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AppliedResource {
    /// The address, such as `terraform_data.queue`.
    pub address: String,
    /// The type, such as `terraform_data`.
    pub kind: String,
    /// The attributes as the state file has them.
    pub values: serde_json::Value,
}

/// An output of a stack.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Output {
    /// Its value.
    pub value: serde_json::Value,
    /// Whether it must not be shown.
    pub sensitive: bool,
}

/// An element of a stack's environment as the API knows it.
#[derive(Clone, Debug)]
pub(super) struct ConfigElement {
    pub(super) id: String,
    pub(super) write_only: bool,
    pub(super) description: Option<String>,
    pub(super) created_at: i64,
}

/// Where a stack's run states are sent.
#[derive(Clone)]
pub(super) struct Webhook {
    pub(super) id: String,
    pub(super) endpoint: String,
    pub(super) enabled: bool,
    pub(super) secret: towpath_core::Secret,
}

/// A worker pool as the lab knows it.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// The id.
    pub id: String,
    /// The name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Labels.
    pub labels: Vec<String>,
    /// Its workers.
    pub workers: Vec<Worker>,
    /// Whether its workers take no runs for now.
    pub paused: bool,
    pub(super) created_at: i64,
}

/// A worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The id.
    pub id: String,
    /// The run it works on.
    pub run: Option<String>,
    /// Whether it takes no more runs.
    pub drained: bool,
    pub(super) created_at: i64,
}

/// That one stack depends on another.
#[derive(Clone, Debug)]
pub(super) struct Dependency {
    pub(super) id: String,
    pub(super) stack: String,
    pub(super) depends_on: String,
    pub(super) trigger_always: bool,
    pub(super) references: Vec<Reference>,
}

/// An output that is handed over as an environment variable.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) id: String,
    pub(super) output: String,
    pub(super) input: String,
    pub(super) trigger_always: bool,
    /// The value that the last run of the dependent stack saw.
    pub(super) delivered: Option<serde_json::Value>,
}

impl World {
    pub(super) fn new(config: &SpaceliftConfig) -> Self {
        let pool = |seed: &PoolSeed| Pool {
            id: seed.id.clone(),
            name: seed.id.clone(),
            workers: (0..seed.workers).map(|_| Worker::new()).collect(),
            created_at: now(),
            ..Pool::default()
        };
        let dependency = |stack: &StackSeed| {
            let id = stack.id.clone();
            stack.depends_on.clone().into_iter().map(move |on| {
                let references = on.references.into_iter();
                Dependency {
                    id: ulid(),
                    stack: id.clone(),
                    depends_on: on.stack,
                    trigger_always: on.trigger_always,
                    references: references
                        .map(|(output, input)| Reference::new(output, input, false))
                        .collect(),
                }
            })
        };
        Self {
            stacks: config.stacks.iter().map(Stack::from_seed).collect(),
            pools: config.worker_pools.iter().map(pool).collect(),
            public: pool(&PoolSeed::new("public", config.public_workers)),
            dependencies: config.stacks.iter().flat_map(dependency).collect(),
            release_delay: config.delays.blocker_release,
            ..Self::default()
        }
    }

    pub(super) fn stack(&self, id: &str) -> Option<&Stack> {
        self.stacks.iter().find(|stack| stack.id == id)
    }

    pub(super) fn stack_mut(&mut self, id: &str) -> Option<&mut Stack> {
        self.stacks.iter_mut().find(|stack| stack.id == id)
    }

    pub(super) fn run(&self, id: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == id)
    }

    pub(super) fn run_mut(&mut self, id: &str) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.id == id)
    }

    /// The pool with this id; `None` asks for the public one.
    pub(super) fn pool(&self, id: Option<&str>) -> Option<&Pool> {
        match id {
            None => Some(&self.public),
            Some(id) => self.pools.iter().find(|pool| pool.id == id),
        }
    }

    pub(super) fn pool_mut(&mut self, id: Option<&str>) -> Option<&mut Pool> {
        match id {
            None => Some(&mut self.public),
            Some(id) => self.pools.iter_mut().find(|pool| pool.id == id),
        }
    }

    /// The runs that wait for a worker of this pool, the one to be taken first in front: blocking runs go first.
    pub(super) fn schedulable(&self, pool: Option<&str>) -> Vec<&Run> {
        let waits = |run: &&Run| {
            matches!(
                run.state(),
                RunState::Ready | RunState::Confirmed | RunState::ReplanRequested
            ) && self
                .stack(&run.stack)
                .is_some_and(|stack| stack.worker_pool.as_deref() == pool)
        };
        let mut runs: Vec<&Run> = self.runs.iter().filter(waits).collect();
        runs.sort_by_key(|run| !run.kind.is_blocking());
        runs
    }

    /// Whether a stack depends on another one, directly or through others.
    pub(super) fn depends(&self, stack: &str, on: &str) -> bool {
        stack == on
            || self
                .dependencies
                .iter()
                .filter(|edge| edge.stack == stack)
                .any(|edge| self.depends(&edge.depends_on, on))
    }
}

impl Stack {
    fn from_seed(seed: &StackSeed) -> Self {
        let mut stack = Self {
            id: seed.id.clone(),
            name: seed.name.clone(),
            labels: seed.labels.clone(),
            repository: seed.repository.clone(),
            branch: seed.branch.clone(),
            project_root: seed.project_root.trim_matches('/').to_owned(),
            worker_pool: seed.worker_pool.clone(),
            autodeploy: seed.autodeploy,
            promotion: true,
            approval: seed.approval,
            external: seed.external_dependencies.clone(),
            created_at: now(),
            ..Self::default()
        };
        for (name, value) in &seed.environment {
            stack.set_environment(name, value, false, None);
        }
        stack
    }

    /// Adds or replaces an environment variable; says what the API shows of it.
    pub(super) fn set_environment(
        &mut self,
        name: &str,
        value: &str,
        write_only: bool,
        description: Option<String>,
    ) -> ConfigElement {
        let element = ConfigElement {
            id: name.to_owned(),
            write_only,
            description,
            created_at: now(),
        };
        self.environment.0.insert(name.to_owned(), value.to_owned());
        self.config.retain(|old| old.id != name);
        self.config.push(element.clone());
        element
    }

    /// Whether a file of the repository is in the stack's folder.
    pub(super) fn covers(&self, file: &str) -> bool {
        self.project_root.is_empty()
            || file
                .strip_prefix(&self.project_root)
                .is_some_and(|rest| rest.starts_with('/'))
    }
}

impl Reference {
    pub(super) fn new(output: String, input: String, trigger_always: bool) -> Self {
        Self {
            id: ulid(),
            output,
            input,
            trigger_always,
            delivered: None,
        }
    }
}

impl Worker {
    pub(super) fn new() -> Self {
        Self {
            id: ulid(),
            run: None,
            drained: false,
            created_at: now(),
        }
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Now, in Unix seconds.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A new id in the form Spacelift uses: 48 bits of milliseconds and 80 random ones in Crockford's base 32.
pub(super) fn ulid() -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let milliseconds = u128::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let random = uuid::Uuid::new_v4().as_u128() & ((1 << 80) - 1);
    let value = (milliseconds << 80) | random;
    (0..26)
        .rev()
        .map(|digit| char::from(DIGITS[usize::try_from((value >> (digit * 5)) & 31).unwrap_or_default()]))
        .collect()
}
