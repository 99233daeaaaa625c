//! What goes wrong, on purpose, and the journal of every call.

use super::{Moment, State, World};
use std::collections::VecDeque;
use std::fmt::Display;
use std::time::Duration;
use towpath_core::{Retry, requests};
use towpath_elements::{Error, ErrorKind, Result};

/// An element of the world, as faults and the journal name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as their traits")]
pub enum Element {
    Source,
    Ci,
    Registry,
    Artifacts,
    Delivery,
    Infrastructure,
}

impl Element {
    /// The methods of the element's trait that can be made to fail.
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Source => &[
                "head", "ancestry", "review", "file", "commit", "history", "report", "reports",
            ],
            Self::Ci => &["runs", "run", "jobs", "log", "start", "rerun", "cancel"],
            Self::Registry => &[
                "locate",
                "ensure_repository",
                "resolve",
                "cached",
                "import",
                "assemble",
                "tag",
                "copy",
                "scan",
                "scan_again",
            ],
            Self::Artifacts => &["access", "version", "versions", "publish", "asset", "promote"],
            Self::Delivery => &["status", "refresh", "sync", "wait", "running"],
            Self::Infrastructure => &[
                "stack", "find_run", "run", "plan", "trigger", "confirm", "discard", "log", "outputs",
            ],
        }
    }
}

/// One thing that goes wrong with one call.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The call fails with this error, and nothing is done.
    Refuse(Error),
    /// The work is done, and the caller is told that the service is unavailable.
    LoseAnswer,
    /// The work is done this much later.
    Delay(Duration),
}

/// One call of an element, as it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The element.
    pub element: Element,
    /// The method of its trait.
    pub method: &'static str,
    /// What it was about.
    pub subject: String,
    /// Whether it changed anything in the world, whatever the caller was told.
    pub changed: bool,
    /// The kind of the error that the caller was given, if it was one.
    pub error: Option<ErrorKind>,
    /// When it did its work, since the world began.
    pub at: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    scripted: Vec<(Element, &'static str, VecDeque<Fault>)>,
    chaos: Option<Chaos>,
    jitter: Option<Random>,
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Chaos {
    random: Random,
    rate: f64,
}

/// SplitMix64: small, seeded, and the same on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1, without 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Chaos {
    fn fault(&mut self) -> Option<Fault> {
        if self.random.fraction() >= self.rate {
            return None;
        }
        let refuse = |kind, detail: &str| {
            Fault::Refuse(Error::new(kind, "the World", "answer", "this call").because(detail))
        };
        Some(match self.random.next() % 4 {
            0 => refuse(ErrorKind::Unavailable, "a scripted outage"),
            1 => refuse(ErrorKind::RateLimited, "a scripted throttle")
                .retrying(Retry::After(Duration::from_secs(2))),
            2 => Fault::LoseAnswer,
            _ => Fault::Delay(Duration::from_millis(self.random.next() % 5_000)),
        })
    }
}

impl Fault {
    fn retrying(self, retry: Retry) -> Self {
        match self {
            Self::Refuse(error) => Self::Refuse(error.retrying(retry)),
            other => other,
        }
    }
}

impl World {
    /// Makes the next `times` calls of a method fail with this error, and do nothing.
    ///
    /// # Panics
    /// Where the element's trait has no such method: a fault that can never happen would prove nothing.
    pub fn fail(&self, element: Element, method: &'static str, error: &Error, times: usize) {
        for _ in 0..times {
            self.script(element, method, Fault::Refuse(again(error)));
        }
    }

    /// Adds a fault for the next call of a method that has none waiting yet.
    ///
    /// # Panics
    /// Where the element's trait has no such method.
    pub fn script(&self, element: Element, method: &'static str, fault: Fault) {
        assert!(
            element.methods().contains(&method),
            "{element:?} has no method {method:?}; it has {:?}",
            element.methods()
        );
        let mut faults = self.faults();
        let queue = faults
            .scripted
            .iter_mut()
            .find(|(e, m, _)| (*e, *m) == (element, method));
        match queue {
            Some((_, _, queue)) => queue.push_back(fault),
            None => faults.scripted.push((element, method, VecDeque::from([fault]))),
        }
    }

    /// From now on lets each call go wrong with this probability: refused, throttled, its answer lost, or late. The
    /// same seed gives the same faults to the same calls. A `rate` of 0 ends it.
    pub fn chaos(&self, seed: u64, rate: f64) {
        self.faults().chaos = (rate > 0.0).then_some(Chaos {
            random: Random(seed),
            rate,
        });
    }

    /// From now on gives each call a latency of its own, up to 40 ms before and after its work, so that calls that run
    /// side by side meet in an order that the seed decides.
    pub fn jitter(&self, seed: u64) {
        self.faults().jitter = Some(Random(seed));
    }

    /// Every call so far, in the order in which they did their work.
    pub fn calls(&self) -> Vec<Call> {
        self.faults().calls.clone()
    }

    /// The calls so far that changed something.
    pub fn changes(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.changed).collect()
    }

    /// Empties the journal of calls.
    pub fn forget_calls(&self) {
        self.faults().calls.clear();
    }

    /// Does a call's work at its time, with what was scripted to go wrong, and notes it.
    pub(super) async fn call<T>(
        &self,
        element: Element,
        method: &'static str,
        subject: impl Display + Send,
        work: impl FnOnce(&mut State, Moment<'_>) -> Result<T>,
    ) -> Result<T> {
        requests::sent();
        let (fault, before, after) = self.fate(element, method);
        let subject = subject.to_string();
        tokio::time::sleep(before).await;
        let result = match fault {
            Some(Fault::Refuse(error)) => {
                self.note(element, method, &subject, false, Some(error.kind()));
                Err(error)
            }
            fault => {
                let (result, changed) = self.with(|state, moment| {
                    state.changed = false;
                    let result = work(state, moment);
                    (result, std::mem::take(&mut state.changed))
                });
                let result = match fault {
                    Some(Fault::LoseAnswer) => Err(lost(method, &subject)),
                    _ => result,
                };
                let kind = result.as_ref().err().map(Error::kind);
                self.note(element, method, &subject, changed, kind);
                result
            }
        };
        tokio::time::sleep(after).await;
        result
    }

    fn note(
        &self,
        element: Element,
        method: &'static str,
        subject: &str,
        changed: bool,
        error: Option<ErrorKind>,
    ) {
        let (at, subject) = (self.0.started.elapsed(), subject.to_owned());
        self.faults().calls.push(Call {
            element,
            method,
            subject,
            changed,
            error,
            at,
        });
    }

    fn fate(&self, element: Element, method: &str) -> (Option<Fault>, Duration, Duration) {
        let latency = self.0.timing.latency;
        let mut faults = self.faults();
        let scripted = faults
            .scripted
            .iter_mut()
            .find(|(e, m, _)| (*e, *m) == (element, method))
            .and_then(|(_, _, queue)| queue.pop_front());
        let fault = match scripted {
            Some(fault) => Some(fault),
            None => faults.chaos.as_mut().and_then(Chaos::fault),
        };
        let mut drawn = || {
            faults
                .jitter
                .as_mut()
                .map(|random| Duration::from_millis(random.next() % 40))
        };
        let (before, after) = (drawn().unwrap_or(latency), drawn().unwrap_or_default());
        match fault {
            Some(Fault::Delay(delay)) => (None, before + delay, after),
            fault => (fault, before, after),
        }
    }
}

fn lost(method: &'static str, subject: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "the World", method, subject).because("the answer was lost")
}

/// The same error once more; its cause is kept as text.
fn again(error: &Error) -> Error {
    let mut copy = Error::new(
        error.kind(),
        error.service(),
        error.attempted().to_owned(),
        error.subject(),
    )
    .because(error.detail())
    .retrying(error.retry());
    if let Some(advice) = error.advice() {
        copy = copy.advise(advice.to_owned());
    }
    if let Some(cause) = std::error::Error::source(error) {
        copy = copy.caused_by(cause.to_string());
    }
    copy
}
