//! Preparing registries, and looking into them.

use super::super::World;
use super::images::{CONFIG, INDEX, LAYER, MANIFEST, descriptor_digest, platform_json};
use super::{ScanScript, private_host};
use serde_json::json;
use std::collections::BTreeMap;
use towpath_core::{Digest, ImageRef, RegistryHost, RepositoryName, Tag};
use towpath_elements::registry::Platform;

/// An image that is simply there, such as one of a public registry.
#[derive(Clone, Debug)]
pub struct ImageSetup {
    /// Its platforms. One platform makes a single manifest, several make an index.
    pub platforms: Vec<Platform>,
    /// What tells its layers from those of other images.
    pub contents: String,
    /// The annotations of its manifest or index.
    pub annotations: BTreeMap<String, String>,
}

impl ImageSetup {
    /// For Linux on amd64 and arm64.
    pub fn linux(contents: &str) -> Self {
        Self {
            platforms: vec![Platform::linux("amd64"), Platform::linux("arm64")],
            contents: contents.to_owned(),
            annotations: BTreeMap::new(),
        }
    }
}

impl World {
    /// Makes an upstream registry known, without a pull-through rule.
    pub fn add_upstream(&self, registry: &RegistryHost) {
        self.with(|state, _| state.registry.upstreams.push(registry.clone()));
    }

    /// Makes a pull-through rule: images of the upstream are cached below the prefix.
    pub fn add_pull_through(&self, registry: &RegistryHost, prefix: &RepositoryName) {
        self.with(|state, _| {
            state.registry.upstreams.push(registry.clone());
            state.registry.rules.insert(registry.clone(), prefix.clone());
        });
    }

    /// Puts an image into a registry, under its tag where the reference has one, and says its digest.
    ///
    /// # Panics
    /// Where the setup has no platform.
    pub fn add_image(&self, image: &ImageRef, setup: &ImageSetup) -> Digest {
        assert!(!setup.platforms.is_empty(), "an image has at least one platform");
        self.with(|state, moment| {
            let images = &mut state.registry;
            if *image.registry() != private_host() && !images.upstreams.contains(image.registry()) {
                images.upstreams.push(image.registry().clone());
            }
            let mut made = Vec::new();
            for platform in &setup.platforms {
                let (layer, size) = images.keep(format!("{} for {platform}", setup.contents).into_bytes());
                let mut config = platform_json(platform);
                config["config"] = json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]});
                config["rootfs"] = json!({"type": "layers", "diff_ids": [layer]});
                let manifest = json!({
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": images.keep_json(&config, CONFIG),
                    "layers": [{"mediaType": LAYER, "digest": layer, "size": size}],
                    "annotations": setup.annotations,
                });
                let mut descriptor = images.keep_json(&manifest, MANIFEST);
                descriptor["platform"] = platform_json(platform);
                made.push(descriptor);
            }
            let top = match made.as_slice() {
                [only] => only.clone(),
                several => {
                    let index = json!({
                        "schemaVersion": 2,
                        "mediaType": INDEX,
                        "manifests": several,
                        "annotations": setup.annotations,
                    });
                    images.keep_json(&index, INDEX)
                }
            };
            let digest = descriptor_digest(&top).unwrap_or_else(|| Digest::sha256_of(b""));
            for digest in images.whole(&digest) {
                images.store(image, &digest, moment.now);
            }
            if let Some(tag) = image.tag() {
                images
                    .repository_mut(image)
                    .tags
                    .insert(tag.clone(), digest.clone());
            }
            digest
        })
    }

    /// Says what the scanner will say of the images of a repository of the private registry.
    pub fn script_scans(&self, repository: &RepositoryName, script: ScanScript) {
        let name = ImageRef::new(private_host(), repository.clone()).name();
        self.with(|state, _| state.registry.scans.insert(name, script));
    }

    /// Makes the tags of a repository of the private registry immutable.
    pub fn make_immutable(&self, repository: &RepositoryName) {
        let image = ImageRef::new(private_host(), repository.clone());
        self.with(|state, _| state.registry.repository_mut(&image).immutable = true);
    }

    /// The bytes of a manifest or index, as the registry serves them.
    pub fn served(&self, image: &ImageRef) -> Option<Vec<u8>> {
        self.with(|state, _| {
            let found = state.registry.resolve(image).ok()??;
            state.registry.blobs.get(&found.digest).cloned()
        })
    }

    /// The tags of a repository, and what they name.
    pub fn tags(&self, image: &ImageRef) -> BTreeMap<Tag, Digest> {
        self.with(|state, _| {
            let repository = state.registry.repositories.get(&image.name());
            repository
                .map(|repository| repository.tags.clone())
                .unwrap_or_default()
        })
    }
}
