//! `/v2/`: the OCI distribution endpoint of the private registry, with the deviations that ECR is known for.

mod auth;
mod conversion;
mod manifests;
mod uploads;

use super::Service;
use super::distribution::{API_VERSION, CONTENT_DIGEST, Refused, Route, page};
use super::pull_through::{self, PullFailure};
use super::secrets::LOGIN_FAILED;
use super::store::{Reference, Repository};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use towpath_core::Digest;

/// The router of the registry's port.
pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .fallback(serve)
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(service)
}

async fn serve(State(service): State<Arc<Service>>, request: Request) -> Response {
    let mut response = match auth::refusal(&service, request.headers()) {
        Some(response) => response,
        None => match route(&service, request).await {
            Ok(response) => response,
            Err(refused) => refused.into_response(),
        },
    };
    response
        .headers_mut()
        .entry(API_VERSION)
        .or_insert(HeaderValue::from_static("registry/2.0"));
    response
}

async fn route(service: &Service, request: Request) -> Result<Response, Refused> {
    let Some(route) = Route::parse(request.uri().path()) else {
        return Err(Refused::new(StatusCode::NOT_FOUND, "NOT_FOUND", "page not found"));
    };
    let method = request.method().clone();
    let headers = request.headers().clone();
    let reading = method == Method::GET || method == Method::HEAD;
    let query = request.uri().query().map(ToOwned::to_owned);
    let query = query.as_deref();
    service.permit(&route, &method)?;
    match route {
        Route::Base if reading => Ok(StatusCode::OK.into_response()),
        Route::Catalog if reading => catalog(service, query),
        Route::Tags { name } if reading => tags(service, &name, query),
        Route::Referrers { name, digest } if reading => manifests::referrers(service, &name, &digest, query),
        Route::Blob { name, digest } if reading => blob(service, &name, &digest, &method, &headers).await,
        Route::Manifest { name, reference } if reading => {
            manifests::get(service, &name, &reference, &method, &headers).await
        }
        Route::Manifest { name, reference } if method == Method::PUT => {
            manifests::put(service, &name, &reference, request).await
        }
        Route::Manifest { name, reference } if method == Method::DELETE => {
            manifests::delete(service, &name, &reference)
        }
        Route::Uploads { name } if method == Method::POST => uploads::start(service, &name, request).await,
        Route::Upload { name, id } => uploads::go_on(service, &name, &id, request).await,
        _ => Err(Refused::unsupported("The operation is unsupported.")),
    }
}

fn catalog(service: &Service, query: Option<&str>) -> Result<Response, Refused> {
    let names = service.store().repositories.keys().cloned().collect();
    let (names, next) = page(names, query, "/v2/_catalog")?;
    Ok(listing(&json!({"repositories": names}), next))
}

fn tags(service: &Service, name: &str, query: Option<&str>) -> Result<Response, Refused> {
    let tags = {
        let store = service.store();
        let repository = store
            .repositories
            .get(name)
            .ok_or_else(|| service.no_repository(name))?;
        repository.tags.keys().cloned().collect()
    };
    let (tags, next) = page(tags, query, &format!("/v2/{name}/tags/list"))?;
    Ok(listing(&json!({"name": name, "tags": tags}), next))
}

fn listing(body: &serde_json::Value, next: Option<String>) -> Response {
    let mut response = axum::Json(body).into_response();
    if let Some(link) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

async fn blob(
    service: &Service,
    name: &str,
    digest: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refused> {
    let digest = digest_of(digest)?;
    if *method == Method::GET
        && let Err(failure) = pull_through::ensure_blob(service, name, &digest).await
        && failure != PullFailure::NotFound
    {
        return Err(not_pulled(failure));
    }
    let known = service.with_repository(name, |repository| repository.blobs.contains(&digest))?;
    if !known || service.blobs.size(&digest).is_none() {
        return Err(Refused::new(
            StatusCode::NOT_FOUND,
            "BLOB_UNKNOWN",
            "blob unknown to registry",
        ));
    }
    // The bytes are with the storage; HEAD is answered by the registry itself.
    if *method == Method::GET && service.blobs_redirected.load(Ordering::Relaxed) {
        let headers = [
            (header::LOCATION, service.download_url(&digest)),
            (CONTENT_DIGEST, digest.to_string()),
        ];
        return Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response());
    }
    Ok(service.blobs.respond(method, headers, &digest).await)
}

fn digest_of(text: &str) -> Result<Digest, Refused> {
    text.parse().map_err(|_| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "provided digest did not match uploaded content",
        )
    })
}

impl Service {
    fn no_repository(&self, name: &str) -> Refused {
        let account = &self.config.account;
        let message =
            format!("The repository with name '{name}' does not exist in the registry with id '{account}'");
        Refused::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message)
    }

    fn with_repository<T>(&self, name: &str, read: impl FnOnce(&Repository) -> T) -> Result<T, Refused> {
        let store = self.store();
        let repository = store.repositories.get(name);
        repository.map(read).ok_or_else(|| self.no_repository(name))
    }

    /// Brings an image in from its upstream, where a pull-through rule says so.
    async fn pull_through(&self, name: &str, reference: &Reference) -> Result<(), Refused> {
        pull_through::ensure(self, name, reference)
            .await
            .map_err(not_pulled)
    }
}

/// What the registry answers to who asks for what the upstream did not give.
fn not_pulled(failure: PullFailure) -> Refused {
    let (status, code, message) = match failure {
        // The same answer as for a permission or a rule that is missing: the service does not tell them apart.
        PullFailure::NotFound | PullFailure::Denied => (
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "Requested image not found".into(),
        ),
        PullFailure::LoginRefused => (StatusCode::FORBIDDEN, "DENIED", LOGIN_FAILED.into()),
        PullFailure::Secret(fault) => (StatusCode::FORBIDDEN, "DENIED", fault.message().into()),
        PullFailure::TooManyRequests => (
            StatusCode::TOO_MANY_REQUESTS,
            "TOOMANYREQUESTS",
            "The upstream registry is throttling requests: Rate exceeded".into(),
        ),
        PullFailure::Unavailable(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            format!("The upstream registry is unavailable: {reason}"),
        ),
    };
    Refused::new(status, code, message)
}
