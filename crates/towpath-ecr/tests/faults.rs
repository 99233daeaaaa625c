//! What goes wrong on the way to the lab's registry, and what a caller notices of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{World, attach, config};
use towpath_core::requests;
use towpath_ecr::{Digest, Ecr, ImageRef, Registry, Secret};
use towpath_lab::Fault;
use towpath_lab::ecr as lab;

#[tokio::test]
async fn an_expired_token_is_renewed_once_for_all() {
    let world = World::with_rule().await;
    let pushed = world.assembled("shop/web", "1").await;
    let minted = || {
        let all = world.lab.api_requests().all();
        all.iter()
            .filter(|seen| {
                seen.target
                    .as_deref()
                    .is_some_and(|target| target.contains("GetAuthorizationToken"))
            })
            .count()
    };
    assert_eq!(minted(), 1);
    world.lab.expire_tokens();
    let looks = (0..8).map(|_| world.ecr.resolve(&pushed));
    for found in futures_util::future::join_all(looks).await {
        assert!(found.unwrap().is_some());
    }
    assert_eq!(minted(), 2);
}

#[tokio::test]
async fn every_attempt_counts_in_the_task_of_the_caller() {
    let world = World::start().await;
    let before = world.lab.api_requests().len() + world.lab.registry_requests().len();
    world.lab.api_faults().inject(
        Fault::respond(
            "/",
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"__type":"ServerException"}"#,
        )
        .times(2),
    );
    world
        .lab
        .registry_faults()
        .inject(Fault::cut("manifests").times(1));
    let (found, count) = requests::count(async {
        let target = world
            .ecr
            .ensure_repository(&"shop/web".parse().unwrap())
            .await
            .unwrap();
        world.ecr.resolve(&target).await
    })
    .await;
    assert_eq!(found.unwrap(), None);
    let after = world.lab.api_requests().len() + world.lab.registry_requests().len();
    assert_eq!(count as usize, after - before);
    assert!(count >= 7, "{count}");
}

#[tokio::test]
async fn a_quota_is_not_tried_again() {
    let world = World::start().await;
    let body = r#"{"__type":"LimitExceededException","message":"too many repositories"}"#;
    world
        .lab
        .api_faults()
        .inject(Fault::respond("/", StatusCode::BAD_REQUEST, body).always());
    let (outcome, count) = requests::count(world.ecr.ensure_repository(&"shop/web".parse().unwrap())).await;
    assert!(outcome.unwrap_err().to_string().contains("quota"));
    assert_eq!(count, 1);
}

#[tokio::test]
async fn throttling_passes_or_is_told() {
    let world = World::with_rule().await;
    let pushed = world.assembled("shop/web", "1").await;
    let slow_down = || {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}"#;
        Fault::respond("manifests", StatusCode::TOO_MANY_REQUESTS, body)
    };
    world.lab.registry_faults().inject(slow_down().times(2));
    assert!(world.ecr.resolve(&pushed).await.unwrap().is_some());
    world.lab.registry_faults().inject(slow_down().always());
    let error = world.ecr.resolve(&pushed).await.unwrap_err();
    assert!(error.is_rate_limited() && !error.retry().can_help(), "{error:?}");
    world.lab.registry_faults().clear();
    let later = slow_down().header(http::header::RETRY_AFTER, http::HeaderValue::from_static("120"));
    world.lab.registry_faults().inject(later.always());
    let error = world.ecr.resolve(&pushed).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
}

#[tokio::test]
async fn an_upload_that_is_cut_goes_on() {
    use towpath_ecr::oci::{Blob, Pushed};
    let world = World::start().await;
    let target = world.target("shop/web").await;
    for (at, fault) in [
        Fault::cut("blobs/uploads/").method(Method::PUT),
        Fault::lose_answer("blobs/uploads/").method(Method::PUT),
        Fault::respond("blobs/uploads/", StatusCode::BAD_GATEWAY, "").method(Method::PUT),
        Fault::cut("blobs/uploads/").method(Method::POST),
    ]
    .into_iter()
    .enumerate()
    {
        let blob = Blob::from_bytes(vec![at as u8; 3 << 20]);
        world.lab.registry_faults().inject(fault);
        assert_eq!(
            world.ecr.oci().push_blob(&target, &blob).await.unwrap(),
            Pushed::Sent
        );
        assert_eq!(
            world.lab.blob(&blob.digest).map(|bytes| bytes.len()),
            Some(3 << 20)
        );
        assert_eq!(
            world.ecr.oci().push_blob(&target, &blob).await.unwrap(),
            Pushed::Present
        );
    }
}

#[tokio::test]
async fn no_message_shows_a_secret() {
    let quiet = lab::Ecr::start(lab::EcrConfig::default()).await.unwrap();
    let wrong = config(&quiet).credentials(
        "AKIAWRONG",
        Secret::new("canary-secret"),
        Some(Secret::new("canary-session")),
    );
    let ecr = Ecr::new(&wrong).await.unwrap();
    let error = ecr.registry().await.unwrap_err();
    assert!(error.is_unauthenticated(), "{error}");
    let mut seen = format!("{error} {error:?} {ecr:?} {wrong:?}");
    let good = Ecr::new(&config(&quiet)).await.unwrap();
    good.registry().await.unwrap();
    seen.push_str(&format!("{good:?}"));
    assert!(!seen.contains("canary"), "{seen}");
    assert!(!seen.contains("lab-secret-access-key"), "{seen}");
    // Every token begins with this: base64 of `AWS:`.
    assert!(!seen.contains("QVdTO"), "{seen}");
}

/// What a registry without a referrers API holds: manifests with their media types, by reference, and blobs.
type Stored = Arc<Mutex<HashMap<String, (String, Bytes)>>>;

/// A registry of another kind: no authentication, no mounting, no referrers API.
async fn plain_registry() -> (SocketAddr, Stored) {
    let stored = Stored::default();
    let app = Router::new()
        .fallback(plain_answer)
        .with_state(Arc::clone(&stored));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, stored)
}

async fn plain_answer(State(stored): State<Stored>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let path = head.uri.path().to_owned();
    let last = path.rsplit('/').next().unwrap().to_owned();
    let header = |name: &str| {
        head.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
            .to_owned()
    };
    let mut stored = stored.lock().unwrap();
    match head.method {
        Method::POST => (StatusCode::ACCEPTED, [("location", format!("{path}session"))]).into_response(),
        Method::PUT if path.contains("/uploads/") => {
            let digest = head
                .uri
                .query()
                .unwrap()
                .replace("digest=", "")
                .replace("%3A", ":");
            if Digest::sha256_of(&bytes).as_str() != digest {
                return StatusCode::BAD_REQUEST.into_response();
            }
            stored.insert(digest, (String::new(), bytes));
            StatusCode::CREATED.into_response()
        }
        Method::PUT => {
            let entry = (header("content-type"), bytes.clone());
            stored.insert(Digest::sha256_of(&bytes).to_string(), entry.clone());
            stored.insert(last, entry);
            StatusCode::CREATED.into_response()
        }
        _ if path.contains("/referrers/") => StatusCode::NOT_FOUND.into_response(),
        _ => match stored.get(&last) {
            Some((media_type, bytes)) => {
                let digest = Digest::sha256_of(bytes).to_string();
                let headers = [
                    ("content-type", media_type.clone()),
                    ("docker-content-digest", digest),
                ];
                (headers, bytes.clone()).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
    }
}

#[tokio::test]
async fn a_copy_to_another_registry_takes_everything_along() {
    let world = World::with_rule().await;
    let from = world.assembled("shop/web", "1").await;
    let artifact = attach(&world, &from).await;
    let (address, stored) = plain_registry().await;
    let to: ImageRef = format!("{address}/other/web:1").parse().unwrap();
    let copied = world.ecr.copy(&from, &to).await.unwrap();
    assert_eq!(Some(&copied.digest), from.digest());
    let fallback = copied.digest.as_str().replace(':', "-");
    {
        let stored = stored.lock().unwrap();
        assert_eq!(stored["1"].1, world.lab.image("shop/web", "1").unwrap().manifest);
        assert!(stored.contains_key(artifact.as_str()));
        let listed: serde_json::Value = serde_json::from_slice(&stored[&fallback].1).unwrap();
        assert_eq!(listed["manifests"][0]["digest"], artifact.as_str());
    }
    let found = world.ecr.oci().referrers(&to, &copied.digest).await.unwrap();
    assert_eq!(found.len(), 1);
    let before = stored.lock().unwrap().len();
    world.ecr.copy(&from, &to).await.unwrap();
    assert_eq!(stored.lock().unwrap().len(), before);
}
