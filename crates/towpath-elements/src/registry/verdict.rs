//! A scan judged by a policy: whether the gate opens, and all that was seen for it.

use super::{
    Allowance, Finding, NoResult, PlatformScan, ScanPolicy, ScanReport, ScanStatus, Scanner, Severity,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use towpath_core::{Digest, ImageRef};

/// What a scan gate saw, and whether it opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScanVerdict {
    /// Whether it opened.
    pub passed: bool,
    /// Why not, one line each; empty where it opened.
    pub reasons: Vec<String>,
    /// How many findings there are of each severity, over all platforms, allowed ones included.
    pub counts: BTreeMap<Severity, usize>,
    /// The platforms that were judged.
    pub platforms: Vec<String>,
    /// The image, by digest; `None` in a verdict of an older version, like what follows.
    #[serde(default)]
    pub image: Option<ImageRef>,
    /// When it was judged.
    #[serde(default)]
    pub judged: Option<Timestamp>,
    /// Each platform, in the order of the report.
    #[serde(default)]
    pub scans: Vec<PlatformVerdict>,
    /// Each allowance of the policy, those of findings first, and what became of it.
    #[serde(default)]
    pub allowances: Vec<AllowanceUse>,
}

impl ScanVerdict {
    /// How many findings had an end that `wanted` accepts, over all platforms.
    pub fn count(&self, wanted: impl Fn(&Fate) -> bool) -> usize {
        let findings = self.scans.iter().flat_map(|scan| &scan.findings);
        findings.filter(|finding| wanted(&finding.fate)).count()
    }
}

/// One platform as the gate saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlatformVerdict {
    /// The platform by name, or its digest.
    pub platform: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// How its scan stood.
    pub status: ScanStatus,
    /// The service's word for that.
    pub word: Option<String>,
    /// What scanned it.
    pub scanner: Option<Scanner>,
    /// When the scan was completed.
    pub completed: Option<Timestamp>,
    /// What let it through without a result.
    pub accepted: Option<Allowance>,
    /// What was found, in the order of the report.
    pub findings: Vec<JudgedFinding>,
}

/// A finding, and what the policy makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JudgedFinding {
    /// Its name, such as `CVE-2026-12345`.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// The package it is in.
    pub package: Option<String>,
    /// The version of that package.
    pub version: Option<String>,
    /// What the policy makes of it.
    pub fate: Fate,
}

/// What a policy makes of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fate {
    /// It closes the gate.
    Refused,
    /// It counts, and is within what the policy takes.
    Tolerated,
    /// An allowance lets it through.
    Allowed {
        /// Why.
        reason: String,
        /// Until when.
        until: Timestamp,
    },
    /// It does not count; the text says why.
    Ignored(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Tolerated => f.write_str("tolerated"),
            Self::Allowed { reason, until } => write!(f, "allowed until {until}: {reason}"),
            Self::Ignored(why) => write!(f, "ignored: {why}"),
        }
    }
}

/// An allowance of the policy, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AllowanceUse {
    /// The finding it is for, or the reason for which there is no result.
    pub name: String,
    /// What the policy says.
    pub allowance: Allowance,
    /// What became of it.
    pub used: Use,
}

/// What became of an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Use {
    /// It let this many through.
    Used(usize),
    /// It has ended, and would have let this many through.
    Expired(usize),
    /// There was nothing that it is for: it may go.
    Unmatched,
}

impl ScanPolicy {
    /// Judges a report at a time. Every runnable platform must have a complete result, young enough, without a finding
    /// that is too much.
    ///
    /// ```
    /// use towpath_elements::registry::{Finding, PlatformImage, PlatformScan, ScanPolicy, ScanReport, ScanStatus, Severity};
    /// let digest = towpath_core::Digest::sha256_of("a manifest");
    /// let platform = PlatformImage { platform: None, digest: digest.clone() };
    /// let mut scan = PlatformScan::new(platform, ScanStatus::Complete);
    /// scan.findings = vec![Finding::new("CVE-2026-1", Severity::Critical).in_package("zlib", "1.3")];
    /// let report = ScanReport::new(format!("quay.io/shop/web@{digest}").parse()?, vec![scan]);
    /// let verdict = ScanPolicy::default().judge(&report, jiff::Timestamp::now());
    /// assert!(!verdict.passed);
    /// assert_eq!(verdict.reasons, [format!("{digest}: CVE-2026-1 (critical) in zlib 1.3")]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn judge(&self, report: &ScanReport, now: Timestamp) -> ScanVerdict {
        let mut judge = Judge {
            policy: self,
            now,
            reasons: Vec::new(),
            counts: BTreeMap::new(),
            matched: BTreeMap::new(),
            accepted: BTreeMap::new(),
        };
        if report.platforms.is_empty() {
            let reason = "the image has no runnable platform with a scan";
            judge.reasons.push(reason.to_owned());
        }
        let scans: Vec<_> = report.platforms.iter().map(|scan| judge.platform(scan)).collect();
        let allowances = judge.allowances();
        ScanVerdict {
            passed: judge.reasons.is_empty(),
            reasons: judge.reasons,
            counts: judge.counts,
            platforms: scans.iter().map(|scan| scan.platform.clone()).collect(),
            image: Some(report.image.clone()),
            judged: Some(now),
            scans,
            allowances,
        }
    }
}

struct Judge<'a> {
    policy: &'a ScanPolicy,
    now: Timestamp,
    reasons: Vec<String>,
    counts: BTreeMap<Severity, usize>,
    /// How many findings each allowance is for, by name.
    matched: BTreeMap<&'a str, usize>,
    accepted: BTreeMap<NoResult, usize>,
}

impl<'a> Judge<'a> {
    fn platform(&mut self, scan: &PlatformScan) -> PlatformVerdict {
        let name = scan.name();
        let mut accepted = None;
        if let Some(reason) = self.unusable(scan) {
            accepted = self.accept(scan);
            if accepted.is_none() {
                self.reasons.push(format!("{name}: {reason}"));
            }
        }
        let mut fates: Vec<Option<Fate>> = Vec::with_capacity(scan.findings.len());
        let mut counted: BTreeMap<Severity, usize> = BTreeMap::new();
        for finding in &scan.findings {
            *self.counts.entry(finding.severity).or_default() += 1;
            let fate = self.let_through(finding);
            if fate.is_none() {
                *counted.entry(finding.severity).or_default() += 1;
            }
            fates.push(fate);
        }
        let refused = |severity: Severity| match self.policy.limits.get(&severity) {
            Some(limit) => counted.get(&severity).is_some_and(|count| count > limit),
            None => severity >= self.policy.refuse_from,
        };
        let findings: Vec<JudgedFinding> = scan
            .findings
            .iter()
            .zip(fates)
            .map(|(finding, fate)| JudgedFinding {
                name: finding.name.clone(),
                severity: finding.severity,
                package: finding.package.clone(),
                version: finding.version.clone(),
                fate: fate.unwrap_or(match refused(finding.severity) {
                    true => Fate::Refused,
                    false => Fate::Tolerated,
                }),
            })
            .collect();
        self.explain(&name, scan, &findings, &counted);
        PlatformVerdict {
            platform: name,
            digest: scan.image.digest.clone(),
            status: scan.status.clone(),
            word: scan.word.clone(),
            scanner: scan.scanner.clone(),
            completed: scan.completed,
            accepted,
            findings,
        }
    }

    /// Why a scan is no result that can be judged.
    fn unusable(&self, scan: &PlatformScan) -> Option<String> {
        match &scan.status {
            ScanStatus::Complete | ScanStatus::Active => {}
            ScanStatus::Unavailable(why) => return Some(format!("there is no scan result: {why}")),
            _ => return Some(format!("the scan is not complete ({})", scan.standing())),
        }
        let limit = self.policy.maximum_age?;
        let Some(completed) = scan.completed else {
            return Some("the scan does not say when it was completed".to_owned());
        };
        let age = Duration::try_from(self.now.duration_since(completed)).unwrap_or(Duration::ZERO);
        (age > limit).then(|| format!("the scan is {age:?} old, at most {limit:?} is allowed"))
    }

    /// What lets a platform through that will never have a result.
    fn accept(&mut self, scan: &PlatformScan) -> Option<Allowance> {
        let why = scan
            .no_result
            .filter(|_| matches!(scan.status, ScanStatus::Unavailable(_)))?;
        let allowance = self.policy.without_result.get(&why)?;
        *self.accepted.entry(why).or_default() += 1;
        allowance.holds(self.now).then(|| allowance.clone())
    }

    /// The fate of a finding that does not count; `None` for one that does.
    fn let_through(&mut self, finding: &Finding) -> Option<Fate> {
        if let Some((name, allowance)) = self.policy.allowed.get_key_value(&finding.name)
            && allowance.is_for(finding)
        {
            *self.matched.entry(name).or_default() += 1;
            if allowance.holds(self.now) {
                return Some(Fate::Allowed {
                    reason: allowance.reason.clone(),
                    until: allowance.until,
                });
            }
        }
        if !self.policy.packages.contains(finding) {
            let manager = finding.package_manager.as_deref().unwrap_or_default();
            return Some(Fate::Ignored(format!("packages of {manager} are out of scope")));
        }
        let unmended = self.policy.fixable_only && finding.cannot_be_mended();
        unmended.then(|| Fate::Ignored("no version mends it yet".to_owned()))
    }

    /// Writes the reasons of one platform, the worst first, whatever order the service lists findings in.
    fn explain(
        &mut self,
        name: &str,
        scan: &PlatformScan,
        judged: &[JudgedFinding],
        counted: &BTreeMap<Severity, usize>,
    ) {
        let mut over: Vec<Severity> = Vec::new();
        let mut single: Vec<(&Finding, String)> = Vec::new();
        for (finding, judged) in scan.findings.iter().zip(judged) {
            if judged.fate != Fate::Refused {
                continue;
            }
            match self.policy.limits.get(&finding.severity) {
                Some(limit) if *limit > 0 => over.push(finding.severity),
                _ => single.push((finding, self.described(finding))),
            }
        }
        over.sort_unstable_by(|one, other| other.cmp(one));
        over.dedup();
        single.sort_by(|(one, text), (other, other_text)| {
            (other.severity, text).cmp(&(one.severity, other_text))
        });
        single.dedup_by(|(_, one), (_, other)| one == other);
        let single = single.into_iter().map(|(_, text)| format!("{name}: {text}"));
        self.reasons.extend(single);
        for severity in over {
            let (count, limit) = (counted.get(&severity), self.policy.limits.get(&severity));
            let (count, limit) = (
                count.copied().unwrap_or_default(),
                limit.copied().unwrap_or_default(),
            );
            self.reasons.push(format!(
                "{name}: {count} findings are {severity}, at most {limit} are allowed"
            ));
        }
    }

    fn described(&self, finding: &Finding) -> String {
        let allowance = self.policy.allowed.get(&finding.name);
        match allowance.filter(|allowance| allowance.is_for(finding)) {
            Some(ended) => format!("{finding}; its allowance ended {}", ended.until),
            None => finding.to_string(),
        }
    }

    fn allowances(&self) -> Vec<AllowanceUse> {
        let noted = |name: &str, allowance: &Allowance, matched: usize| AllowanceUse {
            name: name.to_owned(),
            allowance: allowance.clone(),
            used: match (allowance.holds(self.now), matched) {
                (false, matched) => Use::Expired(matched),
                (true, 0) => Use::Unmatched,
                (true, matched) => Use::Used(matched),
            },
        };
        let findings = self.policy.allowed.iter().map(|(name, allowance)| {
            let matched = self.matched.get(name.as_str()).copied();
            noted(name, allowance, matched.unwrap_or_default())
        });
        let platforms = self.policy.without_result.iter().map(|(why, allowance)| {
            let matched = self.accepted.get(why).copied();
            noted(why.as_str(), allowance, matched.unwrap_or_default())
        });
        findings.chain(platforms).collect()
    }
}

#[cfg(test)]
mod tests;
