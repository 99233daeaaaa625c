//! The effects an engine can carry out by name.

use crate::{Effect, Elements, Evidence, effects};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use towpath_elements::{Error, ErrorKind, Result};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What carrying out an effect gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Carried {
    /// The output, as JSON.
    pub output: Value,
    /// What shows that it has happened.
    pub evidence: Evidence,
}

trait Handler: Send + Sync {
    fn is_fresh(&self) -> bool;
    fn observe<'a>(
        &'a self,
        effect: &'a Value,
        elements: &'a Elements,
    ) -> BoxFuture<'a, Result<Option<Carried>>>;
    fn apply<'a>(&'a self, effect: &'a Value, elements: &'a Elements) -> BoxFuture<'a, Result<Carried>>;
}

struct Typed<E>(std::marker::PhantomData<fn() -> E>);

impl<E: Effect> Typed<E> {
    fn read(effect: &Value) -> Result<E> {
        E::deserialize(effect).map_err(|error| {
            Error::new(ErrorKind::Invalid, "journal", "read the effect", E::NAME)
                .because(error)
                .advise("it was written by another version of this program; finish the run with that one")
        })
    }

    fn carried(effect: &E, output: &E::Output) -> Result<Carried> {
        let value = serde_json::to_value(output).map_err(|error| {
            Error::new(ErrorKind::Protocol, "journal", "write the output of", E::NAME).because(error)
        })?;
        Ok(Carried {
            output: value,
            evidence: effect.evidence(output),
        })
    }
}

impl<E: Effect> Handler for Typed<E> {
    fn is_fresh(&self) -> bool {
        E::FRESH
    }

    fn observe<'a>(
        &'a self,
        effect: &'a Value,
        elements: &'a Elements,
    ) -> BoxFuture<'a, Result<Option<Carried>>> {
        Box::pin(async move {
            let effect = Self::read(effect)?;
            match effect.observe(elements).await? {
                Some(output) => Self::carried(&effect, &output).map(Some),
                None => Ok(None),
            }
        })
    }

    fn apply<'a>(&'a self, effect: &'a Value, elements: &'a Elements) -> BoxFuture<'a, Result<Carried>> {
        Box::pin(async move {
            let effect = Self::read(effect)?;
            let output = effect.apply(elements).await?;
            Self::carried(&effect, &output)
        })
    }
}

/// The effects an engine can carry out by name.
#[derive(Clone)]
pub struct Catalog(BTreeMap<&'static str, Arc<dyn Handler>>);

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Default for Catalog {
    /// Every effect of this crate.
    fn default() -> Self {
        effects::register(Self(BTreeMap::new()))
    }
}

impl Catalog {
    /// Adds an effect, so that callers can write flows of their own.
    #[must_use]
    pub fn with<E: Effect>(mut self) -> Self {
        self.0
            .insert(E::NAME, Arc::new(Typed::<E>(std::marker::PhantomData)));
        self
    }

    fn handler(&self, name: &str) -> Result<&Arc<dyn Handler>> {
        self.0.get(name).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "Towpath", "find the effect", name)
                .because("the catalog has no effect of this name")
                .advise("add it with Catalog::with")
        })
    }

    /// Whether a resumed run gets the result of an effect anew.
    ///
    /// # Errors
    /// *Invalid* where there is no such effect.
    pub fn is_fresh(&self, name: &str) -> Result<bool> {
        self.handler(name).map(|handler| handler.is_fresh())
    }

    /// Whether the world has an effect already.
    ///
    /// # Errors
    /// What the effect says; *invalid* where there is no such effect or the JSON is not it.
    pub async fn observe(&self, name: &str, effect: &Value, elements: &Elements) -> Result<Option<Carried>> {
        self.handler(name)?.observe(effect, elements).await
    }

    /// Applies an effect.
    ///
    /// # Errors
    /// As for [`observe`](Self::observe).
    pub async fn apply(&self, name: &str, effect: &Value, elements: &Elements) -> Result<Carried> {
        self.handler(name)?.apply(effect, elements).await
    }
}
