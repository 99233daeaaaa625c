//! SARIF (*Static Analysis Results Interchange Format 2.1.0*, OASIS), in the subset that GitHub reads (*SARIF support for
//! code scanning*).

use super::{GateReport, Row, at_most, plain};
use crate::registry::{Fate, Finding, ScanStatus, Score, Severity};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use towpath_core::Digest;
use url::Url;

/// What GitHub takes of one run.
const MOST_RESULTS: usize = 25_000;
/// What GitHub shows of a description.
const DESCRIPTION: usize = 1000;

pub(super) fn write(gate: &GateReport<'_>) -> String {
    let rows = gate.rows.get(..MOST_RESULTS).unwrap_or(&gate.rows);
    let mut worst: BTreeMap<&str, &Finding> = BTreeMap::new();
    for row in rows {
        let known = worst.entry(&row.finding.name).or_insert(row.finding);
        if (row.finding.severity, row.finding.score) > (known.severity, known.score) {
            *known = row.finding;
        }
    }
    let places: BTreeMap<&str, usize> = worst.keys().copied().zip(0..).collect();
    let results: Vec<Value> = rows
        .iter()
        .map(|row| {
            let place = places.get(row.finding.name.as_str());
            result(gate, row, place.copied().unwrap_or_default())
        })
        .collect();
    let value = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "Towpath scan gate",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": worst.values().map(|finding| rule(finding)).collect::<Vec<_>>(),
            }},
            // What is before the last slash is GitHub's category: a repository's alerts do not end another one's.
            "automationDetails": {"id": format!("towpath-scan-gate/{}/", gate.report.image.repository())},
            "invocations": [invocation(gate, rows.len())],
            "columnKind": "unicodeCodePoints",
            "results": results,
            "properties": {
                "image": gate.report.image.to_string(),
                "passed": gate.verdict.passed,
            },
        }],
    });
    format!("{value:#}\n")
}

fn rule(finding: &Finding) -> Value {
    let name = plain(&finding.name);
    let described = finding.description.as_deref().map(plain);
    let described = described.filter(|text| !text.trim().is_empty());
    let described = at_most(&described.unwrap_or_else(|| name.clone()), DESCRIPTION);
    let mut rule = json!({
        "id": name,
        "shortDescription": {"text": name},
        "fullDescription": {"text": described},
        "help": {"text": described},
        "defaultConfiguration": {"level": level(finding.severity)},
        "properties": {
            "security-severity": security_severity(finding).to_string(),
            "tags": ["security", "vulnerability", finding.severity.to_string()],
        },
    });
    let page = finding.uri.as_deref().and_then(|uri| Url::parse(uri).ok());
    if let Some(page) = page.filter(|url| matches!(url.scheme(), "https" | "http")) {
        rule["helpUri"] = page.as_str().into();
    }
    rule
}

fn result(gate: &GateReport<'_>, row: &Row<'_>, place: usize) -> Value {
    let finding = row.finding;
    let platform = plain(gate.platform(row));
    let digest = gate.verdict.scans.get(row.place).map(|scan| &scan.digest);
    let repository = gate.report.image.repository();
    let package = plain(finding.package.as_deref().unwrap_or("the image"));
    // The version and the digest are not in it: the same weakness in tomorrow's image is the same alert.
    let mark = [
        repository.as_str(),
        &platform,
        &finding.name,
        finding.package.as_deref().unwrap_or_default(),
        finding.file_path.as_deref().unwrap_or_default(),
    ];
    let mark = Digest::sha256_of(mark.join("\n")).to_string();
    let mark = mark.rsplit(':').next().unwrap_or_default();
    let path = finding.file_path.as_deref().unwrap_or_default();
    let mut result = json!({
        "ruleId": plain(&finding.name),
        "ruleIndex": place,
        "level": level(finding.severity),
        "message": {"text": format!("{} on {platform}: {}", plain(&finding.to_string()), plain(&row.fate.to_string()))},
        "locations": [{
            "physicalLocation": {
                "artifactLocation": {"uri": relative(&[repository.as_str(), &platform, path])},
                "region": {"startLine": 1},
            },
            "logicalLocations": [{
                "name": package,
                "fullyQualifiedName": format!(
                    "{}@{} {platform} {package}",
                    gate.report.image.name(),
                    digest.map(ToString::to_string).unwrap_or_default(),
                ),
                "kind": "module",
            }],
        }],
        "partialFingerprints": {
            "towpathFinding/v1": mark,
            "primaryLocationLineHash": format!("{}:1", mark.get(..16).unwrap_or(mark)),
        },
        "properties": {
            "platform": platform,
            "severity": finding.severity.to_string(),
            "package": finding.package.as_deref().map(plain),
            "version": finding.version.as_deref().map(plain),
            "fixedIn": finding.fixed_in.as_deref().map(plain),
        },
    });
    let justification = match row.fate {
        Fate::Allowed { .. } | Fate::Ignored(_) => Some(plain(&row.fate.to_string())),
        Fate::Refused | Fate::Tolerated => None,
    };
    if let Some(text) = justification {
        result["suppressions"] = json!([{"kind": "external", "status": "accepted", "justification": text}]);
    }
    result
}

fn invocation(gate: &GateReport<'_>, written: usize) -> Value {
    let mut notes = Vec::new();
    let note = |level: &str, text: String| json!({"level": level, "message": {"text": text}});
    let without = gate
        .report
        .platforms
        .iter()
        .filter(|scan| !matches!(scan.status, ScanStatus::Complete | ScanStatus::Active));
    for scan in without {
        let text = format!("{} has no scan result: {}", scan.name(), scan.standing());
        notes.push(note("error", plain(&text)));
    }
    let whole = notes.is_empty() && !gate.report.platforms.is_empty();
    let left = gate.rows.len() - written;
    if left > 0 {
        let text = format!(
            "{left} of {} findings are left out; the worst are here",
            gate.rows.len()
        );
        notes.push(note("warning", text));
    }
    let mut invocation = json!({
        "executionSuccessful": whole,
        "toolExecutionNotifications": notes,
    });
    if let Some(judged) = gate.verdict.judged {
        invocation["endTimeUtc"] = judged.to_string().into();
    }
    invocation
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Undefined | Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Informational => "note",
    }
}

/// GitHub makes a word of the number again: over 9.0 is critical, from 7.0 high, from 4.0 medium, over 0 low. The CVSS
/// score stands where it gives the scanner's word, and a number in the middle of that word's range elsewhere, so that
/// alerts and gate speak of the same severity.
fn security_severity(finding: &Finding) -> f64 {
    let score = finding.score.map(Score::into).unwrap_or_default();
    let (range, middle): (_, f64) = match finding.severity {
        Severity::Undefined => (10.0..=10.0, 10.0),
        Severity::Critical => (9.1..=10.0, 9.5),
        Severity::High => (7.0..=9.0, 8.0),
        Severity::Medium => (4.0..=6.9, 5.5),
        Severity::Low => (0.1..=3.9, 2.0),
        Severity::Informational => (0.0..=0.0, 0.0),
    };
    if range.contains(&score) { score } else { middle }
}

/// A relative reference of RFC 3986 from parts that may hold anything.
fn relative(parts: &[&str]) -> String {
    let mut uri = String::new();
    let segments = parts.iter().flat_map(|part| part.split('/'));
    for segment in segments.filter(|segment| !matches!(*segment, "" | "." | "..")) {
        if !uri.is_empty() {
            uri.push('/');
        }
        for byte in segment.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    uri.push(char::from(byte))
                }
                other => uri.push_str(&format!("%{other:02X}")),
            }
        }
    }
    uri
}
