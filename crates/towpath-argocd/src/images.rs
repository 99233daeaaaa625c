//! Which images really run: pods of the resource tree, and what their container runtime reports (Kubernetes'
//! `ContainerStatus.imageID`).

use crate::ArgoCd;
use crate::wire::ResourceNode;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use towpath_core::{Application, Digest, ImageRef};
use towpath_elements::Result;
use towpath_elements::delivery::RunningImage;

/// How many pods are read at a time.
const AT_ONCE: usize = 4;

/// The digest in a container's image ID, in the spellings of the runtimes: `repo@sha256:…`, and
/// `docker-pullable://repo@sha256:…`. A bare `sha256:…` or `docker://sha256:…` names the image's configuration, which no
/// registry knows a manifest by: `None`.
///
/// ```
/// let id = format!("docker-pullable://localhost:5000/web@sha256:{}", "a".repeat(64));
/// assert!(towpath_argocd::image_id_digest(&id).is_some());
/// assert!(towpath_argocd::image_id_digest(&format!("sha256:{}", "a".repeat(64))).is_none());
/// ```
pub fn image_id_digest(image_id: &str) -> Option<Digest> {
    image_id.rsplit_once('@')?.1.parse().ok()
}

impl ArgoCd {
    /// The images of an application's pods, container by container. Pods that have ended or are being deleted are left
    /// out. Where `repositories` (such as `localhost:5000/shop/web`) are given, pods that use none of them are not read.
    pub async fn running_images(
        &self,
        app: &Application,
        repositories: Option<&BTreeSet<String>>,
    ) -> Result<Vec<RunningImage>> {
        let tree = self.resource_tree(app).await?;
        let pods = tree.nodes.into_iter().filter(|node| {
            let uses = |image: &String| match (image.parse::<ImageRef>(), repositories) {
                (Ok(image), Some(wanted)) => wanted.contains(&image.name()),
                _ => true,
            };
            // The tree may not know a pod's images yet.
            node.kind == "Pod"
                && node.group.is_empty()
                && (node.images.is_empty() || node.images.iter().any(uses))
        });
        let mut running: Vec<RunningImage> = stream::iter(pods)
            .map(|node| async move { self.images_of(app, &node).await })
            .buffer_unordered(AT_ONCE)
            .try_concat()
            .await?;
        running.sort_by(|a, b| (&a.pod, &a.image).cmp(&(&b.pod, &b.image)));
        Ok(running)
    }

    async fn images_of(&self, app: &Application, node: &ResourceNode) -> Result<Vec<RunningImage>> {
        match self.live_resource(app, node).await {
            Ok(pod) => Ok(pod_images(node, &pod)),
            // Pods go while they are counted.
            Err(error) if error.is_not_found() || says_gone(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// The images of all containers in manifests, each a JSON text; what is no JSON names none.
pub(crate) fn desired_images(manifests: &[String]) -> Vec<String> {
    fn collect(value: &Value, images: &mut BTreeSet<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| collect(item, images)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    if matches!(name.as_str(), "containers" | "initContainers")
                        && let Some(containers) = field.as_array()
                    {
                        let named = containers.iter().filter_map(|one| one.get("image")?.as_str());
                        images.extend(named.map(ToOwned::to_owned));
                    }
                    collect(field, images);
                }
            }
            _ => {}
        }
    }
    let mut images = BTreeSet::new();
    for manifest in manifests {
        if let Ok(value) = serde_json::from_str(manifest) {
            collect(&value, &mut images);
        }
    }
    images.into_iter().collect()
}

/// A pod that is no longer in the tree is an invalid argument to the server.
fn says_gone(error: &towpath_elements::Error) -> bool {
    crate::ApiError::of(error)
        .is_some_and(|refusal| refusal.code == Some(3) && refusal.message.contains("not found"))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: PodMetadata,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodMetadata {
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    image: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    phase: String,
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "imageID")]
    image_id: String,
    ready: bool,
}

fn pod_images(node: &ResourceNode, pod: &Value) -> Vec<RunningImage> {
    let pod = match Pod::deserialize(pod) {
        Ok(pod) => pod,
        Err(error) => {
            tracing::warn!(pod = node.name, %error, "a pod's manifest is not as expected");
            return Vec::new();
        }
    };
    if pod.metadata.deletion_timestamp.is_some()
        || matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
    {
        return Vec::new();
    }
    let containers = [
        (pod.spec.init_containers, pod.status.init_container_statuses),
        (pod.spec.containers, pod.status.container_statuses),
    ];
    let mut images = Vec::new();
    for (containers, statuses) in containers {
        let statuses = statuses.unwrap_or_default();
        for container in containers.unwrap_or_default() {
            let Ok(image) = container.image.parse::<ImageRef>() else {
                tracing::warn!(
                    pod = node.name,
                    container = container.name,
                    "a container's image is not a reference"
                );
                continue;
            };
            let status = statuses.iter().find(|status| status.name == container.name);
            let id = status.map(|status| status.image_id.as_str()).unwrap_or_default();
            let digest = match image_id_digest(id) {
                Some(digest) => Some(digest),
                // The runtime names the configuration; what the specification pins is what it has pulled.
                None if !id.is_empty() => image.digest().cloned(),
                None => None,
            };
            images.push(RunningImage {
                pod: format!("{}/{}", node.namespace, node.name),
                image,
                digest,
                ready: status.is_some_and(|status| status.ready),
            });
        }
    }
    images
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(of: char) -> String {
        format!("sha256:{}", of.to_string().repeat(64))
    }

    #[test]
    fn image_ids_are_read_in_every_spelling() {
        let a = digest('a');
        for (id, expected) in [
            (format!("docker-pullable://nginx@{a}"), Some(a.as_str())),
            (format!("localhost:5000/shop/web@{a}"), Some(a.as_str())),
            (a.clone(), None),
            (format!("docker://{a}"), None),
            (String::new(), None),
            ("web@sha256:short".into(), None),
        ] {
            assert_eq!(
                image_id_digest(&id).as_ref().map(Digest::as_str),
                expected,
                "{id}"
            );
        }
    }

    #[test]
    fn pods_tell_what_they_run() {
        let node = ResourceNode {
            namespace: "n".into(),
            name: "p".into(),
            ..ResourceNode::default()
        };
        let (a, b) = (digest('a'), digest('b'));
        let mut pod = json!({"spec": {"containers": [
                {"name": "web", "image": "r.example/web:1"}, {"name": "new", "image": "r.example/new:1"},
                {"name": "pinned", "image": format!("r.example/pinned@{b}")}, {"name": "odd", "image": "::"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "web", "imageID": format!("r.example/web@{a}"), "ready": true},
                {"name": "pinned", "imageID": a, "ready": false}]}});
        let images = pod_images(&node, &pod);
        let seen: Vec<_> = images
            .iter()
            .map(|image| {
                (
                    image.image.name(),
                    image.digest.as_ref().map(Digest::as_str),
                    image.ready,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("r.example/web".into(), Some(a.as_str()), true),
                ("r.example/new".into(), None, false),
                ("r.example/pinned".into(), Some(b.as_str()), false),
            ]
        );
        pod["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(pod_images(&node, &pod).is_empty());
    }
}
