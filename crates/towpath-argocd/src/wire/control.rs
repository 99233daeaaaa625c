//! What governs applications: accounts, projects, ApplicationSets.

use super::{Metadata, ResourceStatus, or_default};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Seconds since 1970; 0, null and absence are no time.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let seconds = Option::<i64>::deserialize(deserializer)?;
    Ok(seconds
        .filter(|seconds| *seconds != 0)
        .and_then(|seconds| Timestamp::from_second(seconds).ok()))
}

/// A local account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Account {
    /// The name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Whether it can be used.
    #[serde(deserialize_with = "or_default")]
    pub enabled: bool,
    /// What it can be used for: `login` with a password, `apiKey` with tokens.
    #[serde(deserialize_with = "or_default")]
    pub capabilities: Vec<String>,
    /// Its tokens, the newest first.
    #[serde(deserialize_with = "or_default")]
    pub tokens: Vec<AccountToken>,
}

/// What is known of an account's token; not the token itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountToken {
    /// Its id.
    #[serde(deserialize_with = "or_default")]
    pub id: String,
    /// When it was issued.
    #[serde(deserialize_with = "seconds")]
    pub issued_at: Option<Timestamp>,
    /// When it expires; `None` for never.
    #[serde(deserialize_with = "seconds")]
    pub expires_at: Option<Timestamp>,
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
    /// The tokens of its roles, kept as it came.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Map::is_empty")]
    pub status: Map<String, Value>,
}

/// A project with what it may use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectDetails {
    /// The project, with the rules of the global projects in it. Do not write it back: they would become its own.
    #[serde(deserialize_with = "or_default")]
    pub project: Project,
    /// The global projects.
    #[serde(deserialize_with = "or_default")]
    pub global_projects: Vec<Project>,
    /// The repositories that belong to it, kept as they came.
    #[serde(deserialize_with = "or_default")]
    pub repositories: Vec<Value>,
    /// The clusters that belong to it, kept as they came.
    #[serde(deserialize_with = "or_default")]
    pub clusters: Vec<Value>,
}

/// An `ApplicationSet`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSet {
    /// Name, identity and versions.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What it generates, kept as it came.
    #[serde(deserialize_with = "or_default")]
    pub spec: Map<String, Value>,
    /// What came of it.
    #[serde(deserialize_with = "or_default")]
    pub status: ApplicationSetStatus,
}

impl ApplicationSet {
    /// The project of its applications, where that is one for all of them; an empty one means `default`.
    pub fn project(&self) -> Option<&str> {
        let project = self.spec.get("template")?.pointer("/spec/project");
        match project.and_then(Value::as_str).unwrap_or_default() {
            "" => Some("default"),
            project if project.contains("{{") => None,
            project => Some(project),
        }
    }
}

/// What came of an ApplicationSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSetStatus {
    /// Its applications; at most 5000 of them (3.2 and later), and none at servers that do not list them.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceStatus>,
    /// Whether it could be generated.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ApplicationSetCondition>,
}

/// Something that is said of an ApplicationSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSetCondition {
    /// Its type, such as `ErrorOccurred`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// A word for why.
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    /// What was said.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}
