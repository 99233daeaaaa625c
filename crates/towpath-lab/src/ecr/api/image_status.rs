//! What becomes of one image: its storage class, its copies in other Regions, its signatures.

use super::super::Service;
use super::super::store::Repository;
use super::Answer;
use super::error::ApiError;
use super::images::{ImageId, not_found};
use serde::Deserialize;
use serde_json::json;
use towpath_core::Digest;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StorageClass {
    registry_id: Option<String>,
    repository_name: String,
    image_id: ImageId,
    target_storage_class: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneImage {
    registry_id: Option<String>,
    repository_name: String,
    image_id: ImageId,
}

pub(super) fn update_storage_class(service: &Service, input: StorageClass) -> Answer {
    let restore = service.restore();
    let name = &input.repository_name;
    let mut store = service.store();
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    let digest = resolve(service, name, repository, &input.image_id)?;
    let held = !repository.holders(&digest).is_empty();
    let image = repository
        .images
        .get_mut(&digest)
        .ok_or_else(|| not_found(service, name, &input.image_id))?;
    let refused = |reason: &str| ApiError::new("ImageStorageClassUpdateNotSupportedException", reason);
    match (input.target_storage_class.as_str(), image.storage.status(restore)) {
        ("ARCHIVE", _) if held => {
            return Err(refused("The image is referenced by a manifest list"));
        }
        ("ARCHIVE", "ACTIVE") => image.storage.archive(),
        ("STANDARD", "ARCHIVED") => image.storage.restore(),
        ("ARCHIVE", "ARCHIVED") | ("STANDARD", "ACTIVE" | "ACTIVATING") => {
            return Err(refused("The image is in the requested storage class already"));
        }
        ("ARCHIVE", _) => return Err(refused("The image is being activated")),
        _ => {
            return Err(ApiError::invalid(
                "targetStorageClass",
                "Member must satisfy enum value set: [STANDARD, ARCHIVE]",
            ));
        }
    }
    Ok(json!({
        "registryId": service.config.account,
        "repositoryName": name,
        "imageId": {"imageDigest": digest.as_str()},
        "imageStatus": image.storage.status(restore),
    }))
}

pub(super) fn replication(service: &Service, input: OneImage) -> Answer {
    let name = &input.repository_name;
    let mut store = service.store();
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    let digest = resolve(service, name, repository, &input.image_id)?;
    let statuses = store.spread.replications(name, &digest);
    Ok(json!({
        "repositoryName": name,
        "imageId": {"imageDigest": digest.as_str()},
        "replicationStatuses": statuses,
    }))
}

pub(super) fn signing(service: &Service, input: OneImage) -> Answer {
    let name = &input.repository_name;
    let mut store = service.store();
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    let digest = resolve(service, name, repository, &input.image_id)?;
    let statuses = store.spread.signings(name, &digest);
    Ok(json!({
        "registryId": service.config.account,
        "repositoryName": name,
        "imageId": {"imageDigest": digest.as_str()},
        "signingStatuses": statuses,
    }))
}

fn resolve(service: &Service, name: &str, repository: &Repository, id: &ImageId) -> Result<Digest, ApiError> {
    id.check()
        .map_err(|_| ApiError::invalid("imageId", "must have a digest or a tag, in their form"))?;
    id.find(repository).ok_or_else(|| not_found(service, name, id))
}
