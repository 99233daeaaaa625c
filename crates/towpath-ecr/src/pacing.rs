//! Pacing: how often each action of the service is called, so that its quotas per second are kept (*Amazon ECR User
//! Guide*, "Amazon ECR service quotas").
//!
//! Each action has a bucket. It holds a burst, fills at a rate, and hands out turns: the time from which one request may
//! be sent. Whoever is told to slow down empties the bucket, so that those who wait come one after the other afterwards
//! and not all at once.

use http::Method;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The longest time that a service's wish to be left alone holds everybody else back.
const LONGEST_HOLD: Duration = Duration::from_secs(20);
/// How long a bucket stays slow, for each time that it was slowed down.
const RECOVERY: Duration = Duration::from_secs(10);
/// Refusals within this time of the first one are the same one.
const ONE_REFUSAL: Duration = Duration::from_secs(1);
/// A bucket is slowed down to an eighth of its rate at most.
const SLOWEST: u32 = 3;

/// How often an action may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

/// How often each action of the service is called at most, by its name in the API. The requests of the registry's
/// protocol count as the actions that the service counts them as: a manifest that is put is a `PutImage`.
///
/// The quotas that the service has by default are kept from the start; they are not the truth of an account, which can
/// have others. An action without a rate is called as it comes. Time spent waiting for a turn is part of the time that
/// a call of the API may take.
///
/// ```
/// use towpath_ecr::{Pacing, Rate};
/// let raised = Pacing::default().limit("PutImage", Rate::per_second(50));
/// let none = Pacing::off();
/// # let _ = (raised, none);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pacing {
    rates: BTreeMap<String, Rate>,
}

impl Rate {
    /// This many calls a second, and as many at once after a pause. At least one.
    pub fn per_second(calls: u32) -> Self {
        let calls = calls.max(1);
        Self {
            per_second: calls,
            burst: calls,
        }
    }

    /// Allows this many calls at once after a pause. At least one.
    #[must_use]
    pub fn burst(mut self, calls: u32) -> Self {
        self.burst = calls.max(1);
        self
    }
}

impl Default for Pacing {
    fn default() -> Self {
        let quotas = [
            ("BatchCheckLayerAvailability", 1000),
            ("BatchGetImage", 2000),
            ("CompleteLayerUpload", 100),
            ("GetAuthorizationToken", 500),
            ("GetDownloadUrlForLayer", 3000),
            ("InitiateLayerUpload", 100),
            ("PutImage", 10),
            ("UploadLayerPart", 500),
        ];
        quotas.into_iter().fold(Self::off(), |pacing, (action, calls)| {
            pacing.limit(action, Rate::per_second(calls))
        })
    }
}

impl Pacing {
    /// No action is held back.
    pub fn off() -> Self {
        Self {
            rates: BTreeMap::new(),
        }
    }

    /// Sets how often an action, such as `PutImage`, is called.
    #[must_use]
    pub fn limit(mut self, action: impl Into<String>, rate: Rate) -> Self {
        self.rates.insert(action.into(), rate);
        self
    }
}

/// The buckets of one client.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    buckets: Arc<HashMap<String, Mutex<Bucket>>>,
    origin: Instant,
}

/// The bucket of one action.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pacer: Pacer,
    action: String,
}

impl Pacer {
    pub(crate) fn new(pacing: &Pacing) -> Self {
        let rates = pacing.rates.iter();
        let buckets = rates.map(|(action, rate)| (action.clone(), Mutex::new(Bucket::new(*rate))));
        Self {
            buckets: Arc::new(buckets.collect()),
            origin: Instant::now(),
        }
    }

    /// The lane of an action of the API; `None` where it is called as it comes.
    pub(crate) fn lane(&self, action: &str) -> Option<Lane> {
        self.buckets.contains_key(action).then(|| Lane {
            pacer: self.clone(),
            action: action.to_owned(),
        })
    }

    /// The lane of a request to `/v2/`, by the action that the service counts it as.
    pub(crate) fn registry_lane(&self, method: &Method, path: &str) -> Option<Lane> {
        self.lane(registry_action(method, path)?)
    }
}

impl Lane {
    /// Waits for a turn.
    pub(crate) async fn turn(&self) {
        loop {
            let Some((turn, at)) = self.with(|bucket, now| bucket.reserve(now)).map(|turn| {
                let at = self.pacer.origin + turn.at;
                (turn, at)
            }) else {
                return;
            };
            if at > Instant::now() {
                tokio::time::sleep_until(at).await;
            }
            // Whoever was told to slow down meanwhile has taken all turns back.
            if self.with(|bucket, _| bucket.round) == Some(turn.round) {
                return;
            }
        }
    }

    /// Notes that the service has asked for fewer requests, and for how long.
    pub(crate) fn throttled(&self, asked: Option<Duration>) {
        let hold = asked.unwrap_or_default().min(LONGEST_HOLD);
        // Programs that were refused together do not come back together.
        let hold = hold.mul_f64(rand::random_range(1.0..1.25));
        self.with(|bucket, now| bucket.throttled(now, hold));
        tracing::debug!(
            action = self.action,
            hold_ms = hold.as_millis() as u64,
            "slowed down"
        );
    }

    fn with<T>(&self, act: impl FnOnce(&mut Bucket, Duration) -> T) -> Option<T> {
        let mut bucket: MutexGuard<'_, Bucket> = self
            .pacer
            .buckets
            .get(&self.action)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now().saturating_duration_since(self.pacer.origin);
        Some(act(&mut bucket, now))
    }
}

/// The action that the service counts a request of the registry's protocol as.
fn registry_action(method: &Method, path: &str) -> Option<&'static str> {
    let path = path.strip_prefix("/v2/")?;
    let upload = path.contains("/blobs/uploads");
    if path.contains("/manifests/") {
        return match *method {
            Method::PUT => Some("PutImage"),
            Method::GET | Method::HEAD => Some("BatchGetImage"),
            _ => None,
        };
    }
    match *method {
        Method::POST if upload => Some("InitiateLayerUpload"),
        Method::PATCH if upload => Some("UploadLayerPart"),
        Method::PUT if upload => Some("CompleteLayerUpload"),
        Method::HEAD if path.contains("/blobs/") => Some("BatchCheckLayerAvailability"),
        Method::GET if path.contains("/blobs/") && !upload => Some("GetDownloadUrlForLayer"),
        _ => None,
    }
}

/// A token bucket, as arithmetic: it knows no clock, times are since some beginning.
#[derive(Debug)]
struct Bucket {
    /// Between two turns at the full rate.
    interval: Duration,
    /// How far turns may run ahead of the rate: what makes the burst.
    tolerance: Duration,
    /// When the next turn would be due without a burst.
    due: Duration,
    /// Goes up whenever all turns are taken back.
    round: u64,
    /// The rate is halved this many times, until then.
    slow: u32,
    slow_until: Duration,
    refused_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    at: Duration,
    round: u64,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        let interval = Duration::from_secs(1) / rate.per_second;
        Self {
            interval,
            tolerance: interval * (rate.burst - 1),
            due: Duration::ZERO,
            round: 0,
            slow: 0,
            slow_until: Duration::ZERO,
            refused_at: None,
        }
    }

    fn reserve(&mut self, now: Duration) -> Turn {
        while self.slow > 0 && now >= self.slow_until {
            self.slow -= 1;
            self.slow_until += RECOVERY;
        }
        let due = self.due.max(now);
        let at = due.saturating_sub(self.tolerance).max(now);
        self.due = due + self.interval * (1 << self.slow);
        Turn {
            at,
            round: self.round,
        }
    }

    /// Takes all turns back, gives the next one after `hold`, without a burst, and halves the rate for a while.
    fn throttled(&mut self, now: Duration, hold: Duration) {
        let again = self.refused_at.is_some_and(|refused| now < refused + ONE_REFUSAL);
        if !again {
            self.refused_at = Some(now);
            self.slow = (self.slow + 1).min(SLOWEST);
        }
        self.slow_until = self.slow_until.max(now + hold + RECOVERY);
        self.round += 1;
        let next = now + hold + self.tolerance + self.interval * (1 << self.slow);
        // A refusal that asks for less than the one before does not shorten that.
        self.due = match again {
            true => self.due.max(next),
            false => next,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            per_second in 1_u32..200,
            burst in 1_u32..50,
            steps in proptest::collection::vec((0_u64..400, 0_u32..12, 0_u64..3000), 1..120),
        ) {
            let rate = Rate::per_second(per_second).burst(burst);
            let mut bucket = Bucket::new(rate);
            let (mut now, mut sent, mut open) = (Duration::ZERO, Vec::new(), Vec::<Turn>::new());
            for (pause, asked, hold) in steps {
                now += Duration::from_millis(pause);
                // Turns that have come are used, if nobody took them back.
                let (due, later): (Vec<Turn>, Vec<Turn>) = open.into_iter().partition(|turn| turn.at <= now);
                sent.extend(due.into_iter().filter(|turn| turn.round == bucket.round).map(|turn| turn.at));
                open = later;
                if asked == 11 {
                    bucket.throttled(now, Duration::from_millis(hold));
                    let again = open.len();
                    open = (0..again).map(|_| bucket.reserve(now)).collect();
                } else {
                    open.extend((0..asked).map(|_| bucket.reserve(now)));
                }
            }
            sent.sort();
            for (first, from) in sent.iter().enumerate() {
                for (last, to) in sent.iter().enumerate().skip(first) {
                    let window = (*to - *from).as_secs_f64();
                    let most = f64::from(burst) + f64::from(per_second) * window;
                    // Intervals are whole nanoseconds.
                    prop_assert!(((last - first + 1) as f64) <= most + 1e-3, "{} in {window} s", last - first + 1);
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_rate_once_the_burst_is_used() {
        let pacer = Pacer::new(&Pacing::off().limit("PutImage", Rate::per_second(10).burst(5)));
        let lane = pacer.lane("PutImage").unwrap();
        let start = Instant::now();
        let waiting = (0..25).map(|_| lane.turn());
        futures_util::future::join_all(waiting).await;
        let took = start.elapsed();
        assert!(
            (Duration::from_millis(2000)..Duration::from_millis(2010)).contains(&took),
            "{took:?}"
        );
        assert!(pacer.lane("DescribeImages").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_holds_back_those_who_wait_and_spreads_them() {
        let pacer = Pacer::new(&Pacing::off().limit("PutImage", Rate::per_second(10)));
        let lane = pacer.lane("PutImage").unwrap();
        let start = Instant::now();
        for _ in 0..10 {
            lane.turn().await;
        }
        assert!(start.elapsed().is_zero());
        let waiting = tokio::spawn({
            let lane = lane.clone();
            async move {
                let mut times = Vec::new();
                for _ in 0..5 {
                    lane.turn().await;
                    times.push(start.elapsed());
                }
                times
            }
        });
        tokio::task::yield_now().await;
        lane.throttled(Some(Duration::from_secs(4)));
        lane.throttled(Some(Duration::from_secs(1)));
        let times = waiting.await.unwrap();
        assert!(times[0] >= Duration::from_secs(4), "{times:?}");
        // At half the rate, and none together.
        assert!(
            times
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= Duration::from_millis(200)),
            "{times:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_recovers() {
        let pacer = Pacer::new(&Pacing::off().limit("PutImage", Rate::per_second(10)));
        let lane = pacer.lane("PutImage").unwrap();
        lane.throttled(None);
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..20 {
            lane.turn().await;
        }
        let took = start.elapsed();
        assert!(
            (Duration::from_millis(1000)..Duration::from_millis(1010)).contains(&took),
            "{took:?}"
        );
    }

    #[test]
    fn requests_count_as_the_service_counts_them() {
        for (method, path, action) in [
            (Method::PUT, "/v2/a/b/manifests/1", Some("PutImage")),
            (Method::HEAD, "/v2/a/b/manifests/1", Some("BatchGetImage")),
            (Method::POST, "/v2/a/blobs/uploads/", Some("InitiateLayerUpload")),
            (Method::PATCH, "/v2/a/blobs/uploads/1", Some("UploadLayerPart")),
            (Method::PUT, "/v2/a/blobs/uploads/1", Some("CompleteLayerUpload")),
            (
                Method::HEAD,
                "/v2/a/blobs/sha256:1",
                Some("BatchCheckLayerAvailability"),
            ),
            (
                Method::GET,
                "/v2/a/blobs/sha256:1",
                Some("GetDownloadUrlForLayer"),
            ),
            (Method::GET, "/v2/a/tags/list", None),
            (Method::GET, "/bucket/key", None),
        ] {
            assert_eq!(registry_action(&method, path), action, "{method} {path}");
        }
    }
}
