//! The one clock of Argo CD and its cluster.
//!
//! It counts on from the system's time by tokio's clock, so that it stands still where a test pauses tokio's time.

use jiff::Timestamp;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Timestamp,
    at: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: Timestamp::now(),
            at: Instant::now(),
        }
    }

    /// Now, with fractions of a second.
    pub(super) fn precise(&self) -> Timestamp {
        let elapsed = jiff::SignedDuration::try_from(self.at.elapsed()).unwrap_or(jiff::SignedDuration::MAX);
        self.started.saturating_add(elapsed).unwrap_or(self.started)
    }

    /// Now, as `metav1.Time` writes it: whole seconds, cut and not rounded.
    pub(super) fn now(&self) -> Timestamp {
        let now = self.precise();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }
}
