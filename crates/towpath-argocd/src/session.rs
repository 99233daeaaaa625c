//! A session, made when it is first needed and again when it is refused: of a local account (`POST /api/v1/session`), or
//! of the single sign-on by a token exchange.

use crate::TokenExchange;
use crate::error;
use crate::exchange::bearer;
use async_trait::async_trait;
use serde::Deserialize;
use std::fmt;
use tokio::sync::Mutex;
use towpath_core::Secret;
use towpath_elements::Result;
use towpath_http::{Authorization, Call, HeaderValue, Transport};

pub(crate) struct Session {
    transport: Transport,
    opener: Opener,
    /// Held while logging in: the server counts failed logins, so that many at once must be one.
    current: Mutex<Option<HeaderValue>>,
}

/// How a session is made.
pub(crate) enum Opener {
    Password { username: String, password: Secret },
    Exchange(TokenExchange),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match &self.opener {
            Opener::Password { username, .. } => username,
            Opener::Exchange(exchange) => exchange.connector(),
        };
        f.debug_struct("Session").field("of", &of).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Opened {
    token: String,
}

impl Session {
    pub(crate) fn new(transport: Transport, opener: Opener) -> Self {
        Self {
            transport,
            opener,
            current: Mutex::new(None),
        }
    }

    async fn open(&self) -> Result<HeaderValue> {
        match &self.opener {
            Opener::Password { username, password } => {
                let body = serde_json::json!({"username": username, "password": password.expose()});
                let call = Call::post("api/v1/session")
                    .attempting("log in as", username)
                    .json(&body)?;
                let opened: Opened = error::accept(self.transport.send(call).await?, false)?.json()?;
                bearer(&Secret::new(opened.token), "log in as", username)
            }
            Opener::Exchange(exchange) => {
                let token = exchange.exchange(&self.transport).await?;
                bearer(&token, "exchange a token at the connector", exchange.connector())
            }
        }
    }
}

#[async_trait]
impl Authorization for Session {
    async fn authorization(&self) -> Result<HeaderValue> {
        let mut current = self.current.lock().await;
        match &*current {
            Some(value) => Ok(value.clone()),
            None => Ok(current.insert(self.open().await?).clone()),
        }
    }

    async fn invalidate(&self, refused: &HeaderValue) -> bool {
        let mut current = self.current.lock().await;
        if current.as_ref() == Some(refused) {
            *current = None;
        }
        true
    }
}
