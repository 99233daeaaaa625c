//! What a wait does to bring about what it waits for: refreshes, syncs, and questions that are asked once.

use super::{Wait, ended_at};
use crate::config::Trigger;
use crate::judge::{COMPARISON_ERRORS, OPERATION_MARK, Unmet, matching_revision, revision_to_sync};
use crate::wire::App;
use crate::{ApiError, SyncRequest, evidence};
use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::time::Instant;
use towpath_core::CommitSha;
use towpath_elements::Result;
use towpath_elements::delivery::DeliveryOutcome;

impl Wait<'_> {
    /// Does what brings the unmet guard about. Gives an outcome where the server's answer is one.
    pub(super) async fn act(&mut self, unmet: &Unmet) -> Result<Option<(DeliveryOutcome, String)>> {
        match unmet {
            Unmet::Revision | Unmet::Spec | Unmet::Comparison | Unmet::Conditions => self.refresh(false),
            // The first comparison that comes back may be one that was going on already: ask twice without a pause.
            Unmet::Reconciled => self.refresh(self.facts.refreshes_since_operation < 2),
            Unmet::Sync => return self.sync().await,
            // Where a comparison came to nothing, as within a window that has ended since, only the next one syncs.
            Unmet::InSync => {
                self.refresh(false);
                if self.looks_out_of_sync % 5 == 2 {
                    return self.held_by_a_window().await;
                }
            }
            Unmet::Images => return self.other_images_desired().await,
            _ => {}
        }
        Ok(None)
    }

    /// Begins a refresh, unless one is going on or it is not time yet.
    fn refresh(&mut self, now: bool) {
        let due = now || Instant::now() >= self.next_refresh;
        if self.policy.trigger == Trigger::Nothing || self.refreshing.is_some() || !due {
            return;
        }
        let backend = self.backend().clone();
        let application = self.expected.application.clone();
        let within = self.policy.refresh_timeout;
        let ended = self.snapshot.as_ref().and_then(|seen| ended_at(&seen.app));
        self.refreshing = Some(async move { (ended, backend.refreshed(&application, within).await) }.boxed());
    }

    pub(super) fn refreshed(&mut self, ended: Option<Timestamp>, result: Result<App>) {
        self.refreshing = None;
        self.next_refresh = Instant::now() + self.refresh_pause;
        self.refresh_pause = (self.refresh_pause * 2).min(self.policy.longest_refresh);
        if let Ok(app) = &result
            && app
                .status
                .conditions
                .iter()
                .any(|condition| COMPARISON_ERRORS.contains(&condition.kind.as_str()))
        {
            self.facts.comparisons_failed += 1;
        }
        match result {
            Ok(_)
                if self
                    .snapshot
                    .as_ref()
                    .is_some_and(|seen| ended_at(&seen.app) == ended) =>
            {
                self.facts.refreshes_since_operation += 1;
            }
            Ok(_) => {}
            // Whatever is really wrong, the next look meets it too.
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    /// Asks for a sync of the expected revision.
    async fn sync(&mut self) -> Result<Option<(DeliveryOutcome, String)>> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(None);
        };
        let application = &self.expected.application;
        if Instant::now() < self.next_sync {
            return Ok(None);
        }
        let revision = revision_to_sync(&snapshot.app, &self.expected.revision, &self.facts);
        let id = self
            .tentative
            .clone()
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let mut request = SyncRequest::default().info(OPERATION_MARK, &id);
        if snapshot.app.spec.sources.is_empty() {
            request.revisions = vec![revision.to_owned()];
        }
        self.next_sync = Instant::now() + self.policy.first_refresh;
        match self.backend().sync(application, &request).await {
            Ok(_) => {
                self.syncs += 1;
                self.facts.operation_id = Some(id);
                self.tentative = None;
                Ok(None)
            }
            Err(error) => match ApiError::of(&error) {
                Some(refusal) if refusal.is_sync_window() => Ok(Some((
                    DeliveryOutcome::Rejected,
                    format!(
                        "a sync window forbids the sync ({}); wait until it allows it, or change it",
                        refusal.message
                    ),
                ))),
                // The operation that is going on may bring the expected revision; if not, ask again after it.
                Some(refusal) if refusal.is_operation_in_progress() || refusal.is_auto_sync() => Ok(None),
                _ => {
                    self.tentative = Some(id);
                    self.pass(error).map(|()| None)
                }
            },
        }
    }

    /// An application that does not begin to sync on its own may be held by a window, which the server does not say.
    async fn held_by_a_window(&mut self) -> Result<Option<(DeliveryOutcome, String)>> {
        if !self
            .snapshot
            .as_ref()
            .is_some_and(|seen| seen.app.spec.syncs_itself())
        {
            return Ok(None);
        }
        match self.backend().sync_windows(&self.expected.application).await {
            Ok(windows) => Ok(windows.blocks_automatic_sync().map(|window| {
                let text = format!(
                    "a sync window keeps the application from syncing ({} {} for {}); wait until it allows it, or change it",
                    window.kind, window.schedule, window.duration
                );
                (DeliveryOutcome::Rejected, text)
            })),
            Err(error) => {
                // Not every token may ask; the wait goes on without the answer.
                self.trouble = Some(error.to_string());
                Ok(None)
            }
        }
    }

    /// The commit is synced and other images run: whether its manifests ask for the expected ones at all. Asked once for a
    /// commit.
    async fn other_images_desired(&mut self) -> Result<Option<(DeliveryOutcome, String)>> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(None);
        };
        let matching = matching_revision(&snapshot.app, &self.expected.revision, &self.facts);
        let Some(revision) = matching.and_then(|revision| revision.parse::<CommitSha>().ok()) else {
            return Ok(None);
        };
        let one_source = snapshot.app.spec.sources.is_empty() && snapshot.app.spec.source_hydrator.is_none();
        if !one_source || self.desired.as_ref().is_some_and(|(asked, _)| *asked == revision) {
            return Ok(None);
        }
        match self
            .backend()
            .desired_images(&self.expected.application, &revision)
            .await
        {
            Ok(images) => {
                let missing = evidence::not_desired(&self.expected, &images);
                self.desired = Some((revision.clone(), images));
                Ok(missing.map(|why| match revision == self.expected.revision {
                    true => (
                        DeliveryOutcome::NotDesired,
                        format!(
                            "commit {} is synced, and {why}; check that the promotion changed what this application deploys",
                            revision.short()
                        ),
                    ),
                    false => (
                        DeliveryOutcome::Superseded,
                        format!(
                            "{} took over, and {why}; wait for that commit with its images",
                            revision.short()
                        ),
                    ),
                }))
            }
            Err(error) => {
                // Not every token may ask, and rendering may fail for a while: the wait goes on without the answer.
                self.trouble = Some(error.to_string());
                Ok(None)
            }
        }
    }
}
