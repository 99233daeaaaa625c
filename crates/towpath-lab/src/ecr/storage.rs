//! The object storage behind the registry: the signed addresses that the bytes of blobs are read from.
//!
//! As with presigned addresses of Amazon S3, one works for whoever has it, for one method, until it ends; and a request
//! that brings an `Authorization` of its own as well is refused.

use super::Service;
use super::distribution::parameter;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use std::sync::Arc;
use towpath_core::Digest;

/// What the signatures are made with. Only this registry knows it.
pub(super) struct SigningKey([u8; 32]);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    pub(super) fn new() -> Self {
        Self(rand::random())
    }

    fn sign(&self, key: &str, ends: i64) -> String {
        match Hmac::<sha2::Sha256>::new_from_slice(&self.0) {
            Ok(mac) => hex::encode(
                mac.chain_update(format!("GET\n{key}\n{ends}"))
                    .finalize()
                    .into_bytes(),
            ),
            // A key of any length is accepted.
            Err(_) => String::new(),
        }
    }

    fn verifies(&self, key: &str, ends: i64, signature: &str) -> bool {
        let wanted = self.sign(key, ends);
        !wanted.is_empty()
            && bool::from(subtle::ConstantTimeEq::ct_eq(
                wanted.as_bytes(),
                signature.as_bytes(),
            ))
    }
}

/// The router of the storage's port.
pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new().fallback(serve).with_state(service)
}

impl Service {
    /// Where the bytes of a blob can be read without credentials, for as long as the configuration says.
    pub(super) fn download_url(&self, digest: &Digest) -> String {
        let life = i64::try_from(self.config.download_url_life.as_secs()).unwrap_or(i64::MAX);
        let ends = Timestamp::now().as_second().saturating_add(life);
        let key = format!("{}/{digest}", self.config.account);
        let signature = self.storage_key.sign(&key, ends);
        format!("{}/{key}?Expires={ends}&Signature={signature}", self.storage_url)
    }
}

async fn serve(State(service): State<Arc<Service>>, request: Request) -> Response {
    if request.headers().contains_key(header::AUTHORIZATION) {
        return refused(
            StatusCode::BAD_REQUEST,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the query string Signature or the Authorization header should be \
             specified",
        );
    }
    let denied = |message| refused(StatusCode::FORBIDDEN, "AccessDenied", message);
    let query = request.uri().query();
    let (Some(ends), Some(signature)) = (parameter(query, "Expires"), parameter(query, "Signature")) else {
        return denied("Access Denied");
    };
    let key = request.uri().path().trim_start_matches('/');
    let ends = ends.parse::<i64>().ok();
    let Some(ends) = ends.filter(|ends| service.storage_key.verifies(key, *ends, &signature)) else {
        return mismatch();
    };
    if *request.method() != Method::GET {
        return mismatch();
    }
    if ends <= Timestamp::now().as_second() {
        return denied("Request has expired");
    }
    let digest = key
        .rsplit_once('/')
        .and_then(|(_, digest)| digest.parse::<Digest>().ok());
    let Some(digest) = digest.filter(|digest| service.blobs.size(digest).is_some()) else {
        return refused(
            StatusCode::NOT_FOUND,
            "NoSuchKey",
            "The specified key does not exist.",
        );
    };
    let mut response = service
        .blobs
        .respond(request.method(), request.headers(), &digest)
        .await;
    // The storage knows keys, not digests.
    response.headers_mut().remove(super::distribution::CONTENT_DIGEST);
    response
}

fn mismatch() -> Response {
    refused(
        StatusCode::FORBIDDEN,
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided.",
    )
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}
