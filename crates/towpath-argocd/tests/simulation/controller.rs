//! What goes on by itself: the script of a schedule, the two loops of the controller, and rollouts.

use super::*;

/// What happens on its own.
pub(super) async fn script(simulation: Weak<Simulation>) {
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

pub(super) fn accept(simulation: &Simulation, state: &mut State, operation: Operation) {
    simulation.write(state, |app| {
        app.operation = Some(operation);
        app.status.operation_state = None;
    });
    simulation.operate.notify_one();
}

pub(super) async fn compare_loop(simulation: Weak<Simulation>) {
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

pub(super) async fn operation_loop(simulation: Weak<Simulation>) {
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
