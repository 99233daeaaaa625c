//! Element F: applications that watch a deployment file, and the pods that run what it says.

mod cluster;
mod wait;

use super::faults::Element;
use super::repositories::main_branch;
use super::{Moment, World, refusal};
use async_trait::async_trait;
use cluster::App;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use towpath_core::{Application, BranchName, Cancellation, CommitSha, RepoSlug};
use towpath_elements::delivery::{
    DeliveryReport, DeliveryStatus, Expected, HealthState, RunningImage, SyncState,
};
use towpath_elements::{Delivery, ErrorKind, Result};

pub(super) use cluster::advance;

/// An application to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationSetup {
    /// The deployment repository.
    pub repository: RepoSlug,
    /// The branch it watches.
    pub branch: BranchName,
    /// The file whose `image:` lines it runs.
    pub file: String,
    /// Whether it syncs on its own.
    pub automated: bool,
}

impl ApplicationSetup {
    /// Watches a file on `main`, and syncs on its own.
    pub fn new(repository: &RepoSlug, file: &str) -> Self {
        Self {
            repository: repository.clone(),
            branch: main_branch(),
            file: file.to_owned(),
            automated: true,
        }
    }
}

#[derive(Default)]
pub(super) struct Cluster {
    applications: BTreeMap<Application, App>,
}

impl Cluster {
    fn get(&mut self, application: &Application) -> Result<&mut App> {
        self.applications.get_mut(application).ok_or_else(|| {
            refusal(
                ErrorKind::NotFound,
                "find the application",
                application,
                "there is none, or it may not be seen",
            )
        })
    }

    pub(super) fn snapshot(&self) -> Value {
        let applications: BTreeMap<_, _> = self
            .applications
            .iter()
            .map(|(name, app)| {
                let running: Vec<_> = app
                    .pods
                    .iter()
                    .map(|pod| format!("{} {:?}", pod.image, pod.digest))
                    .collect();
                (
                    name.to_string(),
                    json!({"synced": app.synced, "running": running}),
                )
            })
            .collect();
        json!(applications)
    }
}

impl App {
    fn sync_state(&self) -> SyncState {
        match (&self.comparison_error, &self.compared) {
            (Some(_), _) | (_, None) => SyncState::Unknown,
            (None, compared) if *compared == self.synced => SyncState::Synced,
            _ => SyncState::OutOfSync,
        }
    }

    fn health(&self) -> HealthState {
        if self.rollout.is_some() {
            HealthState::Progressing
        } else if self.pod_error.is_some() {
            HealthState::Degraded
        } else if self.pods.is_empty() {
            HealthState::Missing
        } else {
            HealthState::Healthy
        }
    }

    fn status(&self, application: &Application, moment: Moment<'_>) -> DeliveryStatus {
        let failed_sync = self.sync_error.as_ref().map(|(_, message)| message);
        DeliveryStatus {
            application: application.clone(),
            revision: self.compared.as_ref().map(ToString::to_string),
            sync: self.sync_state(),
            health: self.health(),
            message: [
                self.comparison_error.as_ref(),
                self.pod_error.as_ref(),
                failed_sync,
            ]
            .into_iter()
            .flatten()
            .next()
            .cloned(),
            busy: self.operation.is_some(),
            reconciled: self.reconciled.map(|at| moment.stamp(at)),
        }
    }
}

#[async_trait]
impl Delivery for World {
    async fn status(&self, application: &Application) -> Result<DeliveryStatus> {
        self.call(Element::Delivery, "status", application, |state, moment| {
            Ok(state.delivery.get(application)?.status(application, moment))
        })
        .await
    }

    async fn refresh(&self, application: &Application) -> Result<()> {
        self.call(Element::Delivery, "refresh", application, |state, moment| {
            cluster::look_now(state, application, moment)
        })
        .await
    }

    async fn sync(&self, application: &Application, revision: &CommitSha) -> Result<()> {
        self.call(Element::Delivery, "sync", application, |state, moment| {
            cluster::sync_now(state, application, revision, moment)
        })
        .await
    }

    async fn wait(&self, expected: Expected, cancellation: &Cancellation) -> Result<DeliveryReport> {
        wait::wait(self, expected, cancellation).await
    }

    async fn running(&self, application: &Application) -> Result<Vec<RunningImage>> {
        self.call(Element::Delivery, "running", application, |state, _| {
            Ok(state.delivery.get(application)?.pods.clone())
        })
        .await
    }
}

impl World {
    /// Makes an application. It looks at its repository as soon as it would notice a push.
    pub fn add_application(&self, application: &Application, setup: ApplicationSetup) {
        self.with(|state, _| {
            state
                .delivery
                .applications
                .insert(application.clone(), App::new(setup));
        });
    }

    /// Makes an application deaf to pushes, or lets it hear again: only a refresh makes a deaf one look.
    ///
    /// # Panics
    /// Where there is no such application.
    pub fn set_deaf(&self, application: &Application, deaf: bool) {
        self.change_application(application, |app| app.deaf = deaf);
    }

    /// Makes an application look at its repository no more, refresh or not, or lets it look again.
    ///
    /// # Panics
    /// Where there is no such application.
    pub fn set_blind(&self, application: &Application, blind: bool) {
        self.change_application(application, |app| {
            app.blind = blind;
            app.noticed = None;
        });
    }

    /// Makes the next sync of an application fail with this message.
    ///
    /// # Panics
    /// Where there is no such application.
    pub fn fail_next_sync(&self, application: &Application, message: &str) {
        self.change_application(application, |app| app.next_sync_fails = Some(message.to_owned()));
    }

    /// How many syncs an application has begun, its own included.
    ///
    /// # Panics
    /// Where there is no such application.
    pub fn sync_count(&self, application: &Application) -> usize {
        self.change_application(application, |app| app.syncs)
    }

    #[expect(
        clippy::expect_used,
        reason = "a test that is prepared wrong shall fail where it is"
    )]
    fn change_application<T>(&self, application: &Application, change: impl FnOnce(&mut App) -> T) -> T {
        self.with(|state, _| state.delivery.get(application).map(change))
            .expect("an application of this world")
    }
}
