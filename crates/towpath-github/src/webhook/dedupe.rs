//! Seeing each delivery once.
//!
//! GitHub does not repeat a delivery by itself, but people and reconcilers do, and the same event comes through every
//! hook that asks for it. The identifier stays the same for the three days in which a redelivery is possible.

use async_trait::async_trait;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use towpath_elements::Result;

/// What tells one delivery from another: which hook, which event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryKey {
    /// The hook it came through.
    pub hook: Option<u64>,
    /// The identifier of the event.
    pub delivery: String,
    /// The kind of event.
    pub event: String,
}

/// Remembers deliveries, for longer than they can be sent again.
///
/// Call [`begin`](Self::begin) before working on a delivery. If the work fails, call [`forget`](Self::forget), so that
/// a redelivery is worked on.
#[async_trait]
pub trait Deduplicator: Debug + Send + Sync {
    /// Notes a delivery. `true` if it is new, `false` if it was noted before: then answer 2xx and do nothing.
    async fn begin(&self, key: &DeliveryKey) -> Result<bool>;

    /// Forgets a delivery whose work failed.
    async fn forget(&self, key: &DeliveryKey) -> Result<()>;
}

/// A [`Deduplicator`] in memory, for one process. It forgets after a time, and the oldest first when it is full.
#[derive(Debug)]
pub struct MemoryDeduplicator {
    seen: Mutex<HashMap<DeliveryKey, Instant>>,
    keep: Duration,
    most: usize,
}

impl MemoryDeduplicator {
    /// Keeps deliveries for four days, and at most 100,000 of them.
    pub fn new() -> Self {
        Self::keeping(Duration::from_secs(4 * 24 * 3600), 100_000)
    }

    /// Keeps deliveries for this time, and at most this many of them (at least one).
    pub fn keeping(time: Duration, most: usize) -> Self {
        Self {
            seen: Mutex::default(),
            keep: time,
            most: most.max(1),
        }
    }
}

impl Default for MemoryDeduplicator {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Deduplicator for MemoryDeduplicator {
    async fn begin(&self, key: &DeliveryKey) -> Result<bool> {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen
            .get(key)
            .is_some_and(|at| now.duration_since(*at) < self.keep)
        {
            return Ok(false);
        }
        if seen.len() >= self.most {
            seen.retain(|_, at| now.duration_since(*at) < self.keep);
        }
        if seen.len() >= self.most
            && let Some(oldest) = seen.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone())
        {
            seen.remove(&oldest);
        }
        seen.insert(key.clone(), now);
        Ok(true)
    }

    async fn forget(&self, key: &DeliveryKey) -> Result<()> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hook: u64, delivery: &str) -> DeliveryKey {
        DeliveryKey {
            hook: Some(hook),
            delivery: delivery.into(),
            event: "push".into(),
        }
    }

    #[tokio::test]
    async fn a_redelivery_is_seen_and_a_failed_one_may_come_again() {
        let store = MemoryDeduplicator::new();
        assert!(store.begin(&key(1, "a")).await.unwrap());
        assert!(!store.begin(&key(1, "a")).await.unwrap());
        assert!(store.begin(&key(2, "a")).await.unwrap());
        store.forget(&key(1, "a")).await.unwrap();
        assert!(store.begin(&key(1, "a")).await.unwrap());
    }

    #[tokio::test]
    async fn it_forgets_by_time_and_by_number() {
        let forgetful = MemoryDeduplicator::keeping(Duration::ZERO, 10);
        assert!(forgetful.begin(&key(1, "a")).await.unwrap());
        assert!(forgetful.begin(&key(1, "a")).await.unwrap());
        let small = MemoryDeduplicator::keeping(Duration::from_secs(60), 2);
        for delivery in ["a", "b", "c"] {
            assert!(small.begin(&key(1, delivery)).await.unwrap());
        }
        assert!(!small.begin(&key(1, "c")).await.unwrap());
        assert!(small.begin(&key(1, "a")).await.unwrap());
    }
}
