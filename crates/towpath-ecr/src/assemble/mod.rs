//! Assembling an image without a daemon: a base, layers of files or of other images, and changes of the configuration
//! (*OCI Image Format Specification* 1.1).

mod config;
mod files;
mod plan;

use crate::client::Ecr;
use crate::oci::copy::{digest_of, is_foreign};
use crate::oci::{Blob, Manifest, ManifestContent, Repository, media};
use crate::platform;
use oci_spec::image::ImageManifest;
pub(crate) use plan::Platformed;
use plan::{Added, Addition};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use towpath_core::{Digest, ImageRef};
use towpath_elements::registry::{Assembly, Layer, Platform};
use towpath_elements::{Error, ErrorKind, Result};

pub(crate) const SERVICE: &str = "OCI image format";

fn invalid(attempted: &'static str, subject: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, SERVICE, attempted, subject)
}

/// One platform's image: its manifest, and the blobs that must be there before it.
struct Made {
    platform: Platform,
    manifest: Manifest,
    blobs: Vec<Blob>,
}

impl Ecr {
    /// Makes an image and pushes it; what is there already is neither read nor sent. Returns its manifest or index.
    ///
    /// The result is an OCI image, whatever the base is: an index where the base is one, else a single manifest. The
    /// same input gives the same bytes.
    ///
    /// # Errors
    /// *Invalid* where an input cannot be right (a base without digest, a folder that is missing, a platform that the
    /// base does not have), *conflict* where the tag is immutable and taken.
    pub async fn assemble_image(&self, assembly: &Assembly) -> Result<Manifest> {
        let base = &assembly.base;
        if base.digest().is_none() {
            return Err(invalid("assemble on the base", base)
                .because("it is not given by digest, so it can change under us")
                .advise("resolve it first"));
        }
        let base_manifest = self.oci.required_manifest(base).await?;
        // Folders are read first: a missing one should not cost an upload. The files live until the end of this call.
        let mut additions = Vec::new();
        for layer in &assembly.layers {
            additions.push(match layer {
                Layer::Files { from, to } => Addition::Files {
                    layer: files::pack(from.clone(), to.clone()).await?,
                    to: to.clone(),
                },
                Layer::Image(image) => {
                    let manifest = self.oci.required_manifest(image).await?;
                    Addition::Image {
                        parts: self.platforms_of(image, &manifest).await?,
                        image: image.clone(),
                    }
                }
            });
        }
        let mut made = Vec::new();
        for part in self.wanted(assembly, &base_manifest).await? {
            made.push(self.make(assembly, part, &additions).await?);
        }
        let annotations = plan::annotations(assembly, &base_manifest.digest);
        let index = match base_manifest.content {
            ManifestContent::Index(_) => Some(index_of(&made, &annotations)?),
            ManifestContent::Image(_) => None,
        };
        self.store(&assembly.target, made, index).await
    }

    /// The platforms of the base that are asked for, in the base's order.
    async fn wanted(&self, assembly: &Assembly, base: &Manifest) -> Result<Vec<Platformed>> {
        let parts = self.platforms_of(&assembly.base, base).await?;
        let has = parts
            .iter()
            .map(|part| part.platform.to_string())
            .collect::<Vec<_>>()
            .join(", ");
        for wanted in &assembly.platforms {
            if !parts.iter().any(|part| platform::matches(wanted, &part.platform)) {
                return Err(invalid("assemble on the base", &assembly.base)
                    .because(format!("it has no {wanted}; it has {has}")));
            }
        }
        let all = assembly.platforms.is_empty();
        let chosen: Vec<Platformed> = parts
            .into_iter()
            .filter(|part| {
                all || assembly
                    .platforms
                    .iter()
                    .any(|wanted| platform::matches(wanted, &part.platform))
            })
            .collect();
        if chosen.is_empty() {
            return Err(
                invalid("assemble on the base", &assembly.base).because("it has no runnable platform")
            );
        }
        Ok(chosen)
    }

    async fn make(&self, assembly: &Assembly, base: Platformed, additions: &[Addition]) -> Result<Made> {
        let base_image = assembly.base.at(base.digest.clone());
        let mut parts = self.read_image(&base_image).await?;
        let mut added = Vec::new();
        for addition in additions {
            added.push(match addition {
                Addition::Files { layer, to } => Added::files(layer, to, assembly.created),
                Addition::Image { image, parts } => {
                    let part = plan::part_for(&base.platform, parts).ok_or_else(|| {
                        invalid("add the layers of", image).because(format!("it has no {}", base.platform))
                    })?;
                    let other = self.read_image(&image.at(part.digest.clone())).await?;
                    Added::image(other, image)?
                }
            });
        }
        let mut layers: Vec<Value> = Vec::new();
        let mut blobs = Vec::new();
        for descriptor in parts.manifest.layers() {
            layers.push(plan::oci_layer(descriptor));
            if !is_foreign(descriptor) {
                blobs.push(parts.repository.located(descriptor)?);
            }
        }
        for added in added {
            layers.extend(added.layers);
            blobs.extend(added.blobs);
            config::append(&mut parts.config, added.diff_ids, added.history);
        }
        config::change(&mut parts.config, &assembly.config, assembly.created);
        let config = Blob::from_bytes(crate::json::canonical(parts.config)?);
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.digest,
                "size": config.size,
            },
            "layers": layers,
        });
        manifest["annotations"] = json!(plan::annotations(assembly, &base.digest));
        blobs.push(config);
        Ok(Made {
            platform: base.platform,
            manifest: Manifest::read(media::OCI_MANIFEST, crate::json::canonical(manifest)?)?,
            blobs,
        })
    }

    /// Pushes what is missing: blobs, then manifests, then the index, then the tag.
    async fn store(&self, target: &ImageRef, made: Vec<Made>, index: Option<Manifest>) -> Result<Manifest> {
        let there = |digest: &Digest| {
            let image = target.at(digest.clone());
            async move { Ok::<_, Error>(self.oci.manifest_digest(&image).await?.is_some()) }
        };
        let single = made.first().map(|made| made.manifest.clone());
        let Some(top) = index.or(single) else {
            return Err(invalid("assemble", target).because("there is no platform to make"));
        };
        if let Some(wanted) = target.digest()
            && *wanted != top.digest
        {
            return Err(invalid("assemble", target).because(format!(
                "the image has the digest {}, not the target's",
                top.digest
            )));
        }
        // A registry takes an index only with all its parts, so one that is there is whole.
        if !there(&top.digest).await? {
            for made in made {
                if made.manifest.digest != top.digest && there(&made.manifest.digest).await? {
                    continue;
                }
                self.oci.push_blobs(target, made.blobs).await?;
                self.oci.put_manifest(target, &made.manifest).await?;
            }
            if matches!(top.content, ManifestContent::Index(_)) {
                self.oci.put_manifest(target, &top).await?;
            }
        }
        if let Some(tag) = target.tag() {
            self.oci.put_tag(target, tag, &top).await?;
        }
        Ok(top)
    }

    /// A single image's manifest and configuration.
    async fn read_image(&self, image: &ImageRef) -> Result<ImageParts> {
        let manifest = self.oci.required_manifest(image).await?;
        let ManifestContent::Image(content) = manifest.content else {
            return Err(invalid("read the image", image).because("it is an index within an index"));
        };
        let descriptor = content.config();
        let digest = digest_of(descriptor)?;
        let bytes = self
            .oci
            .small_blob(image, &digest, descriptor.size(), crate::oci::LARGEST_MANIFEST)
            .await?;
        let config = config::read(&bytes, content.layers().len(), image)?;
        Ok(ImageParts {
            repository: self.oci.repository(image),
            manifest: *content,
            config,
        })
    }
}

/// What an image consists of.
struct ImageParts {
    repository: Repository,
    manifest: ImageManifest,
    config: Value,
}

fn index_of(made: &[Made], annotations: &BTreeMap<String, String>) -> Result<Manifest> {
    let manifests: Vec<Value> = made
        .iter()
        .map(|made| {
            let mut platform = json!({
                "os": made.platform.os,
                "architecture": made.platform.architecture,
            });
            if let Some(variant) = &made.platform.variant {
                platform["variant"] = json!(variant);
            }
            json!({
                "mediaType": made.manifest.media_type,
                "digest": made.manifest.digest,
                "size": made.manifest.bytes.len(),
                "platform": platform,
            })
        })
        .collect();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_INDEX,
        "manifests": manifests,
        "annotations": annotations,
    });
    Manifest::read(media::OCI_INDEX, crate::json::canonical(index)?)
}
