//! The service's errors as the elements' (*CodeArtifact API Reference*, "Common Errors" and the errors of each operation).

use crate::transport::retry_after;
use aws_sdk_codeartifact::Error as Exception;
use aws_sdk_codeartifact::config::http::HttpResponse;
use aws_sdk_codeartifact::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_codeartifact::types::ResourceType;
use std::fmt;
use towpath_core::Retry;
use towpath_elements::{Error, ErrorKind};

pub(crate) const SERVICE: &str = "AWS CodeArtifact";

/// What a refusal by origin controls means to whoever publishes.
pub(crate) const ORIGIN_CONTROLS: &str = "if the caller may publish, the package's origin controls block it: the name came from an upstream first, or a package group forbids it; allow publishing in the package's origin configuration only if the name is yours";

/// An error of a call, and what the service said does not exist.
pub(crate) struct Failed {
    pub(crate) error: Error,
    missing: Option<ResourceType>,
}

impl Failed {
    /// Whether the package, its version or its asset is missing, while the repository around it is there.
    pub(crate) fn is_missing_in_repository(&self) -> bool {
        self.error.is_not_found()
            && !matches!(
                self.missing,
                Some(ResourceType::Domain | ResourceType::Repository)
            )
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// Reads what the SDK says of a call that `attempted` something on `subject`.
pub(crate) fn failed<E>(
    attempted: &'static str,
    subject: impl fmt::Display,
    error: SdkError<E, HttpResponse>,
) -> Failed
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    Exception: From<SdkError<E, HttpResponse>>,
{
    let new = |kind| Error::new(kind, SERVICE, attempted, &subject);
    let plain = |error| Failed { error, missing: None };
    let text = chain(&error);
    match &error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or_default().to_owned();
            let status = service.raw().status().as_u16();
            let asked = retry_after(service.raw().headers().get("retry-after"));
            let (detail, missing) = describe(&code, status, error.into());
            let (kind, advice) = kind_of(&code, status);
            let mut error = new(kind).because(detail);
            if let Some(advice) = advice {
                error = error.advise(advice);
            }
            if error.retry().can_help() {
                // Without a wish of the service, the SDK has tried as often as it was told to.
                error = error.retrying(asked.map_or(Retry::Spent, Retry::After));
            }
            Failed { error, missing }
        }
        SdkError::TimeoutError(_) => plain(new(ErrorKind::TimedOut).retrying(Retry::Spent)),
        SdkError::DispatchFailure(failure) => {
            if text.contains("credentials") {
                let error = new(ErrorKind::Unauthenticated)
                    .because("no credentials were found")
                    .advise("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where there is a role");
                return plain(error.caused_by(text));
            }
            let detail = if failure.is_timeout() {
                "the connection took too long"
            } else {
                "no connection to the service, or it was lost"
            };
            let error = new(ErrorKind::Unavailable)
                .because(detail)
                .advise("check the endpoint, the Region and the network");
            plain(error.caused_by(text).retrying(Retry::Spent))
        }
        // What came back is not shown: it may be a token.
        SdkError::ResponseError(_) => {
            plain(new(ErrorKind::Protocol).because("the answer is not of the service's protocol"))
        }
        _ => plain(
            new(ErrorKind::Invalid)
                .because("the request cannot be built")
                .caused_by(text),
        ),
    }
}

/// The exception in words, with the resource it names.
fn describe(code: &str, status: u16, exception: Exception) -> (String, Option<ResourceType>) {
    let about = |id: Option<&str>, kind: Option<&ResourceType>| match (id, kind) {
        (Some(id), Some(kind)) => format!(" ({} {id})", kind.as_str()),
        (Some(id), None) => format!(" ({id})"),
        _ => String::new(),
    };
    let message = exception.message().unwrap_or_default().to_owned();
    let said = if message.is_empty() {
        format!("{code} (HTTP {status})")
    } else {
        format!("{code}: {message}")
    };
    match exception {
        Exception::ConflictException(e) => (said + &about(e.resource_id(), e.resource_type()), None),
        Exception::ServiceQuotaExceededException(e) => {
            (said + &about(e.resource_id(), e.resource_type()), None)
        }
        Exception::ResourceNotFoundException(e) => (
            said + &about(e.resource_id(), e.resource_type()),
            e.resource_type().cloned(),
        ),
        Exception::ValidationException(e) => {
            let reason = e.reason().map(|reason| format!(" ({})", reason.as_str()));
            (said + &reason.unwrap_or_default(), None)
        }
        _ => (said, None),
    }
}

fn kind_of(code: &str, status: u16) -> (ErrorKind, Option<&'static str>) {
    match code {
        "AccessDeniedException" | "AccessDenied" => (
            ErrorKind::Denied,
            Some("give the caller the codeartifact: permission, and sts:GetServiceBearerToken for tokens"),
        ),
        "ServiceQuotaExceededException" => (
            ErrorKind::Denied,
            Some("this is a quota of the account: trying again does not help; raise it or use less"),
        ),
        "ConflictException" => (ErrorKind::Conflict, None),
        "ResourceNotFoundException" => (
            ErrorKind::NotFound,
            Some("check the name, the Region and the owner of the domain"),
        ),
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" => (ErrorKind::RateLimited, None),
        "InternalServerException" => (ErrorKind::Unavailable, None),
        "ValidationException" => (ErrorKind::Invalid, None),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "InvalidClientTokenId"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken" => (
            ErrorKind::Unauthenticated,
            Some("check the access key, the session token and the clock"),
        ),
        _ => (kind_of_status(status), None),
    }
}

/// The kind of failure that a status alone stands for.
pub(crate) fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        401 => ErrorKind::Unauthenticated,
        402 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        408 => ErrorKind::TimedOut,
        429 => ErrorKind::RateLimited,
        400..=499 => ErrorKind::Invalid,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Protocol,
    }
}

/// An error and its causes in one line. `Display` only: the `Debug` of an SDK error holds the whole answer.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
