//! CI library: steps 1, 2, 4, 5 and 6 for a library.

use super::Flow;
use crate::effects::{
    ConfirmCiRun, FetchDependencies, PackageLibrary, PublishPackage, ReadReview, ReportBuild,
};
use crate::gate::ReviewPolicy;
use crate::{Context, Step, Stop};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use towpath_core::{ArtifactRepository, CiRunId, CommitSha, Digest, PackageVersion, RepoSlug};
use url::Url;

/// Builds a reviewed library with dependencies from the package repository, stores it there, and says so on its commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CiLibrary {
    /// The library's repository.
    pub repository: RepoSlug,
    /// The commit to build.
    pub commit: CommitSha,
    /// The CI run this happens in; `None` outside of CI.
    pub ci_run: Option<CiRunId>,
    /// The folder with the commit checked out.
    pub project: PathBuf,
    /// Where dependencies come from and the package goes.
    pub packages: ArtifactRepository,
    /// What is asked of the review.
    pub review: ReviewPolicy,
    /// Where people read more about the build.
    pub details: Option<Url>,
}

/// A library that is built and stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryBuilt {
    /// What was stored.
    pub version: PackageVersion,
    /// The digest of its file.
    pub digest: Digest,
    /// What it was built with.
    pub dependencies: Vec<PackageVersion>,
}

#[async_trait]
impl Flow for CiLibrary {
    const NAME: &'static str = "ci_library";
    type Outcome = LibraryBuilt;

    async fn run(&self, context: &Context<'_>) -> Result<LibraryBuilt, Stop> {
        let Self {
            repository,
            commit,
            project,
            packages,
            ..
        } = self;
        let (repository, commit) = (repository.clone(), commit.clone());
        let review = ReadReview {
            repository,
            commit,
            policy: self.review.clone(),
        };
        context.perform(Step::Push, &review).await?;
        let ReadReview {
            repository, commit, ..
        } = review;
        if let Some(run) = self.ci_run {
            let confirm = ConfirmCiRun {
                repository: repository.clone(),
                commit: commit.clone(),
                run,
            };
            context.perform(Step::TriggerCi, &confirm).await?;
        }

        let fetch = FetchDependencies {
            project: project.clone(),
            repository: packages.clone(),
        };
        let dependencies = context.perform(Step::FetchDependencies, &fetch).await?;

        let package = PackageLibrary {
            project: project.clone(),
            repository: packages.clone(),
        };
        let packaged = context.perform(Step::StoreBuild, &package).await?;
        let publish = PublishPackage {
            repository: packages.clone(),
            version: packaged.version.clone(),
            file: packaged.file.clone(),
            digest: packaged.digest.clone(),
        };
        context.perform(Step::StoreBuild, &publish).await?;

        let report = ReportBuild {
            repository,
            commit,
            context: "towpath/package".to_owned(),
            description: format!("stored {} in {packages}", packaged.version),
            url: self.details.clone(),
        };
        context.perform(Step::ReportBuild, &report).await?;
        Ok(LibraryBuilt {
            version: packaged.version,
            digest: packaged.digest,
            dependencies,
        })
    }
}
