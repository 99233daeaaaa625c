//! When each step went on, drawn to scale.

use super::text::{between, duration, escaped};
use super::{class, diagram, tooltip};
use crate::{RunRecord, StepRecord};
use jiff::SignedDuration;

const WIDTH: f64 = 1200.0;
/// Where the bars begin and end; on the left stand the titles, on the right the durations.
const BARS: (f64, f64) = (250.0, 1090.0);
const TOP: f64 = 36.0;
const ROW: f64 = 32.0;
/// No bar is thinner, or it could not be seen.
const THINNEST: f64 = 4.0;

/// The drawing: a row for each step, a bar from its start to its end. The bar of a step that goes on still ends where
/// the record does.
pub(super) fn timeline(record: &RunRecord) -> String {
    let Some(whole) = between(record.started, record.finished) else {
        return "<p class=\"none\">Nothing has happened yet.</p>\n".to_owned();
    };
    let height = record.steps.iter().fold(TOP + 14.0, |height, _| height + ROW);
    let mut svg = format!(
        "<svg class=\"timeline\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"timeline-title\">\n\
         <title id=\"timeline-title\">When each step went on; the same times stand in the table below</title>\n"
    );
    for tick in ticks(whole) {
        svg.push_str(&format!(
            "<path class=\"tick\" d=\"M{x:.1} {TOP} V{bottom}\"/><text class=\"tick\" x=\"{x:.1}\" y=\"22\">{label}</text>\n",
            x = place(tick, whole),
            bottom = height - 8.0,
            label = label(tick),
        ));
    }
    let mut y = TOP;
    for step in &record.steps {
        svg.push_str(&row(step, record, whole, y));
        y += ROW;
    }
    svg.push_str("</svg>\n");
    svg
}

fn row(step: &StepRecord, record: &RunRecord, whole: SignedDuration, top: f64) -> String {
    let mut svg = format!(
        "<g class=\"row {class}\"><title>{title}</title><g transform=\"translate(24 {middle}) scale(.8)\">{chip}</g>\
         <text class=\"name\" x=\"48\" y=\"{baseline}\">{name}</text>",
        class = class(step.state),
        title = escaped(&tooltip(step)),
        middle = top + ROW / 2.0,
        chip = diagram::chip(step.step.number(), step.state, 0, 0),
        baseline = top + ROW / 2.0 + 5.0,
        name = step.step.title(),
    );
    let ended = step.finished.filter(|_| is_over(step)).or(record.finished);
    if let (Some(from), Some(to)) = (
        between(record.started, step.started),
        between(record.started, ended),
    ) {
        let left = place(from, whole).min(BARS.1 - THINNEST);
        let width = (place(to, whole) - left).max(THINNEST);
        let more = if is_over(step) { "" } else { " so far" };
        svg.push_str(&format!(
            "<rect class=\"bar\" x=\"{left:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{h}\" rx=\"3\"/>\
             <text class=\"took\" x=\"{x:.1}\" y=\"{baseline}\">{took}{more}</text>",
            y = top + 8.0,
            h = ROW - 16.0,
            x = left + width + 8.0,
            baseline = top + ROW / 2.0 + 4.5,
            took = duration(to.saturating_sub(from).max(SignedDuration::ZERO)),
        ));
    }
    svg.push_str("</g>\n");
    svg
}

fn is_over(step: &StepRecord) -> bool {
    use crate::StepState::{Done, Failed};
    matches!(step.state, Done | Failed)
}

fn place(at: SignedDuration, whole: SignedDuration) -> f64 {
    let share = match whole.as_secs_f64() {
        0.0 => 0.0,
        whole => (at.as_secs_f64() / whole).clamp(0.0, 1.0),
    };
    BARS.0 + share * (BARS.1 - BARS.0)
}

/// Between three and nine round moments, from nought on.
fn ticks(whole: SignedDuration) -> impl Iterator<Item = SignedDuration> {
    const ROUND: [i64; 30] = [
        1,
        2,
        5,
        10,
        20,
        50,
        100,
        200,
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        15_000,
        30_000,
        60_000,
        120_000,
        300_000,
        600_000,
        900_000,
        1_800_000,
        3_600_000,
        7_200_000,
        14_400_000,
        21_600_000,
        43_200_000,
        86_400_000,
        172_800_000,
        604_800_000,
        2_592_000_000,
    ];
    let whole = i64::try_from(whole.as_millis()).unwrap_or(i64::MAX);
    // Beyond the largest, eight even parts need not be round.
    let every = ROUND
        .into_iter()
        .find(|every| whole / every < 9)
        .unwrap_or(whole / 8);
    (0..9)
        .map(move |count| every.saturating_mul(count))
        .take_while(move |at| *at <= whole)
        .map(SignedDuration::from_millis)
}

/// A tick's moment, without the digits that are always nought.
fn label(at: SignedDuration) -> String {
    match at.as_millis() {
        0 => "0".to_owned(),
        milliseconds @ 1..1000 => format!("{milliseconds} ms"),
        milliseconds @ 1000..60_000 => format!("{} s", milliseconds as f64 / 1000.0),
        _ => duration(at),
    }
}
