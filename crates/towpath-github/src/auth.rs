//! Tokens of a GitHub App's installation, after *Generating an installation access token for a GitHub App*.

use crate::config::AppInstallation;
use crate::connection::{JSON, SERVICE};
use crate::error;
use async_trait::async_trait;
use http::HeaderValue;
use http::header::{ACCEPT, AUTHORIZATION};
use jiff::{SignedDuration, Timestamp};
use octocrab::auth::create_jwt;
use octocrab::models::AppId;
use serde::{Deserialize, Deserializer};
use std::fmt;
use tokio::sync::Mutex;
use towpath_core::Secret;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{Authorization, Call, Transport};

/// A token lasts an hour; it is renewed when a quarter of that is left.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(15);

/// Makes installation tokens, one at a time, and keeps the current one for everybody who shares the client.
pub(crate) struct AppTokens {
    transport: Transport,
    app: u64,
    installation: u64,
    key: octocrab::auth::EncodingKey,
    current: Mutex<Option<Current>>,
}

struct Current {
    header: HeaderValue,
    renew_at: Timestamp,
}

#[derive(Deserialize)]
struct Minted {
    #[serde(deserialize_with = "secret")]
    token: Secret,
    expires_at: Timestamp,
}

fn secret<'de, D: Deserializer<'de>>(input: D) -> Result<Secret, D::Error> {
    String::deserialize(input).map(Secret::new)
}

impl fmt::Debug for AppTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppTokens")
            .field("app", &self.app)
            .field("installation", &self.installation)
            .finish_non_exhaustive()
    }
}

impl AppTokens {
    /// `transport` reaches the same server without credentials of its own.
    pub(crate) fn new(transport: Transport, app: &AppInstallation) -> Result<Self> {
        // The cause is left out: it could quote the key.
        let key =
            octocrab::auth::EncodingKey::from_rsa_pem(app.private_key.expose().as_bytes()).map_err(|_| {
                Error::new(
                    ErrorKind::Invalid,
                    SERVICE,
                    "use",
                    "the private key of the GitHub App",
                )
                .because("it is not an RSA key in PEM")
                .advise("give the file that GitHub offered for download, line breaks included")
            })?;
        Ok(Self {
            transport,
            app: app.app,
            installation: app.installation,
            key,
            current: Mutex::new(None),
        })
    }

    async fn mint(&self) -> Result<Current> {
        let subject = format!(
            "a token for installation {} of App {}",
            self.installation, self.app
        );
        let misfit = |why: &str| Error::new(ErrorKind::Protocol, SERVICE, "make", &subject).because(why);
        // Issued a minute ago and valid for nine, so that clocks may differ a little.
        let jwt = create_jwt(AppId(self.app), &self.key).map_err(|_| misfit("the key cannot sign"))?;
        let call = Call::post(format!("app/installations/{}/access_tokens", self.installation))
            .attempting("make", &subject)
            // A token that nobody received does no harm: it can be asked for again.
            .idempotent()
            .header(ACCEPT, HeaderValue::from_static(JSON))
            .header(
                AUTHORIZATION,
                bearer(&jwt).ok_or_else(|| misfit("the signed token is no header"))?,
            );
        let answer = self.transport.send(call).await?;
        if !answer.status().is_success() {
            return Err(error::refused(&answer, None));
        }
        let minted: Minted = answer.json()?;
        tracing::debug!(
            app = self.app,
            installation = self.installation,
            "made an installation token"
        );
        Ok(Current {
            header: bearer(minted.token.expose()).ok_or_else(|| misfit("the token is no header"))?,
            renew_at: minted.expires_at - RENEW_BEFORE,
        })
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[async_trait]
impl Authorization for AppTokens {
    async fn authorization(&self) -> Result<HeaderValue> {
        // Whoever comes while a token is made waits for that one.
        let mut current = self.current.lock().await;
        if let Some(usable) = current.as_ref().filter(|token| Timestamp::now() < token.renew_at) {
            return Ok(usable.header.clone());
        }
        let minted = self.mint().await?;
        Ok(current.insert(minted).header.clone())
    }

    async fn invalidate(&self, refused: &HeaderValue) -> bool {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|token| token.header == *refused) {
            *current = None;
        }
        true
    }
}
