//! One object of the cluster: what was applied, what is live, and how the two are compared.

use super::RunningContainer;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio_util::sync::DropGuard;

/// Which object: group (empty for the core group), kind, namespace (empty where there is none) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) struct Key {
    pub(in super::super) group: String,
    pub(in super::super) version: String,
    pub(in super::super) kind: String,
    pub(in super::super) namespace: String,
    pub(in super::super) name: String,
}

#[derive(Debug)]
pub(in super::super) struct Object {
    pub(in super::super) key: Key,
    pub(in super::super) uid: String,
    /// The application that manages it directly.
    pub(in super::super) app: Option<String>,
    /// The object that made it.
    pub(in super::super) owner: Option<Key>,
    /// The manifest that was applied last.
    pub(in super::super) applied: Option<Value>,
    pub(in super::super) live: Value,
    pub(in super::super) created: Timestamp,
    pub(in super::super) running: Vec<RunningContainer>,
    /// The controller or kubelet at work on it; it ends with the object.
    pub(super) work: Option<Arc<DropGuard>>,
}

const CLUSTER_SCOPED: &[&str] = &[
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "PersistentVolume",
    "StorageClass",
    "PriorityClass",
    "IngressClass",
];

impl Key {
    /// Reads the key of a manifest; objects with a namespace and none named get `default_namespace`.
    pub(in super::super) fn of(manifest: &Value, default_namespace: &str) -> Result<Self, String> {
        let text = |pointer: &str| {
            manifest
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (kind, name, api_version) = (text("/kind"), text("/metadata/name"), text("/apiVersion"));
        if api_version.is_empty() || kind.is_empty() {
            return Err("Object 'apiVersion' or 'Kind' is missing".into());
        }
        if name.is_empty() {
            return Err(format!("{kind}: metadata.name: Required value: name is required"));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let namespace = match text("/metadata/namespace") {
            _ if CLUSTER_SCOPED.contains(&kind) => "",
            "" => default_namespace,
            namespace => namespace,
        };
        Ok(Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// As `kubectl` names it: `deployment.apps/web`.
    pub(in super::super) fn for_kubectl(&self) -> String {
        let kind = self.kind.to_lowercase();
        match self.group.as_str() {
            "" => format!("{kind}/{}", self.name),
            group => format!("{kind}.{group}/{}", self.name),
        }
    }

    pub(in super::super) fn is(&self, kind: &str, namespace: &str, name: &str) -> bool {
        self.kind == kind && self.namespace == namespace && self.name == name
    }

    pub(super) fn child(&self, group: &str, kind: &str, name: String) -> Self {
        Self {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            namespace: self.namespace.clone(),
            name,
        }
    }

    fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }
}

impl Object {
    pub(super) fn create(
        key: Key,
        manifest: &Value,
        app: Option<&str>,
        owner: Option<&Object>,
        now: Timestamp,
    ) -> Self {
        let uid = uuid::Uuid::new_v4().to_string();
        let mut object = Self {
            uid,
            app: app.map(Into::into),
            owner: owner.map(|owner| owner.key.clone()),
            applied: app.map(|_| manifest.clone()),
            live: Value::Null,
            created: now,
            running: Vec::new(),
            work: None,
            key,
        };
        object.live = object.dressed(manifest, 1);
        if let Some(owner) = owner {
            object.live["metadata"]["ownerReferences"] = json!([{
                "apiVersion": owner.key.api_version(), "kind": owner.key.kind, "name": owner.key.name,
                "uid": owner.uid, "controller": true, "blockOwnerDeletion": true,
            }]);
        }
        object
    }

    /// Applies another manifest over what is there; the status stays.
    pub(super) fn configure(&mut self, manifest: &Value) {
        let generation = self
            .live
            .pointer("/metadata/generation")
            .and_then(Value::as_i64)
            .unwrap_or(1);
        let same_spec = self.live.get("spec") == manifest.get("spec");
        let mut live = self.dressed(manifest, if same_spec { generation } else { generation + 1 });
        if let Some(status) = self.live.get("status") {
            live["status"] = status.clone();
        }
        self.live = live;
        self.applied = Some(manifest.clone());
    }

    /// Whether the live object still is what the manifest says: every field of the manifest has its value there.
    pub(in super::super) fn in_sync_with(&self, manifest: &Value) -> bool {
        self.applied.as_ref() == Some(manifest) && contains(&self.live, manifest)
    }

    /// A copy for looking at: it does not keep the work alive.
    pub(super) fn seen(&self) -> Self {
        Self {
            key: self.key.clone(),
            uid: self.uid.clone(),
            app: self.app.clone(),
            owner: self.owner.clone(),
            applied: self.applied.clone(),
            live: self.live.clone(),
            created: self.created,
            running: self.running.clone(),
            work: None,
        }
    }

    /// The manifest with the metadata that the API server adds.
    fn dressed(&self, manifest: &Value, generation: i64) -> Value {
        let mut live = manifest.clone();
        if !live.get("metadata").is_some_and(Value::is_object) {
            live["metadata"] = Value::Object(Map::new());
        }
        let metadata = &mut live["metadata"];
        if !self.key.namespace.is_empty() {
            metadata["namespace"] = json!(self.key.namespace);
        }
        metadata["name"] = json!(self.key.name);
        metadata["uid"] = json!(self.uid);
        metadata["generation"] = json!(generation);
        metadata["creationTimestamp"] = json!(self.created.to_string());
        live
    }
}

/// What the API server would refuse of a manifest that the cluster acts on.
pub(super) fn validate(manifest: &Value, key: &Key) -> Result<(), String> {
    let (spec, selector) = match key.kind.as_str() {
        "Deployment" if key.group == "apps" => ("/spec/template/spec", true),
        "Job" if key.group == "batch" => ("/spec/template/spec", false),
        "Pod" if key.group.is_empty() => ("/spec", false),
        _ => return Ok(()),
    };
    let refuse = |path: &str, why: &str| {
        let kind = match key.group.as_str() {
            "" => key.kind.clone(),
            group => format!("{}.{group}", key.kind),
        };
        Err(format!("{kind} \"{}\" is invalid: {path}: {why}", key.name))
    };
    let path = spec.trim_start_matches('/').replace('/', ".");
    if let Some(replicas) = manifest.pointer("/spec/replicas")
        && replicas.as_u64().is_none_or(|replicas| replicas > 1000)
    {
        return refuse("spec.replicas", "Invalid value: must be a number from 0 to 1000");
    }
    let containers = manifest
        .pointer(&format!("{spec}/containers"))
        .and_then(Value::as_array);
    let Some(containers) = containers.filter(|containers| !containers.is_empty()) else {
        return refuse(&format!("{path}.containers"), "Required value");
    };
    for (index, container) in containers.iter().enumerate() {
        for field in ["name", "image"] {
            if container
                .get(field)
                .and_then(Value::as_str)
                .is_none_or(str::is_empty)
            {
                return refuse(&format!("{path}.containers[{index}].{field}"), "Required value");
            }
        }
    }
    if selector {
        let wanted = manifest
            .pointer("/spec/selector/matchLabels")
            .and_then(Value::as_object);
        let Some(wanted) = wanted.filter(|labels| !labels.is_empty()) else {
            return refuse("spec.selector", "Required value");
        };
        let labels = manifest.pointer("/spec/template/metadata/labels");
        if !wanted
            .iter()
            .all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
        {
            return refuse(
                "spec.template.metadata.labels",
                "Invalid value: `selector` does not match template `labels`",
            );
        }
    }
    Ok(())
}

/// Merges by RFC 7396.
pub(in super::super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

pub(super) fn bump_generation(live: &mut Value) {
    if let Some(generation) = live.pointer_mut("/metadata/generation") {
        *generation = json!(generation.as_i64().unwrap_or(0) + 1);
    }
}

fn contains(live: &Value, manifest: &Value) -> bool {
    match (live, manifest) {
        (Value::Object(live), Value::Object(manifest)) => manifest
            .iter()
            .all(|(name, value)| value.is_null() || live.get(name).is_some_and(|live| contains(live, value))),
        (Value::Array(live), Value::Array(manifest)) => {
            live.len() == manifest.len()
                && live
                    .iter()
                    .zip(manifest)
                    .all(|(live, value)| contains(live, value))
        }
        (live, manifest) => live == manifest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_seen_and_additions_are_not() {
        let manifest = json!({"spec": {"replicas": 2, "list": [{"a": 1}]}});
        assert!(contains(
            &json!({"spec": {"replicas": 2, "list": [{"a": 1, "b": 2}]}, "status": {}}),
            &manifest
        ));
        assert!(!contains(
            &json!({"spec": {"replicas": 3, "list": [{"a": 1}]}}),
            &manifest
        ));
        assert!(!contains(
            &json!({"spec": {"replicas": 2, "list": []}}),
            &manifest
        ));
    }
}
