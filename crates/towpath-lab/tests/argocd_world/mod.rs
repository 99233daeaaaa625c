//! What Argo CD delivers from and to, made for one test: a git repository, and a registry behind ECR credentials.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use towpath_core::{Digest, Secret};
use towpath_lab::argocd::{ArgoCd, ArgoCdConfig, RegistryAccess};

/// An image in the registry.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) index: Digest,
    pub(crate) manifest: Digest,
    pub(crate) blobs: Vec<Digest>,
}

pub(crate) struct World {
    pub(crate) argocd: ArgoCd,
    folder: TempDir,
    registry: String,
    content: Content,
    client: reqwest::Client,
}

type Content = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// Asks until there is an answer, for at most 20 seconds.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}")
}

impl World {
    pub(crate) async fn start() -> Self {
        let content = Content::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = listener.local_addr().unwrap().to_string();
        let router = Router::new()
            .route("/", post(authorization_token))
            .route("/v2/shop/web/{kind}/{reference}", get(pull))
            .with_state(content.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut config = ArgoCdConfig {
            webhook_secret: Some(Secret::new("hook-secret")),
            registry_access: vec![RegistryAccess {
                host: registry.clone(),
                ecr_api: format!("http://{registry}/").parse().unwrap(),
                region: "eu-west-1".into(),
                access_key: "AKIDNODE".into(),
                secret_key: Secret::new("node-secret"),
            }],
            keep_alive: Duration::from_millis(50),
            ..ArgoCdConfig::default()
        };
        config.cluster.back_off = Duration::from_millis(40);
        let world = Self {
            argocd: ArgoCd::start(config).await.unwrap(),
            folder: tempfile::tempdir().unwrap(),
            registry,
            content,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        world.git(&["init", "--quiet", "--initial-branch=main", "."]);
        world
    }

    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's URL, as a browser would show it and as the Application names it.
    fn url(&self) -> String {
        format!("file://{}", self.repository().display())
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("deploy")
    }

    fn git(&self, arguments: &[&str]) -> String {
        std::fs::create_dir_all(self.repository()).unwrap();
        let output = Command::new("git")
            .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
            .args(arguments)
            .current_dir(self.repository())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits a file below `prod/`; answers the commit.
    pub(crate) fn commit_text(&self, name: &str, text: &str) -> String {
        let path = self.repository().join("prod").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=deploy"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn commit_image(&self, image: &Image) -> String {
        self.commit_text("web.yaml", &self.deployment(image, 2))
    }

    pub(crate) fn reference(&self, image: &Image) -> String {
        format!("{}/shop/web@{}", self.registry, image.index)
    }

    pub(crate) fn deployment(&self, image: &Image, replicas: u32) -> String {
        let image = self.reference(image);
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: {replicas}\n  selector:\n    \
             matchLabels: {{app: web}}\n  template:\n    metadata:\n      labels: {{app: web}}\n    spec:\n      \
             containers:\n      - name: web\n        image: {image}\n"
        )
    }

    /// An index with a `linux/amd64` image whose layer is this text.
    pub(crate) fn image(&self, text: &str) -> Image {
        self.store(text.as_bytes(), text.as_bytes(), "amd64")
    }

    /// Its layer arrives with other bytes than were promised.
    pub(crate) fn broken_image(&self, text: &str) -> Image {
        self.store(text.as_bytes(), b"other bytes", "amd64")
    }

    /// The index promises amd64, the configuration is for arm64.
    pub(crate) fn arm_image(&self) -> Image {
        self.store(b"arm", b"arm", "arm64")
    }

    fn store(&self, promised: &[u8], stored: &[u8], architecture: &str) -> Image {
        let keep = |bytes: Vec<u8>| {
            let digest = Digest::sha256_of(&bytes);
            self.content.lock().unwrap().insert(digest.to_string(), bytes);
            digest
        };
        let layer = Digest::sha256_of(promised);
        self.content
            .lock()
            .unwrap()
            .insert(layer.to_string(), stored.to_vec());
        let config = keep(
            json!({"os": "linux", "architecture": architecture})
                .to_string()
                .into_bytes(),
        );
        let manifest = json!({
            "schemaVersion": 2, "config": {"digest": config}, "layers": [{"digest": layer}],
        });
        let manifest = keep(manifest.to_string().into_bytes());
        let index = json!({"schemaVersion": 2, "manifests": [
            {"digest": Digest::sha256_of("s390x"), "platform": {"os": "linux", "architecture": "s390x"}},
            {"digest": manifest, "platform": {"os": "linux", "architecture": "amd64"}},
        ]});
        Image {
            index: keep(index.to_string().into_bytes()),
            manifest,
            blobs: vec![config, layer],
        }
    }

    pub(crate) async fn create_app(&self, automated: bool) {
        let policy = if automated {
            json!({"automated": {"prune": true, "selfHeal": true}})
        } else {
            json!({})
        };
        let app = json!({
            "metadata": {"name": "web"},
            "spec": {
                "project": "default",
                "source": {"repoURL": self.url(), "path": "prod", "targetRevision": "main"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
                "syncPolicy": policy,
            },
        });
        let (status, body) = self.send("POST", "/api/v1/applications", &app).await;
        assert_eq!(status, 200, "{body}");
    }

    /// Sends a push event of `main`, signed with this secret.
    pub(crate) async fn push_webhook(&self, secret: &str) -> StatusCode {
        let body = json!({
            "ref": "refs/heads/main", "commits": [],
            "repository": {"html_url": self.url(), "default_branch": "main"},
        })
        .to_string();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let request = self.client.post(format!("{}/api/webhook", self.argocd.url()));
        let request = request
            .header("x-github-event", "push")
            .header("x-hub-signature-256", signature);
        request.body(body).send().await.unwrap().status()
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method.parse().unwrap(), format!("{}{path}", self.argocd.url()))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let request = self
            .request("GET", path)
            .bearer_auth(self.argocd.token().expose());
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = self
            .request(method, path)
            .bearer_auth(self.argocd.token().expose());
        let answer = request.json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Waits until this revision is synced, done and healthy; answers the Application.
    pub(crate) async fn until_healthy(&self, revision: &str) -> Value {
        let mut last = Value::Null;
        for _ in 0..1000 {
            last = self.get("/api/v1/applications/web").await.1;
            let status = &last["status"];
            let done = status["sync"]["revision"] == revision
                && status["sync"]["status"] == "Synced"
                && status["health"]["status"] == "Healthy"
                && last.get("operation").is_none()
                && status["operationState"]["phase"] == "Succeeded"
                && status["summary"]["images"]
                    .as_array()
                    .is_some_and(|images| images.len() == 1);
            if done {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never healthy at {revision}: {last:#}")
    }

    pub(crate) async fn until_operation(&self, phase: &str) -> Value {
        eventually(phase, async || {
            let app = self.get("/api/v1/applications/web").await.1;
            (app["status"]["operationState"]["phase"] == phase).then_some(app)
        })
        .await
    }
}

async fn authorization_token(headers: HeaderMap) -> Response {
    let has = |name: &str, text: &str| {
        headers
            .get(name)
            .is_some_and(|value| value.to_str().unwrap().contains(text))
    };
    let signed = has("authorization", "AWS4-HMAC-SHA256 Credential=AKIDNODE/")
        && has("authorization", "/eu-west-1/ecr/aws4_request")
        && has(
            "x-amz-target",
            "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
        );
    if !signed {
        return StatusCode::FORBIDDEN.into_response();
    }
    let expires = jiff::Timestamp::now().as_second() + 43_200;
    let token = STANDARD.encode("AWS:registry-password");
    axum::Json(json!({"authorizationData": [{"authorizationToken": token, "expiresAt": expires}]}))
        .into_response()
}

async fn pull(
    State(content): State<Content>,
    Path((_kind, reference)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let expected = format!("Basic {}", STANDARD.encode("AWS:registry-password"));
    if headers.get("authorization").and_then(|value| value.to_str().ok()) != Some(&expected) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match content.lock().unwrap().get(&reference) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
