//! Element F's trait on top of the client.

use crate::wire::{App, HealthCode, SyncStatusCode};
use crate::{ArgoCd, Refresh, SyncRequest};
use async_trait::async_trait;
use towpath_core::{Application, Cancellation, CommitSha};
use towpath_elements::Result;
use towpath_elements::delivery::{
    Delivery, DeliveryReport, DeliveryStatus, Expected, HealthState, RunningImage, SyncState,
};

#[async_trait]
impl Delivery for ArgoCd {
    async fn status(&self, application: &Application) -> Result<DeliveryStatus> {
        Ok(status_of(application, &self.application(application).await?))
    }

    async fn refresh(&self, application: &Application) -> Result<()> {
        let _turn = self.refresh_turn().await;
        self.refreshed(application, Refresh::Normal, self.wait_policy().refresh_timeout)
            .await
            .map(|_| ())
    }

    async fn sync(&self, application: &Application, revision: &CommitSha) -> Result<()> {
        if self.application(application).await?.spec.syncs_itself() {
            // A sync by hand could make it sync back to an older commit right after.
            return self.refresh(application).await;
        }
        self.sync_application(application, &SyncRequest::to(revision.as_str()))
            .await
            .map(|_| ())
    }

    async fn wait(&self, expected: Expected, cancellation: &Cancellation) -> Result<DeliveryReport> {
        self.waiter().wait(expected, cancellation).await
    }

    async fn running(&self, application: &Application) -> Result<Vec<RunningImage>> {
        self.running_images(application, None).await
    }
}

pub(crate) fn status_of(application: &Application, app: &App) -> DeliveryStatus {
    let status = &app.status;
    let operation = status.operation_state.as_ref();
    let revision = status.sync.revisions.first().unwrap_or(&status.sync.revision);
    let said = [
        status
            .conditions
            .iter()
            .find(|condition| condition.kind.ends_with("Error"))
            .map(|one| &one.message),
        status.health.message.as_ref(),
        operation.and_then(|state| state.message.as_ref()),
    ];
    DeliveryStatus {
        application: application.clone(),
        revision: Some(revision.clone()).filter(|revision| !revision.is_empty()),
        sync: match status.sync.status {
            SyncStatusCode::Synced => SyncState::Synced,
            SyncStatusCode::OutOfSync => SyncState::OutOfSync,
            _ => SyncState::Unknown,
        },
        health: match status.health.status {
            HealthCode::Healthy => HealthState::Healthy,
            HealthCode::Progressing => HealthState::Progressing,
            HealthCode::Degraded => HealthState::Degraded,
            HealthCode::Suspended => HealthState::Suspended,
            HealthCode::Missing => HealthState::Missing,
            _ => HealthState::Unknown,
        },
        message: said.into_iter().flatten().find(|text| !text.is_empty()).cloned(),
        busy: app.operation.is_some() || operation.is_some_and(|state| !state.phase.has_ended()),
        reconciled: status.reconciled_at,
    }
}
