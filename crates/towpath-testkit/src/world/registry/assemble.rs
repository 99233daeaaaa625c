//! Making an image from a base and layers.

use super::super::{refusal, tar};
use super::images::{CONFIG, INDEX, Images, LAYER, MANIFEST, descriptor_digest, descriptors, platform_json};
use super::{by_digest, missing};
use serde_json::{Value, json};
use towpath_core::{Digest, ImageRef};
use towpath_elements::registry::{Assembly, ConfigChange, Layer, Platform, PlatformImage, ResolvedImage};
use towpath_elements::{ErrorKind, Result};

/// Makes the manifests and keeps them; no repository has them yet.
pub(super) fn assemble(images: &mut Images, assembly: &Assembly) -> Result<Digest> {
    let (platforms, is_index) = match &assembly.base {
        Some(image) => {
            by_digest(image, "stand on the base")?;
            let base = found(images, image)?;
            (wanted(&base, &assembly.platforms)?, base.media_type == INDEX)
        }
        None => {
            let bare = bare(assembly)?;
            let is_index = bare.len() > 1;
            (bare, is_index)
        }
    };
    let mut made = Vec::new();
    for platform in &platforms {
        made.push((
            platform.platform.clone(),
            one_platform(images, assembly, platform)?,
        ));
    }
    let document = match made.as_slice() {
        [(_, only)] if !is_index => only.clone(),
        _ => {
            let manifests: Vec<Value> = made
                .into_iter()
                .map(|(platform, mut descriptor)| {
                    if let Some(platform) = &platform {
                        descriptor["platform"] = platform_json(platform);
                    }
                    descriptor
                })
                .collect();
            let index = json!({
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": manifests,
                "annotations": assembly.annotations,
            });
            images.keep_json(&index, INDEX)
        }
    };
    descriptor_digest(&document).ok_or_else(|| missing("assemble", &assembly.target))
}

/// The platforms of an image without a base: what stands below each is an empty image.
fn bare(assembly: &Assembly) -> Result<Vec<Below>> {
    if assembly.platforms.is_empty() || assembly.layers.is_empty() {
        let detail = "it has no base, and no platform or no layer of its own";
        return Err(refusal(ErrorKind::Invalid, "assemble", &assembly.target, detail));
    }
    Ok(assembly
        .platforms
        .iter()
        .map(|platform| Below {
            platform: Some(platform.clone()),
            base: None,
        })
        .collect())
}

/// One platform that is made, and the digest of the base's manifest for it.
struct Below {
    platform: Option<Platform>,
    base: Option<Digest>,
}

impl From<PlatformImage> for Below {
    fn from(PlatformImage { platform, digest }: PlatformImage) -> Self {
        Self {
            platform,
            base: Some(digest),
        }
    }
}

fn found(images: &Images, image: &ImageRef) -> Result<ResolvedImage> {
    images.resolve(image)?.ok_or_else(|| missing("read", image))
}

fn wanted(base: &ResolvedImage, platforms: &[Platform]) -> Result<Vec<Below>> {
    if platforms.is_empty() {
        return Ok(base.platforms.iter().cloned().map(Below::from).collect());
    }
    platforms
        .iter()
        .map(|platform| {
            let has = |candidate: &&PlatformImage| candidate.platform.as_ref() == Some(platform);
            base.platforms
                .iter()
                .find(has)
                .cloned()
                .map(Below::from)
                .ok_or_else(|| {
                    let detail = format!("the base has no {platform}");
                    refusal(ErrorKind::Invalid, "stand on the base", &base.image, detail)
                })
        })
        .collect()
}

fn one_platform(images: &mut Images, assembly: &Assembly, below: &Below) -> Result<Value> {
    let (mut layers, mut config) = match &below.base {
        Some(base) => {
            let manifest = images.json(base)?;
            let config =
                descriptor_digest(&manifest["config"]).ok_or_else(|| missing("read", &assembly.target))?;
            let layers: Vec<Value> = descriptors(&manifest["layers"])
                .map(|(_, layer)| layer.clone())
                .collect();
            (layers, images.json(&config)?)
        }
        None => (
            Vec::new(),
            below.platform.as_ref().map_or_else(|| json!({}), platform_json),
        ),
    };
    for layer in &assembly.layers {
        match layer {
            Layer::Files(files) => {
                let (digest, size) = images.keep(tar::of_files(files, below.platform.as_ref())?);
                layers.push(json!({"mediaType": LAYER, "digest": digest, "size": size}));
            }
            Layer::Image(image) => {
                by_digest(image, "add the layers of")?;
                let other = found(images, image)?;
                let same = other
                    .platforms
                    .iter()
                    .find(|candidate| candidate.platform == below.platform)
                    .ok_or_else(|| {
                        let platform = below
                            .platform
                            .as_ref()
                            .map_or_else(String::new, ToString::to_string);
                        let detail = format!("it has no {platform}");
                        refusal(ErrorKind::Invalid, "add the layers of", image, detail)
                    })?;
                let other = images.json(&same.digest)?;
                layers.extend(descriptors(&other["layers"]).map(|(_, layer)| layer.clone()));
            }
        }
    }
    change(&mut config, &assembly.config);
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    config["created"] = json!(assembly.created.to_string());
    let config = images.keep_json(&config, CONFIG);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": layers,
        "annotations": assembly.annotations,
    });
    Ok(images.keep_json(&manifest, MANIFEST))
}

fn change(config: &mut Value, change: &ConfigChange) {
    let inner = &mut config["config"];
    if let Some(entrypoint) = &change.entrypoint {
        inner["Entrypoint"] = json!(entrypoint);
        inner["Cmd"] = Value::Null;
    }
    if let Some(command) = &change.command {
        inner["Cmd"] = json!(command);
    }
    let before = inner["Env"].as_array().cloned().unwrap_or_default();
    let goes = |entry: &Value| {
        let name = entry.as_str().and_then(|entry| entry.split_once('='));
        name.is_some_and(|(name, _)| {
            change.environment.contains_key(name) || change.remove_environment.contains(name)
        })
    };
    let mut environment: Vec<Value> = before.into_iter().filter(|entry| !goes(entry)).collect();
    environment.extend(
        change
            .environment
            .iter()
            .map(|(name, value)| json!(format!("{name}={value}"))),
    );
    inner["Env"] = json!(environment);
    if let Some(labels) = inner["Labels"].as_object_mut() {
        labels.retain(|name, _| !change.remove_labels.contains(name));
    }
    for (name, value) in &change.labels {
        inner["Labels"][name] = json!(value);
    }
    if let Some(directory) = &change.working_directory {
        inner["WorkingDir"] = json!(directory);
    }
    if let Some(user) = &change.user {
        inner["User"] = json!(user);
    }
    for port in &change.ports {
        let protocol = if port.contains('/') { "" } else { "/tcp" };
        inner["ExposedPorts"][format!("{port}{protocol}")] = json!({});
    }
    for volume in &change.volumes {
        inner["Volumes"][volume] = json!({});
    }
    if let Some(signal) = &change.stop_signal {
        inner["StopSignal"] = json!(signal);
    }
}
