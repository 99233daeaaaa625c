//! The health of an object, by the rules of Argo CD's gitops-engine (`pkg/health`).

use super::Object;
use serde_json::Value;

/// A health status and what explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Health {
    pub(in super::super) status: &'static str,
    pub(in super::super) message: String,
}

/// The order from best to worst.
const ORDER: [&str; 6] = [
    "Healthy",
    "Suspended",
    "Progressing",
    "Missing",
    "Degraded",
    "Unknown",
];

/// The worse of two.
pub(in super::super) fn worst(one: &'static str, other: &'static str) -> &'static str {
    let rank = |status| {
        ORDER
            .iter()
            .position(|known| *known == status)
            .unwrap_or(ORDER.len())
    };
    if rank(one) >= rank(other) { one } else { other }
}

impl Object {
    /// The health, where its kind has one.
    pub(in super::super) fn health(&self) -> Option<Health> {
        let live = &self.live;
        match (self.key.group.as_str(), self.key.kind.as_str()) {
            ("apps", "Deployment") => Some(deployment(live, &self.key.name)),
            ("apps", "ReplicaSet") => Some(replica_set(live)),
            ("batch", "Job") => Some(job(live)),
            ("apps", "StatefulSet" | "DaemonSet") => Some(Health {
                status: "Progressing",
                message: format!("the lab's cluster has no controller for a {}", self.key.kind),
            }),
            ("", "Pod") => Some(pod(live)),
            ("", "Service") | ("networking.k8s.io", "Ingress") => Some(healthy()),
            _ => None,
        }
    }
}

fn healthy() -> Health {
    Health {
        status: "Healthy",
        message: String::new(),
    }
}

fn progressing(message: String) -> Health {
    Health {
        status: "Progressing",
        message,
    }
}

fn number(live: &Value, pointer: &str) -> i64 {
    live.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn deployment(live: &Value, name: &str) -> Health {
    if live.pointer("/spec/paused").and_then(Value::as_bool) == Some(true) {
        return Health {
            status: "Suspended",
            message: "Deployment is paused".into(),
        };
    }
    if number(live, "/metadata/generation") > number(live, "/status/observedGeneration") {
        return progressing(
            "Waiting for rollout to finish: observed deployment generation less than desired generation"
                .into(),
        );
    }
    let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
    if conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["reason"] == "ProgressDeadlineExceeded")
    {
        return Health {
            status: "Degraded",
            message: format!("Deployment \"{name}\" exceeded its progress deadline"),
        };
    }
    let wanted = live
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1);
    let (updated, all) = (
        number(live, "/status/updatedReplicas"),
        number(live, "/status/replicas"),
    );
    let ready = number(live, "/status/availableReplicas");
    if updated < wanted {
        progressing(format!(
            "Waiting for rollout to finish: {updated} out of {wanted} new replicas have been updated..."
        ))
    } else if all > updated {
        progressing(format!(
            "Waiting for rollout to finish: {} old replicas are pending termination...",
            all - updated
        ))
    } else if ready < updated {
        progressing(format!(
            "Waiting for rollout to finish: {ready} of {updated} updated replicas are available..."
        ))
    } else {
        healthy()
    }
}

fn replica_set(live: &Value) -> Health {
    let (wanted, ready) = (
        number(live, "/spec/replicas"),
        number(live, "/status/availableReplicas"),
    );
    if ready < wanted {
        progressing(format!(
            "Waiting for rollout to finish: {ready} out of {wanted} new replicas are available..."
        ))
    } else {
        healthy()
    }
}

fn job(live: &Value) -> Health {
    let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
    let of = |kind: &str| {
        conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    let said = |condition: &Value| condition["message"].as_str().unwrap_or_default().to_owned();
    match (of("Failed"), of("Complete")) {
        (Some(failed), _) => Health {
            status: "Degraded",
            message: said(failed),
        },
        (None, Some(_)) => healthy(),
        (None, None) => progressing(String::new()),
    }
}

fn pod(live: &Value) -> Health {
    let statuses = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|list| live.get("status")?.get(list)?.as_array())
        .flatten();
    for waiting in statuses.filter_map(|status| status.pointer("/state/waiting")) {
        let reason = waiting["reason"].as_str().unwrap_or_default();
        if reason.starts_with("Err") || reason.ends_with("Error") || reason.ends_with("BackOff") {
            let message = waiting["message"].as_str().unwrap_or_default().to_owned();
            return Health {
                status: "Degraded",
                message,
            };
        }
    }
    match live.pointer("/status/phase").and_then(Value::as_str) {
        Some("Running" | "Succeeded") => healthy(),
        Some("Failed") => Health {
            status: "Degraded",
            message: live["status"]["message"].as_str().unwrap_or_default().to_owned(),
        },
        _ => progressing(String::new()),
    }
}
