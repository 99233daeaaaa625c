//! The watch, `GET /api/v1/stream/applications`: newline-delimited JSON, or server-sent events with keep-alives.
//!
//! It is lossy as the real one is: what does not fit a subscriber's buffer is dropped without a word, and an unknown
//! Application is an eternally silent stream.

use super::Shared;
use super::access::Caller;
use super::knobs::StreamCut;
use super::model::Application;
use super::request::Params;
use super::store::{Change, WatchEvent};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
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
    let lag = |shared: &Shared| shared.knobs.get().informer_lag;
    let (cached, mut events) = shared.store.watch(lag(&shared));
    let initial: Vec<_> = match (&filter.name, since) {
        (None, Some(_)) => Vec::new(),
        _ => cached
            .apps
            .into_iter()
            .filter(|app| app.version() >= Some(since.unwrap_or(0)))
            .collect(),
    };
    // What is known already, and is older than the caller's version, is not told again.
    let newest = since.unwrap_or(0);
    let settings = shared.knobs.get();
    let (mut left, cut) = (settings.cut_stream_after, settings.cut_stream_within);
    let keep_alive = shared.config.keep_alive;
    let mut sent: HashMap<String, Value> = HashMap::new();
    let visible = move |shared: &Shared, app: &Application| {
        filter.takes(app) && caller.may(shared, "get", app.project())
    };
    let lines = async_stream::stream! {
        let added = initial.into_iter().map(|app| WatchEvent::present(&app));
        let mut waiting: VecDeque<WatchEvent> = added.chain(cached.since).collect();
        let mut alive = shared.clock.moment() + keep_alive;
        loop {
            let due = waiting.front().map(|first| first.known_at(lag(&shared)));
            let event = tokio::select! {
                biased;
                () = shared.clock.sleep_until(due.unwrap_or_default()), if due.is_some() => waiting.pop_front(),
                event = events.recv() => match event {
                    Ok(event) => {
                        waiting.push_back(event);
                        None
                    }
                    // The buffer overflowed: what was in it is lost, and nobody says so.
                    Err(RecvError::Lagged(_)) => None,
                    Err(RecvError::Closed) => break,
                },
                () = shared.clock.sleep_until(alive), if sse => {
                    alive = shared.clock.moment() + keep_alive;
                    yield Ok(Bytes::from_static(b":\n"));
                    None
                }
            };
            let Some(event) = event else { continue };
            if !visible(&shared, &event.app) || event.app.version() < Some(newest) {
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
            let end = match left {
                Some(0) => end_of(&line, cut),
                _ => line.len(),
            };
            let mut bytes = Bytes::from(line);
            let whole = end == bytes.len();
            bytes.truncate(end);
            yield Ok(bytes);
            if !whole {
                // The server sends what it has when there is nothing more for the moment.
                tokio::task::yield_now().await;
                yield Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            }
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

/// Where a line that is cut ends.
fn end_of(line: &str, cut: StreamCut) -> usize {
    let wide = || {
        line.char_indices()
            .find(|(_, character)| character.len_utf8() > 1)
    };
    match cut {
        StreamCut::Event => line.len(),
        StreamCut::Line => line.len() / 2,
        StreamCut::Character => wide().map_or(line.len() / 2, |(at, _)| at + 1),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_it_is_told_to() {
        let line = "data: {\"grüße\": 1} \n\n\n";
        assert_eq!(end_of(line, StreamCut::Event), line.len());
        assert_eq!(end_of(line, StreamCut::Line), line.len() / 2);
        let inside = end_of(line, StreamCut::Character);
        assert!(!line.is_char_boundary(inside));
        assert_eq!(end_of("plain", StreamCut::Character), 2);
    }
}
