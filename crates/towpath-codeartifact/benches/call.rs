//! One call of the element beside the same request with the bare SDK, against a server that answers at once.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench fails by panicking"
)]

use aws_sdk_codeartifact::config::{BehaviorVersion, Credentials, Region};
use axum::Router;
use axum::http::Uri;
use criterion::{Criterion, criterion_group, criterion_main};
use towpath_codeartifact::{Artifacts, CodeArtifact, CodeArtifactConfig, PackageId, Secret, sdk};

async fn answer(uri: Uri) -> String {
    if uri.path().ends_with("/assets") {
        r#"{"versionRevision":"r","assets":[{"name":"demo-1.0.0.crate","size":3}]}"#.into()
    } else {
        r#"{"packageVersion":{"version":"1.0.0","revision":"r","status":"Published"}}"#.into()
    }
}

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (ours, bare) = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let config = CodeArtifactConfig::from_env()
            .region("eu-west-1".parse().expect("a Region"))
            .endpoint(url.parse().expect("a URL"))
            .credentials("id", Secret::new("key"), None);
        let bare = sdk::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("id", "key", None, None, "bench"))
            .endpoint_url(url)
            .build();
        let ours = CodeArtifact::new(config).await.expect("a client");
        (ours, sdk::Client::from_conf(bare))
    });
    let repository = "acme/libraries".parse().expect("a repository");
    let version = PackageId::cargo("demo")
        .and_then(|id| id.at("1.0.0"))
        .expect("a version");
    let mut group = criterion.benchmark_group("read a version");
    group.bench_function("towpath-codeartifact", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| Artifacts::version(&ours, &repository, &version));
    });
    group.bench_function("bare SDK", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let described = bare
                .describe_package_version()
                .domain("acme")
                .repository("libraries")
                .format("cargo".into())
                .package("demo")
                .package_version("1.0.0")
                .send()
                .await;
            let assets = bare
                .list_package_version_assets()
                .domain("acme")
                .repository("libraries")
                .format("cargo".into())
                .package("demo")
                .package_version("1.0.0")
                .send()
                .await;
            (described, assets)
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
