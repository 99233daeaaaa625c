//! Finding out why the cache has no image. The registry's protocol answers 404 to a missing image, rule and permission
//! alike; the API has words for what the upstream said, the service tries credentials itself, and the upstream can be
//! asked (*Amazon ECR User Guide*, "Troubleshooting pull through cache issues"; `ImageFailureCode`).

use super::problem::{CacheProblem, CredentialFault};
use super::rule::CacheRule;
use super::upstream::host_of;
use super::wanted::RuleValidity;
use crate::client::{Ecr, image_id};
use crate::error::failed;
use aws_sdk_ecr::types::ImageFailureCode;
use towpath_core::ImageRef;
use towpath_elements::{Error, ErrorKind, Result};

const IMPORT: &str = "ecr:BatchImportUpstreamImage";
const CREATE: &str = "ecr:CreateRepository";

/// An image on both sides of the cache.
#[derive(Debug)]
pub(super) struct Behind {
    pub(super) rule: CacheRule,
    pub(super) upstream: ImageRef,
    pub(super) cached: ImageRef,
    /// Whether the upstream may be asked.
    pub(super) ask: bool,
}

/// What the API says of an image.
enum Told {
    There,
    Absent {
        repository_exists: bool,
    },
    Denied,
    RateLimited,
    Unavailable(String),
    /// The service did not get it, and says so in prose only.
    NotGot(String),
}

impl Told {
    /// Reads what the service has no code for. Prose may change; what it does not say is left open.
    fn by_words(prose: &str) -> Self {
        let lower = prose.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        if has(&[
            "throttl",
            "too many requests",
            "toomanyrequests",
            "rate exceeded",
            "rate limit",
        ]) {
            Self::RateLimited
        } else if has(&["denied", "authenticat", "unauthorized", "secret", "credential"]) {
            Self::Denied
        } else if has(&["not found", "does not exist"]) {
            Self::Absent {
                repository_exists: false,
            }
        } else {
            Self::NotGot(prose.to_owned())
        }
    }
}

impl Ecr {
    /// Why an image cannot be had through the cache, or `None` where it can. It may be given by its name at the upstream
    /// or behind the cache. Asking brings the image in, where nothing is in the way.
    ///
    /// The upstream itself is asked too, where the configuration says how it is reached.
    ///
    /// # Errors
    /// What kept the service from answering: that the caller may not ask it, or that it cannot be reached.
    pub async fn cache_problem(&self, image: &ImageRef) -> Result<Option<CacheProblem>> {
        let own = *image.registry() == self.registry().await?;
        let upstream = match own {
            false => image.clone(),
            true => match self.upstream_of(image).await? {
                Some(upstream) => upstream,
                None => return self.ruleless(image).await.map(Some),
            },
        };
        let (rule, cached) = match self.cached_name(&upstream).await {
            Ok(found) => found,
            Err(error) => return CacheProblem::of(&error).cloned().map(Some).ok_or(error),
        };
        let behind = Behind {
            ask: self.reaches(&upstream),
            rule,
            upstream,
            cached: if own { image.clone() } else { cached },
        };
        self.problem(&behind, None).await
    }

    async fn ruleless(&self, image: &ImageRef) -> Result<CacheProblem> {
        Ok(match self.repository(image.repository()).await? {
            Some(_) => CacheProblem::NotACache,
            None => CacheProblem::NotThere {
                repository_exists: false,
            },
        })
    }

    /// Whether the configuration says how the upstream of an image is reached.
    pub(super) fn reaches(&self, upstream: &ImageRef) -> bool {
        self.upstreams
            .settings()
            .endpoints
            .contains_key(upstream.registry())
    }

    /// The error to what the registry answered: nothing, or `seen`.
    pub(super) async fn explain(
        &self,
        behind: &Behind,
        attempted: &'static str,
        seen: Option<Error>,
    ) -> Error {
        let telling = seen.as_ref().is_none_or(|seen| {
            matches!(
                seen.kind(),
                ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::RateLimited | ErrorKind::Unavailable
            ) && CacheProblem::of(seen).is_none()
        });
        let found = match telling {
            true => self.problem(behind, seen.as_ref()).await,
            false => Ok(None),
        };
        match (found, seen) {
            (Ok(Some(problem)), seen) => problem.error(attempted, &behind.upstream, seen),
            (Ok(None) | Err(_), Some(seen)) => seen,
            (Err(error), None) => error,
            (Ok(None), None) => CacheProblem::NotThere {
                repository_exists: true,
            }
            .error(attempted, &behind.upstream, None),
        }
    }

    async fn problem(&self, behind: &Behind, seen: Option<&Error>) -> Result<Option<CacheProblem>> {
        let retry_after = seen.and_then(Error::retry_after);
        let problem = match self.told(&behind.cached).await? {
            Told::There => return Ok(None),
            Told::RateLimited => CacheProblem::UpstreamRateLimited { retry_after },
            Told::Unavailable(detail) => CacheProblem::UpstreamUnavailable { detail },
            Told::Denied => match self.credential_fault(&behind.rule).await {
                Some(problem) => problem,
                None => CacheProblem::UpstreamDenied,
            },
            Told::NotGot(detail) => match self.credential_fault(&behind.rule).await {
                Some(problem) => problem,
                // The registry's status says what the prose hides.
                None => match seen.map(Error::kind) {
                    Some(ErrorKind::RateLimited) => CacheProblem::UpstreamRateLimited { retry_after },
                    Some(ErrorKind::Denied) => CacheProblem::UpstreamDenied,
                    _ => CacheProblem::UpstreamUnavailable { detail },
                },
            },
            Told::Absent { repository_exists } => match seen.map(Error::kind) {
                Some(ErrorKind::RateLimited | ErrorKind::Unavailable) => return Ok(None),
                _ => match self.credential_fault(&behind.rule).await {
                    Some(problem) => problem,
                    None => self.absent(behind, repository_exists).await,
                },
            },
        };
        Ok(Some(problem))
    }

    async fn told(&self, cached: &ImageRef) -> Result<Told> {
        let call = self
            .api
            .batch_get_image()
            .set_registry_id(Self::account(cached).map(|account| account.to_string()))
            .repository_name(cached.repository().as_str())
            .image_ids(image_id(cached));
        let output = match call.send().await {
            Ok(output) => output,
            Err(error) => {
                let failed = failed("read through the cache", cached, error);
                return match failed.code.as_str() {
                    "RepositoryNotFoundException" => Ok(Told::Absent {
                        repository_exists: false,
                    }),
                    "UnableToGetUpstreamImageException" => Ok(Told::by_words(failed.error.detail())),
                    _ => Err(failed.error),
                };
            }
        };
        if !output.images.unwrap_or_default().is_empty() {
            return Ok(Told::There);
        }
        let failure = output.failures.unwrap_or_default().into_iter().next();
        let reason = failure
            .as_ref()
            .and_then(|failure| failure.failure_reason().map(str::to_owned))
            .unwrap_or_default();
        Ok(match failure.and_then(|failure| failure.failure_code) {
            Some(ImageFailureCode::UpstreamAccessDenied) => Told::Denied,
            Some(ImageFailureCode::UpstreamTooManyRequests) => Told::RateLimited,
            Some(ImageFailureCode::UpstreamUnavailable) => Told::Unavailable(reason),
            Some(ImageFailureCode::ImageNotFound) | None => Told::Absent {
                repository_exists: true,
            },
            Some(other) => Told::NotGot(format!("{}: {reason}", other.as_str())),
        })
    }

    /// What the service finds wrong with the credentials of a rule that has to have some.
    async fn credential_fault(&self, rule: &CacheRule) -> Option<CacheProblem> {
        if !rule.authenticates() {
            return None;
        }
        // Who may not validate rules learns less, and that is no failure of what was asked.
        match self.validate_cache_rule(rule.name()).await.ok()? {
            RuleValidity::Valid => None,
            RuleValidity::Invalid(words) => Some(CacheProblem::Credential {
                rule: rule.name().to_owned(),
                fault: CredentialFault::Refused(words),
            }),
        }
    }

    /// Nobody has it, or nobody may bring it: the upstream knows which.
    async fn absent(&self, behind: &Behind, repository_exists: bool) -> CacheProblem {
        let unknown = CacheProblem::NotThere { repository_exists };
        if !behind.ask {
            return unknown;
        }
        match self.upstreams.manifest_digest(&behind.upstream).await {
            // A digest that the upstream has may also be one that the service does not bring in without its tag.
            Ok(Some(_)) if behind.cached.digest().is_some() => unknown,
            Ok(Some(_)) => CacheProblem::MissingPermission {
                actions: match repository_exists {
                    true => vec![IMPORT],
                    false => vec![IMPORT, CREATE],
                },
            },
            Ok(None) => CacheProblem::UpstreamNotFound,
            // An upstream may refuse us and not the cache, or hide what is missing.
            Err(_) => unknown,
        }
    }
}

/// The upstream image by the name that references use for its registry.
pub(super) fn usual_name(upstream: &ImageRef) -> Result<ImageRef> {
    let host = host_of(upstream.registry().as_str())?;
    Ok(upstream.renamed(host, upstream.repository().clone()))
}
