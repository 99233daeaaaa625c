//! What a registry's scanner says of an image, and the wait for it.

use super::{PlatformImage, Registry};
use crate::ci::ended;
use crate::{Error, Result};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use towpath_core::wait::{self, Judgement, Policy};
use towpath_core::{Cancellation, ImageRef, ParseError};

/// What the scanner knows of an image: the vulnerabilities (CVEs) that it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScanReport {
    /// The image asked about, by digest.
    pub image: ImageRef,
    /// One entry for each runnable platform.
    pub platforms: Vec<PlatformScan>,
    /// How the registry is configured to scan; `None` where it does not say.
    #[serde(default)]
    pub configured: Option<Scanner>,
    /// Whether the registry's rules have the repository scanned.
    #[serde(default)]
    pub coverage: Coverage,
}

impl ScanReport {
    /// A report of these platforms, from a registry that says nothing of its rules.
    pub fn new(image: ImageRef, platforms: Vec<PlatformScan>) -> Self {
        Self {
            image,
            platforms,
            configured: None,
            coverage: Coverage::Unknown,
        }
    }
}

/// Whether images of a repository are scanned by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// Not asked, or not said.
    #[default]
    Unknown,
    /// They are; the text is the service's word for when.
    Covered(String),
    /// They are not: a scan begins only where somebody asks for it.
    Uncovered,
}

/// What scans: the registry itself, or a service beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scanner {
    /// The registry's own scanner: packages of the operating system, once per push or request.
    Basic,
    /// Amazon Inspector: packages of languages too, once per push or continuously.
    Enhanced,
    /// One that this version does not know.
    Other(String),
}

impl fmt::Display for Scanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic => "basic",
            Self::Enhanced => "enhanced",
            Self::Other(word) => word,
        })
    }
}

/// What the scanner knows of one platform of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlatformScan {
    /// The platform and its digest.
    pub image: PlatformImage,
    /// How the scan stands.
    pub status: ScanStatus,
    /// Why there will be no result; only where the status is [`Unavailable`](ScanStatus::Unavailable).
    #[serde(default)]
    pub no_result: Option<NoResult>,
    /// What scanned it; `None` where nothing says.
    #[serde(default)]
    pub scanner: Option<Scanner>,
    /// The service's own word for the status.
    #[serde(default)]
    pub word: Option<String>,
    /// What the service says of the status, or what a result is still missing.
    #[serde(default)]
    pub description: Option<String>,
    /// When the platform was pushed; asked for only where there is no scan of it.
    #[serde(default)]
    pub pushed: Option<Timestamp>,
    /// When the scan was completed, where the service says so.
    pub completed: Option<Timestamp>,
    /// What was found; a vulnerability in several packages stands here once for each.
    pub findings: Vec<Finding>,
}

impl PlatformScan {
    /// A scan without findings.
    pub fn new(image: PlatformImage, status: ScanStatus) -> Self {
        Self {
            image,
            status,
            no_result: None,
            scanner: None,
            word: None,
            description: None,
            pushed: None,
            completed: None,
            findings: Vec::new(),
        }
    }

    /// One that will never have a result.
    pub fn without_result(image: PlatformImage, why: NoResult, text: impl Into<String>) -> Self {
        let status = ScanStatus::Unavailable(text.into());
        Self {
            no_result: Some(why),
            ..Self::new(image, status)
        }
    }

    /// Whether waiting longer changes nothing, for good or bad.
    pub fn has_ended(&self) -> bool {
        match self.status {
            ScanStatus::Complete | ScanStatus::Active | ScanStatus::Unavailable(_) => true,
            ScanStatus::Pending | ScanStatus::InProgress | ScanStatus::Other(_) => false,
        }
    }

    /// The platform by name, such as `linux/arm64`; its digest where it has none.
    pub fn name(&self) -> String {
        let platform = self.image.platform.as_ref();
        platform.map_or_else(|| self.image.digest.to_string(), ToString::to_string)
    }

    /// How it stands, in the service's word where there is one, for people.
    pub fn standing(&self) -> String {
        let own = match &self.status {
            ScanStatus::Pending => "not begun",
            ScanStatus::InProgress => "going on",
            ScanStatus::Complete => "complete",
            ScanStatus::Active => "active",
            ScanStatus::Unavailable(why) => return why.clone(),
            ScanStatus::Other(word) => word,
        };
        let word = self.word.as_deref().unwrap_or(own);
        match self.description.as_deref() {
            Some(description) if !description.is_empty() => format!("{word}: {description}"),
            _ => word.to_owned(),
        }
    }
}

/// How a scan stands. Only [`Complete`](Self::Complete) and [`Active`](Self::Active) carry a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScanStatus {
    /// Not begun, or nothing known yet.
    Pending,
    /// Going on, or ended without a whole result so far.
    InProgress,
    /// Done, with a result that stays as it is.
    Complete,
    /// Done, with a result that the service keeps up to date.
    Active,
    /// There will be no result; the text says why.
    Unavailable(String),
    /// A word of the service that this version does not know; it is not a result.
    Other(String),
}

/// Why a scan will never have a result. It is written in the service's words, where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum NoResult {
    /// The scan failed.
    Failed,
    /// The scanner does not understand the image, as one made from scratch.
    UnsupportedImage,
    /// The image is too old to be scanned, by the settings of Amazon Inspector.
    ScanEligibilityExpired,
    /// The findings cannot be had.
    FindingsUnavailable,
    /// A quota of scans is spent.
    LimitExceeded,
    /// The image was archived.
    ImageArchived,
    /// The image is larger than the scanner takes.
    ImageSizeExceeded,
    /// No rule has the repository scanned, and nobody asked for a scan. The service has no word for it.
    NotCovered,
    /// A rule has the repository scanned, and yet no scan began long after the push. The service has no word for it.
    NeverBegan,
}

impl NoResult {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Failed,
        Self::UnsupportedImage,
        Self::ScanEligibilityExpired,
        Self::FindingsUnavailable,
        Self::LimitExceeded,
        Self::ImageArchived,
        Self::ImageSizeExceeded,
        Self::NotCovered,
        Self::NeverBegan,
    ];

    /// As it is written, such as `UNSUPPORTED_IMAGE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "FAILED",
            Self::UnsupportedImage => "UNSUPPORTED_IMAGE",
            Self::ScanEligibilityExpired => "SCAN_ELIGIBILITY_EXPIRED",
            Self::FindingsUnavailable => "FINDINGS_UNAVAILABLE",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::ImageArchived => "IMAGE_ARCHIVED",
            Self::ImageSizeExceeded => "IMAGE_SIZE_EXCEEDED",
            Self::NotCovered => "NOT_COVERED",
            Self::NeverBegan => "NEVER_BEGAN",
        }
    }

    /// The one that is written so; `None` for any other word, which is then not an end.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

impl fmt::Display for NoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One vulnerability that a scanner found, in one package.
///
/// ```
/// use towpath_elements::registry::{Finding, Severity};
/// let finding = Finding::new("CVE-2026-1", Severity::High).in_package("zlib", "1.3").mended_in("1.3.1");
/// assert_eq!(finding.to_string(), "CVE-2026-1 (high) in zlib 1.3, fixed in 1.3.1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// Its name, such as `CVE-2026-12345`.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// The package it is in, where the scanner says so.
    pub package: Option<String>,
    /// The version of that package.
    pub version: Option<String>,
    /// The version that mends it; `None` where there is none, or the scanner does not say.
    pub fixed_in: Option<String>,
    /// What it is about.
    #[serde(default)]
    pub description: Option<String>,
    /// Where to read more.
    #[serde(default)]
    pub uri: Option<String>,
    /// What installed the package, in the words of Amazon Inspector: `OS` for the operating system's own, `NPM`, `JAR`…
    #[serde(default)]
    pub package_manager: Option<String>,
    /// Where the package is in the image.
    #[serde(default)]
    pub file_path: Option<String>,
    /// Whether there is a version that mends it; `None` where the scanner does not say.
    #[serde(default)]
    pub fix: Option<Availability>,
    /// Whether an exploit of it is known; `None` where the scanner does not say.
    #[serde(default)]
    pub exploit: Option<Availability>,
    /// Its CVSS base score.
    #[serde(default)]
    pub score: Option<Score>,
}

impl Finding {
    /// A finding of which no more is known.
    pub fn new(name: impl Into<String>, severity: Severity) -> Self {
        Self {
            name: name.into(),
            severity,
            package: None,
            version: None,
            fixed_in: None,
            description: None,
            uri: None,
            package_manager: None,
            file_path: None,
            fix: None,
            exploit: None,
            score: None,
        }
    }

    /// Says which package it is in.
    #[must_use]
    pub fn in_package(mut self, package: impl Into<String>, version: impl Into<String>) -> Self {
        self.package = Some(package.into());
        self.version = Some(version.into());
        self
    }

    /// Says which version mends it.
    #[must_use]
    pub fn mended_in(mut self, version: impl Into<String>) -> Self {
        self.fixed_in = Some(version.into());
        self.fix = Some(Availability::Yes);
        self
    }

    /// Whether the scanner says that nothing mends it in this package. Where it says nothing, nobody knows.
    pub fn cannot_be_mended(&self) -> bool {
        self.fixed_in.is_none() && matches!(self.fix, Some(Availability::No | Availability::Partial))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.severity)?;
        if let Some(package) = &self.package {
            write!(f, " in {package}")?;
            if let Some(version) = &self.version {
                write!(f, " {version}")?;
            }
        }
        match &self.fixed_in {
            Some(fixed) => write!(f, ", fixed in {fixed}"),
            None => Ok(()),
        }
    }
}

/// Whether there is something: a fix, an exploit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Availability {
    /// There is.
    Yes,
    /// There is none.
    No,
    /// There is, for some of the packages.
    Partial,
    /// A word that this version does not know.
    Other(String),
}

impl Availability {
    /// Reads the service's word.
    pub fn from_word(word: &str) -> Self {
        match word {
            "YES" => Self::Yes,
            "NO" => Self::No,
            "PARTIAL" => Self::Partial,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// A CVSS score, from 0.0 to 10.0 in steps of a tenth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "f64", try_from = "f64")]
pub struct Score(u8);

impl Score {
    /// Rounds to a tenth; `None` where it is no score.
    pub fn new(score: f64) -> Option<Self> {
        (0.0..=10.0)
            .contains(&score)
            .then(|| Self((score * 10.0).round() as u8))
    }
}

impl From<Score> for f64 {
    fn from(score: Score) -> Self {
        Self::from(score.0) / 10.0
    }
}

impl TryFrom<f64> for Score {
    type Error = String;

    fn try_from(score: f64) -> Result<Self, String> {
        Self::new(score).ok_or_else(|| format!("{score} is not a CVSS score from 0 to 10"))
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

/// How bad a finding is, from nothing to worst. In JSON in small letters, as it is written; read from a text in small
/// letters or capitals.
///
/// ```
/// use towpath_elements::registry::Severity;
/// assert_eq!("CRITICAL".parse(), Ok(Severity::Critical));
/// assert!("severe".parse::<Severity>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Informational,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
    /// Not graded, or with a word that this version does not know. It ranks above all others, so that no threshold
    /// lets it pass unseen.
    Undefined,
}

impl Severity {
    /// All of them, from nothing to worst.
    pub const ALL: [Self; 6] = [
        Self::Informational,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Critical,
        Self::Undefined,
    ];

    /// As it is written, such as `high`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
            Self::Undefined => "undefined",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let named = |severity: &Self| severity.as_str().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(named).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            ParseError::new("severity", text, format!("it must be one of {known}"))
        })
    }
}

/// What users of [`Registry`] get on top of it.
#[async_trait]
pub trait RegistryExt {
    /// Waits until every platform's scan has an end, good or bad, and returns the report.
    ///
    /// An end is a whole result, or the certainty that none will come: the scanner does not understand the image, it was
    /// archived, no rule has the repository scanned. What has ended is not asked for again. Whether the end is good is for
    /// [`ScanPolicy::judge`](super::ScanPolicy::judge) to say.
    ///
    /// # Errors
    /// *Timed out* naming the platform that is still missing, *cancelled*, *conflict* for an index without a runnable
    /// platform, or what the service said.
    async fn wait_for_scan(
        &self,
        image: &ImageRef,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<ScanReport>;
}

#[async_trait]
impl<T: Registry + ?Sized> RegistryExt for T {
    async fn wait_for_scan(
        &self,
        image: &ImageRef,
        policy: &Policy,
        cancellation: &Cancellation,
    ) -> Result<ScanReport> {
        // The last report is the wait's memory: what it says is not asked for again.
        let last: Mutex<Option<ScanReport>> = Mutex::new(None);
        let read = || last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let look = || async {
            let report = match read() {
                Some(before) => self.scan_again(&before).await?,
                None => self.scan(image).await?,
            };
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
            Ok(report)
        };
        let outcome = wait::until(policy, cancellation, look, Error::retry, scan_has_ended).await;
        ended("wait for the scan of", image.to_string(), outcome)
    }
}

fn scan_has_ended(report: &ScanReport) -> Judgement {
    if report.platforms.is_empty() {
        return Judgement::failed("the image has no runnable platform that could be scanned");
    }
    match report.platforms.iter().find(|scan| !scan.has_ended()) {
        None => Judgement::Met,
        Some(scan) => Judgement::pending(format!("the scan of {} ({})", scan.name(), scan.standing())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for one in NoResult::ALL {
            assert_eq!(NoResult::from_word(one.as_str()), Some(one));
            let json = serde_json::to_string(&one).unwrap();
            assert_eq!(json, format!("\"{one}\""));
        }
        assert_eq!(NoResult::from_word("NOVEL"), None);
        for one in Severity::ALL {
            assert_eq!(serde_json::to_string(&one).unwrap(), format!("\"{one}\""));
            assert_eq!(one.to_string().to_uppercase().parse(), Ok(one));
        }
        let error = "worst".parse::<Severity>().unwrap_err();
        assert!(error.reason().ends_with("critical, undefined"), "{error}");
    }

    #[test]
    fn a_report_of_an_older_version_is_readable() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let old = serde_json::json!({
            "image": format!("quay.io/a/b@{digest}"),
            "platforms": [{
                "image": {"platform": null, "digest": digest},
                "status": {"unavailable": "UNSUPPORTED_IMAGE: no package manager"},
                "completed": null,
                "findings": [{
                    "name": "CVE-1", "severity": "high", "package": "zlib", "version": null, "fixed_in": null,
                }],
            }],
        });
        let report: ScanReport = serde_json::from_value(old).unwrap();
        assert_eq!(report.coverage, Coverage::Unknown);
        assert_eq!(report.platforms[0].no_result, None);
        assert_eq!(report.platforms[0].findings[0].score, None);
        let again = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ScanReport>(&again).unwrap(), report);
    }

    #[test]
    fn a_score_is_a_tenth_from_zero_to_ten() {
        for (number, text) in [(0.0, "0.0"), (9.8, "9.8"), (7.55, "7.6"), (10.0, "10.0")] {
            assert_eq!(Score::new(number).unwrap().to_string(), text);
        }
        for number in [-0.1, 10.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Score::new(number), None);
        }
        assert!(serde_json::from_str::<Score>("11").is_err());
        assert_eq!(serde_json::from_str::<Score>("9.8").unwrap(), Score(98));
    }
}
