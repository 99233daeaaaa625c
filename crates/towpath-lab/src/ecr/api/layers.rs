//! Operations on layers.

use super::super::Service;
use super::Answer;
use super::error::ApiError;
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
