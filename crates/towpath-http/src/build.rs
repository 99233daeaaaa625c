//! Setting a transport up.

use crate::origin::{is_loopback, showable};
use crate::retry::Backoff;
use crate::transport::{Inner, Transport};
use crate::{Authorization, RetryPolicy, tls};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use towpath_core::Secret;
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// Sets up a [`Transport`].
#[must_use = "a builder does nothing until it builds"]
pub struct TransportBuilder {
    service: &'static str,
    base: Url,
    user_agent: String,
    connect_timeout: Duration,
    timeout: Duration,
    idle_timeout: Duration,
    retry: RetryPolicy,
    root_certificates: Vec<Vec<u8>>,
    client_certificate: Option<Secret>,
    insecure: bool,
    plain_http: bool,
    headers: HeaderMap,
    authorization: Option<Arc<dyn Authorization>>,
}

impl fmt::Debug for TransportBuilder {
    /// Without what may hold a secret: credentials in the address, and certificates that somebody left a key in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportBuilder")
            .field("service", &self.service)
            .field("base", &showable(&self.base))
            .field("root_certificates", &self.root_certificates.len())
            .field("client_certificate", &self.client_certificate.is_some())
            .field("insecure", &self.insecure)
            .field("plain_http", &self.plain_http)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

impl TransportBuilder {
    pub(crate) fn new(service: &'static str, base: Url) -> Self {
        Self {
            service,
            base,
            user_agent: concat!("towpath/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            retry: RetryPolicy::default(),
            root_certificates: Vec::new(),
            client_certificate: None,
            insecure: false,
            plain_http: false,
            headers: HeaderMap::new(),
            authorization: None,
        }
    }

    /// The `User-Agent`; `towpath/` and the version unless this says otherwise.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// How long connecting may take; 10 seconds unless this says otherwise.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one attempt may take, redirects and the answer's body included; 60 seconds unless this says otherwise.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a stream may be silent; 60 seconds unless this says otherwise.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// When to send again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Trusts these certificates (PEM, one or several) beside the machine's own.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// Shows this certificate to the server: the certificate chain and its private key, in one PEM text.
    pub fn client_certificate(mut self, pem: Secret) -> Self {
        self.client_certificate = Some(pem);
        self
    }

    /// Accepts any certificate. Whoever stands in between can then read and change everything, credentials included.
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Allows addresses without TLS on other machines. On this machine they are always allowed.
    pub fn allow_plain_http(mut self, allow: bool) -> Self {
        self.plain_http = allow;
        self
    }

    /// Sends this header with every request to the base's origin, and treats its value as a secret.
    pub fn header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.headers.append(name, value);
        self
    }

    /// Sends this `Authorization` with every request to the base's origin that has none of its own.
    pub fn authorization(mut self, authorization: impl Authorization + 'static) -> Self {
        self.authorization = Some(Arc::new(authorization));
        self
    }

    /// A transport with these settings and without credentials, and the builder again: for an [`Authorization`] that
    /// asks the same server.
    pub fn twins(self) -> Result<(Transport, Self)> {
        let plain = Self {
            authorization: None,
            root_certificates: self.root_certificates.clone(),
            client_certificate: self.client_certificate.clone(),
            headers: self.headers.clone(),
            base: self.base.clone(),
            user_agent: self.user_agent.clone(),
            retry: self.retry.clone(),
            ..self
        };
        Ok((plain.build()?, self))
    }

    /// The transport.
    ///
    /// # Errors
    /// *Invalid* where the base is not an `http` or `https` address, holds credentials, or is without TLS on another
    /// machine; where a certificate cannot be read; and where the machine has no certificates to trust.
    pub fn build(self) -> Result<Transport> {
        let refuse = |why: String| {
            Error::new(ErrorKind::Invalid, self.service, "use", showable(&self.base)).because(why)
        };
        if !matches!(self.base.scheme(), "http" | "https") || self.base.host().is_none() {
            return Err(refuse(
                "the address must begin with https:// and name a host".into(),
            ));
        }
        if !self.base.username().is_empty() || self.base.password().is_some() {
            return Err(refuse("the address holds credentials".into()).advise("give them separately"));
        }
        let loopback = is_loopback(&self.base);
        if self.base.scheme() == "http" && !loopback && !self.plain_http {
            return Err(
                refuse("without TLS everybody on the way can read the credentials".into())
                    .advise("use https://, or allow plain HTTP explicitly"),
            );
        }
        let mut roots = Vec::new();
        for pem in &self.root_certificates {
            let bundle = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|cause| refuse("the root certificates are not PEM".into()).caused_by(cause))?;
            if bundle.is_empty() {
                return Err(refuse("there is no certificate in the root certificates".into()));
            }
            roots.extend(bundle);
        }
        let mut client = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .connect_timeout(self.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .tls_danger_accept_invalid_certs(self.insecure);
        if loopback {
            // A proxy would look for the address on its own machine.
            client = client.no_proxy();
        }
        client = if loopback && self.base.scheme() == "http" {
            // Nothing of the machine's trust is needed; loading it takes a while, and it may be missing.
            client.tls_certs_only(roots)
        } else {
            client.tls_certs_merge(roots)
        };
        if let Some(pem) = &self.client_certificate {
            // The cause is left out: it might quote the key.
            let identity = reqwest::Identity::from_pem(pem.expose().as_bytes()).map_err(|_| {
                refuse("the client certificate is not a PEM text with a certificate and its key".into())
            })?;
            client = client.identity(identity);
        }
        let client = client.build().map_err(|cause| {
            let why = match tls::cause(&cause) {
                Some(rustls::Error::InconsistentKeys(_)) => {
                    "the key of the client certificate belongs to another certificate".into()
                }
                Some(rustls::Error::InvalidCertificate(why)) => {
                    format!("a root certificate cannot be read: {why}")
                }
                Some(rustls::Error::General(why)) => {
                    format!("the client certificate or its key cannot be used: {why}")
                }
                Some(other) => format!("the certificates cannot be used: {other}"),
                None => "the HTTP client cannot be set up".into(),
            };
            refuse(why).caused_by(cause)
        })?;
        Ok(Transport(Arc::new(Inner {
            service: self.service,
            base: self.base,
            client,
            backoff: Backoff::new(self.retry),
            timeout: self.timeout,
            idle_timeout: self.idle_timeout,
            plain_http: self.plain_http,
            headers: self.headers,
            authorization: self.authorization,
        })))
    }
}
