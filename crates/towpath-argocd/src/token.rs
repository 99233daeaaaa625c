//! What a token says of itself (RFC 7519).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Number;
use std::time::Duration;
use towpath_core::Secret;

/// The claims of a token, read and not verified: good for a warning before it expires, not for a decision about anybody.
///
/// ```
/// use towpath_argocd::{Secret, TokenClaims};
/// // {"sub":"ci:apiKey","exp":1767225600}
/// let token = Secret::new("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjaTphcGlLZXkiLCJleHAiOjE3NjcyMjU2MDB9.c2ln");
/// let claims = TokenClaims::of(&token).unwrap();
/// assert_eq!(claims.subject, "ci:apiKey");
/// assert_eq!(claims.expires_at.unwrap().to_string(), "2026-01-01T00:00:00Z");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenClaims {
    /// Who issued it (`iss`): `argocd` for the server's own tokens.
    pub issuer: String,
    /// Whom it is for (`sub`): `admin:login`, `bot:apiKey` or `proj:<project>:<role>` for the server's own tokens.
    pub subject: String,
    /// Its id (`jti`), by which it can be deleted.
    pub id: String,
    /// When it was issued (`iat`), in whole seconds.
    pub issued_at: Option<Timestamp>,
    /// When it expires (`exp`), in whole seconds; `None` for never.
    pub expires_at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    jti: Option<String>,
    iat: Option<Number>,
    exp: Option<Number>,
}

impl TokenClaims {
    /// The claims of a token; `None` where it is not a JWT whose claims can be read.
    pub fn of(token: &Secret) -> Option<Self> {
        let parts: Vec<&str> = token.expose().trim().split('.').collect();
        let [_, claims, _] = parts[..] else { return None };
        let bytes = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
        let claims: Claims = serde_json::from_slice(&bytes).ok()?;
        Some(Self {
            issuer: claims.iss.unwrap_or_default(),
            subject: claims.sub.unwrap_or_default(),
            id: claims.jti.unwrap_or_default(),
            issued_at: claims.iat.as_ref().and_then(time),
            expires_at: claims.exp.as_ref().and_then(time),
        })
    }

    /// How long it is still good for at a time; zero once it has expired, `None` where it never does.
    pub fn remaining(&self, at: Timestamp) -> Option<Duration> {
        let left = self.expires_at?.duration_since(at);
        Some(Duration::try_from(left).unwrap_or_default())
    }
}

/// Seconds since 1970, which some issuers write with a fraction.
fn time(seconds: &Number) -> Option<Timestamp> {
    let whole = seconds
        .as_i64()
        .or_else(|| seconds.as_f64().map(|seconds| seconds as i64))?;
    Timestamp::from_second(whole).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> Secret {
        Secret::new(format!("e30.{}.canary", URL_SAFE_NO_PAD.encode(claims)))
    }

    #[test]
    fn claims_are_read_whatever_is_missing_or_odd() {
        let claims = TokenClaims::of(&token(
            r#"{"iss":"argocd","exp":1767225600.9,"iat":null,"aud":["x"]}"#,
        ))
        .unwrap();
        assert_eq!((claims.issuer.as_str(), claims.subject.as_str()), ("argocd", ""));
        let expiry: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(claims.expires_at, Some(expiry));
        assert_eq!(claims.remaining(expiry), Some(Duration::ZERO));
        let before = Timestamp::from_second(expiry.as_second() - 60).unwrap();
        assert_eq!(claims.remaining(before), Some(Duration::from_secs(60)));
        let after = Timestamp::from_second(expiry.as_second() + 60).unwrap();
        assert_eq!(claims.remaining(after), Some(Duration::ZERO));
        assert_eq!(TokenClaims::of(&token("{}")).unwrap().remaining(expiry), None);
        assert!(!format!("{claims:?}").contains("canary"));
    }

    #[test]
    fn what_is_no_token_has_no_claims() {
        for text in ["", "a.b", "a.b.c", "a.b.c.d", "..", "e30.!!.x"] {
            assert_eq!(TokenClaims::of(&Secret::new(text)), None, "{text}");
        }
        assert_eq!(TokenClaims::of(&token("[1]")), None);
        let endless = token(r#"{"exp":1e300}"#);
        assert_eq!(TokenClaims::of(&endless).unwrap().expires_at, None);
    }
}
