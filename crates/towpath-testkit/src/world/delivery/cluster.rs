//! What goes on by itself: looking at the repository, syncing, rolling out.

use super::super::{Moment, State, manifest, refusal};
use super::ApplicationSetup;
use std::time::Duration;
use towpath_core::{Application, CommitSha, ImageRef};
use towpath_elements::delivery::RunningImage;
use towpath_elements::{ErrorKind, Result};

pub(super) struct App {
    pub(super) setup: ApplicationSetup,
    pub(super) deaf: bool,
    pub(super) blind: bool,
    /// The move of the branch that a look is planned for, or was made for.
    pub(super) noticed: Option<Duration>,
    next_look: Option<Duration>,
    pub(super) compared: Option<CommitSha>,
    pub(super) reconciled: Option<Duration>,
    pub(super) comparison_error: Option<String>,
    pub(super) operation: Option<(CommitSha, Duration)>,
    pub(super) syncs: usize,
    pub(super) synced: Option<CommitSha>,
    pub(super) sync_error: Option<(CommitSha, String)>,
    pub(super) next_sync_fails: Option<String>,
    pub(super) rollout: Option<(Vec<ImageRef>, Duration)>,
    pub(super) pods: Vec<RunningImage>,
    pub(super) pod_error: Option<String>,
    /// Since when the health is what it is.
    pub(super) healthy_since: Duration,
}

impl App {
    pub(super) fn new(setup: ApplicationSetup) -> Self {
        Self {
            setup,
            deaf: false,
            blind: false,
            noticed: None,
            next_look: None,
            compared: None,
            reconciled: None,
            comparison_error: None,
            operation: None,
            syncs: 0,
            synced: None,
            sync_error: None,
            next_sync_fails: None,
            rollout: None,
            pods: Vec::new(),
            pod_error: None,
            healthy_since: Duration::ZERO,
        }
    }

    fn begin_sync(&mut self, revision: &CommitSha, at: Duration, moment: Moment<'_>) {
        self.syncs += 1;
        self.sync_error = None;
        self.operation = Some((revision.clone(), at + moment.timing.sync));
    }
}

/// Everything that was due by now, in the order in which it was due.
pub(in super::super) fn advance(state: &mut State, moment: Moment<'_>) {
    let mut applications = std::mem::take(&mut state.delivery.applications);
    for app in applications.values_mut() {
        notice(state, app, moment);
        while let Some((at, what)) = due(app, moment.now) {
            match what {
                Due::Look => look(state, app, at, moment),
                Due::Synced => end_sync(state, app, at, moment),
                Due::RolledOut => end_rollout(state, app, at),
            }
        }
    }
    state.delivery.applications = applications;
}

/// Looks at the repository now, whether a push was noticed or not.
pub(super) fn look_now(state: &mut State, application: &Application, moment: Moment<'_>) -> Result<()> {
    let app = state.delivery.get(application)?;
    if !app.blind {
        app.next_look = Some(moment.now);
    }
    state.advance(moment);
    Ok(())
}

/// Begins a sync; an application that syncs on its own only looks.
pub(super) fn sync_now(
    state: &mut State,
    application: &Application,
    revision: &CommitSha,
    moment: Moment<'_>,
) -> Result<()> {
    look_now(state, application, moment)?;
    let app = state.delivery.get(application)?;
    if app.setup.automated || app.synced.as_ref() == Some(revision) {
        return Ok(());
    }
    if app.operation.is_some() {
        let detail = "another operation is going on";
        return Err(refusal(ErrorKind::Conflict, "sync", application, detail));
    }
    app.begin_sync(revision, moment.now, moment);
    state.changed = true;
    Ok(())
}

enum Due {
    Look,
    Synced,
    RolledOut,
}

fn due(app: &App, now: Duration) -> Option<(Duration, Due)> {
    let look = app.next_look.map(|at| (at, Due::Look));
    let synced = app.operation.as_ref().map(|(_, at)| (*at, Due::Synced));
    let rolled_out = app.rollout.as_ref().map(|(_, at)| (*at, Due::RolledOut));
    [look, synced, rolled_out]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
        .filter(|(at, _)| *at <= now)
}

/// Plans a look after the branch has moved. Every move is seen here: no call works before the world is up to date.
fn notice(state: &State, app: &mut App, moment: Moment<'_>) {
    let Ok(repository) = state.source.get(&app.setup.repository) else {
        return;
    };
    let Some(branch) = repository.branches.get(&app.setup.branch) else {
        return;
    };
    if app.noticed == Some(branch.moved) || app.deaf || app.blind {
        return;
    }
    app.noticed = Some(branch.moved);
    let at = branch.moved + moment.timing.notice;
    app.next_look = Some(app.next_look.map_or(at, |planned| planned.min(at)));
}

fn look(state: &State, app: &mut App, at: Duration, moment: Moment<'_>) {
    app.next_look = None;
    app.reconciled = Some(at);
    let ApplicationSetup {
        repository,
        branch,
        file,
        automated,
    } = &app.setup;
    let found = state.source.get(repository).and_then(|repository| {
        let head = repository.branches.get(branch).map(|branch| branch.head.clone());
        let head = head.ok_or_else(|| refusal(ErrorKind::NotFound, "look at", branch, "no such branch"))?;
        let bytes = repository.commit(&head)?.files.get(file).cloned();
        let before = app
            .synced
            .as_ref()
            .and_then(|synced| repository.commits.get(synced));
        let before = before.and_then(|commit| commit.files.get(file).cloned());
        Ok((head, bytes, before))
    });
    let (head, bytes, before) = match found {
        Ok(found) => found,
        Err(error) => {
            app.comparison_error = Some(error.to_string());
            return;
        }
    };
    app.comparison_error = match &bytes {
        None => Some(format!("{file} does not exist at {}", head.short())),
        Some(bytes) => manifest::images(bytes).err(),
    };
    app.compared = Some(head.clone());
    if app.comparison_error.is_some() {
        return;
    }
    if app.synced.is_some() && bytes == before {
        app.synced = Some(head);
        return;
    }
    let failed = app
        .sync_error
        .as_ref()
        .is_some_and(|(revision, _)| *revision == head);
    if *automated && app.operation.is_none() && !failed {
        app.begin_sync(&head, at, moment);
    }
}

fn end_sync(state: &State, app: &mut App, at: Duration, moment: Moment<'_>) {
    let Some((revision, _)) = app.operation.take() else {
        return;
    };
    if let Some(message) = app.next_sync_fails.take() {
        app.sync_error = Some((revision, message));
        return;
    }
    let wanted = state
        .source
        .get(&app.setup.repository)
        .ok()
        .and_then(|repository| {
            repository
                .commits
                .get(&revision)?
                .files
                .get(&app.setup.file)
                .cloned()
        })
        .and_then(|bytes| manifest::images(&bytes).ok())
        .unwrap_or_default();
    let running = app.pods.iter().map(|pod| &pod.image);
    if !running.eq(wanted.iter()) || app.pod_error.is_some() {
        app.pod_error = None;
        app.rollout = Some((wanted, at + moment.timing.rollout));
    }
    app.synced = Some(revision);
    if app.setup.automated && app.compared != app.synced {
        app.next_look = Some(at);
    }
}

fn end_rollout(state: &State, app: &mut App, at: Duration) {
    let Some((wanted, _)) = app.rollout.take() else {
        return;
    };
    app.healthy_since = at;
    let mut pods = Vec::new();
    for (number, image) in wanted.into_iter().enumerate() {
        match state.registry.resolve(&image) {
            Ok(Some(found)) => pods.push(RunningImage {
                pod: format!("apps/pod-{number}"),
                image,
                digest: Some(found.digest),
                ready: true,
            }),
            Ok(None) => {
                app.pod_error = Some(format!("ErrImagePull: the registry does not have {image}"));
                return;
            }
            Err(error) => {
                app.pod_error = Some(format!("ErrImagePull: {error}"));
                return;
            }
        }
    }
    app.pods = pods;
}
