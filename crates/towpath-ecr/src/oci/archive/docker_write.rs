//! Writing what `docker load` reads (*Docker Image Specification* 1.2, "Combined Image JSON + Filesystem Changeset
//! Format"): `manifest.json`, configurations, and layers as uncompressed tars.

use super::docker::{MANIFEST, SERVICE, read_config};
use super::tar_write::TarFile;
use super::{Staged, folder_of, nothing};
use crate::oci::copy::{digest_of, is_foreign};
use crate::oci::layout::blob_path;
use crate::oci::layout::write::{unfinished, unwritable};
use crate::oci::range::blocking;
use crate::oci::source::{ImageSink, Reference};
use crate::oci::{Blob, LARGEST_MANIFEST, Manifest, ManifestContent, Pushed};
use async_trait::async_trait;
use flate2::read::MultiGzDecoder;
use oci_spec::image::{Descriptor, ImageManifest};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::NamedTempFile;
use towpath_core::{Digest, ImageRef, Tag};
use towpath_elements::{Error, ErrorKind, Result};

/// A Docker archive that is being written. Images are gathered in a hidden folder beside the target, which goes with this
/// value; [`finish`](Self::finish) makes the archive of them. Until then there is none, or the old one.
///
/// It takes images of one platform each, no indexes and no artifacts. Layers are decompressed, and held against the
/// diff IDs of the configuration. Manifests are not kept: an image that is read back has the same ID and another digest.
/// The same images make the same bytes.
///
/// ```no_run
/// # async fn example(source: &dyn towpath_ecr::oci::ImageSource) -> towpath_ecr::Result<()> {
/// use towpath_ecr::oci::{CopyOptions, DockerArchiveWriter, Reference, copy};
/// let archive = DockerArchiveWriter::create("app.tar", &"shop/web".parse()?).await?;
/// let tag: towpath_ecr::Tag = "1.4".parse()?;
/// let mut options = CopyOptions::default();
/// options.platforms = vec![towpath_ecr::registry::Platform::linux("amd64")];
/// options.referrers = false;
/// copy(source, &Reference::Tag(tag.clone()), &archive, Some(&tag), &options).await?;
/// archive.finish().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DockerArchiveWriter {
    target: PathBuf,
    repository: ImageRef,
    largest_layer: u64,
    staged: Staged,
    images: Mutex<BTreeMap<Digest, Image>>,
}

/// An image that has been put.
#[derive(Clone, Debug)]
struct Image {
    tags: BTreeSet<Tag>,
    config: Digest,
    /// The digest of each layer as it was put, and of the tar within.
    layers: Vec<(Digest, Digest)>,
}

impl DockerArchiveWriter {
    /// Begins an archive that will lie at `target`, with images of this repository. Its folder must be there.
    ///
    /// # Errors
    /// *Not found* or *denied* where the folder cannot be written.
    pub async fn create(target: impl Into<PathBuf>, repository: &ImageRef) -> Result<Self> {
        let target = target.into();
        let staged = Staged::beside(&target).await?;
        Ok(Self {
            target,
            repository: repository.clone(),
            largest_layer: 32 << 30,
            staged,
            images: Mutex::default(),
        })
    }

    /// How many bytes a layer may have once it is decompressed; 32 GiB by default.
    #[must_use]
    pub fn largest_layer(mut self, bytes: u64) -> Self {
        self.largest_layer = bytes;
        self
    }

    /// Writes the archive, and puts it in the place of what is there.
    ///
    /// # Errors
    /// *Invalid* where no image was put into it, or a layer is larger than [`largest_layer`](Self::largest_layer);
    /// *protocol* where a layer is not what its image's configuration says; *unsupported* where it is compressed by
    /// other than gzip; what keeps the file from being written.
    pub async fn finish(self) -> Result<()> {
        blocking(self.target.clone(), SERVICE, move || {
            let images = self.images().clone();
            let packing = Packing {
                root: self.staged.layout.path(),
                target: &self.target,
                largest_layer: self.largest_layer,
            };
            let packed = packing.pack(&self.repository, &images);
            drop(self.staged.folder);
            packed
        })
        .await
    }

    fn images(&self) -> MutexGuard<'_, BTreeMap<Digest, Image>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the archive needs to know of an image, whose blobs have been put.
    async fn image(&self, manifest: &Manifest) -> Result<Image> {
        let refuse = |kind, detail: &str| {
            Error::new(kind, SERVICE, "write", &manifest.digest).because(detail.to_owned())
        };
        let content: &ImageManifest = match &manifest.content {
            ManifestContent::Image(content) => content,
            ManifestContent::Index(_) => {
                return Err(refuse(
                    ErrorKind::Unsupported,
                    "it is an index, and the archive takes single images",
                )
                .advise("choose one platform, or write an OCI archive"));
            }
        };
        if content.layers().iter().any(is_foreign) {
            return Err(refuse(
                ErrorKind::Unsupported,
                "it has layers that no place holds, and the archive must have them all",
            ));
        }
        let config = self.staged.layout.blob_of(content.config()).await?;
        let bytes = config.bytes(LARGEST_MANIFEST).await?;
        let diff_ids = read_config(&bytes).map_err(|error| {
            refuse(
                ErrorKind::Unsupported,
                "its configuration is not that of an image",
            )
            .advise("write artifacts to an OCI archive")
            .caused_by(error)
        })?;
        if diff_ids.len() != content.layers().len() {
            return Err(refuse(
                ErrorKind::Protocol,
                &format!(
                    "its configuration describes {} layers, it has {}",
                    diff_ids.len(),
                    content.layers().len()
                ),
            ));
        }
        let layers: Result<_> = content
            .layers()
            .iter()
            .zip(diff_ids)
            .map(|(layer, diff_id)| Ok((digest_of(layer)?, diff_id)))
            .collect();
        Ok(Image {
            tags: BTreeSet::new(),
            config: config.digest,
            layers: layers?,
        })
    }
}

/// The making of the file.
struct Packing<'a> {
    root: &'a Path,
    target: &'a Path,
    largest_layer: u64,
}

impl Packing<'_> {
    fn pack(&self, repository: &ImageRef, images: &BTreeMap<Digest, Image>) -> Result<()> {
        if images.is_empty() {
            return Err(nothing(self.target));
        }
        let mut tar = TarFile::beside(self.target)?;
        let (mut written, mut listed) = (HashSet::new(), Vec::new());
        for image in images.values() {
            let mut layers = Vec::new();
            for (digest, diff_id) in &image.layers {
                let name = format!("{}.tar", diff_id.encoded());
                if written.insert(name.clone()) {
                    tar.file(&name, self.layer(digest, diff_id)?)?;
                }
                layers.push(name);
            }
            let config = format!("{}.json", image.config.encoded());
            if written.insert(config.clone()) {
                tar.file(&config, self.open(&image.config)?)?;
            }
            let names = image.tags.iter().map(|tag| repository.tagged(tag.clone()));
            listed.push(json!({
                "Config": config,
                "RepoTags": names.collect::<Vec<_>>(),
                "Layers": layers,
            }));
        }
        tar.bytes(MANIFEST, &crate::json::canonical(listed.into())?)?;
        tar.finish()
    }

    fn open(&self, digest: &Digest) -> Result<File> {
        File::open(self.root.join(blob_path(digest))).map_err(unwritable(self.target))
    }

    /// A layer without its compression, known to be what the configuration says.
    fn layer(&self, digest: &Digest, diff_id: &Digest) -> Result<File> {
        let refuse = unwritable(self.target);
        let mut file = self.open(digest)?;
        let mut head = Vec::new();
        (&file).take(4).read_to_end(&mut head).map_err(&refuse)?;
        file.rewind().map_err(&refuse)?;
        match head.as_slice() {
            [0x1f, 0x8b, ..] => self.unpacked(digest, diff_id, MultiGzDecoder::new(BufReader::new(file))),
            [0x28, 0xb5, 0x2f, 0xfd] => Err(Error::new(ErrorKind::Unsupported, SERVICE, "write", digest)
                .because("the layer is compressed by zstd, which older readers do not know")
                .advise("write an OCI archive")),
            _ if digest == diff_id => Ok(file),
            _ => self.unpacked(digest, diff_id, file),
        }
    }

    fn unpacked(&self, digest: &Digest, diff_id: &Digest, mut bytes: impl Read) -> Result<File> {
        let refuse = |kind, detail: String| Error::new(kind, SERVICE, "write", digest).because(detail);
        let failed = unwritable(self.target);
        let Some(mut hasher) = diff_id.hasher() else {
            return Err(refuse(
                ErrorKind::Unsupported,
                format!("its diff ID {diff_id} cannot be verified"),
            ));
        };
        let mut unpacked: NamedTempFile = unfinished(&folder_of(self.target)).map_err(&failed)?;
        let (mut piece, mut size) = (vec![0; 128 * 1024], 0);
        loop {
            let read = bytes.read(&mut piece).map_err(|error| {
                refuse(
                    ErrorKind::Protocol,
                    format!("the layer cannot be decompressed: {error}"),
                )
                .caused_by(error)
            })?;
            if read == 0 {
                break;
            }
            size += read as u64;
            if size > self.largest_layer {
                return Err(refuse(
                    ErrorKind::Invalid,
                    format!(
                        "the layer has more than {} bytes, decompressed",
                        self.largest_layer
                    ),
                ));
            }
            hasher.update(&piece[..read]);
            unpacked.write_all(&piece[..read]).map_err(&failed)?;
        }
        let found = hasher.finish();
        if found != *diff_id {
            return Err(refuse(
                ErrorKind::Protocol,
                format!("the layer is {found}, decompressed, and its image's configuration says {diff_id}"),
            ));
        }
        // The name is not needed any more; the file goes when it is closed.
        let mut file = unpacked.into_file();
        file.rewind().map_err(failed)?;
        Ok(file)
    }
}

#[async_trait]
impl ImageSink for DockerArchiveWriter {
    fn name(&self) -> String {
        format!("docker-archive:{}", self.target.display())
    }

    async fn digest(&self, reference: &Reference) -> Result<Option<Digest>> {
        let images = self.images();
        Ok(match reference {
            Reference::Digest(digest) => images.contains_key(digest).then(|| digest.clone()),
            Reference::Tag(tag) => images
                .iter()
                .find(|(_, image)| image.tags.contains(tag))
                .map(|(digest, _)| digest.clone()),
        })
    }

    async fn referrers(&self, _subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }

    async fn put_blob(&self, blob: &Blob) -> Result<Pushed> {
        self.staged.layout.put_blob(blob).await
    }

    async fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let image = self.image(manifest).await?;
        self.staged.layout.put_manifest(manifest).await?;
        self.images().entry(manifest.digest.clone()).or_insert(image);
        Ok(())
    }

    async fn put_referrer(
        &self,
        subject: &Digest,
        manifest: &Manifest,
        _descriptor: &Descriptor,
    ) -> Result<()> {
        Err(
            Error::new(ErrorKind::Unsupported, SERVICE, "write", &manifest.digest)
                .because(format!(
                    "it refers to {subject}, and the archive holds nothing but images"
                ))
                .advise("copy without referrers, or write an OCI archive"),
        )
    }

    async fn put_tag(&self, tag: &Tag, manifest: &Manifest) -> Result<()> {
        self.put_manifest(manifest).await?;
        let mut images = self.images();
        for (digest, image) in images.iter_mut() {
            match *digest == manifest.digest {
                true => image.tags.insert(tag.clone()),
                false => image.tags.remove(tag),
            };
        }
        Ok(())
    }
}
