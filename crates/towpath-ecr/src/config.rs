//! What the user says about the account: Region, endpoint, credentials, limits.

use crate::oci::OciSettings;
use crate::pacing::Pacing;
use crate::scanning::ScanSettings;
use aws_sdk_ecr::config::Credentials;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use std::fmt;
use std::time::Duration;
use towpath_core::{Region, RegistryHost, Secret};
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// The configuration of an [`Ecr`](crate::Ecr) client.
///
/// What is not set comes from the environment and the files that every AWS tool reads (`AWS_REGION`,
/// `AWS_ENDPOINT_URL_ECR`, `AWS_ACCESS_KEY_ID`, web identity, container and instance roles, …).
///
/// A client of an account, with the credentials of the environment:
///
/// ```no_run
/// # async fn example() -> towpath_ecr::Result<()> {
/// use towpath_ecr::{Ecr, EcrConfig};
/// let ecr = Ecr::new(&EcrConfig::from_env().region("eu-west-1".parse()?)).await?;
/// # Ok(()) }
/// ```
///
/// A client of the registry that `towpath-lab` plays, for tests without an account:
///
/// ```
/// use towpath_ecr::{Ecr, EcrConfig, Registry};
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let lab = towpath_lab::ecr::Ecr::start(towpath_lab::ecr::EcrConfig::default()).await?;
/// let config = EcrConfig::from_env()
///     .region(lab.region().parse()?)
///     .endpoint(lab.api_url().parse()?)
///     .credentials(lab.access_key_id(), lab.secret_access_key().clone(), None);
/// let ecr = Ecr::new(&config).await?;
/// let web = ecr.ensure_repository(&"shop/web".parse()?).await?;
/// assert_eq!(web.registry().as_str(), lab.registry_host());
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct EcrConfig {
    region: Option<Region>,
    endpoint: Option<Url>,
    credentials: Option<(String, Secret, Option<Secret>)>,
    operation_timeout: Option<Duration>,
    fips: bool,
    dual_stack: bool,
    settings: OciSettings,
    pacing: Pacing,
    scanning: ScanSettings,
}

impl EcrConfig {
    /// Everything from the environment.
    pub fn from_env() -> Self {
        Self::default()
    }

    /// The Region of the registry. It belongs to the registry's host name, not to where the program runs.
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

    /// Uses the service's FIPS endpoint. It cannot be had together with an endpoint of one's own.
    ///
    /// The API only: images go to the host that their reference names, which has a FIPS form too.
    #[must_use]
    pub fn fips(mut self, on: bool) -> Self {
        self.fips = on;
        self
    }

    /// Uses the service's endpoint that answers over IPv4 and IPv6. It cannot be had together with an endpoint of one's
    /// own.
    ///
    /// The API only: images go to the host that their reference names, which has a dual-stack form too.
    #[must_use]
    pub fn dual_stack(mut self, on: bool) -> Self {
        self.dual_stack = on;
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

    /// How long one call of the API may take, retries included; 30 seconds unless set. Images are not bound by it.
    #[must_use]
    pub fn operation_timeout(mut self, limit: Duration) -> Self {
        self.operation_timeout = Some(limit);
        self
    }

    /// How registries are spoken to: attempts, pauses, silence, blobs at once. Attempts and pauses hold for the API too.
    #[must_use]
    pub fn wire(mut self, settings: OciSettings) -> Self {
        let endpoints = std::mem::take(&mut self.settings.endpoints);
        self.settings = settings;
        self.settings.endpoints.extend(endpoints);
        self
    }

    /// Names an upstream registry that this client can reach itself, and where. An import then compares what the
    /// cache has with what the upstream has.
    #[must_use]
    pub fn upstream(mut self, registry: RegistryHost, endpoint: Url) -> Self {
        self.settings.endpoints.insert(registry, endpoint);
        self
    }

    /// How often each action is called at most; the service's default quotas unless set.
    #[must_use]
    pub fn pacing(mut self, pacing: Pacing) -> Self {
        self.pacing = pacing;
        self
    }

    pub(crate) fn paces(&self) -> &Pacing {
        &self.pacing
    }

    /// How patient the client is with the scanner.
    #[must_use]
    pub fn scanning(mut self, settings: ScanSettings) -> Self {
        self.scanning = settings;
        self
    }

    pub(crate) fn scan_settings(&self) -> &ScanSettings {
        &self.scanning
    }

    pub(crate) fn settings(&self) -> &OciSettings {
        &self.settings
    }

    /// The SDK's configuration.
    pub(crate) async fn sdk(&self) -> Result<aws_sdk_ecr::config::Builder> {
        if let Some(endpoint) = &self.endpoint {
            self.check_variant()?;
            check(endpoint)?;
        }
        // Pinned: a later SDK must not change timeouts and retries behind our back.
        let version = aws_sdk_ecr::config::BehaviorVersion::v2026_01_12();
        let mut builder = match (&self.region, &self.credentials) {
            // Nothing is left to look for, so nothing is read.
            (Some(_), Some(_)) => aws_sdk_ecr::Config::builder().behavior_version(version),
            _ => {
                let mut loader = aws_config::defaults(version);
                if let Some(region) = &self.region {
                    loader = loader.region(aws_config::Region::new(region.to_string()));
                }
                let shared = loader.load().await;
                if shared.region().is_none() {
                    return Err(invalid(
                        "no Region is set",
                        "set AWS_REGION, or the region of the configuration",
                    ));
                }
                if let Some(url) = shared.endpoint_url().and_then(|url| Url::parse(url).ok()) {
                    check(&url)?;
                    if self.endpoint.is_none() {
                        self.check_variant()?;
                    }
                }
                aws_sdk_ecr::config::Builder::from(&shared)
            }
        };
        if let Some(region) = &self.region {
            builder = builder.region(aws_sdk_ecr::config::Region::new(region.to_string()));
        }
        if let Some((id, secret, session)) = &self.credentials {
            let session = session.as_ref().map(|session| session.expose().to_owned());
            let credentials = Credentials::new(id.clone(), secret.expose(), session, None, "towpath");
            builder = builder.credentials_provider(credentials);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint_url(endpoint.as_str());
        }
        if self.fips {
            builder = builder.use_fips(true);
        }
        if self.dual_stack {
            builder = builder.use_dual_stack(true);
        }
        Ok(builder
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(self.settings.connect_timeout)
                    .operation_timeout(self.operation_timeout.unwrap_or(Duration::from_secs(30)))
                    .build(),
            )
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(self.settings.attempts.max(1))
                    .with_initial_backoff(self.settings.first_pause)
                    .with_max_backoff(self.settings.longest_pause),
            ))
    }
}

impl EcrConfig {
    /// The service's own endpoints have variants, and other ones have none.
    fn check_variant(&self) -> Result<()> {
        match self.fips || self.dual_stack {
            true => Err(invalid(
                "an endpoint is set together with FIPS or dual-stack, which choose one themselves",
                "set one or the other; AWS_ENDPOINT_URL sets one too",
            )),
            false => Ok(()),
        }
    }
}

fn check(endpoint: &Url) -> Result<()> {
    if crate::oci::origin::is_secure(endpoint) {
        return Ok(());
    }
    Err(invalid(
        "the endpoint is plain http and not on this machine",
        "give an https endpoint",
    ))
}

fn invalid(detail: &'static str, advice: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, crate::error::SERVICE, "make", "a client")
        .because(detail)
        .advise(advice)
}

impl fmt::Debug for EcrConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcrConfig")
            .field("region", &self.region)
            .field(
                "endpoint",
                &self
                    .endpoint
                    .as_ref()
                    .map(|url| url.origin().ascii_serialization()),
            )
            .field("credentials", &self.credentials.as_ref().map(|(id, ..)| id))
            .field("operation_timeout", &self.operation_timeout)
            .field("fips", &self.fips)
            .field("dual_stack", &self.dual_stack)
            .field("settings", &self.settings)
            .field("pacing", &self.pacing)
            .field("scanning", &self.scanning)
            .finish()
    }
}
