//! Step 6: the new digest goes into the deployment repository, by compare-and-swap.

use super::promotion::{Edit, HOLD_RELEASED, IMAGE, IMAGE_DIGEST, SOURCE_COMMIT, Standing};
use super::{Deployment, Promotion};
use crate::effect::evidence;
use crate::{Effect, Elements, Evidence};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use towpath_core::{CommitSha, ImageRef, RepoSlug};
use towpath_elements::{ErrorKind, Result, Source};

/// Puts an image, pinned by digest, into a deployment file. It never puts an older build over a newer one, and no build
/// over one that a rollback has put on hold.
///
/// While the newest promotion of the image has the trailer `Hold`, as [`RollBack`](super::RollBack) gives it, another
/// build is refused as a *conflict* that says since which commit and why. [`release_hold`](Self::release_hold) ends the
/// hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBack {
    /// Where it goes.
    pub deployment: Deployment,
    /// The image, with its digest and, for people, its tag.
    pub image: ImageRef,
    /// The repository the image was built from.
    pub source: RepoSlug,
    /// The commit the image was built from.
    pub commit: CommitSha,
    /// Why a hold may end, in one line. Where the image is on hold, this build is promoted nevertheless, with the trailer
    /// `Hold-Released`; where it is not, this says nothing. A hold stays where the build stands already, because nothing
    /// is written then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_hold: Option<String>,
}

/// How a write-back ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenBack {
    /// The deployment repository has the image since this commit.
    Promoted(CommitSha),
    /// The deployment repository has a newer build, promoted by this commit; nothing was written.
    Newer(CommitSha),
}

impl WrittenBack {
    /// The commit of the deployment repository that counts.
    pub fn commit(&self) -> &CommitSha {
        match self {
            Self::Promoted(commit) | Self::Newer(commit) => commit,
        }
    }
}

/// What the world says of a write-back.
enum Judged {
    /// Done, or overtaken.
    Settled(WrittenBack),
    /// Still to do; with whether a hold ends by it.
    ToDo { standing: Standing, was_held: bool },
}

impl WriteBack {
    fn edit(&self) -> Edit<'_> {
        Edit {
            deployment: &self.deployment,
            image: &self.image,
            attempted: "write the image into",
        }
    }

    async fn judge(&self, source: &dyn Source) -> Result<Judged> {
        if let Some(reason) = &self.release_hold {
            self.edit().check_reason(reason)?;
        }
        let standing = self.edit().read(source).await?;
        let promoted_by = self.deployment.promotions(source, &self.image).try_next().await?;
        if standing.images.iter().all(|image| *image == self.image) {
            let promoted = promoted_by.map_or(standing.head, |promotion| promotion.commit);
            return Ok(Judged::Settled(WrittenBack::Promoted(promoted)));
        }
        let Some(promotion) = promoted_by else {
            return Ok(Judged::ToDo {
                standing,
                was_held: false,
            });
        };
        if let Some(reason) = &promotion.hold
            && self.release_hold.is_none()
        {
            return self.keep_hold(&standing, &promotion, reason);
        }
        if let Some(built_from) = &promotion.source_commit
            && *built_from != self.commit
            && source
                .ancestry(&self.source, &self.commit, built_from)
                .await?
                .contains_base()
        {
            return Ok(Judged::Settled(WrittenBack::Newer(promotion.commit)));
        }
        Ok(Judged::ToDo {
            standing,
            was_held: promotion.hold.is_some(),
        })
    }

    /// A hold is no obstacle to the very build that stands under it.
    fn keep_hold(&self, standing: &Standing, holder: &Promotion, reason: &str) -> Result<Judged> {
        if self.image.digest().is_some_and(|digest| standing.has(digest)) {
            return Ok(Judged::Settled(WrittenBack::Promoted(holder.commit.clone())));
        }
        let since = match &holder.undoes {
            Some(undone) => format!("commit {}, which rolled back {}", holder.commit, undone.short()),
            None => format!("commit {}", holder.commit),
        };
        Err(self
            .edit()
            .error(ErrorKind::Conflict)
            .because(format!(
                "{} is on hold since {since}: {reason}",
                self.image.name()
            ))
            .advise("once the reason is gone, promote it again with release_hold and a reason for that"))
    }

    fn message(&self, was_held: bool) -> Result<String> {
        let digest = self.image.digest().ok_or_else(|| {
            self.edit()
                .error(ErrorKind::Invalid)
                .because("the image has no digest")
                .advise("resolve its tag first")
        })?;
        let mut message = format!(
            "Promote {} built from {}\n\n{SOURCE_COMMIT}: {}\n{IMAGE}: {}\n{IMAGE_DIGEST}: {digest}\n",
            self.image.repository(),
            self.commit.short(),
            self.commit,
            self.image.name(),
        );
        if let Some(reason) = self.release_hold.as_deref().filter(|_| was_held) {
            message.push_str(&format!("{HOLD_RELEASED}: {}\n", reason.trim()));
        }
        Ok(message)
    }

    /// Makes the edit on the present head; `None` where somebody else was quicker.
    async fn attempt(&self, source: &dyn Source) -> Result<Option<WrittenBack>> {
        let (standing, was_held) = match self.judge(source).await? {
            Judged::Settled(written) => return Ok(Some(written)),
            Judged::ToDo { standing, was_held } => (standing, was_held),
        };
        let message = self.message(was_held)?;
        let commit = self.edit().write(source, &standing, &self.image, message).await?;
        Ok(commit.map(WrittenBack::Promoted))
    }
}

#[async_trait]
impl Effect for WriteBack {
    const NAME: &'static str = "source.write_back";
    type Output = WrittenBack;

    fn title(&self) -> String {
        format!(
            "promote {} in {}",
            self.image.repository(),
            self.deployment.repository
        )
    }

    fn evidence(&self, written: &WrittenBack) -> Evidence {
        match written {
            WrittenBack::Promoted(commit) => evidence([("deployment commit", commit.to_string())]),
            WrittenBack::Newer(commit) => evidence([(
                "deployment commit",
                format!("{commit} (a newer build, left alone)"),
            )]),
        }
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<WrittenBack>> {
        match self.judge(elements.source()?.as_ref()).await? {
            Judged::Settled(written) => Ok(Some(written)),
            Judged::ToDo { .. } => Ok(None),
        }
    }

    async fn apply(&self, elements: &Elements) -> Result<WrittenBack> {
        let source = elements.source()?.as_ref();
        self.edit().settle(elements, || self.attempt(source)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn journals_from_before_holds_are_read_and_matched() {
        let before = json!({
            "deployment": {"repository": "acme/deployments", "branch": "main", "file": "web.yaml"},
            "image": "quay.io/acme/web:1",
            "source": "acme/web",
            "commit": "1".repeat(40),
        });
        let effect: WriteBack = serde_json::from_value(before.clone()).unwrap();
        assert_eq!(effect.release_hold, None);
        assert_eq!(serde_json::to_value(effect).unwrap(), before);
    }
}
