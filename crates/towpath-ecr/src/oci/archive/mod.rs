//! Images in tar archives: an OCI image layout in a tar (`skopeo` and `buildah` name it `oci-archive:`), and what
//! `docker save` writes (`docker-archive:`).

mod docker;
mod docker_write;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod tar_index;
mod tar_write;

pub use docker::{ArchivedImage, DockerArchive};
pub use docker_write::DockerArchiveWriter;
pub(crate) use tar_index::TarIndex;

use super::layout::read::{INDEX, MARK, Reader, Tree, references};
use super::layout::write::{UNFINISHED, unwritable};
use super::layout::{Layout, broken as broken_layout};
use super::range::blocking;
use super::source::{ImageSink, ImageSource, Reference};
use super::{Blob, Manifest, Pushed};
use async_trait::async_trait;
use oci_spec::image::Descriptor;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tar_write::TarFile;
use tempfile::TempDir;
use towpath_core::{Digest, Tag};
use towpath_elements::{Error, ErrorKind, Result};

pub(crate) const ARCHIVE: &str = "image archive";

fn broken(subject: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, ARCHIVE, "read", subject)
}

/// An OCI image layout in a tar file, to read images from. Cheap to clone.
///
/// Only the headers of the tar are read when it is opened; blobs are read in place. It must not be compressed, and have
/// at most 65,536 entries.
///
/// ```no_run
/// # async fn example() -> towpath_ecr::Result<()> {
/// use towpath_ecr::oci::{ImageSource, OciArchive, Reference};
/// let archive = OciArchive::open("app.tar").await?;
/// let tag: towpath_ecr::Tag = "1.4".parse()?;
/// let manifest = archive.manifest(&Reference::Tag(tag)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OciArchive {
    path: PathBuf,
    reader: Arc<Reader>,
}

impl OciArchive {
    /// Opens an archive.
    ///
    /// # Errors
    /// *Not found* where there is no such file or no layout in it; *unsupported* where it is compressed, has sparse
    /// files, or is of another version than 1.0.0; *protocol* where it is no tar, is cut off, or has names or links that
    /// lead out of it, devices, or one name twice.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let tar = TarIndex::open(&path).await?;
        if tar.find(MARK)?.is_none() && tar.find(docker::MANIFEST)?.is_some() {
            return Err(Error::new(ErrorKind::NotFound, ARCHIVE, "read", path.display())
                .because("there is no OCI layout in it, but a manifest.json")
                .advise("open it as a Docker archive (docker-archive:)"));
        }
        let reader = Reader::open(Tree::Archive(tar)).await?;
        Ok(Self {
            path,
            reader: Arc::new(reader),
        })
    }

    /// All entries of its `index.json`, those without a name too.
    ///
    /// # Errors
    /// *Protocol* where the file is not what it must be, or has more than 4 MiB.
    pub async fn entries(&self) -> Result<Vec<Descriptor>> {
        Ok(self.reader.index().await?.children().to_vec())
    }

    /// The images that have a name (`org.opencontainers.image.ref.name`), in the order of `index.json`.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub async fn references(&self) -> Result<Vec<(String, Descriptor)>> {
        Ok(references(&self.reader.index().await?))
    }

    /// The image of a name, tag or not; `None` where there is none.
    ///
    /// # Errors
    /// *Conflict* where two images have it; as [`entries`](Self::entries).
    pub async fn resolve(&self, name: &str) -> Result<Option<Descriptor>> {
        self.reader.named(name).await
    }
}

#[async_trait]
impl ImageSource for OciArchive {
    fn name(&self) -> String {
        format!("oci-archive:{}", self.path.display())
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

/// An OCI archive that is being written. Images are gathered in a hidden folder beside the target, which goes with this
/// value; [`finish`](Self::finish) makes the archive of them. Until then there is none, or the old one.
///
/// The same images make the same bytes: files sorted, times zero, owner root.
///
/// ```no_run
/// # async fn example(source: &dyn towpath_ecr::oci::ImageSource) -> towpath_ecr::Result<()> {
/// use towpath_ecr::oci::{CopyOptions, OciArchiveWriter, Reference, copy};
/// let archive = OciArchiveWriter::create("app.tar").await?;
/// let tag: towpath_ecr::Tag = "1.4".parse()?;
/// copy(source, &Reference::Tag(tag.clone()), &archive, Some(&tag), &CopyOptions::default()).await?;
/// archive.finish().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OciArchiveWriter {
    target: PathBuf,
    staged: Staged,
}

/// The images that an archive is made of, in a folder of their own.
#[derive(Debug)]
struct Staged {
    layout: Layout,
    folder: TempDir,
}

impl Staged {
    /// Beside the target, since there is room for an image where one is to be.
    async fn beside(target: &Path) -> Result<Self> {
        let parent = folder_of(target);
        let folder = blocking(parent.clone(), ARCHIVE, move || {
            let mut builder = tempfile::Builder::new();
            builder.prefix(UNFINISHED);
            builder.tempdir_in(&parent).map_err(unwritable(&parent))
        })
        .await?;
        Ok(Self {
            layout: Layout::create(folder.path().join("layout")).await?,
            folder,
        })
    }
}

/// The folder that a file lies in.
fn folder_of(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

impl OciArchiveWriter {
    /// Begins an archive that will lie at `target`. Its folder must be there.
    ///
    /// # Errors
    /// *Not found* or *denied* where the folder cannot be written.
    pub async fn create(target: impl Into<PathBuf>) -> Result<Self> {
        let target = target.into();
        let staged = Staged::beside(&target).await?;
        Ok(Self { target, staged })
    }

    /// Writes the archive, and puts it in the place of what is there.
    ///
    /// # Errors
    /// *Invalid* where no image was put into it; what keeps the file from being written.
    pub async fn finish(self) -> Result<()> {
        blocking(self.target.clone(), ARCHIVE, move || {
            let packed = pack(self.staged.layout.path(), &self.target);
            drop(self.staged.folder);
            packed
        })
        .await
    }
}

/// A layout as a tar file.
fn pack(root: &Path, target: &Path) -> Result<()> {
    let refuse = unwritable(target);
    let index = fs::read(root.join(INDEX)).map_err(&refuse)?;
    let mut index: serde_json::Value =
        serde_json::from_slice(&index).map_err(|error| broken_layout(INDEX).caused_by(error))?;
    let entries = index
        .get_mut("manifests")
        .and_then(serde_json::Value::as_array_mut);
    let Some(entries) = entries.filter(|entries| !entries.is_empty()) else {
        return Err(nothing(target));
    };
    // By content, and not by who was first.
    entries.sort_by_key(ToString::to_string);
    let mut tar = TarFile::beside(target)?;
    tar.bytes(MARK, &fs::read(root.join(MARK)).map_err(&refuse)?)?;
    tar.bytes(INDEX, &crate::json::canonical(index)?)?;
    tar.folder("blobs")?;
    for algorithm in sorted(&root.join("blobs"))? {
        let folder = format!("blobs/{algorithm}");
        tar.folder(&folder)?;
        for blob in sorted(&root.join(&folder))? {
            let name = format!("{folder}/{blob}");
            let file = fs::File::open(root.join(&name)).map_err(&refuse)?;
            tar.file(&name, file)?;
        }
    }
    tar.finish()
}

fn nothing(target: &Path) -> Error {
    Error::new(ErrorKind::Invalid, ARCHIVE, "write", target.display())
        .because("no image was put into it")
        .advise("copy an image into it first")
}

/// The names in a folder of ours.
fn sorted(folder: &Path) -> Result<Vec<String>> {
    let names: std::io::Result<Vec<String>> = fs::read_dir(folder).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    });
    let mut names = names.map_err(unwritable(folder))?;
    // What a put that was given up may not yet have taken away.
    names.retain(|name| !name.starts_with(UNFINISHED));
    names.sort_unstable();
    Ok(names)
}

#[async_trait]
impl ImageSink for OciArchiveWriter {
    fn name(&self) -> String {
        format!("oci-archive:{}", self.target.display())
    }

    async fn digest(&self, reference: &Reference) -> Result<Option<Digest>> {
        self.staged.layout.digest(reference).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        ImageSink::referrers(&self.staged.layout, subject).await
    }

    async fn put_blob(&self, blob: &Blob) -> Result<Pushed> {
        self.staged.layout.put_blob(blob).await
    }

    async fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.staged.layout.put_manifest(manifest).await
    }

    async fn put_referrer(
        &self,
        subject: &Digest,
        manifest: &Manifest,
        descriptor: &Descriptor,
    ) -> Result<()> {
        self.staged
            .layout
            .put_referrer(subject, manifest, descriptor)
            .await
    }

    async fn put_tag(&self, tag: &Tag, manifest: &Manifest) -> Result<()> {
        self.staged.layout.put_tag(tag, manifest).await
    }
}
