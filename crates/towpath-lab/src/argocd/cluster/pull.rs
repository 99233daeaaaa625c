//! How a node pulls an image: the OCI Distribution Specification's pull, each byte checked against its digest.
//!
//! The texts of failures are containerd's, since that is what a Pod's status shows.

use super::super::clock::Clock;
use super::credentials::{CredentialProvider, RegistryAccess};
use futures_util::StreamExt;
use reqwest::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use std::sync::OnceLock;
use towpath_core::{Digest, ImageRef, RegistryHost};

const ACCEPTED: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";
const LARGEST_DOCUMENT: usize = 8 << 20;
const NODE_OS: &str = "linux";
const NODE_ARCHITECTURE: &str = "amd64";

/// An image whose every byte has arrived at the node.
#[derive(Clone, Debug)]
pub(super) struct Pulled {
    /// What the reference resolved to: the digest of an index, where it names one.
    pub(super) resolved: Digest,
    /// The manifest for the node's platform.
    pub(super) manifest: Digest,
    /// The configuration and the layers, in the manifest's order.
    pub(super) blobs: Vec<Digest>,
    /// `os/architecture` of the configuration.
    pub(super) platform: String,
}

impl Pulled {
    /// Whether the node's kernel can execute it.
    pub(super) fn runs_here(&self) -> bool {
        self.platform == format!("{NODE_OS}/{NODE_ARCHITECTURE}")
    }
}

/// The container runtime's client for registries.
#[derive(Debug)]
pub(super) struct Puller {
    client: OnceLock<reqwest::Client>,
    credentials: CredentialProvider,
    clock: Clock,
}

/// One pull: where it goes, and the authorization that was accepted there last.
struct Session<'p> {
    puller: &'p Puller,
    client: reqwest::Client,
    image: &'p ImageRef,
    authorization: Option<String>,
}

impl Puller {
    pub(super) fn new(access: Vec<RegistryAccess>, clock: Clock) -> Self {
        Self {
            client: OnceLock::new(),
            credentials: CredentialProvider::new(access),
            clock,
        }
    }

    /// Pulls what `reference` names.
    pub(super) async fn pull(&self, reference: &str) -> Result<Pulled, String> {
        let image: ImageRef = reference
            .parse()
            .map_err(|error| format!("failed to parse image {reference:?}: {error}"))?;
        self.pull_parsed(&image)
            .await
            .map_err(|why| format!("failed to pull and unpack image \"{image}\": {why}"))
    }

    async fn pull_parsed(&self, image: &ImageRef) -> Result<Pulled, String> {
        if !image.registry().is_loopback() {
            return Err(format!(
                "failed to do request: {} is not reachable: the lab's nodes reach registries on loopback only",
                image.registry()
            ));
        }
        let mut session = Session {
            puller: self,
            client: self.client()?,
            image,
            authorization: None,
        };
        let unresolved = |why| format!("failed to resolve reference \"{image}\": {why}");
        if let Some(basic) = self
            .credentials
            .basic(&session.client, image.registry().as_str(), self.clock.now())
            .await
            .map_err(unresolved)?
        {
            session.authorization = Some(format!("Basic {}", basic.expose()));
        }
        let top = session
            .document("manifests", image.reference())
            .await
            .map_err(unresolved)?;
        let resolved = Digest::sha256_of(&top);
        if let Some(pinned) = image.digest()
            && *pinned != resolved
        {
            return Err(format!("the registry answered {resolved} for {pinned}"));
        }
        let (manifest, document) = match read(&top)? {
            index if index.get("manifests").is_some() => {
                let child = platform_manifest(&index)?;
                let bytes = session.document("manifests", child.as_str()).await?;
                if !child.matches(&bytes) {
                    return Err(format!("manifest {child} arrived with other bytes"));
                }
                (child, read(&bytes)?)
            }
            manifest => (resolved.clone(), manifest),
        };
        let config = descriptor(document.get("config"), "config")?;
        let bytes = session.document("blobs", config.as_str()).await?;
        if !config.matches(&bytes) {
            return Err(format!(
                "failed to copy: config {config} arrived with other bytes"
            ));
        }
        let configuration = read(&bytes)?;
        let part = |name| {
            configuration
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let platform = format!("{}/{}", part("os"), part("architecture"));
        let mut blobs = vec![config];
        for layer in document
            .get("layers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let layer = descriptor(Some(layer), "layer")?;
            session.layer(&layer).await?;
            blobs.push(layer);
        }
        Ok(Pulled {
            resolved,
            manifest,
            blobs,
            platform,
        })
    }

    /// The client is made at the first pull, since making one is the slowest part of starting.
    fn client(&self) -> Result<reqwest::Client, String> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        // Everything it talks to is plain HTTP on loopback: no proxy, and no certificates to load.
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .user_agent("containerd/2.0.5")
            .build()
            .map_err(|error| format!("failed to make an HTTP client: {error}"))?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

impl Session<'_> {
    /// A manifest or a configuration, whole.
    async fn document(&mut self, kind: &str, reference: &str) -> Result<Vec<u8>, String> {
        let answer = self.get(kind, reference).await?;
        let mut bytes = Vec::new();
        let mut stream = answer.bytes_stream();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| format!("failed to copy: {}", why(&error)))?);
            if bytes.len() > LARGEST_DOCUMENT {
                return Err(format!("{reference} is larger than {LARGEST_DOCUMENT} bytes"));
            }
        }
        Ok(bytes)
    }

    /// A layer, hashed as it arrives.
    async fn layer(&mut self, digest: &Digest) -> Result<(), String> {
        let mut hasher = digest
            .hasher()
            .ok_or_else(|| format!("layer {digest}: unsupported digest algorithm"))?;
        let mut stream = self.get("blobs", digest.as_str()).await?.bytes_stream();
        while let Some(chunk) = stream.next().await {
            hasher.update(&chunk.map_err(|error| format!("failed to copy: {}", why(&error)))?);
        }
        let arrived = hasher.finish();
        if arrived == *digest {
            Ok(())
        } else {
            Err(format!(
                "failed commit on ref \"layer-{digest}\": unexpected commit digest {arrived}, expected {digest}"
            ))
        }
    }

    async fn get(&mut self, kind: &str, reference: &str) -> Result<Response, String> {
        let url = format!(
            "http://{}/v2/{}/{kind}/{reference}",
            self.image.registry(),
            self.image.repository()
        );
        for attempt in 0..2 {
            let mut request = self.client.get(&url).header(ACCEPT, ACCEPTED);
            if let Some(authorization) = &self.authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let answer = request
                .send()
                .await
                .map_err(|error| format!("failed to do request: {}", why(&error)))?;
            match answer.status() {
                StatusCode::OK => return Ok(answer),
                StatusCode::NOT_FOUND => return Err(format!("{}: not found", self.image)),
                StatusCode::UNAUTHORIZED if attempt == 0 => self.authorize(&answer).await?,
                status => return Err(refused(status, answer).await),
            }
        }
        Err("pull access denied, repository does not exist or may require authorization".into())
    }

    /// Answers a challenge: a fresh ECR token where the host has one, else a Bearer token from the realm.
    async fn authorize(&mut self, answer: &Response) -> Result<(), String> {
        let host = self.image.registry();
        let credentials = &self.puller.credentials;
        credentials.forget(host.as_str());
        let now = self.puller.clock.now();
        if let Some(basic) = credentials.basic(&self.client, host.as_str(), now).await? {
            self.authorization = Some(format!("Basic {}", basic.expose()));
            return Ok(());
        }
        let challenge = answer
            .headers()
            .get(WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or("unexpected status: 401 Unauthorized")?;
        let part = |name: &str| parameter(challenge, name);
        let realm = part("realm").ok_or("the challenge names no realm")?;
        let mut realm = url::Url::parse(&realm).map_err(|error| format!("the realm is no URL: {error}"))?;
        let port = realm.port().map_or_else(String::new, |port| format!(":{port}"));
        let on_loopback = format!("{}{port}", realm.host_str().unwrap_or_default())
            .parse::<RegistryHost>()
            .is_ok_and(|host| host.is_loopback());
        if !on_loopback {
            return Err("failed to fetch anonymous token: the realm is not on loopback".into());
        }
        let scope = part("scope").unwrap_or_else(|| format!("repository:{}:pull", self.image.repository()));
        realm
            .query_pairs_mut()
            .extend_pairs(part("service").map(|service| ("service", service)))
            .append_pair("scope", &scope);
        let failed = |why: String| format!("failed to fetch anonymous token: {why}");
        let answer = self
            .client
            .get(realm)
            .send()
            .await
            .map_err(|error| failed(why(&error)))?;
        if !answer.status().is_success() {
            return Err(failed(format!("unexpected status: {}", answer.status())));
        }
        let body: Value = answer.json().await.map_err(|error| failed(why(&error)))?;
        let token = ["token", "access_token"]
            .iter()
            .find_map(|name| body.get(*name)?.as_str())
            .ok_or_else(|| failed("the answer carries no token".into()))?;
        self.authorization = Some(format!("Bearer {token}"));
        Ok(())
    }
}

async fn refused(status: StatusCode, answer: Response) -> String {
    let said = match answer.text().await {
        Ok(text) => text.chars().take(300).collect(),
        Err(error) => why(&error),
    };
    format!("unexpected status: {status}: {said}")
}

/// An error and its causes, in one line: reqwest's own text leaves the cause out.
fn why(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn read(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("not a JSON document: {error}"))
}

fn descriptor(descriptor: Option<&Value>, what: &str) -> Result<Digest, String> {
    descriptor
        .and_then(|descriptor| descriptor.get("digest"))
        .and_then(Value::as_str)
        .ok_or_else(|| format!("the manifest has no digest for its {what}"))?
        .parse()
        .map_err(|error| format!("{what}: {error}"))
}

fn platform_manifest(index: &Value) -> Result<Digest, String> {
    let manifests = index.get("manifests").and_then(Value::as_array);
    let child = manifests.into_iter().flatten().find(|child| {
        let part = |name| {
            child
                .pointer(&format!("/platform/{name}"))
                .and_then(Value::as_str)
        };
        part("os") == Some(NODE_OS) && part("architecture") == Some(NODE_ARCHITECTURE)
    });
    match child {
        Some(child) => descriptor(Some(child), "platform manifest"),
        None => Err("no match for platform in manifest: not found".into()),
    }
}

/// One parameter of a challenge, by RFC 9110 section 11.2: `name=value` or `name="value"`.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([',', ' ']);
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = left;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge = "realm=\"http://127.0.0.1:1/t?x=1\",service=reg, scope=\"repository:a/b:pull,push\"";
        assert_eq!(parameter(challenge, "realm").unwrap(), "http://127.0.0.1:1/t?x=1");
        assert_eq!(parameter(challenge, "service").unwrap(), "reg");
        assert_eq!(parameter(challenge, "scope").unwrap(), "repository:a/b:pull,push");
        assert_eq!(parameter(challenge, "none"), None);
        assert_eq!(parameter("", "realm"), None);
    }
}
