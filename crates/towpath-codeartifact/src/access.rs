//! How package managers get in: one token for a domain, one endpoint for a repository and format, both remembered.

use crate::client::CodeArtifact;
use crate::config::is_secure;
use crate::error::{SERVICE, failed};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use towpath_core::{ArtifactRepository, PackageFormat, Secret};
use towpath_elements::artifacts::Access;
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// A cell for each key. Whoever finds it empty fills it while the others wait, so that a value is asked for once.
type Cells<K, V> = Mutex<HashMap<K, Arc<AsyncMutex<Option<V>>>>>;

/// What is remembered. Clones of a client share it.
#[derive(Default)]
pub(crate) struct Known {
    /// By domain, and its owner where it was named.
    tokens: Cells<(String, Option<String>), Token>,
    endpoints: Cells<(ArtifactRepository, PackageFormat), Url>,
}

#[derive(Clone)]
struct Token {
    value: Secret,
    expires: Timestamp,
    /// When a quarter of its life is left.
    refresh: Instant,
}

fn cell<K: std::hash::Hash + Eq, V>(cells: &Cells<K, V>, key: K) -> Arc<AsyncMutex<Option<V>>> {
    let mut cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(cells.entry(key).or_default())
}

fn domain_of(repository: &ArtifactRepository) -> (String, Option<String>) {
    (
        repository.domain().to_string(),
        repository.owner().map(ToString::to_string),
    )
}

impl CodeArtifact {
    /// How a package manager reaches a repository. The token is good for the whole domain, and has at least a quarter
    /// of its life before it.
    pub async fn access(&self, repository: &ArtifactRepository, format: PackageFormat) -> Result<Access> {
        let endpoint = self.repository_endpoint(repository, format).await?;
        let token = self.token(repository).await?;
        Ok(Access {
            endpoint,
            token: token.value,
            expires: token.expires,
        })
    }

    /// The endpoint that the service names (`GetRepositoryEndpoint`), with a slash at its end. It is asked for once.
    pub async fn repository_endpoint(
        &self,
        repository: &ArtifactRepository,
        format: PackageFormat,
    ) -> Result<Url> {
        const ATTEMPTED: &str = "find the endpoint of";
        let cell = cell(&self.known().endpoints, (repository.clone(), format));
        let mut known = cell.lock().await;
        if let Some(endpoint) = &*known {
            return Ok(endpoint.clone());
        }
        let (domain, owner) = domain_of(repository);
        let answer = self
            .sdk()
            .get_repository_endpoint()
            .domain(domain)
            .set_domain_owner(owner)
            .repository(repository.name())
            .format(format.as_str().into())
            .send()
            .await
            .map_err(|error| failed(ATTEMPTED, repository, error))?;
        let text = answer.repository_endpoint().unwrap_or_default();
        let protocol =
            |detail: &str| Error::new(ErrorKind::Protocol, SERVICE, ATTEMPTED, repository).because(detail);
        let with_slash = format!("{}/", text.trim_end_matches('/'));
        let endpoint =
            Url::parse(&with_slash).map_err(|_| protocol("the service named none that is a URL"))?;
        if !is_secure(&endpoint) {
            return Err(protocol("it is plain http and not on this machine"));
        }
        *known = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// The domain's token; a new one once three quarters of its life are over.
    async fn token(&self, repository: &ArtifactRepository) -> Result<Token> {
        let cell = cell(&self.known().tokens, domain_of(repository));
        let mut known = cell.lock().await;
        if let Some(token) = known.as_ref().filter(|token| Instant::now() < token.refresh) {
            return Ok(token.clone());
        }
        let token = self.new_token(repository).await?;
        *known = Some(token.clone());
        Ok(token)
    }

    /// Forgets the domain's token if it is still this one, because the service no longer takes it.
    pub(crate) async fn forget_token(&self, repository: &ArtifactRepository, refused: &Secret) {
        let cell = cell(&self.known().tokens, domain_of(repository));
        let mut known = cell.lock().await;
        if known
            .as_ref()
            .is_some_and(|token| token.value.expose() == refused.expose())
        {
            *known = None;
        }
    }

    async fn new_token(&self, repository: &ArtifactRepository) -> Result<Token> {
        const ATTEMPTED: &str = "get a token for the domain of";
        let (domain, owner) = domain_of(repository);
        let answer = self
            .sdk()
            .get_authorization_token()
            .domain(domain)
            .set_domain_owner(owner)
            .send()
            .await
            .map_err(|error| failed(ATTEMPTED, repository, error))?;
        let protocol =
            |detail: &str| Error::new(ErrorKind::Protocol, SERVICE, ATTEMPTED, repository).because(detail);
        // A carriage return at its end would make every request with it malformed.
        let value = Secret::new(answer.authorization_token().unwrap_or_default().trim());
        if value.is_empty() {
            return Err(protocol("the answer has no token"));
        }
        let expires = answer
            .expiration()
            .and_then(|time| Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok())
            .ok_or_else(|| protocol("the answer does not say when the token ends"))?;
        let life = Duration::try_from(expires.duration_since(Timestamp::now())).unwrap_or_default();
        Ok(Token {
            value,
            expires,
            refresh: Instant::now() + life.mul_f64(0.75),
        })
    }
}
