//! Operations on replication: where images go after a push.

use super::super::Service;
use super::Answer;
use super::error::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ReplicationConfiguration {
    pub(in super::super) rules: Vec<ReplicationRule>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ReplicationRule {
    pub(in super::super) destinations: Vec<Destination>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) repository_filters: Option<Vec<Filter>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_replication: Option<DeleteReplication>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Destination {
    pub(in super::super) region: String,
    pub(in super::super) registry_id: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Filter {
    pub(in super::super) filter: String,
    filter_type: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct DeleteReplication {
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Put {
    replication_configuration: ReplicationConfiguration,
}

pub(super) fn describe_registry(service: &Service) -> Value {
    let replication = service.store().replication.clone();
    json!({"registryId": service.config.account, "replicationConfiguration": replication})
}

pub(super) fn put(service: &Service, input: Put) -> Answer {
    let wanted = input.replication_configuration;
    check(service, &wanted)?;
    service.store().replication = wanted.clone();
    Ok(json!({"replicationConfiguration": wanted}))
}

/// The limits of "Private image replication": 10 rules, 25 destinations over all of them, 100 filters in each.
fn check(service: &Service, wanted: &ReplicationConfiguration) -> Result<(), ApiError> {
    if wanted.rules.len() > 10 {
        return Err(ApiError::new(
            "ValidationException",
            "A replication configuration may contain up to 10 rules",
        ));
    }
    let mut destinations = BTreeSet::new();
    for rule in &wanted.rules {
        if rule.destinations.is_empty() {
            return Err(ApiError::new(
                "ValidationException",
                "A replication rule needs a destination",
            ));
        }
        for destination in &rule.destinations {
            check_destination(service, destination)?;
            destinations.insert(destination.clone());
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
            let right = (2..=256).contains(&filter.filter.len())
                && filter.filter.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte)
                });
            if !right || filter.filter_type != "PREFIX_MATCH" {
                return Err(ApiError::invalid(
                    "repositoryFilters",
                    "filters of the type PREFIX_MATCH are the beginnings of names, 2 to 256 long",
                ));
            }
        }
    }
    if destinations.len() > 25 {
        return Err(ApiError::new(
            "ValidationException",
            "A replication configuration may contain up to 25 unique destinations across all rules",
        ));
    }
    Ok(())
}

fn check_destination(service: &Service, destination: &Destination) -> Result<(), ApiError> {
    let Destination { region, registry_id } = destination;
    let region_bytes = region.bytes();
    let named = (2..=25).contains(&region.len())
        && region_bytes
            .into_iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !named {
        return Err(ApiError::invalid(
            "region",
            "must satisfy regular expression '[0-9a-z-]{2,25}'",
        ));
    }
    if registry_id.len() != 12 || !registry_id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ApiError::invalid(
            "registryId",
            "must satisfy regular expression '[0-9]{12}'",
        ));
    }
    if (region, registry_id) == (&service.config.region, &service.config.account) {
        return Err(ApiError::new(
            "ValidationException",
            "The source registry cannot be a replication destination of itself",
        ));
    }
    Ok(())
}
