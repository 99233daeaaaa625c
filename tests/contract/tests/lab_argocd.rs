//! `towpath-argocd` at the lab holds the contract: Argo CD reads git repositories on disk, and its cluster pulls through
//! the ECR of the lab.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use towpath_argocd::{ArgoCd, Login, RetryPolicy, RevisionOracle, WaitPolicy};
use towpath_core::wait::{self, Judgement, Outcome, Policy};
use towpath_core::{Application, Cancellation, CommitSha, Digest, ImageRef, Region, Retry};
use towpath_ecr::{Ecr, EcrConfig, WantedRule};
use towpath_elements::delivery::{DeliveryOutcome, Expected};
use towpath_elements::{Delivery, Error};
use towpath_lab::argocd::{self as lab, ArgoCdConfig, RegistryAccess};
use towpath_lab::ecr::{self, ImageSeed, Upstream, UpstreamConfig, UpstreamKind};
use towpath_testkit::contract::delivery::{DeliveryFixture, Promoted, Promotion};

/// The repository of the images, at the upstream.
const IMAGES: &str = "acme/web";

struct Fixture {
    lab: lab::ArgoCd,
    registry: ecr::Ecr,
    quay: Upstream,
    client: Arc<ArgoCd>,
    folder: tempfile::TempDir,
    made: AtomicU32,
}

impl Fixture {
    async fn start() -> Self {
        let quay = Upstream::start(UpstreamConfig::new(UpstreamKind::Quay))
            .await
            .unwrap();
        let registry = start_registry(&quay).await;
        let known = ecr::EcrConfig::default();
        let access = RegistryAccess {
            host: registry.registry_host().to_owned(),
            ecr_api: registry.api_url().parse().unwrap(),
            region: known.region,
            access_key: known.access_key_id,
            secret_key: known.secret_access_key,
        };
        let mut config = ArgoCdConfig {
            registry_access: vec![access],
            keep_alive: Duration::from_millis(50),
            ..ArgoCdConfig::default()
        };
        // A good rollout is never too slow, however busy the machine is; one that shall fail has its own deadline.
        config.cluster.progress_deadline = Duration::from_secs(600);
        config.cluster.back_off = Duration::from_millis(40);
        let lab = lab::ArgoCd::start(config).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let client = client(&lab, folder.path());
        Self {
            lab,
            registry,
            quay,
            client: Arc::new(client),
            folder,
            made: AtomicU32::new(0),
        }
    }

    fn number(&self) -> u32 {
        self.made.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn repository(&self, application: &Application) -> PathBuf {
        self.folder.path().join(application.name().as_str())
    }

    /// An image that can be pulled, or one that the upstream does not have.
    fn image(&self, exists: bool) -> ImageRef {
        let contents = format!("web {}", self.number());
        let digest = match exists {
            true => {
                let seed = ImageSeed::new().file("srv/web", contents.clone());
                self.quay.seed_image(IMAGES, "latest", &seed).unwrap()
            }
            false => Digest::sha256_of(&contents),
        };
        let name = format!("{}/quay/{IMAGES}", self.registry.registry_host());
        name.parse::<ImageRef>().unwrap().at(digest)
    }

    fn commit(&self, application: &Application, manifest: &str) -> CommitSha {
        let repository = self.repository(application);
        std::fs::write(repository.join("prod/web.yaml"), manifest).unwrap();
        git(&repository, &["add", "--all"]).unwrap();
        git(&repository, &["commit", "--quiet", "--message=Promote"]).unwrap();
        git(&repository, &["rev-parse", "HEAD"]).unwrap().parse().unwrap()
    }

    /// The status of an application as the server has it, read past the client.
    fn status(&self, application: &Application) -> serde_json::Value {
        let found = self.lab.application(application.name().as_str());
        found.unwrap()["status"].take()
    }
}

/// The ECR of the lab, with a rule to pull from the upstream.
async fn start_registry(quay: &Upstream) -> ecr::Ecr {
    let known = ecr::EcrConfig::default();
    let registry = ecr::Ecr::start(ecr::EcrConfig {
        upstreams: vec![("quay.io".into(), quay.address())],
        ..ecr::EcrConfig::default()
    })
    .await
    .unwrap();
    let config = EcrConfig::from_env()
        .region(Region::new(&known.region).unwrap())
        .endpoint(registry.api_url().parse().unwrap())
        .credentials(known.access_key_id, known.secret_access_key, None);
    let client = Ecr::new(&config).await.unwrap();
    client
        .ensure_cache_rule(&WantedRule::new("quay", "quay.io"))
        .await
        .unwrap();
    registry
}

fn client(lab: &lab::ArgoCd, folder: &Path) -> ArgoCd {
    let mut policy = WaitPolicy::default();
    policy.poll = Duration::from_millis(100);
    policy.gap = Duration::from_millis(5);
    policy.first_refresh = Duration::from_millis(20);
    policy.longest_refresh = Duration::from_millis(80);
    policy.refresh_timeout = Duration::from_secs(5);
    policy.degraded_grace = Duration::from_millis(100);
    policy.comparison_grace = Duration::from_millis(100);
    let quick = RetryPolicy::default().between(Duration::from_millis(1), Duration::from_millis(10));
    ArgoCd::builder(lab.url(), Login::Token(lab.token().clone()))
        .unwrap()
        .retry(quick)
        .wait_policy(policy)
        .revision_oracle(Arc::new(OnDisk(folder.to_owned())))
        .build()
        .unwrap()
}

/// A Deployment of this image, with these lines of its specification.
fn deployment(application: &Application, image: &ImageRef, lines: &[&str]) -> String {
    let name = application.name();
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n{lines}  selector:\n    matchLabels: \
         {{app: {name}}}\n  template:\n    metadata:\n      labels: {{app: {name}}}\n    spec:\n      containers:\n      \
         - name: web\n        image: {image}\n"
    )
}

#[async_trait]
impl DeliveryFixture for Fixture {
    fn delivery(&self) -> Arc<dyn Delivery> {
        self.client.clone()
    }

    async fn deployed(&self) -> Promoted {
        let application: Application = format!("default/web-{}", self.number()).parse().unwrap();
        let repository = self.repository(&application);
        std::fs::create_dir_all(repository.join("prod")).unwrap();
        git(&repository, &["init", "--quiet", "--initial-branch=main", "."]).unwrap();
        let live = self.promote(&application, Promotion::Good).await;
        let spec = serde_json::json!({"metadata": {"name": application.name()}, "spec": {
            "project": "default",
            "source": {"repoURL": format!("file://{}", repository.display()), "path": "prod", "targetRevision": "main"},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
            "syncPolicy": {"automated": {"prune": true}}}});
        self.client
            .create(&serde_json::from_value(spec).unwrap())
            .await
            .unwrap();
        let expected = Expected {
            application,
            revision: live.revision.clone(),
            images: vec![live.image.clone()],
            platform_digests: Vec::new(),
            within: self.within(),
            settle: Duration::ZERO,
        };
        let report = self.client.wait(expected, &Cancellation::new()).await.unwrap();
        assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
        live
    }

    async fn hold(&self, _: &Application, held: bool) {
        self.lab
            .knobs()
            .set(|knobs| knobs.lose_refresh = if held { u32::MAX } else { 0 });
    }

    async fn promote(&self, application: &Application, promotion: Promotion) -> Promoted {
        let image = self.image(promotion != Promotion::WorkloadFails);
        let manifest = match promotion {
            Promotion::ManifestsBroken => "apiVersion: apps/v1\n  kind: [Deployment\n".to_owned(),
            // More than a Deployment may have: the cluster refuses it.
            Promotion::SyncFails => deployment(application, &image, &["replicas: 2000"]),
            Promotion::WorkloadFails => deployment(
                application,
                &image,
                &["replicas: 2", "progressDeadlineSeconds: 1"],
            ),
            Promotion::Good => deployment(application, &image, &["replicas: 2"]),
        };
        Promoted {
            application: application.clone(),
            revision: self.commit(application, &manifest),
            image,
        }
    }

    async fn take_over(&self, application: &Application) -> CommitSha {
        git(
            &self.repository(application),
            &["reset", "--quiet", "--hard", "HEAD~1"],
        )
        .unwrap();
        let manifest = deployment(application, &self.image(true), &["replicas: 2"]);
        let other = self.commit(application, &manifest);
        let look = async || self.client.refresh(application).await;
        let policy = Policy::every(Duration::from_millis(10)).within(self.within());
        let seen = |_: &_| match self.status(application)["sync"]["revision"] == other.as_str() {
            true => Judgement::Met,
            false => Judgement::pending("the application to look"),
        };
        let never = Cancellation::new();
        let outcome = wait::until(&policy, &never, look, |_: &Error| Retry::Never, seen).await;
        assert!(matches!(outcome, Outcome::Met(_)), "{outcome:?}");
        other
    }

    async fn sync_count(&self, application: &Application) -> usize {
        let status = self.status(application);
        let running = status["operationState"]["phase"] == "Running";
        status["history"].as_array().map_or(0, Vec::len) + usize::from(running)
    }

    fn within(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn in_vain(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn settle(&self) -> Duration {
        Duration::from_millis(50)
    }
}

/// Asks the repositories themselves, which `file://` URLs name.
#[derive(Debug)]
struct OnDisk(PathBuf);

#[async_trait]
impl RevisionOracle for OnDisk {
    async fn contains(&self, url: &str, revision: &CommitSha, expected: &CommitSha) -> Result<bool, Error> {
        let name = url.rsplit('/').next().unwrap();
        let arguments = [
            "merge-base",
            "--is-ancestor",
            expected.as_str(),
            revision.as_str(),
        ];
        Ok(git(&self.0.join(name), &arguments).is_ok())
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
        .args(["-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

mod delivery {
    use super::*;
    towpath_testkit::delivery_contract!(Fixture::start().await);
}
