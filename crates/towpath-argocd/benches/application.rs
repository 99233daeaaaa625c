//! One call of the client beside the same request with a bare `reqwest`, against a server in this process.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench fails by panicking")]

use axum::{Json, Router, routing::get};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use std::hint::black_box;
use towpath_argocd::{Application, ArgoCd, Delivery, Login, Secret, wire::App};

fn application(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let resource = |at: usize| json!({"kind": "Service", "name": format!("web-{at}"), "status": "Synced"});
    let app = json!({
        "metadata": {"name": "web", "uid": "u", "resourceVersion": "1"},
        "spec": {"project": "shop", "source": {"repoURL": "https://ghe.example/o/deploy.git"}, "destination": {}},
        "status": {"sync": {"status": "Synced", "revision": "a"}, "health": {"status": "Healthy"},
            "resources": (0..20).map(resource).collect::<Vec<_>>()},
    });
    let base = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/api/v1/applications/web", get(async move || Json(app.clone())));
        tokio::spawn(async move { axum::serve(listener, router).await });
        base
    });
    let token = "aaaa.bbbb.cccc";
    let client = ArgoCd::builder(&base, Login::Token(Secret::new(token)))
        .unwrap()
        .build()
        .unwrap();
    let bare = reqwest::Client::builder().no_proxy().build().unwrap();
    let name: Application = "shop/web".parse().unwrap();
    let url = format!("{base}/api/v1/applications/web?project=shop");
    let mut group = criterion.benchmark_group("application");
    group.bench_function("bare reqwest", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let answer = bare.get(&url).bearer_auth(token).send().await.unwrap();
            black_box(answer.error_for_status().unwrap().json::<App>().await.unwrap())
        });
    });
    group.bench_function("trait", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| async { black_box(client.status(&name).await.unwrap()) });
    });
    group.finish();
}

criterion_group!(benches, application);
criterion_main!(benches);
