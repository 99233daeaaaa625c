//! Back from a bad promotion: an earlier image goes into the deployment repository again, and is put on hold there.

use super::promotion::{Edit, HISTORY, HOLD, IMAGE, IMAGE_DIGEST, ROLLED_BACK, SOURCE_COMMIT, Standing};
use super::{Deployment, Promotion};
use crate::effect::evidence;
use crate::{Effect, Elements, Evidence, manifest};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use towpath_core::{CommitSha, ImageRef};
use towpath_elements::{Error, ErrorKind, Result, Source};

/// Brings the image of one repository in a deployment file back to what an earlier promotion had, by a new commit, and
/// puts it on hold.
///
/// Only this image's references go back, to the very text that the earlier promotion had there. Other services in the
/// same file, and every other edit since, stay as they are. The commit has the trailers of a promotion, and beside them
/// `Rolled-Back`, the commit of the promotion that it undoes, and `Hold`, the reason: from then on
/// [`WriteBack`](super::WriteBack) refuses other builds until one of them releases the hold.
///
/// It names the promotion that it undoes, so that it is the same rollback however often it is run: one that has been made
/// is found and not made again, and nothing is written where another promotion stands by now. A second step back is
/// another rollback, one that undoes the first one's commit.
///
/// ```
/// # use futures_util::TryStreamExt;
/// # use towpath_core::ImageRef;
/// # use towpath_elements::Result;
/// use towpath_flow::effects::{Deployment, RollBack, To};
/// use towpath_flow::{Effect, Elements};
/// # async fn example(elements: &Elements, deployment: Deployment, image: ImageRef) -> Result<()> {
/// let source = elements.source()?;
/// let Some(bad) = deployment.promotions(source.as_ref(), &image).try_next().await? else {
///     return Ok(());
/// };
/// let roll_back = RollBack {
///     deployment,
///     image,
///     undo: bad.commit,
///     to: To::Previous,
///     reason: "orders are charged twice".into(),
/// };
/// let rolled_back = match roll_back.observe(elements).await? {
///     Some(done) => done,
///     None => roll_back.apply(elements).await?,
/// };
/// println!("{} since {}", rolled_back.image, rolled_back.commit);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollBack {
    /// Where the image is.
    pub deployment: Deployment,
    /// The image. Its registry and its repository count, its tag and its digest do not.
    pub image: ImageRef,
    /// The promotion to undo, by its commit in the deployment repository:
    /// [`WrittenBack::commit`](super::WrittenBack::commit), or the first of [`Deployment::promotions`].
    pub undo: CommitSha,
    /// What to go back to.
    pub to: To,
    /// Why, in one line. It is the reason of the hold.
    pub reason: String,
}

/// What a rollback goes back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// What stood before the promotion that is undone. Where that is a rollback itself, it is what stood before the
    /// promotion whose image the rollback brought back: undoing twice goes two builds back, never to the build that was
    /// undone.
    Previous,
    /// What the promotion by this commit of the deployment repository had.
    Commit(CommitSha),
}

/// A rollback that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The commit of the deployment repository that rolled back.
    pub commit: CommitSha,
    /// The promotion that it undid.
    pub undone: CommitSha,
    /// The image that stands since, with its digest.
    pub image: ImageRef,
}

/// What the world says of a rollback.
enum Judged {
    Done(RolledBack),
    ToDo {
        standing: Standing,
        goal: Promotion,
    },
    /// Somebody pushed between two looks, so that they do not fit together.
    Moved,
}

impl RollBack {
    fn edit(&self) -> Edit<'_> {
        Edit {
            deployment: &self.deployment,
            image: &self.image,
            attempted: "roll back the image in",
        }
    }

    fn conflict(&self, why: String) -> Error {
        self.edit()
            .error(ErrorKind::Conflict)
            .because(why)
            .advise("look at what stands now and decide anew; nothing was written")
    }

    async fn judge(&self, source: &dyn Source) -> Result<Judged> {
        self.edit().check_reason(&self.reason)?;
        if self.to == To::Commit(self.undo.clone()) {
            return Err(self
                .edit()
                .error(ErrorKind::Invalid)
                .because("the promotion to undo is also the one to go back to"));
        }
        let standing = self.edit().read(source).await?;
        let (stands, goal) = self.find(source).await?;
        if let Some(digest) = &stands.digest
            && !standing.has(digest)
        {
            // The file and its history were read one after the other.
            let head = source
                .head(&self.deployment.repository, &self.deployment.branch)
                .await?;
            if head.as_ref() != Some(&standing.head) {
                return Ok(Judged::Moved);
            }
            let images: Vec<_> = standing.images.iter().map(ImageRef::to_string).collect();
            return Err(self.conflict(format!(
                "{} put {digest} there, and the file has {}: it was edited by other means since",
                stands.commit,
                images.join(", ")
            )));
        }
        if stands.commit == self.undo {
            return Ok(Judged::ToDo { standing, goal });
        }
        match standing.images.into_iter().next() {
            Some(image) if stands.digest.is_some() && stands.digest == goal.digest => {
                Ok(Judged::Done(RolledBack {
                    commit: stands.commit,
                    undone: self.undo.clone(),
                    image,
                }))
            }
            _ => Err(self.conflict(format!(
                "{} rolled it back already, to another build than that of {}",
                stands.commit, goal.commit
            ))),
        }
    }

    /// The promotion that stands, which is the one to undo or undid it, and the one to go back to. No more of the history
    /// is read than that takes.
    async fn find(&self, source: &dyn Source) -> Result<(Promotion, Promotion)> {
        let mut history = self.deployment.promotions(source, &self.image);
        let mut seen: Vec<Promotion> = Vec::new();
        while let Some(promotion) = history.try_next().await? {
            seen.push(promotion);
            let stands = &seen[0];
            if stands.commit != self.undo && stands.undoes.as_ref() != Some(&self.undo) {
                return Err(self.conflict(format!(
                    "the promotion {} no longer stands: {} came after it",
                    self.undo, stands.commit
                )));
            }
            let undone = seen.iter().position(|promotion| promotion.commit == self.undo);
            if let Some(goal) = undone.and_then(|undone| self.goal(&seen[undone..])) {
                return Ok((stands.clone(), goal.clone()));
            }
        }
        let missing = match &self.to {
            _ if seen.is_empty() => "there is no promotion of it".to_owned(),
            To::Previous => format!("there is no promotion before {}", self.undo),
            To::Commit(commit) => format!("{commit} is no promotion of it before {}", self.undo),
        };
        Err(self
            .edit()
            .error(ErrorKind::NotFound)
            .because(format!("{missing} in the last {HISTORY} commits of the file"))
            .advise("promote the build that is wanted instead"))
    }

    fn goal<'a>(&self, stood: &'a [Promotion]) -> Option<&'a Promotion> {
        match &self.to {
            To::Previous => previous(stood),
            To::Commit(commit) => stood.iter().find(|promotion| promotion.commit == *commit),
        }
    }

    /// Makes the edit on the present head; `None` where somebody else was quicker.
    async fn attempt(&self, source: &dyn Source) -> Result<Option<RolledBack>> {
        let (standing, goal) = match self.judge(source).await? {
            Judged::Done(rolled_back) => return Ok(Some(rolled_back)),
            Judged::Moved => return Ok(None),
            Judged::ToDo { standing, goal } => (standing, goal),
        };
        let image = self.image_of(source, &goal).await?;
        if standing.images.iter().all(|stands| *stands == image) {
            return Err(self.conflict(format!("{} had the image that stands", goal.commit)));
        }
        let message = self.message(&goal)?;
        let commit = self.edit().write(source, &standing, &image, message).await?;
        Ok(commit.map(|commit| RolledBack {
            commit,
            undone: self.undo.clone(),
            image,
        }))
    }

    fn incomplete(&self, goal: &Promotion, what: &str) -> Error {
        self.edit()
            .error(ErrorKind::Invalid)
            .because(format!("the promotion {} {what}", goal.commit))
            .advise("name another promotion to go back to")
    }

    /// The image as a promotion wrote it, with its tag.
    async fn image_of(&self, source: &dyn Source, goal: &Promotion) -> Result<ImageRef> {
        let Some(digest) = &goal.digest else {
            return Err(self.incomplete(goal, "does not say its image's digest"));
        };
        let Deployment { repository, file, .. } = &self.deployment;
        let bytes = source.file(repository, &goal.commit, file).await?;
        let images = match &bytes {
            Some(bytes) => manifest::images_of(bytes, &self.image).map_err(|problem| {
                self.incomplete(goal, &format!("has a file that cannot be read: {problem}"))
            })?,
            None => Vec::new(),
        };
        images
            .into_iter()
            .find(|image| image.digest() == Some(digest))
            .ok_or_else(|| self.incomplete(goal, &format!("says {digest}, and its file does not have it")))
    }

    fn message(&self, goal: &Promotion) -> Result<String> {
        let (Some(source_commit), Some(digest)) = (&goal.source_commit, &goal.digest) else {
            return Err(self.incomplete(goal, "does not say what its image was built from"));
        };
        Ok(format!(
            "Roll back {} to {}\n\n{SOURCE_COMMIT}: {source_commit}\n{IMAGE}: {}\n{IMAGE_DIGEST}: {digest}\n\
             {ROLLED_BACK}: {}\n{HOLD}: {}\n",
            self.image.repository(),
            source_commit.short(),
            self.image.name(),
            self.undo,
            self.reason.trim(),
        ))
    }
}

/// The promotion before the first one. From a rollback the way leads on from the promotion whose image it brought back.
fn previous(stood: &[Promotion]) -> Option<&Promotion> {
    let digest = &stood.first()?.digest;
    let mut at = 0;
    loop {
        let after = |from: usize, is_it: &dyn Fn(&Promotion) -> bool| {
            let found = stood.iter().skip(from).position(is_it)?;
            Some(from + found)
        };
        match &stood.get(at)?.undoes {
            Some(undone) => {
                let undone = after(at + 1, &|promotion| promotion.commit == *undone)?;
                at = after(undone + 1, &|promotion| promotion.digest == *digest)?;
            }
            None => {
                at += 1;
                if stood.get(at)?.digest != *digest {
                    return stood.get(at);
                }
            }
        }
    }
}

#[async_trait]
impl Effect for RollBack {
    const NAME: &'static str = "source.roll_back";
    type Output = RolledBack;

    fn title(&self) -> String {
        format!(
            "roll back {} in {}",
            self.image.repository(),
            self.deployment.repository
        )
    }

    fn evidence(&self, rolled_back: &RolledBack) -> Evidence {
        evidence([
            ("deployment commit", rolled_back.commit.to_string()),
            ("undone", rolled_back.undone.to_string()),
            ("image", rolled_back.image.to_string()),
        ])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<RolledBack>> {
        match self.judge(elements.source()?.as_ref()).await? {
            Judged::Done(rolled_back) => Ok(Some(rolled_back)),
            Judged::ToDo { .. } | Judged::Moved => Ok(None),
        }
    }

    async fn apply(&self, elements: &Elements) -> Result<RolledBack> {
        let source = elements.source()?.as_ref();
        self.edit().settle(elements, || self.attempt(source)).await
    }
}
