//! A judged scan for people and for machines: a table, Markdown, JSON, SARIF.
//!
//! The same report and verdict give the same bytes, whatever order the service lists findings in. Nothing that a scanner
//! says can break out of the format: control characters are taken out, and each format's own characters are written
//! safely.

mod json;
mod markdown;
mod sarif;
mod table;
#[cfg(test)]
mod tests;

use super::{
    Fate, Finding, PlatformScan, PlatformVerdict, ScanReport, ScanStatus, ScanVerdict, Severity, Use,
};
use crate::{Error, ErrorKind, Result};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A scan report together with the verdict on it, ready to be written.
///
/// ```
/// use towpath_elements::registry::{GateReport, PlatformImage, PlatformScan, ScanPolicy, ScanReport, ScanStatus};
/// let digest = towpath_core::Digest::sha256_of("a manifest");
/// let platform = PlatformImage { platform: None, digest: digest.clone() };
/// let scan = PlatformScan::new(platform, ScanStatus::Complete);
/// let report = ScanReport::new(format!("quay.io/shop/web@{digest}").parse()?, vec![scan]);
/// let verdict = ScanPolicy::default().judge(&report, jiff::Timestamp::now());
/// let written = GateReport::new(&report, &verdict)?;
/// assert!(written.table().contains("passed"));
/// assert!(written.markdown().starts_with("### "));
/// assert!(written.sarif().contains("2.1.0"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct GateReport<'a> {
    report: &'a ScanReport,
    verdict: &'a ScanVerdict,
    rows: Vec<Row<'a>>,
}

/// One finding on one platform.
#[derive(Clone, Copy, Debug)]
struct Row<'a> {
    finding: &'a Finding,
    fate: &'a Fate,
    /// The place of its platform in the report.
    place: usize,
}

impl<'a> GateReport<'a> {
    /// Puts a report and the verdict on it together.
    ///
    /// # Errors
    /// *Invalid* where the verdict is not on this report.
    pub fn new(report: &'a ScanReport, verdict: &'a ScanVerdict) -> Result<Self> {
        let alike = |(scan, judged): (&PlatformScan, &PlatformVerdict)| {
            let findings = scan.findings.iter().zip(&judged.findings);
            scan.image.digest == judged.digest
                && scan.findings.len() == judged.findings.len()
                && findings
                    .into_iter()
                    .all(|(one, other)| one.name == other.name && one.severity == other.severity)
        };
        let belongs = verdict.image.as_ref() == Some(&report.image)
            && report.platforms.len() == verdict.scans.len()
            && report.platforms.iter().zip(&verdict.scans).all(alike);
        if !belongs {
            return Err(Error::new(
                ErrorKind::Invalid,
                "scan gate",
                "write the verdict on",
                &report.image,
            )
            .because("the verdict was made on another report, or by an older version")
            .advise("judge this report"));
        }
        let mut rows = Vec::new();
        for (place, (scan, judged)) in report.platforms.iter().zip(&verdict.scans).enumerate() {
            let findings = scan.findings.iter().zip(&judged.findings);
            rows.extend(findings.map(|(finding, judged)| Row {
                finding,
                fate: &judged.fate,
                place,
            }));
        }
        rows.sort_by(|one, other| (one.rank(), one.place).cmp(&(other.rank(), other.place)));
        Ok(Self {
            report,
            verdict,
            rows,
        })
    }

    /// A table for a terminal, with a line feed at its end.
    pub fn table(&self) -> String {
        table::write(self)
    }

    /// Markdown as GitHub reads it, for the summary of a step or a comment. It stays within the 1 MiB that a step's
    /// summary may have; where findings are left out, the worst are there, and it says how many are missing.
    pub fn markdown(&self) -> String {
        markdown::write(self)
    }

    /// JSON. Fields may be added; none is renamed, taken out or given another type while `version` is 1:
    ///
    /// | Field | What it is |
    /// |---|---|
    /// | `format`, `version` | `"towpath-scan-gate"`, `1` |
    /// | `image` | the image by digest |
    /// | `judged` | when, as in RFC 3339 |
    /// | `passed`, `reasons` | whether the gate opened, and why not |
    /// | `counts` | number of findings by severity |
    /// | `platforms[]` | `platform`, `digest`, `status` (`pending`, `in_progress`, `complete`, `active`, `unavailable`, `other`), `no_result`, `word`, `description`, `scanner`, `completed`, `accepted` (`reason`, `until`) |
    /// | `findings[]` | `platform`, `digest`, `name`, `severity`, `score`, `package`, `version`, `package_manager`, `file_path`, `fixed_in`, `fix`, `exploit`, `uri`, `description`, `fate` (`refused`, `tolerated`, `allowed`, `ignored`), `reason`, `until` |
    /// | `allowances[]` | `name`, `reason`, `until`, `packages`, `used` (`used`, `expired`, `unmatched`), `matched` |
    ///
    /// What is not known is `null`.
    pub fn json(&self) -> String {
        json::write(self)
    }

    /// SARIF 2.1.0, one run, with a rule for each vulnerability and a result for each place it is in. Allowed and ignored
    /// findings are suppressed, with the justification.
    ///
    /// It stays within 25,000 results, which is what GitHub takes of a run; where results are left out, the worst are
    /// there, and a notification says how many are missing. A platform without a result is a notification too, and the
    /// run is then not a successful one.
    pub fn sarif(&self) -> String {
        sarif::write(self)
    }

    fn platform(&self, row: &Row<'_>) -> &str {
        self.verdict
            .scans
            .get(row.place)
            .map_or("", |scan| &scan.platform)
    }

    fn headline(&self) -> &'static str {
        match self.verdict.passed {
            true => "passed",
            false => "refused",
        }
    }

    /// Rows that differ by their platform alone, as one.
    fn merged(&self) -> Vec<(Row<'a>, Vec<&str>)> {
        let mut merged: Vec<(Row<'a>, Vec<&str>)> = Vec::new();
        for row in &self.rows {
            let platform = self.platform(row);
            match merged.last_mut() {
                Some((last, platforms)) if last.rank() == row.rank() && last.fate == row.fate => {
                    if platforms.last() != Some(&platform) {
                        platforms.push(platform);
                    }
                }
                _ => merged.push((*row, vec![platform])),
            }
        }
        merged
    }
}

impl<'a> Row<'a> {
    /// The order of rows, and all that people are told of one.
    fn rank(&self) -> impl Ord + use<'a> {
        let finding = self.finding;
        let fate = match self.fate {
            Fate::Refused => 0,
            Fate::Tolerated => 1,
            Fate::Allowed { .. } => 2,
            Fate::Ignored(_) => 3,
        };
        (
            (fate, Reverse(finding.severity), &finding.name),
            (&finding.package, &finding.version, &finding.fixed_in),
            (&finding.file_path, &finding.package_manager, &finding.uri),
        )
    }
}

/// A text without what could move a terminal's cursor, turn its direction or break its line.
fn plain(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.chars()
        .filter(|c| !turns(*c))
        .map(|c| if breaks(c) { ' ' } else { c })
        .collect()
}

/// The first characters of a text, with a sign where there are more.
fn at_most(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some(_) => {
            let short: String = text.chars().take(characters.saturating_sub(1)).collect();
            short + "…"
        }
    }
}

/// A time for people, without fractions of a second.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The worst first: `1 critical, 3 low`.
fn counted(counts: &BTreeMap<Severity, usize>) -> String {
    let mut text = String::new();
    for (severity, count) in counts.iter().rev() {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{count} {severity}");
    }
    match text.is_empty() {
        true => "nothing found".to_owned(),
        false => text,
    }
}

fn counts_of(scan: &PlatformScan) -> BTreeMap<Severity, usize> {
    scan.findings.iter().fold(BTreeMap::new(), |mut counts, finding| {
        *counts.entry(finding.severity).or_default() += 1;
        counts
    })
}

/// What a platform's row says was found; nothing where there is no result to speak of.
fn found(scan: &PlatformScan) -> String {
    match (&scan.status, scan.findings.is_empty()) {
        (ScanStatus::Complete | ScanStatus::Active, _) | (_, false) => counted(&counts_of(scan)),
        _ => "no result".to_owned(),
    }
}

fn used(used: Use) -> String {
    match used {
        Use::Used(count) => format!("lets {count} through"),
        Use::Expired(0) => "expired; matches nothing".to_owned(),
        Use::Expired(count) => format!("expired: {count} count again"),
        Use::Unmatched => "matches nothing: it may go".to_owned(),
    }
}
