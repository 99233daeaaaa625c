//! Automatic synchronisation: whether a comparison gives rise to an operation (`autoSync` of `appcontroller.go`).

use super::controller::Verdict;
use super::model::{Application, InitiatedBy, Operation, ResourceRef, Retry, SyncOperation, one_or_several};
use super::store::{Level, Loops};
use super::{Shared, windows};

/// The operation that automatic synchronisation starts now; `Err` is a `SyncError` to show.
pub(super) fn operation(
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
        || !windows::can_sync(shared, app, false)
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
            verdict.revisions.join(", ")
        ));
    }
    let (revision, revisions) = one_or_several(app.spec.has_several(), verdict.revisions.clone());
    let mut sync = SyncOperation {
        revision,
        revisions,
        sources: app.spec.sources.clone(),
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
            let (revision, source) = (&result.revision, &result.source);
            match result.revisions.is_empty() {
                true => {
                    verdict.revisions == std::slice::from_ref(revision)
                        && verdict.sources == std::slice::from_ref(source)
                }
                false => verdict.revisions == result.revisions && verdict.sources == result.sources,
            }
        })
    });
    if let Some(last) = attempted {
        if last.phase != "Succeeded" {
            return Err(format!(
                "Failed last sync attempt to [{}]: {}",
                verdict.revisions.join(", "),
                last.message
            ));
        }
        if !automated.self_heal {
            return Ok(None);
        }
        let mut pending = loops.pending();
        let wait = shared.config.self_heal_delay;
        if let Some(last) = pending.last_heal
            && shared.clock.since(last) < wait
        {
            pending.level = pending.level.max(Level::Recent);
            pending.not_before = Some(last + wait);
            return Ok(None);
        }
        pending.last_heal = Some(shared.clock.moment());
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
