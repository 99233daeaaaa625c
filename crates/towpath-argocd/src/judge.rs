//! Whether what is expected runs: a pure judgement on one snapshot and on what the wait has learned so far.
//!
//! The snapshot is one GET of the application, and the pods read after it. Server times are compared with each other only,
//! never with this machine's clock. The order of the guards is the order in which a deployment comes to be, so that the
//! first one that does not hold is what the wait is waiting for.

mod revision;

pub(crate) use revision::revision_to_sync;
pub use revision::{git_revisions, matching_revision};

use crate::PausedAutoSync;
use crate::wire::{App, ComparedTo, Destination, HealthCode, OperationPhase, OperationState, SyncStatusCode};
use revision::matches_expected;
use std::collections::HashMap;
use std::time::Duration;
use towpath_core::CommitSha;
use towpath_elements::delivery::{DeliveryOutcome, Expected, RunningImage};

/// What was seen at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The application, from a GET: not from the stream, which lags and drops.
    pub app: App,
    /// What runs; `None` where it was not asked for.
    pub running: Option<Vec<RunningImage>>,
}

/// How a revision stands to the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ancestry {
    /// It contains the expected one.
    Descendant,
    /// The expected one contains it.
    Ancestor,
    /// Neither.
    Unrelated,
}

/// What the wait has learned so far.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The identity of the application when the wait began.
    pub uid: Option<String>,
    /// The revisions that were compared when the wait began.
    pub baseline: Vec<String>,
    /// Whether the expected revision was compared at some time during the wait.
    pub expected_seen: bool,
    /// How other revisions stand to the expected one.
    pub ancestry: HashMap<String, Ancestry>,
    /// Whether there is somebody to ask for that.
    pub has_oracle: bool,
    /// The mark on the sync that this wait asked for.
    pub operation_id: Option<String>,
    /// Whether this wait may ask for a sync now.
    pub may_sync: bool,
    /// How many refreshes were asked for, and came back, since the last operation was seen to have ended.
    pub refreshes_since_operation: u32,
    /// How long the expected revision has been degraded, or pods with an expected image have failed.
    pub degraded_for: Duration,
    /// The pods with an expected image that fail, and what for.
    pub failing_pods: Vec<String>,
    /// How long the server has been unable to compare.
    pub comparison_error_for: Duration,
    /// How many refreshes came back in this time without mending it. An error that was there before the wait may be
    /// about an older commit.
    pub comparisons_failed: u32,
    /// How long everything has held.
    pub held_for: Duration,
    /// In how many looks everything has held, this one not counted.
    pub held_looks: u32,
}

/// How patient the judgement is.
#[derive(Clone, Debug)]
pub struct Patience {
    /// With workloads of the expected revision that are degraded.
    pub degraded: Duration,
    /// With comparisons that fail.
    pub comparison: Duration,
    /// With a repository that cannot be reached.
    pub outage: Duration,
    /// Whether workloads that are paused on purpose count as healthy.
    pub accept_suspended: bool,
}

/// The name of the mark on a sync that this crate asks for.
pub const OPERATION_MARK: &str = "towpath/operation";

/// The conditions that say that the server cannot compare.
pub(crate) const COMPARISON_ERRORS: [&str; 2] = ["ComparisonError", "InvalidSpecError"];

/// What the judgement says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// What is expected runs.
    Live,
    /// Not yet: the first guard that does not hold, and a text that goes behind "waiting for".
    Pending(Unmet, String),
    /// It will not come to be.
    Ended(DeliveryOutcome, String),
}

/// The first guard that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// An operation is going on.
    Operation,
    /// The server cannot compare.
    Comparison,
    /// The status may be older than it looks.
    Conditions,
    /// How this revision of this repository stands to the expected one is not known: ask.
    Ancestry {
        /// The revision.
        revision: String,
        /// The repository.
        repository: String,
    },
    /// The server has not seen the expected revision.
    Revision,
    /// The verdict is about another spec.
    Spec,
    /// A sync has to be asked for.
    Sync,
    /// The server has to sync.
    InSync,
    /// There was no comparison since the last operation.
    Reconciled,
    /// The workloads are not healthy.
    Health,
    /// What runs was not asked for: ask.
    Evidence,
    /// Other images run, or none, or they are not ready.
    Images,
    /// It all holds, but not for long enough.
    Settled,
}

/// Judges a snapshot.
pub fn judge(snapshot: &Snapshot, expected: &Expected, facts: &Facts, patience: &Patience) -> Verdict {
    let case = Case {
        app: &snapshot.app,
        expected,
        facts,
        patience,
    };
    let missing = case
        .identity()
        .or_else(|| case.operation())
        .or_else(|| case.conditions())
        .or_else(|| case.revision())
        .or_else(|| case.spec())
        .or_else(|| case.in_sync())
        .or_else(|| case.reconciled())
        .or_else(|| case.health())
        .or_else(|| case.images(snapshot.running.as_deref()));
    if let Some(verdict) = missing {
        return verdict;
    }
    if facts.held_for >= expected.settle && (expected.settle.is_zero() || facts.held_looks > 0) {
        return Verdict::Live;
    }
    pending(
        Unmet::Settled,
        format!("all of it to hold for {:?}", expected.settle),
    )
}

fn pending(unmet: Unmet, what: impl Into<String>) -> Verdict {
    Verdict::Pending(unmet, what.into())
}

fn ended(outcome: DeliveryOutcome, why: impl Into<String>) -> Option<Verdict> {
    Some(Verdict::Ended(outcome, why.into()))
}

struct Case<'a> {
    app: &'a App,
    expected: &'a Expected,
    facts: &'a Facts,
    patience: &'a Patience,
}

impl Case<'_> {
    fn identity(&self) -> Option<Verdict> {
        let metadata = &self.app.metadata;
        if let (Some(was), Some(is)) = (&self.facts.uid, &metadata.uid)
            && was != is
        {
            return ended(
                DeliveryOutcome::Replaced,
                "the application was deleted and made anew during the wait; wait again",
            );
        }
        if metadata.deletion_timestamp.is_some() {
            return ended(
                DeliveryOutcome::Missing,
                "the application is being deleted; make it anew if it is to stay, and wait again",
            );
        }
        if metadata
            .annotations
            .get("argocd.argoproj.io/skip-reconcile")
            .is_some_and(|value| value == "true")
        {
            return ended(
                DeliveryOutcome::AutoSyncOff,
                "the annotation argocd.argoproj.io/skip-reconcile keeps the server from looking at the application; remove it",
            );
        }
        None
    }

    fn operation(&self) -> Option<Verdict> {
        let state = self.app.status.operation_state.as_ref();
        if self.app.operation.is_some() {
            // The server clears both in one step: whatever the phase says, the operation has not ended before.
            let Some(state) = state else {
                return Some(pending(Unmet::Operation, "the operation to start"));
            };
            let message = state.message.as_deref().unwrap_or_default();
            if message.contains("blocked by sync window") {
                return ended(
                    DeliveryOutcome::Rejected,
                    format!(
                        "a sync window holds the sync back ({message}); wait until it allows it, or change it"
                    ),
                );
            }
            let retried = if state.retry_count > 0 {
                format!(", retry {}", state.retry_count)
            } else {
                String::new()
            };
            let mut text = format!(
                "the operation on {} to end ({}{retried})",
                brief(&state.revisions()),
                state.phase
            );
            if !message.is_empty() {
                text.push_str(": ");
                text.push_str(message);
            }
            return Some(pending(Unmet::Operation, text));
        }
        let state = state?;
        if !state.phase.has_ended() {
            return Some(pending(Unmet::Operation, "the operation's end to be recorded"));
        }
        if state.phase == OperationPhase::Succeeded || !state.is_deployment() {
            return None;
        }
        // An older failure at this revision is no outcome where this wait can still ask for another sync.
        let ours = self.is_ours(state);
        if ours || (self.concerns_expected(state) && !self.facts.may_sync) {
            return ended(DeliveryOutcome::SyncFailed, failure(state));
        }
        None
    }

    fn conditions(&self) -> Option<Verdict> {
        let conditions = &self.app.status.conditions;
        let of = |kinds: &[&str]| {
            conditions
                .iter()
                .find(|condition| kinds.contains(&condition.kind.as_str()))
        };
        if let Some(error) = of(&COMPARISON_ERRORS) {
            let text = format!("{}: {}", error.kind, error.message);
            let grace = match is_outage(&error.message) {
                true => self.patience.outage,
                false => self.patience.comparison,
            };
            let lasting = self.facts.comparisons_failed > 0;
            return if lasting && self.facts.comparison_error_for >= grace {
                ended(
                    DeliveryOutcome::ComparisonError,
                    format!("{text}; mend what the repository says, and wait for that commit"),
                )
            } else {
                Some(pending(
                    Unmet::Comparison,
                    format!("the server to compare again ({text})"),
                ))
            };
        }
        if let Some(error) = of(&["UnknownError"]) {
            return Some(pending(
                Unmet::Conditions,
                format!("a status that can be trusted ({})", error.message),
            ));
        }
        let error = of(&["SyncError"])?;
        let about_expected = error.message.contains(self.expected.revision.as_str());
        if about_expected && !self.facts.may_sync {
            return ended(
                DeliveryOutcome::SyncFailed,
                format!(
                    "{}; the server does not try this revision again on its own: mend what it says, and sync",
                    error.message
                ),
            );
        }
        (self.matches() && !self.facts.may_sync).then(|| {
            pending(
                Unmet::Conditions,
                format!("the sync error to go away ({})", error.message),
            )
        })
    }

    fn spec(&self) -> Option<Verdict> {
        let ComparedTo {
            source,
            sources,
            destination,
        } = &self.app.status.sync.compared_to;
        let compared = if sources.is_empty() {
            source.as_slice()
        } else {
            sources
        };
        let same = compared == self.app.spec.effective_sources()
            && same_destination(destination, &self.app.spec.destination);
        (!same).then(|| {
            pending(
                Unmet::Spec,
                "the server to compare with the application's present spec",
            )
        })
    }

    fn in_sync(&self) -> Option<Verdict> {
        let state = self.app.status.operation_state.as_ref();
        match &self.app.status.sync.status {
            SyncStatusCode::Synced => {
                let failed = state.is_some_and(|state| {
                    state.is_deployment()
                        && state.phase != OperationPhase::Succeeded
                        && self.concerns_expected(state)
                });
                return failed.then(|| pending(Unmet::Sync, "a sync of this revision that succeeds"));
            }
            SyncStatusCode::OutOfSync => {}
            other => {
                return Some(pending(
                    Unmet::Comparison,
                    format!("a comparison with a result (it is {other})"),
                ));
            }
        }
        let done = state.filter(|state| {
            state.is_deployment() && state.phase == OperationPhase::Succeeded && self.concerns_expected(state)
        });
        if let Some(done) = done {
            if self.is_stale(done) {
                return Some(self.comparison_after(done));
            }
            let compared = self.app.status.sync.revision.as_str();
            if !self.app.spec.syncs_itself() && !compared.is_empty() && !done.revisions().contains(&compared)
            {
                return ended(
                    DeliveryOutcome::Superseded,
                    format!(
                        "{} was synced, and {} changes the application again and is not; sync that one, and wait for it",
                        brief(&done.revisions()),
                        short(compared)
                    ),
                );
            }
        }
        let unpruned = self.out_of_sync(true);
        if (done.is_some() || self.leaves_to_prune())
            && !unpruned.is_empty()
            && self.out_of_sync(false).is_empty()
        {
            return ended(
                DeliveryOutcome::SyncFailed,
                format!(
                    "the rest is synced, but {} must be pruned; sync with pruning",
                    unpruned.join(", ")
                ),
            );
        }
        let differs = || {
            let names = self.out_of_sync(false);
            match names.as_slice() {
                [] => String::new(),
                [one] => format!(" ({one} differs)"),
                many => format!(" ({} differ)", many.join(", ")),
            }
        };
        if self.app.spec.syncs_itself() {
            return Some(pending(
                Unmet::InSync,
                format!("the application to sync on its own{}", differs()),
            ));
        }
        let ours_ended = done.is_some_and(|state| self.is_ours(state));
        if self.facts.may_sync && !ours_ended {
            return Some(pending(Unmet::Sync, "a sync"));
        }
        if let Some(paused) = self.app.metadata.annotations.get(PausedAutoSync::ANNOTATION) {
            let known = PausedAutoSync::of(self.app).ok().flatten();
            let reason = known.map_or_else(|| paused.clone(), |known| known.reason);
            return ended(
                DeliveryOutcome::AutoSyncOff,
                format!(
                    "automatic sync is paused, and a sync would undo what it was paused for ({reason}); resume it, and wait again"
                ),
            );
        }
        if self.facts.operation_id.is_none() {
            return ended(
                DeliveryOutcome::AutoSyncOff,
                "the application does not sync on its own, and this wait may not ask for it; sync it",
            );
        }
        Some(pending(
            Unmet::InSync,
            format!("the cluster to have what the repository says{}", differs()),
        ))
    }

    /// Whether the application syncs on its own, and then deletes nothing.
    fn leaves_to_prune(&self) -> bool {
        let policy = self.app.spec.sync_policy.as_ref();
        let automated = policy.and_then(|policy| policy.automated.as_ref());
        self.app.spec.syncs_itself() && automated.is_some_and(|automated| automated.prune != Some(true))
    }

    fn reconciled(&self) -> Option<Verdict> {
        if self.app.status.reconciled_at.is_none() {
            return Some(pending(Unmet::Reconciled, "a first comparison"));
        }
        let state = self.app.status.operation_state.as_ref()?;
        (self.is_stale(state) && !self.is_borne_out(state)).then(|| self.comparison_after(state))
    }

    /// Whether a comparison of the same second needs no other one after it: the operation brought what is expected, so that
    /// what was in sync with that before its end is so afterwards, and the pods themselves say whether health was told too
    /// early.
    fn is_borne_out(&self, state: &OperationState) -> bool {
        self.app.status.reconciled_at == state.finished_at
            && !self.expected.images.is_empty()
            && self.concerns_expected(state)
    }

    fn health(&self) -> Option<Verdict> {
        let health = &self.app.status.health;
        let unhealthy = || {
            let mut texts: Vec<String> = health.message.clone().into_iter().collect();
            texts.extend(self.app.status.resources.iter().filter_map(|resource| {
                let own = resource.health.as_ref()?;
                (own.status == health.status && own.status != HealthCode::Healthy).then(|| {
                    let message = own.message.as_deref().unwrap_or("no message");
                    format!("{} {}: {message}", resource.kind, resource.name)
                })
            }));
            texts.truncate(5);
            if texts.is_empty() {
                String::new()
            } else {
                format!(": {}", texts.join("; "))
            }
        };
        match &health.status {
            HealthCode::Healthy => None,
            HealthCode::Suspended if self.patience.accept_suspended => None,
            HealthCode::Degraded | HealthCode::Progressing
                if self.facts.degraded_for >= self.patience.degraded
                    && (health.status == HealthCode::Degraded || !self.facts.failing_pods.is_empty()) =>
            {
                ended(
                    DeliveryOutcome::Degraded,
                    format!(
                        "the revision is synced and its workloads fail{}{}; mend what they lack, or deploy another commit",
                        unhealthy(),
                        self.failing()
                    ),
                )
            }
            other => Some(pending(
                Unmet::Health,
                format!(
                    "the workloads to be healthy (they are {other}{}{})",
                    unhealthy(),
                    self.failing()
                ),
            )),
        }
    }

    fn failing(&self) -> String {
        match self.facts.failing_pods.as_slice() {
            [] => String::new(),
            [one] => format!("; {one}"),
            [first, more @ ..] => format!("; {first}; and {} more pods", more.len()),
        }
    }

    fn images(&self, running: Option<&[RunningImage]>) -> Option<Verdict> {
        if self.expected.images.is_empty() {
            return None;
        }
        let Some(running) = running else {
            return Some(pending(Unmet::Evidence, "the pods to be read"));
        };
        let images = |text: String| Some(pending(Unmet::Images, text));
        for wanted in &self.expected.images {
            let name = wanted.name();
            let mut count = 0;
            for one in running.iter().filter(|one| one.image.name() == name) {
                count += 1;
                let Some(digest) = &one.digest else {
                    return images(format!("pod {} to pull {name}", one.pod));
                };
                if Some(digest) != wanted.digest() && !self.expected.platform_digests.contains(digest) {
                    return images(format!("pod {} to stop running {name}@{digest}", one.pod));
                }
                if !one.ready {
                    return images(format!("pod {} to be ready", one.pod));
                }
            }
            if count == 0 {
                return images(format!("a pod that runs {name}"));
            }
        }
        None
    }

    fn is_ours(&self, state: &OperationState) -> bool {
        self.facts
            .operation_id
            .as_deref()
            .is_some_and(|id| state.operation.carries(OPERATION_MARK, id))
    }

    fn concerns_expected(&self, state: &OperationState) -> bool {
        let hydrated = self.app.status.source_hydrator.last_successful_operation.as_ref();
        state.revisions().iter().any(|revision| {
            matches_expected(revision, &self.expected.revision, self.facts)
                || hydrated.is_some_and(|last| {
                    last.hydrated_sha == *revision
                        && matches_expected(&last.dry_sha, &self.expected.revision, self.facts)
                })
        })
    }

    /// Whether the last comparison may have begun before this operation ended. Both times are whole seconds: within the
    /// same one, only a comparison that was asked for afterwards counts, and the first that came back may have been
    /// another one that was already going on.
    fn is_stale(&self, state: &OperationState) -> bool {
        let dry = state.operation.sync.as_ref().is_some_and(|sync| sync.dry_run);
        match (self.app.status.reconciled_at, state.finished_at) {
            _ if dry => false,
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(compared), Some(ended)) if compared == ended => self.facts.refreshes_since_operation < 2,
            (Some(compared), Some(ended)) => compared < ended,
        }
    }

    fn comparison_after(&self, state: &OperationState) -> Verdict {
        pending(
            Unmet::Reconciled,
            format!("a comparison after the sync of {}", brief(&state.revisions())),
        )
    }

    /// The resources that are not as the repository says: those to prune, or the others.
    fn out_of_sync(&self, to_prune: bool) -> Vec<String> {
        let resources = self.app.status.resources.iter();
        resources
            .filter(|resource| {
                resource.status == SyncStatusCode::OutOfSync && resource.requires_pruning == to_prune
            })
            .map(|resource| format!("{} {}", resource.kind, resource.name))
            .take(5)
            .collect()
    }
}

/// Whether a failed comparison is about reaching the repository, which passes without a commit. What the server wraps is
/// the text of git, of gRPC or of the network.
fn is_outage(message: &str) -> bool {
    const SIGNS: [&str; 14] = [
        "timeout",
        "timed out",
        "deadline exceeded",
        "code = unavailable",
        "not accessible",
        "connection re",
        "no route to host",
        "no such host",
        "could not resolve host",
        "unexpected eof",
        "tls handshake",
        "bad gateway",
        "service unavailable",
        "too many requests",
    ];
    let message = message.to_ascii_lowercase();
    SIGNS.iter().any(|sign| message.contains(sign))
}

fn same_destination(a: &Destination, b: &Destination) -> bool {
    fn either<'a>(one: &'a Option<String>, other: &'a Option<String>) -> Option<(&'a str, &'a str)> {
        let given = |text: &'a Option<String>| text.as_deref().filter(|text| !text.is_empty());
        Some((given(one)?, given(other)?))
    }
    // Servers fill in the address for the name and the other way round: compare what both have.
    a.namespace.as_deref().unwrap_or_default() == b.namespace.as_deref().unwrap_or_default()
        && [either(&a.server, &b.server), either(&a.name, &b.name)]
            .into_iter()
            .flatten()
            .all(|(one, other)| one == other)
        && (either(&a.server, &b.server).is_some() || either(&a.name, &b.name).is_some() || a == b)
}

fn failure(state: &OperationState) -> String {
    let mut text = format!(
        "the sync of {} ended as {}: {}",
        brief(&state.revisions()),
        state.phase,
        state.message.as_deref().unwrap_or("no message"),
    );
    let results = state.sync_result.iter().flat_map(|result| &result.resources);
    let failed = results
        .filter(|one| one.status == "SyncFailed" || matches!(one.hook_phase.as_str(), "Failed" | "Error"));
    for resource in failed.take(5) {
        text.push_str(&format!(
            "; {} {}: {}",
            resource.kind, resource.name, resource.message
        ));
    }
    text.push_str("; mend what it says, and sync again or deploy another commit");
    text
}

fn short(revision: &str) -> &str {
    match CommitSha::new(revision) {
        Ok(_) => &revision[..10],
        Err(_) if revision.is_empty() => "nothing yet",
        Err(_) => revision,
    }
}

fn brief(revisions: &[&str]) -> String {
    match revisions {
        [] => "nothing yet".to_owned(),
        many => many
            .iter()
            .map(|revision| short(revision))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

#[cfg(test)]
mod tests;
