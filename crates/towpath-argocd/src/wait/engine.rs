//! One wait. Two things wake it: the news of changes, which are quick and lossy, and the clock. Either way the next look is
//! a GET.

mod acting;

use super::{Backend, Change, Changes, Progress, Waiter};
use crate::config::{SERVICE, Trigger, WaitPolicy};
use crate::judge::{
    Ancestry, Facts, OPERATION_MARK, Patience, Snapshot, Unmet, Verdict, git_revisions, judge,
    matching_revision,
};
use crate::wire::{App, HealthCode};
use crate::{PausedAutoSync, element, error, evidence};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::future::pending;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use towpath_core::{Application, CommitSha, ImageRef};
use towpath_elements::delivery::{DeliveryOutcome, DeliveryReport, Expected};
use towpath_elements::{Error, ErrorKind, Result};

/// How many syncs one wait asks for at most: a second one where the first was replaced by somebody else's.
const MOST_SYNCS: u32 = 3;

/// A refresh that is going on, and the end of the operation that had been seen when it began.
type Refreshing = BoxFuture<'static, (Option<Timestamp>, Result<App>)>;

pub(super) struct Wait<'a> {
    waiter: &'a Waiter,
    policy: WaitPolicy,
    expected: Expected,
    patience: Patience,
    facts: Facts,
    snapshot: Option<Snapshot>,
    waiting_for: String,
    unmet: Option<Unmet>,
    trouble: Option<String>,
    last_look: Instant,
    refreshing: Option<Refreshing>,
    next_refresh: Instant,
    refresh_pause: Duration,
    changes: Option<Changes>,
    looks: u32,
    /// Since when the application is not to be found, although it was.
    missing_since: Option<Instant>,
    /// The images that the manifests of the matching revision ask for, and that revision.
    desired: Option<(CommitSha, Vec<String>)>,
    syncs: u32,
    /// The mark on a sync that may or may not have reached the server.
    tentative: Option<String>,
    next_sync: Instant,
    degraded_since: Option<Instant>,
    comparison_error_since: Option<Instant>,
    held_since: Option<Instant>,
    looks_out_of_sync: u32,
    /// How many looks have failed since the last one that did not.
    looks_failed: u32,
    /// When the pods are read for why health is lacking.
    next_pods: Instant,
    pods_pause: Duration,
}

impl<'a> Wait<'a> {
    pub(super) fn new(waiter: &'a Waiter, expected: Expected) -> Self {
        let policy = waiter.policy.clone();
        let now = Instant::now();
        Self {
            waiter,
            patience: Patience {
                degraded: policy.degraded_grace,
                comparison: policy.comparison_grace,
                outage: policy.outage_grace,
                accept_suspended: policy.accept_suspended,
            },
            facts: Facts {
                has_oracle: waiter.oracle.is_some(),
                ..Facts::default()
            },
            expected,
            snapshot: None,
            waiting_for: "a first answer".into(),
            unmet: None,
            trouble: None,
            last_look: now,
            refreshing: None,
            next_refresh: now,
            refresh_pause: policy.first_refresh,
            changes: None,
            looks: 0,
            missing_since: None,
            desired: None,
            syncs: 0,
            tentative: None,
            next_sync: now,
            degraded_since: None,
            comparison_error_since: None,
            held_since: None,
            looks_out_of_sync: 0,
            looks_failed: 0,
            next_pods: now,
            pods_pause: policy.first_refresh,
            policy,
        }
    }

    pub(super) async fn run(&mut self) -> Result<(DeliveryOutcome, String)> {
        // Before the first look, so that no change falls in between.
        if self.policy.stream {
            self.changes = Some(self.backend().changes(&self.expected.application));
        }
        loop {
            self.last_look = Instant::now();
            self.looks = self.looks.wrapping_add(1);
            if let Some(ended) = self.step().await? {
                return Ok(ended);
            }
            self.pause().await;
        }
    }

    /// One look, and what follows from it.
    async fn step(&mut self) -> Result<Option<(DeliveryOutcome, String)>> {
        match self.backend().application(&self.expected.application).await {
            Ok(app) => self.observe(app)?,
            Err(error) if error.is_not_found() => return self.missing(error),
            Err(error) => return self.unseen(error).map(|()| None),
        }
        self.read_failing_pods().await;
        let verdict = self.judged().await?;
        tracing::debug!(application = %self.expected.application, ?verdict, "look");
        match verdict {
            Verdict::Live => Ok(Some((DeliveryOutcome::Live, self.success()))),
            Verdict::Ended(outcome, reason) => Ok(Some((outcome, reason))),
            Verdict::Pending(unmet, what) => {
                self.progress(&unmet, what);
                self.act(&unmet).await
            }
        }
    }

    fn backend(&self) -> &'a Arc<dyn Backend> {
        &self.waiter.backend
    }

    /// An application that was never there is an error, unless it may still appear; one that went is an outcome, once a
    /// second look has confirmed it.
    fn missing(&mut self, error: Error) -> Result<Option<(DeliveryOutcome, String)>> {
        let since = *self.missing_since.get_or_insert(self.last_look);
        let lasted = since.elapsed();
        if self.snapshot.is_none() {
            if lasted >= self.policy.appearance {
                return Err(error);
            }
            self.waiting_for = "the application to appear".into();
        } else if lasted >= self.policy.first_refresh {
            let reason = format!(
                "it was there when the wait began, and now it is gone or may no longer be seen ({error}); wait again once it is back"
            );
            return Ok(Some((DeliveryOutcome::Missing, reason)));
        } else {
            self.waiting_for = "the application to be there again".into();
        }
        self.trouble = Some(error.to_string());
        Ok(None)
    }

    fn progress(&mut self, unmet: &Unmet, waiting_for: String) {
        if self.waiting_for != waiting_for
            && let Some(hear) = &self.waiter.progress
        {
            hear(&Progress {
                application: self.expected.application.clone(),
                unmet: unmet.clone(),
                waiting_for: waiting_for.clone(),
            });
        }
        self.waiting_for = waiting_for;
        self.unmet = Some(unmet.clone());
    }

    /// Asks the oracle how a revision stands to the expected one.
    async fn ancestry(&mut self, repository: &str, revision: &str) -> Result<Ancestry> {
        let (revision, expected) = (CommitSha::new(revision)?, &self.expected.revision);
        let Some(oracle) = &self.waiter.oracle else {
            return Ok(Ancestry::Unrelated);
        };
        if oracle.contains(repository, &revision, expected).await? {
            return Ok(Ancestry::Descendant);
        }
        Ok(match oracle.contains(repository, expected, &revision).await? {
            true => Ancestry::Ancestor,
            false => Ancestry::Unrelated,
        })
    }

    /// Keeps a failure that may pass, and gives back the others.
    fn pass(&mut self, error: Error) -> Result<()> {
        if !error::may_pass(&error) {
            return Err(error);
        }
        tracing::debug!(%error, "trouble during a wait");
        self.trouble = Some(error.to_string());
        Ok(())
    }

    /// Keeps the failure of a look. What nobody saw has not held.
    fn unseen(&mut self, error: Error) -> Result<()> {
        self.pass(error)?;
        self.looks_failed += 1;
        self.held_since = None;
        self.facts.held_looks = 0;
        Ok(())
    }

    /// Takes in a look at the application.
    fn observe(&mut self, app: App) -> Result<()> {
        if self.snapshot.is_none() {
            if !app.spec.effective_sources().iter().any(|source| source.is_git()) {
                return Err(self
                    .error(ErrorKind::Invalid)
                    .because("none of the application's sources is a git repository, so that no commit can be expected"));
            }
            self.facts.uid.clone_from(&app.metadata.uid);
            self.facts.baseline = revisions(&app);
        }
        let before = self.snapshot.as_ref().map(|seen| &seen.app);
        if before.is_none_or(|before| ended_at(before) != ended_at(&app)) {
            self.facts.refreshes_since_operation = 0;
        }
        if before.is_some_and(|before| revisions(before) != revisions(&app)) {
            self.refresh_pause = self.policy.first_refresh;
        }
        let seen = |id: &str| {
            let state = app.status.operation_state.as_ref().map(|state| &state.operation);
            [app.operation.as_ref(), state]
                .into_iter()
                .flatten()
                .any(|one| one.carries(OPERATION_MARK, id))
        };
        if self.tentative.as_deref().is_some_and(seen) {
            self.facts.operation_id = self.tentative.take();
        }
        self.missing_since = None;
        self.facts.expected_seen |= revisions(&app)
            .iter()
            .any(|one| one == self.expected.revision.as_str());
        self.facts.may_sync = self.policy.trigger == Trigger::AsNeeded
            && !app.spec.syncs_itself()
            && !app.metadata.annotations.contains_key(PausedAutoSync::ANNOTATION)
            && self.syncs < MOST_SYNCS
            && self
                .facts
                .operation_id
                .as_deref()
                .is_none_or(|id| app.operation.is_none() && !seen(id));
        self.snapshot = Some(Snapshot { app, running: None });
        Ok(())
    }

    /// Judges the last look, after asking for what the judgement lacks.
    async fn judged(&mut self) -> Result<Verdict> {
        loop {
            let Some(snapshot) = &self.snapshot else {
                return Ok(Verdict::Pending(Unmet::Comparison, "a first answer".into()));
            };
            let since = |then: Option<Instant>| then.map(|then| then.elapsed()).unwrap_or_default();
            self.facts.degraded_for = since(self.degraded_since);
            self.facts.comparison_error_for = since(self.comparison_error_since);
            self.facts.held_for = since(self.held_since);
            let verdict = judge(snapshot, &self.expected, &self.facts, &self.patience);
            match &verdict {
                Verdict::Pending(Unmet::Ancestry { revision, repository }, _) => {
                    let (revision, repository) = (revision.clone(), repository.clone());
                    match self.ancestry(&repository, &revision).await {
                        Ok(ancestry) => self.facts.ancestry.insert(revision, ancestry),
                        Err(error) => {
                            self.unseen(error)?;
                            return Ok(verdict);
                        }
                    };
                }
                Verdict::Pending(Unmet::Evidence, _) => {
                    let wanted: BTreeSet<String> =
                        self.expected.images.iter().map(|image| image.name()).collect();
                    let running = self.backend().running_images(&self.expected.application, &wanted);
                    match running.await {
                        Ok(running) => {
                            if let Some(snapshot) = &mut self.snapshot {
                                snapshot.running = Some(running);
                            }
                        }
                        Err(error) => {
                            // The pods are read where health holds.
                            self.degraded_since = None;
                            self.unseen(error)?;
                            return Ok(verdict);
                        }
                    }
                }
                _ => {
                    self.looks_failed = 0;
                    self.clock(&verdict);
                    return Ok(verdict);
                }
            }
        }
    }

    /// Whether health was what the last look that was judged lacked.
    fn lacks_health(&self) -> bool {
        self.unmet == Some(Unmet::Health)
    }

    /// While workloads are not healthy, their pods say why, and sooner: a Deployment waits ten minutes before it gives up on
    /// an image that cannot be pulled. Once one fails, each look reads them again: no wait ends for a pod that has recovered.
    async fn read_failing_pods(&mut self) {
        let health = self.snapshot.as_ref().map(|seen| &seen.app.status.health.status);
        let due = self.lacks_health() && Instant::now() >= self.next_pods;
        if health == Some(&HealthCode::Healthy) || (self.facts.failing_pods.is_empty() && !due) {
            return;
        }
        match self.backend().failing_pods(&self.expected.application).await {
            Ok(pods) => {
                let wanted = |image: &String| {
                    let image = image.parse::<ImageRef>();
                    image.is_ok_and(|image| {
                        self.expected
                            .images
                            .iter()
                            .any(|one| one.digest() == image.digest())
                    })
                };
                let pods = pods.into_iter().filter(|pod| pod.images.iter().any(wanted));
                self.facts.failing_pods = pods
                    .map(|pod| format!("pod {}: {}", pod.name, pod.message))
                    .collect();
            }
            Err(error) => {
                self.facts.failing_pods.clear();
                self.trouble = Some(error.to_string());
            }
        }
        self.next_pods = Instant::now() + self.pods_pause;
        self.pods_pause = (self.pods_pause * 2).min(self.policy.longest_refresh);
    }

    /// Keeps the times for which a state must last before it counts.
    fn clock(&mut self, verdict: &Verdict) {
        let now = Instant::now();
        let unmet = match verdict {
            Verdict::Pending(unmet, _) => Some(unmet),
            _ => None,
        };
        let lasting = |since: &mut Option<Instant>, lasts: bool| {
            *since = lasts.then(|| since.unwrap_or(now));
        };
        let degraded = self
            .snapshot
            .as_ref()
            .is_some_and(|seen| seen.app.status.health.status == HealthCode::Degraded);
        lasting(
            &mut self.degraded_since,
            (degraded || !self.facts.failing_pods.is_empty()) && unmet == Some(&Unmet::Health),
        );
        lasting(
            &mut self.comparison_error_since,
            unmet == Some(&Unmet::Comparison),
        );
        if unmet != Some(&Unmet::Health) {
            self.facts.failing_pods.clear();
        } else if !self.lacks_health() {
            self.pods_pause = self.policy.first_refresh;
            self.next_pods = now + self.pods_pause;
        }
        if self.comparison_error_since.is_none() {
            self.facts.comparisons_failed = 0;
        }
        let settling = unmet == Some(&Unmet::Settled);
        lasting(&mut self.held_since, settling);
        self.facts.held_looks = if settling { self.facts.held_looks + 1 } else { 0 };
        self.looks_out_of_sync = if unmet == Some(&Unmet::InSync) {
            self.looks_out_of_sync + 1
        } else {
            0
        };
    }

    /// Sleeps until there may be something new.
    async fn pause(&mut self) {
        let soon = |pause: Duration| self.last_look + jittered(pause, &self.expected.application, self.looks);
        let mut wake = soon(self.policy.poll);
        if self.looks_failed > 0 {
            let doublings = (self.looks_failed - 1).min(10);
            wake = wake.min(soon(self.policy.first_refresh * (1 << doublings)));
        }
        let pods = self.lacks_health().then_some(self.next_pods);
        for due in [self.next_refresh, self.next_sync].into_iter().chain(pods) {
            if due > self.last_look {
                wake = wake.min(due);
            }
        }
        for (since, grace) in [
            (self.held_since, self.expected.settle),
            (self.degraded_since, self.policy.degraded_grace),
            (self.comparison_error_since, self.policy.comparison_grace),
            (self.comparison_error_since, self.policy.outage_grace),
            (self.missing_since, self.policy.first_refresh),
        ] {
            if let Some(since) = since
                && since + grace > self.last_look
            {
                wake = wake.min(since + grace);
            }
        }
        let seen = self
            .snapshot
            .as_ref()
            .and_then(|seen| seen.app.metadata.version_number());
        loop {
            tokio::select! {
                () = sleep_until(wake) => break,
                (ended, result) = finished(&mut self.refreshing) => {
                    self.refreshed(ended, result);
                    break;
                }
                change = next(&mut self.changes) => match change {
                    // What the last look has seen already is no news.
                    Some(Ok(change)) if change.version.is_some_and(|version| seen.is_some_and(|seen| version <= seen)) => {}
                    Some(Ok(_)) => break,
                    ended => {
                        // Looking goes on without it.
                        if let Some(Err(error)) = ended {
                            tracing::debug!(%error, "no more changes are told");
                            self.trouble = Some(error.to_string());
                        }
                        self.changes = None;
                    }
                },
            }
        }
        sleep_until(self.last_look + self.policy.gap).await;
    }

    pub(super) fn cancelled(&self) -> Error {
        self.error(ErrorKind::Cancelled)
            .because(format!("while waiting for {}", self.waiting_for))
    }

    /// Why the deadline was met.
    pub(super) fn timed_out(&self) -> String {
        let mut reason = format!(
            "after {:?} still waiting for {}",
            self.expected.within, self.waiting_for
        );
        if let Some(advice) = self.unmet.as_ref().and_then(advice) {
            reason.push_str(&format!("; {advice}"));
        }
        if self.unmet == Some(Unmet::Revision) && !self.facts.has_oracle {
            reason.push_str("; a newer commit that contains it counts only with a revision oracle");
        }
        if let Some(snapshot) = &self.snapshot {
            let desired = self.desired.as_ref().map(|(_, images)| images.as_slice());
            for image in &self.expected.images {
                reason.push_str(&format!(
                    "; {}",
                    evidence::levels(snapshot, desired, image, &self.expected)
                ));
            }
        }
        if let Some(trouble) = &self.trouble {
            reason.push_str(&format!("; the last trouble on the way: {trouble}"));
        }
        reason
    }

    fn success(&self) -> String {
        let wanted = self.expected.revision.short();
        let newer = self.snapshot.as_ref().and_then(|seen| {
            let there = matching_revision(&seen.app, &self.expected.revision, &self.facts)?;
            let there = CommitSha::new(there).ok()?;
            (there != self.expected.revision).then(|| there.short().to_owned())
        });
        let commit = match newer {
            Some(newer) => format!("commit {newer}, which contains {wanted},"),
            None => format!("commit {wanted}"),
        };
        match self.expected.images.len() {
            0 => format!("{commit} is synced and healthy"),
            1 => format!("{commit} is synced and healthy, and the image runs"),
            many => format!("{commit} is synced and healthy, and the {many} images run"),
        }
    }

    pub(super) fn report(&self, outcome: DeliveryOutcome, reason: String) -> DeliveryReport {
        let snapshot = self.snapshot.as_ref();
        DeliveryReport {
            outcome,
            reason,
            status: snapshot.map(|seen| element::status_of(&self.expected.application, &seen.app)),
            running: snapshot.and_then(|seen| seen.running.clone()).unwrap_or_default(),
        }
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, SERVICE, "wait for", &self.expected.application)
    }
}

async fn finished(refreshing: &mut Option<Refreshing>) -> (Option<Timestamp>, Result<App>) {
    match refreshing {
        Some(refreshing) => refreshing.await,
        None => pending().await,
    }
}

async fn next(changes: &mut Option<Changes>) -> Option<Result<Change>> {
    match changes {
        Some(changes) => changes.next().await,
        None => pending().await,
    }
}

fn revisions(app: &App) -> Vec<String> {
    git_revisions(app)
        .into_iter()
        .map(|(_, revision)| revision.to_owned())
        .collect()
}

fn ended_at(app: &App) -> Option<Timestamp> {
    app.status
        .operation_state
        .as_ref()
        .and_then(|state| state.finished_at)
}

/// What to do about a guard that has not come to hold within the time given.
fn advice(unmet: &Unmet) -> Option<&'static str> {
    Some(match unmet {
        Unmet::Revision => {
            "check that the server can reach the repository, and that the commit is on the application's target revision, to \
             which a rollback by the server does not lead"
        }
        Unmet::Health | Unmet::Images | Unmet::Evidence => {
            "look at the events and logs of the application's pods, or wait for longer"
        }
        Unmet::InSync | Unmet::Sync => {
            "look at the application's conditions and sync windows, and sync it by hand"
        }
        Unmet::Operation => "look at the operation, and terminate it if it does not end",
        Unmet::Comparison | Unmet::Conditions | Unmet::Reconciled | Unmet::Spec => {
            "look at the application's conditions, and whether its controller runs"
        }
        _ => return None,
    })
}

/// Between four and six fifths of a pause, so that many waits do not look at once; the same each time it is asked.
fn jittered(pause: Duration, application: &Application, look: u32) -> Duration {
    let mut hasher = DefaultHasher::new();
    (application, look).hash(&mut hasher);
    pause * 4 / 5 + pause * (hasher.finish() % 1000) as u32 / 2500
}
