//! What a test turns to make Argo CD late, lossy or broken, each in a way that the real one is known to be.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The ways in which this Argo CD misbehaves; by default in none. Times pass on the lab's clock, which
/// [`ArgoCd::advance`](super::ArgoCd::advance) puts forward.
///
/// The numbers in parentheses are those of the races that a knob brings about. The other races need no knob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnobSettings {
    /// This many refresh requests, from the API or a webhook, are dropped: the call returns and nothing was looked
    /// at. `u32::MAX` drops them all. (R2; argo-cd issues 28306 and 28392)
    pub lose_refresh: u32,
    /// A refresh is asked for and never done: the call blocks until its caller gives up.
    pub refresh_hangs: bool,
    /// Comparisons stop after they have looked at git and the cluster, and before they write what they found, until this
    /// is taken back. Whatever is committed or edited meanwhile, they do not know of. (R2, R8, R11)
    /// [`ArgoCd::held_comparisons`](super::ArgoCd::held_comparisons) counts those that have stopped.
    pub hold_comparisons: bool,
    /// This many held comparisons go on although they are held.
    pub pass_comparisons: u32,
    /// How long an accepted operation waits before the controller picks it up. (R3)
    pub delay_pickup: Duration,
    /// Operations stay `Running` before anything is applied, until this is taken back.
    pub hold_operations: bool,
    /// This many sync requests are refused because somebody else's operation is in the way. (R5)
    pub operation_conflict: u32,
    /// This many attempts of operations fail; with a retry policy the operation then waits as `Running` with a
    /// `finishedAt`. (R7)
    pub fail_attempts: u32,
    /// This many Jobs fail: the hooks that are Jobs, and with them the operation.
    pub fail_jobs: u32,
    /// How long after an operation the status keeps showing what was there before it. (R4, R10)
    pub stale_health_after_sync: Duration,
    /// A comparison that began before an operation did its work is what is reported when it has ended, with the very
    /// second of the operation's `finishedAt`. (R4)
    pub same_second_reconcile: bool,
    /// After an operation that was asked for by hand, the comparison believes the cached revision, so that an
    /// Application that syncs on its own goes back to it until the cache expires, as before 2.12. (R6; argo-cd issue
    /// 10367)
    pub auto_sync_reverts: bool,
    /// After every operation the health goes bad and good again. (R10)
    pub health_flap: Option<HealthFlap>,
    /// Every access to git fails with this message. (R9)
    pub repo_error: Option<String>,
    /// How long the list and the stream lag behind a GET: they come from the informer's cache. (R17)
    pub informer_lag: Duration,
    /// This many events are dropped from the streams. `u32::MAX` drops them all. (R18)
    pub drop_watch_events: u32,
    /// Every stream ends after this many events. (R18)
    pub cut_stream_after: Option<u32>,
    /// Where the last event of a stream that is cut ends. (R18)
    pub cut_stream_within: StreamCut,
    /// A sync window denies all synchronisation, by hand too. Windows with times are those of
    /// [`ArgoCd::set_sync_windows`](super::ArgoCd::set_sync_windows). (R19)
    pub sync_window_closed: bool,
    /// What becomes of `status.summary.images`.
    pub summary_images: SummaryImages,
    /// The controller does nothing at all; the API server still answers.
    pub controller_down: bool,
}

/// Where a stream is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamCut {
    /// After an event, cleanly, as by a server that restarts.
    #[default]
    Event,
    /// In the middle of a line, and the connection breaks.
    Line,
    /// Inside the first character of more than one byte, and the connection breaks; in the middle of the line where there
    /// is no such character.
    Character,
}

/// What becomes of `status.summary.images` (argo-cd issues 19670, 21785 and 27861).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SummaryImages {
    /// The images of the Pods.
    #[default]
    AsItIs,
    /// It is left as it was.
    Stale,
    /// The images of Pods that are gone stay in it beside those of the Pods.
    Doubled,
    /// It is empty.
    Empty,
}

/// How the health of an Application flaps after an operation: healthy, degraded, healthy, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthFlap {
    /// How often it goes bad.
    pub times: u32,
    /// How long it is good before each time. With no time at all, the first look after the operation finds it bad.
    pub healthy_for: Duration,
    /// How long it is bad each time.
    pub degraded_for: Duration,
}

/// The knobs of one Argo CD. Cheap to clone; every clone turns the same ones.
#[derive(Clone, Debug)]
pub struct Knobs(Arc<watch::Sender<KnobSettings>>);

impl Default for Knobs {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(KnobSettings::default())))
    }
}

impl Knobs {
    /// How they stand.
    pub fn get(&self) -> KnobSettings {
        self.0.borrow().clone()
    }

    /// Turns some.
    ///
    /// ```
    /// let knobs = towpath_lab::argocd::Knobs::default();
    /// knobs.set(|knobs| knobs.lose_refresh = 1);
    /// assert_eq!(knobs.get().lose_refresh, 1);
    /// ```
    pub fn set(&self, change: impl FnOnce(&mut KnobSettings)) {
        self.0.send_modify(change);
    }

    /// Takes one from a counter; says whether there was one left.
    pub(super) fn spend(&self, counter: impl Fn(&mut KnobSettings) -> &mut u32) -> bool {
        let mut spent = false;
        self.0.send_if_modified(|settings| {
            let left = counter(settings);
            spent = *left > 0;
            let counted = spent && *left != u32::MAX;
            if counted {
                *left -= 1;
            }
            counted
        });
        spent
    }

    pub(super) async fn until(&self, reached: impl FnMut(&KnobSettings) -> bool) {
        // The sender lives as long as `self`, so that this can only end by reaching it.
        let _ = self.0.subscribe().wait_for(reached).await;
    }

    /// Told of every turn, and of other changes that operations wait for.
    pub(super) fn changes(&self) -> watch::Receiver<KnobSettings> {
        self.0.subscribe()
    }

    /// Ends when a comparison may go on.
    pub(super) async fn until_comparing(&self) {
        loop {
            self.until(|knobs| !knobs.hold_comparisons || knobs.pass_comparisons > 0)
                .await;
            if !self.get().hold_comparisons || self.spend(|knobs| &mut knobs.pass_comparisons) {
                return;
            }
        }
    }
}
