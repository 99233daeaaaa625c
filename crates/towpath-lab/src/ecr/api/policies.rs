//! Operations on the policies of repositories and of the registry.

use super::super::Service;
use super::super::store::Store;
use super::Answer;
use super::error::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

const MAX_LENGTH: usize = 10_240;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Set {
    registry_id: Option<String>,
    repository_name: String,
    policy_text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    registry_id: Option<String>,
    repository_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Put {
    policy_text: String,
}

pub(super) fn set(service: &Service, input: Set) -> Answer {
    let mut store = service.store();
    let repository = service.find(&mut store, &input.repository_name, input.registry_id.as_deref())?;
    let text = check(&input.policy_text, "repository")?;
    repository.policy = Some(text.clone());
    Ok(of_repository(service, &input.repository_name, &text))
}

pub(super) fn get(service: &Service, input: Named) -> Answer {
    let mut store = service.store();
    let repository = service.find(&mut store, &input.repository_name, input.registry_id.as_deref())?;
    let text = repository.policy.clone();
    let text = text.ok_or_else(|| no_repository_policy(service, &input.repository_name))?;
    Ok(of_repository(service, &input.repository_name, &text))
}

pub(super) fn delete(service: &Service, input: Named) -> Answer {
    let mut store = service.store();
    let repository = service.find(&mut store, &input.repository_name, input.registry_id.as_deref())?;
    let text = repository.policy.take();
    let text = text.ok_or_else(|| no_repository_policy(service, &input.repository_name))?;
    Ok(of_repository(service, &input.repository_name, &text))
}

pub(super) fn put_registry(service: &Service, input: Put) -> Answer {
    let text = check(&input.policy_text, "registry")?;
    service.store().registry_policy = Some(text.clone());
    Ok(of_registry(service, &text))
}

pub(super) fn get_registry(service: &Service) -> Answer {
    let text = service.store().registry_policy.clone();
    let text = text.ok_or_else(|| no_registry_policy(service))?;
    Ok(of_registry(service, &text))
}

pub(super) fn delete_registry(service: &Service) -> Answer {
    let mut store: std::sync::MutexGuard<'_, Store> = service.store();
    let text = store.registry_policy.take();
    let text = text.ok_or_else(|| no_registry_policy(service))?;
    Ok(of_registry(service, &text))
}

fn of_repository(service: &Service, name: &str, text: &str) -> Value {
    json!({"registryId": service.config.account, "repositoryName": name, "policyText": text})
}

fn of_registry(service: &Service, text: &str) -> Value {
    json!({"registryId": service.config.account, "policyText": text})
}

fn no_repository_policy(service: &Service, name: &str) -> ApiError {
    let account = &service.config.account;
    ApiError::new(
        "RepositoryPolicyNotFoundException",
        format!(
            "Repository policy does not exist for the repository with name '{name}' in the registry with id \
             '{account}'"
        ),
    )
}

fn no_registry_policy(service: &Service) -> ApiError {
    let account = &service.config.account;
    ApiError::new(
        "RegistryPolicyNotFoundException",
        format!("Registry policy does not exist in the registry with id '{account}'"),
    )
}

/// A policy as the service keeps it: with spaces and line breaks of its own, and accounts written as their root user.
pub(super) fn check(text: &str, of: &str) -> Result<String, ApiError> {
    if text.len() > MAX_LENGTH {
        return Err(ApiError::invalid(
            "policyText",
            "Member must have length less than or equal to 10240",
        ));
    }
    let invalid = || ApiError::invalid("PolicyText", &format!("Invalid {of} policy provided"));
    let mut policy: Value = serde_json::from_str(text).map_err(|_| invalid())?;
    let known = policy
        .get("Version")
        .is_none_or(|version| version == "2008-10-17" || version == "2012-10-17");
    let statements = match policy.get_mut("Statement") {
        Some(Value::Array(statements)) if !statements.is_empty() => statements.iter_mut().collect(),
        Some(statement @ Value::Object(_)) => vec![statement],
        _ => return Err(invalid()),
    };
    for statement in statements {
        let effect = statement.get("Effect").and_then(Value::as_str);
        let acts = statement.get("Action").is_some() || statement.get("NotAction").is_some();
        let by = statement.get("Principal").is_some() || statement.get("NotPrincipal").is_some();
        if !matches!(effect, Some("Allow" | "Deny")) || !acts || !by {
            return Err(invalid());
        }
        if let Some(accounts) = statement.get_mut("Principal").and_then(|by| by.get_mut("AWS")) {
            spell_out(accounts);
        }
    }
    if !known {
        return Err(invalid());
    }
    serde_json::to_string_pretty(&policy).map_err(|_| invalid())
}

fn spell_out(accounts: &mut Value) {
    match accounts {
        Value::Array(list) => list.iter_mut().for_each(spell_out),
        Value::String(text) if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            *text = format!("arn:aws:iam::{text}:root");
        }
        _ => {}
    }
}
