//! Cargo's web API at the endpoint of a repository ("Running a registry" and "Web API" of the Cargo book).
//!
//! The token is sent as it is, without a scheme, and to the endpoint's own origin only.

use crate::client::CodeArtifact;
use crate::error::{ORIGIN_CONTROLS, SERVICE, chain, kind_of_status};
use crate::transport::retry_after;
use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use std::future::Future;
use std::time::Duration;
use towpath_core::{ArtifactRepository, PackageFormat, PackageVersion, Retry, Secret, requests};
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// One crate on its way to a registry.
pub(crate) struct Upload<'a> {
    pub(crate) repository: &'a ArtifactRepository,
    pub(crate) version: &'a PackageVersion,
    pub(crate) endpoint: &'a Url,
    pub(crate) body: Bytes,
}

#[derive(Deserialize)]
struct Config {
    api: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    errors: Vec<RefusalDetail>,
}

#[derive(Deserialize)]
struct RefusalDetail {
    detail: String,
}

impl CodeArtifact {
    /// Uploads a crate. After every failure that may have come after the work was done it looks before it goes on.
    pub(crate) async fn upload_crate<F, Fut>(&self, upload: Upload<'_>, look: F) -> Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<Option<()>>>,
    {
        let url = self.publish_url(&upload).await?;
        // A body of this size may take a second for each MiB.
        let limit = self.config().operation_timeout + Duration::from_secs(upload.body.len() as u64 >> 20);
        let put = || {
            self.http()
                .put(url.clone())
                .timeout(limit)
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(upload.body.clone())
        };
        self.exchange(&upload, put, look).await.map(drop)
    }

    /// Where crates are published to, as the registry's own configuration says.
    async fn publish_url(&self, upload: &Upload<'_>) -> Result<Url> {
        let protocol = |detail: String| upload.error(ErrorKind::Protocol).because(detail);
        let url = upload
            .endpoint
            .join("config.json")
            .map_err(|error| protocol(error.to_string()))?;
        let get = || {
            self.http()
                .get(url.clone())
                .timeout(self.config().operation_timeout)
        };
        let answer = self
            .exchange(upload, get, || async { Ok(None) })
            .await?
            .unwrap_or_default();
        let config: Config = serde_json::from_slice(&answer).map_err(|error| {
            protocol(format!(
                "the registry's config.json is not what it should be: {error}"
            ))
        })?;
        let api = config
            .api
            .ok_or_else(|| protocol("the registry's config.json names no api: it takes no crates".into()))?;
        let url = Url::parse(&format!("{}/api/v1/crates/new", api.trim_end_matches('/')))
            .map_err(|error| protocol(format!("the registry's api is not a URL: {error}")))?;
        if url.origin() != upload.endpoint.origin() {
            return Err(protocol(format!(
                "the registry's api is at {}, and the token belongs to {}",
                url.origin().ascii_serialization(),
                upload.endpoint.origin().ascii_serialization()
            )));
        }
        Ok(url)
    }

    /// Sends a request until it is answered well. `None` where a look showed that the work was done before.
    async fn exchange<F, Fut>(
        &self,
        upload: &Upload<'_>,
        make: impl Fn() -> RequestBuilder,
        look: F,
    ) -> Result<Option<Bytes>>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<Option<()>>>,
    {
        let mut pause = self.config().first_pause;
        let mut renewed = false;
        let mut attempt = 1;
        loop {
            let access = self.access(upload.repository, PackageFormat::Cargo).await?;
            let error = match upload.send(make(), &access.token).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => error,
            };
            // The token may have been revoked since; a new one gets one try. Nothing was done.
            if error.is_unauthenticated() && !renewed {
                renewed = true;
                self.forget_token(upload.repository, &access.token).await;
                continue;
            }
            // Somebody was quicker, or the answer was lost after the work was done.
            let perhaps_done = error.is_conflict() || error.is_unavailable() || error.is_timed_out();
            if perhaps_done && look().await?.is_some() {
                return Ok(None);
            }
            let wait = match error.retry() {
                Retry::After(asked) if asked <= self.config().longest_pause => asked,
                Retry::Later => jittered(pause),
                _ => return Err(error),
            };
            if attempt >= self.config().attempts {
                return Err(error.retrying(Retry::Spent));
            }
            tracing::debug!(attempt, ?wait, error = %error, "trying again");
            tokio::time::sleep(wait).await;
            pause = pause.saturating_mul(2).min(self.config().longest_pause);
            attempt += 1;
        }
    }
}

impl Upload<'_> {
    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(
            kind,
            SERVICE,
            "publish",
            format!("{} to {}", self.version, self.repository),
        )
    }

    async fn send(&self, request: RequestBuilder, token: &Secret) -> Result<Bytes> {
        let mut header = HeaderValue::from_str(token.expose()).map_err(|_| {
            self.error(ErrorKind::Protocol)
                .because("the token cannot stand in a header")
        })?;
        header.set_sensitive(true);
        let unreachable = |error: reqwest::Error| {
            let kind = if error.is_timeout() {
                ErrorKind::TimedOut
            } else {
                ErrorKind::Unavailable
            };
            self.error(kind)
                .because("no answer from the package endpoint")
                .caused_by(chain(&error.without_url()))
        };
        requests::sent();
        let mut answer = request
            .header(AUTHORIZATION, header)
            .send()
            .await
            .map_err(unreachable)?;
        let status = answer.status();
        let asked = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok());
        let asked = retry_after(asked);
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&bytes);
            if body.len() > MAX_ANSWER {
                return Err(self.error(ErrorKind::Protocol).because("the answer is too long"));
            }
        }
        let refusal = serde_json::from_slice::<Refusal>(&body).ok();
        if status.is_success() && refusal.is_none() {
            return Ok(body.into());
        }
        let said = refusal.map(|refusal| {
            refusal
                .errors
                .into_iter()
                .map(|error| error.detail)
                .collect::<Vec<_>>()
        });
        let said = said.unwrap_or_default().join("; ");
        let said = token.redact(&said);
        // Older registries refuse with 200 and a list of errors.
        let kind = if status.is_success() {
            ErrorKind::Invalid
        } else {
            kind_of_status(status.as_u16())
        };
        let mut error = self
            .error(kind)
            .because(format!("the registry answered {status}: {said}"));
        if let (Some(pause), true) = (asked, error.retry().can_help()) {
            error = error.retrying(Retry::After(pause));
        }
        Err(match status.as_u16() {
            401 => error.advise("the token was refused; check the caller's permissions on the domain"),
            402 => error
                .advise("this is a quota of the account: trying again does not help; raise it or use less"),
            403 => error.advise(ORIGIN_CONTROLS),
            404 => error
                .advise("the service answers this to a token it does not take, too: check the permissions"),
            _ => error,
        })
    }
}

/// Between half of the pause and all of it, so that many clients do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    pause.mul_f64(0.5 + f64::from(nanos % 1000) / 2000.0)
}
