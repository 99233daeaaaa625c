//! Assembling an image of 1,000 files of 64 KiB that the registry has already (so that what is measured is reading,
//! packing and hashing, and two looks at the registry), beside the compressor alone over the same bytes in memory.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::io::Write;
use std::time::Duration;
use towpath_ecr::registry::{Assembly, Compression, Layer, Platform};
use towpath_ecr::{Ecr, EcrConfig, Region};
use towpath_lab::ecr as lab;

/// Words in no order: compresses about as well as program text.
fn contents(file: u64) -> Vec<u8> {
    let mut state = file + 1;
    let mut bytes = Vec::with_capacity(64 << 10);
    while bytes.len() < 64 << 10 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(format!("word{} ", (state >> 33) % 4_096).as_bytes());
    }
    bytes.truncate(64 << 10);
    bytes
}

async fn client(lab: &lab::Ecr) -> Ecr {
    let known = lab::EcrConfig::default();
    let config = EcrConfig::from_env()
        .region(Region::new(&known.region).unwrap())
        .endpoint(lab.api_url().parse().unwrap())
        .credentials(known.access_key_id, known.secret_access_key, None);
    Ecr::new(&config).await.unwrap()
}

fn packing(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let lab = runtime
        .block_on(lab::Ecr::start(lab::EcrConfig::default()))
        .unwrap();
    let ecr = runtime.block_on(client(&lab));
    let target = runtime
        .block_on(async {
            ecr.create_repository_if_missing(&"shop/web".parse().unwrap())
                .await
        })
        .map(|_| format!("{}/shop/web", lab.registry_host()).parse().unwrap())
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for file in 0..1_000 {
        let bytes = contents(file);
        std::fs::write(folder.path().join(format!("file-{file:04}")), &bytes).unwrap();
        all.extend_from_slice(&bytes);
    }
    let mut assembly = Assembly::from_scratch(target, [Platform::linux("amd64")]);
    assembly.layers = vec![Layer::files(folder.path(), "/srv")];

    let mut group = c.benchmark_group("assemble: 1,000 files of 64 KiB");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(20))
        .throughput(Throughput::Bytes(all.len() as u64));
    group.bench_function("flate2 alone", |b| {
        b.iter(|| {
            let mut gzip = flate2::write::GzEncoder::new(std::io::sink(), flate2::Compression::new(6));
            gzip.write_all(&all).unwrap();
            gzip.finish().unwrap();
        });
    });
    group.bench_function("towpath-ecr, gzip", |b| {
        b.to_async(&runtime)
            .iter(async || ecr.assemble_image(&assembly).await.unwrap());
    });
    group.bench_function("zstd alone", |b| {
        b.iter(|| {
            let mut zstd = zstd::Encoder::new(std::io::sink(), 3).unwrap();
            zstd.write_all(&all).unwrap();
            zstd.finish().unwrap();
        });
    });
    assembly.compression = Compression::Zstd;
    group.bench_function("towpath-ecr, zstd", |b| {
        b.to_async(&runtime)
            .iter(async || ecr.assemble_image(&assembly).await.unwrap());
    });
    group.finish();
}

criterion_group!(benches, packing);
criterion_main!(benches);
