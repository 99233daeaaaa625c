//! What `docker save` writes: `manifest.json`, which names a configuration and layers (*Docker Image Specification*
//! 1.2, "Combined Image JSON + Filesystem Changeset Format").

use super::TarIndex;
use crate::oci::copy::digest_of;
use crate::oci::range::{FileRange, blocking, failed};
use crate::oci::source::{ImageSource, Reference};
use crate::oci::{Blob, LARGEST_MANIFEST, Manifest, media};
use async_trait::async_trait;
use oci_spec::image::Descriptor;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use towpath_core::{Digest, Hasher, ImageRef};
use towpath_elements::{Error, ErrorKind, Result};

pub(super) const SERVICE: &str = "Docker archive";
pub(super) const MANIFEST: &str = "manifest.json";
const MOST_IMAGES: usize = 1_000;
const MOST_LAYERS: usize = 1_000;

/// A Docker archive, to read images from: what `docker save`, `podman save` and `skopeo copy … docker-archive:` write.
/// Cheap to clone.
///
/// Such an archive holds no manifests. One is made for each image, of OCI types, and always the same for the same
/// archive: the configuration as it is, so the image ID stays, and the layers as they are, mostly uncompressed. Blobs
/// are read in place; the archive itself must not be compressed.
///
/// ```no_run
/// # async fn example() -> towpath_ecr::Result<()> {
/// use towpath_ecr::oci::DockerArchive;
/// let archive = DockerArchive::open("saved.tar").await?;
/// for image in archive.images() {
///     let (names, digest) = (&image.names, &image.digest);
///     // …
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DockerArchive {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    images: Vec<ArchivedImage>,
    manifests: HashMap<Digest, Manifest>,
    blobs: HashMap<Digest, FileRange>,
}

/// An image of a Docker archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchivedImage {
    /// What it was called where it was saved. None where it was saved by its ID.
    pub names: Vec<ImageRef>,
    /// The digest of the manifest that is made for it.
    pub digest: Digest,
}

/// An entry of `manifest.json`.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(serde::Deserialize)]
struct Config {
    rootfs: Rootfs,
}

#[derive(serde::Deserialize)]
struct Rootfs {
    diff_ids: Vec<Digest>,
}

/// Reads `manifest.json`.
pub(super) fn read_list(bytes: &[u8]) -> serde_json::Result<Vec<Listed>> {
    serde_json::from_slice(bytes)
}

/// Reads the diff IDs of a configuration.
pub(super) fn read_config(bytes: &[u8]) -> serde_json::Result<Vec<Digest>> {
    let config: Config = serde_json::from_slice(bytes)?;
    Ok(config.rootfs.diff_ids)
}

impl DockerArchive {
    /// Opens an archive.
    ///
    /// # Errors
    /// *Not found* where there is no such file or no `manifest.json` in it, *unsupported* where it is compressed or has
    /// sparse files, *protocol* where it is no tar, is cut off, lacks a file that it names, or has names or links that
    /// lead out of it, devices, or one name twice.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let tar = TarIndex::open(&path).await?;
        let Some(list) = tar.find(MANIFEST)? else {
            return Err(Error::new(ErrorKind::NotFound, SERVICE, "read", path.display())
                .because("there is no manifest.json in it")
                .advise("if it holds an OCI layout, open it as an OCI archive (oci-archive:)"));
        };
        let mut opening = Opening {
            tar,
            images: Vec::new(),
            manifests: HashMap::new(),
            blobs: HashMap::new(),
            hashed: HashMap::new(),
        };
        let listed = read_list(&opening.small(MANIFEST, list).await?)
            .map_err(|error| opening.broken(format!("{MANIFEST}: {error}")).caused_by(error))?;
        if listed.len() > MOST_IMAGES {
            return Err(opening.broken(format!("it has more than {MOST_IMAGES} images")));
        }
        for image in listed {
            opening.image(image).await?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                images: opening.images,
                manifests: opening.manifests,
                blobs: opening.blobs,
            }),
        })
    }

    /// The images, in the order of `manifest.json`.
    pub fn images(&self) -> &[ArchivedImage] {
        &self.inner.images
    }

    /// The image of a full name, or of none where the archive has only one.
    ///
    /// # Errors
    /// *Not found* where none has the name, *conflict* where several have it or none is given and there are several.
    pub fn resolve(&self, name: Option<&ImageRef>) -> Result<Digest> {
        // Docker's own rule for a name without a tag.
        let wanted = name.map(|name| format!("{}:{}", name.name(), name.reference()));
        let is_wanted = |image: &&ArchivedImage| match &wanted {
            None => true,
            Some(wanted) => image.names.iter().any(|name| name.to_string() == *wanted),
        };
        self.only(is_wanted, wanted.as_deref().unwrap_or("an image"))?
            .ok_or_else(|| {
                let error = Error::new(ErrorKind::NotFound, SERVICE, "read", self.inner.path.display());
                match wanted {
                    Some(wanted) => {
                        error.because(format!("no image in it is named {wanted}; {}", self.list()))
                    }
                    None => error.because("there is no image in it"),
                }
            })
    }

    fn only(&self, is_wanted: impl Fn(&&ArchivedImage) -> bool, wanted: &str) -> Result<Option<Digest>> {
        let mut found: Vec<&Digest> = self
            .inner
            .images
            .iter()
            .filter(is_wanted)
            .map(|image| &image.digest)
            .collect();
        found.dedup();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            _ => Err(
                Error::new(ErrorKind::Conflict, SERVICE, "read", self.inner.path.display())
                    .because(format!("several images are meant by {wanted}; {}", self.list()))
                    .advise("name one in full, or by the digest that it has here"),
            ),
        }
    }

    /// What there is, for errors.
    fn list(&self) -> String {
        let names: Vec<String> = self
            .inner
            .images
            .iter()
            .flat_map(|image| &image.names)
            .take(10)
            .map(ToString::to_string)
            .collect();
        format!("it has {} images: {}", self.inner.images.len(), names.join(", "))
    }
}

/// An archive while it is opened.
struct Opening {
    tar: TarIndex,
    images: Vec<ArchivedImage>,
    manifests: HashMap<Digest, Manifest>,
    blobs: HashMap<Digest, FileRange>,
    /// Compressed layers by where they lie: several images may have one.
    hashed: HashMap<u64, Digest>,
}

impl Opening {
    async fn image(&mut self, listed: Listed) -> Result<()> {
        let config = self.required(&listed.config)?;
        let bytes = self.small(&listed.config, config.clone()).await?;
        let diff_ids = read_config(&bytes).map_err(|error| {
            self.broken(format!("{}: {error}", listed.config))
                .caused_by(error)
        })?;
        let layers = listed.layers.unwrap_or_default();
        if diff_ids.len() != layers.len() || layers.len() > MOST_LAYERS {
            return Err(self.broken(format!(
                "{} describes {} layers, {MANIFEST} names {} (at most {MOST_LAYERS})",
                listed.config,
                diff_ids.len(),
                layers.len()
            )));
        }
        let config_digest = Digest::sha256_of(&bytes);
        let mut descriptors = Vec::new();
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            descriptors.push(self.layer(layer, diff_id).await?);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": config.size,
            },
            "layers": descriptors,
        });
        let manifest = Manifest::read(media::OCI_MANIFEST, crate::json::canonical(manifest)?)?;
        let names: Result<Vec<ImageRef>, _> = listed
            .repo_tags
            .unwrap_or_default()
            .iter()
            .map(|name| name.parse())
            .collect();
        self.images.push(ArchivedImage {
            names: names.map_err(|error| self.broken(format!("{MANIFEST}: {error}")).caused_by(error))?,
            digest: manifest.digest.clone(),
        });
        self.blobs.entry(config_digest).or_insert(config);
        self.manifests.insert(manifest.digest.clone(), manifest);
        Ok(())
    }

    /// The descriptor of a layer. An uncompressed one has its diff ID as digest, which is verified when it is read; a
    /// compressed one is hashed here, as nothing else says its digest.
    async fn layer(&mut self, name: &str, diff_id: Digest) -> Result<Value> {
        let range = self.required(name)?;
        let (service, path) = (SERVICE, range.path.clone());
        let head = FileRange {
            size: range.size.min(4),
            ..range.clone()
        };
        let media_type = match head.bytes(service).await?.as_ref() {
            [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
            [0x28, 0xb5, 0x2f, 0xfd] => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => "application/vnd.oci.image.layer.v1.tar",
        };
        let digest = match (media_type.contains('+'), self.hashed.get(&range.start)) {
            (false, _) => diff_id,
            (true, Some(digest)) => digest.clone(),
            (true, None) => {
                let hashing = range.clone();
                let digest = blocking(path, service, move || hash(&hashing)).await?;
                self.hashed.insert(range.start, digest.clone());
                digest
            }
        };
        let size = range.size;
        self.blobs.entry(digest.clone()).or_insert(range);
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": size }))
    }

    fn required(&self, name: &str) -> Result<FileRange> {
        // Some tools write "./" before every name.
        let plain = name.strip_prefix("./").unwrap_or(name);
        self.tar
            .find(plain)?
            .ok_or_else(|| self.broken(format!("{MANIFEST} names {name:?}, which is not in it")))
    }

    async fn small(&self, name: &str, range: FileRange) -> Result<bytes::Bytes> {
        if range.size > LARGEST_MANIFEST {
            return Err(self.broken(format!(
                "{name} has {} bytes, more than the {LARGEST_MANIFEST} allowed",
                range.size
            )));
        }
        range.bytes(SERVICE).await
    }

    fn broken(&self, detail: String) -> Error {
        Error::new(ErrorKind::Protocol, SERVICE, "read", self.tar.path().display()).because(detail)
    }
}

fn hash(range: &FileRange) -> Result<Digest> {
    let refuse = failed(SERVICE, "read", &range.path);
    let mut file = File::open(&range.path).map_err(&refuse)?;
    file.seek(SeekFrom::Start(range.start)).map_err(&refuse)?;
    let mut bytes = file.take(range.size);
    let mut hasher = Hasher::sha256();
    let mut piece = vec![0; 128 * 1024];
    loop {
        match bytes.read(&mut piece).map_err(&refuse)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&piece[..read]),
        }
    }
}

#[async_trait]
impl ImageSource for DockerArchive {
    fn name(&self) -> String {
        format!("docker-archive:{}", self.inner.path.display())
    }

    async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>> {
        let digest = match reference {
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(tag) => self.only(
                |image| image.names.iter().any(|name| name.tag() == Some(tag)),
                tag.as_str(),
            )?,
        };
        Ok(digest.and_then(|digest| self.inner.manifests.get(&digest).cloned()))
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<Blob> {
        let digest = digest_of(descriptor)?;
        let refuse = |kind| {
            let subject = format!("{digest} of {}", self.inner.path.display());
            Error::new(kind, SERVICE, "read", subject)
        };
        match self.inner.blobs.get(&digest) {
            None => Err(refuse(ErrorKind::NotFound).because("there is no such blob")),
            Some(range) if range.size != descriptor.size() => {
                Err(refuse(ErrorKind::Protocol).because(format!(
                    "it has {} bytes, its descriptor says {}",
                    range.size,
                    descriptor.size()
                )))
            }
            Some(range) => Ok(range.clone().blob(digest)),
        }
    }

    async fn referrers(&self, _subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}
