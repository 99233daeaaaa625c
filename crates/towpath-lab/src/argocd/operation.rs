//! The application controller's second loop: running the operation that an Application carries.
//!
//! After `processRequestedAppOperation` of Argo CD 3.5: `operation` and the terminal phase change in one step, a retry
//! waits as `Running` with a `finishedAt`, and success does not wait for health.

use super::controller;
use super::knobs::HealthFlap;
use super::model::{History, Operation, OperationState, SyncOperation, SyncResult, one_or_several};
use super::render::Rendered;
use super::store::{Level, Loops};
use super::{Shared, apply, windows};
use std::sync::Arc;
use std::time::Duration;

/// How often what is waited for is looked at without a sign of it.
pub(super) const RECHECK: Duration = Duration::from_secs(30);

/// Runs the operations of one Application, one at a time, for as long as it exists.
pub(super) async fn run(shared: Arc<Shared>, name: String, loops: Arc<Loops>) {
    loop {
        loops.operate.notified().await;
        shared.knobs.until(|knobs| !knobs.controller_down).await;
        while let Some(operation) = shared.store.get(&name).and_then(|app| app.operation.clone()) {
            shared.clock.sleep(shared.knobs.get().delay_pickup).await;
            perform(&shared, &name, &loops, operation).await;
        }
    }
}

/// How one attempt ended.
pub(super) struct Outcome {
    pub(super) phase: &'static str,
    pub(super) message: String,
}

impl Outcome {
    pub(super) fn succeeded(message: &str) -> Self {
        Self {
            phase: "Succeeded",
            message: message.into(),
        }
    }
}

async fn perform(shared: &Arc<Shared>, name: &str, loops: &Arc<Loops>, operation: Operation) {
    let started = shared.clock.now().to_string();
    shared.store.update(name, |app| {
        app.status.operation_state = Some(OperationState {
            operation: operation.clone(),
            phase: "Running".into(),
            started_at: Some(started.clone()),
            ..OperationState::default()
        });
    });
    if shared.knobs.get().same_second_reconcile {
        let early = controller::look_before(shared, name).await;
        loops.pending().early = early;
    }
    let sync = operation.sync.clone().unwrap_or_default();
    let mut retries = 0;
    let mut outcome = loop {
        let outcome = tokio::select! {
            outcome = attempt(shared, name, &sync, !operation.initiated_by.automated) => outcome,
            outcome = terminated(shared, name, loops) => outcome,
        };
        if outcome.phase == "Succeeded" || retries >= operation.retry.limit || is_terminating(shared, name) {
            break outcome;
        }
        let pause = back_off(shared, &operation, retries + 1);
        retries += 1;
        let at = shared.clock.precise().saturating_add(pause).unwrap_or_default();
        let message = format!(
            "{}. Retrying attempt #{retries} at {}.",
            outcome.message,
            at.strftime("%-I:%M%p")
        );
        set_state(shared, name, |state| {
            state.message = message;
            state.finished_at = Some(shared.clock.now().to_string());
            state.retry_count = retries;
        });
        tokio::select! {
            () = shared.clock.sleep(pause) => {}
            outcome = terminated(shared, name, loops) => break outcome,
        }
        set_state(shared, name, |state| state.finished_at = None);
    };
    if outcome.phase != "Succeeded" && retries > 0 {
        outcome.message = format!("{} (retried {retries} times).", outcome.message);
    }
    let stale = shared.knobs.get().stale_health_after_sync;
    if !stale.is_zero() {
        loops.pending().not_before = Some(shared.clock.moment() + stale);
    }
    let finished = shared.clock.now().to_string();
    finish(shared, name, &sync, &operation, outcome, (started, &finished));
    if let Some(flap) = shared.knobs.get().health_flap {
        begin_flapping(shared, name, loops, flap);
    }
    let early = loops.pending().early.take();
    if let Some(early) = early {
        controller::report(shared, name, early, finished);
    }
    if !sync.dry_run {
        let manual = !operation.initiated_by.automated && !shared.knobs.get().auto_sync_reverts;
        loops.ask(if manual {
            Level::ForceResolve
        } else {
            Level::Latest
        });
    }
}

/// Makes the health go bad and good again, beside everything else.
fn begin_flapping(shared: &Arc<Shared>, name: &str, loops: &Arc<Loops>, flap: HealthFlap) {
    if flap.healthy_for.is_zero() && flap.times > 0 {
        loops.pending().flapping = true;
    }
    let (own, loops) = (shared.clone(), loops.clone());
    let name = name.to_owned();
    shared.tasks.spawn(async move {
        for _ in 0..flap.times {
            for (bad, lasts) in [(false, flap.healthy_for), (true, flap.degraded_for)] {
                loops.pending().flapping = bad || flap.healthy_for.is_zero();
                loops.ask(Level::Recent);
                own.clock.sleep(lasts).await;
            }
        }
        loops.pending().flapping = false;
        if own.store.get(&name).is_some() {
            loops.ask(Level::Recent);
        }
    });
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
pub(super) fn go_duration(text: &str) -> Option<Duration> {
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

pub(super) fn set_state(shared: &Shared, name: &str, change: impl FnOnce(&mut OperationState)) {
    shared
        .store
        .update(name, |app| app.status.operation_state.as_mut().map(change));
}

async fn attempt(shared: &Arc<Shared>, name: &str, sync: &SyncOperation, by_hand: bool) -> Outcome {
    match synchronise(shared, name, sync, by_hand).await {
        Ok(outcome) => outcome,
        Err(message) => Outcome {
            phase: "Error",
            message,
        },
    }
}

async fn synchronise(
    shared: &Arc<Shared>,
    name: &str,
    sync: &SyncOperation,
    by_hand: bool,
) -> Result<Outcome, String> {
    shared.knobs.until(|knobs| !knobs.hold_operations).await;
    until_allowed(shared, name, by_hand).await;
    let app = shared.store.get(name).ok_or("the application is gone")?;
    let sources = match (&sync.source, sync.sources.is_empty()) {
        (Some(source), _) => vec![source.clone()],
        (None, false) => sync.sources.clone(),
        (None, true) => app.spec.effective_sources(),
    };
    let wanted = match sync.revisions.is_empty() {
        true => std::slice::from_ref(&sync.revision),
        false => &sync.revisions,
    };
    let failed = |why: String| format!("ComparisonError: Failed to load target state: {why}");
    let mut revisions = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let wanted = wanted.get(index).filter(|revision| !revision.is_empty());
        let target = wanted.map_or(source.target(), String::as_str);
        revisions.push(
            shared
                .repos
                .resolve(source, target, false)
                .await
                .map_err(failed)?,
        );
    }
    let (revision, several) = one_or_several(app.spec.has_several(), revisions.clone());
    let (source, of_several) = one_or_several(app.spec.has_several(), sources.clone());
    set_state(shared, name, |state| {
        state.sync_result = Some(SyncResult {
            revision,
            revisions: several,
            source,
            sources: of_several,
            ..SyncResult::default()
        });
    });
    let rendered = match sync.manifests.is_empty() {
        true => {
            let (rendered, _) = shared
                .repos
                .render_all(&sources, &revisions, false)
                .await
                .map_err(failed)?;
            rendered
        }
        false => local(&sync.manifests)?,
    };
    shared.clock.sleep(shared.config.operation_delay).await;
    if shared.knobs.spend(|knobs| &mut knobs.fail_attempts) {
        return Ok(Outcome {
            phase: "Failed",
            message: "one or more objects failed to apply, reason: Internal error occurred: failed calling webhook \
                      \"policy.example\": context deadline exceeded"
                .into(),
        });
    }
    apply::run(shared, &app, sync, &rendered).await
}

/// Ends when no sync window forbids it. One that closes after the operation was accepted holds it as `Running`.
async fn until_allowed(shared: &Shared, name: &str, by_hand: bool) {
    const BLOCKED: &str = "Sync operation blocked by sync window";
    let mut changes = shared.knobs.changes();
    let mut blocked = false;
    loop {
        changes.borrow_and_update();
        let allowed = shared
            .store
            .get(name)
            .is_none_or(|app| windows::can_sync(shared, &app, by_hand));
        if allowed {
            break;
        }
        blocked = true;
        set_state(shared, name, |state| state.message = BLOCKED.into());
        tokio::select! {
            () = shared.clock.sleep(RECHECK) => {}
            // The knobs live as long as the lab.
            _ = changes.changed() => {}
        }
    }
    if blocked {
        set_state(shared, name, |state| state.message.clear());
    }
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

fn finish(
    shared: &Shared,
    name: &str,
    sync: &SyncOperation,
    operation: &Operation,
    outcome: Outcome,
    (started, finished): (String, &str),
) {
    shared.store.update(name, |app| {
        app.operation = None;
        let Some(state) = &mut app.status.operation_state else {
            return;
        };
        state.phase = outcome.phase.into();
        state.message = outcome.message;
        state.finished_at = Some(finished.to_owned());
        let whole = !sync.dry_run && sync.resources.is_empty() && sync.manifests.is_empty();
        if outcome.phase != "Succeeded" || !whole {
            return;
        }
        let result = state.sync_result.clone().unwrap_or_default();
        let history = &mut app.status.history;
        history.push(History {
            id: history.last().map_or(0, |last| last.id + 1),
            revision: result.revision,
            revisions: result.revisions,
            deployed_at: finished.to_owned(),
            deploy_started_at: Some(started),
            source: result.source,
            sources: result.sources,
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
