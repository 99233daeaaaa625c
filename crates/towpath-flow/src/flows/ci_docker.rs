//! CI docker: steps 1, 2, 3, 5 and 6 for a service. No Docker daemon takes part.

use super::Flow;
use crate::effects::{
    AssembleImage, ConfirmCiRun, Deployment, ImportImage, ReadReview, ReportBuild, ScanImage, WriteBack,
    WrittenBack,
};
use crate::gate::ReviewPolicy;
use crate::{Context, Step, Stop};
use async_trait::async_trait;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use towpath_core::{CiRunId, CommitSha, Digest, ImageRef, RepoSlug, RepositoryName, Tag};
use towpath_elements::registry::{ConfigChange, Platform, ScanPolicy};
use url::Url;

/// Makes the image of a reviewed service, stores it, waits for its scan, and promotes it by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CiDocker {
    /// The service's repository.
    pub repository: RepoSlug,
    /// The commit to build.
    pub commit: CommitSha,
    /// The CI run this happens in; `None` outside of CI.
    pub ci_run: Option<CiRunId>,
    /// How the image is made.
    pub image: ImageRecipe,
    /// Where the new digest goes.
    pub deployment: Deployment,
    /// What is asked of the review.
    pub review: ReviewPolicy,
    /// What the scan may find.
    pub scan: ScanPolicy,
    /// Where people read more about the build.
    pub details: Option<Url>,
    /// Why the hold of a rollback may end, where there is one; see [`WriteBack::release_hold`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_hold: Option<String>,
}

/// How an image is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecipe {
    /// The repository in the private registry.
    pub repository: RepositoryName,
    /// The tag; one of the commit's own.
    pub tag: Tag,
    /// The base, at its upstream.
    pub base: ImageRef,
    /// Images whose layers come on top of the base, at their upstreams.
    pub add: Vec<ImageRef>,
    /// The folder whose files come last.
    pub files: PathBuf,
    /// The absolute path in the image where the files go.
    pub to: String,
    /// The platforms; empty makes every platform of the base.
    pub platforms: Vec<Platform>,
    /// What changes in the configuration.
    pub config: ConfigChange,
    /// The time of the commit, written into the image.
    pub created: Timestamp,
}

/// An image that is stored, scanned and promoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageBuilt {
    /// The image with its tag and its digest.
    pub image: ImageRef,
    /// Its digest.
    pub digest: Digest,
    /// The digests of its platforms, as a container runtime may report them.
    pub platform_digests: Vec<Digest>,
    /// How the promotion ended.
    pub written_back: WrittenBack,
}

#[async_trait]
impl Flow for CiDocker {
    const NAME: &'static str = "ci_docker";
    type Outcome = ImageBuilt;

    async fn run(&self, context: &Context<'_>) -> Result<ImageBuilt, Stop> {
        let Self {
            repository,
            commit,
            image: recipe,
            ..
        } = self;
        let review = ReadReview {
            repository: repository.clone(),
            commit: commit.clone(),
            policy: self.review.clone(),
        };
        context.perform(Step::Push, &review).await?;
        if let Some(run) = self.ci_run {
            let confirm = ConfirmCiRun {
                repository: repository.clone(),
                commit: commit.clone(),
                run,
            };
            context.perform(Step::TriggerCi, &confirm).await?;
        }

        let upstreams: Vec<ImportImage> = std::iter::once(&recipe.base)
            .chain(&recipe.add)
            .map(|upstream| ImportImage {
                upstream: upstream.clone(),
            })
            .collect();
        let imports = upstreams
            .iter()
            .map(|import| context.perform(Step::CacheImages, import));
        let mut cached = try_join_all(imports)
            .await?
            .into_iter()
            .map(|imported| imported.cached.image);
        let base = cached.next().unwrap_or_else(|| recipe.base.clone());

        let assemble = AssembleImage {
            repository: recipe.repository.clone(),
            tag: recipe.tag.clone(),
            commit: commit.clone(),
            source: repository.to_string(),
            base,
            add: cached.collect(),
            files: recipe.files.clone(),
            to: recipe.to.clone(),
            platforms: recipe.platforms.clone(),
            config: recipe.config.clone(),
            created: recipe.created,
        };
        let stored = context.perform(Step::StoreBuild, &assemble).await?;
        let scan = ScanImage {
            image: stored.image.clone(),
            policy: self.scan.clone(),
        };
        context.perform(Step::StoreBuild, &scan).await?;

        let report = ReportBuild {
            repository: repository.clone(),
            commit: commit.clone(),
            context: "towpath/image".to_owned(),
            description: format!("stored {}:{} ({})", recipe.repository, recipe.tag, stored.digest),
            url: self.details.clone(),
        };
        let image = with_tag(&stored.image, &recipe.tag);
        let write_back = WriteBack {
            deployment: self.deployment.clone(),
            image: image.clone(),
            source: repository.clone(),
            commit: commit.clone(),
            release_hold: self.release_hold.clone(),
        };
        let (written_back, ()) = futures_util::future::try_join(
            context.perform(Step::ReportBuild, &write_back),
            context.perform(Step::ReportBuild, &report),
        )
        .await?;
        let platform_digests = stored
            .platforms
            .into_iter()
            .map(|platform| platform.digest)
            .collect();
        Ok(ImageBuilt {
            image,
            digest: stored.digest,
            platform_digests,
            written_back,
        })
    }
}

/// A reference with both: the digest counts, the tag is for people.
fn with_tag(image: &ImageRef, tag: &Tag) -> ImageRef {
    match image.digest() {
        Some(digest) => format!("{}:{tag}@{digest}", image.name())
            .parse()
            .unwrap_or_else(|_| image.clone()),
        None => image.clone(),
    }
}
