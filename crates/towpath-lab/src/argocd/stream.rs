//! The watch, `GET /api/v1/stream/applications`: newline-delimited JSON, or server-sent events with keep-alives.
//!
//! It is lossy as the real one is: what does not fit a subscriber's buffer is dropped without a word, and an unknown
//! Application is an eternally silent stream.

use super::Shared;
use super::access::Caller;
use super::model::Application;
use super::request::Params;
use super::store::{Change, WatchEvent};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// Which Applications are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    name: Option<String>,
    projects: Vec<String>,
    selector: Vec<String>,
    namespace: Option<String>,
}

impl Filter {
    pub(super) fn of(params: &Params) -> Self {
        let some = |name: &str| {
            params
                .get(name)
                .filter(|value| !value.is_empty())
                .map(ToOwned::to_owned)
        };
        let mut projects: Vec<String> = params
            .all("projects")
            .into_iter()
            .map(ToOwned::to_owned)
            .collect();
        projects.extend(params.all("project").into_iter().map(ToOwned::to_owned));
        projects.retain(|project| !project.is_empty());
        Self {
            name: some("name"),
            projects,
            selector: some("selector")
                .map(|selector| selector.split(',').map(|part| part.trim().to_owned()).collect())
                .unwrap_or_default(),
            namespace: some("appNamespace"),
        }
    }

    pub(super) fn takes(&self, app: &Application) -> bool {
        let labels = &app.metadata.labels;
        self.name.as_ref().is_none_or(|name| *name == app.metadata.name)
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == app.metadata.namespace)
            && (self.projects.is_empty() || self.projects.iter().any(|project| project == app.project()))
            && self.selector.iter().all(|part| {
                if let Some((name, value)) = part.split_once("!=") {
                    labels.get(name.trim()).is_none_or(|label| label != value.trim())
                } else if let Some((name, value)) = part.split_once('=') {
                    labels
                        .get(name.trim())
                        .is_some_and(|label| label == value.trim_start_matches('=').trim())
                } else {
                    labels.contains_key(part.as_str())
                }
            })
    }
}

pub(super) async fn applications(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: Params,
    headers: HeaderMap,
) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let sse = accepted == Some("text/event-stream");
    let filter = Filter::of(&params);
    let fields = params
        .get("fields")
        .filter(|fields| !fields.is_empty())
        .map(ToOwned::to_owned);
    let since: Option<u64> = params
        .get("resourceVersion")
        .and_then(|version| version.parse().ok());
    let (now, mut events) = shared.store.watch();
    let initial: Vec<_> = match (&filter.name, since) {
        (None, Some(_)) => Vec::new(),
        _ => now
            .into_iter()
            .filter(|app| version(app) >= since.unwrap_or(0))
            .collect(),
    };
    // What is known already, and is older than the caller's version, is not told again.
    let newest = since.unwrap_or(0);
    let mut left = shared.knobs.get().cut_stream_after;
    let keep_alive = shared.config.keep_alive;
    let mut sent: HashMap<String, Value> = HashMap::new();
    let visible = move |shared: &Shared, app: &Application| {
        filter.takes(app) && caller.may(shared, "get", app.project())
    };
    let lines = async_stream::stream! {
        let mut waiting = initial
            .into_iter()
            .map(|app| WatchEvent { change: Change::Added, app })
            .collect::<std::collections::VecDeque<_>>();
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + keep_alive, keep_alive);
        loop {
            let event = match waiting.pop_front() {
                Some(event) => event,
                None => tokio::select! {
                    event = events.recv() => match event {
                        Ok(event) => event,
                        // The buffer overflowed: what was in it is lost, and nobody says so.
                        Err(RecvError::Lagged(_)) => continue,
                        Err(RecvError::Closed) => break,
                    },
                    _ = tick.tick(), if sse => {
                        yield Ok::<_, std::convert::Infallible>(Bytes::from_static(b":\n"));
                        continue;
                    }
                },
            };
            if !visible(&shared, &event.app) || version(&event.app) < newest {
                continue;
            }
            if left == Some(0) {
                break;
            }
            if shared.knobs.spend(|knobs| &mut knobs.drop_watch_events) {
                continue;
            }
            let payload = payload(&event, fields.as_deref());
            if sent.get(&event.app.metadata.name) == Some(&payload) {
                continue;
            }
            let line = match sse {
                true => format!("data: {payload} \n\n\n"),
                false => format!("{payload}\n"),
            };
            sent.insert(event.app.metadata.name.clone(), payload);
            left = left.map(|left| left - 1);
            yield Ok(Bytes::from(line));
            if left == Some(0) {
                break;
            }
        }
    };
    let kind = if sse {
        "text/event-stream"
    } else {
        "application/json"
    };
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(lines)).into_response()
}

fn version(app: &Application) -> u64 {
    app.metadata.resource_version.parse().unwrap_or(0)
}

fn payload(event: &WatchEvent, fields: Option<&str>) -> Value {
    let kind = match event.change {
        Change::Added => "ADDED",
        Change::Modified => "MODIFIED",
        Change::Deleted => "DELETED",
    };
    let whole = json!({"result": {"type": kind, "application": &*event.app}});
    fields.map_or(whole.clone(), |fields| super::views::select(&whole, fields))
}
