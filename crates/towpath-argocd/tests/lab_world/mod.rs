//! A lab's Argo CD with what it delivers from and to: a git repository in a folder, and a registry that lets anybody pull.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use towpath_argocd::{
    Application, ArgoCd, CommitSha, DeliveryOutcome, DeliveryReport, Digest, Error, Expected, ImageRef,
    Login, RetryPolicy, RevisionOracle, WaitPolicy, wire,
};
use towpath_core::Cancellation;
use towpath_elements::Delivery;
use towpath_lab::argocd::ArgoCdConfig;

type Content = Arc<Mutex<HashMap<String, Vec<u8>>>>;

pub(crate) struct World {
    pub(crate) lab: towpath_lab::argocd::ArgoCd,
    folder: TempDir,
    registry: String,
    content: Content,
}

async fn pull(
    State(content): State<Content>,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Vec<u8>, StatusCode> {
    content
        .lock()
        .unwrap()
        .get(&reference)
        .cloned()
        .ok_or(StatusCode::NOT_FOUND)
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut ArgoCdConfig)) -> Self {
        let content = Content::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = listener.local_addr().unwrap().to_string();
        let router = Router::new()
            .route("/v2/shop/web/{kind}/{reference}", get(pull))
            .with_state(content.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut config = ArgoCdConfig {
            keep_alive: Duration::from_millis(50),
            ..ArgoCdConfig::default()
        };
        // A good rollout is never too slow, however busy the machine is.
        config.cluster.progress_deadline = Duration::from_secs(600);
        config.cluster.back_off = Duration::from_millis(40);
        change(&mut config);
        let lab = towpath_lab::argocd::ArgoCd::start(config).await.unwrap();
        let world = Self {
            lab,
            folder: tempfile::tempdir().unwrap(),
            registry,
            content,
        };
        std::fs::create_dir_all(world.repository().join("prod")).unwrap();
        world.git(&["init", "--quiet", "--initial-branch=main", "."]);
        world
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("deploy")
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        git(&self.repository(), arguments).unwrap()
    }

    /// An image that can be pulled, by its index.
    pub(crate) fn image(&self, text: &str) -> ImageRef {
        let keep = |bytes: Vec<u8>| {
            let digest = Digest::sha256_of(&bytes);
            self.content.lock().unwrap().insert(digest.to_string(), bytes);
            digest
        };
        let layer = keep(text.into());
        let config = keep(json!({"os": "linux", "architecture": "amd64"}).to_string().into());
        let manifest =
            json!({"schemaVersion": 2, "config": {"digest": config}, "layers": [{"digest": layer}]});
        let manifest = keep(manifest.to_string().into());
        let index = json!({"schemaVersion": 2, "manifests": [
            {"digest": manifest, "platform": {"os": "linux", "architecture": "amd64"}}]});
        let name: ImageRef = format!("{}/shop/web", self.registry).parse().unwrap();
        name.at(keep(index.to_string().into()))
    }

    pub(crate) fn commit(&self, image: &ImageRef) -> CommitSha {
        self.commit_text(&deployment(image))
    }

    pub(crate) fn commit_text(&self, text: &str) -> CommitSha {
        self.commit_file("prod/web.yaml", text)
    }

    pub(crate) fn commit_file(&self, path: &str, text: &str) -> CommitSha {
        let path = self.repository().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=deploy"]);
        self.git(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    pub(crate) fn spec(&self, automated: bool) -> wire::App {
        let policy = if automated {
            json!({"automated": {"prune": true}})
        } else {
            json!({})
        };
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {
            "project": "default",
            "source": {"repoURL": format!("file://{}", self.repository().display()), "path": "prod", "targetRevision": "main"},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
            "syncPolicy": policy}}))
        .unwrap()
    }

    pub(crate) fn client(&self) -> ArgoCd {
        self.client_with(|_| {})
    }

    /// A client with another login, and nothing else of its own.
    #[allow(dead_code, reason = "not every test has another login")]
    pub(crate) fn with(&self, login: Login) -> ArgoCd {
        let quick = RetryPolicy::default().between(Duration::from_millis(1), Duration::from_millis(10));
        ArgoCd::builder(self.lab.url(), login)
            .unwrap()
            .retry(quick)
            .build()
            .unwrap()
    }

    pub(crate) fn client_with(&self, change: impl FnOnce(&mut WaitPolicy)) -> ArgoCd {
        self.client_as(Login::Token(self.lab.token().clone()), change)
    }

    pub(crate) fn client_as(&self, login: Login, change: impl FnOnce(&mut WaitPolicy)) -> ArgoCd {
        let mut policy = WaitPolicy::default();
        policy.poll = Duration::from_millis(100);
        policy.gap = Duration::from_millis(5);
        policy.first_refresh = Duration::from_millis(20);
        policy.longest_refresh = Duration::from_millis(80);
        policy.refresh_timeout = Duration::from_millis(500);
        policy.degraded_grace = Duration::from_millis(100);
        policy.comparison_grace = Duration::from_millis(100);
        policy.outage_grace = Duration::from_millis(200);
        change(&mut policy);
        let quick = RetryPolicy::default().between(Duration::from_millis(1), Duration::from_millis(10));
        ArgoCd::builder(self.lab.url(), login)
            .unwrap()
            .retry(quick)
            .wait_policy(policy)
            .revision_oracle(Arc::new(Git(self.repository())))
            .build()
            .unwrap()
    }

    /// An application that is live at a first image and commit.
    pub(crate) async fn deployed(automated: bool) -> (Self, ImageRef, CommitSha) {
        Self::start().await.deploy(automated).await
    }

    pub(crate) async fn deploy(self, automated: bool) -> (Self, ImageRef, CommitSha) {
        let world = self;
        let image = world.image("one");
        let commit = world.commit(&image);
        world.client().create(&world.spec(automated)).await.unwrap();
        let report = world.wait(&commit, &image).await;
        assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
        (world, image, commit)
    }

    pub(crate) async fn wait(&self, commit: &CommitSha, image: &ImageRef) -> DeliveryReport {
        let report = self
            .client()
            .wait(expected(commit, image), &Cancellation::new())
            .await
            .unwrap();
        if report.outcome == DeliveryOutcome::Live {
            self.assert_runs(image);
        }
        report
    }

    /// The cluster itself is asked: no other image runs.
    pub(crate) fn assert_runs(&self, image: &ImageRef) {
        let running: BTreeSet<_> = self
            .lab
            .cluster()
            .running()
            .into_iter()
            .map(|one| one.image_digest)
            .collect();
        assert_eq!(running, image.digest().cloned().into_iter().collect());
    }
}

/// Two pods of an image.
fn deployment(image: &ImageRef) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 2\n  selector:\n    \
         matchLabels: {{app: web}}\n  template:\n    metadata:\n      labels: {{app: web}}\n    spec:\n      \
         containers:\n      - name: web\n        image: {image}\n"
    )
}

pub(crate) fn app() -> Application {
    "default/web".parse().unwrap()
}

pub(crate) fn expected(commit: &CommitSha, image: &ImageRef) -> Expected {
    Expected {
        application: app(),
        revision: commit.clone(),
        images: vec![image.clone()],
        platform_digests: vec![],
        within: Duration::from_secs(120),
        settle: Duration::ZERO,
    }
}

fn git(folder: &std::path::Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Asks the repository itself.
#[derive(Debug)]
struct Git(PathBuf);

#[async_trait::async_trait]
impl RevisionOracle for Git {
    async fn contains(&self, _: &str, revision: &CommitSha, expected: &CommitSha) -> Result<bool, Error> {
        Ok(git(
            &self.0,
            &[
                "merge-base",
                "--is-ancestor",
                expected.as_str(),
                revision.as_str(),
            ],
        )
        .is_ok())
    }
}
