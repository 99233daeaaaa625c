//! Where a run notes what it is about to do and what it has done, so that it can go on after a crash.
//!
//! A journal is a list of entries for each run. An entry is written before anything that depends on it happens; its
//! place in the list is given by the writer, so that two processes that run the same run notice each other.

mod memory;
mod sqlite;

pub use memory::MemoryJournal;
pub use sqlite::SqliteJournal;

use crate::runner::{Decision, Question};
use crate::{Evidence, Failure, Step};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One note of a run. Stored as JSON: treat the names as a wire format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Entry {
    /// The run was begun.
    Begun {
        /// The flow's name.
        flow: String,
        /// Its input, as JSON.
        input: Value,
        /// When.
        at: Timestamp,
    },
    /// An effect is about to be looked for, and applied if it is not there.
    Intended {
        /// What names the effect within the run.
        key: String,
        /// The step.
        step: Step,
        /// What it does, for people.
        title: String,
        /// When.
        at: Timestamp,
    },
    /// An effect has happened.
    Done {
        /// What names the effect within the run.
        key: String,
        /// Its output, as JSON.
        output: Value,
        /// What shows it.
        evidence: Evidence,
        /// Whether the world had it already.
        already: bool,
        /// How many requests it took.
        requests: u64,
        /// When.
        at: Timestamp,
    },
    /// An effect failed. It is tried again when the run is resumed.
    Failed {
        /// What names the effect within the run.
        key: String,
        /// Why.
        failure: Failure,
        /// When.
        at: Timestamp,
    },
    /// A human was asked.
    Asked {
        /// What names the question within the run.
        key: String,
        /// The question.
        question: Question,
        /// When.
        at: Timestamp,
    },
    /// A human answered.
    Decided {
        /// What names the question within the run.
        key: String,
        /// The answer.
        decision: Decision,
        /// When.
        at: Timestamp,
    },
    /// A value that must be the same at every replay: a time, a random number, when a sleep ends.
    Noted {
        /// What names the value within the run.
        key: String,
        /// The value.
        value: Value,
    },
    /// The flow came to its end.
    Finished {
        /// When.
        at: Timestamp,
    },
}

/// Why a journal could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal of run {run:?} {problem}")]
pub struct JournalError {
    /// The run.
    pub run: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// A journal that keeps the entries of any number of runs.
///
/// # Contract
/// 1. [`append`](Self::append) returns only once the entry will survive a crash of the process (and, for a journal on
///    disk, of the machine).
/// 2. An entry is written at `place` or not at all: where the place is taken, somebody else runs this run, and nothing is
///    written.
/// 3. [`entries`](Self::entries) gives every entry in order.
#[async_trait]
pub trait Journal: std::fmt::Debug + Send + Sync {
    /// The entries of a run so far; none for a run that nobody has begun.
    async fn entries(&self, run: &str) -> Result<Vec<Entry>, JournalError>;

    /// Adds an entry at a place, counted from 0.
    async fn append(&self, run: &str, place: usize, entry: &Entry) -> Result<(), JournalError>;
}

pub(crate) fn taken(run: &str, place: usize) -> JournalError {
    JournalError {
        run: run.to_owned(),
        problem: format!(
            "already has an entry at place {place}: another process is running this run; wait for it, or stop it"
        ),
    }
}
