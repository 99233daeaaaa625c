//! The Applications, their resource versions, and the events that every change gives rise to.

use super::clock::{Clock, Moment};
use super::controller::Verdict;
use super::model::Application;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::DropGuard;

/// The slots of a subscriber (`ARGOCD_WATCH_API_BUFFER_SIZE`); what does not fit is dropped without a word.
pub(super) const WATCH_BUFFER: usize = 1000;

/// How many changes a cache can lag behind at most.
const PAST: usize = 1000;

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

impl Change {
    /// As the watch calls it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One event of the watch.
#[derive(Clone, Debug)]
pub(super) struct WatchEvent {
    pub(super) change: Change,
    pub(super) app: Arc<Application>,
    pub(super) at: Moment,
    /// What was there before.
    before: Option<Arc<Application>>,
}

/// The Applications as an informer's cache has them, which may lag behind.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) apps: Vec<Arc<Application>>,
    pub(super) version: u64,
    /// What has happened since, oldest first.
    pub(super) since: Vec<WatchEvent>,
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
    pub(super) not_before: Option<Moment>,
    pub(super) first_repo_error: Option<Moment>,
    pub(super) last_heal: Option<Moment>,
    /// The health is bad for a while.
    pub(super) flapping: bool,
    /// A comparison that began before the operation that is going on.
    pub(super) early: Option<Verdict>,
}

impl WatchEvent {
    /// What a cache has tells itself at once.
    pub(super) fn present(app: &Arc<Application>) -> Self {
        Self {
            change: Change::Added,
            app: app.clone(),
            at: Moment::default(),
            before: None,
        }
    }

    /// When a cache that lags knows of it.
    pub(super) fn known_at(&self, lag: Duration) -> Moment {
        match self.at == Moment::default() {
            true => self.at,
            false => self.at + lag,
        }
    }
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
    /// The last events, oldest first, for caches that lag.
    past: VecDeque<WatchEvent>,
}

impl Store {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Mutex::new(State {
                entries: BTreeMap::new(),
                version: 1000,
                past: VecDeque::new(),
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

    /// A new version, for what is not an Application: the cluster counts all its resources together.
    pub(super) fn next_version(&self) -> u64 {
        let mut state = self.lock();
        state.version += 1;
        state.version
    }

    pub(super) fn loops(&self, name: &str) -> Option<Arc<Loops>> {
        self.lock().entries.get(name).map(|entry| entry.loops.clone())
    }

    /// What a cache has that lags by this much.
    pub(super) fn cached(&self, lag: Duration) -> Cached {
        self.cached_by(&self.lock(), lag)
    }

    fn cached_by(&self, state: &State, lag: Duration) -> Cached {
        let mut apps: BTreeMap<&str, Arc<Application>> = state
            .entries
            .iter()
            .map(|(name, entry)| (name.as_str(), entry.app.clone()))
            .collect();
        let young = |event: &&WatchEvent| self.clock.since(event.at) < lag;
        let mut since: Vec<WatchEvent> = state.past.iter().rev().take_while(young).cloned().collect();
        for event in &since {
            let name = event.app.metadata.name.as_str();
            match &event.before {
                Some(before) => apps.insert(name, before.clone()),
                None => apps.remove(name),
            };
        }
        let apps = apps.into_values().collect();
        let oldest = since.last().and_then(|event| event.app.version());
        since.reverse();
        Cached {
            apps,
            version: oldest.map_or(state.version, |version| version.saturating_sub(1)),
            since,
        }
    }

    /// What a cache has that lags by this much, and every event from now on, with nothing between the two.
    pub(super) fn watch(&self, lag: Duration) -> (Cached, broadcast::Receiver<WatchEvent>) {
        let state = self.lock();
        (self.cached_by(&state, lag), self.events.subscribe())
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
        self.tell(&mut state, Change::Added, &app, None);
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
        let app = Arc::new(app);
        let before = std::mem::replace(&mut entry.app, app.clone());
        state.version = next;
        self.tell(&mut state, Change::Modified, &app, Some(before));
        Some((answer, app))
    }

    /// Takes an Application away, and ends the work on it.
    pub(super) fn remove(&self, name: &str) {
        let mut state = self.lock();
        if let Some(entry) = state.entries.remove(name) {
            state.version += 1;
            let mut app = Application::clone(&entry.app);
            app.metadata.resource_version = state.version.to_string();
            self.tell(
                &mut state,
                Change::Deleted,
                &Arc::new(app),
                Some(entry.app.clone()),
            );
        }
    }

    fn tell(
        &self,
        state: &mut State,
        change: Change,
        app: &Arc<Application>,
        before: Option<Arc<Application>>,
    ) {
        let event = WatchEvent {
            change,
            app: app.clone(),
            at: self.clock.moment(),
            before,
        };
        if state.past.len() == PAST {
            state.past.pop_front();
        }
        state.past.push_back(event.clone());
        // Nobody may be watching.
        let _ = self.events.send(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
