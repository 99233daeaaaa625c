//! Reading an OCI image layout, in a folder or in a tar archive.

use super::{LAYOUT, REF_NAME, blob_path, broken};
use crate::oci::archive::TarIndex;
use crate::oci::copy::digest_of;
use crate::oci::range::{FileRange, failed};
use crate::oci::source::Reference;
use crate::oci::{Blob, LARGEST_MANIFEST, Manifest, ManifestContent, media};
use bytes::Bytes;
use oci_spec::image::Descriptor;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind as Io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use towpath_core::Digest;
use towpath_elements::{Error, ErrorKind, Result};

/// The one version of the layout that there is.
pub(crate) const VERSION: &str = "1.0.0";
/// The mark of a layout, with its version.
pub(crate) const MARK: &str = "oci-layout";
/// The list of its images.
pub(crate) const INDEX: &str = "index.json";
/// Indexes within indexes, deeper than this, are not searched for referrers.
const DEEPEST: usize = 4;
/// A layout with more manifests than this is not searched for referrers.
const MOST_MANIFESTS: usize = 20_000;

/// Where the files of a layout are.
#[derive(Debug)]
pub(crate) enum Tree {
    Folder(PathBuf),
    Archive(TarIndex),
}

impl Tree {
    /// Where a file is; `None` where there is none.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<FileRange>> {
        let root = match self {
            Self::Archive(tar) => return tar.find(name),
            Self::Folder(root) => root,
        };
        let path = root.join(name);
        let found = match tokio::fs::metadata(&path).await {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), Io::NotFound | Io::NotADirectory) => return Ok(None),
            Err(error) => return Err(failed(LAYOUT, "read", &path)(error)),
        };
        // A pipe would be waited for, a device read without end.
        match found.is_file() {
            true => Ok(Some(FileRange {
                path,
                start: 0,
                size: found.len(),
            })),
            false => Err(broken(path.display()).because("it is not a file")),
        }
    }

    /// The whole of a file of at most `limit` bytes.
    pub(crate) async fn read(&self, name: &str, limit: u64) -> Result<Option<Bytes>> {
        match self.find(name).await? {
            None => Ok(None),
            Some(range) if range.size > limit => Err(broken(self.path_of(name)).because(format!(
                "it has {} bytes, more than the {limit} allowed",
                range.size
            ))),
            Some(range) => range.bytes(LAYOUT).await.map(Some),
        }
    }

    /// What a file is called in errors.
    pub(crate) fn path_of(&self, name: &str) -> String {
        match self {
            Self::Folder(root) => root.join(name).display().to_string(),
            Self::Archive(tar) => format!("{name} of {}", tar.path().display()),
        }
    }
}

/// Reads a layout. What it has learnt of manifests is kept: their bytes cannot change under their digest.
#[derive(Debug)]
pub(crate) struct Reader {
    tree: Tree,
    known: Mutex<HashMap<Digest, Known>>,
}

/// What a search for referrers needs to know of a manifest.
#[derive(Clone, Debug)]
struct Known {
    subject: Option<Digest>,
    descriptor: Descriptor,
    children: Vec<Descriptor>,
}

impl Reader {
    /// A reader of what is a layout by its mark.
    pub(crate) async fn open(tree: Tree) -> Result<Self> {
        let subject = tree.path_of(MARK);
        let Some(mark) = tree.read(MARK, 64 * 1024).await? else {
            let error = Error::new(ErrorKind::NotFound, LAYOUT, "read", &subject)
                .because("there is no such file, so this is no layout");
            return Err(match tree {
                Tree::Folder(_) => {
                    error.advise("check the path; Layout::create makes a layout where there is none")
                }
                Tree::Archive(_) => error,
            });
        };
        check_mark(&mark, &subject)?;
        Ok(Self {
            tree,
            known: Mutex::default(),
        })
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The list of images as it is now.
    pub(crate) async fn index(&self) -> Result<Manifest> {
        let subject = self.tree.path_of(INDEX);
        let Some(bytes) = self.tree.read(INDEX, LARGEST_MANIFEST).await? else {
            return Err(broken(subject).because("there is no such file"));
        };
        read_index(bytes, &subject)
    }

    /// The one entry of a name; `None` where there is none.
    pub(crate) async fn named(&self, name: &str) -> Result<Option<Descriptor>> {
        let index = self.index().await?;
        let mut found: Option<&Descriptor> = None;
        for entry in index
            .children()
            .iter()
            .filter(|entry| name_of(entry) == Some(name))
        {
            match found {
                Some(first) if first.digest() != entry.digest() => {
                    return Err(
                        Error::new(ErrorKind::Conflict, LAYOUT, "read", self.tree.path_of(INDEX))
                            .because(format!(
                                "two images are named {name:?}: {} and {}",
                                first.digest(),
                                entry.digest()
                            ))
                            .advise("name one by its digest"),
                    );
                }
                _ => found = Some(entry),
            }
        }
        Ok(found.cloned())
    }

    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>> {
        match reference {
            Reference::Digest(digest) => self.stored(digest, None).await,
            Reference::Tag(tag) => match self.named(tag.as_str()).await? {
                None => Ok(None),
                Some(entry) => self.described(&entry).await.map(Some),
            },
        }
    }

    /// The manifest that an entry of the index names, which must be there.
    pub(crate) async fn described(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let digest = digest_of(descriptor)?;
        let media_type = descriptor.media_type().to_string();
        let found = self.stored(&digest, Some(&media_type)).await?;
        let broken = || broken(self.tree.path_of(INDEX));
        let manifest =
            found.ok_or_else(|| broken().because(format!("it names {digest}, which is not there")))?;
        if manifest.bytes.len() as u64 != descriptor.size() {
            return Err(broken().because(format!(
                "it says that {digest} has {} bytes, and it has {}",
                descriptor.size(),
                manifest.bytes.len()
            )));
        }
        Ok(manifest)
    }

    /// The manifest of this digest, listed or not.
    async fn stored(&self, digest: &Digest, media_type: Option<&str>) -> Result<Option<Manifest>> {
        let name = blob_path(digest);
        let Some(bytes) = self.tree.read(&name, LARGEST_MANIFEST).await? else {
            return Ok(None);
        };
        let subject = self.tree.path_of(&name);
        let Some(mut hasher) = digest.hasher() else {
            return Err(Error::new(ErrorKind::Unsupported, LAYOUT, "read", subject)
                .because("its digest is of an algorithm that cannot be verified"));
        };
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            return Err(broken(subject).because(format!("its bytes have the digest {found}")));
        }
        let media_type = match media_type {
            Some(media_type) => media_type.to_owned(),
            None => media_type_of(&bytes)
                .ok_or_else(|| broken(subject).because("its bytes are neither a manifest nor an index"))?,
        };
        Manifest::with_digest(found, &media_type, bytes).map(Some)
    }

    pub(crate) async fn blob(&self, descriptor: &Descriptor) -> Result<Blob> {
        let digest = digest_of(descriptor)?;
        let name = blob_path(&digest);
        let Some(range) = self.tree.find(&name).await? else {
            return Err(
                Error::new(ErrorKind::NotFound, LAYOUT, "read", self.tree.path_of(&name))
                    .because("there is no such blob"),
            );
        };
        if range.size != descriptor.size() {
            return Err(broken(self.tree.path_of(&name)).because(format!(
                "it has {} bytes, its descriptor says {}",
                range.size,
                descriptor.size()
            )));
        }
        Ok(range.blob(digest))
    }

    /// What is listed, or lies in a listed index, and has this subject.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let index = self.index().await?;
        // The tag of the specification's fallback: an index of the referrers.
        let fallback = format!("{}-{}", subject.algorithm(), subject.encoded());
        let mut found: Vec<Descriptor> = Vec::new();
        let mut seen = HashSet::new();
        let mut open: Vec<(Descriptor, usize, bool)> = index
            .children()
            .iter()
            .map(|entry| (entry.clone(), 0, name_of(entry) == Some(fallback.as_str())))
            .rev()
            .collect();
        while let Some((entry, depth, lists)) = open.pop() {
            if !is_manifest(&entry) || !seen.insert(entry.digest().clone()) {
                continue;
            }
            if seen.len() > MOST_MANIFESTS {
                return Err(broken(self.tree.path_of(INDEX))
                    .because(format!("it leads to more than {MOST_MANIFESTS} manifests")));
            }
            // An index may name platforms that this layout does not hold.
            let Some(known) = self.know(&entry).await? else {
                continue;
            };
            if known.subject.as_ref() == Some(subject) {
                found.push(known.descriptor);
            }
            if lists {
                found.extend(known.children.iter().cloned());
            }
            if depth < DEEPEST {
                open.extend(
                    known
                        .children
                        .into_iter()
                        .rev()
                        .map(|child| (child, depth + 1, false)),
                );
            }
        }
        let mut listed = HashSet::new();
        found.retain(|referrer| listed.insert(referrer.digest().clone()));
        Ok(found)
    }

    async fn know(&self, entry: &Descriptor) -> Result<Option<Known>> {
        let digest = digest_of(entry)?;
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&digest) {
            return Ok(Some(known.clone()));
        }
        let Some(manifest) = self.stored(&digest, Some(entry.media_type().as_ref())).await? else {
            return Ok(None);
        };
        let known = Known {
            subject: subject_of(&manifest).map(digest_of).transpose()?,
            descriptor: referrer_descriptor(&manifest)?,
            children: manifest.children().to_vec(),
        };
        lock().insert(digest, known.clone());
        Ok(Some(known))
    }
}

/// Whether the mark is of a version that this module reads.
pub(crate) fn check_mark(bytes: &[u8], subject: &str) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Mark {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let mark: Mark = serde_json::from_slice(bytes)
        .map_err(|error| broken(subject).because(format!("it is not the mark of a layout: {error}")))?;
    match mark.version.as_str() {
        VERSION => Ok(()),
        other => Err(Error::new(ErrorKind::Unsupported, LAYOUT, "read", subject)
            .because(format!("it is of version {other:?}, and only {VERSION} is known"))),
    }
}

/// Reads the list of images.
pub(crate) fn read_index(bytes: Bytes, subject: &str) -> Result<Manifest> {
    Manifest::read(media::OCI_INDEX, bytes).map_err(|error| {
        broken(subject)
            .because(error.detail().to_owned())
            .caused_by(error)
    })
}

/// The entries that have a name.
pub(crate) fn references(index: &Manifest) -> Vec<(String, Descriptor)> {
    let entries = index.children().iter();
    entries
        .filter_map(|entry| Some((name_of(entry)?.to_owned(), entry.clone())))
        .collect()
}

/// The name of an entry.
pub(crate) fn name_of(entry: &Descriptor) -> Option<&str> {
    entry.annotations().as_ref()?.get(REF_NAME).map(String::as_str)
}

fn is_manifest(entry: &Descriptor) -> bool {
    media::is_manifest(entry.media_type().as_ref())
}

/// The media type of bytes that came without one: what they say, else what they look like.
fn media_type_of(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(bytes).ok()?;
    match shape {
        Shape {
            media_type: Some(said),
            ..
        } => media::is_manifest(&said).then_some(said),
        Shape {
            manifests: Some(_), ..
        } => Some(media::OCI_INDEX.to_owned()),
        Shape { layers: Some(_), .. } => Some(media::OCI_MANIFEST.to_owned()),
        _ => None,
    }
}

pub(crate) fn subject_of(manifest: &Manifest) -> Option<&Descriptor> {
    match &manifest.content {
        ManifestContent::Image(image) => image.subject().as_ref(),
        ManifestContent::Index(index) => index.subject().as_ref(),
    }
}

/// The entry of a manifest in a list of referrers (*OCI Distribution Specification*, "Listing Referrers").
fn referrer_descriptor(manifest: &Manifest) -> Result<Descriptor> {
    let (kind, annotations) = match &manifest.content {
        ManifestContent::Image(image) => (
            image
                .artifact_type()
                .as_ref()
                .unwrap_or(image.config().media_type())
                .to_string(),
            image.annotations(),
        ),
        ManifestContent::Index(index) => (
            index
                .artifact_type()
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            index.annotations(),
        ),
    };
    let mut descriptor = serde_json::json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.bytes.len(),
    });
    if !kind.is_empty() {
        descriptor["artifactType"] = kind.into();
    }
    if let Some(annotations) = annotations {
        descriptor["annotations"] = serde_json::json!(annotations);
    }
    serde_json::from_value(descriptor).map_err(|error| {
        Error::new(ErrorKind::Protocol, LAYOUT, "read", &manifest.digest)
            .because(error.to_string())
            .caused_by(error)
    })
}
