//! What parsing at the edge costs.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use towpath_core::{CommitSha, Digest, ImageRef, PackageVersion};

fn words(c: &mut Criterion) {
    let digest = Digest::sha256_of(b"x").to_string();
    let image = format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/web:1.4@{digest}");
    c.bench_function("image reference", |b| {
        b.iter(|| black_box(&image).parse::<ImageRef>())
    });
    c.bench_function("digest", |b| b.iter(|| black_box(&digest).parse::<Digest>()));
    let sha = "9fceb02d0ae598e95dc970b74767f19372d61af8";
    c.bench_function("commit SHA", |b| b.iter(|| black_box(sha).parse::<CommitSha>()));
    let package = "pkg:maven/com.example/shop@1.2.3";
    c.bench_function("package version", |b| {
        b.iter(|| black_box(package).parse::<PackageVersion>())
    });
    let megabyte = vec![7_u8; 1 << 20];
    c.bench_function("sha256 of 1 MiB", |b| {
        b.iter(|| Digest::sha256_of(black_box(&megabyte)))
    });
}

criterion_group!(benches, words);
criterion_main!(benches);
