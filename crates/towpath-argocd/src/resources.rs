//! What belongs to an application: its tree, manifests, differences, events, links, windows, and actions on it.

use crate::applications::{PATH, addressed};
use crate::config::SERVICE;
use crate::sync::paired;
use crate::wire::{
    Event, Link, ManagedResource, Manifests, ResourceAction, ResourceDiffs, ResourceNode, ResourceTree,
    RevisionMetadata, SyncWindows,
};
use crate::{ApiError, ArgoCd, Feature, error};
use serde::Deserialize;
use serde_json::{Value, json};
use towpath_core::Application;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::Call;

/// Which manifests to make. The default makes those of the target revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestsRequest {
    /// The revision; for several sources one for each of [`source_positions`](Self::source_positions).
    pub revisions: Vec<String>,
    /// Which sources the revisions are for, counted from 1. Empty where there is one source.
    pub source_positions: Vec<u32>,
    /// Make them anew, whatever the server has cached.
    pub no_cache: bool,
}

impl ArgoCd {
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
    ///
    /// # Errors
    /// *Not found* where it does not belong to the application; *protocol* where the server's manifest is not JSON.
    pub async fn live_resource(&self, app: &Application, node: &ResourceNode) -> Result<Value> {
        #[derive(Deserialize)]
        struct Live {
            #[serde(default)]
            manifest: Option<String>,
        }
        let call = addressed(
            Call::get(PATH).attempting("read", named(node, app)),
            app,
            "resource",
        );
        let answer = error::accept(self.transport().send(selected(call, node)).await?, true)?;
        let manifest = answer.json::<Live>()?.manifest.unwrap_or_default();
        serde_json::from_str(&manifest).map_err(|cause| {
            // Only where it broke: the cause may quote what it read.
            answer.error(ErrorKind::Protocol).because(format!(
                "the manifest is not JSON, line {} column {}",
                cause.line(),
                cause.column()
            ))
        })
    }

    /// The resources of an application as they shall be and as they are, as the controller compared them last.
    pub async fn managed_resources(&self, app: &Application) -> Result<Vec<ManagedResource>> {
        let call = Call::get(PATH).attempting("read the managed resources of", app);
        self.items(addressed(call, app, "managed-resources")).await
    }

    /// What the cluster's own API server would make of these manifests (3.2 and later).
    ///
    /// Of the service's calls this is the weakest over REST: the server pairs the manifests with live resources, which only
    /// its gRPC API can be given. As its source of 3.2 to 3.5 reads, it fails over any manifest at all, which is told as
    /// *unsupported* here; [`managed_resources`](Self::managed_resources) has what the controller found. The manifests
    /// travel in the address: give few and small ones.
    ///
    /// # Errors
    /// *Unsupported* where the server is too old or cannot do it over REST.
    pub async fn server_side_diff(&self, app: &Application, manifests: &[Value]) -> Result<ResourceDiffs> {
        let attempted = "compare on the server's side";
        self.require(Feature::ServerSideDiff, attempted, app).await?;
        let mut call = addressed(
            Call::get(PATH).attempting(attempted, app),
            app,
            "server-side-diff",
        );
        for manifest in manifests {
            call = call.query("targetManifests", manifest.to_string());
        }
        self.read_of(call).await.map_err(|error| {
            match ApiError::of(&error).is_some_and(ApiError::is_index_out_of_range) {
                true => Error::new(ErrorKind::Unsupported, SERVICE, attempted, app)
                    .because("the server wants live resources beside the manifests, which REST cannot carry")
                    .advise("read the managed resources instead")
                    .caused_by(error),
                false => error,
            }
        })
    }

    /// The manifests that a revision makes, without deploying it; the target revision's where none is given.
    pub async fn manifests(&self, app: &Application, revision: Option<&str>) -> Result<Manifests> {
        let request = ManifestsRequest {
            revisions: revision.map(str::to_owned).into_iter().collect(),
            ..ManifestsRequest::default()
        };
        self.manifests_of(app, &request).await
    }

    /// The manifests that these revisions make, without deploying them.
    ///
    /// # Errors
    /// *Invalid* where revisions and positions do not go together; *unsupported* where the server is too old for
    /// positions; *not found* where there is no such revision; *unavailable* with the server's words where the manifests
    /// cannot be made.
    pub async fn manifests_of(&self, app: &Application, request: &ManifestsRequest) -> Result<Manifests> {
        let attempted = "read the manifests of";
        paired(&request.revisions, &request.source_positions)
            .map_err(|why| Error::new(ErrorKind::Invalid, SERVICE, attempted, app).because(why))?;
        let mut call = Call::get(PATH).attempting(attempted, app);
        if request.source_positions.is_empty() {
            call = call.query_opt("revision", request.revisions.first());
        } else {
            self.require(Feature::MultiSourceSync, attempted, app).await?;
            for (revision, position) in request.revisions.iter().zip(&request.source_positions) {
                call = call
                    .query("revisions", revision)
                    .query("sourcePositions", position.to_string());
            }
        }
        if request.no_cache {
            call = call.query("noCache", "true");
        }
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

    /// The Kubernetes events about one resource of an application.
    ///
    /// # Errors
    /// *Not found* where it does not belong to the application.
    pub async fn resource_events(&self, app: &Application, node: &ResourceNode) -> Result<Vec<Event>> {
        let call = Call::get(PATH)
            .attempting("read the events of", named(node, app))
            .query("resourceNamespace", &node.namespace)
            .query("resourceName", &node.name)
            .query("resourceUID", &node.uid);
        self.items(addressed(call, app, "events")).await
    }

    /// The links that the server's configuration has for an application.
    pub async fn links(&self, app: &Application) -> Result<Vec<Link>> {
        let call = Call::get(PATH).attempting("read the links of", app);
        // This one alone says it in another word.
        let call = call.query_opt("namespace", app.namespace());
        self.items(addressed(call, app, "links")).await
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

    /// Whether the sync windows allow a sync by hand now. The permission to sync is another matter.
    pub async fn can_sync(&self, app: &Application) -> Result<bool> {
        Ok(self.sync_windows(app).await?.can_sync)
    }

    /// What a commit of an application's repository says of itself.
    pub async fn revision_metadata(&self, app: &Application, revision: &str) -> Result<RevisionMetadata> {
        self.commit(app, revision, None).await
    }

    /// The same for a commit of one of several sources, counted from 0.
    pub async fn revision_metadata_of_source(
        &self,
        app: &Application,
        revision: &str,
        source_index: u32,
    ) -> Result<RevisionMetadata> {
        self.commit(app, revision, Some(source_index)).await
    }

    async fn commit(
        &self,
        app: &Application,
        revision: &str,
        source: Option<u32>,
    ) -> Result<RevisionMetadata> {
        let call = Call::get(PATH)
            .attempting("read the commit of", app)
            .query_opt("sourceIndex", source.map(|index| index.to_string()));
        let call = addressed(call, app, "revisions")
            .segment(revision)
            .segment("metadata");
        self.read_of(call).await
    }

    /// What can be done to a resource, such as `restart`. A disabled action does not fit the resource's present state.
    pub async fn resource_actions(
        &self,
        app: &Application,
        node: &ResourceNode,
    ) -> Result<Vec<ResourceAction>> {
        #[derive(Deserialize)]
        struct Actions {
            #[serde(default)]
            actions: Option<Vec<ResourceAction>>,
        }
        let call = Call::get(PATH).attempting("list the actions on", named(node, app));
        let call = selected(addressed(call, app, "resource/actions"), node);
        Ok(self.read_of::<Actions>(call).await?.actions.unwrap_or_default())
    }

    /// Does something to a resource, such as `restart`. It is not sent twice.
    ///
    /// Parameters are names and values, such as `("replicas", "3")` of `scale`.
    ///
    /// # Errors
    /// *Denied* without the permission for this action; *unsupported* where there are parameters and the server is older
    /// than 3.1; *not found* where it has no such action.
    pub async fn run_resource_action(
        &self,
        app: &Application,
        node: &ResourceNode,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<()> {
        let attempted = "run an action on";
        let what = format!("{} ({action})", named(node, app));
        if !parameters.is_empty() {
            self.require(Feature::ActionParameters, attempted, &what).await?;
        }
        let call = Call::post(PATH).attempting(attempted, &what);
        let call = if self.capabilities().await?.has(Feature::ActionParameters) {
            let parameters: Vec<Value> = parameters
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value}))
                .collect();
            let mut body = json!({
                "name": app.name(), "namespace": node.namespace, "resourceName": node.name, "version": node.version,
                "group": node.group, "kind": node.kind, "action": action, "resourceActionParameters": parameters,
            });
            crate::applications::locate(&mut body, app);
            call.segment(app.name().as_str())
                .segment("resource")
                .segment("actions")
                .segment("v2")
                .json(&body)?
        } else {
            // Where the action alone is the body, as a JSON text.
            selected(addressed(call, app, "resource/actions"), node).json(action)?
        };
        error::accept(self.transport().send(call).await?, true).map(|_| ())
    }
}

fn named(node: &ResourceNode, app: &Application) -> String {
    format!("{} {}/{} of {app}", node.kind, node.namespace, node.name)
}

/// Says which resource is meant.
fn selected(call: Call, node: &ResourceNode) -> Call {
    call.query("namespace", &node.namespace)
        .query("resourceName", &node.name)
        .query("version", &node.version)
        .query("group", &node.group)
        .query("kind", &node.kind)
}
