//! Argo CD's resources as its REST API writes them: Go's `encoding/json` of `pkg/apis/application/v1alpha1/types.go`.
//!
//! Everything may be absent, because `fields` trims answers and Go leaves out what is empty. Words that this version does
//! not know are kept, times that cannot be read are treated as absent, and unknown fields are ignored.

mod answers;
mod control;

pub use answers::*;
pub use control::*;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Declares an enum of words that keeps the ones it does not know.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$word_doc])* $word,)+
            /// A word that this version does not know; often empty.
            Other(String),
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $(stringify!($word) => Self::$word,)+
                    _ => Self::Other(text),
                }
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$word => stringify!($word),)+
                    Self::Other(text) if text.is_empty() => "Unknown",
                    Self::Other(text) => text,
                })
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Other(String::new())
            }
        }
    };
}

words! {
    /// The result of a comparison.
    SyncStatusCode {
        /// The cluster has what the repository says.
        Synced,
        /// It has not.
        OutOfSync,
        /// It could not be compared.
        Unknown,
    }
}

words! {
    /// How workloads are, worst first by Argo CD's own order: Unknown, Degraded, Missing, Progressing, Suspended, Healthy.
    HealthCode {
        /// Good.
        Healthy,
        /// On their way.
        Progressing,
        /// Failing.
        Degraded,
        /// Paused on purpose.
        Suspended,
        /// Not there.
        Missing,
        /// Could not be assessed.
        Unknown,
    }
}

words! {
    /// How far an operation is.
    OperationPhase {
        /// Going on, or waiting for its next retry.
        Running,
        /// Being stopped; it ends as failed.
        Terminating,
        /// Ended badly.
        Failed,
        /// Ended by an error before it could do its work.
        Error,
        /// Ended well. This says nothing of health.
        Succeeded,
    }
}

impl OperationPhase {
    /// Whether it has ended. An operation between two retries is *running* although it has a time of end.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Failed | Self::Error | Self::Succeeded)
    }
}

/// `null` and absence are the empty value.
fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A time, or nothing where there is none or it cannot be read.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// An `Application`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct App {
    /// Name, identity and versions.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What shall be.
    #[serde(deserialize_with = "or_default")]
    pub spec: Spec,
    /// The operation that was asked for and has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// What is.
    #[serde(deserialize_with = "or_default")]
    pub status: Status,
}

/// Kubernetes' metadata of a resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The name.
    pub name: String,
    /// The namespace of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The identity: another one is another resource under the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The version; opaque, and in practice a growing number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Set while the resource is being deleted.
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Timestamp>,
    /// Labels.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Finalizers.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
    /// What made the resource and takes it along when it goes.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

/// What made a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// The API group and version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The identity.
    pub uid: String,
    /// Everything else, kept as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Metadata {
    /// The version as the number that the server itself takes it for.
    pub fn version_number(&self) -> Option<u64> {
        self.resource_version.as_deref()?.parse().ok()
    }
}

/// What an application shall be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The `AppProject`; empty means `default`.
    pub project: String,
    /// The one source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Several sources; wins over `source`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// The source hydrator, where one writes the manifests to another branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_hydrator: Option<HydratorSpec>,
    /// Where to.
    #[serde(deserialize_with = "or_default")]
    pub destination: Destination,
    /// When and how to sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_policy: Option<SyncPolicy>,
    /// Everything else, kept as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Spec {
    /// The sources that manifests are made of, as `GetSources` in `types.go` decides it.
    pub fn effective_sources(&self) -> Vec<Source> {
        if let Some(hydrator) = &self.source_hydrator {
            return vec![Source {
                repo_url: hydrator.dry_source.repo_url.clone(),
                path: Some(hydrator.sync_source.path.clone()).filter(|path| !path.is_empty()),
                target_revision: Some(hydrator.sync_source.target_branch.clone()),
                ..Source::default()
            }];
        }
        if !self.sources.is_empty() {
            return self.sources.clone();
        }
        self.source.clone().into_iter().collect()
    }

    /// Whether the application syncs on its own.
    pub fn syncs_itself(&self) -> bool {
        self.sync_policy
            .as_ref()
            .and_then(|policy| policy.automated.as_ref())
            .is_some_and(|automated| automated.enabled != Some(false))
    }
}

/// Where manifests come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// The repository.
    #[serde(rename = "repoURL")]
    pub repo_url: String,
    /// The directory in a git repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A branch, tag, commit or version range; empty means the default branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<String>,
    /// The chart, where the repository is a Helm repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chart: Option<String>,
    /// Helm, Kustomize, directory and plug-in settings, kept as they came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Source {
    /// Whether its revisions are commits.
    pub fn is_git(&self) -> bool {
        self.chart.as_deref().unwrap_or_default().is_empty() && !self.repo_url.starts_with("oci://")
    }
}

/// The source hydrator's part of a spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HydratorSpec {
    /// Where people commit.
    #[serde(deserialize_with = "or_default")]
    pub dry_source: Source,
    /// Where the hydrator commits.
    #[serde(deserialize_with = "or_default")]
    pub sync_source: SyncSource,
    /// Everything else, kept as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Where the hydrator commits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncSource {
    /// The branch.
    pub target_branch: String,
    /// The directory.
    pub path: String,
}

/// A cluster and a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// The cluster's API address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The cluster's name, instead of its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// When and how to sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncPolicy {
    /// Present where the application syncs on its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automated: Option<Automated>,
    /// Everything else, kept as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// How an application syncs on its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Automated {
    /// `false` switches it off (3.1 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether it deletes what is no longer in the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<bool>,
    /// Whether it undoes changes made in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_heal: Option<bool>,
    /// Everything else, kept as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Something that was asked for: a sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// The sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncOperation>,
    /// Who asked.
    #[serde(deserialize_with = "or_default")]
    pub initiated_by: InitiatedBy,
    /// What the asker wrote on it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub info: Vec<Info>,
}

impl Operation {
    /// Whether the asker wrote `name` with this `value` on it.
    pub fn carries(&self, name: &str, value: &str) -> bool {
        self.info
            .iter()
            .any(|info| info.name == name && info.value == value)
    }
}

/// A sync that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncOperation {
    /// The revision of the one source.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The revisions of several sources.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
    /// Whether nothing is really changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Whether what is no longer in the repository is deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// The resources it is limited to.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Value>,
}

/// Who asked for an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitiatedBy {
    /// The user or token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Whether the application synced on its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub automated: bool,
}

/// A name and a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// What an application is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The result of the last comparison.
    #[serde(deserialize_with = "or_default")]
    pub sync: SyncStatus,
    /// How the workloads are.
    #[serde(deserialize_with = "or_default")]
    pub health: Health,
    /// When the last full comparison began, in whole seconds.
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub reconciled_at: Option<Timestamp>,
    /// The operation that is going on, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_state: Option<OperationState>,
    /// Errors and warnings.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The resources of the application.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceStatus>,
    /// What was deployed, oldest first, the last being current.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// What the source hydrator did.
    #[serde(deserialize_with = "or_default")]
    pub source_hydrator: HydratorStatus,
    /// A summary. Its images are those of pod specifications, old and new ones, and can be stale or missing.
    #[serde(deserialize_with = "or_default")]
    pub summary: Summary,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncStatus {
    /// The verdict.
    #[serde(deserialize_with = "or_default")]
    pub status: SyncStatusCode,
    /// The revision compared: a commit, a chart version, or the unresolved target after a failure.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The revisions compared, by source.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
    /// The part of the spec that the verdict is about.
    #[serde(deserialize_with = "or_default")]
    pub compared_to: ComparedTo,
}

/// The part of the spec that a comparison was about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ComparedTo {
    /// The one source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Several sources.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Where to.
    #[serde(deserialize_with = "or_default")]
    pub destination: Destination,
}

/// How something is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// The verdict.
    #[serde(deserialize_with = "or_default")]
    pub status: HealthCode,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// An operation and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationState {
    /// What was asked for.
    #[serde(deserialize_with = "or_default")]
    pub operation: Operation,
    /// How far it is.
    #[serde(deserialize_with = "or_default")]
    pub phase: OperationPhase,
    /// What the controller says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_result: Option<SyncResult>,
    /// When it began, in whole seconds.
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended, in whole seconds; also set while it waits for its next retry.
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How often it was retried.
    #[serde(deserialize_with = "or_default")]
    pub retry_count: i64,
}

impl OperationState {
    /// Whether it deploys a whole revision: a dry run and a sync of some resources do not.
    pub fn is_deployment(&self) -> bool {
        self.operation
            .sync
            .as_ref()
            .is_none_or(|sync| !sync.dry_run && sync.resources.is_empty())
    }

    /// The revisions it brings, resolved where they have been.
    pub fn revisions(&self) -> Vec<&str> {
        let result = self.sync_result.as_ref();
        let asked = self.operation.sync.as_ref();
        let lists = [
            result.map(|result| (&result.revisions, &result.revision)),
            asked.map(|sync| (&sync.revisions, &sync.revision)),
        ];
        lists
            .into_iter()
            .flatten()
            .map(|(many, one)| {
                many.iter()
                    .chain([one])
                    .map(String::as_str)
                    .filter(|r| !r.is_empty())
                    .collect()
            })
            .find(|revisions: &Vec<&str>| !revisions.is_empty())
            .unwrap_or_default()
    }
}

/// What came of a sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncResult {
    /// The commit, once it is resolved.
    #[serde(deserialize_with = "or_default")]
    pub revision: String,
    /// The revisions, by source.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
    /// What came of each resource.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceResult>,
}

/// What came of one resource of a sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceResult {
    /// The kind.
    pub kind: String,
    /// The namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// The name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `Synced`, `SyncFailed`, `Pruned` or `PruneSkipped`.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// What was said of it.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
    /// The phase of a hook, and `Running` for a resource that was applied.
    #[serde(deserialize_with = "or_default")]
    pub hook_phase: String,
    /// The images that its manifest names (3.1 and later).
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// An error or a warning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Its type: `…Error` is a failure, `…Warning` is advice.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was said.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}

/// One resource of an application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceStatus {
    /// The API group; empty for the core.
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    /// The API version.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// The kind.
    pub kind: String,
    /// The namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// The name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Whether it is as the repository says.
    #[serde(deserialize_with = "or_default")]
    pub status: SyncStatusCode,
    /// How it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Whether it is no longer in the repository.
    #[serde(deserialize_with = "or_default")]
    pub requires_pruning: bool,
}

/// Something that was deployed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HistoryEntry {
    /// The number to roll back to.
    pub id: i64,
    /// The revision.
    #[serde(deserialize_with = "or_default")]
    pub revision: String,
    /// The revisions, by source.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
    /// When its sync had ended.
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub deployed_at: Option<Timestamp>,
    /// When its sync had begun.
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub deploy_started_at: Option<Timestamp>,
}

/// What the source hydrator did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HydratorStatus {
    /// The last hydration that ended well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_operation: Option<Hydration>,
    /// The one that is going on, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_operation: Option<Hydration>,
}

/// One hydration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hydration {
    /// The commit that people made.
    #[serde(rename = "drySHA", deserialize_with = "or_default")]
    pub dry_sha: String,
    /// The commit that the hydrator made of it.
    #[serde(rename = "hydratedSHA", deserialize_with = "or_default")]
    pub hydrated_sha: String,
    /// `Hydrating`, `Hydrated` or `Failed`.
    #[serde(deserialize_with = "or_default")]
    pub phase: String,
    /// What was said of it.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}

/// A summary of an application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// The images of its pods' specifications.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_strange_words_and_strange_times_are_taken() {
        let text = r#"{"metadata":{"name":"shop","labels":null},"status":{"sync":{"status":"Askew","revisions":null,
            "comparedTo":null},"health":null,"reconciledAt":"yesterday","resources":null,
            "operationState":{"phase":"Running","startedAt":null,"syncResult":{"resources":null}}},"new":[1]}"#;
        let app: App = serde_json::from_str(text).unwrap();
        assert_eq!(app.status.sync.status, SyncStatusCode::Other("Askew".into()));
        assert_eq!(app.status.health.status.to_string(), "Unknown");
        assert_eq!(app.status.reconciled_at, None);
        let list: AppList = serde_json::from_str(r#"{"metadata":{},"items":null}"#).unwrap();
        assert!(list.items.is_empty());
    }

    #[test]
    fn a_spec_survives_the_round_trip() {
        let text = serde_json::json!({"project":"p","source":{"repoURL":"https://h/r","helm":{"values":"a: 1"}},
            "destination":{"server":"s"},"syncPolicy":{"automated":{"prune":true},"syncOptions":["A=b"]},
            "revisionHistoryLimit":3});
        let spec: Spec = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), text);
    }
}
