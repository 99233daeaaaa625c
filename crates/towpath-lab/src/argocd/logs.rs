//! The logs of an Application's Pods, after `PodLogs` in `server/application/application.go`: a stream of newline-delimited
//! JSON that ends with `last`.
//!
//! A container of the lab runs no program. What it would have written is what its node knows of it: the image that it
//! runs, and the digest.

use super::Shared;
use super::access::{Caller, Scope};
use super::cluster::{Object, RunningContainer};
use super::error::Status;
use super::request::Params;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// `server.maxPodLogsToRender`.
const MOST_PODS: usize = 10;
/// How often a follower looks for what has changed.
const LOOK: Duration = Duration::from_millis(20);

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    /// When it was written; nothing where the cluster says why there is no log.
    at: Option<Timestamp>,
    pod: String,
    text: String,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
struct Query {
    namespace: String,
    pod: String,
    group: String,
    kind: String,
    resource: String,
    container: String,
    filter: String,
    match_case: bool,
    previous: bool,
    follow: bool,
    tail: Option<usize>,
    since: Option<i64>,
    until: Option<Timestamp>,
}

impl Query {
    fn of(params: &Params, pod: &str) -> Result<Self, Status> {
        let text = |name: &str| params.get(name).unwrap_or_default().to_owned();
        let number = |name: &str| match text(name).as_str() {
            "" => Ok(None),
            digits => digits.parse::<i64>().map(Some).map_err(|_| {
                Status::invalid(format!(
                    "type mismatch, parameter: {name}, error: strconv.ParseInt: {digits:?}"
                ))
            }),
        };
        let until = match text("untilTime").as_str() {
            "" => None,
            time => Some(time.parse().map_err(|_| {
                Status::invalid(format!(
                    "invalid untilTime parameter value: parsing time {time:?}"
                ))
            })?),
        };
        Ok(Self {
            namespace: text("namespace"),
            pod: if pod.is_empty() {
                text("podName")
            } else {
                pod.to_owned()
            },
            group: text("group"),
            kind: text("kind"),
            resource: text("resourceName"),
            container: text("container"),
            filter: text("filter"),
            match_case: params.is_true("matchCase"),
            previous: params.is_true("previous"),
            follow: params.is_true("follow"),
            tail: number("tailLines")?
                .filter(|lines| *lines > 0)
                .and_then(|lines| lines.try_into().ok()),
            since: number("sinceSeconds")?.filter(|seconds| *seconds > 0),
            until,
        })
    }

    /// The Pods that are meant, by `getSelectedPods`: those below the resource, or all; by their identities.
    fn pods(&self, tree: &[Object]) -> BTreeSet<String> {
        let is = |object: &Object| {
            let key = &object.key;
            match self.pod.as_str() {
                "" => {
                    (self.group.is_empty() || key.group == self.group)
                        && (self.kind.is_empty() || key.kind == self.kind)
                        && (self.resource.is_empty() || key.name == self.resource)
                        && (self.namespace.is_empty() || key.namespace == self.namespace)
                }
                pod => {
                    key.kind == "Pod"
                        && key.name == pod
                        && (self.namespace.is_empty() || key.namespace == self.namespace)
                }
            }
        };
        let is_meant = |pod: &&Object| {
            let mut object = *pod;
            loop {
                if is(object) {
                    return true;
                }
                let owner = object.owner.as_ref();
                match owner.and_then(|owner| tree.iter().find(|other| other.key == *owner)) {
                    Some(owner) => object = owner,
                    None => return false,
                }
            }
        };
        let pods = tree.iter().filter(|object| object.key.kind == "Pod");
        pods.filter(is_meant).map(|pod| pod.uid.clone()).collect()
    }

    fn takes(&self, text: &str) -> bool {
        if self.filter.is_empty() {
            return true;
        }
        let (wanted, inverse) = match self.filter.strip_prefix('!') {
            Some(wanted) => (wanted, true),
            None => (self.filter.as_str(), false),
        };
        let found = match self.match_case {
            true => text.contains(wanted),
            false => text.to_lowercase().contains(&wanted.to_lowercase()),
        };
        found != inverse
    }

    /// The lines of one Pod, as the API server of the cluster gives them.
    fn lines(&self, pod: &Object, now: Timestamp) -> Vec<Line> {
        let instead = |text: String| {
            vec![Line {
                at: None,
                pod: String::new(),
                text,
            }]
        };
        let name = &pod.key.name;
        let containers: Vec<&str> = pod.live["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
            .collect();
        let container = match (self.container.as_str(), containers.as_slice()) {
            ("", [one]) => *one,
            ("", many) => {
                return instead(format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    many.join(" ")
                ));
            }
            (wanted, known) if known.contains(&wanted) => wanted,
            (wanted, _) => return instead(format!("container {wanted} is not valid for pod {name}")),
        };
        if self.previous {
            return instead(format!(
                "previous terminated container \"{container}\" in pod \"{name}\" not found"
            ));
        }
        let Some(running) = pod.running.iter().find(|running| running.container == container) else {
            return instead(format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: {}",
                waiting(pod, container)
            ));
        };
        let oldest = self.since.map(|seconds| now.as_second() - seconds);
        let mut lines = written(running);
        lines.retain(|line| oldest.is_none_or(|oldest| line.at.is_none_or(|at| at.as_second() >= oldest)));
        let surplus = self.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        lines.split_off(surplus)
    }
}

fn waiting(pod: &Object, container: &str) -> String {
    let statuses = pod.live["status"]["containerStatuses"].as_array();
    let status = statuses
        .into_iter()
        .flatten()
        .find(|status| status["name"] == container);
    match status.and_then(|status| status.pointer("/state/waiting/reason")?.as_str()) {
        Some("ErrImagePull" | "ImagePullBackOff") => "trying and failing to pull image".into(),
        Some(reason) => reason.into(),
        None => "ContainerCreating".into(),
    }
}

fn written(running: &RunningContainer) -> Vec<Line> {
    [
        format!("{} starts from {}", running.container, running.image),
        format!("{} runs {}", running.container, running.image_digest),
    ]
    .map(|text| Line {
        at: Some(running.started_at),
        pod: running.pod.clone(),
        text,
    })
    .into()
}

fn chunk(line: &Line, last: bool) -> Bytes {
    let at = line
        .at
        .map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string());
    let entry = json!({"result": {
        "content": line.text, "timeStampStr": at, "timeStamp": at, "podName": line.pod, "last": last,
    }});
    Bytes::from(format!("{entry}\n"))
}

pub(super) async fn of_application(
    State(shared): State<Arc<Shared>>,
    caller: Result<Caller, Status>,
    Path(name): Path<String>,
    params: Params,
) -> Response {
    answer(shared, caller, &name, "", &params).unwrap_or_else(Status::into_stream_response)
}

pub(super) async fn of_pod(
    State(shared): State<Arc<Shared>>,
    caller: Result<Caller, Status>,
    Path((name, pod)): Path<(String, String)>,
    params: Params,
) -> Response {
    answer(shared, caller, &name, &pod, &params).unwrap_or_else(Status::into_stream_response)
}

fn answer(
    shared: Arc<Shared>,
    caller: Result<Caller, Status>,
    name: &str,
    pod: &str,
    params: &Params,
) -> Result<Response, Status> {
    let caller = caller?;
    let query = Query::of(params, pod)?;
    let app = caller.find(&shared, name, &Scope::of(params))?;
    caller.require_logs(&shared, &app)?;
    let pods = query.pods(&shared.cluster.tree(name));
    if pods.len() > MOST_PODS {
        return Err(Status::invalid(
            "max pods to view logs are reached. Please provide more granular query",
        ));
    }
    let name = name.to_owned();
    let stream = async_stream::stream! {
        // No Pods are no words at all.
        if pods.is_empty() {
            return;
        }
        let mut told = BTreeSet::new();
        loop {
            let now = shared.clock.precise();
            // The Pods are those of the beginning: what comes later is not followed.
            let mut left = shared.cluster.tree(&name);
            left.retain(|object| pods.contains(&object.uid));
            let mut lines: Vec<Line> = left.iter().flat_map(|pod| query.lines(pod, now)).collect();
            // Sorting keeps the order of what has the same time and Pod.
            lines.sort_by(|one, other| (one.at, &one.pod).cmp(&(other.at, &other.pod)));
            for line in lines {
                if !told.insert(line.clone()) || !query.takes(&line.text) {
                    continue;
                }
                let after = query.until.is_some_and(|until| line.at.is_some_and(|at| at > until));
                yield Ok::<_, std::convert::Infallible>(chunk(&line, after));
                if after {
                    return;
                }
            }
            if !query.follow || left.is_empty() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let end = Line {
            at: Some(shared.clock.precise()),
            pod: String::new(),
            text: String::new(),
        };
        yield Ok(chunk(&end, true));
    };
    let kind: (_, &str) = (header::CONTENT_TYPE, "application/json");
    Ok(([kind], Body::from_stream(stream)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_look_into_lines() {
        let query = |filter: &str, match_case| Query {
            filter: filter.into(),
            match_case,
            ..Query::default()
        };
        for (filter, match_case, taken) in [
            ("", false, true),
            ("WEB", false, true),
            ("WEB", true, false),
            ("!web", false, false),
            ("!other", false, true),
        ] {
            assert_eq!(query(filter, match_case).takes("web starts"), taken, "{filter}");
        }
    }
}
