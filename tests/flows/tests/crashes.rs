//! Whatever goes wrong and wherever the process dies, a run that is begun again comes to the same end, and nothing is done
//! twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;
use towpath_elements::ErrorKind;
use towpath_flow::{Flow, FlowError, MemoryJournal, Runner, Stop};
use towpath_tests_flows::{Company, Crash, CrashingJournal, Inputs, Says, at_rest, effects};

/// More attempts than any run here needs.
const ATTEMPTS: usize = 200;

/// Begins a run again until it comes to its end.
async fn finish<F: Flow>(runner: &Runner, run: &str, flow: &F, expected: impl Fn(&FlowError)) -> F::Outcome {
    for _ in 0..ATTEMPTS {
        match runner.run(run, flow).await {
            Ok(outcome) => return outcome,
            Err(error) => expected(&error),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{run} does not come to its end")
}

/// All four flows of one change.
async fn everything(
    company: &Company,
    inputs: &Inputs,
    runner: &Runner,
    expected: impl Fn(&FlowError) + Copy,
) {
    finish(runner, "library", &company.ci_library(&inputs.library), expected).await;
    let built = finish(runner, "docker", &company.ci_docker(&inputs.service), expected).await;
    finish(runner, "cd", &company.cd(&built), expected).await;
    let flow = company.spacelift(&inputs.infrastructure);
    finish(runner, "infra", &flow, expected).await;
}

async fn uncrashed() -> (String, BTreeMap<String, usize>) {
    let company = Company::new();
    let inputs = company.change();
    let runner = Runner::new(company.elements()).with_approver(Says(true));
    everything(&company, &inputs, &runner, |error| panic!("{error}")).await;
    (at_rest(&company).await, effects(&company))
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_entry_of_the_journal_changes_nothing_in_the_end() {
    let (expected, once) = uncrashed().await;
    assert_eq!(once["Source.commit"], 1);
    assert_eq!(once["Artifacts.publish"], 1);
    assert_eq!(once["Registry.assemble"], 1);
    assert_eq!(once["Infrastructure.confirm"], 3);
    for crash in [Crash::Before, Crash::After] {
        for at in 0.. {
            let company = Company::new();
            let inputs = company.change();
            let journal = CrashingJournal::at(at, crash);
            let runner = Runner::new(company.elements())
                .with_approver(Says(true))
                .with_journal(journal.clone());
            let died = |error: &FlowError| assert!(matches!(error.stop, Stop::Journal(_)), "{error}");
            everything(&company, &inputs, &runner, died).await;
            if !journal.has_crashed() {
                assert!(at > 40, "there are more entries than {at}");
                break;
            }
            assert_eq!(effects(&company), once, "crashed {crash:?} entry {at}");
            assert_eq!(at_rest(&company).await, expected, "crashed {crash:?} entry {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn seeded_faults_change_nothing_in_the_end() {
    let (expected, once) = uncrashed().await;
    for seed in 0..300 {
        let company = Company::new();
        let inputs = company.change();
        let runner = Runner::new(company.elements())
            .with_approver(Says(true))
            .with_journal(MemoryJournal::new());
        company.world.jitter(seed);
        company.world.chaos(seed, 0.2);
        let passing = |error: &FlowError| match &error.stop {
            Stop::Failed { failure, .. }
                if matches!(failure.kind, ErrorKind::Unavailable | ErrorKind::RateLimited) => {}
            _ => panic!("seed {seed}: {error}"),
        };
        everything(&company, &inputs, &runner, passing).await;
        company.world.chaos(seed, 0.0);
        assert_eq!(effects(&company), once, "seed {seed}");
        assert_eq!(at_rest(&company).await, expected, "seed {seed}");
    }
}
