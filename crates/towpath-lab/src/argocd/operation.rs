//! The application controller's second loop: running the operation that an Application carries.
//!
//! After `processRequestedAppOperation` of Argo CD 3.5: `operation` and the terminal phase change in one step, a retry
//! waits as `Running` with a `finishedAt`, and success does not wait for health.

use super::Shared;
use super::controller::{keyed, only_source};
use super::model::{
    Application, History, Operation, OperationState, ResourceResult, Source, SyncOperation, SyncResult,
};
use super::render::Rendered;
use super::store::{Level, Loops};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Runs the operations of one Application, one at a time, for as long as it exists.
pub(super) async fn run(shared: Arc<Shared>, name: String, loops: Arc<Loops>) {
    loop {
        loops.operate.notified().await;
        shared.knobs.until(|knobs| !knobs.controller_down).await;
        while let Some(operation) = shared.store.get(&name).and_then(|app| app.operation.clone()) {
            tokio::time::sleep(shared.knobs.get().delay_pickup).await;
            perform(&shared, &name, &loops, operation).await;
        }
    }
}

/// How one attempt ended.
struct Outcome {
    phase: &'static str,
    message: String,
}

async fn perform(shared: &Shared, name: &str, loops: &Loops, operation: Operation) {
    let started = shared.clock.now().to_string();
    shared.store.update(name, |app| {
        app.status.operation_state = Some(OperationState {
            operation: operation.clone(),
            phase: "Running".into(),
            started_at: Some(started.clone()),
            ..OperationState::default()
        });
    });
    let sync = operation.sync.clone().unwrap_or_default();
    let mut retries = 0;
    let outcome = loop {
        let outcome = tokio::select! {
            outcome = attempt(shared, name, &sync) => outcome,
            outcome = terminated(shared, name, loops) => outcome,
        };
        if outcome.phase == "Succeeded" || retries >= operation.retry.limit || is_terminating(shared, name) {
            break outcome;
        }
        retries += 1;
        let pause = back_off(shared, &operation, retries);
        let message = format!(
            "{} Retrying attempt #{retries} at {}.",
            outcome.message,
            shared.clock.now()
        );
        set_state(shared, name, |state| {
            state.message = message;
            state.finished_at = Some(shared.clock.now().to_string());
            state.retry_count = retries;
        });
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            outcome = terminated(shared, name, loops) => break outcome,
        }
        set_state(shared, name, |state| state.finished_at = None);
    };
    finish(shared, name, &sync, &operation, outcome, started);
    let stale = shared.knobs.get().stale_health_after_sync;
    if !stale.is_zero() {
        loops.pending().not_before = Some(Instant::now() + stale);
    }
    if !sync.dry_run {
        let manual = !operation.initiated_by.automated;
        loops.ask(if manual {
            Level::ForceResolve
        } else {
            Level::Latest
        });
    }
}

fn back_off(shared: &Shared, operation: &Operation, attempt: i64) -> Duration {
    let own = operation.retry.backoff.as_ref();
    let base = own
        .and_then(|own| go_duration(&own.duration))
        .unwrap_or(shared.config.retry_back_off);
    let factor = own.and_then(|own| own.factor).unwrap_or(2).clamp(1, 10) as u32;
    let cap = own
        .and_then(|own| go_duration(&own.max_duration))
        .unwrap_or(Duration::from_secs(180));
    let power = factor.saturating_pow(attempt.clamp(1, 20) as u32 - 1);
    base.saturating_mul(power).min(cap)
}

/// A duration as Go and Argo CD write the common ones: `5s`, `500ms`, `3m0s`, or bare seconds.
fn go_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let length = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        total += match &unit[..length] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        rest = &unit[length..];
    }
    (!total.is_zero()).then_some(total)
}

/// Ends when the operation is to end.
async fn terminated(shared: &Shared, name: &str, loops: &Loops) -> Outcome {
    while !is_terminating(shared, name) {
        loops.terminate.notified().await;
    }
    Outcome {
        phase: "Failed",
        message: "Operation terminated".into(),
    }
}

fn is_terminating(shared: &Shared, name: &str) -> bool {
    let app = shared.store.get(name);
    app.is_none_or(|app| {
        app.status
            .operation_state
            .as_ref()
            .is_some_and(|state| state.phase == "Terminating")
    })
}

fn set_state(shared: &Shared, name: &str, change: impl FnOnce(&mut OperationState)) {
    shared
        .store
        .update(name, |app| app.status.operation_state.as_mut().map(change));
}

async fn attempt(shared: &Shared, name: &str, sync: &SyncOperation) -> Outcome {
    match synchronise(shared, name, sync).await {
        Ok(outcome) => outcome,
        Err(message) => Outcome {
            phase: "Error",
            message,
        },
    }
}

async fn synchronise(shared: &Shared, name: &str, sync: &SyncOperation) -> Result<Outcome, String> {
    shared.knobs.until(|knobs| !knobs.hold_operations).await;
    let app = shared.store.get(name).ok_or("the application is gone")?;
    let source = match &sync.source {
        Some(source) => source.clone(),
        None => only_source(&app)?.clone(),
    };
    let target = if sync.revision.is_empty() {
        source.target()
    } else {
        &sync.revision
    };
    let failed = |why: String| format!("ComparisonError: Failed to load target state: {why}");
    let revision = shared
        .repos
        .resolve(&source, target, false)
        .await
        .map_err(failed)?;
    set_state(shared, name, |state| {
        state.sync_result = Some(SyncResult {
            revision: revision.clone(),
            source: source.clone(),
            ..SyncResult::default()
        });
    });
    let rendered = match sync.manifests.is_empty() {
        true => shared
            .repos
            .render(&source, &revision, false)
            .await
            .map_err(failed)?,
        false => local(&sync.manifests)?,
    };
    tokio::time::sleep(shared.config.operation_delay).await;
    let results = apply(shared, &app, sync, &rendered)?;
    let failures = results
        .iter()
        .filter(|result| result.status == "SyncFailed")
        .count();
    set_state(shared, name, |state| {
        if let Some(result) = &mut state.sync_result {
            result.resources = results;
        }
    });
    Ok(match (failures, sync.dry_run) {
        (0, true) => Outcome {
            phase: "Succeeded",
            message: "successfully synced (no more tasks)".into(),
        },
        (0, false) => Outcome {
            phase: "Succeeded",
            message: "successfully synced (all tasks run)".into(),
        },
        _ => Outcome {
            phase: "Failed",
            message: "one or more objects failed to apply".into(),
        },
    })
}

fn local(manifests: &[String]) -> Result<Rendered, String> {
    let objects = manifests
        .iter()
        .map(|text| serde_json::from_str(text))
        .collect::<Result<_, _>>();
    Ok(Rendered {
        source_type: "Directory",
        objects: objects.map_err(|error| format!("a local manifest is no JSON: {error}"))?,
    })
}

fn apply(
    shared: &Shared,
    app: &Application,
    sync: &SyncOperation,
    rendered: &Rendered,
) -> Result<Vec<ResourceResult>, String> {
    let name = &app.metadata.name;
    let objects = keyed(app, rendered)?;
    let chosen = |key: &super::cluster::Key| {
        sync.resources.is_empty()
            || sync.resources.iter().any(|wanted| {
                let namespace = wanted.namespace.is_empty() || wanted.namespace == key.namespace;
                wanted.group == key.group && wanted.kind == key.kind && wanted.name == key.name && namespace
            })
    };
    let mut results = Vec::new();
    for (key, manifest) in objects.iter().filter(|(key, _)| chosen(key)) {
        let done = match sync.dry_run {
            true => Ok("configured"),
            false => shared.cluster.apply(name, manifest, key),
        };
        let (status, message) = match done {
            Ok(done) => (
                "Synced",
                format!(
                    "{} {done}{}",
                    key.for_kubectl(),
                    if sync.dry_run { " (dry run)" } else { "" }
                ),
            ),
            Err(why) => ("SyncFailed", why),
        };
        results.push(result(key, status, message, images(manifest)));
    }
    let extra = shared.cluster.managed(name).into_iter();
    for extra in extra.filter(|object| !objects.iter().any(|(key, _)| *key == object.key)) {
        if !chosen(&extra.key) {
            continue;
        }
        let (status, message) = match sync.prune {
            true => ("Pruned", "pruned"),
            false => ("PruneSkipped", "ignored (requires pruning)"),
        };
        if sync.prune && !sync.dry_run {
            shared.cluster.delete(&extra.key);
        }
        results.push(result(&extra.key, status, message.into(), Vec::new()));
    }
    Ok(results)
}

fn result(key: &super::cluster::Key, status: &str, message: String, images: Vec<String>) -> ResourceResult {
    ResourceResult {
        group: key.group.clone(),
        version: key.version.clone(),
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        // A good apply shows `Running`: only hooks are waited for.
        hook_phase: if status == "SyncFailed" {
            "Failed"
        } else {
            "Running"
        }
        .into(),
        sync_phase: "Sync".into(),
        status: status.into(),
        message,
        images,
        ..ResourceResult::default()
    }
}

fn images(manifest: &Value) -> Vec<String> {
    let spec = manifest
        .pointer("/spec/template/spec")
        .or_else(|| manifest.get("spec"));
    ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| spec?.get(list)?.as_array())
        .flatten()
        .filter_map(|container| container.get("image")?.as_str())
        .map(ToOwned::to_owned)
        .collect()
}

fn finish(
    shared: &Shared,
    name: &str,
    sync: &SyncOperation,
    operation: &Operation,
    outcome: Outcome,
    started: String,
) {
    let now = shared.clock.now().to_string();
    shared.store.update(name, |app| {
        app.operation = None;
        let Some(state) = &mut app.status.operation_state else {
            return;
        };
        state.phase = outcome.phase.into();
        state.message = outcome.message;
        state.finished_at = Some(now.clone());
        let whole = !sync.dry_run && sync.resources.is_empty() && sync.manifests.is_empty();
        if outcome.phase != "Succeeded" || !whole {
            return;
        }
        let (revision, source): (String, Source) = state
            .sync_result
            .as_ref()
            .map(|result| (result.revision.clone(), result.source.clone()))
            .unwrap_or_default();
        let history = &mut app.status.history;
        history.push(History {
            id: history.last().map_or(0, |last| last.id + 1),
            revision,
            deployed_at: now,
            deploy_started_at: Some(started),
            source,
            initiated_by: operation.initiated_by.clone(),
            ..History::default()
        });
        let kept = app.spec.revision_history_limit.unwrap_or(10).clamp(0, 1000) as usize;
        let surplus = history.len().saturating_sub(kept);
        history.drain(..surplus);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_are_read() {
        for (text, seconds) in [
            ("5s", 5.0),
            ("3m0s", 180.0),
            ("500ms", 0.5),
            ("7", 7.0),
            ("1h30m", 5400.0),
        ] {
            assert_eq!(go_duration(text).unwrap().as_secs_f64(), seconds);
        }
        for text in ["", "s", "5x", "5", "-1s"].iter().filter(|text| **text != "5") {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
