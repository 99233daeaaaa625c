//! What every answer of the REST API has in common: errors, JSON bodies, pages and headers.
//! After "Getting started with the REST API" of GitHub Enterprise Server 3.19.

use super::git::GitError;
use super::hub::Hub;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The version that the lab says it is.
pub(crate) const VERSION: &str = "3.19.0";
const DOCUMENTATION: &str = "https://docs.github.com/enterprise-server@3.19/rest";

pub(crate) type Reply<T = Response> = Result<T, ApiError>;

/// An answer that is not a success, in GitHub's shape.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    errors: Option<Value>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            errors: None,
        }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// 422 "Validation Failed" about one field, as GitHub lists them.
    pub(crate) fn validation(resource: &str, field: &str, code: &str, message: &str) -> Self {
        Self {
            errors: Some(json!([{"resource": resource, "field": field, "code": code, "message": message}])),
            ..Self::unprocessable("Validation Failed")
        }
    }
}

impl From<GitError> for ApiError {
    fn from(error: GitError) -> Self {
        tracing::error!(%error, "git failed under a request");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("Server Error: {error}"),
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({
            "message": self.message,
            "documentation_url": DOCUMENTATION,
            "status": self.status.as_str(),
        });
        if let Some(errors) = self.errors {
            body["errors"] = errors;
        }
        answer(self.status, &body)
    }
}

/// A JSON answer.
pub(crate) fn answer(status: StatusCode, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (status, kind, body.to_string()).into_response()
}

pub(crate) fn ok(body: &Value) -> Response {
    answer(StatusCode::OK, body)
}

pub(crate) fn created(body: &Value) -> Response {
    answer(StatusCode::CREATED, body)
}

pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// A JSON request body: 400 where it is not JSON, 422 where it is not what the operation takes.
#[derive(Debug)]
pub(crate) struct Input<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.body_text()))?;
        let value: Value = if bytes.iter().all(u8::is_ascii_whitespace) {
            json!({})
        } else {
            serde_json::from_slice(&bytes)
                .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "Problems parsing JSON"))?
        };
        if !value.is_object() {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "Body should be a JSON object",
            ));
        }
        serde_json::from_value(value)
            .map(Self)
            .map_err(|error| ApiError::unprocessable(format!("Invalid request.\n\n{error}.")))
    }
}

/// Which page of a list is asked for.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
pub(crate) struct Paging {
    #[serde(default = "one")]
    pub(crate) page: usize,
    #[serde(default = "thirty")]
    pub(crate) per_page: usize,
}

fn one() -> usize {
    1
}

fn thirty() -> usize {
    30
}

impl Paging {
    pub(crate) fn size(self) -> usize {
        self.per_page.clamp(1, 100)
    }

    pub(crate) fn skip(self) -> usize {
        self.page.max(1).saturating_sub(1).saturating_mul(self.size())
    }

    /// The items of this page.
    pub(crate) fn slice<T>(self, items: Vec<T>) -> Vec<T> {
        items.into_iter().skip(self.skip()).take(self.size()).collect()
    }

    /// Adds the `Link` header: absolute addresses, with the rest of the query as it came.
    pub(crate) fn link(
        self,
        mut response: Response,
        base: &str,
        uri: &axum::http::Uri,
        total: usize,
    ) -> Response {
        let last = total.div_ceil(self.size()).max(1);
        let page = self.page.max(1);
        let others: Vec<&str> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.starts_with("page=") && !pair.starts_with("per_page="))
            .collect();
        let to = |page: usize, relation: &str| {
            let mut query: Vec<String> = others.iter().map(ToString::to_string).collect();
            query.push(format!("per_page={}", self.size()));
            query.push(format!("page={page}"));
            format!("<{base}{}?{}>; rel=\"{relation}\"", uri.path(), query.join("&"))
        };
        let mut links = Vec::new();
        if page > 1 {
            links.push(to(page - 1, "prev"));
        }
        if page < last {
            links.extend([to(page + 1, "next"), to(last, "last")]);
        }
        if page > 1 {
            links.push(to(1, "first"));
        }
        if let Ok(value) = HeaderValue::from_str(&links.join(", "))
            && !links.is_empty()
        {
            response.headers_mut().insert(header::LINK, value);
        }
        response
    }
}

/// What stands in front of every REST request: the `User-Agent` rule, the rate limit, and the common headers.
pub(crate) async fn common(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    if !headers.contains_key(header::USER_AGENT) {
        let text = "Request forbidden by administrative rules. Please make sure your request has a User-Agent \
                    header (https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required). \
                    Check https://developer.github.com for other possible causes.\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let who = headers
        .get(header::AUTHORIZATION)
        .map_or_else(Vec::new, |value| value.as_bytes().to_vec());
    let rate = hub.rate.count(&who);
    let mut response = if rate.exceeded {
        ApiError::forbidden("API rate limit exceeded. Wait until the time in x-ratelimit-reset.")
            .into_response()
    } else {
        conditional(&method, &headers, next.run(request).await).await
    };
    if response.status() == StatusCode::NOT_MODIFIED {
        hub.rate.give_back(&who);
    }
    let common = [
        (
            "x-github-request-id",
            uuid::Uuid::new_v4().simple().to_string().to_uppercase(),
        ),
        ("x-github-enterprise-version", VERSION.to_owned()),
        ("x-github-media-type", "github.v3; format=json".to_owned()),
        ("x-ratelimit-limit", rate.limit.to_string()),
        ("x-ratelimit-remaining", rate.remaining.to_string()),
        ("x-ratelimit-used", rate.used.to_string()),
        ("x-ratelimit-reset", rate.reset.to_string()),
        ("x-ratelimit-resource", "core".to_owned()),
    ];
    for (name, value) in common {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// Adds an `ETag` to what was read, and answers 304 where the asker has it already.
async fn conditional(method: &Method, headers: &HeaderMap, response: Response) -> Response {
    if method != Method::GET || response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Server Error").into_response();
    };
    let tag = format!("W/\"{}\"", hex::encode(Sha256::digest(&bytes)));
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().trim_start_matches("W/") == tag.trim_start_matches("W/"));
    if let Ok(value) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, value);
    }
    parts.headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=60, s-maxage=60"),
    );
    if known {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// A time in GitHub's form, in whole seconds.
pub(crate) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The same, from seconds since 1970.
pub(crate) fn time_of(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| time(jiff::Timestamp::UNIX_EPOCH), time)
}
