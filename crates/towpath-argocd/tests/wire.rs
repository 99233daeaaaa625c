//! What the client sends, and what it makes of answers that no lab gives, against small servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde_json::json;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use towpath_argocd::{
    Application, ArgoCd, Cancellation, Deletion, Delivery, DeliveryOutcome, Expected, ListFilter, Login,
    ManifestsRequest, RetryPolicy, Secret, SyncRequest, wire,
};
use towpath_elements::ErrorKind;

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

fn client(base: &str) -> ArgoCd {
    let quick = RetryPolicy::default().between(Duration::from_millis(1), Duration::from_millis(2));
    let login = Login::Token(Secret::new("can.ary.canary"));
    ArgoCd::builder(base, login)
        .unwrap()
        .retry(quick)
        .build()
        .unwrap()
}

fn app() -> Application {
    "shop/argocd/web".parse().unwrap()
}

#[tokio::test]
async fn every_write_has_the_one_content_type_and_says_where_the_application_is() {
    let seen: Arc<Mutex<Vec<(String, HeaderMap)>>> = Arc::default();
    let log = seen.clone();
    let record = move |request: Request| {
        let line = format!("{} {}", request.method(), request.uri());
        log.lock().unwrap().push((line, request.headers().clone()));
        async { axum::Json(json!({})) }
    };
    let client = client(&format!(
        "{}/root/",
        serve(Router::new().fallback(any(record))).await
    ));
    client.delete(&app(), Deletion::Orphan).await.unwrap();
    client.terminate(&app()).await.unwrap();
    client
        .sync_application(&app(), &SyncRequest::to("main"))
        .await
        .unwrap();
    client.patch(&app(), &json!({})).await.unwrap();
    client.rollback(&app(), 0, false).await.unwrap();
    let seen = seen.lock().unwrap();
    let lines: Vec<_> = seen.iter().map(|(line, _)| line.as_str()).collect();
    let path = "/root/api/v1/applications/web";
    let place = "project=shop&appNamespace=argocd";
    assert_eq!(
        lines,
        [
            format!("DELETE {path}?{place}&cascade=false"),
            format!("DELETE {path}/operation?{place}"),
            format!("POST {path}/sync"),
            format!("PATCH {path}"),
            format!("POST {path}/rollback"),
        ]
    );
    for (line, headers) in seen.iter() {
        assert_eq!(headers["content-type"], "application/json", "{line}");
        assert_eq!(headers["authorization"], "Bearer can.ary.canary", "{line}");
    }
}

#[tokio::test]
async fn several_sources_are_named_by_their_positions() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let record = move |request: Request| {
        let log = log.clone();
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            log.lock().unwrap().push(format!("{line} {body}"));
            axum::Json(json!({"Version": "v2.11.0"}))
        }
    };
    let client = client(&serve(Router::new().fallback(any(record))).await);
    let request = SyncRequest {
        revisions: vec!["a".into(), "b".into()],
        source_positions: vec![2, 1],
        ..SyncRequest::default()
    };
    client.sync_application(&app(), &request).await.unwrap();
    let manifests = ManifestsRequest {
        revisions: request.revisions,
        source_positions: request.source_positions,
        no_cache: true,
    };
    client.manifests_of(&app(), &manifests).await.unwrap();
    client.revision_metadata_of_source(&app(), "a", 1).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4, "the version is asked for once: {seen:?}");
    assert_eq!(seen[0], "GET /api/version ");
    assert!(
        seen[1].contains("\"revisions\":[\"a\",\"b\"],\"sourcePositions\":[2,1]"),
        "{seen:?}"
    );
    assert!(
        seen[2].contains(
            "?revisions=a&sourcePositions=2&revisions=b&sourcePositions=1&noCache=true&project=shop"
        ),
        "{seen:?}"
    );
    assert!(
        seen[3].contains("/revisions/a/metadata?sourceIndex=1&"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_replacement_says_in_its_body_where_the_application_is() {
    let echo = |body: String| async { ([("content-type", "application/json")], body) };
    let client = client(&serve(Router::new().fallback(any(echo))).await);
    let mut replacement = wire::App::default();
    replacement.metadata.name = "web".into();
    let sent = client.replace(&app(), &replacement, false).await.unwrap();
    assert_eq!(sent.metadata.namespace.as_deref(), app().namespace());
}

#[tokio::test]
async fn applications_of_a_set_without_a_status_are_known_by_their_owner() {
    let owned_by = |name: &str, uid: &str| {
        json!({"metadata": {"name": name, "namespace": "argocd", "ownerReferences": [
            {"apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", "name": "shop", "uid": uid}]},
            "spec": {"project": "shop", "destination": {}}})
    };
    let items =
        json!({"items": [owned_by("one", "1"), owned_by("two", "2"), {"metadata": {"name": "three"}}]});
    let set = json!({"metadata": {"name": "shop", "namespace": "argocd", "uid": "2"},
        "spec": {"template": {"spec": {"project": "shop"}}}});
    let asked: Arc<Mutex<String>> = Arc::default();
    let log = asked.clone();
    let list = move |request: Request| {
        *log.lock().unwrap() = request.uri().to_string();
        async { axum::Json(items) }
    };
    let router = Router::new()
        .route("/api/v1/applicationsets/shop", get(|| async { axum::Json(set) }))
        .route("/api/v1/applications", get(list));
    let client = client(&serve(router).await);
    let children = client.application_set_children("shop", None).await.unwrap();
    let children: Vec<_> = children.iter().map(ToString::to_string).collect();
    assert_eq!(children, ["shop/two"]);
    assert_eq!(*asked.lock().unwrap(), "/api/v1/applications?projects=shop");
}

#[tokio::test]
async fn too_many_children_are_refused_before_they_are_looked_up() {
    let child =
        |at: usize| json!({"group": "argoproj.io", "kind": "Application", "name": format!("web-{at}")});
    let resources: Vec<_> = (0..1001).map(child).collect();
    let app_of_apps = json!({"metadata": {"name": "web"}, "status": {"resources": resources}});
    let router = Router::new().route(
        "/api/v1/applications/web",
        get(|| async { axum::Json(app_of_apps) }),
    );
    let client = client(&serve(router).await);
    let error = client.children(&app()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.detail().contains("more than 1000"),
        "{error}"
    );
}

#[tokio::test]
async fn pages_routes_and_proxies_that_are_not_the_api_are_told() {
    type Case = (u16, &'static str, &'static str, ErrorKind, &'static str);
    let cases: [Case; 6] = [
        (200, "text/html", "<html>", ErrorKind::Protocol, "root path"),
        (
            404,
            "text/plain",
            "Not Found",
            ErrorKind::Unsupported,
            "no such route",
        ),
        (
            415,
            "text/plain",
            "Invalid content type",
            ErrorKind::Invalid,
            "Invalid content type",
        ),
        (403, "text/plain", "Forbidden", ErrorKind::Denied, "proxy"),
        (
            200,
            "application/json",
            "{\"metadata\":{\"na",
            ErrorKind::Unavailable,
            "breaks off",
        ),
        (
            200,
            "application/json",
            "{\"metadata\":7}",
            ErrorKind::Protocol,
            "metadata",
        ),
    ];
    for (status, kind, body, expected, text) in cases {
        let answer = move || async move {
            (
                StatusCode::from_u16(status).unwrap(),
                [("content-type", kind)],
                body,
            )
                .into_response()
        };
        let client = client(&serve(Router::new().fallback(any(answer))).await);
        let error = client.application(&app()).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(!format!("{error:?} {client:?}").contains("canary"));
    }
}

#[tokio::test]
async fn a_session_that_ended_is_opened_again_once_for_many() {
    let logins = Arc::new(AtomicU32::new(0));
    let count = logins.clone();
    let login = move || {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        async move { axum::Json(json!({"token": format!("s.{number}.t")})) }
    };
    let list = |headers: HeaderMap| async move {
        match headers["authorization"] == "Bearer s.2.t" {
            true => axum::Json(json!({"items": null})).into_response(),
            false => refuse(StatusCode::UNAUTHORIZED, 16, "invalid session: token is expired"),
        }
    };
    let router = Router::new()
        .route("/api/v1/session", post(login))
        .route("/api/v1/applications", get(list));
    let login = Login::Password {
        username: "ci".into(),
        password: Secret::new("canary"),
    };
    let client = ArgoCd::builder(&serve(router).await, login)
        .unwrap()
        .build()
        .unwrap();
    let filter = ListFilter::default();
    let lists = (0..8).map(|_| client.applications(&filter));
    for list in futures_util::future::join_all(lists).await {
        assert!(list.unwrap().items.is_empty());
    }
    assert_eq!(logins.load(Ordering::SeqCst), 2);
}

fn refuse(status: StatusCode, code: i64, message: &str) -> Response {
    (
        status,
        axum::Json(json!({"error": message, "code": code, "message": message})),
    )
        .into_response()
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_does_not_end_a_wait() {
    let looks = Arc::new(AtomicU32::new(0));
    let count = looks.clone();
    let answer = move || {
        let look = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match look {
                0..6 => refuse(StatusCode::SERVICE_UNAVAILABLE, 14, "restarting"),
                _ => refuse(StatusCode::UNAUTHORIZED, 16, "invalid session: token is expired"),
            }
        }
    };
    let base = serve(Router::new().fallback(any(answer))).await;
    let quick = RetryPolicy::default().between(Duration::from_millis(1), Duration::from_millis(2));
    let mut policy = towpath_argocd::WaitPolicy::default();
    policy.poll = Duration::from_millis(5);
    policy.gap = Duration::from_millis(1);
    let login = Login::Token(Secret::new("a.b.c"));
    let client = ArgoCd::builder(&base, login)
        .unwrap()
        .retry(quick)
        .wait_policy(policy)
        .build()
        .unwrap();
    let expected = Expected {
        application: app(),
        revision: "a".repeat(40).parse().unwrap(),
        images: vec![],
        platform_digests: vec![],
        within: Duration::from_secs(20),
        settle: Duration::ZERO,
    };
    // A token that ends during the wait is no trouble that passes.
    let error = client
        .wait(expected.clone(), &Cancellation::new())
        .await
        .unwrap_err();
    assert!(
        error.is_unauthenticated() && error.advice().unwrap().contains("make a new one"),
        "{error}"
    );

    looks.store(0, Ordering::SeqCst);
    let short = Expected {
        within: Duration::ZERO,
        ..expected
    };
    let report = client.wait(short, &Cancellation::new()).await.unwrap();
    assert_eq!(report.outcome, DeliveryOutcome::TimedOut);
    assert!(report.status.is_none());
}
