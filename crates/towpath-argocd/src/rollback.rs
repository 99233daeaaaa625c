//! Rollback by the service itself, for applications whose repository cannot be written to.
//!
//! The service refuses to roll an application back while it syncs itself, so that the two go together here: automatic sync
//! is paused first, and what it was is kept in an annotation.

use crate::config::SERVICE;
use crate::wire::{App, Automated};
use crate::{ArgoCd, Feature};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fmt;
use towpath_core::Application;
use towpath_elements::{Error, ErrorKind, Result};

/// Why the automatic sync of an application is paused, and what it was before; kept in the annotation
/// `towpath/paused-auto-sync`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PausedAutoSync {
    /// Why.
    pub reason: String,
    /// `spec.syncPolicy.automated` as it was.
    pub automated: Automated,
}

impl PausedAutoSync {
    /// The annotation's name.
    pub const ANNOTATION: &'static str = "towpath/paused-auto-sync";

    /// What an application's annotation says; `None` where it has none.
    ///
    /// # Errors
    /// *Protocol* where the annotation is not as [`ArgoCd::pause_auto_sync`] writes it.
    pub fn of(app: &App) -> Result<Option<Self>> {
        let Some(text) = app.metadata.annotations.get(Self::ANNOTATION) else {
            return Ok(None);
        };
        serde_json::from_str(text).map(Some).map_err(|problem| {
            let annotation = format!("the annotation {} of {}", Self::ANNOTATION, app.metadata.name);
            Error::new(ErrorKind::Protocol, SERVICE, "read", annotation)
                .because(problem)
                .advise("set the sync policy by hand, and take the annotation away")
        })
    }
}

impl ArgoCd {
    /// Rolls back to an entry of the history, and has the application stay there: automatic sync is paused first, because
    /// the service refuses a rollback without that and would undo it. [`resume_auto_sync`](Self::resume_auto_sync) ends
    /// the pause. An application that does not sync itself is only rolled back.
    ///
    /// Where the deployment repository can be written to, a commit that goes back is the better way, and the default one:
    /// the `RollBack` of `towpath-flow`. This way leaves the repository at the bad build, runs no hooks, and is undone by
    /// whatever owns the application's policy: an ApplicationSet or a parent application would have to leave out
    /// `syncPolicy` and this annotation.
    ///
    /// `prune` deletes what the entry does not have. The operation has begun, not ended, when this returns: it has ended once
    /// [`application`](Self::application) shows no `operation`, and its `status.operation_state` a phase that
    /// [has ended](crate::wire::OperationPhase::has_ended). A wait for the former commit does not see it, because the server
    /// goes on comparing with the target revision; a wait for the paused commit ends as
    /// [`AutoSyncOff`](crate::DeliveryOutcome::AutoSyncOff) and syncs nothing.
    ///
    /// # Errors
    /// Those of [`rollback`](Self::rollback); where the service refused it, a policy that this call paused is put back
    /// first. Where it is not known whether the rollback has begun, the application stays paused, and the error says so.
    /// *Invalid* where the reason is empty; nothing is sent then.
    pub async fn roll_back_and_pause(
        &self,
        app: &Application,
        id: i64,
        prune: bool,
        reason: &str,
    ) -> Result<App> {
        let (seen, is_paused_here) = self.pause(app, reason).await?;
        let failed = match self.rollback(app, id, prune).await {
            Ok(app) => return Ok(app),
            Err(failed) if !is_paused_here => return Err(failed),
            Err(failed) => failed,
        };
        if !was_refused(&failed) {
            return Err(failed.advise(
                "automatic sync stays paused, because the rollback may have begun: look at the application, then ask \
                 again or resume",
            ));
        }
        match self.resume(app, &seen).await {
            Ok(_) => Err(failed),
            Err(error) => Err(failed.advise(format!(
                "automatic sync is still paused, because it could not be resumed ({error}); resume it"
            ))),
        }
    }

    /// Has an application no longer sync itself, and keeps what its policy was in the annotation
    /// [`PausedAutoSync::ANNOTATION`]. One that does not sync itself is left as it is, with what an earlier pause kept.
    ///
    /// # Errors
    /// *Invalid* where the reason is empty; nothing is sent then.
    pub async fn pause_auto_sync(&self, app: &Application, reason: &str) -> Result<App> {
        self.pause(app, reason).await.map(|(app, _)| app)
    }

    /// Puts the policy of automatic sync back as it was before the pause, and takes the annotation away. The application
    /// then goes to what its repository says. One that is not paused is left as it is.
    ///
    /// # Errors
    /// *Protocol* where the annotation is not as [`pause_auto_sync`](Self::pause_auto_sync) writes it.
    pub async fn resume_auto_sync(&self, app: &Application) -> Result<App> {
        let seen = self.application(app).await?;
        self.resume(app, &seen).await
    }

    /// The application as it then is, and whether this call paused it.
    async fn pause(&self, app: &Application, reason: &str) -> Result<(App, bool)> {
        if reason.trim().is_empty() {
            return Err(unpausable(app).because("the reason is empty"));
        }
        let seen = self.application(app).await?;
        let automated = seen
            .spec
            .sync_policy
            .as_ref()
            .and_then(|policy| policy.automated.as_ref());
        let Some(automated) = automated.filter(|_| seen.spec.syncs_itself()) else {
            return Ok((seen, false));
        };
        let kept = PausedAutoSync {
            reason: reason.trim().to_owned(),
            automated: automated.clone(),
        };
        let kept = serde_json::to_string(&kept).map_err(|problem| unpausable(app).because(problem))?;
        // Older servers take no notice of the switch.
        let off = match self.capabilities().await?.has(Feature::AutomatedEnabled) {
            true => json!({"enabled": false}),
            false => Value::Null,
        };
        let paused = self.patch(app, &policy(off, json!(kept))).await?;
        Ok((paused, true))
    }

    async fn resume(&self, app: &Application, seen: &App) -> Result<App> {
        let Some(PausedAutoSync { automated, .. }) = PausedAutoSync::of(seen)? else {
            return Ok(seen.clone());
        };
        let former = fields(app, &automated)?;
        let present = seen
            .spec
            .sync_policy
            .as_ref()
            .and_then(|policy| policy.automated.as_ref());
        // A merge patch keeps what it does not name: what the former policy did not have is named as null.
        let mut patch = match present {
            Some(present) => fields(app, present)?,
            None => Map::new(),
        };
        patch.values_mut().for_each(|value| *value = Value::Null);
        patch.extend(former);
        self.patch(app, &policy(patch.into(), Value::Null)).await
    }
}

fn policy(automated: Value, annotation: Value) -> Value {
    json!({
        "metadata": {"annotations": {(PausedAutoSync::ANNOTATION): annotation}},
        "spec": {"syncPolicy": {"automated": automated}},
    })
}

fn fields(app: &Application, automated: &Automated) -> Result<Map<String, Value>> {
    match serde_json::to_value(automated) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(unpausable(app).because(format!("the policy is not an object: {other}"))),
        Err(problem) => Err(unpausable(app).because(problem)),
    }
}

fn unpausable(app: &impl fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, SERVICE, "change the automatic sync of", app)
}

/// Whether the server has said no, so that nothing has begun.
fn was_refused(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Conflict
            | ErrorKind::NotFound
            | ErrorKind::Denied
            | ErrorKind::Invalid
            | ErrorKind::RateLimited
            | ErrorKind::Unauthenticated
            | ErrorKind::Unsupported
    )
}
