//! The table for a terminal.

use super::{GateReport, at_most, found, plain, time, used};

/// The widest that a column gets, in characters; the last one is as wide as it is.
const WIDEST: usize = 48;

pub(super) fn write(gate: &GateReport<'_>) -> String {
    let mut text = format!("Scan of {}: {}\n", gate.report.image, gate.headline());
    for reason in &gate.verdict.reasons {
        text.push_str(&format!("  {}\n", plain(reason)));
    }
    let platforms = gate.report.platforms.iter().map(|scan| {
        let scanner = scan.scanner.as_ref().map(ToString::to_string);
        let completed = scan.completed.map(time);
        [
            scan.name(),
            scanner.unwrap_or_else(|| "-".into()),
            completed.unwrap_or_else(|| "-".into()),
            found(scan),
            scan.standing(),
        ]
    });
    text.push('\n');
    let titles = ["PLATFORM", "SCANNER", "COMPLETED", "FOUND", "STATUS"];
    align(&mut text, titles, platforms);
    if !gate.rows.is_empty() {
        let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        let rows = gate.merged().into_iter().map(|(row, platforms)| {
            [
                row.finding.severity.to_string(),
                row.finding.name.clone(),
                or_dash(&row.finding.package),
                or_dash(&row.finding.version),
                or_dash(&row.finding.fixed_in),
                platforms.join(", "),
                row.fate.to_string(),
            ]
        });
        text.push('\n');
        let titles = [
            "SEVERITY",
            "FINDING",
            "PACKAGE",
            "VERSION",
            "FIXED IN",
            "PLATFORMS",
            "VERDICT",
        ];
        align(&mut text, titles, rows);
    }
    if !gate.verdict.allowances.is_empty() {
        let rows = gate.verdict.allowances.iter().map(|one| {
            [
                one.name.clone(),
                time(one.allowance.until),
                used(one.used),
                one.allowance.reason.clone(),
            ]
        });
        text.push('\n');
        align(&mut text, ["ALLOWANCE", "UNTIL", "USE", "REASON"], rows);
    }
    text
}

/// Writes rows below their titles, each column as wide as its widest cell.
fn align<const N: usize>(text: &mut String, titles: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    let mut lines: Vec<[String; N]> = vec![titles.map(str::to_owned)];
    lines.extend(rows.map(|row| {
        let mut column = 0;
        row.map(|cell| {
            column += 1;
            let cell = plain(&cell);
            if column < N { at_most(&cell, WIDEST) } else { cell }
        })
    }));
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for line in &lines {
        let padded: Vec<String> = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
}
