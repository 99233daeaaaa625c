//! When to send again, and after how long.

use http::HeaderMap;
use http::header::RETRY_AFTER;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often to send a request, and how long to wait in between.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How often a request is sent at most, the first time included; at least 1.
    pub attempts: u32,
    /// The delay before the second time; it doubles from there. Half of each delay is chance.
    pub first: Duration,
    /// The longest delay. A `Retry-After` beyond it is not waited for but handed to the caller.
    pub longest: Duration,
    /// Where the chance starts, for tests; `None` for one of its own each time.
    pub seed: Option<u64>,
}

impl Default for RetryPolicy {
    /// Four times, from 250 milliseconds to 30 seconds.
    fn default() -> Self {
        Self {
            attempts: 4,
            first: Duration::from_millis(250),
            longest: Duration::from_secs(30),
            seed: None,
        }
    }
}

impl RetryPolicy {
    /// Never sends a request twice.
    pub fn none() -> Self {
        Self {
            attempts: 1,
            ..Self::default()
        }
    }

    /// Sends at most `attempts` times.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Waits between `first` and `longest`.
    #[must_use]
    pub fn between(mut self, first: Duration, longest: Duration) -> Self {
        self.first = first;
        self.longest = longest.max(first);
        self
    }

    /// Makes the chance in the delays repeatable.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// The policy with its source of chance.
#[derive(Debug)]
pub(crate) struct Backoff {
    pub(crate) policy: RetryPolicy,
    chance: Mutex<StdRng>,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        let chance = match policy.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => StdRng::from_rng(&mut rand::rng()),
        };
        Self {
            policy,
            chance: Mutex::new(chance),
        }
    }

    /// The delay after attempt number `attempt`, the first being 1: between half of it and all of it.
    pub(crate) fn delay(&self, attempt: u32) -> Duration {
        let whole = self
            .policy
            .first
            .saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1)))
            .min(self.policy.longest);
        let share = self
            .chance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .random_range(0.5..=1.0);
        whole.mul_f64(share)
    }
}

/// What `Retry-After` says (RFC 9110, 10.2.3): seconds, or a date; a date that has passed is zero.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()?;
    Some(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn delays_double_to_their_bound_and_half_is_chance() {
        let policy = RetryPolicy::default()
            .between(Duration::from_millis(100), Duration::from_millis(400))
            .seeded(7);
        let backoff = Backoff::new(policy.clone());
        let delays: Vec<_> = [1, 2, 3, 4, 40, u32::MAX]
            .map(|n| backoff.delay(n).as_millis())
            .into();
        for (delay, whole) in delays.iter().zip([100, 200, 400, 400, 400, 400]) {
            assert!((whole / 2..=whole).contains(delay), "{delays:?}");
        }
        let again = Backoff::new(policy);
        assert_eq!(again.delay(1).as_millis(), delays[0]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let says = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            retry_after(&headers)
        };
        assert_eq!(says("17"), Some(Duration::from_secs(17)));
        assert_eq!(says("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(says("Fri, 06 Nov 2150 08:49:37 GMT").unwrap() > Duration::from_secs(1_000_000));
        assert_eq!(says("soon"), None);
        assert_eq!(says("-1"), None);
    }
}
