//! Credentials: Basic where the caller has some for the registry, or the Bearer token that its challenge leads to
//! (*Distribution registry token authentication*).

use super::challenge::TokenServer;
use super::{OciClient, origin, transport};
use async_trait::async_trait;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderMap};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use towpath_core::{RegistryHost, Secret};
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// The credentials of a client, registry by registry.
#[async_trait]
pub trait RegistryCredentials: fmt::Debug + Send + Sync {
    /// What stands behind `Basic ` for this registry: base64 of `user:password`. `None` is anonymous.
    ///
    /// `refused` is what the registry has just refused; a source that can mint a new one does so once for all that
    /// come with the same refused one.
    ///
    /// # Errors
    /// What kept the source from minting one.
    async fn basic(&self, registry: &RegistryHost, refused: Option<&Secret>) -> Result<Option<Secret>>;
}

/// No credentials for any registry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

#[async_trait]
impl RegistryCredentials for Anonymous {
    async fn basic(&self, _registry: &RegistryHost, _refused: Option<&Secret>) -> Result<Option<Secret>> {
        Ok(None)
    }
}

/// What a registry is asked for, as token servers need to know it.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    pub(super) repository: String,
    pub(super) push: bool,
    pub(super) mount_from: Option<String>,
}

impl Scope {
    fn words(&self) -> Vec<String> {
        let actions = if self.push { "pull,push" } else { "pull" };
        let mut words = vec![format!("repository:{}:{actions}", self.repository)];
        words.extend(
            self.mount_from
                .iter()
                .map(|from| format!("repository:{from}:pull")),
        );
        words
    }
}

/// The tokens of token servers, by registry and scope.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Whom each registry leads to, once it has said so: no need to be refused once more for the next repository.
    servers: Mutex<HashMap<RegistryHost, TokenServer>>,
    /// Held while a token is fetched, so that all who need the same one wait for it.
    slots: Mutex<HashMap<String, Slot>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Bearer>>>;

/// More scopes than this, and those that nobody uses are forgotten.
const MOST_SLOTS: usize = 1_000;

/// A token of a token server.
#[derive(Clone, Debug)]
struct Bearer {
    token: Secret,
    until: Instant,
}

impl Tokens {
    fn server(&self, registry: &RegistryHost) -> Option<TokenServer> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.get(registry).cloned()
    }

    fn note(&self, registry: &RegistryHost, server: &TokenServer) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(registry.clone(), server.clone());
    }

    fn slot(&self, registry: &RegistryHost, scope: &Scope) -> Slot {
        let key = format!("{registry} {}", scope.words().join(" "));
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MOST_SLOTS && !slots.contains_key(&key) {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(key).or_default())
    }
}

/// What a request carries.
#[derive(Clone, Debug)]
pub(super) enum Authorization {
    Basic(Secret),
    Bearer(Secret),
}

impl Authorization {
    pub(super) fn add_to(&self, headers: &mut HeaderMap) -> bool {
        let text = match self {
            Self::Basic(secret) => format!("Basic {}", secret.expose()),
            Self::Bearer(secret) => format!("Bearer {}", secret.expose()),
        };
        let Ok(mut value) = HeaderValue::try_from(text) else {
            return false;
        };
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        true
    }
}

impl OciClient {
    /// What a request to `url` carries; nothing where that is not the registry's own origin.
    pub(super) async fn authorization(
        &self,
        registry: &RegistryHost,
        url: &Url,
        scope: &Scope,
    ) -> Result<Option<Authorization>> {
        if !origin::same(url, &self.base(registry)?) {
            return Ok(None);
        }
        if let Some(server) = self.inner.tokens.server(registry) {
            let token = self.token(registry, scope, &server, None).await?;
            return Ok(Some(Authorization::Bearer(token)));
        }
        let basic = self.inner.credentials.basic(registry, None).await?;
        Ok(basic.map(Authorization::Basic))
    }

    /// Obtains what the registry's refusal asks for. `false` where there is nothing to obtain.
    pub(super) async fn renew(
        &self,
        registry: &RegistryHost,
        scope: &Scope,
        refused: Option<&Authorization>,
        headers: &HeaderMap,
    ) -> Result<bool> {
        let challenged = TokenServer::of(headers);
        let server = match refused {
            // A token that ran out may be refused without a word of where to get another.
            Some(Authorization::Bearer(_)) => challenged.or_else(|| self.inner.tokens.server(registry)),
            _ => challenged,
        };
        if let Some(server) = server {
            let refused = match refused {
                Some(Authorization::Bearer(token)) => Some(token),
                _ => None,
            };
            self.token(registry, scope, &server, refused).await?;
            self.inner.tokens.note(registry, &server);
            return Ok(true);
        }
        match refused {
            Some(Authorization::Basic(basic)) => {
                let renewed = self.inner.credentials.basic(registry, Some(basic)).await?;
                Ok(renewed.is_some())
            }
            _ => Ok(false),
        }
    }

    /// The token for a scope, fetched where there is none that is good and not the refused one.
    async fn token(
        &self,
        registry: &RegistryHost,
        scope: &Scope,
        server: &TokenServer,
        refused: Option<&Secret>,
    ) -> Result<Secret> {
        let slot = self.inner.tokens.slot(registry, scope);
        let mut slot = slot.lock().await;
        let good = slot.as_ref().filter(|bearer| {
            bearer.until > Instant::now()
                && refused.is_none_or(|refused| refused.expose() != bearer.token.expose())
        });
        if let Some(bearer) = good {
            return Ok(bearer.token.clone());
        }
        // Boxed, because a request may need a token, and fetching one is a request.
        let bearer = Box::pin(self.fetch(registry, scope, server)).await?;
        Ok(slot.insert(bearer).token.clone())
    }

    async fn fetch(&self, registry: &RegistryHost, scope: &Scope, server: &TokenServer) -> Result<Bearer> {
        const ATTEMPTED: &str = "get a token for";
        let refuse = |kind| Error::new(kind, self.service(), ATTEMPTED, registry);
        let base = self.base(registry)?;
        let mut url = Url::parse(&server.realm)
            .ok()
            .filter(|realm| origin::may_lead(&base, realm))
            .ok_or_else(|| {
                refuse(ErrorKind::Protocol)
                    .because(format!("its token server {:?} is not https", server.realm))
            })?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &server.service {
                query.append_pair("service", service);
            }
            for word in scope.words() {
                query.append_pair("scope", &word);
            }
        }
        // The credentials are for the registry. A token server sees them where it is one with the registry, or where
        // the caller has said that the two belong together; not because the registry says so.
        let named = self.settings().token_servers.get(registry);
        let trusted = origin::same(&url, &base) || named.is_some_and(|named| origin::same(&url, named));
        let basic = self.inner.credentials.basic(registry, None).await?;
        let withheld = basic.is_some() && !trusted;
        let mut request = transport::Request::token(registry, url);
        if let Some(basic) = basic.filter(|_| trusted)
            && !Authorization::Basic(basic).add_to(&mut request.headers)
        {
            return Err(refuse(ErrorKind::Invalid)
                .because("the credentials have characters that no header can carry"));
        }
        let reply = self.send(&request).await?;
        if !reply.status.is_success() {
            let error = reply.refuse(self.service(), ATTEMPTED, registry.as_str());
            return Err(match withheld {
                true => error.advise(
                    "its token server is on another host, so it was not given the credentials; name it in \
                     OciSettings::token_servers if it may have them",
                ),
                false => error,
            });
        }
        let body = reply.bytes(64 * 1024, self.settings().idle_timeout).await;
        let body = body.map_err(|error| error.at(self.service(), ATTEMPTED, registry.as_str()))?;
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| refuse(ErrorKind::Protocol).because("the token server's answer is not a token"))?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty());
        let token = token
            .ok_or_else(|| refuse(ErrorKind::Protocol).because("the token server's answer has no token"))?;
        // The specification's default is 60 seconds; a tenth is left for the way.
        let life = Duration::from_secs(answer.expires_in.unwrap_or(60).clamp(1, 24 * 3600)).mul_f64(0.9);
        Ok(Bearer {
            token: Secret::new(token),
            until: Instant::now() + life,
        })
    }
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}
