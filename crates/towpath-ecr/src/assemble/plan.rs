//! What goes on top of a base, platform by platform.

use super::pack::PackedLayer;
use super::{ImageParts, invalid};
use crate::oci::copy::is_foreign;
use crate::oci::{Blob, BlobSource};
use crate::platform;
use jiff::Timestamp;
use oci_spec::image::Descriptor;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use towpath_core::{Digest, ImageRef};
use towpath_elements::Result;
use towpath_elements::registry::{Assembly, Platform};

/// One platform of an image, by the digest of its manifest.
pub(crate) struct Platformed {
    pub(crate) platform: Platform,
    pub(crate) digest: Digest,
}

/// What one addition adds to one platform's image.
pub(super) struct Added {
    pub(super) layers: Vec<Value>,
    pub(super) blobs: Vec<Blob>,
    pub(super) diff_ids: Vec<Value>,
    pub(super) history: Vec<Value>,
}

impl Added {
    pub(super) fn files(layer: &PackedLayer, to: &str, created: Timestamp) -> Self {
        Self {
            layers: vec![json!({
                "mediaType": layer.media_type,
                "digest": layer.digest,
                "size": layer.size,
            })],
            blobs: vec![Blob {
                digest: layer.digest.clone(),
                size: layer.size,
                source: BlobSource::File(layer.path().to_owned()),
            }],
            diff_ids: vec![json!(layer.diff_id)],
            history: vec![json!({
                "created": created.to_string(),
                "created_by": format!("towpath: files at {to}"),
            })],
        }
    }

    pub(super) fn image(parts: ImageParts, image: &ImageRef) -> Result<Self> {
        let mut blobs = Vec::new();
        for descriptor in parts.manifest.layers().iter().filter(|layer| !is_foreign(layer)) {
            blobs.push(parts.repository.located(descriptor)?);
        }
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned();
        let diff_ids = list(parts.config.pointer("/rootfs/diff_ids"))
            .ok_or_else(|| invalid("add the layers of", image).because("it has no rootfs.diff_ids"))?;
        let history = list(parts.config.get("history")).unwrap_or_else(|| {
            diff_ids
                .iter()
                .map(|_| json!({ "created_by": format!("towpath: a layer of {}", image.name()) }))
                .collect()
        });
        Ok(Self {
            layers: parts.manifest.layers().iter().map(oci_layer).collect(),
            blobs,
            diff_ids,
            history,
        })
    }
}

/// The part of another image that fits a platform; an image of a single platform must fit too.
pub(super) fn part_for<'a>(wanted: &Platform, parts: &'a [Platformed]) -> Option<&'a Platformed> {
    parts.iter().find(|part| part.platform == *wanted).or_else(|| {
        parts
            .iter()
            .find(|part| platform::matches(wanted, &part.platform))
    })
}

/// A layer's descriptor under its OCI media type; the blob is the same.
pub(super) fn oci_layer(descriptor: &Descriptor) -> Value {
    let media_type = descriptor.media_type().to_string();
    let media_type = match media_type.as_str() {
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar"
        }
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        }
        other => other,
    };
    let mut layer = json!({
        "mediaType": media_type,
        "digest": descriptor.digest().to_string(),
        "size": descriptor.size(),
    });
    if let Some(urls) = descriptor.urls() {
        layer["urls"] = json!(urls);
    }
    if let Some(annotations) = descriptor.annotations() {
        layer["annotations"] = json!(annotations);
    }
    layer
}

/// The caller's annotations, and which base this is. What the caller says wins.
pub(super) fn annotations(assembly: &Assembly, base: Option<&Digest>) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([(
        "org.opencontainers.image.created".to_owned(),
        assembly.created.to_string(),
    )]);
    if let (Some(image), Some(digest)) = (&assembly.base, base) {
        let name = match image.tag() {
            Some(tag) => format!("{}:{tag}", image.name()),
            None => image.name(),
        };
        annotations.insert("org.opencontainers.image.base.name".to_owned(), name);
        annotations.insert(
            "org.opencontainers.image.base.digest".to_owned(),
            digest.to_string(),
        );
    }
    annotations.extend(assembly.annotations.clone());
    annotations
}
