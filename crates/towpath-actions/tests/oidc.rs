//! The OIDC token, asked of a runner that has its moods.
#![cfg(feature = "oidc")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use towpath_actions::{Environment, Error, IdTokenPolicy, Step};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the service does with each request in turn; after the last it gives a token.
type Moods = Arc<Mutex<Vec<u16>>>;

const HANG: u16 = 0;

async fn token(
    State(moods): State<Moods>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> (StatusCode, String) {
    let mood = moods.lock().unwrap().pop();
    match mood {
        Some(HANG) => std::future::pending().await,
        Some(status) => (StatusCode::from_u16(status).unwrap(), "request-canary".into()),
        None => {
            assert_eq!(headers["authorization"], "Bearer request-canary");
            assert_eq!(query.unwrap(), "api-version=2.0&audience=sts.amazonaws.com%2Fa+b");
            (StatusCode::OK, r#"{"count":1,"value":"id-canary"}"#.into())
        }
    }
}

async fn step(moods: &[u16], log: &Log) -> Step {
    let moods: Moods = Arc::new(Mutex::new(moods.iter().rev().copied().collect()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token?api-version=2.0", listener.local_addr().unwrap());
    let service = Router::new().route("/token", get(token)).with_state(moods);
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    let environment = Environment::from([
        ("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-canary"),
    ]);
    Step::new(environment, log.clone()).with_id_token_policy(IdTokenPolicy {
        timeout: Duration::from_millis(300),
        attempts: 3,
        pause: Duration::from_millis(1),
    })
}

#[tokio::test]
async fn a_token_comes_after_a_hang_and_an_error_and_is_masked() {
    let log = Log::default();
    let step = step(&[HANG, 503], &log).await;
    let (token, requests) = towpath_core::requests::count(step.id_token("sts.amazonaws.com/a b")).await;
    assert_eq!(token.unwrap().expose(), "id-canary");
    assert_eq!(requests, 3);
    assert_eq!(*log.0.lock().unwrap(), b"::add-mask::id-canary\n");
}

#[tokio::test]
async fn what_cannot_get_better_is_not_tried_again() {
    for (moods, tried) in [(vec![403, 403], 1), (vec![500, 500, 500, 500], 3)] {
        let error = step(&moods, &Log::default())
            .await
            .id_token("aws")
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::IdToken { attempts, .. } if attempts == tried),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
}

#[tokio::test]
async fn a_job_without_the_permission_is_told_so() {
    let step = Step::new(Environment::default(), std::io::sink());
    let said = step.id_token("aws").await.unwrap_err().to_string();
    assert!(said.contains("permissions: id-token: write"), "{said}");
    let environment = Environment::from([
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "http://runner.example/token?x=y"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t"),
    ]);
    let said = Step::new(environment, std::io::sink())
        .id_token("aws")
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("https"), "{said}");
}
