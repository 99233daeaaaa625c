//! What a sync can be asked to do: the body of `POST /api/v1/applications/{name}/sync`.

use crate::wire::Info;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use towpath_core::Application;

/// How resources are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// With hooks, as the `argocd` program does.
    Hook {
        /// Delete and make anew what cannot be changed.
        force: bool,
    },
    /// Without hooks.
    Apply {
        /// Delete and make anew what cannot be changed.
        force: bool,
    },
}

/// A resource that a sync is limited to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SyncResource {
    /// The API group; empty for the core.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The namespace; `None` for the application's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// A sync to ask for. The default syncs the target revision, with hooks, without pruning.
///
/// ```
/// use towpath_argocd::SyncRequest;
/// let request = SyncRequest { prune: true, ..SyncRequest::to("main") }.info("ci/run", "4711");
/// assert_eq!(request.revisions, ["main"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncRequest {
    /// The revision; for several sources one for each of [`source_positions`](Self::source_positions). Empty for the target.
    pub revisions: Vec<String>,
    /// Which sources the revisions are for, counted from 1. Empty where there is one source.
    pub source_positions: Vec<u32>,
    /// Change nothing, only say what would change. It replaces the last operation in the application's status.
    pub dry_run: bool,
    /// Delete what is no longer in the repository.
    pub prune: bool,
    /// How to apply; with hooks where none is given.
    pub strategy: Option<Strategy>,
    /// Limit it to these. Such a sync is no deployment: it makes no entry in the history.
    pub resources: Vec<SyncResource>,
    /// Options such as `ServerSideApply=true`. They replace those of the application.
    pub options: Option<Vec<String>>,
    /// How often it is retried by the server, 0 for not at all.
    pub retry_limit: Option<u32>,
    /// The pause before the first such retry; it doubles.
    pub retry_pause: Option<Duration>,
    /// Names and values that stay with the operation.
    pub infos: Vec<Info>,
    /// Manifests to apply instead of the repository's, each a JSON text.
    pub manifests: Vec<String>,
}

impl SyncRequest {
    /// A sync to a revision.
    pub fn to(revision: impl Into<String>) -> Self {
        Self {
            revisions: vec![revision.into()],
            ..Self::default()
        }
    }

    /// Writes a name and a value on the operation.
    #[must_use]
    pub fn info(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.infos.push(Info {
            name: name.into(),
            value: value.into(),
        });
        self
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SyncBody<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    revisions: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    source_positions: &'a [u32],
    dry_run: bool,
    prune: bool,
    strategy: Value,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    resources: &'a [SyncResource],
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_options: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_strategy: Option<Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    infos: &'a [Info],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    manifests: &'a [String],
}

impl<'a> SyncBody<'a> {
    pub(crate) fn new(app: &'a Application, request: &'a SyncRequest) -> Self {
        let (revision, revisions): (_, &[String]) = match request.revisions.as_slice() {
            [one] if request.source_positions.is_empty() => (Some(one.as_str()), &[]),
            many => (None, many),
        };
        Self {
            name: app.name().as_str(),
            project: app.project(),
            app_namespace: app.namespace(),
            revision,
            revisions,
            source_positions: &request.source_positions,
            dry_run: request.dry_run,
            prune: request.prune,
            strategy: match request.strategy.unwrap_or(Strategy::Hook { force: false }) {
                Strategy::Hook { force } => json!({"hook": {"force": force}}),
                Strategy::Apply { force } => json!({"apply": {"force": force}}),
            },
            resources: &request.resources,
            sync_options: request.options.as_ref().map(|items| json!({"items": items})),
            retry_strategy: request.retry_limit.map(|limit| {
                let pause = request.retry_pause.unwrap_or(Duration::from_secs(5));
                json!({"limit": limit, "backoff": {"duration": format!("{}ms", pause.as_millis()), "factor": 2}})
            }),
            infos: &request.infos,
            manifests: &request.manifests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_revision_and_several_are_written_differently() {
        let app = "shop/web".parse().unwrap();
        let one = SyncRequest::to("abc").info("a", "b");
        assert_eq!(
            serde_json::to_value(SyncBody::new(&app, &one)).unwrap(),
            json!({"name": "web", "project": "shop", "revision": "abc", "dryRun": false, "prune": false,
                "strategy": {"hook": {"force": false}}, "infos": [{"name": "a", "value": "b"}]})
        );
        let two = SyncRequest {
            revisions: vec!["a".into()],
            source_positions: vec![2],
            ..SyncRequest::default()
        };
        let body = serde_json::to_value(SyncBody::new(&app, &two)).unwrap();
        assert_eq!(
            (&body["revisions"], &body["sourcePositions"]),
            (&json!(["a"]), &json!([2]))
        );
    }
}
