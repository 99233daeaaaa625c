//! Assembling an image without a daemon: a base or none, layers of files or of other images, and changes of the
//! configuration (*OCI Image Format Specification* 1.1).

mod config;
mod files;
mod pack;
mod plan;

use crate::client::Ecr;
use crate::oci::copy::{digest_of, is_foreign};
use crate::oci::{Blob, Manifest, ManifestContent, Repository, media};
use crate::platform;
use files::Packed;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use oci_spec::image::ImageManifest;
use plan::Added;
pub(crate) use plan::Platformed;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use towpath_core::{Digest, ImageRef};
use towpath_elements::registry::{Assembly, Layer, Platform};
use towpath_elements::{Error, ErrorKind, Result};

pub(crate) const SERVICE: &str = "OCI image format";

fn invalid(attempted: &'static str, subject: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, SERVICE, attempted, subject)
}

/// The time that the environment variable `SOURCE_DATE_EPOCH` names, in seconds since 1970; `None` where it is not set.
/// By its specification (reproducible-builds.org) it is the latest time that a build may write down: for
/// [`Assembly::created`] and [`Files::modified`](crate::registry::Files::modified).
///
/// # Errors
/// *Invalid* where it is not a whole number of seconds.
pub fn source_date_epoch() -> Result<Option<Timestamp>> {
    match std::env::var_os("SOURCE_DATE_EPOCH") {
        None => Ok(None),
        Some(text) => epoch(&text.to_string_lossy()).map(Some),
    }
}

fn epoch(text: &str) -> Result<Timestamp> {
    let seconds = text.parse::<u32>().ok().map(i64::from);
    seconds
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or_else(|| {
            invalid("read SOURCE_DATE_EPOCH", format!("{text:?}"))
                .because("it must be a whole number of seconds since 1970, before 2106")
        })
}

/// What an image stands on.
struct Base {
    /// The digest of the base; `None` for no base.
    digest: Option<Digest>,
    parts: Vec<Part>,
    /// Whether the result is an index.
    is_index: bool,
}

/// One platform that is made, and the base's image for it.
struct Part {
    platform: Platform,
    image: Option<ImageRef>,
}

/// One platform's image on its way.
struct Draft {
    layers: Vec<Value>,
    blobs: Vec<Blob>,
    config: Value,
}

/// One platform's image: its manifest, and the blobs that must be there before it.
struct Made {
    platform: Platform,
    manifest: Manifest,
    blobs: Vec<Blob>,
}

/// The platforms of the images whose layers are added.
type Others = HashMap<ImageRef, Vec<Platformed>>;

impl Ecr {
    /// Makes an image and pushes it; what is there already is neither read nor sent. Returns its manifest or index.
    ///
    /// The result is an OCI image, whatever the base is: an index where the base is one, or where there is no base and
    /// more than one platform; else a single manifest. The same input gives the same bytes. Layers of files are packed
    /// into temporary files, each once for all platforms that have it; memory is bounded.
    ///
    /// ```no_run
    /// use towpath_ecr::Registry;
    /// use towpath_ecr::registry::{Assembly, Compression, Files, Layer, Platform};
    /// # async fn make(ecr: towpath_ecr::Ecr) -> towpath_ecr::Result<()> {
    /// let target = ecr.ensure_repository(&"shop/web".parse()?).await?.tagged("1.4".parse()?);
    /// let mut assembly = Assembly::from_scratch(target, [Platform::linux("amd64"), Platform::linux("arm64")]);
    /// let mut web = Files::per_platform(
    ///     [(Platform::linux("amd64"), "out/amd64/web".into()), (Platform::linux("arm64"), "out/arm64/web".into())],
    ///     "/bin/web",
    /// );
    /// web.file_mode = Some(0o555);
    /// assembly.layers = vec![Layer::files("assets", "/srv"), Layer::Files(web)];
    /// assembly.compression = Compression::Zstd;
    /// assembly.config.entrypoint = Some(vec!["/bin/web".into()]);
    /// assembly.config.user = Some("65532:65532".into());
    /// if let Some(time) = towpath_ecr::source_date_epoch()? {
    ///     assembly.created = time;
    /// }
    /// let made = ecr.assemble_image(&assembly).await?;
    /// assert_eq!(made.children().len(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// *Invalid* where an input cannot be right (a base without digest, a folder that is missing, a platform that the
    /// base does not have, a link out of its folder), *conflict* where the tag is immutable and taken. The tag is put last:
    /// what was pushed before an error stays, without a tag, and [`unreferenced_images`](Self::unreferenced_images) finds
    /// it.
    pub async fn assemble_image(&self, assembly: &Assembly) -> Result<Manifest> {
        config::check(&assembly.config)?;
        let base = match &assembly.base {
            Some(image) => self.base(assembly, image).await?,
            None => scratch(assembly)?,
        };
        // Folders are read first: a missing one should not cost an upload. The files live until the end of this call.
        let platforms: Vec<Platform> = base.parts.iter().map(|part| part.platform.clone()).collect();
        let packed = Packed::of(assembly, &platforms).await?;
        let mut others = Others::new();
        for layer in &assembly.layers {
            if let Layer::Image(image) = layer {
                let manifest = self.oci.required_manifest(image).await?;
                others.insert(image.clone(), self.platforms_of(image, &manifest).await?);
            }
        }
        let (packed, others) = (&packed, &others);
        let made: Vec<Made> = stream::iter(base.parts)
            .map(|part| self.make(assembly, part, packed, others))
            .buffered(self.oci.settings().parallel.max(1))
            .try_collect()
            .await?;
        let index = match base.is_index {
            true => Some(index_of(
                &made,
                &plan::annotations(assembly, base.digest.as_ref()),
            )?),
            false => None,
        };
        self.store(&assembly.target, made, index).await
    }

    /// The platforms of the base that are asked for, in the base's order.
    async fn base(&self, assembly: &Assembly, base: &ImageRef) -> Result<Base> {
        let refuse = || invalid("assemble on the base", base);
        if base.digest().is_none() {
            return Err(refuse()
                .because("it is not given by digest, so it can change under us")
                .advise("resolve it first"));
        }
        let manifest = self.oci.required_manifest(base).await?;
        let parts = self.platforms_of(base, &manifest).await?;
        let has: Vec<String> = parts.iter().map(|part| part.platform.to_string()).collect();
        for wanted in &assembly.platforms {
            if !parts.iter().any(|part| platform::matches(wanted, &part.platform)) {
                return Err(refuse().because(format!("it has no {wanted}; it has {}", has.join(", "))));
            }
        }
        let is_wanted = |found: &Platform| {
            let mut wanted = assembly.platforms.iter();
            assembly.platforms.is_empty() || wanted.any(|wanted| platform::matches(wanted, found))
        };
        let chosen: Vec<Part> = parts
            .into_iter()
            .filter(|part| is_wanted(&part.platform))
            .map(|part| Part {
                platform: part.platform,
                image: Some(base.at(part.digest)),
            })
            .collect();
        if chosen.is_empty() {
            return Err(refuse().because("it has no runnable platform"));
        }
        Ok(Base {
            is_index: matches!(manifest.content, ManifestContent::Index(_)),
            digest: Some(manifest.digest),
            parts: chosen,
        })
    }

    async fn make(&self, assembly: &Assembly, part: Part, packed: &Packed, others: &Others) -> Result<Made> {
        let mut draft = match &part.image {
            Some(image) => Draft::on(self.read_image(image).await?)?,
            None => Draft {
                layers: Vec::new(),
                blobs: Vec::new(),
                config: config::scratch(&part.platform),
            },
        };
        for layer in &assembly.layers {
            draft.add(match layer {
                Layer::Files(files) => {
                    let packed = packed.layer(files, &part.platform, assembly)?;
                    Added::files(packed, &files.to, assembly.created)
                }
                Layer::Image(image) => {
                    let parts = others.get(image).map(Vec::as_slice).unwrap_or_default();
                    let other = plan::part_for(&part.platform, parts).ok_or_else(|| {
                        invalid("add the layers of", image).because(format!("it has no {}", part.platform))
                    })?;
                    Added::image(self.read_image(&image.at(other.digest.clone())).await?, image)?
                }
            });
        }
        config::change(&mut draft.config, &assembly.config, assembly.created);
        let base = part.image.as_ref().and_then(ImageRef::digest);
        draft.finish(part.platform.clone(), &plan::annotations(assembly, base))
    }

    /// Pushes what is missing: the blobs of all platforms as one set, then manifests, then the index, then the tag.
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
            let parallel = self.oci.settings().parallel.max(1);
            let top = &top;
            let missing: Vec<Option<Made>> = stream::iter(made)
                .map(|made| async move {
                    let known = made.manifest.digest != top.digest && there(&made.manifest.digest).await?;
                    Ok::<_, Error>((!known).then_some(made))
                })
                .buffered(parallel)
                .try_collect()
                .await?;
            let (mut blobs, mut manifests) = (Vec::new(), Vec::new());
            for made in missing.into_iter().flatten() {
                blobs.extend(made.blobs);
                manifests.push(made.manifest);
            }
            self.oci.push_blobs(target, blobs).await?;
            stream::iter(manifests)
                .map(|manifest| async move { self.oci.put_manifest(target, &manifest).await })
                .buffered(parallel)
                .try_collect::<()>()
                .await?;
            if matches!(top.content, ManifestContent::Index(_)) {
                self.oci.put_manifest(target, top).await?;
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

fn scratch(assembly: &Assembly) -> Result<Base> {
    let refuse = |detail: String| {
        Err(invalid("assemble", &assembly.target)
            .because(detail)
            .advise("without a base, say which platforms and layers the image has"))
    };
    let platforms = &assembly.platforms;
    if platforms.is_empty() || assembly.layers.is_empty() {
        return refuse("it has no base, and no platform or no layer of its own".into());
    }
    let mut rest = platforms.as_slice();
    while let [first, others @ ..] = rest {
        if first.os.is_empty() || first.architecture.is_empty() {
            return refuse(format!("{first} is no platform"));
        }
        if others.iter().any(|other| platform::matches(first, other)) {
            return refuse(format!("{first} is there twice"));
        }
        rest = others;
    }
    Ok(Base {
        digest: None,
        is_index: platforms.len() > 1,
        parts: platforms
            .iter()
            .map(|platform| Part {
                platform: platform.clone(),
                image: None,
            })
            .collect(),
    })
}

/// What an image consists of.
struct ImageParts {
    repository: Repository,
    manifest: ImageManifest,
    config: Value,
}

impl Draft {
    /// What the base has.
    fn on(base: ImageParts) -> Result<Self> {
        let (mut layers, mut blobs) = (Vec::new(), Vec::new());
        for descriptor in base.manifest.layers() {
            layers.push(plan::oci_layer(descriptor));
            if !is_foreign(descriptor) {
                blobs.push(base.repository.located(descriptor)?);
            }
        }
        Ok(Self {
            layers,
            blobs,
            config: base.config,
        })
    }

    fn add(&mut self, added: Added) {
        self.layers.extend(added.layers);
        self.blobs.extend(added.blobs);
        config::append(&mut self.config, added.diff_ids, added.history);
    }

    fn finish(mut self, platform: Platform, annotations: &BTreeMap<String, String>) -> Result<Made> {
        let config = Blob::from_bytes(crate::json::canonical(self.config)?);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.digest,
                "size": config.size,
            },
            "layers": self.layers,
            "annotations": annotations,
        });
        self.blobs.push(config);
        Ok(Made {
            platform,
            manifest: Manifest::read(media::OCI_MANIFEST, crate::json::canonical(manifest)?)?,
            blobs: self.blobs,
        })
    }
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

#[cfg(test)]
mod tests {
    use super::epoch;

    #[test]
    fn the_epoch_is_whole_seconds() {
        assert_eq!(epoch("1700000000").unwrap().to_string(), "2023-11-14T22:13:20Z");
        for bad in ["", "-1", "1.5", "yesterday", "4294967296"] {
            assert!(
                epoch(bad).unwrap_err().to_string().contains("SOURCE_DATE_EPOCH"),
                "{bad}"
            );
        }
    }
}
