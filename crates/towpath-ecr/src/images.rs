//! What a repository holds: images, image ids and referrers as streams (*Amazon ECR API Reference*, `DescribeImages`,
//! `ListImages`, `ListImageReferrers`).

use crate::client::Ecr;
use crate::error::{SERVICE, failed};
use crate::pages::{Page, items};
use aws_sdk_ecr::types::{
    self, ArtifactStatusFilter, DescribeImagesFilter, ImageDetail, ImageIdentifier, ImageStatusFilter,
    ListImageReferrersFilter, ListImagesFilter,
};
use aws_smithy_types::DateTime;
use futures_util::stream::{self, BoxStream, Stream};
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use towpath_core::{Digest, RepositoryName};
use towpath_elements::{Error, ErrorKind, Result};

/// The longest pages that the service has.
const IMAGES_A_PAGE: i32 = 1000;
const REFERRERS_A_PAGE: i32 = 50;
/// How many ids one call may name.
pub(crate) const IDS_A_CALL: usize = 100;
/// How many such calls are under way at once.
pub(crate) const CALLS_AT_ONCE: usize = 4;

/// Where the service keeps an image. Only an active one can be pulled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageStatus {
    /// It can be pulled.
    Active,
    /// It is in the archive.
    Archived,
    /// It is on its way back from the archive.
    Activating,
    /// A word that this version does not know.
    Other(String),
}

/// Which images are listed. Every image that is not archived, unless more is said.
///
/// ```
/// use towpath_ecr::{ImageFilter, ImageStatus};
/// let tagged = ImageFilter::new().tagged();
/// let archived = ImageFilter::new().status(ImageStatus::Archived);
/// # let _ = (tagged, archived);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFilter {
    tagged: Option<bool>,
    status: Option<Wanted>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Any,
    One(ImageStatus),
}

/// An image, an index or an artifact of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredImage {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its tags, as the service has them.
    pub tags: Vec<String>,
    /// Its size in bytes, compressed; of an index, that of its largest image.
    pub size: Option<u64>,
    /// When it was pushed.
    pub pushed: Option<Timestamp>,
    /// When it was last pulled. The service looks once in 24 hours.
    pub last_pull: Option<Timestamp>,
    /// The media type of its manifest.
    pub media_type: Option<String>,
    /// The kind of artifact, or the media type of its configuration.
    pub artifact_type: Option<String>,
    /// The image that it is about, where it is a referrer.
    pub subject: Option<Digest>,
    /// Where it is kept; `None` where the service does not say.
    pub status: Option<ImageStatus>,
    /// When it was last put into the archive.
    pub archived: Option<Timestamp>,
    /// When it last came back from there.
    pub activated: Option<Timestamp>,
}

/// One tag of an image, or an image without one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct ImageId {
    /// The digest of its manifest.
    pub digest: Digest,
    /// One of its tags. An image with several is listed several times.
    pub tag: Option<String>,
}

/// What an image is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageKey {
    /// The digest of its manifest.
    Digest(Digest),
    /// A tag.
    Tag(String),
}

/// What an image was asked for by, and the image; `None` where there is none.
pub type Described = (ImageKey, Option<StoredImage>);

/// Which referrers are listed: the active ones, unless more is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferrerFilter {
    artifact_types: Vec<String>,
    status: Option<Wanted>,
}

/// An artifact that names an image as its subject: a signature, an SBOM, an attestation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Referrer {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The media type of its manifest.
    pub media_type: String,
    /// The kind of artifact.
    pub artifact_type: Option<String>,
    /// The size of its manifest in bytes.
    pub size: Option<u64>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Where it is kept; `None` where the service does not say.
    pub status: Option<ImageStatus>,
}

impl Ecr {
    /// Every image of a repository, with all that the service knows of it, in the service's order.
    ///
    /// Memory is bound by two pages of 1000: the one being read, and the next, which is fetched meanwhile. An error
    /// ends the stream. Nothing is sent before it is polled.
    ///
    /// ```no_run
    /// # async fn example(ecr: towpath_ecr::Ecr) -> towpath_ecr::Result<()> {
    /// use futures_util::TryStreamExt;
    /// use towpath_ecr::ImageFilter;
    /// let mut images = ecr.images(&"shop/web".parse()?, ImageFilter::new().tagged());
    /// while let Some(image) = images.try_next().await? {
    ///     println!("{} {:?}", image.digest, image.pushed);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What the service says to `DescribeImages`; *protocol* where it names what is no digest.
    pub fn images(
        &self,
        repository: &RepositoryName,
        filter: ImageFilter,
    ) -> BoxStream<'static, Result<StoredImage>> {
        const ATTEMPTED: &str = "list the images of";
        let (api, repository) = (self.api.clone(), repository.clone());
        items(ATTEMPTED, repository.clone(), move |token| {
            let repository = repository.clone();
            let call = api
                .describe_images()
                .repository_name(repository.as_str())
                .set_filter(filter.describing())
                .max_results(IMAGES_A_PAGE)
                .set_next_token(token);
            async move {
                let page = call.send().await;
                let page = page.map_err(|error| failed(ATTEMPTED, &repository, error).error)?;
                let images = page.image_details.unwrap_or_default().into_iter();
                Ok(Page {
                    items: images.map(StoredImage::read).collect::<Result<_>>()?,
                    next: page.next_token,
                })
            }
        })
    }

    /// The digest of every image of a repository with each of its tags: cheaper than [`images`](Self::images), and
    /// streamed the same way.
    ///
    /// # Errors
    /// What the service says to `ListImages`; *protocol* where it names what is no digest.
    pub fn image_ids(
        &self,
        repository: &RepositoryName,
        filter: ImageFilter,
    ) -> BoxStream<'static, Result<ImageId>> {
        const ATTEMPTED: &str = "list the image ids of";
        let (api, repository) = (self.api.clone(), repository.clone());
        items(ATTEMPTED, repository.clone(), move |token| {
            let repository = repository.clone();
            let call = api
                .list_images()
                .repository_name(repository.as_str())
                .set_filter(filter.listing())
                .max_results(IMAGES_A_PAGE)
                .set_next_token(token);
            async move {
                let page = call.send().await;
                let page = page.map_err(|error| failed(ATTEMPTED, &repository, error).error)?;
                let ids = page.image_ids.unwrap_or_default().into_iter();
                Ok(Page {
                    items: ids.map(ImageId::read).collect::<Result<_>>()?,
                    next: page.next_token,
                })
            }
        })
    }

    /// The artifacts that name an image as their subject, by the service's API, in pages of 50.
    ///
    /// # Errors
    /// What the service says to `ListImageReferrers`; *protocol* where it names what is no digest.
    pub fn image_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        filter: ReferrerFilter,
    ) -> BoxStream<'static, Result<Referrer>> {
        const ATTEMPTED: &str = "list the referrers of";
        let (api, repository, subject) = (self.api.clone(), repository.clone(), subject.clone());
        let about = format!("{repository}@{subject}");
        items(ATTEMPTED, about.clone(), move |token| {
            let about = about.clone();
            let subject = types::SubjectIdentifier::builder().image_digest(subject.as_str());
            let call = api
                .list_image_referrers()
                .repository_name(repository.as_str())
                .set_filter(filter.words())
                .max_results(REFERRERS_A_PAGE)
                .set_next_token(token);
            async move {
                let subject = subject.build().map_err(|error| {
                    Error::new(ErrorKind::Invalid, SERVICE, ATTEMPTED, &about).caused_by(error)
                })?;
                let page = call.subject_id(subject).send().await;
                let page = page.map_err(|error| failed(ATTEMPTED, &about, error).error)?;
                let referrers = page.referrers.unwrap_or_default().into_iter();
                Ok(Page {
                    items: referrers.map(Referrer::read).collect::<Result<_>>()?,
                    next: page.next_token,
                })
            }
        })
    }

    /// Looks up images by digest or tag, up to 100 with one call, four calls at once. Answers come in the order of the
    /// questions.
    ///
    /// The service refuses a whole call for one image that it does not have; such a call is halved until the missing
    /// one is alone, so missing images cost up to 2 × log₂ 100 further calls each.
    ///
    /// # Errors
    /// What the service says to `DescribeImages`. An error ends the stream.
    pub fn describe_images(
        &self,
        repository: &RepositoryName,
        keys: impl Stream<Item = ImageKey> + Send + 'static,
    ) -> BoxStream<'static, Result<Described>> {
        let (ecr, repository) = (self.clone(), repository.clone());
        keys.chunks(IDS_A_CALL)
            .map(move |keys| {
                let (ecr, repository) = (ecr.clone(), repository.clone());
                async move { ecr.describe_chunk(&repository, keys).await }
            })
            .buffered(CALLS_AT_ONCE)
            .map_ok(|described| stream::iter(described.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    async fn describe_chunk(
        &self,
        repository: &RepositoryName,
        keys: Vec<ImageKey>,
    ) -> Result<Vec<Described>> {
        const ATTEMPTED: &str = "describe images of";
        let mut described = Vec::with_capacity(keys.len());
        // The first keys stand last.
        let mut open = vec![keys];
        while let Some(mut keys) = open.pop() {
            let call = self
                .api
                .describe_images()
                .repository_name(repository.as_str())
                .set_image_ids(Some(keys.iter().map(ImageKey::identifier).collect()));
            match call.send().await {
                Ok(output) => {
                    let found = output.image_details.unwrap_or_default().into_iter();
                    let found = found.map(StoredImage::read).collect::<Result<Vec<_>>>()?;
                    described.extend(keys.into_iter().map(|key| {
                        let image = found.iter().find(|image| key.names(image));
                        let image = image.cloned();
                        (key, image)
                    }));
                }
                Err(error) => {
                    let failed = failed(ATTEMPTED, repository, error);
                    match failed.code.as_str() {
                        "ImageNotFoundException" if keys.len() > 1 => {
                            let rest = keys.split_off(keys.len() / 2);
                            open.extend([rest, keys]);
                        }
                        "ImageNotFoundException" => {
                            described.extend(keys.into_iter().map(|key| (key, None)));
                        }
                        _ => return Err(failed.error),
                    }
                }
            }
        }
        Ok(described)
    }
}

impl ImageFilter {
    /// Every image that is not archived.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only images that have a tag.
    #[must_use]
    pub fn tagged(mut self) -> Self {
        self.tagged = Some(true);
        self
    }

    /// Only images that have none. These are not images that nobody needs: children of an index, signatures and SBOMs
    /// have no tag. What can be deleted is told by [`Ecr::unreferenced_images`].
    #[must_use]
    pub fn untagged(mut self) -> Self {
        self.tagged = Some(false);
        self
    }

    /// Only images of this status. Without one, the service lists the active ones.
    #[must_use]
    pub fn status(mut self, status: ImageStatus) -> Self {
        self.status = Some(Wanted::One(status));
        self
    }

    /// Images of every status.
    #[must_use]
    pub fn any_status(mut self) -> Self {
        self.status = Some(Wanted::Any);
        self
    }

    fn tag_status(&self) -> Option<types::TagStatus> {
        self.tagged.map(|tagged| match tagged {
            true => types::TagStatus::Tagged,
            false => types::TagStatus::Untagged,
        })
    }

    fn describing(&self) -> Option<DescribeImagesFilter> {
        let filter = DescribeImagesFilter::builder().set_tag_status(self.tag_status());
        let status = self
            .status
            .as_ref()
            .map(|wanted| ImageStatusFilter::from(wanted.word()));
        (*self != Self::default()).then(|| filter.set_image_status(status).build())
    }

    fn listing(&self) -> Option<ListImagesFilter> {
        let filter = ListImagesFilter::builder().set_tag_status(self.tag_status());
        let status = self
            .status
            .as_ref()
            .map(|wanted| ImageStatusFilter::from(wanted.word()));
        (*self != Self::default()).then(|| filter.set_image_status(status).build())
    }
}

impl ReferrerFilter {
    /// Every active artifact.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only artifacts of this type, or of another that was named before. The service takes five at most.
    #[must_use]
    pub fn artifact_type(mut self, artifact_type: impl Into<String>) -> Self {
        self.artifact_types.push(artifact_type.into());
        self
    }

    /// Artifacts of every status.
    #[must_use]
    pub fn any_status(mut self) -> Self {
        self.status = Some(Wanted::Any);
        self
    }

    fn words(&self) -> Option<ListImageReferrersFilter> {
        let filter = ListImageReferrersFilter::builder();
        let types = (!self.artifact_types.is_empty()).then(|| self.artifact_types.clone());
        let status = self
            .status
            .as_ref()
            .map(|wanted| ArtifactStatusFilter::from(wanted.word()));
        (*self != Self::default()).then(|| {
            filter
                .set_artifact_types(types)
                .set_artifact_status(status)
                .build()
        })
    }
}

impl Wanted {
    fn word(&self) -> &str {
        match self {
            Self::Any => "ANY",
            Self::One(status) => status.word(),
        }
    }
}

impl ImageStatus {
    pub(crate) fn read(word: &str) -> Self {
        match word {
            "ACTIVE" => Self::Active,
            "ARCHIVED" => Self::Archived,
            "ACTIVATING" => Self::Activating,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The service's word for it.
    pub fn word(&self) -> &str {
        match self {
            Self::Active => "ACTIVE",
            Self::Archived => "ARCHIVED",
            Self::Activating => "ACTIVATING",
            Self::Other(word) => word,
        }
    }
}

impl fmt::Display for ImageStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl StoredImage {
    fn read(detail: ImageDetail) -> Result<Self> {
        Ok(Self {
            digest: digest(detail.image_digest)?,
            tags: detail.image_tags.unwrap_or_default(),
            size: detail
                .image_size_in_bytes
                .and_then(|size| u64::try_from(size).ok()),
            pushed: timestamp(detail.image_pushed_at),
            last_pull: timestamp(detail.last_recorded_pull_time),
            media_type: detail.image_manifest_media_type,
            artifact_type: detail.artifact_media_type,
            subject: match detail.subject_manifest_digest {
                Some(subject) => Some(digest(Some(subject))?),
                None => None,
            },
            status: detail
                .image_status
                .map(|status| ImageStatus::read(status.as_str())),
            archived: timestamp(detail.last_archived_at),
            activated: timestamp(detail.last_activated_at),
        })
    }
}

impl ImageId {
    pub(crate) fn read(id: ImageIdentifier) -> Result<Self> {
        Ok(Self {
            digest: digest(id.image_digest)?,
            tag: id.image_tag,
        })
    }
}

impl ImageKey {
    pub(crate) fn identifier(&self) -> ImageIdentifier {
        let builder = ImageIdentifier::builder();
        match self {
            Self::Digest(digest) => builder.image_digest(digest.as_str()).build(),
            Self::Tag(tag) => builder.image_tag(tag).build(),
        }
    }

    fn names(&self, image: &StoredImage) -> bool {
        match self {
            Self::Digest(digest) => image.digest == *digest,
            Self::Tag(tag) => image.tags.contains(tag),
        }
    }
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Tag(tag) => tag.fmt(f),
        }
    }
}

impl From<Digest> for ImageKey {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl Referrer {
    fn read(referrer: types::ImageReferrer) -> Result<Self> {
        Ok(Self {
            digest: digest(Some(referrer.digest))?,
            media_type: referrer.media_type,
            artifact_type: referrer.artifact_type,
            size: u64::try_from(referrer.size).ok(),
            annotations: referrer.annotations.unwrap_or_default().into_iter().collect(),
            status: referrer
                .artifact_status
                .map(|status| ImageStatus::read(status.as_str())),
        })
    }
}

pub(crate) fn digest(text: Option<String>) -> Result<Digest> {
    let text = text.unwrap_or_default();
    text.parse()
        .map_err(|error| Error::new(ErrorKind::Protocol, SERVICE, "read the digest", &text).caused_by(error))
}

pub(crate) fn timestamp(time: Option<DateTime>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.secs(), time.subsec_nanos().try_into().ok()?).ok()
}
