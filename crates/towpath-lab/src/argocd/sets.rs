//! ApplicationSets with the generator `list`, after `server/applicationset/applicationset.go` and the controller's
//! generation: `{{param}}` in every text of the template. What else there is, is refused by name.

mod watch;

use super::Shared;
use super::access::Caller;
use super::applications;
use super::error::Status;
use super::model::{Application, Metadata, Spec};
use super::projects::event;
use super::request::{Params, body};
use super::store::{Change, Level, WATCH_BUFFER};
use super::stream::Filter;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;
use watch::SetEvent;
pub(super) use watch::watch;

type Answer = Result<Json<Value>, Status>;

/// The ApplicationSets by name, and who watches them.
#[derive(Debug)]
pub(super) struct Sets {
    known: Mutex<BTreeMap<String, Set>>,
    events: broadcast::Sender<SetEvent>,
}

impl Default for Sets {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            events: broadcast::Sender::new(WATCH_BUFFER),
        }
    }
}

#[derive(Clone, Debug)]
struct Set {
    metadata: Value,
    spec: Value,
    events: Vec<Value>,
}

impl Sets {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Set>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, name: &str) -> Option<Set> {
        self.lock().get(name).cloned()
    }

    /// Gives a set that has changed its next version, and tells the change. The sets are locked meanwhile, so that whoever
    /// begins to watch misses nothing and hears nothing twice.
    fn tell(&self, shared: &Shared, change: Change, set: &mut Set) {
        set.metadata["resourceVersion"] = json!(shared.store.next_version().to_string());
        // Nobody may be watching.
        let _ = self.events.send(SetEvent::of(shared, change, set));
    }
}

impl Set {
    fn name(&self) -> &str {
        self.metadata["name"].as_str().unwrap_or_default()
    }

    fn project(&self) -> &str {
        match self.spec["template"]["spec"]["project"].as_str() {
            None | Some("") => "default",
            Some(project) => project,
        }
    }

    /// An Application that a filter takes where it is to take the set.
    fn stand_in(&self) -> Application {
        let metadata = Metadata {
            name: self.name().to_owned(),
            labels: serde_json::from_value(self.metadata["labels"].clone()).unwrap_or_default(),
            ..Metadata::default()
        };
        let spec = Spec {
            project: self.project().to_owned(),
            ..Spec::default()
        };
        Application {
            metadata,
            spec,
            ..Application::default()
        }
    }

    fn owns(&self, app: &Application) -> bool {
        let owners = app.metadata.rest.get("ownerReferences").and_then(Value::as_array);
        owners
            .into_iter()
            .flatten()
            .any(|owner| owner["uid"] == self.metadata["uid"])
    }

    /// As the API shows it, with what has become of its Applications.
    fn json(&self, shared: &Shared) -> Value {
        let resources: Vec<Value> = shared
            .store
            .all()
            .iter()
            .filter(|app| self.owns(app))
            .map(|app| resource(app))
            .collect();
        let now = shared.clock.now().to_string();
        let conditions: Vec<Value> = [
            (
                "ErrorOccurred",
                "False",
                "Successfully generated parameters for all Applications",
            ),
            (
                "ParametersGenerated",
                "True",
                "Successfully generated parameters for all Applications",
            ),
            (
                "ResourcesUpToDate",
                "True",
                "All applications have been generated successfully",
            ),
        ]
        .map(|(kind, status, message)| {
            json!({"type": kind, "status": status, "reason": "ApplicationSetUpToDate", "message": message,
                "lastTransitionTime": now})
        })
        .into();
        let mut status = json!({"conditions": conditions});
        if !resources.is_empty() {
            status["resources"] = json!(resources);
        }
        json!({"metadata": self.metadata, "spec": self.spec, "status": status})
    }

    fn happened(&mut self, shared: &Shared, caller: &Caller, reason: &str, did: &str) {
        let message = format!("{} {did}", caller.name());
        let event = event(shared, &self.metadata, "ApplicationSet", reason, &message);
        self.events.push(event);
    }
}

fn resource(app: &Application) -> Value {
    let mut resource = json!({
        "group": "argoproj.io", "version": "v1alpha1", "kind": "Application", "namespace": app.metadata.namespace,
        "name": app.metadata.name,
    });
    if !app.status.sync.status.is_empty() {
        resource["status"] = json!(app.status.sync.status);
        resource["health"] = json!({"status": app.status.health.status});
    }
    resource
}

/// Checks what the API server checks, and reads what a caller may say.
fn validate(shared: &Shared, wanted: &Value) -> Result<Set, Status> {
    let set = Set {
        metadata: wanted["metadata"].clone(),
        spec: wanted["spec"].clone(),
        events: Vec::new(),
    };
    let invalid = |why: String| Status::unknown(format!("error validating ApplicationSets: {why}"));
    if set.name().parse::<towpath_core::ApplicationName>().is_err() {
        return Err(invalid(format!(
            "the name {:?} is not a DNS-1123 subdomain",
            set.name()
        )));
    }
    permitted(shared, set.metadata["namespace"].as_str().unwrap_or_default())?;
    if set.project().contains("{{") {
        return Err(invalid(
            "the Argo CD API does not currently support creating ApplicationSets with templated `project` fields".into(),
        ));
    }
    for field in set.spec.as_object().into_iter().flat_map(Map::keys) {
        if !["generators", "template", "goTemplate", "syncPolicy"].contains(&field.as_str()) {
            return Err(Status::invalid(format!(
                "spec.{field} is not supported by the lab"
            )));
        }
    }
    if set.spec["goTemplate"] == true {
        return Err(Status::invalid(
            "spec.goTemplate is not supported by the lab: it knows {{param}}",
        ));
    }
    Ok(set)
}

fn permitted(shared: &Shared, namespace: &str) -> Result<(), Status> {
    if namespace.is_empty() || namespace == shared.config.namespace {
        return Ok(());
    }
    Err(Status::denied_because(format!(
        "namespace '{namespace}' is not permitted"
    )))
}

/// The Applications that a set describes.
fn generate(shared: &Shared, set: &Set) -> Result<Vec<Application>, Status> {
    let mut generated: Vec<Application> = Vec::new();
    for generator in set.spec["generators"].as_array().into_iter().flatten() {
        let fields = generator.as_object();
        if let Some(kind) = fields
            .into_iter()
            .flat_map(Map::keys)
            .find(|kind| *kind != "list")
        {
            return Err(Status::invalid(format!(
                "the generator {kind:?} is not supported by the lab: it knows list"
            )));
        }
        let list = generator["list"].as_object();
        if let Some(field) = list
            .into_iter()
            .flat_map(Map::keys)
            .find(|field| *field != "elements")
        {
            return Err(Status::invalid(format!(
                "list.{field} is not supported by the lab: it knows elements"
            )));
        }
        for element in generator["list"]["elements"].as_array().into_iter().flatten() {
            let parameters = parameters(element)?;
            let mut document = set.spec["template"].clone();
            substitute(&mut document, &parameters);
            let mut app: Application = serde_json::from_value(document)
                .map_err(|error| Status::unknown(format!("error generating application: {error}")))?;
            app.metadata.namespace = shared.config.namespace.clone();
            if generated
                .iter()
                .any(|known| known.metadata.name == app.metadata.name)
            {
                return Err(Status::unknown(format!(
                    "ApplicationSet {} contains applications with duplicate name: {}",
                    set.name(),
                    app.metadata.name
                )));
            }
            generated.push(app);
        }
    }
    Ok(generated)
}

/// An element's parameters: its texts, and those of `values` as `values.…`.
fn parameters(element: &Value) -> Result<BTreeMap<String, String>, Status> {
    let mut parameters = BTreeMap::new();
    for (name, value) in element.as_object().into_iter().flatten() {
        match value {
            Value::String(text) => {
                parameters.insert(name.clone(), text.clone());
            }
            Value::Object(values) if name == "values" => {
                for (name, value) in values {
                    let text = value
                        .as_str()
                        .ok_or_else(|| Status::unknown("error parsing values map"))?;
                    parameters.insert(format!("values.{name}"), text.to_owned());
                }
            }
            _ => return Err(Status::unknown("error parsing value as string")),
        }
    }
    Ok(parameters)
}

fn substitute(value: &mut Value, parameters: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => *text = filled(text, parameters),
        Value::Array(items) => items.iter_mut().for_each(|item| substitute(item, parameters)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|value| substitute(value, parameters)),
        _ => {}
    }
}

/// A text with its parameters in it; one that is not known is left as it stands.
fn filled(text: &str, parameters: &BTreeMap<String, String>) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, later)) = after.split_once("}}") else {
            break;
        };
        whole.push_str(before);
        match parameters.get(name.trim()) {
            Some(value) => whole.push_str(value),
            None => whole.push_str(&format!("{{{{{name}}}}}")),
        }
        rest = later;
    }
    whole + rest
}

/// Makes the cluster have the Applications of a set, and no others of it.
fn apply(shared: &Arc<Shared>, set: &Set, generated: Vec<Application>) {
    let owner = json!([{
        "apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", "name": set.name(), "uid": set.metadata["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }]);
    for app in shared.store.all().iter().filter(|app| set.owns(app)) {
        if !generated
            .iter()
            .any(|wanted| wanted.metadata.name == app.metadata.name)
        {
            applications::begin_deletion(shared, &app.metadata.name, true);
        }
    }
    for mut app in generated {
        app.metadata.rest.insert("ownerReferences".into(), owner.clone());
        let Err(existing) = super::children::add(shared, app.clone()) else {
            continue;
        };
        // An Application of that name that belongs to somebody else is left alone.
        if !set.owns(&existing) {
            continue;
        }
        let name = app.metadata.name.clone();
        shared.store.update(&name, |known| {
            known.spec = app.spec;
            known.metadata.labels.extend(app.metadata.labels);
            known.metadata.annotations.extend(app.metadata.annotations);
        });
        if let Some(loops) = shared.store.loops(&name) {
            loops.ask(Level::Latest);
        }
    }
}

fn require(caller: &Caller, action: &str, set: &Set) -> Result<(), Status> {
    let object = format!("{}/{}", set.project(), set.name());
    caller.require_on("applicationsets", action, &object)
}

/// Finds a set that the caller may do this to.
fn find(
    shared: &Shared,
    caller: &Caller,
    params: &Params,
    name: &str,
    action: &str,
    missing: &str,
) -> Result<Set, Status> {
    permitted(shared, params.get("appsetNamespace").unwrap_or_default())?;
    let set = shared
        .sets
        .get(name)
        .ok_or_else(|| Status::missing(format!("{missing} \"{name}\" not found")))?;
    require(caller, action, &set)?;
    Ok(set)
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, caller: Caller, params: Params) -> Json<Value> {
    let filter = Filter::of(&params);
    let namespace = params.get("appsetNamespace").unwrap_or_default();
    let sets: Vec<Set> = shared.sets.lock().values().cloned().collect();
    let items: Vec<Value> = sets
        .iter()
        .filter(|set| require(&caller, "get", set).is_ok())
        .filter(|set| namespace.is_empty() || set.metadata["namespace"] == namespace)
        .filter(|set| filter.takes(&set.stand_in()))
        .map(|set| set.json(&shared))
        .collect();
    Json(json!({"metadata": {}, "items": items}))
}

pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    let missing = "error getting ApplicationSet: applicationset.argoproj.io";
    let set = find(&shared, &caller, &params, &name, "get", missing)?;
    Ok(Json(set.json(&shared)))
}

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: Params,
    bytes: Bytes,
) -> Answer {
    let wanted: Value = body(&bytes)?;
    let set = validate(&shared, &wanted)?;
    let refused = |why: String| {
        let name = set.name();
        Status::unknown(format!(
            "error checking create permissions for ApplicationSets {name} : {why}"
        ))
    };
    require(&caller, "create", &set).map_err(|denied| refused(denied.as_go()))?;
    if !shared.projects.has(set.project()) {
        let why = format!(
            "ApplicationSet references project {} which does not exist",
            set.project()
        );
        return Err(refused(Status::invalid(why).as_go()));
    }
    let generated = generate(&shared, &set)?;
    if params.is_true("dryRun") {
        let mut answer = json!({"metadata": set.metadata, "spec": set.spec, "status": {}});
        answer["status"]["resources"] = generated.iter().map(resource).collect();
        return Ok(Json(answer));
    }
    let (set, changed) = put(&shared, &caller, set, params.is_true("upsert"))?;
    if changed {
        apply(&shared, &set, generated);
        // The controller writes down what it has made.
        if let Some(known) = shared.sets.lock().get_mut(set.name()) {
            shared.sets.tell(&shared, Change::Modified, known);
        }
    }
    Ok(Json(set.json(&shared)))
}

/// Keeps a set, new or in place of what there is of its name; says whether that changed anything.
fn put(shared: &Shared, caller: &Caller, mut set: Set, upsert: bool) -> Result<(Set, bool), Status> {
    let mut sets = shared.sets.lock();
    let Some(existing) = sets.get_mut(set.name()) else {
        set.metadata["namespace"] = json!(shared.config.namespace);
        set.metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
        set.metadata["creationTimestamp"] = json!(shared.clock.now().to_string());
        set.happened(shared, caller, "ResourceCreated", "created ApplicationSet");
        shared.sets.tell(shared, Change::Added, &mut set);
        sets.insert(set.name().to_owned(), set.clone());
        return Ok((set, true));
    };
    let same = |field: &str| existing.metadata[field] == set.metadata[field];
    if existing.spec == set.spec && same("labels") && same("annotations") && same("finalizers") {
        return Ok((existing.clone(), false));
    }
    if !upsert {
        return Err(Status::invalid(
            "existing ApplicationSet spec is different, use upsert flag to force update",
        ));
    }
    require(caller, "update", existing)?;
    for field in ["labels", "annotations"] {
        if !set.metadata[field].is_null() {
            let more = json!({field: set.metadata[field]});
            super::cluster::merge(&mut existing.metadata, &more);
        }
    }
    existing.spec = set.spec;
    existing.happened(shared, caller, "ResourceUpdated", "updated ApplicationSets spec");
    shared.sets.tell(shared, Change::Modified, existing);
    Ok((existing.clone(), true))
}

pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    let missing = "error getting ApplicationSets: applicationsets.argoproj.io";
    let set = find(&shared, &caller, &params, &name, "delete", missing)?;
    if let Some(mut gone) = shared.sets.lock().remove(&name) {
        shared.sets.tell(&shared, Change::Deleted, &mut gone);
    }
    // What it owns goes with it: the cluster's garbage collection.
    for app in shared.store.all().iter().filter(|app| set.owns(app)) {
        applications::begin_deletion(&shared, &app.metadata.name, true);
    }
    Ok(Json(json!({})))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Generate {
    application_set: Option<Value>,
}

pub(super) async fn generate_only(State(shared): State<Arc<Shared>>, caller: Caller, bytes: Bytes) -> Answer {
    let wanted: Generate = body(&bytes)?;
    let wanted = wanted.application_set.ok_or_else(|| {
        Status::unknown("error creating ApplicationSets: ApplicationSets is nil in request")
    })?;
    let set = validate(&shared, &wanted)?;
    require(&caller, "create", &set)?;
    let generated = generate(&shared, &set)?;
    Ok(Json(json!({"applications": generated})))
}

pub(super) async fn tree(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    let missing = "error getting ApplicationSet: applicationsets.argoproj.io";
    let set = find(&shared, &caller, &params, &name, "get", missing)?;
    let parent = json!([{
        "group": "argoproj.io", "version": "v1alpha1", "kind": "ApplicationSet", "name": name,
        "namespace": shared.config.namespace, "uid": set.metadata["uid"],
    }]);
    let nodes = set.json(&shared)["status"]["resources"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let nodes: Vec<Value> = nodes
        .into_iter()
        .map(|mut node| {
            node.as_object_mut().and_then(|node| node.remove("status"));
            node["parentRefs"] = parent.clone();
            node
        })
        .collect();
    Ok(Json(json!({"nodes": nodes})))
}

pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    let missing = "error getting ApplicationSet: applicationsets.argoproj.io";
    let set = find(&shared, &caller, &params, &name, "get", missing)?;
    Ok(Json(json!({"metadata": {}, "items": set.events})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_fill_a_text_and_strange_ones_stay() {
        let element = json!({"env": "prod", "values": {"zone": "a"}});
        let parameters = parameters(&element).unwrap();
        for (text, expected) in [
            ("web-{{env}}", "web-prod"),
            ("{{ env }}/{{values.zone}}", "prod/a"),
            ("{{other}}-{{env}}", "{{other}}-prod"),
            ("{{env", "{{env"),
            ("plain", "plain"),
        ] {
            assert_eq!(filled(text, &parameters), expected);
        }
        assert!(super::parameters(&json!({"a": 1})).is_err());
    }
}
