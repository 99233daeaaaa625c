//! The work of one attempt of a sync: phase by phase, wave by wave (`sync_context.go` of Argo CD's engine).
//!
//! Hooks are waited for, and everything before the last step; the health of what the last step applies is nobody's
//! business here.

use super::Shared;
use super::children;
use super::controller::keyed;
use super::model::{Application, ResourceResult, SyncOperation};
use super::operation::{Outcome, RECHECK, set_state};
use super::phases::{Phase, Task, is_deleted_after, plan};
use super::render::Rendered;
use serde_json::Value;
use std::sync::Arc;

/// Does it all, and keeps `syncResult.resources` up to date meanwhile.
pub(super) async fn run(
    shared: &Arc<Shared>,
    app: &Application,
    sync: &SyncOperation,
    rendered: &Rendered,
) -> Result<Outcome, String> {
    let name = &app.metadata.name;
    let objects = keyed(app, rendered)?;
    let chosen = |key: &super::cluster::Key| {
        sync.resources.is_empty()
            || sync.resources.iter().any(|wanted| {
                let namespace = wanted.namespace.is_empty() || wanted.namespace == key.namespace;
                wanted.group == key.group && wanted.kind == key.kind && wanted.name == key.name && namespace
            })
    };
    let mut extra = shared.cluster.managed(name);
    extra.retain(|object| {
        !super::phases::is_hook(&object.live) && !objects.iter().any(|(key, _)| *key == object.key)
    });
    let by_apply = sync
        .sync_strategy
        .as_ref()
        .is_some_and(|strategy| strategy.get("apply").is_some_and(|apply| !apply.is_null()));
    let hooks = !by_apply && !sync.dry_run && sync.resources.is_empty();
    let mut tasks = plan(&objects, &extra, hooks);
    tasks.retain(|task| chosen(&task.key));
    let at = tasks.partition_point(|task| task.phase < Phase::SyncFail);
    let on_failure = tasks.split_off(at);
    let mut work = Work {
        shared,
        app: name,
        sync,
        results: Vec::new(),
    };
    let failed = match work.steps(&tasks).await {
        Ok(()) => None,
        Err(why) => {
            // What comes of these hooks stands in the results; the sync has failed either way.
            let _ = work.steps(&on_failure).await;
            Some(why)
        }
    };
    Ok(match (failed, sync.dry_run) {
        (Some(message), _) => Outcome {
            phase: "Failed",
            message,
        },
        (None, true) => Outcome::succeeded("successfully synced (no more tasks)"),
        (None, false) => Outcome::succeeded("successfully synced (all tasks run)"),
    })
}

/// How far a task is, and what is said of it.
enum Progress {
    Running,
    Succeeded(String),
    Failed(String),
}

struct Work<'a> {
    shared: &'a Arc<Shared>,
    app: &'a str,
    sync: &'a SyncOperation,
    results: Vec<ResourceResult>,
}

impl Work<'_> {
    /// Runs the steps in their order; `Err` says why one failed.
    async fn steps(&mut self, tasks: &[Task]) -> Result<(), String> {
        let mut steps = tasks
            .chunk_by(|one, other| (one.phase, one.wave) == (other.phase, other.wave))
            .peekable();
        let mut first = true;
        while let Some(step) = steps.next() {
            if !first && !self.sync.dry_run {
                self.shared.clock.sleep(self.shared.config.wave_delay).await;
            }
            first = false;
            let begun = self.results.len();
            let reasons: Vec<String> = step.iter().filter_map(|task| self.start(task).err()).collect();
            self.show("");
            if !reasons.is_empty() {
                return Err(format!(
                    "one or more objects failed to apply, reason: {}",
                    reasons.join(",")
                ));
            }
            if !self.sync.dry_run {
                self.finish(step, begun, steps.peek().is_none()).await?;
            }
        }
        Ok(())
    }

    /// Applies or prunes one object, and notes the result.
    fn start(&mut self, task: &Task) -> Result<(), String> {
        let (status, message) = match &task.manifest {
            Some(manifest) => match self.apply(task, manifest) {
                Ok(message) => ("Synced", message),
                Err(why) => ("SyncFailed", why),
            },
            None if self.sync.prune => {
                if !self.sync.dry_run {
                    self.shared.cluster.delete(&task.key);
                    children::deleted(self.shared, &task.key);
                }
                ("Pruned", "pruned".to_owned())
            }
            None => ("PruneSkipped", "ignored (requires pruning)".to_owned()),
        };
        let key = &task.key;
        let failed = status == "SyncFailed";
        self.results.push(ResourceResult {
            group: key.group.clone(),
            version: key.version.clone(),
            kind: key.kind.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            hook_type: if task.is_hook { task.phase.name() } else { "" }.into(),
            // A good apply shows `Running` until it is waited for, which the last step is not.
            hook_phase: if failed { "Failed" } else { "Running" }.into(),
            sync_phase: task.phase.name().into(),
            status: if task.is_hook { "" } else { status }.into(),
            message: message.clone(),
            images: task.manifest.as_ref().map(images).unwrap_or_default(),
            ..ResourceResult::default()
        });
        if failed { Err(message) } else { Ok(()) }
    }

    fn apply(&self, task: &Task, manifest: &Value) -> Result<String, String> {
        let key = &task.key;
        if self.sync.dry_run {
            return Ok(format!("{} configured (dry run)", key.for_kubectl()));
        }
        if task.is_hook {
            // `BeforeHookCreation`, which is what happens where a hook does not say.
            self.shared.cluster.delete(key);
        }
        let done = self.shared.cluster.apply(self.app, manifest, key)?;
        children::applied(self.shared, manifest, key)?;
        Ok(format!("{} {done}", key.for_kubectl()))
    }

    /// Waits for what a step has started: for hooks always, for the rest unless it is the last step.
    async fn finish(&mut self, step: &[Task], begun: usize, last: bool) -> Result<(), String> {
        let mut changes = self.shared.cluster.changes();
        loop {
            changes.borrow_and_update();
            let (mut running, mut reasons) = (Vec::new(), Vec::new());
            for (index, task) in step.iter().enumerate() {
                if task.manifest.is_none() || (last && !task.is_hook) {
                    continue;
                }
                let (phase, message) = match self.progress(task) {
                    Progress::Running => {
                        running.push(task);
                        continue;
                    }
                    Progress::Succeeded(message) => ("Succeeded", message),
                    Progress::Failed(message) => {
                        reasons.push(message.clone());
                        ("Failed", message)
                    }
                };
                let result = &mut self.results[begun + index];
                result.hook_phase = phase.into();
                if !message.is_empty() {
                    result.message = message;
                }
            }
            let Some((task, more)) = running.split_first() else {
                self.show("");
                self.clean_up(step, begun);
                return match reasons.is_empty() {
                    true => Ok(()),
                    false => Err(format!(
                        "one or more synchronization tasks completed unsuccessfully, reason: {}",
                        reasons.join(",")
                    )),
                };
            };
            self.show(&waiting_for(task, more.len()));
            tokio::select! {
                // The cluster lives as long as the lab, and this does not live longer.
                _ = changes.changed() => {}
                () = self.shared.clock.sleep(RECHECK) => {}
            }
        }
    }

    fn progress(&self, task: &Task) -> Progress {
        let Some(live) = self.shared.cluster.get(&task.key) else {
            return Progress::Failed(format!("{} was deleted", task.key.for_kubectl()));
        };
        match live.health() {
            None => Progress::Succeeded(String::new()),
            Some(health) if health.status == "Healthy" => Progress::Succeeded(health.message),
            Some(health) if health.status == "Degraded" => Progress::Failed(health.message),
            Some(_) => Progress::Running,
        }
    }

    /// Deletes the hooks that are to go after what came of them.
    fn clean_up(&self, step: &[Task], begun: usize) {
        for (task, result) in step.iter().zip(&self.results[begun..]) {
            let end = format!("Hook{}", result.hook_phase);
            let goes = |manifest: &Value| is_deleted_after(manifest, &end);
            if task.is_hook && task.manifest.as_ref().is_some_and(goes) {
                self.shared.cluster.delete(&task.key);
            }
        }
    }

    /// Writes the results so far, and what is going on.
    fn show(&self, message: &str) {
        set_state(self.shared, self.app, |state| {
            state.message = message.into();
            if let Some(result) = &mut state.sync_result {
                result.resources = self.results.clone();
            }
        });
    }
}

fn waiting_for(task: &Task, more: usize) -> String {
    let (what, rest) = match task.is_hook {
        true => ("completion of hook", "hooks"),
        false => ("healthy state of", "resources"),
    };
    let key = &task.key;
    let message = format!("waiting for {what} {}/{}/{}", key.group, key.kind, key.name);
    match more {
        0 => message,
        more => format!("{message} and {more} more {rest}"),
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
