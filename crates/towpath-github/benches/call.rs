//! One call of the trait beside the same request with a bare `reqwest`, against a server in the same process.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark fails by panicking; criterion's macros write undocumented functions"
)]

use axum::Router;
use axum::routing::get;
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::Value;
use towpath_github::{BranchName, Credential, GitHub, GitHubConfig, RepoSlug, Secret, Source};

const PATH: &str = "/api/v3/repos/acme/shop/git/ref/heads/main";

fn call(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let host = runtime.block_on(async {
        let body = format!(
            r#"{{"ref":"refs/heads/main","object":{{"type":"commit","sha":"{}"}}}}"#,
            "a".repeat(40)
        );
        let app = Router::new().route(
            PATH,
            get(move || async move { ([("content-type", "application/json")], body) }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{host}")
    });
    let config = GitHubConfig::enterprise(&host)
        .unwrap()
        .with_credential(Credential::Token(Secret::new("token")));
    let github = GitHub::new(config).unwrap();
    let repository: RepoSlug = "acme/shop".parse().unwrap();
    let branch: BranchName = "main".parse().unwrap();
    let bare = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let url = format!("{host}{PATH}");

    let mut group = c.benchmark_group("head");
    group.bench_function("bare reqwest", |b| {
        b.to_async(&runtime).iter(|| async {
            let body = bare
                .get(&url)
                .bearer_auth("token")
                .send()
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            let value: Value = serde_json::from_slice(&body).unwrap();
            assert!(value["object"]["sha"].is_string());
        });
    });
    group.bench_function("towpath-github", |b| {
        b.to_async(&runtime).iter(|| async {
            assert!(github.head(&repository, &branch).await.unwrap().is_some());
        });
    });
    group.finish();
}

criterion_group!(benches, call);
criterion_main!(benches);
