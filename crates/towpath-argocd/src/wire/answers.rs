//! What the API answers beside applications: lists, trees, manifests, events, windows, and what the server says of itself.

use super::{App, Health, Metadata, or_default, time};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// A resource as it shall be and as it is, each a JSON text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagedResource {
    /// The API group; empty for the core.
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// The name.
    pub name: String,
    /// As the repository says.
    #[serde(deserialize_with = "or_default")]
    pub target_state: String,
    /// As it is.
    #[serde(deserialize_with = "or_default")]
    pub live_state: String,
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

/// An `AppProject`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Project {
    /// Name, identity and versions.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What it allows, kept as it came.
    #[serde(deserialize_with = "or_default")]
    pub spec: Map<String, Value>,
}
