//! The pull-through cache (*Amazon ECR User Guide*, "Sync an upstream registry with an Amazon ECR private registry"):
//! its rules, the names on both sides of it, filling it, and telling apart why it has nothing.

mod calls;
mod closure;
mod diagnose;
mod fill;
mod names;
mod problem;
mod rule;
mod upstream;
mod wanted;
mod warm;

pub(crate) use calls::RememberedRules;
pub use names::CacheRules;
pub use problem::{CacheProblem, CredentialFault};
pub use rule::CacheRule;
pub use upstream::{Upstream, UpstreamNeeds};
pub use wanted::{EnsuredRule, RuleChange, RuleCredentials, RuleValidity, WantedRule};
pub use warm::{Verification, Verify, WarmOptions, Warmed};
