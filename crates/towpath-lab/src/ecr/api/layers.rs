//! Operations on layers.

use super::super::Service;
use super::super::uploads::Session;
use super::Answer;
use super::error::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use towpath_core::Digest;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckAvailability {
    registry_id: Option<String>,
    repository_name: String,
    layer_digests: Vec<String>,
}

pub(super) fn batch_check_availability(service: &Service, input: CheckAvailability) -> Answer {
    if input.layer_digests.is_empty() || input.layer_digests.len() > 100 {
        return Err(ApiError::invalid(
            "layerDigests",
            "Member must have length between 1 and 100",
        ));
    }
    let mut store = service.store();
    let repository = service.find(&mut store, &input.repository_name, input.registry_id.as_deref())?;
    let (mut layers, mut failures): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for text in input.layer_digests {
        let Ok(digest) = text.parse::<Digest>() else {
            failures.push(json!({
                "layerDigest": text,
                "failureCode": "InvalidLayerDigest",
                "failureReason": "Invalid layer digest",
            }));
            continue;
        };
        let size = repository
            .blobs
            .contains(&digest)
            .then(|| service.blobs.size(&digest))
            .flatten();
        layers.push(match size {
            Some(size) => json!({"layerDigest": text, "layerAvailability": "AVAILABLE", "layerSize": size}),
            None => json!({"layerDigest": text, "layerAvailability": "UNAVAILABLE"}),
        });
    }
    Ok(json!({"layers": layers, "failures": failures}))
}

/// The smallest part, but for the last one of a layer, in bytes.
const SMALLEST_PART: u64 = 5 * 1024 * 1024;

/// The largest part, in bytes.
pub(super) const LARGEST_PART: usize = 20 * 1024 * 1024;

/// The size of parts that `InitiateLayerUpload` asks for, in bytes.
const PART: u64 = 10 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InitiateUpload {
    registry_id: Option<String>,
    repository_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UploadPart {
    registry_id: Option<String>,
    repository_name: String,
    upload_id: String,
    part_first_byte: u64,
    part_last_byte: u64,
    layer_part_blob: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CompleteUpload {
    registry_id: Option<String>,
    repository_name: String,
    upload_id: String,
    layer_digests: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GetDownloadUrl {
    registry_id: Option<String>,
    repository_name: String,
    layer_digest: String,
}

pub(super) fn initiate_upload(service: &Service, input: InitiateUpload) -> Answer {
    service.find(
        &mut service.store(),
        &input.repository_name,
        input.registry_id.as_deref(),
    )?;
    let upload = service.blobs.begin().map_err(|error| ApiError::server(&error))?;
    let id = service.uploads.open(&input.repository_name, upload);
    Ok(json!({"uploadId": id, "partSize": PART}))
}

pub(super) async fn upload_part(service: &Service, input: UploadPart) -> Answer {
    let name = &input.repository_name;
    service.find(&mut service.store(), name, input.registry_id.as_deref())?;
    let Ok(part) = STANDARD.decode(&input.layer_part_blob) else {
        return Err(ApiError::new(
            "SerializationException",
            "layerPartBlob is not base64",
        ));
    };
    if part.len() > LARGEST_PART {
        let constraint = format!("Member must have length less than or equal to {LARGEST_PART}");
        return Err(ApiError::invalid("layerPartBlob", &constraint));
    }
    let session = service.session(name, &input.upload_id)?;
    let mut guard = session.open.lock().await;
    let open = guard
        .as_mut()
        .ok_or_else(|| service.no_upload(name, &input.upload_id))?;
    let received = open.upload.received();
    let invalid = |message: String| {
        let error = ApiError::new("InvalidLayerPartException", message)
            .with("registryId", service.config.account.as_str())
            .with("repositoryName", name.as_str())
            .with("uploadId", input.upload_id.as_str());
        // Nothing is valid yet where nothing has come.
        match received.checked_sub(1) {
            Some(last) => error.with("lastValidByteReceived", last),
            None => error,
        }
    };
    if input.part_first_byte != received {
        return Err(invalid(format!(
            "First byte of the layer part is {} instead of {received}",
            input.part_first_byte
        )));
    }
    let length = part.len() as u64;
    let said = input
        .part_last_byte
        .checked_sub(input.part_first_byte)
        .and_then(|span| span.checked_add(1));
    if length == 0 || said != Some(length) {
        return Err(invalid(format!(
            "The layer part has {length} bytes, which are not those it is said to be"
        )));
    }
    open.upload
        .append(&part)
        .map_err(|error| ApiError::server(&error))?;
    // Only once another part follows it is known that the one before was not the last.
    open.short_part |= open.last_part.is_some_and(|last| last < SMALLEST_PART);
    open.last_part = Some(length);
    Ok(json!({
        "registryId": service.config.account,
        "repositoryName": name,
        "uploadId": input.upload_id,
        "lastByteReceived": input.part_last_byte,
    }))
}

pub(super) async fn complete_upload(service: &Service, input: CompleteUpload) -> Answer {
    let name = &input.repository_name;
    service.find(&mut service.store(), name, input.registry_id.as_deref())?;
    let digests: Option<Vec<Digest>> = input.layer_digests.iter().map(|text| text.parse().ok()).collect();
    let Some((digest, others)) = digests.as_deref().and_then(<[Digest]>::split_first) else {
        return Err(ApiError::invalid(
            "layerDigests",
            "Member must have between 1 and 100 digests",
        ));
    };
    let session = service.session(name, &input.upload_id)?;
    let mut guard = session.open.lock().await;
    let open = guard
        .as_ref()
        .ok_or_else(|| service.no_upload(name, &input.upload_id))?;
    if open.upload.received() == 0 {
        let message = format!("The upload with id '{}' contains no layer parts", input.upload_id);
        return Err(ApiError::new("EmptyUploadException", message));
    }
    if open.short_part {
        let message = format!("Layer parts must be at least {SMALLEST_PART} bytes, but for the last one");
        return Err(ApiError::new("LayerPartTooSmallException", message));
    }
    let Some(open) = guard.take() else {
        return Err(service.no_upload(name, &input.upload_id));
    };
    service.uploads.close(&input.upload_id);
    let kept = service
        .blobs
        .keep(open.upload, digest)
        .map_err(|error| ApiError::server(&error))?;
    let differs = kept
        .err()
        .or_else(|| others.iter().find(|other| *other != digest).cloned());
    if let Some(other) = differs {
        let message = format!("The layer digest '{digest}' differs from '{other}'");
        return Err(ApiError::new("InvalidLayerException", message));
    }
    let mut store = service.store();
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    if !repository.blobs.insert(digest.clone()) {
        let message = format!("The layer '{digest}' already exists in the repository with name '{name}'");
        return Err(ApiError::new("LayerAlreadyExistsException", message));
    }
    Ok(json!({
        "registryId": service.config.account,
        "repositoryName": name,
        "uploadId": input.upload_id,
        "layerDigest": digest.as_str(),
    }))
}

pub(super) fn get_download_url(service: &Service, input: GetDownloadUrl) -> Answer {
    let name = &input.repository_name;
    let mut store = service.store();
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    let Ok(digest) = input.layer_digest.parse::<Digest>() else {
        return Err(ApiError::invalid(
            "layerDigest",
            "must satisfy regular expression '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'",
        ));
    };
    if !repository.blobs.contains(&digest) {
        let message = format!("The layer '{digest}' does not exist in the repository with name '{name}'");
        return Err(ApiError::new("LayersNotFoundException", message));
    }
    if !repository.references(&digest) {
        let message = format!("The layer '{digest}' is not associated with an image");
        return Err(ApiError::new("LayerInaccessibleException", message));
    }
    Ok(json!({"downloadUrl": service.download_url(&digest), "layerDigest": digest.as_str()}))
}

impl Service {
    fn session(&self, name: &str, id: &str) -> Result<Session, ApiError> {
        self.uploads
            .find(name, id)
            .ok_or_else(|| self.no_upload(name, id))
    }

    fn no_upload(&self, name: &str, id: &str) -> ApiError {
        let account = &self.config.account;
        let message = format!(
            "The upload with id '{id}' could not be found in the repository with name '{name}' in the registry with \
             id '{account}'"
        );
        ApiError::new("UploadNotFoundException", message)
    }
}
