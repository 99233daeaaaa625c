//! A session of a local account (§ `POST /api/v1/session`), made when it is first needed and again when it is refused.

use crate::config::SERVICE;
use crate::error;
use async_trait::async_trait;
use serde::Deserialize;
use std::fmt;
use tokio::sync::Mutex;
use towpath_core::Secret;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{Authorization, Call, HeaderValue, Transport};

pub(crate) struct Session {
    transport: Transport,
    username: String,
    password: Secret,
    /// Held while logging in: the server counts failed logins, so that many at once must be one.
    current: Mutex<Option<HeaderValue>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Opened {
    token: String,
}

impl Session {
    pub(crate) fn new(transport: Transport, username: String, password: Secret) -> Self {
        Self {
            transport,
            username,
            password,
            current: Mutex::new(None),
        }
    }

    async fn open(&self) -> Result<HeaderValue> {
        let body = serde_json::json!({"username": self.username, "password": self.password.expose()});
        let call = Call::post("api/v1/session")
            .attempting("log in as", &self.username)
            .json(&body)?;
        let opened: Opened = error::accept(self.transport.send(call).await?, false)?.json()?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", opened.token)).map_err(|_| {
            Error::new(ErrorKind::Protocol, SERVICE, "log in as", &self.username)
                .because("the token of the new session is not one")
        })?;
        value.set_sensitive(true);
        Ok(value)
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
