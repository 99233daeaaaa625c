//! What a scan may find.

use super::{Finding, NoResult, Severity};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Which vulnerabilities (CVEs) a scan may find for its gate to open, as [`judge`](Self::judge) reads it.
///
/// It fails closed: a platform without a whole result closes the gate unless [`without_result`](Self::without_result)
/// names exactly its reason, and what a scanner does not say of a finding never lets the finding through.
///
/// ```
/// use std::time::Duration;
/// use towpath_elements::registry::{Allowance, NoResult, ScanPolicy, Severity};
/// let until = "2027-01-01T00:00:00Z".parse()?;
/// let mut policy = ScanPolicy {
///     refuse_from: Severity::High,
///     maximum_age: Some(Duration::from_secs(24 * 60 * 60)),
///     ..ScanPolicy::default()
/// };
/// policy.limits.insert(Severity::Medium, 10);
/// let unreachable = Allowance::new("the parser is not reachable", until).for_package("libxml2");
/// policy.allowed.insert("CVE-2026-1".into(), unreachable);
/// policy.without_result.insert(NoResult::UnsupportedImage, Allowance::new("made from scratch", until));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The same in JSON. A field that is not known is refused, so that a misspelt one does not open the gate; only `limits`,
/// `packages`, `maximum_age` and `without_result` may be left out. `packages` is `"all"`, `{"only": [...]}` or
/// `{"except": [...]}`.
///
/// ```
/// use towpath_elements::registry::{ScanPolicy, Severity};
/// let policy: ScanPolicy = serde_json::from_str(r#"{
///     "refuse_from": "high",
///     "limits": {"medium": 10},
///     "fixable_only": false,
///     "packages": {"only": ["OS"]},
///     "maximum_age": "24h",
///     "allowed": {
///         "CVE-2026-1": {
///             "reason": "the parser is not reachable", "until": "2027-01-01T00:00:00Z", "packages": ["libxml2"]
///         }
///     },
///     "without_result": {
///         "UNSUPPORTED_IMAGE": {"reason": "made from scratch", "until": "2027-01-01T00:00:00Z"}
///     }
/// }"#)?;
/// assert_eq!(policy.refuse_from, Severity::High);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanPolicy {
    /// The least severity that closes the gate with its first finding; [`Severity::High`] by default.
    pub refuse_from: Severity,
    /// How many findings of a severity one platform may have. A severity that stands here is judged by its number alone;
    /// [`refuse_from`](Self::refuse_from) judges all others. A vulnerability in two packages is two
    /// findings. None has a limit by default.
    #[serde(default)]
    pub limits: BTreeMap<Severity, usize>,
    /// Whether findings count only while a newer version fixes them; by default all do. Where the scanner does not say,
    /// they count: the basic one never does.
    pub fixable_only: bool,
    /// Which packages' findings count; all by default.
    #[serde(default)]
    pub packages: Packages,
    /// Findings that are let through, by name such as `CVE-2026-12345`; none by default.
    pub allowed: BTreeMap<String, Allowance>,
    /// How old a result may be; any age by default. In JSON a text such as `24h`, `90m` or `1h 30m`.
    #[serde(default, with = "age")]
    pub maximum_age: Option<Duration>,
    /// Reasons for which a platform may have no result at all; none by default. Their package scope means nothing.
    #[serde(default)]
    pub without_result: BTreeMap<NoResult, Allowance>,
}

/// An age as a text. Journals that were begun with an earlier form, serde's own, are read all the same.
mod age {
    use jiff::fmt::serde::unsigned_duration::friendly::compact;
    use serde::{Deserialize, Deserializer};
    use std::time::Duration;

    pub(super) use compact::optional::serialize;

    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "an age must be a text such as `24h`, `90m` or `1h 30m`"
    )]
    enum Age {
        Text(#[serde(with = "compact::required")] Duration),
        Former(Duration),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let age: Option<Age> = Deserialize::deserialize(from)?;
        Ok(age.map(|(Age::Text(age) | Age::Former(age))| age))
    }
}

impl Default for ScanPolicy {
    /// Refuses what is high or worse, fixable or not, in any package, and every platform without a result.
    fn default() -> Self {
        Self {
            refuse_from: Severity::High,
            limits: BTreeMap::new(),
            fixable_only: false,
            packages: Packages::All,
            allowed: BTreeMap::new(),
            maximum_age: None,
            without_result: BTreeMap::new(),
        }
    }
}

/// Why something is let through, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// Why.
    pub reason: String,
    /// Until when; from then on the finding counts again.
    pub until: Timestamp,
    /// The packages it holds for; empty for any.
    #[serde(default)]
    pub packages: BTreeSet<String>,
}

impl Allowance {
    /// For any package.
    pub fn new(reason: impl Into<String>, until: Timestamp) -> Self {
        Self {
            reason: reason.into(),
            until,
            packages: BTreeSet::new(),
        }
    }

    /// Holds for this package, and others added so, only.
    #[must_use]
    pub fn for_package(mut self, package: impl Into<String>) -> Self {
        self.packages.insert(package.into());
        self
    }

    /// Whether it has not ended yet.
    pub fn holds(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// Whether it is meant for the package of a finding. One without a package is nobody's.
    pub(super) fn is_for(&self, finding: &Finding) -> bool {
        let named = |package: &String| self.packages.contains(package);
        self.packages.is_empty() || finding.package.as_ref().is_some_and(named)
    }
}

/// Packages by what installed them, in the words of Amazon Inspector (`OS`, `NPM`, `JAR`, …), small letters or capitals.
/// A finding that does not say is in every choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packages {
    /// All.
    #[default]
    All,
    /// Only what these installed.
    Only(BTreeSet<String>),
    /// Not what these installed.
    Except(BTreeSet<String>),
}

impl Packages {
    /// Only packages of the operating system.
    pub fn of_the_system() -> Self {
        Self::Only(BTreeSet::from(["OS".to_owned()]))
    }

    pub(super) fn contains(&self, finding: &Finding) -> bool {
        let Some(manager) = &finding.package_manager else {
            return true;
        };
        let among =
            |managers: &BTreeSet<String>| managers.iter().any(|one| one.eq_ignore_ascii_case(manager));
        match self {
            Self::All => true,
            Self::Only(managers) => among(managers),
            Self::Except(managers) => !among(managers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_is_refused() {
        let until = Timestamp::UNIX_EPOCH;
        let mut policy = ScanPolicy::default();
        policy
            .allowed
            .insert("CVE-1".into(), Allowance::new("why", until));
        policy.maximum_age = Some(Duration::from_secs(60));
        let json = serde_json::to_string(&policy).unwrap();
        assert!(json.contains(r#""maximum_age":"1m""#), "{json}");
        let error = serde_json::from_str::<ScanPolicy>(&json.replace("1m", "soon")).unwrap_err();
        assert!(error.to_string().contains("such as `24h`"), "{error}");
        assert_eq!(serde_json::from_str::<ScanPolicy>(&json).unwrap(), policy);
        for (right, wrong) in [("maximum_age", "max_age"), ("packages\":[]", "package\":[]")] {
            let json = json.replace(right, wrong);
            let error = serde_json::from_str::<ScanPolicy>(&json).unwrap_err();
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }
}
