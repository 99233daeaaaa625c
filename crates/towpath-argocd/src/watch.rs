//! The streams of changes, as server-sent events: `GET /api/v1/stream/applications` and `…/applicationsets`.
//!
//! They are lossy: the server drops events when a listener is slow, suppresses repeats, and says nothing at all of
//! what does not exist or may not be seen. Whoever needs to be sure looks as well.

use crate::error::{self, StreamFailure};
use crate::wire::{App, ApplicationSet};
use crate::{ArgoCd, Feature};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::time::Duration;
use towpath_core::Application;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{Call, HeaderName, HeaderValue, SseEvent};

/// What to listen to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchFilter {
    /// Only the application, or ApplicationSet, of this name.
    pub name: Option<String>,
    /// Only applications of these projects, or ApplicationSets whose applications are of them.
    pub projects: Vec<String>,
    /// Only those that this Kubernetes label selector takes.
    pub selector: Option<String>,
    /// Only those of this namespace. Of ApplicationSets it says where the one of that name is, and nothing without a name.
    pub namespace: Option<String>,
    /// Only changes after this version. Without it the present state of each comes first.
    pub resource_version: Option<String>,
    /// Only these fields of each event, such as `result.application.metadata.name`, or
    /// `result.applicationSet.metadata.name`; all where none is given. Name `result.type` and `error` too, or they are left
    /// out.
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

/// A change of an application, or of what else is watched.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WatchEvent<T = App> {
    /// It is there, or changed.
    Changed(Box<T>),
    /// It is gone; as it was last.
    Deleted(Box<T>),
}

/// What the server has a stream of.
trait Watched: DeserializeOwned + Default + Send + 'static {
    const PATH: &'static str;
    /// Several of them, in errors.
    const SEVERAL: &'static str;
    /// The parameter that says the namespace.
    const NAMESPACE: &'static str;
    /// What the server must be able to do.
    const NEEDS: Option<Feature>;

    fn resource_version(&self) -> Option<&String>;
}

impl Watched for App {
    const PATH: &'static str = "api/v1/stream/applications";
    const SEVERAL: &'static str = "applications";
    const NAMESPACE: &'static str = "appNamespace";
    const NEEDS: Option<Feature> = None;

    fn resource_version(&self) -> Option<&String> {
        self.metadata.resource_version.as_ref()
    }
}

impl Watched for ApplicationSet {
    const PATH: &'static str = "api/v1/stream/applicationsets";
    const SEVERAL: &'static str = "ApplicationSets";
    // The other calls about ApplicationSets write it with a small s.
    const NAMESPACE: &'static str = "appSetNamespace";
    const NEEDS: Option<Feature> = Some(Feature::ApplicationSetStream);

    fn resource_version(&self) -> Option<&String> {
        self.metadata.resource_version.as_ref()
    }
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned + Default")]
struct Envelope<T> {
    #[serde(default)]
    result: Option<Change<T>>,
    #[serde(default)]
    error: Option<StreamFailure>,
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned + Default")]
struct Change<T> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, rename = "application", alias = "applicationSet")]
    of: Box<T>,
}

impl ArgoCd {
    /// The changes of applications, for ever: a connection that ends is opened again after a growing pause. Of one
    /// application it goes on from the version seen last; of several the present state of each is told again, because the
    /// server would not tell what has changed in between. The stream ends after an error that another connection would not
    /// mend, such as a refused token.
    pub fn watch(&self, filter: WatchFilter) -> BoxStream<'static, Result<WatchEvent>> {
        changes(self, filter)
    }

    /// The changes of ApplicationSets, for ever, as [`watch`](Self::watch) gives those of applications; from a server of
    /// 3.4 on. What becomes of its applications changes an ApplicationSet too: it is in its status.
    ///
    /// # Errors
    /// *Unsupported*, as the only item, where the server is older; *denied* where the namespace is none that the server
    /// looks after.
    pub fn watch_application_sets(
        &self,
        filter: WatchFilter,
    ) -> BoxStream<'static, Result<WatchEvent<ApplicationSet>>> {
        changes(self, filter)
    }
}

fn changes<T: Watched>(client: &ArgoCd, filter: WatchFilter) -> BoxStream<'static, Result<WatchEvent<T>>> {
    let state = Watch {
        client: client.clone(),
        filter,
        events: None,
        failures: 0,
        ended: false,
        of: PhantomData,
    };
    stream::unfold(
        state,
        |mut state| async move { Some((state.next().await?, state)) },
    )
    .boxed()
}

struct Watch<T> {
    client: ArgoCd,
    filter: WatchFilter,
    events: Option<BoxStream<'static, Result<SseEvent>>>,
    failures: u32,
    ended: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: Watched> Watch<T> {
    async fn next(&mut self) -> Option<Result<WatchEvent<T>>> {
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
                Ok(None) => tracing::debug!(of = T::SEVERAL, "the stream ended"),
                Err(error) if error::may_pass(&error) => {
                    tracing::debug!(of = T::SEVERAL, %error, "the stream broke")
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
            self.events = None;
            if self.filter.name.is_none() {
                // From a version on, a server tells the present state only of what is asked for by its name.
                self.filter.resource_version = None;
            }
            self.failures = self.failures.saturating_add(1);
            let pause = Duration::from_millis(250).saturating_mul(1 << self.failures.min(6));
            tokio::time::sleep(pause.min(Duration::from_secs(10))).await;
        }
    }

    /// The next event of this connection, opened if need be; `None` where it ended.
    async fn step(&mut self) -> Result<Option<WatchEvent<T>>> {
        let events = match &mut self.events {
            Some(events) => events,
            None => self.events.insert(open::<T>(&self.client, &self.filter).await?),
        };
        let Some(event) = events.next().await.transpose()? else {
            return Ok(None);
        };
        let failed = |kind| Error::new(kind, crate::config::SERVICE, "watch", T::SEVERAL);
        let envelope: Envelope<T> = serde_json::from_str(&event.data).map_err(|cause| {
            failed(ErrorKind::Unavailable).because(format!(
                "an event is not as expected, line {} column {}",
                cause.line(),
                cause.column()
            ))
        })?;
        if let Some(failure) = envelope.error {
            return Err(failure.meaning(false, failed));
        }
        let Some(change) = envelope.result else {
            return Ok(None);
        };
        if self.filter.name.is_some() {
            self.filter.resource_version = change.of.resource_version().cloned();
        }
        Ok(Some(match change.kind.as_str() {
            "DELETED" => WatchEvent::Deleted(change.of),
            _ => WatchEvent::Changed(change.of),
        }))
    }
}

async fn open<T: Watched>(
    client: &ArgoCd,
    filter: &WatchFilter,
) -> Result<BoxStream<'static, Result<SseEvent>>> {
    let subject = filter.name.as_deref().unwrap_or(T::SEVERAL);
    if let Some(feature) = T::NEEDS {
        client.require(feature, "watch", &subject).await?;
    }
    let mut call = Call::get(T::PATH)
        .attempting("watch", subject)
        // Without this there are no signs of life, and proxies cut the silence.
        .header(
            HeaderName::from_static("accept"),
            HeaderValue::from_static("text/event-stream"),
        )
        .query_opt("name", filter.name.as_deref())
        .query_opt("selector", filter.selector.as_deref())
        .query_opt(T::NAMESPACE, filter.namespace.as_deref())
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
