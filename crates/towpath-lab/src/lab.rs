//! The whole lab: every service started, and the wires between them.
//!
//! The services know each other only as their users would: by URLs, tokens and webhook secrets.

use crate::LabError;
use crate::argocd::{ArgoCd, ArgoCdConfig, GitCredentials, RegistryAccess};
use crate::codeartifact::{CodeArtifact, CodeArtifactConfig};
use crate::ecr::{Ecr, EcrConfig, ImageSeed, Upstream, UpstreamConfig, UpstreamKind};
use crate::github::{GitHub, GitHubConfig};
use crate::spacelift::{Spacelift, SpaceliftConfig, StackSeed};
use towpath_core::Secret;
use url::Url;

/// The organisation whose repositories the lab's hooks and stacks watch.
pub const ORGANIZATION: &str = "acme";
/// Who writes code, and opens pull requests.
pub const AUTHOR: &str = "mona";
/// Who reviews it, and whose token the delivery uses.
pub const REVIEWER: &str = "hubot";

/// How a lab is started. The defaults give every service a free port and a small world:
///
/// * GitHub has the organisation [`ORGANIZATION`] with its members [`AUTHOR`] and [`REVIEWER`], and sends every push to
///   Argo CD and Spacelift;
/// * CodeArtifact has the domain `acme` with the repository `libraries` in front of a public source;
/// * the ECR public gallery has `docker/library/alpine:3.20`, Quay.io has `towpath/ca-certificates:2026` (both made up,
///   for two platforms);
/// * Spacelift has the stacks `shared-services` and `apps` over `acme/infra`, each on the private worker pool of its name.
#[derive(Clone, Debug)]
#[must_use]
pub struct LabConfig {
    /// Amazon ECR. Its upstreams are filled in.
    pub ecr: EcrConfig,
    /// The port of the ECR public gallery; 0 for any.
    pub ecr_public_port: u16,
    /// The port of Quay.io; 0 for any.
    pub quay_port: u16,
    /// CodeArtifact. Region, account and keys are those of ECR.
    pub codeartifact: CodeArtifactConfig,
    /// GitHub Enterprise Server and Actions.
    pub github: GitHubConfig,
    /// Argo CD and the cluster. Git and registry credentials and the webhook secret are filled in.
    pub argocd: ArgoCdConfig,
    /// Spacelift. Git credentials and the way back to GitHub are filled in.
    pub spacelift: SpaceliftConfig,
}

impl Default for LabConfig {
    fn default() -> Self {
        let infra = format!("{ORGANIZATION}/infra");
        let stack = |id: &str| {
            StackSeed::new(id, &infra)
                .with_project_root(id)
                .with_worker_pool(id)
        };
        let stacks = vec![
            stack("shared-services"),
            stack("apps").with_dependency("shared-services"),
        ];
        Self {
            ecr: EcrConfig::default(),
            ecr_public_port: 0,
            quay_port: 0,
            codeartifact: CodeArtifactConfig::default(),
            github: GitHubConfig::default(),
            argocd: ArgoCdConfig::default(),
            spacelift: SpaceliftConfig {
                stacks,
                ..SpaceliftConfig::default()
            },
        }
    }
}

/// Every outside service of a delivery, on loopback, until it is dropped. Any number of labs run in one process without
/// sharing anything.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let lab = towpath_lab::Lab::start().await?;
/// assert!(lab.environment().iter().any(|(key, _)| key == "ARGOCD_SERVER"));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Lab {
    ecr_public: Upstream,
    quay: Upstream,
    ecr: Ecr,
    codeartifact: CodeArtifact,
    github: GitHub,
    argocd: ArgoCd,
    spacelift: Spacelift,
    config: LabConfig,
}

impl Lab {
    /// Starts a lab with the defaults.
    ///
    /// # Errors
    /// Where a port cannot be had, or a temporary folder cannot be made.
    pub async fn start() -> Result<Self, LabError> {
        Self::with(LabConfig::default()).await
    }

    /// Starts a lab.
    ///
    /// # Errors
    /// Where a port is taken, or a temporary folder cannot be made; the error names the service.
    pub async fn with(mut config: LabConfig) -> Result<Self, LabError> {
        let upstream = |kind, port| {
            Upstream::start(UpstreamConfig {
                port,
                ..UpstreamConfig::new(kind)
            })
        };
        let EcrConfig {
            region,
            account,
            access_key_id,
            secret_access_key,
            ..
        } = config.ecr.clone();
        config.codeartifact.region.clone_from(&region);
        config.codeartifact.account = account;
        config.codeartifact.access_key_id.clone_from(&access_key_id);
        config.codeartifact.secret_access_key = secret_access_key.clone();
        let (ecr_public, quay, codeartifact, github) = tokio::try_join!(
            upstream(UpstreamKind::EcrPublic, config.ecr_public_port),
            upstream(UpstreamKind::Quay, config.quay_port),
            CodeArtifact::start(config.codeartifact.clone()),
            GitHub::start(config.github.clone()),
        )?;
        ecr_public.seed_image("docker/library/alpine", "3.20", &ImageSeed::base())?;
        quay.seed_image("towpath/ca-certificates", "2026", &ImageSeed::certificates())?;

        config.ecr.upstreams = [&ecr_public, &quay]
            .map(|up| (up.kind().host().to_owned(), up.address()))
            .to_vec();
        let ecr = Ecr::start(config.ecr.clone()).await?;
        // For rules that are to have one; no upstream that the lab starts needs it.
        let secret = format!(
            "arn:aws:secretsmanager:{region}:{}:secret:ecr-pullthroughcache/lab-abcdef",
            config.ecr.account
        );
        ecr.put_secret(&secret, "lab", &Secret::new("lab-access-token"));

        let token = github.token(REVIEWER).unwrap_or_else(|| Secret::new(""));
        let url = |text: &str| Url::parse(text).ok();
        config.argocd.git_credentials.push(GitCredentials {
            url_prefix: github.server_url().to_owned(),
            username: REVIEWER.to_owned(),
            password: token.clone(),
        });
        config
            .argocd
            .registry_access
            .extend(url(&ecr.api_url()).map(|ecr_api| RegistryAccess {
                host: ecr.registry_host().to_owned(),
                ecr_api,
                region,
                access_key: access_key_id,
                secret_key: secret_access_key,
            }));
        let webhook_secret = config
            .argocd
            .webhook_secret
            .get_or_insert_with(new_secret)
            .clone();
        config.spacelift.git_base = url(github.server_url());
        config.spacelift.git_credentials = Some((REVIEWER.to_owned(), token.clone()));
        config.spacelift.github_api = url(&github.api_url()).map(|api| (api, token));
        let (argocd, spacelift) = tokio::try_join!(
            ArgoCd::start(config.argocd.clone()),
            Spacelift::start(config.spacelift.clone()),
        )?;

        let argocd_hook = format!("{}/api/webhook", argocd.url().trim_end_matches('/'));
        let spacelift_hook = format!(
            "{}/webhooks/github",
            spacelift.url().as_str().trim_end_matches('/')
        );
        github.add_organization_hook(ORGANIZATION, &argocd_hook, Some(webhook_secret), &["push"]);
        let spacelift_secret = config.spacelift.webhook_secret.clone();
        github.add_organization_hook(ORGANIZATION, &spacelift_hook, Some(spacelift_secret), &["push"]);
        let lab = Self {
            ecr_public,
            quay,
            ecr,
            codeartifact,
            github,
            argocd,
            spacelift,
            config,
        };
        lab.tell_actions();
        Ok(lab)
    }

    /// Workflows reach the services through variables and secrets of the organisation, named like the environment's keys.
    fn tell_actions(&self) {
        for (key, value) in self.environment() {
            match is_secret(&key) {
                true => self.github.set_secret(&key, Secret::new(value)),
                false => self.github.set_variable(&key, &value),
            }
        }
    }

    /// How any client reaches the services, as environment variables. Some of the values are secrets of this lab.
    pub fn environment(&self) -> Vec<(String, String)> {
        let LabConfig { ecr, spacelift, .. } = &self.config;
        let token = self
            .github
            .token(REVIEWER)
            .map_or_else(String::new, |token| token.expose().to_owned());
        [
            ("AWS_ENDPOINT_URL_ECR", self.ecr.api_url()),
            ("AWS_ENDPOINT_URL_CODEARTIFACT", self.codeartifact.api_url()),
            ("AWS_ACCESS_KEY_ID", ecr.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", ecr.secret_access_key.expose().to_owned()),
            ("AWS_REGION", ecr.region.clone()),
            ("TOWPATH_LAB_REGISTRY", self.ecr.registry_host().to_owned()),
            ("TOWPATH_LAB_ECR_PUBLIC", self.ecr_public.address().to_string()),
            ("TOWPATH_LAB_QUAY", self.quay.address().to_string()),
            ("TOWPATH_LAB_GITHUB", self.github.api_url()),
            ("TOWPATH_LAB_GIT", self.github.server_url().to_owned()),
            ("TOWPATH_LAB_GITHUB_TOKEN", token),
            ("ARGOCD_SERVER", self.argocd.url().to_owned()),
            ("ARGOCD_AUTH_TOKEN", self.argocd.token().expose().to_owned()),
            ("SPACELIFT_API_KEY_ENDPOINT", self.spacelift.url().to_string()),
            ("SPACELIFT_API_KEY_ID", spacelift.api_key_id.clone()),
            (
                "SPACELIFT_API_KEY_SECRET",
                spacelift.api_key_secret.expose().to_owned(),
            ),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }

    /// The ECR public gallery (E1).
    pub fn ecr_public(&self) -> &Upstream {
        &self.ecr_public
    }

    /// Quay.io (E2).
    pub fn quay(&self) -> &Upstream {
        &self.quay
    }

    /// Amazon ECR (D1, D2).
    pub fn ecr(&self) -> &Ecr {
        &self.ecr
    }

    /// CodeArtifact (D3).
    pub fn codeartifact(&self) -> &CodeArtifact {
        &self.codeartifact
    }

    /// GitHub Enterprise and Actions (A, B, C).
    pub fn github(&self) -> &GitHub {
        &self.github
    }

    /// Argo CD and the cluster (F).
    pub fn argocd(&self) -> &ArgoCd {
        &self.argocd
    }

    /// Spacelift and its workers (G to K).
    pub fn spacelift(&self) -> &Spacelift {
        &self.spacelift
    }
}

fn is_secret(key: &str) -> bool {
    ["TOKEN", "SECRET", "ACCESS_KEY_ID"]
        .iter()
        .any(|part| key.contains(part))
}

fn new_secret() -> Secret {
    Secret::new(uuid::Uuid::new_v4().simple().to_string())
}
