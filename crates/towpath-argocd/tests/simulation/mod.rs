//! Argo CD in memory and in virtual time: two control loops, whole-second times, a lossy stream, and a cluster that knows
//! what really runs. It follows the semantics of the controller, not the wait's needs.

#![allow(dead_code, reason = "the tests and the benchmark use different parts")]

mod api;
mod controller;
pub(crate) mod rules;
pub(crate) mod schedule;

pub(crate) use api::History;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use schedule::{Flaw, Overtaking, Schedule};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use towpath_argocd::wire::{
    App, Condition, Health, HealthCode, Info, InitiatedBy, Operation, OperationPhase, OperationState,
    ResourceResult, ResourceStatus, SyncOperation, SyncResult, SyncStatusCode, SyncWindow, SyncWindows,
};
use towpath_argocd::{
    Application, Backend, Change, Changes, CommitSha, Digest, Error, ErrorKind, Expected, ImageRef, Result,
    RevisionOracle, RunningImage, SyncRequest,
};

const POLL: Duration = Duration::from_secs(150);
const BELIEVED: Duration = Duration::from_secs(180);
const ERROR_GRACE: Duration = Duration::from_secs(180);
const PROGRESS_DEADLINE: Duration = Duration::from_secs(120);
const REPLICAS: usize = 2;

/// A commit of the deployment repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitName {
    Old,
    Expected,
    Overtaking,
}

impl CommitName {
    pub(crate) fn sha(self) -> CommitSha {
        let digit = ["a", "b", "c"][self as usize];
        digit.repeat(40).parse().unwrap()
    }

    fn of(text: &str) -> Option<Self> {
        [Self::Old, Self::Expected, Self::Overtaking]
            .into_iter()
            .find(|name| name.sha().as_str() == text)
    }
}

/// How closely a comparison looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    #[default]
    Nothing,
    Recent,
    Latest,
    Force,
}

#[derive(Clone, Debug)]
struct Pod {
    image: usize,
    ready: bool,
}

#[derive(Debug)]
struct State {
    app: Option<App>,
    refresh: bool,
    version: u64,
    head: CommitName,
    known_head: (CommitName, Instant),
    first_error: Option<Instant>,
    pending: Level,
    /// The image that is applied, and since when.
    applied: usize,
    applied_at: Instant,
    pods: Vec<Pod>,
    flapping: bool,
    lost_refreshes: u32,
    attempts_to_fail: u32,
    silence: u32,
    rollout: u64,
    looks: u64,
}

/// One application and its cluster.
#[derive(Debug)]
pub(crate) struct Simulation {
    pub(crate) schedule: Schedule,
    started: Instant,
    state: Mutex<State>,
    compare: Notify,
    operate: Notify,
    told: watch::Sender<u64>,
}

pub(crate) fn application() -> Application {
    "shop/web".parse().unwrap()
}

pub(crate) fn image(number: usize, same_tag: bool) -> ImageRef {
    let tag = if same_tag { 0 } else { number };
    let digest = ["a", "b", "c"][number].repeat(64);
    format!("registry.example/shop/web:v{tag}@sha256:{digest}")
        .parse()
        .unwrap()
}

impl Simulation {
    /// Starts an application that is live at the old commit.
    pub(crate) fn start(schedule: Schedule) -> Arc<Self> {
        let now = Instant::now();
        let simulation = Arc::new(Self {
            started: now,
            state: Mutex::new(State {
                app: None,
                refresh: false,
                version: 100,
                head: CommitName::Old,
                known_head: (CommitName::Old, now),
                first_error: None,
                pending: Level::Nothing,
                applied: 0,
                applied_at: now,
                pods: vec![
                    Pod {
                        image: 0,
                        ready: true
                    };
                    REPLICAS
                ],
                flapping: schedule.old_is_degraded,
                lost_refreshes: schedule.lost_refreshes,
                attempts_to_fail: schedule.failing_attempts,
                silence: 0,
                rollout: 0,
                looks: 0,
            }),
            compare: Notify::new(),
            operate: Notify::new(),
            told: watch::Sender::new(0),
            schedule,
        });
        simulation.lay_out();
        tokio::spawn(controller::compare_loop(Arc::downgrade(&simulation)));
        tokio::spawn(controller::operation_loop(Arc::downgrade(&simulation)));
        tokio::spawn(controller::script(Arc::downgrade(&simulation)));
        simulation
    }

    fn lay_out(&self) {
        let now = self.second();
        let mut app: App = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "argocd", "uid": "first"},
            "spec": {"project": "shop",
                "source": {"repoURL": "https://ghe.example/o/deploy.git", "path": "prod", "targetRevision": "main"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
                "syncPolicy": if self.schedule.automated { json!({"automated": {"prune": true}}) } else { json!({}) }},
        }))
        .unwrap();
        let status = &mut app.status;
        status.sync.status = SyncStatusCode::Synced;
        status.sync.revision = CommitName::Old.sha().to_string();
        status.sync.compared_to.source.clone_from(&app.spec.source);
        status.sync.compared_to.destination = app.spec.destination.clone();
        status.health.status = HealthCode::Healthy;
        status.reconciled_at = Some(now);
        status.operation_state = Some(OperationState {
            operation: operation(CommitName::Old, true),
            phase: OperationPhase::Succeeded,
            sync_result: Some(SyncResult {
                revision: CommitName::Old.sha().to_string(),
                ..SyncResult::default()
            }),
            started_at: Some(now - jiff::SignedDuration::from_secs(4000)),
            finished_at: Some(now - jiff::SignedDuration::from_secs(3990)),
            ..OperationState::default()
        });
        status.summary.images = vec![image(0, false).to_string()];
        let mut state = self.state();
        state.app = Some(app);
        self.write(&mut state, |_| {});
        self.set_health(&mut state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn within(&self, span: Option<(Duration, Duration)>) -> bool {
        let now = self.elapsed();
        span.is_some_and(|(from, long)| from <= now && now < from + long)
    }

    /// Now, in whole seconds, as the server writes it. The fraction of the first second belongs to the schedule.
    fn second(&self) -> Timestamp {
        let fraction = self.schedule.seed % 1000;
        let now = self.elapsed() + Duration::from_millis(fraction);
        Timestamp::from_second(1_800_000_000 + now.as_secs() as i64).unwrap()
    }

    /// Changes the application, and tells of it, mostly.
    fn write(&self, state: &mut State, change: impl FnOnce(&mut App)) {
        let Some(app) = &mut state.app else { return };
        let before = app.clone();
        change(app);
        if *app == before && app.metadata.resource_version.is_some() {
            return;
        }
        state.version += 1;
        app.metadata.resource_version = Some(state.version.to_string());
        state.silence = (state.silence * 75 + 74) % 65_537;
        if state.silence % 100 >= self.schedule.silent_changes {
            self.told.send_replace(state.version);
        }
    }

    fn set_health(&self, state: &mut State) {
        let health = self.health(state);
        let images = summary(state, self.schedule.same_tag);
        let stale = self.schedule.stale_summary;
        self.write(state, |app| {
            app.status.health = health.clone();
            app.status.resources = vec![ResourceStatus {
                group: "apps".into(),
                version: "v1".into(),
                kind: "Deployment".into(),
                name: "web".into(),
                status: app.status.sync.status.clone(),
                health: Some(health),
                ..ResourceStatus::default()
            }];
            if !stale {
                app.status.summary.images = images;
            }
        });
    }

    fn health(&self, state: &State) -> Health {
        let of = |status, message: Option<&str>| Health {
            status,
            message: message.map(str::to_owned),
        };
        let done = state
            .pods
            .iter()
            .filter(|pod| pod.image == state.applied && pod.ready)
            .count()
            == REPLICAS
            && state.pods.len() == REPLICAS;
        if self.schedule.blind {
            of(HealthCode::Healthy, None)
        } else if state.flapping {
            of(HealthCode::Degraded, Some("a pod fails"))
        } else if done {
            of(HealthCode::Healthy, None)
        } else if state.applied_at.elapsed() > PROGRESS_DEADLINE {
            of(
                HealthCode::Degraded,
                Some("the Deployment exceeded its progress deadline"),
            )
        } else {
            of(HealthCode::Progressing, None)
        }
    }

    /// Whether only this image really runs, ready, on every replica.
    pub(crate) fn runs(&self, number: usize) -> bool {
        let state = self.state();
        state.app.is_some()
            && state.applied == number
            && !state.flapping
            && state.pods.len() == REPLICAS
            && state.pods.iter().all(|pod| pod.image == number && pod.ready)
    }

    /// The number of answers given.
    pub(crate) fn looks(&self) -> u64 {
        self.state().looks
    }

    fn ask(&self, state: &mut State, level: Level) {
        state.pending = state.pending.max(level);
        self.compare.notify_one();
    }

    fn image_of(&self, commit: CommitName) -> usize {
        match (commit, self.schedule.overtaken) {
            (CommitName::Old, _) => 0,
            (CommitName::Expected, _) | (CommitName::Overtaking, Some((_, Overtaking::SameImage))) => 1,
            (CommitName::Overtaking, Some((_, Overtaking::NewerImage))) => 2,
            (CommitName::Overtaking, _) => 0,
        }
    }

    fn carries(&self, commit: CommitName, flaw: Flaw) -> bool {
        self.schedule.flaw == Some(flaw) && self.image_of(commit) == 1
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::NotFound, "Argo CD", "read", application())
    }

    /// What every call meets first.
    async fn enter(&self) -> Result<()> {
        sleep(Duration::from_millis(5)).await;
        self.state().looks += 1;
        match self.within(self.schedule.unavailable) {
            true => Err(Error::new(
                ErrorKind::Unavailable,
                "Argo CD",
                "read",
                application(),
            )),
            false => Ok(()),
        }
    }
}

fn summary(state: &State, same_tag: bool) -> Vec<String> {
    let images: BTreeSet<usize> = state.pods.iter().map(|pod| pod.image).collect();
    images
        .into_iter()
        .map(|number| image(number, same_tag).to_string())
        .collect()
}

fn operation(commit: CommitName, automated: bool) -> Operation {
    Operation {
        sync: Some(SyncOperation {
            revision: commit.sha().to_string(),
            ..SyncOperation::default()
        }),
        initiated_by: InitiatedBy {
            automated,
            ..InitiatedBy::default()
        },
        ..Operation::default()
    }
}
pub(crate) fn expected(schedule: &Schedule) -> Expected {
    Expected {
        application: application(),
        revision: CommitName::Expected.sha(),
        images: vec![image(1, schedule.same_tag)],
        platform_digests: Vec::<Digest>::new(),
        within: schedule::WITHIN,
        settle: Duration::from_secs(10),
    }
}
