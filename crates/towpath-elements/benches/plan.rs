//! What it costs to name a plan, and to make and show an error.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark fails by panicking; criterion's macros write undocumented functions"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use towpath_elements::infrastructure::{ChangeCounts, Plan, PlannedChange};
use towpath_elements::{Error, ErrorKind};

fn plan(c: &mut Criterion) {
    let plan = |changes: u64| Plan {
        stack: "shared-services".parse().unwrap(),
        run: "01JDEXAMPLE".parse().unwrap(),
        commit: "9fceb02d0ae598e95dc970b74767f19372d61af8".parse().unwrap(),
        // The service's order is not the sorted one.
        changes: (0..changes)
            .rev()
            .map(|n| PlannedChange {
                address: format!("module.network.aws_subnet.private[{n}]"),
                action: "create".into(),
            })
            .collect(),
        counts: ChangeCounts {
            add: changes,
            ..ChangeCounts::default()
        },
    };
    for changes in [10, 1000] {
        let plan = plan(changes);
        c.bench_function(&format!("digest of a plan of {changes} changes"), |b| {
            b.iter(|| black_box(&plan).digest());
        });
    }
    let error = || {
        Error::new(
            ErrorKind::NotFound,
            "Amazon ECR",
            "read the manifest of",
            black_box("shop/web:1.4"),
        )
        .because("no image has this tag")
        .advise("push it first, or check the tag")
    };
    c.bench_function("an error", |b| b.iter(error));
    let made = error();
    c.bench_function("an error as text", |b| b.iter(|| black_box(&made).to_string()));
}

criterion_group!(benches, plan);
criterion_main!(benches);
