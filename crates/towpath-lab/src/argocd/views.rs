//! What can be looked at below an Application: its tree, its manifests, its live objects, its events.

use super::Shared;
use super::access::{Caller, Scope};
use super::cluster::Object;
use super::controller::{keyed, only_source, pod_images};
use super::error::Status;
use super::model::Application;
use super::request::Params;
use axum::extract::{Path, State};
use axum::response::Json;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Answer = Result<Json<Value>, Status>;

pub(super) async fn resource_tree(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    caller.find(&shared, &name, &Scope::of(&params))?;
    let tree = shared.cluster.tree(&name);
    let wanted = |field: &str, value: &str| {
        params
            .get(field)
            .is_none_or(|wanted| wanted.is_empty() || wanted == value)
    };
    let nodes: Vec<Value> = tree
        .iter()
        .filter(|object| {
            let key = &object.key;
            wanted("namespace", &key.namespace)
                && wanted("name", &key.name)
                && wanted("version", &key.version)
                && wanted("group", &key.group)
                && wanted("kind", &key.kind)
        })
        .map(|object| node(object, &tree))
        .collect();
    Ok(Json(json!({"nodes": nodes, "orphanedNodes": [], "hosts": []})))
}

fn node(object: &Object, tree: &[Object]) -> Value {
    let key = &object.key;
    let mut node = json!({
        "version": key.version, "kind": key.kind, "name": key.name, "uid": object.uid,
        "resourceVersion": object.live.pointer("/metadata/resourceVersion"),
        "createdAt": object.created.to_string(),
    });
    for (field, value) in [("group", &key.group), ("namespace", &key.namespace)] {
        if !value.is_empty() {
            node[field] = json!(value);
        }
    }
    if let Some(owner) = object
        .owner
        .as_ref()
        .and_then(|owner| tree.iter().find(|other| other.key == *owner))
    {
        let mut parent = json!({"kind": owner.key.kind, "name": owner.key.name, "uid": owner.uid});
        parent["namespace"] = json!(owner.key.namespace);
        parent["group"] = json!(owner.key.group);
        node["parentRefs"] = json!([parent]);
    }
    if let Some(health) = object.health() {
        node["health"] = match health.message.as_str() {
            "" => json!({"status": health.status}),
            message => json!({"status": health.status, "message": message}),
        };
    }
    let images = pod_images(object);
    if !images.is_empty() {
        node["images"] = json!(images);
        let statuses = object
            .live
            .pointer("/status/containerStatuses")
            .and_then(Value::as_array);
        let ready = statuses
            .into_iter()
            .flatten()
            .filter(|status| status["ready"] == true)
            .count();
        let phase = object
            .live
            .pointer("/status/phase")
            .and_then(Value::as_str)
            .unwrap_or("Pending");
        let reason = statuses
            .into_iter()
            .flatten()
            .find_map(|status| status.pointer("/state/waiting/reason")?.as_str())
            .unwrap_or(phase);
        node["info"] = json!([
            {"name": "Status Reason", "value": reason},
            {"name": "Containers", "value": format!("{ready}/{}", statuses.map_or(0, Vec::len))},
        ]);
    }
    if let Some(revision) =
        object.live["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str()
    {
        node["info"] = json!([{"name": "Revision", "value": format!("Rev:{revision}")}]);
    }
    node
}

pub(super) async fn managed_resources(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    let app = caller.find(&shared, &name, &Scope::of(&params))?;
    let source = only_source(&app).map_err(Status::unknown)?;
    let rendered = shared
        .repos
        .render(source, &app.status.sync.revision, false)
        .await
        .map_err(Status::unknown)?;
    let targets = keyed(&app, &rendered).map_err(Status::unknown)?;
    let mut items = Vec::new();
    for (key, manifest) in &targets {
        let live = shared.cluster.get(key);
        items.push(difference(key, Some(manifest), live.as_ref()));
    }
    for extra in shared.cluster.managed(&name) {
        if !targets.iter().any(|(key, _)| *key == extra.key) {
            items.push(difference(&extra.key, None, Some(&extra)));
        }
    }
    Ok(Json(json!({"items": items})))
}

fn difference(key: &super::cluster::Key, target: Option<&Value>, live: Option<&Object>) -> Value {
    let state = |value: Option<&Value>| value.map_or_else(|| "null".to_owned(), Value::to_string);
    let seen = live.map(|live| &live.live);
    let same = live
        .zip(target)
        .is_some_and(|(live, target)| live.in_sync_with(target));
    json!({
        "group": key.group, "kind": key.kind, "namespace": key.namespace, "name": key.name,
        "targetState": state(target), "liveState": state(seen), "normalizedLiveState": state(seen),
        "predictedLiveState": state(if same { seen } else { target }),
        "resourceVersion": seen.and_then(|live| live.pointer("/metadata/resourceVersion")),
        "modified": !same,
    })
}

pub(super) async fn manifests(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    let app = caller.find(&shared, &name, &Scope::of(&params))?;
    let source = only_source(&app).map_err(Status::unknown)?;
    let wanted = params.get("revision").filter(|revision| !revision.is_empty());
    let revision = shared
        .repos
        .resolve(source, wanted.unwrap_or(source.target()), true)
        .await;
    let revision = revision.map_err(Status::unknown)?;
    let no_cache = params.is_true("noCache");
    let rendered = shared
        .repos
        .render(source, &revision, no_cache)
        .await
        .map_err(Status::unknown)?;
    let manifests: Vec<String> = rendered.objects.iter().map(Value::to_string).collect();
    Ok(Json(json!({
        "manifests": manifests, "namespace": app.spec.destination.namespace,
        "server": app.spec.destination.server, "revision": revision, "sourceType": rendered.source_type,
    })))
}

pub(super) async fn resource(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    let app = caller.find(&shared, &name, &Scope::of(&params))?;
    let text = |field: &str| params.get(field).unwrap_or_default();
    let (group, kind, namespace, resource) = (
        text("group"),
        text("kind"),
        text("namespace"),
        text("resourceName"),
    );
    let tree = shared.cluster.tree(&app.metadata.name);
    let object = tree.iter().find(|object| {
        let key = &object.key;
        let here = namespace.is_empty() || key.namespace == namespace;
        key.group == group && key.kind == kind && key.name == resource && here
    });
    let object = object.ok_or_else(|| {
        Status::invalid(format!(
            "{kind} {group} {resource} not found as part of application {name}"
        ))
    })?;
    let mut live = object.live.clone();
    if kind == "Secret" {
        for field in ["data", "stringData"] {
            for value in live
                .get_mut(field)
                .and_then(Value::as_object_mut)
                .into_iter()
                .flat_map(Map::values_mut)
            {
                *value = json!("++++++++");
            }
        }
    }
    Ok(Json(json!({"manifest": live.to_string()})))
}

pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    caller.find(&shared, &name, &Scope::of(&params))?;
    let text = |field: &str| params.get(field).unwrap_or_default();
    let (wanted, uid) = (text("resourceName"), text("resourceUID"));
    let one = !wanted.is_empty() || !uid.is_empty();
    let known = shared.cluster.tree(&name).iter().any(|object| {
        object.uid == uid && object.key.name == wanted && object.key.namespace == text("resourceNamespace")
    });
    if one && !known {
        return Err(Status::invalid(format!(
            "{wanted} not found as part of application {name}"
        )));
    }
    let items: Vec<Value> = shared
        .cluster
        .events(&name)
        .into_iter()
        .filter(|event| !one || event.uid == uid)
        .map(|event| {
            json!({
                "metadata": {"name": format!("{}.{:x}", event.object.name, event.number),
                    "namespace": event.object.namespace, "resourceVersion": event.number.to_string()},
                "involvedObject": {"kind": event.object.kind, "namespace": event.object.namespace,
                    "name": event.object.name, "uid": event.uid},
                "type": if event.warning { "Warning" } else { "Normal" },
                "reason": event.reason, "message": event.message, "count": 1,
                "firstTimestamp": event.at.to_string(), "lastTimestamp": event.at.to_string(),
            })
        })
        .collect();
    Ok(Json(json!({"metadata": {}, "items": items})))
}

pub(super) async fn sync_windows(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    let app = caller.find(&shared, &name, &Scope::of(&params))?;
    Ok(Json(super::windows::answer(&shared, &app)))
}

/// The links of the configuration.
pub(super) async fn links(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    caller.find(&shared, &name, &Scope::of(&params))?;
    let items: Vec<Value> = shared
        .config
        .application_links
        .iter()
        .map(|(title, url)| json!({"title": title, "url": url}))
        .collect();
    Ok(Json(json!({"items": items})))
}

/// The gateway cannot read live resources out of a query, and the server pairs each manifest with one: any manifest makes
/// it panic, which it tells as an internal error.
pub(super) async fn server_side_diff(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    caller
        .find(&shared, &name, &Scope::of(&params))
        .map_err(|status| status.wrapped("error getting application".into()))?;
    let manifests = params.all("targetManifests");
    for (at, manifest) in manifests.iter().enumerate() {
        serde_json::from_str::<Value>(manifest)
            .map_err(|error| Status::unknown(format!("error unmarshaling target manifest {at}: {error}")))?;
    }
    match manifests.len() {
        0 => Ok(Json(json!({"items": [], "modified": false}))),
        _ => Err(Status::internal(
            "runtime error: index out of range [0] with length 0",
        )),
    }
}

pub(super) async fn revision_metadata(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path((name, revision)): Path<(String, String)>,
    params: Params,
) -> Answer {
    let app: Arc<Application> = caller.find(&shared, &name, &Scope::of(&params))?;
    let source = only_source(&app).map_err(Status::unknown)?;
    let sha = shared
        .repos
        .resolve(source, &revision, false)
        .await
        .map_err(Status::unknown)?;
    let info = shared.repos.info(source, &sha).await.map_err(Status::unknown)?;
    let mut answer = json!({"author": info.author, "date": info.date, "message": info.message});
    if !info.tags.is_empty() {
        answer["tags"] = json!(info.tags);
    }
    Ok(Json(answer))
}

/// The parts of a JSON value that `fields` names: paths by dots, through lists; a leading `-` leaves them out instead.
pub(super) fn select(value: &Value, fields: &str) -> Value {
    if let Some(fields) = fields.strip_prefix('-') {
        let mut value = value.clone();
        for path in fields.split(',') {
            remove(&mut value, &path.split('.').collect::<Vec<_>>());
        }
        return value;
    }
    let paths: Vec<Vec<&str>> = fields
        .split(',')
        .map(|path| path.trim().split('.').collect())
        .collect();
    pick(value, &paths.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn pick(value: &Value, paths: &[&[&str]]) -> Value {
    if paths.iter().any(|path| path.is_empty()) {
        return value.clone();
    }
    match value {
        Value::Array(items) => items.iter().map(|item| pick(item, paths)).collect(),
        Value::Object(fields) => {
            let mut picked = Map::new();
            for (name, value) in fields {
                let below: Vec<&[&str]> = paths
                    .iter()
                    .filter(|path| path.first() == Some(&name.as_str()))
                    .map(|path| &path[1..])
                    .collect();
                if !below.is_empty() {
                    picked.insert(name.clone(), pick(value, &below));
                }
            }
            Value::Object(picked)
        }
        other => other.clone(),
    }
}

fn remove(value: &mut Value, path: &[&str]) {
    match (value, path) {
        (Value::Array(items), _) => items.iter_mut().for_each(|item| remove(item, path)),
        (Value::Object(fields), [last]) => {
            fields.remove(*last);
        }
        (Value::Object(fields), [first, rest @ ..]) => {
            if let Some(value) = fields.get_mut(*first) {
                remove(value, rest);
            }
        }
        _ => {}
    }
}

/// Applies a JSON patch (RFC 6902): `add`, `replace`, `remove` and `test`.
pub(super) fn json_patch(document: &mut Value, patch: &Value) -> Result<(), String> {
    let steps = patch.as_array().ok_or("a JSON patch is a list")?;
    for step in steps {
        let text = |field: &str| step.get(field).and_then(Value::as_str).unwrap_or_default();
        let (operation, path) = (text("op"), text("path"));
        let (parent, last) = path
            .rsplit_once('/')
            .ok_or_else(|| format!("path {path:?} is not below the document"))?;
        let last = last.replace("~1", "/").replace("~0", "~");
        let missing = || format!("{operation} operation does not apply: doc is missing path: {path}");
        if operation == "test" {
            if document.pointer(path) != step.get("value") {
                return Err(format!("testing value {path} failed"));
            }
            continue;
        }
        let value = step.get("value").cloned();
        match (document.pointer_mut(parent).ok_or_else(missing)?, operation) {
            (Value::Object(fields), "add") => {
                fields.insert(last, value.ok_or("add needs a value")?);
            }
            (Value::Object(fields), "replace") => {
                *fields.get_mut(&last).ok_or_else(missing)? = value.ok_or("replace needs a value")?;
            }
            (Value::Object(fields), "remove") => {
                fields.remove(&last).ok_or_else(missing)?;
            }
            (Value::Array(items), "add") => {
                let at = if last == "-" {
                    items.len()
                } else {
                    last.parse().map_err(|_| missing())?
                };
                if at > items.len() {
                    return Err(missing());
                }
                items.insert(at, value.ok_or("add needs a value")?);
            }
            (Value::Array(items), "replace" | "remove") => {
                let at: usize = last.parse().map_err(|_| missing())?;
                let item = items.get_mut(at).ok_or_else(missing)?;
                match operation {
                    "replace" => *item = value.ok_or("replace needs a value")?,
                    _ => drop(items.remove(at)),
                }
            }
            (_, "add" | "replace" | "remove") => return Err(missing()),
            (_, other) => return Err(format!("Unexpected kind: {other}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_picked_and_left_out() {
        let list = json!({"items": [{"metadata": {"name": "a", "uid": "1"}, "spec": 1}]});
        assert_eq!(
            select(&list, "items.metadata.name"),
            json!({"items": [{"metadata": {"name": "a"}}]})
        );
        assert_eq!(select(&list, "-items.metadata"), json!({"items": [{"spec": 1}]}));
    }

    #[test]
    fn json_patches_apply() {
        let mut document = json!({"a": {"b": [1]}, "c": 1});
        let patch = json!([{"op": "add", "path": "/a/b/-", "value": 2}, {"op": "remove", "path": "/c"},
            {"op": "replace", "path": "/a/b/0", "value": 3}, {"op": "test", "path": "/a/b/0", "value": 3}]);
        json_patch(&mut document, &patch).unwrap();
        assert_eq!(document, json!({"a": {"b": [3, 2]}}));
        for bad in [
            json!({}),
            json!([{"op": "remove", "path": "/x"}]),
            json!([{"op": "add", "path": "/a/b/9", "value": 1}]),
        ] {
            assert!(json_patch(&mut document, &bad).is_err(), "{bad}");
        }
    }
}
