//! Which server to talk to, as whom, and how patiently.

use std::fmt;
use std::time::Duration;
use towpath_core::Secret;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::RetryPolicy;
use url::Url;

/// Where github.com serves its REST API.
const DOTCOM: &str = "https://api.github.com";

/// How to reach a GitHub server.
///
/// ```
/// use towpath_github::{Credential, GitHubConfig, Secret};
/// let config = GitHubConfig::enterprise("https://github.acme.example")?
///     .with_credential(Credential::Token(Secret::new("ghp_…")));
/// assert_eq!(config.api().as_str(), "https://github.acme.example/api/v3");
/// # Ok::<(), towpath_github::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GitHubConfig {
    api: Url,
    pub(crate) credential: Credential,
    pub(crate) retries: RetryPolicy,
    pub(crate) timeout: Duration,
}

/// Who the client is to the server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Credential {
    /// Nobody. Enterprise Server usually refuses that.
    #[default]
    Anonymous,
    /// A personal access token, a `GITHUB_TOKEN`, or any other token that somebody else renews.
    Token(Secret),
    /// An installation of a GitHub App; the client makes its tokens and renews them.
    App(AppInstallation),
}

/// An installation of a GitHub App.
#[derive(Clone)]
pub struct AppInstallation {
    /// The App's number.
    pub app: u64,
    /// The App's private key, in PEM, as GitHub gave it for download.
    pub private_key: Secret,
    /// The number of the installation, as in the address of its settings page.
    pub installation: u64,
}

impl fmt::Debug for AppInstallation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppInstallation")
            .field("app", &self.app)
            .field("installation", &self.installation)
            .finish_non_exhaustive()
    }
}

impl GitHubConfig {
    /// The server whose REST API is at this address: `https://api.github.com`, or `https://HOST/api/v3` for Enterprise
    /// Server, as in `GITHUB_API_URL`. Plain `http` is for this machine only.
    ///
    /// # Errors
    /// *Invalid* where the address is no URL, carries a user, a query or a fragment, or would send a token in the clear.
    pub fn new(api: &str) -> Result<Self> {
        Ok(Self {
            api: api_url(api)?,
            credential: Credential::Anonymous,
            retries: RetryPolicy::default(),
            timeout: Duration::from_secs(60),
        })
    }

    /// github.com.
    ///
    /// # Errors
    /// None in practice; the address is checked like every other.
    pub fn dotcom() -> Result<Self> {
        Self::new(DOTCOM)
    }

    /// The Enterprise Server at this address, whose REST API is under `/api/v3`.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn enterprise(server: &str) -> Result<Self> {
        Self::new(&format!("{}/api/v3", server.trim_end_matches('/')))
    }

    /// Reads `GITHUB_API_URL` (github.com without it) and `GITHUB_TOKEN`, as a step of GitHub Actions has them.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn from_env() -> Result<Self> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let filled = |name| var(name).filter(|value: &String| !value.trim().is_empty());
        let config = Self::new(filled("GITHUB_API_URL").as_deref().unwrap_or(DOTCOM))?;
        Ok(match filled("GITHUB_TOKEN") {
            Some(token) => config.with_credential(Credential::Token(Secret::new(token.trim()))),
            None => config,
        })
    }

    /// Speaks to the server as this.
    #[must_use]
    pub fn with_credential(mut self, credential: Credential) -> Self {
        self.credential = credential;
        self
    }

    /// Sends a request again as often and as fast as this says; only requests that are safe to send twice.
    #[must_use]
    pub fn with_retries(mut self, retries: RetryPolicy) -> Self {
        self.retries = retries;
        self
    }

    /// Gives each request this long, its answer included; a minute without this.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The base of the REST API, without a slash at the end of its path.
    pub fn api(&self) -> &Url {
        &self.api
    }
}

fn api_url(text: &str) -> Result<Url> {
    let refuse = |reason: String| {
        Error::new(ErrorKind::Invalid, "GitHub", "use", "the API address")
            .because(reason)
            .advise("give it as https://api.github.com or https://HOST/api/v3")
    };
    let mut url = Url::parse(text.trim()).map_err(|cause| refuse(cause.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refuse("it is no http or https address".into()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            "it holds a user or a password; give the token apart from it".into(),
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it holds a query or a fragment".into()));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_a_step_is_enough() {
        let vars = |name: &str| match name {
            "GITHUB_API_URL" => Some("https://ghe.acme.example/api/v3/".to_owned()),
            "GITHUB_TOKEN" => Some("canary\n".to_owned()),
            _ => None,
        };
        let config = GitHubConfig::from_vars(vars).unwrap();
        assert_eq!(config.api().as_str(), "https://ghe.acme.example/api/v3");
        assert!(matches!(&config.credential, Credential::Token(token) if token.expose() == "canary"));
        assert!(!format!("{config:?}").contains("canary"));
        let config = GitHubConfig::from_vars(|_| Some(String::new())).unwrap();
        assert_eq!(config.api().as_str(), "https://api.github.com/");
        assert!(matches!(config.credential, Credential::Anonymous));
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_showing_what_it_holds() {
        for (address, reason) in [
            ("ghe.acme.example", "relative URL"),
            ("ftp://ghe.acme.example", "no http"),
            ("https://x:canary@ghe.acme.example/api/v3", "user or a password"),
            ("https://ghe.acme.example/api/v3?token=canary", "query"),
        ] {
            let error = GitHubConfig::new(address).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("canary"), "{error}");
        }
    }
}
