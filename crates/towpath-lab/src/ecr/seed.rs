//! Synthetic images for the upstream registries: real OCI indexes, built from files, the same bytes every time.

use super::manifest::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use crate::LabError;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use towpath_core::Digest;

/// The architectures that a seeded image is built for, in the names of OCI and of the kernel.
const PLATFORMS: [(&str, &str); 2] = [("amd64", "x86_64"), ("arm64", "aarch64")];

/// An image to put into an [`Upstream`](super::Upstream): an index of `linux/amd64` and `linux/arm64`, a layer with the
/// given files, and a small one that names the architecture in `etc/arch`.
///
/// ```
/// use towpath_lab::ecr::ImageSeed;
/// let seed = ImageSeed::new().file("etc/motd", "hello\n").environment("PATH=/bin");
/// ```
#[derive(Clone, Debug, Default)]
pub struct ImageSeed {
    files: BTreeMap<String, Vec<u8>>,
    environment: Vec<String>,
    command: Vec<String>,
    labels: BTreeMap<String, String>,
}

/// The blobs and manifests that an [`ImageSeed`] comes to.
pub(super) struct Built {
    pub(super) blobs: Vec<Vec<u8>>,
    /// The platform manifests, and last the index.
    pub(super) manifests: Vec<(&'static str, Vec<u8>)>,
}

impl ImageSeed {
    /// An image without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file, by its path without a leading slash.
    #[must_use]
    pub fn file(mut self, path: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), contents.into());
        self
    }

    /// Adds an environment variable, as `NAME=value`.
    #[must_use]
    pub fn environment(mut self, variable: impl Into<String>) -> Self {
        self.environment.push(variable.into());
        self
    }

    /// Sets the command that a container of this image runs.
    #[must_use]
    pub fn command<I: IntoIterator<Item: Into<String>>>(mut self, command: I) -> Self {
        self.command = command.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a label to the configuration.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// What the ECR public gallery of a lab holds: a base image the shape of Alpine's, as `docker/library/alpine:3.20`.
    pub fn base() -> Self {
        Self::new()
            .file(
                "etc/os-release",
                "NAME=\"Towpath lab base\"\nID=towpath-lab\nVERSION_ID=3.20\nPRETTY_NAME=\"A synthetic base image, \
                 not Alpine Linux\"\n",
            )
            .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n")
            .environment("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .command(["/bin/sh"])
            .label("org.opencontainers.image.title", "synthetic base image of the lab")
    }

    /// What the Quay.io of a lab holds: certificates as text, as `towpath/ca-certificates:2026`.
    pub fn certificates() -> Self {
        Self::new()
            .file(
                "etc/ssl/certs/ca-certificates.crt",
                "# A synthetic bundle of the lab: it holds no certificates, and nothing should trust it.\n",
            )
            .label(
                "org.opencontainers.image.title",
                "synthetic certificates of the lab",
            )
    }

    pub(super) fn build(&self) -> Result<Built, LabError> {
        let failed = |source| LabError::File {
            action: "pack a layer of",
            path: PathBuf::from("a seeded image"),
            source,
        };
        let shared = Layer::pack(&self.files).map_err(failed)?;
        let mut built = Built {
            blobs: vec![shared.compressed.clone()],
            manifests: Vec::new(),
        };
        let mut children = Vec::new();
        for (architecture, machine) in PLATFORMS {
            let files = BTreeMap::from([("etc/arch".to_owned(), format!("{machine}\n").into_bytes())]);
            let own = Layer::pack(&files).map_err(failed)?;
            let layers = [&shared, &own];
            let config = self.config(architecture, &layers).to_string().into_bytes();
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": descriptor(OCI_CONFIG, &config),
                "layers": layers.map(|layer| descriptor(OCI_LAYER_GZIP, &layer.compressed)),
            });
            let manifest = manifest.to_string().into_bytes();
            let mut child = descriptor(OCI_MANIFEST, &manifest);
            child["platform"] = json!({"os": "linux", "architecture": architecture});
            children.push(child);
            built.blobs.extend([own.compressed, config]);
            built.manifests.push((OCI_MANIFEST, manifest));
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children});
        built.manifests.push((OCI_INDEX, index.to_string().into_bytes()));
        Ok(built)
    }

    fn config(&self, architecture: &str, layers: &[&Layer]) -> Value {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        json!({
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Env": self.environment, "Cmd": self.command, "Labels": self.labels},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({
                "created": "1970-01-01T00:00:00Z",
                "created_by": "towpath-lab seed",
            })).collect::<Vec<_>>(),
        })
    }
}

struct Layer {
    diff_id: Digest,
    compressed: Vec<u8>,
}

impl Layer {
    /// Packs files in the order of their paths, with fixed times and owners.
    fn pack(files: &BTreeMap<String, Vec<u8>>) -> io::Result<Self> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, contents) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            archive.append_data(&mut header, path, contents.as_slice())?;
        }
        let tar = archive.into_inner()?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        io::Write::write_all(&mut encoder, &tar)?;
        Ok(Self {
            diff_id: Digest::sha256_of(&tar),
            compressed: encoder.finish()?,
        })
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256_of(bytes).as_str(), "size": bytes.len()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_same_every_time() {
        let (one, two) = (
            ImageSeed::base().build().unwrap(),
            ImageSeed::base().build().unwrap(),
        );
        assert_eq!(one.blobs, two.blobs);
        assert_eq!(one.manifests, two.manifests);
        assert_eq!(one.manifests.len(), 3);
    }
}
