//! Dex, as Argo CD passes it on under `/api/dex`: the exchange of another issuer's token for one of its own (RFC 8693),
//! after `server/handlers.go` of Dex.

use super::Shared;
use super::error::text;
use super::token::{self, Claims, FederatedClaims};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use towpath_core::Secret;

/// Tokens of the single sign-on live 24 hours (`expiry.idTokens`).
const LIFETIME: i64 = 24 * 3600;

/// A connector that trusts one other issuer, whose tokens are JWTs signed with HMAC-SHA-256.
#[derive(Clone, Debug)]
pub struct DexConnector {
    /// Its id.
    pub id: String,
    /// The issuer it trusts: `iss` of the tokens.
    pub issuer: String,
    /// The key that the issuer signs with.
    pub key: Secret,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    iss: String,
    sub: String,
    exp: i64,
}

impl DexConnector {
    /// What the issuer would give a user.
    pub(super) fn issue(&self, user: &str, now: Timestamp, lifetime: Duration) -> Secret {
        let subject = Subject {
            iss: self.issuer.clone(),
            sub: user.into(),
            exp: now.as_second().saturating_add_unsigned(lifetime.as_secs()),
        };
        token::sign(self.key.expose().as_bytes(), &subject)
    }

    fn user(&self, given: &str, now: Timestamp) -> Option<String> {
        let subject: Subject = token::open(self.key.expose().as_bytes(), given)?;
        (subject.iss == self.issuer && subject.exp > now.as_second()).then_some(subject.sub)
    }
}

fn refuse(status: StatusCode, error: &str, description: &str) -> Response {
    let mut body = json!({"error": error});
    if !description.is_empty() {
        body["error_description"] = json!(description);
    }
    (status, Json(body)).into_response()
}

pub(super) async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, bytes: Bytes) -> Response {
    if shared.config.dex_connectors.is_empty() {
        return text(StatusCode::NOT_FOUND, "Not Found");
    }
    let bad = |error: &str, description: &str| refuse(StatusCode::BAD_REQUEST, error, description);
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let form: HashMap<String, String> = match is_form {
        true => url::form_urlencoded::parse(&bytes).into_owned().collect(),
        false => HashMap::new(),
    };
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let client = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|value| STANDARD.decode(value).ok());
    // The public client of the argocd program has no secret.
    if client.as_deref() != Some(b"argo-cd-cli:") {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "Invalid client credentials.",
        );
    }
    if field("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" {
        return bad("unsupported_grant_type", "");
    }
    let kinds = ["id_token", "access_token"].map(|kind| format!("urn:ietf:params:oauth:token-type:{kind}"));
    if !kinds.iter().any(|kind| kind == field("subject_token_type")) {
        return bad("request_not_supported", "Invalid subject_token_type.");
    }
    if field("subject_token").is_empty() {
        return bad("invalid_request", "Missing subject_token");
    }
    let mut connectors = shared.config.dex_connectors.iter();
    let Some(connector) = connectors.find(|known| known.id == field("connector_id")) else {
        return bad("invalid_request", "Requested connector does not exist.");
    };
    let now = shared.clock.now();
    let Some(user) = connector.user(field("subject_token"), now) else {
        return refuse(StatusCode::UNAUTHORIZED, "access_denied", "");
    };
    let iat = now.as_second();
    let claims = Claims {
        iss: format!("{}/api/dex", shared.url),
        sub: STANDARD.encode(format!("{user}@{}", connector.id)),
        jti: uuid::Uuid::new_v4().to_string(),
        iat,
        nbf: iat,
        exp: Some(iat + LIFETIME),
        federated_claims: field("scope")
            .split(' ')
            .any(|scope| scope == "federated:id")
            .then(|| FederatedClaims {
                connector_id: connector.id.clone(),
                user_id: user,
            }),
    };
    Json(json!({
        "access_token": shared.tokens.signed(&claims).expose(),
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "bearer",
        "expires_in": LIFETIME,
    }))
    .into_response()
}
