//! What Spacelift tells others about runs: check runs at GitHub (its Checks API), and signed webhooks.
//!
//! Nobody waits for these: a failure is logged, and the run goes on.

use super::Shared;
use super::run::{Run, RunState};
use super::world::Stack;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A transition: the run and its version.
pub(super) type News = (String, i64);

/// Delivers one transition after the other.
pub(super) async fn deliver(shared: Arc<Shared>, mut news: mpsc::UnboundedReceiver<News>) {
    // Made when first needed: it takes longer than all the rest of starting a lab.
    let mut made = None;
    let mut checks = HashMap::new();
    while let Some((run, version)) = news.recv().await {
        let found = shared.read(|world| {
            let run = world.run(&run)?.clone();
            let stack = world.stack(&run.stack)?.clone();
            Some((run, stack))
        });
        let Some((run, stack)) = found else { continue };
        if shared.config.github_api.is_none() && stack.webhooks.is_empty() {
            continue;
        }
        let client = match made
            .take()
            .map_or_else(|| reqwest::Client::builder().no_proxy().build(), Ok)
        {
            Ok(client) => &*made.insert(client),
            Err(error) => {
                tracing::warn!(%error, "no HTTP client: nobody is told about runs");
                return;
            }
        };
        if let Err(reason) = check(&shared, client, &mut checks, &run, &stack, version).await {
            tracing::warn!(run = run.id, %reason, "GitHub was not told about a run");
        }
        let body = payload(&run, &stack, version).to_string();
        for webhook in stack.webhooks.iter().filter(|webhook| webhook.enabled) {
            let signature = hex::encode(super::auth::sign(
                webhook.secret.expose().as_bytes(),
                body.as_bytes(),
            ));
            let sent = client
                .post(&webhook.endpoint)
                .header("content-type", "application/json")
                .header("x-signature-256", format!("sha256={signature}"))
                .body(body.clone());
            match sent.send().await {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => {
                    tracing::warn!(run = run.id, status = %answer.status(), "a webhook was refused")
                }
                Err(error) => {
                    tracing::warn!(run = run.id, error = %error.without_url(), "a webhook was not delivered")
                }
            }
        }
    }
}

/// Creates the run's check run, or updates it.
async fn check(
    shared: &Shared,
    client: &reqwest::Client,
    checks: &mut HashMap<String, i64>,
    run: &Run,
    stack: &Stack,
    version: i64,
) -> Result<(), String> {
    let (Some((base, token)), Some(commit)) = (&shared.config.github_api, &run.commit) else {
        return Ok(());
    };
    let Some(state) = run
        .history
        .iter()
        .find(|known| known.version == version)
        .map(|known| known.state)
    else {
        return Ok(());
    };
    let (status, conclusion, title) = shown(run, state);
    let mut body = json!({
        "name": format!("spacelift/{}", stack.id),
        "external_id": run.id,
        "status": status,
        "output": {"title": title, "summary": title},
    });
    if let Some(conclusion) = conclusion {
        body["conclusion"] = conclusion.into();
    }
    let all = format!(
        "{}/repos/{}/check-runs",
        base.as_str().trim_end_matches('/'),
        stack.repository
    );
    let request = match checks.get(&run.id) {
        Some(id) => client.patch(format!("{all}/{id}")),
        None => {
            body["head_sha"] = commit.hash.clone().into();
            client.post(all)
        }
    };
    let sent = request
        .bearer_auth(token.expose())
        .header("accept", "application/vnd.github+json")
        .header("user-agent", "Spacelift")
        .json(&body);
    let answer = sent
        .send()
        .await
        .map_err(|error| error.without_url().to_string())?;
    if !answer.status().is_success() {
        return Err(format!("the Checks API answered {}", answer.status()));
    }
    let made: Value = answer
        .json()
        .await
        .map_err(|error| error.without_url().to_string())?;
    if let Some(id) = made["id"].as_i64() {
        checks.insert(run.id.clone(), id);
    }
    Ok(())
}

/// The status, conclusion and title of the check run; the titles are those seen in Spacelift's own.
fn shown(run: &Run, state: RunState) -> (&'static str, Option<&'static str>, String) {
    let summary = run.plan.as_ref().map(|plan| {
        let delta = plan.delta;
        if plan.has_changes {
            format!(
                "{} to add, {} to change, {} to destroy",
                delta.add, delta.change, delta.delete
            )
        } else {
            "Plan contains no changes".into()
        }
    });
    let nothing = run.plan.as_ref().is_some_and(|plan| !plan.has_changes);
    let failed = || ("completed", Some("failure"), "Job has failed".to_owned());
    match state {
        RunState::Queued | RunState::Ready => ("queued", None, "Job is queued".into()),
        RunState::Unconfirmed => ("in_progress", None, summary.unwrap_or_default()),
        RunState::Finished if nothing => ("completed", Some("neutral"), summary.unwrap_or_default()),
        RunState::Finished => ("completed", Some("success"), summary.unwrap_or_default()),
        RunState::Failed => failed(),
        RunState::Skipped => ("completed", Some("skipped"), "Job was skipped".into()),
        RunState::Canceled | RunState::Stopped => ("completed", Some("cancelled"), "Job was stopped".into()),
        RunState::Discarded => ("completed", Some("cancelled"), "Job was discarded".into()),
        RunState::Preparing => ("in_progress", None, "Job is being prepared".into()),
        _ => (
            "in_progress",
            None,
            summary.unwrap_or_else(|| "Job is in progress".into()),
        ),
    }
}

fn payload(run: &Run, stack: &Stack, version: i64) -> Value {
    let step = run.history.iter().find(|known| known.version == version);
    let delta = run.plan.as_ref().map(|plan| {
        let delta = plan.delta;
        json!({"added": delta.add, "changed": delta.change, "deleted": delta.delete, "resources": delta.resources})
    });
    json!({
        "account": "lab",
        "state": step.map(|step| step.state),
        "stateVersion": version,
        "timestamp": step.map(|step| step.at),
        "note": step.and_then(|step| step.note.as_deref()),
        "run": {
            "id": run.id, "branch": run.branch, "command": null, "commit": run.commit, "createdAt": run.created_at,
            "delta": delta, "driftDetection": false, "triggeredBy": run.triggered_by, "type": run.kind,
        },
        "stack": {
            "id": stack.id, "name": stack.name, "description": stack.description, "labels": stack.labels,
            "repository": stack.repository,
        },
        "workerPool": stack.worker_pool,
    })
}
