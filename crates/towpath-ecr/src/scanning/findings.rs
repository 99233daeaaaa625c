//! Findings of both kinds in one shape (*Amazon ECR API Reference*, `ImageScanFinding` and `EnhancedImageScanFinding`).

use aws_sdk_ecr::types::{EnhancedImageScanFinding, FindingSeverity, ImageScanFinding, VulnerablePackage};
use towpath_elements::registry::{Availability, Finding, Score, Severity};

/// The words of both kinds. The enhanced one says `UNTRIAGED` for what is not graded.
pub(super) fn severity(word: &str) -> Severity {
    match word.to_ascii_uppercase().as_str() {
        "INFORMATIONAL" => Severity::Informational,
        "LOW" => Severity::Low,
        "MEDIUM" => Severity::Medium,
        "HIGH" => Severity::High,
        "CRITICAL" => Severity::Critical,
        _ => Severity::Undefined,
    }
}

pub(super) fn basic(finding: &ImageScanFinding) -> Finding {
    let attribute = |key: &str| {
        let found = finding
            .attributes()
            .iter()
            .find(|attribute| attribute.key() == key);
        said(found.and_then(|attribute| attribute.value()))
    };
    let severity = severity(finding.severity().map_or("", FindingSeverity::as_str));
    let mut row = Finding::new(finding.name().unwrap_or("unnamed"), severity);
    row.package = attribute("package_name");
    row.version = attribute("package_version");
    row.fixed_in = attribute("fixed_in_version").or_else(|| attribute("patched_in_version"));
    row.fix = row.fixed_in.is_some().then_some(Availability::Yes);
    row.description = said(finding.description());
    row.uri = said(finding.uri());
    // The basic scanner looks at nothing else.
    row.package_manager = Some("OS".to_owned());
    row.score = attribute("CVSS3_SCORE")
        .or_else(|| attribute("CVSS2_SCORE"))
        .and_then(|score| score.parse().ok())
        .and_then(Score::new);
    row
}

/// One row for each package that has the weakness.
pub(super) fn enhanced(finding: &EnhancedImageScanFinding) -> Vec<Finding> {
    let details = finding.package_vulnerability_details();
    let name = details
        .and_then(|details| details.vulnerability_id())
        .or(finding.title())
        .or(finding.finding_arn());
    let mut shared = Finding::new(
        name.unwrap_or("unnamed"),
        severity(finding.severity().unwrap_or_default()),
    );
    shared.description = said(finding.description());
    shared.uri = details.and_then(|details| said(details.source_url()));
    shared.fix = said(finding.fix_available()).map(|word| Availability::from_word(&word));
    shared.exploit = said(finding.exploit_available()).map(|word| Availability::from_word(&word));
    shared.score = score(finding);
    match details.map(|details| details.vulnerable_packages()) {
        None | Some([]) => vec![shared],
        Some(packages) => packages.iter().map(|package| row(&shared, package)).collect(),
    }
}

fn row(shared: &Finding, package: &VulnerablePackage) -> Finding {
    let mut row = shared.clone();
    row.package = said(package.name());
    row.version = said(package.version());
    row.package_manager = said(package.package_manager());
    row.file_path = said(package.file_path());
    // Inspector writes this where there is no mended version.
    row.fixed_in = said(package.fixed_in_version()).filter(|fixed| fixed != "NotAvailable");
    row
}

/// The base score: the National Vulnerability Database's, or else the highest, or else what Inspector made of it.
fn score(finding: &EnhancedImageScanFinding) -> Option<Score> {
    let details = finding.package_vulnerability_details();
    let scores = || details.into_iter().flat_map(|details| details.cvss());
    let of_nvd = scores().find(|score| score.source() == Some("NVD"));
    let base = match of_nvd {
        Some(score) => Score::new(score.base_score()),
        None => scores().filter_map(|score| Score::new(score.base_score())).max(),
    };
    base.or_else(|| Score::new(finding.score()).filter(|score| f64::from(*score) > 0.0))
}

/// What is said; an empty text says nothing.
fn said(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ecr::types::{Attribute, CvssScore, PackageVulnerabilityDetails};

    #[test]
    fn a_severity_without_a_grade_ranks_above_all() {
        assert_eq!(severity("high"), Severity::High);
        assert_eq!(severity("UNTRIAGED"), Severity::Undefined);
        assert_eq!(severity(""), Severity::Undefined);
    }

    #[test]
    fn a_basic_finding_says_what_it_has() {
        let attribute = |key: &str, value: &str| Attribute::builder().key(key).value(value).build().unwrap();
        let finding = ImageScanFinding::builder()
            .name("CVE-1")
            .uri("https://nvd.example/CVE-1")
            .severity(FindingSeverity::High)
            .attributes(attribute("package_name", "zlib"))
            .attributes(attribute("CVSS3_SCORE", "7.5"))
            .build();
        let row = basic(&finding);
        assert_eq!(row.package.as_deref(), Some("zlib"));
        assert_eq!((row.version, row.fixed_in, row.fix), (None, None, None));
        assert_eq!(row.score, Score::new(7.5));
        assert_eq!(row.package_manager.as_deref(), Some("OS"));
    }

    #[test]
    fn an_enhanced_finding_has_a_row_for_each_package() {
        let package = |name: &str, fixed: &str| {
            VulnerablePackage::builder()
                .name(name)
                .file_path(format!("/srv/{name}"))
                .package_manager("NPM")
                .fixed_in_version(fixed)
                .build()
        };
        let score = |source: &str, score| CvssScore::builder().source(source).base_score(score).build();
        let details = PackageVulnerabilityDetails::builder()
            .vulnerability_id("CVE-1")
            .vulnerable_packages(package("a", "1.1"))
            .vulnerable_packages(package("b", "NotAvailable"))
            .cvss(score("VENDOR", 9.9))
            .cvss(score("NVD", 8.1));
        let finding = EnhancedImageScanFinding::builder()
            .severity("HIGH")
            .fix_available("PARTIAL")
            .exploit_available("YES")
            .package_vulnerability_details(details.build())
            .build();
        let rows = enhanced(&finding);
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].fixed_in.as_deref(), rows[0].cannot_be_mended()),
            (Some("1.1"), false)
        );
        assert_eq!(
            (rows[1].fixed_in.as_deref(), rows[1].cannot_be_mended()),
            (None, true)
        );
        assert_eq!(rows[1].file_path.as_deref(), Some("/srv/b"));
        assert_eq!(rows[0].score, Score::new(8.1));
        assert_eq!(rows[0].exploit, Some(Availability::Yes));
        let bare = EnhancedImageScanFinding::builder().title("T").build();
        assert_eq!(enhanced(&bare), [Finding::new("T", Severity::Undefined)]);
    }
}
