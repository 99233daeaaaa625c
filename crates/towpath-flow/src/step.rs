//! The thirteen steps of the reference architecture.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One arrow of the reference architecture, 1 to 13.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Step {
    /// 1: the reviewed commit is pushed to the repository.
    Push = 1,
    /// 2: the change triggers CI.
    TriggerCi = 2,
    /// 3: images from public registries are cached.
    CacheImages = 3,
    /// 4: dependencies are fetched from CodeArtifact.
    FetchDependencies = 4,
    /// 5: the build is stored.
    StoreBuild = 5,
    /// 6: information about the new build goes back to the repository.
    ReportBuild = 6,
    /// 7: Argo CD is triggered.
    TriggerDelivery = 7,
    /// 8: Argo CD brings the new images to EKS.
    Deliver = 8,
    /// 9: the repository triggers Spacelift.
    TriggerInfrastructure = 9,
    /// 10: Spacelift makes a plan.
    Plan = 10,
    /// 11: the plan waits for a human.
    Confirm = 11,
    /// 12: the change is applied in Shared Services.
    ApplySharedServices = 12,
    /// 13: the change is applied in Apps.
    ApplyApps = 13,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 13] = [
        Self::Push,
        Self::TriggerCi,
        Self::CacheImages,
        Self::FetchDependencies,
        Self::StoreBuild,
        Self::ReportBuild,
        Self::TriggerDelivery,
        Self::Deliver,
        Self::TriggerInfrastructure,
        Self::Plan,
        Self::Confirm,
        Self::ApplySharedServices,
        Self::ApplyApps,
    ];

    /// Its number in the architecture.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// What happens, in a few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Push => "reviewed commit pushed",
            Self::TriggerCi => "CI triggered",
            Self::CacheImages => "base images cached",
            Self::FetchDependencies => "dependencies fetched",
            Self::StoreBuild => "build stored",
            Self::ReportBuild => "build reported",
            Self::TriggerDelivery => "Argo CD triggered",
            Self::Deliver => "images running",
            Self::TriggerInfrastructure => "Spacelift triggered",
            Self::Plan => "plan made",
            Self::Confirm => "plan confirmed",
            Self::ApplySharedServices => "applied in Shared Services",
            Self::ApplyApps => "applied in Apps",
        }
    }

    /// The elements that take part, by their letters in the architecture.
    pub fn elements(self) -> &'static [&'static str] {
        match self {
            Self::Push => &["A", "B"],
            Self::TriggerCi => &["B", "C"],
            Self::CacheImages => &["C", "D2", "E1", "E2"],
            Self::FetchDependencies => &["C", "D3"],
            Self::StoreBuild => &["C", "D1", "D3"],
            Self::ReportBuild => &["C", "B"],
            Self::TriggerDelivery => &["B", "F"],
            Self::Deliver => &["F", "D1"],
            Self::TriggerInfrastructure => &["B", "G"],
            Self::Plan => &["G", "H"],
            Self::Confirm => &["H", "I"],
            Self::ApplySharedServices => &["I", "J"],
            Self::ApplyApps => &["I", "K"],
        }
    }
}

impl From<Step> for u8 {
    fn from(step: Step) -> u8 {
        step.number()
    }
}

impl TryFrom<u8> for Step {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|step| step.number() == number)
            .ok_or_else(|| format!("there is no step {number}: the steps are 1 to 13"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} ({})", self.number(), self.title())
    }
}
