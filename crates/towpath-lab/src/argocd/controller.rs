//! The application controller's first loop: comparing what git says with what is live.
//!
//! After `appcontroller.go` and `controller/state.go` of Argo CD 3.5: the levels of a comparison, the grace period for
//! repository errors, the refresh annotation, automatic synchronisation.

use super::Shared;
use super::cluster::{Key, Object, worst};
use super::model::{
    Application, ComparedTo, Condition, HealthStatus, InitiatedBy, Operation, REFRESH, ResourceRef,
    ResourceStatus, Retry, SKIP_RECONCILE, Source, SyncOperation,
};
use super::render::Rendered;
use super::store::{Level, Loops};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::Instant;

/// Compares one Application whenever there is reason to, for as long as it exists.
pub(super) async fn run(shared: Arc<Shared>, name: String, loops: Arc<Loops>) {
    let mut next_poll = Instant::now() + shared.config.poll_interval;
    loop {
        let not_before = loops.pending().not_before;
        let due = not_before.map_or(next_poll, |at| at.min(next_poll));
        tokio::select! {
            () = loops.compare.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
        shared.knobs.until(|knobs| !knobs.controller_down).await;
        let now = Instant::now();
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
struct Verdict {
    status: &'static str,
    revision: String,
    source_type: String,
    resources: Vec<ResourceStatus>,
    conditions: Vec<(&'static str, String)>,
}

async fn compare(shared: &Shared, name: &str, loops: &Loops, level: Level) {
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
    let changed_source = app
        .spec
        .source
        .as_ref()
        .is_some_and(|source| app.status.sync.compared_to.source != *source);
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
    let verdict = match target_state(shared, &app, level, asked.as_deref() == Some("hard")).await {
        Ok((revision, rendered)) => {
            loops.pending().first_repo_error = None;
            judge(shared, &app, revision, &rendered)
        }
        Err(why) => {
            let first = *loops.pending().first_repo_error.get_or_insert_with(Instant::now);
            let known = app.status.reconciled_at.is_some();
            if level < Level::ForceResolve && known && first.elapsed() < shared.config.repo_error_grace {
                return;
            }
            unknown(&app, why)
        }
    };
    let operation = match verdict.status {
        "OutOfSync" => auto_sync(shared, &app, loops, &verdict),
        _ => Ok(None),
    };
    write(
        shared,
        &app,
        verdict,
        operation,
        started.to_string(),
        level,
        asked.is_some(),
    );
    if let Some(app) = shared.store.get(name)
        && app.operation.is_some()
    {
        loops.operate.notify_one();
    }
}

async fn target_state(
    shared: &Shared,
    app: &Application,
    level: Level,
    hard: bool,
) -> Result<(String, Rendered), String> {
    let source = only_source(app)?;
    let failed = |why: String| {
        format!(
            "Failed to load target state: failed to generate manifest for source 1 of 1: rpc error: code = Unknown \
             desc = {why}"
        )
    };
    let revision = match level {
        Level::Recent => app.status.sync.revision.clone(),
        _ => {
            let fresh = level == Level::ForceResolve;
            shared
                .repos
                .resolve(source, source.target(), fresh)
                .await
                .map_err(failed)?
        }
    };
    let rendered = shared
        .repos
        .render(source, &revision, hard)
        .await
        .map_err(failed)?;
    Ok((revision, rendered))
}

/// The source; the lab renders one for each Application.
pub(super) fn only_source(app: &Application) -> Result<&Source, String> {
    match &app.spec.source {
        Some(source) if app.spec.sources.is_empty() => Ok(source),
        _ => Err("the lab renders exactly one spec.source; spec.sources is not supported".into()),
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

fn unknown(app: &Application, why: String) -> Verdict {
    Verdict {
        status: "Unknown",
        revision: app
            .spec
            .source
            .as_ref()
            .map(|source| source.target().to_owned())
            .unwrap_or_default(),
        source_type: app.status.source_type.clone(),
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

fn judge(shared: &Shared, app: &Application, revision: String, rendered: &Rendered) -> Verdict {
    let targets = match keyed(app, rendered) {
        Ok(targets) => targets,
        Err(why) => return unknown(app, why),
    };
    let live = shared.cluster.managed(&app.metadata.name);
    let mut resources: Vec<ResourceStatus> = targets
        .iter()
        .map(|(key, manifest)| {
            let live = shared.cluster.get(key);
            let synced = live.as_ref().is_some_and(|live| live.in_sync_with(manifest));
            status_of(key, live.as_ref(), synced, false)
        })
        .collect();
    for extra in live
        .iter()
        .filter(|object| !targets.iter().any(|(key, _)| *key == object.key))
    {
        resources.push(status_of(&extra.key, Some(extra), false, true));
    }
    let synced = resources.iter().all(|resource| resource.status == "Synced");
    Verdict {
        status: if synced { "Synced" } else { "OutOfSync" },
        revision,
        source_type: rendered.source_type.into(),
        resources,
        conditions: Vec::new(),
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

/// The operation that automatic synchronisation starts now; `Err` is a `SyncError` to show.
fn auto_sync(
    shared: &Shared,
    app: &Application,
    loops: &Loops,
    verdict: &Verdict,
) -> Result<Option<Operation>, String> {
    let Some(automated) = app.automated() else {
        return Ok(None);
    };
    if app.operation.is_some()
        || app.metadata.deletion_timestamp.is_some()
        || shared.knobs.get().sync_window_closed
    {
        return Ok(None);
    }
    let out_of_sync = || {
        verdict
            .resources
            .iter()
            .filter(|resource| resource.status != "Synced")
    };
    if !automated.prune && out_of_sync().all(|resource| resource.requires_pruning) {
        return Ok(None);
    }
    if automated.prune
        && !automated.allow_empty
        && verdict.resources.iter().all(|resource| resource.requires_pruning)
    {
        return Err(format!(
            "Skipping sync attempt to {}: auto-sync will wipe out all resources",
            verdict.revision
        ));
    }
    let mut sync = SyncOperation {
        revision: verdict.revision.clone(),
        prune: automated.prune,
        sync_options: app
            .spec
            .sync_policy
            .as_ref()
            .map(|policy| policy.sync_options.clone())
            .unwrap_or_default(),
        ..SyncOperation::default()
    };
    let attempted = app.status.operation_state.as_ref().filter(|state| {
        state.sync_result.as_ref().is_some_and(|result| {
            result.revision == verdict.revision && app.spec.source.as_ref() == Some(&result.source)
        })
    });
    if let Some(last) = attempted {
        if last.phase != "Succeeded" {
            return Err(format!(
                "Failed last sync attempt to [{}]: {}",
                verdict.revision, last.message
            ));
        }
        if !automated.self_heal {
            return Ok(None);
        }
        let mut pending = loops.pending();
        let wait = shared.config.self_heal_delay;
        if let Some(last) = pending.last_heal
            && last.elapsed() < wait
        {
            pending.level = pending.level.max(Level::Recent);
            pending.not_before = Some(last + wait);
            return Ok(None);
        }
        pending.last_heal = Some(Instant::now());
        sync.auto_heal_attempts_count = 1;
        sync.resources = out_of_sync()
            .map(|resource| ResourceRef {
                group: resource.group.clone(),
                kind: resource.kind.clone(),
                name: resource.name.clone(),
                namespace: resource.namespace.clone(),
                ..ResourceRef::default()
            })
            .collect();
    }
    let own = app
        .spec
        .sync_policy
        .as_ref()
        .and_then(|policy| policy.retry.clone());
    Ok(Some(Operation {
        sync: Some(sync),
        initiated_by: InitiatedBy {
            automated: true,
            ..InitiatedBy::default()
        },
        retry: own.unwrap_or(Retry {
            limit: 5,
            ..Retry::default()
        }),
        ..Operation::default()
    }))
}

fn write(
    shared: &Shared,
    before: &Application,
    verdict: Verdict,
    operation: Result<Option<Operation>, String>,
    started: String,
    level: Level,
    refreshed: bool,
) {
    let tree = shared.cluster.tree(&before.metadata.name);
    let images: BTreeSet<String> = tree.iter().flat_map(pod_images).collect();
    let stale_summary = shared.knobs.get().stale_summary;
    let now = shared.clock.now().to_string();
    let mut conditions = verdict.conditions;
    let operation = operation.unwrap_or_else(|why| {
        conditions.push(("SyncError", why));
        None
    });
    shared.store.update(&before.metadata.name, |app| {
        let status = &mut app.status;
        status.sync.status = verdict.status.into();
        status.sync.revision = verdict.revision;
        status.sync.compared_to = ComparedTo {
            source: before.spec.source.clone().unwrap_or_default(),
            destination: before.spec.destination.clone(),
            ..ComparedTo::default()
        };
        let health = overall(&verdict.resources);
        if status.health.status != health {
            status.health.status = health.into();
            status.health.last_transition_time = Some(now.clone());
        }
        status.resources = verdict.resources;
        status.source_type = verdict.source_type;
        status.controller_namespace = shared.config.namespace.clone();
        status.resource_health_source = "appTree".into();
        if !stale_summary {
            status.summary.images = images.into_iter().collect();
        }
        if level >= Level::Latest || status.reconciled_at.is_none() {
            status.reconciled_at = Some(started);
        }
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
