//! The client: the service's API on the AWS SDK, and the registry's protocol beside it.

use crate::cache::RememberedRules;
use crate::config::EcrConfig;
use crate::error::{SERVICE, failed};
use crate::oci::{Anonymous, OciClient};
use crate::paced::{HearThrottling, PacedClient};
use crate::pacing::Pacer;
use crate::scanning::ScanSettings;
use crate::token::Tokens;
use aws_sdk_ecr::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_ecr::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use std::sync::Arc;
use towpath_core::{AccountId, ImageRef, RegistryHost, requests};
use towpath_elements::{BoxError, Error, ErrorKind, Result};

/// A client of one account's registry in one Region. Cheap to clone; clones share connections and the token.
#[derive(Clone, Debug)]
pub struct Ecr {
    pub(crate) api: aws_sdk_ecr::Client,
    pub(crate) oci: OciClient,
    pub(crate) upstreams: OciClient,
    pub(crate) scanning: ScanSettings,
    tokens: Arc<Tokens>,
    pub(crate) rules: Arc<RememberedRules>,
}

impl Ecr {
    /// Makes a client. Nothing is sent yet, except what finding credentials in the environment needs.
    ///
    /// # Errors
    /// *Invalid* where no Region is known, or an endpoint is plain `http` and not on this machine.
    pub async fn new(config: &EcrConfig) -> Result<Self> {
        let pacer = Pacer::new(config.paces());
        let sdk = config
            .sdk()
            .await?
            .retry_classifier(QuotaIsNotThrottling)
            .interceptor(CountAttempts)
            .interceptor(HearThrottling(pacer.clone()))
            .http_client(PacedClient::new(pacer.clone()))
            .build();
        let region = sdk.region().map(ToString::to_string);
        let api = aws_sdk_ecr::Client::from_conf(sdk);
        let tokens = Arc::new(Tokens::new(api.clone(), region));
        let settings = config.settings().clone();
        let upstreams = OciClient::new("the upstream registry", Arc::new(Anonymous), settings.clone())?;
        let credentials = Arc::clone(&tokens);
        Ok(Self {
            api,
            oci: OciClient::new(SERVICE, credentials, settings)?.paced(pacer),
            upstreams,
            scanning: config.scan_settings().clone(),
            tokens,
            rules: Arc::default(),
        })
    }

    /// The SDK's client, for what this crate has no words for yet. Its requests are counted and retried as ours.
    pub fn api(&self) -> &aws_sdk_ecr::Client {
        &self.api
    }

    /// The registry's protocol, with this client's token for this registry and anonymous elsewhere.
    pub fn oci(&self) -> &OciClient {
        &self.oci
    }

    /// The host of the private registry, as the service names it.
    ///
    /// # Errors
    /// What the service says to `GetAuthorizationToken`.
    pub async fn registry(&self) -> Result<RegistryHost> {
        self.tokens.registry().await
    }

    /// The registry's account, where its host name says so.
    pub(crate) fn account(image: &ImageRef) -> Option<AccountId> {
        image.registry().ecr().map(|host| host.account().clone())
    }

    /// Whether a host is an ECR registry of the Region that this client works in.
    pub(crate) fn is_in_region(&self, registry: &RegistryHost) -> bool {
        self.tokens.is_in_region(registry)
    }

    /// Refuses an image of another registry, about which this service's API knows nothing.
    pub(crate) async fn require_own(&self, image: &ImageRef, attempted: &'static str) -> Result<()> {
        let own = self.registry().await?;
        if *image.registry() == own || self.is_in_region(image.registry()) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, SERVICE, attempted, image)
            .because(format!("it is not in this registry, {own}"))
            .advise("import or copy it first"))
    }

    /// Everything the service knows of one image, given by digest or tag; `None` where it has none.
    ///
    /// # Errors
    /// What the service says to `DescribeImages`.
    pub async fn image(&self, image: &ImageRef) -> Result<Option<aws_sdk_ecr::types::ImageDetail>> {
        let call = self
            .api
            .describe_images()
            .set_registry_id(Self::account(image).map(|account| account.to_string()))
            .repository_name(image.repository().as_str())
            .image_ids(image_id(image));
        match call.send().await {
            Ok(output) => Ok(output.image_details.unwrap_or_default().into_iter().next()),
            Err(error) => {
                let failed = failed("describe", image, error);
                match failed.code.as_str() {
                    "ImageNotFoundException" | "RepositoryNotFoundException" => Ok(None),
                    _ => Err(failed.error),
                }
            }
        }
    }
}

/// The digest where there is one, else the tag.
pub(crate) fn image_id(image: &ImageRef) -> aws_sdk_ecr::types::ImageIdentifier {
    let builder = aws_sdk_ecr::types::ImageIdentifier::builder();
    match image.digest() {
        Some(digest) => builder.image_digest(digest.as_str()).build(),
        None => builder.image_tag(image.reference()).build(),
    }
}

/// Counts what goes on the wire, in the task of the caller.
#[derive(Debug)]
struct CountAttempts;

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for CountAttempts {
    fn name(&self) -> &'static str {
        "CountAttempts"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        requests::sent();
        Ok(())
    }
}

/// In ECR `LimitExceededException` is a quota; the SDK takes it for throttling and would try again in vain.
#[derive(Debug)]
struct QuotaIsNotThrottling;

impl ClassifyRetry for QuotaIsNotThrottling {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let body = context.response().and_then(|response| response.body().bytes());
        let told: Option<Told> = body.and_then(|body| serde_json::from_slice(body).ok());
        let is_quota = told.is_some_and(|told| told.code.ends_with("LimitExceededException"));
        match is_quota {
            true => RetryAction::RetryForbidden,
            false => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "QuotaIsNotThrottling"
    }
}

/// The error of the AWS JSON protocol: `__type` may carry a namespace before a `#`.
#[derive(serde::Deserialize)]
pub(crate) struct Told {
    #[serde(rename = "__type")]
    pub(crate) code: String,
}
