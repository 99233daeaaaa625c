//! The Job controller, for the Jobs that hooks are: one Pod, one attempt (`batch/v1`, with a `backoffLimit` of 0).

use super::rollout::suffix;
use super::{Cluster, Key, Object, kubelet};
use serde_json::{Value, json};

/// Runs a Job to its end. Whether its container succeeds is up to the knob `fail_jobs`; one whose image cannot be pulled, or
/// cannot run, never ends.
pub(super) async fn run(cluster: Cluster, key: Key) {
    let Some(job) = cluster.get(&key) else { return };
    let clock = &cluster.0.clock;
    let started = clock.now().to_string();
    let pod = start_pod(&cluster, &job);
    cluster.update(&key, |live| {
        live["status"] = json!({"active": 1, "startTime": started});
    });
    kubelet::run(cluster.clone(), pod.clone()).await;
    if cluster.get(&pod).is_none_or(|pod| pod.running.is_empty()) {
        return;
    }
    clock.sleep(cluster.delays().job).await;
    let failed = cluster.0.knobs.spend(|knobs| &mut knobs.fail_jobs);
    let ended = clock.now().to_string();
    stop(&cluster, &pod, failed, &ended);
    cluster.update(&key, |live| {
        live["status"] = match failed {
            true => json!({
                "failed": 1, "startTime": started,
                "conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": ended,
                    "reason": "BackoffLimitExceeded",
                    "message": "Job has reached the specified backoff limit"}],
            }),
            false => json!({
                "succeeded": 1, "startTime": started, "completionTime": ended,
                "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": ended}],
            }),
        };
    });
    let (reason, message) = match failed {
        true => (
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        ),
        false => ("Completed", "Job completed"),
    };
    cluster.record(&key, failed, reason, message.into());
}

fn start_pod(cluster: &Cluster, job: &Object) -> Key {
    let key = job.key.child("", "Pod", format!("{}-{}", job.key.name, suffix()));
    let template = &job.live["spec"]["template"];
    let mut manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"],
    });
    manifest["metadata"]["name"] = json!(key.name);
    manifest["metadata"]["labels"]["job-name"] = json!(job.key.name);
    let pod = Object::create(key.clone(), &manifest, None, Some(job), cluster.0.clock.now());
    cluster.insert(pod, None);
    let message = format!("Created pod: {}", key.name);
    cluster.record(&job.key, false, "SuccessfulCreate", message);
    key
}

/// The containers of a Pod end.
fn stop(cluster: &Cluster, pod: &Key, failed: bool, ended: &str) {
    if let Some(pod) = cluster.lock().objects.get_mut(pod) {
        pod.running.clear();
    }
    let (phase, code, reason) = match failed {
        true => ("Failed", 1, "Error"),
        false => ("Succeeded", 0, "Completed"),
    };
    cluster.update(pod, |live| {
        live["status"]["phase"] = json!(phase);
        let statuses = live["status"]["containerStatuses"].as_array_mut();
        for status in statuses.into_iter().flatten() {
            status["state"] =
                json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": ended}});
            status["ready"] = Value::Bool(false);
        }
    });
}
