//! ApplicationSets, which generate applications: `/api/v1/applicationsets`.

use crate::ArgoCd;
use crate::wire::{App, ApplicationSet, Event, ResourceTree};
use serde::Deserialize;
use serde_json::{Value, json};
use towpath_elements::Result;
use towpath_http::Call;

const PATH: &str = "api/v1/applicationsets";

/// What to list. Lists have no pages: narrow them down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicationSetFilter {
    /// Only those whose applications are of these projects.
    pub projects: Vec<String>,
    /// Only those that this Kubernetes label selector takes.
    pub selector: Option<String>,
    /// Only those of this namespace.
    pub namespace: Option<String>,
}

/// How to make an ApplicationSet. By default one that exists with another spec is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplicationSetOptions {
    /// Replace one that exists; labels and annotations are merged.
    pub upsert: bool,
    /// Change nothing: answer with the set and the applications it would generate, in its status.
    pub dry_run: bool,
}

impl ArgoCd {
    /// The ApplicationSets that the caller may see. From the server's cache, which may lag behind.
    pub async fn application_sets(&self, filter: &ApplicationSetFilter) -> Result<Vec<ApplicationSet>> {
        let mut call = Call::get(PATH)
            .attempting("list", "ApplicationSets")
            .query_opt("selector", filter.selector.as_deref())
            .query_opt("appsetNamespace", filter.namespace.as_deref());
        for project in &filter.projects {
            call = call.query("projects", project);
        }
        self.list(call).await
    }

    /// An ApplicationSet; of the control plane's namespace where none is given.
    ///
    /// # Errors
    /// *Not found* where it does not exist; *denied* where the caller may not see it.
    pub async fn application_set(&self, name: &str, namespace: Option<&str>) -> Result<ApplicationSet> {
        let call = Call::get(PATH).attempting("read the ApplicationSet", name);
        self.read(at(call, name, namespace, "")).await
    }

    /// Makes an ApplicationSet in the way that the options say. Making it again as it is does nothing.
    ///
    /// # Errors
    /// *Conflict* where it exists with another spec and may not be replaced; *unavailable* with the server's words where a
    /// generator is wrong, because the server does not tell that apart from failures of its own.
    pub async fn create_application_set(
        &self,
        set: &ApplicationSet,
        options: ApplicationSetOptions,
    ) -> Result<ApplicationSet> {
        let attempted = match options.upsert {
            true => "upsert the ApplicationSet",
            false => "create the ApplicationSet",
        };
        let call = Call::post(PATH)
            .attempting(attempted, &set.metadata.name)
            .query("upsert", options.upsert.to_string())
            .query("dryRun", options.dry_run.to_string())
            .json(&what_shall_be(set))?
            // The same set again is no change.
            .idempotent();
        self.read(call).await
    }

    /// Deletes an ApplicationSet. Its applications go with it, unless its policy says otherwise.
    pub async fn delete_application_set(&self, name: &str, namespace: Option<&str>) -> Result<()> {
        let call = Call::delete(PATH).attempting("delete the ApplicationSet", name);
        self.drop(at(call, name, namespace, "")).await
    }

    /// The applications that an ApplicationSet would generate. Nothing is made.
    pub async fn generate_applications(&self, set: &ApplicationSet) -> Result<Vec<App>> {
        #[derive(Deserialize)]
        struct Generated {
            #[serde(default)]
            applications: Option<Vec<App>>,
        }
        let call = Call::post(PATH)
            .attempting("generate the applications of", &set.metadata.name)
            .segment("generate")
            .json(&json!({"applicationSet": what_shall_be(set)}))?
            .idempotent();
        Ok(self
            .read::<Generated>(call)
            .await?
            .applications
            .unwrap_or_default())
    }

    /// The applications of an ApplicationSet, as a tree of resources.
    pub async fn application_set_tree(&self, name: &str, namespace: Option<&str>) -> Result<ResourceTree> {
        let call = Call::get(PATH).attempting("read the resources of the ApplicationSet", name);
        self.read(at(call, name, namespace, "resource-tree")).await
    }

    /// The Kubernetes events about an ApplicationSet.
    pub async fn application_set_events(&self, name: &str, namespace: Option<&str>) -> Result<Vec<Event>> {
        let call = Call::get(PATH).attempting("read the events of the ApplicationSet", name);
        self.list(at(call, name, namespace, "events")).await
    }
}

/// Adds a set's name, where it is, and what of it is meant.
fn at(call: Call, name: &str, namespace: Option<&str>, what: &str) -> Call {
    let call = call.segment(name).query_opt("appsetNamespace", namespace);
    if what.is_empty() { call } else { call.segment(what) }
}

/// What a caller may say of a set.
fn what_shall_be(set: &ApplicationSet) -> Value {
    json!({"metadata": set.metadata, "spec": set.spec})
}
