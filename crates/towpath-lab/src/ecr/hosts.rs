//! The registries that an [`Upstream`](super::Upstream) can stand for, and how each leads to its tokens.

/// Which registry an [`Upstream`](super::Upstream) stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamKind {
    /// `public.ecr.aws`.
    EcrPublic,
    /// `quay.io`.
    Quay,
    /// `registry.k8s.io`, which wants no token.
    Kubernetes,
    /// `registry-1.docker.io`, whose official images are below `library/`.
    DockerHub,
    /// `ghcr.io`.
    GitHub,
    /// `registry.gitlab.com`.
    GitLab,
    /// `lab.azurecr.io`.
    Azure,
    /// `cgr.dev`.
    Chainguard,
}

impl UpstreamKind {
    /// The host name that pull-through rules name it by.
    pub fn host(self) -> &'static str {
        match self {
            Self::EcrPublic => "public.ecr.aws",
            Self::Quay => "quay.io",
            Self::Kubernetes => "registry.k8s.io",
            Self::DockerHub => "registry-1.docker.io",
            Self::GitHub => "ghcr.io",
            Self::GitLab => "registry.gitlab.com",
            Self::Azure => "lab.azurecr.io",
            Self::Chainguard => "cgr.dev",
        }
    }

    /// Where it gives tokens out.
    pub(super) fn token_path(self) -> &'static str {
        match self {
            Self::EcrPublic => "/token/",
            Self::Quay => "/v2/auth",
            Self::GitLab => "/jwt/auth",
            Self::Azure => "/oauth2/token",
            Self::Kubernetes | Self::DockerHub | Self::GitHub | Self::Chainguard => "/token",
        }
    }

    /// What it calls itself in a challenge.
    pub(super) fn service(self) -> &'static str {
        match self {
            Self::DockerHub => "registry.docker.io",
            Self::GitLab => "container_registry",
            other => other.host(),
        }
    }

    /// The body of a 401, as code and message.
    pub(super) fn unauthorized(self) -> (&'static str, &'static str) {
        match self {
            Self::EcrPublic => ("DENIED", "Not Authorized"),
            Self::Quay => (
                "UNAUTHORIZED",
                "access to the requested resource is not authorized",
            ),
            _ => ("UNAUTHORIZED", "authentication required"),
        }
    }

    /// Whether a limit on pulls counts requests for manifests with `GET` only.
    pub(super) fn counts_only_get(self) -> bool {
        self == Self::DockerHub
    }
}
