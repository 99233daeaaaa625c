//! The run record as a table for a terminal.

use super::text::{between, duration, shortened};
use super::word;
use crate::{RunRecord, StepRecord, StepState};

/// The columns' widths in characters. With two spaces between them they fill 120 columns.
const STEP: usize = 4;
const WHAT: usize = 26;
const EVIDENCE: usize = 74;
const TIME: usize = 10;

/// Renders a run record as a table of plain text, 120 columns wide at most: step number, what happened, evidence,
/// time. Commits and digests are shortened to twelve digits, long texts wrapped, control characters replaced, so that
/// nothing in a record can steer a terminal. Every line ends in a line break.
///
/// ```
/// use towpath_flow::{RunRecord, table};
/// let text = table(&RunRecord::new("demo"));
/// assert!(text.starts_with("step  what happened"));
/// assert!(text.lines().all(|line| line.chars().count() <= 120));
/// ```
pub fn table(record: &RunRecord) -> String {
    let mut lines = Vec::new();
    lines.extend(side_by_side(
        "step",
        "what happened",
        &["evidence".to_owned()],
        "time",
    ));
    lines.push(
        [
            "─".repeat(STEP),
            "─".repeat(WHAT),
            "─".repeat(EVIDENCE),
            "─".repeat(TIME),
        ]
        .join("  "),
    );
    for step in &record.steps {
        lines.extend(row(step));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn row(step: &StepRecord) -> Vec<String> {
    let mut evidence: Vec<String> = step
        .evidence
        .iter()
        .map(|(name, value)| format!("{name}: {}", shortened(value)))
        .collect();
    match (step.state, &step.failure) {
        (StepState::Done, _) => {}
        (state, Some(why)) => evidence.push(format!("{}: {}", word(state), shortened(why))),
        (state, None) => evidence.push(word(state).to_owned()),
    }
    let took = between(step.started, step.finished).map_or_else(|| "–".to_owned(), duration);
    side_by_side(
        &step.step.number().to_string(),
        step.step.title(),
        &evidence,
        &took,
    )
}

fn side_by_side(step: &str, what: &str, evidence: &[String], time: &str) -> Vec<String> {
    let what = wrapped(what, WHAT);
    let evidence: Vec<String> = evidence.iter().flat_map(|fact| wrapped(fact, EVIDENCE)).collect();
    let cell = |lines: &[String], line: usize| lines.get(line).cloned().unwrap_or_default();
    (0..what.len().max(evidence.len()).max(1))
        .map(|line| {
            let (step, time) = if line == 0 { (step, time) } else { ("", "") };
            let (what, evidence) = (cell(&what, line), cell(&evidence, line));
            format!("{step:>STEP$}  {what:<WHAT$}  {evidence:<EVIDENCE$}  {time:>TIME$}")
                .trim_end()
                .to_owned()
        })
        .collect()
}

/// Breaks a text into lines of a width, between words where that is possible. Lines after the first are indented.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    let text: String = text
        .chars()
        .map(|character| match character {
            '\n' | '\t' => ' ',
            _ if character.is_control() => '\u{fffd}',
            _ => character,
        })
        .collect();
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let mut used = line.chars().count();
        let blank = usize::from(!line.trim().is_empty());
        if blank == 1 && used + 1 + word.len() > width {
            lines.push(std::mem::replace(&mut line, INDENT.to_owned()));
            used = INDENT.len();
        } else if blank == 1 {
            line.push(' ');
            used += 1;
        }
        while used + word.len() > width {
            let rest = word.split_off(width - used);
            line.extend(word);
            lines.push(std::mem::replace(&mut line, INDENT.to_owned()));
            used = INDENT.len();
            word = rest;
        }
        line.extend(word);
    }
    if !line.trim().is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}
