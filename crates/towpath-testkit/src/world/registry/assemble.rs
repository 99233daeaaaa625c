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
    by_digest(&assembly.base, "stand on the base")?;
    let base = found(images, &assembly.base)?;
    let platforms = wanted(&base, &assembly.platforms)?;
    let mut made = Vec::new();
    for platform in &platforms {
        made.push((
            platform.platform.clone(),
            one_platform(images, assembly, platform)?,
        ));
    }
    let document = match made.as_slice() {
        [(_, only)] if base.media_type != INDEX => only.clone(),
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

fn found(images: &Images, image: &ImageRef) -> Result<ResolvedImage> {
    images.resolve(image)?.ok_or_else(|| missing("read", image))
}

fn wanted(base: &ResolvedImage, platforms: &[Platform]) -> Result<Vec<PlatformImage>> {
    if platforms.is_empty() {
        return Ok(base.platforms.clone());
    }
    platforms
        .iter()
        .map(|platform| {
            let has = |candidate: &&PlatformImage| candidate.platform.as_ref() == Some(platform);
            base.platforms.iter().find(has).cloned().ok_or_else(|| {
                let detail = format!("the base has no {platform}");
                refusal(ErrorKind::Invalid, "stand on the base", &base.image, detail)
            })
        })
        .collect()
}

fn one_platform(images: &mut Images, assembly: &Assembly, base: &PlatformImage) -> Result<Value> {
    let manifest = images.json(&base.digest)?;
    let config = descriptor_digest(&manifest["config"]).ok_or_else(|| missing("read", &assembly.base))?;
    let mut config = images.json(&config)?;
    let mut layers: Vec<Value> = descriptors(&manifest["layers"])
        .map(|(_, layer)| layer.clone())
        .collect();
    for layer in &assembly.layers {
        match layer {
            Layer::Files { from, to } => {
                let (digest, size) = images.keep(tar::of_folder(from, to)?);
                layers.push(json!({"mediaType": LAYER, "digest": digest, "size": size}));
            }
            Layer::Image(image) => {
                by_digest(image, "add the layers of")?;
                let other = found(images, image)?;
                let same = other
                    .platforms
                    .iter()
                    .find(|candidate| candidate.platform == base.platform)
                    .ok_or_else(|| {
                        let platform = base
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
    let named = |entry: &Value| {
        let name = entry.as_str().and_then(|entry| entry.split_once('='));
        name.is_some_and(|(name, _)| change.environment.contains_key(name))
    };
    let mut environment: Vec<Value> = before.into_iter().filter(|entry| !named(entry)).collect();
    environment.extend(
        change
            .environment
            .iter()
            .map(|(name, value)| json!(format!("{name}={value}"))),
    );
    inner["Env"] = json!(environment);
    for (name, value) in &change.labels {
        inner["Labels"][name] = json!(value);
    }
    if let Some(directory) = &change.working_directory {
        inner["WorkingDir"] = json!(directory);
    }
    if let Some(user) = &change.user {
        inner["User"] = json!(user);
    }
}
