//! What a pull through the cache needs: a rule, access to its upstream, the image there, a template that works, and the
//! permission to import.

use super::{Checked, Doctor, Outcome};
use crate::cache::CacheRule;
use crate::error::failed;
use crate::templates::{AppliedFor, CreationTemplate};
use aws_sdk_ecr::types::PullThroughCacheRule;
use futures_util::TryStreamExt;
use towpath_core::ImageRef;

/// A described rule as one that maps names; `None` where it is about an address that no reference can have.
pub(super) fn read(rule: &PullThroughCacheRule) -> Option<CacheRule> {
    CacheRule::new(
        rule.ecr_repository_prefix().unwrap_or("ROOT").to_owned(),
        rule.upstream_registry_url().unwrap_or_default(),
        rule.upstream_repository_prefix().map(str::to_owned),
    )
    .ok()
}

impl Doctor<'_> {
    /// Finds the name behind the cache of an image of an upstream. False where there is none.
    pub(super) async fn find_cached(&mut self, rules: &[PullThroughCacheRule]) -> bool {
        let upstream = self.image.clone();
        let paths = rules.iter().filter_map(|rule| {
            let path = read(rule)?.cached_path(&upstream)?;
            // Of several rules that match, the narrowest at the upstream counts.
            let narrow = rule
                .upstream_repository_prefix()
                .filter(|prefix| *prefix != "ROOT");
            Some((narrow.map_or(0, str::len), path))
        });
        let Some((_, path)) = paths.max_by_key(|(narrow, _)| *narrow) else {
            if self
                .findings
                .iter()
                .all(|finding| finding.checked != Checked::PullThroughRule)
            {
                let host = upstream.registry();
                self.add(
                    Checked::PullThroughRule,
                    Outcome::Missing,
                    format!("no pull-through cache rule is about {host}"),
                )
                .advise(format!("create a rule for {host}"));
            }
            return false;
        };
        let registry = match self.ecr.registry().await {
            Ok(registry) => registry,
            Err(error) => {
                self.add_failure(Checked::Credentials, "ecr:GetAuthorizationToken", &error);
                return false;
            }
        };
        let cached = ImageRef::new(registry, path);
        self.image = match (upstream.digest(), upstream.tag()) {
            (Some(digest), _) => cached.at(digest.clone()),
            (None, Some(tag)) => cached.tagged(tag.clone()),
            (None, None) => cached,
        };
        true
    }

    pub(super) async fn cache(
        &mut self,
        rule: &CacheRule,
        described: &PullThroughCacheRule,
        repository: Option<bool>,
        image: Option<bool>,
    ) {
        let prefix = rule.prefix().unwrap_or("ROOT").to_owned();
        self.add(
            Checked::PullThroughRule,
            Outcome::Ok,
            format!("{prefix} is cached from {}", rule.upstream()),
        );
        if image == Some(true) {
            // It is there: an upstream is asked again only for a tag, and not needed.
            return;
        }
        if described.credential_arn().is_some() || described.custom_role_arn().is_some() {
            self.access(described).await;
        }
        let Some(upstream) = rule.upstream_of(self.image.repository()) else {
            return;
        };
        let upstream = match (self.image.digest(), self.image.tag()) {
            (Some(digest), _) => upstream.at(digest.clone()),
            (None, Some(tag)) => upstream.tagged(tag.clone()),
            (None, None) => upstream,
        };
        self.upstream(&upstream).await;
        if repository == Some(false) {
            self.template().await;
        }
        let stands_in_the_way = self.findings.iter().any(|finding| {
            let about_the_cache = matches!(
                finding.checked,
                Checked::UpstreamAccess | Checked::UpstreamImage | Checked::CreationTemplate
            );
            about_the_cache && matches!(finding.outcome, Outcome::Missing | Outcome::Denied)
        });
        if !stands_in_the_way {
            let actions = match repository {
                Some(true) => "ecr:BatchImportUpstreamImage",
                _ => "ecr:BatchImportUpstreamImage and ecr:CreateRepository",
            };
            self.add(
                Checked::Import,
                Outcome::Unknown,
                "the image is not in the cache yet, and nothing else stands in the way of a first pull",
            )
            .advise(format!(
                "pull it; where that is answered 404, allow {actions} for whoever pulls, in the policy of the registry \
                 too"
            ));
        }
    }

    /// Asks the service to reach the upstream with the rule's credentials.
    async fn access(&mut self, described: &PullThroughCacheRule) {
        let prefix = described.ecr_repository_prefix().unwrap_or("ROOT");
        let call = self
            .ecr
            .api
            .validate_pull_through_cache_rule()
            .ecr_repository_prefix(prefix);
        match call.send().await {
            Ok(output) if output.is_valid() => {
                let detail = "the service reaches the upstream with the rule's credentials";
                self.add(Checked::UpstreamAccess, Outcome::Ok, detail);
            }
            Ok(output) => {
                let failure = output
                    .failure()
                    .unwrap_or("the service does not say why")
                    .to_owned();
                self.add(Checked::UpstreamAccess, Outcome::Denied, failure)
                    .advise("correct the rule's secret or role, and validate the rule again");
            }
            Err(error) => {
                let error = failed("validate the pull-through cache rule", prefix, error).error;
                self.add_failure(
                    Checked::UpstreamAccess,
                    "ecr:ValidatePullThroughCacheRule",
                    &error,
                );
            }
        }
    }

    /// Asks the upstream itself, from here and without credentials.
    async fn upstream(&mut self, upstream: &ImageRef) {
        match self.ecr.upstreams.manifest_digest(upstream).await {
            Ok(Some(digest)) => {
                self.add(
                    Checked::UpstreamImage,
                    Outcome::Ok,
                    format!("{upstream} is {digest}"),
                );
            }
            Ok(None) => {
                self.add(
                    Checked::UpstreamImage,
                    Outcome::Missing,
                    format!("there is no {upstream}"),
                )
                .advise("check the name and the tag at the upstream; a private image looks the same");
            }
            Err(error) => {
                let detail = format!("{upstream} cannot be seen from here: {}", error.detail());
                self.add(Checked::UpstreamImage, Outcome::Unknown, detail);
            }
        }
    }

    /// The template by which the cache would make the repository.
    async fn template(&mut self) {
        let templates: Vec<CreationTemplate> = match self.ecr.creation_templates().try_collect().await {
            Ok(templates) => templates,
            Err(error) => {
                let action = "ecr:DescribeRepositoryCreationTemplates";
                self.add_failure(Checked::CreationTemplate, action, &error);
                return;
            }
        };
        let name = self.image.repository().as_str().to_owned();
        let meant = templates.into_iter().filter_map(|template| {
            let used = template.applied_for.contains(&AppliedFor::PullThroughCache);
            let reach = template.reach(&name).filter(|_| used)?;
            Some((reach, template))
        });
        match meant.max_by_key(|(reach, _)| *reach) {
            None => {
                let detail = "none is needed: the repository is made with the service's defaults";
                self.add(Checked::CreationTemplate, Outcome::Ok, detail);
            }
            Some((_, template)) if template.lacks_role() => {
                self.add(
                    Checked::CreationTemplate,
                    Outcome::Denied,
                    format!(
                        "the template {} sets tags or a key, and has no role to do so",
                        template.prefix
                    ),
                )
                .advise("give the template a role that may tag repositories and use the key");
            }
            Some((_, template)) => {
                let detail = format!("the repository is made by the template {}", template.prefix);
                self.add(Checked::CreationTemplate, Outcome::Ok, detail);
            }
        }
    }
}
