//! Sending a call: attempts, redirects, credentials.

use crate::answer::Purpose;
use crate::origin::{is_loopback, resolve, same, showable};
use crate::retry::{Backoff, retry_after};
use crate::{Answer, Authorization, Call, Idempotency, StreamingAnswer, TransportBuilder, pages, tls};
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, LOCATION, PROXY_AUTHORIZATION,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use towpath_core::{Retry, requests};
use towpath_elements::{BoxError, Error, ErrorKind, Result};
use url::Url;

const MOST_REDIRECTS: usize = 5;

/// Sends requests to one service. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Transport(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) service: &'static str,
    pub(crate) base: Url,
    pub(crate) client: reqwest::Client,
    pub(crate) backoff: Backoff,
    pub(crate) timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) plain_http: bool,
    pub(crate) headers: HeaderMap,
    pub(crate) authorization: Option<Arc<dyn Authorization>>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("service", &self.0.service)
            .field("base", &showable(&self.0.base))
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Sets up a transport to the service at `base`, whose path goes in front of every call's path. `service` is its
    /// name in errors, such as `Argo CD`.
    pub fn builder(service: &'static str, base: Url) -> TransportBuilder {
        TransportBuilder::new(service, base)
    }

    /// The base address.
    pub fn base(&self) -> &Url {
        &self.0.base
    }

    /// The service's name in errors.
    pub fn service(&self) -> &'static str {
        self.0.service
    }

    /// Sends a call and reads its answer, whatever the status.
    ///
    /// # Errors
    /// *Unavailable* or *timed out* where there was no answer, with [`Retry::Spent`] once sending again is no option any
    /// more, and with [`Retry::Never`] where the server's certificate is not trusted; *unauthenticated* where the server
    /// does not accept the client certificate, or misses one; *invalid* where the call may not be sent; *protocol* where
    /// the answer is too long or redirects in circles.
    pub async fn send(&self, call: Call) -> Result<Answer> {
        let received = self.run(&call, Read::Whole).await?;
        let Body::Whole(body) = received.body else {
            return Err(self
                .purpose(&call)
                .error(ErrorKind::Protocol)
                .because("its body was not read"));
        };
        Ok(Answer {
            purpose: self.purpose(&call),
            url: received.url,
            status: received.status,
            headers: received.headers,
            body,
            spent: received.spent,
        })
    }

    /// Sends a call and hands over its answer as soon as the headers are there, whatever the status.
    ///
    /// # Errors
    /// Like [`send`](Self::send). What has begun to stream is not retried.
    pub async fn stream(&self, call: Call) -> Result<StreamingAnswer> {
        let received = self.run(&call, Read::Headers).await?;
        Ok(StreamingAnswer {
            purpose: self.purpose(&call),
            url: received.url,
            status: received.status,
            headers: received.headers,
            body: received.body,
            spent: received.spent,
            idle: self.0.idle_timeout,
            longest_body: call.longest_body,
        })
    }

    /// The pages of a list, by `Link: rel="next"` (RFC 8288): a stream of answers, the first that is not 2xx being the
    /// last. A link to another origin, a link to a page that was there before, and more than `at_most` pages are errors.
    pub fn pages(&self, call: Call, at_most: usize) -> BoxStream<'static, Result<Answer>> {
        pages::pages(self.clone(), call, at_most)
    }

    /// Sends a request in the types of the `http` crate, for clients that bring their own. A URI without a host is a path
    /// under the base address.
    pub async fn execute(
        &self,
        request: http::Request<Bytes>,
        idempotency: Idempotency,
    ) -> Result<http::Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let mut call = Call::new(parts.method, parts.uri.to_string()).with_idempotency(idempotency);
        call.headers = parts.headers;
        // Both follow from the URL and the body.
        call.headers.remove(HOST);
        call.headers.remove(CONTENT_LENGTH);
        call.body = body;
        let answer = self.send(call).await?;
        let mut response = http::Response::new(answer.body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }

    pub(crate) fn purpose(&self, call: &Call) -> Purpose {
        Purpose {
            service: self.0.service,
            attempted: call.attempted.clone(),
            subject: call.subject.clone(),
        }
    }

    /// Attempts until there is an answer to keep, or no sense in another attempt.
    async fn run(&self, call: &Call, read: Read) -> Result<Received> {
        let inner = &*self.0;
        let purpose = self.purpose(call);
        let url = resolve(&inner.base, call)
            .and_then(|url| self.permit(url))
            .map_err(|why| purpose.error(ErrorKind::Invalid).because(why))?;
        let attempts = call.attempts.unwrap_or(inner.backoff.policy.attempts).max(1);
        let limit = call.timeout.unwrap_or(inner.timeout);
        let mut renewed = false;
        let mut attempt = 1;
        loop {
            let started = Instant::now();
            let result = match tokio::time::timeout(limit, self.attempt(call, &purpose, &url, read)).await {
                Ok(result) => result,
                Err(_) => Err(Failure::Broken(Broken {
                    kind: ErrorKind::TimedOut,
                    may_have_arrived: true,
                    detail: format!("no whole answer within {limit:?}"),
                    cause: None,
                })),
            };
            let status = result.as_ref().ok().map(|(received, _)| received.status.as_u16());
            tracing::debug!(
                service = inner.service,
                http.request.method = %call.method,
                server.address = url.host_str(),
                url.path = url.path(),
                http.response.status_code = status,
                attempt,
                elapsed_ms = started.elapsed().as_millis() as u64,
                "request",
            );
            let last = attempt >= attempts;
            let pause = match result {
                Ok((mut received, credentials)) => {
                    if received.status == StatusCode::UNAUTHORIZED
                        && !renewed
                        && let (Some(source), Some(refused)) = (&inner.authorization, credentials)
                        && source.invalidate(&refused).await
                    {
                        renewed = true;
                        continue;
                    }
                    let Some(asked) = asks_again(call, &received) else {
                        return Ok(received);
                    };
                    let pause = asked.unwrap_or_else(|| inner.backoff.delay(attempt));
                    if last || pause > inner.backoff.policy.longest {
                        received.spent = last;
                        return Ok(received);
                    }
                    pause
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Broken(broken)) => {
                    let again = !broken.may_have_arrived || call.idempotency.allows(&call.method);
                    if last || !again {
                        return Err(broken.into_error(&purpose, attempt, again));
                    }
                    inner.backoff.delay(attempt)
                }
            };
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// One attempt, redirects included; gives the answer and the credentials that the last request went with.
    async fn attempt(
        &self,
        call: &Call,
        purpose: &Purpose,
        url: &Url,
        read: Read,
    ) -> Result<(Received, Option<HeaderValue>), Failure> {
        let mut url = url.clone();
        let mut method = call.method.clone();
        let mut body = call.body.clone();
        let protocol = |why: String| Failure::Final(purpose.error(ErrorKind::Protocol).because(why));
        for _ in 0..=MOST_REDIRECTS {
            let (headers, credentials) = self
                .headers(call, &url, body.is_empty() && !call.body.is_empty())
                .await?;
            let mut request = reqwest::Request::new(method.clone(), url.clone());
            *request.headers_mut() = headers;
            if !body.is_empty() {
                *request.body_mut() = Some(body.clone().into());
            } else if matches!(method, Method::POST | Method::PUT | Method::PATCH) {
                request
                    .headers_mut()
                    .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            requests::sent();
            let mut response = self
                .0
                .client
                .execute(request)
                .await
                .map_err(|e| Failure::of(e, purpose))?;
            let status = response.status();
            let target = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
                .then(|| response.headers().get(LOCATION))
                .flatten();
            let Some(target) = target else {
                let headers = std::mem::take(response.headers_mut());
                let body = match read {
                    Read::Headers => Body::Open(response),
                    Read::Whole => Body::Whole(read_whole(response, call.longest_body, purpose).await?),
                };
                return Ok((
                    Received {
                        url,
                        status,
                        headers,
                        body,
                        spent: false,
                    },
                    credentials,
                ));
            };
            let next = target
                .to_str()
                .map_err(|_| "it is not text".to_owned())
                .and_then(|text| url.join(text).map_err(|cause| cause.to_string()))
                .and_then(|next| self.permit(next))
                .map_err(|why| {
                    protocol(format!(
                        "the server redirects to an address that is not followed: {why}"
                    ))
                })?;
            if status == StatusCode::SEE_OTHER && method != Method::HEAD
                || method == Method::POST && matches!(status.as_u16(), 301 | 302)
            {
                method = Method::GET;
                body = Bytes::new();
            }
            if !body.is_empty() && !same(&next, &self.0.base) {
                return Err(protocol(format!(
                    "the server redirects to {}, and a body is not sent to another origin",
                    showable(&next)
                )));
            }
            url = next;
        }
        Err(protocol(format!("more than {MOST_REDIRECTS} redirects")))
    }

    /// The headers for a URL: credentials and extra headers only within the base's origin.
    async fn headers(
        &self,
        call: &Call,
        url: &Url,
        body_dropped: bool,
    ) -> Result<(HeaderMap, Option<HeaderValue>), Failure> {
        let mut headers = call.headers.clone();
        if body_dropped {
            headers.remove(CONTENT_TYPE);
        }
        if !same(url, &self.0.base) {
            let secret: Vec<_> = headers
                .iter()
                .filter(|(name, value)| {
                    value.is_sensitive() || [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name)
                })
                .map(|(name, _)| name.clone())
                .collect();
            for name in secret {
                headers.remove(name);
            }
            return Ok((headers, None));
        }
        for name in self.0.headers.keys() {
            if !headers.contains_key(name) {
                for value in self.0.headers.get_all(name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        let mut credentials = None;
        if !headers.contains_key(AUTHORIZATION)
            && let Some(source) = &self.0.authorization
        {
            let mut value = source.authorization().await.map_err(Failure::Final)?;
            value.set_sensitive(true);
            credentials = Some(value.clone());
            headers.insert(AUTHORIZATION, value);
        }
        Ok((headers, credentials))
    }

    /// Refuses addresses that nothing may be sent to, and takes credentials out of the others.
    fn permit(&self, mut url: Url) -> Result<Url, String> {
        let plain = self.0.plain_http || is_loopback(&url) && is_loopback(&self.0.base);
        match url.scheme() {
            "https" => {}
            "http" if plain => {}
            "http" => return Err(format!("{} is without TLS", showable(&url))),
            scheme => return Err(format!("{scheme} is neither http nor https")),
        }
        // Both fail only for a URL without a host, which http and https cannot be.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(url)
    }
}

#[derive(Clone, Copy)]
enum Read {
    Headers,
    Whole,
}

pub(crate) enum Body {
    Whole(Bytes),
    Open(reqwest::Response),
}

struct Received {
    url: Url,
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    spent: bool,
}

/// Whether the server wants the request again: `Some` with the pause it asked for, if it asked for one.
///
/// 429, and 503 with `Retry-After`, are said before anything was done: they are safe for every method.
fn asks_again(call: &Call, received: &Received) -> Option<Option<Duration>> {
    let asked = retry_after(&received.headers);
    let again = match received.status.as_u16() {
        429 => true,
        503 if asked.is_some() => true,
        502..=504 => call.idempotency.allows(&call.method),
        _ => false,
    };
    again.then_some(asked.filter(|_| matches!(received.status.as_u16(), 429 | 503)))
}

/// Reads a body, no more than `longest` bytes of it.
pub(crate) async fn read_whole(
    mut response: reqwest::Response,
    longest: usize,
    purpose: &Purpose,
) -> Result<Bytes, Failure> {
    let too_long = || {
        Failure::Final(
            purpose
                .error(ErrorKind::Protocol)
                .because(format!("the answer is longer than {longest} bytes")),
        )
    };
    if response
        .content_length()
        .is_some_and(|length| length > longest as u64)
    {
        return Err(too_long());
    }
    let mut chunk = |e| Failure::of(e, purpose);
    let Some(first) = response.chunk().await.map_err(&mut chunk)? else {
        return Ok(Bytes::new());
    };
    let Some(second) = response.chunk().await.map_err(&mut chunk)? else {
        return if first.len() > longest {
            Err(too_long())
        } else {
            Ok(first)
        };
    };
    let mut body = BytesMut::from(first);
    let mut next = Some(second);
    while let Some(bytes) = next {
        if body.len() + bytes.len() > longest {
            return Err(too_long());
        }
        body.extend_from_slice(&bytes);
        next = response.chunk().await.map_err(&mut chunk)?;
    }
    Ok(body.freeze())
}

/// How an attempt failed.
pub(crate) enum Failure {
    /// Another attempt would fail the same way.
    Final(Error),
    /// The connection failed.
    Broken(Broken),
}

pub(crate) struct Broken {
    kind: ErrorKind,
    may_have_arrived: bool,
    detail: String,
    cause: Option<BoxError>,
}

impl Failure {
    pub(crate) fn of(error: reqwest::Error, purpose: &Purpose) -> Self {
        // Nothing but scheme, host and port: the rest of the URL may hold secrets.
        let server = error.url().map(|url| url.origin().ascii_serialization());
        let error = error.without_url();
        let detail = match server.filter(|_| error.is_connect()) {
            Some(server) => format!("no connection to {server}: {}", innermost(&error)),
            None => innermost(&error),
        };
        if error.is_builder() {
            return Self::Final(purpose.error(ErrorKind::Invalid).because(detail).caused_by(error));
        }
        if let Some(refusal) = tls::refusal(&error, purpose) {
            return Self::Final(refusal.caused_by(error));
        }
        Self::Broken(Broken {
            kind: if error.is_timeout() {
                ErrorKind::TimedOut
            } else {
                ErrorKind::Unavailable
            },
            may_have_arrived: !error.is_connect(),
            detail,
            cause: Some(error.into()),
        })
    }

    pub(crate) fn into_error(self, purpose: &Purpose) -> Error {
        match self {
            Self::Final(error) => error,
            Self::Broken(broken) => broken.into_error(purpose, 1, true).retrying(Retry::Later),
        }
    }
}

impl Broken {
    fn into_error(self, purpose: &Purpose, attempts: u32, repeatable: bool) -> Error {
        let detail = match (repeatable, attempts) {
            (false, _) => format!("{}; whether the server acted on it is not known", self.detail),
            (true, 1) => self.detail,
            (true, attempts) => format!("{}, {attempts} times", self.detail),
        };
        let error = purpose.error(self.kind).because(detail).retrying(Retry::Spent);
        match self.cause {
            Some(cause) => error.caused_by(cause),
            None => error,
        }
    }
}

/// The last cause of an error says the most: "connection refused" rather than "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
