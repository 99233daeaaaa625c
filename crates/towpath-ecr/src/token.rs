//! The registry's token: minted once for all who wait, kept in memory, renewed well before it runs out
//! (*Amazon ECR User Guide*, "Private registry authentication"; `GetAuthorizationToken`).

use crate::error::{SERVICE, failed};
use crate::oci::RegistryCredentials;
use async_trait::async_trait;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;
use towpath_core::{RegistryHost, Secret};
use towpath_elements::{Error, ErrorKind, Result};

/// A token lives twelve hours; a long transfer that starts with it must not outlive it.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 60);
/// A service that gives short-lived tokens (or whose clock is wrong) is not asked again at every request.
const SHORTEST_LIFE: Duration = Duration::from_secs(30);

const ATTEMPTED: &str = "get a registry token from";

#[derive(Clone, Debug)]
struct Token {
    secret: Secret,
    registry: RegistryHost,
    renew_at: tokio::time::Instant,
}

/// The token of one account's registry.
#[derive(Debug)]
pub(crate) struct Tokens {
    api: aws_sdk_ecr::Client,
    region: Option<String>,
    /// Held while a token is minted, so that everybody else waits for that one.
    token: Mutex<Option<Token>>,
}

impl Tokens {
    pub(crate) fn new(api: aws_sdk_ecr::Client, region: Option<String>) -> Self {
        Self {
            api,
            region,
            token: Mutex::new(None),
        }
    }

    pub(crate) async fn registry(&self) -> Result<RegistryHost> {
        let mut held = self.token.lock().await;
        // The address of the registry does not run out with the token.
        if let Some(token) = &*held {
            return Ok(token.registry.clone());
        }
        let token = self.mint().await?;
        Ok(held.insert(token).registry.clone())
    }

    /// Whether the host is an ECR registry of our Region: a token is good for all of them.
    pub(crate) fn is_in_region(&self, registry: &RegistryHost) -> bool {
        registry
            .ecr()
            .is_some_and(|host| Some(host.region().as_str()) == self.region.as_deref())
    }

    async fn mint(&self) -> Result<Token> {
        let output = self.api.get_authorization_token().send().await;
        let output = output.map_err(|error| failed(ATTEMPTED, "the service", error).error)?;
        let broken =
            |detail: &str| Error::new(ErrorKind::Protocol, SERVICE, ATTEMPTED, "the service").because(detail);
        let data = output.authorization_data.unwrap_or_default().into_iter().next();
        let data = data.ok_or_else(|| broken("the answer has no authorization data"))?;
        let secret = data
            .authorization_token
            .filter(|token| !token.is_empty())
            .ok_or_else(|| broken("the answer has no token"))?;
        let endpoint = data.proxy_endpoint.unwrap_or_default();
        let host = endpoint
            .split_once("://")
            .map_or(endpoint.as_str(), |(_, host)| host);
        let registry = RegistryHost::new(host.trim_end_matches('/'))
            .map_err(|error| broken("the registry's address is none").caused_by(error))?;
        let life = data
            .expires_at
            .and_then(|at| SystemTime::try_from(at).ok())
            .and_then(|at| at.duration_since(SystemTime::now()).ok())
            .unwrap_or_default();
        let keep = life
            .saturating_sub(RENEW_BEFORE)
            .max((life / 2).max(SHORTEST_LIFE));
        Ok(Token {
            secret: Secret::new(secret),
            registry,
            renew_at: tokio::time::Instant::now() + keep,
        })
    }
}

#[async_trait]
impl RegistryCredentials for Tokens {
    async fn basic(&self, registry: &RegistryHost, refused: Option<&Secret>) -> Result<Option<Secret>> {
        let mut held = self.token.lock().await;
        // Who needs no token must not fail for want of one, so one is minted for registries that may be ours only.
        let may_be_ours = match &*held {
            Some(token) => token.registry == *registry || self.is_in_region(registry),
            None => self.is_in_region(registry) || registry.is_loopback(),
        };
        if !may_be_ours {
            return Ok(None);
        }
        let fresh = held.as_ref().is_some_and(|token| {
            token.renew_at > tokio::time::Instant::now()
                && refused.is_none_or(|refused| refused.expose() != token.secret.expose())
        });
        let token = match &*held {
            Some(token) if fresh => token,
            _ => held.insert(self.mint().await?),
        };
        let ours = token.registry == *registry || self.is_in_region(registry);
        Ok(ours.then(|| token.secret.clone()))
    }
}
