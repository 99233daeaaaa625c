//! Medians, and tables that can stand in a Markdown file as they are.

use std::time::Duration;

/// The middle one of some measurements; of an even number, the lower of the two.
pub(crate) fn median<T: Copy + Ord + Default>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or_default()
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

pub(crate) fn mebibytes(kibibytes: u64) -> String {
    format!("{}.{} MiB", kibibytes / 1024, kibibytes % 1024 * 10 / 1024)
}

/// How many times the one is the other.
pub(crate) fn ratio(one: Duration, other: Duration) -> String {
    format!("{:.3}", one.as_secs_f64() / other.as_secs_f64())
}

#[expect(clippy::print_stdout, reason = "printing is what this program is for")]
pub(crate) fn row<const N: usize>(cells: [&str; N]) {
    println!("| {} |", cells.join(" | "));
}

pub(crate) fn header<const N: usize>(cells: [&str; N]) {
    row(cells);
    row(cells.map(|_| "---"));
}

#[expect(clippy::print_stdout, reason = "printing is what this program is for")]
pub(crate) fn text(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "a program speaks to whoever started it")]
pub(crate) fn complain(line: &str) {
    eprintln!("{line}");
}
