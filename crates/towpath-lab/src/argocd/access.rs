//! Who is calling, and what they may do (`util/rbac`, reduced to accounts that may do everything and project roles).

use super::Shared;
use super::error::Status;
use super::model::Application;
use super::projects::covers;
use super::request::Params;
use super::token::Claims;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use std::sync::{Arc, PoisonError};

/// The holder of a valid token.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Claims);

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Status;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Status> {
        let token = bearer(&parts.headers);
        shared.tokens.verify(token, shared.clock.now()).map(Self)
    }
}

/// The token of a request: the bearer, else the cookie that a login sets.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) {
        return Some(token.trim());
    }
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix("argocd.token="))
}

impl Caller {
    /// The account, the role or the other issuer's user, as it is written into operations.
    pub(super) fn name(&self) -> String {
        if let Some(federated) = &self.0.federated_claims {
            return federated.user_id.clone();
        }
        let subject = &self.0.sub;
        match subject.starts_with("proj:") {
            true => subject.clone(),
            false => subject.split(':').next().unwrap_or_default().to_owned(),
        }
    }

    /// Whether the caller may do this to the Applications of a project.
    pub(super) fn may(&self, shared: &Shared, action: &str, project: &str) -> bool {
        let Some(rest) = self.0.sub.strip_prefix("proj:") else {
            return true;
        };
        let (own, role) = rest.split_once(':').unwrap_or((rest, ""));
        if own != project {
            return false;
        }
        let given = {
            let roles = shared.roles.lock().unwrap_or_else(PoisonError::into_inner);
            roles
                .get(&self.0.sub)
                .is_some_and(|actions| actions.iter().any(|known| covers(known, action)))
        };
        given || shared.projects.allows(project, role, action)
    }

    /// Whether the caller may do this to what is no Application: project roles may only read their own project.
    pub(super) fn require_on(&self, resource: &str, action: &str, object: &str) -> Result<(), Status> {
        let own = self
            .0
            .sub
            .strip_prefix("proj:")
            .map(|rest| rest.split(':').next().unwrap_or_default());
        match own {
            None => Ok(()),
            Some(own) if resource == "projects" && action == "get" && own == object => Ok(()),
            Some(_) => Err(self.denial(resource, action, object)),
        }
    }

    fn denial(&self, resource: &str, action: &str, object: &str) -> Status {
        let iat =
            jiff::Timestamp::from_second(self.0.iat).map_or_else(|_| String::new(), |at| at.to_string());
        Status::denied_because(format!(
            "permission denied: {resource}, {action}, {object}, sub: {}, iat: {iat}",
            self.0.sub
        ))
    }

    /// The denial that says what was denied; only who may `get` the Application gets to read it.
    pub(super) fn require(&self, shared: &Shared, action: &str, app: &Application) -> Result<(), Status> {
        let project = app.project();
        if self.may(shared, action, project) {
            return Ok(());
        }
        Err(self.denial(
            "applications",
            action,
            &format!("{project}/{}", app.metadata.name),
        ))
    }

    /// The same for the logs of an Application, which are a resource of their own since 3.0.
    pub(super) fn require_logs(&self, shared: &Shared, app: &Application) -> Result<(), Status> {
        let project = app.project();
        if !shared.has((3, 0)) || self.may(shared, "logs", project) {
            return Ok(());
        }
        Err(self.denial("logs", "get", &format!("{project}/{}", app.metadata.name)))
    }

    /// Finds an Application. Without `project` a missing one and a forbidden one look the same; with it, a missing
    /// one is said to be missing.
    pub(super) fn find(
        &self,
        shared: &Shared,
        name: &str,
        scope: &Scope,
    ) -> Result<Arc<Application>, Status> {
        let app = shared.store.get(name);
        let namespace = scope.namespace.as_deref().unwrap_or_default();
        if !namespace.is_empty() && namespace != shared.config.namespace {
            return Err(Status::denied());
        }
        match scope.project.as_deref().filter(|project| !project.is_empty()) {
            Some(project) if !self.may(shared, "get", project) => Err(Status::denied()),
            Some(project) => app
                .filter(|app| app.project() == project)
                .ok_or_else(|| Status::not_found("applications.argoproj.io", name)),
            None => app
                .filter(|app| self.may(shared, "get", app.project()))
                .ok_or_else(Status::denied),
        }
    }
}

/// Where a request says the Application is.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    pub(super) project: Option<String>,
    pub(super) namespace: Option<String>,
}

impl Scope {
    pub(super) fn of(params: &Params) -> Self {
        Self {
            project: params.get("project").map(ToOwned::to_owned),
            namespace: params.get("appNamespace").map(ToOwned::to_owned),
        }
    }

    /// The body's own fields, where the body is what carries them.
    pub(super) fn or_body(self, project: &str, namespace: &str) -> Self {
        let own = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Self {
            project: own(project).or(self.project),
            namespace: own(namespace).or(self.namespace),
        }
    }
}
