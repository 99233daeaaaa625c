//! The images as they are stored: OCI manifests, indexes and configurations as the JSON bytes that their digests name
//! (OCI image specification, `manifest.md` and `image-index.md`).

use super::super::refusal;
use super::{ScanScript, private_host};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use towpath_core::{Digest, ImageRef, RegistryHost, RepositoryName, Tag};
use towpath_elements::registry::{Platform, PlatformImage, ResolvedImage};
use towpath_elements::{ErrorKind, Result};

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Default)]
pub(in super::super) struct Images {
    /// By registry and repository.
    pub(super) repositories: BTreeMap<String, ImageRepository>,
    /// Every manifest, configuration and layer, whichever repositories have it.
    pub(super) blobs: HashMap<Digest, Vec<u8>>,
    /// The pull-through rules: upstream registry to prefix.
    pub(super) rules: BTreeMap<RegistryHost, RepositoryName>,
    pub(super) upstreams: Vec<RegistryHost>,
    pub(super) scans: BTreeMap<String, ScanScript>,
}

#[derive(Default)]
pub(super) struct ImageRepository {
    pub(super) tags: BTreeMap<Tag, Digest>,
    /// When each manifest was stored.
    pub(super) manifests: BTreeMap<Digest, Duration>,
    pub(super) immutable: bool,
}

impl Images {
    pub(super) fn repository_mut(&mut self, image: &ImageRef) -> &mut ImageRepository {
        self.repositories.entry(image.name()).or_default()
    }

    /// Keeps bytes, and says what they are called.
    pub(super) fn keep(&mut self, bytes: Vec<u8>) -> (Digest, usize) {
        let (digest, size) = (Digest::sha256_of(&bytes), bytes.len());
        self.blobs.insert(digest.clone(), bytes);
        (digest, size)
    }

    pub(super) fn keep_json(&mut self, document: &Value, media_type: &str) -> Value {
        let (digest, size) = self.keep(document.to_string().into_bytes());
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    pub(super) fn json(&self, digest: &Digest) -> Result<Value> {
        let bytes = self.blobs.get(digest).ok_or_else(|| {
            refusal(
                ErrorKind::NotFound,
                "read the manifest",
                digest,
                "there is no such manifest",
            )
        })?;
        serde_json::from_slice(bytes).map_err(|error| {
            refusal(ErrorKind::Protocol, "read the manifest", digest, "it is not JSON").caused_by(error)
        })
    }

    /// Adds a manifest to a repository; whether it was new there.
    pub(super) fn store(&mut self, to: &ImageRef, digest: &Digest, now: Duration) -> bool {
        let manifests = &mut self.repository_mut(to).manifests;
        let new = !manifests.contains_key(digest);
        manifests.entry(digest.clone()).or_insert(now);
        new
    }

    /// The manifests of an index.
    pub(super) fn children(&self, digest: &Digest) -> Vec<Digest> {
        let document = self.json(digest).unwrap_or_default();
        descriptors(&document["manifests"])
            .map(|(digest, _)| digest)
            .collect()
    }

    /// The manifest, and those of an index.
    pub(super) fn whole(&self, digest: &Digest) -> Vec<Digest> {
        let mut all = vec![digest.clone()];
        all.extend(self.children(digest));
        all
    }

    /// The manifests of a repository that say that they are about this one.
    pub(super) fn referrers(&self, image: &ImageRef, subject: &Digest) -> Vec<Digest> {
        let Some(repository) = self.repositories.get(&image.name()) else {
            return Vec::new();
        };
        let about = |digest: &&Digest| {
            self.json(digest)
                .is_ok_and(|document| document["subject"]["digest"] == subject.as_str())
        };
        repository.manifests.keys().filter(about).cloned().collect()
    }

    pub(in super::super) fn resolve(&self, image: &ImageRef) -> Result<Option<ResolvedImage>> {
        let host = image.registry();
        if *host != private_host() && !self.upstreams.contains(host) {
            return Err(refusal(
                ErrorKind::Unavailable,
                "reach the registry of",
                image,
                "no such registry",
            ));
        }
        let Some(repository) = self.repositories.get(&image.name()) else {
            return Ok(None);
        };
        let digest = match image.digest() {
            Some(digest) => repository.manifests.contains_key(digest).then_some(digest),
            None => repository
                .tags
                .iter()
                .find(|(tag, _)| tag.as_str() == image.reference())
                .map(|(_, digest)| digest),
        };
        digest
            .map(|digest| self.described(&image.at(digest.clone()), digest))
            .transpose()
    }

    pub(super) fn described(&self, image: &ImageRef, digest: &Digest) -> Result<ResolvedImage> {
        let document = self.json(digest)?;
        let media_type = document["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        let platforms = if media_type == INDEX {
            descriptors(&document["manifests"])
                .map(|(digest, descriptor)| PlatformImage {
                    platform: platform_of(&descriptor["platform"]),
                    digest,
                })
                .collect()
        } else {
            let config = descriptor_digest(&document["config"]);
            let config = config
                .and_then(|config| self.json(&config).ok())
                .unwrap_or_default();
            vec![PlatformImage {
                platform: platform_of(&config),
                digest: digest.clone(),
            }]
        };
        let annotations = document["annotations"].as_object().into_iter().flatten();
        Ok(ResolvedImage {
            image: image.clone(),
            digest: digest.clone(),
            media_type,
            platforms,
            annotations: annotations
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
        })
    }

    pub(in super::super) fn snapshot(&self) -> Value {
        let repositories: BTreeMap<_, _> = self
            .repositories
            .iter()
            .map(|(name, repository)| {
                let manifests: Vec<_> = repository.manifests.keys().collect();
                (name, json!({"tags": repository.tags, "manifests": manifests}))
            })
            .collect();
        json!(repositories)
    }
}

pub(super) fn descriptor_digest(descriptor: &Value) -> Option<Digest> {
    descriptor["digest"].as_str()?.parse().ok()
}

pub(super) fn descriptors(list: &Value) -> impl Iterator<Item = (Digest, &Value)> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|descriptor| Some((descriptor_digest(descriptor)?, descriptor)))
}

pub(super) fn platform_of(value: &Value) -> Option<Platform> {
    Some(Platform {
        os: value["os"].as_str()?.to_owned(),
        architecture: value["architecture"].as_str()?.to_owned(),
        variant: value["variant"].as_str().map(ToOwned::to_owned),
    })
}

pub(super) fn platform_json(platform: &Platform) -> Value {
    let mut value = json!({"os": platform.os, "architecture": platform.architecture});
    if let Some(variant) = &platform.variant {
        value["variant"] = json!(variant);
    }
    value
}
