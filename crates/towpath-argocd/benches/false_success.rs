//! How often each rule is fooled, on the same schedules of races and faults: a table, not a time.
//!
//! `cargo bench -p towpath-argocd --bench false_success -- [SCHEDULES] [FIRST SEED]`, 10,000 from seed 0 unless more is said.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and prints what it found"
)]

#[path = "../tests/simulation/mod.rs"]
mod simulation;

use simulation::rules::{RULES, Rule, Score, run};
use simulation::schedule::Schedule;

#[derive(Default)]
struct Tally {
    right: u64,
    false_success: u64,
    false_failure: u64,
    hang: u64,
    requests: u64,
}

fn main() {
    // Cargo passes words of its own.
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    // As a test, which only shows that it works, a few are enough.
    let few = !std::env::args().any(|word| word == "--bench");
    let schedules = numbers.first().copied().unwrap_or(if few { 20 } else { 10_000 });
    let first = numbers.get(1).copied().unwrap_or(0);
    println!("| rule | right | false success | false failure | hang | requests per wait |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for rule in RULES {
        let mut tally = Tally::default();
        for seed in first..first + schedules {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let (score, _, requests) = runtime.block_on(run(rule, &Schedule::draw(seed)));
            *match score {
                Score::Right => &mut tally.right,
                Score::FalseSuccess => &mut tally.false_success,
                Score::FalseFailure => &mut tally.false_failure,
                Score::Hang => &mut tally.hang,
            } += 1;
            tally.requests += requests;
        }
        let name = match rule {
            Rule::Towpath => "Towpath",
            Rule::Cli => "argocd app wait",
            Rule::Kargo => "Kargo's argocd-wait",
            Rule::ImageTag => "image tag",
        };
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            tally.right,
            tally.false_success,
            tally.false_failure,
            tally.hang,
            tally.requests / schedules.max(1),
        );
    }
}
