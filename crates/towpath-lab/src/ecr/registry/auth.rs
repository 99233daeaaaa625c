//! Who may use `/v2/`: the user `AWS` with a password from `GetAuthorizationToken`, by Basic authentication only.

use super::super::Service;
use super::super::distribution::Refused;
use super::super::tokens::Standing;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The answer that keeps a request out; `None` lets it in.
pub(super) fn refusal(service: &Service, headers: &HeaderMap) -> Option<Response> {
    let standing = password(headers).map_or(Standing::Unknown, |password| service.tokens.check(&password));
    match standing {
        Standing::Good { .. } => None,
        Standing::Expired => Some(
            Refused::new(
                StatusCode::FORBIDDEN,
                "DENIED",
                "Your authorization token has expired. Reauthenticate and try again.",
            )
            .into_response(),
        ),
        Standing::Foreign => Some(
            Refused::new(
                StatusCode::FORBIDDEN,
                "DENIED",
                "Your authorization token is not valid for this registry. A token is good for one region.",
            )
            .into_response(),
        ),
        Standing::Unknown => {
            let challenge = format!(
                "Basic realm=\"https://{}/\",service=\"ecr.amazonaws.com\"",
                service.registry_host
            );
            let headers = [
                (header::WWW_AUTHENTICATE, challenge),
                (header::CONTENT_TYPE, "text/plain; charset=utf-8".into()),
            ];
            Some((StatusCode::UNAUTHORIZED, headers, "Not Authorized\n").into_response())
        }
    }
}

fn password(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    pair.strip_prefix("AWS:").map(ToOwned::to_owned)
}
