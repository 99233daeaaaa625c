//! Operations on the signing configuration, and on who does not count as a puller.

use super::super::Service;
use super::super::names::{is_repository_name, matches};
use super::super::scan::seconds;
use super::Answer;
use super::error::ApiError;
use super::pages::{page, with_token};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct SigningConfiguration {
    rules: Vec<SigningRule>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct SigningRule {
    signing_profile_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository_filters: Option<Vec<Filter>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    filter: String,
    filter_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Put {
    signing_configuration: SigningConfiguration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Principal {
    principal_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List {
    next_token: Option<String>,
    max_results: Option<i64>,
}

impl SigningConfiguration {
    /// The profiles that sign what is pushed to a repository.
    pub(in super::super) fn profiles(&self, repository: &str) -> Vec<String> {
        let rules = self.rules.iter().filter(|rule| match &rule.repository_filters {
            None => true,
            Some(filters) => filters.iter().any(|filter| matches(&filter.filter, repository)),
        });
        let profiles: BTreeSet<&String> = rules.map(|rule| &rule.signing_profile_arn).collect();
        profiles.into_iter().cloned().collect()
    }
}

pub(super) fn put(service: &Service, input: Put) -> Answer {
    let wanted = input.signing_configuration;
    if wanted.rules.len() > 10 {
        return Err(ApiError::invalid(
            "rules",
            "Member must have length less than or equal to 10",
        ));
    }
    for rule in &wanted.rules {
        if !is_profile(&rule.signing_profile_arn) {
            return Err(ApiError::invalid(
                "signingProfileArn",
                "must satisfy regular expression '^arn:aws(-[a-z]+)*:signer:[a-z0-9-]+:[0-9]{12}:\\/signing-profiles\\/[a-zA-Z0-9_]{2,}$'",
            ));
        }
        let Some(filters) = &rule.repository_filters else {
            continue;
        };
        if filters.is_empty() || filters.len() > 100 {
            return Err(ApiError::invalid(
                "repositoryFilters",
                "Member must have length between 1 and 100",
            ));
        }
        for filter in filters {
            // A star stands for any text, so it may stand where a letter may.
            let name = format!("{}x", filter.filter.replace('*', "x"));
            if filter.filter.is_empty()
                || !is_repository_name(&name)
                || filter.filter_type != "WILDCARD_MATCH"
            {
                return Err(ApiError::invalid(
                    "repositoryFilters",
                    "filters of the type WILDCARD_MATCH are names of repositories with stars",
                ));
            }
        }
    }
    service.store().signing = Some(wanted.clone());
    Ok(json!({"signingConfiguration": wanted}))
}

pub(super) fn get(service: &Service) -> Answer {
    let configuration = service.store().signing.clone();
    let configuration = configuration.ok_or_else(|| none(service))?;
    Ok(json!({"registryId": service.config.account, "signingConfiguration": configuration}))
}

pub(super) fn delete(service: &Service) -> Answer {
    let configuration = service.store().signing.take();
    let configuration = configuration.ok_or_else(|| none(service))?;
    Ok(json!({"registryId": service.config.account, "signingConfiguration": configuration}))
}

pub(super) fn register(service: &Service, input: Principal) -> Answer {
    let arn = input.principal_arn;
    check_principal(&arn)?;
    let mut store = service.store();
    if store.pull_time_exclusions.contains_key(&arn) {
        return Err(ApiError::new(
            "ExclusionAlreadyExistsException",
            format!("The pull time update exclusion for '{arn}' already exists"),
        ));
    }
    let now = Timestamp::now();
    store.pull_time_exclusions.insert(arn.clone(), now);
    Ok(json!({"principalArn": arn, "createdAt": seconds(now)}))
}

pub(super) fn deregister(service: &Service, input: Principal) -> Answer {
    let arn = input.principal_arn;
    check_principal(&arn)?;
    match service.store().pull_time_exclusions.remove(&arn) {
        Some(_) => Ok(json!({"principalArn": arn})),
        None => Err(ApiError::new(
            "ExclusionNotFoundException",
            format!("The pull time update exclusion for '{arn}' does not exist"),
        )),
    }
}

pub(super) fn list(service: &Service, input: List) -> Answer {
    let store = service.store();
    let all = store.pull_time_exclusions.keys();
    let all = all.map(|arn| (arn.clone(), arn.clone())).collect();
    let (exclusions, next) = page(all, input.max_results, input.next_token.as_deref())?;
    Ok(with_token(json!({"pullTimeUpdateExclusions": exclusions}), next))
}

fn none(service: &Service) -> ApiError {
    let account = &service.config.account;
    ApiError::new(
        "SigningConfigurationNotFoundException",
        format!("Signing configuration does not exist in the registry with id '{account}'"),
    )
}

fn is_profile(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [arn_word, partition, service, _region, account, resource] = parts[..] else {
        return false;
    };
    let name = resource.strip_prefix("/signing-profiles/").unwrap_or_default();
    arn.len() <= 200
        && (arn_word, service) == ("arn", "signer")
        && partition.starts_with("aws")
        && is_account(account)
        && name.len() >= 2
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn check_principal(arn: &str) -> Result<(), ApiError> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let right = match parts[..] {
        ["arn", partition, "iam", "", account, resource] => {
            let (kind, name) = resource.split_once('/').unwrap_or_default();
            partition.starts_with("aws")
                && is_account(account)
                && matches!(kind, "role" | "user")
                && name.split('/').all(|part| !part.is_empty())
        }
        _ => false,
    };
    if right && arn.len() <= 200 {
        return Ok(());
    }
    Err(ApiError::invalid(
        "principalArn",
        "must be the ARN of a role or a user of IAM, at most 200 long",
    ))
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}
