//! The run record: what was done at each step, on what evidence, when, and at what cost.

use crate::{Event, Evidence, Happening, Step};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Going on.
    Running,
    /// A human is asked.
    Waiting,
    /// Done.
    Done,
    /// Failed, refused or rejected.
    Failed,
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, 1 to 13.
    pub step: Step,
    /// How it stands.
    pub state: StepState,
    /// What shows it. Where several flows take part in a step, each adds its own.
    pub evidence: Evidence,
    /// When its first effect began.
    pub started: Option<Timestamp>,
    /// When its last effect so far ended.
    pub finished: Option<Timestamp>,
    /// How many requests its effects sent.
    pub requests: u64,
    /// What was done for it, in order; an effect that the world had already says so.
    pub actions: Vec<String>,
    /// Why it failed, where it did.
    pub failure: Option<String>,
}

/// What was done at each step of a run. It is built from [events](Event), in the process that runs the flows or in
/// another one.
///
/// ```
/// use towpath_flow::{RunRecord, Step, StepState};
/// let record = RunRecord::new("demo");
/// assert_eq!(record.step(Step::Push).state, StepState::Pending);
/// assert_eq!(record.steps.len(), 13);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredRecord")]
pub struct RunRecord {
    /// The run's name.
    pub run: String,
    /// When the first thing happened.
    pub started: Option<Timestamp>,
    /// When the last thing happened.
    pub finished: Option<Timestamp>,
    /// The steps, in order.
    pub steps: Vec<StepRecord>,
    #[serde(skip)]
    open: BTreeMap<Key, u32>,
    #[serde(skip)]
    failed: BTreeSet<Key>,
}

/// What an event is about: its step, flow and title.
type Key = (Step, String, String);

/// A record as it was written, before it is known to be whole.
#[derive(Deserialize)]
struct StoredRecord {
    run: String,
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
    steps: Vec<StepRecord>,
}

impl TryFrom<StoredRecord> for RunRecord {
    type Error = &'static str;

    fn try_from(stored: StoredRecord) -> Result<Self, Self::Error> {
        let StoredRecord {
            run,
            started,
            finished,
            steps,
        } = stored;
        match steps.iter().map(|step| step.step).eq(Step::ALL) {
            true => Ok(Self {
                started,
                finished,
                steps,
                ..Self::new(run)
            }),
            false => Err("a run record has the steps 1 to 13, each once and in order"),
        }
    }
}

impl RunRecord {
    /// A record in which nothing has happened yet.
    pub fn new(run: impl Into<String>) -> Self {
        let steps = Step::ALL
            .into_iter()
            .map(|step| StepRecord {
                step,
                state: StepState::Pending,
                evidence: Evidence::new(),
                started: None,
                finished: None,
                requests: 0,
                actions: Vec::new(),
                failure: None,
            })
            .collect();
        Self {
            run: run.into(),
            started: None,
            finished: None,
            steps,
            open: BTreeMap::new(),
            failed: BTreeSet::new(),
        }
    }

    /// One step of it.
    pub fn step(&self, step: Step) -> &StepRecord {
        // `new` fills in all of them, in order, and nothing takes one away.
        &self.steps[usize::from(step.number()) - 1]
    }

    /// Whether every step is done.
    pub fn is_complete(&self) -> bool {
        self.steps.iter().all(|step| step.state == StepState::Done)
    }

    /// Takes in one event.
    pub fn take_in(&mut self, event: &Event) {
        self.started.get_or_insert(event.at);
        self.finished = Some(event.at);
        let key = (event.step, event.flow.clone(), event.title.clone());
        let step = &mut self.steps[usize::from(event.step.number()) - 1];
        step.started.get_or_insert(event.at);
        match &event.happening {
            Happening::Started | Happening::Asked { .. } => {
                // What failed may be tried again; while anything else of the step has failed, the step has.
                self.failed.remove(&key);
                *self.open.entry(key).or_default() += 1;
                if !self.failed.iter().any(|(of, ..)| *of == step.step) {
                    step.failure = None;
                    step.state = match event.happening {
                        Happening::Asked { .. } => StepState::Waiting,
                        _ => StepState::Running,
                    };
                }
            }
            Happening::Done {
                evidence,
                already,
                requests,
            } => {
                close(&mut self.open, &key);
                step.requests += requests;
                step.finished = Some(event.at);
                let note = if *already { " (was there already)" } else { "" };
                step.actions.push(format!("{}{note}", event.title));
                for (name, value) in evidence {
                    add(&mut step.evidence, name, value);
                }
                settle(step, &self.open);
            }
            Happening::Decided { approved, by } => {
                close(&mut self.open, &key);
                step.finished = Some(event.at);
                step.actions.push(format!(
                    "{by} {} {}",
                    if *approved { "confirmed" } else { "rejected" },
                    event.title
                ));
                add(
                    &mut step.evidence,
                    if *approved { "confirmed by" } else { "rejected by" },
                    by,
                );
                if *approved {
                    settle(step, &self.open);
                } else {
                    self.failed.insert(key);
                    step.state = StepState::Failed;
                    step.failure = Some(format!("{by} rejected {}", event.title));
                }
            }
            Happening::Failed { reason, requests, .. } => {
                close(&mut self.open, &key);
                step.requests += requests;
                self.failed.insert(key);
                step.finished = Some(event.at);
                step.state = StepState::Failed;
                step.failure = Some(reason.clone());
            }
        }
    }
}

fn close(open: &mut BTreeMap<Key, u32>, key: &Key) {
    if let Some(count) = open.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            open.remove(key);
        }
    }
}

/// A step is done when nothing that belongs to it is still going on.
fn settle(step: &mut StepRecord, open: &BTreeMap<Key, u32>) {
    if step.state != StepState::Failed && !open.keys().any(|(of, ..)| *of == step.step) {
        step.state = StepState::Done;
    }
}

/// Adds a fact; a second, different value of the same name stands behind the first.
fn add(evidence: &mut Evidence, name: &str, value: &str) {
    match evidence.get_mut(name) {
        Some(known) if known.split("; ").any(|part| part == value) => {}
        Some(known) => {
            known.push_str("; ");
            known.push_str(value);
        }
        None => {
            evidence.insert(name.to_owned(), value.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(title: &str, happening: Happening) -> Event {
        Event {
            at: Timestamp::UNIX_EPOCH,
            flow: "f".into(),
            step: Step::StoreBuild,
            title: title.into(),
            happening,
        }
    }

    #[test]
    fn a_step_is_done_when_all_that_began_has_ended() {
        let done = |digest: &str| Happening::Done {
            evidence: [("digest".to_owned(), digest.to_owned())].into(),
            already: false,
            requests: 2,
        };
        let mut record = RunRecord::new("r");
        record.take_in(&event("a", Happening::Started));
        record.take_in(&event("b", Happening::Started));
        record.take_in(&event("a", done("one")));
        assert_eq!(record.step(Step::StoreBuild).state, StepState::Running);
        record.take_in(&event("b", done("two")));
        let step = record.step(Step::StoreBuild);
        assert_eq!((step.state, step.requests), (StepState::Done, 4));
        assert_eq!(step.evidence["digest"], "one; two");
    }

    #[test]
    fn a_failed_step_stays_failed() {
        let mut record = RunRecord::new("r");
        record.take_in(&event("a", Happening::Started));
        record.take_in(&event(
            "a",
            Happening::Failed {
                reason: "no".into(),
                retryable: false,
                requests: 1,
            },
        ));
        record.take_in(&event("b", Happening::Started));
        record.take_in(&event(
            "a",
            Happening::Failed {
                reason: "no".into(),
                retryable: false,
                requests: 1,
            },
        ));
        assert_eq!(record.step(Step::StoreBuild).state, StepState::Failed);
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(
            serde_json::from_str::<RunRecord>(&json).unwrap().steps,
            record.steps
        );
    }

    #[test]
    fn a_rejected_step_stays_failed_when_its_run_is_discarded() {
        let by = || "ada".to_owned();
        let mut record = RunRecord::new("r");
        record.take_in(&event("the plan", Happening::Asked { details: Vec::new() }));
        assert_eq!(record.step(Step::StoreBuild).state, StepState::Waiting);
        record.take_in(&event(
            "the plan",
            Happening::Decided {
                approved: false,
                by: by(),
            },
        ));
        record.take_in(&event("discard", Happening::Started));
        record.take_in(&event("discard", done()));
        let step = record.step(Step::StoreBuild);
        assert_eq!(step.state, StepState::Failed);
        assert_eq!(step.failure.as_deref(), Some("ada rejected the plan"));
    }

    #[test]
    fn a_stored_record_that_lacks_a_step_is_refused() {
        let mut value = serde_json::to_value(RunRecord::new("r")).unwrap();
        assert!(serde_json::from_value::<RunRecord>(value.clone()).is_ok());
        value["steps"].as_array_mut().unwrap().remove(4);
        let error = serde_json::from_value::<RunRecord>(value).unwrap_err();
        assert!(error.to_string().contains("steps 1 to 13"), "{error}");
    }

    #[test]
    fn a_failed_step_is_done_when_what_failed_was_done_after_all() {
        let mut record = RunRecord::new("r");
        record.take_in(&event("a", Happening::Started));
        let reason = "no".to_owned();
        record.take_in(&event(
            "a",
            Happening::Failed {
                reason,
                retryable: false,
                requests: 1,
            },
        ));
        record.take_in(&event("a", Happening::Started));
        assert_eq!(record.step(Step::StoreBuild).state, StepState::Running);
        record.take_in(&event("a", done()));
        let step = record.step(Step::StoreBuild);
        assert_eq!((step.state, &step.failure), (StepState::Done, &None));
    }

    fn done() -> Happening {
        Happening::Done {
            evidence: Evidence::new(),
            already: false,
            requests: 0,
        }
    }
}
