//! The registries that the cache can stand in front of, by the words of `CreatePullThroughCacheRule`.

use crate::error::SERVICE;
use std::fmt;
use towpath_core::RegistryHost;
use towpath_elements::{Error, ErrorKind, Result};

/// A kind of upstream registry. A word of the service that is not known here is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Upstream {
    /// `ecr`: another private registry of Amazon ECR.
    Ecr,
    /// `ecr-public`: `public.ecr.aws`.
    EcrPublic,
    /// `quay`: `quay.io`.
    Quay,
    /// `k8s`: `registry.k8s.io`.
    Kubernetes,
    /// `docker-hub`: `docker.io`, which the service wants as `registry-1.docker.io`.
    DockerHub,
    /// `github-container-registry`: `ghcr.io`.
    GitHub,
    /// `azure-container-registry`: `NAME.azurecr.io`.
    Azure,
    /// `gitlab-container-registry`: `registry.gitlab.com`, and no GitLab of one's own.
    GitLab,
    /// `chainguard`: `cgr.dev`.
    Chainguard,
    /// Another word.
    Other(String),
}

/// What a rule needs so that the cache may read an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamNeeds {
    /// Nothing: the upstream is open to everybody.
    Nothing,
    /// A secret in Secrets Manager with a user name and an access token.
    Secret,
    /// An IAM role, where the upstream belongs to another account.
    RoleAcrossAccounts,
    /// Not known here.
    Unknown,
}

const WORDS: [(Upstream, &str, UpstreamNeeds); 9] = [
    (Upstream::Ecr, "ecr", UpstreamNeeds::RoleAcrossAccounts),
    (Upstream::EcrPublic, "ecr-public", UpstreamNeeds::Nothing),
    (Upstream::Quay, "quay", UpstreamNeeds::Nothing),
    (Upstream::Kubernetes, "k8s", UpstreamNeeds::Nothing),
    (Upstream::DockerHub, "docker-hub", UpstreamNeeds::Secret),
    (
        Upstream::GitHub,
        "github-container-registry",
        UpstreamNeeds::Secret,
    ),
    (Upstream::Azure, "azure-container-registry", UpstreamNeeds::Secret),
    (
        Upstream::GitLab,
        "gitlab-container-registry",
        UpstreamNeeds::Secret,
    ),
    (Upstream::Chainguard, "chainguard", UpstreamNeeds::Secret),
];

impl Upstream {
    /// The kind by the service's word.
    pub fn from_word(word: &str) -> Self {
        let known = WORDS.iter().find(|(_, known, _)| *known == word);
        known.map_or_else(|| Self::Other(word.to_owned()), |(kind, _, _)| kind.clone())
    }

    /// The service's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(word) => word,
            known => WORDS
                .iter()
                .find(|(kind, _, _)| kind == known)
                .map_or("", |(_, word, _)| word),
        }
    }

    /// The kind of a registry by its host; `None` where it is none that the service knows.
    ///
    /// ```
    /// use towpath_ecr::Upstream;
    /// assert_eq!(Upstream::of(&"quay.io".parse().unwrap()), Some(Upstream::Quay));
    /// assert_eq!(Upstream::of(&"gcr.io".parse().unwrap()), None);
    /// ```
    pub fn of(host: &RegistryHost) -> Option<Self> {
        Some(match host.host() {
            "public.ecr.aws" | "ecr-public.aws.com" => Self::EcrPublic,
            "quay.io" => Self::Quay,
            "registry.k8s.io" => Self::Kubernetes,
            "docker.io" | "registry-1.docker.io" => Self::DockerHub,
            "ghcr.io" => Self::GitHub,
            "registry.gitlab.com" => Self::GitLab,
            "cgr.dev" => Self::Chainguard,
            name if name.strip_suffix(".azurecr.io").is_some_and(is_label) => Self::Azure,
            _ if host.ecr().is_some() => Self::Ecr,
            _ => return None,
        })
    }

    /// What a rule for it needs.
    pub fn needs(&self) -> UpstreamNeeds {
        WORDS
            .iter()
            .find(|(kind, _, _)| kind == self)
            .map_or(UpstreamNeeds::Unknown, |(_, _, needs)| *needs)
    }

    /// A prefix that fits, as the service's console suggests it.
    pub(super) fn usual_prefix(&self) -> &str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::GitHub => "github",
            Self::Azure => "azure",
            Self::GitLab => "gitlab",
            Self::Ecr | Self::Other(_) => "upstream",
            known => known.as_str(),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && !text.contains('.')
}

/// The registry behind an address, as image references name it: without scheme, path and usual port, in lower case.
/// Docker Hub has several names; references use `docker.io`.
pub(super) fn host_of(address: &str) -> Result<RegistryHost> {
    let refuse = |reason: &str| {
        Error::new(
            ErrorKind::Invalid,
            SERVICE,
            "use the upstream registry",
            format!("{address:?}"),
        )
        .because(reason)
    };
    let text = address.trim();
    let host = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
        Some(_) => {
            return Err(refuse("its scheme is not https").advise("give the host alone, such as quay.io"));
        }
        None => text,
    };
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return Err(refuse("it has a user in it")
            .advise("credentials of an upstream belong into a secret of Secrets Manager"));
    }
    let host = host.strip_suffix(":443").unwrap_or(host);
    let host = RegistryHost::new(host).map_err(|error| {
        refuse("it is no host name")
            .advise("give the host alone, such as quay.io")
            .caused_by(error)
    })?;
    Ok(match host.as_str() {
        "registry-1.docker.io" | "registry.hub.docker.com" => RegistryHost::new("docker.io")?,
        _ => host,
    })
}

/// The address that the service wants for a registry: a bare host.
pub(super) fn url_of(host: &RegistryHost) -> &str {
    match host.as_str() {
        "docker.io" => "registry-1.docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_both_ways_and_unknown_ones_are_kept() {
        for (kind, word, _) in WORDS {
            assert_eq!(Upstream::from_word(word), kind);
            assert_eq!(kind.as_str(), word);
        }
        let other = Upstream::from_word("harbor");
        assert_eq!(
            (other.as_str(), other.needs()),
            ("harbor", UpstreamNeeds::Unknown)
        );
    }

    #[test]
    fn addresses_come_down_to_hosts() {
        for (address, host, url, kind) in [
            (
                "docker.io",
                "docker.io",
                "registry-1.docker.io",
                Upstream::DockerHub,
            ),
            (
                "https://registry-1.docker.io/v2/",
                "docker.io",
                "registry-1.docker.io",
                Upstream::DockerHub,
            ),
            (
                "index.docker.io",
                "docker.io",
                "registry-1.docker.io",
                Upstream::DockerHub,
            ),
            (
                " HTTPS://Public.ECR.aws/ ",
                "public.ecr.aws",
                "public.ecr.aws",
                Upstream::EcrPublic,
            ),
            ("quay.io:443/acme/web", "quay.io", "quay.io", Upstream::Quay),
            (
                "registry.k8s.io",
                "registry.k8s.io",
                "registry.k8s.io",
                Upstream::Kubernetes,
            ),
            ("ghcr.io/", "ghcr.io", "ghcr.io", Upstream::GitHub),
            (
                "acme.azurecr.io",
                "acme.azurecr.io",
                "acme.azurecr.io",
                Upstream::Azure,
            ),
            (
                "registry.gitlab.com",
                "registry.gitlab.com",
                "registry.gitlab.com",
                Upstream::GitLab,
            ),
            ("cgr.dev", "cgr.dev", "cgr.dev", Upstream::Chainguard),
            (
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                Upstream::Ecr,
            ),
        ] {
            let found = host_of(address).unwrap();
            assert_eq!(found.as_str(), host, "{address}");
            assert_eq!(url_of(&found), url, "{address}");
            assert_eq!(Upstream::of(&found), Some(kind), "{address}");
        }
        for (address, reason) in [
            ("http://quay.io", "not https"),
            ("user:password@quay.io", "user"),
            ("", "no host name"),
            ("quay .io", "no host name"),
        ] {
            let error = host_of(address).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        for stranger in ["gcr.io", "azurecr.io", "a.b.azurecr.io", "gitlab.example.com"] {
            assert_eq!(Upstream::of(&host_of(stranger).unwrap()), None, "{stranger}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_address_panics(address in ".{0,40}") {
            let _ = host_of(&address);
        }
    }
}
