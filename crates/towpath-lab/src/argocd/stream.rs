//! The watch, `GET /api/v1/stream/applications`: newline-delimited JSON, or server-sent events with keep-alives. That of
//! the ApplicationSets goes the same way.
//!
//! It is lossy as the real one is: what does not fit a subscriber's buffer is dropped without a word, and an unknown
//! Application is an eternally silent stream.

use super::Shared;
use super::access::Caller;
use super::clock::Moment;
use super::knobs::StreamCut;
use super::model::Application;
use super::request::Params;
use super::store::WatchEvent;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
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

/// What a stream tells.
pub(super) trait Event: Clone + Send + Sync + 'static {
    /// The name of what has changed: of two events of one name that look the same, the second is not told.
    fn name(&self) -> &str;
    fn version(&self) -> Option<u64>;
    /// When a cache that lags knows of it.
    fn known_at(&self, lag: Duration) -> Moment;
    /// The whole of it, as the stream writes it.
    fn envelope(&self) -> Value;
}

impl Event for WatchEvent {
    fn name(&self) -> &str {
        &self.app.metadata.name
    }

    fn version(&self) -> Option<u64> {
        self.app.version()
    }

    fn known_at(&self, lag: Duration) -> Moment {
        self.known_at(lag)
    }

    fn envelope(&self) -> Value {
        json!({"result": {"type": self.change.word(), "application": &*self.app}})
    }
}

/// What there is to tell: at first, and as it comes.
#[derive(Debug)]
pub(super) struct Feed<E> {
    pub(super) waiting: VecDeque<E>,
    pub(super) events: Receiver<E>,
}

/// How a stream is asked for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) filter: Filter,
    sse: bool,
    fields: Option<String>,
    since: Option<u64>,
}

impl Request {
    pub(super) fn of(params: &Params, headers: &HeaderMap) -> Self {
        let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        Self {
            filter: Filter::of(params),
            sse: accepted == Some("text/event-stream"),
            fields: params
                .get("fields")
                .filter(|fields| !fields.is_empty())
                .map(ToOwned::to_owned),
            since: params
                .get("resourceVersion")
                .and_then(|version| version.parse().ok()),
        }
    }

    /// Whether what is there already is told at first.
    pub(super) fn begins_with_what_is_there(&self) -> bool {
        self.filter.name.is_some() || self.since.is_none()
    }
}

pub(super) async fn applications(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: Params,
    headers: HeaderMap,
) -> Response {
    let request = Request::of(&params, &headers);
    let (cached, events) = shared.store.watch(shared.knobs.get().informer_lag);
    let present = match request.begins_with_what_is_there() {
        true => cached.apps,
        false => Vec::new(),
    };
    let added = present.iter().map(WatchEvent::present);
    let feed = Feed {
        waiting: added.chain(cached.since).collect(),
        events,
    };
    let filter = request.filter.clone();
    let visible = move |shared: &Shared, event: &WatchEvent| {
        filter.takes(&event.app) && caller.may(shared, "get", event.app.project())
    };
    answer(shared, request, feed, visible)
}

/// The stream of a feed, as far as it is visible.
pub(super) fn answer<E: Event>(
    shared: Arc<Shared>,
    request: Request,
    feed: Feed<E>,
    visible: impl Fn(&Shared, &E) -> bool + Send + 'static,
) -> Response {
    let Request {
        sse, fields, since, ..
    } = request;
    let Feed {
        mut waiting,
        mut events,
    } = feed;
    let lag = |shared: &Shared| shared.knobs.get().informer_lag;
    // What is older than the caller's version is not told again.
    let newest = since.unwrap_or(0);
    let settings = shared.knobs.get();
    let (mut left, cut) = (settings.cut_stream_after, settings.cut_stream_within);
    let keep_alive = shared.config.keep_alive;
    let mut sent: HashMap<String, Value> = HashMap::new();
    let lines = async_stream::stream! {
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
            if !visible(&shared, &event) || event.version() < Some(newest) {
                continue;
            }
            if left == Some(0) {
                break;
            }
            if shared.knobs.spend(|knobs| &mut knobs.drop_watch_events) {
                continue;
            }
            let payload = selected(event.envelope(), fields.as_deref());
            if sent.get(event.name()) == Some(&payload) {
                continue;
            }
            let line = match sse {
                true => format!("data: {payload} \n\n\n"),
                false => format!("{payload}\n"),
            };
            sent.insert(event.name().to_owned(), payload);
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

fn selected(whole: Value, fields: Option<&str>) -> Value {
    match fields {
        Some(fields) => super::views::select(&whole, fields),
        None => whole,
    }
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
