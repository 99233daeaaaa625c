//! The elements that a flow works on.

use crate::toolchain::{Cargo, Toolchain};
use std::sync::Arc;
use towpath_core::Cancellation;
use towpath_core::wait::Policy;
use towpath_elements::{Artifacts, Ci, Delivery, Error, ErrorKind, Infrastructure, Registry, Result, Source};

/// The elements that a flow works on. A flow needs some of them; asking for one that was not given is an error that
/// names it.
///
/// ```
/// # use std::sync::Arc;
/// # use towpath_elements::MockSource;
/// use towpath_flow::Elements;
/// let elements = Elements::new().with_source(Arc::new(MockSource::new()));
/// assert!(elements.source().is_ok());
/// assert!(elements.registry().unwrap_err().to_string().contains("registry"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Elements {
    source: Option<Arc<dyn Source>>,
    ci: Option<Arc<dyn Ci>>,
    registry: Option<Arc<dyn Registry>>,
    artifacts: Option<Arc<dyn Artifacts>>,
    delivery: Option<Arc<dyn Delivery>>,
    infrastructure: Option<Arc<dyn Infrastructure>>,
    toolchain: Arc<dyn Toolchain>,
    policy: Policy,
    cancellation: Cancellation,
}

impl Default for Elements {
    fn default() -> Self {
        Self {
            source: None,
            ci: None,
            registry: None,
            artifacts: None,
            delivery: None,
            infrastructure: None,
            toolchain: Arc::new(Cargo::default()),
            policy: Policy::default(),
            cancellation: Cancellation::new(),
        }
    }
}

macro_rules! element {
    ($field:ident, $with:ident, $trait:ident, $doc:literal) => {
        #[doc = concat!("Gives ", $doc, ".")]
        pub fn $with(mut self, $field: Arc<dyn $trait>) -> Self {
            self.$field = Some($field);
            self
        }

        #[doc = concat!("Asks for ", $doc, ".")]
        ///
        /// # Errors
        /// *Invalid* where it was not given.
        pub fn $field(&self) -> Result<&Arc<dyn $trait>> {
            self.$field
                .as_ref()
                .ok_or_else(|| missing(stringify!($field), stringify!($with)))
        }
    };
}

impl Elements {
    /// No elements yet.
    pub fn new() -> Self {
        Self::default()
    }

    element!(source, with_source, Source, "the source repository (A, B)");
    element!(ci, with_ci, Ci, "the CI system (C)");
    element!(registry, with_registry, Registry, "the image registry (D1, D2)");
    element!(
        artifacts,
        with_artifacts,
        Artifacts,
        "the package repositories (D3)"
    );
    element!(delivery, with_delivery, Delivery, "the delivery system (F)");
    element!(
        infrastructure,
        with_infrastructure,
        Infrastructure,
        "the infrastructure system (G to K)"
    );

    /// Gives another toolchain than the real `cargo`.
    pub fn with_toolchain(mut self, toolchain: Arc<dyn Toolchain>) -> Self {
        self.toolchain = toolchain;
        self
    }

    /// How often effects that wait look, and for how long.
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// What stops everything that works on these elements.
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// The toolchain that builds libraries.
    pub fn toolchain(&self) -> &Arc<dyn Toolchain> {
        &self.toolchain
    }

    /// How often effects that wait look, and for how long.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What stops the flow.
    pub fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }
}

fn missing(element: &'static str, with: &str) -> Error {
    Error::new(ErrorKind::Invalid, "Towpath", "use the element", element)
        .because("it was not given to this flow")
        .advise(format!("add it with Elements::{with}"))
}
