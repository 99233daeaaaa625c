//! A run: its jobs in the order of their needs, its state, and who is told about it.

use super::expression::Scope;
use super::job::{Surroundings, execute, machine_env, plain};
use super::workflow::{JobSpec, Pairs, Workflow};
use super::{ARCH, Job, OS, Run, Target, check_of, folder, lock, oidc, routes};
use crate::github::{BOT, Hub, Identity, JobScope, Repository, add_organization};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;
use towpath_core::Secret;

type Results = BTreeMap<String, (String, BTreeMap<String, String>)>;

/// The jobs of a new attempt, each with its check run on the commit.
pub(super) fn new_jobs(hub: &Hub, repository: &Repository, run: &Run) -> Vec<Job> {
    let specs = run
        .plan
        .workflow
        .as_ref()
        .map_or(&[][..], |workflow| &workflow.jobs);
    let jobs: Vec<Job> = specs
        .iter()
        .map(|spec| Job {
            id: hub.next_id(),
            key: spec.id.clone(),
            name: spec.name.clone().unwrap_or_else(|| spec.id.clone()),
            status: "queued".into(),
            conclusion: None,
            steps: Vec::new(),
            outputs: BTreeMap::new(),
            log: String::new(),
            started: None,
            completed: None,
        })
        .collect();
    let checks = jobs.iter().map(|job| check_of(hub, run, job));
    repository.records().checks.extend(checks);
    jobs
}

/// Sets a run going in the background.
pub(super) fn begin(hub: &Arc<Hub>, repository: &Arc<Repository>, run: Run) {
    announce(hub, repository, &run, "requested");
    let (owner, repository) = (Arc::clone(hub), Arc::clone(repository));
    hub.spawn(async move {
        let hub = owner;
        tokio::time::sleep(hub.actions.config.queue_delay).await;
        let conclusion = match run.plan.workflow.clone() {
            None => "startup_failure",
            Some(workflow) => {
                if let Some(run) = hub
                    .actions
                    .change(run.id, |run| run.status = "in_progress".into())
                {
                    announce(&hub, &repository, &run, "in_progress");
                }
                jobs(&hub, &repository, &run, &workflow).await
            }
        };
        let ended = hub.actions.change(run.id, |run| {
            run.status = "completed".into();
            run.conclusion = Some(conclusion.into());
        });
        if let Some(run) = ended {
            announce(&hub, &repository, &run, "completed");
        }
    });
}

/// Makes another attempt of a run that has ended.
pub(super) fn again(hub: &Arc<Hub>, repository: &Arc<Repository>, run: &Run) {
    let mut next = run.clone();
    next.earlier.clear();
    next.attempt += 1;
    next.jobs = new_jobs(hub, repository, &next);
    let next = hub.actions.change(run.id, |run| {
        let mut earlier = std::mem::take(&mut run.earlier);
        earlier.push(run.clone());
        run.earlier = earlier;
        run.attempt = next.attempt;
        run.jobs = next.jobs;
        run.status = "queued".into();
        run.conclusion = None;
        run.started = jiff::Timestamp::now();
        run.cancel = tokio_util::sync::CancellationToken::new();
    });
    if let Some(next) = next {
        begin(hub, repository, next);
    }
}

fn announce(hub: &Arc<Hub>, repository: &Arc<Repository>, run: &Run, action: &str) {
    let mut payload = json!({
        "action": action, "workflow_run": routes::run_json(hub, repository, run),
        "workflow": routes::workflow_json(hub, repository, &run.path, &run.workflow),
        "repository": hub.repository_json(repository), "sender": hub.user_json(&hub.actor(&run.actor)),
    });
    add_organization(hub, repository, &mut payload);
    hub.emit(repository, "workflow_run", &payload);
}

/// Runs the jobs, each once those that it needs have ended, and says what the run came to.
async fn jobs(hub: &Arc<Hub>, repository: &Arc<Repository>, run: &Run, workflow: &Workflow) -> &'static str {
    let mut results = Results::new();
    let mut waiting: Vec<&JobSpec> = workflow.jobs.iter().collect();
    let mut running = JoinSet::new();
    loop {
        let (ready, later): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|spec| spec.needs.iter().all(|need| results.contains_key(need)));
        waiting = later;
        let mut skipped = false;
        for spec in ready {
            let Some(job) = run.jobs.iter().find(|job| job.key == spec.id) else {
                continue;
            };
            let contexts = contexts(hub, run, spec, &results);
            let holds = scope(&contexts, run, spec, &results).holds(spec.condition.as_deref());
            match holds {
                Ok(true) => {
                    let (hub, repository, run) = (Arc::clone(hub), Arc::clone(repository), run.clone());
                    let (spec, job, env) = (spec.clone(), job.clone(), workflow.env.clone());
                    running.spawn(async move {
                        let result = one(&hub, &repository, &run, &spec, &job, env, contexts).await;
                        (spec.id, result)
                    });
                }
                Ok(false) | Err(_) => {
                    skipped = true;
                    let conclusion = if run.cancel.is_cancelled() {
                        "cancelled"
                    } else if holds.is_err() {
                        "failure"
                    } else {
                        "skipped"
                    };
                    update(hub, repository, run.id, job.id, |job| {
                        if let Err(reason) = &holds {
                            job.log = format!("##[error]if: {reason}\n");
                        }
                        finish(job, conclusion);
                    });
                    results.insert(spec.id.clone(), (conclusion.into(), BTreeMap::new()));
                }
            }
        }
        if skipped {
            continue;
        }
        match running.join_next().await {
            Some(Ok((id, result))) => {
                results.insert(id, result);
            }
            Some(Err(error)) => {
                tracing::error!(%error, "a job of the runner did not end");
                return "failure";
            }
            None => break,
        }
    }
    let any = |wanted: &str| results.values().any(|(conclusion, _)| conclusion == wanted);
    if run.cancel.is_cancelled() || any("cancelled") {
        "cancelled"
    } else if any("failure") {
        "failure"
    } else {
        "success"
    }
}

fn scope(contexts: &Map<String, Value>, run: &Run, spec: &JobSpec, results: &Results) -> Scope {
    let mut needed = spec.needs.iter().filter_map(|need| results.get(need));
    Scope {
        success: needed.all(|(conclusion, _)| conclusion == "success"),
        contexts: Value::Object(contexts.clone()),
        cancelled: run.cancel.is_cancelled(),
    }
}

fn finish(job: &mut Job, conclusion: &str) {
    job.status = "completed".into();
    job.conclusion = Some(conclusion.into());
    job.completed = Some(jiff::Timestamp::now());
}

/// Changes a job, and its check run with it.
fn update(hub: &Hub, repository: &Repository, run: u64, job: u64, edit: impl FnOnce(&mut Job)) {
    let changed = hub.actions.change(run, |run| {
        if let Some(job) = run.jobs.iter_mut().find(|other| other.id == job) {
            edit(job);
        }
    });
    let Some(job) = changed.and_then(|run| run.jobs.into_iter().find(|other| other.id == job)) else {
        return;
    };
    if let Some(check) = repository
        .records()
        .checks
        .iter_mut()
        .find(|check| check.id == job.id)
    {
        (check.status, check.conclusion) = (job.status, job.conclusion);
        (check.started, check.completed) = (job.started, job.completed);
    }
}

/// Runs one job.
async fn one(
    hub: &Arc<Hub>,
    repository: &Arc<Repository>,
    run: &Run,
    spec: &JobSpec,
    job: &Job,
    workflow_env: Pairs,
    mut contexts: Map<String, Value>,
) -> (String, BTreeMap<String, String>) {
    update(hub, repository, run.id, job.id, |job| {
        job.status = "in_progress".into();
        job.started = Some(jiff::Timestamp::now());
    });
    let token = format!("ghs_{}", uuid::Uuid::new_v4().simple());
    let scope = JobScope {
        repository: run.repository.clone(),
        writes: spec.permissions.0.clone(),
    };
    hub.add_token(
        &token,
        Identity {
            login: BOT.into(),
            scope: Some(scope),
        },
    );
    let directory = folder(hub, run, job);
    let mut masks = vec![token.clone()];
    masks.extend(
        lock(&hub.actions.secrets)
            .values()
            .map(|secret: &Secret| secret.expose().to_owned()),
    );
    let mut env = contract(hub, run, job, &directory);
    if spec
        .permissions
        .0
        .as_ref()
        .is_some_and(|writes| writes.contains("id-token"))
    {
        let request = uuid::Uuid::new_v4().simple().to_string();
        env.push((
            "ACTIONS_ID_TOKEN_REQUEST_URL".into(),
            oidc::request_url(&hub.base, run.id, job.id),
        ));
        env.push(("ACTIONS_ID_TOKEN_REQUEST_TOKEN".into(), request.clone()));
        masks.push(request.clone());
        let entry = (run.id, job.id, claims(hub, repository, run));
        lock(&hub.actions.identities).insert(request, entry);
    }
    if let Some(github) = contexts.get_mut("github").and_then(Value::as_object_mut) {
        github.insert("token".into(), json!(token));
        github.insert("job".into(), json!(job.key));
        github.insert(
            "workspace".into(),
            json!(directory.join("work").to_string_lossy()),
        );
    }
    if let Some(secrets) = contexts.get_mut("secrets").and_then(Value::as_object_mut) {
        secrets.insert("GITHUB_TOKEN".into(), json!(token));
    }
    let event = directory.join("event.json");
    let written = async {
        tokio::fs::create_dir_all(&directory).await?;
        tokio::fs::write(&event, run.plan.payload.to_string()).await
    };
    if let Err(error) = written.await {
        tracing::error!(%error, "the runner cannot write the event of a job");
    }
    let around = Surroundings {
        target: Target {
            slug: run.repository.clone(),
            sha: run.sha.clone(),
            reference: format!("refs/heads/{}", run.branch),
            server: hub.base.clone(),
        },
        contexts,
        env,
        workflow_env,
        directory,
        token: token.clone(),
        masks,
        cancel: run.cancel.clone(),
        grace: hub.actions.config.cancel_grace,
    };
    let outcome = execute(spec, &around, |steps, log| {
        update(hub, repository, run.id, job.id, |job| {
            job.steps = steps.to_vec();
            log.clone_into(&mut job.log);
        });
    })
    .await;
    hub.revoke_token(&token);
    lock(&hub.actions.identities).retain(|_, (_, of_job, _)| *of_job != job.id);
    if let Some(check) = repository
        .records()
        .checks
        .iter_mut()
        .find(|check| check.id == job.id)
    {
        check.annotations = outcome.log.annotations().to_vec();
    }
    update(hub, repository, run.id, job.id, |job| {
        outcome.log.text().clone_into(&mut job.log);
        job.outputs.clone_from(&outcome.outputs);
        finish(job, outcome.conclusion);
    });
    (outcome.conclusion.to_owned(), outcome.outputs)
}

fn contexts(hub: &Hub, run: &Run, spec: &JobSpec, results: &Results) -> Map<String, Value> {
    let needs: Map<String, Value> = spec
        .needs
        .iter()
        .filter_map(|need| {
            let (result, outputs) = results.get(need)?;
            Some((need.clone(), json!({"result": result, "outputs": outputs})))
        })
        .collect();
    let secrets: BTreeMap<String, String> = lock(&hub.actions.secrets)
        .iter()
        .map(|(name, secret)| (name.clone(), secret.expose().to_owned()))
        .collect();
    let variables = lock(&hub.actions.variables).clone();
    let github = json!({
        "action": "", "actor": run.actor, "triggering_actor": run.actor, "api_url": hub.api(),
        "graphql_url": format!("{}/api/graphql", hub.base), "server_url": hub.base, "event": run.plan.payload,
        "event_name": run.event, "head_ref": "", "base_ref": "", "ref": format!("refs/heads/{}", run.branch),
        "ref_name": run.branch, "ref_type": "branch", "ref_protected": false,
        "repository": run.repository.to_string(), "repository_owner": run.repository.owner(),
        "run_id": run.id.to_string(), "run_number": run.number.to_string(),
        "run_attempt": run.attempt.to_string(), "sha": run.sha, "workflow": run.workflow, "job": spec.id,
    });
    let mut contexts = Map::new();
    contexts.insert("github".into(), github);
    contexts.insert("needs".into(), Value::Object(needs));
    contexts.insert("secrets".into(), json!(secrets));
    contexts.insert("vars".into(), json!(variables));
    contexts.insert("inputs".into(), run.plan.inputs.clone());
    contexts
}

/// The variables that every step of a job sees.
fn contract(hub: &Hub, run: &Run, job: &Job, directory: &std::path::Path) -> Pairs {
    let folder = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let workflow_ref = format!("{}/{}@refs/heads/{}", run.repository, run.path, run.branch);
    let mut env = machine_env();
    env.extend(hub.actions.config.env.iter().cloned());
    let own = [
        ("CI", "true".to_owned()),
        ("GITHUB_ACTIONS", "true".to_owned()),
        ("GITHUB_ACTOR", run.actor.clone()),
        ("GITHUB_TRIGGERING_ACTOR", run.actor.clone()),
        ("GITHUB_API_URL", hub.api()),
        ("GITHUB_SERVER_URL", hub.base.clone()),
        ("GITHUB_GRAPHQL_URL", format!("{}/api/graphql", hub.base)),
        ("GITHUB_EVENT_NAME", run.event.clone()),
        ("GITHUB_EVENT_PATH", folder("event.json")),
        ("GITHUB_JOB", job.key.clone()),
        ("GITHUB_REF", format!("refs/heads/{}", run.branch)),
        ("GITHUB_REF_NAME", run.branch.clone()),
        ("GITHUB_REF_TYPE", "branch".to_owned()),
        ("GITHUB_REF_PROTECTED", "false".to_owned()),
        ("GITHUB_REPOSITORY", run.repository.to_string()),
        ("GITHUB_REPOSITORY_OWNER", run.repository.owner().to_owned()),
        ("GITHUB_RUN_ID", run.id.to_string()),
        ("GITHUB_RUN_NUMBER", run.number.to_string()),
        ("GITHUB_RUN_ATTEMPT", run.attempt.to_string()),
        ("GITHUB_SHA", run.sha.clone()),
        ("GITHUB_WORKFLOW", run.workflow.clone()),
        ("GITHUB_WORKFLOW_REF", workflow_ref),
        ("GITHUB_WORKSPACE", folder("work")),
        ("RUNNER_ENVIRONMENT", "self-hosted".to_owned()),
        ("RUNNER_NAME", "towpath-lab".to_owned()),
        ("RUNNER_OS", OS.to_owned()),
        ("RUNNER_ARCH", ARCH.to_owned()),
        ("RUNNER_TEMP", folder("temp")),
        ("RUNNER_TOOL_CACHE", folder("tools")),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    env
}

/// The claims of the job's OIDC token, but for the times and the audience.
fn claims(hub: &Hub, repository: &Repository, run: &Run) -> Value {
    let owner = hub.actor(run.repository.owner());
    let reference = format!("refs/heads/{}", run.branch);
    let workflow_ref = format!("{}/{}@{reference}", run.repository, run.path);
    json!({
        "sub": format!("repo:{}:ref:{reference}", run.repository), "ref": reference, "ref_type": "branch",
        "ref_protected": "false", "sha": run.sha, "repository": run.repository.to_string(),
        "repository_id": repository.id.to_string(), "repository_owner": owner.login,
        "repository_owner_id": owner.id.to_string(),
        "repository_visibility": if repository.private { "private" } else { "public" },
        "run_id": run.id.to_string(), "run_number": run.number.to_string(),
        "run_attempt": run.attempt.to_string(), "actor": run.actor,
        "actor_id": hub.actor(&run.actor).id.to_string(), "workflow": run.workflow, "workflow_ref": workflow_ref,
        "workflow_sha": run.sha, "job_workflow_ref": workflow_ref, "job_workflow_sha": run.sha,
        "event_name": run.event, "head_ref": "", "base_ref": "", "runner_environment": "self-hosted",
    })
}

/// The title of a run: `run-name` where the workflow has one and it can be evaluated.
pub(super) fn title(run: &Run) -> String {
    let name = run
        .plan
        .workflow
        .as_ref()
        .and_then(|workflow| workflow.run_name.as_ref());
    let contexts = json!({
        "github": {"sha": run.sha, "ref_name": run.branch, "actor": run.actor, "event_name": run.event,
            "event": run.plan.payload},
        "inputs": run.plan.inputs,
    });
    let scope = Scope {
        contexts,
        success: true,
        cancelled: false,
    };
    name.and_then(|name| scope.fill(name).ok())
        .unwrap_or_else(|| plain(&json!(run.title)))
}
