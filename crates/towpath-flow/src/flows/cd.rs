//! CD: steps 7 and 8. Argo CD sees the promotion and brings it to the cluster.

use super::Flow;
use crate::effects::{AwaitLive, NoticeRevision};
use crate::{Context, Step, Stop};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use towpath_core::{Application, CommitSha, Digest, ImageRef, RepoSlug};
use towpath_elements::delivery::{DeliveryReport, Expected};

/// Waits until a promotion runs, by revision, operation and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cd {
    /// The application.
    pub application: Application,
    /// The deployment repository.
    pub repository: RepoSlug,
    /// The commit of the deployment repository.
    pub revision: CommitSha,
    /// The images that must run, by digest.
    pub images: Vec<ImageRef>,
    /// Other digests that a container runtime may report for them.
    pub platform_digests: Vec<Digest>,
    /// How long to wait for each of the two steps.
    pub within: Duration,
    /// How long health must hold before it counts.
    pub settle: Duration,
}

/// A promotion that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// On what evidence.
    pub report: DeliveryReport,
}

#[async_trait]
impl Flow for Cd {
    const NAME: &'static str = "cd";
    type Outcome = Delivered;

    async fn run(&self, context: &Context<'_>) -> Result<Delivered, Stop> {
        let notice = NoticeRevision {
            application: self.application.clone(),
            repository: self.repository.clone(),
            revision: self.revision.clone(),
            within: self.within,
        };
        context.perform(Step::TriggerDelivery, &notice).await?;
        let expected = Expected {
            application: self.application.clone(),
            revision: self.revision.clone(),
            images: self.images.clone(),
            platform_digests: self.platform_digests.clone(),
            within: self.within,
            settle: self.settle,
        };
        let report = context.perform(Step::Deliver, &AwaitLive { expected }).await?;
        Ok(Delivered { report })
    }
}
