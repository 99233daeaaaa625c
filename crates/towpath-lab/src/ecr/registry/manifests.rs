//! Manifests over `/v2/`: exact bytes in and out, tags, and the referrers of an image.

use super::super::Service;
use super::super::distribution::{CONTENT_DIGEST, Refused, manifest_response, parameter};
use super::super::manifest::{MAX_BYTES, OCI_INDEX};
use super::super::store::{DeleteRefused, Push, PushRefused, Reference};
use super::{conversion, digest_of};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use towpath_core::Digest;

/// `GET` and `HEAD …/manifests/<tag or digest>`.
pub(super) async fn get(
    service: &Service,
    name: &str,
    reference: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refused> {
    let unknown = || {
        Refused::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "Requested image not found",
        )
    };
    let reference = Reference::parse(reference).ok_or_else(unknown)?;
    service.pull_through(name, &reference).await?;
    let restore = service.restore();
    let mut store = service.store();
    let repository = store
        .repositories
        .get_mut(name)
        .ok_or_else(|| service.no_repository(name))?;
    let digest = repository.resolve(&reference).ok_or_else(unknown)?;
    // An archived image is not found, as the user guide has it.
    if repository.archived(&digest, restore) {
        return Err(unknown());
    }
    let image = repository.images.get_mut(&digest).ok_or_else(unknown)?;
    if *method == Method::GET {
        image.last_pull = Some(Timestamp::now());
    }
    if matches!(reference, Reference::Tag(_))
        && let Some((media_type, bytes)) = conversion::translated(&image.manifest, headers)
    {
        let digest = Digest::sha256_of(&bytes);
        return Ok(manifest_response(
            method,
            media_type,
            digest.as_str(),
            bytes.into(),
        ));
    }
    Ok(manifest_response(
        method,
        &image.manifest.media_type,
        digest.as_str(),
        image.bytes.clone(),
    ))
}

/// `PUT …/manifests/<tag or digest>`.
pub(super) async fn put(
    service: &Service,
    name: &str,
    reference: &str,
    request: Request,
) -> Result<Response, Refused> {
    let Some(reference) = Reference::parse(reference) else {
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "TAG_INVALID",
            format!("Invalid parameter at 'imageTag': {reference:?} is not a tag"),
        ));
    };
    let media_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = media_type.map(ToOwned::to_owned);
    let Ok(bytes) = axum::body::to_bytes(request.into_body(), MAX_BYTES + 1).await else {
        return Err(invalid(&format!(
            "Member must have length less than or equal to {MAX_BYTES}"
        )));
    };
    let (tag, digest) = match reference {
        Reference::Tag(tag) => (Some(tag), None),
        Reference::Digest(digest) => (None, Some(digest)),
    };
    let push = Push {
        repository: name,
        bytes,
        media_type: media_type.as_deref(),
        digest,
        tag,
        must_change: false,
        parts_follow: false,
    };
    service.create_on_push(name);
    let mut store = service.store();
    let digest = store
        .push(&service.blobs, push)
        .map_err(|refused| refusal(service, name, refused))?;
    // No Location: the service does not send one.
    let mut response = (StatusCode::CREATED, [(CONTENT_DIGEST, digest.to_string())]).into_response();
    let image = store
        .repositories
        .get(name)
        .and_then(|repository| repository.images.get(&digest));
    if let Some(subject) = image.and_then(|image| image.manifest.subject.as_ref())
        && let Ok(value) = HeaderValue::from_str(subject.digest.as_str())
    {
        response
            .headers_mut()
            .insert(HeaderName::from_static("oci-subject"), value);
    }
    Ok(response)
}

/// `DELETE …/manifests/<tag or digest>`.
pub(super) fn delete(service: &Service, name: &str, reference: &str) -> Result<Response, Refused> {
    let reference = Reference::parse(reference);
    let mut store = service.store();
    let repository = store
        .repositories
        .get_mut(name)
        .ok_or_else(|| service.no_repository(name))?;
    let deleted = match &reference {
        Some(Reference::Tag(tag)) => repository.delete(Some(tag), None),
        Some(Reference::Digest(digest)) => repository.delete(None, Some(digest)),
        None => Err(DeleteRefused::NotFound),
    };
    match deleted {
        Ok(_) => Ok(StatusCode::ACCEPTED.into_response()),
        Err(DeleteRefused::Referenced(holders)) => Err(Refused::unsupported(format!(
            "Requested image referenced by manifest list: {}",
            list(&holders)
        ))),
        Err(DeleteRefused::NotFound | DeleteRefused::TagDiffers) => Err(Refused::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "Requested image not found",
        )),
    }
}

/// How many referrers one answer lists, as many as `ListImageReferrers` may be asked for.
const REFERRERS_PER_PAGE: usize = 50;

/// `GET …/referrers/<digest>`: an index of what names this image as its subject, in pages.
pub(super) fn referrers(
    service: &Service,
    name: &str,
    digest: &str,
    query: Option<&str>,
) -> Result<Response, Refused> {
    let subject = digest_of(digest)?;
    let wanted = parameter(query, "artifactType");
    let last = parameter(query, "last").unwrap_or_default();
    let mut manifests: Vec<Value> = service.with_repository(name, |repository| {
        let referring = repository.images.iter().filter(|(_, image)| {
            image
                .manifest
                .subject
                .as_ref()
                .is_some_and(|named| named.digest == subject)
                && wanted
                    .as_deref()
                    .is_none_or(|wanted| image.manifest.artifact_type() == Some(wanted))
        });
        let referring = referring.filter(|(digest, _)| digest.as_str() > last.as_str());
        // One more than a page, to know whether there is another one.
        let described = referring.take(REFERRERS_PER_PAGE + 1).map(|(digest, image)| {
            let mut entry = json!({
                "mediaType": image.manifest.media_type,
                "digest": digest.as_str(),
                "size": image.bytes.len(),
            });
            if let Some(kind) = image.manifest.artifact_type() {
                entry["artifactType"] = json!(kind);
            }
            if let Some(annotations) = &image.manifest.annotations {
                entry["annotations"] = json!(annotations);
            }
            entry
        });
        described.collect()
    })?;
    let more = manifests.len() > REFERRERS_PER_PAGE;
    manifests.truncate(REFERRERS_PER_PAGE);
    let next = manifests
        .last()
        .filter(|_| more)
        .and_then(|last| last["digest"].as_str());
    let next = next.map(|last| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(wanted.iter().map(|wanted| ("artifactType", wanted.as_str())));
        let query = query.append_pair("last", last).finish();
        format!("</v2/{name}/referrers/{subject}?{query}>; rel=\"next\"")
    });
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    let mut response = ([(header::CONTENT_TYPE, OCI_INDEX)], index.to_string()).into_response();
    if wanted.is_some() {
        let filters = HeaderValue::from_static("artifactType");
        response.headers_mut().insert("oci-filters-applied", filters);
    }
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}

fn refusal(service: &Service, name: &str, refused: PushRefused) -> Refused {
    let account = &service.config.account;
    let required = |what: &str, digests: &[Digest]| {
        format!(
            "{what} with digests '[{}]' required for pushing image into repository with name '{name}' in the \
             registry with id '{account}' do not exist",
            list(digests)
        )
    };
    let (code, message) = match refused {
        PushRefused::NoRepository => return service.no_repository(name),
        PushRefused::Invalid(constraint) => return invalid(&constraint),
        PushRefused::LayersMissing(digests) => ("BLOB_UPLOAD_UNKNOWN", required("Layers", &digests)),
        PushRefused::ImagesMissing(digests) => ("MANIFEST_BLOB_UNKNOWN", required("Images", &digests)),
        PushRefused::DigestDiffers => (
            "DIGEST_INVALID",
            "Provided digest did not match the digest of the manifest".into(),
        ),
        PushRefused::TagImmutable(tag) => (
            "TAG_INVALID",
            format!(
                "The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because \
                 the tag is immutable."
            ),
        ),
        PushRefused::AlreadyThere { digest, .. } => {
            ("TAG_INVALID", format!("The image {digest} already exists"))
        }
    };
    Refused::new(StatusCode::BAD_REQUEST, code, message)
}

fn invalid(constraint: &str) -> Refused {
    Refused::unsupported(format!(
        "Invalid parameter at 'ImageManifest' failed to satisfy constraint: '{constraint}'"
    ))
}

fn list(digests: &[Digest]) -> String {
    let texts: Vec<&str> = digests.iter().map(Digest::as_str).collect();
    texts.join(", ")
}
