//! One request, before it is sent.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Serialize;
use std::borrow::Cow;
use std::time::Duration;
use towpath_elements::{Error, ErrorKind, Result};

/// Whether a request may be sent again after it may have reached the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Idempotency {
    /// As its method says (RFC 9110, 9.2.2): GET, HEAD, PUT, DELETE, OPTIONS and TRACE may.
    #[default]
    ByMethod,
    /// It may.
    Idempotent,
    /// It may not.
    NotIdempotent,
}

impl Idempotency {
    pub(crate) fn allows(self, method: &Method) -> bool {
        match self {
            Self::ByMethod => method.is_idempotent(),
            Self::Idempotent => true,
            Self::NotIdempotent => false,
        }
    }
}

/// One request: what to send, and how to speak of it when it fails.
///
/// The target is a path under the transport's base address, or an absolute URL. An absolute URL of another origin is
/// requested without credentials and without the transport's extra headers.
#[derive(Clone, Debug)]
#[must_use = "a call does nothing until a transport sends it"]
pub struct Call {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) segments: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) idempotency: Idempotency,
    pub(crate) attempted: Cow<'static, str>,
    pub(crate) subject: String,
    pub(crate) longest_body: usize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) attempts: Option<u32>,
}

impl Call {
    /// A request to a path under the base address, or to an absolute URL. The text is taken as it is: already encoded,
    /// and with its query, where it has one. Values from outside belong into [`segment`](Self::segment) and
    /// [`query`](Self::query), which encode them.
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        let target = target.into();
        Self {
            attempted: Cow::Owned(method.as_str().to_owned()),
            subject: target.split(['?', '#']).next().unwrap_or_default().to_owned(),
            method,
            target,
            segments: Vec::new(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            idempotency: Idempotency::ByMethod,
            longest_body: 64 << 20,
            timeout: None,
            attempts: None,
        }
    }

    /// A GET request.
    pub fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }

    /// A POST request. It is not sent twice unless it is marked [`idempotent`](Self::idempotent).
    pub fn post(target: impl Into<String>) -> Self {
        Self::new(Method::POST, target)
    }

    /// A PUT request.
    pub fn put(target: impl Into<String>) -> Self {
        Self::new(Method::PUT, target)
    }

    /// A PATCH request. It is not sent twice unless it is marked [`idempotent`](Self::idempotent).
    pub fn patch(target: impl Into<String>) -> Self {
        Self::new(Method::PATCH, target)
    }

    /// A DELETE request.
    pub fn delete(target: impl Into<String>) -> Self {
        Self::new(Method::DELETE, target)
    }

    /// What to say when it fails: "cannot `attempted` `subject`". Without this an error names the method and the path.
    pub fn attempting(
        mut self,
        attempted: impl Into<Cow<'static, str>>,
        subject: impl std::fmt::Display,
    ) -> Self {
        self.attempted = attempted.into();
        self.subject = subject.to_string();
        self
    }

    /// Adds one part to the path, percent-encoded: a slash within it stays within it.
    pub fn segment(mut self, segment: impl Into<String>) -> Self {
        self.segments.push(segment.into());
        self
    }

    /// Adds `name=value` to the query, encoded.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Adds `name=value` to the query where there is a value.
    pub fn query_opt(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Sets a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the body and its type.
    pub fn body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = body.into();
        self
    }

    /// Sets a JSON body, and `Content-Type: application/json` without parameters.
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Result<Self> {
        match serde_json::to_vec(body) {
            Ok(bytes) => Ok(self.body("application/json", bytes)),
            Err(cause) => Err(
                Error::new(ErrorKind::Invalid, "Towpath", self.attempted, self.subject)
                    .because("the request cannot be written as JSON")
                    .caused_by(cause),
            ),
        }
    }

    /// Says that sending it twice does no more than sending it once.
    pub fn idempotent(mut self) -> Self {
        self.idempotency = Idempotency::Idempotent;
        self
    }

    /// Says whether it may be sent twice.
    pub fn with_idempotency(mut self, idempotency: Idempotency) -> Self {
        self.idempotency = idempotency;
        self
    }

    /// Gives the request, its answer's body included, this long instead of the transport's usual time. A stream has
    /// this long for its headers.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it at most this often, at least once, instead of the transport's usual number of times.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts.max(1));
        self
    }

    /// Refuses an answer whose body is longer than this many bytes; 64 MiB unless this says otherwise.
    pub fn longest_body(mut self, bytes: usize) -> Self {
        self.longest_body = bytes;
        self
    }
}
