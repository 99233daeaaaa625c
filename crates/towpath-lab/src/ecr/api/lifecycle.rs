//! Lifecycle policies and their previews.

use super::super::Service;
use super::super::lifecycle::{ActionKind, Marked, Policy, Preview};
use super::super::scan::seconds;
use super::super::store::Repository;
use super::Answer;
use super::error::ApiError;
use super::images::{ImageId, check_count};
use super::listing::Filter;
use super::pages::{Page, with_token};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use towpath_core::Digest;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    registry_id: Option<String>,
    repository_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Put {
    registry_id: Option<String>,
    repository_name: String,
    lifecycle_policy_text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Start {
    registry_id: Option<String>,
    repository_name: String,
    lifecycle_policy_text: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GetPreview {
    registry_id: Option<String>,
    repository_name: String,
    image_ids: Option<Vec<ImageId>>,
    #[serde(default)]
    filter: Filter,
    next_token: Option<String>,
    max_results: Option<i64>,
}

pub(super) fn put(service: &Service, input: Put) -> Answer {
    let mut store = service.store();
    let repository = service.find(&mut store, &input.repository_name, input.registry_id.as_deref())?;
    parse(&input.lifecycle_policy_text)?;
    let answer = policy_answer(service, &input.repository_name, &input.lifecycle_policy_text);
    repository.lifecycle = Some(input.lifecycle_policy_text);
    Ok(answer)
}

pub(super) fn get(service: &Service, input: Named) -> Answer {
    let mut store = service.store();
    let name = &input.repository_name;
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    let text = repository.lifecycle.as_ref();
    let text = text.ok_or_else(|| no_policy(service, name))?;
    Ok(evaluated(policy_answer(service, name, text), repository))
}

pub(super) fn delete(service: &Service, input: Named) -> Answer {
    let mut store = service.store();
    let name = &input.repository_name;
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    let text = repository.lifecycle.take();
    let text = text.ok_or_else(|| no_policy(service, name))?;
    let answer = evaluated(policy_answer(service, name, &text), repository);
    repository.lifecycle_evaluated = None;
    Ok(answer)
}

pub(super) fn start_preview(service: &Service, input: Start) -> Answer {
    let restore = service.restore();
    let mut store = service.store();
    let name = &input.repository_name;
    service.find(&mut store, name, input.registry_id.as_deref())?;
    let store = &mut *store;
    let Some(repository) = store.repositories.get_mut(name) else {
        return Err(no_policy(service, name));
    };
    let text = input
        .lifecycle_policy_text
        .or_else(|| repository.lifecycle.clone());
    let text = text.ok_or_else(|| no_policy(service, name))?;
    let policy = parse(&text)?;
    let running = repository.preview.as_ref();
    if running.is_some_and(|preview| store.previews.status(preview) == "IN_PROGRESS") {
        return Err(ApiError::new(
            "LifecyclePolicyPreviewInProgressException",
            "The previous lifecycle policy preview request has not completed. Please try again later.",
        ));
    }
    let marked = policy.evaluate(repository, restore, Timestamp::now());
    let mut answer = policy_answer(service, name, &text);
    answer["status"] = json!("IN_PROGRESS");
    repository.preview = Some(Preview::new(text, marked));
    Ok(answer)
}

pub(super) fn preview(service: &Service, input: GetPreview) -> Answer {
    let mut store = service.store();
    let name = &input.repository_name;
    service.find(&mut store, name, input.registry_id.as_deref())?;
    let store = &*store;
    let repository = store.repositories.get(name);
    let preview = repository.and_then(|repository| repository.preview.as_ref());
    let (Some(repository), Some(preview)) = (repository, preview) else {
        let account = &service.config.account;
        let message = format!("There is no lifecycle policy preview for '{account}/{name}'");
        return Err(ApiError::new("LifecyclePolicyPreviewNotFoundException", message));
    };
    let mut answer = policy_answer(service, name, &preview.text);
    let status = store.previews.status(preview);
    answer["status"] = json!(status);
    if status != "COMPLETE" {
        return Ok(answer);
    }
    input.filter.check()?;
    let results = preview.marked.iter();
    let admitted = results.filter(|(_, mark)| input.filter.admits_tags(!mark.tags.is_empty()));
    let count = |action| {
        let marks = preview.marked.values();
        marks.filter(|mark| mark.action == action).count()
    };
    answer["summary"] = json!({"expiringImageTotalCount": count(ActionKind::Expire)});
    let transitions = count(ActionKind::Transition);
    if transitions > 0 {
        answer["summary"]["transitioningImageTotalCounts"] =
            json!([{"targetStorageClass": "ARCHIVE", "imageTotalCount": transitions}]);
    }
    let (results, next) = match input.image_ids {
        None => {
            let page = Page::within(input.max_results, 100, 100, input.next_token.as_deref())?;
            page.take(admitted.map(|(digest, mark)| (digest.to_string(), result(digest, mark))))
        }
        Some(ids) => {
            check_count(&ids)?;
            let wanted: Vec<Digest> = ids.iter().filter_map(|id| id.find(repository)).collect();
            let results = admitted
                .filter(|(digest, _)| wanted.contains(digest))
                .map(|(digest, mark)| result(digest, mark));
            (results.collect(), None)
        }
    };
    answer["previewResults"] = json!(results);
    Ok(with_token(answer, next))
}

fn result(digest: &Digest, mark: &Marked) -> Value {
    let action = match mark.action {
        ActionKind::Expire => json!({"type": "EXPIRE"}),
        ActionKind::Transition => json!({"type": "TRANSITION", "targetStorageClass": "ARCHIVE"}),
    };
    json!({
        "imageTags": mark.tags,
        "imageDigest": digest.as_str(),
        "imagePushedAt": seconds(mark.pushed_at),
        "action": action,
        "appliedRulePriority": mark.priority,
        "storageClass": if mark.archived { "ARCHIVE" } else { "STANDARD" },
    })
}

fn parse(text: &str) -> Result<Policy, ApiError> {
    Policy::parse(text).map_err(|constraint| ApiError::invalid("LifecyclePolicyText", &constraint))
}

fn policy_answer(service: &Service, name: &str, text: &str) -> Value {
    json!({
        "registryId": service.config.account,
        "repositoryName": name,
        "lifecyclePolicyText": text,
    })
}

fn evaluated(mut answer: Value, repository: &Repository) -> Value {
    if let Some(evaluated) = repository.lifecycle_evaluated {
        answer["lastEvaluatedAt"] = seconds(evaluated);
    }
    answer
}

fn no_policy(service: &Service, name: &str) -> ApiError {
    ApiError::new(
        "LifecyclePolicyNotFoundException",
        format!(
            "Lifecycle policy does not exist for the repository with name '{name}' in the registry with id '{}'",
            service.config.account
        ),
    )
}
