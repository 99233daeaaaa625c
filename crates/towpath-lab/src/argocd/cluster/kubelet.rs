//! The node's part of a Pod: pull its images, start its containers, write its status.
//!
//! Reasons and messages are the kubelet's own (`ErrImagePull`, `ImagePullBackOff`, `CrashLoopBackOff`).

use super::pull::Pulled;
use super::{Cluster, Key, RunningContainer};
use serde_json::{Value, json};

/// Brings a Pod up; ends when it runs, or when it can never run.
pub(super) async fn run(cluster: Cluster, key: Key) {
    let Some(pod) = cluster.get(&key) else { return };
    let workload = workload_of(&cluster, &key);
    cluster.record(
        &key,
        false,
        "Scheduled",
        format!("Successfully assigned {}/{} to lab-node", key.namespace, key.name),
    );
    let started = cluster.0.clock.now().to_string();
    cluster.update(&key, |live| {
        live["spec"]["nodeName"] = json!("lab-node");
        live["status"] = json!({"phase": "Pending", "startTime": started, "conditions": conditions(false)});
        for (list, statuses) in LISTS {
            let containers = live["spec"].get(list).and_then(Value::as_array).cloned();
            for container in containers.unwrap_or_default() {
                let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
                push(&mut live["status"][statuses], status_of(&container, waiting));
            }
        }
    });
    let mut running = Vec::new();
    for (list, statuses) in LISTS {
        let containers = pod.live["spec"].get(list).and_then(Value::as_array).cloned();
        for (index, container) in containers.unwrap_or_default().iter().enumerate() {
            let image = container["image"].as_str().unwrap_or_default();
            let at = Place {
                key: &key,
                statuses,
                index,
            };
            let pulled = pull(&cluster, &at, image).await;
            if !pulled.runs_here() {
                return at.crash(&cluster, container, &pulled);
            }
            let image_id = image_id(image, &pulled);
            at.set(&cluster, |status| status["imageID"] = json!(image_id));
            if statuses == "containerStatuses" {
                running.push(RunningContainer {
                    namespace: key.namespace.clone(),
                    workload: workload.clone(),
                    pod: key.name.clone(),
                    container: container["name"].as_str().unwrap_or_default().to_owned(),
                    image: image.to_owned(),
                    image_digest: pulled.resolved,
                    manifest_digest: pulled.manifest,
                    blobs: pulled.blobs,
                    started_at: cluster.0.clock.precise(),
                });
            } else {
                at.set(&cluster, |status| {
                    status["state"] = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
                    status["ready"] = json!(true);
                });
            }
        }
    }
    cluster.0.clock.sleep(cluster.delays().start).await;
    let now = cluster.0.clock.now();
    let precisely = cluster.0.clock.precise();
    for container in &mut running {
        container.started_at = precisely;
        cluster.record(
            &key,
            false,
            "Started",
            format!("Started container {}", container.container),
        );
    }
    if let Some(pod) = cluster.lock().objects.get_mut(&key) {
        pod.running = running;
    }
    cluster.update(&key, |live| {
        live["status"]["phase"] = json!("Running");
        live["status"]["conditions"] = conditions(true);
        for status in live["status"]["containerStatuses"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            status["state"] = json!({"running": {"startedAt": now.to_string()}});
            status["ready"] = json!(true);
            status["started"] = json!(true);
        }
    });
}

const LISTS: [(&str, &str); 2] = [
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
];

/// One container's status within its Pod.
struct Place<'a> {
    key: &'a Key,
    statuses: &'static str,
    index: usize,
}

impl Place<'_> {
    fn set(&self, cluster: &Cluster, change: impl FnOnce(&mut Value)) {
        cluster.update(self.key, |live| {
            if let Some(status) = live["status"][self.statuses].get_mut(self.index) {
                change(status);
            }
        });
    }

    fn wait(&self, cluster: &Cluster, reason: &str, message: &str) {
        self.set(cluster, |status| {
            status["state"] = json!({"waiting": {"reason": reason, "message": message}});
        });
    }

    /// The image is for another kind of machine: its program cannot be executed, now or later.
    fn crash(&self, cluster: &Cluster, container: &Value, pulled: &Pulled) {
        let name = container["name"].as_str().unwrap_or_default();
        let why = format!(
            "exec format error: the image is for {}, the node is linux/amd64",
            pulled.platform
        );
        cluster.record(self.key, true, "Failed", format!("Error: {why}"));
        self.set(cluster, |status| {
            status["imageID"] = json!(image_id(container["image"].as_str().unwrap_or_default(), pulled));
            status["restartCount"] = json!(1);
            status["lastState"] =
                json!({"terminated": {"exitCode": 255, "reason": "StartError", "message": why}});
        });
        let message = format!(
            "back-off restarting failed container {name} in pod {}: {why}",
            self.key.name
        );
        self.wait(cluster, "CrashLoopBackOff", &message);
    }
}

/// Pulls until it succeeds, with the kubelet's back-off.
async fn pull(cluster: &Cluster, at: &Place<'_>, image: &str) -> Pulled {
    let mut back_off = cluster.delays().back_off;
    loop {
        cluster.record(at.key, false, "Pulling", format!("Pulling image \"{image}\""));
        let why = match cluster.0.puller.pull(image).await {
            Ok(pulled) => {
                cluster.record(
                    at.key,
                    false,
                    "Pulled",
                    format!("Successfully pulled image \"{image}\""),
                );
                return pulled;
            }
            Err(why) => format!("rpc error: code = Unknown desc = {why}"),
        };
        cluster.record(
            at.key,
            true,
            "Failed",
            format!("Failed to pull image \"{image}\": {why}"),
        );
        at.wait(cluster, "ErrImagePull", &why);
        cluster.0.clock.sleep(back_off / 2).await;
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {why}");
        cluster.record(
            at.key,
            true,
            "BackOff",
            format!("Back-off pulling image \"{image}\""),
        );
        at.wait(cluster, "ImagePullBackOff", &message);
        cluster.0.clock.sleep(back_off / 2).await;
        back_off = (back_off * 2).min(cluster.delays().back_off_cap);
    }
}

/// `host/repository@digest`, as containerd reports it.
fn image_id(image: &str, pulled: &Pulled) -> String {
    match image.parse::<towpath_core::ImageRef>() {
        Ok(image) => format!("{}@{}", image.name(), pulled.resolved),
        Err(_) => pulled.resolved.to_string(),
    }
}

fn status_of(container: &Value, state: Value) -> Value {
    json!({
        "name": container["name"], "image": container["image"], "imageID": "", "ready": false, "started": false,
        "restartCount": 0, "state": state,
    })
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

fn conditions(ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!([
        {"type": "PodScheduled", "status": "True"},
        {"type": "ContainersReady", "status": ready},
        {"type": "Ready", "status": ready},
    ])
}

/// The Deployment above the Pod, else the Pod itself.
fn workload_of(cluster: &Cluster, pod: &Key) -> String {
    let mut key = pod.clone();
    while let Some(owner) = cluster.get(&key).and_then(|object| object.owner) {
        key = owner;
    }
    key.name
}
