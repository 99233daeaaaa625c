//! The answer to a request, whole.

use crate::retry::retry_after;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use towpath_core::Retry;
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// What a request is called in errors.
#[derive(Clone, Debug)]
pub(crate) struct Purpose {
    pub(crate) service: &'static str,
    pub(crate) attempted: Cow<'static, str>,
    pub(crate) subject: String,
}

impl Purpose {
    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.service, self.attempted.clone(), &self.subject)
    }
}

/// A server's final answer to a call, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(crate) purpose: Purpose,
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the transport would have sent the request again, had it had attempts left.
    pub(crate) spent: bool,
}

impl Answer {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The text of a header, where it is there and is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body, owned.
    pub fn into_body(self) -> Bytes {
        self.body
    }

    /// The URL that answered, after redirects. It may hold secrets in its query.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether the body is a page for people: by its type, or by how it begins.
    pub fn is_html(&self) -> bool {
        is_html(self.headers.get(CONTENT_TYPE), &self.body)
    }

    /// The answer where its status is 2xx, else [`failure`](Self::failure).
    pub fn success(self) -> Result<Self> {
        if self.status.is_success() {
            Ok(self)
        } else {
            Err(self.failure())
        }
    }

    /// The error that the status usually means, with what was attempted. Clients that know their service's own error
    /// bodies add to it with `because`, or make their own with [`error`](Self::error).
    pub fn failure(&self) -> Error {
        let kind = match self.status.as_u16() {
            400 | 405 | 406 | 411 | 413..=417 | 422 | 431 => ErrorKind::Invalid,
            401 => ErrorKind::Unauthenticated,
            403 => ErrorKind::Denied,
            404 | 410 => ErrorKind::NotFound,
            408 => ErrorKind::TimedOut,
            409 | 412 | 423 | 428 => ErrorKind::Conflict,
            429 => ErrorKind::RateLimited,
            501 => ErrorKind::Unsupported,
            500..=599 => ErrorKind::Unavailable,
            _ => ErrorKind::Protocol,
        };
        self.error(kind).because(format!("HTTP {}", self.status))
    }

    /// An error of this kind about this call, which says whether a retry can still help.
    pub fn error(&self, kind: ErrorKind) -> Error {
        let error = self.purpose.error(kind);
        match retry_after(&self.headers) {
            // The server asked for more time than the transport would wait: an outer loop may have it.
            Some(pause) if self.status == 429 || self.status == 503 => error.retrying(Retry::After(pause)),
            _ if self.spent => error.retrying(Retry::Spent),
            _ => error,
        }
    }

    /// The body read as JSON. The error says where it is not what was expected, and never shows a value of it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        if self.is_html() {
            return Err(self
                .purpose
                .error(ErrorKind::Protocol)
                .because("the answer is an HTML page, not JSON")
                .advise("check the base address and its path; a login page or a proxy may stand in front of the API"));
        }
        read_json(&self.body).map_err(|(cut_short, detail)| {
            if cut_short {
                // A server that streams its answer can break off after the status has been sent.
                self.purpose
                    .error(ErrorKind::Unavailable)
                    .because("the JSON of the answer breaks off")
            } else {
                self.purpose
                    .error(ErrorKind::Protocol)
                    .because(format!("the JSON of the answer is not as expected: {detail}"))
            }
        })
    }
}

pub(crate) fn is_html(content_type: Option<&HeaderValue>, body: &[u8]) -> bool {
    let typed = content_type
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.trim_start().to_ascii_lowercase().starts_with("text/html"));
    let start: Vec<u8> = body
        .iter()
        .copied()
        .skip_while(u8::is_ascii_whitespace)
        .take(14)
        .map(|byte| byte.to_ascii_lowercase())
        .collect();
    typed || start.starts_with(b"<!doctype html") || start.starts_with(b"<html")
}

/// Reads JSON; a failure says whether the text breaks off, and otherwise where and why it does not fit.
pub(crate) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, (bool, String)> {
    let error = match serde_json::from_slice(body) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // Only a failure pays for knowing the path: it is read a second time.
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let path = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(located) if located.path().iter().next().is_some() => format!("at {}: ", located.path()),
        _ => String::new(),
    };
    Err((
        error.is_eof(),
        format!("{path}{}", without_values(&error.to_string())),
    ))
}

/// serde quotes the strings that do not fit; they may be secrets.
fn without_values(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut quoted = false;
    let mut escaped = false;
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => {
                shown.push_str(if quoted { "\"" } else { "\"…" });
                quoted = !quoted;
            }
            _ if quoted => {}
            _ => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Page {
        #[expect(dead_code, reason = "only read by serde")]
        items: Vec<Item>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Item {
        #[expect(dead_code, reason = "only read by serde")]
        size: u64,
    }

    #[test]
    fn a_misfit_names_field_and_place_and_no_value() {
        let (cut, detail) = read_json::<Page>(br#"{"items":[{"size":1},{"size":"hun\"ter2"}]}"#).unwrap_err();
        assert!(!cut);
        assert!(
            detail.starts_with("at items[1].size: invalid type: string \"…\", expected u64 at line 1"),
            "{detail}"
        );
        assert!(!detail.contains("hun") && !detail.contains("ter2"), "{detail}");
        assert!(read_json::<Page>(br#"{"items":[{"si"#).unwrap_err().0);
    }

    #[test]
    fn a_page_for_people_is_known_by_type_or_by_start() {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        assert!(is_html(Some(&html), b""));
        assert!(is_html(None, b"\n <!DOCTYPE html><p>"));
        assert!(!is_html(
            Some(&HeaderValue::from_static("application/json")),
            b"{}"
        ));
    }
}
