//! Markdown as GitHub reads it (*GitHub Flavored Markdown*, tables), within what the summary of a step may have
//! (*Workflow commands for GitHub Actions*, "Adding a job summary": 1 MiB).

use super::{GateReport, at_most, found, plain, time, used};
use url::Url;

/// The bytes that a summary may have.
const LARGEST: usize = 1024 * 1024;
/// What the last line may need.
const LAST_LINE: usize = 256;
/// The characters of one cell, before they are written safely.
const CELL: usize = 300;
/// How many reasons, platforms and allowances are written. Together they need far less than half of the bytes: a
/// character needs 6 at most.
const LINES: usize = 50;

pub(super) fn write(gate: &GateReport<'_>) -> String {
    // A reference has no character that ends a code span.
    let mut text = format!("### Scan of `{}`: {}\n", gate.report.image, gate.headline());
    let verdict = gate.verdict;
    if !verdict.reasons.is_empty() {
        text.push('\n');
    }
    for reason in verdict.reasons.iter().take(LINES) {
        text.push_str(&format!("- {}\n", cell(reason)));
    }
    left_out(&mut text, verdict.reasons.len(), "reasons");
    text.push_str("\n| Platform | Scanner | Status | Completed | Found |\n|---|---|---|---|---|\n");
    for scan in gate.report.platforms.iter().take(LINES) {
        let scanner = scan.scanner.as_ref().map(ToString::to_string);
        let completed = scan.completed.map(time);
        let cells = [
            scan.name(),
            scanner.unwrap_or_default(),
            scan.standing(),
            completed.unwrap_or_default(),
            found(scan),
        ];
        row(&mut text, &cells.map(|text| cell(&text)));
    }
    left_out(&mut text, gate.report.platforms.len(), "platforms");
    if !verdict.allowances.is_empty() {
        text.push_str("\n| Allowance | Until | Use | Reason |\n|---|---|---|---|\n");
        for one in verdict.allowances.iter().take(LINES) {
            let until = time(one.allowance.until);
            let cells = [&one.name, &until, &used(one.used), &one.allowance.reason];
            row(&mut text, &cells.map(|text| cell(text)));
        }
        left_out(&mut text, verdict.allowances.len(), "allowances");
    }
    findings(&mut text, gate);
    text
}

fn findings(text: &mut String, gate: &GateReport<'_>) {
    let rows = gate.merged();
    if rows.is_empty() {
        return;
    }
    text.push_str("\n| Severity | Finding | Package | Version | Fixed in | Platforms | Verdict |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for (written, (found, platforms)) in rows.iter().enumerate() {
        let finding = found.finding;
        let or_nothing = |value: &Option<String>| cell(value.as_deref().unwrap_or_default());
        let name = cell(&finding.name);
        let cells = [
            cell(&finding.severity.to_string()),
            match finding.uri.as_deref().and_then(link) {
                Some(link) => format!("[{name}](<{link}>)"),
                None => name,
            },
            or_nothing(&finding.package),
            or_nothing(&finding.version),
            or_nothing(&finding.fixed_in),
            cell(&platforms.join(", ")),
            cell(&found.fate.to_string()),
        ];
        let before = text.len();
        row(text, &cells);
        if text.len() > LARGEST - LAST_LINE {
            text.truncate(before);
            let left = rows.len() - written;
            text.push_str(&format!(
                "\n{left} of {} findings do not fit; the worst are above.\n",
                rows.len()
            ));
            return;
        }
    }
}

fn row(text: &mut String, cells: &[String]) {
    text.push_str("| ");
    text.push_str(&cells.join(" | "));
    text.push_str(" |\n");
}

fn left_out(text: &mut String, count: usize, of_what: &str) {
    if count > LINES {
        text.push_str(&format!("\n{} more {of_what} are left out.\n", count - LINES));
    }
}

/// A text in which nothing has a meaning: no cell ends, no HTML, no link, no mention, no emphasis.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in at_most(&plain(text), CELL).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '@' | '#' | '~' | '!' | '$' => {
                safe.push_str(&format!("&#{};", u32::from(c)));
            }
            other => safe.push(other),
        }
    }
    safe
}

/// A link that can stand in a cell; `None` for what is no link to a page.
fn link(uri: &str) -> Option<String> {
    let url = Url::parse(uri).ok()?;
    let is_page =
        matches!(url.scheme(), "https" | "http") && url.username().is_empty() && url.password().is_none();
    let text = url.to_string();
    let fits = text.len() <= CELL && !text.contains(['<', '>', '\\', '|', '\n']);
    (is_page && fits).then_some(text)
}
