//! The Applications, their resource versions, and the events that every change gives rise to.

use super::clock::Clock;
use super::model::Application;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

/// The slots of a subscriber (`ARGOCD_WATCH_API_BUFFER_SIZE`); what does not fit is dropped without a word.
const WATCH_BUFFER: usize = 1000;

/// How closely the controller looks, by `CompareWith` of the real one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Nothing,
    /// Compare with the revision that was compared last.
    Recent,
    /// Compare with the newest revision, which may come from a cache.
    Latest,
    /// Resolve the revision again, whatever the cache says.
    ForceResolve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One event of the watch.
#[derive(Clone, Debug)]
pub(super) struct WatchEvent {
    pub(super) change: Change,
    pub(super) app: Arc<Application>,
}

/// What the API, the webhook and the cluster tell the two loops of one Application.
#[derive(Debug, Default)]
pub(super) struct Loops {
    /// There is something to compare.
    pub(super) compare: Notify,
    /// There is an operation to run.
    pub(super) operate: Notify,
    /// The operation is to end.
    pub(super) terminate: Notify,
    pub(super) pending: Mutex<Pending>,
}

/// What the compare loop is to do, and when at the earliest.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) level: Level,
    pub(super) not_before: Option<Instant>,
    pub(super) first_repo_error: Option<Instant>,
    pub(super) last_heal: Option<Instant>,
}

impl Loops {
    pub(super) fn ask(&self, level: Level) {
        let mut pending = self.pending();
        pending.level = pending.level.max(level);
        self.compare.notify_one();
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Entry {
    app: Arc<Application>,
    loops: Arc<Loops>,
    _work: Option<DropGuard>,
}

#[derive(Debug)]
pub(super) struct Store {
    clock: Clock,
    state: Mutex<State>,
    events: broadcast::Sender<WatchEvent>,
}

#[derive(Debug)]
struct State {
    entries: BTreeMap<String, Entry>,
    version: u64,
}

impl Store {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Mutex::new(State {
                entries: BTreeMap::new(),
                version: 1000,
            }),
            events: broadcast::Sender::new(WATCH_BUFFER),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Application>> {
        self.lock().entries.get(name).map(|entry| entry.app.clone())
    }

    pub(super) fn all(&self) -> Vec<Arc<Application>> {
        self.lock()
            .entries
            .values()
            .map(|entry| entry.app.clone())
            .collect()
    }

    pub(super) fn loops(&self, name: &str) -> Option<Arc<Loops>> {
        self.lock().entries.get(name).map(|entry| entry.loops.clone())
    }

    /// The resource version of a list taken now.
    pub(super) fn version(&self) -> u64 {
        self.lock().version
    }

    /// What there is now, and every event from here on, with nothing between the two.
    pub(super) fn watch(&self) -> (Vec<Arc<Application>>, broadcast::Receiver<WatchEvent>) {
        let state = self.lock();
        let now = state.entries.values().map(|entry| entry.app.clone()).collect();
        (now, self.events.subscribe())
    }

    /// Adds an Application, unless one of that name is there; `work` starts what works on it.
    pub(super) fn insert(
        &self,
        mut app: Application,
        work: impl FnOnce(Arc<Loops>) -> DropGuard,
    ) -> Result<Arc<Application>, Arc<Application>> {
        let mut state = self.lock();
        let name = app.metadata.name.clone();
        if let Some(existing) = state.entries.get(&name) {
            return Err(existing.app.clone());
        }
        state.version += 1;
        app.metadata.uid = uuid::Uuid::new_v4().to_string();
        app.metadata.creation_timestamp = Some(self.clock.now().to_string());
        app.metadata.generation = 1;
        app.metadata.resource_version = state.version.to_string();
        let app = Arc::new(app);
        let loops = Arc::new(Loops::default());
        let entry = Entry {
            app: app.clone(),
            loops: loops.clone(),
            _work: Some(work(loops)),
        };
        state.entries.insert(name, entry);
        self.tell(Change::Added, &app);
        Ok(app)
    }

    /// Changes an Application and answers what `change` answers; without a difference there is no new version and
    /// no event. `None` where there is no such Application.
    pub(super) fn update<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Application) -> T,
    ) -> Option<(T, Arc<Application>)> {
        let mut state = self.lock();
        let next = state.version + 1;
        let entry = state.entries.get_mut(name)?;
        let mut app = Application::clone(&entry.app);
        let answer = change(&mut app);
        if app == *entry.app {
            return Some((answer, entry.app.clone()));
        }
        app.metadata.resource_version = next.to_string();
        app.metadata.generation += 1;
        entry.app = Arc::new(app);
        let app = entry.app.clone();
        state.version = next;
        self.tell(Change::Modified, &app);
        Some((answer, app))
    }

    /// Takes an Application away, and ends the work on it.
    pub(super) fn remove(&self, name: &str) {
        let mut state = self.lock();
        if let Some(entry) = state.entries.remove(name) {
            state.version += 1;
            let mut app = Application::clone(&entry.app);
            app.metadata.resource_version = state.version.to_string();
            self.tell(Change::Deleted, &Arc::new(app));
        }
    }

    fn tell(&self, change: Change, app: &Arc<Application>) {
        let event = WatchEvent {
            change,
            app: app.clone(),
        };
        // Nobody may be watching.
        let _ = self.events.send(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
