//! Operations on images.

use super::super::Service;
use super::super::names::is_tag;
use super::super::pull_through::{self as cache, PullFailure};
use super::super::secrets::LOGIN_FAILED;
use super::super::store::{DeleteRefused, Image, Push, PushRefused, Reference, Repository};
use super::Answer;
use super::error::ApiError;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use towpath_core::Digest;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageId {
    pub(super) image_digest: Option<String>,
    pub(super) image_tag: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Batch {
    registry_id: Option<String>,
    repository_name: String,
    image_ids: Vec<ImageId>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Put {
    registry_id: Option<String>,
    repository_name: String,
    image_manifest: String,
    image_manifest_media_type: Option<String>,
    image_tag: Option<String>,
    image_digest: Option<String>,
}

pub(super) async fn batch_get(service: &Service, input: Batch) -> Answer {
    check_count(&input.image_ids)?;
    let name = &input.repository_name;
    service.check_name(name, input.registry_id.as_deref())?;
    let mut upstream_failures = Vec::new();
    for id in &input.image_ids {
        let outcome = match id.reference() {
            Some(reference) => cache::ensure(service, name, &reference).await,
            None => Ok(()),
        };
        upstream_failures.push(outcome.err());
    }
    let restore = service.restore();
    let mut store = service.store();
    // Without a repository there is no list of failures to put this into.
    if !store.repositories.contains_key(name)
        && let Some(failure) = upstream_failures.iter().flatten().next()
    {
        return Err(upstream_error(failure));
    }
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    let (mut images, mut failures): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for (id, upstream) in input.image_ids.iter().zip(upstream_failures) {
        let code = match (id.check(), upstream) {
            (Err(code), _) => code,
            (Ok(()), Some(PullFailure::TooManyRequests)) => "UpstreamTooManyRequests",
            (Ok(()), Some(PullFailure::Denied | PullFailure::LoginRefused | PullFailure::Secret(_))) => {
                "UpstreamAccessDenied"
            }
            (Ok(()), Some(PullFailure::Unavailable(_))) => "UpstreamUnavailable",
            (Ok(()), Some(PullFailure::NotFound)) => "ImageNotFound",
            (Ok(()), None) => match id.find(repository) {
                Some(digest) if repository.archived(&digest, restore) => "ImageInaccessible",
                Some(digest) => {
                    if let Some(image) = repository.images.get_mut(&digest) {
                        image.last_pull = Some(Timestamp::now());
                        images.push(image_answer(
                            service,
                            name,
                            id.image_tag.as_deref(),
                            &digest,
                            image,
                        ));
                    }
                    continue;
                }
                None if id.differs(repository) => "ImageTagDoesNotMatchDigest",
                None => "ImageNotFound",
            },
        };
        failures.push(failure(id, code, reason(code)));
    }
    Ok(json!({"images": images, "failures": failures}))
}

pub(super) fn put(service: &Service, input: Put) -> Answer {
    let name = &input.repository_name;
    let account = &service.config.account;
    let mut store = service.store();
    service.find(&mut store, name, input.registry_id.as_deref())?;
    if input.image_tag.as_ref().is_some_and(|tag| !is_tag(tag)) {
        return Err(ApiError::invalid(
            "imageTag",
            "must be a tag of at most 128 characters",
        ));
    }
    let digest = match &input.image_digest {
        None => None,
        Some(text) => {
            let parsed = text.parse();
            Some(parsed.map_err(|_| ApiError::invalid("imageDigest", "must be a digest"))?)
        }
    };
    let push = Push {
        repository: name,
        bytes: input.image_manifest.into_bytes().into(),
        media_type: input.image_manifest_media_type.as_deref(),
        digest,
        tag: input.image_tag.clone(),
        must_change: true,
        parts_follow: false,
    };
    let digest = store
        .push(&service.blobs, push)
        .map_err(|refused| refusal(name, account, refused))?;
    let image = store
        .repositories
        .get(name)
        .and_then(|repository| repository.images.get(&digest));
    let image = image.map(|image| image_answer(service, name, input.image_tag.as_deref(), &digest, image));
    Ok(json!({"image": image}))
}

pub(super) fn batch_delete(service: &Service, input: Batch) -> Answer {
    check_count(&input.image_ids)?;
    let mut store = service.store();
    let repository = service.find(&mut store, &input.repository_name, input.registry_id.as_deref())?;
    let (mut deleted, mut failures): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for id in &input.image_ids {
        if let Err(code) = id.check() {
            failures.push(failure(id, code, reason(code)));
            continue;
        }
        let digest = id.image_digest.as_ref().and_then(|digest| digest.parse().ok());
        match repository.delete(id.image_tag.as_deref(), digest.as_ref()) {
            Ok(gone) => deleted.extend(gone.into_iter().map(|(digest, tag)| match tag {
                Some(tag) => json!({"imageDigest": digest.as_str(), "imageTag": tag}),
                None => json!({"imageDigest": digest.as_str()}),
            })),
            Err(DeleteRefused::NotFound) => {
                failures.push(failure(id, "ImageNotFound", reason("ImageNotFound")))
            }
            Err(DeleteRefused::TagDiffers) => failures.push(failure(
                id,
                "ImageTagDoesNotMatchDigest",
                reason("ImageTagDoesNotMatchDigest"),
            )),
            Err(DeleteRefused::Referenced(holders)) => {
                let holders: Vec<&str> = holders.iter().map(Digest::as_str).collect();
                let reason = format!(
                    "Requested image referenced by manifest list: [{}]",
                    holders.join(", ")
                );
                failures.push(failure(id, "ImageReferencedByManifestList", &reason));
            }
        }
    }
    Ok(json!({"imageIds": deleted, "failures": failures}))
}

impl ImageId {
    pub(super) fn find(&self, repository: &Repository) -> Option<Digest> {
        let digest = repository.resolve(&self.reference()?)?;
        let tagged = match &self.image_tag {
            Some(tag) => repository.tags.get(tag) == Some(&digest),
            None => true,
        };
        tagged.then_some(digest)
    }

    fn reference(&self) -> Option<Reference> {
        match (&self.image_digest, &self.image_tag) {
            (Some(digest), _) => digest.parse().ok().map(Reference::Digest),
            (None, Some(tag)) => is_tag(tag).then(|| Reference::Tag(tag.clone())),
            (None, None) => None,
        }
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        match (&self.image_digest, &self.image_tag) {
            (None, None) => Err("MissingDigestAndTag"),
            (Some(digest), _) if digest.parse::<Digest>().is_err() => Err("InvalidImageDigest"),
            (_, Some(tag)) if !is_tag(tag) => Err("InvalidImageTag"),
            _ => Ok(()),
        }
    }

    /// Whether the tag is there, with another digest than the one named beside it.
    fn differs(&self, repository: &Repository) -> bool {
        let tagged = self.image_tag.as_ref().and_then(|tag| repository.tags.get(tag));
        match (tagged, &self.image_digest) {
            (Some(tagged), Some(named)) => tagged.as_str() != named,
            _ => false,
        }
    }

    /// As the messages of the service show it.
    pub(super) fn shown(&self) -> String {
        let text = |part: &Option<String>| part.clone().unwrap_or_else(|| "null".into());
        format!(
            "{{imageDigest:'{}', imageTag:'{}'}}",
            text(&self.image_digest),
            text(&self.image_tag)
        )
    }
}

pub(super) fn not_found(service: &Service, name: &str, id: &ImageId) -> ApiError {
    ApiError::new(
        "ImageNotFoundException",
        format!(
            "The image with imageId {} does not exist within the repository with name '{name}' in the registry with \
             id '{}'",
            id.shown(),
            service.config.account
        ),
    )
}

fn image_answer(service: &Service, name: &str, tag: Option<&str>, digest: &Digest, image: &Image) -> Value {
    let mut id = json!({"imageDigest": digest.as_str()});
    if let Some(tag) = tag {
        id["imageTag"] = json!(tag);
    }
    json!({
        "registryId": service.config.account,
        "repositoryName": name,
        "imageId": id,
        "imageManifest": String::from_utf8_lossy(&image.bytes),
        "imageManifestMediaType": image.manifest.media_type,
    })
}

fn upstream_error(failure: &PullFailure) -> ApiError {
    let reason = match failure {
        PullFailure::NotFound => "Requested image not found",
        PullFailure::Denied => reason("UpstreamAccessDenied"),
        PullFailure::LoginRefused => LOGIN_FAILED,
        PullFailure::Secret(fault) => fault.message(),
        PullFailure::TooManyRequests => reason("UpstreamTooManyRequests"),
        PullFailure::Unavailable(reason) => reason,
    };
    let message = format!("Unable to get the image from the upstream registry: {reason}");
    ApiError::new("UnableToGetUpstreamImageException", message)
}

pub(super) fn check_count(ids: &[ImageId]) -> Result<(), ApiError> {
    if (1..=100).contains(&ids.len()) {
        Ok(())
    } else {
        Err(ApiError::invalid(
            "imageIds",
            "Member must have length between 1 and 100",
        ))
    }
}

fn failure(id: &ImageId, code: &str, reason: &str) -> Value {
    let mut image_id = json!({});
    if let Some(digest) = &id.image_digest {
        image_id["imageDigest"] = json!(digest);
    }
    if let Some(tag) = &id.image_tag {
        image_id["imageTag"] = json!(tag);
    }
    json!({"imageId": image_id, "failureCode": code, "failureReason": reason})
}

fn reason(code: &str) -> &'static str {
    match code {
        "MissingDigestAndTag" => "Invalid request parameters: both tag and digest cannot be null",
        "InvalidImageDigest" => {
            "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'"
        }
        "InvalidImageTag" => {
            "Invalid request parameters: image tag should satisfy the regex '[a-zA-Z0-9-_.]+'"
        }
        "ImageTagDoesNotMatchDigest" => "The image tag does not match the image digest",
        "UpstreamTooManyRequests" => "The upstream registry is throttling requests",
        "UpstreamAccessDenied" => "The upstream registry denied access to the image",
        "ImageInaccessible" => "The image is archived: restore it before it is pulled",
        "UpstreamUnavailable" => "The upstream registry is unavailable",
        _ => "Requested image not found",
    }
}

fn refusal(name: &str, account: &str, refused: PushRefused) -> ApiError {
    let required = |what: &str, digests: &[Digest]| {
        let digests: Vec<&str> = digests.iter().map(Digest::as_str).collect();
        format!(
            "{what} with digests '[{}]' required for pushing image into repository with name '{name}' in the \
             registry with id '{account}' do not exist",
            digests.join(", ")
        )
    };
    match refused {
        PushRefused::NoRepository => ApiError::new(
            "RepositoryNotFoundException",
            format!("The repository with name '{name}' does not exist in the registry with id '{account}'"),
        ),
        PushRefused::Invalid(constraint) => ApiError::invalid("ImageManifest", &constraint),
        PushRefused::DigestDiffers => ApiError::new(
            "ImageDigestDoesNotMatchException",
            "The provided image digest does not match the digest of the image manifest",
        ),
        PushRefused::LayersMissing(digests) => {
            ApiError::new("LayersNotFoundException", required("Layers", &digests))
        }
        PushRefused::ImagesMissing(digests) => {
            ApiError::new("ReferencedImagesNotFoundException", required("Images", &digests))
        }
        PushRefused::TagImmutable(tag) => ApiError::new(
            "ImageTagAlreadyExistsException",
            format!(
                "The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because \
                 the tag is immutable."
            ),
        ),
        PushRefused::AlreadyThere { digest, tag } => ApiError::new(
            "ImageAlreadyExistsException",
            format!(
                "Image with digest '{digest}' and tag '{}' already exists in the repository with name '{name}' in \
                 registry with id '{account}'",
                tag.as_deref().unwrap_or("null")
            ),
        ),
    }
}
