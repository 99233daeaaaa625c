//! The stream of changes: `GET /api/v1/stream/applications`, as server-sent events.
//!
//! It is lossy: the server drops events when a listener is slow, suppresses repeats, and says nothing at all of
//! applications that do not exist or may not be seen. Whoever needs to be sure looks as well.

use crate::wire::App;
use crate::{ApiError, ArgoCd, error};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde::Deserialize;
use std::time::Duration;
use towpath_core::Application;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{Call, HeaderName, HeaderValue, SseEvent};

/// What to listen to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchFilter {
    /// Only the application of this name.
    pub name: Option<String>,
    /// Only applications of these projects.
    pub projects: Vec<String>,
    /// Only those that this Kubernetes label selector takes.
    pub selector: Option<String>,
    /// Only those of this namespace.
    pub namespace: Option<String>,
    /// Only changes after this version. Without it the present state of each application comes first.
    pub resource_version: Option<String>,
    /// Only these fields of each event, such as `result.application.metadata.name`; all where none is given. Name
    /// `result.type` and `error` too, or they are left out.
    pub fields: Vec<String>,
}

impl WatchFilter {
    /// Everything about one application.
    pub fn of(app: &Application) -> Self {
        Self {
            name: Some(app.name().to_string()),
            projects: app.project().map(str::to_owned).into_iter().collect(),
            namespace: app.namespace().map(str::to_owned),
            ..Self::default()
        }
    }
}

/// A change.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// The application is there, or changed.
    Changed(Box<App>),
    /// The application is gone; as it was last.
    Deleted(Box<App>),
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    result: Option<Change>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Change {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    application: Box<App>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    grpc_code: Option<i64>,
    #[serde(default)]
    http_code: Option<u16>,
    #[serde(default)]
    message: String,
}

impl ArgoCd {
    /// The changes of applications, for ever: a connection that ends is opened again after a growing pause. Of one
    /// application it goes on from the version seen last; of several the present state of each is told again, because the
    /// server would not tell what has changed in between. The stream ends after an error that another connection would not mend, such as a refused token.
    pub fn watch(&self, filter: WatchFilter) -> BoxStream<'static, Result<WatchEvent>> {
        let state = Watch {
            client: self.clone(),
            filter,
            events: None,
            failures: 0,
            ended: false,
        };
        stream::unfold(
            state,
            |mut state| async move { Some((state.next().await?, state)) },
        )
        .boxed()
    }
}

struct Watch {
    client: ArgoCd,
    filter: WatchFilter,
    events: Option<BoxStream<'static, Result<SseEvent>>>,
    failures: u32,
    ended: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchEvent>> {
        if self.ended {
            return None;
        }
        loop {
            match self.step().await {
                Ok(Some(event)) => {
                    self.failures = 0;
                    return Some(Ok(event));
                }
                // The end of a connection says nothing: the server restarts, a proxy cuts.
                Ok(None) => tracing::debug!("the stream of applications ended"),
                Err(error) if error::may_pass(&error) => {
                    tracing::debug!(%error, "the stream of applications broke")
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
            self.events = None;
            if self.filter.name.is_none() {
                // From a version on, a server tells the present state only of an application that is asked for by its name.
                self.filter.resource_version = None;
            }
            self.failures = self.failures.saturating_add(1);
            let pause = Duration::from_millis(250).saturating_mul(1 << self.failures.min(6));
            tokio::time::sleep(pause.min(Duration::from_secs(10))).await;
        }
    }

    /// The next event of this connection, opened if need be; `None` where it ended.
    async fn step(&mut self) -> Result<Option<WatchEvent>> {
        let events = match &mut self.events {
            Some(events) => events,
            None => self.events.insert(open(&self.client, &self.filter).await?),
        };
        let Some(event) = events.next().await.transpose()? else {
            return Ok(None);
        };
        let failed = |kind| Error::new(kind, crate::config::SERVICE, "watch", "applications");
        let envelope: Envelope = serde_json::from_str(&event.data).map_err(|cause| {
            failed(ErrorKind::Unavailable).because(format!(
                "an event is not as expected, line {} column {}",
                cause.line(),
                cause.column()
            ))
        })?;
        if let Some(Failure {
            grpc_code,
            http_code,
            message,
        }) = envelope.error
        {
            let http = http_code.unwrap_or(500);
            return Err(error::meaning(
                ApiError {
                    http,
                    code: grpc_code,
                    message,
                },
                false,
                failed,
            ));
        }
        let Some(change) = envelope.result else {
            return Ok(None);
        };
        if self.filter.name.is_some() {
            self.filter
                .resource_version
                .clone_from(&change.application.metadata.resource_version);
        }
        Ok(Some(match change.kind.as_str() {
            "DELETED" => WatchEvent::Deleted(change.application),
            _ => WatchEvent::Changed(change.application),
        }))
    }
}

async fn open(client: &ArgoCd, filter: &WatchFilter) -> Result<BoxStream<'static, Result<SseEvent>>> {
    let mut call = Call::get("api/v1/stream/applications")
        .attempting("watch", filter.name.as_deref().unwrap_or("applications"))
        // Without this there are no signs of life, and proxies cut the silence.
        .header(
            HeaderName::from_static("accept"),
            HeaderValue::from_static("text/event-stream"),
        )
        .query_opt("name", filter.name.as_deref())
        .query_opt("selector", filter.selector.as_deref())
        .query_opt("appNamespace", filter.namespace.as_deref())
        .query_opt("resourceVersion", filter.resource_version.as_deref());
    for project in &filter.projects {
        call = call.query("projects", project);
    }
    if !filter.fields.is_empty() {
        call = call.query("fields", filter.fields.join(","));
    }
    let answer = client.transport().stream(call).await?;
    if answer.status().is_success() && answer.is("text/event-stream") {
        return Ok(answer.events());
    }
    let answer = answer.into_answer().await?;
    error::accept(answer.clone(), false)?;
    Err(answer
        .error(ErrorKind::Protocol)
        .because("the answer is not a stream of events")
        .advise("a proxy in front of the server may not pass streams on"))
}
