//! Text from a record, made fit to be shown.

use jiff::{SignedDuration, Timestamp};
use std::borrow::Cow;

/// Escapes text for HTML and SVG, in an element or in a quoted attribute. Control characters other than line breaks
/// and tabs are not allowed there (WHATWG HTML, 13.1.4) and become U+FFFD.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' | '\t' => html.push(character),
            _ if character.is_control() => html.push('\u{fffd}'),
            _ => html.push(character),
        }
    }
    html
}

/// How many hexadecimal digits of a commit or digest are shown.
const SHOWN: usize = 12;
/// Runs of so many hexadecimal digits are commits (SHA-1 has 40) and digests.
const LONG: usize = 32;

/// Shortens every commit and digest in a text to its first twelve digits.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    let hexadecimal = |character: char| character.is_ascii_hexdigit();
    let mut short = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(hexadecimal) {
        let (before, from) = rest.split_at(start);
        let (run, after) = from.split_at(from.find(|c| !hexadecimal(c)).unwrap_or(from.len()));
        short.push_str(before);
        if run.len() >= LONG {
            short.push_str(&run[..SHOWN]);
            short.push('…');
        } else {
            short.push_str(run);
        }
        rest = after;
    }
    short.push_str(rest);
    match short == text {
        true => Cow::Borrowed(text),
        false => Cow::Owned(short),
    }
}

/// The time between two moments, where both are known. Never negative: clocks may be set back.
pub(super) fn between(start: Option<Timestamp>, end: Option<Timestamp>) -> Option<SignedDuration> {
    let took = end?.duration_since(start?);
    Some(took.max(SignedDuration::ZERO))
}

/// A duration in the unit that suits it: `340 ms`, `1.24 s`, `2 m 05 s`, `3 h 07 m`.
pub(super) fn duration(duration: SignedDuration) -> String {
    let milliseconds = duration.as_millis().max(0);
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds}.{:02} s", milliseconds % 1000 / 10),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3600, seconds % 3600 / 60),
    }
}
