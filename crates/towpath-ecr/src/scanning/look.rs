//! One look at the scan of one manifest, over all its pages, and what it is worth (*Amazon ECR API Reference*,
//! `DescribeImageScanFindings`).

use super::findings;
use crate::client::{Ecr, image_id};
use crate::error::failed;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;
use towpath_core::ImageRef;
use towpath_elements::Result;
use towpath_elements::registry::{Finding, NoResult, PlatformScan, ScanStatus, Scanner, Severity};

/// The most that one page holds.
const PAGE: i32 = 1000;

/// What the service says of one scan.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) word: Option<String>,
    pub(super) description: Option<String>,
    pub(super) completed: Option<Timestamp>,
    /// What was found, in an order of ours.
    pub(super) findings: Vec<Finding>,
    /// The kind of the findings that are listed.
    listed_by: Option<Scanner>,
    /// How many findings of each severity there are, by the service's count.
    counted: BTreeMap<Severity, i64>,
    /// How many are listed.
    listed: BTreeMap<Severity, i64>,
    /// Whether the scan moved on between two pages, so that they are of two scans.
    moved: bool,
}

impl Ecr {
    /// What the scanner says of one manifest; `None` where it has no scan of it.
    pub(super) async fn look(&self, image: &ImageRef) -> Result<Option<Look>> {
        let mut pages = self
            .api
            .describe_image_scan_findings()
            .set_registry_id(Self::account(image).map(|account| account.to_string()))
            .repository_name(image.repository().as_str())
            .image_id(image_id(image))
            .into_paginator()
            .page_size(PAGE)
            .send();
        let mut look = Look::default();
        let mut first = true;
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    let failed = failed("read the scan findings of", image, error);
                    return match failed.code.as_str() {
                        "ScanNotFoundException" => Ok(None),
                        _ => Err(failed.error),
                    };
                }
            };
            let status = page.image_scan_status;
            let word = status.as_ref().and_then(|status| status.status.as_ref());
            let word = word.map(|word| word.as_str().to_owned());
            let found = page.image_scan_findings;
            let completed = found.as_ref().and_then(|found| found.image_scan_completed_at());
            let completed = completed.and_then(timestamp);
            look.moved |= !first && (word != look.word || completed != look.completed);
            first = false;
            look.word = word;
            look.description = status.and_then(|status| status.description);
            look.completed = completed;
            if let Some(found) = &found {
                look.read(found);
            }
        }
        look.findings.sort_by(|one, other| order(one).cmp(&order(other)));
        Ok(Some(look))
    }
}

/// An order that does not depend on the service: it may list the same findings in another one.
fn order(finding: &Finding) -> impl Ord + use<'_> {
    (
        (std::cmp::Reverse(finding.severity), &finding.name),
        (&finding.package, &finding.version, &finding.file_path),
    )
}

impl Look {
    fn read(&mut self, page: &aws_sdk_ecr::types::ImageScanFindings) {
        let mut counted: BTreeMap<Severity, i64> = BTreeMap::new();
        for (word, count) in page.finding_severity_counts().into_iter().flatten() {
            *counted.entry(findings::severity(word.as_str())).or_default() += i64::from(*count);
        }
        for (severity, count) in counted {
            let known = self.counted.entry(severity).or_default();
            *known = count.max(*known);
        }
        for finding in page.findings() {
            let row = findings::basic(finding);
            *self.listed.entry(row.severity).or_default() += 1;
            self.listed_by.get_or_insert(Scanner::Basic);
            self.findings.push(row);
        }
        for finding in page.enhanced_findings() {
            let rows = findings::enhanced(finding);
            let severity = findings::severity(finding.severity().unwrap_or_default());
            *self.listed.entry(severity).or_default() += 1;
            self.listed_by = Some(Scanner::Enhanced);
            self.findings.extend(rows);
        }
    }

    /// What scanned it: what is listed says so, and else how the registry is configured. `ACTIVE` is a word of the
    /// enhanced scanner alone.
    pub(super) fn scanner(&self, configured: Option<&Scanner>) -> Option<Scanner> {
        let by_word = (self.word.as_deref() == Some("ACTIVE")).then_some(Scanner::Enhanced);
        self.listed_by.clone().or(by_word).or_else(|| configured.cloned())
    }

    /// How the scan stands, and, where the service claims more than it shows, what is missing.
    pub(super) fn status(
        &self,
        configured: Option<&Scanner>,
        before: Option<&PlatformScan>,
        now: Timestamp,
        settle: Duration,
    ) -> (ScanStatus, Option<String>) {
        let Some(word) = self.word.as_deref() else {
            return (ScanStatus::Pending, None);
        };
        let status = match word {
            "PENDING" => ScanStatus::Pending,
            "IN_PROGRESS" => ScanStatus::InProgress,
            "COMPLETE" => ScanStatus::Complete,
            "ACTIVE" => ScanStatus::Active,
            word if NoResult::from_word(word).is_some() => ScanStatus::Unavailable(self.words(word)),
            word => ScanStatus::Other(word.to_owned()),
        };
        if !matches!(status, ScanStatus::Complete | ScanStatus::Active) {
            return (status, None);
        }
        match self.is_missing(configured, before, now, settle) {
            Some(missing) => (ScanStatus::InProgress, Some(missing)),
            None => (status, None),
        }
    }

    fn words(&self, word: &str) -> String {
        match self.description.as_deref() {
            Some(description) if !description.is_empty() => format!("{word}: {description}"),
            _ => word.to_owned(),
        }
    }

    /// What a scan that says it has ended still lacks.
    fn is_missing(
        &self,
        configured: Option<&Scanner>,
        before: Option<&PlatformScan>,
        now: Timestamp,
        settle: Duration,
    ) -> Option<String> {
        if self.moved {
            return Some("it moved on while its pages were read".to_owned());
        }
        let Some(completed) = self.completed else {
            return Some("it has no time of completion yet".to_owned());
        };
        let listed = |severity: &Severity| self.listed.get(severity).copied().unwrap_or_default();
        let short = self
            .counted
            .iter()
            .find(|(severity, count)| listed(severity) < **count);
        if let Some((severity, count)) = short {
            let listed = listed(severity);
            return Some(format!(
                "{listed} of {count} findings that are {severity} are listed yet"
            ));
        }
        // Only what is surely the basic scanner's is believed at once.
        let basic = Some(Scanner::Basic);
        if configured == basic.as_ref() && self.scanner(configured) == basic {
            return None;
        }
        let age = Duration::try_from(now.duration_since(completed)).unwrap_or_default();
        if age >= settle {
            return None;
        }
        if self.findings.is_empty() {
            return Some(format!(
                "it is empty and {age:.1?} old; before {settle:.1?} its findings may be on their way"
            ));
        }
        let stable = before
            .is_some_and(|before| before.completed == self.completed && before.findings == self.findings);
        (!stable).then(|| "its findings have not been the same twice yet".to_owned())
    }
}

pub(super) fn timestamp(at: &aws_smithy_types::DateTime) -> Option<Timestamp> {
    Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_core::Digest;
    use towpath_elements::registry::PlatformImage;

    const SETTLE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn look(word: &str, findings: usize) -> Look {
        let finding = Finding::new("CVE-1", Severity::High);
        Look {
            word: Some(word.into()),
            completed: Some(at(1000)),
            findings: vec![finding; findings],
            ..Look::default()
        }
    }

    fn before(look: &Look) -> PlatformScan {
        let digest = Digest::sha256_of("x");
        let platform = None;
        let mut scan = PlatformScan::new(PlatformImage { platform, digest }, ScanStatus::InProgress);
        scan.completed = look.completed;
        scan.findings = look.findings.clone();
        scan
    }

    fn status(look: &Look, configured: Scanner, before: Option<&PlatformScan>, now: i64) -> ScanStatus {
        look.status(Some(&configured), before, at(now), SETTLE).0
    }

    #[test]
    fn each_word_has_its_meaning() {
        for (word, expected) in [
            ("PENDING", ScanStatus::Pending),
            ("IN_PROGRESS", ScanStatus::InProgress),
            ("COMPLETE", ScanStatus::Complete),
            ("ACTIVE", ScanStatus::Active),
            ("NOVEL", ScanStatus::Other("NOVEL".into())),
            (
                "NOT_COVERED_BY_ANYTHING",
                ScanStatus::Other("NOT_COVERED_BY_ANYTHING".into()),
            ),
        ] {
            assert_eq!(status(&look(word, 0), Scanner::Basic, None, 2000), expected);
        }
        for word in [
            "FAILED",
            "UNSUPPORTED_IMAGE",
            "SCAN_ELIGIBILITY_EXPIRED",
            "FINDINGS_UNAVAILABLE",
            "LIMIT_EXCEEDED",
            "IMAGE_ARCHIVED",
            "IMAGE_SIZE_EXCEEDED",
        ] {
            let mut look = look(word, 0);
            look.description = Some("no package manager".into());
            let text = format!("{word}: no package manager");
            assert_eq!(
                status(&look, Scanner::Enhanced, None, 0),
                ScanStatus::Unavailable(text)
            );
        }
        assert_eq!(
            status(&Look::default(), Scanner::Basic, None, 0),
            ScanStatus::Pending
        );
    }

    #[test]
    fn an_end_without_its_time_or_its_findings_is_no_end() {
        let mut young = look("COMPLETE", 0);
        assert_eq!(status(&young, Scanner::Basic, None, 1000), ScanStatus::Complete);
        young.counted = BTreeMap::from([(Severity::Critical, 1), (Severity::Low, 1)]);
        young.listed = BTreeMap::from([(Severity::Low, 2)]);
        assert_eq!(status(&young, Scanner::Basic, None, 9000), ScanStatus::InProgress);
        young.listed = BTreeMap::from([(Severity::Low, 1), (Severity::Critical, 1)]);
        assert_eq!(status(&young, Scanner::Basic, None, 1000), ScanStatus::Complete);
        young.moved = true;
        assert_eq!(status(&young, Scanner::Basic, None, 9000), ScanStatus::InProgress);
        let mut timeless = look("ACTIVE", 1);
        timeless.completed = None;
        assert_eq!(
            status(&timeless, Scanner::Enhanced, None, 9000),
            ScanStatus::InProgress
        );
    }

    #[test]
    fn an_enhanced_result_settles() {
        let empty = look("COMPLETE", 0);
        let twice = before(&empty);
        assert_eq!(
            status(&empty, Scanner::Enhanced, Some(&twice), 1059),
            ScanStatus::InProgress
        );
        assert_eq!(
            status(&empty, Scanner::Enhanced, None, 1060),
            ScanStatus::Complete
        );
        // A clock that is behind makes no result old.
        assert_eq!(
            status(&empty, Scanner::Enhanced, Some(&twice), 0),
            ScanStatus::InProgress
        );
        let full = look("ACTIVE", 2);
        assert_eq!(
            status(&full, Scanner::Enhanced, None, 1001),
            ScanStatus::InProgress
        );
        let twice = before(&full);
        assert_eq!(
            status(&full, Scanner::Enhanced, Some(&twice), 1001),
            ScanStatus::Active
        );
        let less = before(&look("ACTIVE", 1));
        assert_eq!(
            status(&full, Scanner::Enhanced, Some(&less), 1001),
            ScanStatus::InProgress
        );
        // Where nobody says what scans, it may be the enhanced scanner.
        assert_eq!(
            empty.status(None, None, at(1001), SETTLE).0,
            ScanStatus::InProgress
        );
    }

    #[test]
    fn what_is_listed_says_more_than_the_configuration() {
        let mut mixed = look("COMPLETE", 1);
        mixed.listed_by = Some(Scanner::Enhanced);
        assert_eq!(mixed.scanner(Some(&Scanner::Basic)), Some(Scanner::Enhanced));
        assert_eq!(status(&mixed, Scanner::Basic, None, 1001), ScanStatus::InProgress);
        assert_eq!(
            look("ACTIVE", 0).scanner(Some(&Scanner::Basic)),
            Some(Scanner::Enhanced)
        );
        assert_eq!(
            look("COMPLETE", 0).scanner(Some(&Scanner::Basic)),
            Some(Scanner::Basic)
        );
        assert_eq!(look("COMPLETE", 0).scanner(None), None);
    }
}
