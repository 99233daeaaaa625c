//! The HTTP face: `POST /graphql`, and `POST /webhooks/github` with GitHub's signature checked.

use super::Shared;
use super::graphql::{self, Caller};
use super::push::{self, Push};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use hmac::{Hmac, KeyInit as _, Mac as _};
use std::sync::Arc;

const METADATA: &str = "spacelift-user-provided-run-metadata";

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/graphql", post(answer))
        .route("/webhooks/github", post(webhook))
        .with_state(shared)
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let request: graphql::Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            return (
                StatusCode::BAD_REQUEST,
                format!("the body is not a GraphQL request: {error}"),
            )
                .into_response();
        }
    };
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned)
    };
    let caller = Caller {
        known: shared.auth.accepts(text("authorization").as_deref()),
        metadata: text(METADATA),
    };
    // Some mutations ask git, which blocks.
    let answered = tokio::task::spawn_blocking(move || graphql::execute(&shared, &caller, &request)).await;
    match answered {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn webhook(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if !signed(
        shared.config.webhook_secret.expose(),
        &body,
        header("x-hub-signature-256"),
    ) {
        return (
            StatusCode::UNAUTHORIZED,
            "the signature in X-Hub-Signature-256 does not match\n",
        )
            .into_response();
    }
    match header("x-github-event") {
        "push" => {}
        event => return (StatusCode::OK, format!("event {event:?} is not acted on\n")).into_response(),
    }
    let push: Push = match serde_json::from_slice(&body) {
        Ok(push) => push,
        Err(error) => {
            return (StatusCode::BAD_REQUEST, format!("not a push event: {error}\n")).into_response();
        }
    };
    let made = tokio::task::spawn_blocking(move || push::receive(&shared, &push)).await;
    match made {
        Ok(Ok(runs)) => Json(serde_json::json!({ "runs": runs })).into_response(),
        Ok(Err(reason)) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{reason}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn signed(secret: &str, body: &[u8], header: &str) -> bool {
    let Some(Ok(claimed)) = header.strip_prefix("sha256=").map(hex::decode) else {
        return false;
    };
    // HMAC takes a key of any length, so this cannot fail; an error would refuse the request.
    Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).is_ok_and(|mut mac| {
        mac.update(body);
        mac.verify_slice(&claimed).is_ok()
    })
}
