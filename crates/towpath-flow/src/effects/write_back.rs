//! Step 6: the new digest goes into the deployment repository, by compare-and-swap.

use crate::effect::evidence;
use crate::{Effect, Elements, Evidence, manifest};
use async_trait::async_trait;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use towpath_core::wait::{self, Judgement, Outcome, Policy};
use towpath_core::{BranchName, CommitSha, ImageRef, RepoSlug, Retry};
use towpath_elements::source::{Change, Commit};
use towpath_elements::{Error, ErrorKind, Result, Source};

/// How far back the file's history is searched for the commit that promoted a build.
const HISTORY: usize = 200;
const SOURCE_COMMIT: &str = "Source-Commit";
const IMAGE: &str = "Image";
const IMAGE_DIGEST: &str = "Image-Digest";

/// A file in a deployment repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The repository that the delivery system watches.
    pub repository: RepoSlug,
    /// The branch it watches.
    pub branch: BranchName,
    /// The file, from the repository's root.
    pub file: String,
}

/// Puts an image, pinned by digest, into a deployment file. It never puts an older build over a newer one.
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

/// The deployment file as it stands.
struct Standing {
    head: CommitSha,
    bytes: Vec<u8>,
    /// Whether every image of the repository in it is the wanted one.
    is_ours: bool,
    /// The last promotion of this image's repository, if there was one.
    promoted_by: Option<Commit>,
}

impl WriteBack {
    fn subject(&self) -> String {
        format!(
            "{} in {} ({})",
            self.deployment.file, self.deployment.repository, self.deployment.branch
        )
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(
            kind,
            "deployment repository",
            "write the image into",
            self.subject(),
        )
    }

    async fn standing(&self, source: &dyn Source) -> Result<Standing> {
        let Deployment {
            repository,
            branch,
            file,
        } = &self.deployment;
        let head = source.head(repository, branch).await?.ok_or_else(|| {
            self.error(ErrorKind::NotFound)
                .because("the branch does not exist")
                .advise("push it first")
        })?;
        let bytes = source.file(repository, &head, file).await?.ok_or_else(|| {
            self.error(ErrorKind::NotFound)
                .because("the file does not exist at the head of the branch")
                .advise("check the path, from the repository's root")
        })?;
        let images = manifest::images_of(&bytes, &self.image)
            .map_err(|problem| self.error(ErrorKind::Invalid).because(problem))?;
        let is_ours = images.iter().all(|image| *image == self.image);
        // Several services may share a file: a promotion of another one says nothing about this one.
        let name = self.image.name();
        let mut history = source
            .history(repository, branch, Some(file.clone()))
            .take(HISTORY);
        let mut promoted_by = None;
        while let Some(commit) = history.next().await {
            let commit = commit?;
            if commit.trailer(IMAGE) == Some(name.as_str()) {
                promoted_by = Some(commit);
                break;
            }
        }
        Ok(Standing {
            head,
            bytes,
            is_ours,
            promoted_by,
        })
    }

    /// What the world says of this write-back: done, overtaken, or still to do.
    async fn judge(&self, source: &dyn Source, standing: &Standing) -> Result<Option<WrittenBack>> {
        if standing.is_ours {
            let promoted = standing
                .promoted_by
                .as_ref()
                .map_or(&standing.head, |commit| &commit.sha);
            return Ok(Some(WrittenBack::Promoted(promoted.clone())));
        }
        let Some(promoted) = &standing.promoted_by else {
            return Ok(None);
        };
        let Some(built_from) = promoted
            .trailer(SOURCE_COMMIT)
            .and_then(|sha| sha.parse::<CommitSha>().ok())
        else {
            return Ok(None);
        };
        let newer = built_from != self.commit
            && source
                .ancestry(&self.source, &self.commit, &built_from)
                .await?
                .contains_base();
        Ok(newer.then(|| WrittenBack::Newer(promoted.sha.clone())))
    }

    /// Makes the edit on the present head; `None` where somebody else was quicker.
    async fn attempt(&self, source: &dyn Source) -> Result<Option<WrittenBack>> {
        let standing = self.standing(source).await?;
        if let Some(settled) = self.judge(source, &standing).await? {
            return Ok(Some(settled));
        }
        match source.commit(self.change(&standing)?).await {
            Ok(commit) => Ok(Some(WrittenBack::Promoted(commit))),
            Err(lost) if lost.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn change(&self, standing: &Standing) -> Result<Change> {
        let bytes = manifest::with_image(&standing.bytes, &self.image)
            .map_err(|problem| self.error(ErrorKind::Invalid).because(problem))?;
        let digest = self.image.digest().ok_or_else(|| {
            self.error(ErrorKind::Invalid)
                .because("the image has no digest")
                .advise("resolve its tag first")
        })?;
        let Deployment {
            repository,
            branch,
            file,
        } = &self.deployment;
        let message = format!(
            "Promote {} built from {}\n\n{SOURCE_COMMIT}: {}\n{IMAGE}: {}\n{IMAGE_DIGEST}: {digest}\n",
            self.image.repository(),
            self.commit.short(),
            self.commit,
            self.image.name(),
        );
        Ok(Change {
            repository: repository.clone(),
            branch: branch.clone(),
            expected_head: standing.head.clone(),
            files: BTreeMap::from([(file.clone(), Some(bytes))]),
            message,
        })
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
        let source = elements.source()?.as_ref();
        let standing = self.standing(source).await?;
        self.judge(source, &standing).await
    }

    async fn apply(&self, elements: &Elements) -> Result<WrittenBack> {
        let source = elements.source()?.as_ref();
        // Writers that lost the same race must not meet again at the same moment.
        let first = Duration::from_millis(20 + uuid::Uuid::new_v4().as_u64_pair().0 % 80);
        let policy = Policy::growing(first, Duration::from_secs(2)).within(elements.policy().limit());
        let outcome = wait::until(
            &policy,
            elements.cancellation(),
            || self.attempt(source),
            |_: &Error| Retry::Never,
            |attempt| match attempt {
                Some(_) => Judgement::Met,
                None => Judgement::pending("a moment in which nobody else pushes"),
            },
        )
        .await;
        match outcome {
            Outcome::Met(Some(written)) => Ok(written),
            Outcome::Blind { error, .. } => Err(error),
            Outcome::Cancelled { .. } => Err(self.error(ErrorKind::Cancelled)),
            Outcome::TimedOut {
                waiting_for,
                elapsed,
                looks,
                ..
            } => Err(self
                .error(ErrorKind::Conflict)
                .because(format!(
                    "{looks} attempts in {elapsed:.1?} lost the race; still waiting for {waiting_for}"
                ))
                .retrying(Retry::Later)),
            other => Err(self
                .error(ErrorKind::Protocol)
                .because(format!("the wait ended as {other:?}"))),
        }
    }
}
