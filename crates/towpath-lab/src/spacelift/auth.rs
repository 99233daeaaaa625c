//! Tokens: the exchange of an API key for a JWT, and who a request comes from.

use super::world::ulid;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The tokens that are good, and until when.
#[derive(Debug)]
pub(super) struct Tokens {
    audience: String,
    good: Mutex<HashMap<String, Instant>>,
}

impl Tokens {
    pub(super) fn new(audience: String) -> Self {
        Self {
            audience,
            good: Mutex::default(),
        }
    }

    /// Makes a token: the JWT, and its end in Unix seconds.
    ///
    /// Times in the claims are fractional, as they were seen in Spacelift's own tokens. Clients cannot check the
    /// signature, so each token is signed with a key of its own.
    pub(super) fn issue(&self, key: &str, lifetime: Duration) -> (String, i64) {
        let now = jiff::Timestamp::now();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a time in microseconds fits into 53 bits until 2255"
        )]
        let issued = now.as_microsecond() as f64 / 1e6;
        let end = issued + lifetime.as_secs_f64();
        let claims = json!({
            "aud": [self.audience], "exp": end, "iat": issued, "nbf": issued, "jti": ulid(), "iss": "api-key",
            "sub": format!("api::{key}"), "adm": true, "avt": "", "cip": "127.0.0.1", "psa": "",
            "IsMachineUser": true, "subdomain": "lab",
        });
        let encode = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let head = encode(&json!({"alg": "HS256", "typ": "JWT"}));
        let signed = format!("{head}.{}", encode(&claims));
        let key = uuid::Uuid::new_v4();
        let token = format!(
            "{signed}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(sign(key.as_bytes(), signed.as_bytes()))
        );
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        good.insert(token.clone(), Instant::now() + lifetime);
        let whole = now
            .as_second()
            .saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        (token, whole)
    }

    /// Whether this `Authorization` header holds a token that is still good.
    pub(super) fn accepts(&self, authorization: Option<&str>) -> bool {
        let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) else {
            return false;
        };
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        good.get(token).is_some_and(|end| Instant::now() < *end)
    }

    pub(super) fn expire_all(&self) {
        self.good.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The HMAC-SHA256 of `data`. It takes a key of any length, so there is always one.
pub(super) fn sign(key: &[u8], data: &[u8]) -> Vec<u8> {
    Hmac::<sha2::Sha256>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mut mac| {
            mac.update(data);
            mac.finalize().into_bytes().to_vec()
        },
    )
}
