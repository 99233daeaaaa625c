//! JSON, as `GateReport::json` says.

use super::GateReport;
use crate::registry::{Availability, Fate, ScanStatus, Use};
use serde_json::{Value, json};

pub(super) fn write(gate: &GateReport<'_>) -> String {
    let verdict = gate.verdict;
    let counts: serde_json::Map<String, Value> = verdict
        .counts
        .iter()
        .map(|(severity, count)| (severity.to_string(), json!(count)))
        .collect();
    let value = json!({
        "format": "towpath-scan-gate",
        "version": 1,
        "image": gate.report.image.to_string(),
        "judged": verdict.judged.map(|at| at.to_string()),
        "passed": verdict.passed,
        "reasons": verdict.reasons,
        "counts": counts,
        "platforms": platforms(gate),
        "findings": findings(gate),
        "allowances": allowances(gate),
    });
    format!("{value:#}\n")
}

fn platforms(gate: &GateReport<'_>) -> Vec<Value> {
    let scans = gate.report.platforms.iter().zip(&gate.verdict.scans);
    let written = scans.map(|(scan, judged)| {
        json!({
            "platform": judged.platform,
            "digest": judged.digest.to_string(),
            "status": match scan.status {
                ScanStatus::Pending => "pending",
                ScanStatus::InProgress => "in_progress",
                ScanStatus::Complete => "complete",
                ScanStatus::Active => "active",
                ScanStatus::Unavailable(_) => "unavailable",
                ScanStatus::Other(_) => "other",
            },
            "no_result": scan.no_result.map(|why| why.as_str()),
            "word": scan.word,
            "description": scan.description,
            "scanner": scan.scanner.as_ref().map(ToString::to_string),
            "completed": scan.completed.map(|at| at.to_string()),
            "accepted": judged.accepted.as_ref().map(|allowance| json!({
                "reason": allowance.reason,
                "until": allowance.until.to_string(),
            })),
        })
    });
    written.collect()
}

fn findings(gate: &GateReport<'_>) -> Vec<Value> {
    let written = gate.rows.iter().map(|row| {
        let finding = row.finding;
        let (fate, reason, until) = match row.fate {
            Fate::Refused => ("refused", None, None),
            Fate::Tolerated => ("tolerated", None, None),
            Fate::Allowed { reason, until } => ("allowed", Some(reason), Some(until.to_string())),
            Fate::Ignored(why) => ("ignored", Some(why), None),
        };
        json!({
            "platform": gate.platform(row),
            "digest": gate.verdict.scans.get(row.place).map(|scan| scan.digest.to_string()),
            "name": finding.name,
            "severity": finding.severity.to_string(),
            "score": finding.score.map(f64::from),
            "package": finding.package,
            "version": finding.version,
            "package_manager": finding.package_manager,
            "file_path": finding.file_path,
            "fixed_in": finding.fixed_in,
            "fix": availability(finding.fix.as_ref()),
            "exploit": availability(finding.exploit.as_ref()),
            "uri": finding.uri,
            "description": finding.description,
            "fate": fate,
            "reason": reason,
            "until": until,
        })
    });
    written.collect()
}

fn availability(availability: Option<&Availability>) -> Option<&str> {
    availability.map(|word| match word {
        Availability::Yes => "yes",
        Availability::No => "no",
        Availability::Partial => "partial",
        Availability::Other(word) => word,
    })
}

fn allowances(gate: &GateReport<'_>) -> Vec<Value> {
    let written = gate.verdict.allowances.iter().map(|one| {
        let (used, matched) = match one.used {
            Use::Used(count) => ("used", count),
            Use::Expired(count) => ("expired", count),
            Use::Unmatched => ("unmatched", 0),
        };
        json!({
            "name": one.name,
            "reason": one.allowance.reason,
            "until": one.allowance.until.to_string(),
            "packages": one.allowance.packages,
            "used": used,
            "matched": matched,
        })
    });
    written.collect()
}
