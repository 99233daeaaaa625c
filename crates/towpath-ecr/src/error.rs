//! The SDK's errors as the elements' (*Amazon ECR API Reference*, "Common Errors" and the errors of each operation).

use aws_sdk_ecr::config::http::HttpResponse;
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use std::fmt;
use towpath_core::Retry;
use towpath_elements::{Error, ErrorKind};

pub(crate) const SERVICE: &str = "Amazon ECR";

/// An error of a call, and the service's code for it.
pub(crate) struct Failed {
    pub(crate) code: String,
    pub(crate) error: Error,
}

/// Reads what the SDK says of a call that `attempted` something on `subject`.
pub(crate) fn failed<E>(
    attempted: &'static str,
    subject: impl fmt::Display,
    error: SdkError<E, HttpResponse>,
) -> Failed
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let new = |kind| Error::new(kind, SERVICE, attempted, &subject);
    let uncoded = |error| Failed {
        code: String::new(),
        error,
    };
    match &error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or_default().to_owned();
            let message = service.err().message().unwrap_or_default();
            let status = service.raw().status().as_u16();
            let (kind, advice) = kind_of(&code, status);
            let detail = match message.is_empty() {
                true => format!("{code} (HTTP {status})"),
                false => format!("{code}: {message}"),
            };
            let mut error = new(kind).because(detail);
            if error.retry().can_help() {
                // The SDK has tried as often as it was told to.
                error = error.retrying(Retry::Spent);
            }
            if code == "LimitExceededException" {
                error = error.retrying(Retry::Never);
            }
            if let Some(advice) = advice {
                error = error.advise(advice);
            }
            Failed { code, error }
        }
        SdkError::TimeoutError(_) => uncoded(new(ErrorKind::TimedOut).retrying(Retry::Spent)),
        SdkError::DispatchFailure(failure) => {
            let text = chain(&error);
            if text.contains("credentials") {
                return uncoded(
                    new(ErrorKind::Unauthenticated)
                        .because("no credentials were found")
                        .advise(
                            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where there is a role",
                        )
                        .caused_by(text),
                );
            }
            let detail = if failure.is_timeout() {
                "the connection took too long"
            } else {
                "no connection to the service"
            };
            uncoded(
                new(ErrorKind::Unavailable)
                    .because(detail)
                    .advise("check the endpoint, the Region and the network")
                    .caused_by(text)
                    .retrying(Retry::Spent),
            )
        }
        SdkError::ResponseError(_) => {
            // What came back is not shown: it may be a token.
            uncoded(new(ErrorKind::Protocol).because("the answer is not of the service's protocol"))
        }
        _ => uncoded(
            new(ErrorKind::Invalid)
                .because("the request cannot be built")
                .caused_by(chain(&error)),
        ),
    }
}

/// The causes of an error in one line. `Display` only: the `Debug` of an SDK error holds the whole answer.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn kind_of(code: &str, status: u16) -> (ErrorKind, Option<&'static str>) {
    match code {
        "LimitExceededException" => (
            ErrorKind::RateLimited,
            Some("this is a quota, not a rate: trying again does not help; raise it or use less"),
        ),
        "AccessDeniedException" | "AccessDenied" => (
            ErrorKind::Denied,
            Some("the caller's policy lacks the ecr: permission it names"),
        ),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => (
            ErrorKind::Unauthenticated,
            Some("check the access key, the session token and the clock"),
        ),
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" => {
            (ErrorKind::RateLimited, None)
        }
        code if code.ends_with("NotFoundException") => (ErrorKind::NotFound, None),
        code if code.contains("AlreadyExists") || code.ends_with("NotEmptyException") => {
            (ErrorKind::Conflict, None)
        }
        code if code.starts_with("UnableToGetUpstream") => (
            ErrorKind::Unavailable,
            Some(
                "the upstream registry refused or failed; check that it has the image, and the rule's credentials",
            ),
        ),
        "ServerException" | "InternalFailure" | "InternalServerError" | "ServiceUnavailable" => {
            (ErrorKind::Unavailable, None)
        }
        _ => match status {
            401 => (ErrorKind::Unauthenticated, None),
            403 => (ErrorKind::Denied, None),
            404 => (ErrorKind::NotFound, None),
            409 => (ErrorKind::Conflict, None),
            429 => (ErrorKind::RateLimited, None),
            400..=499 => (ErrorKind::Invalid, None),
            _ => (ErrorKind::Unavailable, None),
        },
    }
}
