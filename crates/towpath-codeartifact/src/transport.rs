//! What is added to the SDK's transport: requests are counted, and the service's wish for a pause is honoured.

use crate::config::is_secure;
use aws_sdk_codeartifact::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_codeartifact::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_codeartifact::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{
    ClassifyRetry, RetryAction, RetryClassifierPriority,
};
use aws_smithy_types::retry::ErrorKind;
use std::time::Duration;
use towpath_core::requests;
use url::Url;

/// Counts each attempt, and lets none go in the clear beyond this machine. The SDK runs it in the task of the caller.
#[derive(Debug)]
pub(crate) struct Guard;

impl Intercept for Guard {
    fn name(&self) -> &'static str {
        "Guard"
    }

    fn read_before_signing(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // An endpoint of the environment or of a profile comes to light only here.
        match Url::parse(context.request().uri()) {
            Ok(url) if is_secure(&url) => Ok(()),
            _ => Err("the endpoint is plain http and not on this machine; give an https endpoint".into()),
        }
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        requests::sent();
        Ok(())
    }
}

/// Waits as long as `Retry-After` says (the SDK by itself does not read it), or gives up where that is too long.
#[derive(Debug)]
pub(crate) struct HonourRetryAfter {
    longest: Duration,
}

impl HonourRetryAfter {
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { longest }
    }
}

impl ClassifyRetry for HonourRetryAfter {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(answer) = context.response() else {
            return RetryAction::NoActionIndicated;
        };
        let status = answer.status().as_u16();
        match retry_after(answer.headers().get("retry-after")) {
            Some(pause) if status == 429 || status == 503 => {
                if pause > self.longest {
                    RetryAction::RetryForbidden
                } else {
                    RetryAction::retryable_error_with_explicit_delay(ErrorKind::ThrottlingError, pause)
                }
            }
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "HonourRetryAfter"
    }

    fn priority(&self) -> RetryClassifierPriority {
        // After the SDK's own, so that this one has the last word.
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}

/// A `Retry-After` in seconds, the only form that the service uses.
pub(crate) fn retry_after(header: Option<&str>) -> Option<Duration> {
    header?.trim().parse().ok().map(Duration::from_secs)
}
