//! Operations: sync, also after others, terminate, rollback.

use crate::applications::{PATH, addressed, locate, unmet};
use crate::config::SERVICE;
use crate::sync::{SyncBody, SyncRequest};
use crate::wire::App;
use crate::{ApiError, ArgoCd, Feature, error};
use serde_json::json;
use std::time::Duration;
use towpath_core::wait::{self, Judgement, Outcome, Policy};
use towpath_core::{Application, Cancellation, Retry};
use towpath_elements::{Error, Result};
use towpath_http::Call;

/// What an attempt to sync came to.
enum Attempt {
    Accepted(Box<App>),
    /// What is waited for.
    Busy(String),
}

impl ArgoCd {
    /// Starts a sync, and gives the application with the operation on it. The operation has no identity of its own: mark
    /// it with [`SyncRequest::info`] to know it again.
    ///
    /// # Errors
    /// *Conflict* while an operation is going on, and where the application syncs on its own and another revision was
    /// asked for; *denied* without the permission, and inside a sync window. [`ApiError`] tells them apart. *Invalid*
    /// where the request contradicts itself, and *unsupported* where the server is too old for it; nothing is sent then.
    pub async fn sync_application(&self, app: &Application, request: &SyncRequest) -> Result<App> {
        let body = SyncBody::new(app, request)?;
        if request.retry_refresh {
            self.require(Feature::RetryRefresh, "sync", app).await?;
        }
        if !request.source_positions.is_empty() {
            self.require(Feature::MultiSourceSync, "sync", app).await?;
        }
        let call = Call::post(PATH)
            .attempting("sync", app)
            .segment(app.name().as_str())
            .segment("sync")
            .json(&body)?;
        self.read_of(call).await
    }

    /// Starts a sync as [`sync_application`](Self::sync_application) does, and where another operation is in the way,
    /// waits for its end and asks again. The server has no queue: whoever asks first after the end is next.
    ///
    /// # Errors
    /// *Timed out* after `within`, with the operation that was in the way; *cancelled*; and every refusal of a sync but
    /// that one. A sync is only asked for again after it was refused, never after its answer was lost.
    pub async fn sync_after_others(
        &self,
        app: &Application,
        request: &SyncRequest,
        within: Duration,
        cancellation: &Cancellation,
    ) -> Result<App> {
        let mut refused_before = false;
        let look = || {
            let look_first = std::mem::replace(&mut refused_before, true);
            self.try_sync(app, request, look_first)
        };
        let policy = Policy::growing(Duration::from_millis(500), Duration::from_secs(10)).within(within);
        let judge = |attempt: &Attempt| match attempt {
            Attempt::Accepted(_) => Judgement::Met,
            Attempt::Busy(what) => Judgement::pending(what.clone()),
        };
        match wait::until(&policy, cancellation, look, |_: &Error| Retry::Never, judge).await {
            Outcome::Met(Attempt::Accepted(app)) => Ok(*app),
            outcome => Err(unmet(outcome, |kind| Error::new(kind, SERVICE, "sync", app))),
        }
    }

    /// Looking costs the server less than a sync that it refuses.
    async fn try_sync(&self, app: &Application, request: &SyncRequest, look_first: bool) -> Result<Attempt> {
        if look_first {
            match self.application(app).await {
                Ok(seen) if seen.operation.is_some() => return Ok(Attempt::Busy(in_the_way(&seen))),
                Ok(_) => {}
                Err(error) if error::may_pass(&error) => {
                    return Ok(Attempt::Busy(format!(
                        "an answer of the server, which last was: {error}"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
        match self.sync_application(app, request).await {
            Ok(app) => Ok(Attempt::Accepted(Box::new(app))),
            Err(error) if ApiError::of(&error).is_some_and(ApiError::is_operation_in_progress) => {
                Ok(Attempt::Busy("the end of another operation".into()))
            }
            Err(error) => Err(error),
        }
    }

    /// Stops the operation that is going on; it ends as failed. `false` where there was none.
    pub async fn terminate(&self, app: &Application) -> Result<bool> {
        let call = Call::delete(PATH).attempting("terminate the operation of", app);
        match self.drop_of(addressed(call, app, "operation")).await {
            Ok(()) => Ok(true),
            Err(error) if ApiError::of(&error).is_some_and(ApiError::is_nothing_to_terminate) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Rolls back to an entry of the history, deleting what it does not have where `prune` says so. No hooks are run.
    ///
    /// # Errors
    /// *Conflict* where the application syncs on its own, is being deleted, or has an operation going on; *not found*
    /// where the history has no such entry. [`ApiError`] tells them apart.
    pub async fn rollback(&self, app: &Application, id: i64, prune: bool) -> Result<App> {
        self.roll_back(app, id, prune, false).await
    }

    /// Tries a rollback without changing anything. It replaces the last operation in the application's status, and is
    /// refused where a rollback is.
    pub async fn rollback_dry_run(&self, app: &Application, id: i64, prune: bool) -> Result<App> {
        self.roll_back(app, id, prune, true).await
    }

    async fn roll_back(&self, app: &Application, id: i64, prune: bool, dry_run: bool) -> Result<App> {
        let mut body = json!({"name": app.name(), "id": id, "prune": prune, "dryRun": dry_run});
        locate(&mut body, app);
        let call = Call::post(PATH)
            .attempting("roll back", app)
            .segment(app.name().as_str())
            .segment("rollback")
            .json(&body)?;
        self.read_of(call).await
    }
}

fn in_the_way(app: &App) -> String {
    let by = app.operation.as_ref().map(|operation| &operation.initiated_by);
    match by {
        Some(by) if by.automated => "the end of a sync that the application began on its own".into(),
        Some(by) if !by.username.is_empty() => format!("the end of an operation of {}", by.username),
        _ => "the end of another operation".into(),
    }
}
