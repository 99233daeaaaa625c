//! The runner of this crate: one process, a journal, and the world asked before it is changed.

use crate::journal::Entry;
use crate::{
    Call, Catalog, Context, Elements, Engine, Event, Failure, Flow, FlowError, Happening, Journal,
    JournalError, Progress, Step, Stop,
};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use towpath_core::{Digest, requests};
use towpath_elements::{Error, ErrorKind};

/// A question to a human. What is asked about is named by `binds`: an answer counts for that and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The question in one line.
    pub text: String,
    /// What the human must see to answer it.
    pub details: Vec<String>,
    /// The digest of what is asked about, such as a plan. If that changes, the question is another one.
    pub binds: Digest,
}

/// A human's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Yes or no.
    pub approved: bool,
    /// Who answered.
    pub by: String,
    /// What they said with it.
    pub note: Option<String>,
}

/// Where a runner takes answers from.
#[async_trait]
pub trait Approver: Send + Sync {
    /// The answer, or `None` where there is none yet; the run then stops and can be resumed.
    async fn decide(&self, question: &Question) -> Option<Decision>;
}

struct NobodyYet;

#[async_trait]
impl Approver for NobodyYet {
    async fn decide(&self, _: &Question) -> Option<Decision> {
        None
    }
}

/// Runs flows in this process: notes the intent, asks the world, applies the effect, notes the outcome.
///
/// A run that stopped, or whose process died, is begun again with the same name and input and goes on: what the journal
/// has as done is not done again, and what was only intended is looked for first. The same name with another input is
/// refused.
///
/// ```
/// # use towpath_flow::*;
/// # async fn f(elements: Elements, flow: CiDocker, folder: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
/// let runner = Runner::new(elements)
///     .with_journal(SqliteJournal::open(folder.join("runs.db"))?)
///     .with_progress(Progress::new(|event| println!("{}: {}", event.step, event.title)));
/// let built = runner.run("web-9fceb02", &flow).await?;
/// println!("stored {}", built.image);
/// # Ok(()) }
/// ```
#[must_use]
pub struct Runner {
    elements: Elements,
    catalog: Catalog,
    journal: Arc<dyn Journal>,
    approver: Arc<dyn Approver>,
    progress: Progress,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("elements", &self.elements)
            .field("journal", &self.journal)
            .finish()
    }
}

impl Runner {
    /// A runner with a journal in memory, in which nobody answers questions.
    pub fn new(elements: Elements) -> Self {
        Self {
            elements,
            catalog: Catalog::default(),
            journal: Arc::new(crate::MemoryJournal::new()),
            approver: Arc::new(NobodyYet),
            progress: Progress::default(),
        }
    }

    /// Keeps its notes in this journal.
    pub fn with_journal(mut self, journal: impl Journal + 'static) -> Self {
        self.journal = Arc::new(journal);
        self
    }

    /// Takes answers from here.
    pub fn with_approver(mut self, approver: impl Approver + 'static) -> Self {
        self.approver = Arc::new(approver);
        self
    }

    /// Tells this listener what happens.
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Knows these effects; needed for flows with effects of their own.
    pub fn with_catalog(mut self, catalog: Catalog) -> Self {
        self.catalog = catalog;
        self
    }

    /// Runs a flow to its end, or goes on with a run of this name that stopped.
    ///
    /// # Errors
    /// Where and why it stopped, and what had been done by then.
    pub async fn run<F: Flow>(&self, run: &str, flow: &F) -> Result<F::Outcome, FlowError> {
        let stopped = |stop: Stop, done| FlowError {
            flow: F::NAME,
            stop,
            done,
        };
        let active = match self.begin(run, flow).await {
            Ok(active) => active,
            Err(stop) => return Err(stopped(stop, Vec::new())),
        };
        let result = flow.run(&Context::new(&active)).await;
        match result {
            Ok(outcome) => match active.append(|at| Entry::Finished { at }).await {
                Ok(()) => Ok(outcome),
                Err(error) => Err(stopped(error.into(), active.done())),
            },
            Err(stop) => Err(stopped(stop, active.done())),
        }
    }

    async fn begin<F: Flow>(&self, run: &str, flow: &F) -> Result<Active<'_>, Stop> {
        let problem = |problem: String| JournalError {
            run: run.to_owned(),
            problem,
        };
        let input = serde_json::to_value(flow)
            .map_err(|error| problem(format!("cannot take in the flow's input: {error}")))?;
        let entries = self.journal.entries(run).await?;
        let active = Active {
            runner: self,
            run: run.to_owned(),
            flow: F::NAME,
            memory: Mutex::new(Memory::read(&entries)),
            appending: tokio::sync::Mutex::new(entries.len()),
        };
        match entries.first() {
            None => {
                active
                    .append(|at| Entry::Begun {
                        flow: F::NAME.to_owned(),
                        input,
                        at,
                    })
                    .await?
            }
            Some(Entry::Begun {
                flow, input: before, ..
            }) if flow == F::NAME && *before == input => {}
            Some(_) => {
                return Err(problem(
                    "was begun as another flow or with another input; choose another name for this one"
                        .into(),
                )
                .into());
            }
        }
        Ok(active)
    }
}

/// What a run's journal says, by key.
#[derive(Debug, Default)]
struct Memory {
    done: HashMap<String, Entry>,
    decisions: HashMap<String, Decision>,
    asked: Vec<String>,
    noted: HashMap<String, Value>,
    titles: Vec<String>,
    occurrences: HashMap<String, u32>,
}

impl Memory {
    fn read(entries: &[Entry]) -> Self {
        let mut memory = Self::default();
        let mut titles = HashMap::new();
        for entry in entries {
            match entry {
                Entry::Intended { key, title, .. } => {
                    titles.insert(key, title);
                }
                Entry::Done { key, .. } => {
                    memory
                        .titles
                        .extend(titles.get(key).map(|title| (*title).clone()));
                    memory.done.insert(key.clone(), entry.clone());
                }
                Entry::Asked { key, .. } => memory.asked.push(key.clone()),
                Entry::Decided { key, decision, .. } => {
                    memory.decisions.insert(key.clone(), decision.clone());
                }
                Entry::Noted { key, value } => {
                    memory.noted.insert(key.clone(), value.clone());
                }
                Entry::Begun { .. } | Entry::Failed { .. } | Entry::Finished { .. } => {}
            }
        }
        memory
    }

    /// Names the next occurrence of something in the run. A flow is deterministic, so a resumed run counts alike.
    fn key(&mut self, what: String) -> String {
        let occurrence = self.occurrences.entry(what.clone()).or_default();
        *occurrence += 1;
        format!("{what}#{occurrence}")
    }
}

/// One run while it runs.
struct Active<'a> {
    runner: &'a Runner,
    run: String,
    flow: &'static str,
    memory: Mutex<Memory>,
    /// The place of the next entry. Held while an entry is written, so that places are given out one at a time.
    appending: tokio::sync::Mutex<usize>,
}

impl Active<'_> {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(&self, entry: impl FnOnce(Timestamp) -> Entry) -> Result<(), JournalError> {
        let mut place = self.appending.lock().await;
        self.runner
            .journal
            .append(&self.run, *place, &entry(Timestamp::now()))
            .await?;
        *place += 1;
        Ok(())
    }

    fn done(&self) -> Vec<String> {
        self.memory().titles.clone()
    }

    fn tell(&self, step: Step, title: &str, happening: Happening) {
        let (at, flow, title) = (Timestamp::now(), self.flow.to_owned(), title.to_owned());
        self.runner.progress.tell(&Event {
            at,
            flow,
            step,
            title,
            happening,
        });
    }

    /// A value that is made once and is the same at every replay.
    async fn noted(&self, what: &str, value: impl FnOnce() -> Value) -> Result<Value, Stop> {
        let key = self.memory().key(what.to_owned());
        if let Some(known) = self.memory().noted.get(&key) {
            return Ok(known.clone());
        }
        let value = value();
        self.append(|_| Entry::Noted {
            key: key.clone(),
            value: value.clone(),
        })
        .await?;
        self.memory().noted.insert(key, value.clone());
        Ok(value)
    }

    fn cancelled(&self, step: Step, doing: &str) -> Stop {
        let error = Error::new(ErrorKind::Cancelled, "Towpath", "go on with", doing);
        Stop::Failed {
            step,
            doing: doing.to_owned(),
            failure: Failure::from(&error),
        }
    }

    async fn carry_out(&self, call: &Call) -> Result<(crate::catalog::Carried, bool), Error> {
        let Runner {
            catalog, elements, ..
        } = self.runner;
        if let Some(found) = catalog.observe(call.name, &call.effect, elements).await? {
            return Ok((found, true));
        }
        catalog
            .apply(call.name, &call.effect, elements)
            .await
            .map(|carried| (carried, false))
    }
}

#[async_trait]
impl Engine for Active<'_> {
    async fn step(&self, call: Call) -> Result<Value, Stop> {
        let Call {
            step,
            name,
            title,
            effect,
        } = &call;
        let failed = |error: &Error| Stop::Failed {
            step: *step,
            doing: title.clone(),
            failure: Failure::from(error),
        };
        let named = format!(
            "{name}#{}",
            &Digest::sha256_of(effect.to_string()).encoded()[..16]
        );
        let key = self.memory().key(named);
        let fresh = self
            .runner
            .catalog
            .is_fresh(name)
            .map_err(|error| failed(&error))?;
        let known = self.memory().done.get(&key).filter(|_| !fresh).cloned();
        if let Some(Entry::Done { output, evidence, .. }) = known {
            self.tell(*step, title, Happening::Started);
            self.tell(
                *step,
                title,
                Happening::Done {
                    evidence,
                    already: true,
                    requests: 0,
                },
            );
            return Ok(output);
        }
        if self.runner.elements.cancellation().is_cancelled() {
            return Err(self.cancelled(*step, title));
        }
        self.append(|at| Entry::Intended {
            key: key.clone(),
            step: *step,
            title: title.clone(),
            at,
        })
        .await?;
        self.tell(*step, title, Happening::Started);
        let (result, requests) = requests::count(self.carry_out(&call)).await;
        match result {
            Ok((carried, already)) => {
                let crate::catalog::Carried { output, evidence } = carried;
                self.append(|at| Entry::Done {
                    key: key.clone(),
                    output: output.clone(),
                    evidence: evidence.clone(),
                    already,
                    requests,
                    at,
                })
                .await?;
                self.memory().titles.push(title.clone());
                self.tell(
                    *step,
                    title,
                    Happening::Done {
                        evidence,
                        already,
                        requests,
                    },
                );
                Ok(output)
            }
            Err(error) => {
                let failure = Failure::from(&error);
                self.tell(
                    *step,
                    title,
                    Happening::Failed {
                        reason: failure.message.clone(),
                        retryable: failure.retryable,
                        requests,
                    },
                );
                self.append(|at| Entry::Failed {
                    key: key.clone(),
                    failure,
                    at,
                })
                .await?;
                Err(failed(&error))
            }
        }
    }

    async fn ask(&self, step: Step, question: Question) -> Result<Decision, Stop> {
        let key = format!("ask#{}", question.binds);
        self.tell(
            step,
            &question.text,
            Happening::Asked {
                details: question.details.clone(),
            },
        );
        let known = self.memory().decisions.get(&key).cloned();
        let decision = match known {
            Some(decision) => decision,
            None => {
                if !self.memory().asked.contains(&key) {
                    self.append(|at| Entry::Asked {
                        key: key.clone(),
                        question: question.clone(),
                        at,
                    })
                    .await?;
                    self.memory().asked.push(key.clone());
                }
                let answer = tokio::select! {
                    biased;
                    () = self.runner.elements.cancellation().cancelled() => {
                        return Err(self.cancelled(step, &question.text));
                    }
                    answer = self.runner.approver.decide(&question) => answer,
                };
                let Some(decision) = answer else {
                    return Err(Stop::Waiting {
                        step,
                        question: Box::new(question),
                    });
                };
                self.append(|at| Entry::Decided {
                    key: key.clone(),
                    decision: decision.clone(),
                    at,
                })
                .await?;
                self.memory().decisions.insert(key, decision.clone());
                decision
            }
        };
        let Decision { approved, by, .. } = &decision;
        self.tell(
            step,
            &question.text,
            Happening::Decided {
                approved: *approved,
                by: by.clone(),
            },
        );
        Ok(decision)
    }

    async fn sleep(&self, duration: Duration) -> Result<(), Stop> {
        let until = SignedDuration::try_from(duration)
            .ok()
            .and_then(|duration| Timestamp::now().checked_add(duration).ok())
            .unwrap_or(Timestamp::MAX);
        let until = self.noted("sleep", || Value::String(until.to_string())).await?;
        let until: Timestamp = until
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
        tokio::select! {
            biased;
            () = self.runner.elements.cancellation().cancelled() => Err(self.cancelled(Step::Push, "sleep")),
            () = tokio::time::sleep(left) => Ok(()),
        }
    }

    async fn now(&self) -> Result<Timestamp, Stop> {
        let now = self
            .noted("now", || Value::String(Timestamp::now().to_string()))
            .await?;
        Ok(now
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(Timestamp::UNIX_EPOCH))
    }

    async fn random(&self) -> Result<u64, Stop> {
        let random = self
            .noted("random", || Value::from(uuid::Uuid::new_v4().as_u64_pair().0))
            .await?;
        Ok(random.as_u64().unwrap_or_default())
    }
}
