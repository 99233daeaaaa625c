//! Background work that ends with the service, or with the object it works for.

use std::future::Future;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Starts background work. Every clone belongs to the same service.
#[derive(Clone, Debug, Default)]
pub(super) struct Tasks(CancellationToken);

impl Tasks {
    /// Ends all work when it is dropped.
    pub(super) fn guard(&self) -> DropGuard {
        self.0.clone().drop_guard()
    }

    /// Runs `work` until it is done or the service ends.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.0.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled_owned(work).await;
        });
    }

    /// Runs `work` until it is done, the service ends, or the guard is dropped.
    #[must_use]
    pub(super) fn spawn_guarded(&self, work: impl Future<Output = ()> + Send + 'static) -> DropGuard {
        let stop = self.0.child_token();
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move {
            stop.run_until_cancelled_owned(work).await;
        });
        guard
    }
}
