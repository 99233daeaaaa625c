//! A registry of the lab with an upstream, and a client of it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use towpath_ecr::oci::OciSettings;
use towpath_ecr::registry::{Assembly, Layer};
use towpath_ecr::{Digest, Ecr, EcrConfig, ImageRef, Region, Registry, WantedRule};
use towpath_lab::ecr::{self as lab, ImageSeed, Upstream, UpstreamConfig, UpstreamKind};

pub struct World {
    pub lab: lab::Ecr,
    pub quay: Upstream,
    pub ecr: Ecr,
}

pub fn fast() -> OciSettings {
    let mut settings = OciSettings::default();
    settings.first_pause = Duration::from_millis(2);
    settings.longest_pause = Duration::from_millis(20);
    settings
}

pub fn config(lab: &lab::Ecr) -> EcrConfig {
    let known = lab::EcrConfig::default();
    EcrConfig::from_env()
        .region(Region::new(&known.region).unwrap())
        .endpoint(lab.api_url().parse().unwrap())
        .credentials(known.access_key_id, known.secret_access_key, None)
        .wire(fast())
}

impl World {
    pub async fn start() -> Self {
        let quay = Upstream::start(UpstreamConfig::new(UpstreamKind::Quay))
            .await
            .unwrap();
        quay.seed_image("acme/base", "1", &ImageSeed::base()).unwrap();
        quay.seed_image("acme/certs", "1", &ImageSeed::certificates())
            .unwrap();
        let settings = lab::EcrConfig {
            upstreams: vec![("quay.io".into(), quay.address())],
            ..lab::EcrConfig::default()
        };
        let lab = lab::Ecr::start(settings).await.unwrap();
        let upstream = format!("http://{}", quay.address()).parse().unwrap();
        let config = config(&lab).upstream("quay.io".parse().unwrap(), upstream);
        let ecr = Ecr::new(&config).await.unwrap();
        Self { lab, quay, ecr }
    }

    pub async fn with_rule() -> Self {
        let world = Self::start().await;
        world
            .ecr
            .ensure_cache_rule(&WantedRule::new("quay", "quay.io"))
            .await
            .unwrap();
        world
    }

    pub async fn base(&self) -> ImageRef {
        self.ecr
            .import(&image("quay.io/acme/base:1"))
            .await
            .unwrap()
            .cached
            .image
    }

    pub async fn target(&self, name: &str) -> ImageRef {
        self.ecr.ensure_repository(&name.parse().unwrap()).await.unwrap()
    }

    pub async fn assembled(&self, name: &str, tag: &str) -> ImageRef {
        let target = self.target(name).await.tagged(tag.parse().unwrap());
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("hello"), name).unwrap();
        let assembly = assembly(self.base().await, target, files.path());
        self.ecr.assemble(assembly).await.unwrap().image
    }
}

pub fn image(text: &str) -> ImageRef {
    text.parse().unwrap()
}

pub fn assembly(base: ImageRef, target: ImageRef, files: &Path) -> Assembly {
    let mut assembly = Assembly::on(base, target);
    assembly.layers = vec![Layer::files(files, "/app")];
    assembly.annotations = BTreeMap::from([("org.opencontainers.image.version".into(), "1".into())]);
    assembly.created = "2026-01-02T03:04:05Z".parse().unwrap();
    assembly
}

pub fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Pushes an artifact that names the image as its subject.
pub async fn attach(world: &World, image: &ImageRef) -> Digest {
    use towpath_ecr::oci::{Blob, Manifest, media};
    let oci = world.ecr.oci();
    let subject = oci.manifest(image).await.unwrap().unwrap();
    let blob = Blob::from_bytes("{}");
    oci.push_blob(image, &blob).await.unwrap();
    let descriptor = serde_json::json!({
        "mediaType": "application/vnd.oci.empty.v1+json", "digest": blob.digest, "size": blob.size,
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "artifactType": "application/vnd.example.sbom",
        "config": descriptor, "layers": [descriptor],
        "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.bytes.len() },
    });
    let manifest = Manifest::read(media::OCI_MANIFEST, manifest.to_string().into()).unwrap();
    oci.put_manifest(image, &manifest).await.unwrap();
    manifest.digest
}
