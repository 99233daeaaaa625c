//! What the caller may not do: actions of IAM that a test denies.

use super::distribution::{Refused, Route};
use super::{Ecr, Service, lock};
use axum::http::{Method, StatusCode};

impl Ecr {
    /// Denies an action of IAM, such as `ecr:PutImage`, until it is allowed again. The API then answers
    /// `AccessDeniedException`, and `/v2/` answers 403 for what the caller does itself. A denied
    /// `ecr:BatchImportUpstreamImage`, or `ecr:CreateRepository` for a repository that a pull or a push would have made,
    /// is answered 404 over `/v2/`, as the service does.
    pub fn deny_action(&self, action: &str) {
        lock(&self.service.denied).insert(action.to_owned());
    }

    /// Takes a denial back.
    pub fn allow_action(&self, action: &str) {
        lock(&self.service.denied).remove(action);
    }
}

impl Service {
    pub(super) fn denies(&self, action: &str) -> bool {
        lock(&self.denied).contains(action)
    }

    /// The sentence about a denied action, of the API and of `/v2/` alike.
    pub(super) fn denial(&self, action: &str, repository: Option<&str>) -> Option<String> {
        if !self.denies(action) {
            return None;
        }
        let account = &self.config.account;
        let resource = match repository {
            Some(name) => self.repository_arn(name),
            None => "*".into(),
        };
        Some(format!(
            "User: arn:aws:iam::{account}:user/lab is not authorized to perform: {action} on resource: {resource} \
             because no identity-based policy allows the {action} action"
        ))
    }

    /// Whether the caller may bring an image in from an upstream, and its repository be made.
    pub(super) fn may_import(&self, name: &str, prefix: &str) -> bool {
        let store = self.store();
        let exists = store.repositories.contains_key(name);
        !self.denies("ecr:BatchImportUpstreamImage")
            && (exists
                || !self.denies("ecr:CreateRepository") && store.cache_repository(name, prefix).is_some())
    }

    /// Makes the repository of a push where there is none, a template says so, and the caller may.
    pub(super) fn create_on_push(&self, name: &str) {
        if super::names::is_repository_name(name) && !self.denies("ecr:CreateRepository") {
            self.store().create_on_push(name);
        }
    }

    /// Refuses a request over `/v2/` whose action is denied.
    pub(super) fn permit(&self, route: &Route, method: &Method) -> Result<(), Refused> {
        let Some((action, name)) = action_of(route, method) else {
            return Ok(());
        };
        match self.denial(action, Some(name)) {
            Some(message) => Err(Refused::new(StatusCode::FORBIDDEN, "DENIED", message)),
            None => Ok(()),
        }
    }
}

/// The action behind a request, by "IAM permissions for pushing an image" and "… pulling an image" of the user guide.
fn action_of<'r>(route: &'r Route, method: &Method) -> Option<(&'static str, &'r str)> {
    Some(match (route, method) {
        (Route::Base | Route::Catalog, _) => return None,
        (Route::Manifest { name, .. }, &Method::PUT) => ("ecr:PutImage", name),
        (Route::Manifest { name, .. }, &Method::DELETE) => ("ecr:BatchDeleteImage", name),
        (Route::Manifest { name, .. }, _) => ("ecr:BatchGetImage", name),
        (Route::Blob { name, .. }, &Method::HEAD) => ("ecr:BatchCheckLayerAvailability", name),
        (Route::Blob { name, .. }, _) => ("ecr:GetDownloadUrlForLayer", name),
        (Route::Uploads { name }, _) => ("ecr:InitiateLayerUpload", name),
        (Route::Upload { name, .. }, &Method::PUT) => ("ecr:CompleteLayerUpload", name),
        (Route::Upload { name, .. }, _) => ("ecr:UploadLayerPart", name),
        (Route::Tags { name }, _) => ("ecr:ListImages", name),
        (Route::Referrers { name, .. }, _) => ("ecr:ListImageReferrers", name),
    })
}
