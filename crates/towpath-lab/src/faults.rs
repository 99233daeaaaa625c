//! Faults that a test scripts: the next requests that match are answered wrongly, late, or not at all.

use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The faults waiting to happen at one service. Cheap to clone; every clone is the same list.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

/// One fault: which requests it meets, what it does to them, and how often.
#[derive(Clone, Debug)]
#[must_use = "a fault does nothing until it is injected"]
pub struct Fault {
    method: Option<Method>,
    path_contains: String,
    remaining: u32,
    pub(crate) effect: Effect,
}

#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Answer this instead of doing the work.
    Respond {
        status: StatusCode,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: String,
    },
    /// Do the work, but only after a while.
    Delay(Duration),
    /// Do the work, and lose the answer: the connection is closed instead.
    LoseAnswer,
    /// Close the connection without doing the work.
    Cut,
}

impl Fault {
    fn on(path_contains: &str, effect: Effect) -> Self {
        Self {
            method: None,
            path_contains: path_contains.into(),
            remaining: 1,
            effect,
        }
    }

    /// Answers with this status and body, without doing the work.
    pub fn respond(path_contains: &str, status: StatusCode, body: impl Into<String>) -> Self {
        Self::on(
            path_contains,
            Effect::Respond {
                status,
                headers: Vec::new(),
                body: body.into(),
            },
        )
    }

    /// Does the work after this time.
    pub fn delay(path_contains: &str, delay: Duration) -> Self {
        Self::on(path_contains, Effect::Delay(delay))
    }

    /// Does the work and closes the connection instead of answering.
    pub fn lose_answer(path_contains: &str) -> Self {
        Self::on(path_contains, Effect::LoseAnswer)
    }

    /// Closes the connection without doing the work.
    pub fn cut(path_contains: &str) -> Self {
        Self::on(path_contains, Effect::Cut)
    }

    /// Meets only requests with this method.
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Adds a header to a scripted answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if let Effect::Respond { headers, .. } = &mut self.effect {
            headers.push((name, value));
        }
        self
    }

    /// Happens this many times; once where nothing is said.
    pub fn times(mut self, times: u32) -> Self {
        self.remaining = times;
        self
    }

    /// Happens every time.
    pub fn always(self) -> Self {
        self.times(u32::MAX)
    }
}

impl Faults {
    /// Adds a fault. The first one that matches a request is the one that happens.
    pub fn inject(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Takes all faults back.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What happens to this request, if anything; counts it as having happened.
    pub(crate) fn meet(&self, method: &Method, path_and_query: &str) -> Option<Effect> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = faults.iter_mut().find(|fault| {
            fault.remaining > 0
                && fault.method.as_ref().is_none_or(|wanted| wanted == method)
                && path_and_query.contains(&fault.path_contains)
        })?;
        if fault.remaining != u32::MAX {
            fault.remaining -= 1;
        }
        Some(fault.effect.clone())
    }
}
