//! Attaching and listing what refers to an image: in the lab, which lists referrers itself, and in a small registry of
//! this file, which does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use support::{World, image};
use towpath_core::requests;
use towpath_ecr::oci::{
    Anonymous, Artifact, Blob, CopyOptions, Descriptor, Manifest, OciClient, copy, media,
};
use towpath_ecr::{Digest, ErrorKind, ImageRef};

const SBOM: &str = "application/spdx+json";
const SIGNATURE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn sbom() -> Artifact {
    Artifact::new(SBOM)
        .part(SBOM, Blob::from_bytes(r#"{"spdxVersion":"SPDX-2.3"}"#))
        .annotation("org.opencontainers.image.created", "2026-01-02T03:04:05Z")
}

fn signature() -> Artifact {
    Artifact::new(SIGNATURE).part(SIGNATURE, Blob::from_bytes("{\"signed\":true}"))
}

fn digests(list: &[Descriptor]) -> BTreeSet<String> {
    list.iter().map(|entry| entry.digest().to_string()).collect()
}

#[tokio::test]
async fn an_attached_artifact_is_listed_once_by_its_type() {
    let world = World::with_rule().await;
    let image = world.assembled("shop/web", "1").await;
    let oci = world.ecr.oci();
    let attached = oci.attach(&image, &sbom()).await.unwrap();
    oci.attach(&image, &signature()).await.unwrap();
    let subject = image.digest().unwrap();
    assert_eq!(oci.referrers(&image, subject).await.unwrap().len(), 2);
    let listed = oci.referrers_of_type(&image, subject, SBOM).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&attached.descriptor));
    let nothing = oci.referrers_of_type(&image, subject, "application/none").await;
    assert!(nothing.unwrap().is_empty());

    let before = world.lab.registry_requests().len();
    let (again, count) = requests::count(oci.attach(&image, &sbom())).await;
    assert_eq!(again.unwrap().manifest.digest, attached.manifest.digest);
    assert_eq!(count, 3, "the subject, the artifact, the list");
    let log = world.lab.registry_requests().all();
    assert!(
        log[before..]
            .iter()
            .all(|request| matches!(request.method.as_str(), "GET" | "HEAD"))
    );

    let stored = world
        .lab
        .image("shop/web", attached.manifest.digest.as_str())
        .unwrap();
    let stored: Value = serde_json::from_slice(&stored.manifest).unwrap();
    assert_eq!(stored["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    assert_eq!(stored["artifactType"], SBOM);
    assert_eq!(stored["subject"]["digest"], subject.as_str());
}

#[tokio::test]
async fn what_cannot_be_attached_says_why() {
    let world = World::with_rule().await;
    let image = world.assembled("shop/web", "1").await;
    let oci = world.ecr.oci();
    let tagged = image.tagged("1".parse().unwrap());
    let error = oci.attach(&tagged, &sbom()).await.unwrap_err();
    assert!(error.to_string().contains("not given by digest"), "{error}");
    let error = oci.attach(&image, &Artifact::new("sbom")).await.unwrap_err();
    assert!(error.to_string().contains("\"sbom\" is no media type"), "{error}");
    let nothing = image.at(Digest::sha256_of("nothing"));
    assert!(oci.attach(&nothing, &sbom()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn without_the_api_the_list_is_kept_in_a_tag() {
    let registry = Registry::start().await;
    let (oci, image) = registry.client_and_image();
    let subject = image.digest().unwrap();
    // A list that another client has begun, with words that this one does not know.
    let foreign = json!({
        "mediaType": media::OCI_MANIFEST, "digest": Digest::sha256_of("theirs"), "size": 9, "artifactType": "a/b",
        "x-unknown": {"kept": [1.0]},
    });
    registry.set_list(
        subject,
        json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [foreign], "x-own": true}),
    );
    let attached = oci.attach(&image, &sbom()).await.unwrap();
    let list = registry.list(subject);
    assert_eq!((&list["manifests"][0], &list["x-own"]), (&foreign, &json!(true)));
    assert_eq!(
        list["manifests"][1],
        json!({
            "mediaType": media::OCI_MANIFEST, "digest": attached.manifest.digest, "artifactType": SBOM,
            "size": attached.manifest.bytes.len(),
            "annotations": {"org.opencontainers.image.created": "2026-01-02T03:04:05Z"},
        })
    );
    let listed = oci.referrers_of_type(&image, subject, SBOM).await.unwrap();
    assert_eq!(listed, [attached.descriptor]);

    let writes = registry.writes();
    oci.attach(&image, &sbom()).await.unwrap();
    assert_eq!(registry.writes(), writes);
}

#[tokio::test]
async fn an_entry_that_others_add_in_between_is_kept_where_the_registry_has_etags() {
    let registry = Registry::start().await;
    registry.state().etags = true;
    let (oci, image) = registry.client_and_image();
    let subject = image.digest().unwrap().clone();
    registry.state().meddle_before = Some(Box::new(add_theirs));
    let attached = oci.attach(&image, &sbom()).await.unwrap();
    let listed = digests(&oci.referrers(&image, &subject).await.unwrap());
    let theirs = Digest::sha256_of("theirs").to_string();
    assert_eq!(
        listed,
        BTreeSet::from([theirs, attached.manifest.digest.to_string()])
    );
    assert_eq!(registry.state().refused_conditions, 1);
}

#[tokio::test]
async fn an_entry_that_others_write_over_is_written_again() {
    let registry = Registry::start().await;
    let (oci, image) = registry.client_and_image();
    let subject = image.digest().unwrap().clone();
    // Another client read the list before this one wrote, and writes its own after.
    registry.state().meddle_after = Some(Box::new(|state, name| {
        state.tags.remove(name);
        add_theirs(state, name);
    }));
    let attached = oci.attach(&image, &sbom()).await.unwrap();
    let listed = digests(&oci.referrers(&image, &subject).await.unwrap());
    let theirs = Digest::sha256_of("theirs").to_string();
    assert_eq!(
        listed,
        BTreeSet::from([theirs, attached.manifest.digest.to_string()])
    );
}

#[tokio::test]
async fn many_artifacts_at_once_are_all_listed() {
    let registry = Registry::start().await;
    let (oci, image) = registry.client_and_image();
    let all = (0..20).map(|number| {
        let (oci, image) = (oci.clone(), image.clone());
        async move {
            oci.attach(&image, &signature().annotation("number", number.to_string()))
                .await
                .unwrap()
        }
    });
    futures_util::future::join_all(all).await;
    let listed = oci.referrers(&image, image.digest().unwrap()).await.unwrap();
    assert_eq!(digests(&listed).len(), 20);
}

#[tokio::test]
async fn a_tag_that_holds_something_else_is_not_written_over() {
    let registry = Registry::start().await;
    let (oci, image) = registry.client_and_image();
    let subject = image.digest().unwrap();
    let mine = oci.manifest(&image).await.unwrap().unwrap();
    let tag: towpath_ecr::Tag = subject.as_str().replace(':', "-").parse().unwrap();
    oci.put_tag(&image, &tag, &mine).await.unwrap();
    let error = oci.attach(&image, &sbom()).await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("no list of referrers"),
        "{error}"
    );
    let named = oci.manifest_digest(&image.tagged(tag)).await.unwrap();
    assert_eq!(named.as_ref(), Some(subject));
}

#[tokio::test]
async fn a_registry_that_dislikes_artifact_types_can_be_given_the_older_form() {
    let registry = Registry::start().await;
    registry.state().dislikes = true;
    let (oci, image) = registry.client_and_image();
    let error = oci.attach(&image, &sbom()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("Invalid parameter at 'ImageManifest'"), "{text}");
    assert!(error.advice().unwrap().contains("as_config_type"), "{text}");

    let mut artifact = sbom();
    artifact.as_config_type = true;
    let attached = oci.attach(&image, &artifact).await.unwrap();
    let manifest: Value = serde_json::from_slice(&attached.manifest.bytes).unwrap();
    assert_eq!(
        (&manifest["config"]["mediaType"], &manifest["artifactType"]),
        (&json!(SBOM), &Value::Null)
    );
    let listed = oci
        .referrers_of_type(&image, image.digest().unwrap(), SBOM)
        .await
        .unwrap();
    assert_eq!(listed.len(), 1);
    let writes = registry.writes();
    oci.attach(&image, &artifact).await.unwrap();
    assert_eq!(registry.writes(), writes);
}

#[tokio::test]
async fn a_filter_that_the_registry_ignores_is_applied_here() {
    let registry = Registry::start().await;
    let (oci, image) = registry.client_and_image();
    let subject = image.digest().unwrap();
    let entry = |name: &str, kind: Value| json!({"mediaType": media::OCI_MANIFEST, "digest": Digest::sha256_of(name), "size": 1, "artifactType": kind});
    let index = json!({"schemaVersion": 2, "manifests": [entry("a", json!(SBOM)), entry("b", json!("a/b"))]});
    registry.state().api = Some((index, false));
    let listed = oci.referrers_of_type(&image, subject, SBOM).await.unwrap();
    assert_eq!(
        digests(&listed),
        BTreeSet::from([Digest::sha256_of("a").to_string()])
    );
    // A registry that says it has filtered knows more than its entries say.
    let index = json!({"schemaVersion": 2, "manifests": [entry("c", Value::Null)]});
    registry.state().api = Some((index, true));
    assert_eq!(
        oci.referrers_of_type(&image, subject, SBOM).await.unwrap().len(),
        1
    );
    registry.state().api = Some((json!({"schemaVersion": 2, "manifests": null}), false));
    assert!(oci.referrers(&image, subject).await.unwrap().is_empty());
    registry.state().api = Some((json!({"error": "not today"}), false));
    let error = oci.referrers(&image, subject).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn what_cosign_tagged_comes_along_where_it_is_wanted() {
    let (from, to) = (Registry::start().await, Registry::start().await);
    let (oci, image) = from.client_and_image();
    let subject = image.digest().unwrap();
    let blob = Blob::from_bytes("a signature");
    let config = Blob::from_bytes("{}");
    oci.push_blobs(&image, vec![blob.clone(), config.clone()])
        .await
        .unwrap();
    let signed = manifest_of(&config, &blob, "application/vnd.dev.cosign.simplesigning.v1+json");
    let tag: towpath_ecr::Tag = format!("{}.sig", subject.as_str().replace(':', "-"))
        .parse()
        .unwrap();
    oci.put_tag(&image, &tag, &signed).await.unwrap();

    let (source, sink) = (oci.repository(&image), oci.repository(&to.image("shop/web")));
    let mut options = CopyOptions::default();
    let name = "1".parse().unwrap();
    copy(&source, &subject.clone().into(), &sink, Some(&name), &options)
        .await
        .unwrap();
    assert_eq!(to.state().tags.keys().collect::<Vec<_>>(), ["1"]);
    options.cosign = true;
    let copied = copy(&source, &subject.clone().into(), &sink, Some(&name), &options)
        .await
        .unwrap();
    assert_eq!(
        (copied.manifests, copied.manifest.digest.clone()),
        (1, subject.clone())
    );
    assert_eq!(
        to.state().tags.get(tag.as_str()),
        Some(&signed.digest.to_string())
    );
    let writes = to.writes();
    let copied = copy(&source, &subject.clone().into(), &sink, Some(&name), &options)
        .await
        .unwrap();
    assert_eq!((copied.manifests, copied.sent, to.writes()), (0, 0, writes));
}

fn manifest_of(config: &Blob, layer: &Blob, media_type: &str) -> Manifest {
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.size,
        },
        "layers": [{"mediaType": media_type, "digest": layer.digest, "size": layer.size}],
    });
    Manifest::read(media::OCI_MANIFEST, manifest.to_string().into()).unwrap()
}

/// Adds an entry to the list that a tag holds, as another client would.
fn add_theirs(state: &mut State, tag: &str) {
    let digest = state.tags.get(tag).cloned();
    let mut index = match digest.and_then(|digest| state.manifests.get(&digest).cloned()) {
        Some((_, bytes)) => serde_json::from_slice(&bytes).unwrap(),
        None => json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": []}),
    };
    let entry = json!({"mediaType": media::OCI_MANIFEST, "digest": Digest::sha256_of("theirs"), "size": 9});
    index["manifests"].as_array_mut().unwrap().push(entry);
    state.store(tag, media::OCI_INDEX, index.to_string().into());
}

type Meddle = Box<dyn FnOnce(&mut State, &str) + Send>;

/// What the small registry holds, and how it is to behave.
#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Bytes>,
    manifests: BTreeMap<String, (String, Bytes)>,
    tags: BTreeMap<String, String>,
    writes: usize,
    /// Whether it knows conditional requests.
    etags: bool,
    refused_conditions: usize,
    /// Whether it refuses `artifactType`, as ECR is known to.
    dislikes: bool,
    /// What its API lists, and whether it says that it has filtered; `None` for no API.
    api: Option<(Value, bool)>,
    /// What somebody else does just before, and just after, a list is written.
    meddle_before: Option<Meddle>,
    meddle_after: Option<Meddle>,
}

impl State {
    fn store(&mut self, reference: &str, media_type: &str, bytes: Bytes) {
        let digest = Digest::sha256_of(&bytes).to_string();
        self.manifests
            .insert(digest.clone(), (media_type.to_owned(), bytes));
        if !reference.contains(':') {
            self.tags.insert(reference.to_owned(), digest);
        }
    }

    fn digest(&self, reference: &str) -> Option<String> {
        match reference.contains(':') {
            true => self
                .manifests
                .contains_key(reference)
                .then(|| reference.to_owned()),
            false => self.tags.get(reference).cloned(),
        }
    }

    fn answer(&mut self, method: &Method, path: &str, headers: &HeaderMap, body: Bytes) -> Response {
        let status = |status: u16| Response::builder().status(status);
        if !matches!(*method, Method::GET | Method::HEAD) {
            self.writes += 1;
        }
        let (kind, reference) = {
            let mut parts = path.rsplit('/');
            let reference = parts.next().unwrap();
            (parts.next().unwrap(), reference)
        };
        match (method.as_str(), kind) {
            ("GET" | "HEAD", "manifests") => {
                let Some(digest) = self.digest(reference) else {
                    return status(404).body(Body::empty()).unwrap();
                };
                let (media_type, bytes) = &self.manifests[&digest];
                let mut reply = status(200)
                    .header("content-type", media_type)
                    .header("docker-content-digest", &digest);
                if self.etags {
                    reply = reply.header("etag", format!("\"{digest}\""));
                }
                reply.body(Body::from(bytes.clone())).unwrap()
            }
            ("PUT", "manifests") => self.put(reference, headers, body),
            ("GET" | "HEAD", "blobs") => match self.blobs.get(reference) {
                Some(bytes) => status(200).body(Body::from(bytes.clone())).unwrap(),
                None => status(404).body(Body::empty()).unwrap(),
            },
            ("POST", _) => status(202)
                .header("location", "/v2/upload/1")
                .body(Body::empty())
                .unwrap(),
            ("PUT", "upload") => {
                self.blobs.insert(Digest::sha256_of(&body).to_string(), body);
                status(201).body(Body::empty()).unwrap()
            }
            ("GET", "referrers") => match &self.api {
                None => status(404).body(Body::empty()).unwrap(),
                Some((index, filtered)) => {
                    let mut reply = status(200);
                    if *filtered {
                        reply = reply.header("oci-filters-applied", "artifactType");
                    }
                    reply.body(Body::from(index.to_string())).unwrap()
                }
            },
            _ => panic!("{method} {path}"),
        }
    }

    fn put(&mut self, reference: &str, headers: &HeaderMap, body: Bytes) -> Response {
        let status = |status: u16| Response::builder().status(status);
        let is_list = reference.starts_with("sha256-") && !reference.ends_with(".sig");
        if is_list && let Some(meddle) = self.meddle_before.take() {
            meddle(self, reference);
        }
        let now = self.digest(reference).map(|digest| format!("\"{digest}\""));
        let asked = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let differs = asked("if-match").is_some_and(|wanted| Some(wanted) != now);
        let is_there = asked("if-none-match").is_some() && now.is_some();
        if self.etags && (differs || is_there) {
            self.refused_conditions += 1;
            return status(412).body(Body::empty()).unwrap();
        }
        let content: Value = serde_json::from_slice(&body).unwrap();
        if self.dislikes && content.get("artifactType").is_some() {
            let text = r#"{"errors":[{"code":"UNSUPPORTED","message":"Invalid parameter at 'ImageManifest' failed to satisfy constraint"}]}"#;
            return status(405).body(Body::from(text)).unwrap();
        }
        let media_type = headers["content-type"].to_str().unwrap().to_owned();
        self.store(reference, &media_type, body);
        if is_list && let Some(meddle) = self.meddle_after.take() {
            meddle(self, reference);
        }
        status(201).body(Body::empty()).unwrap()
    }
}

/// A registry without the referrers API, with one repository.
struct Registry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Registry {
    async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let app = Router::new().fallback(move |request: axum::extract::Request| {
            let shared = Arc::clone(&shared);
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                shared
                    .lock()
                    .unwrap()
                    .answer(&head.method, head.uri.path(), &head.headers, body)
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, state }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn writes(&self) -> usize {
        self.state().writes
    }

    fn image(&self, repository: &str) -> ImageRef {
        image(&format!("{}/{repository}", self.address))
    }

    /// A client, and an image that is there.
    fn client_and_image(&self) -> (OciClient, ImageRef) {
        let (config, layer) = (Blob::from_bytes("{\"rootfs\":{}}"), Blob::from_bytes("a layer"));
        let manifest = manifest_of(&config, &layer, "application/vnd.oci.image.layer.v1.tar");
        let mut state = self.state();
        state.store(
            manifest.digest.as_str(),
            &manifest.media_type,
            manifest.bytes.clone(),
        );
        state.blobs.insert(layer.digest.to_string(), "a layer".into());
        state
            .blobs
            .insert(config.digest.to_string(), "{\"rootfs\":{}}".into());
        let oci = OciClient::new("the registry", Arc::new(Anonymous), support::fast()).unwrap();
        (oci, self.image("shop/web").at(manifest.digest))
    }

    fn tag(subject: &Digest) -> String {
        subject.as_str().replace(':', "-")
    }

    fn set_list(&self, subject: &Digest, index: Value) {
        self.state()
            .store(&Self::tag(subject), media::OCI_INDEX, index.to_string().into());
    }

    fn list(&self, subject: &Digest) -> Value {
        let state = self.state();
        let digest = &state.tags[&Self::tag(subject)];
        serde_json::from_slice(&state.manifests[digest].1).unwrap()
    }
}
