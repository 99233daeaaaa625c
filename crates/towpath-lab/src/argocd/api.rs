//! The routes, what stands in front of them, and the parts of the API that are not about Applications.

use super::access::{self, Caller};
use super::error::{Status, text};
use super::request::body;
use super::{
    Shared, accounts, actions, applications, dex, logs, projects, resource_actions, sets, stream, views,
    webhook,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{delete, get, post, put};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use towpath_core::Secret;

/// Session tokens live 24 hours (`users.session.duration`).
const SESSION: Duration = Duration::from_secs(24 * 3600);

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let app = "/api/v1/applications/{name}";
    let under = |path: &str| format!("{app}/{path}");
    let mut router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/api/version", get(version))
        .route("/api/v1/settings", get(settings))
        .route(
            "/api/v1/session",
            post(login).delete(|| async { Json(json!({})) }),
        )
        .route("/api/v1/session/userinfo", get(user_info))
        .route(
            "/api/v1/account/can-i/{resource}/{action}/{*subresource}",
            get(can_i),
        )
        .route("/api/v1/account", get(accounts::list))
        .route("/api/v1/account/{name}", get(accounts::get))
        .route("/api/v1/account/{name}/token", post(accounts::create_token))
        .route(
            "/api/v1/account/{name}/token/{id}",
            delete(accounts::delete_token),
        )
        .route(
            "/api/v1/applications",
            get(applications::list).post(applications::create),
        )
        .route(
            app,
            get(applications::get)
                .put(applications::replace)
                .patch(applications::patch)
                .delete(applications::delete),
        )
        .route(&under("spec"), put(applications::replace_spec))
        .route(&under("sync"), post(actions::sync))
        .route(&under("operation"), delete(actions::terminate))
        .route(&under("rollback"), post(actions::rollback))
        .route(&under("resource-tree"), get(views::resource_tree))
        .route(&under("managed-resources"), get(views::managed_resources))
        .route(&under("manifests"), get(views::manifests))
        .route(&under("resource"), get(views::resource))
        .route(&under("events"), get(views::events))
        .route(&under("syncwindows"), get(views::sync_windows))
        .route(
            &under("revisions/{revision}/metadata"),
            get(views::revision_metadata),
        )
        .route(&under("links"), get(views::links))
        .route(&under("logs"), get(logs::of_application))
        .route(&under("pods/{pod}/logs"), get(logs::of_pod))
        .route(
            &under("resource/actions"),
            get(resource_actions::list).post(resource_actions::run),
        )
        .route("/api/v1/stream/applications", get(stream::applications))
        .merge(of_projects())
        .merge(of_sets());
    // What an older server lacks, it has no route for.
    if shared.has((3, 1)) {
        router = router.route(&under("resource/actions/v2"), post(resource_actions::run_v2));
    }
    if shared.has((3, 2)) {
        router = router.route(&under("server-side-diff"), get(views::server_side_diff));
    }
    if shared.has((3, 4)) {
        router = router.route("/api/v1/stream/applicationsets", get(sets::watch));
    }
    let router = router
        .method_not_allowed_fallback(|| async { text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .fallback(no_route)
        .layer(middleware::from_fn(content_type))
        .route("/api/webhook", axum::routing::any(webhook::receive))
        .route("/api/dex/token", post(dex::token));
    let router = match shared.config.root_path.as_str() {
        "" => router,
        root => Router::new()
            .nest(root, router)
            .route("/healthz", get(|| async { "ok" }))
            .fallback(no_route),
    };
    router.with_state(shared)
}

fn of_projects() -> Router<Arc<Shared>> {
    let project = "/api/v1/projects/{name}";
    let under = |path: &str| format!("{project}/{path}");
    Router::new()
        .route("/api/v1/projects", get(projects::list).post(projects::create))
        .route(
            project,
            get(projects::get).put(projects::replace).delete(projects::delete),
        )
        .route(&under("detailed"), get(projects::detailed))
        .route(&under("globalprojects"), get(projects::global))
        .route(&under("events"), get(projects::events))
        .route(&under("syncwindows"), get(projects::sync_windows))
        .route(&under("roles/{role}/token"), post(projects::create_token))
        .route(
            &under("roles/{role}/token/{issued_at}"),
            delete(projects::delete_token),
        )
}

fn of_sets() -> Router<Arc<Shared>> {
    let set = "/api/v1/applicationsets/{name}";
    let under = |path: &str| format!("{set}/{path}");
    Router::new()
        .route("/api/v1/applicationsets", get(sets::list).post(sets::create))
        .route("/api/v1/applicationsets/generate", post(sets::generate_only))
        .route(set, get(sets::get).delete(sets::delete))
        .route(&under("resource-tree"), get(sets::tree))
        .route(&under("events"), get(sets::events))
}

/// Everything that changes something must say that it is JSON, in just these letters.
async fn content_type(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let declared = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let json = declared.is_some_and(|declared| declared.eq_ignore_ascii_case("application/json"));
    if path.starts_with("/api/") && request.method() != Method::GET && !json {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Invalid content type");
    }
    next.run(request).await
}

/// Below `/api/` the gateway says so; everywhere else the user interface answers, with 200.
async fn no_route(request: Request) -> Response {
    if request.uri().path().starts_with("/api/") {
        return text(StatusCode::NOT_FOUND, "Not Found");
    }
    Html("<!doctype html><html><head><title>Argo CD</title></head><body></body></html>").into_response()
}

async fn version(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Json<Value> {
    let known = shared
        .tokens
        .verify(access::bearer(&headers), shared.clock.now())
        .is_ok();
    Json(match known {
        true => json!({
            "Version": shared.config.version, "BuildDate": "2026-08-20T00:00:00Z", "GitTreeState": "clean",
            "Platform": "linux/amd64",
        }),
        false => json!({"Version": shared.config.version}),
    })
}

async fn settings(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Json<Value> {
    let mut settings = json!({
        "url": shared.url, "appLabelKey": "app.kubernetes.io/instance", "trackingMethod": "annotation",
        "appsInAnyNamespaceEnabled": false, "hydratorEnabled": true, "syncWithReplaceAllowed": true,
        "userLoginsDisabled": false,
    });
    if shared
        .tokens
        .verify(access::bearer(&headers), shared.clock.now())
        .is_ok()
    {
        settings["controllerNamespace"] = json!(shared.config.namespace);
    }
    Json(settings)
}

#[derive(Deserialize)]
#[serde(default)]
struct Login {
    username: String,
    password: Password,
}

/// A secret that comes in a body.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Password(Secret);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Secret::new(text))
    }
}

impl Default for Login {
    fn default() -> Self {
        Self {
            username: String::new(),
            password: Password(Secret::new("")),
        }
    }
}

async fn login(State(shared): State<Arc<Shared>>, bytes: Bytes) -> Result<Response, Status> {
    let login: Login = body(&bytes)?;
    let wanted = shared.config.admin_password.expose().as_bytes();
    let same: bool = subtle::ConstantTimeEq::ct_eq(login.password.0.expose().as_bytes(), wanted).into();
    if login.username != "admin" || !same {
        return Err(Status::unauthenticated("Invalid username or password"));
    }
    let (token, _) = shared
        .tokens
        .mint("admin:login", Some(SESSION), shared.clock.now(), None);
    let cookie = format!("argocd.token={}; path=/; SameSite=lax; httpOnly", token.expose());
    Ok((
        [(header::SET_COOKIE, cookie)],
        Json(json!({"token": token.expose()})),
    )
        .into_response())
}

/// It never refuses; who is nobody gets nothing.
async fn user_info(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Json<Value> {
    Json(
        match shared.tokens.verify(access::bearer(&headers), shared.clock.now()) {
            Ok(claims) => {
                let caller = Caller(claims);
                json!({"loggedIn": true, "username": caller.name(), "iss": caller.0.iss})
            }
            Err(_) => json!({}),
        },
    )
}

async fn can_i(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path((resource, action, subresource)): Path<(String, String, String)>,
) -> Json<Value> {
    let project = subresource.split('/').next().unwrap_or_default();
    let everything = !caller.0.sub.starts_with("proj:");
    let may = everything || (resource == "applications" && caller.may(&shared, &action, project));
    Json(json!({"value": if may { "yes" } else { "no" }}))
}
