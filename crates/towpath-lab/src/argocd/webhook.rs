//! `POST /api/webhook`, for GitHub's push event (`util/webhook`): it matches Applications by repository and branch, and
//! asks for a refresh of each. The refresh happens later; 200 does not mean that it has.

use super::Shared;
use super::error::text;
use super::model::Source;
use super::token::hmac_sha256;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::sync::Arc;
use url::Url;

/// `webhook.maxPayloadSizeMB`.
const LARGEST: usize = 50 << 20;
const PATHS: &str = "argocd.argoproj.io/manifest-generate-paths";

pub(super) async fn receive(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    let (parts, body) = request.into_parts();
    let event = parts
        .headers
        .get("x-github-event")
        .and_then(|value| value.to_str().ok());
    let Some(event) = event else {
        return text(StatusCode::BAD_REQUEST, "Unknown webhook event");
    };
    match accept(&shared, event, &parts.headers, body).await {
        Ok(Some(push)) => {
            let worker = shared.clone();
            shared.tasks.spawn(async move { refresh(&worker, &push) });
            StatusCode::OK.into_response()
        }
        Ok(None) => StatusCode::OK.into_response(),
        Err(why) => {
            tracing::debug!(why, "webhook refused");
            text(StatusCode::BAD_REQUEST, "Webhook processing failed")
        }
    }
}

/// What a push event says.
struct Push {
    branch: String,
    html_url: String,
    default_branch: String,
    changed: Vec<String>,
}

async fn accept(
    shared: &Shared,
    event: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Option<Push>, &'static str> {
    let bytes = to_bytes(body, LARGEST)
        .await
        .map_err(|_| "the payload is too large or incomplete")?;
    if !matches!(event, "push" | "ping") {
        return Err("event not defined to be parsed");
    }
    if let Some(secret) = &shared.config.webhook_secret {
        let signature = headers
            .get("x-hub-signature-256")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("sha256="))
            .and_then(|value| hex::decode(value).ok())
            .ok_or("missing X-Hub-Signature-256 Header")?;
        let expected = hmac_sha256(secret.expose().as_bytes(), &bytes);
        if !bool::from(subtle::ConstantTimeEq::ct_eq(
            signature.as_slice(),
            expected.as_slice(),
        )) {
            return Err("HMAC verification failed");
        }
    }
    let payload: Value = serde_json::from_slice(&bytes).map_err(|_| "error parsing payload")?;
    if event == "ping" {
        return Ok(None);
    }
    let words = |pointer: &str| {
        payload
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let reference = words("/ref");
    let commits = payload.get("commits").and_then(Value::as_array);
    let changed = commits
        .into_iter()
        .flatten()
        .flat_map(|commit| {
            ["added", "modified", "removed"].map(|list| commit.get(list).and_then(Value::as_array))
        })
        .flatten()
        .flatten()
        .filter_map(|path| path.as_str().map(ToOwned::to_owned))
        .collect();
    Ok(Some(Push {
        branch: reference.splitn(3, '/').nth(2).unwrap_or(&reference).to_owned(),
        html_url: words("/repository/html_url"),
        default_branch: words("/repository/default_branch"),
        changed,
    }))
}

fn refresh(shared: &Shared, push: &Push) {
    for app in shared.store.all() {
        let paths = app.metadata.annotations.get(PATHS);
        let mut sources = app.spec.given_sources().into_iter();
        let concerned = sources.any(|source| concerns(push, &source, paths));
        if concerned {
            super::applications::request_refresh(shared, &app.metadata.name, "normal");
        }
    }
}

fn concerns(push: &Push, source: &Source, paths: Option<&String>) -> bool {
    let target = source.target();
    let branch = match target {
        "HEAD" => push.branch == push.default_branch,
        target => target.strip_prefix("refs/heads/").unwrap_or(target) == push.branch,
    };
    branch && same_repository(&push.html_url, &source.repo_url) && touches(push, source, paths)
}

/// Whether a changed file is one that the Application is made of; without the annotation, or without a list of changes,
/// every push counts.
fn touches(push: &Push, source: &Source, paths: Option<&String>) -> bool {
    let Some(paths) = paths.filter(|paths| !paths.is_empty()) else {
        return true;
    };
    if push.changed.is_empty() {
        return true;
    }
    paths.split(';').any(|path| {
        let folder = match path.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => format!("{}/{path}", source.path),
        };
        let folder: Vec<&str> = folder
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        push.changed.iter().any(|changed| {
            let parts: Vec<&str> = changed.split('/').collect();
            parts.starts_with(&folder)
        })
    })
}

/// Compares host and path; the scheme, the user, the port, letter case and `.git` make no difference.
fn same_repository(html_url: &str, repo_url: &str) -> bool {
    match (location(html_url), location(repo_url)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

fn location(url: &str) -> Option<String> {
    let (host, path) = match Url::parse(url) {
        Ok(parsed) => (
            parsed.host_str().unwrap_or_default().to_owned(),
            parsed.path().to_owned(),
        ),
        // `git@host:owner/repo.git`
        Err(_) => {
            let (host, path) = url.split_once(':')?;
            (
                host.rsplit('@').next().unwrap_or_default().to_owned(),
                path.to_owned(),
            )
        }
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    (!path.is_empty()).then(|| format!("{host}/{path}").to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_repository_match() {
        let html = "https://ghe.example/O/deploy";
        for same in [
            "https://ghe.example/o/deploy.git",
            "http://u@ghe.example:8080/o/deploy/",
            "git@ghe.example:o/deploy.git",
            "ssh://git@ghe.example/o/deploy",
        ] {
            assert!(same_repository(html, same), "{same}");
        }
        for other in [
            "https://ghe.example/o/deploy2",
            "https://other.example/o/deploy",
            "",
            "nonsense",
        ] {
            assert!(!same_repository(html, other), "{other}");
        }
    }
}
