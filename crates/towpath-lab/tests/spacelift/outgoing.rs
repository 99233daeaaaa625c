//! What the lab's Spacelift tells others: check runs at GitHub, and signed webhooks.

use super::support::{Account, config};
use axum::extract::{Request, State};
use axum::response::Json;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use towpath_core::Secret;
use towpath_lab::spacelift::{Planner, RunState, StackSeed};

type Calls = Arc<Mutex<Vec<(String, String, Value)>>>;

/// Takes any request, keeps what was asked, and answers as the Checks API does.
async fn receiver() -> (url::Url, Calls) {
    async fn keep(State(calls): State<Calls>, request: Request) -> Json<Value> {
        let (head, body) = request.into_parts();
        let line = format!("{} {}", head.method, head.uri.path());
        let header = |name: &str| {
            head.headers
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let proof = header("x-signature-256")
            .or(header("authorization"))
            .unwrap_or_default();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"hook").unwrap();
        mac.update(&body);
        let signed = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let proof = if proof == signed {
            "signed".to_owned()
        } else {
            proof
        };
        calls
            .lock()
            .unwrap()
            .push((line, proof, serde_json::from_slice(&body).unwrap()));
        Json(json!({"id": 7}))
    }
    let calls = Calls::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let router = axum::Router::new().fallback(keep).with_state(Arc::clone(&calls));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, calls)
}

#[tokio::test]
async fn runs_are_reported_as_check_runs_and_by_webhook() {
    let (url, calls) = receiver().await;
    let mut config = config(
        Planner::BuiltIn,
        vec![StackSeed::new("network", "acme/infra").with_autodeploy()],
    );
    config.github_api = Some((url.clone(), Secret::new("check-token")));
    let account = Account::start(config).await;
    let create = "mutation($i: WebhooksIntegrationInput!) { webhooksIntegrationCreate(stack: \"network\", input: $i) { id enabled } }";
    let input = json!({"endpoint": url.join("hook").unwrap(), "enabled": true, "secret": "hook"});
    account.ask(create, json!({"i": input})).await;
    let sha = account
        .push("main", &[("main.tf", "resource \"terraform_data\" \"a\" {}\n")])
        .await;
    account.wait("network", RunState::Finished).await;
    let all = loop {
        let all = calls.lock().unwrap().clone();
        if all.iter().any(|call| call.2["state"] == "FINISHED") {
            break all;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    };
    let (hooks, checks): (Vec<_>, Vec<_>) = all.into_iter().partition(|call| call.0 == "POST /hook");
    assert_eq!(checks[0].0, "POST /repos/acme/infra/check-runs");
    assert_eq!(checks[0].1, "Bearer check-token");
    assert_eq!(
        (&checks[0].2["name"], &checks[0].2["head_sha"]),
        (&json!("spacelift/network"), &json!(sha))
    );
    let last = checks.last().unwrap();
    assert_eq!(last.0, "PATCH /repos/acme/infra/check-runs/7");
    assert_eq!(
        (&last.2["conclusion"], &last.2["output"]["title"]),
        (&json!("success"), &json!("1 to add, 0 to change, 0 to destroy"))
    );
    assert!(hooks.iter().all(|hook| hook.1 == "signed"));
    let versions: Vec<i64> = hooks
        .iter()
        .map(|hook| hook.2["stateVersion"].as_i64().unwrap())
        .collect();
    assert_eq!(versions, (1..=7).collect::<Vec<_>>());
    assert_eq!(
        hooks[6].2["run"]["delta"],
        json!({"added": 1, "changed": 0, "deleted": 0, "resources": 1})
    );
}
