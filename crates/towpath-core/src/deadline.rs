//! The end of a wait: by the clock, or because somebody said stop.

use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A point in time after which nobody waits any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// This long from now.
    pub fn after(duration: Duration) -> Self {
        let now = Instant::now();
        // A duration beyond what the clock can hold is as good as a hundred years.
        Self(
            now.checked_add(duration)
                .unwrap_or(now + Duration::from_secs(100 * 365 * 24 * 3600)),
        )
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }

    /// How long there still is; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The instant, for `tokio::time::timeout_at`.
    pub fn instant(self) -> Instant {
        self.0
    }
}

/// A wish to stop, shared by everything that works for one caller. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(CancellationToken);

impl Cancellation {
    /// One that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything that holds a clone, or a child, to stop.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether somebody has asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Completes once somebody asks.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// One that is cancelled with this one, and can be cancelled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}
