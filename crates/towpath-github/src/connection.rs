//! One request after another: `octocrab` on our own transport.
//!
//! `octocrab` builds the requests, with the version of the API that it was made for. What carries them is
//! [`towpath_http::Transport`], which sends again only what is safe to send again, keeps credentials at their origin,
//! counts requests and ends them in time. The types of `octocrab` stay inside this module.

use crate::error;
use http::header::{ACCEPT, CONTENT_LENGTH};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use octocrab::{OctoBody, Octocrab, OctocrabBuilder};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::fmt;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use towpath_core::{RepoSlug, Secret};
use towpath_elements::{BoxError, Error, ErrorKind, Result};
use towpath_http::{Answer, Call, Idempotency, StreamingAnswer, Transport};
use url::Url;

pub(crate) const SERVICE: &str = "GitHub";
pub(crate) const JSON: &str = "application/vnd.github+json";
pub(crate) const RAW: &str = "application/vnd.github.raw+json";

/// What may stand in a path as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A request to the API.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: Method,
    path: Vec<String>,
    query: Vec<(String, String)>,
    accept: &'static str,
    body: Option<serde_json::Value>,
    purpose: Purpose,
}

/// How to speak of a request, and how to treat it.
#[derive(Clone, Debug)]
struct Purpose {
    attempted: Cow<'static, str>,
    subject: String,
    idempotent: bool,
    longest_body: Option<usize>,
}

impl Request {
    pub(crate) fn new<const N: usize>(method: Method, path: [&str; N]) -> Self {
        Self {
            // As RFC 9110 says of methods; what else may be repeated says so with `idempotent`.
            purpose: Purpose {
                attempted: Cow::Borrowed("reach"),
                subject: String::new(),
                idempotent: method.is_idempotent(),
                longest_body: None,
            },
            method,
            path: path.map(str::to_owned).into(),
            query: Vec::new(),
            accept: JSON,
            body: None,
        }
    }

    /// A request about a repository.
    pub(crate) fn repository<const N: usize>(method: Method, repository: &RepoSlug, path: [&str; N]) -> Self {
        let mut request = Self::new(method, ["repos", repository.owner(), repository.name()]);
        request.path.extend(path.map(str::to_owned));
        request
    }

    /// Adds a path, whose slashes stay slashes.
    pub(crate) fn below(mut self, path: &str) -> Self {
        self.path.extend(path.split('/').map(str::to_owned));
        self
    }

    pub(crate) fn query(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn accept(mut self, media_type: &'static str) -> Self {
        self.accept = media_type;
        self
    }

    pub(crate) fn body(mut self, body: &impl Serialize) -> Result<Self> {
        let written = serde_json::to_value(body).map_err(|cause| {
            self.invalid("the request cannot be written as JSON")
                .caused_by(cause)
        })?;
        self.body = Some(written);
        Ok(self)
    }

    /// What to say when it fails: "cannot `attempted` `subject`".
    pub(crate) fn doing(mut self, attempted: &'static str, subject: impl fmt::Display) -> Self {
        self.purpose.attempted = Cow::Borrowed(attempted);
        self.purpose.subject = subject.to_string();
        self
    }

    /// Says that sending it twice does no more than sending it once.
    pub(crate) fn idempotent(mut self) -> Self {
        self.purpose.idempotent = true;
        self
    }

    /// Says that sending it twice may do more than sending it once, whatever its method.
    pub(crate) fn once(mut self) -> Self {
        self.purpose.idempotent = false;
        self
    }

    /// Refuses an answer longer than this many bytes.
    pub(crate) fn longest_body(mut self, bytes: usize) -> Self {
        self.purpose.longest_body = Some(bytes);
        self
    }

    /// The same request with another query: the next page.
    pub(crate) fn with_query(mut self, query: Vec<(String, String)>) -> Self {
        self.query = query;
        self
    }

    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(
            kind,
            SERVICE,
            self.purpose.attempted.clone(),
            &self.purpose.subject,
        )
    }

    fn invalid(&self, reason: &str) -> Error {
        self.error(ErrorKind::Invalid).because(reason)
    }

    fn url(&self, base: &Url) -> Result<Url> {
        // A URL parser would resolve these away, encoded or not, and the request would go somewhere else.
        if let Some(odd) = self
            .path
            .iter()
            .find(|part| matches!(part.as_str(), "" | "." | ".."))
        {
            return Err(self.invalid(&format!("{odd:?} cannot be a part of a path")));
        }
        let mut url = base.clone();
        let mut path = base.path().trim_end_matches('/').to_owned();
        for part in &self.path {
            path.push('/');
            path.extend(utf8_percent_encode(part, UNRESERVED));
        }
        url.set_path(&path);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

/// A server, and who we are to it.
pub(crate) struct Connection {
    transport: Transport,
    octocrab: Octocrab,
    base: Url,
    token: Option<Secret>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(transport: Transport, base: Url, token: Option<Secret>) -> Self {
        Self {
            transport,
            octocrab: request_builder(),
            base,
            token,
        }
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Sends a request and gives the answer, whatever its status.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer> {
        let call = self.call(request).await?;
        self.transport.send(call).await
    }

    /// The request as `octocrab` builds it, with its purpose, for the transport.
    async fn call(&self, request: &Request) -> Result<Call> {
        let unbuilt = |cause| request.invalid("the request cannot be built").caused_by(cause);
        let url = request.url(&self.base)?;
        let builder = http::Request::builder()
            .method(request.method.clone())
            .uri(url.as_str())
            .header(ACCEPT, HeaderValue::from_static(request.accept));
        let built = self.octocrab.build_request(builder, request.body.as_ref());
        let (parts, body) = built.map_err(unbuilt)?.into_parts();
        // The body is in memory: this does not wait.
        let body = body.collect().await.map_err(unbuilt)?.to_bytes();
        let Purpose {
            attempted,
            subject,
            idempotent,
            longest_body,
        } = &request.purpose;
        let mut call = Call::new(parts.method, url)
            .attempting(attempted.clone(), subject)
            .with_idempotency(match idempotent {
                true => Idempotency::Idempotent,
                false => Idempotency::NotIdempotent,
            });
        if let Some(bytes) = longest_body {
            call = call.longest_body(*bytes);
        }
        for (name, value) in &parts.headers {
            // octocrab writes a length of its own on empty bodies; the transport knows the length.
            if name != CONTENT_LENGTH {
                call = call.header(name.clone(), value.clone());
            }
        }
        if !body.is_empty() {
            call = call.body("application/json", body);
        }
        Ok(call)
    }

    /// Sends a request; an answer that is not 2xx is the error that it means.
    pub(crate) async fn answer(&self, request: &Request) -> Result<Answer> {
        let answer = self.send(request).await?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(self.refused(&answer))
        }
    }

    /// Sends a request and reads the JSON of its answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        self.answer(request).await?.json()
    }

    /// The same, with `None` for 404.
    pub(crate) async fn find<T: DeserializeOwned>(&self, request: &Request) -> Result<Option<T>> {
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => answer.json().map(Some),
            _ => Err(self.refused(&answer)),
        }
    }

    /// Sends a request whose answer is too long to keep whole. `octocrab` has no part in it.
    pub(crate) async fn stream(&self, request: &Request) -> Result<StreamingAnswer> {
        let url = request.url(&self.base)?;
        let call = Call::new(request.method.clone(), url.as_str())
            .attempting(request.purpose.attempted.clone(), &request.purpose.subject)
            .header(ACCEPT, HeaderValue::from_static(request.accept));
        self.transport.stream(call).await
    }

    /// The error that an answer means.
    pub(crate) fn refused(&self, answer: &Answer) -> Error {
        error::refused(answer, self.token.as_ref())
    }
}

/// A client that only builds requests. Nothing is ever sent through it, so the worker that would carry its requests is
/// dropped instead of started: no runtime has to be there, and none is bound.
fn request_builder() -> Octocrab {
    let Ok(octocrab) = OctocrabBuilder::new_empty()
        .with_service(NoService)
        .with_executor(Box::new(drop))
        .with_auth(octocrab::AuthState::None)
        .build();
    octocrab
}

/// The service that `octocrab` asks for, which refuses whatever it is given.
struct NoService;

impl tower_service::Service<http::Request<OctoBody>> for NoService {
    type Response = http::Response<OctoBody>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<OctoBody>) -> Self::Future {
        ready(Err("requests go through the transport".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_encoded_part_by_part_under_the_base() {
        let base = Url::parse("https://ghe.acme.example/api/v3").unwrap();
        let slug: RepoSlug = "acme/shop".parse().unwrap();
        let url = |path: &str| {
            Request::repository(Method::GET, &slug, ["contents"])
                .below(path)
                .query("ref", "a&b")
                .url(&base)
        };
        assert_eq!(
            url("deploy/a b/ü#?.yaml").unwrap().as_str(),
            "https://ghe.acme.example/api/v3/repos/acme/shop/contents/deploy/a%20b/%C3%BC%23%3F.yaml?ref=a%26b"
        );
        for odd in ["../../../user", "a//b", "/a", "."] {
            assert!(url(odd).is_err(), "{odd}");
        }
    }
}
