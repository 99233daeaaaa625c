//! What a run tells while it goes on.

use crate::{Evidence, Step};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One thing that happened in a run. Events are plain data: a run in another process can send them as lines of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// The flow it happened in.
    pub flow: String,
    /// The step it belongs to.
    pub step: Step,
    /// What is being done, for people.
    pub title: String,
    /// What happened to it.
    pub happening: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Happening {
    /// It began.
    Started,
    /// It is done.
    Done {
        /// What shows it.
        evidence: Evidence,
        /// Whether the world had it already.
        already: bool,
        /// How many requests it took.
        requests: u64,
    },
    /// It failed.
    Failed {
        /// Why.
        reason: String,
        /// Whether trying again later can help.
        retryable: bool,
        /// How many requests it took.
        requests: u64,
    },
    /// A human is asked.
    Asked {
        /// What is to be decided, in full.
        details: Vec<String>,
    },
    /// A human answered.
    Decided {
        /// Whether it was a yes.
        approved: bool,
        /// Who answered.
        by: String,
    },
}

/// Who wants to hear of events. Called in order, on the run's own task: be quick.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(&Event) + Send + Sync>);

impl Progress {
    /// Calls this for each event.
    pub fn new(listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Tells the listener of an event.
    pub fn tell(&self, event: &Event) {
        (self.0)(event);
    }
}

impl Default for Progress {
    /// Nobody listens.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}
