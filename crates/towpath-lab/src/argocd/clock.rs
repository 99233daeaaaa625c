//! The one clock of Argo CD and its cluster, which a test can put forward.
//!
//! It counts on from the system's time by tokio's clock. Every timer of the two sleeps on it, so that putting it forward
//! ends the waits that are over by then. Nothing else is hurried: what a request, a pull or `git` takes, it takes.

use jiff::Timestamp;
use std::ops::Add;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A point in time: how long after the clock's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(Duration);

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

/// Cheap to clone; every clone is the same clock.
#[derive(Clone, Debug)]
pub(super) struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Timestamp,
    at: Instant,
    /// How far it was put forward in all.
    ahead: watch::Sender<Duration>,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self(Arc::new(Inner {
            started: Timestamp::now(),
            at: Instant::now(),
            ahead: watch::Sender::new(Duration::ZERO),
        }))
    }

    /// Puts it forward, and wakes who has slept long enough by it.
    pub(super) fn advance(&self, by: Duration) {
        self.0
            .ahead
            .send_modify(|ahead| *ahead = ahead.saturating_add(by));
    }

    pub(super) fn moment(&self) -> Moment {
        let ahead = *self.0.ahead.borrow();
        Moment(self.0.at.elapsed().saturating_add(ahead))
    }

    /// How long ago that was.
    pub(super) fn since(&self, then: Moment) -> Duration {
        self.moment().0.saturating_sub(then.0)
    }

    pub(super) async fn sleep(&self, length: Duration) {
        self.sleep_until(self.moment() + length).await;
    }

    pub(super) async fn sleep_until(&self, end: Moment) {
        let mut ahead = self.0.ahead.subscribe();
        loop {
            ahead.borrow_and_update();
            let left = end.0.saturating_sub(self.moment().0);
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // The sender lives as long as `self`.
                _ = ahead.changed() => {}
            }
        }
    }

    /// Now, with fractions of a second.
    pub(super) fn precise(&self) -> Timestamp {
        let elapsed = jiff::SignedDuration::try_from(self.moment().0).unwrap_or(jiff::SignedDuration::MAX);
        self.0.started.saturating_add(elapsed).unwrap_or(self.0.started)
    }

    /// Now, as `metav1.Time` writes it: whole seconds, cut and not rounded.
    pub(super) fn now(&self) -> Timestamp {
        let now = self.precise();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn putting_it_forward_ends_the_waits_that_are_over_by_then() {
        let clock = Clock::start();
        let hour = Duration::from_secs(3600);
        let before = clock.now();
        let start = clock.moment();
        let (short, long) = (
            clock.sleep_until(start + hour),
            clock.sleep_until(start + 3 * hour),
        );
        tokio::pin!(long);
        let (clock_too, advanced) = (clock.clone(), async { clock.advance(hour) });
        tokio::join!(short, advanced);
        assert!(clock_too.since(Moment::default()) >= hour);
        assert!(clock.now().duration_since(before) >= jiff::SignedDuration::from_hours(1));
        let still = tokio::time::timeout(Duration::from_millis(20), &mut long).await;
        assert!(still.is_err());
        clock.advance(2 * hour);
        long.await;
    }
}
