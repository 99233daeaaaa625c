//! Sync windows: the times in which the Applications of a project may or may not be synchronised (`SyncWindows` of
//! `pkg/apis/application/v1alpha1/types.go`).

use super::Shared;
use super::cron::Schedule;
use super::model::Application;
use super::operation::go_duration;
use crate::LabError;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::sync::PoisonError;
use std::time::Duration;

/// A window in time, by the lab's clock, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncWindow {
    deny: bool,
    schedule: String,
    duration: String,
    applications: Vec<String>,
    manual_sync: bool,
    starts: Schedule,
    lasts: Duration,
}

impl SyncWindow {
    /// A window in which synchronisation is allowed. Outside it, it is not, unless another one allows it. It opens when
    /// the cron expression of five fields says so, for a duration as Go writes it (`1h30m`).
    ///
    /// # Errors
    /// Where one of the two cannot be read.
    ///
    /// ```
    /// use towpath_lab::argocd::SyncWindow;
    /// let window = SyncWindow::allow("0 22 * * *", "1h")?.with_manual_sync(true);
    /// assert!(SyncWindow::deny("at night", "1h").is_err());
    /// # let _ = window; Ok::<(), towpath_lab::LabError>(())
    /// ```
    pub fn allow(schedule: &str, duration: &str) -> Result<Self, LabError> {
        Self::new(false, schedule, duration)
    }

    /// A window in which synchronisation is denied, whatever others allow.
    ///
    /// # Errors
    /// Where the schedule or the duration cannot be read.
    pub fn deny(schedule: &str, duration: &str) -> Result<Self, LabError> {
        Self::new(true, schedule, duration)
    }

    fn new(deny: bool, schedule: &str, duration: &str) -> Result<Self, LabError> {
        let unreadable = |reason: String| LabError::Setting {
            name: "sync window",
            reason,
        };
        let starts = Schedule::parse(schedule)
            .map_err(|why| unreadable(format!("cannot parse schedule '{schedule}': {why}")))?;
        let lasts =
            go_duration(duration).ok_or_else(|| unreadable(format!("cannot parse duration '{duration}'")))?;
        Ok(Self {
            deny,
            schedule: schedule.into(),
            duration: duration.into(),
            applications: vec!["*".into()],
            manual_sync: false,
            starts,
            lasts,
        })
    }

    /// Lets synchronisation by hand through all the same.
    #[must_use]
    pub fn with_manual_sync(mut self, manual_sync: bool) -> Self {
        self.manual_sync = manual_sync;
        self
    }

    /// Concerns Applications with these names only; `*` at the end of a name stands for anything. All of them where
    /// nothing is said.
    #[must_use]
    pub fn with_applications(mut self, applications: &[&str]) -> Self {
        self.applications = applications.iter().map(|&name| name.to_owned()).collect();
        self
    }

    fn concerns(&self, app: &Application) -> bool {
        let name = &app.metadata.name;
        self.applications
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => pattern == name,
            })
    }

    /// Whether it opened at most its duration ago.
    fn is_active(&self, now: Timestamp) -> bool {
        let minute = |at: Timestamp| at.as_second().div_euclid(60);
        let (last, length) = (minute(now), self.lasts.as_secs().div_ceil(60) as i64);
        (last.saturating_sub(length)..=last).rev().any(|minute| {
            let Ok(opening) = Timestamp::from_second(minute.saturating_mul(60)) else {
                return false;
            };
            let open_for = now.duration_since(opening).unsigned_abs();
            open_for < self.lasts && self.starts.names(TimeZone::UTC.to_datetime(opening))
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "kind": if self.deny { "deny" } else { "allow" },
            "schedule": self.schedule, "duration": self.duration, "manualSync": self.manual_sync,
        })
    }
}

/// The windows of a project.
fn of_project(shared: &Shared, project: &str) -> Vec<SyncWindow> {
    let windows = shared.windows.lock().unwrap_or_else(PoisonError::into_inner);
    let mut own: Vec<SyncWindow> = windows.get(project).into_iter().flatten().cloned().collect();
    if shared.knobs.get().sync_window_closed {
        own.extend(SyncWindow::deny("* * * * *", "1h").ok());
    }
    own
}

/// The windows that concern an Application.
fn assigned(shared: &Shared, app: &Application) -> Vec<SyncWindow> {
    let mut assigned = of_project(shared, app.project());
    assigned.retain(|window| window.concerns(app));
    assigned
}

/// The windows of a project that are open now, as `GET /api/v1/projects/{name}/syncwindows` lists them.
pub(super) fn active(shared: &Shared, project: &str) -> Vec<Value> {
    let now = shared.clock.now();
    let windows = of_project(shared, project);
    let open = windows.iter().filter(|window| window.is_active(now));
    open.map(SyncWindow::to_json).collect()
}

/// Whether an Application may be synchronised now, by hand or on its own (`CanSync`).
pub(super) fn can_sync(shared: &Shared, app: &Application, by_hand: bool) -> bool {
    may_sync(&assigned(shared, app), shared.clock.now(), by_hand)
}

fn may_sync(assigned: &[SyncWindow], now: Timestamp, by_hand: bool) -> bool {
    let (active, inactive): (Vec<_>, Vec<_>) = assigned.iter().partition(|window| window.is_active(now));
    let past = |windows: &[&&SyncWindow]| by_hand && windows.iter().all(|window| window.manual_sync);
    let denying: Vec<_> = active.iter().filter(|window| window.deny).collect();
    if !denying.is_empty() {
        return past(&denying);
    }
    if active.iter().any(|window| !window.deny) {
        return true;
    }
    let closed: Vec<_> = inactive.iter().filter(|window| !window.deny).collect();
    closed.is_empty() || past(&closed)
}

/// The answer of `GET …/syncwindows`.
pub(super) fn answer(shared: &Shared, app: &Application) -> Value {
    let (assigned, now) = (assigned(shared, app), shared.clock.now());
    let mut answer = json!({"canSync": may_sync(&assigned, now, true)});
    let active: Vec<Value> = assigned
        .iter()
        .filter(|window| window.is_active(now))
        .map(SyncWindow::to_json)
        .collect();
    if !assigned.is_empty() {
        answer["assignedWindows"] = assigned.iter().map(SyncWindow::to_json).collect();
    }
    if !active.is_empty() {
        answer["activeWindows"] = Value::Array(active);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_is_open_from_its_start_for_its_duration() {
        let window = SyncWindow::allow("0 22 * * *", "2h30m").unwrap();
        for (time, open) in [
            ("2026-08-21T21:59:59Z", false),
            ("2026-08-21T22:00:00Z", true),
            ("2026-08-22T00:29:59Z", true),
            ("2026-08-22T00:30:00Z", false),
        ] {
            assert_eq!(window.is_active(at(time)), open, "{time}");
        }
        let short = SyncWindow::deny("* * * * *", "30s").unwrap();
        assert!(short.is_active(at("2026-08-21T21:59:29Z")));
        assert!(!short.is_active(at("2026-08-21T21:59:31Z")));
    }

    #[test]
    fn windows_decide_together() {
        let now = at("2026-08-21T12:00:00Z");
        let open = |manual| {
            SyncWindow::allow("0 12 * * *", "1h")
                .unwrap()
                .with_manual_sync(manual)
        };
        let closed = |manual| {
            SyncWindow::allow("0 1 * * *", "1h")
                .unwrap()
                .with_manual_sync(manual)
        };
        let denied = |manual| {
            SyncWindow::deny("0 12 * * *", "1h")
                .unwrap()
                .with_manual_sync(manual)
        };
        let past = SyncWindow::deny("0 1 * * *", "1h").unwrap();
        for (windows, by_hand, alone) in [
            (vec![], true, true),
            (vec![past.clone()], true, true),
            (vec![open(false)], true, true),
            (vec![closed(false)], false, false),
            (vec![closed(true)], true, false),
            (vec![closed(true), closed(false)], false, false),
            (vec![closed(false), open(false)], true, true),
            (vec![open(false), denied(false)], false, false),
            (vec![open(false), denied(true)], true, false),
            (vec![denied(true), denied(false)], false, false),
        ] {
            assert_eq!(may_sync(&windows, now, true), by_hand, "{windows:?}");
            assert_eq!(may_sync(&windows, now, false), alone, "{windows:?}");
        }
    }

    #[test]
    fn windows_concern_applications_by_name() {
        let window = SyncWindow::deny("* * * * *", "1h")
            .unwrap()
            .with_applications(&["web-*", "api"]);
        for (name, concerned) in [("web-1", true), ("api", true), ("web", false), ("api-2", false)] {
            let mut app = Application::default();
            app.metadata.name = name.into();
            assert_eq!(window.concerns(&app), concerned, "{name}");
        }
    }
}
