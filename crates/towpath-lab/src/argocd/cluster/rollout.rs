//! The Deployment controller: ReplicaSets, Pods, and the change from the old template to the new.
//!
//! After the Kubernetes documentation of Deployments. The new ReplicaSet is brought up whole before the old one goes
//! down; `Recreate` does it the other way round.

use super::{Cluster, Key, Object, kubelet};
use serde_json::{Value, json};
use std::time::Duration;
use towpath_core::Digest;

/// Keeps a Deployment as it is specified, until the Deployment goes or is changed.
pub(super) async fn run(cluster: Cluster, key: Key) {
    let Some(mut changes) = cluster.changes_below(&key) else {
        return;
    };
    let clock = &cluster.0.clock;
    let mut progress = clock.moment();
    let mut best = None;
    loop {
        changes.mark_unchanged();
        let Some(deployment) = cluster.get(&key) else {
            return;
        };
        let Some(rollout) = Rollout::step(&cluster, &deployment) else {
            return;
        };
        if best != Some(rollout.progress()) {
            best = Some(rollout.progress());
            progress = clock.moment();
        }
        let deadline = progress + rollout.deadline;
        let late = !rollout.complete() && clock.moment() >= deadline;
        let status = rollout.status(&deployment, late, clock.now());
        cluster.update(&key, |live| live["status"] = status);
        let changed = changes.changed();
        if rollout.complete() || late {
            if changed.await.is_err() {
                return;
            }
        } else {
            tokio::select! {
                changed = changed => if changed.is_err() { return },
                () = clock.sleep_until(deadline) => {}
            }
        }
    }
}

/// Where a rollout stands after one step.
struct Rollout {
    wanted: usize,
    updated: usize,
    available: usize,
    old: usize,
    old_available: usize,
    deadline: Duration,
    replica_set: String,
}

impl Rollout {
    /// Does what can be done now.
    fn step(cluster: &Cluster, deployment: &Object) -> Option<Self> {
        let spec = deployment.live.get("spec")?;
        let wanted = spec
            .get("replicas")
            .and_then(Value::as_u64)
            .map_or(1, |replicas| replicas as usize);
        let template = spec.get("template")?;
        let name = format!("{}-{}", deployment.key.name, template_hash(template));
        let set = replica_set(cluster, deployment, &name, template, wanted);
        let mut older = cluster.owned(&deployment.key);
        older.retain(|other| other.key != set.key);
        let old: Vec<Object> = older.iter().flat_map(|set| cluster.owned(&set.key)).collect();
        let new = cluster.owned(&set.key);
        let available = new.iter().filter(|pod| is_ready(pod)).count();
        let recreate = spec.pointer("/strategy/type").and_then(Value::as_str) == Some("Recreate");

        let mut left = Vec::new();
        for pod in old {
            if recreate || available >= wanted || !is_ready(&pod) {
                scale_event(cluster, deployment, "down", &pod);
                cluster.delete(&pod.key);
            } else {
                left.push(pod);
            }
        }
        for pod in new.iter().skip(wanted) {
            cluster.delete(&pod.key);
        }
        for _ in new.len()..wanted {
            start_pod(cluster, &set, template);
        }
        for older in older {
            let kept = left
                .iter()
                .filter(|pod| pod.owner.as_ref() == Some(&older.key))
                .count();
            set_replicas(cluster, &older.key, kept, kept);
        }
        set_replicas(cluster, &set.key, wanted, available.min(wanted));
        let seconds = spec.get("progressDeadlineSeconds").and_then(Value::as_u64);
        Some(Self {
            wanted,
            updated: wanted,
            available: available.min(wanted),
            old: left.len(),
            old_available: left.iter().filter(|pod| is_ready(pod)).count(),
            deadline: seconds.map_or(cluster.delays().progress_deadline, Duration::from_secs),
            replica_set: name,
        })
    }

    fn complete(&self) -> bool {
        self.available == self.wanted && self.old == 0
    }

    fn progress(&self) -> (usize, usize) {
        (self.available, self.old)
    }

    fn status(&self, deployment: &Object, late: bool, now: jiff::Timestamp) -> Value {
        let (available, reason, message) = match () {
            () if self.complete() => ("True", "NewReplicaSetAvailable", "has successfully progressed."),
            () if late => ("False", "ProgressDeadlineExceeded", "has timed out progressing."),
            () => ("True", "ReplicaSetUpdated", "is progressing."),
        };
        let enough = if self.available + self.old_available >= self.wanted {
            "True"
        } else {
            "False"
        };
        let mut status = json!({
            "observedGeneration": deployment.live.pointer("/metadata/generation"),
            "replicas": self.updated + self.old,
            "updatedReplicas": self.updated,
            "readyReplicas": self.available + self.old_available,
            "availableReplicas": self.available + self.old_available,
            "unavailableReplicas": self.wanted - self.available,
            "conditions": [
                {"type": "Available", "status": enough},
                {"type": "Progressing", "status": available, "reason": reason,
                 "message": format!("ReplicaSet \"{}\" {message}", self.replica_set)},
            ],
        });
        // The times of a condition change only with the condition, or the status would never come to rest.
        for index in 0..2 {
            let before = deployment.live.pointer(&format!("/status/conditions/{index}"));
            let same = before.is_some_and(|before| before["status"] == status["conditions"][index]["status"]);
            let since = before
                .and_then(|before| before.get("lastTransitionTime"))
                .filter(|_| same);
            status["conditions"][index]["lastTransitionTime"] =
                since.cloned().unwrap_or_else(|| json!(now.to_string()));
        }
        status
    }
}

fn replica_set(
    cluster: &Cluster,
    deployment: &Object,
    name: &str,
    template: &Value,
    wanted: usize,
) -> Object {
    let key = deployment.key.child("apps", "ReplicaSet", name.to_owned());
    if let Some(set) = cluster.get(&key) {
        return set;
    }
    let revision = 1 + cluster.owned(&deployment.key).len();
    let mut labelled = template.clone();
    labelled["metadata"]["labels"]["pod-template-hash"] = json!(template_hash(template));
    let manifest = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "labels": labelled["metadata"]["labels"],
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
        },
        "spec": {"replicas": wanted, "selector": deployment.live["spec"]["selector"], "template": labelled},
    });
    let set = Object::create(key, &manifest, None, Some(deployment), cluster.0.clock.now());
    let seen = set.seen();
    cluster.insert(set, None);
    let message = format!("Scaled up replica set {name} from 0 to {wanted}");
    cluster.record(&deployment.key, false, "ScalingReplicaSet", message);
    seen
}

fn start_pod(cluster: &Cluster, set: &Object, template: &Value) {
    let name = format!("{}-{}", set.key.name, suffix());
    let key = set.key.child("", "Pod", name.clone());
    let mut manifest = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": template["metadata"],
        "spec": template["spec"],
    });
    manifest["metadata"]["name"] = json!(name);
    manifest["metadata"]["labels"] = set.live["metadata"]["labels"].clone();
    let pod = Object::create(key.clone(), &manifest, None, Some(set), cluster.0.clock.now());
    cluster.insert(pod, None);
    cluster.record(
        &set.key,
        false,
        "SuccessfulCreate",
        format!("Created pod: {name}"),
    );
    let work = cluster
        .0
        .tasks
        .spawn_guarded(kubelet::run(cluster.clone(), key.clone()));
    if let Some(pod) = cluster.lock().objects.get_mut(&key) {
        pod.work = Some(std::sync::Arc::new(work));
    }
}

fn set_replicas(cluster: &Cluster, set: &Key, wanted: usize, available: usize) {
    cluster.update(set, |live| {
        live["spec"]["replicas"] = json!(wanted);
        live["status"] = json!({
            "observedGeneration": live.pointer("/metadata/generation"),
            "replicas": wanted, "readyReplicas": available, "availableReplicas": available,
        });
    });
}

fn scale_event(cluster: &Cluster, deployment: &Object, direction: &str, pod: &Object) {
    let set = pod.owner.as_ref().map_or("", |owner| owner.name.as_str());
    let message = format!("Scaled {direction} replica set {set}");
    cluster.record(&deployment.key, false, "ScalingReplicaSet", message);
}

fn is_ready(pod: &Object) -> bool {
    !pod.running.is_empty()
}

/// The `pod-template-hash`: any function of the template will do.
fn template_hash(template: &Value) -> String {
    Digest::sha256_of(template.to_string())
        .encoded()
        .chars()
        .take(10)
        .collect()
}

/// Five characters of the alphabet that Kubernetes draws names from.
pub(super) fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5)
        .map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]))
        .collect()
}
