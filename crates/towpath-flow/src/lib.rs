#![doc = include_str!("../README.md")]

mod catalog;
mod context;
mod effect;
pub mod effects;
mod elements;
mod engine;
mod error;
mod event;
pub mod flows;
pub mod gate;
pub mod journal;
pub mod manifest;
mod page;
mod record;
mod runner;
mod step;
pub mod toolchain;

pub use catalog::Catalog;
pub use context::Context;
pub use effect::{Effect, Evidence};
pub use elements::Elements;
pub use engine::{Call, DryRun, Engine};
pub use error::{Failure, FlowError, Stop};
pub use event::{Event, Happening, Progress};
pub use flows::{Cd, CiDocker, CiLibrary, Flow, Spacelift};
pub use journal::{Journal, JournalError, MemoryJournal, SqliteJournal};
pub use page::{PageFacts, page, page_with, table};
pub use record::{RunRecord, StepRecord, StepState};
pub use runner::{Approver, Decision, Question, Runner};
pub use step::Step;
