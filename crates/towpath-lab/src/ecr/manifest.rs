//! What a registry has to know of a manifest: its kind, and the digests it names.
//!
//! Follows the OCI image specification (`manifest.md`, `image-index.md`) and Docker's image manifest version 2,
//! schema 2. The bytes themselves are stored as they came, never written anew.

use serde::Deserialize;
use serde_json::{Map, Value};
use towpath_core::Digest;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The largest manifest, in bytes, by the quotas of the service.
pub(super) const MAX_BYTES: usize = 4 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) media_type: String,
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Vec<Descriptor>,
    /// The manifests of an index.
    pub(super) children: Vec<Descriptor>,
    pub(super) subject: Option<Descriptor>,
    artifact_type: Option<String>,
    pub(super) annotations: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: Option<Map<String, Value>>,
}

impl Manifest {
    /// Reads a manifest that was sent as `content_type`. The error is the constraint that it fails.
    pub(super) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, String> {
        if bytes.len() > MAX_BYTES {
            return Err(format!(
                "Member must have length less than or equal to {MAX_BYTES}"
            ));
        }
        let fields: Fields =
            serde_json::from_slice(bytes).map_err(|error| format!("Invalid JSON syntax: {error}"))?;
        if fields.schema_version != 2 {
            return Err(format!(
                "schemaVersion {} is not supported",
                fields.schema_version
            ));
        }
        let media_type = match (content_type, fields.media_type) {
            (Some(sent), Some(said)) if sent != said => {
                return Err(format!(
                    "the mediaType {said:?} of the manifest differs from the one it was sent as, {sent:?}"
                ));
            }
            (Some(named), _) => named.to_owned(),
            (None, Some(named)) => named,
            (None, None) if fields.manifests.is_some() => OCI_INDEX.to_owned(),
            (None, None) => OCI_MANIFEST.to_owned(),
        };
        let (config, layers, children) = match media_type.as_str() {
            OCI_INDEX | DOCKER_LIST => {
                let children = fields.manifests.ok_or("an index has manifests")?;
                (None, Vec::new(), children)
            }
            OCI_MANIFEST | DOCKER_MANIFEST => {
                let config = fields.config.ok_or("an image manifest has a config")?;
                let layers = fields.layers.ok_or("an image manifest has layers")?;
                (Some(config), layers, Vec::new())
            }
            other => return Err(format!("the media type {other:?} is not supported")),
        };
        Ok(Self {
            media_type,
            config,
            layers,
            children,
            subject: fields.subject,
            artifact_type: fields.artifact_type,
            annotations: fields.annotations,
        })
    }

    /// A manifest of one layer, from its parts: what [`parse`](Self::parse) would find in it.
    pub(super) fn of_parts(config: Descriptor, layer: Descriptor) -> Self {
        Self {
            media_type: OCI_MANIFEST.to_owned(),
            config: Some(config),
            layers: vec![layer],
            children: Vec::new(),
            subject: None,
            artifact_type: None,
            annotations: None,
        }
    }

    pub(super) fn is_index(&self) -> bool {
        self.config.is_none()
    }

    /// Whether this is something a scanner can look into: an image with layers, not a signature or an SBOM.
    pub(super) fn is_runnable(&self) -> bool {
        self.config
            .as_ref()
            .is_some_and(|config| [OCI_CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str()))
            && self.subject.is_none()
            && self.artifact_type.is_none()
    }

    /// The config and the layers.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers)
    }

    /// The artifact type by the rules of the referrers API: its own, or else the config's media type.
    pub(super) fn artifact_type(&self) -> Option<&str> {
        self.artifact_type
            .as_deref()
            .or(self.config.as_ref().map(|config| config.media_type.as_str()))
    }

    pub(super) fn has_artifact_type(&self) -> bool {
        self.artifact_type.is_some()
    }

    /// The bytes of the layers, config and manifest together.
    pub(super) fn image_size(&self, manifest_bytes: usize) -> u64 {
        self.blobs()
            .fold(manifest_bytes as u64, |sum, blob| sum.saturating_add(blob.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_manifest_is_refused() {
        for (bytes, content_type, reason) in [
            (&b"\xff\xfe"[..], None, "JSON"),
            (b"{}", None, "schemaVersion"),
            (br#"{"schemaVersion":1}"#, None, "schemaVersion 1"),
            (br#"{"schemaVersion":2}"#, None, "config"),
            (br#"{"schemaVersion":2}"#, Some(OCI_INDEX), "manifests"),
            (br#"{"schemaVersion":2}"#, Some("text/plain"), "not supported"),
            (
                br#"{"schemaVersion":2,"mediaType":"a"}"#,
                Some(OCI_INDEX),
                "differs",
            ),
            (
                br#"{"schemaVersion":2,"manifests":[{"digest":"x","size":1}]}"#,
                None,
                "digest",
            ),
        ] {
            let error = Manifest::parse(bytes, content_type).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
