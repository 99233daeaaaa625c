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
        "BlockedByOrganizationPolicyException" => (
            ErrorKind::Denied,
            Some("a policy of the organisation forbids it, whatever the caller's own permissions"),
        ),
        "UnableToAccessSecretException" | "UnableToDecryptSecretValueException" => (
            ErrorKind::Denied,
            Some("check the policies of the rule's secret and of the key that it is encrypted with"),
        ),
        "KmsException" => (
            ErrorKind::Conflict,
            Some(
                "check that the repository's KMS key is enabled, and that its policy lets the caller use it",
            ),
        ),
        "ImageArchivedException" => (
            ErrorKind::Conflict,
            Some("the image is archived: restore it first (UpdateImageStorageClass)"),
        ),
        "LayerInaccessibleException" | "ReplicationBackfillInvalidStatusException" => {
            (ErrorKind::Conflict, None)
        }
        "UnsupportedImageTypeException"
        | "UnsupportedUpstreamRegistryException"
        | "ImageStorageClassUpdateNotSupportedException" => (ErrorKind::Unsupported, None),
        code if code.ends_with("InProgressException") => (ErrorKind::Conflict, None),
        code if code.ends_with("NotFoundException") => (ErrorKind::NotFound, None),
        code if code.contains("AlreadyExists") || code.ends_with("NotEmptyException") => {
            (ErrorKind::Conflict, None)
        }
        code if code.starts_with("UnableToGetUpstream") || code.starts_with("UnableToListUpstream") => (
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every exception of the service's model, all but one of which come with HTTP 400.
    const MODELLED: &[(&str, ErrorKind)] = &[
        ("BlockedByOrganizationPolicyException", ErrorKind::Denied),
        ("EmptyUploadException", ErrorKind::Invalid),
        ("ExclusionAlreadyExistsException", ErrorKind::Conflict),
        ("ExclusionNotFoundException", ErrorKind::NotFound),
        ("ImageAlreadyExistsException", ErrorKind::Conflict),
        ("ImageArchivedException", ErrorKind::Conflict),
        ("ImageDigestDoesNotMatchException", ErrorKind::Invalid),
        ("ImageNotFoundException", ErrorKind::NotFound),
        (
            "ImageStorageClassUpdateNotSupportedException",
            ErrorKind::Unsupported,
        ),
        ("ImageTagAlreadyExistsException", ErrorKind::Conflict),
        ("InvalidLayerException", ErrorKind::Invalid),
        ("InvalidLayerPartException", ErrorKind::Invalid),
        ("InvalidParameterException", ErrorKind::Invalid),
        ("InvalidTagParameterException", ErrorKind::Invalid),
        ("KmsException", ErrorKind::Conflict),
        ("LayerAlreadyExistsException", ErrorKind::Conflict),
        ("LayerInaccessibleException", ErrorKind::Conflict),
        ("LayerPartTooSmallException", ErrorKind::Invalid),
        ("LayersNotFoundException", ErrorKind::NotFound),
        ("LifecyclePolicyNotFoundException", ErrorKind::NotFound),
        ("LifecyclePolicyPreviewInProgressException", ErrorKind::Conflict),
        ("LifecyclePolicyPreviewNotFoundException", ErrorKind::NotFound),
        ("LimitExceededException", ErrorKind::RateLimited),
        ("PullThroughCacheRuleAlreadyExistsException", ErrorKind::Conflict),
        ("PullThroughCacheRuleNotFoundException", ErrorKind::NotFound),
        ("ReferencedImagesNotFoundException", ErrorKind::NotFound),
        ("RegistryPolicyNotFoundException", ErrorKind::NotFound),
        ("ReplicationBackfillInProgressException", ErrorKind::Conflict),
        ("ReplicationBackfillInvalidStatusException", ErrorKind::Conflict),
        ("ReplicationBackfillNotFoundException", ErrorKind::NotFound),
        ("RepositoryAlreadyExistsException", ErrorKind::Conflict),
        ("RepositoryNotEmptyException", ErrorKind::Conflict),
        ("RepositoryNotFoundException", ErrorKind::NotFound),
        ("RepositoryPolicyNotFoundException", ErrorKind::NotFound),
        ("ScanNotFoundException", ErrorKind::NotFound),
        ("SecretNotFoundException", ErrorKind::NotFound),
        ("ServerException", ErrorKind::Unavailable),
        ("SigningConfigurationNotFoundException", ErrorKind::NotFound),
        ("TemplateAlreadyExistsException", ErrorKind::Conflict),
        ("TemplateNotFoundException", ErrorKind::NotFound),
        ("TooManyTagsException", ErrorKind::Invalid),
        ("UnableToAccessSecretException", ErrorKind::Denied),
        ("UnableToDecryptSecretValueException", ErrorKind::Denied),
        ("UnableToGetUpstreamImageException", ErrorKind::Unavailable),
        ("UnableToGetUpstreamLayerException", ErrorKind::Unavailable),
        (
            "UnableToListUpstreamImageReferrersException",
            ErrorKind::Unavailable,
        ),
        ("UnsupportedImageTypeException", ErrorKind::Unsupported),
        ("UnsupportedUpstreamRegistryException", ErrorKind::Unsupported),
        ("UploadNotFoundException", ErrorKind::NotFound),
        ("ValidationException", ErrorKind::Invalid),
    ];

    #[test]
    fn every_modelled_error_has_its_kind() {
        for (code, kind) in MODELLED {
            let status = if *code == "ServerException" { 500 } else { 400 };
            assert_eq!(kind_of(code, status).0, *kind, "{code}");
        }
    }

    #[test]
    fn an_unknown_error_falls_by_its_status() {
        for (status, kind) in [
            (400, ErrorKind::Invalid),
            (401, ErrorKind::Unauthenticated),
            (403, ErrorKind::Denied),
            (404, ErrorKind::NotFound),
            (409, ErrorKind::Conflict),
            (418, ErrorKind::Invalid),
            (429, ErrorKind::RateLimited),
            (500, ErrorKind::Unavailable),
            (503, ErrorKind::Unavailable),
        ] {
            for code in ["", "TomorrowsException"] {
                assert_eq!(kind_of(code, status).0, kind, "{code} {status}");
            }
        }
        for code in ["ThrottlingException", "Throttling", "TooManyRequestsException"] {
            assert_eq!(kind_of(code, 400).0, ErrorKind::RateLimited, "{code}");
        }
        assert_eq!(kind_of("AccessDeniedException", 400).0, ErrorKind::Denied);
        assert_eq!(
            kind_of("ExpiredTokenException", 400).0,
            ErrorKind::Unauthenticated
        );
    }
}
