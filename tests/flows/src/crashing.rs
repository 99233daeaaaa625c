//! A journal whose process dies at one of its entries.

use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use towpath_flow::journal::Entry;
use towpath_flow::{Journal, JournalError, MemoryJournal};

/// On which side of writing an entry the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The entry is lost.
    Before,
    /// The entry is written, and nobody hears of it.
    After,
}

/// A journal in memory that fails at the n-th entry that is appended, counted from 0, once.
#[derive(Clone, Debug)]
pub struct CrashingJournal {
    inner: MemoryJournal,
    appended: Arc<AtomicUsize>,
    at: usize,
    crash: Crash,
}

impl CrashingJournal {
    /// Fails at this entry.
    pub fn at(at: usize, crash: Crash) -> Self {
        Self {
            inner: MemoryJournal::new(),
            appended: Arc::default(),
            at,
            crash,
        }
    }

    /// Whether it has come to its crash.
    pub fn has_crashed(&self) -> bool {
        self.appended.load(Ordering::Relaxed) > self.at
    }
}

#[async_trait]
impl Journal for CrashingJournal {
    async fn entries(&self, run: &str) -> Result<Vec<Entry>, JournalError> {
        self.inner.entries(run).await
    }

    async fn append(&self, run: &str, place: usize, entry: &Entry) -> Result<(), JournalError> {
        let crashes = self.appended.fetch_add(1, Ordering::Relaxed) == self.at;
        if !(crashes && self.crash == Crash::Before) {
            self.inner.append(run, place, entry).await?;
        }
        match crashes {
            true => Err(JournalError {
                run: run.to_owned(),
                problem: "cannot be reached: the process is dead".to_owned(),
            }),
            false => Ok(()),
        }
    }
}
