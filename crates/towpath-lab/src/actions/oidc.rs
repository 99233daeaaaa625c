//! The OIDC provider of Actions on GitHub Enterprise Server: `HOST/_services/token`, after "OpenID Connect
//! reference". Tokens are RS256, with a key that each lab makes when the first one is asked for.

use crate::github::{ApiError, Hub, Reply, ok};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const LIFE: i64 = 300;
const KEY_ID: &str = "towpath-lab";

/// The signing key of one lab.
#[derive(Debug)]
pub(crate) struct Key(RsaKeyPair);

impl Key {
    pub(crate) fn generate() -> Result<Self, String> {
        RsaKeyPair::generate(KeySize::Rsa2048)
            .map(Self)
            .map_err(|_| "cannot make an RSA key".to_owned())
    }

    fn sign(&self, claims: &Value) -> Result<String, String> {
        let head = json!({"typ": "JWT", "alg": "RS256", "kid": KEY_ID});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&head), part(claims));
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .map_err(|_| "cannot sign a token".to_owned())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Modulus and exponent out of the `RSAPublicKey` of RFC 8017: a sequence of two integers.
    fn public(&self) -> Option<(String, String)> {
        let der = self.0.public_key().as_ref();
        let (sequence, _) = element(der)?;
        let (modulus, rest) = element(sequence)?;
        let (exponent, _) = element(rest)?;
        let plain = |bytes: &[u8]| {
            let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
            URL_SAFE_NO_PAD.encode(&bytes[start..])
        };
        Some((plain(modulus), plain(exponent)))
    }
}

/// The content of the first DER element, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = (*der.get(1)?, der.get(2..)?);
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        let bytes = rest.get(..count)?;
        (
            bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte)),
            rest.get(count..)?,
        )
    };
    Some((rest.get(..length)?, rest.get(length..)?))
}

/// The endpoints; they stand beside the REST API, not below it.
pub(crate) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route(
            "/_services/token/.well-known/openid-configuration",
            get(configuration),
        )
        .route("/_services/token/.well-known/jwks", get(keys))
        .route("/_services/pipelines/{run}/{job}/idtoken", get(mint))
}

/// Where a job asks for its token; the query is already begun, as on GitHub.
pub(crate) fn request_url(base: &str, run: u64, job: u64) -> String {
    format!("{base}/_services/pipelines/{run}/{job}/idtoken?api-version=2.0")
}

async fn configuration(State(hub): State<Arc<Hub>>) -> Reply {
    let issuer = format!("{}/_services/token", hub.base);
    Ok(ok(&json!({
        "issuer": issuer, "jwks_uri": format!("{issuer}/.well-known/jwks"),
        "subject_types_supported": ["public", "pairwise"], "response_types_supported": ["id_token"],
        "claims_supported": ["sub", "aud", "exp", "iat", "iss", "jti", "nbf", "ref", "sha", "repository",
            "repository_owner", "run_id", "run_number", "run_attempt", "actor", "workflow", "event_name", "ref_type"],
        "id_token_signing_alg_values_supported": ["RS256"], "scopes_supported": ["openid"],
    })))
}

fn server_error(reason: String) -> ApiError {
    tracing::error!(reason, "no OIDC token");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, reason)
}

async fn keys(State(hub): State<Arc<Hub>>) -> Reply {
    let key = hub.actions.key().map_err(server_error)?;
    let (modulus, exponent) = key
        .public()
        .ok_or_else(|| server_error("the key has no public part".into()))?;
    let entry =
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID, "n": modulus, "e": exponent});
    Ok(ok(&json!({"keys": [entry]})))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    audience: Option<String>,
}

async fn mint(
    State(hub): State<Arc<Hub>>,
    Path((run, job)): Path<(u64, u64)>,
    Query(Wanted { audience }): Query<Wanted>,
    headers: HeaderMap,
) -> Reply {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let mut claims = token
        .and_then(|token| hub.actions.claims(token, run, job))
        .ok_or_else(|| {
            ApiError::new(
                StatusCode::UNAUTHORIZED,
                "The request token is not one of this job",
            )
        })?;
    let now = jiff::Timestamp::now().as_second();
    let owner = claims["repository_owner"].as_str().unwrap_or_default();
    let audience = audience.unwrap_or_else(|| format!("{}/{owner}", hub.base));
    claims["iss"] = json!(format!("{}/_services/token", hub.base));
    claims["aud"] = json!(audience);
    claims["jti"] = json!(uuid::Uuid::new_v4().to_string());
    (claims["iat"], claims["nbf"], claims["exp"]) = (json!(now), json!(now - 5), json!(now + LIFE));
    let key = hub.actions.key().map_err(server_error)?;
    let value = key.sign(&claims).map_err(server_error)?;
    Ok(ok(&json!({"count": value.len(), "value": value})))
}
