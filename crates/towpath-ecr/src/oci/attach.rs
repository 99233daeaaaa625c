//! Attaching an artifact to an image: a signature, an attestation, an SBOM (*OCI Image Format Specification* 1.1,
//! `manifest.md`, "Guidelines for Artifact Usage").

use super::manifest::media;
use super::{Blob, Manifest, OciClient};
use oci_spec::image::Descriptor;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use towpath_core::ImageRef;
use towpath_elements::{Error, ErrorKind, Result};

const ATTEMPTED: &str = "attach an artifact to";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Something that says something of an image: a signature, an SBOM, an attestation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Artifact {
    /// What it is, as a media type: `application/spdx+json`, `application/vnd.dev.sigstore.bundle.v0.3+json`.
    pub artifact_type: String,
    /// What it consists of; nothing is enough where the annotations say it all.
    pub parts: Vec<ArtifactPart>,
    /// What its manifest says, such as `org.opencontainers.image.created`. Lists of referrers show it.
    pub annotations: BTreeMap<String, String>,
    /// Whether a registry that does not know `artifactType` (as ECR does with 405) may be given a manifest that says its
    /// type as the media type of the configuration, as was done before version 1.1. Its digest is then another one.
    pub as_config_type: bool,
}

/// One part of an artifact.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ArtifactPart {
    /// The media type.
    pub media_type: String,
    /// The bytes.
    pub blob: Blob,
    /// What is said of it, such as `org.opencontainers.image.title`.
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// An artifact of this type, without content.
    pub fn new(artifact_type: impl Into<String>) -> Self {
        Self {
            artifact_type: artifact_type.into(),
            parts: Vec::new(),
            annotations: BTreeMap::new(),
            as_config_type: false,
        }
    }

    /// Adds a part.
    #[must_use]
    pub fn part(mut self, media_type: impl Into<String>, blob: Blob) -> Self {
        self.parts.push(ArtifactPart {
            media_type: media_type.into(),
            blob,
            annotations: BTreeMap::new(),
        });
        self
    }

    /// Adds an annotation of its manifest.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }
}

/// An artifact that is in the registry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attached {
    /// The artifact's own name, by digest.
    pub image: ImageRef,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its entry in the list of referrers.
    pub descriptor: Descriptor,
}

impl OciClient {
    /// Attaches an artifact (a signature, an SBOM, an attestation) to an image or index, given by digest. The same artifact gives the same bytes, so attaching
    /// it twice is attaching it once: what is there is not sent again.
    ///
    /// Registries that do not list referrers keep the list in a tag, `sha256-` and the digits; there it is added.
    ///
    /// ```no_run
    /// use towpath_ecr::oci::{Artifact, Blob, OciClient};
    /// # async fn attach(oci: OciClient, image: towpath_ecr::ImageRef, sbom: Vec<u8>) -> towpath_ecr::Result<()> {
    /// let artifact = Artifact::new("application/spdx+json")
    ///     .part("application/spdx+json", Blob::from_bytes(sbom))
    ///     .annotation("org.opencontainers.image.created", "2026-01-02T03:04:05Z");
    /// let attached = oci.attach(&image, &artifact).await?;
    /// let subject = image.digest().expect("given by digest");
    /// let listed = oci.referrers_of_type(&image, subject, "application/spdx+json").await?;
    /// assert!(listed.contains(&attached.descriptor));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// *Invalid* where the image is not given by digest or a media type is none, *not found* without the image,
    /// *unsupported* where the registry does not take such a manifest, *conflict* where the tag that stands for the list
    /// cannot be written.
    pub async fn attach(&self, image: &ImageRef, artifact: &Artifact) -> Result<Attached> {
        let refuse =
            |detail: String| Error::new(ErrorKind::Invalid, self.service(), ATTEMPTED, image).because(detail);
        if image.digest().is_none() {
            return Err(refuse("it is not given by digest".into()).advise("resolve it first"));
        }
        let types = artifact.parts.iter().map(|part| &part.media_type);
        if let Some(bad) = types
            .chain([&artifact.artifact_type])
            .find(|text| !is_media_type(text))
        {
            return Err(refuse(format!("{bad:?} is no media type")));
        }
        let subject = self.required_manifest(image).await?;
        let empty = Blob::from_bytes("{}");
        let mut forms = vec![form(artifact, &subject, &empty, false)?];
        if artifact.as_config_type {
            forms.push(form(artifact, &subject, &empty, true)?);
        }
        for (manifest, descriptor) in &forms {
            if self
                .manifest_digest(&image.at(manifest.digest.clone()))
                .await?
                .is_some()
            {
                self.list_referrer(image, &subject.digest, descriptor).await?;
                return Ok(attached(image, manifest, descriptor));
            }
        }
        let mut blobs: Vec<Blob> = artifact.parts.iter().map(|part| part.blob.clone()).collect();
        blobs.push(empty);
        self.push_blobs(image, blobs).await?;
        let mut refused = None;
        for (manifest, descriptor) in &forms {
            match self.put_manifest(image, manifest).await {
                Ok(()) => {
                    self.list_referrer(image, &subject.digest, descriptor).await?;
                    return Ok(attached(image, manifest, descriptor));
                }
                Err(error) if error.kind() == ErrorKind::Unsupported => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        let advice = match artifact.as_config_type {
            false => {
                "say its type as the media type of the configuration (as_config_type), or use a registry of OCI 1.1"
            }
            true => "use a registry that takes manifests with a subject (OCI 1.1)",
        };
        let error = Error::new(ErrorKind::Unsupported, self.service(), ATTEMPTED, image)
            .because(format!(
                "the registry does not take a manifest of the type {}: {}",
                artifact.artifact_type,
                refused.as_ref().map_or("", Error::detail)
            ))
            .advise(advice);
        Err(match refused {
            Some(cause) => error.caused_by(cause),
            None => error,
        })
    }
}

fn attached(image: &ImageRef, manifest: &Manifest, descriptor: &Descriptor) -> Attached {
    Attached {
        image: image.at(manifest.digest.clone()),
        manifest: manifest.clone(),
        descriptor: descriptor.clone(),
    }
}

/// The artifact's manifest, and what a list of referrers says of it.
fn form(
    artifact: &Artifact,
    subject: &Manifest,
    empty: &Blob,
    as_config_type: bool,
) -> Result<(Manifest, Descriptor)> {
    let describe = |media_type: &str, blob: &Blob| json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.size });
    let mut layers: Vec<Value> = Vec::new();
    for part in &artifact.parts {
        let mut layer = describe(&part.media_type, &part.blob);
        if !part.annotations.is_empty() {
            layer["annotations"] = json!(part.annotations);
        }
        layers.push(layer);
    }
    if layers.is_empty() {
        layers.push(describe(EMPTY, empty));
    }
    let config_type = if as_config_type {
        artifact.artifact_type.as_str()
    } else {
        EMPTY
    };
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_MANIFEST,
        "config": describe(config_type, empty),
        "layers": layers,
        "subject": {
            "mediaType": subject.media_type, "digest": subject.digest, "size": subject.bytes.len(),
        },
    });
    if !as_config_type {
        manifest["artifactType"] = json!(artifact.artifact_type);
    }
    if !artifact.annotations.is_empty() {
        manifest["annotations"] = json!(artifact.annotations);
    }
    let manifest = Manifest::read(media::OCI_MANIFEST, crate::json::canonical(manifest)?)?;
    let mut entry = json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.bytes.len(),
        "artifactType": artifact.artifact_type,
    });
    if !artifact.annotations.is_empty() {
        entry["annotations"] = json!(artifact.annotations);
    }
    let descriptor = serde_json::from_value(entry).map_err(|error| {
        Error::new(
            ErrorKind::Invalid,
            "OCI image format",
            "describe",
            &manifest.digest,
        )
        .caused_by(error)
    })?;
    Ok((manifest, descriptor))
}

/// `type/subtype` by RFC 6838: each a letter or digit, then up to 126 of these and `!#$&-^_.+`.
fn is_media_type(text: &str) -> bool {
    let is_name = |name: &str| {
        let inner = |c: u8| c.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&c);
        name.len() <= 127
            && name.bytes().all(inner)
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
    };
    text.split_once('/')
        .is_some_and(|(kind, name)| is_name(kind) && is_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_told_from_other_words() {
        for good in [
            "application/spdx+json",
            "application/vnd.dev.sigstore.bundle.v0.3+json",
        ] {
            assert!(is_media_type(good), "{good}");
        }
        for bad in [
            "",
            "sbom",
            "/json",
            "application/",
            "application/a b",
            "a/b/c",
            "a/b;q=1",
        ] {
            assert!(!is_media_type(bad), "{bad}");
        }
    }
}
