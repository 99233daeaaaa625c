//! What happens to an image after its push, beside its scan: copies in other Regions and accounts, and signatures.
//!
//! Follows "Private image replication" and "Managed signing" of the user guide: only what is pushed after the
//! configuration was made is copied or signed.

use super::Ecr;
use super::api::{Destination, ReplicationConfiguration, SigningConfiguration};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use towpath_core::Digest;

#[derive(Debug, Default)]
pub(super) struct Spread {
    delay: Duration,
    /// Failures that a test insists on, by Region or by profile: code and reason.
    failures: BTreeMap<String, (String, String)>,
    under_way: BTreeMap<(String, Digest), UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    since: Instant,
    destinations: Vec<Destination>,
    profiles: Vec<String>,
}

impl Spread {
    /// Notes a push, and where it goes by the settings of now.
    pub(super) fn begin(
        &mut self,
        repository: &str,
        digest: &Digest,
        replication: &ReplicationConfiguration,
        signing: Option<&SigningConfiguration>,
    ) {
        let destinations: BTreeSet<&Destination> = replication
            .rules
            .iter()
            .filter(|rule| match &rule.repository_filters {
                None => true,
                Some(filters) => filters
                    .iter()
                    .any(|filter| repository.starts_with(&filter.filter)),
            })
            .flat_map(|rule| &rule.destinations)
            .collect();
        let profiles = signing
            .map(|signing| signing.profiles(repository))
            .unwrap_or_default();
        if destinations.is_empty() && profiles.is_empty() {
            return;
        }
        let key = (repository.to_owned(), digest.clone());
        self.under_way.entry(key).or_insert_with(|| UnderWay {
            since: Instant::now(),
            destinations: destinations.into_iter().cloned().collect(),
            profiles,
        });
    }

    pub(super) fn replications(&self, repository: &str, digest: &Digest) -> Vec<Value> {
        let Some(under_way) = self.under_way.get(&(repository.to_owned(), digest.clone())) else {
            return Vec::new();
        };
        let destinations = under_way.destinations.iter();
        destinations
            .map(|destination| {
                let mut status = json!({
                    "region": destination.region,
                    "registryId": destination.registry_id,
                    "status": self.status(under_way, &destination.region),
                });
                if let Some((code, _)) = self.failures.get(&destination.region) {
                    status["failureCode"] = json!(code);
                }
                status
            })
            .collect()
    }

    pub(super) fn signings(&self, repository: &str, digest: &Digest) -> Vec<Value> {
        let Some(under_way) = self.under_way.get(&(repository.to_owned(), digest.clone())) else {
            return Vec::new();
        };
        let profiles = under_way.profiles.iter();
        profiles
            .map(|profile| {
                let mut status = json!({
                    "signingProfileArn": profile,
                    "status": self.status(under_way, profile),
                });
                if let Some((code, reason)) = self.failures.get(profile) {
                    status["failureCode"] = json!(code);
                    status["failureReason"] = json!(reason);
                }
                status
            })
            .collect()
    }

    fn status(&self, under_way: &UnderWay, target: &str) -> &'static str {
        if self.failures.contains_key(target) {
            "FAILED"
        } else if under_way.since.elapsed() < self.delay {
            "IN_PROGRESS"
        } else {
            "COMPLETE"
        }
    }
}

impl Ecr {
    /// Sets how long replication and signing take; no time from the start. It holds for those under way, too.
    pub fn set_spread_delay(&self, delay: Duration) {
        self.service.store().spread.delay = delay;
    }

    /// Has replication to a Region, or signing with a profile, fail with a code and a reason; `None` ends that.
    pub fn fail_spread(&self, target: &str, failure: Option<(&str, &str)>) {
        let failures = &mut self.service.store().spread.failures;
        match failure {
            Some((code, reason)) => failures.insert(target.to_owned(), (code.to_owned(), reason.to_owned())),
            None => failures.remove(target),
        };
    }
}
