#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use super::{PageFacts, page, page_with, table};
use crate::{RunRecord, StepState};
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

const STATES: [StepState; 5] = [
    StepState::Pending,
    StepState::Running,
    StepState::Waiting,
    StepState::Done,
    StepState::Failed,
];

/// A record with every field filled in from one text, and every state in turn.
fn filled(text: &str, wall: i64) -> RunRecord {
    let mut record = RunRecord::new(text);
    let begun = Timestamp::UNIX_EPOCH;
    record.started = Some(begun);
    record.finished = Some(begun + wall.milliseconds());
    for (index, step) in record.steps.iter_mut().enumerate() {
        step.state = STATES[index % STATES.len()];
        step.evidence.insert("digest".into(), text.into());
        step.evidence.insert(format!("name {text}"), "value".into());
        step.started = record.started;
        step.finished = record.finished;
        step.actions.push(text.into());
        step.failure = Some(text.into());
    }
    record
}

fn facts(text: &str) -> PageFacts {
    PageFacts {
        title: Some(text.into()),
        notes: vec![(text.into(), text.into())],
        next_move: Some(text.into()),
    }
}

fn markup(html: &str) -> Vec<char> {
    html.chars()
        .filter(|c| matches!(c, '<' | '>' | '"' | '\''))
        .collect()
}

proptest! {
    /// Whatever stands in a record, the page has the same markup, and the table keeps its width and steers no terminal.
    #[test]
    fn text_stays_text(text in any::<String>(), wall in 0_i64..200_000_000) {
        prop_assert_eq!(
            markup(&page_with(&filled(&text, 5), &facts(&text))),
            markup(&page_with(&filled("plain", 5), &facts("plain")))
        );
        page(&filled(&text, wall));
        let table = table(&filled(&text, wall));
        for line in table.lines() {
            prop_assert!(line.chars().count() <= 120, "{} columns: {line:?}", line.chars().count());
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}

#[test]
fn markup_in_evidence_is_shown_not_obeyed() {
    let html = page(&filled("<script>alert('1 & 2')</script>\"\u{1b}[2J", 5));
    assert!(!html.contains("<script"));
    assert!(!html.contains('\u{1b}'));
    assert!(html.contains("&lt;script&gt;alert(&#39;1 &amp; 2&#39;)&lt;/script&gt;&quot;\u{fffd}[2J"));
}

#[test]
fn a_page_needs_nothing_but_itself() {
    let html = page_with(&filled("x", 5), &facts("x"));
    for outside in ["http:", "https:", "src=", "<link", "<script", "@import", "url(//"] {
        assert!(!html.contains(outside), "{outside}");
    }
    for inside in [
        "lang=\"en\"",
        "role=\"img\"",
        "prefers-color-scheme: dark",
        "<h1>",
        "<caption>",
    ] {
        assert!(html.contains(inside), "{inside}");
    }
}

#[test]
fn each_element_and_each_step_is_drawn() {
    let html = page(&RunRecord::new("r"));
    for letter in [
        "A", "B", "C", "D1", "D2", "D3", "E1", "E2", "F", "G", "H", "I", "J", "K",
    ] {
        assert!(html.contains(&format!(">{letter}</text>")), "{letter}");
    }
    let drawing = &html[html.find("class=\"diagram\"").unwrap()..html.find("<h2 id=\"time\"").unwrap()];
    for step in 1..=13 {
        assert!(drawing.contains(&format!(">{step}</text>")), "step {step}");
    }
    assert!(html.contains("not begun"));
}

#[test]
fn the_summary_names_what_matters_most() {
    let said = |states: &[(usize, StepState)]| {
        let mut record = filled("x", 1240);
        for step in &mut record.steps {
            step.state = StepState::Done;
        }
        for (index, state) in states {
            record.steps[*index].state = *state;
        }
        super::outcome(&record).1
    };
    assert_eq!(said(&[]), "complete");
    assert_eq!(
        said(&[(4, StepState::Failed), (5, StepState::Running)]),
        "failed at step 5 (build stored)"
    );
    assert_eq!(
        said(&[(10, StepState::Waiting)]),
        "waiting for a human at step 11 (plan confirmed)"
    );
    assert!(page(&filled("x", 1240)).contains("<dd>1.24 s</dd>"));
}

#[test]
fn a_record_that_lacks_steps_is_shown_as_it_is() {
    let mut record = RunRecord::new("r");
    record.steps.clear();
    assert!(page(&record).contains("not begun"));
    assert_eq!(table(&record).lines().count(), 2);
}

#[test]
fn the_table_shows_digests_short_and_failures_in_full() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let mut record = RunRecord::new("r");
    let step = &mut record.steps[4];
    step.state = StepState::Failed;
    step.evidence
        .insert("digest".into(), format!("shop/web@{digest}"));
    step.failure = Some(format!("the tag names another image{}", ", really".repeat(12)));
    step.started = Some(Timestamp::UNIX_EPOCH);
    step.finished = Some(Timestamp::UNIX_EPOCH + 125.seconds());
    let table = table(&record);
    assert!(table.contains("digest: shop/web@sha256:0123456789ab…"), "{table}");
    assert!(table.contains("failed: the tag names"), "{table}");
    assert!(table.contains("2 m 05 s"), "{table}");
    assert_eq!(table.matches("really").count(), 12, "{table}");
}

#[test]
fn durations_take_the_unit_that_suits_them() {
    let said = |milliseconds| super::duration(jiff::SignedDuration::from_millis(milliseconds));
    let table = [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_009, "1.00 s"),
        (59_999, "59.99 s"),
        (125_000, "2 m 05 s"),
        (11_220_000, "3 h 07 m"),
        (-5, "0 ms"),
    ];
    for (milliseconds, expected) in table {
        assert_eq!(said(milliseconds), expected);
    }
}
