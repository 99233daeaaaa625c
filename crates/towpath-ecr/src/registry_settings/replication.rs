//! Replication: where images go after a push (*Amazon ECR User Guide*, "Private image replication").

use super::joined;
use crate::client::Ecr;
use crate::differences::{Difference, Reconciled};
use crate::error::{SERVICE, failed};
use aws_sdk_ecr::error::BuildError;
use aws_sdk_ecr::types::{
    ReplicationConfiguration as Written, ReplicationDestination as WrittenDestination,
    ReplicationRule as WrittenRule, RepositoryFilter, RepositoryFilterType,
};
use std::collections::BTreeSet;
use std::fmt;
use towpath_core::{AccountId, Region};
use towpath_elements::{Error, ErrorKind, Result};

const MOST_RULES: usize = 10;
const MOST_DESTINATIONS: usize = 25;
const MOST_FILTERS: usize = 100;

const ATTEMPTED: &str = "set the replication of";
const REGISTRY: &str = "the registry";

/// Where images go after a push: up to 10 rules with up to 25 different destinations in all. What was pushed before is
/// not replicated, and neither are settings.
///
/// Whether a rule replicates deletions too is not among the words of the SDK. Setting a configuration sets rules without
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicationConfiguration {
    /// The rules, in no order.
    pub rules: Vec<ReplicationRule>,
}

/// Which repositories go where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct ReplicationRule {
    /// Where images go. At least one.
    pub destinations: Vec<ReplicationDestination>,
    /// The beginnings of the names of repositories, 2 to 256 characters long (`PREFIX_MATCH`); at most 100. Empty for
    /// every repository.
    pub prefixes: Vec<String>,
}

/// A registry that images go to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicationDestination {
    /// Its Region.
    pub region: Region,
    /// Its account, whose registry policy has to allow it.
    pub account: AccountId,
}

impl ReplicationConfiguration {
    /// A configuration of these rules.
    pub fn new(rules: impl IntoIterator<Item = ReplicationRule>) -> Self {
        Self {
            rules: rules.into_iter().collect(),
        }
    }

    fn check(&self) -> Result<()> {
        let invalid = |detail: String| {
            Err(Error::new(ErrorKind::Invalid, SERVICE, ATTEMPTED, REGISTRY).because(detail))
        };
        if self.rules.len() > MOST_RULES {
            return invalid(format!(
                "there are at most {MOST_RULES} rules, not {}",
                self.rules.len()
            ));
        }
        let mut destinations = BTreeSet::new();
        for rule in &self.rules {
            if rule.destinations.is_empty() {
                return invalid("a rule has no destination".into());
            }
            destinations.extend(&rule.destinations);
            if rule.prefixes.len() > MOST_FILTERS {
                return invalid(format!(
                    "a rule has at most {MOST_FILTERS} prefixes, not {}",
                    rule.prefixes.len()
                ));
            }
            if let Some(wrong) = rule.prefixes.iter().find(|prefix| !is_prefix(prefix)) {
                return invalid(format!(
                    "{wrong:?} cannot begin the name of a repository, or is not 2 to 256 characters long"
                ));
            }
        }
        match destinations.len() > MOST_DESTINATIONS {
            true => invalid(format!(
                "there are at most {MOST_DESTINATIONS} different destinations over all rules, not {}",
                destinations.len()
            )),
            false => Ok(()),
        }
    }

    /// The same in one order, since order has no meaning.
    fn sorted(mut self) -> Self {
        for rule in &mut self.rules {
            rule.destinations.sort();
            rule.prefixes.sort();
        }
        self.rules.sort();
        self
    }

    fn read(written: Option<&Written>) -> Result<Self> {
        let rules = written.map(Written::rules).unwrap_or_default().iter();
        let rules = rules.map(ReplicationRule::read).collect::<Result<_>>()?;
        Ok(Self { rules }.sorted())
    }

    fn written(&self) -> Result<Written, BuildError> {
        let rules = self.rules.iter().map(ReplicationRule::written);
        Written::builder()
            .set_rules(Some(rules.collect::<Result<_, _>>()?))
            .build()
    }
}

/// Whether text may begin the name of a repository, by the service's pattern for filters.
fn is_prefix(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
    (2..=256).contains(&text.len())
        && text.bytes().all(allowed)
        && text.split('/').rev().skip(1).all(|part| {
            let first = part.bytes().next();
            first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        })
}

impl ReplicationRule {
    /// A rule for the repositories that begin with one of these, or for all where there are none.
    pub fn new(
        destinations: impl IntoIterator<Item = ReplicationDestination>,
        prefixes: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            destinations: destinations.into_iter().collect(),
            prefixes: prefixes.into_iter().map(Into::into).collect(),
        }
    }

    fn read(written: &WrittenRule) -> Result<Self> {
        let destinations = written.destinations().iter().map(|destination| {
            let broken = |error: towpath_core::ParseError| {
                Error::new(ErrorKind::Protocol, SERVICE, "read the replication of", REGISTRY)
                    .because("a destination is none")
                    .caused_by(error)
            };
            Ok(ReplicationDestination {
                region: Region::new(destination.region()).map_err(broken)?,
                account: AccountId::new(destination.registry_id()).map_err(broken)?,
            })
        });
        let filters = written.repository_filters().iter();
        Ok(Self {
            destinations: destinations.collect::<Result<_>>()?,
            prefixes: filters.map(|filter| filter.filter().to_owned()).collect(),
        })
    }

    fn written(&self) -> Result<WrittenRule, BuildError> {
        let destinations = self.destinations.iter().map(|destination| {
            WrittenDestination::builder()
                .region(destination.region.as_str())
                .registry_id(destination.account.as_str())
                .build()
        });
        let filters = self.prefixes.iter().map(|prefix| {
            RepositoryFilter::builder()
                .filter(prefix)
                .filter_type(RepositoryFilterType::PrefixMatch)
                .build()
        });
        let filters: Vec<RepositoryFilter> = filters.collect::<Result<_, _>>()?;
        WrittenRule::builder()
            .set_destinations(Some(destinations.collect::<Result<_, _>>()?))
            .set_repository_filters((!filters.is_empty()).then_some(filters))
            .build()
    }
}

impl fmt::Display for ReplicationConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rules.is_empty() {
            true => f.write_str("none"),
            false => joined(f, &self.rules, "; "),
        }
    }
}

impl fmt::Display for ReplicationRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefixes.is_empty() {
            true => f.write_str("everything")?,
            false => joined(f, &self.prefixes, ", ")?,
        }
        f.write_str(" to ")?;
        joined(f, &self.destinations, ", ")
    }
}

impl fmt::Display for ReplicationDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.account, self.region)
    }
}

impl Ecr {
    /// Where images go after a push.
    ///
    /// # Errors
    /// What the service says to `DescribeRegistry`.
    pub async fn replication(&self) -> Result<ReplicationConfiguration> {
        let output = self.api.describe_registry().send().await;
        let output = output.map_err(|error| failed("read the replication of", REGISTRY, error).error)?;
        ReplicationConfiguration::read(output.replication_configuration())
    }

    /// Sets where images go after a push, where it differs. The rules take the place of those that are there.
    ///
    /// # Errors
    /// *Invalid* for more than the service takes, and what it says to `DescribeRegistry` and
    /// `PutReplicationConfiguration`.
    pub async fn put_replication(
        &self,
        wanted: &ReplicationConfiguration,
    ) -> Result<Reconciled<ReplicationConfiguration>> {
        wanted.check()?;
        let wanted = wanted.clone().sorted();
        let found = self.replication().await?;
        let Some(difference) = Difference::between("replication", Some(&found), &wanted) else {
            return Ok(Reconciled::unchanged(found));
        };
        let written = wanted
            .written()
            .map_err(|error| Error::new(ErrorKind::Invalid, SERVICE, ATTEMPTED, REGISTRY).caused_by(error))?;
        let call = self
            .api
            .put_replication_configuration()
            .replication_configuration(written);
        let output = call.send().await;
        let output = output.map_err(|error| failed(ATTEMPTED, REGISTRY, error).error)?;
        Ok(Reconciled {
            now: ReplicationConfiguration::read(output.replication_configuration())?,
            created: false,
            changed: vec![difference],
        })
    }
}
