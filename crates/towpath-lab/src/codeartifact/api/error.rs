//! How the API says no: a status, `x-amzn-ErrorType`, and a body with a message and what belongs to it.

use crate::sigv4::Refusal;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// One of the service's exceptions.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    fields: Map<String, Value>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            fields: Map::new(),
        }
    }

    fn with(mut self, field: &str, value: &str) -> Self {
        self.fields.insert(field.into(), json!(value));
        self
    }

    pub(super) fn not_found(kind: &str, id: &str) -> Self {
        let message = format!("{kind} {id} does not exist");
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
            .with("resourceId", id)
            .with("resourceType", kind)
    }

    pub(super) fn conflict(kind: &str, id: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "ConflictException", message)
            .with("resourceId", id)
            .with("resourceType", kind)
    }

    pub(super) fn quota(kind: &str, id: &str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYMENT_REQUIRED,
            "ServiceQuotaExceededException",
            message,
        )
        .with("resourceId", id)
        .with("resourceType", kind)
    }

    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDeniedException", message)
    }

    /// A field whose value is not allowed.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ValidationException", message)
            .with("reason", "FIELD_VALIDATION_FAILED")
    }

    /// Something that cannot be read at all.
    pub(super) fn unreadable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ValidationException", message).with("reason", "CANNOT_PARSE")
    }

    pub(super) fn unknown_operation() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "UnknownOperationException",
            "There is no such operation.",
        )
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        // The asset's hash is a field of the request as well as a part of the signature.
        if refusal == Refusal::Body {
            return Self::invalid(refusal.message());
        }
        let (code, status) = refusal.code();
        Self::new(status, code, refusal.message())
    }
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        self.fields.insert("message".into(), json!(self.message));
        let headers = [("x-amzn-ErrorType", self.code)];
        (self.status, headers, axum::Json(Value::Object(self.fields))).into_response()
    }
}
