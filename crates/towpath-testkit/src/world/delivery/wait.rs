//! The wait for a promotion: by revision, operation, health and digest.

use super::super::faults::Element;
use super::super::{Moment, State, World, refusal};
use super::{App, cluster};
use std::time::Duration;
use towpath_core::{Cancellation, Deadline};
use towpath_elements::delivery::{
    DeliveryOutcome, DeliveryReport, Expected, HealthState, RunningImage, SyncState,
};
use towpath_elements::{Error, ErrorKind, Result};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After so many looks without the expected commit the application is asked to look itself.
const LOOKS_BEFORE_REFRESH: u32 = 10;

enum Judged {
    Pending(String),
    Ended(DeliveryOutcome, String),
}

pub(super) async fn wait(
    world: &World,
    expected: Expected,
    cancellation: &Cancellation,
) -> Result<DeliveryReport> {
    let deadline = Deadline::after(expected.within);
    let cancelled = || -> Error {
        refusal(
            ErrorKind::Cancelled,
            "wait for",
            &expected.application,
            "the caller asked to stop",
        )
    };
    if cancellation.is_cancelled() {
        return Err(cancelled());
    }
    let mut looks = 0;
    let mut first = Some(world.call(
        Element::Delivery,
        "wait",
        &expected.application,
        |state, moment| look(state, &expected, 0, moment),
    ));
    loop {
        looks += 1;
        let work = async {
            match first.take() {
                Some(first) => first.await,
                None => world.with(|state, moment| look(state, &expected, looks, moment)),
            }
        };
        let (judged, report) = tokio::select! {
            biased;
            () = cancellation.cancelled() => return Err(cancelled()),
            found = work => found?,
        };
        let waiting_for = match judged {
            Judged::Ended(outcome, reason) => {
                return Ok(DeliveryReport {
                    outcome,
                    reason,
                    ..report
                });
            }
            Judged::Pending(waiting_for) => waiting_for,
        };
        if deadline.remaining() <= LOOK_EVERY {
            tokio::select! {
                biased;
                () = cancellation.cancelled() => return Err(cancelled()),
                () = tokio::time::sleep(deadline.remaining()) => {}
            }
            let reason = format!("after {:?}, still waiting for {waiting_for}", expected.within);
            return Ok(DeliveryReport {
                outcome: DeliveryOutcome::TimedOut,
                reason,
                ..report
            });
        }
        tokio::select! {
            biased;
            () = cancellation.cancelled() => return Err(cancelled()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn look(
    state: &mut State,
    expected: &Expected,
    looks: u32,
    moment: Moment<'_>,
) -> Result<(Judged, DeliveryReport)> {
    let application = &expected.application;
    if looks > 0 && looks.is_multiple_of(LOOKS_BEFORE_REFRESH) {
        cluster::look_now(state, application, moment)?;
    }
    let app = state.delivery.get(application)?;
    let by_hand = !app.setup.automated
        && app.operation.is_none()
        && app.sync_error.is_none()
        && app.compared.as_ref() == Some(&expected.revision)
        && app.sync_state() == SyncState::OutOfSync;
    if by_hand {
        cluster::sync_now(state, application, &expected.revision, moment)?;
    }
    let State { source, delivery, .. } = state;
    let app = delivery.get(application)?;
    let repository = source.get(&app.setup.repository)?;
    let judged = judge(app, expected, moment, |base, head| {
        repository.contains(head, base)
    });
    let report = DeliveryReport {
        outcome: DeliveryOutcome::TimedOut,
        reason: String::new(),
        status: Some(app.status(application, moment)),
        running: app.pods.clone(),
    };
    Ok((judged, report))
}

fn judge(
    app: &App,
    expected: &Expected,
    moment: Moment<'_>,
    contains: impl Fn(&towpath_core::CommitSha, &towpath_core::CommitSha) -> bool,
) -> Judged {
    let wanted = &expected.revision;
    let Some(compared) = &app.compared else {
        return match &app.comparison_error {
            Some(error) => Judged::Ended(DeliveryOutcome::ComparisonError, error.clone()),
            None => Judged::Pending("a first look at the repository".to_owned()),
        };
    };
    if !contains(wanted, compared) {
        return match contains(compared, wanted) {
            true => Judged::Pending(format!("{} to be seen", wanted.short())),
            false => Judged::Ended(
                DeliveryOutcome::Superseded,
                format!(
                    "{} took over, and does not contain {}",
                    compared.short(),
                    wanted.short()
                ),
            ),
        };
    }
    if let Some(error) = &app.comparison_error {
        return Judged::Ended(DeliveryOutcome::ComparisonError, error.clone());
    }
    if let Some((revision, message)) = &app.sync_error
        && revision == compared
    {
        return Judged::Ended(DeliveryOutcome::SyncFailed, message.clone());
    }
    if app.operation.is_some() || app.sync_state() != SyncState::Synced {
        return Judged::Pending("the sync".to_owned());
    }
    match app.health() {
        HealthState::Healthy => {}
        HealthState::Degraded => {
            let message = app.pod_error.clone().unwrap_or_default();
            return Judged::Ended(DeliveryOutcome::Degraded, message);
        }
        _ => return Judged::Pending("the workload to be healthy".to_owned()),
    }
    if let Some(missing) = missing_image(&app.pods, expected) {
        return Judged::Pending(missing);
    }
    if moment.now < app.healthy_since + expected.settle {
        return Judged::Pending("the health to settle".to_owned());
    }
    Judged::Ended(
        DeliveryOutcome::Live,
        format!("{} is synced, healthy, and its images run", compared.short()),
    )
}

/// The first expected image that does not run everywhere its repository does.
fn missing_image(pods: &[RunningImage], expected: &Expected) -> Option<String> {
    expected.images.iter().find_map(|image| {
        let mut of_the_repository = pods
            .iter()
            .filter(|pod| pod.image.name() == image.name())
            .peekable();
        let runs = of_the_repository.peek().is_some()
            && of_the_repository.all(|pod| {
                let digest = pod.digest.as_ref();
                pod.ready
                    && digest.is_some_and(|digest| {
                        image.digest() == Some(digest) || expected.platform_digests.contains(digest)
                    })
            });
        (!runs).then(|| format!("{image} to run"))
    })
}
