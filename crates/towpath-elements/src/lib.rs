#![doc = include_str!("../README.md")]

pub mod artifacts;
mod assembly;
pub mod ci;
pub mod delivery;
mod error;
pub mod infrastructure;
pub mod registry;
pub mod source;

pub use artifacts::Artifacts;
pub use ci::{Ci, CiExt};
pub use delivery::{Delivery, RevisionOracle};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use infrastructure::{Infrastructure, InfrastructureExt};
pub use registry::{Registry, RegistryExt};
pub use source::Source;

#[cfg(feature = "mock")]
pub use {
    artifacts::MockArtifacts, ci::MockCi, delivery::MockDelivery, delivery::MockRevisionOracle,
    infrastructure::MockInfrastructure, registry::MockRegistry, source::MockSource,
};

/// The elements are used behind `dyn`: this does not compile if one stops being object-safe.
const _: [fn(); 6] = {
    fn object_safe<T: ?Sized + Send + Sync>() {}
    [
        object_safe::<dyn Source>,
        object_safe::<dyn Ci>,
        object_safe::<dyn Registry>,
        object_safe::<dyn Artifacts>,
        object_safe::<dyn Delivery>,
        object_safe::<dyn Infrastructure>,
    ]
};
