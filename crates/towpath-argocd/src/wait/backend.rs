//! What a wait needs, and the API server that has it.

use crate::wire::{App, HealthCode, ResourceNode, SyncWindows};
use crate::{ArgoCd, Refresh, SyncRequest};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;
use towpath_core::{Application, CommitSha};
use towpath_elements::Result;
use towpath_elements::delivery::RunningImage;

/// Who has the applications that a [`Waiter`](crate::Waiter) waits for. [`ArgoCd`] is one, by the API server; it is
/// narrow enough for the cluster's own API, where Argo CD runs without a server (core mode), and for a simulation.
#[async_trait]
pub trait Backend: Debug + Send + Sync {
    /// The application as it is stored, not as a cache has it.
    ///
    /// # Errors
    /// *Not found* where it does not exist or may not be seen.
    async fn application(&self, application: &Application) -> Result<App>;

    /// Asks for a comparison with the repository now, and gives the application once it is said to be done. It may be
    /// about an older commit all the same.
    ///
    /// # Errors
    /// *Timed out* after `within`.
    async fn refreshed(&self, application: &Application, within: Duration) -> Result<App>;

    /// Asks for a sync.
    ///
    /// # Errors
    /// Those of [`ArgoCd::sync_application`], told apart by [`ApiError`](crate::ApiError).
    async fn sync(&self, application: &Application, request: &SyncRequest) -> Result<App>;

    /// The sync windows that concern the application.
    async fn sync_windows(&self, application: &Application) -> Result<SyncWindows>;

    /// The images that the manifests of a commit ask for, as they are written there.
    async fn desired_images(&self, application: &Application, revision: &CommitSha) -> Result<Vec<String>>;

    /// The images of the application's pods, container by container; of pods that use these repositories.
    async fn running_images(
        &self,
        application: &Application,
        repositories: &BTreeSet<String>,
    ) -> Result<Vec<RunningImage>>;

    /// The application's pods that cannot start or keep failing, where this can be told; none where it cannot.
    async fn failing_pods(&self, application: &Application) -> Result<Vec<FailingPod>> {
        let _ = application;
        Ok(Vec::new())
    }

    /// Tells that the application has changed. It may be lossy and late, and it may end: a wait looks all the same.
    fn changes(&self, application: &Application) -> Changes;
}

/// A pod that cannot start, or keeps failing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailingPod {
    /// Its name.
    pub name: String,
    /// The images of its specification, as they are written there.
    pub images: Vec<String>,
    /// What it fails for.
    pub message: String,
}

/// The changes of one application.
pub type Changes = BoxStream<'static, Result<Change>>;

/// Something about an application has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The application's version since then, where it is known.
    pub version: Option<u64>,
}

impl Change {
    /// A change that made this version.
    pub fn to(version: Option<u64>) -> Self {
        Self { version }
    }
}

#[async_trait]
impl Backend for ArgoCd {
    async fn application(&self, application: &Application) -> Result<App> {
        let _turn = self.look_turn().await;
        ArgoCd::application(self, application).await
    }

    async fn refreshed(&self, application: &Application, within: Duration) -> Result<App> {
        let _turn = self.refresh_turn().await;
        ArgoCd::refreshed(self, application, Refresh::Normal, within).await
    }

    async fn sync(&self, application: &Application, request: &SyncRequest) -> Result<App> {
        self.sync_application(application, request).await
    }

    async fn sync_windows(&self, application: &Application) -> Result<SyncWindows> {
        ArgoCd::sync_windows(self, application).await
    }

    async fn desired_images(&self, application: &Application, revision: &CommitSha) -> Result<Vec<String>> {
        let manifests = self.manifests(application, Some(revision.as_str())).await?;
        Ok(crate::images::desired_images(&manifests.manifests))
    }

    async fn running_images(
        &self,
        application: &Application,
        repositories: &BTreeSet<String>,
    ) -> Result<Vec<RunningImage>> {
        let _turn = self.look_turn().await;
        ArgoCd::running_images(self, application, Some(repositories)).await
    }

    async fn failing_pods(&self, application: &Application) -> Result<Vec<FailingPod>> {
        let _turn = self.look_turn().await;
        let tree = self.resource_tree(application).await?;
        let fails = |node: &ResourceNode| {
            let health = node.health.as_ref();
            node.kind == "Pod"
                && node.group.is_empty()
                && health.is_some_and(|health| health.status == HealthCode::Degraded)
        };
        let pods = tree.nodes.into_iter().filter(fails).map(|node| FailingPod {
            message: node
                .health
                .and_then(|health| health.message)
                .unwrap_or_else(|| "no message".into()),
            name: node.name,
            images: node.images,
        });
        Ok(pods.collect())
    }

    fn changes(&self, application: &Application) -> Changes {
        self.hub().listen(self, application)
    }
}
