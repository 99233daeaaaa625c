//! Counting requests: a client says [`sent`] for each request that goes on the wire, whoever asked can [`count`] them.
//!
//! The count follows the task, not the client, so that one shared client serves many flows and each step still
//! knows what it cost. A spawned task counts on its own unless it is [`carried`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use towpath_core::requests;
//! let (answer, requests) = requests::count(async {
//!     requests::sent();
//!     requests::sent();
//!     42
//! }).await;
//! assert_eq!((answer, requests), (42, 2));
//! # }
//! ```

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

tokio::task_local! {
    static COUNTERS: Vec<Arc<AtomicU64>>;
}

/// Notes one request that is about to go on the wire, retries included. Does nothing where nobody counts.
pub fn sent() {
    let _ = COUNTERS.try_with(|counters| {
        for counter in counters {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Runs `future` and counts the requests it sends. Counts nest: an outer count includes the inner ones.
pub async fn count<F: Future>(future: F) -> (F::Output, u64) {
    let counter = Arc::new(AtomicU64::new(0));
    let mut counters = COUNTERS.try_with(Clone::clone).unwrap_or_default();
    counters.push(Arc::clone(&counter));
    let output = COUNTERS.scope(counters, future).await;
    (output, counter.load(Ordering::Relaxed))
}

/// Has a future count for whoever counts here and now, wherever it is run: for work that is spawned for a caller.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let counters = COUNTERS.try_with(Clone::clone).unwrap_or_default();
    COUNTERS.scope(counters, future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn counts_nest() {
        let ((_, inner), outer) = count(async {
            sent();
            count(async { sent() }).await
        })
        .await;
        assert_eq!((inner, outer), (1, 2));
        sent();
    }

    #[tokio::test]
    async fn spawned_work_counts_for_its_caller_where_it_is_carried() {
        let (_, counted) = count(async {
            tokio::spawn(async { sent() }).await.unwrap();
            tokio::spawn(carried(async { sent() })).await.unwrap();
        })
        .await;
        assert_eq!(counted, 1);
    }
}
