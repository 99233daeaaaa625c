//! Pull-through cache rules (*Amazon ECR User Guide*, "Sync an upstream registry"): which upstream is behind which
//! prefix, and the names of images on both sides.

use crate::client::Ecr;
use crate::error::{SERVICE, failed};
use aws_sdk_ecr::types::{PullThroughCacheRule, UpstreamRegistry};
use towpath_core::{ImageRef, RegistryHost, RepositoryName};
use towpath_elements::{Error, ErrorKind, Result};

/// The prefix that means "no prefix".
const ROOT: &str = "ROOT";

/// A pull-through cache rule, reduced to what maps names.
///
/// ```
/// use towpath_ecr::CacheRule;
/// let rule = CacheRule::new("quay".to_owned(), "quay.io", None).unwrap();
/// let upstream = "quay.io/prometheus/node-exporter:v1".parse().unwrap();
/// assert_eq!(rule.cached_path(&upstream).unwrap().as_str(), "quay/prometheus/node-exporter");
/// let back = rule.upstream_of(&"quay/prometheus/node-exporter".parse().unwrap()).unwrap();
/// assert_eq!(back.to_string(), "quay.io/prometheus/node-exporter");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRule {
    prefix: Option<String>,
    upstream: RegistryHost,
    upstream_prefix: Option<String>,
}

impl CacheRule {
    /// A rule from the prefix in the private registry, the upstream's address, and the prefix there. `ROOT` is no
    /// prefix. The address may carry a scheme and a slash; `docker.io` is `registry-1.docker.io`.
    ///
    /// # Errors
    /// *Invalid* where the address is none.
    pub fn new(prefix: String, upstream: &str, upstream_prefix: Option<String>) -> Result<Self> {
        let host = upstream.split_once("://").map_or(upstream, |(_, host)| host);
        let host = host.split('/').next().unwrap_or_default();
        let normal = |prefix: String| {
            let trimmed = prefix.trim_end_matches('/');
            (!trimmed.is_empty() && trimmed != ROOT).then(|| trimmed.to_owned())
        };
        Ok(Self {
            prefix: normal(prefix),
            upstream: hub(RegistryHost::new(host)?),
            upstream_prefix: upstream_prefix.and_then(normal),
        })
    }

    /// The prefix in the private registry; `None` for `ROOT`.
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// The upstream registry, as image references name it.
    pub fn upstream(&self) -> &RegistryHost {
        &self.upstream
    }

    /// The repository behind the cache of an upstream image; `None` where the rule is not about it.
    pub fn cached_path(&self, upstream: &ImageRef) -> Option<RepositoryName> {
        if hub(upstream.registry().clone()) != self.upstream {
            return None;
        }
        let rest = strip(upstream.repository().as_str(), self.upstream_prefix.as_deref())?;
        join(self.prefix.as_deref(), rest)
    }

    /// The upstream's name for a repository behind the cache; `None` where the rule is not about it.
    pub fn upstream_of(&self, cached: &RepositoryName) -> Option<ImageRef> {
        let rest = strip(cached.as_str(), self.prefix.as_deref())?;
        let repository = join(self.upstream_prefix.as_deref(), rest)?;
        Some(ImageRef::new(self.upstream.clone(), repository))
    }

    /// How narrow the rule is: of several that match, the narrowest counts.
    fn narrowness(&self) -> usize {
        self.upstream_prefix.as_ref().map_or(0, String::len)
    }
}

/// Docker Hub has two names; references use the short one.
fn hub(host: RegistryHost) -> RegistryHost {
    match host.as_str() {
        "registry-1.docker.io" => RegistryHost::new("docker.io").unwrap_or(host),
        _ => host,
    }
}

fn strip<'a>(path: &'a str, prefix: Option<&str>) -> Option<&'a str> {
    match prefix {
        None => Some(path),
        Some(prefix) if path == prefix => Some(""),
        Some(prefix) => path.strip_prefix(prefix)?.strip_prefix('/'),
    }
}

fn join(prefix: Option<&str>, rest: &str) -> Option<RepositoryName> {
    let path = match (prefix, rest) {
        (None, rest) => rest.to_owned(),
        (Some(prefix), "") => prefix.to_owned(),
        (Some(prefix), rest) => format!("{prefix}/{rest}"),
    };
    RepositoryName::new(path).ok()
}

impl Ecr {
    /// All pull-through cache rules of the registry, as the service describes them.
    ///
    /// # Errors
    /// What the service says to `DescribePullThroughCacheRules`.
    pub async fn pull_through_rules(&self) -> Result<Vec<PullThroughCacheRule>> {
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
            rules.extend(page.pull_through_cache_rules.unwrap_or_default());
        }
        Ok(rules)
    }

    /// Creates a rule for an upstream that needs no credentials (the public gallery of ECR, Quay.io, `registry.k8s.io`).
    /// Succeeds where the same rule is there already.
    ///
    /// # Errors
    /// *Conflict* where the prefix belongs to another upstream, and what the service says to
    /// `CreatePullThroughCacheRule`.
    pub async fn create_pull_through_rule(&self, prefix: &str, upstream: &RegistryHost) -> Result<()> {
        const ATTEMPTED: &str = "create the pull-through cache rule";
        let host = match upstream.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let call = self
            .api
            .create_pull_through_cache_rule()
            .ecr_repository_prefix(prefix)
            .upstream_registry_url(host)
            .set_upstream_registry(known_upstream(host));
        let Err(error) = call.send().await else {
            return Ok(());
        };
        let failed = failed(ATTEMPTED, prefix, error);
        if failed.code != "PullThroughCacheRuleAlreadyExistsException" {
            return Err(failed.error);
        }
        let wanted = CacheRule::new(prefix.to_owned(), host, None)?;
        let rules = self.pull_through_rules().await?;
        match rules
            .iter()
            .any(|rule| read(rule).is_ok_and(|rule| rule == wanted))
        {
            true => Ok(()),
            false => Err(failed
                .error
                .advise("this prefix belongs to another upstream: choose another one")),
        }
    }

    /// The name that an upstream image has behind the pull-through cache.
    ///
    /// # Errors
    /// *Not found* where no rule is about the upstream; the advice names the rule to create.
    pub async fn cached_reference(&self, upstream: &ImageRef) -> Result<ImageRef> {
        let mut best: Option<(usize, RepositoryName)> = None;
        for rule in self.pull_through_rules().await? {
            // A rule that cannot be read is about an address that no reference can have.
            let Ok(rule) = read(&rule) else {
                tracing::warn!(
                    url = rule.upstream_registry_url(),
                    "pull-through cache rule cannot be read"
                );
                continue;
            };
            if let Some(path) = rule.cached_path(upstream)
                && best
                    .as_ref()
                    .is_none_or(|(narrowness, _)| rule.narrowness() > *narrowness)
            {
                best = Some((rule.narrowness(), path));
            }
        }
        let Some((_, path)) = best else {
            let host = upstream.registry();
            return Err(
                Error::new(ErrorKind::NotFound, SERVICE, "find the cached name of", upstream)
                    .because(format!("no pull-through cache rule is for {host}"))
                    .advise(format!(
                        "create one: aws ecr create-pull-through-cache-rule --ecr-repository-prefix {} \
                         --upstream-registry-url {host}",
                        suggested_prefix(host)
                    )),
            );
        };
        let image = ImageRef::new(self.registry().await?, path);
        Ok(match (upstream.digest(), upstream.tag()) {
            (Some(digest), _) => image.at(digest.clone()),
            (None, Some(tag)) => image.tagged(tag.clone()),
            (None, None) => image,
        })
    }
}

fn read(rule: &PullThroughCacheRule) -> Result<CacheRule> {
    CacheRule::new(
        rule.ecr_repository_prefix().unwrap_or(ROOT).to_owned(),
        rule.upstream_registry_url().unwrap_or_default(),
        rule.upstream_repository_prefix().map(str::to_owned),
    )
}

fn known_upstream(host: &str) -> Option<UpstreamRegistry> {
    Some(match host {
        "public.ecr.aws" => UpstreamRegistry::EcrPublic,
        "quay.io" => UpstreamRegistry::Quay,
        "registry.k8s.io" => UpstreamRegistry::K8s,
        "registry-1.docker.io" => UpstreamRegistry::DockerHub,
        "ghcr.io" => UpstreamRegistry::GitHubContainerRegistry,
        "registry.gitlab.com" => UpstreamRegistry::GitLabContainerRegistry,
        "cgr.dev" => UpstreamRegistry::Chainguard,
        host if host.ends_with(".azurecr.io") => UpstreamRegistry::AzureContainerRegistry,
        _ => return None,
    })
}

/// A prefix of 2 to 30 lower-case letters, digits and separators, from the host's name.
fn suggested_prefix(host: &RegistryHost) -> String {
    match host.as_str() {
        "public.ecr.aws" => return "ecr-public".into(),
        "docker.io" => return "docker-hub".into(),
        _ => {}
    }
    let label = host
        .host()
        .split('.')
        .find(|label| label.len() > 1)
        .unwrap_or("upstream");
    label
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        .take(30)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: &str, upstream: &str, upstream_prefix: Option<&str>) -> CacheRule {
        CacheRule::new(prefix.into(), upstream, upstream_prefix.map(str::to_owned)).unwrap()
    }

    fn path(rule: &CacheRule, image: &str) -> Option<String> {
        rule.cached_path(&image.parse().unwrap())
            .map(|path| path.to_string())
    }

    #[test]
    fn names_map_both_ways() {
        let hub = rule("docker-hub", "registry-1.docker.io", None);
        assert_eq!(path(&hub, "nginx:1").as_deref(), Some("docker-hub/library/nginx"));
        assert_eq!(path(&hub, "quay.io/x/y"), None);
        let root = rule("ROOT", "https://public.ecr.aws/", Some("ROOT"));
        assert_eq!(
            path(&root, "public.ecr.aws/nginx/nginx").as_deref(),
            Some("nginx/nginx")
        );
        let renamed = rule("my-app", "quay.io", Some("upstream/app"));
        assert_eq!(
            path(&renamed, "quay.io/upstream/app/web").as_deref(),
            Some("my-app/web")
        );
        assert_eq!(path(&renamed, "quay.io/upstream/app").as_deref(), Some("my-app"));
        assert_eq!(path(&renamed, "quay.io/upstream/apple"), None);
        let back = renamed.upstream_of(&"my-app/web".parse().unwrap()).unwrap();
        assert_eq!(back.to_string(), "quay.io/upstream/app/web");
        assert_eq!(renamed.upstream_of(&"my-apple/web".parse().unwrap()), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_cached_is_found_again(
            prefix in "ROOT|[a-z]{2,8}(/[a-z]{2,8})?",
            upstream_prefix in proptest::option::of("ROOT|[a-z]{2,8}"),
            rest in "[a-z]{1,8}(/[a-z0-9]{1,8}){0,2}",
        ) {
            let rule = rule(&prefix, "quay.io", upstream_prefix.as_deref());
            let below = upstream_prefix.filter(|prefix| prefix != ROOT).map(|prefix| prefix + "/");
            let image: ImageRef = format!("quay.io/{}{rest}", below.unwrap_or_default()).parse().unwrap();
            let cached = rule.cached_path(&image).unwrap();
            proptest::prop_assert_eq!(rule.upstream_of(&cached), Some(image));
        }
    }
}
