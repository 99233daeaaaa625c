//! Storage classes: an image is active, archived, or on its way back (*Amazon ECR User Guide*, "Archiving an image").

use jiff::Timestamp;
use std::time::{Duration, Instant};

/// Where an image is kept. A restore takes its time.
#[derive(Clone, Debug, Default)]
pub(super) struct Storage {
    pub(super) archived_at: Option<Timestamp>,
    pub(super) activated_at: Option<Timestamp>,
    state: State,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Active,
    Archived,
    Activating(Instant),
}

impl Storage {
    pub(super) fn status(&self, restore: Duration) -> &'static str {
        match self.state {
            State::Active => "ACTIVE",
            State::Archived => "ARCHIVED",
            State::Activating(asked) if asked.elapsed() < restore => "ACTIVATING",
            State::Activating(_) => "ACTIVE",
        }
    }

    pub(super) fn archive(&mut self) {
        self.state = State::Archived;
        self.archived_at = Some(Timestamp::now());
    }

    pub(super) fn restore(&mut self) {
        self.state = State::Activating(Instant::now());
        self.activated_at = Some(Timestamp::now());
    }

    /// An image that is pushed again is active at once.
    pub(super) fn activate(&mut self) {
        if !matches!(self.state, State::Active) {
            self.state = State::Active;
            self.activated_at = Some(Timestamp::now());
        }
    }
}
