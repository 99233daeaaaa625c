//! The REST endpoints of Actions: workflows, runs, attempts, jobs and logs.

use super::{Job, Run, Trigger, run, start, workflows};
use crate::github::{
    ApiError, Caller, Hub, Input, Paging, Reply, Repository, answer, no_content, node_id, ok, time,
};
use axum::Router;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) fn routes() -> Router<Arc<Hub>> {
    let actions = "/repos/{owner}/{repo}/actions";
    Router::new()
        .route(&format!("{actions}/workflows"), get(list_workflows))
        .route(&format!("{actions}/workflows/{{id}}/dispatches"), post(dispatch))
        .route(&format!("{actions}/workflows/{{id}}/runs"), get(runs_of_workflow))
        .route(&format!("{actions}/runs"), get(list_runs))
        .route(&format!("{actions}/runs/{{id}}"), get(one_run))
        .route(&format!("{actions}/runs/{{id}}/jobs"), get(jobs))
        .route(
            &format!("{actions}/runs/{{id}}/attempts/{{attempt}}"),
            get(attempt),
        )
        .route(
            &format!("{actions}/runs/{{id}}/attempts/{{attempt}}/jobs"),
            get(jobs_of_attempt),
        )
        .route(&format!("{actions}/runs/{{id}}/rerun"), post(rerun))
        .route(&format!("{actions}/runs/{{id}}/rerun-failed-jobs"), post(rerun))
        .route(&format!("{actions}/runs/{{id}}/cancel"), post(cancel))
        .route(&format!("{actions}/jobs/{{id}}"), get(one_job))
        .route(&format!("{actions}/jobs/{{id}}/logs"), get(logs))
}

/// A number for a workflow file that stays the same.
fn workflow_id(path: &str) -> u64 {
    path.bytes()
        .fold(17_u64, |hash, byte| (hash * 131 + u64::from(byte)) % 999_999_937)
}

pub(super) fn workflow_json(hub: &Hub, repository: &Repository, path: &str, name: &str) -> Value {
    let id = workflow_id(path);
    let html = format!("{}/{}", hub.base, repository.slug);
    json!({
        "id": id, "node_id": node_id("Workflow", id), "name": name, "path": path, "state": "active",
        "created_at": time(repository.created), "updated_at": time(repository.created),
        "url": format!("{}/repos/{}/actions/workflows/{id}", hub.api(), repository.slug),
        "html_url": format!("{html}/blob/{}/{path}", repository.default_branch),
        "badge_url": format!("{html}/actions/{path}/badge.svg"),
    })
}

pub(super) fn run_json(hub: &Hub, repository: &Repository, run: &Run) -> Value {
    let api = format!("{}/repos/{}/actions/runs/{}", hub.api(), run.repository, run.id);
    let actor = hub.user_json(&hub.actor(&run.actor));
    let head = &run.plan.payload["head_commit"];
    let full = hub.repository_json(repository);
    json!({
        "id": run.id, "name": run.workflow, "node_id": node_id("WorkflowRun", run.id),
        "head_branch": run.branch, "head_sha": run.sha, "path": run.path, "display_title": run::title(run),
        "run_number": run.number, "run_attempt": run.attempt, "event": run.event, "status": run.status,
        "conclusion": run.conclusion, "workflow_id": workflow_id(&run.path), "check_suite_id": run.id,
        "check_suite_node_id": node_id("CheckSuite", run.id), "url": api,
        "html_url": format!("{}/{}/actions/runs/{}", hub.base, run.repository, run.id), "pull_requests": [],
        "created_at": time(run.created), "updated_at": time(run.updated), "run_started_at": time(run.started),
        "actor": actor, "triggering_actor": actor, "referenced_workflows": [],
        "jobs_url": format!("{api}/jobs"), "logs_url": format!("{api}/logs"),
        "check_suite_url": format!("{}/repos/{}/check-suites/{}", hub.api(), run.repository, run.id),
        "artifacts_url": format!("{api}/artifacts"), "cancel_url": format!("{api}/cancel"),
        "rerun_url": format!("{api}/rerun"), "previous_attempt_url": (run.attempt > 1)
            .then(|| format!("{api}/attempts/{}", run.attempt - 1)),
        "workflow_url": format!("{}/repos/{}/actions/workflows/{}", hub.api(), run.repository, workflow_id(&run.path)),
        "head_commit": {
            "id": run.sha, "tree_id": head["tree_id"], "message": head["message"].as_str().unwrap_or_default(),
            "timestamp": head["timestamp"], "author": head["author"], "committer": head["committer"],
        },
        "repository": full, "head_repository": full,
    })
}

fn job_json(hub: &Hub, run: &Run, job: &Job) -> Value {
    let api = format!("{}/repos/{}", hub.api(), run.repository);
    let steps: Vec<Value> = job
        .steps
        .iter()
        .map(|step| {
            json!({
                "name": step.name, "status": "completed", "conclusion": step.conclusion, "number": step.number,
                "started_at": time(step.started), "completed_at": time(step.completed),
            })
        })
        .collect();
    json!({
        "id": job.id, "run_id": run.id, "run_url": format!("{api}/actions/runs/{}", run.id),
        "run_attempt": run.attempt, "node_id": node_id("CheckRun", job.id), "head_sha": run.sha,
        "head_branch": run.branch, "workflow_name": run.workflow, "url": format!("{api}/actions/jobs/{}", job.id),
        "html_url": format!("{}/{}/actions/runs/{}/job/{}", hub.base, run.repository, run.id, job.id),
        "status": job.status, "conclusion": job.conclusion, "created_at": time(run.started),
        "started_at": time(job.started.unwrap_or(run.started)), "completed_at": job.completed.map(time),
        "name": job.name, "steps": steps, "check_run_url": format!("{api}/check-runs/{}", job.id),
        "labels": ["self-hosted"], "runner_id": 1, "runner_name": "towpath-lab", "runner_group_id": 1,
        "runner_group_name": "Default",
    })
}

async fn list_workflows(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let mut all = Vec::new();
    if let Some(sha) = repository
        .git
        .resolve(&repository.default_branch, "commit")
        .await?
    {
        for (path, parsed) in workflows(&repository, &sha).await? {
            let name = parsed
                .ok()
                .and_then(|workflow| workflow.name)
                .unwrap_or_else(|| path.clone());
            all.push(workflow_json(&hub, &repository, &path, &name));
        }
    }
    Ok(ok(&json!({"total_count": all.len(), "workflows": all})))
}

#[derive(Debug, Deserialize)]
struct Dispatch {
    #[serde(rename = "ref")]
    reference: String,
    #[serde(default)]
    inputs: BTreeMap<String, Value>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

fn is_workflow(path: &str, wanted: &str) -> bool {
    workflow_id(path).to_string() == wanted || path.rsplit('/').next() == Some(wanted)
}

async fn dispatch(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id)): Path<(String, String, String)>,
    Input(body): Input<Dispatch>,
) -> Reply {
    let (repository, actor) = hub.writable(&caller, &owner, &repo, "actions")?;
    // This version of the server does not know what newer ones do with `return_run_details`.
    if let Some(field) = body.others.keys().next() {
        return Err(ApiError::unprocessable(format!(
            "Invalid request.\n\n\"{field}\" is not a permitted key."
        )));
    }
    if body.inputs.len() > 10 {
        return Err(ApiError::unprocessable("Too many inputs: at most 10 are allowed"));
    }
    let branch = body
        .reference
        .strip_prefix("refs/heads/")
        .unwrap_or(&body.reference)
        .to_owned();
    let missing = || ApiError::unprocessable(format!("No ref found for: {}", body.reference));
    let commit = repository
        .git
        .commit(&format!("refs/heads/{branch}"))
        .await?
        .ok_or_else(missing)?;
    let found = workflows(&repository, &commit.sha)
        .await?
        .into_iter()
        .find(|(path, _)| is_workflow(path, &id));
    let (path, parsed) = found.ok_or_else(ApiError::not_found)?;
    if !parsed.as_ref().is_ok_and(|workflow| workflow.dispatch) {
        return Err(ApiError::unprocessable(
            "Workflow does not have 'workflow_dispatch' trigger",
        ));
    }
    let payload = json!({
        "ref": format!("refs/heads/{branch}"), "inputs": body.inputs, "workflow": path,
        "repository": hub.repository_json(&repository), "sender": hub.user_json(&actor),
    });
    let inputs = json!(body.inputs);
    let trigger = Trigger {
        event: "workflow_dispatch",
        branch,
        sha: commit.sha,
        payload,
        inputs,
    };
    start(&hub, &repository, path, parsed, trigger, &actor);
    Ok(no_content())
}

#[derive(Debug, Deserialize)]
struct Filter {
    head_sha: Option<String>,
    branch: Option<String>,
    event: Option<String>,
    status: Option<String>,
    actor: Option<String>,
    created: Option<String>,
}

impl Filter {
    fn takes(&self, run: &Run) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        is(&self.head_sha, &run.sha)
            && is(&self.branch, &run.branch)
            && is(&self.event, &run.event)
            && is(&self.actor, &run.actor)
            && self
                .status
                .as_ref()
                .is_none_or(|wanted| *wanted == run.status || run.conclusion.as_ref() == Some(wanted))
            && self.created.as_ref().is_none_or(|range| {
                let at = |text: &str| text.parse::<jiff::Timestamp>().ok();
                range
                    .strip_prefix(">=")
                    .and_then(at)
                    .is_none_or(|since| run.created >= since)
            })
    }
}

fn list(
    hub: &Hub,
    repository: &Repository,
    paging: Paging,
    uri: &axum::http::Uri,
    takes: impl Fn(&Run) -> bool,
) -> Reply {
    let mut all = hub.actions.runs();
    all.retain(|run| run.repository == repository.slug && takes(run));
    all.reverse();
    let total = all.len();
    let page: Vec<Value> = paging
        .slice(all)
        .iter()
        .map(|run| run_json(hub, repository, run))
        .collect();
    Ok(paging.link(
        ok(&json!({"total_count": total, "workflow_runs": page})),
        &hub.base,
        uri,
        total,
    ))
}

async fn list_runs(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Query(filter): Query<Filter>,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    list(&hub, &repository, paging, &uri, |run| filter.takes(run))
}

async fn runs_of_workflow(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id)): Path<(String, String, String)>,
    Query(filter): Query<Filter>,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    list(&hub, &repository, paging, &uri, |run| {
        is_workflow(&run.path, &id) && filter.takes(run)
    })
}

type At = Path<(String, String, u64)>;

fn find(hub: &Hub, repository: &Repository, id: u64) -> Reply<Run> {
    hub.actions
        .run(id)
        .filter(|run| run.repository == repository.slug)
        .ok_or_else(ApiError::not_found)
}

async fn one_run(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, id)): At) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    Ok(ok(&run_json(&hub, &repository, &find(&hub, &repository, id)?)))
}

fn find_attempt(hub: &Hub, repository: &Repository, id: u64, attempt: u64) -> Reply<Run> {
    let run = find(hub, repository, id)?;
    if run.attempt == attempt {
        return Ok(run);
    }
    run.earlier
        .iter()
        .find(|earlier| earlier.attempt == attempt)
        .cloned()
        .ok_or_else(ApiError::not_found)
}

async fn attempt(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id, attempt)): Path<(String, String, u64, u64)>,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    Ok(ok(&run_json(
        &hub,
        &repository,
        &find_attempt(&hub, &repository, id, attempt)?,
    )))
}

fn job_list(hub: &Hub, run: &Run, paging: Paging, uri: &axum::http::Uri) -> Reply {
    let total = run.jobs.len();
    let page: Vec<Value> = paging
        .slice(run.jobs.clone())
        .iter()
        .map(|job| job_json(hub, run, job))
        .collect();
    Ok(paging.link(
        ok(&json!({"total_count": total, "jobs": page})),
        &hub.base,
        uri,
        total,
    ))
}

async fn jobs(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id)): At,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    job_list(&hub, &find(&hub, &repository, id)?, paging, &uri)
}

async fn jobs_of_attempt(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id, attempt)): Path<(String, String, u64, u64)>,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    job_list(&hub, &find_attempt(&hub, &repository, id, attempt)?, paging, &uri)
}

async fn rerun(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, id)): At) -> Reply {
    let (repository, _) = hub.writable(&caller, &owner, &repo, "actions")?;
    let found = find(&hub, &repository, id)?;
    if found.status != "completed" {
        return Err(ApiError::forbidden("This workflow is already running"));
    }
    run::again(&hub, &repository, &found);
    Ok(answer(StatusCode::CREATED, &json!({})))
}

async fn cancel(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, id)): At) -> Reply {
    let (repository, _) = hub.writable(&caller, &owner, &repo, "actions")?;
    let run = find(&hub, &repository, id)?;
    if run.status == "completed" {
        return Err(ApiError::conflict(
            "Cannot cancel a workflow run that is completed.",
        ));
    }
    run.cancel.cancel();
    Ok(answer(StatusCode::ACCEPTED, &json!({})))
}

fn find_job(hub: &Hub, repository: &Repository, id: u64) -> Reply<(Run, Job)> {
    let runs = hub
        .actions
        .runs()
        .into_iter()
        .filter(|run| run.repository == repository.slug);
    let attempts = runs.flat_map(|run| run.earlier.clone().into_iter().chain([run]));
    attempts
        .into_iter()
        .find_map(|run| {
            run.jobs
                .iter()
                .find(|job| job.id == id)
                .cloned()
                .map(|job| (run, job))
        })
        .ok_or_else(ApiError::not_found)
}

async fn one_job(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, id)): At) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let (run, job) = find_job(&hub, &repository, id)?;
    Ok(ok(&job_json(&hub, &run, &job)))
}

/// The log as plain text. GitHub redirects to a store that needs no credentials; the lab answers at once.
async fn logs(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, id)): At) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    caller.known()?;
    let (_, job) = find_job(&hub, &repository, id)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], job.log).into_response())
}
