//! The typed layer on top of an engine: what a flow is written against.

use crate::runner::{Decision, Question};
use crate::{Call, Effect, Engine, Failure, Step, Stop};
use jiff::Timestamp;
use std::time::Duration;
use towpath_elements::{Error, ErrorKind};

/// What a flow may do. Everything else in a flow must be deterministic: no clock, no files, no network.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    engine: &'a dyn Engine,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

impl<'a> Context<'a> {
    /// A context over an engine.
    pub fn new(engine: &'a dyn Engine) -> Self {
        Self { engine }
    }

    /// Makes sure that an effect has happened, once, and gives its output.
    ///
    /// # Errors
    /// [`Stop::Failed`] where the effect failed, [`Stop::Journal`] where its intent or its outcome could not be noted.
    pub async fn perform<E: Effect>(&self, step: Step, effect: &E) -> Result<E::Output, Stop> {
        let unreadable = |what: &str, source: serde_json::Error| Stop::Failed {
            step,
            doing: effect.title(),
            failure: Failure::from(
                &Error::new(
                    ErrorKind::Protocol,
                    "journal",
                    format!("write or read the {what} of"),
                    E::NAME,
                )
                .because(source),
            ),
        };
        let value = serde_json::to_value(effect).map_err(|error| unreadable("effect", error))?;
        let call = Call {
            step,
            name: E::NAME,
            title: effect.title(),
            effect: value,
        };
        let output = self.engine.step(call).await?;
        serde_json::from_value(output).map_err(|error| unreadable("output", error))
    }

    /// Asks a human. The answer is bound to the question's `binds`: another subject is another question.
    ///
    /// # Errors
    /// [`Stop::Waiting`] where nobody has answered yet.
    pub async fn decision(&self, step: Step, question: Question) -> Result<Decision, Stop> {
        self.engine.ask(step, question).await
    }

    /// Waits, across a restart too.
    ///
    /// # Errors
    /// [`Stop::Journal`] where the time to wake up could not be noted; [`Stop::Failed`] where the flow was cancelled.
    pub async fn sleep(&self, duration: Duration) -> Result<(), Stop> {
        self.engine.sleep(duration).await
    }

    /// The time, the same at every replay.
    ///
    /// # Errors
    /// [`Stop::Journal`] where it could not be noted.
    pub async fn now(&self) -> Result<Timestamp, Stop> {
        self.engine.now().await
    }

    /// A random number, the same at every replay.
    ///
    /// # Errors
    /// [`Stop::Journal`] where it could not be noted.
    pub async fn random(&self) -> Result<u64, Stop> {
        self.engine.random().await
    }
}
