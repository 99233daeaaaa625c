//! Credentials: Basic for registries that the caller has some for, else the anonymous Bearer token of a challenge
//! (*Distribution registry token authentication*).

use super::{OciClient, origin, transport};
use async_trait::async_trait;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;
use towpath_core::{RegistryHost, Secret};
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// Who the client is, registry by registry.
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

/// A token of a token server.
#[derive(Debug)]
pub(super) struct Bearer {
    token: Secret,
    until: Instant,
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

fn key(registry: &RegistryHost, scope: &Scope) -> String {
    format!("{registry} {}", scope.words().join(" "))
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
        if let Some(basic) = self.inner.credentials.basic(registry, None).await? {
            return Ok(Some(Authorization::Basic(basic)));
        }
        let bearers = self.inner.bearers.lock().await;
        Ok(bearers
            .get(&key(registry, scope))
            .filter(|bearer| bearer.until > Instant::now())
            .map(|bearer| Authorization::Bearer(bearer.token.clone())))
    }

    /// Obtains what the registry's refusal asks for. `false` where there is nothing to obtain.
    pub(super) async fn renew(
        &self,
        registry: &RegistryHost,
        scope: &Scope,
        refused: Option<&Authorization>,
        headers: &HeaderMap,
    ) -> Result<bool> {
        let basic = match refused {
            Some(Authorization::Basic(basic)) => Some(basic),
            _ => None,
        };
        if let Some(challenge) = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .find_map(|value| Challenge::bearer(value.to_str().ok()?))
        {
            let bearer = self.fetch_bearer(registry, scope, &challenge).await?;
            self.inner
                .bearers
                .lock()
                .await
                .insert(key(registry, scope), bearer);
            // Where there is a Basic credential too, it would win over the token.
            return Ok(basic.is_none());
        }
        match basic {
            Some(basic) => Ok(self
                .inner
                .credentials
                .basic(registry, Some(basic))
                .await?
                .is_some()),
            None => Ok(false),
        }
    }

    async fn fetch_bearer(
        &self,
        registry: &RegistryHost,
        scope: &Scope,
        challenge: &Challenge,
    ) -> Result<Bearer> {
        let refuse = |kind| Error::new(kind, self.service(), "get a token for", registry);
        let base = self.base(registry)?;
        let mut url = Url::parse(&challenge.realm)
            .ok()
            .filter(|realm| origin::may_lead(&base, realm))
            .ok_or_else(|| {
                refuse(ErrorKind::Protocol)
                    .because(format!("its token server {:?} is not https", challenge.realm))
            })?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &challenge.service {
                query.append_pair("service", service);
            }
            for word in scope.words() {
                query.append_pair("scope", &word);
            }
        }
        // No credential is sent: the ones the client has are for registries, not for whom a registry names.
        let reply = self.send(&transport::Request::token(registry, url)).await?;
        if !reply.status.is_success() {
            return Err(reply.refuse(self.service(), "get a token for", registry.as_str()));
        }
        let body = reply.bytes(64 * 1024, self.settings().idle_timeout).await;
        let body = body.map_err(|error| error.at(self.service(), "get a token for", registry.as_str()))?;
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

/// The Bearer challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1).
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: Option<String>,
}

impl Challenge {
    fn bearer(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        for (name, value) in parameters(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                _ => {}
            }
        }
        Some(Self {
            realm: realm?,
            service,
        })
    }
}

/// `a="x, y", b=z` as pairs; what does not fit the grammar ends the list.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let mut value = String::new();
        let mut end = after.len();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut escaped = false;
            for (at, c) in quoted.char_indices() {
                match c {
                    _ if escaped => {
                        value.push(c);
                        escaped = false;
                    }
                    '\\' => escaped = true,
                    '"' => {
                        end = at + 2;
                        break;
                    }
                    _ => value.push(c),
                }
            }
        } else {
            end = after.find([',', ' ']).unwrap_or(after.len());
            after[..end].clone_into(&mut value);
        }
        pairs.push((name.trim().to_owned(), value));
        rest = after[end..].trim_start_matches([' ', ',']);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_are_read() {
        let read = Challenge::bearer(
            r#"bearer realm="https://auth.example/token?a=1,2" , service="reg \"x\"",scope=repository:a:pull"#,
        );
        assert_eq!(
            read,
            Some(Challenge {
                realm: "https://auth.example/token?a=1,2".into(),
                service: Some("reg \"x\"".into()),
            })
        );
        assert_eq!(Challenge::bearer(r#"Basic realm="https://x/""#), None);
        assert_eq!(Challenge::bearer("Bearer service=x"), None);
    }

    proptest! {
        #[test]
        fn no_header_panics(text in ".*|Bearer .*|Bearer [a-z]{1,3}=\"?[\\\\\"a-zé,= ]{0,20}") {
            let _ = Challenge::bearer(&text);
        }
    }
}
