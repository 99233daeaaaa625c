//! Errors of the JSON API, in the words of the service.

use super::super::Service;
use super::super::names::is_repository_name;
use super::super::store::{Repository, Store};
use crate::sigv4::Refusal;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: Option<String>,
    /// What the error tells besides, as members of its shape.
    more: Map<String, Value>,
}

impl ApiError {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind,
            message: Some(message.into()),
            more: Map::new(),
        }
    }

    /// Adds a member of the error's shape.
    pub(super) fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.more.insert(member.to_owned(), value.into());
        self
    }

    pub(super) fn invalid(parameter: &str, constraint: &str) -> Self {
        let message =
            format!("Invalid parameter at '{parameter}' failed to satisfy constraint: '{constraint}'");
        Self::new("InvalidParameterException", message)
    }

    /// The disk or another part of the lab failed.
    pub(super) fn server(error: &dyn std::fmt::Display) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            ..Self::new("ServerException", error.to_string())
        }
    }

    /// What the service's front answers to a target that it does not know: a type without a message.
    pub(super) fn unknown_operation() -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "UnknownOperationException",
            message: None,
            more: Map::new(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (kind, status) = refusal.code();
        Self {
            status,
            kind,
            message: Some(refusal.message()),
            more: Map::new(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = self.more;
        body.insert("__type".into(), self.kind.into());
        if let Some(message) = self.message {
            body.insert("message".into(), message.into());
        }
        let body = Value::Object(body);
        let headers = [(header::CONTENT_TYPE, super::MEDIA_TYPE)];
        (self.status, headers, body.to_string()).into_response()
    }
}

impl Service {
    /// Checks a repository name, and that the registry asked for is this one.
    pub(super) fn check_name(&self, name: &str, registry: Option<&str>) -> Result<(), ApiError> {
        if !is_repository_name(name) {
            return Err(ApiError::invalid(
                "repositoryName",
                "must satisfy regular expression '(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*'",
            ));
        }
        match registry {
            Some(registry) if registry != self.config.account => Err(no_repository(name, registry)),
            _ => Ok(()),
        }
    }

    pub(super) fn find<'s>(
        &self,
        store: &'s mut Store,
        name: &str,
        registry: Option<&str>,
    ) -> Result<&'s mut Repository, ApiError> {
        self.check_name(name, registry)?;
        let repository = store.repositories.get_mut(name);
        repository.ok_or_else(|| no_repository(name, &self.config.account))
    }
}

fn no_repository(name: &str, account: &str) -> ApiError {
    ApiError::new(
        "RepositoryNotFoundException",
        format!("The repository with name '{name}' does not exist in the registry with id '{account}'"),
    )
}
