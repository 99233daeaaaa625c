//! Places that images are read from and written to, whatever they are: a registry's repository here, a directory or an
//! archive elsewhere.

use super::copy::digest_of;
use super::{Blob, BlobSource, Manifest, OciClient, Pushed};
use async_trait::async_trait;
use oci_spec::image::Descriptor;
use std::fmt;
use towpath_core::{Digest, ImageRef, Tag};
use towpath_elements::Result;

/// What names a manifest within one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A name that may move.
    Tag(Tag),
    /// The manifest itself.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

/// A place that images are read from: a repository of a registry, a directory, an archive.
#[async_trait]
pub trait ImageSource: fmt::Debug + Send + Sync {
    /// What the place is called in errors.
    fn name(&self) -> String;

    /// The manifest or index of this name; `None` where there is none. Its bytes have the digest that was asked for.
    ///
    /// # Errors
    /// *Protocol* where the bytes are not what their name or media type says, and what keeps the place from being read.
    async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>>;

    /// Where the bytes of a blob are. Nothing is read yet; a missing one may show only when it is.
    ///
    /// # Errors
    /// *Invalid* where the descriptor's digest is none, *not found* where the place knows that it has no such blob.
    async fn blob(&self, descriptor: &Descriptor) -> Result<Blob>;

    /// The manifests whose subject is this digest.
    ///
    /// # Errors
    /// What keeps the place from being read; having none is no error.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>>;
}

/// A place that images are written to. It takes a manifest only once it has all that the manifest names, so that a
/// manifest that is there is whole.
#[async_trait]
pub trait ImageSink: fmt::Debug + Send + Sync {
    /// What the place is called in errors.
    fn name(&self) -> String;

    /// The digest of the manifest of this name, without reading it; `None` where there is none.
    ///
    /// # Errors
    /// What keeps the place from being read.
    async fn digest(&self, reference: &Reference) -> Result<Option<Digest>>;

    /// The manifests whose subject is this digest.
    ///
    /// # Errors
    /// What keeps the place from being read; having none is no error.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>>;

    /// Makes sure that a blob is there. Several blobs may be put at once, but never the same one twice at a time.
    ///
    /// # Errors
    /// *Protocol* or *invalid* where the bytes are not what the digest says; what the source meets when it is read.
    async fn put_blob(&self, blob: &Blob) -> Result<Pushed>;

    /// Stores a manifest under its digest. What it names is there already.
    ///
    /// # Errors
    /// *Invalid* where a part is missing, *unsupported* where the place does not take such a manifest.
    async fn put_manifest(&self, manifest: &Manifest) -> Result<()>;

    /// Stores a manifest that has a subject, so that [`referrers`](Self::referrers) of the subject names it.
    ///
    /// # Errors
    /// As [`put_manifest`](Self::put_manifest).
    async fn put_referrer(
        &self,
        subject: &Digest,
        manifest: &Manifest,
        descriptor: &Descriptor,
    ) -> Result<()>;

    /// Makes a tag name a manifest, and stores the manifest where it is not there yet. Called once in a copy, last.
    /// Succeeds where the tag names that manifest already, even one that may not move.
    ///
    /// # Errors
    /// *Conflict* where the tag names another manifest and may not move.
    async fn put_tag(&self, tag: &Tag, manifest: &Manifest) -> Result<()>;
}

/// A repository of a registry, and the client that reaches it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    client: OciClient,
    image: ImageRef,
}

impl OciClient {
    /// The repository of an image, to read images from and to write them to.
    pub fn repository(&self, image: &ImageRef) -> Repository {
        Repository {
            client: self.clone(),
            image: ImageRef::new(image.registry().clone(), image.repository().clone()),
        }
    }
}

impl Repository {
    /// The client that reaches it.
    pub fn client(&self) -> &OciClient {
        &self.client
    }

    /// Its address, without tag or digest.
    pub fn image(&self) -> &ImageRef {
        &self.image
    }

    /// A blob of this repository, as a descriptor names it.
    pub(crate) fn located(&self, descriptor: &Descriptor) -> Result<Blob> {
        Ok(Blob {
            digest: digest_of(descriptor)?,
            size: descriptor.size(),
            source: BlobSource::Registry(self.clone()),
        })
    }

    fn at(&self, reference: &Reference) -> ImageRef {
        match reference {
            Reference::Tag(tag) => self.image.tagged(tag.clone()),
            Reference::Digest(digest) => self.image.at(digest.clone()),
        }
    }
}

#[async_trait]
impl ImageSource for Repository {
    fn name(&self) -> String {
        self.image.name()
    }

    async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>> {
        self.client.manifest(&self.at(reference)).await
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<Blob> {
        self.located(descriptor)
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.client.referrers(&self.image, subject).await
    }
}

#[async_trait]
impl ImageSink for Repository {
    fn name(&self) -> String {
        self.image.name()
    }

    async fn digest(&self, reference: &Reference) -> Result<Option<Digest>> {
        self.client.manifest_digest(&self.at(reference)).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.client.referrers(&self.image, subject).await
    }

    async fn put_blob(&self, blob: &Blob) -> Result<Pushed> {
        self.client.push_blob(&self.image, blob).await
    }

    async fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.client.put_manifest(&self.image, manifest).await
    }

    async fn put_referrer(
        &self,
        subject: &Digest,
        manifest: &Manifest,
        descriptor: &Descriptor,
    ) -> Result<()> {
        self.client
            .put_referrer(&self.image, subject, manifest, descriptor)
            .await
    }

    async fn put_tag(&self, tag: &Tag, manifest: &Manifest) -> Result<()> {
        self.client.move_tag(&self.image, tag, manifest).await
    }
}
