//! What the API answers beside applications: lists, trees, manifests, events, windows, and what the server says of itself.

use super::{App, Health, or_default, time};
use crate::config::SERVICE;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use towpath_elements::{Error, ErrorKind, Result};

/// A list of applications.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AppList {
    /// The version of the list, which a watch may start at.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ListMetadata,
    /// The applications that the caller may see.
    #[serde(deserialize_with = "or_default")]
    pub items: Vec<App>,
}

/// The metadata of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMetadata {
    /// The version of the list.
    #[serde(deserialize_with = "or_default")]
    pub resource_version: String,
}

/// All resources that belong to an application, those that its own resources made included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceTree {
    /// The resources.
    #[serde(deserialize_with = "or_default")]
    pub nodes: Vec<ResourceNode>,
}

/// One resource of a tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceNode {
    /// The API group; empty for the core.
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    /// The API version.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// The kind.
    pub kind: String,
    /// The namespace; empty for what has none.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The identity.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    /// The images of a pod's specification.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// How it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// Manifests made of a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifests {
    /// The manifests, each a JSON text.
    #[serde(deserialize_with = "or_default")]
    pub manifests: Vec<String>,
    /// The commit they were made of.
    #[serde(deserialize_with = "or_default")]
    pub revision: String,
    /// How they were made: `Kustomize`, `Helm`, `Directory` or `Plugin`.
    #[serde(deserialize_with = "or_default")]
    pub source_type: String,
}

impl Manifests {
    /// The manifests read.
    ///
    /// # Errors
    /// *Protocol* where one is not JSON; it says which, and shows nothing of it.
    pub fn objects(&self) -> Result<Vec<Value>> {
        let read = |(at, text): (usize, &String)| {
            let what = format!("manifest {} of {}", at + 1, self.manifests.len());
            state(text, "read", what).map(Option::unwrap_or_default)
        };
        self.manifests.iter().enumerate().map(read).collect()
    }
}

/// A resource as it shall be and as it is, each a JSON text that is read when it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagedResource {
    /// The API group; empty for the core.
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    /// The kind.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// The namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// The name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// As the repository says, as JSON text; see [`target`](Self::target).
    #[serde(deserialize_with = "or_default")]
    pub target_state: String,
    /// As it is, as JSON text; see [`live`](Self::live).
    #[serde(deserialize_with = "or_default")]
    pub live_state: String,
    /// As it is, without what the comparison ignores, as JSON text.
    #[serde(deserialize_with = "or_default")]
    pub normalized_live_state: String,
    /// As a sync would make it, as JSON text.
    #[serde(deserialize_with = "or_default")]
    pub predicted_live_state: String,
    /// The version of the live resource.
    #[serde(deserialize_with = "or_default")]
    pub resource_version: String,
    /// Whether the two differ.
    #[serde(deserialize_with = "or_default")]
    pub modified: bool,
    /// Whether it is a hook.
    #[serde(deserialize_with = "or_default")]
    pub hook: bool,
}

impl ManagedResource {
    /// As the repository says; `None` where it is no longer there.
    ///
    /// # Errors
    /// *Protocol* where the server's text is not JSON; it shows nothing of it, for it may be a secret.
    pub fn target(&self) -> Result<Option<Value>> {
        self.read("the target state of", &self.target_state)
    }

    /// As it is; `None` where it is not there. Errors as for [`target`](Self::target).
    pub fn live(&self) -> Result<Option<Value>> {
        self.read("the live state of", &self.live_state)
    }

    /// As it is, without what the comparison ignores. Errors as for [`target`](Self::target).
    pub fn normalized_live(&self) -> Result<Option<Value>> {
        self.read("the normalized live state of", &self.normalized_live_state)
    }

    /// As a sync would make it. Errors as for [`target`](Self::target).
    pub fn predicted_live(&self) -> Result<Option<Value>> {
        self.read("the predicted live state of", &self.predicted_live_state)
    }

    fn read(&self, which: &str, text: &str) -> Result<Option<Value>> {
        let what = format!("{which} {} {}/{}", self.kind, self.namespace, self.name);
        state(text, "read", what)
    }
}

/// A JSON text of the server; empty and `null` are nothing.
fn state(text: &str, attempted: &'static str, what: String) -> Result<Option<Value>> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    match serde_json::from_str(text) {
        Ok(Value::Null) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(cause) => Err(
            Error::new(ErrorKind::Protocol, SERVICE, attempted, what).because(format!(
                "it is not JSON, line {} column {}",
                cause.line(),
                cause.column()
            )),
        ),
    }
}

/// What a server-side diff found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceDiffs {
    /// Each resource. Its target is what the cluster would make of the manifest.
    #[serde(deserialize_with = "or_default")]
    pub items: Vec<ManagedResource>,
    /// Whether any of them differs.
    #[serde(deserialize_with = "or_default")]
    pub modified: bool,
}

/// Something that can be done to a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceAction {
    /// The name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The name for people.
    #[serde(deserialize_with = "or_default")]
    pub display_name: String,
    /// Whether it does not fit the resource's present state.
    #[serde(deserialize_with = "or_default")]
    pub disabled: bool,
    /// What it can be told (3.1 and later).
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<ActionParameter>,
}

/// What an action can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActionParameter {
    /// The name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The value where nothing is said.
    #[serde(deserialize_with = "or_default")]
    pub default: String,
}

/// A link for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// What it is called.
    #[serde(deserialize_with = "or_default")]
    pub title: String,
    /// Where it leads.
    #[serde(deserialize_with = "or_default")]
    pub url: String,
    /// What it is for.
    #[serde(deserialize_with = "or_default")]
    pub description: String,
}

/// A Kubernetes event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// `Normal` or `Warning`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// A word for what happened.
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    /// What happened.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
    /// When it happened last.
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub last_timestamp: Option<Timestamp>,
    /// How often it happened.
    #[serde(deserialize_with = "or_default")]
    pub count: i64,
}

/// The sync windows of an application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncWindows {
    /// The windows that are open now.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub active_windows: Vec<SyncWindow>,
    /// The windows that concern the application.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub assigned_windows: Vec<SyncWindow>,
    /// Whether a manual sync is allowed now.
    #[serde(deserialize_with = "or_default")]
    pub can_sync: bool,
}

impl SyncWindows {
    /// The window that keeps the application from syncing on its own now: an active one that denies, or one that allows
    /// and is not active, while no other that allows is.
    pub fn blocks_automatic_sync(&self) -> Option<&SyncWindow> {
        let denies = self.active_windows.iter().find(|window| window.kind == "deny");
        let allowed = self.active_windows.iter().any(|window| window.kind == "allow");
        denies.or_else(|| {
            self.assigned_windows
                .iter()
                .find(|window| window.kind == "allow" && !allowed)
        })
    }
}

/// A time in which syncs are allowed or denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncWindow {
    /// `allow` or `deny`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// When it begins, as a cron expression.
    #[serde(deserialize_with = "or_default")]
    pub schedule: String,
    /// How long it lasts, as a Go duration.
    #[serde(deserialize_with = "or_default")]
    pub duration: String,
    /// Whether manual syncs are let through.
    #[serde(deserialize_with = "or_default")]
    pub manual_sync: bool,
}

/// What a commit says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionMetadata {
    /// The author.
    #[serde(deserialize_with = "or_default")]
    pub author: String,
    /// When it was made.
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub date: Option<Timestamp>,
    /// The commit message.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
    /// The tags that point to it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// The server's version. Its keys are in Pascal case, and strangers see the first only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    /// As in `v3.5.1+9f…`.
    pub version: String,
}

/// What the server says of its configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Its address for people.
    #[serde(deserialize_with = "or_default")]
    pub url: String,
    /// The control plane's namespace; strangers do not see it.
    #[serde(deserialize_with = "or_default")]
    pub controller_namespace: String,
    /// Whether applications may live in other namespaces.
    #[serde(deserialize_with = "or_default")]
    pub apps_in_any_namespace_enabled: bool,
    /// Everything else, kept as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Whom the server takes the caller for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserInfo {
    /// Whether it knows the caller at all.
    #[serde(deserialize_with = "or_default")]
    pub logged_in: bool,
    /// The name.
    #[serde(deserialize_with = "or_default")]
    pub username: String,
    /// The groups.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_when_they_are_asked_for_and_never_shown() {
        let resource: ManagedResource = serde_json::from_value(serde_json::json!({
            "kind": "Secret", "namespace": "shop", "name": "web", "targetState": "null", "liveState": "{\"a\":1}",
            "normalizedLiveState": "{\"data\":\"canary", "predictedLiveState": null,
        }))
        .unwrap();
        assert_eq!(resource.target().unwrap(), None);
        assert_eq!(resource.live().unwrap().unwrap()["a"], 1);
        assert_eq!(resource.predicted_live().unwrap(), None);
        let error = resource.normalized_live().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains("Secret shop/web"), "{error}");
        assert!(!format!("{error:?}").contains("canary"));
    }

    #[test]
    fn a_manifest_that_is_none_is_named_by_its_place() {
        let manifests = Manifests {
            manifests: vec!["{}".into(), "canary".into()],
            ..Manifests::default()
        };
        let error = manifests.objects().unwrap_err();
        assert!(error.to_string().contains("manifest 2 of 2"), "{error}");
        assert!(!format!("{error:?}").contains("canary"));
    }
}
