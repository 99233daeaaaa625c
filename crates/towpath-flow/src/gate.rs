//! Gates: what must be true before a build goes on. An answer that is missing never opens one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use towpath_elements::registry::{Finding, PlatformScan, ScanReport, ScanStatus, Severity};
use towpath_elements::source::Review;

/// Who must have reviewed a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewPolicy {
    /// How many people besides the author must have approved exactly what was merged. 0 asks for no review.
    pub approvals: usize,
}

impl Default for ReviewPolicy {
    /// One approval.
    fn default() -> Self {
        Self { approvals: 1 }
    }
}

impl ReviewPolicy {
    /// Judges a commit's review; the error says what is missing.
    ///
    /// # Errors
    /// What was seen, where it does not satisfy the policy.
    pub fn judge(&self, review: &Review) -> Result<String, String> {
        if self.approvals == 0 {
            return Ok("no review is asked for".to_owned());
        }
        let mut seen = Vec::new();
        for pull in &review.pull_requests {
            let (approvers, objectors) = (pull.approvers(), pull.objectors());
            if approvers.len() >= self.approvals && objectors.is_empty() {
                return Ok(format!(
                    "pull request #{} approved by {}",
                    pull.number,
                    approvers.join(", ")
                ));
            }
            seen.push(format!(
                "pull request #{} has {} of {} approvals of its last commit {}{}",
                pull.number,
                approvers.len(),
                self.approvals,
                pull.head.short(),
                if objectors.is_empty() {
                    String::new()
                } else {
                    format!(", and {} objects", objectors.join(", "))
                },
            ));
        }
        Err(if seen.is_empty() {
            format!("no merged pull request brought {} in", review.commit.short())
        } else {
            seen.join("; ")
        })
    }
}

/// What a scan may find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanPolicy {
    /// The least severity that closes the gate.
    pub refuse_from: Severity,
    /// Whether only findings that a newer version mends count.
    pub fixable_only: bool,
    /// Findings that are let through, by name.
    pub allowed: BTreeMap<String, Allowance>,
    /// How old a result may be.
    pub maximum_age: Option<Duration>,
}

/// Why a finding is let through, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Why.
    pub reason: String,
    /// Until when; from then on the finding counts again.
    pub until: Timestamp,
}

impl Default for ScanPolicy {
    /// Refuses what is high or worse, fixable or not.
    fn default() -> Self {
        Self {
            refuse_from: Severity::High,
            fixable_only: false,
            allowed: BTreeMap::new(),
            maximum_age: None,
        }
    }
}

/// What a scan gate saw, and whether it opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanVerdict {
    /// Whether it opened.
    pub passed: bool,
    /// Why not, one line each; empty where it opened.
    pub reasons: Vec<String>,
    /// How many findings there are of each severity, over all platforms, allowed ones included.
    pub counts: BTreeMap<Severity, usize>,
    /// The platforms that were judged.
    pub platforms: Vec<String>,
}

impl ScanPolicy {
    /// Judges a report at a time. Every runnable platform must have a complete result, young enough, without a finding
    /// that counts.
    pub fn judge(&self, report: &ScanReport, now: Timestamp) -> ScanVerdict {
        let mut reasons = Vec::new();
        let mut counts = BTreeMap::new();
        let mut platforms = Vec::new();
        if report.platforms.is_empty() {
            reasons.push("the image has no runnable platform with a scan".to_owned());
        }
        for scan in &report.platforms {
            let name = scan
                .image
                .platform
                .as_ref()
                .map_or_else(|| scan.image.digest.to_string(), ToString::to_string);
            if let Some(reason) = self.unusable(scan, now) {
                reasons.push(format!("{name}: {reason}"));
            }
            for finding in &scan.findings {
                *counts.entry(finding.severity).or_default() += 1;
                if self.counts(finding, now) {
                    reasons.push(format!("{name}: {}", described(finding)));
                }
            }
            platforms.push(name);
        }
        reasons.dedup();
        ScanVerdict {
            passed: reasons.is_empty(),
            reasons,
            counts,
            platforms,
        }
    }

    fn unusable(&self, scan: &PlatformScan, now: Timestamp) -> Option<String> {
        match &scan.status {
            ScanStatus::Complete | ScanStatus::Active => {}
            ScanStatus::Unavailable(why) => return Some(format!("there is no scan result: {why}")),
            other => return Some(format!("the scan is not complete ({other:?})")),
        }
        let limit = self.maximum_age?;
        let Some(completed) = scan.completed else {
            return Some("the scan does not say when it was completed".to_owned());
        };
        let age = Duration::try_from(now.duration_since(completed)).unwrap_or(Duration::ZERO);
        (age > limit).then(|| format!("the scan is {age:?} old, at most {limit:?} is allowed"))
    }

    fn counts(&self, finding: &Finding, now: Timestamp) -> bool {
        let allowed = self
            .allowed
            .get(&finding.name)
            .is_some_and(|allowance| now < allowance.until);
        finding.severity >= self.refuse_from && !(self.fixable_only && finding.fixed_in.is_none()) && !allowed
    }
}

fn described(finding: &Finding) -> String {
    let Finding {
        name,
        severity,
        package,
        version,
        fixed_in,
    } = finding;
    let package = match (package, version) {
        (Some(package), Some(version)) => format!(" in {package} {version}"),
        (Some(package), None) => format!(" in {package}"),
        _ => String::new(),
    };
    let fixed = fixed_in
        .as_ref()
        .map_or_else(String::new, |fixed| format!(", mended in {fixed}"));
    format!(
        "{name} ({}){package}{fixed}",
        format!("{severity:?}").to_lowercase()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_core::Digest;
    use towpath_elements::registry::PlatformImage;

    fn report(status: ScanStatus, findings: Vec<Finding>) -> ScanReport {
        let digest = Digest::sha256_of(b"x");
        let image = PlatformImage {
            platform: None,
            digest: digest.clone(),
        };
        let completed = Some(Timestamp::UNIX_EPOCH);
        ScanReport {
            image: format!("quay.io/a/b@{digest}").parse().unwrap(),
            platforms: vec![PlatformScan {
                image,
                status,
                completed,
                findings,
            }],
        }
    }

    fn finding(severity: Severity) -> Finding {
        Finding {
            name: "CVE-1".into(),
            severity,
            package: None,
            version: None,
            fixed_in: None,
        }
    }

    #[test]
    fn unknown_is_never_a_pass() {
        let policy = ScanPolicy::default();
        for status in [
            ScanStatus::Pending,
            ScanStatus::InProgress,
            ScanStatus::Unavailable("unsupported".into()),
            ScanStatus::Other("NEW".into()),
        ] {
            assert!(
                !policy
                    .judge(&report(status, vec![]), Timestamp::UNIX_EPOCH)
                    .passed
            );
        }
        let empty = ScanReport {
            platforms: vec![],
            ..report(ScanStatus::Complete, vec![])
        };
        assert!(!policy.judge(&empty, Timestamp::UNIX_EPOCH).passed);
        assert!(
            policy
                .judge(&report(ScanStatus::Complete, vec![]), Timestamp::UNIX_EPOCH)
                .passed
        );
    }

    #[test]
    fn an_ungraded_finding_counts_as_the_worst() {
        let verdict = ScanPolicy::default().judge(
            &report(ScanStatus::Active, vec![finding(Severity::Undefined)]),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(verdict.reasons.len(), 1);
    }

    #[test]
    fn an_allowance_ends() {
        let until = Timestamp::from_second(100).unwrap();
        let mut policy = ScanPolicy::default();
        policy.allowed.insert(
            "CVE-1".into(),
            Allowance {
                reason: "not reachable".into(),
                until,
            },
        );
        let report = report(ScanStatus::Complete, vec![finding(Severity::Critical)]);
        assert!(policy.judge(&report, Timestamp::from_second(99).unwrap()).passed);
        assert!(!policy.judge(&report, until).passed);
    }

    #[test]
    fn an_old_result_does_not_count() {
        let policy = ScanPolicy {
            maximum_age: Some(Duration::from_secs(60)),
            ..Default::default()
        };
        let report = report(ScanStatus::Complete, vec![]);
        assert!(policy.judge(&report, Timestamp::from_second(60).unwrap()).passed);
        assert!(!policy.judge(&report, Timestamp::from_second(61).unwrap()).passed);
    }
}
