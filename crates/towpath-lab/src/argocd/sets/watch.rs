//! The watch of the ApplicationSets, `GET /api/v1/stream/applicationsets` (3.4), after `Watch` of
//! `server/applicationset/applicationset.go`.
//!
//! A set that is made, changed or deleted is told, and what the controller has made of it. What becomes of its Applications
//! later is in its status, and is not told.

use super::super::clock::Moment;
use super::super::store::Change;
use super::super::stream::{self, Event, Feed, Request};
use super::{Caller, Params, Set, Shared, Status, permitted, require};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// One event of the watch.
#[derive(Clone, Debug)]
pub(in crate::argocd) struct SetEvent {
    change: Change,
    set: Set,
    /// As the API showed it then.
    document: Arc<Value>,
    at: Moment,
}

impl SetEvent {
    /// A change of now.
    pub(super) fn of(shared: &Shared, change: Change, set: &Set) -> Self {
        Self {
            at: shared.clock.moment(),
            ..Self::present(shared, change, set)
        }
    }

    /// What a cache has is known at once.
    fn present(shared: &Shared, change: Change, set: &Set) -> Self {
        Self {
            change,
            set: set.clone(),
            document: Arc::new(set.json(shared)),
            at: Moment::default(),
        }
    }
}

impl Event for SetEvent {
    fn name(&self) -> &str {
        self.set.name()
    }

    fn version(&self) -> Option<u64> {
        self.set.metadata["resourceVersion"].as_str()?.parse().ok()
    }

    fn known_at(&self, lag: Duration) -> Moment {
        match self.at == Moment::default() {
            true => self.at,
            false => self.at + lag,
        }
    }

    fn envelope(&self) -> Value {
        json!({"result": {"type": self.change.word(), "applicationSet": *self.document}})
    }
}

pub(in crate::argocd) async fn watch(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Response> {
    // The other calls about sets write it with a small s.
    let namespace = params.get("appSetNamespace").unwrap_or_default();
    permitted(&shared, namespace).map_err(Status::into_stream_response)?;
    let request = Request::of(&params, &headers);
    let feed = {
        let sets = shared.sets.lock();
        let present = sets.values().filter(|_| request.begins_with_what_is_there());
        Feed {
            waiting: present
                .map(|set| SetEvent::present(&shared, Change::Added, set))
                .collect(),
            events: shared.sets.events.subscribe(),
        }
    };
    let filter = request.filter.clone();
    let visible = move |_: &Shared, event: &SetEvent| {
        filter.takes(&event.set.stand_in()) && require(&caller, "get", &event.set).is_ok()
    };
    Ok(stream::answer(shared, request, feed, visible))
}
