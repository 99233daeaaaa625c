//! Argo CD's own tokens: JWTs signed with HMAC-SHA-256 (RFC 7519), with the claims of `util/session`.

use super::error::Status;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use towpath_core::Secret;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// The claims of a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) jti: String,
    pub(super) iat: i64,
    pub(super) nbf: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<i64>,
    /// Of a token of the single sign-on: whom its issuer took from another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) federated_claims: Option<FederatedClaims>,
}

/// Where a user of the single sign-on comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FederatedClaims {
    pub(super) connector_id: String,
    pub(super) user_id: String,
}

/// The signing key, and the tokens that were taken back.
#[derive(Debug)]
pub(super) struct Tokens {
    key: Secret,
    revoked: Mutex<HashSet<String>>,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self {
            key: Secret::new(format!(
                "{:032x}{:032x}",
                rand::random::<u128>(),
                rand::random::<u128>()
            )),
            revoked: Mutex::default(),
        }
    }

    /// Makes a token for a subject (`admin:login`, `bot:apiKey`, `proj:<project>:<role>`); without a lifetime it
    /// never expires.
    pub(super) fn mint(
        &self,
        subject: &str,
        lifetime: Option<Duration>,
        now: Timestamp,
        id: Option<String>,
    ) -> (Secret, Claims) {
        let iat = now.as_second();
        let claims = Claims {
            iss: "argocd".into(),
            sub: subject.into(),
            jti: id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            iat,
            nbf: iat,
            exp: lifetime.map(|lifetime| iat.saturating_add_unsigned(lifetime.as_secs())),
            federated_claims: None,
        };
        (self.signed(&claims), claims)
    }

    /// The token with these claims.
    pub(super) fn signed(&self, claims: &Claims) -> Secret {
        sign(self.key.expose().as_bytes(), claims)
    }

    /// Whose token it is. What is not shaped like a JWT counts as no token at all.
    pub(super) fn verify(&self, token: Option<&str>, now: Timestamp) -> Result<Claims, Status> {
        let nobody = || Status::unauthenticated("no session information");
        let invalid = |why: &str| Status::unauthenticated(format!("invalid session: {why}"));
        let token = token.ok_or_else(nobody)?;
        let (signed, signature) = token.rsplit_once('.').ok_or_else(nobody)?;
        let (_, body) = signed
            .split_once('.')
            .filter(|(_, body)| !body.contains('.'))
            .ok_or_else(nobody)?;
        let given = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| invalid("token is malformed: could not base64 decode signature"))?;
        if !bool::from(subtle::ConstantTimeEq::ct_eq(
            given.as_slice(),
            self.sign(signed.as_bytes()).as_slice(),
        )) {
            return Err(invalid("token signature is invalid: signature is invalid"));
        }
        let claims: Claims = URL_SAFE_NO_PAD
            .decode(body)
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok())
            .ok_or_else(|| invalid("token is malformed"))?;
        if claims.exp.is_some_and(|exp| exp <= now.as_second()) {
            return Err(invalid("token has invalid claims: token is expired"));
        }
        if self
            .revoked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&claims.jti)
        {
            return Err(invalid("token is revoked, please re-login"));
        }
        Ok(claims)
    }

    pub(super) fn revoke(&self, id: &str) {
        self.revoked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.to_owned());
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        hmac_sha256(self.key.expose().as_bytes(), bytes)
    }
}

/// A JWT with these claims, signed with a key.
pub(super) fn sign(key: &[u8], claims: &impl Serialize) -> Secret {
    // Plain strings and numbers always serialise.
    let body = serde_json::to_string(claims).unwrap_or_default();
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(HEADER),
        URL_SAFE_NO_PAD.encode(body)
    );
    let signature = URL_SAFE_NO_PAD.encode(hmac_sha256(key, signed.as_bytes()));
    Secret::new(format!("{signed}.{signature}"))
}

/// The claims of a JWT that this key has signed; `None` where it has not.
pub(super) fn open<T: serde::de::DeserializeOwned>(key: &[u8], token: &str) -> Option<T> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (_, body) = signed.split_once('.').filter(|(_, body)| !body.contains('.'))?;
    let given = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let right: bool =
        subtle::ConstantTimeEq::ct_eq(given.as_slice(), hmac_sha256(key, signed.as_bytes()).as_slice())
            .into();
    let body = URL_SAFE_NO_PAD.decode(body).ok()?;
    right.then(|| serde_json::from_slice(&body).ok()).flatten()
}

/// HMAC-SHA-256.
pub(super) fn hmac_sha256(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(bytes);
            mac.finalize().into_bytes().to_vec()
        }
        // HMAC takes a key of any length, so that this cannot happen; and what is empty matches nothing.
        Err(_) => Vec::new(),
    }
}
