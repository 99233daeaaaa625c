#![doc = include_str!("../README.md")]

#[doc(inline)]
pub use towpath_core as core;
#[doc(inline)]
pub use towpath_elements as elements;
#[doc(inline)]
pub use towpath_flow as flow;

#[cfg(feature = "actions")]
#[doc(inline)]
pub use towpath_actions as actions;
#[cfg(feature = "argocd")]
#[doc(inline)]
pub use towpath_argocd as argocd;
#[cfg(feature = "codeartifact")]
#[doc(inline)]
pub use towpath_codeartifact as codeartifact;
#[cfg(feature = "ecr")]
#[doc(inline)]
pub use towpath_ecr as ecr;
#[cfg(feature = "github")]
#[doc(inline)]
pub use towpath_github as github;
#[cfg(feature = "spacelift")]
#[doc(inline)]
pub use towpath_spacelift as spacelift;
