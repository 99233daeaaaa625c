//! Images pulled by tag in another format than they were pushed in.
//!
//! Follows "Container image manifest format support" of the user guide: where the client does not accept the stored
//! format, an image is translated between Docker's schema 2 and OCI. Its digest is then another one, and by digest
//! nothing is ever translated.

use super::super::manifest::{
    DOCKER_CONFIG, DOCKER_MANIFEST, Manifest, OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST,
};
use axum::http::{HeaderMap, header};
use serde_json::{Value, json};

/// Media types that say the same, Docker's first.
const SAME: [(&str, &str); 4] = [
    (DOCKER_CONFIG, OCI_CONFIG),
    (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        OCI_LAYER_GZIP,
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.oci.image.layer.v1.tar",
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ),
];

/// The media type and the bytes of an image in a format that the client accepts; `None` where it gets what is stored.
pub(super) fn translated(manifest: &Manifest, headers: &HeaderMap) -> Option<(&'static str, Vec<u8>)> {
    let wanted = match manifest.media_type.as_str() {
        OCI_MANIFEST => DOCKER_MANIFEST,
        DOCKER_MANIFEST => OCI_MANIFEST,
        _ => return None,
    };
    let accepted = accepted(headers);
    let accepts = |media_type: &str| accepted.iter().any(|accepted| accepted == media_type);
    let plain = manifest.subject.is_none() && !manifest.has_artifact_type();
    if accepts("*/*") || accepts(&manifest.media_type) || !accepts(wanted) || !plain {
        return None;
    }
    let descriptor = |media_type: &str, digest: &str, size: u64| -> Option<Value> {
        let (docker, oci) = SAME
            .iter()
            .find(|(docker, oci)| [docker, oci].contains(&&media_type))?;
        let media_type = if wanted == OCI_MANIFEST { oci } else { docker };
        Some(json!({"mediaType": media_type, "size": size, "digest": digest}))
    };
    let config = manifest.config.as_ref()?;
    let config = descriptor(&config.media_type, config.digest.as_str(), config.size)?;
    let layers = manifest
        .layers
        .iter()
        .map(|layer| descriptor(&layer.media_type, layer.digest.as_str(), layer.size));
    let layers: Vec<Value> = layers.collect::<Option<_>>()?;
    let translated = json!({"schemaVersion": 2, "mediaType": wanted, "config": config, "layers": layers});
    Some((wanted, translated.to_string().into_bytes()))
}

fn accepted(headers: &HeaderMap) -> Vec<String> {
    let values = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|one| one.split(';').next().unwrap_or_default().trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use towpath_core::Digest;

    fn image(media_type: &str, layer: &str, more: Value) -> Manifest {
        let digest = Digest::sha256_of("x");
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": media_type,
            "config": {"mediaType": OCI_CONFIG, "digest": digest.as_str(), "size": 1},
            "layers": [{"mediaType": layer, "digest": digest.as_str(), "size": 1}],
        });
        manifest
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        Manifest::parse(manifest.to_string().as_bytes(), None).unwrap()
    }

    fn accept(values: &[&'static str]) -> HeaderMap {
        let values = values
            .iter()
            .map(|value| (header::ACCEPT, HeaderValue::from_static(value)));
        values.collect()
    }

    #[test]
    fn only_a_plain_image_is_translated_and_only_for_who_asks_for_nothing_else() {
        let docker = &[DOCKER_MANIFEST][..];
        let plain = image(OCI_MANIFEST, OCI_LAYER_GZIP, json!({}));
        let (media_type, bytes) = translated(&plain, &accept(docker)).unwrap();
        assert_eq!(media_type, DOCKER_MANIFEST);
        let read = Manifest::parse(&bytes, Some(media_type)).unwrap();
        assert_eq!(read.layers[0].media_type, SAME[1].0);
        let back = translated(&read, &accept(&[OCI_MANIFEST])).unwrap();
        assert_eq!(
            Manifest::parse(&back.1, None).unwrap().layers[0].media_type,
            OCI_LAYER_GZIP
        );

        assert!(translated(&plain, &accept(&[])).is_none());
        assert!(translated(&plain, &accept(&["*/*"])).is_none());
        assert!(translated(&plain, &accept(&["text/plain, application/json;q=0.5"])).is_none());
        assert!(translated(&plain, &accept(&[DOCKER_MANIFEST, OCI_MANIFEST])).is_none());
        let zstd = image(
            OCI_MANIFEST,
            "application/vnd.oci.image.layer.v1.tar+zstd",
            json!({}),
        );
        assert!(translated(&zstd, &accept(docker)).is_none());
        let artifact = image(OCI_MANIFEST, OCI_LAYER_GZIP, json!({"artifactType": "a/b"}));
        assert!(translated(&artifact, &accept(docker)).is_none());
    }
}
