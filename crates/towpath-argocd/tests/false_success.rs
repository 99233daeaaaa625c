//! No schedule of races and faults fools the wait: it says live only while the expected image really runs, calls nothing
//! failed that comes to be, and does not run into its deadline where the answer is there.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says on which schedule"
)]

mod simulation;

use simulation::rules::{RULES, Rule, Score, run};
use simulation::schedule::Schedule;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, otherwise| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    };
    let first = number("TOWPATH_FIRST_SEED", 0);
    first..first + number("TOWPATH_SEEDS", 300)
}

fn on(rule: Rule, schedule: &Schedule) -> (Score, simulation::rules::Said, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run(rule, schedule))
}

#[test]
fn no_schedule_fools_the_wait() {
    let mut wrong = 0;
    for seed in seeds() {
        let schedule = Schedule::draw(seed);
        let (score, said, looks) = on(Rule::Towpath, &schedule);
        if score != Score::Right {
            println!(
                "{score:?} on {schedule:#?}\nfate {:?}, said {said:?} after {looks} requests",
                schedule.fate()
            );
            wrong += 1;
        }
    }
    assert_eq!(wrong, 0, "schedules on which the wait was wrong");
}

/// The simulation is no walk-over: every other rule is fooled by it.
#[test]
fn the_same_schedules_fool_the_other_rules() {
    for rule in RULES.into_iter().filter(|rule| *rule != Rule::Towpath) {
        let fooled = seeds().any(|seed| on(rule, &Schedule::draw(seed)).0 == Score::FalseSuccess);
        assert!(fooled, "{rule:?}");
    }
}
