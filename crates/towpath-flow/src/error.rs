//! How a flow stops short of its end.

use crate::runner::Question;
use crate::{JournalError, Step};
use serde::{Deserialize, Serialize};
use std::error::Error as _;
use std::fmt;
use towpath_elements::{Error, ErrorKind};

/// A failure as journals and records keep it: the text of an [`Error`] and its causes, its kind, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// The failure in one line, then each cause.
    pub message: String,
    /// Whether trying again later can help.
    pub retryable: bool,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            message.push_str(&format!("; because {source}"));
            cause = source.source();
        }
        let retryable = error.retry() != towpath_core::Retry::Never;
        Self {
            kind: error.kind(),
            message,
            retryable,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why a flow stopped at a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stop {
    /// An effect failed.
    #[error("{failure}")]
    Failed {
        /// The step.
        step: Step,
        /// What was being done, as the effect says it.
        doing: String,
        /// What went wrong.
        failure: Failure,
    },
    /// A dry run came to something that is not there yet.
    #[error("would {would}; what comes after it depends on that")]
    DryRun {
        /// The step.
        step: Step,
        /// What would be done.
        would: String,
    },
    /// A human said no.
    #[error("{by} rejected {what}{}", note.as_ref().map_or_else(String::new, |note| format!(": {note}")))]
    Rejected {
        /// The step.
        step: Step,
        /// What was rejected.
        what: String,
        /// Who said no.
        by: String,
        /// What they said.
        note: Option<String>,
    },
    /// A human has not answered yet. The run can be resumed once somebody has.
    #[error("waiting for an answer: {}", question.text)]
    Waiting {
        /// The step.
        step: Step,
        /// The question.
        question: Box<Question>,
    },
    /// The journal could not be read or written, so nothing more was done.
    #[error(transparent)]
    Journal(JournalError),
}

impl Stop {
    /// The step it stopped at; `None` where the journal failed.
    pub fn step(&self) -> Option<Step> {
        match self {
            Self::Failed { step, .. }
            | Self::DryRun { step, .. }
            | Self::Rejected { step, .. }
            | Self::Waiting { step, .. } => Some(*step),
            Self::Journal(_) => None,
        }
    }

    /// Whether an effect met something else than it was to work on: the world has changed under the flow.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Failed { failure, .. } if failure.kind == ErrorKind::Conflict)
    }

    /// What a user can do next, in a sentence.
    pub fn next_move(&self) -> String {
        match self {
            Self::Failed { failure, .. } if failure.kind == ErrorKind::Cancelled => {
                "Start the run again when you are ready; it goes on where it stopped.".into()
            }
            Self::Failed { failure, .. } if failure.retryable => {
                "Start the run again once the service answers; what is done stays done.".into()
            }
            Self::Failed { .. } => "Mend the cause and start the run again; what is done stays done.".into(),
            Self::DryRun { .. } => "Run it without the dry run.".into(),
            Self::Rejected { .. } => "Nothing was applied. Change the plan in a new commit.".into(),
            Self::Waiting { .. } => "Answer the question; the run goes on from there.".into(),
            Self::Journal(_) => "Mend the journal's storage and start the run again.".into(),
        }
    }
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

/// A flow that stopped short of its end: where, why, and what had been done by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowError {
    /// The flow.
    pub flow: &'static str,
    /// Why it stopped.
    pub stop: Stop,
    /// What had been done, in order.
    pub done: Vec<String>,
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stopped", self.flow)?;
        if let Some(step) = self.stop.step() {
            write!(f, " at {step}")?;
        }
        write!(f, ": {}", self.stop)
    }
}

impl std::error::Error for FlowError {}
