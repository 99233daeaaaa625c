//! Commit statuses and check runs: what others say about a commit.

use super::hub::{Caller, Hub, Repository};
use super::render::node_id;
use super::reply::{ApiError, Input, Paging, Reply, created, ok, time};
use axum::Router;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route(
            "/repos/{owner}/{repo}/statuses/{sha}",
            get(list_by_old_route).post(create_status),
        )
        .route("/repos/{owner}/{repo}/check-runs", post(create_check))
        .route(
            "/repos/{owner}/{repo}/check-runs/{id}",
            get(check).patch(update_check),
        )
        .route(
            "/repos/{owner}/{repo}/check-runs/{id}/annotations",
            get(annotations),
        )
}

/// One status of a commit. The newest of a context is the one that counts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The number on the server.
    pub id: u64,
    /// The commit.
    pub sha: String,
    /// What it is about.
    pub context: String,
    /// `error`, `failure`, `pending` or `success`.
    pub state: String,
    /// A short text.
    pub description: Option<String>,
    /// Where to read more.
    pub target_url: Option<String>,
    /// Who set it.
    pub creator: String,
    /// When.
    pub created: jiff::Timestamp,
}

/// One check run on a commit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckRun {
    /// The number on the server.
    pub id: u64,
    /// The commit.
    pub sha: String,
    /// The name.
    pub name: String,
    /// `queued`, `in_progress` or `completed`.
    pub status: String,
    /// How it ended.
    pub conclusion: Option<String>,
    /// What its maker calls it.
    pub external_id: String,
    /// Where to read more.
    pub details_url: Option<String>,
    /// Title, summary and text, as they were sent.
    pub output: Value,
    /// All annotations, in the order they came.
    pub annotations: Vec<Value>,
    /// The slug of the app that made it; GitHub's own for the jobs of Actions.
    pub app: String,
    /// When it started.
    pub started: Option<jiff::Timestamp>,
    /// When it ended.
    pub completed: Option<jiff::Timestamp>,
}

#[derive(Debug, Deserialize)]
struct NewStatus {
    state: String,
    context: Option<String>,
    description: Option<String>,
    target_url: Option<String>,
}

async fn create_status(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, sha)): Path<(String, String, String)>,
    Input(new): Input<NewStatus>,
) -> Reply {
    let (repository, actor) = hub.writable(&caller, &owner, &repo, "statuses")?;
    let commit = repository
        .git
        .commit(&sha)
        .await?
        .filter(|commit| commit.sha.eq_ignore_ascii_case(&sha));
    let commit = commit.ok_or_else(|| ApiError::unprocessable(format!("No commit found for SHA: {sha}")))?;
    if !matches!(new.state.as_str(), "error" | "failure" | "pending" | "success") {
        return Err(ApiError::validation(
            "Status",
            "state",
            "custom",
            "state is not included in the list",
        ));
    }
    if new
        .description
        .as_ref()
        .is_some_and(|text| text.chars().count() > 140)
    {
        return Err(ApiError::validation(
            "Status",
            "description",
            "custom",
            "description is too long (maximum is 140 characters)",
        ));
    }
    let status = Status {
        id: hub.next_id(),
        sha: commit.sha.clone(),
        context: new.context.unwrap_or_else(|| "default".into()),
        state: new.state,
        description: new.description,
        target_url: new.target_url.filter(|url| !url.is_empty()),
        creator: actor.login.clone(),
        created: jiff::Timestamp::now(),
    };
    {
        let mut records = repository.records();
        let same = |other: &&Status| other.sha == status.sha && other.context == status.context;
        if records.statuses.iter().filter(same).count() >= 1000 {
            return Err(ApiError::unprocessable(
                "This SHA and context has reached the maximum number of statuses.",
            ));
        }
        records.statuses.push(status.clone());
    }
    let payload = json!({
        "id": status.id, "sha": status.sha, "name": repository.slug.to_string(), "context": status.context,
        "state": status.state, "description": status.description, "target_url": status.target_url,
        "commit": hub.commit_json(&repository, &commit), "branches": [],
        "created_at": time(status.created), "updated_at": time(status.created),
        "repository": hub.repository_json(&repository), "sender": hub.user_json(&actor),
    });
    hub.emit(&repository, "status", &payload);
    Ok(created(&status_json(&hub, &repository, &status)))
}

fn status_json(hub: &Hub, repository: &Repository, status: &Status) -> Value {
    let creator = hub.user_json(&hub.actor(&status.creator));
    json!({
        "url": format!("{}/repos/{}/statuses/{}", hub.api(), repository.slug, status.sha),
        "avatar_url": creator["avatar_url"], "id": status.id, "node_id": node_id("StatusContext", status.id),
        "state": status.state, "description": status.description, "target_url": status.target_url,
        "context": status.context, "created_at": time(status.created), "updated_at": time(status.created),
        "creator": creator,
    })
}

fn of(repository: &Repository, sha: &str) -> Vec<Status> {
    let mut all: Vec<Status> = repository
        .records()
        .statuses
        .iter()
        .filter(|status| status.sha == sha)
        .cloned()
        .collect();
    all.reverse();
    all
}

/// `GET /commits/{ref}/statuses`: all of them, newest first.
pub(super) fn list(hub: &Hub, repository: &Repository, sha: &str, paging: Paging, uri: &Uri) -> Response {
    let all = of(repository, sha);
    let total = all.len();
    let page: Value = paging
        .slice(all)
        .iter()
        .map(|status| status_json(hub, repository, status))
        .collect();
    paging.link(ok(&page), &hub.base, uri, total)
}

/// `GET /statuses/{ref}`, which GitHub documents as the older form of the same list. PyGithub asks here.
async fn list_by_old_route(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, revision)): Path<(String, String, String)>,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let commit = repository.git.commit(&revision).await?;
    let commit =
        commit.ok_or_else(|| ApiError::unprocessable(format!("No commit found for SHA: {revision}")))?;
    Ok(list(&hub, &repository, &commit.sha, paging, &uri))
}

/// The newest status of each context.
fn latest(repository: &Repository, sha: &str) -> Vec<Status> {
    let mut contexts = BTreeSet::new();
    of(repository, sha)
        .into_iter()
        .filter(|status| contexts.insert(status.context.clone()))
        .collect()
}

/// `GET /commits/{ref}/status`: one word for all contexts, `pending` where there are none.
pub(super) fn combined(hub: &Hub, repository: &Repository, sha: &str, paging: Paging, uri: &Uri) -> Response {
    let all = latest(repository, sha);
    let any = |states: &[&str]| all.iter().any(|status| states.contains(&status.state.as_str()));
    let state = if any(&["failure", "error"]) {
        "failure"
    } else if all.is_empty() || any(&["pending"]) {
        "pending"
    } else {
        "success"
    };
    let total = all.len();
    let api = format!("{}/repos/{}/commits/{sha}", hub.api(), repository.slug);
    let body = json!({
        "state": state, "total_count": total, "sha": sha, "repository": hub.repository_json(repository),
        "statuses": paging.slice(all).iter().map(|status| status_json(hub, repository, status)).collect::<Vec<_>>(),
        "commit_url": api, "url": format!("{api}/status"),
    });
    paging.link(ok(&body), &hub.base, uri, total)
}

/// Which of these required contexts have not succeeded on a commit.
pub(super) fn unmet(repository: &Repository, sha: &str, required: &[String]) -> Vec<String> {
    let statuses = latest(repository, sha);
    let checks = repository.records().checks.clone();
    let met = |name: &String| {
        statuses
            .iter()
            .any(|status| status.context == *name && status.state == "success")
            || checks
                .iter()
                .rfind(|check| check.sha == sha && check.name == *name)
                .and_then(|check| check.conclusion.as_deref())
                .is_some_and(|conclusion| matches!(conclusion, "success" | "neutral" | "skipped"))
    };
    required.iter().filter(|name| !met(name)).cloned().collect()
}

#[derive(Debug, Deserialize)]
struct CheckBody {
    name: Option<String>,
    head_sha: Option<String>,
    status: Option<String>,
    conclusion: Option<String>,
    external_id: Option<String>,
    details_url: Option<String>,
    started_at: Option<jiff::Timestamp>,
    completed_at: Option<jiff::Timestamp>,
    output: Option<Value>,
}

impl CheckBody {
    fn apply(self, check: &mut CheckRun) -> Reply<()> {
        const CONCLUSIONS: [&str; 8] = [
            "action_required",
            "cancelled",
            "failure",
            "neutral",
            "success",
            "skipped",
            "stale",
            "timed_out",
        ];
        let invalid =
            |field: &str, message: &str| ApiError::validation("CheckRun", field, "invalid", message);
        if let Some(output) = &self.output {
            for field in ["summary", "text"] {
                if output[field]
                    .as_str()
                    .is_some_and(|text| text.chars().count() > 65_535)
                {
                    return Err(invalid(field, "Only 65535 characters are allowed"));
                }
            }
            let annotations = output["annotations"].as_array().cloned().unwrap_or_default();
            if annotations.len() > 50 {
                return Err(invalid(
                    "annotations",
                    "Only 50 annotations are allowed per request",
                ));
            }
            for annotation in &annotations {
                let complete = ["path", "annotation_level", "message"]
                    .iter()
                    .all(|key| annotation[key].is_string())
                    && ["start_line", "end_line"]
                        .iter()
                        .all(|key| annotation[key].is_u64());
                if !complete {
                    return Err(invalid(
                        "annotations",
                        "An annotation needs path, start_line, end_line, annotation_level and message",
                    ));
                }
            }
            check.annotations.extend(annotations);
            for field in ["title", "summary", "text"] {
                if !output[field].is_null() {
                    check.output[field] = output[field].clone();
                }
            }
        }
        if let Some(status) = self.status {
            if !matches!(status.as_str(), "queued" | "in_progress" | "completed") {
                return Err(invalid(
                    "status",
                    "status must be queued, in_progress or completed",
                ));
            }
            check.status = status;
        }
        if let Some(conclusion) = self.conclusion {
            if !CONCLUSIONS.contains(&conclusion.as_str()) {
                return Err(invalid(
                    "conclusion",
                    "conclusion is not one of those that the API knows",
                ));
            }
            check.status = "completed".into();
            check.conclusion = Some(conclusion);
            check.completed = Some(self.completed_at.unwrap_or_else(jiff::Timestamp::now));
        } else if check.status == "completed" && check.conclusion.is_none() {
            return Err(invalid(
                "conclusion",
                "conclusion is required when status is completed",
            ));
        }
        check.name = self.name.unwrap_or_else(|| check.name.clone());
        check.external_id = self.external_id.unwrap_or_else(|| check.external_id.clone());
        check.details_url = self.details_url.or_else(|| check.details_url.clone());
        check.started = self.started_at.or(check.started);
        Ok(())
    }
}

async fn create_check(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Input(body): Input<CheckBody>,
) -> Reply {
    let (repository, actor) = hub.writable(&caller, &owner, &repo, "checks")?;
    let missing =
        |field: &str| ApiError::unprocessable(format!("Invalid request.\n\n\"{field}\" wasn't supplied."));
    let sha = body.head_sha.clone().ok_or_else(|| missing("head_sha"))?;
    let name = body.name.clone().ok_or_else(|| missing("name"))?;
    let sha = repository.git.resolve(&sha, "commit").await?;
    let mut check = CheckRun {
        id: hub.next_id(),
        sha: sha.ok_or_else(|| ApiError::unprocessable("No commit found for SHA"))?,
        name,
        status: "queued".into(),
        conclusion: None,
        external_id: String::new(),
        details_url: None,
        output: json!({"title": null, "summary": null, "text": null}),
        annotations: Vec::new(),
        app: if actor.login == super::hub::BOT {
            "github-actions".into()
        } else {
            actor.login
        },
        started: Some(jiff::Timestamp::now()),
        completed: None,
    };
    body.apply(&mut check)?;
    repository.records().checks.push(check.clone());
    Ok(created(&check_json(&hub, &repository, &check)))
}

async fn update_check(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id)): Path<(String, String, u64)>,
    Input(body): Input<CheckBody>,
) -> Reply {
    let (repository, _) = hub.writable(&caller, &owner, &repo, "checks")?;
    let check = {
        let mut records = repository.records();
        let found = records
            .checks
            .iter_mut()
            .find(|check| check.id == id)
            .ok_or_else(ApiError::not_found)?;
        let mut changed = found.clone();
        body.apply(&mut changed)?;
        *found = changed.clone();
        changed
    };
    Ok(ok(&check_json(&hub, &repository, &check)))
}

async fn check(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id)): Path<(String, String, u64)>,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let found = repository
        .records()
        .checks
        .iter()
        .find(|check| check.id == id)
        .cloned();
    Ok(ok(&check_json(
        &hub,
        &repository,
        &found.ok_or_else(ApiError::not_found)?,
    )))
}

async fn annotations(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id)): Path<(String, String, u64)>,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let found = repository
        .records()
        .checks
        .iter()
        .find(|check| check.id == id)
        .cloned();
    let all = found.ok_or_else(ApiError::not_found)?.annotations;
    let total = all.len();
    Ok(paging.link(ok(&Value::Array(paging.slice(all))), &hub.base, &uri, total))
}

fn check_json(hub: &Hub, repository: &Repository, check: &CheckRun) -> Value {
    let url = format!("{}/repos/{}/check-runs/{}", hub.api(), repository.slug, check.id);
    let html = format!("{}/{}/runs/{}", hub.base, repository.slug, check.id);
    let mut output = check.output.clone();
    output["annotations_count"] = json!(check.annotations.len());
    output["annotations_url"] = json!(format!("{url}/annotations"));
    let owner = hub.user_json(&hub.actor(repository.slug.owner()));
    let app_id = check
        .app
        .bytes()
        .fold(7_u64, |hash, byte| (hash * 31 + u64::from(byte)) % 1_000_003);
    json!({
        "id": check.id, "node_id": node_id("CheckRun", check.id), "name": check.name, "head_sha": check.sha,
        "external_id": check.external_id, "url": url, "html_url": html,
        "details_url": check.details_url.as_ref().unwrap_or(&html),
        "status": check.status, "conclusion": check.conclusion, "started_at": check.started.map(time),
        "completed_at": check.completed.map(time), "output": output, "check_suite": {"id": app_id},
        "app": {
            "id": app_id, "slug": check.app, "node_id": node_id("App", app_id), "owner": owner,
            "name": if check.app == "github-actions" { "GitHub Actions" } else { &check.app },
            "description": "", "external_url": hub.base, "html_url": format!("{}/github-apps/{}", hub.base, check.app),
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            "permissions": BTreeMap::from([("checks", "write")]), "events": [],
        },
        "pull_requests": [],
    })
}

/// What `GET /commits/{ref}/check-runs` can be narrowed to.
#[derive(Debug, Deserialize)]
pub(super) struct CheckFilter {
    check_name: Option<String>,
    status: Option<String>,
    filter: Option<String>,
}

/// `GET /commits/{ref}/check-runs`: the newest of each name and app, unless all are asked for.
pub(super) fn checks(
    hub: &Hub,
    repository: &Repository,
    sha: &str,
    filter: &CheckFilter,
    paging: Paging,
    uri: &Uri,
) -> Response {
    let mut all = repository.records().checks.clone();
    all.reverse();
    let mut seen = BTreeSet::new();
    all.retain(|check| {
        check.sha == sha
            && filter.check_name.as_ref().is_none_or(|name| *name == check.name)
            && filter
                .status
                .as_ref()
                .is_none_or(|status| *status == check.status)
            && (filter.filter.as_deref() == Some("all")
                || seen.insert((check.app.clone(), check.name.clone())))
    });
    let total = all.len();
    let page: Vec<Value> = paging
        .slice(all)
        .iter()
        .map(|check| check_json(hub, repository, check))
        .collect();
    paging.link(
        ok(&json!({"total_count": total, "check_runs": page})),
        &hub.base,
        uri,
        total,
    )
}
