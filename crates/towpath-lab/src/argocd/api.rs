//! The routes, what stands in front of them, and the parts of the API that are not about Applications.

use super::access::{self, Caller};
use super::error::{Status, text};
use super::request::{Params, body};
use super::{Shared, actions, applications, stream, views, webhook};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{delete, get, post, put};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use towpath_core::Secret;

/// Session tokens live 24 hours (`users.session.duration`).
const SESSION: Duration = Duration::from_secs(24 * 3600);

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let app = "/api/v1/applications/{name}";
    let under = |path: &str| format!("{app}/{path}");
    Router::new()
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
        .route("/api/v1/account/{name}/token", post(create_token))
        .route("/api/v1/account/{name}/token/{id}", delete(delete_token))
        .route("/api/v1/projects", get(projects).post(create_project))
        .route("/api/v1/projects/{name}", get(project))
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
        .route("/api/v1/stream/applications", get(stream::applications))
        .method_not_allowed_fallback(|| async { text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .fallback(no_route)
        .layer(middleware::from_fn(content_type))
        .route("/api/webhook", axum::routing::any(webhook::receive))
        .with_state(shared)
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

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NewToken {
    expires_in: u64,
    id: Option<String>,
}

async fn create_token(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<Value>, Status> {
    let wanted: NewToken = body(&bytes)?;
    if caller.0.sub.starts_with("proj:") {
        return Err(Status::denied());
    }
    if name != shared.config.account {
        return Err(Status::unknown(format!(
            "account '{name}' does not have apiKey capability"
        )));
    }
    let lifetime = (wanted.expires_in > 0).then(|| Duration::from_secs(wanted.expires_in));
    let (token, _) = shared.tokens.mint(
        &format!("{name}:apiKey"),
        lifetime,
        shared.clock.now(),
        wanted.id.filter(|id| !id.is_empty()),
    );
    Ok(Json(json!({"token": token.expose()})))
}

async fn delete_token(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path((_name, id)): Path<(String, String)>,
) -> Result<Json<Value>, Status> {
    if caller.0.sub.starts_with("proj:") {
        return Err(Status::denied());
    }
    shared.tokens.revoke(&id);
    Ok(Json(json!({})))
}

fn project_json(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}],
            "clusterResourceWhitelist": [{"group": "*", "kind": "*"}]},
        "status": {},
    })
}

async fn projects(State(shared): State<Arc<Shared>>, caller: Caller, params: Params) -> Json<Value> {
    let projects = shared.projects.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = params.get("name");
    let items: Vec<Value> = projects
        .iter()
        .filter(|project| {
            wanted.is_none_or(|wanted| wanted == *project) && caller.may(&shared, "get", project)
        })
        .map(|project| project_json(project))
        .collect();
    Json(json!({"metadata": {}, "items": items}))
}

async fn project(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Status> {
    if !caller.may(&shared, "get", &name) {
        return Err(Status::denied());
    }
    let projects = shared.projects.lock().unwrap_or_else(PoisonError::into_inner);
    match projects.contains(&name) {
        true => Ok(Json(project_json(&name))),
        false => Err(Status::not_found("appprojects.argoproj.io", &name)),
    }
}

async fn create_project(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    bytes: Bytes,
) -> Result<Json<Value>, Status> {
    let request: Value = body(&bytes)?;
    if caller.0.sub.starts_with("proj:") {
        return Err(Status::denied());
    }
    let name = request
        .pointer("/project/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if name.is_empty() {
        return Err(Status::invalid("project name is missing"));
    }
    let mut projects = shared.projects.lock().unwrap_or_else(PoisonError::into_inner);
    projects.insert(name.to_owned());
    Ok(Json(project_json(name)))
}
