//! Who the client is: an API key that is exchanged for tokens, or a token that is there already.
//!
//! Only `validUntil` says how long a token is good for; there is no refresh token, so an exchange is made anew, a little
//! ahead of time, by one caller at a time.

use crate::config::SERVICE;
use crate::documents::{ApiKeyUser, api_key_user};
use crate::reply::Reply;
use async_trait::async_trait;
use graphql_client::GraphQLQuery;
use http::HeaderValue;
use jiff::Timestamp;
use std::fmt::{self, Debug};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::Mutex;
use towpath_core::Secret;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{Call, Transport};

/// Where the secret of an API key comes from. It is asked at every exchange, since the identity token of an OIDC key is
/// good for minutes only.
#[async_trait]
pub trait SecretSource: Debug + Send + Sync {
    /// The secret to exchange now.
    async fn secret(&self) -> Result<Secret>;
}

/// A secret that does not change.
#[async_trait]
impl SecretSource for Secret {
    async fn secret(&self) -> Result<Secret> {
        Ok(self.clone())
    }
}

/// An environment variable, read at every exchange.
#[derive(Clone, Debug)]
pub struct EnvSecret(String);

impl EnvSecret {
    /// The variable of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    pub(crate) fn read(name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

#[async_trait]
impl SecretSource for EnvSecret {
    async fn secret(&self) -> Result<Secret> {
        Self::read(&self.0).map(Secret::new).ok_or_else(|| {
            Error::new(ErrorKind::Unauthenticated, SERVICE, "read", &self.0)
                .because("it is not set in the environment")
        })
    }
}

/// A callback, such as one that asks the CI system for an identity token.
pub struct SecretFn<F>(F);

impl<F> SecretFn<F> {
    /// Asks `callback` at every exchange.
    pub fn new(callback: F) -> Self {
        Self(callback)
    }
}

impl<F> Debug for SecretFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretFn")
    }
}

#[async_trait]
impl<F, Answer> SecretSource for SecretFn<F>
where
    F: Fn() -> Answer + Send + Sync,
    Answer: Future<Output = Result<Secret>> + Send,
{
    async fn secret(&self) -> Result<Secret> {
        (self.0)().await
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    Key {
        id: String,
        secret: Arc<dyn SecretSource>,
    },
    Token(Secret),
}

impl Credentials {
    pub(crate) fn key(id: String, secret: Arc<dyn SecretSource>) -> Self {
        Self::Key { id, secret }
    }

    /// What `triggeredBy` says of runs that these credentials start, where that is known.
    pub(crate) fn trigger_name(&self) -> Option<String> {
        match self {
            Self::Key { id, .. } => Some(format!("api::{id}")),
            Self::Token(_) => None,
        }
    }
}

/// A token as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    pub(crate) secret: Secret,
    renew_at: Option<Timestamp>,
}

/// The token in use.
#[derive(Debug)]
pub(crate) struct Tokens {
    credentials: Credentials,
    held: Mutex<Option<Token>>,
}

impl Tokens {
    pub(crate) fn new(credentials: Credentials) -> Result<Self> {
        let held = match &credentials {
            Credentials::Key { .. } => None,
            Credentials::Token(token) => Some(Token::new(token.clone(), None)?),
        };
        Ok(Self {
            credentials,
            held: Mutex::new(held),
        })
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// A token that is good as far as is known.
    pub(crate) async fn current(&self, transport: &Transport) -> Result<Token> {
        let mut held = self.held.lock().await;
        if let Some(token) = held.as_ref()
            && token.renew_at.is_none_or(|at| Timestamp::now() < at)
        {
            return Ok(token.clone());
        }
        let token = self.exchange(transport).await?;
        *held = Some(token.clone());
        Ok(token)
    }

    /// Forgets a token that was refused, and says whether there can be another.
    pub(crate) async fn refused(&self, token: &Token) -> bool {
        if matches!(self.credentials, Credentials::Token(_)) {
            return false;
        }
        let mut held = self.held.lock().await;
        // Somebody else may have been refused with it too, and have a new one already.
        if held.as_ref().is_some_and(|held| held.header == token.header) {
            *held = None;
        }
        true
    }

    /// The error for a caller whom the service does not know.
    pub(crate) fn unknown(&self, reply: &Reply) -> Error {
        let error = reply.error(ErrorKind::Unauthenticated);
        match &self.credentials {
            Credentials::Key { id, .. } => error
                .because(format!("a new token of API key {id} was refused too"))
                .advise("check that the key still exists"),
            Credentials::Token(_) => error
                .because("the token is refused: it is wrong or has expired")
                .advise("make a new token, or give an API key, whose tokens are renewed"),
        }
    }

    async fn exchange(&self, transport: &Transport) -> Result<Token> {
        let Credentials::Key { id, secret } = &self.credentials else {
            return Err(Error::new(
                ErrorKind::Unauthenticated,
                SERVICE,
                "use",
                "the token",
            ));
        };
        let secret = secret.secret().await?;
        let body = ApiKeyUser::build_query(api_key_user::Variables {
            id: id.clone(),
            secret: secret.expose().to_owned(),
        });
        let call = Call::post("graphql")
            .attempting("exchange the API key", id)
            .json(&body)?
            .idempotent();
        let reply = Reply::read(transport.send(call).await?, &[&secret])?;
        if reply.is_unauthorized() {
            return Err(reply.error(ErrorKind::Unauthenticated).because(reply.messages()));
        }
        let user = reply.data::<api_key_user::ResponseData>(false)?.api_key_user;
        let Some((Some(jwt), valid_until)) = user.map(|user| (user.jwt, user.valid_until)) else {
            return Err(reply
                .error(ErrorKind::Unauthenticated)
                .because("there is no such key, or its secret is another")
                .advise("check SPACELIFT_API_KEY_ID and SPACELIFT_API_KEY_SECRET, and the account in the endpoint"));
        };
        tracing::debug!(service = SERVICE, key = id, valid_until, "a new token");
        Token::new(Secret::new(jwt), valid_until)
    }
}

impl Token {
    fn new(secret: Secret, valid_until: Option<i64>) -> Result<Self> {
        let refuse = |why: &str| {
            Error::new(ErrorKind::Invalid, SERVICE, "use", "the token")
                .because(why)
                .advise("check that it was copied whole, without line breaks")
        };
        if secret.expose().trim().is_empty() {
            return Err(refuse("it is empty"));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {}", secret.expose().trim()))
            .map_err(|_| refuse("it holds characters that an HTTP header cannot carry"))?;
        header.set_sensitive(true);
        let now = Timestamp::now();
        Ok(Self {
            header,
            secret,
            renew_at: valid_until.and_then(|until| renew_at(now, until)),
        })
    }
}

/// A tenth of the token's life before its end, a minute at most. A token that has ended as soon as it was made tells of a
/// wrong clock; it is then used until it is refused.
fn renew_at(now: Timestamp, valid_until: i64) -> Option<Timestamp> {
    let left = valid_until.saturating_sub(now.as_second());
    if left <= 0 {
        return None;
    }
    Timestamp::from_second(valid_until.saturating_sub((left / 10).min(60))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let now = Timestamp::from_second(1_000).unwrap();
        let at = |until| renew_at(now, until).map(Timestamp::as_second);
        assert_eq!(at(1_000 + 36_000), Some(1_000 + 36_000 - 60));
        assert_eq!(at(1_100), Some(1_090));
        assert_eq!(at(900), None);
        assert_eq!(at(i64::MAX), None);
    }

    #[test]
    fn no_debug_shows_a_secret() {
        let key = Credentials::key("01HX".into(), Arc::new(Secret::new("canary")));
        let token = Token::new(Secret::new("canary"), Some(1)).unwrap();
        let source = SecretFn::new(|| async { Ok::<_, Error>(Secret::new("canary")) });
        assert!(!format!("{key:?} {token:?} {source:?}").contains("canary"));
    }
}
