//! The application controller's first loop: comparing what git says with what is live.
//!
//! After `appcontroller.go` and `controller/state.go` of Argo CD 3.5: the levels of a comparison, the grace period for
//! repository errors, the refresh annotation, automatic synchronisation.

use super::cluster::{Key, Object, worst};
use super::knobs::SummaryImages;
use super::model::{
    Application, ComparedTo, Condition, HealthStatus, Operation, REFRESH, ResourceStatus, SKIP_RECONCILE,
    Source, one_or_several,
};
use super::phases::{is_hook, wave};
use super::render::Rendered;
use super::store::{Level, Loops};
use super::{Shared, auto_sync, children, hydrator, repos};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Compares one Application whenever there is reason to, for as long as it exists.
pub(super) async fn run(shared: Arc<Shared>, name: String, loops: Arc<Loops>) {
    let clock = &shared.clock;
    let mut next_poll = clock.moment() + shared.config.poll_interval;
    loop {
        let not_before = loops.pending().not_before;
        let due = not_before.map_or(next_poll, |at| at.min(next_poll));
        tokio::select! {
            () = loops.compare.notified() => {}
            () = clock.sleep_until(due) => {}
        }
        shared.knobs.until(|knobs| !knobs.controller_down).await;
        let now = clock.moment();
        let level = {
            let mut pending = loops.pending();
            if now >= next_poll {
                pending.level = pending.level.max(Level::Latest);
                next_poll = now + shared.config.poll_interval;
            }
            let asked = shared
                .store
                .get(&name)
                .is_some_and(|app| app.metadata.annotations.contains_key(REFRESH));
            if pending.not_before.is_some_and(|at| now < at) && !asked {
                continue;
            }
            pending.not_before = None;
            std::mem::take(&mut pending.level)
        };
        compare(&shared, &name, &loops, level).await;
    }
}

/// What a comparison found.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) status: &'static str,
    /// The part of the spec that it is about.
    pub(super) sources: Vec<Source>,
    compared_to: ComparedTo,
    /// By source.
    pub(super) revisions: Vec<String>,
    source_types: Vec<String>,
    pub(super) resources: Vec<ResourceStatus>,
    conditions: Vec<(&'static str, String)>,
}

/// A comparison that is held, for as long as it is.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn compare(shared: &Shared, name: &str, loops: &Loops, level: Level) {
    // `None` never happens: nobody closes the semaphore.
    let processor = shared.processors.acquire().await.ok();
    let Some(app) = shared.store.get(name) else { return };
    if app
        .metadata
        .annotations
        .get(SKIP_RECONCILE)
        .is_some_and(|value| value == "true")
    {
        return;
    }
    let asked = match shared.knobs.get().refresh_hangs {
        true => None,
        false => app.metadata.annotations.get(REFRESH).cloned(),
    };
    let changed_source = app.status.reconciled_at.is_some()
        && app.status.sync.compared_to.compared() != app.spec.effective_sources();
    let mut level = if asked.is_some() || changed_source {
        Level::ForceResolve
    } else {
        level
    };
    if level == Level::Nothing {
        return;
    }
    if level == Level::Recent && app.status.sync.status == "Unknown" {
        level = Level::Latest;
    }
    let started = shared.clock.now();
    let hard = asked.as_deref() == Some("hard");
    if level > Level::Recent && hydrator::run(shared, &app, hard).await {
        level = Level::ForceResolve;
    }
    let mut verdict = match look(shared, &app, level, hard).await {
        Ok(verdict) => {
            loops.pending().first_repo_error = None;
            verdict
        }
        Err(why) => {
            let now = shared.clock.moment();
            let first = *loops.pending().first_repo_error.get_or_insert(now);
            let known = app.status.reconciled_at.is_some();
            if level < Level::ForceResolve
                && known
                && shared.clock.since(first) < shared.config.repo_error_grace
            {
                return;
            }
            unknown(&app, why)
        }
    };
    // What is held is held by a test, not by the work of others.
    drop(processor);
    if shared.knobs.get().hold_comparisons {
        let _held = Held::new(&shared.held);
        shared.knobs.until_comparing().await;
    }
    if loops.pending().flapping {
        verdict.degrade();
    }
    let operation = match verdict.status {
        "OutOfSync" => auto_sync::operation(shared, &app, loops, &verdict),
        _ => Ok(None),
    };
    let reconciled = (level >= Level::Latest).then(|| started.to_string());
    write(shared, name, verdict, operation, reconciled, asked.is_some());
    if let Some(app) = shared.store.get(name)
        && app.operation.is_some()
    {
        loops.operate.notify_one();
    }
}

/// What a comparison finds that begins now, for an operation that it is to be older than.
pub(super) async fn look_before(shared: &Shared, name: &str) -> Option<Verdict> {
    let app = shared.store.get(name)?;
    app.status.reconciled_at.as_ref()?;
    look(shared, &app, Level::Recent, false).await.ok()
}

/// Reports a comparison of an earlier time.
pub(super) fn report(shared: &Shared, name: &str, verdict: Verdict, reconciled: String) {
    write(shared, name, verdict, Ok(None), Some(reconciled), false);
}

/// Looks at git and at the cluster; `Err` where the target state cannot be had.
async fn look(shared: &Shared, app: &Application, level: Level, hard: bool) -> Result<Verdict, String> {
    let sources = app.spec.effective_sources();
    let load = |why: String| format!("Failed to load target state: {why}");
    let mut revisions = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let target = source.target();
        let revision = match level {
            Level::Recent => Ok(app.status.sync.compared().get(index).cloned().unwrap_or_default()),
            Level::ForceResolve => shared.repos.resolve_anew(source, target).await,
            _ => shared.repos.resolve(source, target, false).await,
        };
        revisions.push(revision.map_err(|why| load(repos::failed(index, sources.len(), &why)))?);
    }
    let (rendered, types) = shared
        .repos
        .render_all(&sources, &revisions, hard)
        .await
        .map_err(load)?;
    Ok(judge(shared, app, (sources, revisions), &rendered, types))
}

/// The one source, for calls that are about one.
pub(super) fn only_source(app: &Application) -> Result<&Source, String> {
    match &app.spec.source {
        Some(source) if app.spec.sources.is_empty() => Ok(source),
        _ => Err("the lab answers this for Applications with one spec.source only".into()),
    }
}

/// The objects with their keys, and the first mistake among them.
pub(super) fn keyed(app: &Application, rendered: &Rendered) -> Result<Vec<(Key, Value)>, String> {
    let namespace = &app.spec.destination.namespace;
    let mut seen = BTreeSet::new();
    let mut objects = Vec::new();
    for object in &rendered.objects {
        let key = Key::of(object, namespace)?;
        if !seen.insert(key.clone()) {
            return Err(format!(
                "Resource {} appeared 2 times among application resources.",
                key.for_kubectl()
            ));
        }
        objects.push((key, object.clone()));
    }
    Ok(objects)
}

fn compared_to(app: &Application, sources: Vec<Source>) -> ComparedTo {
    let (source, sources) = one_or_several(app.spec.has_several(), sources);
    ComparedTo {
        source,
        sources,
        destination: app.spec.destination.clone(),
        ..ComparedTo::default()
    }
}

fn unknown(app: &Application, why: String) -> Verdict {
    let sources = app.spec.effective_sources();
    let source_types = match app.status.source_types.is_empty() {
        true => vec![app.status.source_type.clone()],
        false => app.status.source_types.clone(),
    };
    Verdict {
        status: "Unknown",
        revisions: sources.iter().map(|source| source.target().to_owned()).collect(),
        compared_to: compared_to(app, sources.clone()),
        sources,
        source_types,
        resources: app
            .status
            .resources
            .iter()
            .map(|resource| ResourceStatus {
                status: "Unknown".into(),
                ..resource.clone()
            })
            .collect(),
        conditions: vec![("ComparisonError", why)],
    }
}

fn judge(
    shared: &Shared,
    app: &Application,
    (sources, revisions): (Vec<Source>, Vec<String>),
    rendered: &Rendered,
    source_types: Vec<String>,
) -> Verdict {
    let mut targets = match keyed(app, rendered) {
        Ok(targets) => targets,
        Err(why) => return unknown(app, why),
    };
    // Hooks are not compared, neither those of git nor those that a sync has left behind.
    targets.retain(|(_, manifest)| !is_hook(manifest));
    let mut resources: Vec<ResourceStatus> = targets
        .iter()
        .map(|(key, manifest)| {
            let live = shared.cluster.get(key);
            let synced = live.as_ref().is_some_and(|live| live.in_sync_with(manifest));
            ResourceStatus {
                sync_wave: wave(manifest),
                ..status_of(key, live.as_ref(), synced, false)
            }
        })
        .collect();
    let live = shared.cluster.managed(&app.metadata.name);
    let extra = live
        .iter()
        .filter(|object| !is_hook(&object.live) && !targets.iter().any(|(key, _)| *key == object.key));
    resources.extend(extra.map(|extra| status_of(&extra.key, Some(extra), false, true)));
    let synced = resources.iter().all(|resource| resource.status == "Synced");
    Verdict {
        status: if synced { "Synced" } else { "OutOfSync" },
        compared_to: compared_to(app, sources.clone()),
        sources,
        revisions,
        source_types,
        resources,
        conditions: Vec::new(),
    }
}

impl Verdict {
    /// The health that is good is bad for a while.
    fn degrade(&mut self) {
        let healths = self.resources.iter_mut().filter_map(|one| one.health.as_mut());
        for health in healths.filter(|health| health.status == "Healthy") {
            health.status = "Degraded".into();
            health.message = "it is not available for the moment".into();
        }
    }
}

fn status_of(key: &Key, live: Option<&Object>, synced: bool, prune: bool) -> ResourceStatus {
    let health = match live {
        None => Some(HealthStatus {
            status: "Missing".into(),
            ..HealthStatus::default()
        }),
        Some(object) => object.health().map(|health| HealthStatus {
            status: health.status.into(),
            message: health.message,
            ..HealthStatus::default()
        }),
    };
    ResourceStatus {
        group: key.group.clone(),
        version: key.version.clone(),
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        status: if synced { "Synced" } else { "OutOfSync" }.into(),
        health,
        requires_pruning: prune,
        ..ResourceStatus::default()
    }
}

/// The worst health of the managed resources; missing ones count when all are missing.
fn overall(resources: &[ResourceStatus]) -> &'static str {
    let missing = |resource: &&ResourceStatus| {
        resource
            .health
            .as_ref()
            .is_some_and(|health| health.status == "Missing")
    };
    if !resources.is_empty() && resources.iter().all(|resource| missing(&resource)) {
        return "Missing";
    }
    let known = ["Healthy", "Suspended", "Progressing", "Degraded", "Unknown"];
    resources
        .iter()
        .filter_map(|resource| resource.health.as_ref())
        .filter_map(|health| known.iter().find(|known| **known == health.status))
        .fold("Healthy", |one, other| worst(one, other))
}

/// Writes what a comparison found; `reconciled` is when it began, where it was a full one.
fn write(
    shared: &Shared,
    name: &str,
    verdict: Verdict,
    operation: Result<Option<Operation>, String>,
    reconciled: Option<String>,
    refreshed: bool,
) {
    let tree = shared.cluster.tree(name);
    let images: BTreeSet<String> = tree.iter().flat_map(pod_images).collect();
    let summary_images = shared.knobs.get().summary_images;
    let now = shared.clock.now().to_string();
    let mut conditions = verdict.conditions;
    let operation = operation.unwrap_or_else(|why| {
        conditions.push(("SyncError", why));
        None
    });
    shared.store.update(name, |app| {
        let several = !verdict.compared_to.sources.is_empty();
        let (revision, revisions) = one_or_several(several, verdict.revisions);
        let status = &mut app.status;
        status.sync.status = verdict.status.into();
        status.sync.revision = revision;
        status.sync.revisions = revisions;
        status.sync.compared_to = verdict.compared_to;
        let health = overall(&verdict.resources);
        if status.health.status != health {
            status.health.status = health.into();
            status.health.last_transition_time = Some(now.clone());
        }
        let children = &verdict.resources;
        status.summary.is_app_of_apps = children
            .iter()
            .any(|child| children::is_application(&child.group, &child.kind));
        status.resources = verdict.resources;
        (status.source_type, status.source_types) = one_or_several(several, verdict.source_types);
        status.controller_namespace = shared.config.namespace.clone();
        status.resource_health_source = "appTree".into();
        match summary_images {
            SummaryImages::AsItIs => status.summary.images = images.into_iter().collect(),
            SummaryImages::Stale => {}
            SummaryImages::Doubled => {
                let before = std::mem::take(&mut status.summary.images);
                let both: BTreeSet<String> = images.into_iter().chain(before).collect();
                status.summary.images = both.into_iter().collect();
            }
            SummaryImages::Empty => status.summary.images.clear(),
        }
        if reconciled.is_some() {
            status.reconciled_at = reconciled;
        }
        status.reconciled_at.get_or_insert(now.clone());
        status.conditions = conditions
            .into_iter()
            .map(|(kind, message)| {
                let known = status
                    .conditions
                    .iter()
                    .find(|known| known.kind == kind && known.message == message);
                known.cloned().unwrap_or_else(|| Condition {
                    kind: kind.into(),
                    message,
                    last_transition_time: Some(now.clone()),
                    ..Condition::default()
                })
            })
            .collect();
        // What was asked for while this was going on goes too: a known loss up to 3.5 (argo-cd issue 28306).
        if refreshed {
            app.metadata.annotations.remove(REFRESH);
        }
        if let Some(operation) = operation
            && app.operation.is_none()
        {
            app.start(operation);
        }
    });
}

/// The images of a Pod's specification; no other kind has any.
pub(super) fn pod_images(object: &Object) -> Vec<String> {
    if object.key.kind != "Pod" {
        return Vec::new();
    }
    ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| object.live.get("spec")?.get(list)?.as_array())
        .flatten()
        .filter_map(|container| container.get("image")?.as_str())
        .map(ToOwned::to_owned)
        .collect()
}
