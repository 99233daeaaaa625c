//! The Application resource as it is on the wire: names and omissions follow the Go structs of
//! `pkg/apis/application/v1alpha1/types.go`. Times are RFC 3339 with whole seconds, integers are JSON numbers.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The annotation by which a refresh is asked for.
pub(super) const REFRESH: &str = "argocd.argoproj.io/refresh";
/// The annotation that keeps the controller's hands off.
pub(super) const SKIP_RECONCILE: &str = "argocd.argoproj.io/skip-reconcile";

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares a struct whose fields are camel case on the wire, may be absent or null, and are left out when empty.
/// Fields behind `always` are written even when empty.
macro_rules! wire {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* ; always $($(#[$kept_attribute:meta])* $kept:ident: $kept_type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(super) struct $name {
            $($(#[$attribute])* #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")] pub(super) $field: $type,)*
            $($(#[$kept_attribute])* #[serde(deserialize_with = "or_default")] pub(super) $kept: $kept_type,)*
            /// What this emulator keeps and gives back, but does not act on.
            #[serde(flatten)]
            pub(super) rest: Map<String, Value>,
        }
    };
}

/// Go reads `null` as the zero value.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

wire!(
    /// A whole Application.
    Application { operation: Option<Operation>, ; always metadata: Metadata, spec: Spec, status: Status, }
);

wire!(Metadata {
    namespace: String,
    uid: String,
    resource_version: String,
    generation: i64,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    finalizers: Vec<String>,
    ; always name: String,
});

wire!(Spec {
    source: Option<Source>,
    sources: Vec<Source>,
    source_hydrator: Option<HydratorSpec>,
    sync_policy: Option<SyncPolicy>,
    revision_history_limit: Option<i64>,
    ; always project: String, destination: Destination,
});

wire!(Source {
    path: String, target_revision: String, chart: String, directory: Option<Directory>,
    ; always #[serde(rename = "repoURL")] repo_url: String,
});

wire!(HydratorSpec { ; always dry_source: Source, sync_source: SyncSource, });

wire!(SyncSource { ; always target_branch: String, path: String, });

wire!(Directory { recurse: bool, ; always });

wire!(Destination { server: String, name: String, namespace: String, ; always });

wire!(SyncPolicy { automated: Option<Automated>, sync_options: Vec<String>, retry: Option<Retry>, ; always });

wire!(Automated {
    prune: bool, self_heal: bool, allow_empty: bool, enabled: Option<bool>,
    ; always
});

wire!(Retry { limit: i64, backoff: Option<Backoff>, refresh: bool, ; always });

wire!(Backoff { duration: String, factor: Option<i64>, max_duration: String, ; always });

wire!(Operation {
    sync: Option<SyncOperation>,
    initiated_by: InitiatedBy,
    info: Vec<Info>,
    ; always retry: Retry,
});

wire!(SyncOperation {
    revision: String,
    revisions: Vec<String>,
    sources: Vec<Source>,
    prune: bool,
    dry_run: bool,
    sync_strategy: Option<Value>,
    resources: Vec<ResourceRef>,
    source: Option<Source>,
    manifests: Vec<String>,
    sync_options: Vec<String>,
    auto_heal_attempts_count: i64,
    ; always
});

wire!(ResourceRef { group: String, namespace: String, ; always kind: String, name: String, });

wire!(InitiatedBy { username: String, automated: bool, ; always });

wire!(Info { ; always name: String, value: String, });

wire!(Status {
    resources: Vec<ResourceStatus>,
    history: Vec<History>,
    conditions: Vec<Condition>,
    reconciled_at: Option<String>,
    operation_state: Option<OperationState>,
    source_type: String,
    source_types: Vec<String>,
    resource_health_source: String,
    controller_namespace: String,
    ; always sync: SyncStatus, health: HealthStatus, summary: Summary, source_hydrator: HydratorStatus,
});

wire!(SyncStatus {
    revision: String, revisions: Vec<String>,
    ; always status: String, compared_to: ComparedTo,
});

wire!(ComparedTo { sources: Vec<Source>, ; always source: Source, destination: Destination, });

wire!(HydratorStatus {
    last_successful_operation: Option<Hydrated>, current_operation: Option<Hydration>,
    ; always
});

wire!(Hydrated {
    #[serde(rename = "drySHA")] dry_sha: String, #[serde(rename = "hydratedSHA")] hydrated_sha: String,
    ; always source_hydrator: HydratorSpec,
});

wire!(Hydration {
    finished_at: Option<String>,
    #[serde(rename = "drySHA")] dry_sha: String, #[serde(rename = "hydratedSHA")] hydrated_sha: String,
    ; always source_hydrator: HydratorSpec, started_at: String, phase: String, message: String,
});

wire!(HealthStatus { status: String, message: String, last_transition_time: Option<String>, ; always });

wire!(Summary {
    images: Vec<String>, #[serde(rename = "externalURLs")] external_urls: Vec<String>,
    is_app_of_apps: bool,
    ; always
});

wire!(OperationState {
    message: String,
    sync_result: Option<SyncResult>,
    finished_at: Option<String>,
    retry_count: i64,
    ; always operation: Operation, phase: String, started_at: Option<String>,
});

wire!(SyncResult {
    resources: Vec<ResourceResult>, source: Source, sources: Vec<Source>, revisions: Vec<String>,
    ; always revision: String,
});

wire!(ResourceResult {
    status: String,
    message: String,
    hook_type: String,
    hook_phase: String,
    sync_phase: String,
    images: Vec<String>,
    ; always group: String, version: String, kind: String, namespace: String, name: String,
});

wire!(ResourceStatus {
    group: String,
    namespace: String,
    status: String,
    health: Option<HealthStatus>,
    requires_pruning: bool,
    sync_wave: i64,
    ; always version: String, kind: String, name: String,
});

wire!(History {
    revision: String,
    revisions: Vec<String>,
    sources: Vec<Source>,
    deploy_started_at: Option<String>,
    initiated_by: InitiatedBy,
    ; always id: i64, deployed_at: String, source: Source,
});

wire!(Condition {
    last_transition_time: Option<String>,
    ; always #[serde(rename = "type")] kind: String, message: String,
});

impl Application {
    /// The project; an empty one means `default`.
    pub(super) fn project(&self) -> &str {
        match self.spec.project.as_str() {
            "" => "default",
            project => project,
        }
    }

    /// The settings of automatic synchronisation, where it is on.
    pub(super) fn automated(&self) -> Option<&Automated> {
        let automated = self.spec.sync_policy.as_ref()?.automated.as_ref()?;
        (automated.enabled != Some(false)).then_some(automated)
    }

    /// The resource version as the number that it is.
    pub(super) fn version(&self) -> Option<u64> {
        self.metadata.resource_version.parse().ok()
    }

    /// Puts an operation up for the controller, as `SetAppOperation` does: the last one's state goes.
    pub(super) fn start(&mut self, operation: Operation) {
        self.operation = Some(operation);
        self.status.operation_state = None;
    }
}

impl Spec {
    /// Whether the sources are a list.
    pub(super) fn has_several(&self) -> bool {
        self.source_hydrator.is_none() && !self.sources.is_empty()
    }

    /// The sources that people write to: with a hydrator, the dry one.
    pub(super) fn given_sources(&self) -> Vec<Source> {
        match &self.source_hydrator {
            Some(hydrator) => vec![hydrator.dry_source.clone()],
            None => self.effective_sources(),
        }
    }

    /// The sources that manifests are made of, as `GetSources` decides it: with a hydrator, the branch it writes to.
    pub(super) fn effective_sources(&self) -> Vec<Source> {
        if let Some(hydrator) = &self.source_hydrator {
            return vec![Source {
                repo_url: hydrator.dry_source.repo_url.clone(),
                path: hydrator.sync_source.path.clone(),
                target_revision: hydrator.sync_source.target_branch.clone(),
                ..Source::default()
            }];
        }
        match self.sources.is_empty() {
            true => self.source.iter().cloned().collect(),
            false => self.sources.clone(),
        }
    }
}

/// Several sources are written into lists, one into a field of its own: gives what belongs into the field, and into the
/// list.
pub(super) fn one_or_several<T: Default>(several: bool, values: Vec<T>) -> (T, Vec<T>) {
    match several {
        false => (values.into_iter().next().unwrap_or_default(), Vec::new()),
        true => (T::default(), values),
    }
}

impl ComparedTo {
    /// The sources that a comparison was about.
    pub(super) fn compared(&self) -> &[Source] {
        match self.sources.is_empty() {
            true => std::slice::from_ref(&self.source),
            false => &self.sources,
        }
    }
}

impl SyncStatus {
    /// The revisions that were compared, by source.
    pub(super) fn compared(&self) -> &[String] {
        match self.revisions.is_empty() {
            true => std::slice::from_ref(&self.revision),
            false => &self.revisions,
        }
    }
}

impl Source {
    /// The revision that is followed; an empty one means `HEAD`.
    pub(super) fn target(&self) -> &str {
        match self.target_revision.as_str() {
            "" => "HEAD",
            target => target,
        }
    }
}

impl OperationState {
    /// Whether the operation has ended for good.
    pub(super) fn completed(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed" | "Error")
    }
}
