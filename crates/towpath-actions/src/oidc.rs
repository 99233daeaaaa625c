//! The runner's OIDC token (*OpenID Connect reference* of GitHub Actions).
//!
//! The runner's endpoint is known to hang now and then. So each attempt is short, and another one follows.

use crate::{Error, Result, Step};
use serde::Deserialize;
use std::time::Duration;
use towpath_core::{Secret, requests};
use url::{Host, Url};
use uuid::Uuid;

const ADVICE: &str = "add `permissions: id-token: write` to the job; for a pull request from a fork GitHub gives no token at all";

/// How patiently [`Step::id_token`] asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdTokenPolicy {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many attempts are made.
    pub attempts: u32,
    /// The pause after the first attempt. It doubles with each, and up to half of it is added at random.
    pub pause: Duration,
}

impl Default for IdTokenPolicy {
    /// Five attempts of five seconds, with half a second after the first.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            attempts: 5,
            pause: Duration::from_millis(500),
        }
    }
}

/// Why an attempt failed, and whether another one can do better.
struct Failure {
    reason: String,
    lasting: bool,
}

#[derive(Deserialize)]
struct Answer {
    value: Option<String>,
}

impl Step {
    /// Asks for OIDC tokens with this patience.
    #[must_use]
    pub fn with_id_token_policy(mut self, policy: IdTokenPolicy) -> Self {
        self.id_tokens = policy;
        self
    }

    /// A token that proves to `audience` (such as `sts.amazonaws.com`) which workflow is running. It lives a few minutes.
    ///
    /// The token is masked in the log before it is returned.
    ///
    /// # Errors
    /// [`Error::Missing`] where the job may not have one; [`Error::IdToken`] where the runner gave none.
    pub async fn id_token(&self, audience: &str) -> Result<Secret> {
        let environment = self.environment();
        let url = endpoint(
            environment.require("ACTIONS_ID_TOKEN_REQUEST_URL", ADVICE)?,
            audience,
        )?;
        let bearer = Secret::new(environment.require("ACTIONS_ID_TOKEN_REQUEST_TOKEN", ADVICE)?);
        let failed = |attempts, reason: String| Error::IdToken {
            audience: audience.to_owned(),
            attempts,
            reason: bearer.redact(&reason),
        };
        let mut builder = reqwest::Client::builder()
            .timeout(self.id_tokens.timeout)
            .redirect(reqwest::redirect::Policy::none());
        if url.scheme() == "http" {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| failed(0, chain(&error)))?;
        let attempts = self.id_tokens.attempts.max(1);
        let mut pause = self.id_tokens.pause;
        let mut attempt = 1;
        loop {
            match ask(&client, &url, &bearer).await {
                Ok(token) => {
                    self.mask(&token)?;
                    return Ok(token);
                }
                Err(failure) if failure.lasting || attempt == attempts => {
                    return Err(failed(attempt, failure.reason));
                }
                Err(_) => {
                    tokio::time::sleep(jittered(pause)).await;
                    pause = pause.saturating_mul(2);
                    attempt += 1;
                }
            }
        }
    }
}

fn endpoint(text: &str, audience: &str) -> Result<Url> {
    let malformed = |reason: String| Error::Malformed {
        name: "ACTIONS_ID_TOKEN_REQUEST_URL".into(),
        reason,
    };
    let mut url: Url = text
        .parse()
        .map_err(|error: url::ParseError| malformed(error.to_string()))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
        return Err(malformed(
            "it must be https, so that nobody on the way reads the token".into(),
        ));
    }
    url.query_pairs_mut().append_pair("audience", audience);
    Ok(url)
}

async fn ask(client: &reqwest::Client, url: &Url, bearer: &Secret) -> Result<Secret, Failure> {
    let passing = |error: reqwest::Error| Failure {
        reason: chain(&error.without_url()),
        lasting: false,
    };
    requests::sent();
    let answer = client
        .get(url.clone())
        .bearer_auth(bearer.expose())
        .header("accept", "application/json")
        .send()
        .await
        .map_err(passing)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(passing)?;
    if !status.is_success() {
        let advice = if status.as_u16() == 401 || status.as_u16() == 403 {
            "; check `permissions: id-token: write`, and that the job has not ended"
        } else {
            ""
        };
        return Err(Failure {
            reason: format!("the runner's token service answered {status}{advice}"),
            lasting: status.is_client_error() && !matches!(status.as_u16(), 408 | 429),
        });
    }
    // The body may hold the token: no part of it goes into an error.
    let token = serde_json::from_slice::<Answer>(&body)
        .ok()
        .and_then(|answer| answer.value);
    match token {
        Some(token) if !token.is_empty() => Ok(Secret::new(token)),
        _ => Err(Failure {
            reason: "the runner's token service answered without a token".into(),
            lasting: false,
        }),
    }
}

fn jittered(pause: Duration) -> Duration {
    let random = Uuid::new_v4().as_bytes()[0];
    pause + pause.mul_f64(f64::from(random) / 512.0)
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
