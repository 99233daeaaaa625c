//! Resource actions: `restart` of what has Pods, in both versions of the call.

use super::Shared;
use super::access::{Caller, Scope};
use super::cluster::Object;
use super::error::Status;
use super::request::{Params, body};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Answer = Result<Json<Value>, Status>;

/// The kinds that can be restarted, all of the group `apps`.
const RESTARTED: [&str; 3] = ["DaemonSet", "Deployment", "StatefulSet"];

/// Which resource, and what to do to it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Request {
    namespace: String,
    resource_name: String,
    group: String,
    kind: String,
    action: String,
    app_namespace: String,
    project: String,
}

impl Request {
    fn of(params: &Params) -> Self {
        let text = |name: &str| params.get(name).unwrap_or_default().to_owned();
        Self {
            namespace: text("namespace"),
            resource_name: text("resourceName"),
            group: text("group"),
            kind: text("kind"),
            ..Self::default()
        }
    }

    fn object(&self, shared: &Shared, app: &str) -> Result<Object, Status> {
        let tree = shared.cluster.tree(app);
        let found = tree.into_iter().find(|object| {
            let key = &object.key;
            key.group == self.group
                && key.kind == self.kind
                && key.name == self.resource_name
                && key.namespace == self.namespace
        });
        found.ok_or_else(|| {
            Status::invalid(format!(
                "{} {} {} not found as part of application {app}",
                self.kind, self.group, self.resource_name
            ))
        })
    }
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Answer {
    caller.find(&shared, &name, &Scope::of(&params))?;
    let object = Request::of(&params).object(&shared, &name)?;
    let actions = match can_restart(&object) {
        true => json!([{"name": "restart", "disabled": false}]),
        false => Value::Null,
    };
    Ok(Json(json!({"actions": actions})))
}

fn can_restart(object: &Object) -> bool {
    object.key.group == "apps" && RESTARTED.contains(&object.key.kind.as_str())
}

/// The first version: the resource in the query, the action alone as the body.
pub(super) async fn run(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
    bytes: Bytes,
) -> Answer {
    let request = Request {
        action: body(&bytes)?,
        ..Request::of(&params)
    };
    perform(&shared, &caller, &name, &Scope::of(&params), &request)
}

/// The second version (3.1): all of it in the body.
pub(super) async fn run_v2(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
    bytes: Bytes,
) -> Answer {
    let request: Request = body(&bytes)?;
    let scope = Scope::of(&params).or_body(&request.project, &request.app_namespace);
    perform(&shared, &caller, &name, &scope, &request)
}

fn perform(shared: &Shared, caller: &Caller, name: &str, scope: &Scope, request: &Request) -> Answer {
    let app = caller.find(shared, name, scope)?;
    let action = format!("action/{}/{}/{}", request.group, request.kind, request.action);
    caller.require(shared, &action, &app)?;
    let object = request.object(shared, name)?;
    if request.action != "restart" || !can_restart(&object) {
        return Err(Status::unknown(
            "error getting Lua resource action: built-in script does not exist",
        ));
    }
    let now = shared.clock.now().to_string();
    let annotation = json!({"kubectl.kubernetes.io/restartedAt": now});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotation}}}});
    let key = &object.key;
    if !shared.cluster.edit(&key.kind, &key.namespace, &key.name, &patch) {
        return Err(Status::unknown("error patching resource: the cluster refused it"));
    }
    Ok(Json(json!({})))
}
