//! How the registry pulls from an upstream: the distribution protocol with Bearer tokens, over real HTTP. The tokens are
//! anonymous ones, unless the rule has a secret.

use super::blobs::Blobs;
use super::distribution::CONTENT_DIGEST;
use super::manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_BYTES, OCI_INDEX, OCI_MANIFEST};
use super::pull_through::PullFailure;
use super::secrets::Login;
use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::{Response, StatusCode, header};
use serde::Deserialize;
use std::net::SocketAddr;
use towpath_core::{Digest, Secret};

/// One repository of an upstream.
pub(super) struct Remote<'a> {
    client: &'a reqwest::Client,
    address: SocketAddr,
    repository: &'a str,
    login: Option<Login>,
    token: Option<Secret>,
}

/// A manifest as the upstream sent it.
pub(super) struct Fetched {
    pub(super) bytes: Bytes,
    pub(super) media_type: Option<String>,
    pub(super) digest: Digest,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: String,
}

impl<'a> Remote<'a> {
    pub(super) fn new(
        client: &'a reqwest::Client,
        address: SocketAddr,
        repository: &'a str,
        login: Option<Login>,
    ) -> Self {
        Self {
            client,
            address,
            repository,
            login,
            token: None,
        }
    }

    /// Which digest a reference has at the upstream now.
    pub(super) async fn resolve(&mut self, reference: &str) -> Result<Option<Digest>, PullFailure> {
        let response = self
            .send(reqwest::Method::HEAD, &format!("manifests/{reference}"))
            .await?;
        let digest = response
            .headers()
            .get(CONTENT_DIGEST)
            .and_then(|value| value.to_str().ok());
        Ok(digest.and_then(|digest| digest.parse().ok()))
    }

    /// Whether the upstream answers, and its token server takes the login.
    pub(super) async fn check(&mut self) -> Result<(), PullFailure> {
        let url = format!("http://{}/v2/", self.address);
        let response = self.client.get(url).send().await;
        let response = response.map_err(|error| unavailable(&error))?;
        match response.status() {
            StatusCode::UNAUTHORIZED => self.authorize(&response).await.map(|_| ()),
            status if status.is_success() => Ok(()),
            status => Err(PullFailure::Unavailable(format!("it answered {status}"))),
        }
    }

    pub(super) async fn manifest(&mut self, reference: &str) -> Result<Fetched, PullFailure> {
        let response = self
            .send(reqwest::Method::GET, &format!("manifests/{reference}"))
            .await?;
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned);
        let mut bytes = Vec::new();
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| unavailable(&error))?);
            if bytes.len() > MAX_BYTES {
                return Err(PullFailure::Unavailable(
                    "its manifest is larger than 4 MiB".into(),
                ));
            }
        }
        let digest = Digest::sha256_of(&bytes);
        if reference.contains(':') && reference != digest.as_str() {
            return Err(PullFailure::Unavailable(format!(
                "it answered {digest} when asked for {reference}"
            )));
        }
        Ok(Fetched {
            bytes: bytes.into(),
            media_type,
            digest,
        })
    }

    /// Copies a blob to disk, unless it is there.
    pub(super) async fn blob(&mut self, blobs: &Blobs, digest: &Digest) -> Result<(), PullFailure> {
        if blobs.size(digest).is_some() {
            return Ok(());
        }
        let response = self
            .send(reqwest::Method::GET, &format!("blobs/{digest}"))
            .await?;
        let mut upload = blobs.begin().map_err(|error| unavailable(&error))?;
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| unavailable(&error))?;
            upload.append(&chunk).map_err(|error| unavailable(&error))?;
        }
        match blobs.keep(upload, digest).map_err(|error| unavailable(&error))? {
            Ok(_) => Ok(()),
            Err(found) => Err(PullFailure::Unavailable(format!(
                "it answered {found} when asked for {digest}"
            ))),
        }
    }

    /// Asks once without a token where there is none yet, and again with the one that the challenge leads to.
    async fn send(&mut self, method: reqwest::Method, what: &str) -> Result<Response, PullFailure> {
        let url = format!("http://{}/v2/{}/{what}", self.address, self.repository);
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let mut challenged = false;
        loop {
            let mut request = self
                .client
                .request(method.clone(), &url)
                .header(header::ACCEPT, &accept);
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.expose());
            }
            let response = request.send().await.map_err(|error| unavailable(&error))?;
            match response.status() {
                status if status.is_success() => return Ok(response),
                StatusCode::UNAUTHORIZED if !challenged => {
                    challenged = true;
                    self.token = Some(self.authorize(&response).await?);
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.denied()),
                StatusCode::NOT_FOUND => return Err(PullFailure::NotFound),
                StatusCode::TOO_MANY_REQUESTS => return Err(PullFailure::TooManyRequests),
                status => return Err(PullFailure::Unavailable(format!("it answered {status}"))),
            }
        }
    }

    async fn authorize(&self, response: &Response) -> Result<Secret, PullFailure> {
        let challenge = response.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| self.denied())?;
        let fields = challenge.strip_prefix("Bearer ").ok_or_else(|| self.denied())?;
        let realm = field(fields, "realm").ok_or_else(|| self.denied())?;
        let mut request = self.client.get(realm);
        if let Some(login) = &self.login {
            request = request.basic_auth(&login.username, Some(login.token.expose()));
        }
        for name in ["service", "scope"] {
            if let Some(value) = field(fields, name) {
                request = request.query(&[(name, value)]);
            }
        }
        let response = request.send().await.map_err(|error| unavailable(&error))?;
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => return Err(PullFailure::TooManyRequests),
            status if status.is_server_error() => {
                return Err(PullFailure::Unavailable(format!(
                    "its token server answered {status}"
                )));
            }
            status if !status.is_success() => return Err(self.denied()),
            _ => {}
        }
        let answer: TokenAnswer = response.json().await.map_err(|error| unavailable(&error))?;
        Ok(Secret::new(answer.token))
    }

    fn denied(&self) -> PullFailure {
        match self.login {
            Some(_) => PullFailure::LoginRefused,
            None => PullFailure::Denied,
        }
    }
}

/// A quoted field of a challenge. The challenges of the lab's upstreams have no escapes in them.
fn field<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    fields.split(',').find_map(|field| {
        let (key, value) = field.split_once('=')?;
        (key.trim() == name).then(|| value.trim_matches('"'))
    })
}

fn unavailable(error: &dyn std::fmt::Display) -> PullFailure {
    PullFailure::Unavailable(error.to_string())
}
