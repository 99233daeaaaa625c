//! Domains, and the tokens that open their repositories to package managers.

use super::call::{Call, page};
use super::error::ApiError;
use super::{Answer, epoch};
use crate::codeartifact::model::Domain;
use crate::codeartifact::store::Store;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// The longest life of a token in seconds, which is also the one where none is asked for.
const LONGEST: u64 = 43_200;
/// The shortest.
const SHORTEST: u64 = 900;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    encryption_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    max_results: Option<usize>,
    next_token: Option<String>,
}

pub(super) fn create(call: &mut Call<'_>) -> Answer {
    let name = call.required("domain")?.to_owned();
    let body: Create = call.json()?;
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (2..=50).contains(&name.len())
        && name.chars().all(inner)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-');
    if !fits {
        return Err(ApiError::invalid(
            "domain must be 2 to 50 lower-case letters, digits and -, start with a letter and not end with -",
        ));
    }
    if call.store.domains.contains_key(&name) {
        return Err(ApiError::conflict(
            "domain",
            &name,
            format!("domain {name} already exists"),
        ));
    }
    call.store.create_domain(&name, body.encryption_key);
    describe(call)
}

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let name = call.domain_name()?;
    let domain = call
        .store
        .domains
        .get(&name)
        .ok_or_else(|| ApiError::not_found("domain", &name))?;
    Ok(json!({ "domain": description(call.store, domain) }))
}

pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let name = call.domain_name()?;
    if !call.domain()?.repositories.is_empty() {
        return Err(ApiError::conflict(
            "domain",
            &name,
            format!("domain {name} has repositories"),
        ));
    }
    let mut answer = describe(call)?;
    call.store.domains.remove(&name);
    answer["domain"]["status"] = json!("Deleted");
    Ok(answer)
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let body: List = call.json()?;
    let domains: Vec<&Domain> = call.store.domains.values().collect();
    let (domains, next) = page(
        domains,
        |domain| domain.name.clone(),
        body.max_results,
        body.next_token.as_deref(),
    )?;
    let domains: Vec<Value> = domains
        .into_iter()
        .map(|domain| summary(call.store, domain))
        .collect();
    Ok(json!({ "domains": domains, "nextToken": next }))
}

pub(super) fn token(call: &mut Call<'_>) -> Answer {
    let domain = call.domain_name()?;
    let lifetime = match call.choice("duration")?.unwrap_or(LONGEST) {
        // As long as the credentials of the caller's role.
        0 => call.service.session,
        seconds @ SHORTEST..=LONGEST => Duration::from_secs(seconds),
        _ => {
            return Err(ApiError::invalid(format!(
                "duration must be 0 or from {SHORTEST} to {LONGEST} seconds"
            )));
        }
    };
    let (token, expires) = call.store.tokens.mint(&domain, lifetime);
    Ok(json!({ "authorizationToken": token, "expiration": epoch(expires) }))
}

fn summary(store: &Store, domain: &Domain) -> Value {
    json!({
        "name": domain.name,
        "owner": store.account,
        "arn": format!("arn:aws:codeartifact:{}:{}:domain/{}", store.region, store.account, domain.name),
        "status": "Active",
        "createdTime": epoch(domain.created),
        "encryptionKey": domain.encryption_key,
    })
}

fn description(store: &Store, domain: &Domain) -> Value {
    let mut description = summary(store, domain);
    // A domain keeps an asset once, however many repositories hold it.
    let mut sizes = HashMap::new();
    for repository in domain.repositories.values() {
        for version in repository.packages.values().flat_map(|package| &package.versions) {
            for asset in version.assets.values() {
                sizes.insert(asset.sha256.clone(), asset.bytes.len());
            }
        }
    }
    description["repositoryCount"] = json!(domain.repositories.len());
    description["assetSizeBytes"] = json!(sizes.values().sum::<usize>());
    description["s3BucketArn"] = json!(format!("arn:aws:s3:::assets-{}-{}", store.account, store.region));
    description
}
