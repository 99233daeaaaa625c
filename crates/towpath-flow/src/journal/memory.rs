//! A journal that lives as long as the process.

use super::{Entry, Journal, JournalError, taken};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A journal in memory, for tests and for flows that need not survive their process. Clones share their entries.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal(Arc<Mutex<HashMap<String, Vec<Entry>>>>);

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn entries(&self, run: &str) -> Result<Vec<Entry>, JournalError> {
        Ok(self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(run)
            .cloned()
            .unwrap_or_default())
    }

    async fn append(&self, run: &str, place: usize, entry: &Entry) -> Result<(), JournalError> {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = runs.entry(run.to_owned()).or_default();
        if entries.len() != place {
            return Err(taken(run, place));
        }
        entries.push(entry.clone());
        Ok(())
    }
}
