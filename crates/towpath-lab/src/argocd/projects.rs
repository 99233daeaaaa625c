//! Projects and the tokens of their roles, after `server/project/project.go`.

use super::Shared;
use super::access::Caller;
use super::accounts::NewToken;
use super::error::Status;
use super::request::{Params, body};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Answer = Result<Json<Value>, Status>;

/// The projects by name.
#[derive(Debug)]
pub(super) struct Projects(Mutex<BTreeMap<String, Project>>);

#[derive(Debug)]
struct Project {
    /// As it is on the wire.
    document: Value,
    events: Vec<Value>,
}

impl Projects {
    pub(super) fn new(names: &[String], namespace: &str, created: &str) -> Self {
        let spec = json!({
            "sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}],
            "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
        });
        let project = |name: &String| {
            let document = json!({
                "metadata": metadata(name, namespace, created), "spec": spec, "status": {},
            });
            let events = Vec::new();
            (name.clone(), Project { document, events })
        };
        Self(Mutex::new(names.iter().map(project).collect()))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Whether a policy of the role lets it do this to the project's Applications. Other resources than Applications
    /// are an action by their own name, such as `logs`.
    pub(super) fn allows(&self, project: &str, role: &str, action: &str) -> bool {
        let projects = self.lock();
        let Some(project) = projects.get(project) else {
            return false;
        };
        let role = roles(&project.document).find(|known| known["name"] == role);
        let policies = role.and_then(|role| role["policies"].as_array().cloned());
        policies.iter().flatten().filter_map(Value::as_str).any(|policy| {
            let parts: Vec<&str> = policy.split(',').map(str::trim).collect();
            let [_, _, resource, allowed, _, "allow"] = parts[..] else {
                return false;
            };
            match resource {
                "applications" => covers(allowed, action),
                other => other == action && covers(allowed, "get"),
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Project>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a policy's word covers another; a `*` at its end covers everything that goes on from there.
pub(super) fn covers(pattern: &str, word: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => word.starts_with(start),
        None => pattern == word,
    }
}

fn roles(document: &Value) -> impl Iterator<Item = &Value> {
    document["spec"]["roles"].as_array().into_iter().flatten()
}

fn metadata(name: &str, namespace: &str, created: &str) -> Value {
    json!({
        "name": name, "namespace": namespace, "uid": uuid::Uuid::new_v4().to_string(), "resourceVersion": "1",
        "generation": 1, "creationTimestamp": created,
    })
}

fn missing(name: &str) -> Status {
    Status::not_found("appprojects.argoproj.io", name)
}

impl Project {
    fn changed(&mut self, shared: &Shared, caller: &Caller, reason: &str, did: &str) {
        let metadata = &mut self.document["metadata"];
        let version: u64 = metadata["resourceVersion"]
            .as_str()
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        metadata["resourceVersion"] = json!((version + 1).to_string());
        self.events.push(event(
            shared,
            metadata,
            "AppProject",
            reason,
            &format!("{} {did}", caller.name()),
        ));
    }
}

/// An event about a resource of the control plane.
pub(super) fn event(shared: &Shared, metadata: &Value, kind: &str, reason: &str, message: &str) -> Value {
    let now = shared.clock.now().to_string();
    json!({
        "metadata": {"name": format!("{}.{}", metadata["name"].as_str().unwrap_or_default(), uuid::Uuid::new_v4().simple()),
            "namespace": shared.config.namespace},
        "involvedObject": {"kind": kind, "namespace": shared.config.namespace, "name": metadata["name"],
            "uid": metadata["uid"]},
        "type": "Normal", "reason": reason, "message": message, "count": 1, "firstTimestamp": now, "lastTimestamp": now,
    })
}

/// What of a project cannot be, by `ValidateProject`; and what this lab would only pretend to know.
fn validate(name: &str, spec: &Value) -> Result<(), Status> {
    if spec["syncWindows"]
        .as_array()
        .is_some_and(|windows| !windows.is_empty())
    {
        return Err(Status::invalid(
            "spec.syncWindows is not supported by the lab: turn its knob sync_window_closed",
        ));
    }
    let mut known = Vec::new();
    for role in spec["roles"].as_array().into_iter().flatten() {
        let role_name = role["name"].as_str().unwrap_or_default();
        if known.contains(&role_name) {
            return Err(Status::exists(format!("role '{role_name}' already exists")));
        }
        known.push(role_name);
        for policy in role["policies"].as_array().into_iter().flatten() {
            let policy = policy.as_str().unwrap_or_default();
            let parts: Vec<&str> = policy.split(',').map(str::trim).collect();
            let [kind, subject, _, _, object, effect] = parts[..] else {
                return Err(Status::invalid(format!(
                    "invalid policy rule '{policy}': must be of the form: 'p, sub, res, act, obj, eft'"
                )));
            };
            let good = kind == "p"
                && subject == format!("proj:{name}:{role_name}")
                && (object == name || object.starts_with(&format!("{name}/")))
                && ["allow", "deny"].contains(&effect);
            if !good {
                return Err(Status::invalid(format!(
                    "invalid policy rule '{policy}': policy subject, object or effect is not the role's own"
                )));
            }
        }
    }
    Ok(())
}

/// The fields in which two specs differ, as Go names them.
fn differences(one: &Value, other: &Value) -> Vec<String> {
    let none = Map::new();
    let (one, other) = (
        one.as_object().unwrap_or(&none),
        other.as_object().unwrap_or(&none),
    );
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| {
            let mut letters = name.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters).collect()
        })
        .collect()
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, caller: Caller) -> Json<Value> {
    let projects = shared.projects.lock();
    let items: Vec<&Value> = projects
        .iter()
        .filter(|(name, _)| caller.require_on("projects", "get", name).is_ok())
        .map(|(_, project)| &project.document)
        .collect();
    Json(json!({"metadata": {}, "items": items}))
}

/// Reads something of a project that the caller may see.
fn read(shared: &Shared, caller: &Caller, name: &str, what: impl FnOnce(&Project) -> Value) -> Answer {
    caller.require_on("projects", "get", name)?;
    let projects = shared.projects.lock();
    Ok(Json(what(projects.get(name).ok_or_else(|| missing(name))?)))
}

pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    read(&shared, &caller, &name, |project| project.document.clone())
}

pub(super) async fn detailed(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    read(
        &shared,
        &caller,
        &name,
        |project| json!({"project": project.document}),
    )
}

pub(super) async fn global(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    // None are configured, and Go leaves out what is empty.
    read(&shared, &caller, &name, |_| json!({}))
}

pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    read(
        &shared,
        &caller,
        &name,
        |project| json!({"metadata": {}, "items": project.events}),
    )
}

pub(super) async fn sync_windows(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    let windows = super::windows::active(&shared, &name);
    read(&shared, &caller, &name, |_| json!({"windows": windows}))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wanted {
    project: Option<Value>,
    upsert: bool,
}

impl Wanted {
    /// The project's name, the parts of it that a caller may say, and whether it may replace another.
    fn read(bytes: &[u8]) -> Result<(String, Value, bool), Status> {
        let wanted: Self = body(bytes)?;
        let project = wanted
            .project
            .filter(Value::is_object)
            .ok_or_else(|| Status::invalid("missing payload 'project' in request"))?;
        let name = project["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if name.is_empty() {
            return Err(Status::invalid("project name is missing"));
        }
        Ok((name, project, wanted.upsert))
    }
}

pub(super) async fn create(State(shared): State<Arc<Shared>>, caller: Caller, bytes: Bytes) -> Answer {
    let (name, wanted, upsert) = Wanted::read(&bytes)?;
    caller.require_on("projects", "create", &name)?;
    let spec = or_empty(&wanted["spec"]);
    validate(&name, &spec)?;
    let mut projects = shared.projects.lock();
    let Some(existing) = projects.get_mut(&name) else {
        let mut document = json!({
            "metadata": metadata(&name, &shared.config.namespace, &shared.clock.now().to_string()),
            "spec": spec, "status": {},
        });
        take_over(&mut document["metadata"], &wanted["metadata"]);
        let mut project = Project {
            document,
            events: Vec::new(),
        };
        project.changed(&shared, &caller, "ResourceCreated", "created project");
        let answer = project.document.clone();
        projects.insert(name, project);
        return Ok(Json(answer));
    };
    let differences = differences(&existing.document["spec"], &spec);
    if differences.is_empty() {
        return Ok(Json(existing.document.clone()));
    }
    if !upsert {
        return Err(Status::invalid(format!(
            "existing project spec is different; use upsert flag to force update; difference in keys \"{}\"",
            differences.join(",")
        )));
    }
    caller.require_on("projects", "update", &name)?;
    existing.document["spec"] = spec;
    existing.changed(&shared, &caller, "ResourceCreated", "created project");
    Ok(Json(existing.document.clone()))
}

fn or_empty(spec: &Value) -> Value {
    if spec.is_null() { json!({}) } else { spec.clone() }
}

fn take_over(metadata: &mut Value, wanted: &Value) {
    for field in ["labels", "annotations", "finalizers"] {
        if wanted[field].is_null() {
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.remove(field);
            }
        } else {
            metadata[field] = wanted[field].clone();
        }
    }
}

pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(_name): Path<String>,
    bytes: Bytes,
) -> Answer {
    let (name, wanted, _) = Wanted::read(&bytes)?;
    caller.require_on("projects", "update", &name)?;
    let spec = or_empty(&wanted["spec"]);
    validate(&name, &spec)?;
    let applications = shared.store.all();
    let mut projects = shared.projects.lock();
    let existing = projects.get_mut(&name).ok_or_else(|| missing(&name))?;
    let permitted = |spec: &Value, repository: &str| {
        let repositories = spec["sourceRepos"].as_array().into_iter().flatten();
        repositories
            .filter_map(Value::as_str)
            .any(|pattern| covers(pattern, repository))
    };
    let broken = applications
        .iter()
        .filter(|app| app.project() == name)
        .filter(|app| {
            let repository = app
                .spec
                .source
                .as_ref()
                .map_or("", |source| source.repo_url.as_str());
            permitted(&existing.document["spec"], repository) && !permitted(&spec, repository)
        });
    let broken = broken.count();
    if broken > 0 {
        return Err(Status::invalid(format!(
            "as a result of project update {broken} applications source became invalid"
        )));
    }
    match wanted["metadata"]["resourceVersion"].as_str().unwrap_or_default() {
        "" => Err(Status::invalid(format!(
            "appprojects.argoproj.io \"{name}\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be \
             specified for an update"
        ))),
        version if existing.document["metadata"]["resourceVersion"] != version => {
            Err(Status::unknown(format!(
                "Operation cannot be fulfilled on appprojects.argoproj.io \"{name}\": the object has been modified; please \
             apply your changes to the latest version and try again"
            )))
        }
        _ => {
            existing.document["spec"] = spec;
            if wanted["status"].is_object() {
                existing.document["status"] = wanted["status"].clone();
            }
            take_over(&mut existing.document["metadata"], &wanted["metadata"]);
            existing.changed(&shared, &caller, "ResourceUpdated", "updated project");
            Ok(Json(existing.document.clone()))
        }
    }
}

pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    if name == "default" {
        return Err(Status::invalid(
            "name 'default' is reserved and cannot be deleted",
        ));
    }
    caller.require_on("projects", "delete", &name)?;
    let applications = shared.store.all();
    let mut projects = shared.projects.lock();
    if !projects.contains_key(&name) {
        return Err(missing(&name));
    }
    let used = applications.iter().filter(|app| app.project() == name).count();
    if used > 0 {
        return Err(Status::invalid(format!(
            "project is referenced by {used} applications"
        )));
    }
    projects.remove(&name);
    Ok(Json(json!({})))
}

pub(super) async fn create_token(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path((name, role)): Path<(String, String)>,
    bytes: Bytes,
) -> Answer {
    let wanted: NewToken = body(&bytes)?;
    let mut projects = shared.projects.lock();
    let project = projects.get_mut(&name).ok_or_else(|| missing(&name))?;
    if !roles(&project.document).any(|known| known["name"] == role) {
        return Err(Status::missing(format!(
            "project '{name}' does not have role '{role}'"
        )));
    }
    caller.require_on("projects", "update", &name)?;
    let issued = &mut project.document["status"]["jwtTokensByRole"][&role]["items"];
    let mut items = issued.as_array().cloned().unwrap_or_default();
    if let Some(id) = wanted.id()
        && items.iter().any(|token| token["id"] == id)
    {
        return Err(Status::invalid(format!("Token id '{id}' has been used. ")));
    }
    let subject = format!("proj:{name}:{role}");
    let id = wanted.id().map(str::to_owned);
    let (token, claims) = shared
        .tokens
        .mint(&subject, wanted.lifetime(), shared.clock.now(), id);
    let mut item = json!({"iat": claims.iat, "id": claims.jti});
    if let Some(expires) = claims.exp {
        item["exp"] = json!(expires);
    }
    items.push(item);
    *issued = json!(items);
    project.changed(&shared, &caller, "ResourceCreated", "created token");
    Ok(Json(json!({"token": token.expose()})))
}

pub(super) async fn delete_token(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path((name, role, issued_at)): Path<(String, String, i64)>,
    params: Params,
) -> Answer {
    let mut projects = shared.projects.lock();
    let project = projects.get_mut(&name).ok_or_else(|| missing(&name))?;
    if !roles(&project.document).any(|known| known["name"] == role) {
        return Ok(Json(json!({})));
    }
    caller.require_on("projects", "update", &name)?;
    let id = params.get("id").unwrap_or_default();
    let issued = project.document["status"]["jwtTokensByRole"][&role]["items"].as_array_mut();
    let is_meant = |token: &Value| match id {
        "" => token["iat"] == issued_at,
        id => token["id"] == id,
    };
    if let Some(issued) = issued
        && let Some(at) = issued.iter().position(is_meant)
    {
        let token = issued.remove(at);
        shared.tokens.revoke(token["id"].as_str().unwrap_or_default());
        project.changed(&shared, &caller, "ResourceDeleted", "deleted token");
    }
    Ok(Json(json!({})))
}
