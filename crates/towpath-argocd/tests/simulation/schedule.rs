//! Schedules of races and faults, drawn from a seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// The end of every wait: late enough for the slowest schedule to show what becomes of it.
pub(crate) const WITHIN: Duration = Duration::from_secs(900);

/// What must become of a schedule, by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The expected image runs well before the deadline, and stays.
    Live,
    /// It never runs, and the server shows why well before the deadline.
    Fails,
    /// It never runs, and nothing but silence shows it: the deadline is the answer.
    Silence,
}

/// Another commit that takes the branch over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overtaking {
    /// It contains the expected one and leaves its image alone, as other services' promotions in the same repository do.
    SameImage,
    /// It contains the expected one and brings another image.
    NewerImage,
    /// It does not contain it: somebody forced the branch back.
    ForcedBack,
}

/// How bad the expected commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Its manifests cannot be made.
    Manifests,
    /// Its sync fails, every time.
    Sync,
    /// Its image never becomes ready.
    Image,
}

/// One schedule. Times are virtual, from the begin of the wait.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    /// Whether the application syncs on its own.
    pub(crate) automated: bool,
    /// When the commit is pushed; before the wait begins where the pipeline is slow.
    pub(crate) pushed: Duration,
    /// When the webhook arrives after the push, if it does.
    pub(crate) webhook: Option<Duration>,
    /// Time that a comparison, an operation, its pick-up, and the start of a pod take.
    pub(crate) compare: Duration,
    pub(crate) operate: Duration,
    pub(crate) pick_up: Duration,
    pub(crate) start: Duration,
    /// Pause between an operation's end and the comparison after it.
    pub(crate) after_operation: Duration,
    /// Refreshes that are dropped outright, on top of those that meet another one.
    pub(crate) lost_refreshes: u32,
    /// Refreshes hang in this time.
    pub(crate) hanging: Option<(Duration, Duration)>,
    /// The repository cannot be reached in this time.
    pub(crate) outage: Option<(Duration, Duration)>,
    /// The controller does nothing in this time.
    pub(crate) down: Option<(Duration, Duration)>,
    /// The API server answers 503 in this time.
    pub(crate) unavailable: Option<(Duration, Duration)>,
    /// A window keeps syncs back in this time.
    pub(crate) window: Option<(Duration, Duration)>,
    /// Attempts of a sync that fail before one succeeds; the operation retries by itself.
    pub(crate) failing_attempts: u32,
    /// An operation of somebody else's, on the old commit, begins then and takes so long.
    pub(crate) foreign: Option<(Duration, Duration)>,
    /// Somebody asks for a dry run then.
    pub(crate) dry_run: Option<Duration>,
    /// Another commit, and when it is pushed.
    pub(crate) overtaken: Option<(Duration, Overtaking)>,
    pub(crate) flaw: Option<Flaw>,
    /// A pod fails for so long, so long after it was ready.
    pub(crate) flap: Option<(Duration, Duration)>,
    /// The workload's health is not assessed: always healthy, as resources without a health check are.
    pub(crate) blind: bool,
    /// The old version is degraded when the wait begins.
    pub(crate) old_is_degraded: bool,
    /// The summary of images stays as it is.
    pub(crate) stale_summary: bool,
    /// The new image has the tag of the old one.
    pub(crate) same_tag: bool,
    /// The application's source is edited then, to a branch that has the old commit; and back so much later.
    pub(crate) edited: Option<(Duration, Duration)>,
    /// The application is deleted then.
    pub(crate) deleted: Option<Duration>,
    /// The share of changes that nobody is told of, in percent.
    pub(crate) silent_changes: u32,
}

impl Schedule {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let r = &mut random;
        let seconds = |r: &mut StdRng, from: f64, to: f64| Duration::from_secs_f64(r.random_range(from..to));
        let span = |r: &mut StdRng, percent: u32, longest: f64| {
            chance(r, percent).then(|| (seconds(r, 0.0, 40.0), seconds(r, 1.0, longest)))
        };
        let automated = chance(r, 60);
        let flaw = chance(r, 20).then(|| [Flaw::Manifests, Flaw::Sync, Flaw::Image][r.random_range(0..3)]);
        let overtaken = chance(r, 20).then(|| {
            let how = [
                Overtaking::SameImage,
                Overtaking::NewerImage,
                Overtaking::ForcedBack,
            ][r.random_range(0..3)];
            (seconds(r, 1.0, 60.0), how)
        });
        let mut schedule = Self {
            seed,
            automated,
            pushed: if chance(r, 50) {
                Duration::ZERO
            } else {
                seconds(r, 0.0, 30.0)
            },
            webhook: chance(r, 60).then(|| seconds(r, 0.05, 10.0)),
            compare: seconds(r, 0.1, 8.0),
            operate: seconds(r, 0.1, 10.0),
            pick_up: seconds(r, 0.0, 3.0),
            start: seconds(r, 0.2, 30.0),
            after_operation: if chance(r, 50) {
                Duration::ZERO
            } else {
                seconds(r, 0.0, 6.0)
            },
            lost_refreshes: if chance(r, 30) { r.random_range(1..4) } else { 0 },
            hanging: span(r, 10, 60.0),
            outage: span(r, 12, 90.0),
            down: span(r, 10, 60.0),
            unavailable: span(r, 10, 30.0),
            window: span(r, 6, 900.0),
            failing_attempts: if chance(r, 15) { r.random_range(1..4) } else { 0 },
            foreign: span(r, 12, 30.0),
            dry_run: chance(r, 8).then(|| seconds(r, 0.0, 60.0)),
            overtaken,
            flaw,
            flap: chance(r, 15).then(|| (seconds(r, 0.1, 8.0), seconds(r, 0.5, 20.0))),
            blind: chance(r, 15),
            old_is_degraded: chance(r, 10),
            stale_summary: chance(r, 15),
            same_tag: chance(r, 25),
            edited: span(r, 6, 40.0),
            deleted: chance(r, 3).then(|| seconds(r, 0.0, 60.0)),
            silent_changes: if chance(r, 30) { r.random_range(1..101) } else { 0 },
        };
        if chance(r, 3) {
            // For good: the deadline is the only answer.
            schedule.down = Some((Duration::ZERO, WITHIN * 2));
        }
        schedule
    }

    /// What must become of it.
    pub(crate) fn fate(&self) -> Fate {
        let ends = |span: Option<(Duration, Duration)>| span.is_some_and(|(from, long)| from + long > WITHIN);
        if self.deleted.is_some() {
            return Fate::Fails;
        }
        if ends(self.down) {
            return Fate::Silence;
        }
        match self.overtaken {
            // Which of the two deploys first is the schedule's own affair: either answer can be right.
            Some((_, Overtaking::NewerImage | Overtaking::ForcedBack)) => Fate::Fails,
            // Nothing but the pods themselves shows that they do not start.
            _ if self.flaw == Some(Flaw::Image) && self.blind => Fate::Silence,
            _ if self.flaw.is_some() => Fate::Fails,
            _ => Fate::Live,
        }
    }
}

fn chance(random: &mut StdRng, percent: u32) -> bool {
    random.random_range(0..100) < percent
}
