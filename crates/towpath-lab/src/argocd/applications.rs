//! Applications: list, get with refresh, create, replace, patch, delete.

use super::Shared;
use super::access::{Caller, Scope};
use super::children::FINALIZER;
use super::cluster::merge;
use super::error::Status;
use super::model::{Application, Metadata, REFRESH, Spec};
use super::request::{Params, body};
use super::store::Level;
use super::{children, stream};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Answer = Result<Json<Application>, Status>;

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: Params,
) -> Result<Json<Value>, Status> {
    let filter = stream::Filter::of(&params);
    let cached = shared.store.cached(shared.knobs.get().informer_lag);
    let items: Vec<_> = cached
        .apps
        .into_iter()
        .filter(|app| filter.takes(app) && caller.may(&shared, "get", app.project()))
        .filter(|app| {
            let repository = params.get("repo").unwrap_or_default();
            repository.is_empty()
                || app
                    .spec
                    .source
                    .as_ref()
                    .is_some_and(|source| source.repo_url == repository)
        })
        .collect();
    let mut items: Vec<Value> = items
        .iter()
        .filter_map(|app| serde_json::to_value(&**app).ok())
        .collect();
    for item in &mut items {
        // Since 3.0 the health of single resources is not in the resource, and a list does not put it back.
        for resource in item
            .pointer_mut("/status/resources")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            resource
                .as_object_mut()
                .and_then(|resource| resource.remove("health"));
        }
    }
    let mut answer = json!({"metadata": {"resourceVersion": cached.version.to_string()}, "items": items});
    if let Some(fields) = params.get("fields").filter(|fields| !fields.is_empty()) {
        answer = super::views::select(&answer, &selectable(fields));
        if items.is_empty() {
            answer["items"] = Value::Null;
        }
    }
    Ok(Json(answer))
}

/// What a list can be reduced to (`appFields` in `server/application`); other names vanish.
const FIELDS: [&str; 23] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.annotations",
    "metadata.labels",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "spec",
    "spec.destination",
    "spec.project",
    "spec.source",
    "spec.sources",
    "spec.sourceHydrator",
    "spec.syncPolicy",
    "status.sourceHydrator",
    "status.summary",
    "status.health",
    "status.resources",
    "status.sync.status",
    "status.sync.revision",
    "status.operationState.phase",
    "status.operationState.startedAt",
    "status.operationState.finishedAt",
    "operation.sync",
];

/// The fields of those asked for that a list lets go alone.
fn selectable(fields: &str) -> String {
    let (sign, fields) = match fields.strip_prefix('-') {
        Some(fields) => ("-", fields),
        None => ("", fields),
    };
    let known: Vec<&str> = fields
        .split(',')
        .map(str::trim)
        .filter(|field| match field.strip_prefix("items.") {
            Some(field) => FIELDS.contains(&field),
            None => true,
        })
        .collect();
    format!("{sign}{}", known.join(","))
}

pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    let app = caller.find(&shared, &name, &Scope::of(&params))?;
    match params.get("refresh").filter(|refresh| !refresh.is_empty()) {
        None => Ok(Json(Application::clone(&app))),
        Some(kind) => refresh(&shared, &name, if kind == "hard" { "hard" } else { "normal" })
            .await
            .map(Json),
    }
}

/// Asks for a refresh and waits until it is done, for as long as the caller does.
async fn refresh(shared: &Shared, name: &str, kind: &'static str) -> Result<Application, Status> {
    let gone = || Status::not_found("applications.argoproj.io", name);
    let lag = shared.knobs.get().informer_lag;
    let (_, mut events) = shared.store.watch(lag);
    let version = request_refresh(shared, name, kind).ok_or_else(gone)?;
    loop {
        let app = shared.store.get(name).ok_or_else(gone)?;
        let newer = app
            .metadata
            .resource_version
            .parse::<u64>()
            .is_ok_and(|now| now > version);
        if newer && !app.metadata.annotations.contains_key(REFRESH) {
            // It is the informer that tells.
            shared.clock.sleep(lag).await;
            return Ok(Application::clone(&app));
        }
        if let Err(tokio::sync::broadcast::error::RecvError::Closed) = events.recv().await {
            return Err(Status::unknown("application refresh deadline exceeded"));
        }
    }
}

/// Writes the annotation that asks for a refresh; answers the resource version with it.
pub(super) fn request_refresh(shared: &Shared, name: &str, kind: &str) -> Option<u64> {
    let set = |app: &mut Application| app.metadata.annotations.insert(REFRESH.into(), kind.into());
    let (_, app) = shared.store.update(name, set)?;
    if shared.knobs.spend(|knobs| &mut knobs.lose_refresh) {
        // The end of another comparison takes the annotation along, and nobody has looked.
        shared
            .store
            .update(name, |app| app.metadata.annotations.remove(REFRESH));
    } else if let Some(loops) = shared.store.loops(name) {
        loops.compare.notify_one();
    }
    app.metadata.resource_version.parse().ok()
}

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: Params,
    bytes: Bytes,
) -> Answer {
    let wanted: Application = body(&bytes)?;
    let name = wanted.metadata.name.clone();
    if name.parse::<towpath_core::ApplicationName>().is_err() {
        return Err(Status::invalid(format!(
            "application name {name:?} is not a DNS-1123 subdomain"
        )));
    }
    let namespace = &wanted.metadata.namespace;
    if !namespace.is_empty() && *namespace != shared.config.namespace {
        return Err(Status::denied_because(format!(
            "namespace '{namespace}' is not permitted"
        )));
    }
    caller.require(&shared, "create", &wanted)?;
    validate(&shared, &params, &wanted).await?;
    let app = Application {
        metadata: Metadata {
            namespace: shared.config.namespace.clone(),
            ..own_metadata(&wanted.metadata)
        },
        spec: wanted.spec.clone(),
        ..Application::default()
    };
    let existing = match children::add(&shared, app) {
        Ok(app) => return Ok(Json(Application::clone(&app))),
        Err(existing) => existing,
    };
    if existing.project() != wanted.project() {
        caller.require(&shared, "get", &existing)?;
    }
    let own = own_metadata(&wanted.metadata);
    let same = existing.spec == wanted.spec
        && existing.metadata.labels == own.labels
        && existing.metadata.annotations == own.annotations
        && existing.metadata.finalizers == own.finalizers;
    if same {
        return Ok(Json(Application::clone(&existing)));
    }
    if !params.is_true("upsert") {
        return Err(Status::invalid(
            "existing application spec is different, use upsert flag to force update",
        ));
    }
    caller.require(&shared, "update", &existing)?;
    change(&shared, &name, |app| {
        app.spec = wanted.spec;
        app.metadata.labels.extend(own.labels);
        app.metadata.annotations.extend(own.annotations);
        app.metadata.finalizers = own.finalizers;
    })
}

/// What a caller may say about the metadata.
fn own_metadata(metadata: &Metadata) -> Metadata {
    Metadata {
        name: metadata.name.clone(),
        labels: metadata.labels.clone(),
        annotations: metadata.annotations.clone(),
        finalizers: metadata.finalizers.clone(),
        ..Metadata::default()
    }
}

/// Checks an Application with another spec.
async fn validate_change(
    shared: &Shared,
    params: &Params,
    app: &Application,
    spec: &Spec,
) -> Result<(), Status> {
    let changed = Application {
        spec: spec.clone(),
        ..app.clone()
    };
    validate(shared, params, &changed).await
}

/// Checks an Application, unless the caller does not want that.
async fn validate(shared: &Shared, params: &Params, app: &Application) -> Result<(), Status> {
    if params.get("validate") == Some("false") {
        return Ok(());
    }
    let name = &app.metadata.name;
    if !shared.projects.has(app.project()) {
        let project = app.project();
        return Err(Status::invalid(format!(
            "application references project {project} which does not exist"
        )));
    }
    let invalid = |why: String| {
        Status::invalid(format!(
            "application spec for {name} is invalid: InvalidSpecError: {why}"
        ))
    };
    let sources = app.spec.given_sources();
    if sources.is_empty() || sources.iter().any(|source| source.repo_url.is_empty()) {
        return Err(invalid(
            "spec.source.repoURL and either spec.source.path or spec.source.chart are required".into(),
        ));
    }
    for source in &sources {
        let resolved = shared.repos.resolve(source, source.target(), true).await;
        resolved.map_err(|why| invalid(format!("repository not accessible: {why}")))?;
    }
    Ok(())
}

/// Changes an Application and has it looked at again.
fn change(shared: &Shared, name: &str, change: impl FnOnce(&mut Application)) -> Answer {
    let (_, app) = shared
        .store
        .update(name, change)
        .ok_or_else(|| Status::not_found("applications.argoproj.io", name))?;
    if let Some(loops) = shared.store.loops(name) {
        loops.ask(Level::Latest);
    }
    Ok(Json(Application::clone(&app)))
}

/// Gives an Application what another one says, as far as a caller may say it.
fn take_over(app: &mut Application, wanted: Application) {
    app.spec = wanted.spec;
    app.metadata.labels = wanted.metadata.labels;
    app.metadata.annotations = wanted.metadata.annotations;
    app.metadata.finalizers = wanted.metadata.finalizers;
}

pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
    bytes: Bytes,
) -> Answer {
    let wanted: Application = body(&bytes)?;
    let app = caller.find(&shared, &name, &Scope::of(&params))?;
    caller.require(&shared, "update", &app)?;
    validate_change(&shared, &params, &app, &wanted.spec).await?;
    change(&shared, &name, |app| take_over(app, wanted))
}

pub(super) async fn replace_spec(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
    bytes: Bytes,
) -> Result<Json<Spec>, Status> {
    let spec: Spec = body(&bytes)?;
    let app = caller.find(&shared, &name, &Scope::of(&params))?;
    caller.require(&shared, "update", &app)?;
    validate_change(&shared, &params, &app, &spec).await?;
    let Json(app) = change(&shared, &name, |app| app.spec = spec)?;
    Ok(Json(app.spec))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Patch {
    patch: String,
    patch_type: String,
    app_namespace: String,
    project: String,
}

pub(super) async fn patch(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
    bytes: Bytes,
) -> Answer {
    let request: Patch = body(&bytes)?;
    let scope = Scope::of(&params).or_body(&request.project, &request.app_namespace);
    let app = caller.find(&shared, &name, &scope)?;
    caller.require(&shared, "update", &app)?;
    let patch: Value = serde_json::from_str(&request.patch)
        .map_err(|error| Status::unknown(format!("error patching app: {error}")))?;
    let mut document = serde_json::to_value(&*app).map_err(|error| Status::unknown(error.to_string()))?;
    match request.patch_type.as_str() {
        "merge" => merge(&mut document, &patch),
        "json" | "" => super::views::json_patch(&mut document, &patch)
            .map_err(|why| Status::unknown(format!("error patching app: {why}")))?,
        other => return Err(Status::invalid(format!("Patch type '{other}' is not supported"))),
    }
    let patched: Application =
        serde_json::from_value(document).map_err(|error| Status::invalid(error.to_string()))?;
    change(&shared, &name, |app| take_over(app, patched))
}

pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Value>, Status> {
    let app = caller.find(&shared, &name, &Scope::of(&params))?;
    caller.require(&shared, "delete", &app)?;
    let cascade = match params.get("cascade") {
        Some(cascade) => cascade != "false",
        None => true,
    };
    begin_deletion(&shared, &name, cascade);
    Ok(Json(json!({})))
}

/// Marks an Application as being deleted, and has the controller do it.
pub(super) fn begin_deletion(shared: &Arc<Shared>, name: &str, cascade: bool) {
    let now = shared.clock.now().to_string();
    let begun = shared.store.update(name, |app| {
        let first = app.metadata.deletion_timestamp.is_none();
        app.metadata.deletion_timestamp.get_or_insert(now);
        if cascade && !app.metadata.finalizers.iter().any(|known| known == FINALIZER) {
            app.metadata.finalizers.push(FINALIZER.into());
        }
        first
    });
    if !begun.is_some_and(|(first, _)| first) {
        return;
    }
    let (finalized, name) = (shared.clone(), name.to_owned());
    shared.tasks.spawn(async move {
        finalized.knobs.until(|knobs| !knobs.controller_down).await;
        finalized.clock.sleep(finalized.config.operation_delay).await;
        for object in finalized.cluster.managed(&name) {
            if cascade {
                finalized.cluster.delete(&object.key);
                children::deleted(&finalized, &object.key);
            }
        }
        finalized.store.remove(&name);
    });
}
