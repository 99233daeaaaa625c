//! Scan findings, of the basic and the enhanced kind (*Amazon ECR API Reference*, `DescribeImageScanFindings`).

use crate::client::{Ecr, image_id};
use crate::error::{SERVICE, failed};
use aws_sdk_ecr::types::{
    EnhancedImageScanFinding, FindingSeverity, ImageScanFinding, ImageScanFindings,
    RegistryScanningConfiguration, ScanStatus as Word,
};
use jiff::Timestamp;
use towpath_core::ImageRef;
use towpath_elements::registry::{Finding, ScanStatus, Severity};
use towpath_elements::{Error, ErrorKind, Result};

/// What the scanner says of one manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestScan {
    /// How the scan stands.
    pub status: ScanStatus,
    /// When it was completed.
    pub completed: Option<Timestamp>,
    /// What was found, of either kind.
    pub findings: Vec<Finding>,
}

impl ManifestScan {
    fn without_result(status: ScanStatus) -> Self {
        Self {
            status,
            completed: None,
            findings: Vec::new(),
        }
    }
}

impl Ecr {
    /// How the registry scans: basic or enhanced, which repositories, when.
    ///
    /// # Errors
    /// What the service says to `GetRegistryScanningConfiguration`.
    pub async fn scanning_configuration(&self) -> Result<RegistryScanningConfiguration> {
        const ATTEMPTED: &str = "read the scanning configuration of";
        let output = self.api.get_registry_scanning_configuration().send().await;
        let output = output.map_err(|error| failed(ATTEMPTED, "the registry", error).error)?;
        output.scanning_configuration.ok_or_else(|| {
            Error::new(ErrorKind::Protocol, SERVICE, ATTEMPTED, "the registry").because("the answer has none")
        })
    }

    /// What the scanner knows of one manifest, given by digest. An index is not scanned: ask for its children.
    ///
    /// A scan that the service does not know yet is *pending*. A scan counts as complete only with the time of its
    /// completion, and with findings where the service counts some: the enhanced scanner says `COMPLETE` before its
    /// findings arrive.
    ///
    /// # Errors
    /// What the service says to `DescribeImageScanFindings`, other than that there is no scan.
    pub async fn manifest_scan(&self, image: &ImageRef) -> Result<ManifestScan> {
        let mut pages = self
            .api
            .describe_image_scan_findings()
            .set_registry_id(Self::account(image).map(|account| account.to_string()))
            .repository_name(image.repository().as_str())
            .image_id(image_id(image))
            .into_paginator()
            .send();
        let mut status = None;
        let mut completed = None;
        let mut counted = 0;
        let mut findings = Vec::new();
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    let failed = failed("read the scan findings of", image, error);
                    return match failed.code.as_str() {
                        "ScanNotFoundException" => Ok(ManifestScan::without_result(ScanStatus::Pending)),
                        _ => Err(failed.error),
                    };
                }
            };
            // Of several pages the last word counts: the scan may have moved on between them.
            status = page.image_scan_status.or(status);
            if let Some(found) = page.image_scan_findings {
                completed = found.image_scan_completed_at.and_then(timestamp).or(completed);
                counted = counted.max(count(&found));
                findings.extend(found.findings.unwrap_or_default().iter().map(basic));
                findings.extend(found.enhanced_findings.unwrap_or_default().iter().map(enhanced));
            }
        }
        let (word, description) = status.map_or((None, None), |status| (status.status, status.description));
        Ok(ManifestScan {
            status: judge(
                word.as_ref(),
                description.as_deref(),
                completed.is_some() && (counted == 0 || !findings.is_empty()),
            ),
            completed,
            findings,
        })
    }
}

fn judge(word: Option<&Word>, description: Option<&str>, has_result: bool) -> ScanStatus {
    let Some(word) = word else {
        return ScanStatus::Pending;
    };
    match word {
        Word::Complete | Word::Active if !has_result => ScanStatus::InProgress,
        Word::Complete => ScanStatus::Complete,
        Word::Active => ScanStatus::Active,
        Word::InProgress => ScanStatus::InProgress,
        Word::Pending => ScanStatus::Pending,
        Word::Failed
        | Word::UnsupportedImage
        | Word::ScanEligibilityExpired
        | Word::FindingsUnavailable
        | Word::LimitExceeded
        | Word::ImageArchived => ScanStatus::Unavailable(match description {
            Some(description) if !description.is_empty() => format!("{word}: {description}"),
            _ => word.to_string(),
        }),
        other => ScanStatus::Other(other.to_string()),
    }
}

fn count(findings: &ImageScanFindings) -> i64 {
    findings.finding_severity_counts().map_or(0, |counts| {
        counts.values().map(|count| i64::from((*count).max(0))).sum()
    })
}

fn timestamp(at: aws_smithy_types::DateTime) -> Option<Timestamp> {
    Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).ok()?).ok()
}

/// The words of both kinds of finding. The enhanced one says `UNTRIAGED` for what is not graded.
fn severity(word: &str) -> Severity {
    match word.to_ascii_uppercase().as_str() {
        "INFORMATIONAL" => Severity::Informational,
        "LOW" => Severity::Low,
        "MEDIUM" => Severity::Medium,
        "HIGH" => Severity::High,
        "CRITICAL" => Severity::Critical,
        _ => Severity::Undefined,
    }
}

fn basic(finding: &ImageScanFinding) -> Finding {
    let attribute = |key: &str| {
        let found = finding
            .attributes()
            .iter()
            .find(|attribute| attribute.key() == key);
        found.and_then(|attribute| attribute.value()).map(str::to_owned)
    };
    Finding {
        name: finding.name().unwrap_or("unnamed").to_owned(),
        severity: severity(finding.severity().map_or("", FindingSeverity::as_str)),
        package: attribute("package_name"),
        version: attribute("package_version"),
        fixed_in: attribute("fixed_in_version").or_else(|| attribute("patched_in_version")),
    }
}

fn enhanced(finding: &EnhancedImageScanFinding) -> Finding {
    let details = finding.package_vulnerability_details();
    let package = details.and_then(|details| details.vulnerable_packages().first());
    let name = details
        .and_then(|details| details.vulnerability_id())
        .or(finding.title())
        .or(finding.finding_arn());
    let fixed = package.and_then(|package| package.fixed_in_version());
    Finding {
        name: name.unwrap_or("unnamed").to_owned(),
        severity: severity(finding.severity().unwrap_or_default()),
        package: package.and_then(|package| package.name()).map(str::to_owned),
        version: package.and_then(|package| package.version()).map(str::to_owned),
        // Inspector writes this where there is no mended version.
        fixed_in: fixed.filter(|fixed| *fixed != "NotAvailable").map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_result_is_a_result() {
        assert_eq!(judge(Some(&Word::Complete), None, true), ScanStatus::Complete);
        assert_eq!(judge(Some(&Word::Complete), None, false), ScanStatus::InProgress);
        assert_eq!(judge(Some(&Word::Active), None, true), ScanStatus::Active);
        assert_eq!(judge(Some(&Word::Active), None, false), ScanStatus::InProgress);
        assert_eq!(judge(None, None, true), ScanStatus::Pending);
        assert_eq!(
            judge(Some(&Word::from("NOVEL")), None, true),
            ScanStatus::Other("NOVEL".into())
        );
        for word in [
            Word::Failed,
            Word::UnsupportedImage,
            Word::ScanEligibilityExpired,
            Word::FindingsUnavailable,
            Word::LimitExceeded,
            Word::ImageArchived,
        ] {
            let text = format!("{word}: no package manager");
            assert_eq!(
                judge(Some(&word), Some("no package manager"), true),
                ScanStatus::Unavailable(text)
            );
        }
        assert_eq!(severity("high"), Severity::High);
        assert_eq!(severity("UNTRIAGED"), Severity::Undefined);
    }
}
