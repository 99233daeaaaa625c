//! What Argo CD's refusals mean: grpc-gateway's error bodies, and the plain texts in front of it.

use std::fmt;
use towpath_core::Retry;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{Answer, StatusCode};

/// A refusal in Argo CD's own words. It is the [`source`](std::error::Error::source) of an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiError {
    /// The HTTP status.
    pub http: u16,
    /// The gRPC code, where the API itself answered: it tells apart what shares an HTTP status.
    pub code: Option<i64>,
    /// The message.
    pub message: String,
}

impl ApiError {
    /// A refusal, for a [`Backend`](crate::Backend) that is not this crate's own.
    pub fn new(http: u16, code: Option<i64>, message: impl Into<String>) -> Self {
        Self {
            http,
            code,
            message: message.into(),
        }
    }

    /// The refusal behind an error, where there is one.
    pub fn of(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }

    /// Whether an operation is going on already; there is no queue.
    pub fn is_operation_in_progress(&self) -> bool {
        self.code == Some(9) && self.message.contains("another operation is already in progress")
    }

    /// Whether the application syncs on its own, so that no other revision may be synced, nor rolled back to.
    pub fn is_auto_sync(&self) -> bool {
        self.code == Some(9)
            && (self.message.contains("auto-sync currently set")
                || self.message.contains("auto-sync is enabled"))
    }

    /// Whether a sync window forbids the sync. Its status is that of a missing permission.
    pub fn is_sync_window(&self) -> bool {
        self.code == Some(7) && self.message.contains("sync window")
    }

    /// Whether there is no operation to terminate. Also said in the moment between accepting and starting one.
    pub fn is_nothing_to_terminate(&self) -> bool {
        self.message.contains("No operation is in progress")
    }

    /// Whether the API says that the thing does not exist. For an application it says so only where its project was given.
    pub fn is_not_found(&self) -> bool {
        self.code == Some(5)
    }

    /// Whether the application is being deleted, so that no operation can begin.
    pub fn is_deleting(&self) -> bool {
        self.code == Some(9) && self.message.contains("application is deleting")
    }

    /// Whether the history has no entry of that number.
    pub fn is_unknown_deployment(&self) -> bool {
        self.code == Some(3) && self.message.contains("does not have deployment with id")
    }

    /// Whether the resource does not belong to the application.
    pub fn is_no_part_of_application(&self) -> bool {
        self.code == Some(3) && self.message.contains("not found as part of application")
    }

    /// Whether the thing was changed since it was read.
    pub fn is_stale(&self) -> bool {
        self.message.contains("the object has been modified")
    }

    /// A fault of the server's own, which it tells as an internal error.
    pub(crate) fn is_index_out_of_range(&self) -> bool {
        self.code == Some(13) && self.message.contains("index out of range")
    }

    /// Whether the denial says no more than that: the thing is missing, or not visible. A denial with details proves
    /// that the thing exists.
    pub fn is_bare_denial(&self) -> bool {
        self.code == Some(7) && self.message.trim() == "permission denied"
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "HTTP {}, code {code}: {}", self.http, self.message),
            None => write!(f, "HTTP {}: {}", self.http, self.message),
        }
    }
}

impl std::error::Error for ApiError {}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Body {
    /// Of a single call.
    Unary {
        #[serde(default)]
        code: Option<i64>,
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        error: Option<String>,
    },
    /// Of a stream that failed before it began.
    Stream { error: StreamFailure },
}

/// The error in a stream.
#[derive(serde::Deserialize)]
pub(crate) struct StreamFailure {
    #[serde(default)]
    grpc_code: Option<i64>,
    #[serde(default)]
    http_code: Option<u16>,
    #[serde(default)]
    message: Option<String>,
}

impl StreamFailure {
    fn refusal(self, http: u16) -> ApiError {
        ApiError {
            http: self.http_code.unwrap_or(http),
            code: self.grpc_code,
            message: shortened(&self.message.unwrap_or_default()),
        }
    }

    /// The error that it means, in the midst of a stream.
    pub(crate) fn meaning(self, about_application: bool, error: impl Fn(ErrorKind) -> Error) -> Error {
        meaning(self.refusal(500), about_application, error)
    }
}

/// The answer where it is one of the API's, else the error it means. `about_application` says that a bare denial hides
/// whether the thing exists.
pub(crate) fn accept(answer: Answer, about_application: bool) -> Result<Answer> {
    if answer.is_html() {
        return Err(answer
            .error(ErrorKind::Protocol)
            .because(format!(
                "HTTP {} with a page for people instead of the API",
                answer.status()
            ))
            .advise("check the root path of the address; a login page may stand in front of the server"));
    }
    if answer.status().is_success() {
        return Ok(answer);
    }
    let http = answer.status().as_u16();
    let text = shortened(&String::from_utf8_lossy(answer.body()));
    let refusal = match serde_json::from_slice::<Body>(answer.body()) {
        Ok(Body::Unary { code, message, error }) if message.is_some() || error.is_some() => ApiError {
            http,
            code,
            message: shortened(&message.or(error).unwrap_or_default()),
        },
        Ok(Body::Stream { error }) => error.refusal(http),
        _ => ApiError {
            http,
            code: None,
            message: text,
        },
    };
    Err(meaning(refusal, about_application, |kind| answer.error(kind)))
}

/// The error that a refusal means. `error` makes one of a kind that says what was attempted.
pub(crate) fn meaning(
    refusal: ApiError,
    about_application: bool,
    error: impl Fn(ErrorKind) -> Error,
) -> Error {
    let said = refusal.message.clone();
    let plain = |kind| error(kind).because(&said);
    let result = match refusal.code {
        Some(7) if refusal.is_sync_window() => plain(ErrorKind::Denied)
            .advise("wait until the window allows it, or let the project's owner change the window"),
        Some(7) if about_application && refusal.is_bare_denial() => error(ErrorKind::NotFound)
            .because("the server says permission denied, which it also says of what does not exist")
            .advise(
                "check the name, the project and the namespace (project/name), and that the token may get it",
            ),
        Some(7) => plain(ErrorKind::Denied)
            .advise("have what it names granted to the account or the project role of the token"),
        Some(5) => plain(ErrorKind::NotFound),
        Some(9) if refusal.is_auto_sync() && said.contains("rollback") => plain(ErrorKind::Conflict)
            .advise("commit what goes back, or pause automatic sync with the rollback"),
        Some(9) if refusal.is_auto_sync() => {
            plain(ErrorKind::Conflict).advise("refresh instead: the application syncs on its own")
        }
        Some(9) => plain(ErrorKind::Conflict),
        // An application's, a project's or an ApplicationSet's.
        Some(3) if said.contains("existing") && said.contains("spec is different") => {
            plain(ErrorKind::Conflict).advise("upsert it to replace what is there")
        }
        Some(3) if refusal.is_unknown_deployment() => plain(ErrorKind::NotFound)
            .advise("the history keeps ten entries unless the application says otherwise"),
        Some(3) if refusal.is_no_part_of_application() => plain(ErrorKind::NotFound),
        Some(3 | 11) => plain(ErrorKind::Invalid),
        Some(_) if refusal.is_stale() => {
            plain(ErrorKind::Conflict).advise("read it again and decide anew: it was changed meanwhile")
        }
        Some(6 | 10) => plain(ErrorKind::Conflict),
        Some(1 | 4) => plain(ErrorKind::TimedOut),
        Some(8) => plain(ErrorKind::RateLimited),
        Some(12) => plain(ErrorKind::Unsupported),
        // These have the code of everything unexpected, and do not pass.
        Some(2) if said.contains("built-in script does not exist") => {
            plain(ErrorKind::NotFound).advise("ask which actions the resource has")
        }
        Some(2) if said.contains("unable to resolve") && said.contains("to a commit SHA") => {
            plain(ErrorKind::NotFound).advise("check the revision, and that it was pushed")
        }
        Some(2) if said.contains("does not have apiKey capability") => plain(ErrorKind::Invalid)
            .advise("give the account the capability apiKey in the server's configuration"),
        Some(16) => unauthenticated(plain(ErrorKind::Unauthenticated), &said),
        Some(_) => plain(ErrorKind::Unavailable),
        None => match StatusCode::from_u16(refusal.http) {
            Ok(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => plain(ErrorKind::Unsupported)
                .because("the server has no such route")
                .advise(
                    "check the root path of the address, and that it is Argo CD's; an older server may not have it yet",
                ),
            Ok(StatusCode::UNAUTHORIZED) => unauthenticated(plain(ErrorKind::Unauthenticated), &said),
            Ok(StatusCode::FORBIDDEN) => plain(ErrorKind::Denied).advise(
                "this is not Argo CD's own wording; a proxy in front of it may have refused the request",
            ),
            Ok(StatusCode::TOO_MANY_REQUESTS) => plain(ErrorKind::RateLimited),
            Ok(StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT) => plain(ErrorKind::TimedOut),
            Ok(status) if status.is_server_error() => plain(ErrorKind::Unavailable),
            Ok(status) if status.is_client_error() => plain(ErrorKind::Invalid),
            _ => plain(ErrorKind::Protocol),
        },
    };
    result.caused_by(refusal)
}

fn unauthenticated(error: Error, said: &str) -> Error {
    error.advise(if said.contains("no session information") {
        "the request carried no token that the server recognises; give one that is shaped like a JWT"
    } else if said.contains("Invalid username or password") {
        "check both; after five failures the server says so for some minutes whatever is given"
    } else {
        "the token has expired or was revoked, is another server's, or its account was disabled or given a new password; \
         make a new one"
    })
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(500) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether a failure may pass while a wait goes on, however often the transport has tried: a server that restarts is no
/// reason to stop waiting.
pub(crate) fn may_pass(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::RateLimited | ErrorKind::TimedOut
    ) && (error.retry() != Retry::Never)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(http: u16, code: Option<i64>, message: &str, about_application: bool) -> ErrorKind {
        let refusal = ApiError {
            http,
            code,
            message: message.into(),
        };
        meaning(refusal, about_application, |kind| {
            Error::new(kind, "Argo CD", "get", "shop")
        })
        .kind()
    }

    #[test]
    fn what_shares_a_status_is_told_apart() {
        use ErrorKind::*;
        for (http, code, message, expected) in [
            (
                500,
                Some(2),
                "error getting Lua resource action: built-in script does not exist",
                NotFound,
            ),
            (
                500,
                Some(2),
                "rpc error: code = Unknown desc = unable to resolve 'nope' to a commit SHA",
                NotFound,
            ),
            (
                500,
                Some(2),
                "failed to update account with new token: account 'admin' does not have apiKey capability",
                Invalid,
            ),
            (500, Some(2), "connection to the repository lost", Unavailable),
            (400, Some(3), "bad revision", Invalid),
            (
                400,
                Some(3),
                "existing application spec is different, use upsert flag to force update",
                Conflict,
            ),
            (400, Some(9), "another operation is already in progress", Conflict),
            (403, Some(7), "permission denied", NotFound),
            (
                403,
                Some(7),
                "permission denied: applications, sync, shop/web, sub: ci, iat: x",
                Denied,
            ),
            (403, Some(7), "cannot sync: blocked by sync window", Denied),
            (403, None, "Forbidden by proxy", Denied),
            (404, Some(5), "applications.argoproj.io \"x\" not found", NotFound),
            (404, None, "Not Found", Unsupported),
            (415, None, "Invalid content type", Invalid),
            (401, Some(16), "invalid session: expired", Unauthenticated),
            (
                400,
                Some(3),
                "application web does not have deployment with id 7",
                NotFound,
            ),
            (
                400,
                Some(3),
                "Pod  web not found as part of application web",
                NotFound,
            ),
            (
                500,
                Some(2),
                "Operation cannot be fulfilled on appprojects.argoproj.io \"x\": the object has been modified; please \
                 apply your changes to the latest version and try again",
                Conflict,
            ),
            (500, Some(2), "application refresh deadline exceeded", Unavailable),
            (503, Some(14), "unavailable", Unavailable),
            (504, Some(4), "deadline", TimedOut),
        ] {
            assert_eq!(
                kind(http, code, message, true),
                expected,
                "{http} {code:?} {message}"
            );
        }
        assert_eq!(kind(403, Some(7), "permission denied", false), Denied);
    }
}
