//! Errors as grpc-gateway 1.16 answers them: `{"error", "code", "message"}`, and plain text from the gateway itself.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A gRPC status.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) code: u8,
    pub(super) message: String,
}

impl Status {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A plain Go error: 500.
    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Self::new(2, message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(3, message)
    }

    pub(super) fn not_found(kind: &str, name: &str) -> Self {
        Self::new(5, format!("{kind} \"{name}\" not found"))
    }

    /// The same in other words.
    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self::new(5, message)
    }

    pub(super) fn exists(message: impl Into<String>) -> Self {
        Self::new(6, message)
    }

    /// A panic that the server has caught.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(13, message)
    }

    /// What a missing and a forbidden Application look alike as.
    pub(super) fn denied() -> Self {
        Self::new(7, "permission denied")
    }

    pub(super) fn denied_because(message: impl Into<String>) -> Self {
        Self::new(7, message)
    }

    /// 400 too; only the code tells it from an invalid argument.
    pub(super) fn precondition(message: impl Into<String>) -> Self {
        Self::new(9, message)
    }

    pub(super) fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(16, message)
    }

    /// As Go prints it, inside of another error.
    pub(super) fn as_go(&self) -> String {
        let name = match self.code {
            3 => "InvalidArgument",
            5 => "NotFound",
            6 => "AlreadyExists",
            7 => "PermissionDenied",
            9 => "FailedPrecondition",
            13 => "Internal",
            16 => "Unauthenticated",
            _ => return self.message.clone(),
        };
        format!("rpc error: code = {name} desc = {}", self.message)
    }

    /// Wrapped by another error (`fmt.Errorf` with `%w`): the code stays.
    pub(super) fn wrapped(self, by: String) -> Self {
        Self::new(self.code, format!("{by}: {}", self.as_go()))
    }

    /// The answer of a stream that fails before it has begun.
    pub(super) fn into_stream_response(self) -> Response {
        let http = self.http();
        (http, axum::Json(self.chunk())).into_response()
    }

    /// The error as the last chunk of a stream.
    pub(super) fn chunk(&self) -> serde_json::Value {
        let http = self.http();
        json!({"error": {
            "grpc_code": self.code, "http_code": http.as_u16(), "message": self.message,
            "http_status": http.canonical_reason(),
        }})
    }

    pub(super) fn http(&self) -> StatusCode {
        match self.code {
            3 | 9 | 11 => StatusCode::BAD_REQUEST,
            5 => StatusCode::NOT_FOUND,
            6 | 10 => StatusCode::CONFLICT,
            7 => StatusCode::FORBIDDEN,
            16 => StatusCode::UNAUTHORIZED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Status {
    fn into_response(self) -> Response {
        let body = json!({"error": self.message, "code": self.code, "message": self.message});
        (self.http(), axum::Json(body)).into_response()
    }
}

/// An answer of the gateway, or of Go's HTTP server, in plain text.
pub(super) fn text(status: StatusCode, message: &str) -> Response {
    let mut response = (status, format!("{message}\n")).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
