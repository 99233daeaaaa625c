//! The parts of the OCI distribution specification that every registry of the lab shares: paths, errors, pages.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;

pub(super) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a path under `/v2/` names. Repository names contain slashes, so a path is read from its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Catalog,
    Manifest { name: String, reference: String },
    Blob { name: String, digest: String },
    Uploads { name: String },
    Upload { name: String, id: String },
    Tags { name: String },
    Referrers { name: String, digest: String },
}

impl Route {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        let rest = path.strip_prefix("/v2/").or((path == "/v2").then_some(""))?;
        if rest.is_empty() {
            return Some(Self::Base);
        }
        if rest == "_catalog" {
            return Some(Self::Catalog);
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some(Self::Tags { name: name.into() });
        }
        if let Some(name) = rest
            .strip_suffix("/blobs/uploads/")
            .or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Some(Self::Uploads { name: name.into() });
        }
        let (front, last) = rest.rsplit_once('/')?;
        let last = last.to_owned();
        if last.is_empty() {
            return None;
        }
        let named = |kind: &str| front.strip_suffix(kind).map(ToOwned::to_owned);
        if let Some(name) = named("/blobs/uploads") {
            Some(Self::Upload { name, id: last })
        } else if let Some(name) = named("/blobs") {
            Some(Self::Blob { name, digest: last })
        } else if let Some(name) = named("/manifests") {
            Some(Self::Manifest {
                name,
                reference: last,
            })
        } else {
            named("/referrers").map(|name| Self::Referrers { name, digest: last })
        }
    }
}

/// A refusal in the error envelope of the specification.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    /// The disk or another part of the lab failed.
    pub(super) fn internal(error: &dyn std::fmt::Display) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL_ERROR",
            error.to_string(),
        )
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({"errors": [{"code": self.code, "message": self.message}]});
        let headers = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json; charset=utf-8"),
            ),
            (API_VERSION, HeaderValue::from_static("registry/2.0")),
        ];
        (self.status, headers, body.to_string()).into_response()
    }
}

/// An answer of bytes with a media type and a digest; for HEAD the same without the bytes.
pub(super) fn manifest_response(
    method: &Method,
    media_type: &str,
    digest: &str,
    bytes: bytes::Bytes,
) -> Response {
    let length = bytes.len();
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(bytes)
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    for (name, value) in [(header::CONTENT_TYPE, media_type), (CONTENT_DIGEST, digest)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

/// One page of sorted names by `n` and `last`, and the `Link` to the next one.
pub(super) fn page(
    names: Vec<String>,
    query: Option<&str>,
    path: &str,
) -> Result<(Vec<String>, Option<String>), Refused> {
    let limit = match parameter(query, "n") {
        None => 1000,
        Some(text) => match text.parse::<usize>() {
            Ok(limit) if (1..=1000).contains(&limit) => limit,
            found => {
                let bound = if found == Ok(0) {
                    "greater than or equal to 1"
                } else {
                    "less than or equal to 1000"
                };
                return Err(Refused::unsupported(format!(
                    "Invalid parameter at 'maxResults' failed to satisfy constraint: 'Member must have value {bound}'"
                )));
            }
        },
    };
    let last = parameter(query, "last").unwrap_or_default();
    let mut rest = names.into_iter().filter(|name| *name > last);
    let taken: Vec<String> = rest.by_ref().take(limit).collect();
    let next = match (rest.next(), taken.last()) {
        (Some(_), Some(last)) => {
            let last = utf8_percent_encode(last, NON_ALPHANUMERIC);
            Some(format!("<{path}?last={last}&n={limit}>; rel=\"next\""))
        }
        _ => None,
    };
    Ok((taken, next))
}

/// The first value of a query parameter.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    parameters(query, name).into_iter().next()
}

/// Every value of a query parameter.
pub(super) fn parameters(query: Option<&str>, name: &str) -> Vec<String> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let name = || "a/blobs/b".to_owned();
        for (path, expected) in [
            ("/v2/", Some(Route::Base)),
            ("/v2/a/blobs/b/tags/list", Some(Route::Tags { name: name() })),
            (
                "/v2/a/blobs/b/manifests/v1",
                Some(Route::Manifest {
                    name: name(),
                    reference: "v1".into(),
                }),
            ),
            (
                "/v2/a/blobs/b/blobs/uploads/",
                Some(Route::Uploads { name: name() }),
            ),
            (
                "/v2/a/blobs/b/blobs/uploads/7",
                Some(Route::Upload {
                    name: name(),
                    id: "7".into(),
                }),
            ),
            (
                "/v2/a/blobs/sha256%3Aaa",
                Some(Route::Blob {
                    name: "a".into(),
                    digest: "sha256:aa".into(),
                }),
            ),
            ("/v2/a/other/b", None),
            ("/v2/a/manifests/", None),
            ("/v1/", None),
        ] {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn pages_end_and_link() {
        let names = || ["a", "b", "c"].map(String::from).to_vec();
        let (first, link) = page(names(), Some("n=2"), "/v2/x/tags/list").unwrap();
        assert_eq!((first.len(), link.is_some()), (2, true));
        let (second, link) = page(names(), Some("n=2&last=b"), "/v2/x/tags/list").unwrap();
        assert_eq!((second, link), (vec!["c".to_owned()], None));
        assert!(page(names(), Some("n=1001"), "").is_err());
    }
}
