//! What write-backs and rollbacks share: the deployment file, the promotions in its history, and the race for the head of
//! the branch.

use crate::{Elements, manifest};
use futures_util::TryStreamExt;
use futures_util::stream::{BoxStream, StreamExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use towpath_core::wait::{self, Judgement, Outcome, Policy};
use towpath_core::{BranchName, CommitSha, Digest, ImageRef, RepoSlug, Retry};
use towpath_elements::source::{Change, Commit};
use towpath_elements::{Error, ErrorKind, Result, Source};

/// How many commits of the file are searched for promotions.
pub(super) const HISTORY: usize = 200;
pub(super) const SOURCE_COMMIT: &str = "Source-Commit";
pub(super) const IMAGE: &str = "Image";
pub(super) const IMAGE_DIGEST: &str = "Image-Digest";
pub(super) const ROLLED_BACK: &str = "Rolled-Back";
pub(super) const HOLD: &str = "Hold";
pub(super) const HOLD_RELEASED: &str = "Hold-Released";

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

/// A commit that promoted an image, or rolled it back, as its trailers tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// The commit of the deployment repository.
    pub commit: CommitSha,
    /// The commit that the image was built from (`Source-Commit`).
    pub source_commit: Option<CommitSha>,
    /// The image's digest (`Image-Digest`).
    pub digest: Option<Digest>,
    /// The promotion that this one undid, where it is a rollback (`Rolled-Back`).
    pub undoes: Option<CommitSha>,
    /// Why the image is on hold since this commit, where it is (`Hold`).
    pub hold: Option<String>,
}

impl Deployment {
    /// The promotions and rollbacks of the repository of `image`, newest first, from the last 200 commits of the file. The
    /// first one is what stands, unless the file was edited by hand since. Several services may share a file: those of the
    /// others are left out.
    ///
    /// # Errors
    /// What the source said.
    pub fn promotions(&self, source: &dyn Source, image: &ImageRef) -> BoxStream<'static, Result<Promotion>> {
        let name = image.name();
        source
            .history(&self.repository, &self.branch, Some(self.file.clone()))
            .take(HISTORY)
            .try_filter_map(move |commit| std::future::ready(Ok(Promotion::of(commit, &name))))
            .boxed()
    }
}

impl Promotion {
    fn of(commit: Commit, name: &str) -> Option<Self> {
        if commit.trailer(IMAGE) != Some(name) {
            return None;
        }
        let sha = |name| commit.trailer(name).and_then(|text| text.parse().ok());
        Some(Self {
            source_commit: sha(SOURCE_COMMIT),
            undoes: sha(ROLLED_BACK),
            digest: commit.trailer(IMAGE_DIGEST).and_then(|text| text.parse().ok()),
            hold: commit.trailer(HOLD).map(str::to_owned),
            commit: commit.sha,
        })
    }
}

/// The deployment file as it stands.
pub(super) struct Standing {
    pub(super) head: CommitSha,
    bytes: Vec<u8>,
    /// Every image of the repository in it.
    pub(super) images: Vec<ImageRef>,
}

impl Standing {
    /// Whether every image of the repository is this one, whatever its tag.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.images.iter().all(|image| image.digest() == Some(digest))
    }
}

/// An image in a deployment file, and what is done to it.
pub(super) struct Edit<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) image: &'a ImageRef,
    /// As in "cannot …".
    pub(super) attempted: &'static str,
}

impl Edit<'_> {
    pub(super) fn error(&self, kind: ErrorKind) -> Error {
        let Deployment {
            repository,
            branch,
            file,
        } = self.deployment;
        Error::new(
            kind,
            "deployment repository",
            self.attempted,
            format!("{file} in {repository} ({branch})"),
        )
    }

    /// A trailer is one line: a reason that is not would be cut, or be taken for another trailer.
    pub(super) fn check_reason(&self, reason: &str) -> Result<()> {
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let problem = match reason {
            blank if blank.trim().is_empty() => "the reason is empty",
            text if text.contains(breaks) => "the reason has line breaks or control characters",
            _ => return Ok(()),
        };
        Err(self
            .error(ErrorKind::Invalid)
            .because(problem)
            .advise("give it in one line"))
    }

    /// Reads the file at the head of the branch.
    pub(super) async fn read(&self, source: &dyn Source) -> Result<Standing> {
        let Deployment {
            repository,
            branch,
            file,
        } = self.deployment;
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
        let images = manifest::images_of(&bytes, self.image)
            .map_err(|problem| self.error(ErrorKind::Invalid).because(problem))?;
        Ok(Standing { head, bytes, images })
    }

    /// Puts `image` into the file by a commit on the head that was read; `None` where somebody else was quicker.
    pub(super) async fn write(
        &self,
        source: &dyn Source,
        standing: &Standing,
        image: &ImageRef,
        message: String,
    ) -> Result<Option<CommitSha>> {
        let bytes = manifest::with_image(&standing.bytes, image)
            .map_err(|problem| self.error(ErrorKind::Invalid).because(problem))?;
        let change = Change {
            repository: self.deployment.repository.clone(),
            branch: self.deployment.branch.clone(),
            expected_head: standing.head.clone(),
            files: BTreeMap::from([(self.deployment.file.clone(), Some(bytes))]),
            message,
        };
        match source.commit(change).await {
            Ok(commit) => Ok(Some(commit)),
            Err(lost) if lost.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Attempts until an attempt meets nobody else: one that did is `None`.
    pub(super) async fn settle<T, F>(&self, elements: &Elements, attempt: impl FnMut() -> F) -> Result<T>
    where
        T: std::fmt::Debug,
        F: Future<Output = Result<Option<T>>>,
    {
        // Writers that lost the same race must not meet again at the same moment.
        let first = Duration::from_millis(20 + uuid::Uuid::new_v4().as_u64_pair().0 % 80);
        let policy = Policy::growing(first, Duration::from_secs(2)).within(elements.policy().limit());
        let outcome = wait::until(
            &policy,
            elements.cancellation(),
            attempt,
            |_: &Error| Retry::Never,
            |attempt| match attempt {
                Some(_) => Judgement::Met,
                None => Judgement::pending("a moment in which nobody else pushes"),
            },
        )
        .await;
        match outcome {
            Outcome::Met(Some(settled)) => Ok(settled),
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
