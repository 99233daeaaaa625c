//! Managed signing: which images are signed when they are pushed (*Amazon ECR User Guide*, "Managed signing").

use super::joined;
use crate::client::Ecr;
use crate::differences::{Difference, Reconciled};
use crate::error::{SERVICE, failed};
use aws_sdk_ecr::error::BuildError;
use aws_sdk_ecr::types::{
    SigningConfiguration as Written, SigningRepositoryFilter, SigningRepositoryFilterType,
    SigningRule as WrittenRule,
};
use std::fmt;
use towpath_elements::{Error, ErrorKind, Result};

const MOST_RULES: usize = 10;
const MOST_FILTERS: usize = 100;

const ATTEMPTED: &str = "set the signing of";
const REGISTRY: &str = "the registry";

/// Which images are signed when they are pushed, and with what: up to 10 rules. Whoever pushes needs the permission to
/// sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SigningConfiguration {
    /// The rules, in no order.
    pub rules: Vec<SigningRule>,
}

/// Which repositories' images are signed with what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct SigningRule {
    /// The ARN of the profile of AWS Signer.
    pub profile_arn: String,
    /// Names of repositories in which `*` stands for any text (`WILDCARD_MATCH`); at most 100. Empty for every
    /// repository.
    pub repositories: Vec<String>,
}

impl SigningConfiguration {
    /// A configuration of these rules.
    pub fn new(rules: impl IntoIterator<Item = SigningRule>) -> Self {
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
        for rule in &self.rules {
            let profile = &rule.profile_arn;
            if !profile.starts_with("arn:aws") || !profile.contains(":signer:") || profile.len() > 200 {
                return invalid(format!("{profile:?} is no ARN of a signing profile"));
            }
            if rule.repositories.len() > MOST_FILTERS {
                return invalid(format!(
                    "a rule has at most {MOST_FILTERS} filters, not {}",
                    rule.repositories.len()
                ));
            }
        }
        Ok(())
    }

    fn sorted(mut self) -> Self {
        for rule in &mut self.rules {
            rule.repositories.sort();
        }
        self.rules.sort();
        self
    }

    fn read(written: &Written) -> Self {
        let rules = written.rules().iter().map(|rule| SigningRule {
            profile_arn: rule.signing_profile_arn().to_owned(),
            repositories: rule
                .repository_filters()
                .iter()
                .map(|filter| filter.filter().to_owned())
                .collect(),
        });
        Self {
            rules: rules.collect(),
        }
        .sorted()
    }

    fn written(&self) -> Result<Written, BuildError> {
        let rules = self.rules.iter().map(SigningRule::written);
        Written::builder()
            .set_rules(Some(rules.collect::<Result<_, _>>()?))
            .build()
    }
}

impl SigningRule {
    /// A rule for the repositories that match one of these, or for all where there are none.
    pub fn new(
        profile_arn: impl Into<String>,
        repositories: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            profile_arn: profile_arn.into(),
            repositories: repositories.into_iter().map(Into::into).collect(),
        }
    }

    fn written(&self) -> Result<WrittenRule, BuildError> {
        let filters = self.repositories.iter().map(|filter| {
            SigningRepositoryFilter::builder()
                .filter(filter)
                .filter_type(SigningRepositoryFilterType::WildcardMatch)
                .build()
        });
        let filters: Vec<SigningRepositoryFilter> = filters.collect::<Result<_, _>>()?;
        WrittenRule::builder()
            .signing_profile_arn(&self.profile_arn)
            .set_repository_filters((!filters.is_empty()).then_some(filters))
            .build()
    }
}

impl fmt::Display for SigningConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rules.is_empty() {
            true => f.write_str("none"),
            false => joined(f, &self.rules, "; "),
        }
    }
}

impl fmt::Display for SigningRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.repositories.is_empty() {
            true => f.write_str("everything")?,
            false => joined(f, &self.repositories, ", ")?,
        }
        write!(f, " with {}", self.profile_arn)
    }
}

impl Ecr {
    /// Which images are signed when they are pushed; `None` where nothing is set.
    ///
    /// # Errors
    /// What the service says to `GetSigningConfiguration`.
    pub async fn signing(&self) -> Result<Option<SigningConfiguration>> {
        match self.api.get_signing_configuration().send().await {
            Ok(output) => Ok(output.signing_configuration().map(SigningConfiguration::read)),
            Err(error) => {
                let failed = failed("read the signing of", REGISTRY, error);
                match failed.code.as_str() {
                    "SigningConfigurationNotFoundException" => Ok(None),
                    _ => Err(failed.error),
                }
            }
        }
    }

    /// Sets which images are signed when they are pushed, where it differs. The rules take the place of those that are
    /// there.
    ///
    /// # Errors
    /// *Invalid* for more than the service takes, and what it says to `GetSigningConfiguration` and
    /// `PutSigningConfiguration`.
    pub async fn put_signing(
        &self,
        wanted: &SigningConfiguration,
    ) -> Result<Reconciled<SigningConfiguration>> {
        wanted.check()?;
        let wanted = wanted.clone().sorted();
        let found = self.signing().await?;
        let difference = Difference::between("signing", found.as_ref(), &wanted);
        if difference.is_some() {
            let written = wanted.written().map_err(|error| {
                Error::new(ErrorKind::Invalid, SERVICE, ATTEMPTED, REGISTRY).caused_by(error)
            })?;
            let call = self
                .api
                .put_signing_configuration()
                .signing_configuration(written);
            let output = call.send().await;
            output.map_err(|error| failed(ATTEMPTED, REGISTRY, error).error)?;
        }
        Ok(Reconciled {
            now: wanted,
            created: found.is_none(),
            changed: found.and(difference).into_iter().collect(),
        })
    }

    /// Signs nothing any more. False where nothing was set.
    ///
    /// # Errors
    /// What the service says to `DeleteSigningConfiguration`.
    pub async fn delete_signing(&self) -> Result<bool> {
        let Err(error) = self.api.delete_signing_configuration().send().await else {
            return Ok(true);
        };
        let failed = failed("delete the signing of", REGISTRY, error);
        match failed.code.as_str() {
            "SigningConfigurationNotFoundException" => Ok(false),
            _ => Err(failed.error),
        }
    }
}
