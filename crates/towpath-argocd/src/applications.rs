//! Applications: `/api/v1/applications`.

use crate::sync::{SyncBody, SyncRequest};
use crate::wire::{
    App, AppList, Event, ManagedResource, Manifests, ResourceNode, ResourceTree, RevisionMetadata,
    SyncWindows,
};
use crate::{ApiError, ArgoCd, error};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use towpath_core::Application;
use towpath_elements::Result;
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

    /// Makes an application. Making it again as it is does nothing.
    ///
    /// # Errors
    /// *Conflict* where it exists with another spec.
    pub async fn create(&self, app: &App) -> Result<App> {
        self.put_new(app, false).await
    }

    /// Makes an application, or replaces its spec; labels and annotations are merged.
    pub async fn upsert(&self, app: &App) -> Result<App> {
        self.put_new(app, true).await
    }

    async fn put_new(&self, app: &App, upsert: bool) -> Result<App> {
        let body = json!({"metadata": app.metadata, "spec": app.spec});
        let call = Call::post(PATH)
            .attempting(if upsert { "upsert" } else { "create" }, &app.metadata.name)
            .query("upsert", upsert.to_string())
            .json(&body)?
            // The same application again is no change.
            .idempotent();
        self.read(call).await
    }

    /// Changes an application by a JSON merge patch (RFC 7386). Spec, labels, annotations and finalizers take effect.
    pub async fn patch(&self, app: &Application, merge_patch: &Value) -> Result<App> {
        let mut body = json!({
            "name": app.name(),
            // The API takes the patch as a text.
            "patch": merge_patch.to_string(),
            "patchType": "merge",
        });
        locate(&mut body, app);
        let call = Call::patch(PATH)
            .attempting("patch", app)
            .segment(app.name().as_str())
            .json(&body)?;
        // A merge patch applied twice is the patch applied once.
        self.read_of(call.idempotent()).await
    }

    /// Begins to delete an application. It is gone once reading it says *not found*.
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
        // The server wants the type even where there is no body.
        error::accept(self.transport().send(call.body(JSON, "")).await?, true).map(|_| ())
    }

    /// Starts a sync, and gives the application with the operation on it. The operation has no identity of its own: mark
    /// it with [`SyncRequest::info`] to know it again.
    ///
    /// # Errors
    /// *Conflict* while an operation is going on, and where the application syncs on its own and another revision was
    /// asked for; *denied* without the permission, and inside a sync window. [`ApiError`] tells them apart.
    pub async fn sync_application(&self, app: &Application, request: &SyncRequest) -> Result<App> {
        let call = Call::post(PATH)
            .attempting("sync", app)
            .segment(app.name().as_str())
            .segment("sync")
            .json(&SyncBody::new(app, request))?;
        self.read_of(call).await
    }

    /// Stops the operation that is going on; it ends as failed. `false` where there was none.
    pub async fn terminate(&self, app: &Application) -> Result<bool> {
        let call = addressed(
            Call::delete(PATH).attempting("terminate the operation of", app),
            app,
            "operation",
        );
        match error::accept(self.transport().send(call.body(JSON, "")).await?, true) {
            Ok(_) => Ok(true),
            Err(error) if ApiError::of(&error).is_some_and(ApiError::is_nothing_to_terminate) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Rolls back to an entry of the history. No hooks are run, and it is refused where the application syncs on its own.
    pub async fn rollback(&self, app: &Application, id: i64, prune: bool) -> Result<App> {
        let mut body = json!({"name": app.name(), "id": id, "prune": prune});
        locate(&mut body, app);
        let call = Call::post(PATH)
            .attempting("roll back", app)
            .segment(app.name().as_str())
            .segment("rollback")
            .json(&body)?;
        self.read_of(call).await
    }

    /// Everything that belongs to an application, down to its pods. From the server's cache.
    pub async fn resource_tree(&self, app: &Application) -> Result<ResourceTree> {
        self.read_of(addressed(
            Call::get(PATH).attempting("read the resources of", app),
            app,
            "resource-tree",
        ))
        .await
    }

    /// A resource of an application as it is in the cluster; secrets are masked.
    pub async fn live_resource(&self, app: &Application, node: &ResourceNode) -> Result<Value> {
        #[derive(Deserialize)]
        struct Live {
            #[serde(default)]
            manifest: Option<String>,
        }
        let what = format!("{} {}/{} of {app}", node.kind, node.namespace, node.name);
        let call = addressed(Call::get(PATH).attempting("read", &what), app, "resource")
            .query("namespace", &node.namespace)
            .query("resourceName", &node.name)
            .query("version", &node.version)
            .query("group", &node.group)
            .query("kind", &node.kind);
        let answer = error::accept(self.transport().send(call).await?, true)?;
        let manifest = answer.json::<Live>()?.manifest.unwrap_or_default();
        serde_json::from_str(&manifest).map_err(|cause| {
            // Only where it broke: the cause may quote what it read.
            answer
                .error(towpath_elements::ErrorKind::Protocol)
                .because(format!(
                    "the manifest is not JSON, line {} column {}",
                    cause.line(),
                    cause.column()
                ))
        })
    }

    /// The resources of an application as they shall be and as they are.
    pub async fn managed_resources(&self, app: &Application) -> Result<Vec<ManagedResource>> {
        let call = Call::get(PATH).attempting("read the managed resources of", app);
        self.items(addressed(call, app, "managed-resources")).await
    }

    /// The manifests that a revision makes, without deploying it; the target revision's where none is given.
    pub async fn manifests(&self, app: &Application, revision: Option<&str>) -> Result<Manifests> {
        let call = Call::get(PATH)
            .attempting("read the manifests of", app)
            .query_opt("revision", revision);
        self.read_of(addressed(call, app, "manifests")).await
    }

    /// The Kubernetes events about the application itself.
    pub async fn events(&self, app: &Application) -> Result<Vec<Event>> {
        self.items(addressed(
            Call::get(PATH).attempting("read the events of", app),
            app,
            "events",
        ))
        .await
    }

    /// The sync windows that concern an application.
    pub async fn sync_windows(&self, app: &Application) -> Result<SyncWindows> {
        self.read_of(addressed(
            Call::get(PATH).attempting("read the sync windows of", app),
            app,
            "syncwindows",
        ))
        .await
    }

    /// What a commit of an application's repository says of itself.
    pub async fn revision_metadata(&self, app: &Application, revision: &str) -> Result<RevisionMetadata> {
        let call = Call::get(PATH).attempting("read the commit of", app);
        let call = addressed(call, app, "revisions")
            .segment(revision)
            .segment("metadata");
        self.read_of(call).await
    }

    async fn items<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<Vec<T>> {
        Ok(self.read_of::<Items<T>>(call).await?.items.unwrap_or_default())
    }
}

const PATH: &str = "api/v1/applications";
/// Compared for equality by the server: no parameters.
const JSON: &str = "application/json";

/// Adds an application's name, what of it is meant, and where it is.
fn addressed(call: Call, app: &Application, what: &str) -> Call {
    let call = call
        .segment(app.name().as_str())
        .query_opt("project", app.project())
        .query_opt("appNamespace", app.namespace());
    if what.is_empty() { call } else { call.segment(what) }
}

/// The same for a body.
fn locate(body: &mut Value, app: &Application) {
    for (name, value) in [("project", app.project()), ("appNamespace", app.namespace())] {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
}
