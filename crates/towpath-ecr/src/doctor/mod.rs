//! Why an image cannot be pulled. The registry answers 404 to a missing image, a missing repository, a missing rule and a
//! missing permission alike; its API tells them apart (*Amazon ECR User Guide*, "Troubleshooting" and "Sync an upstream
//! registry with an Amazon ECR private registry").

mod cache;
mod image;
mod report;

pub use report::{Checked, Diagnosis, Observation, Outcome};

use crate::cache::CacheRule;
use crate::client::Ecr;
use crate::error::{Failed, failed};
use aws_sdk_ecr::types::PullThroughCacheRule;
use towpath_core::{EcrHost, ImageRef, RegistryHost};
use towpath_elements::{Error, ErrorKind};

/// What is known while an image is looked into.
struct Doctor<'a> {
    ecr: &'a Ecr,
    /// The image, by its name in the private registry once that is known.
    image: ImageRef,
    /// The host of the service's own registry, once it is known.
    own: Option<RegistryHost>,
    findings: Vec<Observation>,
}

impl Ecr {
    /// Looks into why an image cannot be pulled, by its name in the registry or at an upstream that is cached. Changes
    /// nothing, but reads the image's manifest and configuration, which counts as a pull where it works.
    ///
    /// What cannot be found out is a finding too, so that this does not fail. Observation out takes the permissions to
    /// describe repositories, images, rules and templates; where one is missing, its finding says so.
    ///
    /// ```no_run
    /// # async fn example(ecr: towpath_ecr::Ecr) {
    /// let diagnosis = ecr.diagnose(&"quay.io/prometheus/node-exporter:v1.8".parse().unwrap()).await;
    /// println!("{diagnosis}");
    /// for problem in diagnosis.problems() {
    ///     eprintln!("{}: {}", problem.checked, problem.detail);
    /// }
    /// # }
    /// ```
    pub async fn diagnose(&self, image: &ImageRef) -> Diagnosis {
        let mut doctor = Doctor {
            ecr: self,
            image: image.clone(),
            own: None,
            findings: Vec::new(),
        };
        doctor.look().await;
        Diagnosis {
            image: image.clone(),
            looked_at: doctor.image,
            findings: doctor.findings,
        }
    }
}

impl Doctor<'_> {
    async fn look(&mut self) {
        if !self.credentials().await || !self.region() {
            return;
        }
        let rules = self.rules().await;
        if !self.is_private() && !self.find_cached(&rules).await {
            return;
        }
        let rule = self.rule_for(&rules);
        let repository = self.repository(rule.is_some()).await;
        let image = match repository {
            Some(true) => self.image_state().await,
            Some(false) => Some(false),
            // Who may not describe repositories may still describe images.
            None => self.image_state().await,
        };
        if let Some((rule, described)) = &rule {
            self.cache(rule, described, repository, image).await;
        }
        if image != Some(false) {
            self.pull(image).await;
        }
    }

    fn add(&mut self, checked: Checked, outcome: Outcome, detail: impl Into<String>) -> &mut Observation {
        self.findings.push(Observation {
            checked,
            outcome,
            detail: detail.into(),
            advice: None,
        });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    /// Notes that a call failed: what was denied names the action.
    fn add_failure(&mut self, checked: Checked, action: &str, error: &Error) {
        let detail = error.detail().to_owned();
        match error.kind() {
            ErrorKind::Denied => {
                self.add(checked, Outcome::Denied, detail)
                    .advise(format!("allow {action} in the policies of whoever pulls"));
            }
            _ => {
                let advice = error.advice().map(str::to_owned);
                self.add(checked, Outcome::Unknown, format!("{action}: {detail}"))
                    .advice = advice;
            }
        }
    }

    /// Whether the caller is known to the service. Else nothing more can be found out.
    async fn credentials(&mut self) -> bool {
        const ACTION: &str = "ecr:GetAuthorizationToken";
        match self.ecr.registry().await {
            Ok(registry) => {
                let detail = format!("the service gives a token for {registry}");
                self.add(Checked::Credentials, Outcome::Ok, detail);
                self.own = Some(registry);
                true
            }
            Err(error) if error.kind() == ErrorKind::Denied => {
                self.add_failure(Checked::Credentials, ACTION, &error);
                true
            }
            Err(error) if error.kind() == ErrorKind::Unauthenticated => {
                self.add(Checked::Credentials, Outcome::Missing, error.detail())
                    .advice = error.advice().map(str::to_owned);
                false
            }
            Err(error) => {
                self.add_failure(Checked::Credentials, ACTION, &error);
                false
            }
        }
    }

    /// Whether the registry is one of the Region that the client works in.
    fn region(&mut self) -> bool {
        let registry = self.image.registry().clone();
        let Some(host) = registry.ecr().filter(|_| !self.ecr.is_in_region(&registry)) else {
            return true;
        };
        let region = host.region();
        self.add(
            Checked::Region,
            Outcome::Missing,
            format!(
                "the registry is in {region}, where this client does not work: a token is good for one Region"
            ),
        )
        .advise(format!("make a client for {region}"));
        false
    }

    /// Whether the image is named by its place in a private registry. Where the service's name for its own registry is
    /// not known, an address on this machine is taken to be it.
    fn is_private(&self) -> bool {
        let registry = self.image.registry();
        let own = match &self.own {
            Some(own) => own == registry,
            None => registry.is_loopback(),
        };
        own || self.ecr.is_in_region(registry)
    }

    fn registry_id(&self) -> Option<String> {
        let host: Option<EcrHost> = self.image.registry().ecr();
        host.map(|host| host.account().to_string())
    }

    /// The pull-through rules; empty where they cannot be read, which is noted.
    async fn rules(&mut self) -> Vec<PullThroughCacheRule> {
        let mut pages = self
            .ecr
            .api
            .describe_pull_through_cache_rules()
            .into_paginator()
            .send();
        let mut rules = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => rules.extend(page.pull_through_cache_rules.unwrap_or_default()),
                Err(error) => {
                    let error = failed("list the pull-through cache rules of", "the registry", error).error;
                    let action = "ecr:DescribePullThroughCacheRules";
                    self.add_failure(Checked::PullThroughRule, action, &error);
                    break;
                }
            }
        }
        rules
    }

    /// Whether the repository is there; `None` where that cannot be found out.
    async fn repository(&mut self, covered: bool) -> Option<bool> {
        let name = self.image.repository().clone();
        let call = self
            .ecr
            .api
            .describe_repositories()
            .set_registry_id(self.registry_id())
            .repository_names(name.as_str());
        match call.send().await {
            Ok(_) => {
                self.add(Checked::Repository, Outcome::Ok, format!("{name} is there"));
                Some(true)
            }
            Err(error) => {
                let Failed { code, error } = failed("read the repository", &name, error);
                if code != "RepositoryNotFoundException" {
                    self.add_failure(Checked::Repository, "ecr:DescribeRepositories", &error);
                    return None;
                }
                let finding = self.add(
                    Checked::Repository,
                    Outcome::Missing,
                    format!("there is no repository {name}"),
                );
                match covered {
                    true => finding.advise("the first pull through the cache makes it"),
                    false => finding.advise(
                        "create it, check the name, or create a pull-through cache rule whose prefix is above it",
                    ),
                }
                Some(false)
            }
        }
    }

    /// The narrowest rule whose prefix is above the repository.
    fn rule_for(&self, rules: &[PullThroughCacheRule]) -> Option<(CacheRule, PullThroughCacheRule)> {
        let name = self.image.repository();
        let above = rules.iter().filter_map(|described| {
            let rule = cache::read(described)?;
            rule.upstream_of(name)?;
            Some((rule, described.clone()))
        });
        above.max_by_key(|(rule, _)| rule.prefix().map_or(0, str::len))
    }
}
