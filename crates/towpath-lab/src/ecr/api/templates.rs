//! Operations on repository creation templates.

use super::super::Service;
use super::super::creation::Template;
use super::super::names::is_repository_name;
use super::super::scan::seconds;
use super::Answer;
use super::error::ApiError;
use super::pages::{page, with_token};
use super::policies;
use super::repositories::{EncryptionConfiguration, ExclusionFilter, add_filters, mutability_of};
use super::tags::{self, ResourceTag};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// The words of `appliedFor`.
const USES: [&str; 3] = ["REPLICATION", "PULL_THROUGH_CACHE", "CREATE_ON_PUSH"];
/// How many templates a registry may have.
const MOST: usize = 50;

/// What creating and updating have in common.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Write {
    prefix: String,
    description: Option<String>,
    encryption_configuration: Option<EncryptionConfiguration>,
    resource_tags: Option<Vec<ResourceTag>>,
    image_tag_mutability: Option<String>,
    #[serde(default)]
    image_tag_mutability_exclusion_filters: Vec<ExclusionFilter>,
    repository_policy: Option<String>,
    lifecycle_policy: Option<String>,
    applied_for: Option<Vec<String>>,
    custom_role_arn: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Describe {
    prefixes: Option<Vec<String>>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct Named {
    prefix: String,
}

pub(super) fn create(service: &Service, input: Write) -> Answer {
    let prefix = input.prefix.clone();
    check_prefix(&prefix)?;
    if input.applied_for.as_ref().is_none_or(Vec::is_empty) {
        return Err(ApiError::invalid("appliedFor", "Member must not be null"));
    }
    let now = Timestamp::now();
    let mut template = Template {
        description: None,
        encryption: Default::default(),
        resource_tags: Default::default(),
        mutability: Default::default(),
        policy: None,
        lifecycle: None,
        applied_for: Vec::new(),
        custom_role_arn: None,
        created_at: now,
        updated_at: now,
    };
    write(&mut template, input)?;
    let mut store = service.store();
    if store.templates.contains_key(&prefix) {
        return Err(ApiError::new(
            "TemplateAlreadyExistsException",
            format!("The template with prefix '{prefix}' already exists"),
        ));
    }
    if store.templates.len() >= MOST {
        return Err(ApiError::new(
            "LimitExceededException",
            format!("The registry already has {MOST} repository creation templates"),
        ));
    }
    let answer = one(service, &prefix, &template);
    store.templates.insert(prefix, template);
    Ok(answer)
}

pub(super) fn update(service: &Service, input: Write) -> Answer {
    let prefix = input.prefix.clone();
    check_prefix(&prefix)?;
    let mut store = service.store();
    let stored = store.templates.get_mut(&prefix);
    let stored = stored.ok_or_else(|| not_found(&prefix))?;
    let mut changed = stored.clone();
    write(&mut changed, input)?;
    changed.updated_at = Timestamp::now();
    *stored = changed;
    Ok(one(service, &prefix, stored))
}

pub(super) fn describe(service: &Service, input: Describe) -> Answer {
    let store = service.store();
    let account = &service.config.account;
    if let Some(prefixes) = input.prefixes {
        let mut found = Vec::new();
        for prefix in &prefixes {
            check_prefix(prefix)?;
            // A prefix without a template is left out, and no error of this operation.
            if let Some(template) = store.templates.get(prefix) {
                found.push(described(prefix, template));
            }
        }
        return Ok(json!({"registryId": account, "repositoryCreationTemplates": found}));
    }
    let all = store.templates.iter();
    let all = all.map(|(prefix, template)| (prefix.clone(), described(prefix, template)));
    let (templates, next) = page(all.collect(), input.max_results, input.next_token.as_deref())?;
    let answer = json!({"registryId": account, "repositoryCreationTemplates": templates});
    Ok(with_token(answer, next))
}

pub(super) fn delete(service: &Service, input: Named) -> Answer {
    check_prefix(&input.prefix)?;
    let removed = service.store().templates.remove(&input.prefix);
    let removed = removed.ok_or_else(|| not_found(&input.prefix))?;
    Ok(one(service, &input.prefix, &removed))
}

/// Takes over what the request names, and leaves the rest as it is.
fn write(template: &mut Template, input: Write) -> Result<(), ApiError> {
    if let Some(description) = input.description {
        if description.chars().count() > 256 {
            return Err(ApiError::invalid(
                "description",
                "Member must have length less than or equal to 256",
            ));
        }
        template.description = Some(description);
    }
    if let Some(encryption) = input.encryption_configuration {
        template.encryption = encryption.check()?;
    }
    if let Some(given) = input.resource_tags {
        template.resource_tags = tags::check(given)?;
    }
    if let Some(word) = input.image_tag_mutability {
        template.mutability = mutability_of(&word, input.image_tag_mutability_exclusion_filters)?;
    }
    if let Some(text) = input.repository_policy {
        template.policy = match text.is_empty() {
            true => None,
            false => Some(policies::check(&text, "repository")?),
        };
    }
    if let Some(text) = input.lifecycle_policy {
        if text.len() > 30_720 {
            return Err(ApiError::invalid(
                "lifecyclePolicy",
                "Member must have length less than or equal to 30720",
            ));
        }
        if !text.is_empty() && serde_json::from_str::<serde_json::Map<String, Value>>(&text).is_err() {
            return Err(ApiError::invalid(
                "lifecyclePolicy",
                "Lifecycle policy validation failure",
            ));
        }
        template.lifecycle = Some(text).filter(|text| !text.is_empty());
    }
    if let Some(uses) = input.applied_for {
        if let Some(word) = uses.iter().find(|word| !USES.contains(&word.as_str())) {
            return Err(ApiError::invalid(
                "appliedFor",
                &format!(
                    "Member must satisfy enum value set: [{}], not '{word}'",
                    USES.join(", ")
                ),
            ));
        }
        template.applied_for = uses;
    }
    if let Some(role) = input.custom_role_arn {
        template.custom_role_arn = Some(role).filter(|role| !role.is_empty());
    }
    Ok(())
}

fn check_prefix(prefix: &str) -> Result<(), ApiError> {
    let name = prefix.strip_suffix('/').unwrap_or(prefix);
    // A prefix may be one character long, a repository's name is two at least.
    if prefix == "ROOT" || is_repository_name(&format!("{name}/x")) && prefix.len() <= 256 {
        return Ok(());
    }
    Err(ApiError::invalid(
        "prefix",
        "must satisfy regular expression '^([a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(\\/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*\\/?|ROOT)$'",
    ))
}

fn not_found(prefix: &str) -> ApiError {
    ApiError::new(
        "TemplateNotFoundException",
        format!("The template with prefix '{prefix}' does not exist"),
    )
}

fn one(service: &Service, prefix: &str, template: &Template) -> Value {
    json!({
        "registryId": service.config.account,
        "repositoryCreationTemplate": described(prefix, template),
    })
}

fn described(prefix: &str, template: &Template) -> Value {
    let mut answer = json!({
        "prefix": prefix,
        "encryptionConfiguration": EncryptionConfiguration::written(&template.encryption),
        "imageTagMutability": template.mutability.name(),
        "resourceTags": tags::written(&template.resource_tags),
        "appliedFor": template.applied_for,
        "createdAt": seconds(template.created_at),
        "updatedAt": seconds(template.updated_at),
    });
    add_filters(&mut answer, &template.mutability);
    for (field, value) in [
        ("description", &template.description),
        ("repositoryPolicy", &template.policy),
        ("lifecyclePolicy", &template.lifecycle),
        ("customRoleArn", &template.custom_role_arn),
    ] {
        if let Some(value) = value {
            answer[field] = value.as_str().into();
        }
    }
    answer
}
