//! What the user says about the account: Region, endpoint, credentials, limits.

use crate::error::SERVICE;
use crate::transport::{Guard, HonourRetryAfter};
use aws_sdk_codeartifact::config::{BehaviorVersion, Builder, Credentials};
use aws_smithy_types::retry::RetryConfig;
use std::fmt;
use std::time::Duration;
use towpath_core::{Region, Secret, wait};
use towpath_elements::{Error, ErrorKind, Result};
use url::{Host, Url};

/// The configuration of a [`CodeArtifact`](crate::CodeArtifact) client.
///
/// What is not set comes from the environment and the files that every AWS tool reads (`AWS_REGION`,
/// `AWS_ENDPOINT_URL_CODEARTIFACT`, `AWS_ACCESS_KEY_ID`, web identity, container and instance roles, …).
#[derive(Clone)]
pub struct CodeArtifactConfig {
    region: Option<Region>,
    endpoint: Option<Url>,
    credentials: Option<(String, Secret, Option<Secret>)>,
    pub(crate) operation_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) attempts: u32,
    pub(crate) first_pause: Duration,
    pub(crate) longest_pause: Duration,
    pub(crate) publish_wait: wait::Policy,
    pub(crate) page_size: Option<i32>,
}

impl CodeArtifactConfig {
    /// Everything from the environment.
    pub fn from_env() -> Self {
        Self {
            region: None,
            endpoint: None,
            credentials: None,
            operation_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            attempts: 4,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(20),
            publish_wait: wait::Policy::default().within(Duration::from_secs(120)),
            page_size: None,
        }
    }

    /// The Region of the domain.
    #[must_use]
    pub fn region(mut self, region: Region) -> Self {
        self.region = Some(region);
        self
    }

    /// Where the service's API is, instead of its usual endpoint. `https`, or `http` on this machine.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Url) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// A fixed access key, and a session token where it is temporary.
    #[must_use]
    pub fn credentials(
        mut self,
        access_key_id: impl Into<String>,
        secret_access_key: Secret,
        session_token: Option<Secret>,
    ) -> Self {
        self.credentials = Some((access_key_id.into(), secret_access_key, session_token));
        self
    }

    /// How long one call of the API may take, retries included; 30 seconds unless set.
    ///
    /// Assets are not bound by it: a download may take as long as bytes keep coming, and an upload gets a second more
    /// for each MiB.
    #[must_use]
    pub fn operation_timeout(mut self, limit: Duration) -> Self {
        self.operation_timeout = limit;
        self
    }

    /// How often a request is sent at most (4 unless set), the pause after the first, and the longest pause.
    ///
    /// Where the service asks for a longer pause than that, the call fails at once and says how long.
    #[must_use]
    pub fn retries(mut self, attempts: u32, first_pause: Duration, longest_pause: Duration) -> Self {
        self.attempts = attempts.max(1);
        self.first_pause = first_pause;
        self.longest_pause = longest_pause;
        self
    }

    /// How patiently a published version is waited for until the service says that it is published; two minutes unless set.
    #[must_use]
    pub fn publish_wait(mut self, policy: wait::Policy) -> Self {
        self.publish_wait = policy;
        self
    }

    /// How many results a page of a list holds, 1 to 1000; the service decides unless set.
    #[must_use]
    pub fn page_size(mut self, results: i32) -> Self {
        self.page_size = Some(results.clamp(1, 1000));
        self
    }

    /// The SDK's configuration, without timeouts.
    pub(crate) async fn sdk(&self) -> Result<Builder> {
        // Pinned: a later SDK must not change timeouts and retries behind our back.
        let version = BehaviorVersion::v2026_01_12();
        let mut builder = match (&self.region, &self.credentials) {
            // Nothing is left to look for, so nothing is read.
            (Some(_), Some(_)) => aws_sdk_codeartifact::Config::builder().behavior_version(version),
            _ => {
                let mut loader = aws_config::defaults(version);
                if let Some(region) = &self.region {
                    loader = loader.region(aws_config::Region::new(region.to_string()));
                }
                let shared = loader.load().await;
                if shared.region().is_none() {
                    return Err(invalid("no Region is set")
                        .advise("set AWS_REGION, or the region of the configuration"));
                }
                Builder::from(&shared)
            }
        };
        if let Some(region) = &self.region {
            builder = builder.region(aws_sdk_codeartifact::config::Region::new(region.to_string()));
        }
        if let Some((id, secret, session)) = &self.credentials {
            let session = session.as_ref().map(|session| session.expose().to_owned());
            let credentials = Credentials::new(id.clone(), secret.expose(), session, None, "towpath");
            builder = builder.credentials_provider(credentials);
        }
        if let Some(endpoint) = &self.endpoint {
            if !is_secure(endpoint) {
                return Err(invalid("the endpoint is plain http and not on this machine")
                    .advise("give an https endpoint"));
            }
            builder = builder.endpoint_url(endpoint.as_str());
        }
        Ok(builder
            .interceptor(Guard)
            .retry_classifier(HonourRetryAfter::up_to(self.longest_pause))
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(self.attempts)
                    .with_initial_backoff(self.first_pause)
                    .with_max_backoff(self.longest_pause),
            ))
    }
}

/// Whether credentials may be sent there: over TLS, or not beyond this machine.
pub(crate) fn is_secure(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

fn invalid(detail: &str) -> Error {
    Error::new(ErrorKind::Invalid, SERVICE, "make", "a client").because(detail)
}

impl Default for CodeArtifactConfig {
    fn default() -> Self {
        Self::from_env()
    }
}

impl fmt::Debug for CodeArtifactConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self
            .endpoint
            .as_ref()
            .map(|url| url.origin().ascii_serialization());
        f.debug_struct("CodeArtifactConfig")
            .field("region", &self.region)
            .field("endpoint", &endpoint)
            .field("credentials", &self.credentials.as_ref().map(|(id, ..)| id))
            .field("operation_timeout", &self.operation_timeout)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
