//! What refers to an image: signatures, attestations, SBOMs (*OCI Distribution Specification*, "Listing Referrers", and
//! its tag schema for registries without that API).

use super::manifest::media;
use super::transport::Request;
use super::{LARGEST_MANIFEST, Manifest, ManifestContent, OciClient};
use http::Method;
use oci_spec::image::{Descriptor, ImageIndex};
use towpath_core::{Digest, ImageRef, Tag};
use towpath_elements::{Error, ErrorKind, Result};

const ATTEMPTED: &str = "list what refers to";

impl OciClient {
    /// The manifests whose subject is this digest, in the image's repository.
    ///
    /// # Errors
    /// What the registry refuses; a registry that knows neither the API nor the tag has none, which is no error.
    pub async fn referrers(&self, repository: &ImageRef, subject: &Digest) -> Result<Vec<Descriptor>> {
        match self.referrers_by_api(repository, subject).await? {
            Some(found) => Ok(found),
            None => self.referrers_by_tag(repository, subject).await,
        }
    }

    /// By the API; `None` where the registry does not have it. Follows `Link` to further pages of the same registry.
    async fn referrers_by_api(
        &self,
        repository: &ImageRef,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>> {
        let image = repository.at(subject.clone());
        let mut url = self.url(repository, &format!("referrers/{subject}"))?;
        let mut found = Vec::new();
        // A page holds at least one entry, so more pages than this is a registry that runs in a circle.
        for _ in 0..1_000 {
            let request = Request::new(Method::GET, &image, url.clone(), ATTEMPTED);
            let reply = self.send(&request).await?;
            if found.is_empty() && matches!(reply.status.as_u16(), 400 | 404 | 405 | 501) {
                return Ok(None);
            }
            if !reply.status.is_success() {
                return Err(reply.refuse(self.service(), ATTEMPTED, &request.subject));
            }
            let next = reply
                .headers
                .get(http::header::LINK)
                .and_then(|value| next_page(value.to_str().ok()?))
                .and_then(|target| reply.url.join(&target).ok());
            let bytes = reply.bytes(LARGEST_MANIFEST, self.settings().idle_timeout).await;
            let bytes = bytes.map_err(|cut| cut.at(self.service(), ATTEMPTED, &request.subject))?;
            let index: ImageIndex = serde_json::from_slice(&bytes).map_err(|error| {
                Error::new(ErrorKind::Protocol, self.service(), ATTEMPTED, &image)
                    .because("the answer is not an index")
                    .caused_by(error)
            })?;
            found.extend(index.manifests().iter().cloned());
            match next {
                Some(next) if next.origin() == url.origin() => url = next,
                _ => return Ok(Some(found)),
            }
        }
        Err(Error::new(ErrorKind::Protocol, self.service(), ATTEMPTED, &image)
            .because("the pages do not end"))
    }

    async fn referrers_by_tag(&self, repository: &ImageRef, subject: &Digest) -> Result<Vec<Descriptor>> {
        let image = repository.tagged(fallback_tag(subject)?);
        match self.manifest(&image).await? {
            Some(Manifest {
                content: ManifestContent::Index(index),
                ..
            }) => Ok(index.manifests().clone()),
            _ => Ok(Vec::new()),
        }
    }

    /// Stores a manifest that has a subject; where the registry does not list referrers itself, notes it in the tag
    /// that stands for the list.
    pub(super) async fn put_referrer(
        &self,
        repository: &ImageRef,
        subject: &Digest,
        manifest: &Manifest,
        descriptor: &Descriptor,
    ) -> Result<()> {
        self.put(&repository.at(manifest.digest.clone()), manifest)
            .await?;
        // The answer's OCI-Subject header is not trusted: ECR sent it before it listed referrers.
        if self.referrers_by_api(repository, subject).await?.is_some() {
            return Ok(());
        }
        let mut listed = self.referrers_by_tag(repository, subject).await?;
        if listed.iter().any(|known| known.digest() == descriptor.digest()) {
            return Ok(());
        }
        listed.push(descriptor.clone());
        let index =
            serde_json::json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": listed });
        let index = Manifest::read(media::OCI_INDEX, crate::json::canonical(index)?)?;
        self.put(&repository.tagged(fallback_tag(subject)?), &index)
            .await
            .map(|_| ())
    }
}

/// `sha256-` and the digits: the tag schema's name for the referrers of a digest.
fn fallback_tag(subject: &Digest) -> Result<Tag> {
    let encoded: String = subject.encoded().chars().take(64).collect();
    Ok(Tag::new(format!("{}-{encoded}", subject.algorithm()))?)
}

/// The target of `rel="next"` in a `Link` header (RFC 8288).
pub(super) fn next_page(header: &str) -> Option<String> {
    header.split(',').find_map(|link| {
        let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = rest
            .split(';')
            .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        next.then(|| target.to_owned())
    })
}
