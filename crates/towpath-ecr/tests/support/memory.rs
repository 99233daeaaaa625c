//! A registry in memory, as the specification has it and no more: repositories, uploads in parts, ranges, mounting,
//! and, where wanted, the referrers API. It notes what it is asked, and can break an upload.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use crate::serve::reply;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use towpath_ecr::oci::{Blob, Manifest, media};
use towpath_ecr::{Digest, ImageRef};

#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// `repository digest` to bytes.
    blobs: HashMap<String, Bytes>,
    /// `repository reference` to media type and bytes.
    manifests: BTreeMap<String, (String, Bytes)>,
    sessions: HashMap<String, Vec<u8>>,
    /// Method and path of every request.
    asked: Vec<String>,
    /// The `Range` of every download that had one.
    ranges: Vec<String>,
    /// Bytes of uploads, whether they were kept or not.
    received: usize,
    /// After how many bytes the next upload breaks.
    cut: Option<usize>,
    mounts: bool,
    has_referrers: bool,
}

impl Memory {
    pub async fn start(mounts: bool, has_referrers: bool) -> (Self, SocketAddr) {
        let memory = Self::default();
        {
            let mut inner = memory.0.lock().unwrap();
            inner.mounts = mounts;
            inner.has_referrers = has_referrers;
        }
        let app = Router::new().fallback(answer).with_state(memory.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        (memory, address)
    }

    pub fn cut_next_upload_after(&self, bytes: usize) {
        self.0.lock().unwrap().cut = Some(bytes);
    }

    /// What was asked since the last look.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    pub fn ranges(&self) -> Vec<String> {
        self.0.lock().unwrap().ranges.clone()
    }

    pub fn received(&self) -> usize {
        self.0.lock().unwrap().received
    }

    pub fn put_blob(&self, repository: &str, blob: &[u8]) {
        let key = format!("{repository} {}", Digest::sha256_of(blob));
        let mut inner = self.0.lock().unwrap();
        inner.blobs.insert(key, Bytes::copy_from_slice(blob));
    }

    /// Stores a manifest under any name, whatever it says.
    pub fn put_manifest(&self, repository: &str, name: &str, media_type: &str, text: &str) {
        let mut inner = self.0.lock().unwrap();
        let entry = (media_type.to_owned(), Bytes::copy_from_slice(text.as_bytes()));
        inner.manifests.insert(format!("{repository} {name}"), entry);
    }

    pub fn manifest(&self, repository: &str, name: &str) -> Option<Bytes> {
        let inner = self.0.lock().unwrap();
        let found = inner.manifests.get(&format!("{repository} {name}"));
        found.map(|(_, bytes)| bytes.clone())
    }

    /// Stores an image of these layers; its manifest.
    pub fn seed(&self, repository: &str, architecture: &str, layers: &[Vec<u8>]) -> Manifest {
        let config = serde_json::json!({ "os": "linux", "architecture": architecture }).to_string();
        self.put_blob(repository, config.as_bytes());
        for layer in layers {
            self.put_blob(repository, layer);
        }
        let describe = |kind: &str, bytes: &[u8]| {
            let media_type = format!("application/vnd.oci.image.{kind}");
            serde_json::json!({ "mediaType": media_type, "digest": Digest::sha256_of(bytes), "size": bytes.len() })
        };
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| describe("layer.v1.tar", layer))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
            "config": describe("config.v1+json", config.as_bytes()), "layers": layers,
        });
        self.keep(repository, media::OCI_MANIFEST, &manifest)
    }

    /// Stores an index of these manifests.
    pub fn seed_index(&self, repository: &str, parts: &[(&str, &Manifest)]) -> Manifest {
        let parts: Vec<_> = parts
            .iter()
            .map(|(architecture, part)| {
                serde_json::json!({
                    "mediaType": part.media_type, "digest": part.digest, "size": part.bytes.len(),
                    "platform": { "os": "linux", "architecture": architecture },
                })
            })
            .collect();
        let index =
            serde_json::json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": parts });
        self.keep(repository, media::OCI_INDEX, &index)
    }

    /// Stores an artifact that refers to a manifest.
    pub fn seed_referrer(&self, repository: &str, subject: &Manifest) -> Manifest {
        let empty = Blob::from_bytes("{}");
        self.put_blob(repository, b"{}");
        let descriptor = serde_json::json!({
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty.digest, "size": empty.size,
        });
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "artifactType": "application/vnd.example.sbom",
            "config": descriptor, "layers": [descriptor],
            "subject": {
                "mediaType": subject.media_type, "digest": subject.digest, "size": subject.bytes.len(),
            },
        });
        self.keep(repository, media::OCI_MANIFEST, &manifest)
    }

    fn keep(&self, repository: &str, media_type: &str, manifest: &serde_json::Value) -> Manifest {
        let manifest = Manifest::read(media_type, manifest.to_string().into()).unwrap();
        let text = std::str::from_utf8(&manifest.bytes).unwrap();
        self.put_manifest(repository, manifest.digest.as_str(), media_type, text);
        manifest
    }
}

pub fn image(address: SocketAddr, repository: &str) -> ImageRef {
    format!("{address}/{repository}").parse().unwrap()
}

async fn answer(State(memory): State<Memory>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query = head
        .uri
        .query()
        .unwrap_or_default()
        .replace("%3A", ":")
        .replace("%2F", "/");
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let header = |name: &str| {
        head.headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let cut = {
        let mut inner = memory.0.lock().unwrap();
        inner.asked.push(format!("{} {path}", head.method));
        match path.contains("/uploads/") && header("content-length").is_some_and(|length| length != "0") {
            true => inner.cut.take(),
            false => None,
        }
    };
    let mut received = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(Ok(piece)) = pieces.next().await {
        received.extend_from_slice(&piece);
        if cut.is_some_and(|cut| received.len() >= cut) {
            break;
        }
    }
    let mut inner = memory.0.lock().unwrap();
    let (repository, kind, last) = split(&path);
    let method = head.method.as_str();
    if kind == "uploads" {
        inner.received += received.len();
        return match method {
            "POST" => {
                if let (true, Some(digest), Some(from)) =
                    (inner.mounts, parameter("mount"), parameter("from"))
                    && let Some(blob) = inner.blobs.get(&format!("{from} {digest}")).cloned()
                {
                    inner.blobs.insert(format!("{repository} {digest}"), blob);
                    return reply(201, &[], "");
                }
                let session = format!("s{}", inner.asked.len());
                inner.sessions.insert(session.clone(), Vec::new());
                reply(202, &[("location", &format!("{path}{session}"))], "")
            }
            "GET" => match inner.sessions.get(&last) {
                Some(session) if session.is_empty() => reply(204, &[("range", "0-0")], ""),
                Some(session) => reply(204, &[("range", &format!("0-{}", session.len() - 1))], ""),
                None => reply(404, &[], ""),
            },
            _ => {
                let Some(session) = inner.sessions.get_mut(&last) else {
                    return reply(404, &[], "");
                };
                let from =
                    header("content-range").map(|range| range.split('-').next().unwrap().parse::<usize>());
                if from.is_some_and(|from| from.unwrap() != session.len()) {
                    return reply(416, &[], "");
                }
                session.extend_from_slice(&received);
                if cut.is_some() {
                    return reply(502, &[], "");
                }
                let Some(digest) = parameter("digest") else {
                    return reply(202, &[("location", &path)], "");
                };
                let bytes = inner.sessions.remove(&last).unwrap();
                if Digest::sha256_of(&bytes).as_str() != digest {
                    return reply(400, &[], r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
                }
                inner.blobs.insert(format!("{repository} {digest}"), bytes.into());
                reply(201, &[], "")
            }
        };
    }
    let key = format!("{repository} {last}");
    match (kind.as_str(), method) {
        ("manifests", "PUT") => {
            let digest = Digest::sha256_of(&received);
            let entry = (header("content-type").unwrap(), Bytes::from(received));
            inner
                .manifests
                .insert(format!("{repository} {digest}"), entry.clone());
            inner.manifests.insert(key, entry);
            reply(201, &[], "")
        }
        ("manifests", _) => match inner.manifests.get(&key) {
            Some((media_type, bytes)) => {
                let digest = Digest::sha256_of(bytes).to_string();
                let headers = [
                    ("content-type", media_type.as_str()),
                    ("docker-content-digest", &digest),
                ];
                reply(200, &headers, bytes.clone())
            }
            None => reply(404, &[], ""),
        },
        ("blobs", _) => {
            let Some(bytes) = inner.blobs.get(&key).cloned() else {
                return reply(404, &[], "");
            };
            let Some(range) = header("range") else {
                return reply(200, &[], bytes);
            };
            inner.ranges.push(range.clone());
            let from: usize = range
                .trim_start_matches("bytes=")
                .trim_end_matches('-')
                .parse()
                .unwrap();
            reply(206, &[], bytes.slice(from..))
        }
        ("referrers", _) if inner.has_referrers => {
            let prefix = format!("{repository} sha256:");
            let listed: Vec<_> = inner
                .manifests
                .iter()
                .filter(|(key, _)| key.starts_with(&prefix))
                .filter_map(|(_, (media_type, bytes))| {
                    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
                    (value.pointer("/subject/digest")? == last.as_str()).then(|| {
                        serde_json::json!({
                            "mediaType": media_type, "digest": Digest::sha256_of(bytes), "size": bytes.len(),
                        })
                    })
                })
                .collect();
            let index =
                serde_json::json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": listed });
            reply(200, &[("content-type", media::OCI_INDEX)], index.to_string())
        }
        _ => reply(404, &[], ""),
    }
}

/// `/v2/REPOSITORY/KIND/LAST` as its parts; uploads are a kind of their own.
fn split(path: &str) -> (String, String, String) {
    let path = path
        .trim_start_matches("/v2/")
        .replace("/blobs/uploads/", "/uploads/");
    let mut parts = path.rsplitn(3, '/');
    let (last, kind) = (
        parts.next().unwrap().to_owned(),
        parts.next().unwrap_or_default().to_owned(),
    );
    (parts.next().unwrap_or_default().to_owned(), kind, last)
}
