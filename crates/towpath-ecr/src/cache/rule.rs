//! One rule: which upstream is behind which prefix, and how the names of images map.

use super::upstream::{Upstream, UpstreamNeeds, host_of};
use super::wanted::RuleCredentials;
use aws_sdk_ecr::types::PullThroughCacheRule;
use jiff::Timestamp;
use towpath_core::{ImageRef, RegistryHost, RepositoryName};
use towpath_elements::Result;

/// The prefix that means "no prefix".
pub(super) const ROOT: &str = "ROOT";

/// A pull-through cache rule.
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
    pub(super) prefix: Option<String>,
    pub(super) upstream: RegistryHost,
    pub(super) upstream_prefix: Option<String>,
    pub(super) kind: Upstream,
    pub(super) credentials: RuleCredentials,
    pub(super) created: Option<Timestamp>,
    pub(super) updated: Option<Timestamp>,
}

impl CacheRule {
    /// A rule from the prefix in the private registry, the upstream's address, and the prefix there. `ROOT` is no
    /// prefix. The address may carry `https://`, a path and a slash; `registry-1.docker.io` is `docker.io`.
    ///
    /// # Errors
    /// *Invalid* where the address is none.
    pub fn new(prefix: String, upstream: &str, upstream_prefix: Option<String>) -> Result<Self> {
        let upstream = host_of(upstream)?;
        Ok(Self {
            prefix: named(&prefix),
            upstream_prefix: upstream_prefix.as_deref().and_then(named),
            kind: Upstream::of(&upstream).unwrap_or_else(|| Upstream::Other(String::new())),
            upstream,
            credentials: RuleCredentials::default(),
            created: None,
            updated: None,
        })
    }

    /// A rule as the service describes it.
    pub(super) fn read(rule: &PullThroughCacheRule) -> Result<Self> {
        let time = |time: Option<&aws_sdk_ecr::primitives::DateTime>| {
            time.and_then(|time| Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok())
        };
        let read = Self::new(
            rule.ecr_repository_prefix().unwrap_or(ROOT).to_owned(),
            rule.upstream_registry_url().unwrap_or_default(),
            rule.upstream_repository_prefix().map(str::to_owned),
        )?;
        Ok(Self {
            kind: rule
                .upstream_registry()
                .map_or(read.kind.clone(), |word| Upstream::from_word(word.as_str())),
            credentials: RuleCredentials {
                secret_arn: rule.credential_arn().map(str::to_owned),
                role_arn: rule.custom_role_arn().map(str::to_owned),
            },
            created: time(rule.created_at()),
            updated: time(rule.updated_at()),
            ..read
        })
    }

    /// The prefix in the private registry; `None` for `ROOT`.
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// The prefix as the service names it, `ROOT` included.
    pub fn name(&self) -> &str {
        self.prefix.as_deref().unwrap_or(ROOT)
    }

    /// The upstream registry, as image references name it.
    pub fn upstream(&self) -> &RegistryHost {
        &self.upstream
    }

    /// The prefix at the upstream; `None` for `ROOT`.
    pub fn upstream_prefix(&self) -> Option<&str> {
        self.upstream_prefix.as_deref()
    }

    /// Which kind of registry the upstream is.
    pub fn kind(&self) -> &Upstream {
        &self.kind
    }

    /// The secret or role by which the cache reads the upstream.
    pub fn credentials(&self) -> &RuleCredentials {
        &self.credentials
    }

    /// When it was created, where the service says so.
    pub fn created(&self) -> Option<Timestamp> {
        self.created
    }

    /// When its credentials were last changed, where the service says so.
    pub fn updated(&self) -> Option<Timestamp> {
        self.updated
    }

    /// The repository behind the cache of an upstream image; `None` where the rule is not about it.
    pub fn cached_path(&self, upstream: &ImageRef) -> Option<RepositoryName> {
        let host = host_of(upstream.registry().as_str()).ok()?;
        if host != self.upstream {
            return None;
        }
        let rest = below(upstream.repository().as_str(), self.upstream_prefix.as_deref())?;
        join(self.prefix.as_deref(), rest)
    }

    /// The upstream's name for a repository behind the cache; `None` where the rule is not about it.
    pub fn upstream_of(&self, cached: &RepositoryName) -> Option<ImageRef> {
        let rest = below(cached.as_str(), self.prefix.as_deref())?;
        let repository = join(self.upstream_prefix.as_deref(), rest)?;
        Some(ImageRef::new(self.upstream.clone(), repository))
    }

    /// Whether the cache authenticates at the upstream.
    pub(super) fn authenticates(&self) -> bool {
        self.kind.needs() == UpstreamNeeds::Secret || self.credentials != RuleCredentials::default()
    }
}

/// A prefix without its slash; `None` for `ROOT`.
pub(super) fn named(prefix: &str) -> Option<String> {
    let trimmed = prefix.trim_end_matches('/');
    (!trimmed.is_empty() && trimmed != ROOT).then(|| trimmed.to_owned())
}

/// What is left of a path below a prefix. The slash belongs to the prefix, so a path that is the prefix has nothing left.
pub(super) fn below<'a>(path: &'a str, prefix: Option<&str>) -> Option<&'a str> {
    match prefix {
        None => Some(path),
        Some(prefix) => path.strip_prefix(prefix)?.strip_prefix('/'),
    }
}

fn join(prefix: Option<&str>, rest: &str) -> Option<RepositoryName> {
    let path = match prefix {
        None => rest.to_owned(),
        Some(prefix) => format!("{prefix}/{rest}"),
    };
    RepositoryName::new(path).ok()
}
