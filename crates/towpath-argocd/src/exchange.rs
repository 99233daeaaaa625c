//! The exchange of another issuer's token for one of the single sign-on (RFC 8693), at `POST /api/dex/token`.

use crate::config::SERVICE;
use crate::error;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use towpath_core::Secret;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{Answer, Call, HeaderName, HeaderValue, StatusCode, Transport};

/// A login without a secret of its own: a token of another issuer, such as a CI job's, is exchanged at the server's Dex
/// for a token of its single sign-on.
///
/// The connector must be set up at the server for that issuer, and the server's RBAC policy names the user as the other
/// issuer does (`federated_claims.user_id`, 3.0 and later).
///
/// ```
/// use towpath_argocd::{Login, Secret, TokenExchange};
/// // Tokens of CI jobs live for minutes: a new one is asked for at each exchange.
/// let login = Login::TokenExchange(TokenExchange::new("github-actions", || async {
///     Ok(Secret::new("eyJ….eyJ….sig"))
/// }));
/// # let _ = login;
/// ```
#[derive(Clone)]
pub struct TokenExchange {
    connector: String,
    token_type: String,
    scope: String,
    subject: Arc<dyn Fn() -> BoxFuture<'static, Result<Secret>> + Send + Sync>,
}

impl fmt::Debug for TokenExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenExchange")
            .field("connector", &self.connector)
            .field("token_type", &self.token_type)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Issued {
    access_token: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    error_description: String,
}

impl TokenExchange {
    /// Exchanges at this connector of the server's Dex. `subject` gives the token to exchange; it is asked each time.
    pub fn new<F, Fut>(connector: impl Into<String>, subject: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Secret>> + Send + 'static,
    {
        Self {
            connector: connector.into(),
            token_type: "urn:ietf:params:oauth:token-type:id_token".into(),
            scope: "openid email profile federated:id".into(),
            subject: Arc::new(move || Box::pin(subject())),
        }
    }

    /// Exchanges this token. Once it has expired, so has the login.
    pub fn of(connector: impl Into<String>, subject: Secret) -> Self {
        Self::new(connector, move || std::future::ready(Ok(subject.clone())))
    }

    /// The type of the token that is exchanged; `urn:ietf:params:oauth:token-type:id_token` unless this says otherwise.
    #[must_use]
    pub fn token_type(mut self, token_type: impl Into<String>) -> Self {
        self.token_type = token_type.into();
        self
    }

    /// The scopes to ask for, with spaces in between; `openid email profile federated:id` unless this says otherwise.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    pub(crate) fn connector(&self) -> &str {
        &self.connector
    }

    /// Makes one exchange; gives the token to log in with.
    pub(crate) async fn exchange(&self, transport: &Transport) -> Result<Secret> {
        let subject = (self.subject)().await?;
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("connector_id", &self.connector)
            .append_pair("scope", &self.scope)
            .append_pair(
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            )
            .append_pair("subject_token", subject.expose().trim())
            .append_pair("subject_token_type", &self.token_type)
            .finish();
        let call = Call::post("api/dex/token")
            .attempting("exchange a token at the connector", &self.connector)
            .body("application/x-www-form-urlencoded", form)
            // The public client of the argocd program: `argo-cd-cli` without a password.
            .header(
                HeaderName::from_static("authorization"),
                HeaderValue::from_static("Basic YXJnby1jZC1jbGk6"),
            )
            .idempotent();
        let answer = transport.send(call).await?;
        if answer.is_html() || answer.status().is_success() {
            let issued: Issued = error::accept(answer, false)?.json()?;
            return Ok(Secret::new(issued.access_token));
        }
        Err(self.refused(&answer, &subject))
    }

    /// What Dex's refusal means (RFC 6749, section 5.2).
    fn refused(&self, answer: &Answer, subject: &Secret) -> Error {
        let Ok(refusal) = serde_json::from_slice::<Refusal>(answer.body()) else {
            return match answer.status() {
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => answer
                    .error(ErrorKind::Unsupported)
                    .because("the server runs no Dex")
                    .advise("exchange tokens needs a Dex connector in the server's dex.config; check the root path too"),
                _ => answer.failure(),
            };
        };
        let said = match refusal.error_description.as_str() {
            "" => refusal.error.clone(),
            description => format!("{}: {description}", refusal.error),
        };
        let kind = match (refusal.error.as_str(), answer.status()) {
            ("access_denied" | "invalid_grant" | "invalid_client" | "unauthorized_client", _)
            | (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => ErrorKind::Unauthenticated,
            ("unsupported_grant_type" | "request_not_supported", _) => ErrorKind::Unsupported,
            (_, status) if status.is_server_error() => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        };
        let error = answer.error(kind).because(subject.redact(&said));
        match kind {
            ErrorKind::Unauthenticated => error.advise(
                "the token may have expired, or the connector does not trust its issuer or its audience",
            ),
            ErrorKind::Invalid => error.advise("check the connector's id in the server's dex.config"),
            _ => error,
        }
    }
}

/// The header value that carries a token.
pub(crate) fn bearer(token: &Secret, attempted: &'static str, subject: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| {
        Error::new(ErrorKind::Protocol, SERVICE, attempted, subject)
            .because("the token that the server gave is not one")
    })?;
    value.set_sensitive(true);
    Ok(value)
}
