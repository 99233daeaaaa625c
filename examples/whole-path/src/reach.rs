//! How the services are reached: the lab's environment, and the clients that it makes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use towpath_argocd::{ArgoCd, Login, WaitPolicy};
use towpath_codeartifact::{CodeArtifact, CodeArtifactConfig};
use towpath_core::wait::Policy;
use towpath_core::{Cancellation, Region, RegistryHost, Secret};
use towpath_ecr::{Ecr, EcrConfig};
use towpath_elements::{Error, ErrorKind, Result};
use towpath_flow::Elements;
use towpath_github::{Credential, GitHub, GitHubConfig};
use towpath_spacelift::Spacelift;
use url::Url;

/// The addresses and keys of the services, by the names that the lab gives them.
#[derive(Clone)]
pub struct Reach(HashMap<String, String>);

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut keys: Vec<_> = self.0.keys().collect();
        keys.sort();
        f.debug_set().entries(keys).finish()
    }
}

impl Reach {
    /// From the lab itself, or from whatever else has its keys.
    pub fn new(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(environment.into_iter().collect())
    }

    /// From the environment of this process.
    pub fn of_process() -> Self {
        Self(std::env::vars().collect())
    }

    /// One value.
    ///
    /// # Errors
    /// *Invalid* where it is not set.
    pub fn get(&self, key: &str) -> Result<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty()).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "environment", "read", key)
                .because("it is not set")
                .advise("start the lab with `cargo run -p towpath-lab -- serve --env-file FILE` and use its file")
        })
    }

    fn secret(&self, key: &str) -> Result<Secret> {
        self.get(key).map(Secret::new)
    }

    fn url(&self, key: &str) -> Result<Url> {
        let text = self.get(key)?;
        Url::parse(text).map_err(|error| {
            Error::new(ErrorKind::Invalid, "environment", "read", key)
                .because(format!("it is not a URL: {error}"))
        })
    }

    /// GitHub, as the owner of a token.
    ///
    /// # Errors
    /// Where a key is missing or the client cannot be made.
    pub fn github(&self, token: Secret) -> Result<GitHub> {
        let config = GitHubConfig::new(self.get("TOWPATH_LAB_GITHUB")?)?;
        GitHub::new(config.with_credential(Credential::Token(token)))
    }

    /// Amazon ECR.
    ///
    /// # Errors
    /// Where a key is missing or the client cannot be made.
    pub async fn ecr(&self) -> Result<Ecr> {
        let mut config = EcrConfig::from_env()
            .region(self.region()?)
            .endpoint(self.url("AWS_ENDPOINT_URL_ECR")?)
            .credentials(
                self.get("AWS_ACCESS_KEY_ID")?,
                self.secret("AWS_SECRET_ACCESS_KEY")?,
                None,
            );
        for (registry, key) in [
            ("public.ecr.aws", "TOWPATH_LAB_ECR_PUBLIC"),
            ("quay.io", "TOWPATH_LAB_QUAY"),
        ] {
            let endpoint = format!("http://{}/", self.get(key)?);
            if let Ok(endpoint) = Url::parse(&endpoint) {
                config = config.upstream(RegistryHost::new(registry)?, endpoint);
            }
        }
        Ecr::new(&config).await
    }

    /// CodeArtifact.
    ///
    /// # Errors
    /// Where a key is missing or the client cannot be made.
    pub async fn codeartifact(&self) -> Result<CodeArtifact> {
        let config = CodeArtifactConfig::from_env()
            .region(self.region()?)
            .endpoint(self.url("AWS_ENDPOINT_URL_CODEARTIFACT")?)
            .credentials(
                self.get("AWS_ACCESS_KEY_ID")?,
                self.secret("AWS_SECRET_ACCESS_KEY")?,
                None,
            );
        CodeArtifact::new(config).await
    }

    /// Argo CD, which asks GitHub whether a newer commit contains the expected one.
    ///
    /// # Errors
    /// Where a key is missing or the client cannot be made.
    pub fn argocd(&self, github: &Arc<GitHub>) -> Result<ArgoCd> {
        let login = Login::Token(self.secret("ARGOCD_AUTH_TOKEN")?);
        // The lab is near and quick: no pause between looks is longer than a second.
        let mut policy = WaitPolicy::default();
        policy.poll = Duration::from_secs(1);
        policy.gap = Duration::from_millis(25);
        policy.first_refresh = Duration::from_millis(200);
        policy.longest_refresh = Duration::from_secs(1);
        policy.refresh_timeout = Duration::from_secs(5);
        policy.degraded_grace = Duration::from_secs(5);
        ArgoCd::builder(self.get("ARGOCD_SERVER")?, login)?
            .wait_policy(policy)
            .revision_oracle(Arc::clone(github) as _)
            .build()
    }

    /// Spacelift.
    ///
    /// # Errors
    /// Where a key is missing or the client cannot be made.
    pub fn spacelift(&self) -> Result<Spacelift> {
        let (id, secret) = (
            self.get("SPACELIFT_API_KEY_ID")?,
            self.secret("SPACELIFT_API_KEY_SECRET")?,
        );
        Spacelift::with_api_key(self.get("SPACELIFT_API_KEY_ENDPOINT")?, id, secret)?.build()
    }

    fn region(&self) -> Result<Region> {
        Ok(Region::new(self.get("AWS_REGION")?)?)
    }

    /// What every flow here starts from: waits that look often, because the lab is near.
    pub fn elements(&self, github: &Arc<GitHub>, cancellation: &Cancellation) -> Elements {
        let policy = Policy::growing(Duration::from_millis(25), Duration::from_millis(250));
        Elements::new()
            .with_source(Arc::clone(github) as _)
            .with_ci(Arc::clone(github) as _)
            .with_policy(policy.within(Duration::from_secs(120)))
            .with_cancellation(cancellation.clone())
    }
}
