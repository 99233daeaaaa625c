//! Lifecycle policies, and what they would do (*Amazon ECR User Guide*, "Lifecycle policy properties"; *API Reference*,
//! `PutLifecyclePolicy`, `StartLifecyclePolicyPreview`).

use crate::client::Ecr;
use crate::error::{SERVICE, failed};
use crate::images::{digest, timestamp};
use crate::lifecycle_rules::{LifecycleAction, LifecycleRule, read, write};
use crate::pages::{Page, items};
use crate::waiting::settle;
use aws_sdk_ecr::types::LifecyclePolicyPreviewResult;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;
use towpath_core::wait::{self, Judgement};
use towpath_core::{Cancellation, Deadline, Digest, RepositoryName, Retry};
use towpath_elements::{Error, ErrorKind, Result};

const RESULTS_A_PAGE: i32 = 100;

/// A lifecycle policy: its text as it was written, which is what the service keeps.
///
/// ```
/// use towpath_ecr::{LifecyclePolicy, LifecycleRule};
/// let policy = LifecyclePolicy::new(vec![
///     LifecycleRule::untagged(1).expire_after_days(14),
///     LifecycleRule::tag_patterns(2, ["release-*"]).expire_beyond(50).described("fifty releases are kept"),
///     LifecycleRule::any(3).archive_when_not_pulled_for_days(90),
/// ])?;
/// assert_eq!(policy.rules()?.len(), 3);
/// # Ok::<(), towpath_ecr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifecyclePolicy {
    text: String,
}

/// The policy of a repository, and when it was last carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredLifecyclePolicy {
    /// The policy.
    pub policy: LifecyclePolicy,
    /// When the service last went by it; `None` where it has not yet.
    pub evaluated: Option<Timestamp>,
}

/// What a policy would do to the images that were there when the preview was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LifecyclePreview {
    /// The repository.
    pub repository: RepositoryName,
    /// The policy that was tried.
    pub policy: LifecyclePolicy,
    /// The policy that the repository had before the preview.
    pub replaces: Option<LifecyclePolicy>,
    /// The images that a rule applies to. All others stay as they are.
    pub images: Vec<LifecycleMatch>,
}

/// An image that a rule applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LifecycleMatch {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it was pushed.
    pub pushed: Option<Timestamp>,
    /// The priority of the rule.
    pub priority: Option<u32>,
    /// What is done to it.
    pub action: LifecycleAction,
}

impl LifecyclePolicy {
    /// A policy of these rules.
    ///
    /// # Errors
    /// *Invalid* where the service would refuse it: no rules or more than 50, a priority that is 0 or given twice, a
    /// rule about any image that is not the last, two about untagged images, a rule about no tags or with a pattern of
    /// more than four wildcards, a count of 0, fewer than 90 days in the archive, a text of more than 30,720 characters.
    pub fn new(rules: Vec<LifecycleRule>) -> Result<Self> {
        let text = write(&rules)?;
        text.parse()
    }

    /// A policy that is text already, checked as [`new`](Self::new) does, and kept as it is.
    ///
    /// # Errors
    /// *Invalid* where it is no JSON of the user guide's form, or where the service would refuse it.
    pub fn from_json(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        read(&text)?;
        Ok(Self { text })
    }

    /// What the service keeps: nothing that this version does not know is in its way.
    pub(crate) fn stored(text: Option<String>) -> Self {
        Self {
            text: text.unwrap_or_default(),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The rules, by ascending priority.
    ///
    /// # Errors
    /// *Invalid* where a stored policy has something that this version does not know.
    pub fn rules(&self) -> Result<Vec<LifecycleRule>> {
        read(&self.text)
    }
}

impl FromStr for LifecyclePolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::from_json(text)
    }
}

impl fmt::Display for LifecyclePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl LifecyclePreview {
    /// The images that would be deleted.
    pub fn expiring(&self) -> impl Iterator<Item = &LifecycleMatch> {
        let images = self.images.iter();
        images.filter(|image| image.action == LifecycleAction::Expire)
    }
}

impl Ecr {
    /// The lifecycle policy of a repository; `None` where it has none.
    ///
    /// # Errors
    /// What the service says to `GetLifecyclePolicy`.
    pub async fn lifecycle_policy(
        &self,
        repository: &RepositoryName,
    ) -> Result<Option<StoredLifecyclePolicy>> {
        let call = self
            .api
            .get_lifecycle_policy()
            .repository_name(repository.as_str());
        match call.send().await {
            Ok(output) => Ok(Some(StoredLifecyclePolicy {
                policy: LifecyclePolicy::stored(output.lifecycle_policy_text),
                evaluated: timestamp(output.last_evaluated_at),
            })),
            Err(error) => {
                let failed = failed("read the lifecycle policy of", repository, error);
                match failed.code.as_str() {
                    "LifecyclePolicyNotFoundException" => Ok(None),
                    _ => Err(failed.error),
                }
            }
        }
    }

    /// Gives a repository a lifecycle policy. Images go within 24 hours; look with
    /// [`preview_lifecycle`](Self::preview_lifecycle) first, and [`apply_preview`](Self::apply_preview) it.
    ///
    /// # Errors
    /// What the service says to `PutLifecyclePolicy`.
    pub async fn put_lifecycle_policy(
        &self,
        repository: &RepositoryName,
        policy: &LifecyclePolicy,
    ) -> Result<()> {
        let call = self
            .api
            .put_lifecycle_policy()
            .repository_name(repository.as_str())
            .lifecycle_policy_text(policy.as_str());
        let put = call.send().await;
        put.map(drop)
            .map_err(|error| failed("set the lifecycle policy of", repository, error).error)
    }

    /// Takes the lifecycle policy away. Returns what it was; `None` where there was none.
    ///
    /// # Errors
    /// What the service says to `DeleteLifecyclePolicy`.
    pub async fn delete_lifecycle_policy(
        &self,
        repository: &RepositoryName,
    ) -> Result<Option<LifecyclePolicy>> {
        let call = self
            .api
            .delete_lifecycle_policy()
            .repository_name(repository.as_str());
        match call.send().await {
            Ok(output) => Ok(Some(LifecyclePolicy::stored(output.lifecycle_policy_text))),
            Err(error) => {
                let failed = failed("delete the lifecycle policy of", repository, error);
                match failed.code.as_str() {
                    "LifecyclePolicyNotFoundException" => Ok(None),
                    _ => Err(failed.error),
                }
            }
        }
    }

    /// Asks the service what a policy, or else the one that the repository has, would do now. Nothing is changed.
    ///
    /// A preview that somebody else has started is waited for, within the same time.
    ///
    /// # Errors
    /// *Conflict* where the preview failed, or somebody else's came in between; *not found* where neither a policy is
    /// given nor the repository has one; *timed out*; *cancelled*; what the service says to
    /// `StartLifecyclePolicyPreview` and `GetLifecyclePolicyPreview`.
    pub async fn preview_lifecycle(
        &self,
        repository: &RepositoryName,
        policy: Option<&LifecyclePolicy>,
        wait: &wait::Policy,
        cancellation: &Cancellation,
    ) -> Result<LifecyclePreview> {
        const ATTEMPTED: &str = "preview the lifecycle policy of";
        let deadline = Deadline::after(wait.limit());
        let stored = self.lifecycle_policy(repository).await?;
        let replaces = stored.map(|stored| stored.policy);
        let start = || async {
            let call = self
                .api
                .start_lifecycle_policy_preview()
                .repository_name(repository.as_str())
                .set_lifecycle_policy_text(policy.map(ToString::to_string));
            match call.send().await {
                Ok(output) => Ok(LifecyclePolicy::stored(output.lifecycle_policy_text)),
                Err(error) => {
                    let failed = failed(ATTEMPTED, repository, error);
                    Err(match failed.code.as_str() {
                        "LifecyclePolicyPreviewInProgressException" => {
                            Error::new(ErrorKind::Conflict, SERVICE, ATTEMPTED, repository)
                                .because("another preview is under way")
                                .retrying(Retry::Later)
                        }
                        _ => failed.error,
                    })
                }
            }
        };
        let started = wait::until(wait, cancellation, start, Error::retry, |_| Judgement::Met).await;
        let tried = settle(started, ATTEMPTED, repository.as_str())?;
        let look = || async {
            let call = self
                .api
                .get_lifecycle_policy_preview()
                .repository_name(repository.as_str())
                .max_results(1);
            let seen = call.send().await;
            let seen = seen.map_err(|error| failed(ATTEMPTED, repository, error).error)?;
            let status = seen.status.map(|status| status.as_str().to_owned());
            Ok((status.unwrap_or_default(), seen.lifecycle_policy_text))
        };
        let rest = wait.clone().within(deadline.remaining());
        let ended = wait::until(
            &rest,
            cancellation,
            look,
            Error::retry,
            |(status, text)| match status.as_str() {
                _ if text.as_deref() != Some(tried.as_str()) => {
                    Judgement::failed("somebody else has started a preview of another policy")
                }
                "COMPLETE" => Judgement::Met,
                "IN_PROGRESS" => Judgement::pending("the preview to be complete"),
                "EXPIRED" => Judgement::failed("the preview has expired before it was read: start it again"),
                "FAILED" => Judgement::failed("the service could not evaluate the policy"),
                other => Judgement::pending(format!("the preview to be complete (it is {other})")),
            },
        )
        .await;
        settle(ended, ATTEMPTED, repository.as_str())?;
        Ok(LifecyclePreview {
            repository: repository.clone(),
            images: self.previewed(repository, &tried).await?,
            policy: tried,
            replaces,
        })
    }

    async fn previewed(
        &self,
        repository: &RepositoryName,
        tried: &LifecyclePolicy,
    ) -> Result<Vec<LifecycleMatch>> {
        const ATTEMPTED: &str = "read the lifecycle preview of";
        let (api, repository, tried) = (self.api.clone(), repository.clone(), tried.clone());
        let results = items(ATTEMPTED, repository.clone(), move |token| {
            let (repository, tried) = (repository.clone(), tried.clone());
            let call = api
                .get_lifecycle_policy_preview()
                .repository_name(repository.as_str())
                .max_results(RESULTS_A_PAGE)
                .set_next_token(token);
            async move {
                let page = call.send().await;
                let page = page.map_err(|error| failed(ATTEMPTED, &repository, error).error)?;
                if page.lifecycle_policy_text.as_deref() != Some(tried.as_str()) {
                    let changed = Error::new(ErrorKind::Conflict, SERVICE, ATTEMPTED, &repository);
                    return Err(changed.because("somebody else has started a preview of another policy"));
                }
                let results = page.preview_results.unwrap_or_default().into_iter();
                Ok(Page {
                    items: results.map(LifecycleMatch::read).collect::<Result<_>>()?,
                    next: page.next_token,
                })
            }
        });
        results.try_collect().await
    }

    /// Gives the repository the policy that was previewed, if it still has the one that it had then.
    ///
    /// The service has no condition on this: between the look and the change somebody could still come in. What is
    /// pushed or grows old after the preview is in the policy's hands, too.
    ///
    /// # Errors
    /// *Conflict* where the repository has another policy by now; what the service says to `GetLifecyclePolicy` and
    /// `PutLifecyclePolicy`.
    pub async fn apply_preview(&self, preview: &LifecyclePreview) -> Result<()> {
        let repository = &preview.repository;
        let stored = self.lifecycle_policy(repository).await?;
        let current = stored.map(|stored| stored.policy);
        if current.as_ref() == Some(&preview.policy) {
            return Ok(());
        }
        if current != preview.replaces {
            return Err(Error::new(
                ErrorKind::Conflict,
                SERVICE,
                "apply the previewed lifecycle policy to",
                repository,
            )
            .because("its policy has changed since the preview")
            .advise("preview again, and look at what would go"));
        }
        self.put_lifecycle_policy(repository, &preview.policy).await
    }
}

impl LifecycleMatch {
    fn read(result: LifecyclePolicyPreviewResult) -> Result<Self> {
        let action = result.action.as_ref();
        let word = action
            .and_then(|action| action.r#type())
            .map(|kind| kind.as_str());
        Ok(Self {
            digest: digest(result.image_digest)?,
            tags: result.image_tags.unwrap_or_default(),
            pushed: timestamp(result.image_pushed_at),
            priority: result
                .applied_rule_priority
                .and_then(|priority| u32::try_from(priority).ok()),
            action: LifecycleAction::read(word.unwrap_or_default()),
        })
    }
}
