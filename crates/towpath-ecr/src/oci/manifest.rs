//! Manifests and indexes, byte for byte (*OCI Distribution Specification*, "Pulling manifests", "Pushing manifests").

use super::OciClient;
use super::transport::{Payload, Request};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use towpath_core::{Digest, ImageRef, Tag};
use towpath_elements::{Error, ErrorKind, Result};

/// The largest manifest that is read or written, in bytes: 4 MiB, the limit of Amazon ECR.
pub const LARGEST_MANIFEST: u64 = 4 << 20;

/// The media types of manifests.
pub mod media {
    /// An OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// A Docker image manifest, version 2 schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Whether a media type is one of them.
    pub(crate) fn is_manifest(media_type: &str) -> bool {
        matches!(
            media_type,
            OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST
        )
    }
    /// All four, as `Accept` wants them: a registry that is not offered what it has may convert, and change the digest.
    pub(crate) const ALL: &str = "application/vnd.oci.image.index.v1+json, \
        application/vnd.oci.image.manifest.v1+json, \
        application/vnd.docker.distribution.manifest.list.v2+json, \
        application/vnd.docker.distribution.manifest.v2+json";
}

/// A manifest or index as a registry serves it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The digest of [`bytes`](Self::bytes), verified.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The exact bytes.
    pub bytes: Bytes,
    /// What they say.
    pub content: ManifestContent,
}

/// What a manifest says.
#[derive(Clone, Debug)]
pub enum ManifestContent {
    /// One image, or an artifact.
    Image(Box<ImageManifest>),
    /// Several.
    Index(Box<ImageIndex>),
}

impl Manifest {
    /// Reads bytes of a media type.
    ///
    /// # Errors
    /// *Unsupported* for a media type that is none of [`media`], *protocol* where the bytes are not what it says.
    pub fn read(media_type: &str, bytes: Bytes) -> Result<Self> {
        let digest = Digest::sha256_of(&bytes);
        Self::with_digest(digest, media_type, bytes)
    }

    /// Reads bytes whose digest is known: hashing them again would cost as much as reading them.
    pub(super) fn with_digest(digest: Digest, media_type: &str, bytes: Bytes) -> Result<Self> {
        let broken = |detail: String| {
            Error::new(
                ErrorKind::Protocol,
                "OCI image format",
                "read the manifest",
                &digest,
            )
            .because(detail)
        };
        let inner: Typed =
            serde_json::from_slice(&bytes).map_err(|error| broken(format!("it is not JSON: {error}")))?;
        if let Some(inner) = &inner.media_type
            && inner != media_type
        {
            return Err(broken(format!(
                "it was served as {media_type} and says it is {inner}"
            )));
        }
        let content = match media_type {
            media::OCI_MANIFEST | media::DOCKER_MANIFEST => {
                serde_json::from_slice(&bytes).map(|image| ManifestContent::Image(Box::new(image)))
            }
            media::OCI_INDEX | media::DOCKER_LIST => {
                serde_json::from_slice(&bytes).map(|index| ManifestContent::Index(Box::new(index)))
            }
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "OCI image format",
                    "read the manifest",
                    &digest,
                )
                .because(format!("its media type is {other:?}")));
            }
        };
        let content = content.map_err(|error| broken(error.to_string()))?;
        Ok(Self {
            digest,
            media_type: media_type.to_owned(),
            bytes,
            content,
        })
    }

    /// Whether a media type is that of an index.
    pub(crate) fn is_index(media_type: &str) -> bool {
        matches!(media_type, media::OCI_INDEX | media::DOCKER_LIST)
    }

    /// The blobs it names: configuration and layers. Empty for an index.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        match &self.content {
            ManifestContent::Image(image) => std::iter::once(image.config()).chain(image.layers()).collect(),
            ManifestContent::Index(_) => Vec::new(),
        }
    }

    /// The manifests it names. Empty for an image. [`digest_of`](super::digest_of) makes a digest of each.
    pub fn children(&self) -> &[Descriptor] {
        match &self.content {
            ManifestContent::Image(_) => &[],
            ManifestContent::Index(index) => index.manifests(),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

impl OciClient {
    /// The manifest or index that a reference names; `None` where the registry has none.
    ///
    /// ```no_run
    /// # async fn example(oci: towpath_ecr::oci::OciClient, image: towpath_ecr::ImageRef) -> towpath_ecr::Result<()> {
    /// use towpath_ecr::oci::ManifestContent;
    /// let manifest = oci.manifest(&image).await?.expect("it was pushed a moment ago");
    /// println!("{} {}", manifest.media_type, manifest.digest);
    /// if let ManifestContent::Image(image) = &manifest.content {
    ///     for layer in image.layers() {
    ///         println!("{} {} bytes", layer.digest(), layer.size());
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// *Protocol* where the bytes do not have the digest asked for, or the one that the registry says they have.
    pub async fn manifest(&self, image: &ImageRef) -> Result<Option<Manifest>> {
        const ATTEMPTED: &str = "read the manifest of";
        let mut request = Request::new(
            Method::GET,
            image,
            self.url(image, &format!("manifests/{}", image.reference()))?,
            ATTEMPTED,
        );
        request
            .headers
            .insert(ACCEPT, HeaderValue::from_static(media::ALL));
        let reply = self.send(&request).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !reply.status.is_success() {
            return Err(reply.refuse(self.service(), ATTEMPTED, &request.subject));
        }
        let header = |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok());
        let said = header("docker-content-digest").map(str::to_owned);
        let media_type = header("content-type")
            .and_then(|value| value.split(';').next())
            .map(|value| value.trim().to_owned());
        let bytes = reply.bytes(LARGEST_MANIFEST, self.settings().idle_timeout).await;
        let bytes = bytes.map_err(|cut| cut.at(self.service(), ATTEMPTED, &request.subject))?;
        let broken = |detail: String| {
            Error::new(ErrorKind::Protocol, self.service(), ATTEMPTED, image).because(detail)
        };
        let expected = match (image.digest(), said) {
            (Some(digest), _) => Some(digest.clone()),
            (None, Some(said)) => said.parse().ok(),
            (None, None) => None,
        };
        if let Some(expected) = &expected
            && !expected.matches(&bytes)
        {
            return Err(broken(format!(
                "the bytes have the digest {}, not {expected}",
                Digest::sha256_of(&bytes)
            )));
        }
        let media_type = match media_type.filter(|said| said != "application/json" && !said.is_empty()) {
            Some(media_type) => media_type,
            None => serde_json::from_slice::<Typed>(&bytes)
                .ok()
                .and_then(|typed| typed.media_type)
                .ok_or_else(|| broken("it has no media type".into()))?,
        };
        let digest = expected.unwrap_or_else(|| Digest::sha256_of(&bytes));
        Manifest::with_digest(digest, &media_type, bytes)
            .map(Some)
            .map_err(|error| broken(error.detail().to_owned()).caused_by(error))
    }

    /// The digest that a reference names, by the registry's word; `None` where it has none.
    ///
    /// # Errors
    /// What the registry refuses other than with 404.
    pub async fn manifest_digest(&self, image: &ImageRef) -> Result<Option<Digest>> {
        const ATTEMPTED: &str = "look for the manifest of";
        let url = self.url(image, &format!("manifests/{}", image.reference()))?;
        let mut request = Request::new(Method::HEAD, image, url, ATTEMPTED);
        request
            .headers
            .insert(ACCEPT, HeaderValue::from_static(media::ALL));
        let reply = self.send(&request).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !reply.status.is_success() {
            return Err(reply.refuse(self.service(), ATTEMPTED, &request.subject));
        }
        let said = reply.headers.get("docker-content-digest");
        match said.and_then(|value| value.to_str().ok()?.parse().ok()) {
            Some(digest) => Ok(Some(digest)),
            // The header is optional: what is not said is computed.
            None => Ok(self.manifest(image).await?.map(|manifest| manifest.digest)),
        }
    }

    /// Pushes a manifest: stores it under its digest. What it names must be there already.
    ///
    /// # Errors
    /// *Not found* where the repository is missing, *invalid* where a part is missing, *unsupported* where the registry does not take such a manifest.
    pub async fn put_manifest(&self, repository: &ImageRef, manifest: &Manifest) -> Result<()> {
        let image = repository.at(manifest.digest.clone());
        self.put(&image, manifest).await.map(|_| ())
    }

    /// Makes a tag name a manifest that the repository has. Succeeds where the tag names it already, immutable or not.
    ///
    /// # Errors
    /// *Conflict* where the tag names another manifest and may not move.
    pub async fn put_tag(&self, repository: &ImageRef, tag: &Tag, manifest: &Manifest) -> Result<()> {
        let current = self.manifest_digest(&repository.tagged(tag.clone())).await?;
        match current.as_ref() == Some(&manifest.digest) {
            true => Ok(()),
            false => self.move_tag(repository, tag, manifest).await,
        }
    }

    /// Makes a tag name an image of its repository, given by digest. Reads the image only where the tag is not right.
    ///
    /// # Errors
    /// As [`put_tag`](Self::put_tag); *not found* where there is no such image.
    pub async fn retag(&self, image: &ImageRef, tag: &Tag) -> Result<()> {
        let current = self.manifest_digest(&image.tagged(tag.clone())).await?;
        if current.is_some() && current.as_ref() == image.digest() {
            return Ok(());
        }
        let manifest = self.required_manifest(image).await?;
        self.move_tag(image, tag, &manifest).await
    }

    pub(super) async fn move_tag(&self, repository: &ImageRef, tag: &Tag, manifest: &Manifest) -> Result<()> {
        let image = repository.tagged(tag.clone());
        let Err(error) = self.put(&image, manifest).await else {
            return Ok(());
        };
        if !error.is_conflict() {
            return Err(error);
        }
        match self.manifest_digest(&image).await? {
            Some(digest) if digest == manifest.digest => Ok(()),
            Some(digest) => Err(Error::new(ErrorKind::Conflict, self.service(), "tag", &image)
                .because(format!(
                    "the tag is immutable and names {digest}, not {}",
                    manifest.digest
                ))
                .advise("use another tag: an immutable one never moves")
                .caused_by(error)),
            None => Err(error),
        }
    }

    /// Stores a manifest under the digest or tag of `image`; whether the registry took note of its subject.
    pub(super) async fn put(&self, image: &ImageRef, manifest: &Manifest) -> Result<bool> {
        self.put_if(image, manifest, None).await
    }

    /// As [`put`](Self::put), on a condition (`If-Match`) that is *conflict* where it does not hold.
    pub(super) async fn put_if(
        &self,
        image: &ImageRef,
        manifest: &Manifest,
        condition: Option<(HeaderName, HeaderValue)>,
    ) -> Result<bool> {
        const ATTEMPTED: &str = "push the manifest of";
        let url = self.url(image, &format!("manifests/{}", image.reference()))?;
        let mut request = Request::new(Method::PUT, image, url, ATTEMPTED);
        let media_type = HeaderValue::try_from(&manifest.media_type).map_err(|error| {
            Error::new(ErrorKind::Invalid, self.service(), ATTEMPTED, image).caused_by(error)
        })?;
        request.headers.insert(CONTENT_TYPE, media_type);
        request.headers.extend(condition);
        request.payload = Payload::Bytes(manifest.bytes.clone());
        let reply = self.send(&request).await?;
        if !reply.status.is_success() {
            let refusal = &reply.refusal;
            return Err(refusal.of_push(reply.status, self.service(), ATTEMPTED, &request.subject));
        }
        Ok(reply.headers.contains_key("oci-subject"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPES: &[&str] = &[
        media::OCI_MANIFEST,
        media::OCI_INDEX,
        media::DOCKER_MANIFEST,
        media::DOCKER_LIST,
    ];

    #[test]
    fn bytes_are_kept_as_they_are() {
        let text = r#"{ "manifests": [], "schemaVersion": 2, "unknown": [1.0] }"#;
        let manifest = Manifest::read(media::OCI_INDEX, text.into()).unwrap();
        assert_eq!(manifest.bytes, text);
        assert_eq!(manifest.digest, Digest::sha256_of(text));
        assert!(manifest.children().is_empty() && manifest.blobs().is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            media_type in proptest::sample::select(TYPES),
            text in prop_oneof![
                ".*",
                "\\{\"schemaVersion\":[0-9]{1,22},\"(manifests|layers|config)\":(\\[\\]|\\[\\{\\}\\]|null|\\{\"digest\":\".{0,9}\"\\})\\}",
            ],
        ) {
            let _ = Manifest::read(media_type, text.into());
        }
    }
}
