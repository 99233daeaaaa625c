//! What the user gives.

use crate::session::{Opener, Session};
use crate::{ArgoCd, RevisionOracle, TokenClaims, TokenExchange};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use towpath_core::Secret;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{Bearer, HeaderName, HeaderValue, RetryPolicy, Transport, TransportBuilder, Url};

pub(crate) const SERVICE: &str = "Argo CD";

/// How to log in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Login {
    /// With a token: of an account, of a project role, or of the single sign-on. It is shaped like a JWT.
    Token(Secret),
    /// With the name and the password of a local account. A session lasts 24 hours by default; a new one is made when the
    /// server refuses the old one.
    Password {
        /// The account.
        username: String,
        /// Its password.
        password: Secret,
    },
    /// With a token of another issuer, such as a CI job's, that is exchanged for one of the server's single sign-on: when
    /// it is first needed, and again when the server refuses the old one.
    TokenExchange(TokenExchange),
    /// Not at all: enough for the version, and for servers that let anonymous users read.
    Anonymous,
}

/// What a wait may do to bring about what it waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// Refresh; and sync what does not sync on its own.
    #[default]
    AsNeeded,
    /// Refresh only.
    Refresh,
    /// Look only.
    Nothing,
}

/// The times of a wait. The time it may take in all, and how long health must hold, stand in
/// [`Expected`](crate::Expected).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitPolicy {
    /// What the wait may do.
    pub trigger: Trigger,
    /// How often to look although the stream is silent; 10 seconds, a fifth more or less.
    pub poll: Duration,
    /// The least time between two looks; 25 milliseconds.
    pub gap: Duration,
    /// The pause after the first refresh that changed nothing; 2 seconds. It doubles from there.
    pub first_refresh: Duration,
    /// The longest pause between refreshes; 15 seconds.
    pub longest_refresh: Duration,
    /// How long one refresh may take; 45 seconds. The server itself sets no limit.
    pub refresh_timeout: Duration,
    /// How long the workloads of the expected revision may be degraded before that is the outcome; 30 seconds.
    pub degraded_grace: Duration,
    /// How long the server may be unable to make manifests before that is the outcome; 20 seconds.
    pub comparison_grace: Duration,
    /// How long the repository may be out of the server's reach before that is the outcome; 5 minutes.
    pub outage_grace: Duration,
    /// How long an application that is not there yet may take to appear, where an ApplicationSet or a parent application is
    /// about to make it; not at all. Servers tell what is missing from what may not be seen only where the project is given.
    pub appearance: Duration,
    /// Whether workloads that are paused on purpose count as healthy; no.
    pub accept_suspended: bool,
    /// Whether to listen to the server's stream beside looking; yes.
    pub stream: bool,
}

impl Default for WaitPolicy {
    fn default() -> Self {
        Self {
            trigger: Trigger::AsNeeded,
            poll: Duration::from_secs(10),
            gap: Duration::from_millis(25),
            first_refresh: Duration::from_secs(2),
            longest_refresh: Duration::from_secs(15),
            refresh_timeout: Duration::from_secs(45),
            degraded_grace: Duration::from_secs(30),
            comparison_grace: Duration::from_secs(20),
            outage_grace: Duration::from_secs(300),
            appearance: Duration::ZERO,
            accept_suspended: false,
            stream: true,
        }
    }
}

/// Sets up an [`ArgoCd`].
#[must_use = "a builder does nothing until it builds"]
pub struct ArgoCdBuilder {
    base: Url,
    login: Login,
    transport: TransportBuilder,
    wait: WaitPolicy,
    oracle: Option<Arc<dyn RevisionOracle>>,
}

impl fmt::Debug for ArgoCdBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The transport shows the address, without credentials that may stand in it.
        f.debug_struct("ArgoCdBuilder")
            .field("login", &self.login)
            .field("transport", &self.transport)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

impl ArgoCdBuilder {
    pub(crate) fn new(server: &str, login: Login) -> Result<Self> {
        let base = server_url(server)?;
        Ok(Self {
            transport: Transport::builder(SERVICE, base.clone())
                .user_agent(concat!("towpath-argocd/", env!("CARGO_PKG_VERSION"))),
            base,
            login,
            wait: WaitPolicy::default(),
            oracle: None,
        })
    }

    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let missing = |name: &'static str| {
            Error::new(ErrorKind::Invalid, SERVICE, "read", name)
                .because("it is not set in the environment")
                .advise("set ARGOCD_SERVER to the address of the server, and ARGOCD_AUTH_TOKEN to a token")
        };
        let given = |name: &'static str| {
            variable(name)
                .filter(|text| !text.is_empty())
                .ok_or_else(|| missing(name))
        };
        Self::new(
            &given("ARGOCD_SERVER")?,
            Login::Token(Secret::new(given("ARGOCD_AUTH_TOKEN")?)),
        )
    }

    /// Trusts these certificates (PEM) beside the machine's own, for a server with a certificate of its own making. A request
    /// to a server whose certificate is not trusted is *unavailable*, and is not sent again.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.transport = self.transport.root_certificates(pem);
        self
    }

    /// Shows this certificate to the server: chain and private key in one PEM text. A request to a
    /// server that asks for one and gets none that it accepts is *unauthenticated*, and is not sent again.
    pub fn client_certificate(mut self, pem: Secret) -> Self {
        self.transport = self.transport.client_certificate(pem);
        self
    }

    /// Accepts any certificate of the server. Whoever stands in between can then take the token.
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.transport = self.transport.insecure(insecure);
        self
    }

    /// Allows a server without TLS on another machine. On this machine it is always allowed.
    pub fn allow_plain_http(mut self, allow: bool) -> Self {
        self.transport = self.transport.allow_plain_http(allow);
        self
    }

    /// Sends this header with every request, such as those of an access proxy. Its value is treated as a secret.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.transport = self.transport.header(name, value);
        self
    }

    /// How long a request may take; 60 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.transport = self.transport.timeout(timeout);
        self
    }

    /// When to send a request again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.transport = self.transport.retry(policy);
        self
    }

    /// The times of waits.
    pub fn wait_policy(mut self, policy: WaitPolicy) -> Self {
        self.wait = policy;
        self
    }

    /// Tells waits whether a newer commit contains the expected one. Without it a wait accepts the expected commit only.
    pub fn revision_oracle(mut self, oracle: Arc<dyn RevisionOracle>) -> Self {
        self.oracle = Some(oracle);
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// *Invalid* where the token is not shaped like a JWT (the server would take no notice of it), and what
    /// [`TransportBuilder::build`] refuses.
    pub fn build(self) -> Result<ArgoCd> {
        // Argo CD sends a comment every 15 seconds: two missing ones mean that the connection is dead.
        let transport = self.transport.idle_timeout(Duration::from_secs(40));
        let transport = match self.login {
            Login::Anonymous => transport.build()?,
            Login::Token(token) => {
                if token
                    .expose()
                    .trim()
                    .split('.')
                    .filter(|part| !part.is_empty())
                    .count()
                    != 3
                {
                    return Err(Error::new(ErrorKind::Invalid, SERVICE, "use", "the access token")
                        .because("it does not have three parts with dots in between")
                        .advise("give the token itself, not its id, a password or a file's name"));
                }
                let claims = TokenClaims::of(&token).unwrap_or_default();
                if claims
                    .remaining(jiff::Timestamp::now())
                    .is_some_and(|left| left.is_zero())
                {
                    tracing::warn!(
                        subject = claims.subject,
                        "the access token has expired, by this machine's clock"
                    );
                }
                transport.authorization(Bearer::new(token)?).build()?
            }
            Login::Password { username, password } => {
                with_session(transport, Opener::Password { username, password })?
            }
            Login::TokenExchange(exchange) => with_session(transport, Opener::Exchange(exchange))?,
        };
        tracing::debug!(server = self.base.as_str(), "Argo CD client");
        Ok(ArgoCd::new(transport, self.wait, self.oracle))
    }
}

/// The session is made over the same settings, without credentials of its own.
fn with_session(transport: TransportBuilder, opener: Opener) -> Result<Transport> {
    let (plain, transport) = transport.twins()?;
    transport.authorization(Session::new(plain, opener)).build()
}

/// The address of a server as people write it: `ARGOCD_SERVER` is a host and a port, with or without a scheme, and a
/// root path may follow.
fn server_url(server: &str) -> Result<Url> {
    let server = server.trim();
    let text = match server.contains("://") {
        true => server.to_owned(),
        false => format!("https://{server}"),
    };
    Url::parse(&text).ok().filter(Url::has_host).ok_or_else(|| {
        let shown = towpath_core::ParseError::new("address", server, "")
            .input()
            .to_owned();
        Error::new(
            ErrorKind::Invalid,
            SERVICE,
            "use",
            format!("the server {shown:?}"),
        )
        .because("it is not an address")
        .advise("write it like https://cd.example.com or cd.example.com:8443/root")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_taken_with_and_without_a_scheme() {
        for (text, url) in [
            (
                "cd.example.com:8443/argo-cd",
                "https://cd.example.com:8443/argo-cd",
            ),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("localhost:8080", "https://localhost:8080/"),
        ] {
            assert_eq!(server_url(text).unwrap().as_str(), url);
        }
        assert!(server_url("").is_err());
        assert!(server_url("https://").is_err());
    }

    #[test]
    fn what_the_environment_lacks_is_named() {
        let env = |token: &'static str| {
            move |name: &str| match name {
                "ARGOCD_SERVER" => Some("cd.example.com".to_owned()),
                "ARGOCD_AUTH_TOKEN" => Some(token.to_owned()),
                _ => None,
            }
        };
        let built = ArgoCdBuilder::from_env(env("")).map(|_| ());
        assert!(built.unwrap_err().to_string().contains("ARGOCD_AUTH_TOKEN"));
        let error = ArgoCdBuilder::from_env(env("hunter2"))
            .unwrap()
            .build()
            .unwrap_err();
        assert!(error.to_string().contains("three parts") && !format!("{error:?}").contains("hunter2"));
        let builder = ArgoCdBuilder::from_env(env("a.hunter2.c")).unwrap();
        assert!(!format!("{builder:?}").contains("hunter2"));
    }
}
