//! An OCI image layout: images in a folder (*OCI Image Format Specification* 1.1, `image-layout.md`).

pub(crate) mod read;
pub(crate) mod write;

use super::copy::{digest_of, is_foreign};
use super::range::blocking;
use super::source::{ImageSink, ImageSource, Reference};
use super::{Blob, Manifest, Pushed};
use async_trait::async_trait;
use oci_spec::image::Descriptor;
use read::{Reader, Tree};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use towpath_core::{Digest, Tag};
use towpath_elements::{Error, ErrorKind, Result};

pub(crate) const LAYOUT: &str = "OCI image layout";
/// The annotation that names an image in a layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes within indexes, deeper than this, are not taken for whole.
const DEEPEST: usize = 4;

pub(crate) fn broken(subject: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, LAYOUT, "read", subject)
}

/// Where a blob lies. A digest has neither slashes nor dots alone, so it leads nowhere else.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.encoded())
}

/// A folder with images, as `skopeo` and `buildah` name it `oci:`. Cheap to clone.
///
/// Everything that is written appears whole or not at all, whatever ends the process. Writers of several processes
/// may work on one layout: they take turns at its list of images, by a lock on the file `oci-layout`. Tools that do not
/// lock, such as `skopeo`, are best not run at the same time.
///
/// ```no_run
/// # async fn example() -> towpath_ecr::Result<()> {
/// use towpath_ecr::oci::{ImageSource, Layout, digest_of};
/// let layout = Layout::open("build/images").await?;
/// for (name, descriptor) in layout.references().await? {
///     let digest = digest_of(&descriptor)?;
///     println!("{name} {digest}");
///     if let Some(manifest) = layout.manifest(&digest.into()).await? {
///         println!("  {} platforms, {} blobs", manifest.children().len(), manifest.blobs().len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    reader: Arc<Reader>,
}

impl Layout {
    /// Opens the layout in a folder.
    ///
    /// # Errors
    /// *Not found* where there is none, *unsupported* where it is of another version than 1.0.0.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let reader = Reader::open(Tree::Folder(root.clone())).await?;
        Ok(Self {
            root,
            reader: Arc::new(reader),
        })
    }

    /// Opens the layout in a folder, and makes an empty one where there is none.
    ///
    /// # Errors
    /// *Conflict* where the folder holds other files; as [`open`](Self::open).
    pub async fn create(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let owned = root.clone();
        blocking(root.clone(), LAYOUT, move || {
            write::check_vacant(&owned)?;
            write::create(&owned)
        })
        .await?;
        Self::open(root).await
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// All entries of `index.json`, those without a name too.
    ///
    /// # Errors
    /// *Protocol* where the file is not what it must be, or has more than 4 MiB.
    pub async fn entries(&self) -> Result<Vec<Descriptor>> {
        Ok(self.reader.index().await?.children().to_vec())
    }

    /// The images that have a name (`org.opencontainers.image.ref.name`), in the order of `index.json`. A name is mostly
    /// a tag, but some tools write a whole reference.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub async fn references(&self) -> Result<Vec<(String, Descriptor)>> {
        Ok(read::references(&self.reader.index().await?))
    }

    /// The image of a name, tag or not; `None` where there is none.
    ///
    /// # Errors
    /// *Conflict* where two images have it; as [`entries`](Self::entries).
    pub async fn resolve(&self, name: &str) -> Result<Option<Descriptor>> {
        self.reader.named(name).await
    }

    /// A blob that is there.
    pub(crate) async fn blob_of(&self, descriptor: &Descriptor) -> Result<Blob> {
        self.reader.blob(descriptor).await
    }

    fn at(&self, digest: &Digest) -> PathBuf {
        self.root.join(blob_path(digest))
    }

    /// Whether a manifest is there with all that it names. Another tool may have left a part away.
    async fn is_whole(&self, digest: &Digest, depth: usize) -> Result<bool> {
        if depth > DEEPEST {
            return Ok(false);
        }
        let reference = Reference::Digest(digest.clone());
        let Some(manifest) = self.reader.manifest(&reference).await? else {
            return Ok(false);
        };
        if self.missing(&manifest).await?.is_some() {
            return Ok(false);
        }
        for child in manifest.children() {
            if !Box::pin(self.is_whole(&digest_of(child)?, depth + 1)).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A part that a manifest names and that is not there, or not of the size it must have.
    async fn missing(&self, manifest: &Manifest) -> Result<Option<Digest>> {
        let blobs = manifest.blobs().into_iter().filter(|blob| !is_foreign(blob));
        for part in blobs.chain(manifest.children()) {
            let digest = digest_of(part)?;
            match self.reader.tree().find(&blob_path(&digest)).await? {
                Some(range) if range.size == part.size() => {}
                _ => return Ok(Some(digest)),
            }
        }
        Ok(None)
    }

    async fn store(&self, manifest: &Manifest) -> Result<()> {
        if let Some(part) = self.missing(manifest).await? {
            return Err(Error::new(ErrorKind::Invalid, LAYOUT, "write", &manifest.digest)
                .because(format!("it names {part}, which is not there"))
                .advise("put its parts first"));
        }
        write::store(self.at(&manifest.digest), manifest.bytes.clone()).await
    }
}

#[async_trait]
impl ImageSource for Layout {
    fn name(&self) -> String {
        format!("oci:{}", self.root.display())
    }

    async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>> {
        self.reader.manifest(reference).await
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<Blob> {
        self.reader.blob(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.reader.referrers(subject).await
    }
}

#[async_trait]
impl ImageSink for Layout {
    fn name(&self) -> String {
        ImageSource::name(self)
    }

    async fn digest(&self, reference: &Reference) -> Result<Option<Digest>> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => match self.reader.named(tag.as_str()).await {
                Ok(Some(entry)) => digest_of(&entry)?,
                Ok(None) => return Ok(None),
                // Of two images with one name none is it; the next writer puts that right.
                Err(error) if error.is_conflict() => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        Ok(self.is_whole(&digest, 0).await?.then_some(digest))
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.reader.referrers(subject).await
    }

    async fn put_blob(&self, blob: &Blob) -> Result<Pushed> {
        match self.reader.tree().find(&blob_path(&blob.digest)).await? {
            // What another tool left half written has another size; it is written anew.
            Some(range) if range.size == blob.size => Ok(Pushed::Present),
            _ => {
                write::receive(self.at(&blob.digest), blob.verified().await?).await?;
                Ok(Pushed::Sent)
            }
        }
    }

    async fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.store(manifest).await?;
        write::change(&self.root, write::Change::new(manifest, None)?).await
    }

    async fn put_referrer(
        &self,
        subject: &Digest,
        manifest: &Manifest,
        _descriptor: &Descriptor,
    ) -> Result<()> {
        let said = read::subject_of(manifest).map(digest_of).transpose()?;
        if said.as_ref() != Some(subject) {
            return Err(
                Error::new(ErrorKind::Invalid, LAYOUT, "write", &manifest.digest).because(format!(
                    "it does not name {subject} as its subject, and a layout knows no other way"
                )),
            );
        }
        self.put_manifest(manifest).await
    }

    async fn put_tag(&self, tag: &Tag, manifest: &Manifest) -> Result<()> {
        self.store(manifest).await?;
        write::change(&self.root, write::Change::new(manifest, Some(tag.as_str()))?).await
    }
}
