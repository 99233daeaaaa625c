//! What a registry refuses, in the JSON of the specification or in plain text, as the elements' errors.

use http::StatusCode;
use std::time::Duration;
use towpath_core::Retry;
use towpath_elements::{Error, ErrorKind};

/// The body of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The specification's code, such as `TAG_INVALID`; empty where the body is no JSON.
    pub(super) code: String,
    /// One line of text, of at most 500 characters.
    pub(super) message: String,
}

#[derive(serde::Deserialize)]
struct Envelope {
    #[serde(default)]
    errors: Vec<Entry>,
}

#[derive(serde::Deserialize)]
struct Entry {
    code: Option<String>,
    message: Option<String>,
}

impl Refusal {
    pub(super) fn read(body: &[u8]) -> Self {
        if let Ok(Envelope { errors }) = serde_json::from_slice(body)
            && let Some(first) = errors.into_iter().next()
        {
            return Self {
                code: one_line(first.code.as_deref().unwrap_or_default()),
                message: one_line(first.message.as_deref().unwrap_or_default()),
            };
        }
        Self {
            code: String::new(),
            message: one_line(&String::from_utf8_lossy(body)),
        }
    }

    /// Whether the service says that the token has run out (ECR does so with 403 and no challenge).
    pub(super) fn says_expired(&self) -> bool {
        self.message.to_ascii_lowercase().contains("expired")
    }

    pub(super) fn error(
        &self,
        status: StatusCode,
        service: &'static str,
        attempted: &'static str,
        subject: &str,
    ) -> Error {
        let kind = self.kind(status);
        let detail = match (self.code.is_empty(), self.message.is_empty()) {
            (false, false) => format!("{} (HTTP {}): {}", self.code, status.as_u16(), self.message),
            (false, true) => format!("{} (HTTP {})", self.code, status.as_u16()),
            (true, false) => format!("HTTP {}: {}", status.as_u16(), self.message),
            (true, true) => format!("HTTP {}", status.as_u16()),
        };
        let error = Error::new(kind, service, attempted, subject).because(detail);
        match kind {
            ErrorKind::NotFound => error.advise(
                "check the name; a missing permission (ecr:BatchGetImage, or on a pull-through cache \
                 ecr:BatchImportUpstreamImage and ecr:CreateRepository) or a missing pull-through rule looks the same",
            ),
            ErrorKind::Unauthenticated => error.advise(
                "check the credentials and their Region: a token is good for the registries of one Region",
            ),
            ErrorKind::Denied => error.advise("check the repository policy and the caller's ecr: permissions"),
            ErrorKind::Unsupported => {
                error.advise("the registry does not take this kind of manifest; try other media types")
            }
            _ => error,
        }
    }

    /// As [`error`](Self::error), where something was to be pushed: nothing is created by a push.
    pub(super) fn of_push(
        &self,
        status: StatusCode,
        service: &'static str,
        attempted: &'static str,
        subject: &str,
    ) -> Error {
        let error = self.error(status, service, attempted, subject);
        match self.code.as_str() {
            "NAME_UNKNOWN" => error.advise("create the repository first, with ensure_repository"),
            _ => error,
        }
    }

    fn kind(&self, status: StatusCode) -> ErrorKind {
        match self.code.as_str() {
            "TAG_INVALID" => ErrorKind::Conflict,
            "NAME_UNKNOWN" | "MANIFEST_UNKNOWN" | "BLOB_UNKNOWN" => ErrorKind::NotFound,
            "BLOB_UPLOAD_UNKNOWN" if status == StatusCode::NOT_FOUND => ErrorKind::NotFound,
            "UNAUTHORIZED" => ErrorKind::Unauthenticated,
            "DENIED" if self.says_expired() => ErrorKind::Unauthenticated,
            "DENIED" => ErrorKind::Denied,
            "TOOMANYREQUESTS" => ErrorKind::RateLimited,
            "UNSUPPORTED" => ErrorKind::Unsupported,
            _ => match status.as_u16() {
                401 => ErrorKind::Unauthenticated,
                403 if self.says_expired() => ErrorKind::Unauthenticated,
                403 => ErrorKind::Denied,
                404 => ErrorKind::NotFound,
                405 | 501 => ErrorKind::Unsupported,
                408 => ErrorKind::TimedOut,
                409 | 412 => ErrorKind::Conflict,
                429 => ErrorKind::RateLimited,
                400..=499 => ErrorKind::Invalid,
                500..=599 => ErrorKind::Unavailable,
                _ => ErrorKind::Protocol,
            },
        }
    }
}

fn one_line(text: &str) -> String {
    let cleaned: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect();
    cleaned.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why no answer came, or only a part of it.
#[derive(Debug)]
pub(crate) enum Cut {
    /// No connection: the request has not reached the server.
    Unreached(reqwest::Error),
    /// The connection broke, and the server may have seen the request.
    Broken(reqwest::Error),
    /// Nothing moved for this long.
    Idle(Duration),
    /// The answer is longer than it may be.
    TooLong(u64),
    /// What was to be sent, or where the answer leads, is wrong already.
    Own(Error),
}

impl Cut {
    pub(super) fn from_transport(error: reqwest::Error) -> Self {
        // The URL may carry the signature of a presigned download.
        let error = error.without_url();
        if error.is_connect() {
            Self::Unreached(error)
        } else {
            Self::Broken(error)
        }
    }

    pub(super) fn at(self, service: &'static str, attempted: &'static str, subject: &str) -> Error {
        let new = |kind| Error::new(kind, service, attempted, subject);
        match self {
            Self::Unreached(error) => new(ErrorKind::Unavailable)
                .because("no connection to the registry")
                .advise("check the host name and the network")
                .caused_by(error),
            Self::Broken(error) => new(ErrorKind::Unavailable)
                .because("the connection broke")
                .caused_by(error),
            Self::Idle(limit) => {
                new(ErrorKind::TimedOut).because(format!("nothing moved for {} ms", limit.as_millis()))
            }
            Self::TooLong(limit) => {
                new(ErrorKind::Protocol).because(format!("the answer is longer than {limit} bytes"))
            }
            Self::Own(error) => error,
        }
    }

    pub(super) fn spent(self, service: &'static str, attempted: &'static str, subject: &str) -> Error {
        let own = matches!(self, Self::Own(_) | Self::TooLong(_));
        let error = self.at(service, attempted, subject);
        if own { error } else { error.retrying(Retry::Spent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_from_json_and_from_text() {
        let json = br#"{"errors":[{"code":"TAG_INVALID","message":"The image tag\n'v1' already exists"}]}"#;
        let error = Refusal::read(json).error(StatusCode::BAD_REQUEST, "Amazon ECR", "tag", "shop/web:v1");
        assert!(error.is_conflict());
        assert_eq!(
            error.to_string(),
            "cannot tag shop/web:v1 (Amazon ECR): conflict: TAG_INVALID (HTTP 400): The image tag 'v1' already exists"
        );
        let error = Refusal::read(b"Not Authorized\n").error(StatusCode::UNAUTHORIZED, "x", "read", "y");
        assert!(error.is_unauthenticated() && error.detail() == "HTTP 401: Not Authorized");
        let missing = br#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}"#;
        let error = Refusal::read(missing).of_push(StatusCode::NOT_FOUND, "Amazon ECR", "push", "shop/web");
        assert_eq!(
            error.to_string(),
            "cannot push shop/web (Amazon ECR): not found: NAME_UNKNOWN (HTTP 404): no such repository; create the \
             repository first, with ensure_repository"
        );
        let expired = Refusal::read(
            br#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired"}]}"#,
        );
        assert!(
            expired
                .error(StatusCode::FORBIDDEN, "x", "read", "y")
                .is_unauthenticated()
        );
    }
}
