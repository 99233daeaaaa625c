//! What each tool takes for success, run on the same simulation: this crate's wait, `argocd app wait`, Kargo's
//! `argocd-wait`, and the comparison of image tags.

use super::schedule::{Fate, Schedule, WITHIN};
use super::{History, Simulation, application, expected, image};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use towpath_argocd::wire::{App, HealthCode, OperationPhase, SyncStatusCode};
use towpath_argocd::{
    Backend, Cancellation, DeliveryOutcome, RevisionOracle, SyncRequest, WaitPolicy, Waiter,
};

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Success,
    Failure(String),
    TimedOut(String),
}

/// Whether a wait told the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Score {
    Right,
    FalseSuccess,
    FalseFailure,
    /// It ran into the deadline although the answer was there.
    Hang,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Towpath,
    Cli,
    Kargo,
    ImageTag,
}

pub(crate) const RULES: [Rule; 4] = [Rule::Towpath, Rule::Cli, Rule::Kargo, Rule::ImageTag];

/// Runs one rule on one schedule; for the report, also what it said and the requests that it made.
pub(crate) async fn run(rule: Rule, schedule: &Schedule) -> (Score, Said, u64) {
    let simulation = Simulation::start(schedule.clone());
    let said = match rule {
        Rule::Towpath => towpath(&simulation).await,
        _ => {
            let waiting = naive(rule, &simulation);
            let ended = tokio::time::timeout(WITHIN, waiting).await;
            ended.unwrap_or(Said::TimedOut("the deadline".into()))
        }
    };
    let really = simulation.runs(1);
    let score = match (&said, schedule.fate()) {
        (Said::Success, _) if !really => Score::FalseSuccess,
        (Said::Success, _) => Score::Right,
        // To be told of a window is an answer, even where it opens later.
        (Said::Failure(why), Fate::Live) if schedule.window.is_some() && why.contains("window") => {
            Score::Right
        }
        (Said::Failure(_), Fate::Live) => Score::FalseFailure,
        (Said::Failure(_), _) => Score::Right,
        (Said::TimedOut(_), Fate::Silence) => Score::Right,
        (Said::TimedOut(_), _) => Score::Hang,
    };
    (score, said, simulation.looks())
}

async fn towpath(simulation: &Arc<Simulation>) -> Said {
    let oracle: Arc<dyn RevisionOracle> =
        Arc::new(History(simulation.schedule.overtaken.map(|(_, how)| how)));
    let waiter = Waiter::new(simulation.clone(), WaitPolicy::default()).revision_oracle(oracle);
    match waiter
        .wait(expected(&simulation.schedule), &Cancellation::new())
        .await
    {
        Ok(report) => match report.outcome {
            DeliveryOutcome::Live => Said::Success,
            DeliveryOutcome::TimedOut => Said::TimedOut(report.reason),
            other => Said::Failure(format!("{other:?}: {}", report.reason)),
        },
        Err(error) => Said::Failure(error.to_string()),
    }
}

/// What pipelines do with the other tools: sync what does not sync on its own, then wait.
async fn naive(rule: Rule, simulation: &Arc<Simulation>) -> Said {
    // The pipeline pushes the commit itself.
    sleep(simulation.schedule.pushed).await;
    let app = loop {
        match simulation.application(&application()).await {
            Ok(app) => break app,
            Err(error) if error.is_not_found() => return Said::Failure(error.to_string()),
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    };
    if !app.spec.syncs_itself() && rule != Rule::ImageTag {
        let mut tries = 0;
        while let Err(error) = simulation.sync(&application(), &SyncRequest::default()).await {
            tries += 1;
            if tries > 3 || error.is_conflict() || error.is_not_found() {
                return Said::Failure(error.to_string());
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
    let mut before: Option<HealthCode> = None;
    loop {
        let app = match simulation.application(&application()).await {
            Ok(app) => app,
            Err(error) if error.is_not_found() => return Said::Failure(error.to_string()),
            Err(_) => {
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let said = match rule {
            Rule::Cli => cli(&app, before.as_ref()),
            Rule::Kargo => kargo(simulation, &app).await,
            _ => by_tag(simulation, &app),
        };
        if let Some(said) = said {
            return said;
        }
        before = Some(app.status.health.status);
        sleep(Duration::from_secs(1)).await;
    }
}

/// `argocd app wait`: sync, health and operation (the loop of `waitOnApplicationStatus`).
fn cli(app: &App, before: Option<&HealthCode>) -> Option<Said> {
    let (state, health) = (app.status.operation_state.as_ref(), &app.status.health.status);
    let reconciled = app.status.reconciled_at;
    let in_progress = app.operation.is_some()
        || state.is_some_and(|state| {
            let dry = state.operation.sync.as_ref().is_some_and(|sync| sync.dry_run);
            state.finished_at.is_none() || (!dry && reconciled < state.finished_at)
        });
    let turned = before.is_some_and(|before| !matches!(before, HealthCode::Degraded | HealthCode::Unknown));
    if *health == HealthCode::Degraded && turned {
        return Some(Said::Failure("a resource became degraded".into()));
    }
    let ready = app.status.sync.status == SyncStatusCode::Synced && *health == HealthCode::Healthy;
    if !ready || in_progress {
        return None;
    }
    // The phase that was captured decides the exit code.
    match state.is_none_or(|state| state.phase == OperationPhase::Succeeded) {
        true => Some(Said::Success),
        false => Some(Said::Failure("the operation failed".into())),
    }
}

/// Kargo's health check: the same, and conditions that are errors are failures, and a comparison older than the last
/// operation asks for a refresh.
async fn kargo(simulation: &Simulation, app: &App) -> Option<Said> {
    let error = app
        .status
        .conditions
        .iter()
        .find(|condition| matches!(condition.kind.as_str(), "ComparisonError" | "InvalidSpecError"));
    if let Some(error) = error {
        return Some(Said::Failure(error.message.clone()));
    }
    let state = app.status.operation_state.as_ref();
    if app.operation.is_some() || state.is_some_and(|state| !state.phase.has_ended()) {
        return None;
    }
    if state.is_some_and(|state| app.status.reconciled_at < state.finished_at) {
        let _ = simulation
            .refreshed(&application(), Duration::from_secs(30))
            .await;
        return None;
    }
    match (&app.status.sync.status, &app.status.health.status) {
        (SyncStatusCode::Synced, HealthCode::Healthy) => Some(Said::Success),
        (SyncStatusCode::Synced, HealthCode::Degraded) => Some(Said::Failure("degraded".into())),
        _ => None,
    }
}

/// The image's tag is in the summary of images, and the application is synced and healthy.
fn by_tag(simulation: &Simulation, app: &App) -> Option<Said> {
    let wanted = image(1, simulation.schedule.same_tag);
    let wanted = wanted.to_string();
    let tagged = wanted.split('@').next().unwrap_or_default();
    let there = app
        .status
        .summary
        .images
        .iter()
        .any(|image| image.split('@').next() == Some(tagged));
    (there
        && app.status.sync.status == SyncStatusCode::Synced
        && app.status.health.status == HealthCode::Healthy)
        .then_some(Said::Success)
}
