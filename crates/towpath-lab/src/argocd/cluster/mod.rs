//! The cluster behind Argo CD: a store of namespaced objects, the Deployment controller, and nodes that really pull.
//!
//! Field names and texts follow the Kubernetes API reference (apps/v1, core/v1). A Pod runs only after its image has
//! arrived from the registry, byte for byte.

mod credentials;
mod health;
mod job;
mod kubelet;
mod object;
mod objects;
mod pull;
mod rollout;

pub use credentials::RegistryAccess;
pub(super) use health::worst;
pub(super) use object::{Key, Object, merge};

use super::clock::Clock;
use super::knobs::Knobs;
use super::tasks::Tasks;
use jiff::Timestamp;
use objects::Objects;
use pull::Puller;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::DropGuard;
use towpath_core::Digest;

/// How many events the cluster keeps.
const EVENTS_KEPT: usize = 1000;

/// The times of the cluster.
#[derive(Clone, Debug)]
pub struct ClusterDelays {
    /// From the last image's arrival until a container runs and is ready.
    pub start: Duration,
    /// The first wait before a failed pull is tried again; it doubles up to [`back_off_cap`](Self::back_off_cap).
    pub back_off: Duration,
    /// The longest wait before a failed pull is tried again.
    pub back_off_cap: Duration,
    /// How long a Job's container works.
    pub job: Duration,
    /// How long a rollout may make no progress before it counts as failed, where the Deployment's
    /// `progressDeadlineSeconds` does not say.
    pub progress_deadline: Duration,
}

impl Default for ClusterDelays {
    fn default() -> Self {
        Self {
            start: Duration::from_millis(20),
            back_off: Duration::from_millis(200),
            back_off_cap: Duration::from_secs(5),
            job: Duration::from_millis(20),
            progress_deadline: Duration::from_secs(2),
        }
    }
}

/// A container that runs, and what exactly it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningContainer {
    /// The namespace.
    pub namespace: String,
    /// The workload that made the Pod, such as the Deployment's name; the Pod's own name where nothing did.
    pub workload: String,
    /// The Pod.
    pub pod: String,
    /// The container within the Pod.
    pub container: String,
    /// The image as the Pod's specification writes it.
    pub image: String,
    /// What the image resolved to when it was pulled: the digest in the status' `imageID`.
    pub image_digest: Digest,
    /// The manifest for the node's platform; the same as `image_digest` where that is no index.
    pub manifest_digest: Digest,
    /// The configuration and the layers that were pulled and verified.
    pub blobs: Vec<Digest>,
    /// When it started.
    pub started_at: Timestamp,
}

/// The cluster. Cheap to clone; every clone is the same cluster.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    knobs: Knobs,
    tasks: Tasks,
    puller: Puller,
    state: Mutex<State>,
    version: watch::Sender<u64>,
    changed_apps: mpsc::UnboundedSender<String>,
}

#[derive(Debug)]
struct State {
    objects: Objects,
    /// Those who are told when an object, or what came of it, changes.
    listeners: BTreeMap<Key, watch::Sender<()>>,
    delays: ClusterDelays,
    events: VecDeque<Event>,
    version: u64,
}

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) object: Key,
    pub(super) uid: String,
    pub(super) app: Option<String>,
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) at: Timestamp,
    pub(super) number: u64,
}

impl Cluster {
    pub(super) fn new(
        access: Vec<RegistryAccess>,
        delays: ClusterDelays,
        clock: Clock,
        knobs: Knobs,
        tasks: Tasks,
    ) -> (Self, mpsc::UnboundedReceiver<String>) {
        let (changed_apps, receiver) = mpsc::unbounded_channel();
        let cluster = Self(Arc::new(Inner {
            puller: Puller::new(access, clock.clone()),
            clock,
            knobs,
            tasks,
            state: Mutex::new(State {
                objects: Objects::default(),
                listeners: BTreeMap::new(),
                delays,
                events: VecDeque::new(),
                version: 1,
            }),
            version: watch::Sender::new(1),
            changed_apps,
        }));
        (cluster, receiver)
    }

    /// Every container that runs now.
    pub fn running(&self) -> Vec<RunningContainer> {
        let state = self.lock();
        state
            .objects
            .all()
            .flat_map(|object| object.running.clone())
            .collect()
    }

    /// The live object, as `kubectl get -o json` shows it.
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.find(kind, namespace, name).map(|object| object.live)
    }

    /// Changes a live object behind Argo CD's back by a JSON merge patch, as `kubectl edit` would. Says whether it
    /// was changed: there must be such an object, and the API server must accept the result.
    pub fn edit(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> bool {
        let Some(before) = self.find(kind, namespace, name) else {
            return false;
        };
        let mut after = before.live;
        object::merge(&mut after, patch);
        if object::validate(&after, &before.key).is_err()
            || Key::of(&after, namespace) != Ok(before.key.clone())
        {
            return false;
        }
        self.update(&before.key, |live| {
            object::merge(live, patch);
            object::bump_generation(live);
        });
        self.control(&before.key);
        true
    }

    /// Deletes a live object behind Argo CD's back, as `kubectl delete` would. Says whether there was one.
    pub fn remove(&self, kind: &str, namespace: &str, name: &str) -> bool {
        self.find(kind, namespace, name)
            .is_some_and(|object| self.delete(&object.key))
    }

    /// Changes the cluster's times from now on.
    pub fn set_delays(&self, change: impl FnOnce(&mut ClusterDelays)) {
        change(&mut self.lock().delays);
    }

    /// Makes the live object what the manifest says, on behalf of an application. Answers `created`, `configured` or
    /// `unchanged`, or the API server's refusal.
    pub(super) fn apply(&self, app: &str, manifest: &Value, key: &Key) -> Result<&'static str, String> {
        object::validate(manifest, key)?;
        let did = {
            let mut state = self.lock();
            state.objects.hand_over(key, app);
            match state.objects.get_mut(key) {
                Some(object) if object.in_sync_with(manifest) => return Ok("unchanged"),
                Some(object) => {
                    object.configure(manifest);
                    "configured"
                }
                None => {
                    let object = Object::create(key.clone(), manifest, Some(app), None, self.0.clock.now());
                    state.objects.insert(object);
                    "created"
                }
            }
        };
        self.changed(key);
        self.control(key);
        Ok(did)
    }

    /// Deletes an object and everything that it owns. Says whether there was one.
    pub(super) fn delete(&self, key: &Key) -> bool {
        let mut state = self.lock();
        let root = state.objects.root(key).map(Root::of);
        let mut gone = vec![key.clone()];
        let mut existed = false;
        while let Some(next) = gone.pop() {
            let owned = state.objects.owned(&next);
            gone.extend(owned.map(|object| object.key.clone()));
            existed |= state.objects.remove(&next).is_some();
            state.listeners.remove(&next);
        }
        if existed {
            self.announce(&state, root);
        }
        existed
    }

    /// The live objects that an application manages directly.
    pub(super) fn managed(&self, app: &str) -> Vec<Object> {
        let state = self.lock();
        state.objects.managed(app).map(Object::seen).collect()
    }

    /// All live objects of an application: the managed ones and what they own.
    pub(super) fn tree(&self, app: &str) -> Vec<Object> {
        let state = self.lock();
        state.objects.tree(app).into_iter().map(Object::seen).collect()
    }

    pub(super) fn get(&self, key: &Key) -> Option<Object> {
        self.lock().objects.get(key).map(Object::seen)
    }

    /// What an object made, as it is now.
    fn owned(&self, owner: &Key) -> Vec<Object> {
        self.lock().objects.owned(owner).map(Object::seen).collect()
    }

    /// Told of every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Told of every change to an object that nothing in the cluster made, and to what came of it; ends with the object.
    fn changes_below(&self, root: &Key) -> Option<watch::Receiver<()>> {
        let mut state = self.lock();
        state.objects.get(root)?;
        let listeners = state.listeners.entry(root.clone()).or_default();
        Some(listeners.subscribe())
    }

    /// The events of an application's objects, oldest first.
    pub(super) fn events(&self, app: &str) -> Vec<Event> {
        let state = self.lock();
        let events = state
            .events
            .iter()
            .filter(|event| event.app.as_deref() == Some(app));
        events.cloned().collect()
    }

    pub(super) fn record(&self, key: &Key, warning: bool, reason: &'static str, message: String) {
        let mut state = self.lock();
        let app = state.objects.root(key).and_then(|root| root.app.clone());
        let uid = state.objects.get(key).map(|object| object.uid.clone());
        if state.events.len() == EVENTS_KEPT {
            state.events.pop_front();
        }
        state.version += 1;
        let event = Event {
            object: key.clone(),
            uid: uid.unwrap_or_default(),
            app,
            warning,
            reason,
            message,
            at: self.0.clock.now(),
            number: state.version,
        };
        state.events.push_back(event);
    }

    fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<Object> {
        let state = self.lock();
        let mut objects = state.objects.all();
        objects
            .find(|object| object.key.is(kind, namespace, name))
            .map(Object::seen)
    }

    fn delays(&self) -> ClusterDelays {
        self.lock().delays.clone()
    }

    /// Puts an object that a controller made into the store, with the work that keeps it.
    fn insert(&self, mut object: Object, work: Option<DropGuard>) {
        let key = object.key.clone();
        object.work = work.map(Arc::new);
        self.lock().objects.insert(object);
        self.changed(&key);
    }

    /// Changes the live object; what it already is costs nothing and tells nobody.
    fn update(&self, key: &Key, change: impl FnOnce(&mut Value)) {
        {
            let mut state = self.lock();
            let Some(object) = state.objects.get_mut(key) else {
                return;
            };
            let before = object.live.clone();
            change(&mut object.live);
            if before == object.live {
                return;
            }
        }
        self.changed(key);
    }

    /// Starts what makes an object of this kind come true: the rollout of a Deployment, the Pod of a Job, a node for a bare
    /// Pod.
    fn control(&self, key: &Key) {
        let work = match (key.group.as_str(), key.kind.as_str()) {
            ("apps", "Deployment") => self
                .0
                .tasks
                .spawn_guarded(rollout::run(self.clone(), key.clone())),
            ("batch", "Job") if self.get(key).is_some_and(|job| job.live.get("status").is_none()) => {
                self.0.tasks.spawn_guarded(job::run(self.clone(), key.clone()))
            }
            ("", "Pod") if self.get(key).is_some_and(|pod| pod.running.is_empty()) => self
                .0
                .tasks
                .spawn_guarded(kubelet::run(self.clone(), key.clone())),
            _ => return,
        };
        let mut state = self.lock();
        if let Some(object) = state.objects.get_mut(key) {
            object.work = Some(Arc::new(work));
        }
    }

    fn changed(&self, key: &Key) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        if let Some(object) = state.objects.get_mut(key)
            && let Some(metadata) = object.live.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("resourceVersion".into(), json!(version.to_string()));
        }
        let root = state.objects.root(key).map(Root::of);
        self.announce(&state, root);
    }

    fn announce(&self, state: &State, root: Option<Root>) {
        self.0.version.send_modify(|version| *version += 1);
        let Some(root) = root else { return };
        if let Some(listeners) = state.listeners.get(&root.key) {
            listeners.send_replace(());
        }
        if let Some(app) = root.app {
            // Nobody listens once the controller has ended, and then nobody has to.
            let _ = self.0.changed_apps.send(app);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a change is told to: the listeners of an object, and the application that manages it.
struct Root {
    key: Key,
    app: Option<String>,
}

impl Root {
    fn of(object: &Object) -> Self {
        Self {
            key: object.key.clone(),
            app: object.app.clone(),
        }
    }
}
