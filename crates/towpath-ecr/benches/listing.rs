//! Listing 100,000 images of the lab, beside a bare loop over the SDK's paginator.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and prints what it found"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::TryStreamExt;
use std::time::{Duration, Instant};
use towpath_core::requests;
use towpath_ecr::{Ecr, EcrConfig, ImageFilter, Region};
use towpath_lab::ecr as lab;

const IMAGES: usize = 100_000;
const ROUNDS: u32 = 5;

async fn bare_loop(api: &aws_sdk_ecr::Client) -> usize {
    let mut pages = api
        .describe_images()
        .repository_name("shop/web")
        .into_paginator()
        .page_size(1000)
        .send();
    let mut bytes = 0;
    let mut seen = 0;
    while let Some(page) = pages.next().await {
        for image in page.unwrap().image_details() {
            bytes += image.image_size_in_bytes().unwrap();
            seen += 1;
        }
    }
    assert!(bytes > 0);
    seen
}

async fn ours(ecr: &Ecr) -> usize {
    let mut images = ecr.images(&"shop/web".parse().unwrap(), ImageFilter::new());
    let (mut bytes, mut seen) = (0, 0);
    while let Some(image) = images.try_next().await.unwrap() {
        bytes += image.size.unwrap();
        seen += 1;
    }
    assert!(bytes > 0);
    seen
}

fn listing(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (lab, ecr) = runtime.block_on(async {
        let lab = lab::Ecr::start(lab::EcrConfig::default()).await.unwrap();
        let start = Instant::now();
        lab.seed_images("shop/web", IMAGES).unwrap();
        println!("seeding {IMAGES} images: {} ms", start.elapsed().as_millis());
        let known = lab::EcrConfig::default();
        let config = EcrConfig::from_env()
            .region(Region::new(&known.region).unwrap())
            .endpoint(lab.api_url().parse().unwrap())
            .credentials(known.access_key_id, known.secret_access_key, None);
        let ecr = Ecr::new(&config).await.unwrap();
        (lab, ecr)
    });

    // Turn by turn, so that what else the machine does meets both.
    let (mut bare, mut own) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        assert_eq!(runtime.block_on(bare_loop(ecr.api())), IMAGES);
        bare += start.elapsed();
        let start = Instant::now();
        assert_eq!(runtime.block_on(ours(&ecr)), IMAGES);
        own += start.elapsed();
    }
    let (_, bare_sent) = runtime.block_on(requests::count(bare_loop(ecr.api())));
    let (_, own_sent) = runtime.block_on(requests::count(ours(&ecr)));
    println!(
        "{IMAGES} images: bare loop {} ms and {bare_sent} requests, towpath-ecr {} ms and {own_sent} requests, ratio {:.2}",
        (bare / ROUNDS).as_millis(),
        (own / ROUNDS).as_millis(),
        own.as_secs_f64() / bare.as_secs_f64()
    );

    let mut group = c.benchmark_group("API: 100,000 images");
    group.sample_size(10);
    group.bench_function("bare SDK paginator", |b| {
        b.to_async(&runtime).iter(|| bare_loop(ecr.api()));
    });
    group.bench_function("towpath-ecr", |b| {
        b.to_async(&runtime).iter(|| ours(&ecr));
    });
    group.finish();
    drop(lab);
}

criterion_group!(benches, listing);
criterion_main!(benches);
