//! The wait: look, judge, act, until the judgement is final. What is judged is in [`judge`](crate::judge).
//!
//! Two things wake it: the server's stream, which is quick and lossy, and the clock. Either way the next look is a GET.

use crate::config::{SERVICE, Trigger, WaitPolicy};
use crate::judge::{
    Ancestry, COMPARISON_ERRORS, Facts, OPERATION_MARK, Patience, Snapshot, Unmet, Verdict, git_revisions,
    judge, matching_revision,
};
use crate::wire::App;
use crate::{ApiError, ArgoCd, Refresh, SyncRequest, WatchEvent, WatchFilter, element, error};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::future::pending;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use towpath_core::{Cancellation, CommitSha, Deadline};
use towpath_elements::delivery::{DeliveryOutcome, DeliveryReport, Expected};
use towpath_elements::{Error, ErrorKind, Result};

/// How many syncs one wait asks for at most: a second one where the first was replaced by somebody else's.
const MOST_SYNCS: u32 = 3;

pub(crate) async fn wait(
    client: &ArgoCd,
    expected: Expected,
    cancellation: &Cancellation,
) -> Result<DeliveryReport> {
    if let Some(image) = expected.images.iter().find(|image| image.digest().is_none()) {
        return Err(
            Error::new(ErrorKind::Invalid, SERVICE, "wait for", &expected.application)
                .because(format!("the expected image {image} has no digest"))
                .advise("resolve the tag to a digest first; a tag can move"),
        );
    }
    let deadline = Deadline::after(expected.within);
    let mut wait = Wait::new(client, expected);
    let ended = tokio::select! {
        biased;
        () = cancellation.cancelled() => return Err(wait.error(ErrorKind::Cancelled).because(wait.waiting_for.clone())),
        result = tokio::time::timeout_at(deadline.instant(), wait.run()) => result,
    };
    match ended {
        Ok(Ok((outcome, reason))) => Ok(wait.report(outcome, reason)),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let mut reason = format!(
                "after {:?} still waiting for {}",
                wait.expected.within, wait.waiting_for
            );
            if let Some(trouble) = &wait.trouble {
                reason.push_str(&format!("; the last trouble on the way: {trouble}"));
            }
            Ok(wait.report(DeliveryOutcome::TimedOut, reason))
        }
    }
}

/// A refresh that is going on, and the end of the operation that had been seen when it began.
type Refreshing = BoxFuture<'static, (Option<Timestamp>, Result<App>)>;

struct Wait<'a> {
    client: &'a ArgoCd,
    policy: WaitPolicy,
    expected: Expected,
    patience: Patience,
    facts: Facts,
    snapshot: Option<Snapshot>,
    waiting_for: String,
    trouble: Option<String>,
    last_look: Instant,
    refreshing: Option<Refreshing>,
    next_refresh: Instant,
    refresh_pause: Duration,
    events: Option<BoxStream<'static, Result<WatchEvent>>>,
    syncs: u32,
    /// The mark on a sync that may or may not have reached the server.
    tentative: Option<String>,
    next_sync: Instant,
    degraded_since: Option<Instant>,
    comparison_error_since: Option<Instant>,
    held_since: Option<Instant>,
    looks_out_of_sync: u32,
}

impl<'a> Wait<'a> {
    fn new(client: &'a ArgoCd, expected: Expected) -> Self {
        let policy = client.wait_policy().clone();
        let now = Instant::now();
        Self {
            client,
            patience: Patience {
                degraded: policy.degraded_grace,
                comparison: policy.comparison_grace,
                accept_suspended: policy.accept_suspended,
            },
            facts: Facts {
                has_oracle: client.oracle().is_some(),
                ..Facts::default()
            },
            expected,
            snapshot: None,
            waiting_for: "a first answer".into(),
            trouble: None,
            last_look: now,
            refreshing: None,
            next_refresh: now,
            refresh_pause: policy.first_refresh,
            events: None,
            syncs: 0,
            tentative: None,
            next_sync: now,
            degraded_since: None,
            comparison_error_since: None,
            held_since: None,
            looks_out_of_sync: 0,
            policy,
        }
    }

    async fn run(&mut self) -> Result<(DeliveryOutcome, String)> {
        loop {
            self.last_look = Instant::now();
            match self.client.application(&self.expected.application).await {
                Ok(app) => {
                    self.observe(app)?;
                    let verdict = self.judged().await?;
                    tracing::debug!(application = %self.expected.application, ?verdict, "look");
                    let ended = match verdict {
                        Verdict::Live => Some((DeliveryOutcome::Live, self.evidence())),
                        Verdict::Ended(outcome, reason) => Some((outcome, reason)),
                        Verdict::Pending(unmet, what) => {
                            self.waiting_for = what;
                            self.act(&unmet).await?
                        }
                    };
                    if let Some(ended) = ended {
                        return Ok(ended);
                    }
                }
                Err(error) => self.pass(error)?,
            }
            self.pause().await;
        }
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
        self.facts.expected_seen |= revisions(&app)
            .iter()
            .any(|one| one == self.expected.revision.as_str());
        self.facts.may_sync = self.policy.trigger == Trigger::AsNeeded
            && !app.spec.syncs_itself()
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
                    match ancestry(self.client, &repository, &revision, &self.expected.revision).await {
                        Ok(ancestry) => self.facts.ancestry.insert(revision, ancestry),
                        Err(error) => {
                            self.pass(error)?;
                            return Ok(verdict);
                        }
                    };
                }
                Verdict::Pending(Unmet::Evidence, _) => {
                    let wanted: BTreeSet<String> =
                        self.expected.images.iter().map(|image| image.name()).collect();
                    match self
                        .client
                        .running_images(&self.expected.application, Some(&wanted))
                        .await
                    {
                        Ok(running) => {
                            if let Some(snapshot) = &mut self.snapshot {
                                snapshot.running = Some(running);
                            }
                        }
                        Err(error) => {
                            self.pass(error)?;
                            return Ok(verdict);
                        }
                    }
                }
                _ => {
                    self.clock(&verdict);
                    return Ok(verdict);
                }
            }
        }
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
            .is_some_and(|seen| seen.app.status.health.status == crate::wire::HealthCode::Degraded);
        lasting(
            &mut self.degraded_since,
            degraded && unmet == Some(&Unmet::Health),
        );
        lasting(
            &mut self.comparison_error_since,
            unmet == Some(&Unmet::Comparison),
        );
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

    /// Does what brings the unmet guard about. Gives an outcome where the server's answer is one.
    async fn act(&mut self, unmet: &Unmet) -> Result<Option<(DeliveryOutcome, String)>> {
        match unmet {
            Unmet::Revision | Unmet::Spec | Unmet::Comparison | Unmet::Conditions => self.refresh(false),
            // The first comparison that comes back may be one that was going on already: ask twice without a pause.
            Unmet::Reconciled => self.refresh(self.facts.refreshes_since_operation < 2),
            Unmet::Sync => return self.sync().await,
            Unmet::InSync if self.looks_out_of_sync % 5 == 2 => return self.held_by_a_window().await,
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
        let client = self.client.clone();
        let application = self.expected.application.clone();
        let within = self.policy.refresh_timeout;
        let ended = self.snapshot.as_ref().and_then(|seen| ended_at(&seen.app));
        self.refreshing = Some(
            async move {
                let _turn = client.refresh_turn().await;
                (
                    ended,
                    client.refreshed(&application, Refresh::Normal, within).await,
                )
            }
            .boxed(),
        );
    }

    fn refreshed(&mut self, ended: Option<Timestamp>, result: Result<App>) {
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

    /// Asks for a sync of the revision that was compared: the expected one, or one that contains it.
    async fn sync(&mut self) -> Result<Option<(DeliveryOutcome, String)>> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(None);
        };
        let application = &self.expected.application;
        if Instant::now() < self.next_sync {
            return Ok(None);
        }
        let revision = matching_revision(&snapshot.app, &self.expected.revision, &self.facts)
            .unwrap_or(self.expected.revision.as_str());
        let id = self
            .tentative
            .clone()
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let mut request = SyncRequest::default().info(OPERATION_MARK, &id);
        if snapshot.app.spec.sources.is_empty() {
            request.revisions = vec![revision.to_owned()];
        }
        self.next_sync = Instant::now() + self.policy.first_refresh;
        match self.client.sync_application(application, &request).await {
            Ok(_) => {
                self.syncs += 1;
                self.facts.operation_id = Some(id);
                self.tentative = None;
                Ok(None)
            }
            Err(error) => match ApiError::of(&error) {
                Some(refusal) if refusal.is_sync_window() => Ok(Some((
                    DeliveryOutcome::Rejected,
                    format!("a sync window forbids the sync: {}", refusal.message),
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
        match self.client.sync_windows(&self.expected.application).await {
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

    /// Sleeps until there may be something new.
    async fn pause(&mut self) {
        if self.events.is_none() && self.policy.stream && self.snapshot.is_some() {
            let seen = self
                .snapshot
                .as_ref()
                .and_then(|seen| seen.app.metadata.resource_version.clone());
            let filter = WatchFilter {
                resource_version: seen,
                ..WatchFilter::of(&self.expected.application)
            };
            self.events = Some(self.client.watch(filter));
        }
        let mut wake = self.last_look + self.policy.poll;
        if self.next_refresh > self.last_look {
            wake = wake.min(self.next_refresh);
        }
        if self.next_sync > self.last_look {
            wake = wake.min(self.next_sync);
        }
        if let Some(since) = self.held_since {
            wake = wake.min(since + self.expected.settle);
        }
        for (since, grace) in [
            (self.degraded_since, self.policy.degraded_grace),
            (self.comparison_error_since, self.policy.comparison_grace),
        ] {
            if let Some(since) = since {
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
                event = next(&mut self.events) => match event {
                    // What the last look has seen already is no news.
                    Some(Ok(WatchEvent::Changed(app)))
                        if app.metadata.version_number().is_some_and(|version| seen.is_some_and(|seen| version <= seen)) => {}
                    Some(Ok(_)) => break,
                    Some(Err(error)) => {
                        // Looking goes on without the stream.
                        tracing::debug!(%error, "the stream is given up");
                        self.trouble = Some(error.to_string());
                        self.policy.stream = false;
                        self.events = None;
                    }
                    None => {
                        self.policy.stream = false;
                        self.events = None;
                    }
                },
            }
        }
        sleep_until(self.last_look + self.policy.gap).await;
    }

    fn evidence(&self) -> String {
        let revision = self.expected.revision.short();
        match self.expected.images.len() {
            0 => format!("commit {revision} is synced and healthy"),
            1 => format!("commit {revision} is synced and healthy, and its image runs"),
            many => format!("commit {revision} is synced and healthy, and its {many} images run"),
        }
    }

    fn report(&self, outcome: DeliveryOutcome, reason: String) -> DeliveryReport {
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

/// Asks the oracle how a revision stands to the expected one.
async fn ancestry(
    client: &ArgoCd,
    repository: &str,
    revision: &str,
    expected: &CommitSha,
) -> Result<Ancestry> {
    let revision = CommitSha::new(revision)?;
    let Some(oracle) = client.oracle() else {
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

async fn finished(refreshing: &mut Option<Refreshing>) -> (Option<Timestamp>, Result<App>) {
    match refreshing {
        Some(refreshing) => refreshing.await,
        None => pending().await,
    }
}

async fn next(events: &mut Option<BoxStream<'static, Result<WatchEvent>>>) -> Option<Result<WatchEvent>> {
    match events {
        Some(events) => events.next().await,
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
