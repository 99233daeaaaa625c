//! What runs a flow, whatever it is: the runner of this crate, a dry run, or a distributed engine.
//!
//! The trait is object-safe and speaks JSON, so that an engine which keeps its own history can carry a step to another
//! process by name. [`Context`](crate::Context) is the typed layer on top.

use crate::runner::{Decision, Question};
use crate::{Failure, Step, Stop};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One call of an effect, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The step it belongs to.
    pub step: Step,
    /// The effect's name.
    pub name: &'static str,
    /// What it does, for people.
    pub title: String,
    /// The effect, as JSON.
    pub effect: Value,
}

/// What runs a flow. A flow is deterministic between these calls.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Makes sure that an effect has happened, once, and gives its output as JSON.
    async fn step(&self, call: Call) -> Result<Value, Stop>;

    /// Asks a human, who may take days.
    async fn ask(&self, step: Step, question: Question) -> Result<Decision, Stop>;

    /// Waits, across a restart of the engine too.
    async fn sleep(&self, duration: Duration) -> Result<(), Stop>;

    /// The time, the same at every replay.
    async fn now(&self) -> Result<Timestamp, Stop>;

    /// A random number, the same at every replay.
    async fn random(&self) -> Result<u64, Stop>;
}

/// An engine that asks the world what is there and changes nothing. The first effect that would change something ends
/// the flow, since what follows depends on its output; [`planned`](Self::planned) says what was found and what would be
/// done.
#[derive(Debug)]
pub struct DryRun {
    elements: crate::Elements,
    catalog: crate::Catalog,
    planned: Mutex<Vec<Planned>>,
}

/// One effect that a dry run met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The step.
    pub step: Step,
    /// What it does.
    pub title: String,
    /// Whether the world has it already.
    pub there: bool,
}

impl DryRun {
    /// A dry run over these elements, which are only asked, never changed.
    pub fn new(elements: crate::Elements, catalog: crate::Catalog) -> Self {
        Self {
            elements,
            catalog,
            planned: Mutex::default(),
        }
    }

    /// What the flow met so far.
    pub fn planned(&self) -> Vec<Planned> {
        self.planned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, step: Step, title: String, there: bool) {
        self.planned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Planned { step, title, there });
    }
}

#[async_trait]
impl Engine for DryRun {
    async fn step(&self, call: Call) -> Result<Value, Stop> {
        let failed = |error: towpath_elements::Error| Stop::Failed {
            step: call.step,
            doing: call.title.clone(),
            failure: Failure::from(&error),
        };
        let observed = self
            .catalog
            .observe(call.name, &call.effect, &self.elements)
            .await
            .map_err(failed)?;
        self.note(call.step, call.title.clone(), observed.is_some());
        observed.map(|found| found.output).ok_or_else(|| Stop::DryRun {
            step: call.step,
            would: call.title.clone(),
        })
    }

    async fn ask(&self, step: Step, question: Question) -> Result<Decision, Stop> {
        self.note(step, question.text.clone(), false);
        Err(Stop::Waiting {
            step,
            question: Box::new(question),
        })
    }

    async fn sleep(&self, _: Duration) -> Result<(), Stop> {
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, Stop> {
        Ok(Timestamp::now())
    }

    async fn random(&self) -> Result<u64, Stop> {
        Ok(0)
    }
}
