//! What a test turns to make Argo CD late, lossy or broken, each in a way that the real one is known to be.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The ways in which this Argo CD misbehaves; by default in none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnobSettings {
    /// This many refresh requests, from the API or a webhook, are dropped: the call returns and nothing was looked
    /// at. `u32::MAX` drops them all. (argo-cd issues 28306 and 28392)
    pub lose_refresh: u32,
    /// How long an accepted operation waits before the controller picks it up.
    pub delay_pickup: Duration,
    /// Operations stay `Running` before anything is applied, until this is taken back.
    pub hold_operations: bool,
    /// How long after an operation the status keeps showing what was there before it.
    pub stale_health_after_sync: Duration,
    /// Every access to git fails with this message.
    pub repo_error: Option<String>,
    /// This many events are dropped from the streams. `u32::MAX` drops them all.
    pub drop_watch_events: u32,
    /// Every stream ends after this many events, cleanly, as behind a proxy.
    pub cut_stream_after: Option<u32>,
    /// A refresh is asked for and never done: the call blocks until its caller gives up.
    pub refresh_hangs: bool,
    /// A sync window denies all synchronisation.
    pub sync_window_closed: bool,
    /// `status.summary.images` is left as it is.
    pub stale_summary: bool,
    /// The controller does nothing at all; the API server still answers.
    pub controller_down: bool,
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
}
