//! Copying whole images from any place to any other: what they consist of, and what refers to them. Byte for byte, so
//! that digests and signatures stay good.

use super::source::{ImageSink, ImageSource, Reference};
use super::{Blob, Manifest, ManifestContent, OciClient, Pushed, cosign};
use crate::platform;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::Descriptor;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OnceCell, Semaphore};
use towpath_core::{Digest, ImageRef, Tag};
use towpath_elements::registry::Platform;
use towpath_elements::{Error, ErrorKind, Result};

/// Indexes within indexes, and referrers of referrers, deeper than this are refused.
const DEEPEST: usize = 4;
/// Manifests of one copy, children and referrers together; more are refused.
const MOST_MANIFESTS: usize = 10_000;

const SERVICE: &str = "image copy";
const ATTEMPTED: &str = "copy";

/// The digest of a descriptor, as [`ImageRef::at`] and [`Reference::Digest`] take it: [`Descriptor`] is a type of another
/// crate, with a digest type of its own. For children of an index, layers, and lists of referrers.
///
/// ```no_run
/// # async fn example(oci: towpath_ecr::oci::OciClient, image: towpath_ecr::ImageRef) -> towpath_ecr::Result<()> {
/// use towpath_ecr::oci::digest_of;
/// if let Some(index) = oci.manifest(&image).await? {
///     for child in index.children() {
///         let child = image.at(digest_of(child)?);
///         println!("{child}: {} blobs", oci.manifest(&child).await?.map_or(0, |child| child.blobs().len()));
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// *Invalid* where it is no digest of an algorithm that is known here.
pub fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    Ok(descriptor.digest().to_string().parse()?)
}

/// Whether a layer lies elsewhere by design and no registry holds it.
pub(crate) fn is_foreign(descriptor: &Descriptor) -> bool {
    let media_type = descriptor.media_type().to_string();
    media_type.contains("nondistributable") || media_type.contains("foreign")
}

/// A reference within a place, as it is usually written.
fn named(place: &str, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{place}:{tag}"),
        Reference::Digest(digest) => format!("{place}@{digest}"),
    }
}

/// What a copy takes along, and how. The default is everything that refers to the image by OCI's own way, and nothing
/// that cosign keeps under tags.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyOptions {
    /// The platform that is wanted; empty, as by default, is the image as it is, with all of them. With one, the manifest of that
    /// platform is copied alone, without the index around it: an index names all its parts, and a registry takes it
    /// only with all of them. Several are refused for the same reason.
    pub platforms: Vec<Platform>,
    /// Whether signatures, attestations, SBOMs and whatever else refers to the image, or to a part of it, come along; they
    /// do by default.
    pub referrers: bool,
    /// Whether what cosign has stored for the image, or a part of it, under tags that are made of their digests
    /// (`sha256-<digits>.sig`, `.att`, `.sbom`) comes along under the same tags; not by default. Costs three looks
    /// for each part.
    pub cosign: bool,
    /// How many blobs travel at once; 4 by default.
    pub parallel: usize,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            platforms: Vec::new(),
            referrers: true,
            cosign: false,
            parallel: 4,
        }
    }
}

/// What a copy did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Copied {
    /// What the target now has: the source's manifest or index, or the child of it where one platform was wanted.
    pub manifest: Manifest,
    /// Manifests and indexes that were written, referrers among them.
    pub manifests: u64,
    /// Blobs whose bytes were sent.
    pub sent: u64,
    /// Blobs that were there.
    pub present: u64,
    /// Blobs that the registry took from another of its repositories.
    pub mounted: u64,
    /// The size of the blobs that were sent, in bytes.
    pub bytes: u64,
}

/// Copies an image with everything it consists of and what refers to it. Parts go before the whole, several at once;
/// what the target has is not read from the source; the tag is set once, last.
///
/// ```no_run
/// # async fn example(oci: towpath_ecr::oci::OciClient) -> towpath_ecr::Result<()> {
/// use towpath_ecr::oci::{CopyOptions, copy};
/// let from = oci.repository(&"quay.io/acme/base".parse()?);
/// let to = oci.repository(&"registry.example/mirror/base".parse()?);
/// let tag: towpath_ecr::Tag = "1".parse()?;
/// let copied = copy(&from, &tag.clone().into(), &to, Some(&tag), &CopyOptions::default()).await?;
/// println!("{}: {} bytes sent", copied.manifest.digest, copied.bytes);
/// # Ok(()) }
/// ```
///
/// Each place has a client of its own, so this is how an image goes from one account to another:
///
/// ```no_run
/// # async fn example(
/// #     source: towpath_ecr::Ecr, target: towpath_ecr::Ecr, image: towpath_ecr::ImageRef,
/// #     digest: towpath_ecr::Digest, mirror: towpath_ecr::ImageRef,
/// # ) -> towpath_ecr::Result<()> {
/// use towpath_ecr::oci::{CopyOptions, copy};
/// let from = source.oci().repository(&image);
/// let to = target.oci().repository(&mirror);
/// copy(&from, &digest.into(), &to, mirror.tag(), &CopyOptions::default()).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// *Not found* where the source lacks the image or a part of it, *protocol* where a part is not what its descriptor
/// says, *invalid* for images that are nested more than four deep or have more than 10,000 parts, and what either place
/// meets.
pub async fn copy(
    source: &dyn ImageSource,
    reference: &Reference,
    sink: &dyn ImageSink,
    tag: Option<&Tag>,
    options: &CopyOptions,
) -> Result<Copied> {
    let walk = Walk {
        source,
        sink,
        subject: named(&source.name(), reference),
        permits: Semaphore::new(options.parallel.max(1)),
        parallel: options.parallel.max(1),
        blobs: Mutex::default(),
        manifests: Mutex::default(),
        done: Mutex::default(),
    };
    let (named, manifest) = tokio::try_join!(walk.named(tag), walk.required(reference))?;
    let top = match options.platforms.is_empty() {
        true => manifest,
        false => walk.of_platform(manifest, &options.platforms).await?,
    };
    let tagged = tag.is_some() && named.as_ref() == Some(&top.digest);
    let there = tagged || walk.is_there(&top.digest).await?;
    walk.parts(&top, there, 0).await?;
    let parts = walk.visited();
    let referrers = match options.referrers {
        true => walk.referrers_of(parts.clone()).await?,
        false => Vec::new(),
    };
    // The tag brings the manifest along, but what refers to it should find it there.
    if !there && (tag.is_none() || !referrers.is_empty()) {
        walk.put(sink.put_manifest(&top)).await?;
    }
    walk.copy_referrers(referrers).await?;
    if options.cosign {
        for copied in cosign::copy_tagged(source, sink, parts, options).await? {
            walk.add(&copied);
        }
    }
    if let Some(tag) = tag.filter(|_| !tagged) {
        walk.put(sink.put_tag(tag, &top)).await?;
    }
    Ok(walk.copied(top))
}

/// A manifest that refers to another one, as the source lists it.
struct Referrer {
    subject: Digest,
    descriptor: Descriptor,
}

/// What was done, and what is being done, in one copy.
struct Walk<'a> {
    source: &'a dyn ImageSource,
    sink: &'a dyn ImageSink,
    subject: String,
    permits: Semaphore,
    parallel: usize,
    /// Blobs that were seen: two images that share one wait for the same transfer.
    blobs: Mutex<HashMap<Digest, Arc<OnceCell<()>>>>,
    /// Manifests that were seen, likewise.
    manifests: Mutex<BTreeMap<Digest, Arc<OnceCell<()>>>>,
    done: Mutex<Done>,
}

#[derive(Clone, Copy, Default)]
struct Done {
    manifests: u64,
    sent: u64,
    present: u64,
    mounted: u64,
    bytes: u64,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Walk<'_> {
    fn refuse(&self, kind: ErrorKind, detail: impl Into<String>) -> Error {
        Error::new(kind, SERVICE, ATTEMPTED, &self.subject).because(detail.into())
    }

    fn copied(&self, manifest: Manifest) -> Copied {
        let done = *held(&self.done);
        Copied {
            manifest,
            manifests: done.manifests,
            sent: done.sent,
            present: done.present,
            mounted: done.mounted,
            bytes: done.bytes,
        }
    }

    fn add(&self, copied: &Copied) {
        let mut done = held(&self.done);
        done.manifests += copied.manifests;
        done.sent += copied.sent;
        done.present += copied.present;
        done.mounted += copied.mounted;
        done.bytes += copied.bytes;
    }

    /// What the tag names in the target.
    async fn named(&self, tag: Option<&Tag>) -> Result<Option<Digest>> {
        match tag {
            Some(tag) => self.sink.digest(&tag.clone().into()).await,
            None => Ok(None),
        }
    }

    async fn is_there(&self, digest: &Digest) -> Result<bool> {
        Ok(self.sink.digest(&digest.clone().into()).await?.is_some())
    }

    async fn required(&self, reference: &Reference) -> Result<Manifest> {
        self.source.manifest(reference).await?.ok_or_else(|| {
            self.refuse(
                ErrorKind::NotFound,
                format!("{} has no {reference}", self.source.name()),
            )
            .advise(
                "check the name and the digest; a missing permission or a missing pull-through rule looks the same",
            )
        })
    }

    /// The manifest of a descriptor, which must be what the descriptor says.
    async fn described(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let digest = digest_of(descriptor)?;
        let manifest = self.required(&digest.clone().into()).await?;
        let (size, media_type) = (manifest.bytes.len() as u64, descriptor.media_type().to_string());
        let lies = |detail: String| Err(self.refuse(ErrorKind::Protocol, format!("{digest} {detail}")));
        if size != descriptor.size() {
            return lies(format!(
                "has {size} bytes, its descriptor says {}",
                descriptor.size()
            ));
        }
        if manifest.media_type != media_type {
            return lies(format!(
                "is {}, its descriptor says {media_type}",
                manifest.media_type
            ));
        }
        Ok(manifest)
    }

    /// The one manifest of the wanted platform.
    async fn of_platform(&self, manifest: Manifest, wanted: &[Platform]) -> Result<Manifest> {
        let [wanted] = wanted else {
            return Err(self
                .refuse(
                    ErrorKind::Invalid,
                    "an index names all its parts, so it cannot be copied with some of them",
                )
                .advise("copy all platforms, or one of them without the index"));
        };
        let parts = platform::platforms(self.source, &manifest).await?;
        let fits =
            |part: &Option<Platform>| part.as_ref().is_some_and(|part| platform::matches(wanted, part));
        let Some(part) = parts.iter().find(|part| fits(&part.platform)) else {
            let has: Vec<String> = parts
                .iter()
                .filter_map(|part| part.platform.as_ref().map(ToString::to_string))
                .collect();
            return Err(self.refuse(
                ErrorKind::NotFound,
                format!("it has no {wanted}; it has {}", has.join(", ")),
            ));
        };
        let child = manifest
            .children()
            .iter()
            .find(|child| child.digest().to_string() == part.digest.as_str());
        match child {
            Some(child) => self.described(child).await,
            None => Ok(manifest),
        }
    }

    /// All digests that were come across.
    fn visited(&self) -> Vec<Digest> {
        held(&self.manifests).keys().cloned().collect()
    }

    /// Notes a digest; the first to come does the work, the others wait for it.
    fn first(&self, digest: &Digest) -> Result<Arc<OnceCell<()>>> {
        let mut manifests = held(&self.manifests);
        if manifests.len() >= MOST_MANIFESTS && !manifests.contains_key(digest) {
            return Err(self.refuse(
                ErrorKind::Invalid,
                format!("it has more than {MOST_MANIFESTS} parts"),
            ));
        }
        Ok(Arc::clone(manifests.entry(digest.clone()).or_default()))
    }

    /// Copies what a manifest names, and not the manifest. Where it is `there`, so are its parts, and they are noted.
    fn parts<'b>(&'b self, manifest: &'b Manifest, there: bool, depth: usize) -> BoxFuture<'b, Result<()>> {
        Box::pin(self.all_parts(manifest, there, depth))
    }

    async fn all_parts(&self, manifest: &Manifest, there: bool, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(self.refuse(
                ErrorKind::Invalid,
                format!("it is nested more than {DEEPEST} deep"),
            ));
        }
        self.first(&manifest.digest)?;
        // Owned, because the compiler cannot tell that a future that borrows from an iterator may be sent.
        stream::iter(manifest.children().to_vec())
            .map(|child| async move { self.child(&child, there, depth + 1).await })
            .buffer_unordered(self.parallel)
            .try_collect::<()>()
            .await?;
        if there {
            return Ok(());
        }
        let mut blobs: Vec<Descriptor> = manifest.blobs().into_iter().cloned().collect();
        blobs.retain(|blob| !is_foreign(blob));
        stream::iter(blobs)
            .map(|blob| async move { self.blob(&blob).await })
            .buffer_unordered(self.parallel)
            .try_collect::<()>()
            .await
    }

    /// Copies a child of an index, parts first.
    async fn child(&self, descriptor: &Descriptor, parent_is_there: bool, depth: usize) -> Result<()> {
        let digest = digest_of(descriptor)?;
        // A digest cannot contain itself, so nobody waits for one who waits for him.
        let cell = self.first(&digest)?;
        cell.get_or_try_init(|| async {
            let is_index = Manifest::is_index(descriptor.media_type().as_ref());
            if parent_is_there && !is_index {
                return Ok(());
            }
            let there = parent_is_there || self.is_there(&digest).await?;
            if there && !is_index {
                return Ok(());
            }
            let manifest = self.described(descriptor).await?;
            self.parts(&manifest, there, depth).await?;
            match there {
                true => Ok(()),
                false => self.put(self.sink.put_manifest(&manifest)).await,
            }
        })
        .await
        .copied()
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<()> {
        let digest = digest_of(descriptor)?;
        let cell = Arc::clone(held(&self.blobs).entry(digest).or_default());
        cell.get_or_try_init(|| async {
            let blob = self.source.blob(descriptor).await?;
            let _permit = self.permits.acquire().await.map_err(|error| {
                self.refuse(ErrorKind::Cancelled, "the copy has ended")
                    .caused_by(error)
            })?;
            let pushed = self.sink.put_blob(&blob).await?;
            let mut done = held(&self.done);
            match pushed {
                Pushed::Present => done.present += 1,
                Pushed::Mounted => done.mounted += 1,
                Pushed::Sent => {
                    done.sent += 1;
                    done.bytes += blob.size;
                }
            }
            Ok(())
        })
        .await
        .copied()
    }

    async fn put(&self, putting: impl Future<Output = Result<()>>) -> Result<()> {
        putting.await?;
        held(&self.done).manifests += 1;
        Ok(())
    }

    /// What the source lists for each of these.
    async fn referrers_of(&self, subjects: Vec<Digest>) -> Result<Vec<Referrer>> {
        let lists: Vec<Vec<Referrer>> = stream::iter(subjects)
            .map(|subject| async move {
                let found = self.source.referrers(&subject).await?;
                Ok::<_, Error>(
                    found
                        .into_iter()
                        .map(|descriptor| Referrer {
                            subject: subject.clone(),
                            descriptor,
                        })
                        .collect(),
                )
            })
            .buffered(self.parallel)
            .try_collect()
            .await?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// Copies referrers, and what refers to them in turn.
    async fn copy_referrers(&self, mut found: Vec<Referrer>) -> Result<()> {
        for _ in 0..DEEPEST {
            if found.is_empty() {
                return Ok(());
            }
            let before: HashSet<Digest> = self.visited().into_iter().collect();
            let mut known: HashMap<Digest, Vec<String>> = HashMap::new();
            for referrer in &found {
                if !known.contains_key(&referrer.subject) {
                    let listed = self.sink.referrers(&referrer.subject).await?;
                    let listed = listed.iter().map(|known| known.digest().to_string()).collect();
                    known.insert(referrer.subject.clone(), listed);
                }
            }
            // One after the other: where the target keeps the list in a tag, two writers would lose one of them.
            for referrer in &found {
                let digest = digest_of(&referrer.descriptor)?;
                let is_known = known
                    .get(&referrer.subject)
                    .is_some_and(|known| known.iter().any(|known| known == digest.as_str()));
                self.first(&digest)?;
                if !is_known {
                    self.copy_referrer(referrer).await?;
                }
            }
            let new = self
                .visited()
                .into_iter()
                .filter(|digest| !before.contains(digest));
            found = self.referrers_of(new.collect()).await?;
        }
        match found.is_empty() {
            true => Ok(()),
            false => Err(self.refuse(
                ErrorKind::Invalid,
                format!("what refers to it is referred to more than {DEEPEST} deep"),
            )),
        }
    }

    async fn copy_referrer(&self, referrer: &Referrer) -> Result<()> {
        let manifest = self.described(&referrer.descriptor).await?;
        let subject = match &manifest.content {
            ManifestContent::Image(image) => image.subject(),
            ManifestContent::Index(index) => index.subject(),
        };
        let names = subject.as_ref().map(|subject| subject.digest().to_string());
        if names.as_deref() != Some(referrer.subject.as_str()) {
            return Err(self.refuse(
                ErrorKind::Protocol,
                format!(
                    "{} is listed as referring to {}, and does not",
                    manifest.digest, referrer.subject
                ),
            ));
        }
        self.parts(&manifest, false, 0).await?;
        let putting = self
            .sink
            .put_referrer(&referrer.subject, &manifest, &referrer.descriptor);
        self.put(putting).await
    }
}

impl OciClient {
    /// Pushes blobs, a few at once, all or the first error.
    ///
    /// # Errors
    /// Those of [`push_blob`](Self::push_blob).
    pub async fn push_blobs(&self, repository: &ImageRef, blobs: Vec<Blob>) -> Result<Vec<Pushed>> {
        let mut seen = HashSet::new();
        let distinct: Vec<Blob> = blobs
            .into_iter()
            .filter(|blob| seen.insert(blob.digest.clone()))
            .collect();
        stream::iter(distinct)
            .map(|blob| async move { self.push_blob(repository, &blob).await })
            .buffered(self.settings().parallel.max(1))
            .try_collect()
            .await
    }

    /// Copies an image, given by digest, with everything it consists of and what refers to it, between repositories
    /// that this client reaches: [`copy`] with the options' defaults. The tag of `to`, where it has one, is set last.
    /// Both are read with this client's credentials: across accounts, use [`copy`] with the
    /// [`repository`](Self::repository) of each account's client.
    ///
    /// # Errors
    /// *Invalid* without a digest, and those of [`copy`].
    pub async fn copy_image(&self, from: &ImageRef, to: &ImageRef) -> Result<Copied> {
        let refuse = |detail: &str| {
            Error::new(ErrorKind::Invalid, self.service(), ATTEMPTED, from).because(detail.to_owned())
        };
        let digest = from
            .digest()
            .ok_or_else(|| refuse("it is not given by digest").advise("resolve it first"))?;
        if to.digest().is_some_and(|wanted| wanted != digest) {
            return Err(refuse("the target names another digest"));
        }
        let options = CopyOptions {
            parallel: self.settings().parallel,
            ..CopyOptions::default()
        };
        let (source, sink) = (self.repository(from), self.repository(to));
        copy(&source, &digest.clone().into(), &sink, to.tag(), &options).await
    }

    /// The manifest, or *not found*.
    pub(crate) async fn required_manifest(&self, image: &ImageRef) -> Result<Manifest> {
        self.manifest(image).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, self.service(), "read the manifest of", image)
                .because("the registry has no such image")
                .advise(
                    "check the name and the digest; a missing permission or a missing pull-through rule looks the same",
                )
        })
    }
}
