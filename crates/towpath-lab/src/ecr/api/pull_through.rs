//! Operations on pull-through cache rules.

use super::super::Service;
use super::super::pull_through::PullFailure;
use super::super::scan::seconds;
use super::super::secrets::{LOGIN_FAILED, SecretFault};
use super::super::store::Rule;
use super::Answer;
use super::error::ApiError;
use super::pages::{page, with_token};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use towpath_core::{RegistryHost, RepositoryName};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Create {
    ecr_repository_prefix: String,
    upstream_registry_url: String,
    upstream_registry: Option<String>,
    credential_arn: Option<String>,
    custom_role_arn: Option<String>,
    upstream_repository_prefix: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    ecr_repository_prefix: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Update {
    ecr_repository_prefix: String,
    credential_arn: Option<String>,
    custom_role_arn: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Describe {
    ecr_repository_prefixes: Option<Vec<String>>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

const PREFIX: &str = "must satisfy regular expression \
    '^([a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(\\/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*\\/?|ROOT)$', and have length between 2 and \
    30";

/// What a kind of upstream needs to be pulled from.
#[derive(PartialEq)]
enum Needs {
    Nothing,
    Secret,
    Role,
}

pub(super) fn create(service: &Service, input: Create) -> Answer {
    let prefix = input.ecr_repository_prefix.trim_end_matches('/').to_owned();
    if !is_prefix(&prefix) {
        return Err(ApiError::invalid("ecrRepositoryPrefix", PREFIX));
    }
    let url = input.upstream_registry_url;
    let unsupported = |message: String| Err(ApiError::new("UnsupportedUpstreamRegistryException", message));
    let Some((kind, needs)) = kind_of(&url) else {
        return unsupported(format!("The upstream registry URL '{url}' is not supported"));
    };
    if input
        .upstream_registry
        .as_deref()
        .is_some_and(|wanted| wanted != kind)
    {
        return Err(ApiError::invalid(
            "upstreamRegistry",
            &format!("'{url}' is the registry '{kind}'"),
        ));
    }
    let credential = input.credential_arn.as_deref();
    check_credential(service, credential)?;
    let across_accounts = !url.starts_with(&format!("{}.", service.config.account));
    if (needs == Needs::Secret && credential.is_none())
        || (needs == Needs::Role && across_accounts && input.custom_role_arn.is_none())
    {
        return unsupported(format!("The upstream registry '{url}' requires authentication"));
    }
    let upstream_prefix = input.upstream_repository_prefix.unwrap_or_else(|| "ROOT".into());
    let upstream_prefix = upstream_prefix.trim_end_matches('/').to_owned();
    if !is_prefix(&upstream_prefix) {
        return Err(ApiError::invalid("upstreamRepositoryPrefix", PREFIX));
    }
    if prefix == "ROOT" && upstream_prefix != "ROOT" {
        return Err(ApiError::new(
            "ValidationException",
            "upstreamRepositoryPrefix cannot be set when ecrRepositoryPrefix is ROOT",
        ));
    }
    let mut store = service.store();
    if store.rules.contains_key(&prefix) {
        return Err(ApiError::new(
            "PullThroughCacheRuleAlreadyExistsException",
            format!(
                "Pull through cache rule with prefix '{prefix}' already exists in the registry with id '{}'",
                service.config.account
            ),
        ));
    }
    if store.rules.len() >= 50 {
        return Err(ApiError::new(
            "LimitExceededException",
            "The registry already has 50 pull through cache rules",
        ));
    }
    let now = Timestamp::now();
    let rule = Rule {
        upstream_url: url,
        upstream_name: kind,
        upstream_prefix,
        credential_arn: input.credential_arn,
        custom_role_arn: input.custom_role_arn,
        created_at: now,
        updated_at: now,
    };
    let mut answer = describe_one(service, &prefix, &rule);
    remove(&mut answer, "updatedAt");
    store.rules.insert(prefix, rule);
    Ok(answer)
}

pub(super) fn describe(service: &Service, input: Describe) -> Answer {
    let store = service.store();
    if let Some(prefixes) = input.ecr_repository_prefixes {
        let mut rules = Vec::new();
        for prefix in prefixes {
            let rule = store
                .rules
                .get(&prefix)
                .ok_or_else(|| no_rule(service, &prefix))?;
            rules.push(describe_one(service, &prefix, rule));
        }
        return Ok(json!({"pullThroughCacheRules": rules}));
    }
    let rules = store.rules.iter();
    let items = rules.map(|(prefix, rule)| (prefix.clone(), describe_one(service, prefix, rule)));
    let (rules, next) = page(items.collect(), input.max_results, input.next_token.as_deref())?;
    Ok(with_token(json!({"pullThroughCacheRules": rules}), next))
}

pub(super) fn delete(service: &Service, input: Named) -> Answer {
    let prefix = input.ecr_repository_prefix;
    let mut store = service.store();
    let rule = store
        .rules
        .remove(&prefix)
        .ok_or_else(|| no_rule(service, &prefix))?;
    let mut answer = describe_one(service, &prefix, &rule);
    remove(&mut answer, "updatedAt");
    remove(&mut answer, "upstreamRegistry");
    Ok(answer)
}

pub(super) fn update(service: &Service, input: Update) -> Answer {
    let prefix = input.ecr_repository_prefix;
    if !service.store().rules.contains_key(&prefix) {
        return Err(no_rule(service, &prefix));
    }
    check_credential(service, input.credential_arn.as_deref())?;
    let mut store = service.store();
    let rule = store
        .rules
        .get_mut(&prefix)
        .ok_or_else(|| no_rule(service, &prefix))?;
    rule.credential_arn = input.credential_arn.or(rule.credential_arn.take());
    rule.custom_role_arn = input.custom_role_arn.or(rule.custom_role_arn.take());
    rule.updated_at = Timestamp::now();
    let mut answer = describe_one(service, &prefix, rule);
    for name in ["createdAt", "upstreamRegistry", "upstreamRegistryUrl"] {
        remove(&mut answer, name);
    }
    Ok(answer)
}

/// A rule is valid where its upstream can be reached and takes the login of its secret.
pub(super) async fn validate(service: &Service, input: Named) -> Answer {
    let prefix = input.ecr_repository_prefix;
    let rule = service.store().rules.get(&prefix).cloned();
    let rule = rule.ok_or_else(|| no_rule(service, &prefix))?;
    let failure = match service.try_rule(&rule).await {
        Ok(()) => None,
        Err(PullFailure::Secret(fault)) => Some(fault.message().to_owned()),
        Err(PullFailure::LoginRefused | PullFailure::Denied) => Some(LOGIN_FAILED.to_owned()),
        Err(PullFailure::TooManyRequests) => Some("The upstream registry is throttling requests".to_owned()),
        Err(PullFailure::NotFound | PullFailure::Unavailable(_)) => Some(format!(
            "The upstream registry '{}' cannot be reached",
            rule.upstream_url
        )),
    };
    let mut answer = describe_one(service, &prefix, &rule);
    for name in ["createdAt", "updatedAt", "upstreamRegistry"] {
        remove(&mut answer, name);
    }
    answer["isValid"] = json!(failure.is_none());
    if let Some(failure) = failure {
        answer["failure"] = json!(failure);
    }
    Ok(answer)
}

/// Checks the ARN of a secret, and that the service can use what it names.
fn check_credential(service: &Service, arn: Option<&str>) -> Result<(), ApiError> {
    let Some(arn) = arn else {
        return Ok(());
    };
    let name = arn
        .split_once(":secret:ecr-pullthroughcache/")
        .map(|(_, name)| name);
    let is_arn = arn.starts_with("arn:aws") && arn.contains(":secretsmanager:");
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
    let fits = name.is_some_and(|name| !name.is_empty() && name.chars().all(allowed));
    if !is_arn || !fits || !(50..=612).contains(&arn.len()) {
        return Err(ApiError::invalid(
            "credentialArn",
            "must satisfy regular expression \
             '^arn:aws(-\\w+)*:secretsmanager:[a-zA-Z0-9-:]+:secret:ecr\\-pullthroughcache\\/[a-zA-Z0-9\\/_+=.@-]+$', and \
             have length between 50 and 612",
        ));
    }
    service.secret(arn).map(|_| ()).map_err(|fault| {
        let kind = match fault {
            SecretFault::NotFound => "SecretNotFoundException",
            SecretFault::NotAccessible => "UnableToAccessSecretException",
            SecretFault::NotDecryptable => "UnableToDecryptSecretValueException",
        };
        ApiError::new(kind, fault.message())
    })
}

fn describe_one(service: &Service, prefix: &str, rule: &Rule) -> Value {
    let mut answer = json!({
        "ecrRepositoryPrefix": prefix,
        "upstreamRegistryUrl": rule.upstream_url,
        "upstreamRegistry": rule.upstream_name,
        "upstreamRepositoryPrefix": rule.upstream_prefix,
        "registryId": service.config.account,
        "createdAt": seconds(rule.created_at),
        "updatedAt": seconds(rule.updated_at),
    });
    for (name, value) in [
        ("credentialArn", &rule.credential_arn),
        ("customRoleArn", &rule.custom_role_arn),
    ] {
        if let Some(value) = value {
            answer[name] = json!(value);
        }
    }
    answer
}

fn remove(answer: &mut Value, name: &str) {
    if let Some(fields) = answer.as_object_mut() {
        fields.remove(name);
    }
}

fn no_rule(service: &Service, prefix: &str) -> ApiError {
    ApiError::new(
        "PullThroughCacheRuleNotFoundException",
        format!(
            "Pull through cache rule with prefix '{prefix}' does not exist in the registry with id '{}'",
            service.config.account
        ),
    )
}

fn is_prefix(prefix: &str) -> bool {
    prefix == "ROOT" || ((2..=30).contains(&prefix.len()) && RepositoryName::new(prefix).is_ok())
}

/// The name of an upstream by its URL, and what it needs.
fn kind_of(url: &str) -> Option<(&'static str, Needs)> {
    match url {
        "public.ecr.aws" => Some(("ecr-public", Needs::Nothing)),
        "quay.io" => Some(("quay", Needs::Nothing)),
        "registry.k8s.io" => Some(("k8s", Needs::Nothing)),
        "registry-1.docker.io" => Some(("docker-hub", Needs::Secret)),
        "ghcr.io" => Some(("github-container-registry", Needs::Secret)),
        "registry.gitlab.com" => Some(("gitlab-container-registry", Needs::Secret)),
        "cgr.dev" => Some(("chainguard", Needs::Secret)),
        _ if url.ends_with(".azurecr.io") => Some(("azure-container-registry", Needs::Secret)),
        _ if RegistryHost::new(url).is_ok_and(|host| host.ecr().is_some()) => Some(("ecr", Needs::Role)),
        _ => None,
    }
}
