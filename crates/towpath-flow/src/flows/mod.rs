//! The four flows.

mod cd;
mod ci_docker;
mod ci_library;
mod spacelift;

pub use cd::{Cd, Delivered};
pub use ci_docker::{CiDocker, ImageBuilt, ImageRecipe};
pub use ci_library::{CiLibrary, LibraryBuilt};
pub use spacelift::{Applied, Spacelift};

use crate::{Context, Stop};
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A flow: its input as data, and a program over effects that is deterministic between them.
///
/// The input is stored in journals: treat its fields as a wire format, and keep secrets out of it.
#[async_trait]
pub trait Flow: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The flow's name in journals.
    const NAME: &'static str;

    /// What it gives at its end.
    type Outcome: Send;

    /// Goes through the flow.
    ///
    /// # Errors
    /// Where and why it stopped.
    async fn run(&self, context: &Context<'_>) -> Result<Self::Outcome, Stop>;
}
