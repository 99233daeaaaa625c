//! All rules of a registry together, and the names of images on both sides.

use super::rule::{CacheRule, below};
use std::sync::Arc;
use towpath_core::{ImageRef, RegistryHost, RepositoryName};

/// The pull-through cache rules of a registry, read once. Cheap to clone.
///
/// ```
/// use towpath_ecr::{CacheRule, CacheRules};
/// let rules: CacheRules = [
///     CacheRule::new("docker-hub".into(), "docker.io", None)?,
///     CacheRule::new("quay".into(), "quay.io", None)?,
/// ]
/// .into_iter()
/// .collect();
/// let registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com".parse()?;
/// let cached = rules.cached(&"nginx:1.27".parse()?, &registry).unwrap();
/// assert_eq!(cached.repository().as_str(), "docker-hub/library/nginx");
/// assert_eq!(rules.upstream_of(&cached).unwrap().to_string(), "docker.io/library/nginx:1.27");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheRules(Arc<[CacheRule]>);

impl CacheRules {
    /// The rules, by prefix.
    pub fn iter(&self) -> std::slice::Iter<'_, CacheRule> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rule with this prefix, or `ROOT`.
    pub fn get(&self, prefix: &str) -> Option<&CacheRule> {
        let prefix = super::rule::named(prefix);
        self.iter().find(|rule| rule.prefix == prefix)
    }

    /// The rule that a repository of the private registry is behind: of several the narrowest, and `ROOT` last.
    pub fn behind(&self, cached: &RepositoryName) -> Option<&CacheRule> {
        self.iter()
            .filter(|rule| below(cached.as_str(), rule.prefix()).is_some())
            .max_by_key(|rule| rule.prefix().map_or(0, str::len))
    }

    /// The rule for an upstream image, and the repository that has it behind the cache.
    ///
    /// Of several rules the one with the narrowest prefix at the upstream counts, then the first by prefix. A name that
    /// another, narrower rule would take for an image of its own upstream is none.
    pub fn for_upstream(&self, upstream: &ImageRef) -> Option<(&CacheRule, RepositoryName)> {
        let mut best: Option<(usize, &CacheRule, RepositoryName)> = None;
        for rule in self.iter() {
            let Some(path) = rule.cached_path(upstream) else {
                continue;
            };
            let leads_back = self
                .behind(&path)
                .is_some_and(|behind| behind.prefix == rule.prefix);
            let narrowness = rule.upstream_prefix().map_or(0, str::len);
            if leads_back && best.as_ref().is_none_or(|(other, _, _)| narrowness > *other) {
                best = Some((narrowness, rule, path));
            }
        }
        best.map(|(_, rule, path)| (rule, path))
    }

    /// The name that an upstream image has behind the cache of `registry`, tag and digest kept; `None` without a rule.
    pub fn cached(&self, upstream: &ImageRef, registry: &RegistryHost) -> Option<ImageRef> {
        let (_, path) = self.for_upstream(upstream)?;
        Some(upstream.renamed(registry.clone(), path))
    }

    /// The upstream's name of an image behind the cache, tag and digest kept; `None` where no rule is about its
    /// repository.
    pub fn upstream_of(&self, cached: &ImageRef) -> Option<ImageRef> {
        let rule = self.behind(cached.repository())?;
        let upstream = rule.upstream_of(cached.repository())?;
        Some(cached.renamed(upstream.registry().clone(), upstream.repository().clone()))
    }
}

impl FromIterator<CacheRule> for CacheRules {
    fn from_iter<T: IntoIterator<Item = CacheRule>>(rules: T) -> Self {
        let mut rules: Vec<CacheRule> = rules.into_iter().collect();
        rules.sort_by(|one, other| one.prefix.cmp(&other.prefix));
        Self(rules.into())
    }
}

impl<'a> IntoIterator for &'a CacheRules {
    type Item = &'a CacheRule;
    type IntoIter = std::slice::Iter<'a, CacheRule>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
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

    fn registry() -> RegistryHost {
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com".parse().unwrap()
    }

    #[test]
    fn names_map_both_ways() {
        let hub = rule("docker-hub", "registry-1.docker.io", None);
        assert_eq!(path(&hub, "nginx:1").as_deref(), Some("docker-hub/library/nginx"));
        assert_eq!(
            path(&hub, "registry-1.docker.io/library/nginx").as_deref(),
            Some("docker-hub/library/nginx")
        );
        assert_eq!(path(&hub, "quay.io/x/y"), None);
        let root = rule("ROOT", "https://public.ecr.aws/", Some("ROOT"));
        assert_eq!(
            path(&root, "public.ecr.aws/nginx/nginx").as_deref(),
            Some("nginx/nginx")
        );
        let renamed = rule("my-app/", "quay.io", Some("upstream/app"));
        assert_eq!(
            path(&renamed, "quay.io/upstream/app/web").as_deref(),
            Some("my-app/web")
        );
        // The slash belongs to the prefix.
        assert_eq!(path(&renamed, "quay.io/upstream/app"), None);
        assert_eq!(path(&renamed, "quay.io/upstream/apple"), None);
        let back = renamed.upstream_of(&"my-app/web".parse().unwrap()).unwrap();
        assert_eq!(back.to_string(), "quay.io/upstream/app/web");
        assert_eq!(renamed.upstream_of(&"my-apple/web".parse().unwrap()), None);
        assert_eq!(renamed.upstream_of(&"my-app".parse().unwrap()), None);
    }

    #[test]
    fn the_narrowest_rule_wins_and_a_name_leads_back_to_its_image() {
        let rules: CacheRules = [
            rule("ROOT", "public.ecr.aws", None),
            rule("quay", "quay.io", None),
            rule("acme", "quay.io", Some("acme")),
            rule("quay/special", "ghcr.io", None),
        ]
        .into_iter()
        .collect();
        let cached = |image: &str| {
            let cached = rules.cached(&image.parse().unwrap(), &registry());
            cached.map(|image| image.repository().to_string())
        };
        assert_eq!(cached("quay.io/acme/web:1").as_deref(), Some("acme/web"));
        assert_eq!(cached("quay.io/other/web").as_deref(), Some("quay/other/web"));
        assert_eq!(cached("ghcr.io/a/b").as_deref(), Some("quay/special/a/b"));
        assert_eq!(
            cached("public.ecr.aws/nginx/nginx").as_deref(),
            Some("nginx/nginx")
        );
        // `quay/special/…` belongs to another upstream, and `quay/…` to Quay.io.
        assert_eq!(cached("quay.io/special/web"), None);
        assert_eq!(cached("public.ecr.aws/quay/web"), None);
        assert_eq!(cached("docker.io/library/nginx"), None);
        let digest = towpath_core::Digest::sha256_of("x");
        let both: ImageRef = format!("quay.io/other/web:1@{digest}").parse().unwrap();
        let there = rules.cached(&both, &registry()).unwrap();
        assert_eq!(there.tag().map(ToString::to_string).as_deref(), Some("1"));
        assert_eq!(there.digest(), Some(&digest));
        assert_eq!(rules.upstream_of(&there), Some(both));
    }

    proptest::proptest! {
        #[test]
        fn what_is_cached_is_found_again(
            rules in proptest::collection::vec(
                ("ROOT|[ab]{2}(/[ab]{2})?", "quay\\.io|docker\\.io|ghcr\\.io", proptest::option::of("ROOT|[ab]{2}")),
                1..6,
            ),
            host in "quay\\.io|docker\\.io|ghcr\\.io",
            path in "[ab]{2}/[ab]{2}(/[ab]{2})?",
            tag in proptest::option::of("[a-z0-9]{1,8}"),
        ) {
            let mut prefixes = std::collections::HashSet::new();
            let rules: CacheRules = rules
                .iter()
                .filter(|(prefix, _, _)| prefixes.insert(prefix.clone()))
                .map(|(prefix, host, below)| rule(prefix, host, below.as_deref()))
                .collect();
            let image: ImageRef = format!("{host}/{path}").parse().unwrap();
            let image = match tag {
                Some(tag) => image.tagged(tag.parse().unwrap()),
                None => image,
            };
            if let Some(cached) = rules.cached(&image, &registry()) {
                proptest::prop_assert_eq!(rules.upstream_of(&cached), Some(image));
            }
        }
    }
}
