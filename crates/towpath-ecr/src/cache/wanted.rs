//! A rule that is to be, and what is wrong with it before the service is asked (*Amazon ECR User Guide*, "Creating a
//! pull through cache rule in Amazon ECR"; the constraints of `CreatePullThroughCacheRule`).

use super::rule::{CacheRule, ROOT, named};
use super::upstream::{Upstream, UpstreamNeeds, host_of};
use crate::error::SERVICE;
use towpath_core::{AccountId, RegistryHost, RepositoryName};
use towpath_elements::{Error, ErrorKind, Result};

/// How the cache authenticates at an upstream. The only part of a rule that can be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCredentials {
    /// The secret in Secrets Manager, in the account and Region of the rule. Its name begins with
    /// `ecr-pullthroughcache/`, its value is `{"username":"…","accessToken":"…"}`.
    pub secret_arn: Option<String>,
    /// The IAM role that the cache assumes to read another account's registry.
    pub role_arn: Option<String>,
}

impl RuleCredentials {
    /// A secret, by its ARN.
    pub fn secret(arn: impl Into<String>) -> Self {
        Self {
            secret_arn: Some(arn.into()),
            role_arn: None,
        }
    }

    /// A role, by its ARN.
    pub fn role(arn: impl Into<String>) -> Self {
        Self {
            secret_arn: None,
            role_arn: Some(arn.into()),
        }
    }

    /// Says what is wrong with the ARNs. `region` and `account` are those of the rule, where they are known.
    pub(super) fn check(
        &self,
        region: Option<&str>,
        account: Option<&AccountId>,
        subject: &str,
    ) -> Result<()> {
        let refuse = |reason: String, advice: &'static str| {
            Err(Error::new(
                ErrorKind::Invalid,
                SERVICE,
                "use the credentials of the pull-through cache rule",
                subject,
            )
            .because(reason)
            .advise(advice))
        };
        if let Some(arn) = &self.secret_arn {
            let Some(secret) = SecretArn::read(arn) else {
                return refuse(
                    format!(
                        "{arn:?} is not the ARN of a secret whose name begins with ecr-pullthroughcache/"
                    ),
                    "give arn:aws:secretsmanager:REGION:ACCOUNT:secret:ecr-pullthroughcache/NAME-SUFFIX, of 50 to 612 \
                     characters",
                );
            };
            if region.is_some_and(|region| region != secret.region) {
                return refuse(
                    format!(
                        "the secret is in {}, the rule in {}",
                        secret.region,
                        region.unwrap_or_default()
                    ),
                    "keep the secret in the Region of the rule",
                );
            }
            if account.is_some_and(|account| account.as_str() != secret.account) {
                return refuse(
                    format!("the secret belongs to the account {}", secret.account),
                    "keep the secret in the account of the rule",
                );
            }
        }
        if let Some(arn) = &self.role_arn {
            let parts: Vec<&str> = arn.splitn(6, ':').collect();
            let is_role = matches!(parts[..], ["arn", partition, "iam", "", owner, name]
                if partition.starts_with("aws") && is_account(owner) && name.starts_with("role/"));
            if !is_role || arn.len() > 2048 {
                return refuse(
                    format!("{arn:?} is not the ARN of a role"),
                    "give arn:aws:iam::ACCOUNT:role/NAME, of at most 2048 characters",
                );
            }
        }
        Ok(())
    }
}

struct SecretArn<'a> {
    region: &'a str,
    account: &'a str,
}

impl<'a> SecretArn<'a> {
    fn read(arn: &'a str) -> Option<Self> {
        let parts: Vec<&str> = arn.splitn(7, ':').collect();
        let [
            "arn",
            partition,
            "secretsmanager",
            region,
            account,
            "secret",
            name,
        ] = parts[..]
        else {
            return None;
        };
        let name = name.strip_prefix("ecr-pullthroughcache/")?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
        let is_partition = partition == "aws"
            || partition
                .strip_prefix("aws-")
                .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
        (is_partition
            && (50..=612).contains(&arn.len())
            && !name.is_empty()
            && name.chars().all(fits)
            && is_account(account)
            && !region.is_empty())
        .then_some(Self { region, account })
    }
}

fn is_account(text: &str) -> bool {
    AccountId::new(text).is_ok()
}

/// A rule that is to be.
///
/// ```
/// use towpath_ecr::{RuleCredentials, WantedRule};
/// let open = WantedRule::new("quay", "quay.io");
/// let secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ecr-pullthroughcache/hub-a1B2c3";
/// let with_secret = WantedRule::new("docker-hub", "docker.io").with(RuleCredentials::secret(secret));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRule {
    prefix: String,
    upstream: String,
    upstream_prefix: Option<String>,
    kind: Option<Upstream>,
    credentials: RuleCredentials,
}

impl WantedRule {
    /// A rule for a prefix of 2 to 30 characters, or `ROOT`, and an upstream by its address.
    pub fn new(prefix: impl Into<String>, upstream: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            upstream: upstream.into(),
            upstream_prefix: None,
            kind: None,
            credentials: RuleCredentials::default(),
        }
    }

    /// Sets how the cache authenticates at the upstream.
    #[must_use]
    pub fn with(mut self, credentials: RuleCredentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Restricts the rule to what is below a prefix at the upstream. Not for the prefix `ROOT`.
    #[must_use]
    pub fn upstream_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.upstream_prefix = Some(prefix.into());
        self
    }

    /// Sets the kind of the upstream, where its address does not say it.
    #[must_use]
    pub fn kind(mut self, kind: Upstream) -> Self {
        self.kind = Some(kind);
        self
    }

    pub(super) fn subject(&self) -> &str {
        &self.prefix
    }

    pub(super) fn credentials(&self) -> &RuleCredentials {
        &self.credentials
    }

    /// What the rule comes to, or what is wrong with it. `region` is the client's, `own` the registry where it is known.
    pub(super) fn check(&self, region: Option<&str>, own: Option<&RegistryHost>) -> Result<Checked> {
        let refuse = |kind, reason: String, advice: String| {
            Error::new(kind, SERVICE, "create the pull-through cache rule", &self.prefix)
                .because(reason)
                .advise(advice)
        };
        let invalid = |reason: String, advice: &str| refuse(ErrorKind::Invalid, reason, advice.to_owned());
        if let Some(region) =
            region.filter(|region| region.starts_with("cn-") || region.starts_with("us-gov-"))
        {
            return Err(refuse(
                ErrorKind::Unsupported,
                format!("the service has no pull-through cache in {region}"),
                "copy the image instead".into(),
            ));
        }
        for (what, prefix) in [
            ("prefix", Some(&self.prefix)),
            ("upstream prefix", self.upstream_prefix.as_ref()),
        ] {
            let Some(prefix) = prefix else { continue };
            if let Err(reason) = check_prefix(prefix) {
                return Err(invalid(
                    format!("the {what} {prefix:?} {reason}"),
                    "use 2 to 30 lower-case letters, digits and single separators, or ROOT",
                ));
            }
        }
        let (prefix, upstream_prefix) = (
            named(&self.prefix),
            self.upstream_prefix.as_deref().and_then(named),
        );
        if prefix.is_none() && upstream_prefix.is_some() {
            return Err(invalid(
                "a rule for ROOT cannot have an upstream prefix".into(),
                "give the rule a prefix, or leave the upstream prefix away",
            ));
        }
        let host = host_of(&self.upstream)?;
        let Some(kind) = self.kind.clone().or_else(|| Upstream::of(&host)) else {
            return Err(refuse(
                ErrorKind::Unsupported,
                format!("{host} is not a registry that the service caches"),
                "it caches Amazon ECR (private and public), Quay.io, registry.k8s.io, Docker Hub, ghcr.io, \
                 registry.gitlab.com, NAME.azurecr.io and cgr.dev; copy images from others"
                    .into(),
            ));
        };
        let account = own.and_then(RegistryHost::ecr).map(|own| own.account().clone());
        self.credentials.check(region, account.as_ref(), &self.prefix)?;
        let RuleCredentials { secret_arn, role_arn } = &self.credentials;
        let across = match (host.ecr(), &account) {
            (Some(theirs), Some(own)) => theirs.account() != own,
            // Where one of the two is not known, the service judges.
            _ => false,
        };
        match kind.needs() {
            UpstreamNeeds::Secret if secret_arn.is_none() => Err(invalid(
                format!("{host} requires authentication, and the rule has no secret"),
                "store {\"username\":…,\"accessToken\":…} in Secrets Manager under a name that begins with \
                 ecr-pullthroughcache/, and give its ARN",
            )),
            UpstreamNeeds::RoleAcrossAccounts if across && role_arn.is_none() => Err(invalid(
                format!("{host} belongs to another account, and the rule has no role"),
                "give the ARN of a role of this account that the service may assume and that may read there",
            )),
            UpstreamNeeds::RoleAcrossAccounts if secret_arn.is_some() => Err(invalid(
                "a registry of Amazon ECR is read by role, not by secret".into(),
                "leave the secret away",
            )),
            UpstreamNeeds::Secret | UpstreamNeeds::Nothing if role_arn.is_some() => Err(invalid(
                format!("a role is for registries of Amazon ECR, and {host} is none"),
                "leave the role away",
            )),
            _ => Ok(Checked {
                prefix: prefix.unwrap_or_else(|| ROOT.to_owned()),
                host,
                kind,
                upstream_prefix,
            }),
        }
    }
}

/// A rule that the service can be asked for.
pub(super) struct Checked {
    pub(super) prefix: String,
    pub(super) host: RegistryHost,
    pub(super) kind: Upstream,
    pub(super) upstream_prefix: Option<String>,
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    if !(2..=30).contains(&prefix.len()) {
        return Err(format!("has {} characters", prefix.len()));
    }
    if prefix == ROOT {
        return Ok(());
    }
    let path = prefix.strip_suffix('/').unwrap_or(prefix);
    RepositoryName::new(path).map_err(|error| error.reason().to_owned())?;
    Ok(())
}

/// A rule that is there now, and what had to be done for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnsuredRule {
    /// The rule.
    pub rule: CacheRule,
    /// What was changed.
    pub change: RuleChange,
}

/// What had to be done for a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleChange {
    /// Nothing: it was there.
    Nothing,
    /// It was created.
    Created,
    /// It was there with other credentials, these.
    Credentials(RuleCredentials),
}

/// What the service found when it tried a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleValidity {
    /// The upstream answers, and takes the credentials where there are some.
    Valid,
    /// It does not; the text says why, in the service's words.
    Invalid(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str =
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ecr-pullthroughcache/hub-a1B2c3";
    const ROLE: &str = "arn:aws:iam::123456789012:role/cache";

    fn own() -> RegistryHost {
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com".parse().unwrap()
    }

    fn refused(rule: &WantedRule, region: &str) -> String {
        rule.check(Some(region), Some(&own())).err().unwrap().to_string()
    }

    #[test]
    fn what_is_right_comes_to_the_words_of_the_service() {
        let wanted = WantedRule::new("hub/", "https://docker.io/").with(RuleCredentials::secret(SECRET));
        let checked = wanted.check(Some("eu-west-1"), Some(&own())).unwrap();
        assert_eq!(
            (checked.prefix.as_str(), checked.kind),
            ("hub", Upstream::DockerHub)
        );
        let other = "210987654321.dkr.ecr.us-east-1.amazonaws.com";
        for (rule, own) in [
            (WantedRule::new("ROOT", "public.ecr.aws"), Some(own())),
            (
                WantedRule::new("peer", other).with(RuleCredentials::role(ROLE)),
                Some(own()),
            ),
            // The same account in another Region needs no role.
            (
                WantedRule::new("far", "123456789012.dkr.ecr.us-east-1.amazonaws.com"),
                Some(own()),
            ),
            (WantedRule::new("peer", other), None),
            (
                WantedRule::new("new", "registry.example.com").kind(Upstream::from_word("example")),
                None,
            ),
            (WantedRule::new("acme", "quay.io").upstream_prefix("acme"), None),
        ] {
            rule.check(Some("eu-west-1"), own.as_ref()).map(|_| ()).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_remedy() {
        let hub = |arn: &str| WantedRule::new("hub", "docker.io").with(RuleCredentials::secret(arn));
        let long = format!("{SECRET}{}", "x".repeat(600));
        for (rule, reason, remedy) in [
            (WantedRule::new("a", "quay.io"), "has 1 characters", "2 to 30"),
            (
                WantedRule::new("a".repeat(31), "quay.io"),
                "has 31 characters",
                "2 to 30",
            ),
            (WantedRule::new("Quay", "quay.io"), "lower case", "ROOT"),
            (WantedRule::new("quay//x", "quay.io"), "empty", "ROOT"),
            (
                WantedRule::new("ROOT", "quay.io").upstream_prefix("acme"),
                "cannot have an upstream prefix",
                "leave",
            ),
            (
                WantedRule::new("gcr", "gcr.io"),
                "not a registry that the service caches",
                "copy",
            ),
            (
                WantedRule::new("hub", "docker.io"),
                "requires authentication",
                "ecr-pullthroughcache/",
            ),
            (
                WantedRule::new("peer", "210987654321.dkr.ecr.us-east-1.amazonaws.com"),
                "belongs to another account",
                "role",
            ),
            (
                WantedRule::new("quay", "quay.io").with(RuleCredentials::role(ROLE)),
                "a role is for",
                "leave the role",
            ),
            (
                hub("arn:aws:secretsmanager:eu-west-1:123456789012:secret:other/hub-a1B2c3"),
                "not the ARN",
                "NAME-SUFFIX",
            ),
            (hub("ecr-pullthroughcache/hub"), "not the ARN", "NAME-SUFFIX"),
            (hub(&long), "not the ARN", "612"),
            (
                hub(&SECRET.replace("eu-west-1", "us-east-1")),
                "the secret is in us-east-1",
                "Region of the rule",
            ),
            (
                hub(&SECRET.replace("123456789012", "210987654321")),
                "account 210987654321",
                "account of the rule",
            ),
        ] {
            let text = refused(&rule, "eu-west-1");
            assert!(text.contains(reason) && text.contains(remedy), "{text}");
        }
        for region in ["cn-north-1", "us-gov-west-1"] {
            let text = refused(&WantedRule::new("quay", "quay.io"), region);
            assert!(text.contains("no pull-through cache in"), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_words_panic(prefix in ".{0,12}", upstream in ".{0,20}", arn in ".{0,80}|arn:aws:secretsmanager:.{0,60}") {
            let rule = WantedRule::new(prefix, upstream).with(RuleCredentials { secret_arn: Some(arn.clone()), role_arn: Some(arn) });
            let _ = rule.check(None, None);
        }
    }
}
