//! The one place that waits: look, judge, sleep, until the answer is yes, never, or too late.
//!
//! A condition has three answers, because most services can say "this will never happen" long before a deadline
//! passes. The waiting does not jitter (retrying requests does, in the transport): its delays are the policy's.
//!
//! Clients pass this module on: `towpath_ecr::wait` is `towpath_core::wait`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use std::time::Duration;
//! use towpath_core::wait::{Judgement, Outcome, Policy, until};
//! use towpath_core::{Cancellation, Retry};
//!
//! let mut polls = 0;
//! let outcome = until(
//!     &Policy::every(Duration::from_millis(1)).within(Duration::from_secs(1)),
//!     &Cancellation::new(),
//!     || { polls += 1; let seen = polls; async move { Ok::<_, std::io::Error>(seen) } },
//!     |_error| Retry::Never,
//!     |seen| if *seen >= 3 { Judgement::Met } else { Judgement::pending("the third look") },
//! ).await;
//! assert!(matches!(outcome, Outcome::Met(3)));
//! # }
//! ```

use crate::{Cancellation, Deadline, Retry};
use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// What a look says about a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Judgement {
    /// It holds.
    Met,
    /// Not yet; the text names the first thing still missing, as in "waiting for …".
    Pending(Cow<'static, str>),
    /// It can no longer come to hold; the text says why.
    Failed(Cow<'static, str>),
}

impl Judgement {
    /// Not yet: still waiting for this.
    pub fn pending(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Pending(what.into())
    }

    /// Never: for this reason.
    pub fn failed(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Failed(why.into())
    }
}

/// How often to look, and for how long. By default from a quarter of a second to five seconds between looks, for ten
/// minutes.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Policy {
    first: Duration,
    longest: Duration,
    factor: f64,
    within: Duration,
}

impl Policy {
    /// Looks at a fixed interval, for ten minutes.
    pub fn every(interval: Duration) -> Self {
        Self {
            first: interval,
            longest: interval,
            factor: 1.0,
            within: Duration::from_secs(600),
        }
    }

    /// Starts with `first` between looks and grows by half until `longest`, for ten minutes.
    pub fn growing(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest: longest.max(first),
            factor: 1.5,
            within: Duration::from_secs(600),
        }
    }

    /// Gives up after this time. A look in flight is cut off too.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// The time after which the wait gives up.
    pub fn limit(&self) -> Duration {
        self.within
    }

    /// The delay after look number `look`, the first being 1.
    pub fn delay_after(&self, look: u32) -> Duration {
        let grown = self.first.as_secs_f64() * self.factor.powi(look.saturating_sub(1).min(1_000) as i32);
        if grown >= self.longest.as_secs_f64() {
            self.longest
        } else {
            Duration::from_secs_f64(grown)
        }
    }
}

impl Default for Policy {
    /// From a quarter of a second to five seconds between looks, for ten minutes.
    fn default() -> Self {
        Self::growing(Duration::from_millis(250), Duration::from_secs(5))
    }
}

/// How a wait ended. Whatever the end, it carries what was seen last.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a wait that ended has not necessarily ended well"]
#[non_exhaustive]
pub enum Outcome<T, E> {
    /// The condition holds; what was seen when it did.
    Met(T),
    /// The condition can no longer hold.
    Failed {
        /// What showed it.
        seen: T,
        /// Why it cannot hold.
        reason: String,
    },
    /// The time ran out.
    TimedOut {
        /// What was seen last, if anything ever was.
        seen: Option<T>,
        /// What the condition was still missing then.
        waiting_for: String,
        /// How long the wait took.
        elapsed: Duration,
        /// How many looks there were.
        looks: u32,
        /// The last failure to look, if the last look failed.
        error: Option<E>,
    },
    /// Somebody asked to stop.
    Cancelled {
        /// What was seen last, if anything ever was.
        seen: Option<T>,
    },
    /// Looking failed in a way that trying again does not mend.
    Blind {
        /// What was seen last, if anything ever was.
        seen: Option<T>,
        /// The failure.
        error: E,
    },
}

/// Looks until the condition is met, has failed, the policy's time is over, or somebody cancels.
///
/// The first look is made at once, so a condition that already holds costs one look. `retry` says of a failed look
/// whether to go on; a [`Retry::After`] postpones the next look at least that long. Cancellation wins over a result
/// that is ready at the same time.
pub async fn until<T, E, Fut>(
    policy: &Policy,
    cancellation: &Cancellation,
    mut look: impl FnMut() -> Fut,
    retry: impl Fn(&E) -> Retry,
    condition: impl Fn(&T) -> Judgement,
) -> Outcome<T, E>
where
    Fut: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    let deadline = Deadline::after(policy.limit());
    let mut seen = None;
    let mut waiting_for = String::from("a first answer");
    let mut last_error = None;
    let mut looks = 0;
    loop {
        looks += 1;
        let result = tokio::select! {
            biased;
            () = cancellation.cancelled() => return Outcome::Cancelled { seen },
            result = tokio::time::timeout_at(deadline.instant(), look()) => result,
        };
        let mut delay = policy.delay_after(looks);
        match result {
            Err(_) => {
                let elapsed = started.elapsed();
                return Outcome::TimedOut {
                    seen,
                    waiting_for,
                    elapsed,
                    looks,
                    error: last_error,
                };
            }
            Ok(Ok(value)) => {
                last_error = None;
                match condition(&value) {
                    Judgement::Met => return Outcome::Met(value),
                    Judgement::Failed(reason) => {
                        return Outcome::Failed {
                            seen: value,
                            reason: reason.into_owned(),
                        };
                    }
                    Judgement::Pending(what) => waiting_for = what.into_owned(),
                }
                seen = Some(value);
            }
            Ok(Err(error)) => {
                match retry(&error) {
                    Retry::Never | Retry::Spent => return Outcome::Blind { seen, error },
                    Retry::Later => {}
                    Retry::After(pause) => delay = delay.max(pause),
                }
                last_error = Some(error);
            }
        }
        if delay >= deadline.remaining() {
            // Another look after the deadline would not count: say so when the time is really over, and no earlier.
            tokio::select! {
                biased;
                () = cancellation.cancelled() => return Outcome::Cancelled { seen },
                () = tokio::time::sleep_until(deadline.instant()) => {}
            }
            return Outcome::TimedOut {
                seen,
                waiting_for,
                elapsed: started.elapsed(),
                looks,
                error: last_error,
            };
        }
        tokio::select! {
            biased;
            () = cancellation.cancelled() => return Outcome::Cancelled { seen },
            () = tokio::time::sleep(delay) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn policy() -> Policy {
        Policy::growing(Duration::from_secs(1), Duration::from_secs(8)).within(Duration::from_secs(60))
    }

    async fn watch(answers: &[Result<u32, Retry>]) -> (Outcome<u32, Retry>, u32) {
        let looks = Cell::new(0);
        let outcome = until(
            &policy(),
            &Cancellation::new(),
            || {
                let at = looks.get();
                looks.set(at + 1);
                let answer = answers[(at as usize).min(answers.len() - 1)];
                async move { answer }
            },
            |error| *error,
            |seen| match seen {
                0 => Judgement::pending("more than nothing"),
                1 => Judgement::Met,
                _ => Judgement::failed("too much"),
            },
        )
        .await;
        (outcome, looks.get())
    }

    #[tokio::test(start_paused = true)]
    async fn what_already_holds_costs_one_look_and_no_time() {
        let start = Instant::now();
        assert_eq!(watch(&[Ok(1)]).await, (Outcome::Met(1), 1));
        assert!(start.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_never_hold_ends_the_wait_at_once() {
        let (outcome, looks) = watch(&[Ok(0), Ok(2)]).await;
        assert_eq!(
            (outcome, looks),
            (
                Outcome::Failed {
                    seen: 2,
                    reason: "too much".into()
                },
                2
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_says_what_was_missing_and_what_was_seen() {
        let start = Instant::now();
        let (outcome, looks) = watch(&[Ok(0)]).await;
        let Outcome::TimedOut {
            seen: Some(0),
            waiting_for,
            elapsed,
            ..
        } = outcome
        else {
            panic!("{outcome:?}")
        };
        assert_eq!(waiting_for, "more than nothing");
        assert_eq!(elapsed, Duration::from_secs(60));
        assert_eq!(start.elapsed(), Duration::from_secs(60));
        assert!((10..14).contains(&looks), "{looks}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_looked_past_and_a_lasting_one_is_not() {
        assert_eq!(watch(&[Err(Retry::Later), Ok(1)]).await.0, Outcome::Met(1));
        let (outcome, _) = watch(&[Ok(0), Err(Retry::Never)]).await;
        assert_eq!(
            outcome,
            Outcome::Blind {
                seen: Some(0),
                error: Retry::Never
            }
        );
        let (outcome, _) = watch(&[Err(Retry::Spent)]).await;
        assert_eq!(
            outcome,
            Outcome::Blind {
                seen: None,
                error: Retry::Spent
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_asks_for_time_gets_it() {
        let start = Instant::now();
        assert_eq!(
            watch(&[Err(Retry::After(Duration::from_secs(30))), Ok(1)])
                .await
                .0,
            Outcome::Met(1)
        );
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_cut_off_at_the_deadline() {
        let outcome = until(
            &policy(),
            &Cancellation::new(),
            std::future::pending::<Result<u32, Retry>>,
            |error| *error,
            |_| Judgement::Met,
        )
        .await;
        let Outcome::TimedOut {
            seen: None, elapsed, ..
        } = outcome
        else {
            panic!("{outcome:?}")
        };
        assert_eq!(elapsed, Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_wins_over_a_result_that_is_ready() {
        let cancellation = Cancellation::new();
        cancellation.cancel();
        let outcome = until(
            &policy(),
            &cancellation,
            || async { Ok::<_, Retry>(1) },
            |error| *error,
            |_| Judgement::Met,
        )
        .await;
        assert_eq!(outcome, Outcome::Cancelled { seen: None });
    }

    #[test]
    fn delays_grow_to_their_bound_and_stay() {
        let policy = policy();
        let delays: Vec<_> = (1..=8).map(|look| policy.delay_after(look).as_millis()).collect();
        assert_eq!(delays, [1000, 1500, 2250, 3375, 5062, 7593, 8000, 8000]);
        assert_eq!(policy.delay_after(u32::MAX), Duration::from_secs(8));
    }
}
