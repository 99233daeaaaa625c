//! What the user gives.

use crate::Spacelift;
use crate::credentials::{Credentials, EnvSecret, SecretSource};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::sync::Arc;
use std::time::Duration;
use towpath_core::Secret;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{RetryPolicy, Transport, TransportBuilder, Url};

pub(crate) const SERVICE: &str = "Spacelift";

/// Sets up a [`Spacelift`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct SpaceliftBuilder {
    credentials: Credentials,
    transport: TransportBuilder,
}

impl SpaceliftBuilder {
    pub(crate) fn new(endpoint: &str, credentials: Credentials) -> Result<Self> {
        let base = base_url(endpoint)?;
        Ok(Self {
            credentials,
            transport: Transport::builder(SERVICE, base)
                .user_agent(concat!("towpath-spacelift/", env!("CARGO_PKG_VERSION"))),
        })
    }

    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let given = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        let endpoint = given("SPACELIFT_API_KEY_ENDPOINT");
        let missing = |name: &str| {
            Error::new(ErrorKind::Invalid, SERVICE, "read", name)
                .because("it is not set in the environment")
                .advise(
                    "set SPACELIFT_API_KEY_ENDPOINT, SPACELIFT_API_KEY_ID and SPACELIFT_API_KEY_SECRET, \
                     or SPACELIFT_API_TOKEN",
                )
        };
        if let Some(token) = given("SPACELIFT_API_TOKEN") {
            let token = Secret::new(token.trim());
            let endpoint = endpoint
                .or_else(|| audience(&token))
                .ok_or_else(|| missing("SPACELIFT_API_KEY_ENDPOINT"))?;
            return Self::new(&endpoint, Credentials::Token(token));
        }
        let endpoint = endpoint.ok_or_else(|| missing("SPACELIFT_API_KEY_ENDPOINT"))?;
        let id = given("SPACELIFT_API_KEY_ID").ok_or_else(|| missing("SPACELIFT_API_KEY_ID"))?;
        let secret = given("SPACELIFT_API_KEY_SECRET").ok_or_else(|| missing("SPACELIFT_API_KEY_SECRET"))?;
        let source: Arc<dyn SecretSource> = Arc::new(Secret::new(secret));
        Self::new(&endpoint, Credentials::key(id, source))
    }

    /// Trusts these certificates (PEM) beside the machine's own, for a self-hosted server.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.transport = self.transport.root_certificates(pem);
        self
    }

    /// Shows this certificate to the server: chain and private key in one PEM text.
    pub fn client_certificate(mut self, pem: Secret) -> Self {
        self.transport = self.transport.client_certificate(pem);
        self
    }

    /// Allows a server without TLS on another machine. On this machine it is always allowed.
    pub fn allow_plain_http(mut self, allow: bool) -> Self {
        self.transport = self.transport.allow_plain_http(allow);
        self
    }

    /// How long one request may take; 60 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.transport = self.transport.timeout(timeout);
        self
    }

    /// When to send a request again. Mutations are never sent again once they may have arrived.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.transport = self.transport.retry(policy);
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// *Invalid* where a token cannot be sent, and what [`TransportBuilder::build`] refuses.
    pub fn build(self) -> Result<Spacelift> {
        Spacelift::new(self.transport.build()?, self.credentials)
    }
}

impl Spacelift {
    /// Sets up a client of an account with an API key. `endpoint` is the account's address, such as
    /// `https://acme.app.spacelift.io`, with or without `/graphql`.
    ///
    /// # Errors
    /// *Invalid* where the endpoint is not an address.
    pub fn with_api_key(
        endpoint: &str,
        id: impl Into<String>,
        secret: impl SecretSource + 'static,
    ) -> Result<SpaceliftBuilder> {
        SpaceliftBuilder::new(endpoint, Credentials::key(id.into(), Arc::new(secret)))
    }

    /// Sets up a client with a token that was made elsewhere. It is used until it is refused.
    ///
    /// # Errors
    /// *Invalid* where the endpoint is not an address.
    pub fn with_token(endpoint: &str, token: Secret) -> Result<SpaceliftBuilder> {
        SpaceliftBuilder::new(endpoint, Credentials::Token(token))
    }

    /// Sets up a client from `SPACELIFT_API_KEY_ENDPOINT`, `SPACELIFT_API_KEY_ID` and `SPACELIFT_API_KEY_SECRET`; or, where
    /// it is set, from `SPACELIFT_API_TOKEN`, as runs of Spacelift have it. A token without an endpoint goes to the host
    /// that it was made for.
    ///
    /// # Errors
    /// *Invalid*, naming the variable that is missing.
    pub fn from_env() -> Result<SpaceliftBuilder> {
        SpaceliftBuilder::from_env(EnvSecret::read)
    }
}

/// The account's address without what clients put behind it.
fn base_url(endpoint: &str) -> Result<Url> {
    let refuse = |why: String| {
        Error::new(
            ErrorKind::Invalid,
            SERVICE,
            "use the endpoint",
            format!("{endpoint:?}"),
        )
        .because(why)
        .advise("write it like https://acme.app.spacelift.io")
    };
    let mut url = Url::parse(endpoint.trim()).map_err(|cause| {
        // Credentials in an address that is not one must not be shown.
        Error::new(ErrorKind::Invalid, SERVICE, "use", "the endpoint")
            .because(format!("it is not an address: {cause}"))
            .advise("write it like https://acme.app.spacelift.io")
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::new(ErrorKind::Invalid, SERVICE, "use", "the endpoint")
            .because("it holds credentials")
            .advise("give them separately"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it has a query or a fragment".into()));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(
        path.strip_suffix("/graphql")
            .unwrap_or(&path)
            .trim_end_matches('/'),
    );
    Ok(url)
}

/// The host that a run's token was made for: the one audience of the JWT.
fn audience(token: &Secret) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Claims {
        aud: Vec<String>,
    }
    let claims = BASE64_URL_SAFE_NO_PAD
        .decode(token.expose().split('.').nth(1)?)
        .ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    let [audience] = claims.aud.as_slice() else {
        return None;
    };
    Some(if audience.contains("://") {
        audience.clone()
    } else {
        format!("https://{audience}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn an_endpoint_loses_only_what_clients_append() {
        for (given, base) in [
            ("https://acme.app.spacelift.io", "https://acme.app.spacelift.io/"),
            (
                "https://acme.app.spacelift.io/graphql/",
                "https://acme.app.spacelift.io/",
            ),
            ("https://spacelift.graphql", "https://spacelift.graphql/"),
            ("https://one.example/api/graphql", "https://one.example/api"),
            ("https://one.example/biographql", "https://one.example/biographql"),
        ] {
            assert_eq!(base_url(given).unwrap().as_str(), base, "{given}");
        }
        let error = base_url("acme").unwrap_err().to_string();
        assert!(error.contains("https://acme.app.spacelift.io"), "{error}");
        let error = base_url("https://me:canary@acme.io").unwrap_err();
        assert!(!format!("{error:?}").contains("canary"));
    }

    #[test]
    fn the_environment_gives_a_key_or_a_token() {
        let from = |pairs: &[(&str, &str)]| {
            let set: HashMap<String, String> = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            SpaceliftBuilder::from_env(|name| set.get(name).cloned())
        };
        let error = from(&[("SPACELIFT_API_KEY_ENDPOINT", "https://a.io")]).unwrap_err();
        assert!(error.to_string().contains("SPACELIFT_API_KEY_ID"), "{error}");
        let claims =
            BASE64_URL_SAFE_NO_PAD.encode(r#"{"aud":["acme.app.spacelift.io"],"exp":1661535687.4954071}"#);
        let token = format!("e30.{claims}.canary");
        let built = from(&[("SPACELIFT_API_TOKEN", &token)]).unwrap();
        let shown = format!("{built:?}");
        assert!(
            shown.contains("acme.app.spacelift.io") && !shown.contains("canary"),
            "{shown}"
        );
        assert!(from(&[("SPACELIFT_API_TOKEN", "opaque")]).is_err());
    }
}
