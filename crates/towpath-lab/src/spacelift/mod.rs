//! Spacelift: its GraphQL API, its webhook endpoint for GitHub, its run state machine, and workers that really clone,
//! plan and apply.
//!
//! Every GraphQL document is parsed and validated against `schema.graphql`, which says where each field is known from.
//! What the lab does not implement answers a GraphQL error that says so. Runs follow Spacelift's documented states;
//! workers use `terraform` or `tofu` from the `PATH`, else a small built-in planner that knows `terraform_data`.

mod auth;
mod config;
mod engine;
mod git;
mod graphql;
mod http;
mod machine;
mod mutation;
mod outbox;
mod people;
mod planner;
mod push;
mod query;
mod run;
mod state_file;
mod worker;
mod world;

pub use config::{Delays, DependencySeed, Planner, PoolSeed, SpaceliftConfig, StackSeed};
pub use run::{
    Change, Commit, Delta, Environment, ForceApply, Plan, Review, Run, RunState, RunType, Transition,
};
pub use world::{Applied, AppliedResource, Output, Pool, Stack, Worker as PoolWorker};

use crate::server::{Bound, Server};
use crate::{Faults, LabError, RequestLog};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use url::Url;
use world::World;

/// A Spacelift account on loopback. It serves until it is dropped.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use towpath_lab::spacelift::{Spacelift, SpaceliftConfig, StackSeed};
/// let config = SpaceliftConfig {
///     stacks: vec![StackSeed::new("network", "acme/infra").with_worker_pool("shared-services")],
///     ..SpaceliftConfig::default()
/// };
/// let spacelift = Spacelift::start(config).await?;
/// assert_eq!(spacelift.stacks()[0].id, "network");
/// # Ok::<(), towpath_lab::LabError>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Spacelift {
    shared: Arc<Shared>,
    server: Server,
    url: Url,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

/// What the server, the workers and the scheduler share.
#[derive(Debug)]
struct Shared {
    config: SpaceliftConfig,
    world: Mutex<World>,
    auth: auth::Tokens,
    engine: engine::Engine,
    git: git::Git,
    folder: tempfile::TempDir,
    /// Ticks whenever the world changes.
    changed: watch::Sender<()>,
    news: mpsc::UnboundedSender<outbox::News>,
}

impl Spacelift {
    /// Takes a port, starts the workers, and serves. Fails where the port is taken or no folder can be made.
    pub async fn start(config: SpaceliftConfig) -> Result<Self, LabError> {
        let bound = Bound::new("Spacelift", config.port).await?;
        let address = bound.address();
        let made = |source| LabError::File {
            action: "make a folder in",
            path: std::env::temp_dir(),
            source,
        };
        let folder = tempfile::tempdir().map_err(made)?;
        for name in ["runs", "states"] {
            std::fs::create_dir(folder.path().join(name)).map_err(made)?;
        }
        let (news, outgoing) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            world: Mutex::new(World::new(&config)),
            auth: auth::Tokens::new(address.to_string()),
            engine: engine::Engine::find(config.planner),
            git: git::Git::new(&config),
            folder,
            changed: watch::Sender::new(()),
            news,
            config,
        });
        let server = bound.serve(http::router(Arc::clone(&shared)));
        let url =
            Url::parse(&format!("http://{}/", server.address())).map_err(|error| LabError::Program {
                program: "Spacelift",
                reason: format!("cannot name its own address: {error}"),
            })?;
        let mut tasks = vec![
            spawn(schedule(Arc::clone(&shared))),
            spawn(outbox::deliver(Arc::clone(&shared), outgoing)),
        ];
        let workers = shared.read(|world| {
            let private = world.pools.iter().map(|pool| (Some(pool.id.clone()), pool));
            let pools = private.chain([(None, &world.public)]);
            let workers =
                pools.flat_map(|(id, pool)| pool.workers.iter().map(move |w| (id.clone(), w.id.clone())));
            workers.collect::<Vec<_>>()
        });
        for (pool, worker) in workers {
            tasks.push(spawn(worker::work(Arc::clone(&shared), pool, worker)));
        }
        Ok(Self {
            shared,
            server,
            url,
            tasks: Mutex::new(tasks),
        })
    }

    /// The account's base URL: clients append `graphql`. GitHub's webhook goes to `webhooks/github` under it.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// What was asked of it, over HTTP.
    pub fn requests(&self) -> &RequestLog {
        self.server.log()
    }

    /// The faults that a test scripts.
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    /// The stacks.
    pub fn stacks(&self) -> Vec<Stack> {
        self.shared.read(|world| world.stacks.clone())
    }

    /// One stack, where there is one with this slug.
    pub fn stack(&self, id: &str) -> Option<Stack> {
        self.shared.read(|world| world.stack(id).cloned())
    }

    /// All runs, oldest first, with their histories, plans and logs.
    pub fn runs(&self) -> Vec<Run> {
        self.shared.read(|world| world.runs.clone())
    }

    /// The runs of one stack, oldest first.
    pub fn runs_of(&self, stack: &str) -> Vec<Run> {
        let mut runs = self.runs();
        runs.retain(|run| run.stack == stack);
        runs
    }

    /// The private worker pools with their workers.
    pub fn worker_pools(&self) -> Vec<Pool> {
        self.shared.read(|world| world.pools.clone())
    }

    /// Ends every token now: what clients then see is what Spacelift answers to an expired one.
    pub fn expire_tokens(&self) {
        self.shared.auth.expire_all();
    }

    /// Sets whether the workers of a pool take runs. Those they already have, they finish. Says whether the pool exists.
    pub fn pause_workers(&self, pool: &str, paused: bool) -> bool {
        self.shared.update(|world| {
            let found = world.pool_mut(Some(pool));
            found.map(|pool| pool.paused = paused).is_some()
        })
    }

    /// Connects one more worker to a private pool, as a launcher with the pool's token would; says its id.
    pub fn add_worker(&self, pool: &str) -> Option<String> {
        let worker = world::Worker::new();
        let id = worker.id.clone();
        self.shared
            .update(|world| world.pool_mut(Some(pool)).map(|pool| pool.workers.push(worker)))?;
        let task = spawn(worker::work(
            Arc::clone(&self.shared),
            Some(pool.to_owned()),
            id.clone(),
        ));
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(task);
        Some(id)
    }

    /// Sets a variable in a stack's environment, as somebody in the web interface would. The next plan sees it.
    pub fn set_environment(&self, stack: &str, name: &str, value: &str) -> bool {
        self.shared.update(|world| {
            let stack = world.stack_mut(stack);
            stack
                .map(|stack| stack.set_environment(name, value, false, None))
                .is_some()
        })
    }

    /// Has a waiting run planned again, for these resource addresses or, with none, for everything: what was approved is
    /// then another plan. The error is the API's message.
    pub fn replan(&self, stack: &str, run: &str, targets: &[&str]) -> Result<(), String> {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        let by = "somebody-else";
        self.shared
            .update(|world| world.replan(stack, run, targets, by).map(drop))
    }

    /// Locks a stack as somebody else; `None` unlocks it whoever locked it.
    pub fn lock(&self, stack: &str, by: Option<&str>) -> bool {
        self.shared.update(|world| {
            let lock = by.map(|by| (by.to_owned(), world::now(), None));
            world.stack_mut(stack).map(|stack| stack.lock = lock).is_some()
        })
    }
}

impl Shared {
    /// Looks at the world.
    fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the world and tells everybody who waits for a change.
    fn update<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let (answer, news) = {
            let mut world = self.lock();
            (change(&mut world), std::mem::take(&mut world.news))
        };
        self.announce(news);
        answer
    }

    /// Like `update`, but where `change` did nothing, nobody is told.
    fn update_if<T>(&self, change: impl FnOnce(&mut World) -> Option<T>) -> Option<T> {
        let (answer, news) = {
            let mut world = self.lock();
            (change(&mut world)?, std::mem::take(&mut world.news))
        };
        self.announce(news);
        Some(answer)
    }

    fn announce(&self, news: Vec<(String, i64)>) {
        for (run, version) in news {
            // The receiver only goes away with the whole lab.
            self.news.send((run, version)).ok();
        }
        self.changed.send_replace(());
    }

    fn enter(&self, run: &str, state: RunState) {
        self.update(|world| world.transition(run, state, None, None));
    }

    fn log(&self, run: &str, line: &str) {
        self.update(|world| world.log(run, line));
    }

    fn run_folder(&self, run: &str) -> PathBuf {
        self.folder.path().join("runs").join(run)
    }

    fn state_file(&self, stack: &str) -> PathBuf {
        self.folder.path().join("states").join(format!("{stack}.tfstate"))
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the steps that nobody asks for, as soon as they are due.
async fn schedule(shared: Arc<Shared>) {
    let mut changes = shared.changed.subscribe();
    loop {
        changes.mark_unchanged();
        let mut next = None;
        shared.update_if(|world| {
            let (moved, due) = world.settle(Instant::now());
            next = due;
            moved.then_some(())
        });
        let wait = next.map_or(Duration::from_secs(60), |due| {
            due.saturating_duration_since(Instant::now())
        });
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}
