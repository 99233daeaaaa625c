//! What the service is asked about rules.

use super::names::CacheRules;
use super::problem::{CacheProblem, CredentialFault};
use super::rule::{CacheRule, named};
use super::upstream::{UpstreamNeeds, url_of};
use super::wanted::{Checked, EnsuredRule, RuleChange, RuleCredentials, RuleValidity, WantedRule};
use crate::client::Ecr;
use crate::error::{Failed, SERVICE, failed};
use aws_sdk_ecr::types::UpstreamRegistry;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use towpath_core::ImageRef;
use towpath_elements::{Error, ErrorKind, Result};

const NO_RULE: &str = "PullThroughCacheRuleNotFoundException";

/// How long names are made from rules that were read before. A rule that is missing is looked for anew before that.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The rules as they were last read. Held while they are read, so that everybody else waits for that.
#[derive(Debug, Default)]
pub(crate) struct RememberedRules(Mutex<Option<(Instant, CacheRules)>>);

impl Ecr {
    /// All pull-through cache rules of the registry, read now.
    ///
    /// # Errors
    /// What the service says to `DescribePullThroughCacheRules`.
    pub async fn pull_through_rules(&self) -> Result<CacheRules> {
        let mut remembered = self.rules.0.lock().await;
        let rules = self.read_rules().await?;
        *remembered = Some((Instant::now(), rules.clone()));
        Ok(rules)
    }

    async fn read_rules(&self) -> Result<CacheRules> {
        let mut pages = self
            .api
            .describe_pull_through_cache_rules()
            .into_paginator()
            .send();
        let mut rules = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| {
                failed("list the pull-through cache rules of", "the registry", error).error
            })?;
            for rule in page.pull_through_cache_rules.unwrap_or_default() {
                match CacheRule::read(&rule) {
                    Ok(rule) => rules.push(rule),
                    // A rule that cannot be read is about an address that no reference can have.
                    Err(error) => tracing::warn!(%error, "pull-through cache rule cannot be read"),
                }
            }
        }
        Ok(rules.into_iter().collect())
    }

    /// The rules, at most a minute old unless `enough` says that they do not do.
    async fn rules_where(&self, enough: impl Fn(&CacheRules) -> bool) -> Result<CacheRules> {
        let mut remembered = self.rules.0.lock().await;
        if let Some((read, rules)) = &*remembered
            && read.elapsed() < REMEMBERED
            && enough(rules)
        {
            return Ok(rules.clone());
        }
        let rules = self.read_rules().await?;
        *remembered = Some((Instant::now(), rules.clone()));
        Ok(rules)
    }

    async fn forget_rules(&self) {
        *self.rules.0.lock().await = None;
    }

    /// The rule with a prefix, or `ROOT`; `None` where there is none. Read now.
    ///
    /// # Errors
    /// What the service says to `DescribePullThroughCacheRules`.
    pub async fn cache_rule(&self, prefix: &str) -> Result<Option<CacheRule>> {
        let prefix = prefix_word(prefix);
        let call = self
            .api
            .describe_pull_through_cache_rules()
            .ecr_repository_prefixes(&prefix);
        match call.send().await {
            Ok(output) => {
                let found = output
                    .pull_through_cache_rules
                    .unwrap_or_default()
                    .into_iter()
                    .next();
                found.as_ref().map(CacheRule::read).transpose()
            }
            Err(error) => absent(failed("read the pull-through cache rule", prefix, error)),
        }
    }

    /// Creates a rule. What can be known to be wrong with it is said before the service is asked.
    ///
    /// # Errors
    /// *Invalid* or *unsupported* for what is wrong; *conflict* where the prefix is taken; *denied* with a
    /// [`CacheProblem::Credential`] where its secret is no good; *rate limited*, and never to be retried, where there are
    /// 50 rules; and what else the service says to `CreatePullThroughCacheRule`.
    pub async fn create_cache_rule(&self, wanted: &WantedRule) -> Result<CacheRule> {
        let checked = self.check_rule(wanted).await?;
        match self.send_rule(wanted, &checked).await {
            Ok(rule) => Ok(rule),
            Err(failed) if failed.code == TAKEN => Err(failed.error.advise("choose another prefix")),
            Err(failed) => Err(failed.error),
        }
    }

    /// Sees to it that a rule is there: creates it where the prefix is free, and gives it the wanted credentials where it
    /// has others.
    ///
    /// ```no_run
    /// # async fn run(ecr: &towpath_ecr::Ecr, secret: &str) -> towpath_ecr::Result<()> {
    /// use towpath_ecr::{RuleCredentials, WantedRule};
    /// ecr.ensure_cache_rule(&WantedRule::new("quay", "quay.io")).await?;
    /// let hub = WantedRule::new("docker-hub", "docker.io").with(RuleCredentials::secret(secret));
    /// println!("{:?}", ecr.ensure_cache_rule(&hub).await?.change);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`create_cache_rule`](Self::create_cache_rule); *conflict* where another upstream is behind the prefix.
    pub async fn ensure_cache_rule(&self, wanted: &WantedRule) -> Result<EnsuredRule> {
        let checked = self.check_rule(wanted).await?;
        let there = match self.cache_rule(&checked.prefix).await? {
            Some(rule) => rule,
            None => match self.send_rule(wanted, &checked).await {
                Ok(rule) => {
                    return Ok(EnsuredRule {
                        rule,
                        change: RuleChange::Created,
                    });
                }
                // Somebody was faster.
                Err(failed) if failed.code == TAKEN => {
                    self.cache_rule(&checked.prefix).await?.ok_or(failed.error)?
                }
                Err(failed) => return Err(failed.error),
            },
        };
        if there.upstream != checked.host || there.upstream_prefix != checked.upstream_prefix {
            let below = |prefix: Option<&str>| prefix.map_or(String::new(), |prefix| format!("/{prefix}"));
            return Err(Error::new(
                ErrorKind::Conflict,
                SERVICE,
                "create the pull-through cache rule",
                wanted.subject(),
            )
            .because(format!(
                "{}{} is behind this prefix, not {}{}",
                there.upstream,
                below(there.upstream_prefix()),
                checked.host,
                below(checked.upstream_prefix.as_deref())
            ))
            .advise("choose another prefix, or delete the rule first; its repositories stay"));
        }
        let wants = wanted.credentials();
        if *wants == RuleCredentials::default() || there.credentials == *wants {
            return Ok(EnsuredRule {
                rule: there,
                change: RuleChange::Nothing,
            });
        }
        let before = there.credentials.clone();
        self.update_cache_rule_credentials(&checked.prefix, wants).await?;
        Ok(EnsuredRule {
            rule: CacheRule {
                credentials: wants.clone(),
                ..there
            },
            change: RuleChange::Credentials(before),
        })
    }

    /// Changes by what a rule authenticates at its upstream: the only thing that can be changed of a rule.
    ///
    /// # Errors
    /// *Invalid* where an ARN is none that fits, *not found* where there is no such rule, *denied* with a
    /// [`CacheProblem::Credential`] where the secret is no good.
    pub async fn update_cache_rule_credentials(
        &self,
        prefix: &str,
        credentials: &RuleCredentials,
    ) -> Result<()> {
        let prefix = prefix_word(prefix);
        credentials.check(self.region(), None, &prefix)?;
        let call = self
            .api
            .update_pull_through_cache_rule()
            .ecr_repository_prefix(&prefix)
            .set_credential_arn(credentials.secret_arn.clone())
            .set_custom_role_arn(credentials.role_arn.clone());
        let outcome = call.send().await;
        self.forget_rules().await;
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => {
                let failed = failed(
                    "update the credentials of the pull-through cache rule",
                    &prefix,
                    error,
                );
                Err(credential_problem(failed, &prefix).error)
            }
        }
    }

    /// Has the service try a rule: read its secret, and authenticate at the upstream with it.
    ///
    /// # Errors
    /// *Not found* where there is no such rule, and what else the service says to `ValidatePullThroughCacheRule`.
    pub async fn validate_cache_rule(&self, prefix: &str) -> Result<RuleValidity> {
        const ATTEMPTED: &str = "validate the pull-through cache rule";
        let prefix = prefix_word(prefix);
        let call = self
            .api
            .validate_pull_through_cache_rule()
            .ecr_repository_prefix(&prefix);
        let output = call.send().await;
        let output = output.map_err(|error| failed(ATTEMPTED, &prefix, error).error)?;
        Ok(match output.is_valid {
            true => RuleValidity::Valid,
            false => RuleValidity::Invalid(
                output
                    .failure
                    .filter(|failure| !failure.is_empty())
                    .unwrap_or_else(|| "the service does not say why".into()),
            ),
        })
    }

    /// Deletes a rule; whether there was one. What it has cached stays.
    ///
    /// # Errors
    /// What the service says to `DeletePullThroughCacheRule`.
    pub async fn delete_cache_rule(&self, prefix: &str) -> Result<bool> {
        let prefix = prefix_word(prefix);
        let call = self
            .api
            .delete_pull_through_cache_rule()
            .ecr_repository_prefix(&prefix);
        let outcome = call.send().await;
        self.forget_rules().await;
        match outcome {
            Ok(_) => Ok(true),
            Err(error) => {
                absent::<bool>(failed("delete the pull-through cache rule", prefix, error)).map(|_| false)
            }
        }
    }

    /// The name that an upstream image has behind the pull-through cache, tag and digest kept. Nothing is fetched.
    ///
    /// The rules are read once a minute at most, except where none is about the upstream.
    ///
    /// # Errors
    /// *Not found* with a [`CacheProblem::MissingRule`] where no rule is about the upstream; the advice names the rule to
    /// create.
    pub async fn cached_reference(&self, upstream: &ImageRef) -> Result<ImageRef> {
        self.cached_name(upstream).await.map(|(_, cached)| cached)
    }

    /// The name behind the cache, and the rule that makes it.
    pub(super) async fn cached_name(&self, upstream: &ImageRef) -> Result<(CacheRule, ImageRef)> {
        let rules = self
            .rules_where(|rules| rules.for_upstream(upstream).is_some())
            .await?;
        let Some((rule, path)) = rules.for_upstream(upstream) else {
            let problem = CacheProblem::MissingRule {
                upstream: upstream.registry().clone(),
            };
            return Err(problem.error("find the cached name of", upstream, None));
        };
        Ok((rule.clone(), upstream.renamed(self.registry().await?, path)))
    }

    /// The upstream's name of an image of this registry, tag and digest kept; `None` where no rule is about it.
    ///
    /// # Errors
    /// What the service says to `DescribePullThroughCacheRules`.
    pub async fn upstream_of(&self, cached: &ImageRef) -> Result<Option<ImageRef>> {
        if *cached.registry() != self.registry().await? {
            return Ok(None);
        }
        let rules = self
            .rules_where(|rules| rules.behind(cached.repository()).is_some())
            .await?;
        Ok(rules.upstream_of(cached))
    }

    pub(super) fn region(&self) -> Option<&str> {
        self.api.config().region().map(AsRef::as_ref)
    }

    async fn check_rule(&self, wanted: &WantedRule) -> Result<Checked> {
        let checked = wanted.check(self.region(), None)?;
        // Whose registry this is matters to few rules, and has to be asked for.
        let owned = checked.kind.needs() == UpstreamNeeds::RoleAcrossAccounts
            || *wanted.credentials() != RuleCredentials::default();
        match owned {
            true => wanted.check(self.region(), Some(&self.registry().await?)),
            false => Ok(checked),
        }
    }

    async fn send_rule(&self, wanted: &WantedRule, checked: &Checked) -> Result<CacheRule, Failed> {
        let credentials = wanted.credentials();
        let call = self
            .api
            .create_pull_through_cache_rule()
            .ecr_repository_prefix(&checked.prefix)
            .upstream_registry_url(url_of(&checked.host))
            .upstream_registry(UpstreamRegistry::from(checked.kind.as_str()))
            .set_upstream_repository_prefix(checked.upstream_prefix.clone())
            .set_credential_arn(credentials.secret_arn.clone())
            .set_custom_role_arn(credentials.role_arn.clone());
        let outcome = call.send().await;
        self.forget_rules().await;
        let output = outcome.map_err(|error| {
            let failed = failed("create the pull-through cache rule", &checked.prefix, error);
            credential_problem(failed, &checked.prefix)
        })?;
        let described = aws_sdk_ecr::types::PullThroughCacheRule::builder()
            .ecr_repository_prefix(&checked.prefix)
            .upstream_registry_url(url_of(&checked.host))
            .upstream_registry(UpstreamRegistry::from(checked.kind.as_str()))
            .set_upstream_repository_prefix(checked.upstream_prefix.clone())
            .set_credential_arn(output.credential_arn)
            .set_custom_role_arn(output.custom_role_arn)
            .set_created_at(output.created_at);
        CacheRule::read(&described.build()).map_err(|error| Failed {
            code: String::new(),
            error,
        })
    }
}

const TAKEN: &str = "PullThroughCacheRuleAlreadyExistsException";

/// A prefix as the service names it.
fn prefix_word(prefix: &str) -> String {
    named(prefix).unwrap_or_else(|| super::rule::ROOT.to_owned())
}

/// Nothing, where the service says that there is no such rule.
fn absent<T>(failed: Failed) -> Result<Option<T>> {
    match failed.code == NO_RULE {
        true => Ok(None),
        false => Err(failed.error),
    }
}

/// What the service says of a secret, as the problem that it is.
fn credential_problem(failed: Failed, rule: &str) -> Failed {
    let fault = match failed.code.as_str() {
        "SecretNotFoundException" => CredentialFault::NotFound,
        "UnableToAccessSecretException" => CredentialFault::NotAccessible,
        "UnableToDecryptSecretValueException" => CredentialFault::NotDecryptable,
        _ => return failed,
    };
    let problem = CacheProblem::Credential {
        rule: rule.to_owned(),
        fault,
    };
    Failed {
        error: problem.error(
            "use the secret of the pull-through cache rule",
            rule,
            Some(failed.error),
        ),
        code: failed.code,
    }
}
