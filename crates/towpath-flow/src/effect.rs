//! One thing that a flow does to the world.

use crate::Elements;
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use towpath_elements::Result;

/// What shows that an effect has happened, as the run record keeps it: names such as `digest` and their values.
pub type Evidence = BTreeMap<String, String>;

/// One thing a flow does to the world: a value that can be written down, looked for, and applied.
///
/// The name and the fields are stored in journals: treat them as a wire format. They never hold a secret, nor does the
/// output; an effect that needs a token asks the element for it when it is applied.
///
/// Equal effects are the same effect. A flow that is resumed, or run again, asks [`observe`](Self::observe) first, so
/// `apply` may count on the world not having it yet, and must still be safe to repeat: a crash can fall between the
/// effect and the note that it was done.
#[async_trait]
pub trait Effect: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name in journals, such as `registry.assemble`.
    const NAME: &'static str;

    /// Whether a resumed run gets the result anew instead of trusting the journal: it lives on this machine only, as built
    /// files do, or the world may change it without notice, as a plan.
    const FRESH: bool = false;

    /// What applying it gives.
    type Output: Serialize + DeserializeOwned + Send;

    /// What it does and to what, for people: `assemble shop/web:1.4`.
    fn title(&self) -> String;

    /// What shows that it has happened.
    fn evidence(&self, output: &Self::Output) -> Evidence;

    /// Whether the world has it already. `None` where it has not, or where only applying can tell.
    ///
    /// # Errors
    /// What the element said when it was asked, and a *conflict* where the world has something else in its place.
    async fn observe(&self, elements: &Elements) -> Result<Option<Self::Output>>;

    /// Makes it so.
    ///
    /// # Errors
    /// What the element said.
    async fn apply(&self, elements: &Elements) -> Result<Self::Output>;
}

/// Collects evidence from names and values.
pub(crate) fn evidence<const N: usize>(facts: [(&str, String); N]) -> Evidence {
    facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
