//! Operations by request: sync, terminate, rollback, with the checks of `server/application/application.go` in order.

use super::access::{Caller, Scope};
use super::error::Status;
use super::model::{
    Application, Info, InitiatedBy, Operation, ResourceRef, Retry, Source, SyncOperation, one_or_several,
};
use super::request::{Params, body};
use super::{Shared, windows};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SyncRequest {
    revision: Option<String>,
    dry_run: bool,
    prune: bool,
    strategy: Option<Value>,
    resources: Vec<ResourceRef>,
    sync_options: Option<SyncOptions>,
    retry_strategy: Option<Retry>,
    infos: Vec<Info>,
    manifests: Vec<String>,
    app_namespace: String,
    project: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SyncOptions {
    items: Vec<String>,
}

pub(super) async fn sync(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
    bytes: Bytes,
) -> Result<Json<Application>, Status> {
    let request: SyncRequest = body(&bytes)?;
    let scope = Scope::of(&params).or_body(&request.project, &request.app_namespace);
    let app = caller.find(&shared, &name, &scope)?;
    if !windows::can_sync(&shared, &app, true) {
        return Err(Status::denied_because("cannot sync: blocked by sync window"));
    }
    caller.require(&shared, "sync", &app)?;
    if !request.manifests.is_empty() {
        caller.require(&shared, "override", &app)?;
        if app.automated().is_some() && !request.dry_run {
            return Err(Status::precondition(
                "cannot use local sync when Automatic Sync Policy is enabled unless for dry run",
            ));
        }
    }
    if app.metadata.deletion_timestamp.is_some() {
        return Err(Status::precondition("application is deleting"));
    }
    let sources = app.spec.effective_sources();
    let target = sources.first().map_or("HEAD", Source::target);
    let wanted = request
        .revision
        .as_deref()
        .filter(|revision| !revision.is_empty());
    if let Some(wanted) = wanted
        && wanted != target
        && app.automated().is_some()
        && !request.dry_run
    {
        return Err(Status::precondition(format!(
            "Cannot sync to {wanted}: auto-sync currently set to {target}"
        )));
    }
    // A full SHA is taken as it is; whether it exists shows when the controller runs.
    let mut revisions = Vec::new();
    for source in &sources {
        let wanted = wanted.unwrap_or(source.target());
        revisions.push(
            shared
                .repos
                .resolve(source, wanted, true)
                .await
                .map_err(Status::unknown)?,
        );
    }
    let (revision, revisions) = one_or_several(app.spec.has_several(), revisions);
    let policy = app.spec.sync_policy.as_ref();
    let operation = Operation {
        sync: Some(SyncOperation {
            revision,
            revisions,
            sources: app.spec.sources.clone(),
            prune: request.prune,
            dry_run: request.dry_run,
            sync_strategy: request.strategy,
            resources: request.resources,
            manifests: request.manifests,
            sync_options: request
                .sync_options
                .map(|options| options.items)
                .or_else(|| policy.map(|policy| policy.sync_options.clone()))
                .unwrap_or_default(),
            ..SyncOperation::default()
        }),
        initiated_by: by(&caller),
        info: request.infos,
        retry: request
            .retry_strategy
            .or_else(|| policy.and_then(|policy| policy.retry.clone()))
            .unwrap_or_default(),
        ..Operation::default()
    };
    start(&shared, &name, operation)
}

fn by(caller: &Caller) -> InitiatedBy {
    InitiatedBy {
        username: caller.name(),
        ..InitiatedBy::default()
    }
}

/// Writes the operation, unless there is one.
fn start(shared: &Shared, name: &str, operation: Operation) -> Result<Json<Application>, Status> {
    let (accepted, app) = shared
        .store
        .update(name, |app| {
            let free = app.operation.is_none() && !shared.knobs.spend(|knobs| &mut knobs.operation_conflict);
            if free {
                app.start(operation);
            }
            free
        })
        .ok_or_else(|| Status::not_found("applications.argoproj.io", name))?;
    if !accepted {
        return Err(Status::precondition("another operation is already in progress"));
    }
    if let Some(loops) = shared.store.loops(name) {
        loops.operate.notify_one();
    }
    Ok(Json(Application::clone(&app)))
}

pub(super) async fn terminate(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Value>, Status> {
    let app = caller.find(&shared, &name, &Scope::of(&params))?;
    caller.require(&shared, "sync", &app)?;
    let terminated = shared
        .store
        .update(&name, |app| match &mut app.status.operation_state {
            Some(state) if app.operation.is_some() && !state.completed() => {
                state.phase = "Terminating".into();
                true
            }
            _ => false,
        });
    if !terminated.is_some_and(|(terminated, _)| terminated) {
        return Err(Status::invalid(
            "Unable to terminate operation. No operation is in progress",
        ));
    }
    if let Some(loops) = shared.store.loops(&name) {
        loops.terminate.notify_one();
    }
    Ok(Json(json!({})))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rollback {
    id: i64,
    dry_run: bool,
    prune: bool,
    app_namespace: String,
    project: String,
}

pub(super) async fn rollback(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
    bytes: Bytes,
) -> Result<Json<Application>, Status> {
    let request: Rollback = body(&bytes)?;
    let scope = Scope::of(&params).or_body(&request.project, &request.app_namespace);
    let app = caller.find(&shared, &name, &scope)?;
    caller.require(&shared, "sync", &app)?;
    if app.metadata.deletion_timestamp.is_some() {
        return Err(Status::precondition("application is deleting"));
    }
    if app.automated().is_some() {
        return Err(Status::precondition(
            "rollback cannot be initiated when auto-sync is enabled",
        ));
    }
    let id = request.id;
    let deployment = app
        .status
        .history
        .iter()
        .find(|deployment| deployment.id == id)
        .ok_or_else(|| {
            Status::invalid(format!(
                "application {name} does not have deployment with id {id}"
            ))
        })?;
    let operation = Operation {
        sync: Some(SyncOperation {
            revision: deployment.revision.clone(),
            revisions: deployment.revisions.clone(),
            sources: deployment.sources.clone(),
            dry_run: request.dry_run,
            prune: request.prune,
            sync_strategy: Some(json!({"apply": {}})),
            source: deployment.sources.is_empty().then(|| deployment.source.clone()),
            ..SyncOperation::default()
        }),
        initiated_by: by(&caller),
        ..Operation::default()
    };
    start(&shared, &name, operation)
}
