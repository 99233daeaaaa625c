//! Why an image cannot be had through the cache, or is not what it should be. The service answers most of it with 404.

use crate::error::SERVICE;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;
use towpath_core::{Digest, RegistryHost, Retry};
use towpath_elements::{Error, ErrorKind};

/// What is wrong with an image behind the cache.
///
/// [`of`](Self::of) finds it in an error:
///
/// ```
/// # async fn run(ecr: &towpath_ecr::Ecr) {
/// use towpath_ecr::{CacheProblem, WarmOptions};
/// let upstream = "quay.io/prometheus/node-exporter:v1.9.1".parse().unwrap();
/// if let Err(error) = ecr.warm(&upstream, &WarmOptions::default()).await {
///     match CacheProblem::of(&error) {
///         Some(CacheProblem::MissingRule { .. }) => { /* create one */ }
///         Some(CacheProblem::UpstreamRateLimited { retry_after }) => { /* wait */ }
///         _ => eprintln!("{error}"),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheProblem {
    /// No rule is about the upstream.
    MissingRule {
        /// The upstream.
        upstream: RegistryHost,
    },
    /// The rule's credentials for the upstream are no good.
    Credential {
        /// The rule's prefix.
        rule: String,
        /// What is wrong with them.
        fault: CredentialFault,
    },
    /// The upstream has no such image.
    UpstreamNotFound,
    /// The upstream refuses the cache, or does not say whether it has the image.
    UpstreamDenied,
    /// The upstream asks the cache for fewer requests.
    UpstreamRateLimited {
        /// For how long, where that was said.
        retry_after: Option<Duration>,
    },
    /// The upstream cannot be reached, or failed.
    UpstreamUnavailable {
        /// What was said of it.
        detail: String,
    },
    /// The caller lacks permissions, by their names. The service says "not found" to that.
    MissingPermission {
        /// The permissions.
        actions: Vec<&'static str>,
    },
    /// The cache has no such image, and nobody says whether that is for want of permission, or of the image.
    NotThere {
        /// Whether the repository exists.
        repository_exists: bool,
    },
    /// The repository exists, and no rule is about it: it is read as it is, and never filled.
    NotACache,
    /// Parts of an image that the cache names did not come.
    HalfFilled {
        /// The manifests and blobs that are missing.
        missing: Vec<Digest>,
    },
    /// The cache still has what the tag named before. It looks again after 24 hours.
    StaleTag {
        /// What the cache has.
        cached: Digest,
        /// What the upstream has.
        upstream: Digest,
    },
    /// The tag names an image in the cache that the upstream does not have at all.
    Mismatch {
        /// What the cache has.
        cached: Digest,
        /// What the upstream has.
        upstream: Digest,
    },
    /// The upstream no longer has the tag; the cache still has an image of it.
    UpstreamRemoved {
        /// What the cache has.
        cached: Digest,
    },
}

/// What is wrong with the credentials of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialFault {
    /// There is no such secret.
    NotFound,
    /// The service may not read the secret.
    NotAccessible,
    /// The service may not decrypt the secret.
    NotDecryptable,
    /// Tried, and found wanting; in the service's words.
    Refused(String),
}

impl CacheProblem {
    /// The problem that an error is about, if it is about one.
    pub fn of(error: &Error) -> Option<&Self> {
        let mut cause = StdError::source(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<Because>() {
                return Some(&found.problem);
            }
            cause = error.source();
        }
        None
    }

    /// The kind of error that it makes.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::MissingRule { .. }
            | Self::UpstreamNotFound
            | Self::NotThere { .. }
            | Self::NotACache
            | Self::HalfFilled { .. }
            | Self::UpstreamRemoved { .. } => ErrorKind::NotFound,
            Self::Credential { .. } | Self::UpstreamDenied | Self::MissingPermission { .. } => {
                ErrorKind::Denied
            }
            Self::UpstreamRateLimited { .. } => ErrorKind::RateLimited,
            Self::UpstreamUnavailable { .. } => ErrorKind::Unavailable,
            Self::StaleTag { .. } | Self::Mismatch { .. } => ErrorKind::Conflict,
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        match self {
            Self::MissingRule { upstream } => {
                let kind = super::Upstream::of(upstream);
                match kind {
                    Some(kind) => format!(
                        "create one, with Ecr::ensure_cache_rule or: aws ecr create-pull-through-cache-rule \
                         --ecr-repository-prefix {} --upstream-registry-url {}{}",
                        kind.usual_prefix(),
                        super::upstream::url_of(upstream),
                        match kind.needs() {
                            super::UpstreamNeeds::Secret => " --credential-arn ARN",
                            _ => "",
                        }
                    ),
                    None => "the service does not cache this registry: copy the image instead".into(),
                }
            }
            Self::Credential { rule, fault } => match fault {
                CredentialFault::NotFound => format!("give the rule {rule} the ARN of a secret that exists"),
                CredentialFault::NotAccessible => {
                    "let the service read it: check the secret's resource policy and the service-linked role of ECR".into()
                }
                CredentialFault::NotDecryptable => "let the service use the secret's KMS key: check the key policy".into(),
                CredentialFault::Refused(_) => format!(
                    "check user name and access token in the secret of the rule {rule}, and validate the rule again"
                ),
            },
            Self::UpstreamNotFound => "check the name, and the tag or digest, at the upstream".into(),
            Self::UpstreamDenied => {
                "check the name; the image may be private, and the rule's credentials (where it has some) must be allowed \
                 to read it"
                    .into()
            }
            Self::UpstreamRateLimited { .. } => {
                "wait; a rule with credentials of a paid plan has a higher limit at most upstreams".into()
            }
            Self::UpstreamUnavailable { .. } => {
                "try again later: the cache serves what it has meanwhile; a first pull needs a route to the upstream".into()
            }
            Self::MissingPermission { actions } => format!(
                "allow the caller {}, in its own policy or the registry's",
                actions.join(" and ")
            ),
            Self::NotThere { repository_exists } => format!(
                "check that the upstream has it, and that the caller may ecr:BatchImportUpstreamImage{}: their absence \
                 looks the same; a digest may have to be pulled by its tag first",
                if *repository_exists { "" } else { " and ecr:CreateRepository" }
            ),
            Self::NotACache => "create a rule for its prefix, or push the image there".into(),
            Self::HalfFilled { .. } => {
                "try again, the cache asks the upstream for each part; if that does not help, the upstream lacks it".into()
            }
            Self::StaleTag { .. } => "the cache looks again after 24 hours, unless the tag is immutable there; take it by \
                                      digest to get this one now"
                .into(),
            Self::Mismatch { .. } => "somebody pushed into the cache's repository, or the upstream has deleted the old \
                                      image: take it by digest, and delete the cached tag"
                .into(),
            Self::UpstreamRemoved { .. } => "take the cached one by digest, if it is still wanted".into(),
        }
    }

    /// The error, which keeps what it was found by as its cause.
    pub(super) fn error(
        self,
        attempted: &'static str,
        subject: impl fmt::Display,
        cause: Option<Error>,
    ) -> Error {
        let error = Error::new(self.kind(), SERVICE, attempted, subject)
            .because(&self)
            .advise(self.advice());
        let error = match &self {
            Self::UpstreamRateLimited {
                retry_after: Some(pause),
            } => error.retrying(Retry::After(*pause)),
            _ => error,
        };
        error.caused_by(Because { problem: self, cause })
    }
}

impl fmt::Display for CacheProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingRule { upstream } => write!(f, "no pull-through cache rule is for {upstream}"),
            Self::Credential { rule, fault } => {
                write!(
                    f,
                    "the cache cannot authenticate at the upstream by the rule {rule}: "
                )?;
                match fault {
                    CredentialFault::NotFound => f.write_str("its secret does not exist"),
                    CredentialFault::NotAccessible => f.write_str("its secret cannot be read"),
                    CredentialFault::NotDecryptable => f.write_str("its secret cannot be decrypted"),
                    CredentialFault::Refused(words) => f.write_str(words),
                }
            }
            Self::UpstreamNotFound => f.write_str("the upstream has no such image"),
            Self::UpstreamDenied => f.write_str("the upstream refuses the cache this image"),
            Self::UpstreamRateLimited { retry_after } => {
                f.write_str("the upstream asks the cache for fewer requests")?;
                match retry_after {
                    Some(pause) => write!(f, ", for {} seconds", pause.as_secs()),
                    None => Ok(()),
                }
            }
            Self::UpstreamUnavailable { detail } => {
                f.write_str("the cache does not reach the upstream")?;
                match detail.is_empty() {
                    true => Ok(()),
                    false => write!(f, ": {detail}"),
                }
            }
            Self::MissingPermission { actions } => write!(
                f,
                "the upstream has it, and the caller may not {}",
                actions.join(" or ")
            ),
            Self::NotThere { .. } => {
                f.write_str("the cache has no such image, and did not get it from the upstream")
            }
            Self::NotACache => {
                f.write_str("the repository exists, and no pull-through cache rule is about it")
            }
            Self::HalfFilled { missing } => {
                let list: Vec<&str> = missing.iter().take(5).map(Digest::as_str).collect();
                write!(
                    f,
                    "{} of its parts did not come: {}",
                    missing.len(),
                    list.join(", ")
                )?;
                match missing.len() > list.len() {
                    true => f.write_str(", …"),
                    false => Ok(()),
                }
            }
            Self::StaleTag { cached, upstream } => {
                write!(f, "the upstream has {upstream}, the cache still {cached}")
            }
            Self::Mismatch { cached, upstream } => {
                write!(
                    f,
                    "the upstream has {upstream}, the cache {cached}, which the upstream does not know"
                )
            }
            Self::UpstreamRemoved { cached } => {
                write!(f, "the upstream no longer has it; the cache still has {cached}")
            }
        }
    }
}

/// A problem as the cause of an error, and what it was found by.
#[derive(Debug)]
struct Because {
    problem: CacheProblem,
    cause: Option<Error>,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl StdError for Because {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
