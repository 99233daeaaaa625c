//! The one error of every element: what was attempted, on what, what kind of failure it was, and whether trying again
//! can help.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;
use towpath_core::{ParseError, Retry};

/// The result of a call to an element.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause of an error, whatever its type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing does not exist, or the service will not say whether it does.
    NotFound,
    /// The thing is not in the state the request needs: it exists with other content, it moved, it is busy.
    Conflict,
    /// The caller is known and may not do this.
    Denied,
    /// The caller is not known: no credentials, wrong ones, or expired ones.
    Unauthenticated,
    /// The service asks for fewer requests.
    RateLimited,
    /// The service could not be reached, or failed on its side.
    Unavailable,
    /// The request cannot be right, whoever sends it and however often.
    Invalid,
    /// The time that was given ran out.
    TimedOut,
    /// The caller asked to stop.
    Cancelled,
    /// The service answered something that its protocol does not allow, or that is not what it promised to be.
    Protocol,
    /// The service, in this version or configuration, cannot do this.
    Unsupported,
}

impl ErrorKind {
    fn phrase(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Unauthenticated => "not authenticated",
            Self::RateLimited => "rate limited",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
            Self::Protocol => "unexpected answer",
            Self::Unsupported => "not supported",
        }
    }

    fn usual_retry(self) -> Retry {
        match self {
            Self::RateLimited | Self::Unavailable | Self::TimedOut => Retry::Later,
            _ => Retry::Never,
        }
    }
}

/// What went wrong at an element.
///
/// `Display` is one line, without the cause: `cannot read the manifest of shop/web:1.4 (Amazon ECR): not found: …`.
/// The cause is behind [`source`](std::error::Error::source). No error carries a secret.
///
/// ```
/// use towpath_elements::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::NotFound, "Amazon ECR", "read the manifest of", "shop/web:1.4")
///     .because("no image has this tag")
///     .advise("push it first, or check the tag");
/// assert_eq!(
///     error.to_string(),
///     "cannot read the manifest of shop/web:1.4 (Amazon ECR): not found: no image has this tag; \
///      push it first, or check the tag",
/// );
/// assert!(error.is_not_found() && !error.retry().can_help());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    service: &'static str,
    attempted: Cow<'static, str>,
    subject: String,
    detail: String,
    advice: Option<Cow<'static, str>>,
    source: Option<BoxError>,
}

impl Error {
    /// A failure of `kind` at `service`, when `attempted` (as in "cannot …") was done to `subject`.
    ///
    /// Whether a retry can help is what is usual for the kind until [`retrying`](Self::retrying) says otherwise.
    pub fn new(
        kind: ErrorKind,
        service: &'static str,
        attempted: impl Into<Cow<'static, str>>,
        subject: impl fmt::Display,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            retry: kind.usual_retry(),
            service,
            attempted: attempted.into(),
            subject: subject.to_string(),
            detail: String::new(),
            advice: None,
            source: None,
        }))
    }

    /// Adds what exactly was wrong, in a lower-case fragment.
    #[must_use]
    pub fn because(mut self, detail: impl fmt::Display) -> Self {
        self.0.detail = detail.to_string();
        self
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says whether trying again can help.
    #[must_use]
    pub fn retrying(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again can help, or has been tried enough.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// How long the service asked to be left alone, where it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.0.retry {
            Retry::After(pause) => Some(pause),
            _ => None,
        }
    }

    /// The service that failed, such as `Amazon ECR`.
    pub fn service(&self) -> &'static str {
        self.0.service
    }

    /// What was attempted, as in "cannot …".
    pub fn attempted(&self) -> &str {
        &self.0.attempted
    }

    /// What it was attempted on.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// What exactly was wrong; empty where the kind says it all.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What to do about it, where there is something to do.
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// Whether the thing does not exist.
    ///
    /// # Troubleshooting
    /// Several services answer the same to a caller who may not see the thing. Check the permissions too.
    pub fn is_not_found(&self) -> bool {
        self.0.kind == ErrorKind::NotFound
    }

    /// Whether the thing exists with other content, moved meanwhile, or is busy.
    ///
    /// # Troubleshooting
    /// Read the thing again and decide anew. For a moved branch, apply the edit to the new head.
    pub fn is_conflict(&self) -> bool {
        self.0.kind == ErrorKind::Conflict
    }

    /// Whether the caller may not do this.
    ///
    /// # Troubleshooting
    /// The detail names the permission where the service did. A closed sync window at Argo CD also looks like this.
    pub fn is_denied(&self) -> bool {
        self.0.kind == ErrorKind::Denied
    }

    /// Whether the credentials are missing, wrong or expired.
    ///
    /// # Troubleshooting
    /// Clients that can mint a new token have done so once before they say this. Check the clock and the key itself.
    pub fn is_unauthenticated(&self) -> bool {
        self.0.kind == ErrorKind::Unauthenticated
    }

    /// Whether the service asks for fewer requests; [`retry_after`](Self::retry_after) says how long to wait.
    pub fn is_rate_limited(&self) -> bool {
        self.0.kind == ErrorKind::RateLimited
    }

    /// Whether the service could not be reached or failed on its side.
    pub fn is_unavailable(&self) -> bool {
        self.0.kind == ErrorKind::Unavailable
    }

    /// Whether the time that was given ran out.
    pub fn is_timed_out(&self) -> bool {
        self.0.kind == ErrorKind::TimedOut
    }

    /// Whether the request cannot be right, whoever sends it and however often.
    pub fn is_invalid(&self) -> bool {
        self.0.kind == ErrorKind::Invalid
    }

    /// Whether the service answered something that its protocol does not allow, or that is not what it promised to be.
    ///
    /// # Troubleshooting
    /// A proxy in between, or a wrong endpoint, looks like this. So does content whose digest is another one.
    pub fn is_protocol(&self) -> bool {
        self.0.kind == ErrorKind::Protocol
    }

    /// Whether the service, in this version or configuration, cannot do this.
    pub fn is_unsupported(&self) -> bool {
        self.0.kind == ErrorKind::Unsupported
    }

    /// Whether the caller asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.kind == ErrorKind::Cancelled
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            service,
            attempted,
            subject,
            detail,
            advice,
            ..
        } = &*self.0;
        write!(f, "cannot {attempted} {subject} ({service}): {}", kind.phrase())?;
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        if let Some(advice) = advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}\n  retry: {:?}", self.0.retry)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, "\n  because: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        Self::new(
            ErrorKind::Invalid,
            "Towpath",
            "read",
            format!("{:?}", error.input()),
        )
        .because(format!(
            "as {} {}: {}",
            article(error.what()),
            error.what(),
            error.reason()
        ))
    }
}

/// `a` or `an`, by the first letter: `an image reference`, `an AWS account`.
fn article(word: &str) -> &'static str {
    match word.starts_with(['a', 'e', 'i', 'o', 'A', 'E', 'I', 'O']) {
        true => "an",
        false => "a",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_text_is_named_with_its_article() {
        for (word, text) in [
            ("image reference", "as an image reference: "),
            ("tag", "as a tag: "),
        ] {
            let error = Error::from(ParseError::new(word, "x", "it is wrong"));
            assert!(error.is_invalid() && error.detail().starts_with(text), "{error}");
        }
    }

    #[test]
    fn each_kind_is_asked_for_by_its_own_name() {
        let asks: [fn(&Error) -> bool; 11] = [
            Error::is_not_found,
            Error::is_conflict,
            Error::is_denied,
            Error::is_unauthenticated,
            Error::is_rate_limited,
            Error::is_unavailable,
            Error::is_invalid,
            Error::is_timed_out,
            Error::is_cancelled,
            Error::is_protocol,
            Error::is_unsupported,
        ];
        let kinds = [
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::Denied,
            ErrorKind::Unauthenticated,
            ErrorKind::RateLimited,
            ErrorKind::Unavailable,
            ErrorKind::Invalid,
            ErrorKind::TimedOut,
            ErrorKind::Cancelled,
            ErrorKind::Protocol,
            ErrorKind::Unsupported,
        ];
        for (place, kind) in kinds.into_iter().enumerate() {
            let error = Error::new(kind, "Argo CD", "read", "shop");
            for (asked, ask) in asks.iter().enumerate() {
                assert_eq!(ask(&error), asked == place, "{kind:?}");
            }
        }
    }

    #[test]
    fn the_cause_is_in_the_report_and_not_in_the_line() {
        let error = Error::new(ErrorKind::Unavailable, "Argo CD", "read", "shop")
            .caused_by(std::io::Error::other("connection reset"));
        assert_eq!(error.to_string(), "cannot read shop (Argo CD): unavailable");
        assert!(format!("{error:?}").ends_with("retry: Later\n  because: connection reset"));
    }
}
