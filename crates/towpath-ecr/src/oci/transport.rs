//! One request, sent as often as it may be: credentials, redirects, retries, and limits on silence.

use super::auth::{Authorization, Scope};
use super::error::{Cut, Refusal};
use super::feed::Feed;
use super::{OciClient, origin};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, LOCATION, RETRY_AFTER};
use http::{Method, StatusCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use towpath_core::{ImageRef, RegistryHost, Retry, requests};
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

const LONGEST_REFUSAL: u64 = 64 * 1024;
const MOST_REDIRECTS: usize = 5;

/// What is sent.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) registry: &'a RegistryHost,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload<'a>,
    pub(super) scope: Scope,
    pub(super) attempted: &'static str,
    pub(super) subject: String,
    /// Whether sending it twice does no harm.
    pub(super) again: bool,
    /// Whether it may carry credentials.
    pub(super) known: bool,
}

pub(super) enum Payload<'a> {
    Empty,
    Bytes(Bytes),
    /// `length` bytes of a blob from `offset`.
    Blob {
        feed: &'a Feed,
        offset: u64,
        length: u64,
    },
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, image: &'a ImageRef, url: Url, attempted: &'static str) -> Self {
        Self {
            again: method != Method::POST && method != Method::PATCH,
            scope: Scope {
                repository: image.repository().to_string(),
                push: method != Method::GET && method != Method::HEAD,
                mount_from: None,
            },
            method,
            registry: image.registry(),
            url,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            attempted,
            subject: image.to_string(),
            known: true,
        }
    }

    pub(super) fn token(registry: &'a RegistryHost, url: Url) -> Self {
        Self {
            method: Method::GET,
            registry,
            url,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            scope: Scope::default(),
            attempted: "get a token for",
            subject: registry.to_string(),
            again: true,
            known: false,
        }
    }

    pub(super) fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Where the answer came from, redirects followed.
    pub(super) url: Url,
    /// The body of an answer that is no refusal.
    pub(super) body: Option<reqwest::Response>,
    pub(super) refusal: Refusal,
}

impl Reply {
    pub(super) fn refuse(&self, service: &'static str, attempted: &'static str, subject: &str) -> Error {
        self.refusal.error(self.status, service, attempted, subject)
    }

    /// The whole body, of at most `limit` bytes.
    pub(super) async fn bytes(self, limit: u64, idle: Duration) -> Result<Bytes, Cut> {
        read_all(self.body, limit, idle).await
    }

    fn asks_for_credentials(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
            || (self.status == StatusCode::FORBIDDEN && self.refusal.says_expired())
    }

    fn is_passing(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
    }

    /// `Retry-After` in seconds, or until its date (RFC 9110 §10.2.3).
    fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Duration::try_from(date.duration_since(jiff::Timestamp::now())).ok()
    }
}

async fn read_all(body: Option<reqwest::Response>, limit: u64, idle: Duration) -> Result<Bytes, Cut> {
    let mut bytes = BytesMut::new();
    if let Some(mut response) = body {
        while let Some(chunk) = chunk(&mut response, idle).await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(Cut::TooLong(limit));
            }
            bytes.extend_from_slice(&chunk);
        }
    }
    Ok(bytes.freeze())
}

/// The next piece of a body, if it comes in time.
pub(super) async fn chunk(response: &mut reqwest::Response, idle: Duration) -> Result<Option<Bytes>, Cut> {
    tokio::time::timeout(idle, response.chunk())
        .await
        .map_err(|_| Cut::Idle(idle))?
        .map_err(Cut::from_transport)
}

impl OciClient {
    /// Sends a request until there is an answer that sending it again would not change.
    ///
    /// A refusal is an answer: the caller judges the status. Errors are about answers that never came.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Reply> {
        let settings = self.settings();
        let (mut attempt, mut renewed) = (1, false);
        loop {
            let authorization = match request.known {
                true => {
                    self.authorization(request.registry, &request.url, &request.scope)
                        .await?
                }
                false => None,
            };
            let outcome = self.once(request, authorization.as_ref()).await;
            let last = attempt >= settings.attempts.max(1);
            let pause = match outcome {
                Ok(reply) if request.known && !renewed && reply.asks_for_credentials() => {
                    renewed = true;
                    let refused = authorization.as_ref();
                    if Box::pin(self.renew(request.registry, &request.scope, refused, &reply.headers)).await?
                    {
                        continue;
                    }
                    return Ok(reply);
                }
                Ok(reply) if reply.is_passing() => {
                    let asked = reply.retry_after();
                    // 429 says that nothing was done, so even a request that must not be repeated may be.
                    let may = request.again || reply.status == StatusCode::TOO_MANY_REQUESTS;
                    let too_long = asked.filter(|asked| *asked > settings.longest_pause);
                    if last || !may || too_long.is_some() {
                        let error = reply.refuse(self.service(), request.attempted, &request.subject);
                        return Err(error.retrying(too_long.map_or(Retry::Spent, Retry::After)));
                    }
                    asked
                }
                Ok(reply) => return Ok(reply),
                Err(Cut::Own(error)) => return Err(error),
                Err(cut) => {
                    let may = request.again || matches!(cut, Cut::Unreached(_));
                    if last || !may {
                        return Err(cut.spent(self.service(), request.attempted, &request.subject));
                    }
                    None
                }
            };
            let pause = pause.unwrap_or_else(|| self.pause(attempt));
            tracing::debug!(
                attempt,
                pause_ms = pause.as_millis() as u64,
                "registry request is sent again"
            );
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// The pause after an attempt: doubling, between half and all of it.
    pub(super) fn pause(&self, attempt: u32) -> Duration {
        let settings = self.settings();
        let doubled = settings
            .first_pause
            .saturating_mul(1 << attempt.saturating_sub(1).min(16));
        doubled
            .min(settings.longest_pause)
            .mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Sends a request once, and follows where a read is sent on to.
    async fn once(&self, request: &Request<'_>, authorization: Option<&Authorization>) -> Result<Reply, Cut> {
        let mut headers = request.headers.clone();
        if let Some(authorization) = authorization
            && !authorization.add_to(&mut headers)
        {
            return Err(Cut::Own(
                Error::new(
                    ErrorKind::Protocol,
                    self.service(),
                    request.attempted,
                    &request.subject,
                )
                .because("the token has characters that no header can carry"),
            ));
        }
        let read = request.method == Method::GET || request.method == Method::HEAD;
        let mut url = request.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let reply = self.exchange(request, &url, headers.clone()).await?;
            let location = reply.headers.get(LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| read && reply.status.is_redirection()) else {
                return Ok(reply);
            };
            let next = url
                .join(location)
                .ok()
                .filter(|next| origin::may_lead(&url, next))
                .ok_or_else(|| {
                    let error = Error::new(
                        ErrorKind::Protocol,
                        self.service(),
                        request.attempted,
                        &request.subject,
                    );
                    Cut::Own(error.because("it redirects to a place that is not https or not public"))
                })?;
            if !origin::same(&next, &url) {
                headers.remove(AUTHORIZATION);
            }
            url = next;
        }
        let error = Error::new(
            ErrorKind::Protocol,
            self.service(),
            request.attempted,
            &request.subject,
        );
        Err(Cut::Own(
            error.because(format!("more than {MOST_REDIRECTS} redirects")),
        ))
    }

    async fn exchange(&self, request: &Request<'_>, url: &Url, headers: HeaderMap) -> Result<Reply, Cut> {
        let pacer = self
            .inner
            .pacer
            .as_ref()
            .filter(|_| request.registry.ecr().is_some());
        let lane = pacer.and_then(|pacer| pacer.registry_lane(&request.method, url.path()));
        if let Some(lane) = &lane {
            lane.turn().await;
        }
        let idle = self.settings().idle_timeout;
        let moved = Arc::new(AtomicU64::new(0));
        let failed: Arc<Mutex<Option<Error>>> = Arc::default();
        let mut builder = self
            .http(url)
            .map_err(Cut::Own)?
            .request(request.method.clone(), url.clone())
            .headers(headers);
        builder = match &request.payload {
            Payload::Empty if matches!(request.method, Method::POST | Method::PUT | Method::PATCH) => {
                builder.header(CONTENT_LENGTH, 0)
            }
            Payload::Empty => builder,
            Payload::Bytes(bytes) => builder.body(bytes.clone()),
            Payload::Blob { feed, offset, length } => {
                let (moved, failed) = (Arc::clone(&moved), Arc::clone(&failed));
                let stream = feed.portion(*offset, *length).await.map_err(Cut::Own)?;
                let stream = stream.map(move |piece| {
                    moved.fetch_add(1, Ordering::Relaxed);
                    piece.map_err(|error| {
                        let told = std::io::Error::other(error.to_string());
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        told
                    })
                });
                builder
                    .header(CONTENT_LENGTH, *length)
                    .body(reqwest::Body::wrap_stream(stream))
            }
        };
        requests::sent();
        let response = while_it_moves(builder.send(), &moved, idle).await;
        // A source that fails breaks the connection; the cause is the source.
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Cut::Own(error));
        }
        let response = response?;
        let (status, headers) = (response.status(), response.headers().clone());
        tracing::debug!(
            method = %request.method,
            host = url.host_str().unwrap_or_default(),
            path = url.path(),
            status = status.as_u16(),
            "registry request"
        );
        let mut reply = Reply {
            status,
            headers,
            url: url.clone(),
            body: Some(response),
            refusal: Refusal::default(),
        };
        if let Some(lane) = lane.filter(|_| status == StatusCode::TOO_MANY_REQUESTS) {
            lane.throttled(reply.retry_after());
        }
        if status.is_client_error() || status.is_server_error() {
            // The status says enough where the text behind it is cut or endless.
            let text = tokio::time::timeout(idle, read_all(reply.body.take(), LONGEST_REFUSAL, idle));
            let text = text.await.ok().and_then(Result::ok).unwrap_or_default();
            reply.refusal = Refusal::read(&text);
        }
        Ok(reply)
    }
}

/// Waits for the head of the answer as long as the body of the request keeps moving.
async fn while_it_moves(
    sending: impl Future<Output = reqwest::Result<reqwest::Response>>,
    moved: &AtomicU64,
    idle: Duration,
) -> Result<reqwest::Response, Cut> {
    tokio::pin!(sending);
    let mut seen = 0;
    loop {
        match tokio::time::timeout(idle, &mut sending).await {
            Ok(outcome) => return outcome.map_err(Cut::from_transport),
            Err(_) => {
                let now = moved.load(Ordering::Relaxed);
                if now == seen {
                    return Err(Cut::Idle(idle));
                }
                seen = now;
            }
        }
    }
}
