//! The registry's token: minted once for all who wait, kept in memory, renewed well before it runs out
//! (*Amazon ECR User Guide*, "Private registry authentication"; `GetAuthorizationToken`).

use crate::error::{SERVICE, failed};
use crate::oci::RegistryCredentials;
use async_trait::async_trait;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;
use towpath_core::{RegistryHost, Retry, Secret};
use towpath_elements::{Error, ErrorKind, Result};

/// A token lives twelve hours; a long transfer that starts with it must not outlive it.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 60);
/// A service that gives short-lived tokens (or whose clock is wrong) is not asked again at every request.
const SHORTEST_LIFE: Duration = Duration::from_secs(30);

/// How long a token that could not be renewed is used before the next try.
const TRY_AGAIN: Duration = Duration::from_secs(60);

const ATTEMPTED: &str = "get a registry token from";

#[derive(Clone, Debug)]
struct Token {
    secret: Secret,
    registry: RegistryHost,
    renew_at: tokio::time::Instant,
    ends_at: tokio::time::Instant,
}

/// The token of one account's registry.
#[derive(Debug)]
pub(crate) struct Tokens {
    api: aws_sdk_ecr::Client,
    region: Option<String>,
    /// Held while a token is minted, so that everybody else waits for that one.
    token: Mutex<Option<Token>>,
    /// How many times minting has failed: who waited for a failure shares it, instead of trying once more each.
    failures: AtomicU64,
    last_failure: std::sync::Mutex<Option<Told>>,
}

/// An error in parts, so that all who waited can have it.
#[derive(Clone, Debug)]
struct Told {
    kind: ErrorKind,
    detail: String,
    advice: Option<String>,
}

impl Tokens {
    pub(crate) fn new(api: aws_sdk_ecr::Client, region: Option<String>) -> Self {
        Self {
            api,
            region,
            token: Mutex::new(None),
            failures: AtomicU64::new(0),
            last_failure: std::sync::Mutex::default(),
        }
    }

    pub(crate) async fn registry(&self) -> Result<RegistryHost> {
        let failures = self.failures.load(Ordering::Acquire);
        let mut held = self.token.lock().await;
        // The address of the registry does not run out with the token.
        if let Some(token) = &*held {
            return Ok(token.registry.clone());
        }
        let token = self.mint_unless_failed(failures).await?;
        Ok(held.insert(token).registry.clone())
    }

    /// Mints a token, unless somebody failed to while this one waited. The lock is held.
    async fn mint_unless_failed(&self, failures_before: u64) -> Result<Token> {
        if self.failures.load(Ordering::Acquire) != failures_before
            && let Some(told) = self.last_failure().clone()
        {
            let error = Error::new(told.kind, SERVICE, ATTEMPTED, "the service")
                .because(told.detail)
                .retrying(Retry::Spent);
            return Err(match told.advice {
                Some(advice) => error.advise(advice),
                None => error,
            });
        }
        let minted = self.mint().await;
        if let Err(error) = &minted {
            *self.last_failure() = Some(Told {
                kind: error.kind(),
                detail: error.detail().to_owned(),
                advice: error.advice().map(str::to_owned),
            });
            self.failures.fetch_add(1, Ordering::Release);
        }
        minted
    }

    fn last_failure(&self) -> std::sync::MutexGuard<'_, Option<Told>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
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
            ends_at: tokio::time::Instant::now() + life.max(keep),
        })
    }
}

#[async_trait]
impl RegistryCredentials for Tokens {
    async fn basic(&self, registry: &RegistryHost, refused: Option<&Secret>) -> Result<Option<Secret>> {
        let failures = self.failures.load(Ordering::Acquire);
        let mut held = self.token.lock().await;
        // Who needs no token must not fail for want of one, so one is minted for registries that may be ours only.
        let may_be_ours = match &*held {
            Some(token) => token.registry == *registry || self.is_in_region(registry),
            None => self.is_in_region(registry) || registry.is_loopback(),
        };
        if !may_be_ours {
            return Ok(None);
        }
        let now = tokio::time::Instant::now();
        let good = |token: &Token| refused.is_none_or(|refused| refused.expose() != token.secret.expose());
        let fresh = held
            .as_ref()
            .is_some_and(|token| token.renew_at > now && good(token));
        if !fresh {
            match (self.mint_unless_failed(failures).await, &mut *held) {
                (Ok(minted), held) => *held = Some(minted),
                // What is held still opens the registry for a while.
                (Err(error), Some(token)) if token.ends_at > now && good(token) => {
                    tracing::warn!(%error, "the registry token could not be renewed yet");
                    token.renew_at = now + TRY_AGAIN;
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(held.as_ref().and_then(|token| {
            let ours = token.registry == *registry || self.is_in_region(registry);
            ours.then(|| token.secret.clone())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of a service that cannot be reached.
    fn tokens(held: Option<Token>) -> Tokens {
        let config = aws_sdk_ecr::Config::builder()
            .behavior_version(aws_sdk_ecr::config::BehaviorVersion::v2026_01_12())
            .region(aws_sdk_ecr::config::Region::new("eu-west-1"))
            .endpoint_url("http://127.0.0.1:1")
            .retry_config(aws_smithy_types::retry::RetryConfig::disabled())
            .credentials_provider(aws_sdk_ecr::config::Credentials::new(
                "id", "secret", None, None, "test",
            ));
        let api = aws_sdk_ecr::Client::from_conf(config.build());
        Tokens {
            token: Mutex::new(held),
            ..Tokens::new(api, Some("eu-west-1".into()))
        }
    }

    fn held(ends_in: Duration) -> Token {
        let now = tokio::time::Instant::now();
        Token {
            secret: Secret::new("held"),
            registry: registry("123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
            renew_at: now,
            ends_at: now + ends_in,
        }
    }

    fn registry(host: &str) -> RegistryHost {
        RegistryHost::new(host).unwrap()
    }

    #[test]
    fn every_form_of_a_registry_of_our_region_is_ours_and_no_other() {
        let tokens = tokens(None);
        for (host, ours) in [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", true),
            ("210987654321.dkr.ecr.eu-west-1.amazonaws.com", true),
            ("123456789012.DKR.ECR.EU-WEST-1.amazonaws.com", true),
            ("123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com", true),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", true),
            ("123456789012.dkr-ecr-fips.eu-west-1.on.aws", true),
            ("123456789012.dkr.ecr.us-east-1.amazonaws.com", false),
            ("123456789012.dkr-ecr.us-east-1.on.aws", false),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", false),
            ("123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", false),
            (
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com.attacker.example",
                false,
            ),
            ("123456789012.dkr.ecr.eu-west-1.on.aws", false),
            ("public.ecr.aws", false),
            ("quay.io", false),
        ] {
            assert_eq!(tokens.is_in_region(&registry(host)), ours, "{host}");
        }
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_renewed_is_used_while_it_lasts() {
        let tokens = tokens(Some(held(Duration::from_secs(600))));
        let ours = registry("123456789012.dkr.ecr.eu-west-1.amazonaws.com");
        for _ in 0..3 {
            let given = tokens.basic(&ours, None).await.unwrap().unwrap();
            assert_eq!(given.expose(), "held");
        }
        // One try stands for all until it is time for the next.
        assert_eq!(tokens.failures.load(Ordering::Acquire), 1);
        assert!(tokens.basic(&registry("quay.io"), None).await.unwrap().is_none());
        // What the registry refused is not given out again.
        let refused = Secret::new("held");
        assert!(tokens.basic(&ours, Some(&refused)).await.is_err());
    }

    #[tokio::test]
    async fn a_token_that_has_run_out_is_not_used() {
        let tokens = tokens(Some(held(Duration::ZERO)));
        let ours = registry("123456789012.dkr.ecr.eu-west-1.amazonaws.com");
        let error = tokens.basic(&ours, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!error.to_string().contains("held"));
    }
}
