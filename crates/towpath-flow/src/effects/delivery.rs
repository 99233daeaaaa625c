//! Element F: Argo CD sees the commit, and brings it to the cluster.

use crate::effect::evidence;
use crate::{Effect, Elements, Evidence};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use towpath_core::wait::{self, Judgement, Outcome};
use towpath_core::{Application, CommitSha, RepoSlug};
use towpath_elements::delivery::{DeliveryOutcome, DeliveryReport, DeliveryStatus, Expected};
use towpath_elements::{Error, ErrorKind, Result};

/// After so many looks at an old revision the server is asked to look itself: its webhook may have been lost.
const LOOKS_BEFORE_REFRESH: u32 = 3;

/// Waits until the delivery system has looked at a commit, or at one that contains it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeRevision {
    /// The application.
    pub application: Application,
    /// The deployment repository.
    pub repository: RepoSlug,
    /// The commit.
    pub revision: CommitSha,
    /// How long to wait at most.
    pub within: Duration,
}

impl NoticeRevision {
    async fn has_seen(&self, elements: &Elements, status: &DeliveryStatus) -> Result<bool> {
        let Some(seen) = status
            .revision
            .as_ref()
            .and_then(|text| text.parse::<CommitSha>().ok())
        else {
            return Ok(false);
        };
        if seen == self.revision {
            return Ok(true);
        }
        Ok(elements
            .source()?
            .ancestry(&self.repository, &self.revision, &seen)
            .await?
            .contains_base())
    }

    async fn look(&self, elements: &Elements, looks: &AtomicU32) -> Result<(DeliveryStatus, bool)> {
        let delivery = elements.delivery()?;
        let look = looks.fetch_add(1, Ordering::Relaxed) + 1;
        if look.is_multiple_of(LOOKS_BEFORE_REFRESH) {
            // A refresh that fails or hangs proves nothing; the look that follows decides.
            if let Err(error) = delivery.refresh(&self.application).await {
                tracing::debug!(%error, "the refresh failed");
            }
        }
        let status = delivery.status(&self.application).await?;
        let seen = self.has_seen(elements, &status).await?;
        Ok((status, seen))
    }
}

#[async_trait]
impl Effect for NoticeRevision {
    const NAME: &'static str = "delivery.notice";
    type Output = DeliveryStatus;

    fn title(&self) -> String {
        format!("wait for {} to see {}", self.application, self.revision.short())
    }

    fn evidence(&self, status: &DeliveryStatus) -> Evidence {
        evidence([
            ("application", self.application.to_string()),
            ("revision", status.revision.clone().unwrap_or_default()),
        ])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<DeliveryStatus>> {
        let status = elements.delivery()?.status(&self.application).await?;
        Ok(self.has_seen(elements, &status).await?.then_some(status))
    }

    async fn apply(&self, elements: &Elements) -> Result<DeliveryStatus> {
        let looks = AtomicU32::new(0);
        let outcome = wait::until(
            &elements.policy().clone().within(self.within),
            elements.cancellation(),
            || self.look(elements, &looks),
            Error::retry,
            |(status, seen)| match seen {
                true => Judgement::Met,
                false => Judgement::pending(format!(
                    "Argo CD to look at {} (it last looked at {})",
                    self.revision.short(),
                    status
                        .revision
                        .as_deref()
                        .map_or("nothing", |revision| revision.get(..10).unwrap_or(revision)),
                )),
            },
        )
        .await;
        let error = |kind| Error::new(kind, "Argo CD", "see the new commit in", &self.application);
        match outcome {
            Outcome::Met((status, _)) => Ok(status),
            Outcome::Cancelled { .. } => Err(error(ErrorKind::Cancelled)),
            Outcome::Blind { error, .. } => Err(error),
            Outcome::TimedOut {
                waiting_for,
                elapsed,
                error: last,
                ..
            } => {
                let timed_out = error(ErrorKind::TimedOut)
                    .because(format!("after {elapsed:.1?}, still waiting for {waiting_for}"))
                    .advise(
                        "check the webhook from the repository to Argo CD, the application's source, \
                         and whether its controller runs",
                    );
                Err(match last {
                    Some(last) => timed_out.caused_by(last),
                    None => timed_out,
                })
            }
            other => Err(error(ErrorKind::Protocol).because(format!("the wait ended as {other:?}"))),
        }
    }
}

/// Waits until a commit is synced, healthy, and its images run by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitLive {
    /// What shall run.
    pub expected: Expected,
}

#[async_trait]
impl Effect for AwaitLive {
    const NAME: &'static str = "delivery.await_live";
    const FRESH: bool = true;
    type Output = DeliveryReport;

    fn title(&self) -> String {
        format!("wait for {} to run", self.expected.application)
    }

    fn evidence(&self, report: &DeliveryReport) -> Evidence {
        let mut running: Vec<String> = report
            .running
            .iter()
            .filter(|running| {
                self.expected
                    .images
                    .iter()
                    .any(|image| image.name() == running.image.name())
            })
            .filter_map(|running| running.digest.as_ref().map(ToString::to_string))
            .collect();
        running.sort();
        running.dedup();
        evidence([
            ("running digest", running.join(", ")),
            ("delivery", report.reason.clone()),
        ])
    }

    async fn observe(&self, _: &Elements) -> Result<Option<DeliveryReport>> {
        // The wait itself looks first, and what is live already costs it no change.
        Ok(None)
    }

    async fn apply(&self, elements: &Elements) -> Result<DeliveryReport> {
        let report = elements
            .delivery()?
            .wait(self.expected.clone(), elements.cancellation())
            .await?;
        let kind = match report.outcome {
            DeliveryOutcome::Live => return Ok(report),
            DeliveryOutcome::TimedOut => ErrorKind::TimedOut,
            DeliveryOutcome::Rejected => ErrorKind::Denied,
            DeliveryOutcome::ComparisonError => ErrorKind::Invalid,
            _ => ErrorKind::Conflict,
        };
        Err(Error::new(
            kind,
            "Argo CD",
            "bring to the cluster",
            &self.expected.application,
        )
        .because(format!("{:?}: {}", report.outcome, report.reason)))
    }
}
