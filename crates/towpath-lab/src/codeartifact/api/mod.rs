//! The REST API: SigV4, the operation by method and path, and an answer in JSON.
//!
//! Follows the CodeArtifact API reference; each operation is in the file of what it is about.

mod batch;
mod call;
mod domains;
mod error;
mod packages;
mod publish;
mod repositories;
mod versions;

use super::Service;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use call::{Call, without_nulls};
use error::ApiError;
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

/// How large an asset may be here; the service itself takes 5 GB.
pub(super) const MAX_BODY: usize = 256 << 20;

type Answer = Result<Value, ApiError>;

pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new().fallback(answer).with_state(service)
}

async fn answer(State(service): State<Arc<Service>>, request: Request) -> Response {
    let mut response = run(&service, request)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    if let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().to_string()) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-amzn-requestid"), id);
    }
    response
}

async fn run(service: &Service, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await.map_err(|_| {
        ApiError::unreadable(format!("the body must be complete and at most {MAX_BODY} bytes"))
    })?;
    service
        .verifier
        .verify(&head.method, &head.uri, &head.headers, &body)?;
    let query = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let query = query
        .map(|(field, value)| (field.into_owned(), value.into_owned()))
        .collect();
    let mut store = service.store();
    let mut call = Call {
        service,
        store: &mut store,
        query,
        headers: &head.headers,
        body,
    };
    let path = head.uri.path();
    if (&head.method, path) == (&Method::GET, "/v1/package/version/asset") {
        return versions::asset(&mut call);
    }
    let answer = operation(&head.method, path).ok_or_else(ApiError::unknown_operation)?(&mut call)?;
    Ok(axum::Json(without_nulls(answer)).into_response())
}

/// The operation that answers in JSON at this method and path.
fn operation(method: &Method, path: &str) -> Option<fn(&mut Call<'_>) -> Answer> {
    Some(match (method.as_str(), path) {
        ("POST", "/v1/domain") => domains::create,
        ("GET", "/v1/domain") => domains::describe,
        ("DELETE", "/v1/domain") => domains::delete,
        ("POST", "/v1/domains") => domains::list,
        ("POST", "/v1/authorization-token") => domains::token,
        ("POST", "/v1/repository") => repositories::create,
        ("GET", "/v1/repository") => repositories::describe,
        ("PUT", "/v1/repository") => repositories::update,
        ("DELETE", "/v1/repository") => repositories::delete,
        ("POST", "/v1/repositories") => repositories::list,
        ("POST", "/v1/domain/repositories") => repositories::list_in_domain,
        ("POST", "/v1/repository/external-connection") => repositories::connect,
        ("DELETE", "/v1/repository/external-connection") => repositories::disconnect,
        ("GET", "/v1/repository/endpoint") => repositories::endpoint,
        ("POST", "/v1/packages") => packages::list,
        ("GET", "/v1/package") => packages::describe,
        ("POST", "/v1/package") => packages::put_origin_configuration,
        ("DELETE", "/v1/package") => packages::delete,
        ("POST", "/v1/package/versions") => versions::list,
        ("GET", "/v1/package/version") => versions::describe,
        ("POST", "/v1/package/version/assets") => versions::assets,
        ("POST", "/v1/package/version/dependencies") => versions::dependencies,
        ("POST", "/v1/package/version/publish") => publish::publish,
        ("POST", "/v1/package/versions/copy") => batch::copy,
        ("POST", "/v1/package/versions/update_status") => batch::update_status,
        ("POST", "/v1/package/versions/dispose") => batch::dispose,
        ("POST", "/v1/package/versions/delete") => batch::delete,
        _ => return None,
    })
}

/// An answer that is a file, with what the service says about it in headers.
fn file(bytes: bytes::Bytes, about: [(&'static str, &str); 3]) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in about {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers.insert(
        "content-type",
        HeaderValue::from_static("application/octet-stream"),
    );
    (headers, Body::from(bytes)).into_response()
}

/// A time as the API writes it: seconds since 1970, with milliseconds behind the point.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of any year in use fit")]
fn epoch(time: jiff::Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}
