//! What refers to an image: signatures, attestations, SBOMs (*OCI Distribution Specification* 1.1, "Listing Referrers",
//! and its tag schema for registries without that API).

use super::manifest::media;
use super::transport::Request;
use super::{LARGEST_MANIFEST, Manifest, OciClient};
use http::header::{ACCEPT, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, LINK};
use http::{Method, StatusCode};
use oci_spec::image::Descriptor;
use serde::Deserialize;
use serde_json::{Value, json};
use towpath_core::{Digest, ImageRef, Tag};
use towpath_elements::{Error, ErrorKind, Result};

const ATTEMPTED: &str = "list what refers to";
/// How often an entry is put into the tag that stands for the list, where others write into it as well.
const ROUNDS: u32 = 8;

impl OciClient {
    /// The manifests whose subject is this digest, in the image's repository: signatures, SBOMs, attestations.
    ///
    /// # Errors
    /// What the registry refuses; a registry that knows neither the API nor the tag has none, which is no error.
    pub async fn referrers(&self, repository: &ImageRef, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.find_referrers(repository, subject, None).await
    }

    /// Those of one type, such as `application/spdx+json`. The registry filters where it can.
    ///
    /// # Errors
    /// As [`referrers`](Self::referrers).
    pub async fn referrers_of_type(
        &self,
        repository: &ImageRef,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>> {
        self.find_referrers(repository, subject, Some(artifact_type))
            .await
    }

    async fn find_referrers(
        &self,
        repository: &ImageRef,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        if let Some(found) = self.referrers_by_api(repository, subject, artifact_type).await? {
            return Ok(found);
        }
        let list = self
            .tagged_list(&repository.tagged(fallback_tag(subject)?))
            .await?;
        let Some(index) = list.index else {
            return Ok(Vec::new());
        };
        let mut found = self.listed(index, repository)?;
        retain_type(&mut found, artifact_type);
        Ok(found)
    }

    /// By the API; `None` where the registry does not have it. Follows `Link` to further pages of the same registry.
    async fn referrers_by_api(
        &self,
        repository: &ImageRef,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>> {
        let image = repository.at(subject.clone());
        let mut url = self.url(repository, &format!("referrers/{subject}"))?;
        if let Some(artifact_type) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", artifact_type);
        }
        let mut found = Vec::new();
        // A page holds at least one entry, so more pages than this is a registry that runs in a circle.
        for page in 0..1_000 {
            let request = Request::new(Method::GET, &image, url.clone(), ATTEMPTED);
            let reply = self.send(&request).await?;
            if page == 0 && matches!(reply.status.as_u16(), 400 | 404 | 405 | 501) {
                return Ok(None);
            }
            if !reply.status.is_success() {
                return Err(reply.refuse(self.service(), ATTEMPTED, &request.subject));
            }
            let header = |name: &HeaderName| reply.headers.get(name).and_then(|value| value.to_str().ok());
            let next = header(&LINK)
                .and_then(next_page)
                .and_then(|target| reply.url.join(&target).ok());
            let filtered = header(&HeaderName::from_static("oci-filters-applied")).is_some_and(|applied| {
                let mut applied = applied.split(',');
                applied.any(|filter| filter.trim() == "artifactType")
            });
            let bytes = reply.bytes(LARGEST_MANIFEST, self.settings().idle_timeout).await;
            let bytes = bytes.map_err(|cut| cut.at(self.service(), ATTEMPTED, &request.subject))?;
            let index =
                serde_json::from_slice(&bytes).map_err(|error| self.no_index(&image).caused_by(error))?;
            let mut listed = self.listed(index, &image)?;
            if !filtered {
                retain_type(&mut listed, artifact_type);
            }
            found.extend(listed);
            match next {
                Some(next) if next.origin() == url.origin() => url = next,
                _ => return Ok(Some(found)),
            }
        }
        Err(Error::new(ErrorKind::Protocol, self.service(), ATTEMPTED, &image)
            .because("the pages do not end"))
    }

    fn no_index(&self, image: &ImageRef) -> Error {
        Error::new(ErrorKind::Protocol, self.service(), ATTEMPTED, image)
            .because("the answer is not an index")
    }

    fn listed(&self, index: Value, image: &ImageRef) -> Result<Vec<Descriptor>> {
        #[derive(Deserialize)]
        struct Index {
            // Of an empty list some registries make null.
            manifests: Option<Vec<Descriptor>>,
        }
        if index.get("manifests").is_none() {
            return Err(self.no_index(image));
        }
        let index: Index =
            serde_json::from_value(index).map_err(|error| self.no_index(image).caused_by(error))?;
        Ok(index.manifests.unwrap_or_default())
    }

    /// Stores a manifest that has a subject, and has the registry list it.
    pub(super) async fn put_referrer(
        &self,
        repository: &ImageRef,
        subject: &Digest,
        manifest: &Manifest,
        descriptor: &Descriptor,
    ) -> Result<()> {
        self.put_manifest(repository, manifest).await?;
        self.list_referrer(repository, subject, descriptor).await
    }

    /// Where the registry does not list referrers itself, notes one in the tag that stands for the list.
    ///
    /// Another client may write the tag in between. Where the registry knows `If-Match`, neither loses an entry. Where it
    /// does not, the entry is looked for after it was written, and written again until it is there; what another client
    /// wrote between this one's reading and writing is then for that client to find missing.
    pub(super) async fn list_referrer(
        &self,
        repository: &ImageRef,
        subject: &Digest,
        descriptor: &Descriptor,
    ) -> Result<()> {
        // The OCI-Subject header of a push is not trusted: ECR sent it before it listed referrers.
        if self.referrers_by_api(repository, subject, None).await?.is_some() {
            return Ok(());
        }
        let image = repository.tagged(fallback_tag(subject)?);
        // Clones of this client at least take turns.
        let _turn = self.inner.listing.lock().await;
        let mut refused = None;
        for round in 1..=ROUNDS {
            let list = self.tagged_list(&image).await?;
            if list.names(descriptor) {
                return Ok(());
            }
            if round > 2 {
                tokio::time::sleep(self.pause(round - 2)).await;
            }
            let condition = list.condition();
            let index = list.with(descriptor, &image)?;
            match self.put_if(&image, &index, condition).await {
                Ok(_) => {}
                Err(error) if error.is_conflict() => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        let error = Error::new(ErrorKind::Conflict, self.service(), "list a referrer in", &image)
            .because("the entry was not there after it was written: the tag is immutable, or others write it all the time")
            .advise("let tags that begin with sha256- move, or try again");
        Err(match refused {
            Some(cause) => error.caused_by(cause),
            None => error,
        })
    }

    /// What the tag that stands for a list holds now.
    async fn tagged_list(&self, image: &ImageRef) -> Result<TaggedList> {
        let url = self.url(image, &format!("manifests/{}", image.reference()))?;
        let mut request = Request::new(Method::GET, image, url, ATTEMPTED);
        request
            .headers
            .insert(ACCEPT, HeaderValue::from_static(media::ALL));
        let reply = self.send(&request).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(TaggedList::default());
        }
        if !reply.status.is_success() {
            return Err(reply.refuse(self.service(), ATTEMPTED, &request.subject));
        }
        let etag = reply.headers.get(ETAG).cloned();
        let bytes = reply.bytes(LARGEST_MANIFEST, self.settings().idle_timeout).await;
        let bytes = bytes.map_err(|cut| cut.at(self.service(), ATTEMPTED, &request.subject))?;
        let index: Value =
            serde_json::from_slice(&bytes).map_err(|error| self.no_index(image).caused_by(error))?;
        // Nobody's list: an image that happens to have the name, or something else that must not be written over.
        let is_index = index.get("manifests").is_some_and(Value::is_array);
        Ok(TaggedList {
            is_taken: !is_index,
            index: is_index.then_some(index),
            etag,
        })
    }
}

/// The list of referrers that a tag holds, with everything in it that this version has no words for.
#[derive(Default)]
struct TaggedList {
    index: Option<Value>,
    /// Whether the tag names something that is no list.
    is_taken: bool,
    etag: Option<HeaderValue>,
}

impl TaggedList {
    fn names(&self, descriptor: &Descriptor) -> bool {
        let entries = self
            .index
            .as_ref()
            .and_then(|index| index["manifests"].as_array());
        let digest = descriptor.digest().to_string();
        let is_it = |entry: &Value| entry["digest"].as_str() == Some(&digest);
        entries.is_some_and(|entries| entries.iter().any(is_it))
    }

    /// On which condition a new list may take its place.
    fn condition(&self) -> Option<(HeaderName, HeaderValue)> {
        match &self.etag {
            // A weak one never matches (RFC 9110, 13.1.1).
            Some(etag) if etag.as_bytes().starts_with(b"W/") => None,
            Some(etag) => Some((IF_MATCH, etag.clone())),
            None if self.index.is_none() => Some((IF_NONE_MATCH, HeaderValue::from_static("*"))),
            None => None,
        }
    }

    fn with(self, descriptor: &Descriptor, image: &ImageRef) -> Result<Manifest> {
        let refuse = |detail: &str| {
            Error::new(
                ErrorKind::Conflict,
                "OCI image format",
                "list a referrer in",
                image,
            )
            .because(detail.to_owned())
        };
        if self.is_taken {
            return Err(refuse("the tag names something that is no list of referrers")
                .advise("the tag schema of the distribution specification needs this tag: give the other thing another"));
        }
        let mut index = self
            .index
            .unwrap_or_else(|| json!({ "schemaVersion": 2, "manifests": [] }));
        index["mediaType"] = json!(media::OCI_INDEX);
        let entry = serde_json::to_value(descriptor)
            .map_err(|error| refuse("its descriptor cannot be written").caused_by(error))?;
        if let Some(entries) = index["manifests"].as_array_mut() {
            entries.push(entry);
        }
        Manifest::read(media::OCI_INDEX, crate::json::canonical(index)?)
    }
}

fn retain_type(found: &mut Vec<Descriptor>, artifact_type: Option<&str>) {
    if let Some(wanted) = artifact_type {
        found.retain(|descriptor| {
            let has = descriptor.artifact_type().as_ref().map(ToString::to_string);
            has.as_deref() == Some(wanted)
        });
    }
}

/// `sha256-` and the digits: the tag schema's name for the referrers of a digest.
pub(super) fn fallback_tag(subject: &Digest) -> Result<Tag> {
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
