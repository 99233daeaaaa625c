//! One call of each half of the client, beside the same request with the bare SDK and a bare `reqwest`.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use criterion::{Criterion, criterion_group, criterion_main};
use std::sync::Arc;
use towpath_ecr::oci::{Anonymous, OciClient, OciSettings};
use towpath_ecr::{Ecr, EcrConfig, ImageRef, Region, Secret};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

async fn server() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let described =
        r#"{"repositories":[{"repositoryName":"shop/web","repositoryUri":"127.0.0.1/shop/web"}]}"#;
    let app = axum::Router::new()
        .route("/", axum::routing::post(move || async move { described }))
        .fallback(|| async { [("docker-content-digest", DIGEST)] });
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn calls(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let address = runtime.block_on(server());
    let url = format!("http://{address}");

    let image: ImageRef = format!("{address}/shop/web@{DIGEST}").parse().unwrap();
    let oci = OciClient::new("the registry", Arc::new(Anonymous), OciSettings::default()).unwrap();
    let http = reqwest::Client::new();
    let manifest = format!("{url}/v2/shop/web/manifests/{DIGEST}");
    let mut group = c.benchmark_group("registry: which digest");
    group.bench_function("bare reqwest", |b| {
        b.to_async(&runtime)
            .iter(async || http.head(&manifest).send().await.unwrap());
    });
    group.bench_function("towpath-ecr", |b| {
        b.to_async(&runtime)
            .iter(async || oci.manifest_digest(&image).await.unwrap());
    });
    group.finish();

    let config = EcrConfig::from_env()
        .region(Region::new("eu-west-1").unwrap())
        .endpoint(url.parse().unwrap())
        .credentials("AKIAEXAMPLE", Secret::new("example"), None);
    let ecr = runtime.block_on(Ecr::new(&config)).unwrap();
    let bare = aws_sdk_ecr::Client::from_conf(
        aws_sdk_ecr::Config::builder()
            .behavior_version(aws_sdk_ecr::config::BehaviorVersion::v2026_01_12())
            .region(aws_sdk_ecr::config::Region::new("eu-west-1"))
            .credentials_provider(aws_sdk_ecr::config::Credentials::new(
                "AKIAEXAMPLE",
                "example",
                None,
                None,
                "bench",
            ))
            .endpoint_url(&url)
            .build(),
    );
    let name = "shop/web".parse().unwrap();
    let mut group = c.benchmark_group("API: one repository");
    group.bench_function("bare SDK", |b| {
        b.to_async(&runtime).iter(async || {
            bare.describe_repositories()
                .repository_names("shop/web")
                .send()
                .await
                .unwrap()
        });
    });
    group.bench_function("towpath-ecr", |b| {
        b.to_async(&runtime)
            .iter(async || ecr.repository(&name).await.unwrap());
    });
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
