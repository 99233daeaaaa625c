//! Answers that the lab does not give: unknown words, half answers, pages for people.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use towpath_spacelift::model::{RunType, Vendor};
use towpath_spacelift::{ErrorKind, RetryPolicy, RunState, Secret, Spacelift};

type Script = Arc<Mutex<VecDeque<(u16, String)>>>;

/// A server that gives these answers in turn, and a client of it with a ready token.
async fn answering(answers: &[(u16, &str)]) -> (Spacelift, Script) {
    let script: Script = Arc::new(Mutex::new(
        answers.iter().map(|(s, b)| (*s, (*b).to_owned())).collect(),
    ));
    let answer = |State(script): State<Script>| async move {
        let (status, body) = script
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or((500, "no answer left".into()));
        (StatusCode::from_u16(status).unwrap(), body)
    };
    let router = Router::new()
        .route("/graphql", post(answer))
        .with_state(script.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/graphql", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let builder = Spacelift::with_token(&endpoint, Secret::new("canary-token")).unwrap();
    (builder.retry(RetryPolicy::none()).build().unwrap(), script)
}

const RUN: &str = r#"{"data":{"viewer":{"id":"me"},"stack":{"run":{"id":"01J","type":"REHEARSAL","state":"DREAMING",
"commit":null,"delta":null,"history":[{"state":"DREAMING","stateVersion":7,"terminal":false,"hasLogs":true,
"timestamp":1700000000,"colour":"blue"}]}}}}"#;

#[tokio::test]
async fn unknown_words_are_kept() {
    let (client, _) = answering(&[(200, RUN)]).await;
    let run = client
        .get_run(&"s".parse().unwrap(), &"01J".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(run.summary.kind, RunType::Other("REHEARSAL".into()));
    assert_eq!(run.history[0].state, RunState::Other("DREAMING".into()));
    assert!(!run.summary.state.is_terminal());
}

#[tokio::test]
async fn an_unknown_vendor_does_not_hide_the_stack() {
    let stack = r#"{"data":{"viewer":{"id":"me"},"stack":{"id":"s","name":"S","state":"NONE",
        "vendorConfig":{"__typename":"StackConfigVendorCrossplane"}}}}"#;
    let (client, _) = answering(&[(200, stack)]).await;
    let stack = client.get_stack(&"s".parse().unwrap()).await.unwrap();
    assert_eq!(
        (stack.vendor, stack.summary.state),
        (Some(Vendor::Other), RunState::Other("NONE".into()))
    );
}

#[tokio::test]
async fn what_is_not_an_answer_is_an_error() {
    let half = r#"{"data":{"viewer":{"id":"me"},"stack":null},"errors":[{"message":"boom canary-token",
        "path":["stack","runs",0],"extensions":{"branch":"is wrong"}}]}"#;
    let skew = r#"{"errors":[{"message":"Cannot query field \"x\" on type \"Stack\"."}]}"#;
    let known = r#"{"data":{"viewer":{"id":"me"},"stack":null},"errors":[{"message":"unauthorized"}]}"#;
    let stranger = r#"{"data":{"viewer":null,"stack":null}}"#;
    let nobody = r#"{"data":{"viewer":null}}"#;
    let refused = r#"{"data":null,"errors":[{"message":"unauthorized"}]}"#;
    for (answers, kind, says) in [
        (vec![(200, half)], ErrorKind::Invalid, "stack.runs.0"),
        (vec![(200, half)], ErrorKind::Invalid, "branch: is wrong"),
        (vec![(422, skew)], ErrorKind::Unsupported, "Cannot query"),
        (vec![(200, known)], ErrorKind::NotFound, "unauthorized"),
        (vec![(200, stranger)], ErrorKind::Unauthenticated, "token"),
        (
            vec![(200, refused), (200, nobody)],
            ErrorKind::Unauthenticated,
            "token",
        ),
        (vec![(401, "")], ErrorKind::Unauthenticated, "401"),
        (vec![(429, "")], ErrorKind::RateLimited, "429"),
        (vec![(200, "<html>Sign in</html>")], ErrorKind::Protocol, "HTML"),
        (vec![(200, "[1]")], ErrorKind::Protocol, "JSON"),
        (
            vec![(200, r#"{"data":{"viewer":{"id":"me"},"stack":{"id":7}}}"#)],
            ErrorKind::Protocol,
            "JSON",
        ),
        (vec![(502, "bad gateway")], ErrorKind::Unavailable, "502"),
    ] {
        let (client, left) = answering(&answers).await;
        let error = client.get_stack(&"s".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert!(left.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_mutation_that_may_not_have_arrived_is_not_sent_again() {
    let waits = RUN.replace("DREAMING", "UNCONFIRMED");
    let (client, left) = answering(&[(502, ""), (200, &waits)]).await;
    let run = "01J".parse().unwrap();
    let error = client
        .confirm_run(&"s".parse().unwrap(), &run, None)
        .await
        .unwrap_err();
    assert!(error.is_unavailable() && !error.retry().can_help(), "{error:?}");
    assert!(left.lock().unwrap().is_empty());
}
