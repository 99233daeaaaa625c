//! The whole delivery path in memory: every element of the architecture, over one shared state.
//!
//! A commit that one element makes is the commit that the others see. Time is tokio's: what takes long in the real world
//! (a CI run, a scan, a roll-out, a plan) takes as long here, and costs nothing under a paused clock. There are no
//! background tasks: whoever looks first brings the world up to the present.

mod artifacts;
mod ci;
mod delivery;
mod faults;
mod infrastructure;
mod manifest;
mod registry;
mod repositories;
mod source;
mod tar;
mod terraform;

pub use ci::{CiEnding, Workflow};
pub use delivery::ApplicationSetup;
pub use faults::{Call, Element, Fault};
pub use infrastructure::StackSetup;
pub use registry::{ImageSetup, ScanScript};
pub use repositories::{Merge, PullReview};

use faults::Faults;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use towpath_core::{CommitSha, Digest, RegistryHost};
use towpath_elements::{
    Artifacts, Ci, Delivery, Error, ErrorKind, Infrastructure, Registry, Result, RevisionOracle, Source,
};

/// A world of elements that share one state. Cheap to clone; clones are the same world.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use towpath_testkit::World;
/// let world = World::new();
/// let repository = "acme/shop".parse()?;
/// let commit = world.create_repository(&repository, &[("README.md", "# Shop\n")]);
/// let head = world.source().head(&repository, &"main".parse()?).await?;
/// assert_eq!(head, Some(commit));
/// assert!(!world.calls()[0].changed);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    faults: Mutex<Faults>,
    timing: Timing,
    started: Instant,
    epoch: Timestamp,
}

/// How long things take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// From a call to its work being done.
    pub latency: Duration,
    /// From a push to the CI run having a runner.
    pub ci_queue: Duration,
    /// From the runner to the end of the CI run.
    pub ci_run: Duration,
    /// From an image being stored to its scan's result.
    pub scan: Duration,
    /// From a push to the delivery system having looked at it.
    pub notice: Duration,
    /// From there to the end of the sync.
    pub sync: Duration,
    /// From there to the new pods being ready.
    pub rollout: Duration,
    /// From a run being free to go to its plan.
    pub plan: Duration,
    /// From a confirmation to the end of the apply.
    pub apply: Duration,
}

impl Default for Timing {
    /// Seconds to a minute, as one would see them on a good day.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            ci_queue: Duration::from_secs(2),
            ci_run: Duration::from_secs(60),
            scan: Duration::from_secs(10),
            notice: Duration::from_secs(5),
            sync: Duration::from_secs(3),
            rollout: Duration::from_secs(20),
            plan: Duration::from_secs(15),
            apply: Duration::from_secs(30),
        }
    }
}

/// Everything there is. Elements work on it one at a time.
#[derive(Default)]
struct State {
    source: repositories::Repositories,
    ci: ci::Pipelines,
    registry: registry::Images,
    artifacts: artifacts::Packages,
    delivery: delivery::Cluster,
    infrastructure: infrastructure::Stacks,
    /// Whether the call that is at work has changed anything.
    changed: bool,
}

/// The moment at which a call does its work.
#[derive(Clone, Copy)]
struct Moment<'a> {
    /// Since the world began.
    now: Duration,
    epoch: Timestamp,
    timing: &'a Timing,
}

impl Moment<'_> {
    /// A time since the world began, as services write it.
    fn stamp(&self, at: Duration) -> Timestamp {
        SignedDuration::try_from(at)
            .ok()
            .and_then(|since| self.epoch.checked_add(since).ok())
            .unwrap_or(self.epoch)
    }
}

impl State {
    /// Brings everything that goes on by itself up to the present.
    fn advance(&mut self, moment: Moment<'_>) {
        delivery::advance(self, moment);
        infrastructure::advance(self, moment);
    }
}

impl Default for World {
    fn default() -> Self {
        Self::with_timing(Timing::default())
    }
}

impl Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

macro_rules! elements {
    ($($name:ident: $trait:ident, $doc:literal;)+) => {
        $(#[doc = concat!("This world's ", $doc, ".")]
        pub fn $name(&self) -> Arc<dyn $trait> {
            Arc::new(self.clone())
        })+
    };
}

impl World {
    /// An empty world with the usual [`Timing`]. Its time begins now.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty world in which things take this long.
    pub fn with_timing(timing: Timing) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            faults: Mutex::default(),
            timing,
            started: Instant::now(),
            epoch: Timestamp::now(),
        }))
    }

    elements! {
        source: Source, "repositories and their reviews (A, B)";
        ci: Ci, "CI system (C)";
        registry: Registry, "image registry, its cache and the upstreams (D1, D2, E1, E2)";
        artifacts: Artifacts, "package repositories (D3)";
        delivery: Delivery, "delivery system and its cluster (F)";
        infrastructure: Infrastructure, "infrastructure system (G to K)";
        revision_oracle: RevisionOracle, "answer to whether one commit contains another";
    }

    /// The host of the private registry (D1).
    pub fn registry_host(&self) -> RegistryHost {
        registry::private_host()
    }

    /// Everything that lasts, as one JSON value without times: two worlds in which the same things happened are equal.
    pub fn snapshot(&self) -> Value {
        self.with(|state, _| {
            json!({
                "source": state.source.snapshot(),
                "registry": state.registry.snapshot(),
                "artifacts": state.artifacts.snapshot(),
                "delivery": state.delivery.snapshot(),
                "infrastructure": state.infrastructure.snapshot(),
            })
        })
    }

    /// Works on the state at this moment, without latency, faults or a note in the journal: for preparing a world and
    /// for looking at it.
    fn with<T>(&self, work: impl FnOnce(&mut State, Moment<'_>) -> T) -> T {
        let moment = Moment {
            now: self.0.started.elapsed(),
            epoch: self.0.epoch,
            timing: &self.0.timing,
        };
        let mut state = self.state();
        state.advance(moment);
        work(&mut state, moment)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of an element of this world.
fn refusal(
    kind: ErrorKind,
    attempted: &'static str,
    subject: impl fmt::Display,
    detail: impl fmt::Display,
) -> Error {
    Error::new(kind, "the World", attempted, subject).because(detail)
}

/// A commit name made from what the commit consists of, as git makes it.
fn commit_sha(parts: &Value) -> Result<CommitSha> {
    Ok(CommitSha::new(
        &Digest::sha256_of(parts.to_string()).encoded()[..40],
    )?)
}
