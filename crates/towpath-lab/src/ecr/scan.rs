//! Image scans: how they move through their states, and what they find.
//!
//! Follows "Scan images for software vulnerabilities in Amazon ECR" of the user guide. A scan comes into being some time
//! after the push, is `IN_PROGRESS` (basic) or `PENDING` (enhanced), and ends `COMPLETE` or, while Inspector goes on
//! watching the image, `ACTIVE`.

use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A vulnerability that a scan reports, for a test to set with [`Ecr::set_findings`](super::Ecr::set_findings).
///
/// ```
/// use towpath_lab::ecr::Finding;
/// let finding = Finding::new("CVE-2026-0001", "CRITICAL", "openssl", "3.0.1").fixed_in("3.0.2");
/// assert_eq!(finding.package, "openssl");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// The name, such as `CVE-2026-0001`.
    pub name: String,
    /// `CRITICAL`, `HIGH`, `MEDIUM`, `LOW`, `INFORMATIONAL`, `UNDEFINED` or `UNTRIAGED`.
    pub severity: String,
    /// The package it is in.
    pub package: String,
    /// The version of that package.
    pub version: String,
    /// The version that has it repaired, if there is one.
    pub fixed_in: Option<String>,
    /// What it is about.
    pub description: String,
    /// What installed the package, in the words of Amazon Inspector; `OS` unless set.
    pub package_manager: String,
    /// Where the package is in the image.
    pub file_path: Option<String>,
    /// The CVSS base score.
    pub score: Option<f64>,
    /// Whether an exploit is known.
    pub exploit: bool,
    /// Other packages that have the weakness too, each with its version and the version that repairs it. A basic scan
    /// does not know them.
    pub also_in: Vec<(String, String, Option<String>)>,
}

impl Finding {
    /// A finding without a known fix.
    pub fn new(
        name: impl Into<String>,
        severity: impl Into<String>,
        package: impl Into<String>,
        version: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            severity: severity.into(),
            package: package.into(),
            version: version.into(),
            fixed_in: None,
            description: "A synthetic finding of the lab.".into(),
            package_manager: "OS".into(),
            file_path: None,
            score: None,
            exploit: false,
            also_in: Vec::new(),
        }
    }

    /// Says which version has it repaired.
    #[must_use]
    pub fn fixed_in(mut self, version: impl Into<String>) -> Self {
        self.fixed_in = Some(version.into());
        self
    }

    /// Says what installed the package, and where it is.
    #[must_use]
    pub fn installed_by(mut self, manager: impl Into<String>, file_path: impl Into<String>) -> Self {
        self.package_manager = manager.into();
        self.file_path = Some(file_path.into());
        self
    }

    /// Says how it is scored.
    #[must_use]
    pub fn scored(mut self, score: f64) -> Self {
        self.score = Some(score);
        self
    }

    /// Adds another package that has the weakness, and the version that repairs it.
    #[must_use]
    pub fn also_in(
        mut self,
        package: impl Into<String>,
        version: impl Into<String>,
        fixed_in: Option<&str>,
    ) -> Self {
        let fixed_in = fixed_in.map(str::to_owned);
        self.also_in.push((package.into(), version.into(), fixed_in));
        self
    }

    fn uri(&self) -> String {
        format!("https://vulnerabilities.example/{}", self.name)
    }

    /// `YES` where every package has a fix, `PARTIAL` where some have.
    fn fix_available(&self) -> &'static str {
        let others = self.also_in.iter().map(|(_, _, fixed)| fixed);
        let fixes = others.chain([&self.fixed_in]);
        let (fixed, all) = fixes.fold((0, 0), |(fixed, all), fix| {
            (fixed + usize::from(fix.is_some()), all + 1)
        });
        match fixed {
            0 => "NO",
            fixed if fixed == all => "YES",
            _ => "PARTIAL",
        }
    }

    fn vulnerable_packages(&self) -> Vec<Value> {
        let first = (&self.package, &self.version, &self.fixed_in);
        let others = self
            .also_in
            .iter()
            .map(|(name, version, fixed)| (name, version, fixed));
        std::iter::once(first)
            .chain(others)
            .map(|(name, version, fixed)| {
                let mut package = json!({
                    "name": name,
                    "version": version,
                    "fixedInVersion": fixed.as_deref().unwrap_or("NotAvailable"),
                    "packageManager": self.package_manager,
                });
                if let Some(path) = &self.file_path {
                    package["filePath"] = json!(path);
                }
                package
            })
            .collect()
    }

    /// The shape of a basic scan: `ImageScanFinding`.
    pub(super) fn basic(&self) -> Value {
        let mut attributes = vec![
            json!({"key": "package_version", "value": self.version}),
            json!({"key": "package_name", "value": self.package}),
        ];
        if let Some(score) = self.score {
            attributes.push(json!({"key": "CVSS3_SCORE", "value": format!("{score:.1}")}));
        }
        json!({
            "name": self.name,
            "description": self.description,
            "uri": self.uri(),
            "severity": self.severity,
            "attributes": attributes,
        })
    }

    /// The shape of an enhanced scan: `EnhancedImageScanFinding`.
    pub(super) fn enhanced(&self, image: &ScannedImage<'_>) -> Value {
        let cvss: Vec<Value> = self
            .score
            .map(|score| json!({"baseScore": score, "source": "NVD", "version": "3.1"}))
            .into_iter()
            .collect();
        let mut finding = json!({
            "awsAccountId": image.account,
            "description": self.description,
            "exploitAvailable": if self.exploit { "YES" } else { "NO" },
            "findingArn": format!(
                "arn:aws:inspector2:{}:{}:finding/{}",
                image.region,
                image.account,
                &image.digest.rsplit(':').next().unwrap_or_default().get(..16).unwrap_or_default()
            ),
            "firstObservedAt": seconds(image.scanned_at),
            "lastObservedAt": seconds(image.scanned_at),
            "updatedAt": seconds(image.scanned_at),
            "fixAvailable": self.fix_available(),
            "packageVulnerabilityDetails": {
                "cvss": cvss,
                "referenceUrls": [],
                "relatedVulnerabilities": [],
                "source": "LAB",
                "sourceUrl": self.uri(),
                "vendorSeverity": self.severity,
                "vulnerabilityId": self.name,
                "vulnerablePackages": self.vulnerable_packages(),
            },
            "remediation": {"recommendation": {"text": "None Provided"}},
            "resources": [{
                "type": "AWS_ECR_CONTAINER_IMAGE",
                "id": format!("{}/{}", image.repository_arn, image.digest),
                "details": {"awsEcrContainerImage": {
                    "imageHash": image.digest,
                    "registry": image.account,
                    "repositoryName": image.repository,
                }},
            }],
            "severity": self.severity,
            "status": "ACTIVE",
            "title": format!("{} - {}", self.name, self.package),
            "type": "PACKAGE_VULNERABILITY",
        });
        if let Some(score) = self.score {
            finding["score"] = json!(score);
        }
        finding
    }
}

/// What an enhanced finding says of the image it was found in.
pub(super) struct ScannedImage<'a> {
    pub(super) account: &'a str,
    pub(super) region: &'a str,
    pub(super) repository: &'a str,
    pub(super) repository_arn: String,
    pub(super) digest: &'a str,
    pub(super) scanned_at: Timestamp,
}

/// Who scans: ECR itself, or Amazon Inspector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanType {
    /// `BASIC`: once on push or on request.
    Basic,
    /// `ENHANCED`: by Amazon Inspector.
    Enhanced,
}

impl ScanType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "BASIC",
            Self::Enhanced => "ENHANCED",
        }
    }
}

/// The scan of one image. Where it stands follows from the time since it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) by: ScanType,
    pub(super) continuous: bool,
    /// Whether somebody asked for it: such a scan is there at once.
    pub(super) requested: bool,
    /// Whether there is something a scanner understands.
    pub(super) supported: bool,
    pub(super) asked: Instant,
    pub(super) asked_at: Timestamp,
}

/// How long scans take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From the push to the end of the scan.
    pub(super) scan: Duration,
    /// From the end of an enhanced scan until its findings are listed.
    pub(super) findings: Duration,
}

/// A scan as it looks now.
pub(super) struct View {
    pub(super) status: String,
    pub(super) description: &'static str,
    /// When it ended; its findings are there from then on.
    pub(super) completed_at: Option<Timestamp>,
    pub(super) findings_visible: bool,
}

impl Scan {
    /// `None` while there is no scan to be seen yet, which is the first quarter of its time after a push.
    pub(super) fn view(&self, pace: Pace) -> Option<View> {
        self.after(self.asked.elapsed(), pace)
    }

    fn after(&self, elapsed: Duration, pace: Pace) -> Option<View> {
        if !self.requested && elapsed < pace.scan / 4 {
            return None;
        }
        let ended = elapsed >= pace.scan;
        let status = match (ended, self.supported, self.by, self.continuous) {
            (false, _, ScanType::Basic, _) => "IN_PROGRESS",
            (false, _, ScanType::Enhanced, _) => "PENDING",
            (true, false, _, _) => "UNSUPPORTED_IMAGE",
            (true, true, ScanType::Enhanced, true) => "ACTIVE",
            (true, true, _, _) => "COMPLETE",
        };
        let lag = match self.by {
            ScanType::Basic => Duration::ZERO,
            ScanType::Enhanced => pace.findings,
        };
        let findings_visible = ended && self.supported && elapsed >= pace.scan + lag;
        Some(View {
            status: status.to_owned(),
            description: description(status),
            completed_at: (ended && self.supported)
                .then(|| self.asked_at.checked_add(pace.scan).unwrap_or(self.asked_at)),
            findings_visible,
        })
    }
}

/// A weakness that became known at some time, for a repository or an image digest.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) target: String,
    pub(super) finding: Finding,
    pub(super) at: Instant,
    pub(super) stamp: Timestamp,
}

impl Published {
    /// Whether a scan knows of it: one that began later, or one that goes on.
    pub(super) fn is_known_to(&self, scan: &Scan) -> bool {
        scan.asked >= self.at || (scan.by == ScanType::Enhanced && scan.continuous)
    }
}

/// What the service says with a status, where it says something.
pub(super) fn description(status: &str) -> &'static str {
    match status {
        "COMPLETE" => "The scan was completed successfully.",
        "ACTIVE" => "Continuous scan is selected for image.",
        "PENDING" => "The scan is pending.",
        "FAILED" => "The scan could not be completed.",
        "UNSUPPORTED_IMAGE" => {
            "UnsupportedImageError: The operating system and/or package manager are not supported."
        }
        "SCAN_ELIGIBILITY_EXPIRED" => "The scan eligibility of the image has expired.",
        "FINDINGS_UNAVAILABLE" => "The findings are not available.",
        "LIMIT_EXCEEDED" => "The quota of scans has been exceeded.",
        "IMAGE_ARCHIVED" => "The image is archived.",
        "IMAGE_SIZE_EXCEEDED" => "The image is too large to be scanned.",
        _ => "",
    }
}

/// `findingSeverityCounts`.
pub(super) fn counts(findings: &[Finding]) -> BTreeMap<&str, u32> {
    findings.iter().fold(BTreeMap::new(), |mut counts, finding| {
        *counts.entry(finding.severity.as_str()).or_default() += 1;
        counts
    })
}

/// A time as AWS JSON 1.1 writes it: seconds since 1970, with a fraction.
pub(super) fn seconds(time: Timestamp) -> Value {
    json!(time.as_millisecond() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_moves_through_its_states() {
        let pace = Pace {
            scan: Duration::from_secs(8),
            findings: Duration::from_secs(4),
        };
        let scan = |by, continuous, supported| Scan {
            by,
            continuous,
            requested: false,
            supported,
            asked: Instant::now(),
            asked_at: Timestamp::now(),
        };
        let states = |scan: Scan| {
            [1, 2, 7, 8, 12].map(|seconds| {
                let view = scan.after(Duration::from_secs(seconds), pace);
                view.map_or("-".into(), |view| {
                    format!("{} {}", view.status, view.findings_visible)
                })
            })
        };
        let (basic, enhanced) = (ScanType::Basic, ScanType::Enhanced);
        for (scan, expected) in [
            (
                scan(basic, false, true),
                [
                    "-",
                    "IN_PROGRESS false",
                    "IN_PROGRESS false",
                    "COMPLETE true",
                    "COMPLETE true",
                ],
            ),
            (
                scan(enhanced, true, true),
                [
                    "-",
                    "PENDING false",
                    "PENDING false",
                    "ACTIVE false",
                    "ACTIVE true",
                ],
            ),
            (
                scan(enhanced, false, true),
                [
                    "-",
                    "PENDING false",
                    "PENDING false",
                    "COMPLETE false",
                    "COMPLETE true",
                ],
            ),
            (
                scan(basic, false, false),
                [
                    "-",
                    "IN_PROGRESS false",
                    "IN_PROGRESS false",
                    "UNSUPPORTED_IMAGE false",
                    "UNSUPPORTED_IMAGE false",
                ],
            ),
        ] {
            assert_eq!(states(scan), expected);
        }
    }
}
