//! The run record as a page to look at, and as a table for a terminal.
//!
//! The page is one file that needs nothing else: the architecture as an inline SVG (W3C SVG 2), a timeline, and a
//! table. It says everything twice, in colour and in shape, follows the reader's light or dark scheme, and runs no
//! script. Whatever comes from the record is escaped.

mod diagram;
mod table;
mod text;
mod timeline;

pub use table::table;

use crate::{RunRecord, StepRecord, StepState};
use text::{duration, escaped, shortened};

/// What a page says besides the record.
///
/// ```
/// use towpath_flow::{PageFacts, RunRecord, page_with};
/// let facts = PageFacts {
///     title: Some("Release 1.4".into()),
///     notes: vec![("branch".into(), "main".into())],
///     ..PageFacts::default()
/// };
/// assert!(page_with(&RunRecord::new("release-1.4"), &facts).contains("<h1>Release 1.4</h1>"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageFacts {
    /// The heading. Without one, the run's name.
    pub title: Option<String>,
    /// Facts about the whole run that no step has: names and values, shown in this order.
    pub notes: Vec<(String, String)>,
    /// What a user can do next, as [`Stop::next_move`](crate::Stop::next_move) says it.
    pub next_move: Option<String>,
}

/// Renders a run record as one self-contained HTML page. The record may be of a run that is still going on.
///
/// ```
/// use towpath_flow::{RunRecord, page};
/// let html = page(&RunRecord::new("<demo>"));
/// assert!(html.starts_with("<!doctype html>"));
/// assert!(html.contains("&lt;demo&gt;") && !html.contains("<demo>"));
/// ```
pub fn page(record: &RunRecord) -> String {
    page_with(record, &PageFacts::default())
}

/// Renders a run record as [`page`] does, and says a few things that no record has.
pub fn page_with(record: &RunRecord, facts: &PageFacts) -> String {
    let heading = facts.title.as_deref().unwrap_or(&record.run);
    format!(
        "<!doctype html>\n\
         <html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}: {outcome}</title>\n<style>\n{style}</style>\n</head>\n<body>\n\
         <header>\n<p class=\"brand\">Towpath run{run}</p>\n<h1>{title}</h1>\n{summary}{notes}</header>\n\
         <main>\n\
         <section aria-labelledby=\"path\">\n<h2 id=\"path\">The path</h2>\n{legend}\
         <div class=\"scroll\" role=\"group\" tabindex=\"0\" aria-label=\"The path, drawn\">{diagram}</div>\n</section>\n\
         <section aria-labelledby=\"time\">\n<h2 id=\"time\">Timeline</h2>\n\
         <div class=\"scroll\" role=\"group\" tabindex=\"0\" aria-label=\"Timeline, drawn\">{timeline}</div>\n</section>\n\
         <section aria-labelledby=\"steps\">\n<h2 id=\"steps\">Steps</h2>\n\
         <div class=\"scroll\" role=\"group\" tabindex=\"0\" aria-label=\"Table of steps\">{steps}</div>\n</section>\n\
         </main>\n</body>\n</html>\n",
        title = escaped(heading),
        outcome = escaped(&outcome(record).1),
        style = include_str!("style.css"),
        run = match facts.title {
            Some(_) => format!(" <code>{}</code>", escaped(&record.run)),
            None => String::new(),
        },
        summary = summary(record, facts),
        notes = notes(facts),
        legend = diagram::legend(),
        diagram = diagram::diagram(record),
        timeline = timeline::timeline(record),
        steps = steps(record),
    )
}

/// How the run as a whole stands, and that in words.
fn outcome(record: &RunRecord) -> (StepState, String) {
    let first = |state| record.steps.iter().find(|step| step.state == state);
    let at = |step: &StepRecord| format!("at {}", step.step);
    if let Some(step) = first(StepState::Failed) {
        (StepState::Failed, format!("failed {}", at(step)))
    } else if let Some(step) = first(StepState::Waiting) {
        (StepState::Waiting, format!("waiting for a human {}", at(step)))
    } else if let Some(step) = first(StepState::Running) {
        (StepState::Running, format!("running {}", at(step)))
    } else if record.is_complete() {
        (StepState::Done, "complete".to_owned())
    } else if record.started.is_none() {
        (StepState::Pending, "not begun".to_owned())
    } else {
        (StepState::Pending, "stopped between steps".to_owned())
    }
}

fn summary(record: &RunRecord, facts: &PageFacts) -> String {
    let (state, words) = outcome(record);
    let done = record
        .steps
        .iter()
        .filter(|step| step.state == StepState::Done)
        .count();
    let requests = record
        .steps
        .iter()
        .fold(0_u64, |sum, step| sum.saturating_add(step.requests));
    let wall = text::between(record.started, record.finished).map_or_else(|| "–".to_owned(), duration);
    let begun = record.started.map_or_else(
        || "–".to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    );
    let mut html = format!(
        "<p class=\"outcome {class}\">{glyph}<span>{words}</span></p>\n<dl class=\"figures\">\n\
         <div><dt>steps done</dt><dd>{done} <small>of {total}</small></dd></div>\n\
         <div><dt>wall time</dt><dd>{wall}</dd></div>\n\
         <div><dt>requests</dt><dd>{requests}</dd></div>\n\
         <div><dt>begun</dt><dd>{begun}</dd></div>\n</dl>\n",
        class = class(state),
        glyph = diagram::glyph_svg(state),
        words = escaped(&words),
        total = record.steps.len(),
    );
    let failed = record.steps.iter().find(|step| step.state == StepState::Failed);
    if let Some(why) = failed.and_then(|step| step.failure.as_deref()) {
        html.push_str(&format!("<p class=\"cause\"><b>Cause.</b> {}</p>\n", value(why)));
    }
    if let Some(next) = &facts.next_move {
        html.push_str(&format!("<p class=\"next\"><b>Next.</b> {}</p>\n", escaped(next)));
    }
    html
}

fn notes(facts: &PageFacts) -> String {
    if facts.notes.is_empty() {
        return String::new();
    }
    let rows: String = facts
        .notes
        .iter()
        .map(|(name, value)| fact(name, value))
        .collect();
    format!("<dl class=\"facts notes\">{rows}</dl>\n")
}

fn steps(record: &RunRecord) -> String {
    let rows: String = record.steps.iter().map(row).collect();
    format!(
        "<table>\n<caption>What happened at each step, and what shows it. \
         Digests are shortened; hold the pointer over one to see all of it.</caption>\n\
         <thead><tr><th scope=\"col\">Step</th><th scope=\"col\">What happened</th><th scope=\"col\">Evidence</th>\
         <th scope=\"col\" class=\"number\">Requests</th><th scope=\"col\" class=\"number\">Time</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table>\n"
    )
}

fn row(step: &StepRecord) -> String {
    let actions: String = step
        .actions
        .iter()
        .map(|action| format!("<li>{}</li>", value(action)))
        .collect();
    let actions = match actions.as_str() {
        "" => actions,
        _ => format!("<ul>{actions}</ul>"),
    };
    let evidence: String = step
        .evidence
        .iter()
        .map(|(name, value)| fact(name, value))
        .collect();
    let evidence = match evidence.as_str() {
        "" => "<span class=\"none\">–</span>".to_owned(),
        _ => format!("<dl class=\"facts\">{evidence}</dl>"),
    };
    let failure = step.failure.as_ref().map_or_else(String::new, |why| {
        format!("<p class=\"cause\">{}</p>", value(why))
    });
    let took = text::between(step.started, step.finished).map_or_else(|| "–".to_owned(), duration);
    format!(
        "<tr class=\"{class}\" id=\"step-{number}\"><th scope=\"row\"><svg class=\"chip\" viewBox=\"-18 -18 36 36\" \
         aria-hidden=\"true\">{chip}</svg></th><td><b>{title}</b> <span class=\"state\">{state}</span>{actions}</td>\
         <td>{evidence}{failure}</td><td class=\"number\">{requests}</td><td class=\"number\">{took}</td></tr>\n",
        class = class(step.state),
        number = step.step.number(),
        chip = diagram::chip(step.step.number(), step.state, 0, 0),
        title = step.step.title(),
        state = word(step.state),
        requests = step.requests,
    )
}

fn fact(name: &str, text: &str) -> String {
    format!("<div><dt>{}</dt><dd>{}</dd></div>", escaped(name), value(text))
}

/// A value with its digests shortened; all of it stands in the tooltip.
fn value(text: &str) -> String {
    format!(
        "<span title=\"{}\">{}</span>",
        escaped(text),
        escaped(&shortened(text))
    )
}

/// What shows a step, for a tooltip.
fn tooltip(step: &StepRecord) -> String {
    let mut lines = vec![format!("{}: {}", step.step, word(step.state))];
    lines.extend(
        step.evidence
            .iter()
            .map(|(name, value)| format!("{name}: {value}")),
    );
    lines.extend(step.failure.iter().map(|why| format!("failure: {why}")));
    lines.join("\n")
}

/// A state as a style sheet class.
fn class(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "pending",
        StepState::Running => "running",
        StepState::Waiting => "waiting",
        StepState::Done => "done",
        StepState::Failed => "failed",
    }
}

/// A state for people.
fn word(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "not begun",
        StepState::Running => "running",
        StepState::Waiting => "waiting for a human",
        StepState::Done => "done",
        StepState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests;
