//! Applications: `/api/v1/applications`.

use crate::config::SERVICE;
use crate::wire::{App, AppList, Spec};
use crate::{ApiError, ArgoCd, Feature, error};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use towpath_core::wait::{self, Judgement, Outcome, Policy};
use towpath_core::{Application, Cancellation, Retry};
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::Call;

/// How thoroughly to look at the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refresh {
    /// Resolve the target revision anew.
    Normal,
    /// Also make the manifests anew, without their cache.
    Hard,
}

/// What to list. Lists have no pages: narrow them down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only the application of this name.
    pub name: Option<String>,
    /// Only applications of these projects.
    pub projects: Vec<String>,
    /// Only those that this Kubernetes label selector takes.
    pub selector: Option<String>,
    /// Only those of this repository.
    pub repository: Option<String>,
    /// Only those of this namespace.
    pub namespace: Option<String>,
    /// Only these fields, such as `items.metadata.name`. The server has a fixed list of what can be chosen; names
    /// outside it vanish.
    pub fields: Vec<String>,
}

/// How to make an application. By default one that exists with another spec is left alone, and the server checks what
/// it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// Replace the spec of one that exists; labels and annotations are merged.
    pub upsert: bool,
    /// Do not let the server check the source, the destination and the project, which needs its repository server.
    pub skip_validation: bool,
}

/// What to delete with an application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deletion {
    /// Its resources in the cluster too, before it.
    #[default]
    Foreground,
    /// Its resources in the cluster too, after it.
    Background,
    /// Nothing: its resources stay.
    Orphan,
}

#[derive(Deserialize)]
struct Items<T> {
    #[serde(default = "Option::default")]
    items: Option<Vec<T>>,
}

impl ArgoCd {
    /// An application, read from the cluster itself.
    ///
    /// # Errors
    /// *Not found* where it does not exist or may not be seen. Give its project, or the server does not tell the two
    /// apart.
    pub async fn application(&self, app: &Application) -> Result<App> {
        self.read_of(addressed(Call::get(PATH).attempting("read", app), app, ""))
            .await
    }

    /// Asks the server to compare an application with its repository now, waits until it says it has, and gives the
    /// application as the server then sees it.
    ///
    /// That is no proof that the newest commit was looked at: up to 3.5 the server drops a refresh that meets another one.
    /// Check the revision. The server sets no limit to how long it takes; after `within` this gives up with *timed out*,
    /// and the refresh goes on.
    pub async fn refreshed(&self, app: &Application, refresh: Refresh, within: Duration) -> Result<App> {
        let how = match refresh {
            Refresh::Normal => "normal",
            Refresh::Hard => "hard",
        };
        // Each attempt costs the server a look at the repository: the caller decides about another one.
        let call = Call::get(PATH)
            .attempting("refresh", app)
            .query("refresh", how)
            .timeout(within)
            .attempts(1);
        self.read_of(addressed(call, app, "")).await
    }

    /// The applications that the caller may see. From the server's cache, which may lag behind.
    pub async fn applications(&self, filter: &ListFilter) -> Result<AppList> {
        let mut call = Call::get(PATH)
            .attempting("list", "applications")
            .query_opt("name", filter.name.as_deref())
            .query_opt("selector", filter.selector.as_deref())
            .query_opt("repo", filter.repository.as_deref())
            .query_opt("appNamespace", filter.namespace.as_deref());
        for project in &filter.projects {
            call = call.query("projects", project);
        }
        if !filter.fields.is_empty() {
            call = call.query("fields", filter.fields.join(","));
        }
        self.read(call).await
    }

    /// Whether the caller can see an application of this name, and of this project and namespace where they are given.
    /// `false` means missing or hidden, without the puzzle that [`application`](Self::application) sets there. From the
    /// server's cache, which may lag behind.
    pub async fn application_exists(&self, app: &Application) -> Result<bool> {
        let filter = ListFilter {
            name: Some(app.name().to_string()),
            projects: app.project().map(str::to_owned).into_iter().collect(),
            namespace: app.namespace().map(str::to_owned),
            fields: vec!["items.metadata.name".into()],
            ..ListFilter::default()
        };
        Ok(!self.applications(&filter).await?.items.is_empty())
    }

    /// Makes an application. Making it again as it is does nothing.
    ///
    /// What it is made of is what stands in its manifest:
    ///
    /// ```no_run
    /// # async fn example(argo: towpath_argocd::ArgoCd) -> Result<(), Box<dyn std::error::Error>> {
    /// use serde_json::json;
    /// let app = serde_json::from_value(json!({
    ///     "metadata": {"name": "web", "labels": {"team": "shop"}},
    ///     "spec": {
    ///         "project": "shop",
    ///         "source": {
    ///             "repoURL": "https://ghe.example/acme/deploy.git", "path": "prod", "targetRevision": "main",
    ///         },
    ///         "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
    ///         "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
    ///     },
    /// }))?;
    /// argo.create(&app).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// *Conflict* where it exists with another spec, or other labels, annotations or finalizers.
    pub async fn create(&self, app: &App) -> Result<App> {
        self.create_with(app, CreateOptions::default()).await
    }

    /// Makes an application, or replaces its spec; labels and annotations are merged.
    pub async fn upsert(&self, app: &App) -> Result<App> {
        let options = CreateOptions {
            upsert: true,
            ..CreateOptions::default()
        };
        self.create_with(app, options).await
    }

    /// Makes an application in the way that the options say. Its status and its operation are not sent.
    ///
    /// # Errors
    /// *Conflict* where it exists with another spec and may not be replaced; *invalid* where the server finds fault with
    /// the spec; *unsupported* where the spec has `automated.enabled` and the server is older than 3.1.
    pub async fn create_with(&self, app: &App, options: CreateOptions) -> Result<App> {
        let attempted = if options.upsert { "upsert" } else { "create" };
        self.check_switch(&app.spec, attempted, &app.metadata.name)
            .await?;
        let call = Call::post(PATH)
            .attempting(attempted, &app.metadata.name)
            .query("upsert", options.upsert.to_string())
            .query("validate", (!options.skip_validation).to_string())
            .json(&what_shall_be(app))?
            // The same application again is no change.
            .idempotent();
        self.read(call).await
    }

    /// Replaces the spec, the labels, the annotations and the finalizers of an application that exists. `validate` has
    /// the server check the new spec.
    ///
    /// # Errors
    /// *Not found* where it does not exist or may not be seen; *invalid* where `app` names another application.
    pub async fn replace(&self, at: &Application, app: &App, validate: bool) -> Result<App> {
        if app.metadata.name != at.name().as_str() {
            return Err(Error::new(ErrorKind::Invalid, SERVICE, "replace", at)
                .because(format!("the application given is named {:?}", app.metadata.name)));
        }
        self.check_switch(&app.spec, "replace", at).await?;
        let call = Call::put(PATH)
            .attempting("replace", at)
            .query("validate", validate.to_string());
        let mut body = what_shall_be(app);
        if let Some(namespace) = at.namespace() {
            // This call alone takes the namespace from the body.
            body["metadata"]["namespace"] = namespace.into();
        }
        self.read_of(addressed(call.json(&body)?, at, "")).await
    }

    /// Replaces the spec of an application, and gives the new one. `validate` has the server check it.
    pub async fn replace_spec(&self, app: &Application, spec: &Spec, validate: bool) -> Result<Spec> {
        self.check_switch(spec, "replace the spec of", app).await?;
        let call = Call::put(PATH)
            .attempting("replace the spec of", app)
            .query("validate", validate.to_string())
            .json(spec)?;
        self.read_of(addressed(call, app, "spec")).await
    }

    /// A server that does not know the switch would take no notice of it, and sync on its own.
    async fn check_switch(
        &self,
        spec: &Spec,
        attempted: &'static str,
        subject: &(impl std::fmt::Display + Sync),
    ) -> Result<()> {
        let automated = spec
            .sync_policy
            .as_ref()
            .and_then(|policy| policy.automated.as_ref());
        match automated.and_then(|automated| automated.enabled) {
            Some(_) => self.require(Feature::AutomatedEnabled, attempted, subject).await,
            None => Ok(()),
        }
    }

    /// Changes an application by a JSON merge patch (RFC 7386). Spec, labels, annotations and finalizers take effect.
    pub async fn patch(&self, app: &Application, merge_patch: &Value) -> Result<App> {
        // A merge patch applied twice is the patch applied once.
        self.read_of(patching(app, merge_patch, "merge")?.idempotent())
            .await
    }

    /// Changes an application by a JSON patch (RFC 6902), a list of steps. It is not sent twice, because a step may add to
    /// a list.
    ///
    /// # Errors
    /// *Invalid* where `steps` is not a list; *unavailable* with the server's words where a step does not apply, because
    /// the server does not tell that apart from failures of its own.
    pub async fn json_patch(&self, app: &Application, steps: &Value) -> Result<App> {
        if !steps.is_array() {
            return Err(Error::new(ErrorKind::Invalid, SERVICE, "patch", app)
                .because("a JSON patch is a list of steps"));
        }
        self.read_of(patching(app, steps, "json")?).await
    }

    /// Begins to delete an application. It is gone once [`wait_until_deleted`](Self::wait_until_deleted) says so.
    pub async fn delete(&self, app: &Application, deletion: Deletion) -> Result<()> {
        let call = addressed(Call::delete(PATH).attempting("delete", app), app, "");
        let call = match deletion {
            Deletion::Foreground => call
                .query("cascade", "true")
                .query("propagationPolicy", "foreground"),
            Deletion::Background => call
                .query("cascade", "true")
                .query("propagationPolicy", "background"),
            Deletion::Orphan => call.query("cascade", "false"),
        };
        self.drop_of(call).await
    }

    /// Looks until an application is gone: until the server says that its project has none of this name, or has another
    /// one under it.
    ///
    /// # Errors
    /// *Timed out* after `within`, with what is still in the way; *cancelled*; *invalid* without a project, because the
    /// server does not tell missing from forbidden then; *denied* where the caller may not see the project.
    pub async fn wait_until_deleted(
        &self,
        app: &Application,
        within: Duration,
        cancellation: &Cancellation,
    ) -> Result<()> {
        let failed = |kind| Error::new(kind, SERVICE, "wait for the end of", app);
        if app.project().is_none() {
            return Err(failed(ErrorKind::Invalid)
                .because("without a project the server does not say that it is gone")
                .advise("name it as project/name"));
        }
        let look = || async {
            match self.application(app).await {
                Ok(seen) => Ok(Some(seen)),
                Err(error) if ApiError::of(&error).is_some_and(ApiError::is_not_found) => Ok(None),
                // With a project the server does not hide what is missing: the caller may not look there.
                Err(error) if ApiError::of(&error).is_some_and(ApiError::is_bare_denial) => {
                    Err(failed(ErrorKind::Denied)
                        .because("the caller may not see the project's applications"))
                }
                Err(error) => Err(error),
            }
        };
        let first_uid = std::sync::OnceLock::new();
        let gone = |seen: &Option<App>| match seen {
            None => Judgement::Met,
            Some(seen) if *first_uid.get_or_init(|| seen.metadata.uid.clone()) != seen.metadata.uid => {
                Judgement::Met
            }
            Some(seen) => Judgement::pending(in_the_way(seen)),
        };
        let policy = Policy::growing(Duration::from_millis(250), Duration::from_secs(5)).within(within);
        let retry = |error: &Error| match error::may_pass(error) {
            true => Retry::Later,
            false => Retry::Never,
        };
        match wait::until(&policy, cancellation, look, retry, gone).await {
            Outcome::Met(_) => Ok(()),
            outcome => Err(unmet(outcome, failed)),
        }
    }

    pub(crate) async fn items<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<Vec<T>> {
        Ok(self.read_of::<Items<T>>(call).await?.items.unwrap_or_default())
    }
}

pub(crate) const PATH: &str = "api/v1/applications";

/// Adds an application's name, what of it is meant, and where it is.
pub(crate) fn addressed(call: Call, app: &Application, what: &str) -> Call {
    let call = call
        .segment(app.name().as_str())
        .query_opt("project", app.project())
        .query_opt("appNamespace", app.namespace());
    what.split('/')
        .filter(|part| !part.is_empty())
        .fold(call, Call::segment)
}

/// The same for a body.
pub(crate) fn locate(body: &mut Value, app: &Application) {
    for (name, value) in [("project", app.project()), ("appNamespace", app.namespace())] {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
}

/// The error of a wait that ended otherwise than it should.
pub(crate) fn unmet<T>(outcome: Outcome<T, Error>, failed: impl Fn(ErrorKind) -> Error) -> Error {
    match outcome {
        Outcome::Blind { error, .. } => error,
        Outcome::Cancelled { .. } => failed(ErrorKind::Cancelled),
        Outcome::Failed { reason, .. } => failed(ErrorKind::Conflict).because(reason),
        Outcome::TimedOut {
            waiting_for, error, ..
        } => {
            let timed_out = failed(ErrorKind::TimedOut)
                .because(format!("still waiting for {waiting_for}"))
                .retrying(Retry::Spent);
            match error {
                Some(error) => timed_out.caused_by(error),
                None => timed_out,
            }
        }
        _ => failed(ErrorKind::Protocol).because("the wait ended in a way that is not known"),
    }
}

/// What a caller may say of an application.
fn what_shall_be(app: &App) -> Value {
    json!({"metadata": app.metadata, "spec": app.spec})
}

fn patching(app: &Application, patch: &Value, kind: &str) -> Result<Call> {
    let mut body = json!({
        "name": app.name(),
        // The API takes the patch as a text.
        "patch": patch.to_string(),
        "patchType": kind,
    });
    locate(&mut body, app);
    Call::patch(PATH)
        .attempting("patch", app)
        .segment(app.name().as_str())
        .json(&body)
}

/// Why an application is still there.
fn in_the_way(app: &App) -> String {
    let metadata = &app.metadata;
    match (&metadata.deletion_timestamp, metadata.finalizers.as_slice()) {
        (None, _) => "somebody to delete it: it is not being deleted".into(),
        (Some(_), []) => "its end: it is being deleted".into(),
        (Some(_), finalizers) => format!("its finalizers: {}", finalizers.join(", ")),
    }
}
