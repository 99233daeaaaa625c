//! Projects (`AppProject`) and the tokens of their roles: `/api/v1/projects`.

use crate::ArgoCd;
use crate::accounts::seconds;
use crate::wire::{Event, Project, ProjectDetails, SyncWindow};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use towpath_core::Secret;
use towpath_elements::Result;
use towpath_http::Call;

const PATH: &str = "api/v1/projects";

impl ArgoCd {
    /// The projects that the caller may see.
    pub async fn projects(&self) -> Result<Vec<Project>> {
        self.list(Call::get(PATH).attempting("list", "projects")).await
    }

    /// A project.
    ///
    /// # Errors
    /// *Not found* where it does not exist; *denied* where the caller may not see it.
    pub async fn project(&self, name: &str) -> Result<Project> {
        self.read(at(Call::get(PATH).attempting("read the project", name), name, ""))
            .await
    }

    /// A project with the rules of the global projects in it, and with the repositories and clusters that it may use.
    pub async fn project_details(&self, name: &str) -> Result<ProjectDetails> {
        let call = Call::get(PATH).attempting("read the project", name);
        self.read(at(call, name, "detailed")).await
    }

    /// The global projects whose rules a project takes over.
    pub async fn global_projects(&self, name: &str) -> Result<Vec<Project>> {
        let call = Call::get(PATH).attempting("read the global projects of", name);
        self.list(at(call, name, "globalprojects")).await
    }

    /// The Kubernetes events about a project.
    pub async fn project_events(&self, name: &str) -> Result<Vec<Event>> {
        let call = Call::get(PATH).attempting("read the events of the project", name);
        self.list(at(call, name, "events")).await
    }

    /// The sync windows of a project that are open now.
    pub async fn project_sync_windows(&self, name: &str) -> Result<Vec<SyncWindow>> {
        #[derive(Deserialize)]
        struct Windows {
            #[serde(default)]
            windows: Option<Vec<SyncWindow>>,
        }
        let call = Call::get(PATH).attempting("read the sync windows of the project", name);
        let windows: Windows = self.read(at(call, name, "syncwindows")).await?;
        Ok(windows.windows.unwrap_or_default())
    }

    /// Makes a project. Making it again as it is does nothing.
    ///
    /// ```no_run
    /// # async fn example(argo: towpath_argocd::ArgoCd) -> Result<(), Box<dyn std::error::Error>> {
    /// use serde_json::json;
    /// let project = serde_json::from_value(json!({
    ///     "metadata": {"name": "shop"},
    ///     "spec": {
    ///         "sourceRepos": ["https://ghe.example/acme/*"],
    ///         "destinations": [{"server": "https://kubernetes.default.svc", "namespace": "shop"}],
    ///         "roles": [{"name": "ci", "policies": ["p, proj:shop:ci, applications, sync, shop/*, allow"]}],
    ///     },
    /// }))?;
    /// argo.create_project(&project).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// *Conflict* where it exists with another spec.
    pub async fn create_project(&self, project: &Project) -> Result<Project> {
        self.put_project(project, false).await
    }

    /// Makes a project, or replaces its spec.
    pub async fn upsert_project(&self, project: &Project) -> Result<Project> {
        self.put_project(project, true).await
    }

    async fn put_project(&self, project: &Project, upsert: bool) -> Result<Project> {
        let body = json!({"project": {"metadata": project.metadata, "spec": project.spec}, "upsert": upsert});
        let attempted = match upsert {
            true => "upsert the project",
            false => "create the project",
        };
        let call = Call::post(PATH)
            .attempting(attempted, &project.metadata.name)
            .json(&body)?
            // The same project again is no change.
            .idempotent();
        self.read(call).await
    }

    /// Replaces a project that exists: read it, change it, give it back, its version and its status included.
    ///
    /// # Errors
    /// *Conflict* where it was changed since it was read; *invalid* where applications of the project would break its rules.
    pub async fn replace_project(&self, project: &Project) -> Result<Project> {
        let name = &project.metadata.name;
        let call = Call::put(PATH).attempting("replace the project", name);
        self.read(at(call, name, "").json(&json!({"project": project}))?)
            .await
    }

    /// Deletes a project.
    ///
    /// # Errors
    /// *Invalid* where it still has applications, and for `default`.
    pub async fn delete_project(&self, name: &str) -> Result<()> {
        let call = Call::delete(PATH).attempting("delete the project", name);
        self.drop(at(call, name, "")).await
    }

    /// Makes a token for a role of a project. It is good for `lifetime`, in whole seconds and at least one; without one it
    /// never expires. The server makes up an id where none is given; [`TokenClaims`](crate::TokenClaims) has it.
    ///
    /// It is not sent twice: each call makes another token.
    ///
    /// # Errors
    /// *Not found* where the project has no such role.
    pub async fn create_project_token(
        &self,
        project: &str,
        role: &str,
        lifetime: Option<Duration>,
        id: Option<&str>,
    ) -> Result<Secret> {
        let what = format!("{project}/{role}");
        let call = Call::post(PATH).attempting("make a token for the role", what);
        let call = at(call, project, "roles").segment(role).segment("token");
        let body = json!({"project": project, "role": role, "expiresIn": seconds(lifetime)});
        self.new_token(call, body, id).await
    }

    /// Deletes a token of a project's role, by its id or, where that is empty, by when it was issued, in seconds since
    /// 1970. Deleting what is not there does nothing.
    pub async fn delete_project_token(
        &self,
        project: &str,
        role: &str,
        issued_at: i64,
        id: &str,
    ) -> Result<()> {
        let what = format!("{project}/{role}");
        let call = Call::delete(PATH).attempting("delete a token of the role", what);
        let call = at(call, project, "roles")
            .segment(role)
            .segment("token")
            .segment(issued_at.to_string())
            .query_opt("id", Some(id).filter(|id| !id.is_empty()));
        self.drop(call).await
    }
}

/// Adds a project's name and what of it is meant.
fn at(call: Call, name: &str, what: &str) -> Call {
    let call = call.segment(name);
    if what.is_empty() { call } else { call.segment(what) }
}
