//! Tags of resources, which are key and value, unlike the tags of images.

use super::super::Service;
use super::super::store::{Repository, Store};
use super::Answer;
use super::error::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// How many tags a repository may have.
const MOST: usize = 50;

#[derive(Deserialize, Serialize)]
pub(super) struct ResourceTag {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Value")]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TagResource {
    resource_arn: String,
    tags: Vec<ResourceTag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UntagResource {
    resource_arn: String,
    tag_keys: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListTags {
    resource_arn: String,
}

pub(super) fn tag(service: &Service, input: TagResource) -> Answer {
    let tags = check(input.tags)?;
    let mut store = service.store();
    let repository = by_arn(service, &mut store, &input.resource_arn)?;
    let mut all = repository.resource_tags.clone();
    all.extend(tags);
    if all.len() > MOST {
        return Err(too_many());
    }
    repository.resource_tags = all;
    Ok(json!({}))
}

pub(super) fn untag(service: &Service, input: UntagResource) -> Answer {
    let mut store = service.store();
    let repository = by_arn(service, &mut store, &input.resource_arn)?;
    for key in input.tag_keys {
        repository.resource_tags.remove(&key);
    }
    Ok(json!({}))
}

pub(super) fn list(service: &Service, input: ListTags) -> Answer {
    let mut store = service.store();
    let repository = by_arn(service, &mut store, &input.resource_arn)?;
    Ok(json!({"tags": written(&repository.resource_tags)}))
}

pub(super) fn written(tags: &BTreeMap<String, String>) -> Vec<ResourceTag> {
    let pairs = tags.iter();
    pairs
        .map(|(key, value)| ResourceTag {
            key: key.clone(),
            value: value.clone(),
        })
        .collect()
}

/// The tags of a request, where they are within the limits: up to 50, keys of 128 and values of 256 characters.
pub(super) fn check(tags: Vec<ResourceTag>) -> Result<BTreeMap<String, String>, ApiError> {
    if tags.len() > MOST {
        return Err(too_many());
    }
    let mut checked = BTreeMap::new();
    for ResourceTag { key, value } in tags {
        let invalid = |message: &str| Err(ApiError::new("InvalidTagParameterException", message));
        if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            return invalid("Tag keys have 1 to 128 characters, tag values at most 256");
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return invalid("Tag keys that begin with 'aws:' are reserved");
        }
        if checked.insert(key, value).is_some() {
            return invalid("Duplicate tag keys found");
        }
    }
    Ok(checked)
}

fn too_many() -> ApiError {
    ApiError::new(
        "TooManyTagsException",
        format!("A repository has at most {MOST} tags"),
    )
}

fn by_arn<'s>(service: &Service, store: &'s mut Store, arn: &str) -> Result<&'s mut Repository, ApiError> {
    let ours = service.repository_arn("");
    match arn.strip_prefix(&ours) {
        Some(name) => service.find(store, name, None),
        None => Err(ApiError::invalid("resourceArn", "Invalid ARN")),
    }
}
