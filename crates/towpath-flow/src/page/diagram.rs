//! The reference architecture as an SVG, lit by a record.

use super::text::escaped;
use super::{class, tooltip, word};
use crate::{RunRecord, Step, StepRecord, StepState};

/// An element's box: its letter, where it stands, how wide it is, its name and what it is, and the steps that happen
/// at it. An arrow that only leaves an element says nothing about it.
struct Element {
    letter: &'static str,
    at: (i32, i32, i32),
    name: &'static str,
    what: &'static str,
    steps: &'static [Step],
}

const HEIGHT: i32 = 58;

#[rustfmt::skip]
const ELEMENTS: [Element; 15] = [
    Element { letter: "A", at: (40, 570, 160), name: "Pull request", what: "reviewed", steps: &[Step::Push] },
    Element { letter: "B", at: (40, 375, 160), name: "Repository", what: "git", steps: &[Step::Push, Step::ReportBuild] },
    Element { letter: "C", at: (40, 150, 160), name: "CI pipeline", what: "GitHub Actions", steps: &[Step::TriggerCi] },
    Element { letter: "D3", at: (520, 60, 180), name: "CodeArtifact", what: "packages", steps: &[Step::FetchDependencies, Step::StoreBuild] },
    Element { letter: "D2", at: (520, 150, 180), name: "ECR cache", what: "pull-through", steps: &[Step::CacheImages] },
    Element { letter: "D1", at: (520, 240, 180), name: "ECR private", what: "scans every image", steps: &[Step::StoreBuild] },
    Element { letter: "E1", at: (960, 62, 200), name: "Public gallery", what: "of ECR, upstream", steps: &[Step::CacheImages] },
    Element { letter: "E2", at: (960, 172, 200), name: "Quay.io", what: "upstream", steps: &[Step::CacheImages] },
    Element { letter: "F", at: (520, 375, 180), name: "Argo CD", what: "watches B", steps: &[Step::TriggerDelivery] },
    Element { letter: "", at: (960, 375, 200), name: "EKS", what: "runs the images", steps: &[Step::Deliver] },
    Element { letter: "G", at: (322, 555, 136), name: "Spacelift", what: "stacks", steps: &[Step::TriggerInfrastructure] },
    Element { letter: "H", at: (528, 555, 136), name: "Plan", what: "what changes", steps: &[Step::Plan] },
    Element { letter: "I", at: (734, 555, 136), name: "Confirm", what: "by a human", steps: &[Step::Confirm] },
    Element { letter: "J", at: (970, 515, 190), name: "Shared Services", what: "Spacelift worker", steps: &[Step::ApplySharedServices] },
    Element { letter: "K", at: (970, 600, 190), name: "Apps", what: "Spacelift worker", steps: &[Step::ApplyApps] },
];

/// A group: its name, and where it stands (x, y, width, height).
const GROUPS: [(&str, [i32; 4]); 6] = [
    ("GitHub Enterprise", [20, 20, 200, 660]),
    ("AWS registries", [500, 20, 220, 296]),
    ("Public registries", [940, 20, 240, 226]),
    ("Delivery", [500, 338, 680, 112]),
    ("Spacelift", [302, 480, 588, 200]),
    ("AWS accounts", [940, 480, 240, 200]),
];

/// An arrow: its step, its line, and where its number stands. A step that has several parts has several arrows.
struct Arrow {
    step: Step,
    line: &'static str,
    number: Option<(i32, i32)>,
}

#[rustfmt::skip]
const ARROWS: [Arrow; 17] = [
    Arrow { step: Step::Push, line: "M120 570 V442", number: Some((120, 502)) },
    Arrow { step: Step::TriggerCi, line: "M82 375 V217", number: Some((82, 292)) },
    Arrow { step: Step::ReportBuild, line: "M158 208 V366", number: Some((158, 292)) },
    Arrow { step: Step::CacheImages, line: "M960 91 C890 91 890 179 830 179", number: None },
    Arrow { step: Step::CacheImages, line: "M960 201 C890 201 890 179 830 179 H709", number: Some((790, 179)) },
    Arrow { step: Step::CacheImages, line: "M520 179 H209", number: Some((360, 179)) },
    Arrow { step: Step::FetchDependencies, line: "M520 76 H140 Q120 76 120 96 V141", number: Some((360, 76)) },
    Arrow { step: Step::StoreBuild, line: "M200 163 C320 160 400 107 511 103", number: Some((359, 133)) },
    Arrow { step: Step::StoreBuild, line: "M200 195 C320 198 400 265 511 269", number: Some((359, 232)) },
    Arrow { step: Step::TriggerDelivery, line: "M200 392 H511", number: Some((360, 392)) },
    Arrow { step: Step::Deliver, line: "M700 404 H951", number: Some((830, 404)) },
    Arrow { step: Step::Deliver, line: "M700 269 H1040 Q1060 269 1060 289 V366", number: Some((890, 269)) },
    Arrow { step: Step::TriggerInfrastructure, line: "M200 416 H370 Q390 416 390 436 V546", number: Some((390, 462)) },
    Arrow { step: Step::Plan, line: "M458 584 H519", number: Some((486, 584)) },
    Arrow { step: Step::Confirm, line: "M664 584 H725", number: Some((692, 584)) },
    Arrow { step: Step::ApplySharedServices, line: "M870 572 C915 572 905 544 961 544", number: Some((912, 557)) },
    Arrow { step: Step::ApplyApps, line: "M870 596 C915 596 905 629 961 629", number: Some((912, 613)) },
];

/// The five states in the order of the legend.
const STATES: [StepState; 5] = [
    StepState::Done,
    StepState::Running,
    StepState::Waiting,
    StepState::Failed,
    StepState::Pending,
];

/// The drawing.
pub(super) fn diagram(record: &RunRecord) -> String {
    let mut svg = format!(
        "<svg class=\"diagram\" viewBox=\"0 0 1200 700\" role=\"img\" aria-labelledby=\"diagram-title diagram-text\">\n\
         <title id=\"diagram-title\">The reference architecture, elements A to K and steps 1 to 13</title>\n\
         <desc id=\"diagram-text\">{}</desc>\n<defs>",
        described(record)
    );
    for state in STATES {
        let name = class(state);
        svg.push_str(&format!(
            "<marker id=\"head-{name}\" class=\"{name}\" viewBox=\"0 0 10 10\" refX=\"2\" refY=\"5\" markerWidth=\"11\" \
             markerHeight=\"11\" markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"head\" \
             d=\"M0 0 L10 5 L0 10 z\"/></marker>"
        ));
    }
    svg.push_str("</defs>\n");
    for (name, [x, y, width, height]) in GROUPS {
        svg.push_str(&format!(
            "<g class=\"group\"><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"14\"/>\
             <text x=\"{}\" y=\"{}\">{name}</text></g>\n",
            x + 18,
            y + 25
        ));
    }
    // What has happened is drawn over what has not.
    let mut arrows: Vec<_> = ARROWS
        .iter()
        .filter_map(|arrow| Some((arrow, find(record, arrow.step)?)))
        .collect();
    arrows.sort_by_key(|(_, step)| step.state != StepState::Pending);
    for (arrow, step) in &arrows {
        svg.push_str(&draw_line(arrow, step));
    }
    for (arrow, step) in &arrows {
        if let Some((x, y)) = arrow.number {
            svg.push_str(&format!(
                "<g class=\"number\"><title>{}</title>{}</g>\n",
                escaped(&tooltip(step)),
                chip(arrow.step.number(), step.state, x, y)
            ));
        }
    }
    for element in &ELEMENTS {
        svg.push_str(&draw_box(element, record));
    }
    svg.push_str("</svg>\n");
    svg
}

/// The legend: each state's line, number and word.
pub(super) fn legend() -> String {
    let items: String = STATES
        .into_iter()
        .map(|state| {
            let name = class(state);
            format!(
                "<li><svg viewBox=\"0 0 64 32\" aria-hidden=\"true\"><path class=\"arrow {name}\" d=\"M2 16 H62\"/>\
                 {}</svg>{}</li>",
                chip_with("n", state, 32, 16),
                word(state)
            )
        })
        .collect();
    format!("<ul class=\"legend\" aria-label=\"Legend\">{items}</ul>\n")
}

/// A step's number in the shape of its state: a disc when done, a diamond when failed, a square when waiting, a ring
/// when running, a dotted ring when not begun.
pub(super) fn chip(number: u8, state: StepState, x: i32, y: i32) -> String {
    chip_with(&number.to_string(), state, x, y)
}

fn chip_with(label: &str, state: StepState, x: i32, y: i32) -> String {
    let shape = match state {
        StepState::Failed => "<path d=\"M0 -17 L17 0 L0 17 L-17 0 z\"/>",
        StepState::Waiting => "<rect x=\"-13\" y=\"-13\" width=\"26\" height=\"26\" rx=\"3\"/>",
        _ => "<circle r=\"13\"/>",
    };
    format!(
        "<g class=\"step {}\" transform=\"translate({x} {y})\">{shape}<text y=\"4.5\">{label}</text></g>",
        class(state)
    )
}

/// A state's sign alone, for the summary.
pub(super) fn glyph_svg(state: StepState) -> String {
    format!(
        "<svg class=\"sign {}\" viewBox=\"-9 -9 18 18\" aria-hidden=\"true\">{}</svg>",
        class(state),
        glyph(state)
    )
}

fn glyph(state: StepState) -> &'static str {
    match state {
        StepState::Done => "<path class=\"glyph\" d=\"M-5 0.5 L-1.5 4 L5 -4\"/>",
        StepState::Failed => "<path class=\"glyph\" d=\"M-4 -4 L4 4 M4 -4 L-4 4\"/>",
        StepState::Waiting => "<path class=\"glyph\" d=\"M-2.5 -4.5 V4.5 M2.5 -4.5 V4.5\"/>",
        StepState::Running => "<path class=\"glyph\" d=\"M-3 -4.5 L4.5 0 L-3 4.5 z\"/>",
        StepState::Pending => "<path class=\"glyph\" d=\"M-4 0 H4\"/>",
    }
}

fn find(record: &RunRecord, step: Step) -> Option<&StepRecord> {
    record.steps.iter().find(|known| known.step == step)
}

fn described(record: &RunRecord) -> String {
    let steps: Vec<String> = record
        .steps
        .iter()
        .map(|step| format!("{}: {}", step.step, word(step.state)))
        .collect();
    format!("{}.", steps.join("; "))
}

fn draw_line(arrow: &Arrow, step: &StepRecord) -> String {
    // The two upstreams share one line into the cache: the first of them ends where they meet.
    let head = match arrow.number {
        Some(_) => format!(" marker-end=\"url(#head-{})\"", class(step.state)),
        None => String::new(),
    };
    format!(
        "<path class=\"arrow {}\" d=\"{}\"{head}><title>{}</title></path>\n",
        class(step.state),
        arrow.line,
        escaped(&tooltip(step))
    )
}

fn draw_box(element: &Element, record: &RunRecord) -> String {
    let steps: Vec<&StepRecord> = element
        .steps
        .iter()
        .filter_map(|step| find(record, *step))
        .collect();
    let state = steps
        .iter()
        .map(|step| step.state)
        .max_by_key(|state| weight(*state));
    let state = state.unwrap_or(StepState::Pending);
    let tooltips: Vec<String> = steps.into_iter().map(tooltip).collect();
    let (x, y, width) = element.at;
    let letter = match element.letter {
        "" => String::new(),
        letter => format!("<text class=\"letter\" x=\"14\" y=\"35\">{letter}</text>"),
    };
    let indent = match element.letter.len() {
        0 => 16,
        1 => 40,
        _ => 52,
    };
    format!(
        "<g class=\"element {class}\" transform=\"translate({x} {y})\"><title>{title}</title>\
         <rect width=\"{width}\" height=\"{HEIGHT}\" rx=\"9\"/>{letter}\
         <text class=\"name\" x=\"{indent}\" y=\"25\">{name}</text><text class=\"what\" x=\"{indent}\" y=\"43\">{what}</text>\
         <g class=\"mark\" transform=\"translate({mark} 0)\"><circle r=\"9.5\"/>{glyph}</g></g>\n",
        class = class(state),
        title = escaped(&tooltips.join("\n\n")),
        name = element.name,
        what = element.what,
        mark = width - 6,
        glyph = glyph(state),
    )
}

/// Which state an element shows where its steps differ.
fn weight(state: StepState) -> u8 {
    match state {
        StepState::Pending => 0,
        StepState::Done => 1,
        StepState::Running => 2,
        StepState::Waiting => 3,
        StepState::Failed => 4,
    }
}
