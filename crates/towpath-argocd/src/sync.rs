//! What a sync can be asked to do: the body of `POST /api/v1/applications/{name}/sync`.

use crate::config::SERVICE;
use crate::wire::Info;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use towpath_core::Application;
use towpath_elements::{Error, ErrorKind, Result};

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
    /// The pause before the first such retry; 5 seconds where none is given.
    pub retry_pause: Option<Duration>,
    /// By what the pause grows from one retry to the next; 2 where nothing is given.
    pub retry_factor: Option<u32>,
    /// The longest such pause; the server's own is 3 minutes.
    pub retry_longest_pause: Option<Duration>,
    /// Have a retry take up a newer commit, where there is one by then (3.2 and later). Without it all retries go to the
    /// revision that the operation began with.
    pub retry_refresh: bool,
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
    /// # Errors
    /// *Invalid* where the request contradicts itself.
    pub(crate) fn new(app: &'a Application, request: &'a SyncRequest) -> Result<Self> {
        contradiction(request)
            .map_err(|why| Error::new(ErrorKind::Invalid, SERVICE, "sync", app).because(why))?;
        let (revision, revisions): (_, &[String]) = match request.revisions.as_slice() {
            [one] if request.source_positions.is_empty() => (Some(one.as_str()), &[]),
            many => (None, many),
        };
        Ok(Self {
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
            retry_strategy: request.retry_limit.map(|limit| retry_strategy(request, limit)),
            infos: &request.infos,
            manifests: &request.manifests,
        })
    }
}

fn retry_strategy(request: &SyncRequest, limit: u32) -> Value {
    let pause = request.retry_pause.unwrap_or(Duration::from_secs(5));
    let mut back_off = json!({"duration": go_duration(pause), "factor": request.retry_factor.unwrap_or(2)});
    if let Some(longest) = request.retry_longest_pause {
        back_off["maxDuration"] = go_duration(longest).into();
    }
    let mut strategy = json!({"limit": limit, "backoff": back_off});
    if request.retry_refresh {
        strategy["refresh"] = true.into();
    }
    strategy
}

fn go_duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn contradiction(request: &SyncRequest) -> Result<(), String> {
    let of_retries = request.retry_refresh
        || request.retry_pause.is_some()
        || request.retry_factor.is_some()
        || request.retry_longest_pause.is_some();
    if of_retries && request.retry_limit.is_none() {
        return Err("it says how to retry, but not how often: give a retry limit".into());
    }
    paired(&request.revisions, &request.source_positions)
}

/// Checks the revisions of several sources: one for each position, which count from 1.
pub(crate) fn paired(revisions: &[String], positions: &[u32]) -> Result<(), String> {
    let alone = positions.is_empty() && revisions.len() <= 1;
    if !alone && revisions.len() != positions.len() {
        return Err(format!(
            "{} revisions and {} source positions: each revision needs the position of its source",
            revisions.len(),
            positions.len()
        ));
    }
    if positions.contains(&0) {
        return Err("source positions count from 1".into());
    }
    match positions
        .iter()
        .enumerate()
        .find(|(at, position)| positions[..*at].contains(position))
    {
        Some((_, twice)) => Err(format!("source position {twice} is given twice")),
        None => Ok(()),
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
            serde_json::to_value(SyncBody::new(&app, &one).unwrap()).unwrap(),
            json!({"name": "web", "project": "shop", "revision": "abc", "dryRun": false, "prune": false,
                "strategy": {"hook": {"force": false}}, "infos": [{"name": "a", "value": "b"}]})
        );
        let two = SyncRequest {
            revisions: vec!["a".into()],
            source_positions: vec![2],
            ..SyncRequest::default()
        };
        let body = serde_json::to_value(SyncBody::new(&app, &two).unwrap()).unwrap();
        assert_eq!(
            (&body["revisions"], &body["sourcePositions"]),
            (&json!(["a"]), &json!([2]))
        );
    }
    #[test]
    fn retries_are_written_whole() {
        let app = "shop/web".parse().unwrap();
        let request = SyncRequest {
            retry_limit: Some(3),
            retry_pause: Some(Duration::from_secs(1)),
            retry_factor: Some(4),
            retry_longest_pause: Some(Duration::from_secs(60)),
            retry_refresh: true,
            ..SyncRequest::default()
        };
        let body = serde_json::to_value(SyncBody::new(&app, &request).unwrap()).unwrap();
        let expected = json!({"limit": 3, "refresh": true,
            "backoff": {"duration": "1000ms", "factor": 4, "maxDuration": "60000ms"}});
        assert_eq!(body["retryStrategy"], expected);
    }

    #[test]
    fn contradictions_are_refused() {
        let app = "shop/web".parse().unwrap();
        let several = |revisions: &[&str], positions: &[u32]| SyncRequest {
            revisions: revisions.iter().map(|&revision| revision.to_owned()).collect(),
            source_positions: positions.to_vec(),
            ..SyncRequest::default()
        };
        let no_limit = SyncRequest {
            retry_refresh: true,
            ..SyncRequest::default()
        };
        for (request, why) in [
            (several(&["a", "b"], &[]), "2 revisions and 0"),
            (several(&["a"], &[1, 2]), "1 revisions and 2"),
            (several(&[], &[1]), "0 revisions and 1"),
            (several(&["a"], &[0]), "count from 1"),
            (several(&["a", "b"], &[2, 2]), "position 2 is given twice"),
            (no_limit, "retry limit"),
        ] {
            let error = SyncBody::new(&app, &request).map(|_| ()).unwrap_err();
            assert!(
                error.kind() == ErrorKind::Invalid && error.detail().contains(why),
                "{error}"
            );
        }
    }
}
