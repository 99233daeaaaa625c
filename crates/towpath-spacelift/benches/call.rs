//! One call through the client beside the same request with a bare `reqwest`, against a server in this process.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench fails by panicking")]

use axum::{Router, routing::post};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use towpath_spacelift::{Secret, Spacelift};

const ANSWER: &str = r#"{"data":{"viewer":{"id":"me"},"stack":{"run":{"id":"01J","type":"TRACKED","state":"UNCONFIRMED",
"title":"x","branch":"main","createdAt":1700000000,"triggeredBy":null,"needsApproval":false,"driftDetection":false,
"commit":{"hash":"9fceb02d0ae598e95dc970b74767f19372d61af8","message":"x","authorName":"jo","url":null},
"delta":{"addCount":1,"changeCount":0,"deleteCount":0,"resources":1},"history":[{"state":"UNCONFIRMED","stateVersion":2,
"terminal":false,"hasLogs":false,"timestamp":1700000001,"note":"Autodeploy is off","username":null},{"state":"QUEUED",
"stateVersion":1,"terminal":false,"hasLogs":false,"timestamp":1700000000,"note":null,"username":null}]}}}}"#;

fn call(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = || async { ([("content-type", "application/json")], ANSWER) };
        let router = Router::new().route("/graphql", post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    });
    let base = format!("http://{address}");
    let client = Spacelift::with_token(&base, Secret::new("token"))
        .unwrap()
        .build()
        .unwrap();
    let bare = reqwest::Client::builder().no_proxy().build().unwrap();
    let document = serde_json::json!({
        "query": include_str!("../graphql/runs/get_run.graphql"),
        "operationName": "GetRun",
        "variables": {"stack": "network", "run": "01J"},
    });
    let (stack, run) = ("network".parse().unwrap(), "01J".parse().unwrap());
    let mut group = criterion.benchmark_group("read a run");
    group.bench_function("bare reqwest", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let request = bare
                .post(format!("{base}/graphql"))
                .bearer_auth("token")
                .json(&document);
            black_box(
                request
                    .send()
                    .await
                    .unwrap()
                    .json::<serde_json::Value>()
                    .await
                    .unwrap(),
            )
        });
    });
    group.bench_function("client", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| async { black_box(client.get_run(&stack, &run).await.unwrap()) });
    });
    group.finish();
}

criterion_group!(benches, call);
criterion_main!(benches);
