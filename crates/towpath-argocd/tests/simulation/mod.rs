//! Argo CD in memory and in virtual time: two control loops, whole-second times, a lossy stream, and a cluster that knows
//! what really runs. It follows the semantics of the controller, not the wait's needs.

#![allow(dead_code, reason = "the tests and the benchmark use different parts")]

pub(crate) mod rules;
pub(crate) mod schedule;

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
        tokio::spawn(compare_loop(Arc::downgrade(&simulation)));
        tokio::spawn(operation_loop(Arc::downgrade(&simulation)));
        tokio::spawn(script(Arc::downgrade(&simulation)));
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

/// What happens on its own.
async fn script(simulation: Weak<Simulation>) {
    let Some(schedule) = simulation.upgrade().map(|one| one.schedule.clone()) else {
        return;
    };
    let mut events: Vec<(Duration, &str)> = vec![(schedule.pushed, "push")];
    if let Some(after) = schedule.webhook {
        events.push((schedule.pushed + after, "webhook"));
    }
    if let Some((at, _)) = schedule.overtaken {
        events.push((schedule.pushed + at, "overtake"));
        if let Some(after) = schedule.webhook {
            events.push((schedule.pushed + at + after, "webhook"));
        }
    }
    if let Some((at, _)) = schedule.foreign {
        events.push((at, "foreign"));
    }
    if let Some(at) = schedule.dry_run {
        events.push((at, "dry run"));
    }
    if let Some((at, long)) = schedule.edited {
        events.extend([(at, "edit"), (at + long, "edit back")]);
    }
    if let Some(at) = schedule.deleted {
        events.push((at, "delete"));
    }
    if schedule.old_is_degraded {
        events.push((Duration::from_secs(15), "old recovers"));
    }
    events.sort_by_key(|(at, _)| *at);
    let began = Instant::now();
    for (at, what) in events {
        tokio::time::sleep_until(began + at).await;
        let Some(one) = simulation.upgrade() else { return };
        let mut state = one.state();
        match what {
            "push" => state.head = CommitName::Expected,
            "overtake" => state.head = CommitName::Overtaking,
            "webhook" => {
                state.refresh = true;
                one.ask(&mut state, Level::Force);
            }
            "foreign" | "dry run" => foreign(&one, &mut state, what == "dry run"),
            "edit" | "edit back" => {
                let branch = if what == "edit" { "old" } else { "main" };
                one.write(&mut state, |app| {
                    if let Some(source) = &mut app.spec.source {
                        source.target_revision = Some(branch.to_owned());
                    }
                });
                one.ask(&mut state, Level::Force);
            }
            "delete" => {
                state.app = None;
                state.version += 1;
                one.told.send_replace(state.version);
            }
            "old recovers" if state.applied == 0 => {
                state.flapping = false;
                one.set_health(&mut state);
            }
            _ => {}
        }
    }
}

/// Somebody else asks for a sync of what is known, if nothing is going on.
fn foreign(simulation: &Simulation, state: &mut State, dry_run: bool) {
    let Some(app) = state.app.as_ref().filter(|app| app.operation.is_none()) else {
        return;
    };
    let known = CommitName::of(&app.status.sync.revision).unwrap_or(CommitName::Old);
    let mut operation = operation(known, false);
    if let Some(sync) = &mut operation.sync {
        sync.dry_run = dry_run;
    }
    accept(simulation, state, operation);
}

fn accept(simulation: &Simulation, state: &mut State, operation: Operation) {
    simulation.write(state, |app| {
        app.operation = Some(operation);
        app.status.operation_state = None;
    });
    simulation.operate.notify_one();
}

async fn compare_loop(simulation: Weak<Simulation>) {
    loop {
        let Some(one) = simulation.upgrade() else { return };
        let timer = sleep(POLL);
        let polled = tokio::select! {
            () = one.compare.notified() => false,
            () = timer => true,
        };
        while one.within(one.schedule.down) {
            sleep(Duration::from_secs(1)).await;
        }
        let level = {
            let mut state = one.state();
            if polled {
                state.pending = state.pending.max(Level::Latest);
            }
            if state.refresh && !one.within(one.schedule.hanging) {
                state.pending = Level::Force;
            }
            std::mem::take(&mut state.pending)
        };
        if level > Level::Nothing {
            compare(&one, level).await;
        }
    }
}

async fn compare(one: &Simulation, level: Level) {
    let began = one.second();
    let (spec, seen, asked) = {
        let mut state = one.state();
        let Some(app) = &state.app else { return };
        let (spec, seen) = (app.spec.clone(), app.status.sync.revision.clone());
        let asked = state.refresh && !one.within(one.schedule.hanging);
        // A refresh that is not looked into: the call returns, and nothing was done.
        if asked && state.lost_refreshes > 0 {
            state.lost_refreshes -= 1;
            state.refresh = false;
            one.write(&mut state, |_| {});
            return;
        }
        (spec, seen, asked)
    };
    let branch = spec
        .source
        .as_ref()
        .and_then(|source| source.target_revision.clone())
        .unwrap_or_default();
    let resolved = match level {
        Level::Recent if CommitName::of(&seen).is_some() => Ok(CommitName::of(&seen).unwrap()),
        _ if branch == "old" => Ok(CommitName::Old),
        Level::Latest if one.state().known_head.1.elapsed() < BELIEVED => Ok(one.state().known_head.0),
        _ if one.within(one.schedule.outage) => Err("repository not accessible: timeout"),
        _ => {
            let mut state = one.state();
            state.known_head = (state.head, Instant::now());
            Ok(state.head)
        }
    };
    sleep(one.schedule.compare).await;
    let resolved = resolved.and_then(|commit| match one.carries(commit, Flaw::Manifests) {
        true => Err("failed to generate manifest: yaml: line 3"),
        false => Ok(commit),
    });
    let mut state = one.state();
    if state.app.is_none() {
        return;
    }
    // What was asked for while this was going on goes with it: a known loss of servers up to 3.5.
    if asked {
        state.refresh = false;
    }
    let commit = match resolved {
        Ok(commit) => {
            state.first_error = None;
            commit
        }
        Err(why) => {
            let first = *state.first_error.get_or_insert_with(Instant::now);
            if level < Level::Force && first.elapsed() < ERROR_GRACE {
                return;
            }
            one.write(&mut state, |app| {
                app.status.sync.status = SyncStatusCode::Unknown;
                app.status.sync.revision = branch.clone();
                app.status.reconciled_at = Some(began);
                app.status.conditions = vec![condition("ComparisonError", why)];
            });
            return;
        }
    };
    let synced = state.applied == one.image_of(commit);
    one.write(&mut state, |app| {
        app.status.sync.status = if synced {
            SyncStatusCode::Synced
        } else {
            SyncStatusCode::OutOfSync
        };
        app.status.sync.revision = commit.sha().to_string();
        app.status.sync.compared_to.source.clone_from(&spec.source);
        if level >= Level::Latest {
            app.status.reconciled_at = Some(began);
        }
        app.status.conditions.clear();
    });
    one.set_health(&mut state);
    if !synced {
        sync_itself(one, &mut state, commit);
    }
}

fn condition(kind: &str, message: &str) -> Condition {
    Condition {
        kind: kind.into(),
        message: message.into(),
    }
}

fn sync_itself(one: &Simulation, state: &mut State, commit: CommitName) {
    let Some(app) = &state.app else { return };
    if !app.spec.syncs_itself() || app.operation.is_some() || one.within(one.schedule.window) {
        return;
    }
    let sha = commit.sha();
    let tried = app.status.operation_state.as_ref().filter(|last| {
        last.is_deployment()
            && last
                .sync_result
                .as_ref()
                .is_some_and(|result| result.revision == sha.as_str())
    });
    match tried {
        Some(last) if last.phase != OperationPhase::Succeeded => {
            let text = format!(
                "Failed last sync attempt to [{sha}]: {}",
                last.message.clone().unwrap_or_default()
            );
            one.write(state, |app| {
                app.status.conditions = vec![condition("SyncError", &text)]
            });
        }
        // Nothing heals by itself here.
        Some(_) => {}
        None => accept(one, state, operation(commit, true)),
    }
}

async fn operation_loop(simulation: Weak<Simulation>) {
    loop {
        let Some(one) = simulation.upgrade() else { return };
        tokio::select! {
            () = one.operate.notified() => {}
            () = sleep(POLL) => {}
        }
        while one.within(one.schedule.down) {
            sleep(Duration::from_secs(1)).await;
        }
        sleep(one.schedule.pick_up).await;
        let operation = one.state().app.as_ref().and_then(|app| app.operation.clone());
        if let Some(operation) = operation {
            perform(&one, operation).await;
        }
    }
}

async fn perform(one: &Arc<Simulation>, operation: Operation) {
    let sync = operation.sync.clone().unwrap_or_default();
    let commit = CommitName::of(&sync.revision).unwrap_or(one.state().known_head.0);
    let automated = operation.initiated_by.automated;
    let now = one.second();
    let started = |app: &mut App| {
        app.status.operation_state = Some(OperationState {
            operation: operation.clone(),
            phase: OperationPhase::Running,
            started_at: Some(now),
            sync_result: Some(SyncResult {
                revision: commit.sha().to_string(),
                ..SyncResult::default()
            }),
            ..OperationState::default()
        });
    };
    one.write(&mut one.state(), started);
    let foreign = !automated && operation.info.is_empty();
    let long = match one.schedule.foreign {
        Some((_, long)) if foreign && !sync.dry_run => long,
        _ => one.schedule.operate,
    };
    let mut retries = 0;
    let failure = loop {
        sleep(long).await;
        let bad = one.carries(commit, Flaw::Sync) && !sync.dry_run;
        let fails = bad || {
            let mut state = one.state();
            let some =
                state.attempts_to_fail > 0 && commit == CommitName::Expected && !sync.dry_run && automated;
            state.attempts_to_fail -= u32::from(some);
            some
        };
        let failure = fails.then(|| "one or more objects failed to apply".to_owned());
        if failure.is_none() || !automated || retries >= 5 {
            break failure;
        }
        retries += 1;
        let ended = one.second();
        one.write(&mut one.state(), |app| {
            if let Some(state) = &mut app.status.operation_state {
                state.message = Some(format!(
                    "one or more objects failed to apply. Retrying attempt #{retries}"
                ));
                state.finished_at = Some(ended);
                state.retry_count = retries;
            }
        });
        sleep(Duration::from_secs(5 * 2_u64.pow(retries as u32 - 1)).min(Duration::from_secs(40))).await;
        one.write(&mut one.state(), |app| {
            if let Some(state) = &mut app.status.operation_state {
                state.finished_at = None;
            }
        });
    };
    let ended = one.second();
    {
        let mut state = one.state();
        if failure.is_none() && !sync.dry_run {
            apply(
                one,
                &mut state,
                one.image_of(commit),
                one.carries(commit, Flaw::Image),
            );
        }
        one.write(&mut state, |app| {
            app.operation = None;
            if let Some(state) = &mut app.status.operation_state {
                state.phase = if failure.is_some() {
                    OperationPhase::Failed
                } else {
                    OperationPhase::Succeeded
                };
                state.message = failure;
                state.finished_at = Some(ended);
                if let Some(result) = &mut state.sync_result {
                    result.resources = vec![ResourceResult {
                        kind: "Deployment".into(),
                        name: "web".into(),
                        hook_phase: "Running".into(),
                        ..ResourceResult::default()
                    }];
                }
            }
        });
    }
    sleep(one.schedule.after_operation).await;
    let mut state = one.state();
    if !sync.dry_run {
        one.ask(&mut state, if automated { Level::Latest } else { Level::Force });
    }
}

fn apply(one: &Arc<Simulation>, state: &mut State, image: usize, bad: bool) {
    if state.applied == image {
        return;
    }
    state.applied = image;
    state.applied_at = Instant::now();
    state.flapping = false;
    state.rollout += 1;
    tokio::spawn(roll_out(Arc::downgrade(one), state.rollout, image, bad));
}

/// One new pod at a time; an old one goes when a new one is ready.
async fn roll_out(simulation: Weak<Simulation>, rollout: u64, image: usize, bad: bool) {
    let Some(schedule) = simulation.upgrade().map(|one| one.schedule.clone()) else {
        return;
    };
    let step = |change: &dyn Fn(&mut State)| {
        let Some(one) = simulation.upgrade() else {
            return false;
        };
        let mut state = one.state();
        if state.rollout != rollout {
            return false;
        }
        change(&mut state);
        one.set_health(&mut state);
        // The cluster's changes are noticed at the level of what is compared already.
        one.ask(&mut state, Level::Recent);
        true
    };
    loop {
        sleep(Duration::from_millis(300)).await;
        let settled = |state: &State| {
            state.pods.len() == REPLICAS && state.pods.iter().all(|pod| pod.image == image && pod.ready)
        };
        if simulation.upgrade().is_none_or(|one| settled(&one.state())) {
            break;
        }
        let new = |state: &State| state.pods.iter().filter(|pod| pod.image == image).count();
        if !step(&|state| {
            if new(state) < REPLICAS {
                state.pods.push(Pod { image, ready: false });
            }
        }) {
            return;
        }
        if bad {
            sleep(PROGRESS_DEADLINE + Duration::from_secs(1)).await;
            step(&|_| {});
            return;
        }
        sleep(schedule.start).await;
        let ready = step(&|state| {
            if let Some(pod) = state.pods.iter_mut().find(|pod| pod.image == image && !pod.ready) {
                pod.ready = true;
            }
        });
        sleep(Duration::from_millis(200)).await;
        let removed = ready
            && step(&|state| {
                if let Some(old) = state.pods.iter().position(|pod| pod.image != image) {
                    state.pods.remove(old);
                }
            });
        if !removed {
            return;
        }
    }
    if let (Some((after, long)), 1) = (schedule.flap, image) {
        sleep(after).await;
        step(&|state| {
            state.flapping = true;
            state.pods[0].ready = false;
        });
        sleep(long).await;
        step(&|state| {
            state.flapping = false;
            state.pods[0].ready = true;
        });
    }
}

#[async_trait]
impl Backend for Simulation {
    async fn application(&self, _: &Application) -> Result<App> {
        self.enter().await?;
        self.state().app.clone().ok_or_else(|| self.gone())
    }

    async fn refreshed(&self, application: &Application, within: Duration) -> Result<App> {
        self.enter().await?;
        {
            let mut state = self.state();
            state.refresh = true;
            self.ask(&mut state, Level::Force);
        }
        let done = async {
            while self.state().refresh {
                sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(within, done).await.is_err() {
            return Err(Error::new(ErrorKind::TimedOut, "Argo CD", "refresh", application));
        }
        self.state().app.clone().ok_or_else(|| self.gone())
    }

    async fn sync(&self, application: &Application, request: &SyncRequest) -> Result<App> {
        self.enter().await?;
        let mut state = self.state();
        let Some(app) = &state.app else {
            return Err(self.gone());
        };
        let refused = |http, code, message: &str| {
            let refusal = towpath_argocd::ApiError::new(http, Some(code), message);
            Err(Error::new(ErrorKind::Conflict, "Argo CD", "sync", application).caused_by(refusal))
        };
        if self.within(self.schedule.window) {
            return refused(403, 7, "cannot sync: blocked by sync window");
        }
        if app.operation.is_some() {
            return refused(400, 9, "another operation is already in progress");
        }
        let commit = request
            .revisions
            .first()
            .and_then(|text| CommitName::of(text))
            .unwrap_or(state.head);
        let operation = Operation {
            info: request
                .infos
                .iter()
                .map(|info| Info {
                    name: info.name.clone(),
                    value: info.value.clone(),
                })
                .collect(),
            ..operation(commit, false)
        };
        accept(self, &mut state, operation);
        state.app.clone().ok_or_else(|| self.gone())
    }

    async fn sync_windows(&self, _: &Application) -> Result<SyncWindows> {
        self.enter().await?;
        let closed = self.within(self.schedule.window);
        let window = SyncWindow {
            kind: "deny".into(),
            schedule: "* * * * *".into(),
            duration: "1h".into(),
            ..SyncWindow::default()
        };
        Ok(SyncWindows {
            active_windows: if closed { vec![window.clone()] } else { Vec::new() },
            assigned_windows: vec![window],
            can_sync: !closed,
        })
    }

    async fn desired_images(&self, _: &Application, revision: &CommitSha) -> Result<Vec<String>> {
        self.enter().await?;
        let commit = CommitName::of(revision.as_str()).unwrap_or(CommitName::Old);
        Ok(vec![
            image(self.image_of(commit), self.schedule.same_tag).to_string(),
        ])
    }

    async fn running_images(&self, _: &Application, _: &BTreeSet<String>) -> Result<Vec<RunningImage>> {
        self.enter().await?;
        let state = self.state();
        let pods = state.pods.iter().enumerate();
        Ok(pods
            .map(|(number, pod)| {
                let image = image(pod.image, self.schedule.same_tag);
                RunningImage {
                    pod: format!("shop/web-{number}"),
                    digest: image.digest().cloned().filter(|_| pod.ready),
                    image,
                    ready: pod.ready && !state.flapping,
                }
            })
            .collect())
    }

    fn changes(&self, _: &Application) -> Changes {
        let receiver = self.told.subscribe();
        stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok()?;
            let version = *receiver.borrow_and_update();
            Some((Ok(Change::to(Some(version))), receiver))
        })
        .boxed()
    }
}

/// Knows the history.
#[derive(Debug)]
pub(crate) struct History(pub(crate) Option<Overtaking>);

#[async_trait]
impl RevisionOracle for History {
    async fn contains(&self, _: &str, revision: &CommitSha, expected: &CommitSha) -> Result<bool> {
        let (Some(revision), Some(expected)) = (
            CommitName::of(revision.as_str()),
            CommitName::of(expected.as_str()),
        ) else {
            return Ok(false);
        };
        Ok(match (revision, expected) {
            (one, other) if one == other => true,
            (_, CommitName::Old) => true,
            (CommitName::Overtaking, CommitName::Expected) => self.0 != Some(Overtaking::ForcedBack),
            _ => false,
        })
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
