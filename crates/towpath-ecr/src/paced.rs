//! Pacing in front of the SDK: every attempt of a call waits for the turn of its action.

use crate::pacing::{Lane, Pacer};
use aws_sdk_ecr::config::interceptors::FinalizerInterceptorContextRef;
use aws_sdk_ecr::config::{ConfigBag, HttpClient, Intercept, RuntimeComponents, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, ConnectorBuilder, tls};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, Metadata};
use std::time::Duration;
use towpath_elements::BoxError;

/// The SDK's own HTTP client, behind the buckets.
#[derive(Debug)]
pub(crate) struct PacedClient {
    http: SharedHttpClient,
    pacer: Pacer,
}

#[derive(Debug)]
struct PacedConnector {
    connector: SharedHttpConnector,
    pacer: Pacer,
}

impl PacedClient {
    pub(crate) fn new(pacer: Pacer) -> Self {
        // As the SDK builds it where nothing is said.
        let http = Builder::new().build_with_connector_fn(|settings, components| {
            let mut builder = ConnectorBuilder::default()
                .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc));
            builder.set_connector_settings(settings.cloned());
            if let Some(components) = components {
                builder.set_sleep_impl(components.sleep_impl());
            }
            builder.set_proxy_config(Some(ProxyConfig::from_env()));
            builder.build()
        });
        Self { http, pacer }
    }
}

impl HttpClient for PacedClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(PacedConnector {
            connector: self.http.http_connector(settings, components),
            pacer: self.pacer.clone(),
        })
    }
}

impl HttpConnector for PacedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let action = target.rsplit('.').next().unwrap_or_default();
        let Some(lane) = self.pacer.lane(action) else {
            return self.connector.call(request);
        };
        let connector = self.connector.clone();
        HttpConnectorFuture::new(async move {
            lane.turn().await;
            connector.call(request).await
        })
    }
}

/// Hears when the service asks for fewer requests.
#[derive(Debug)]
pub(crate) struct HearThrottling(pub(crate) Pacer);

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for HearThrottling {
    fn name(&self) -> &'static str {
        "HearThrottling"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let lane = config
            .load::<Metadata>()
            .and_then(|call| self.0.lane(call.name()));
        if let (Some(lane), Some(response)) = (lane, context.response()) {
            hear(&lane, response);
        }
        Ok(())
    }
}

fn hear(lane: &Lane, response: &HttpResponse) {
    let body = response.body().bytes().unwrap_or_default();
    let told = serde_json::from_slice::<crate::client::Told>(body);
    let code = told.map(|told| told.code).unwrap_or_default();
    let throttled = [
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
    ]
    .iter()
    .any(|word| code.ends_with(word));
    if throttled || response.status().as_u16() == 429 {
        let number = |name: &str| response.headers().get(name)?.trim().parse::<u64>().ok();
        let asked = number("x-amz-retry-after").map(Duration::from_millis);
        lane.throttled(asked.or_else(|| number("retry-after").map(Duration::from_secs)));
    }
}
