//! Images that the tests make by hand, from the specification and not by the code under test.

use serde_json::{Value, json};
use std::path::Path;
use towpath_ecr::Digest;
use towpath_ecr::oci::{Blob, ImageSink, Manifest, media};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// An image with its blobs.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) manifest: Manifest,
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
    /// The layers before they were compressed.
    pub(crate) plain: Vec<Vec<u8>>,
}

/// A layer: a tar with one file.
pub(crate) fn layer(name: &str, content: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// An image for an architecture with two gzip layers.
pub(crate) fn image(seed: &str, architecture: &str) -> Made {
    let plain = vec![layer("base", "the same for all"), layer("app", seed)];
    let layers: Vec<Blob> = plain.iter().map(|plain| Blob::from_bytes(gzip(plain))).collect();
    let config = config(architecture, &plain);
    let manifest = manifest(&config, &layers, "application/vnd.oci.image.layer.v1.tar+gzip");
    Made {
        manifest,
        config,
        layers,
        plain,
    }
}

pub(crate) fn config(architecture: &str, plain: &[Vec<u8>]) -> Blob {
    let diff_ids: Vec<Digest> = plain.iter().map(Digest::sha256_of).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": ["/app"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    Blob::from_bytes(config.to_string())
}

pub(crate) fn manifest(config: &Blob, layers: &[Blob], media_type: &str) -> Manifest {
    let layers: Vec<Value> = layers.iter().map(|layer| descriptor(media_type, layer)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": layers,
    });
    read(media::OCI_MANIFEST, &manifest)
}

pub(crate) fn index(images: &[(&str, &Made)]) -> Manifest {
    let manifests: Vec<Value> = images
        .iter()
        .map(|(architecture, made)| {
            let mut entry = entry(&made.manifest);
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
            entry
        })
        .collect();
    read(
        media::OCI_INDEX,
        &json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests }),
    )
}

/// Something that refers to an image, and its one blob.
pub(crate) fn referrer(subject: &Manifest, kind: &str) -> (Manifest, Blob) {
    let blob = Blob::from_bytes("{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "artifactType": kind,
        "config": descriptor(EMPTY, &blob), "layers": [descriptor(EMPTY, &blob)],
        "subject": entry(subject), "annotations": { "made": "by hand" },
    });
    (read(media::OCI_MANIFEST, &manifest), blob)
}

pub(crate) fn entry(manifest: &Manifest) -> Value {
    json!({
        "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.bytes.len(),
    })
}

pub(crate) fn named(manifest: &Manifest, name: &str) -> Value {
    let mut entry = entry(manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    entry
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.size })
}

fn read(media_type: &str, value: &Value) -> Manifest {
    Manifest::read(media_type, value.to_string().into()).unwrap()
}

impl Made {
    pub(crate) fn blobs(&self) -> Vec<Blob> {
        let mut blobs = self.layers.clone();
        blobs.push(self.config.clone());
        blobs
    }

    pub(crate) async fn put(&self, sink: &dyn ImageSink) {
        for blob in self.blobs() {
            sink.put_blob(&blob).await.unwrap();
        }
        sink.put_manifest(&self.manifest).await.unwrap();
    }
}

/// A blob's bytes, which the tests keep in memory.
pub(crate) fn bytes(blob: &Blob) -> bytes::Bytes {
    match &blob.source {
        towpath_ecr::oci::BlobSource::Bytes(bytes) => bytes.clone(),
        other => panic!("{other:?} is not in memory"),
    }
}

/// A layout as the specification has it: these entries, and a file for each of these contents.
pub(crate) fn write_layout(root: &Path, entries: &[Value], contents: &[&[u8]]) {
    std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    std::fs::write(root.join("index.json"), index.to_string()).unwrap();
    for content in contents {
        let digest = Digest::sha256_of(content);
        std::fs::write(root.join("blobs/sha256").join(digest.encoded()), content).unwrap();
    }
}

/// What is in a folder and the ones below, by path.
pub(crate) fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.push(path.strip_prefix(root).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}
