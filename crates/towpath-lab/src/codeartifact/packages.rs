//! The package endpoint: finds the domain, the format and the repository in the path, and checks the token.

use super::Service;
use super::api::MAX_BODY;
use super::cargo;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new().fallback(answer).with_state(service)
}

async fn answer(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is cut short or too large",
        )
            .into_response();
    };
    let parts: Vec<&str> = head.uri.path().trim_start_matches('/').splitn(4, '/').collect();
    let [host, "cargo", repository, path] = parts[..] else {
        return (
            StatusCode::NOT_FOUND,
            "there is no repository of a known format here",
        )
            .into_response();
    };
    let account = service.store().account.clone();
    let Some((domain, _)) = host.rsplit_once('-').filter(|(_, owner)| *owner == account) else {
        return (StatusCode::NOT_FOUND, "there is no such domain").into_response();
    };
    if !allowed(&service, &head.headers, domain) {
        // Cargo asks without a token first, and sends it once it has seen this.
        let challenge = [(header::WWW_AUTHENTICATE, "Cargo")];
        return (
            StatusCode::UNAUTHORIZED,
            challenge,
            "the token is missing, wrong or expired",
        )
            .into_response();
    }
    let call = cargo::Call {
        domain,
        repository,
        path,
        headers: &head.headers,
        body,
    };
    cargo::answer(&service, &head.method, call)
}

/// Cargo sends the token as it is, without a scheme.
fn allowed(service: &Service, headers: &HeaderMap, domain: &str) -> bool {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    token.is_some_and(|token| service.store().tokens.allow(token, domain))
}
