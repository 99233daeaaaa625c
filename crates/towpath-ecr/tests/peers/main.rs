//! The client against registries that somebody else wrote. `tests/peers/run` starts them and says where they are; by
//! itself `cargo test` leaves this out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod docker_registry;
mod relay;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_registry::DockerRegistry;
use relay::{Cut, Relay};
use std::path::Path;
use std::sync::Arc;
use towpath_core::{ImageRef, RegistryHost, Secret};
use towpath_ecr::oci::{
    Anonymous, Blob, BlobSource, ImageSink, Manifest, OciClient, OciSettings, Pushed, RegistryCredentials,
    media,
};
use towpath_ecr::registry::{Assembly, Layer};
use towpath_ecr::{Ecr, EcrConfig, ErrorKind, Registry, Result};
use url::Url;

/// A password for one registry, none for the others.
#[derive(Debug)]
struct Password {
    registry: RegistryHost,
    pair: String,
}

#[async_trait]
impl RegistryCredentials for Password {
    async fn basic(&self, registry: &RegistryHost, _refused: Option<&Secret>) -> Result<Option<Secret>> {
        Ok((*registry == self.registry).then(|| Secret::new(STANDARD.encode(&self.pair))))
    }
}

fn from_environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run tests/peers/run"))
}

fn image(registry: &str, rest: &str) -> ImageRef {
    format!("{registry}/{rest}").parse().unwrap()
}

fn client(registry: &str, password: &str) -> OciClient {
    let credentials = Password {
        registry: image(registry, "any").registry().clone(),
        pair: format!("peer:{password}"),
    };
    OciClient::new("the registry", Arc::new(credentials), OciSettings::default()).unwrap()
}

/// An image whose two layers are no archives: a registry does not look into them.
fn manifest_of(config: &Blob, layers: &[Blob]) -> Manifest {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.digest, "size": layer.size,
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.size,
        },
        "layers": layers,
    });
    Manifest::read(media::OCI_MANIFEST, manifest.to_string().into()).unwrap()
}

#[tokio::test]
#[ignore = "needs the registries that tests/peers/run starts"]
async fn docker_registry_takes_serves_and_copies_images() {
    let open = from_environment("TOWPATH_PEER_REGISTRY_OPEN");
    let closed = from_environment("TOWPATH_PEER_REGISTRY_CLOSED");
    let oci = client(&closed, &from_environment("TOWPATH_PEER_REGISTRY_PASSWORD"));
    let target = image(&open, "towpath/app");
    let tag = "1".parse().unwrap();

    // Push: one layer from memory, one of several megabytes from a file, and nothing twice.
    let folder = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..6_000_000_u32).flat_map(u32::to_le_bytes).step_by(3).collect();
    let path = folder.path().join("layer");
    std::fs::write(&path, &large).unwrap();
    let small = Blob::from_bytes("a layer");
    let large = Blob {
        source: BlobSource::File(path),
        ..Blob::from_bytes(large)
    };
    let config = Blob::from_bytes(
        serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [small.digest, large.digest] },
        })
        .to_string(),
    );
    assert_eq!(
        oci.manifest_digest(&target.tagged("1".parse().unwrap()))
            .await
            .unwrap(),
        None
    );
    assert_eq!(oci.blob_size(&target, &small.digest).await.unwrap(), None);
    let blobs = vec![small.clone(), large.clone(), config.clone()];
    let pushed = oci.push_blobs(&target, blobs.clone()).await.unwrap();
    assert_eq!(pushed, [Pushed::Sent, Pushed::Sent, Pushed::Sent]);
    let again = oci.push_blobs(&target, blobs).await.unwrap();
    assert_eq!(again, [Pushed::Present, Pushed::Present, Pushed::Present]);
    let manifest = manifest_of(&config, &[small.clone(), large.clone()]);
    oci.put_manifest(&target, &manifest).await.unwrap();
    oci.put_tag(&target, &tag, &manifest).await.unwrap();

    // Pull: the same bytes by tag and by digest, and the verified blob.
    let served = oci.manifest(&target.tagged(tag.clone())).await.unwrap().unwrap();
    assert_eq!(
        (&served.digest, &served.bytes),
        (&manifest.digest, &manifest.bytes)
    );
    let read = oci
        .small_blob(&target, &small.digest, small.size, 1 << 10)
        .await
        .unwrap();
    assert_eq!(read, "a layer");
    assert_eq!(
        oci.blob_size(&target, &large.digest).await.unwrap(),
        Some(large.size)
    );

    // Within the registry blobs are mounted, not sent.
    let from = Blob {
        source: BlobSource::Registry(oci.repository(&target)),
        ..large.clone()
    };
    let mounted = oci
        .push_blob(&image(&open, "towpath/other"), &from)
        .await
        .unwrap();
    assert_eq!(mounted, Pushed::Mounted);

    // Copy to the registry with a password: our own image, and an index that another client has pushed.
    for name in ["towpath/app", "peers/base"] {
        let from = oci
            .manifest(&image(&open, &format!("{name}:1")))
            .await
            .unwrap()
            .unwrap();
        let source = image(&open, name).at(from.digest.clone());
        let to = image(&closed, &format!("{name}:1"));
        let copied = oci.copy_image(&source, &to).await.unwrap();
        assert_eq!(copied.manifest.digest, from.digest);
        let kept = oci.manifest(&to).await.unwrap().unwrap();
        assert_eq!(kept.bytes, from.bytes);
        for child in kept.children() {
            let child = to.at(child.digest().to_string().parse().unwrap());
            assert!(
                oci.manifest(&child).await.unwrap().is_some(),
                "{child} was not copied"
            );
        }
    }

    // With a wrong password nothing is there.
    let stranger = client(&closed, "wrong");
    let refused = stranger
        .manifest(&image(&closed, "towpath/app:1"))
        .await
        .unwrap_err();
    assert!(refused.is_unauthenticated() || refused.is_denied(), "{refused:?}");
}

/// Bytes that do not repeat soon, so that a mix-up shows.
fn noise(length: u32) -> Vec<u8> {
    let words = (0..length.div_ceil(4)).map(|at| at.wrapping_mul(0x9E37_79B9).rotate_left(at % 31));
    let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    bytes.truncate(length as usize);
    bytes
}

fn config_of(layers: &[Blob]) -> Blob {
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.digest).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    Blob::from_bytes(config.to_string())
}

/// Pushes an image of these layers under a tag.
async fn push(oci: &OciClient, target: &ImageRef, tag: &str, layers: &[Blob]) -> Manifest {
    let config = config_of(layers);
    let manifest = manifest_of(&config, layers);
    let blobs = layers.iter().cloned().chain([config]).collect();
    oci.push_blobs(target, blobs).await.unwrap();
    oci.put_tag(target, &tag.parse().unwrap(), &manifest)
        .await
        .unwrap();
    manifest
}

fn anonymous() -> OciClient {
    OciClient::new("the registry", Arc::new(Anonymous), OciSettings::default()).unwrap()
}

const HEADERS: u64 = 32 * 1024;

/// docker-registry forgets an upload whose request was cut ("upload resumed at wrong offset"), so there is nothing to go
/// on from: the blob is sent once more, and only once.
#[tokio::test]
#[ignore = "needs the registries that tests/peers/run starts"]
async fn an_upload_that_is_cut_arrives_whole() {
    let open = from_environment("TOWPATH_PEER_REGISTRY_OPEN");
    let bytes = noise(8 << 20);
    let size = bytes.len() as u64;
    let relay = Relay::start(&open, Cut::Up(size / 2)).await;
    let target = image(&relay.address.to_string(), "towpath/cut");
    let blob = Blob::from_bytes(bytes.clone());
    let oci = anonymous();
    assert_eq!(oci.push_blob(&target, &blob).await.unwrap(), Pushed::Sent);
    assert!(relay.has_cut(), "the connection was never cut");
    let (up, _) = relay.passed();
    assert!(up < size + size / 2 + HEADERS, "{up} bytes went up for {size}");
    let stored = image(&open, "towpath/cut");
    let stored = oci.small_blob(&stored, &blob.digest, size, size).await.unwrap();
    assert!(stored == bytes, "the registry has other bytes");
}

#[tokio::test]
#[ignore = "needs the registries that tests/peers/run starts"]
async fn a_blob_goes_in_chunks() {
    let target = image(&from_environment("TOWPATH_PEER_REGISTRY_OPEN"), "towpath/chunked");
    let mut settings = OciSettings::default();
    settings.chunk = Some(1 << 20);
    let oci = OciClient::new("the registry", Arc::new(Anonymous), settings).unwrap();
    let blob = Blob::from_bytes(noise((3 << 20) + 5));
    assert_eq!(oci.push_blob(&target, &blob).await.unwrap(), Pushed::Sent);
    let kept = oci
        .small_blob(&target, &blob.digest, blob.size, blob.size)
        .await
        .unwrap();
    assert!(blob.digest.matches(&kept));
}

#[tokio::test]
#[ignore = "needs the registries that tests/peers/run starts"]
async fn a_copy_whose_source_is_cut_goes_on_where_it_was() {
    let open = from_environment("TOWPATH_PEER_REGISTRY_OPEN");
    let layer = Blob::from_bytes(noise(8 << 20));
    let oci = anonymous();
    let pushed = push(
        &oci,
        &image(&open, "towpath/read"),
        "1",
        std::slice::from_ref(&layer),
    )
    .await;
    let target = DockerRegistry::start("").await;
    let from = Relay::start(&open, Cut::Down(layer.size / 2)).await;
    let to = Relay::start(&target.address, Cut::Up(u64::MAX)).await;
    let source = image(&from.address.to_string(), "towpath/read").at(pushed.digest.clone());
    let copied = oci
        .copy_image(&source, &image(&to.address.to_string(), "towpath/read:1"))
        .await
        .unwrap();
    assert_eq!(copied.manifest.digest, pushed.digest);
    assert!(from.has_cut(), "the connection was never cut");
    let ((_, read), (sent, _)) = (from.passed(), to.passed());
    for (count, what) in [(read, "came"), (sent, "were sent")] {
        let twice = count.checked_sub(layer.size).unwrap();
        assert!(twice < HEADERS, "{twice} bytes {what} twice");
    }
    let kept = image(&target.address, "towpath/read");
    let kept = oci
        .small_blob(&kept, &layer.digest, layer.size, layer.size)
        .await
        .unwrap();
    assert!(layer.digest.matches(kept));
}

/// docker-registry 2.8 has no referrers API: what refers to an image is listed under a tag.
#[tokio::test]
#[ignore = "needs the registries that tests/peers/run starts"]
async fn referrers_are_listed_under_the_tag_schema_and_copied() {
    let open = from_environment("TOWPATH_PEER_REGISTRY_OPEN");
    let closed = from_environment("TOWPATH_PEER_REGISTRY_CLOSED");
    let oci = client(&closed, &from_environment("TOWPATH_PEER_REGISTRY_PASSWORD"));
    let target = image(&open, "towpath/signed");
    let subject = push(&oci, &target, "1", &[Blob::from_bytes("to be signed")]).await;
    assert_eq!(oci.referrers(&target, &subject.digest).await.unwrap(), []);

    let repository = oci.repository(&target);
    let mut digests = Vec::new();
    for kind in [
        "application/vnd.example.signature",
        "application/vnd.example.sbom",
    ] {
        let empty = Blob::from_bytes("{}");
        oci.push_blob(&target, &empty).await.unwrap();
        let nothing = serde_json::json!({
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty.digest, "size": empty.size,
        });
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "artifactType": kind, "config": nothing,
            "layers": [nothing],
            "subject": { "mediaType": media::OCI_MANIFEST, "digest": subject.digest, "size": subject.bytes.len() },
        });
        let manifest = Manifest::read(media::OCI_MANIFEST, manifest.to_string().into()).unwrap();
        let descriptor = serde_json::json!({
            "mediaType": media::OCI_MANIFEST, "digest": manifest.digest, "size": manifest.bytes.len(),
            "artifactType": kind,
        });
        let descriptor = serde_json::from_value(descriptor).unwrap();
        // The second time changes nothing.
        for _ in 0..2 {
            repository
                .put_referrer(&subject.digest, &manifest, &descriptor)
                .await
                .unwrap();
        }
        digests.push(manifest.digest.to_string());
    }
    let listed = async |image: &ImageRef| {
        let found = oci.referrers(image, &subject.digest).await.unwrap();
        let mut found: Vec<_> = found.iter().map(|entry| entry.digest().to_string()).collect();
        found.sort();
        found
    };
    digests.sort();
    assert_eq!(listed(&target).await, digests);
    let tag = format!("sha256-{}", subject.digest.encoded());
    let list = oci
        .manifest(&target.tagged(tag.parse().unwrap()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(list.media_type, media::OCI_INDEX);

    let to = image(&closed, "towpath/signed:1");
    oci.copy_image(&target.at(subject.digest.clone()), &to)
        .await
        .unwrap();
    assert_eq!(listed(&to).await, digests);
}

#[tokio::test]
#[ignore = "needs the registries that tests/peers/run starts"]
async fn images_come_through_a_cache_and_stay_when_its_origin_is_gone() {
    let open = from_environment("TOWPATH_PEER_REGISTRY_OPEN");
    let mut origin = DockerRegistry::start("").await;
    let oci = anonymous();
    let name = "towpath/cached";
    let layers = [Blob::from_bytes(noise(1 << 20)), Blob::from_bytes("small")];
    let pushed = push(&oci, &image(&origin.address, name), "1", &layers).await;
    push(
        &oci,
        &image(&origin.address, "towpath/uncached"),
        "1",
        &layers[1..],
    )
    .await;

    // Its origin has to be there when a cache starts.
    let proxy = format!("proxy: {{remoteurl: \"http://{}\"}}\n", origin.address);
    let cache = DockerRegistry::start(&proxy).await;
    let cached = image(&cache.address, &format!("{name}:1"));
    let served = oci.manifest(&cached).await.unwrap().unwrap();
    assert_eq!(
        (served.digest.clone(), served.bytes),
        (pushed.digest.clone(), pushed.bytes)
    );
    let copied = oci
        .copy_image(
            &cached.at(pushed.digest.clone()),
            &image(&open, "towpath/through:1"),
        )
        .await
        .unwrap();
    assert_eq!(copied.manifest.digest, pushed.digest);
    let refused = oci
        .push_blob(&cached, &Blob::from_bytes("not there"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");

    let config = config_of(&layers);
    for blob in layers.iter().chain([&config]) {
        oci.small_blob(&cached, &blob.digest, blob.size, blob.size)
            .await
            .unwrap();
    }
    // The cache puts blobs away after it has served them.
    let blobs = cache.folder.path().join("data/docker/registry/v2/blobs/sha256");
    let put_away = |blob: &Blob| {
        let encoded = blob.digest.encoded();
        blobs.join(&encoded[..2]).join(encoded).join("data").exists()
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while !layers.iter().chain([&config]).all(put_away) {
        assert!(tokio::time::Instant::now() < deadline, "the cache keeps nothing");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    origin.kill().await;
    for reference in [cached.clone(), cached.at(pushed.digest.clone())] {
        let kept = oci.manifest(&reference).await.unwrap().unwrap();
        assert_eq!(kept.digest, pushed.digest, "{reference}");
    }
    for blob in layers.iter().chain([&config]) {
        let kept = oci
            .small_blob(&cached, &blob.digest, blob.size, blob.size)
            .await
            .unwrap();
        assert!(blob.digest.matches(&kept));
    }
    // What it never had is not there now.
    let missing = oci.manifest(&image(&cache.address, "towpath/uncached:1")).await;
    assert!(matches!(missing, Ok(None)), "{missing:?}");
}

/// Assembled with the lab for its control plane; the session unpacks the image and compares it with the folder.
#[tokio::test]
#[ignore = "needs the registries that tests/peers/run starts"]
async fn an_assembled_image_goes_to_docker_registry() {
    let open: Url = format!("http://{}", from_environment("TOWPATH_PEER_REGISTRY_OPEN"))
        .parse()
        .unwrap();
    let lab = image(&from_environment("TOWPATH_LAB_REGISTRY"), "peers/base");
    let mut wire = OciSettings::default();
    wire.endpoints.insert(lab.registry().clone(), open);
    let config = EcrConfig::from_env()
        .endpoint(from_environment("AWS_ENDPOINT_URL_ECR").parse().unwrap())
        .wire(wire);
    let ecr = Ecr::new(&config).await.unwrap();
    let base = ecr
        .resolve(&lab.tagged("1".parse().unwrap()))
        .await
        .unwrap()
        .unwrap();
    let target = ecr
        .ensure_repository(&"towpath/tree".parse().unwrap())
        .await
        .unwrap();
    let mut assembly = Assembly::on(base.image, target.tagged("1".parse().unwrap()));
    assembly.layers = vec![Layer::files(
        Path::new(&from_environment("PEERS_TREE")),
        "/srv/tree",
    )];
    assembly.created = "2026-01-02T03:04:05Z".parse().unwrap();
    let made = ecr.assemble(assembly).await.unwrap();
    assert_eq!(made.platforms.len(), 2);
}
