//! Waits: look, judge, act, until the judgement is final. What is judged is in [`judge`](crate::judge).

mod backend;
mod engine;

pub use backend::{Backend, Change, Changes, FailingPod};

use crate::config::SERVICE;
use crate::judge::Unmet;
use crate::{RevisionOracle, WaitPolicy};
use engine::Wait;
use futures_util::future::join_all;
use std::fmt;
use std::sync::Arc;
use towpath_core::{Application, Cancellation, Deadline};
use towpath_elements::delivery::{DeliveryOutcome, DeliveryReport, Expected};
use towpath_elements::{Error, ErrorKind, Result};

/// Waits for applications, one or thousands, on one connection for changes.
///
/// [`ArgoCd::waiter`](crate::ArgoCd::waiter) makes one; [`Delivery::wait`](crate::Delivery::wait) is a wait by the
/// client's own.
///
/// ```no_run
/// # async fn example(argo: towpath_argocd::ArgoCd, expected: Vec<towpath_argocd::Expected>) {
/// use towpath_argocd::{Cancellation, DeliveryOutcome};
/// let waiter = argo
///     .waiter()
///     .on_progress(|progress| println!("{}: {}", progress.application, progress.waiting_for));
/// for report in waiter.wait_all(expected, &Cancellation::new()).await {
///     match report {
///         Ok(report) if report.outcome == DeliveryOutcome::Live => {}
///         Ok(report) => println!("{:?}: {}", report.outcome, report.reason),
///         Err(error) => println!("{error}"),
///     }
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Waiter {
    backend: Arc<dyn Backend>,
    policy: WaitPolicy,
    oracle: Option<Arc<dyn RevisionOracle>>,
    progress: Option<Arc<Hear>>,
}

type Hear = dyn Fn(&Progress) + Send + Sync;

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("backend", &self.backend)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// How far a wait is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The application.
    pub application: Application,
    /// The first guard that does not hold.
    pub unmet: Unmet,
    /// What is waited for, as a text that goes behind "waiting for".
    pub waiting_for: String,
}

impl Waiter {
    /// Waits by whoever has the applications.
    pub fn new(backend: Arc<dyn Backend>, policy: WaitPolicy) -> Self {
        Self {
            backend,
            policy,
            oracle: None,
            progress: None,
        }
    }

    /// Tells the waits whether a newer commit contains the expected one. Without it only the expected commit counts.
    #[must_use]
    pub fn revision_oracle(mut self, oracle: Arc<dyn RevisionOracle>) -> Self {
        self.oracle = Some(oracle);
        self
    }

    /// Hears what the waits are waiting for, each time that this changes: a sync with its waves and hooks, a health, a pod.
    #[must_use]
    pub fn on_progress(mut self, hear: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(hear));
        self
    }

    /// Waits until what is expected runs, or cannot.
    ///
    /// # Errors
    /// *Invalid* where an expected image has no digest or the application has no git source; *not found* where the
    /// application does not exist, or may not be seen, when the wait begins; *cancelled*; and what the server says that
    /// does not pass by itself, such as a refused token.
    pub async fn wait(&self, expected: Expected, cancellation: &Cancellation) -> Result<DeliveryReport> {
        if let Some(image) = expected.images.iter().find(|image| image.digest().is_none()) {
            return Err(
                Error::new(ErrorKind::Invalid, SERVICE, "wait for", &expected.application)
                    .because(format!("the expected image {image} has no digest"))
                    .advise("resolve the tag to a digest first; a tag can move"),
            );
        }
        let deadline = Deadline::after(expected.within);
        let mut wait = Wait::new(self, expected);
        let ended = tokio::select! {
            biased;
            () = cancellation.cancelled() => return Err(wait.cancelled()),
            result = tokio::time::timeout_at(deadline.instant(), wait.run()) => result,
        };
        match ended {
            Ok(Ok((outcome, reason))) => Ok(wait.report(outcome, reason)),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let reason = wait.timed_out();
                Ok(wait.report(DeliveryOutcome::TimedOut, reason))
            }
        }
    }

    /// Waits for several applications at once, each with its own deadline. The reports come in the order of what was
    /// expected, once the last has ended.
    pub async fn wait_all(
        &self,
        expected: impl IntoIterator<Item = Expected>,
        cancellation: &Cancellation,
    ) -> Vec<Result<DeliveryReport>> {
        join_all(expected.into_iter().map(|one| self.wait(one, cancellation))).await
    }
}
