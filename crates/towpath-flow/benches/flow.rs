//! What the flows' own machinery costs: a note that survives a crash, an edit of a deployment file, a page.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use towpath_core::ImageRef;
use towpath_flow::journal::Entry;
use towpath_flow::{Journal, MemoryJournal, RunRecord, SqliteJournal, manifest, page};

fn journals(c: &mut Criterion) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let Ok(folder) = tempfile::tempdir() else { return };
    let Ok(sqlite) = SqliteJournal::open(folder.path().join("runs.db")) else {
        return;
    };
    let memory = MemoryJournal::new();
    let entry = Entry::Finished {
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    let mut run = 0_u64;
    let mut next_run = move || {
        run += 1;
        run.to_string()
    };
    c.bench_function("a note in memory", |b| {
        b.to_async(&runtime).iter_batched(
            &mut next_run,
            |run| {
                let (memory, entry) = (&memory, &entry);
                async move { memory.append(&run, 0, entry).await }
            },
            BatchSize::SmallInput,
        );
    });
    c.bench_function("a note in SQLite, written through", |b| {
        b.to_async(&runtime).iter_batched(
            &mut next_run,
            |run| {
                let (sqlite, entry) = (&sqlite, &entry);
                async move { sqlite.append(&run, 0, entry).await }
            },
            BatchSize::SmallInput,
        );
    });
}

fn texts(c: &mut Criterion) {
    let Ok(image) = "quay.io/shop/web:2".parse::<ImageRef>() else {
        return;
    };
    let filler = "# a comment\nkey: value\n---\n".repeat(200);
    let file = format!("{filler}spec:\n  containers:\n    - image: quay.io/shop/web:1\n");
    c.bench_function("an image in a deployment file of 600 lines", |b| {
        b.iter(|| manifest::with_image(black_box(file.as_bytes()), &image));
    });
    let record = RunRecord::new("bench");
    c.bench_function("a page", |b| b.iter(|| page(black_box(&record))));
}

criterion_group!(benches, journals, texts);
criterion_main!(benches);
