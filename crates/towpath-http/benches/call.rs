//! One call through the transport beside the same request with a bare `reqwest`, against a server in this process.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench fails by panicking")]

use axum::{Router, routing::get};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use towpath_http::{Call, Transport};

fn call(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/x", get(|| async { r#"{"a":1}"# }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    });
    let base = format!("http://{address}/");
    let transport = Transport::builder("the bench", base.parse().unwrap())
        .build()
        .unwrap();
    let bare = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut group = criterion.benchmark_group("call");
    group.bench_function("bare reqwest", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let answer = bare.get(format!("{base}x")).send().await.unwrap();
            black_box(answer.json::<serde_json::Value>().await.unwrap())
        });
    });
    group.bench_function("transport", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let answer = transport.send(Call::get("x")).await.unwrap().success().unwrap();
            black_box(answer.json::<serde_json::Value>().unwrap())
        });
    });
    group.finish();
}

criterion_group!(benches, call);
criterion_main!(benches);
