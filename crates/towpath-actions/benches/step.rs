//! What a step pays for an output, and for a part of its summary.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark fails by panicking; criterion's macros write undocumented functions"
)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::fs::File;
use std::hint::black_box;
use towpath_actions::{Environment, Step};

fn step(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).into_os_string();
    let (output, summary) = (path("output"), path("summary"));
    let step = Step::new(
        Environment::from([
            ("GITHUB_OUTPUT", output.clone()),
            ("GITHUB_STEP_SUMMARY", summary.clone()),
        ]),
        std::io::sink(),
    );
    let digest = format!("sha256:{}", "a".repeat(64));
    let table =
        "| image | digest |\n|---|---|\n".to_owned() + &format!("| shop/web | {digest} |\n").repeat(100);
    // The files begin anew each time: a summary has a limit, and neither should fill the disk.
    c.bench_function("an output record", |b| {
        b.iter_batched(
            || File::create(&output).unwrap(),
            |_| step.output("digest", black_box(&digest)).unwrap(),
            BatchSize::PerIteration,
        );
    });
    c.bench_function("a summary of 100 rows", |b| {
        b.iter_batched(
            || File::create(&summary).unwrap(),
            |_| step.summary(black_box(&table)).unwrap(),
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, step);
criterion_main!(benches);
