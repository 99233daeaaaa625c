//! Operations on many images at once, whose answers say of each one how it went (*Amazon ECR API Reference*,
//! `BatchDeleteImage`, `BatchGetImage`, `BatchCheckLayerAvailability`).

use crate::client::Ecr;
use crate::error::{SERVICE, failed};
use crate::images::{CALLS_AT_ONCE, IDS_A_CALL, ImageId, ImageKey, digest};
use aws_sdk_ecr::types::{self, ImageFailure};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream};
use futures_util::{StreamExt, TryStreamExt};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use towpath_core::{Digest, RepositoryName};
use towpath_elements::{Error, ErrorKind, Result};

/// What became of the parts of one request, which the service answers with success even where all of them failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a batch that was answered has not necessarily been done"]
#[non_exhaustive]
pub struct Batch<T, S = ImageKey> {
    /// What was done.
    pub done: Vec<T>,
    /// What was not, and why.
    pub failed: Vec<BatchFailure<S>>,
}

/// One part of a request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchFailure<S = ImageKey> {
    /// What it was about.
    pub subject: S,
    /// The kind of failure.
    pub code: FailureCode,
    /// What the service said.
    pub reason: String,
}

/// Why one part of a request failed: `ImageFailureCode` and `LayerFailureCode` of the service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureCode {
    /// The digest is none.
    InvalidImageDigest,
    /// The tag is none.
    InvalidImageTag,
    /// The tag is on another image.
    ImageTagDoesNotMatchDigest,
    /// There is no such image.
    ImageNotFound,
    /// Neither a digest nor a tag was given.
    MissingDigestAndTag,
    /// An index holds on to it: delete that first. To be expected of the children of an index that stays.
    ImageReferencedByManifestList,
    /// The key of the repository cannot be used.
    KmsError,
    /// The upstream registry denies access.
    UpstreamAccessDenied,
    /// The upstream registry asks for fewer requests.
    UpstreamTooManyRequests,
    /// The upstream registry cannot be reached.
    UpstreamUnavailable,
    /// It is in the archive.
    ImageInaccessible,
    /// The digest is none of a layer.
    InvalidLayerDigest,
    /// No digest was given.
    MissingLayerDigest,
    /// The answer does not mention it.
    Unreported,
    /// A word that this version does not know.
    Other(String),
}

/// The manifest of an image, byte for byte, as verified by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageManifest {
    /// Its digest.
    pub digest: Digest,
    /// The tag that it was asked for by, where it was.
    pub tag: Option<String>,
    /// Its media type.
    pub media_type: Option<String>,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Whether a repository has a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerState {
    /// The digest of the layer.
    pub digest: Digest,
    /// Whether it is there.
    pub availability: LayerAvailability,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// Its media type.
    pub media_type: Option<String>,
}

/// Whether a layer can be used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LayerAvailability {
    /// It can.
    Available,
    /// It is not there.
    Unavailable,
    /// It is in the archive.
    Archived,
    /// A word that this version does not know.
    Other(String),
}

impl Ecr {
    /// Deletes images with all their tags, 100 with a call and four calls at once. Each item tells of one call.
    ///
    /// An image that an index holds cannot be deleted before the index. Where both are given, in whatever order, the
    /// image is tried again behind the others, as long as that gets anywhere; only the digests of such images are kept
    /// in memory. What then still fails with [`FailureCode::ImageReferencedByManifestList`] is held by an index that
    /// was not given; the reason names it. That is to be expected of the children of an index that stays: they have no
    /// tag of their own.
    ///
    /// Deleting is for good, and nothing protects a signature or an SBOM: it has no tag either. To clean a repository
    /// up, give this [`unreferenced_images`](Self::unreferenced_images) and not all images without a tag.
    ///
    /// ```no_run
    /// # async fn example(ecr: towpath_ecr::Ecr) -> towpath_ecr::Result<()> {
    /// use futures_util::TryStreamExt;
    /// let repository = "shop/web".parse()?;
    /// let unreferenced = ecr.unreferenced_images(&repository);
    /// let digests = unreferenced.map_ok(|image| image.digest);
    /// let mut outcomes = ecr.delete_images(&repository, digests);
    /// while let Some(batch) = outcomes.try_next().await? {
    ///     for failure in batch.failed {
    ///         eprintln!("{failure}");
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// An error of the input, which ends the stream; what the service says to `BatchDeleteImage`.
    pub fn delete_images(
        &self,
        repository: &RepositoryName,
        digests: impl Stream<Item = Result<Digest>> + Send + 'static,
    ) -> BoxStream<'static, Result<Batch<ImageId>>> {
        let held: Arc<Mutex<Vec<BatchFailure>>> = Arc::default();
        let keep = Arc::clone(&held);
        let keys = digests.map_ok(ImageKey::Digest);
        let first = self.delete(repository, keys).map_ok(move |mut batch| {
            let (referenced, failed) = batch
                .failed
                .into_iter()
                .partition(|failure| failure.code == FailureCode::ImageReferencedByManifestList);
            batch.failed = failed;
            lock(&keep).extend::<Vec<_>>(referenced);
            batch
        });
        let (ecr, repository) = (self.clone(), repository.clone());
        let again = stream::once(async move {
            let held = std::mem::take(&mut *lock(&held));
            ecr.delete_held(&repository, held).await
        });
        // An error of the first round ends everything.
        stop_at_error(first.chain(again))
            .try_filter(|batch| std::future::ready(!batch.is_empty()))
            .boxed()
    }

    /// Takes tags away. Each item tells of one call of up to 100.
    ///
    /// An image goes with its last tag: this is how the service has it. To keep it, give it another tag first.
    ///
    /// # Errors
    /// An error of the input, which ends the stream; what the service says to `BatchDeleteImage`.
    pub fn untag_images(
        &self,
        repository: &RepositoryName,
        tags: impl Stream<Item = Result<String>> + Send + 'static,
    ) -> BoxStream<'static, Result<Batch<ImageId>>> {
        let keys = tags.map_ok(ImageKey::Tag);
        stop_at_error(self.delete(repository, keys)).boxed()
    }

    fn delete(
        &self,
        repository: &RepositoryName,
        keys: impl Stream<Item = Result<ImageKey>> + Send + 'static,
    ) -> impl Stream<Item = Result<Batch<ImageId>>> + Send + 'static {
        let (ecr, repository) = (self.clone(), repository.clone());
        keys.try_chunks(IDS_A_CALL)
            .flat_map(|chunk| match chunk {
                Ok(keys) => stream::iter([Ok(keys), Ok(Vec::new())]),
                // What came before the error is done first.
                Err(error) => stream::iter([Ok(error.0), Err(error.1)]),
            })
            .map(move |keys| {
                let (ecr, repository) = (ecr.clone(), repository.clone());
                async move { ecr.delete_chunk(&repository, keys?).await }
            })
            .buffered(CALLS_AT_ONCE)
            .try_filter(|batch| std::future::ready(!batch.is_empty()))
    }

    async fn delete_chunk(&self, repository: &RepositoryName, keys: Vec<ImageKey>) -> Result<Batch<ImageId>> {
        if keys.is_empty() {
            return Ok(Batch::default());
        }
        let call = self
            .api
            .batch_delete_image()
            .repository_name(repository.as_str())
            .set_image_ids(Some(keys.iter().map(ImageKey::identifier).collect()));
        let output = call.send().await;
        let output = output.map_err(|error| failed("delete images of", repository, error).error)?;
        let done = output.image_ids.unwrap_or_default().into_iter();
        let done = done.map(ImageId::read).collect::<Result<Vec<_>>>()?;
        let failures = output.failures.unwrap_or_default();
        Ok(sort(keys, done, failures, |id| (&id.digest, id.tag.as_ref())))
    }

    /// Tries what indexes held again, in rounds, as long as a round deletes something.
    async fn delete_held(
        &self,
        repository: &RepositoryName,
        mut held: Vec<BatchFailure>,
    ) -> Result<Batch<ImageId>> {
        let mut total = Batch::default();
        while !held.is_empty() {
            let keys: Vec<Result<ImageKey>> = held.drain(..).map(|failure| Ok(failure.subject)).collect();
            let batches = self.delete(repository, stream::iter(keys));
            let round: Batch<ImageId> = batches.try_collect().await?;
            let progress = !round.done.is_empty();
            for failure in round.failed {
                match failure.code {
                    FailureCode::ImageReferencedByManifestList if progress => held.push(failure),
                    _ => total.failed.push(failure),
                }
            }
            total.done.extend(round.done);
        }
        Ok(total)
    }

    /// Reads manifests, 100 with a call. Each is verified by its digest. `accepted` names the media types that may be
    /// answered; all are where it is empty. Each item tells of one call; an error ends the stream.
    ///
    /// This counts as a pull, and brings images in where the repository is a pull-through cache.
    ///
    /// # Errors
    /// What the service says to `BatchGetImage`; *protocol* where a manifest is not what its digest says.
    pub fn image_manifests(
        &self,
        repository: &RepositoryName,
        keys: impl Stream<Item = ImageKey> + Send + 'static,
        accepted: &[&str],
    ) -> BoxStream<'static, Result<Batch<ImageManifest>>> {
        let accepted: Vec<String> = accepted.iter().map(ToString::to_string).collect();
        let (ecr, repository) = (self.clone(), repository.clone());
        keys.chunks(IDS_A_CALL)
            .map(move |keys| {
                let (ecr, repository, accepted) = (ecr.clone(), repository.clone(), accepted.clone());
                async move { ecr.manifests_chunk(&repository, keys, accepted).await }
            })
            .buffered(CALLS_AT_ONCE)
            .boxed()
    }

    async fn manifests_chunk(
        &self,
        repository: &RepositoryName,
        keys: Vec<ImageKey>,
        accepted: Vec<String>,
    ) -> Result<Batch<ImageManifest>> {
        let call = self
            .api
            .batch_get_image()
            .repository_name(repository.as_str())
            .set_image_ids(Some(keys.iter().map(ImageKey::identifier).collect()))
            .set_accepted_media_types((!accepted.is_empty()).then_some(accepted));
        let output = call.send().await;
        let output = output.map_err(|error| failed("read manifests of", repository, error).error)?;
        let images = output.images.unwrap_or_default().into_iter();
        let done = images.map(ImageManifest::read).collect::<Result<Vec<_>>>()?;
        let failures = output.failures.unwrap_or_default();
        Ok(sort(keys, done, failures, |image| {
            (&image.digest, image.tag.as_ref())
        }))
    }

    /// Asks which layers a repository has, 100 with a call. Each item tells of one call; an error ends the stream.
    ///
    /// # Errors
    /// What the service says to `BatchCheckLayerAvailability`.
    pub fn check_layers(
        &self,
        repository: &RepositoryName,
        digests: impl Stream<Item = Digest> + Send + 'static,
    ) -> BoxStream<'static, Result<Batch<LayerState, Digest>>> {
        let (ecr, repository) = (self.clone(), repository.clone());
        digests
            .chunks(IDS_A_CALL)
            .map(move |digests| {
                let (ecr, repository) = (ecr.clone(), repository.clone());
                async move { ecr.layers_chunk(&repository, digests).await }
            })
            .buffered(CALLS_AT_ONCE)
            .boxed()
    }

    async fn layers_chunk(
        &self,
        repository: &RepositoryName,
        digests: Vec<Digest>,
    ) -> Result<Batch<LayerState, Digest>> {
        let call = self
            .api
            .batch_check_layer_availability()
            .repository_name(repository.as_str())
            .set_layer_digests(Some(digests.iter().map(ToString::to_string).collect()));
        let output = call.send().await;
        let output = output.map_err(|error| failed("look for layers in", repository, error).error)?;
        let mut batch = Batch::default();
        for layer in output.layers.unwrap_or_default() {
            batch.done.push(LayerState {
                digest: digest(layer.layer_digest)?,
                availability: match layer.layer_availability {
                    None => LayerAvailability::Other(String::new()),
                    Some(word) => LayerAvailability::read(word.as_str()),
                },
                size: layer.layer_size.and_then(|size| u64::try_from(size).ok()),
                media_type: layer.media_type,
            });
        }
        for failure in output.failures.unwrap_or_default() {
            batch.failed.push(BatchFailure {
                subject: digest(failure.layer_digest)?,
                code: FailureCode::read(failure.failure_code.as_ref().map(types::LayerFailureCode::as_str)),
                reason: failure.failure_reason.unwrap_or_default(),
            });
        }
        let told: BTreeSet<&Digest> = batch
            .done
            .iter()
            .map(|layer| &layer.digest)
            .chain(batch.failed.iter().map(|failure| &failure.subject))
            .collect();
        let untold = digests.into_iter().filter(|digest| !told.contains(digest));
        let untold: Vec<Digest> = untold.collect();
        batch.failed.extend(untold.into_iter().map(unreported));
        Ok(batch)
    }
}

/// Sorts an answer about at most 100 keys by what was asked. `names` says which image something done is about.
fn sort<T>(
    keys: Vec<ImageKey>,
    done: Vec<T>,
    failures: Vec<ImageFailure>,
    names: impl Fn(&T) -> (&Digest, Option<&String>),
) -> Batch<T> {
    let mut failed: Vec<BatchFailure> = Vec::with_capacity(failures.len());
    for failure in failures {
        let named = failure.image_id.as_ref();
        let subject = keys.iter().find(|key| {
            named.is_some_and(|id| match key {
                ImageKey::Digest(digest) => id.image_digest() == Some(digest.as_str()),
                ImageKey::Tag(tag) => id.image_tag() == Some(tag),
            })
        });
        // A failure about something else still leaves its key unreported.
        if let Some(subject) = subject {
            failed.push(BatchFailure {
                subject: subject.clone(),
                code: FailureCode::read(failure.failure_code.as_ref().map(types::ImageFailureCode::as_str)),
                reason: failure.failure_reason.unwrap_or_default(),
            });
        }
    }
    let is_done = |key: &ImageKey| {
        done.iter().map(&names).any(|(digest, tag)| match key {
            ImageKey::Digest(wanted) => digest == wanted,
            ImageKey::Tag(wanted) => tag == Some(wanted),
        })
    };
    let untold: Vec<ImageKey> = keys
        .into_iter()
        .filter(|key| !is_done(key) && !failed.iter().any(|failure| failure.subject == *key))
        .collect();
    failed.extend(untold.into_iter().map(unreported));
    Batch { done, failed }
}

fn unreported<S>(subject: S) -> BatchFailure<S> {
    BatchFailure {
        subject,
        code: FailureCode::Unreported,
        reason: "the answer does not mention it".into(),
    }
}

impl<T, S> Batch<T, S> {
    /// Whether nothing was done and nothing failed.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.failed.is_empty()
    }
}

impl<T, S> Default for Batch<T, S> {
    fn default() -> Self {
        Self {
            done: Vec::new(),
            failed: Vec::new(),
        }
    }
}

/// Batches add up, so that `try_collect` gives the outcome of a whole stream.
impl<T, S> Extend<Batch<T, S>> for Batch<T, S> {
    fn extend<I: IntoIterator<Item = Self>>(&mut self, batches: I) {
        for batch in batches {
            self.done.extend(batch.done);
            self.failed.extend(batch.failed);
        }
    }
}

impl<S: fmt::Display> fmt::Display for BatchFailure<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.subject, self.code, self.reason)
    }
}

impl FailureCode {
    fn read(word: Option<&str>) -> Self {
        match word.unwrap_or_default() {
            "InvalidImageDigest" => Self::InvalidImageDigest,
            "InvalidImageTag" => Self::InvalidImageTag,
            "ImageTagDoesNotMatchDigest" => Self::ImageTagDoesNotMatchDigest,
            "ImageNotFound" => Self::ImageNotFound,
            "MissingDigestAndTag" => Self::MissingDigestAndTag,
            "ImageReferencedByManifestList" => Self::ImageReferencedByManifestList,
            "KmsError" => Self::KmsError,
            "UpstreamAccessDenied" => Self::UpstreamAccessDenied,
            "UpstreamTooManyRequests" => Self::UpstreamTooManyRequests,
            "UpstreamUnavailable" => Self::UpstreamUnavailable,
            "ImageInaccessible" => Self::ImageInaccessible,
            "InvalidLayerDigest" => Self::InvalidLayerDigest,
            "MissingLayerDigest" => Self::MissingLayerDigest,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(word) => f.write_str(word),
            known => write!(f, "{known:?}"),
        }
    }
}

impl LayerAvailability {
    fn read(word: &str) -> Self {
        match word {
            "AVAILABLE" => Self::Available,
            "UNAVAILABLE" => Self::Unavailable,
            "ARCHIVED" => Self::Archived,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl ImageManifest {
    fn read(image: types::Image) -> Result<Self> {
        let id = image
            .image_id
            .unwrap_or_else(|| types::ImageIdentifier::builder().build());
        let digest = digest(id.image_digest)?;
        let bytes = Bytes::from(image.image_manifest.unwrap_or_default());
        if !digest.matches(&bytes) {
            return Err(
                Error::new(ErrorKind::Protocol, SERVICE, "read the manifest", digest)
                    .because("what came is not what the digest says"),
            );
        }
        Ok(Self {
            digest,
            tag: id.image_tag,
            media_type: image.image_manifest_media_type,
            bytes,
        })
    }
}

/// A stream that ends with its first error.
fn stop_at_error<T: Send + 'static>(
    stream: impl Stream<Item = Result<T>> + Send + 'static,
) -> impl Stream<Item = Result<T>> + Send + 'static {
    stream.scan(false, |failed, item| {
        let next = (!*failed).then_some(item);
        *failed = matches!(next, Some(Err(_)));
        std::future::ready(next)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
