//! What the client makes of answers that are broken, strange, late, or not the service's at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use towpath_argocd::{
    ApiError, Application, ApplicationSetFilter, ArgoCd, ListFilter, LogRequest, Login, Refresh, RetryPolicy,
    Secret, SyncRequest, wire,
};
use towpath_elements::{Error, ErrorKind};
use towpath_lab::Fault;
use towpath_lab::argocd::ArgoCdConfig;

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

/// A server that answers everything alike.
async fn always(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> ArgoCd {
    let answer = move || {
        let answer = answer();
        async move { answer }
    };
    client(&serve(Router::new().fallback(any(answer))).await)
}

fn client(base: &str) -> ArgoCd {
    let login = Login::Token(Secret::new("can.ary.canary"));
    ArgoCd::builder(base, login)
        .unwrap()
        .retry(RetryPolicy::none())
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

fn app() -> Application {
    "shop/web".parse().unwrap()
}

type Call = (&'static str, BoxFuture<'static, Result<(), Error>>);

/// Calls that read JSON, of each kind.
fn calls(client: &ArgoCd) -> Vec<Call> {
    macro_rules! call {
        ($name:literal, |$client:ident| $call:expr) => {{
            let $client = client.clone();
            let future: BoxFuture<'static, Result<(), Error>> =
                Box::pin(async move { $call.await.map(|_| ()) });
            ($name, future)
        }};
    }
    vec![
        call!("application", |c| c.application(&app())),
        call!("applications", |c| c.applications(&ListFilter::default())),
        call!("sync", |c| c.sync_application(&app(), &SyncRequest::default())),
        call!("tree", |c| c.resource_tree(&app())),
        call!("managed", |c| c.managed_resources(&app())),
        call!("manifests", |c| c.manifests(&app(), None)),
        call!("events", |c| c.events(&app())),
        call!("windows", |c| c.sync_windows(&app())),
        call!("actions", |c| c
            .resource_actions(&app(), &wire::ResourceNode::default())),
        call!("accounts", |c| c.accounts()),
        call!("token", |c| c.create_account_token("ci", None, None)),
        call!("project", |c| c.project("shop")),
        call!("details", |c| c.project_details("shop")),
        call!("sets", |c| c.application_sets(&ApplicationSetFilter::default())),
        call!("set", |c| c.application_set("shop", None)),
        call!(
            "capabilities",
            |c| async move { c.capabilities().await.map(|_| ()) }
        ),
        call!("settings", |c| c.settings()),
    ]
}

async fn each(client: &ArgoCd, kind: ErrorKind, why: &str) {
    for (name, call) in calls(client) {
        let error = call.await.expect_err(name);
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(why), "{name}: {error}");
        assert!(!format!("{error:?}").contains("canary"), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_answer() {
    let client = always(|| {
        let json = [(header::CONTENT_TYPE, "application/json")];
        (json, "{\"metadata\":{\"na").into_response()
    })
    .await;
    each(&client, ErrorKind::Unavailable, "breaks off").await;
}

#[tokio::test]
async fn what_is_not_as_expected_is_named_and_not_shown() {
    let client = always(|| axum::Json(json!("canary")).into_response()).await;
    each(&client, ErrorKind::Protocol, "not as expected").await;
    let client =
        always(|| axum::Json(json!({"items": "canary", "metadata": "canary"})).into_response()).await;
    let error = client.applications(&ListFilter::default()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("items"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("canary"));
}

#[tokio::test]
async fn a_page_for_people_is_no_answer() {
    let page = || axum::response::Html("<!doctype html><title>Log in</title>").into_response();
    each(&always(page).await, ErrorKind::Protocol, "root path").await;
    let error = always(page)
        .await
        .logs(&app(), &LogRequest::default())
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("root path"),
        "{error}"
    );
}

/// The limit is the transport's: 64 MiB.
#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let announced = || {
        let body = Body::from_stream(stream::repeat_with(|| {
            Ok::<_, Infallible>(Bytes::from_static(b"["))
        }));
        ([(header::CONTENT_LENGTH, (65u64 << 20).to_string())], body).into_response()
    };
    let unannounced = || {
        let megabyte = Bytes::from(vec![b'['; 1 << 20]);
        let body = stream::repeat(megabyte).map(Ok::<_, Infallible>);
        Body::from_stream(body).into_response()
    };
    for client in [always(announced).await, always(unannounced).await] {
        let error = client.application(&app()).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Protocol && error.to_string().contains("longer than"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_timed_out() {
    let never = || async { std::future::pending::<Response>().await };
    let base = serve(Router::new().fallback(any(never))).await;
    let client = ArgoCd::builder(&base, Login::Anonymous)
        .unwrap()
        .retry(RetryPolicy::none())
        .timeout(Duration::from_millis(30))
        .build()
        .unwrap();
    each(&client, ErrorKind::TimedOut, "no whole answer within").await;
    let within = Duration::from_millis(20);
    let error = client
        .refreshed(&app(), Refresh::Normal, within)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let error = client
        .logs(&app(), &LogRequest::default())
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn strange_words_and_nulls_are_taken() {
    let strange = || {
        axum::Json(json!({
            "metadata": {"name": "web", "namespace": null, "uid": null, "resourceVersion": null, "deletionTimestamp": null,
                "labels": null, "annotations": null, "finalizers": null, "ownerReferences": null},
            "spec": {"project": "shop", "source": null, "sources": null, "sourceHydrator": null, "destination": null,
                "syncPolicy": {"automated": null, "syncOptions": null}},
            "operation": null,
            "status": {
                "sync": {"status": "Sideways", "revision": null, "revisions": null, "comparedTo": null},
                "health": {"status": "Woozy", "message": null, "lastTransitionTime": null},
                "reconciledAt": null, "conditions": [{"type": "OddWarning", "message": null}], "history": null,
                "operationState": {"operation": null, "phase": "Dreaming", "message": null, "syncResult": null,
                    "startedAt": null, "finishedAt": null, "retryCount": null},
                "resources": [{"kind": "Pod", "version": null, "group": null, "namespace": null, "name": null,
                    "status": "Askew", "health": {"status": null}, "requiresPruning": null}],
                "summary": null, "sourceHydrator": null,
            },
            "somethingNew": {"a": [1]},
        }))
        .into_response()
    };
    let seen = always(strange).await.application(&app()).await.unwrap();
    assert_eq!(seen.status.sync.status.to_string(), "Sideways");
    assert_eq!(seen.status.health.status.to_string(), "Woozy");
    let state = seen.status.operation_state.unwrap();
    assert!(state.phase.to_string() == "Dreaming" && !state.phase.has_ended());
    assert_eq!(
        seen.status.resources[0].status,
        wire::SyncStatusCode::Other("Askew".into())
    );
    assert!(!seen.spec.syncs_itself());

    // Go leaves out what is empty, or says null.
    for empty in [json!({}), nulls()] {
        let client = always(move || axum::Json(empty.clone()).into_response()).await;
        for (name, call) in calls(&client) {
            match name {
                // A token that is none is no answer.
                "token" => assert_eq!(call.await.unwrap_err().kind(), ErrorKind::Protocol),
                "capabilities" => {}
                name => call.await.unwrap_or_else(|error| panic!("{name}: {error}")),
            }
        }
    }
}

fn nulls() -> Value {
    let names = [
        "metadata",
        "spec",
        "status",
        "operation",
        "items",
        "nodes",
        "manifests",
        "revision",
        "sourceType",
        "activeWindows",
        "assignedWindows",
        "canSync",
        "actions",
        "project",
        "globalProjects",
        "repositories",
        "clusters",
        "url",
        "controllerNamespace",
        "appsInAnyNamespaceEnabled",
        "applications",
        "windows",
        "token",
    ];
    names
        .into_iter()
        .map(|name| (name.to_owned(), Value::Null))
        .collect()
}

/// A server whose log comes in these pieces.
async fn log(pieces: Vec<Vec<u8>>) -> Vec<Result<String, Error>> {
    let answer = move || {
        let pieces = pieces.clone();
        async move {
            let pieces = stream::iter(pieces).then(|piece| async {
                // Each piece is a piece for the client too.
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok::<_, Infallible>(Bytes::from(piece))
            });
            (
                [(header::CONTENT_TYPE, "application/json")],
                Body::from_stream(pieces),
            )
                .into_response()
        }
    };
    let client = client(&serve(Router::new().fallback(any(answer))).await);
    let lines = client.logs(&app(), &LogRequest::default()).await.unwrap();
    lines.map(|line| line.map(|line| line.content)).collect().await
}

fn line(content: &str, last: bool) -> String {
    format!(
        "{}\n",
        json!({"result": {"content": content, "podName": "web-1", "last": last}})
    )
}

#[tokio::test]
async fn a_log_may_be_cut_anywhere_between_its_lines_bytes() {
    let whole = line("Grüße 🚢 aus der Zelle", false) + &line("", true);
    for size in [1, 2, 3, 7] {
        let pieces = whole.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
        let lines = log(pieces).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0].as_ref().unwrap(), "Grüße 🚢 aus der Zelle");
    }
}

#[tokio::test]
async fn a_log_that_breaks_off_is_not_taken_for_a_whole_one() {
    let first = line("one", false);
    let second = line("Grüße", false);
    let within_a_character = first.clone() + &second;
    let cut = within_a_character.find('ü').unwrap() + 1;
    for broken in [
        within_a_character.as_bytes()[..cut].to_vec(),
        first.clone().into_bytes(),
    ] {
        let lines = log(vec![broken]).await;
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0].as_ref().unwrap(), "one");
        let error = lines[1].as_ref().unwrap_err();
        assert!(
            error.kind() == ErrorKind::Unavailable && error.detail().contains("before the log did"),
            "{error}"
        );
    }
    // No pods are no words, and that is an end.
    assert!(log(vec![]).await.is_empty());
}

#[tokio::test]
async fn errors_in_a_log_end_it() {
    let failure = json!({"error": {"grpc_code": 7, "http_code": 403, "http_status": "Forbidden",
        "message": "permission denied: logs, get, shop/web, sub: x, iat: y"}});
    let cases = [
        (failure.to_string(), ErrorKind::Denied, "logs, get"),
        (format!("{failure}\n"), ErrorKind::Denied, "logs, get"),
        ("canary\n".into(), ErrorKind::Protocol, "column 1"),
        (
            "{\"result\":\"canary\"}\n".into(),
            ErrorKind::Protocol,
            "not as expected",
        ),
        (
            line(&"x".repeat(1 << 20), false),
            ErrorKind::Protocol,
            "longer than",
        ),
        ("x".repeat((1 << 20) + 2), ErrorKind::Protocol, "longer than"),
    ];
    for (bad, kind, why) in cases {
        let mut pieces = vec![line("one", false).into_bytes(), bad.clone().into_bytes()];
        if bad.ends_with('\n') {
            pieces.push(line("two", true).into_bytes());
        }
        let lines = log(pieces).await;
        assert_eq!(lines.len(), 2, "{why}");
        let error = lines[1].as_ref().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(
            error.detail().contains(why) && !error.to_string().contains("canary"),
            "{error}"
        );
    }
    let invalid = [b"{\"result\":{\"content\":\"", &[0xff, 0xfe][..], b"\"}}\n"].concat();
    let lines = log(vec![invalid]).await;
    assert_eq!(lines[0].as_ref().unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a_silent_log_is_timed_out() {
    let silent = || async {
        let first = stream::once(async { Ok::<_, Infallible>(Bytes::from(line("one", false))) });
        Body::from_stream(first.chain(stream::pending())).into_response()
    };
    let client = client(&serve(Router::new().fallback(any(silent))).await);
    let request = LogRequest {
        follow: true,
        silence: Some(Duration::from_millis(30)),
        ..LogRequest::default()
    };
    let lines: Vec<_> = client.logs(&app(), &request).await.unwrap().collect().await;
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1].as_ref().unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn credentials_do_not_follow_to_a_login_page_elsewhere() {
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let log = seen.clone();
    let page = move |request: Request| {
        log.lock().unwrap().push(request.headers().clone());
        async { axum::response::Html("<!doctype html><title>Log in</title>") }
    };
    let elsewhere = serve(Router::new().fallback(any(page))).await;
    let target = format!("{elsewhere}/login?next=1");
    let redirect = move || {
        let target = target.clone();
        async move { (StatusCode::FOUND, [(header::LOCATION, target)]) }
    };
    let client = client(&serve(Router::new().fallback(any(redirect))).await);
    let read = client.application(&app()).await.unwrap_err();
    assert!(
        read.kind() == ErrorKind::Protocol && read.advice().unwrap().contains("login page"),
        "{read}"
    );
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert!(!format!("{seen:?}").contains("canary") && !seen[0].contains_key("authorization"));
}

#[tokio::test]
async fn a_root_path_goes_in_front_of_everything() {
    let lab = towpath_lab::argocd::ArgoCd::start(ArgoCdConfig {
        root_path: "/argo-cd".into(),
        ..ArgoCdConfig::default()
    })
    .await
    .unwrap();
    let login = || Login::Token(lab.token().clone());
    let good = ArgoCd::builder(lab.url(), login()).unwrap().build().unwrap();
    assert!(lab.url().ends_with("/argo-cd"));
    assert!(good.user_info().await.unwrap().logged_in);
    assert_eq!(good.capabilities().await.unwrap().release(), Some((3, 5)));
    let password = Login::Password {
        username: "admin".into(),
        password: Secret::new("lab-admin"),
    };
    let admin = ArgoCd::builder(lab.url(), password).unwrap().build().unwrap();
    admin.applications(&ListFilter::default()).await.unwrap();
    let wrong = format!("http://{}/other", lab.address());
    let wrong = ArgoCd::builder(&wrong, login()).unwrap().build().unwrap();
    let error = wrong.applications(&ListFilter::default()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.advice().unwrap().contains("root path"),
        "{error}"
    );
    let none = format!("http://{}", lab.address());
    let none = ArgoCd::builder(&none, login()).unwrap().build().unwrap();
    assert_eq!(none.version().await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn refusals_of_the_service_and_of_what_stands_before_it() {
    let lab = towpath_lab::argocd::ArgoCd::start(ArgoCdConfig::default())
        .await
        .unwrap();
    let with = |login| {
        ArgoCd::builder(lab.url(), login)
            .unwrap()
            .retry(RetryPolicy::none())
            .build()
            .unwrap()
    };
    let client = with(Login::Token(lab.token().clone()));
    let gateway =
        |code: i64, message: &str| json!({"error": message, "code": code, "message": message}).to_string();
    let deadline = "application refresh deadline exceeded";
    for (status, body, kind, code) in [
        (400, gateway(3, "bad revision"), ErrorKind::Invalid, Some(3)),
        (
            400,
            gateway(9, "another operation is already in progress"),
            ErrorKind::Conflict,
            Some(9),
        ),
        (
            403,
            gateway(7, "cannot sync: blocked by sync window"),
            ErrorKind::Denied,
            Some(7),
        ),
        (408, gateway(1, "context canceled"), ErrorKind::TimedOut, Some(1)),
        (409, gateway(6, "already exists"), ErrorKind::Conflict, Some(6)),
        (429, gateway(8, "slow down"), ErrorKind::RateLimited, Some(8)),
        (500, gateway(2, deadline), ErrorKind::Unavailable, Some(2)),
        (500, gateway(13, "panic"), ErrorKind::Unavailable, Some(13)),
        (
            501,
            gateway(12, "no such method"),
            ErrorKind::Unsupported,
            Some(12),
        ),
        (
            503,
            gateway(14, "transport is closing"),
            ErrorKind::Unavailable,
            Some(14),
        ),
        (504, gateway(4, "deadline exceeded"), ErrorKind::TimedOut, Some(4)),
        (404, "Not Found\n".into(), ErrorKind::Unsupported, None),
        (405, "Method Not Allowed\n".into(), ErrorKind::Unsupported, None),
        (415, "Invalid content type\n".into(), ErrorKind::Invalid, None),
        (429, "Too many requests".into(), ErrorKind::RateLimited, None),
        (502, "bad gateway".into(), ErrorKind::Unavailable, None),
        (503, "no healthy upstream".into(), ErrorKind::Unavailable, None),
        (504, "upstream request timeout".into(), ErrorKind::TimedOut, None),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        lab.faults()
            .inject(Fault::respond("/api/v1/applications/web", status, body.clone()));
        let error = client.application(&app()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {body}: {error}");
        let said = ApiError::of(&error).unwrap();
        assert_eq!((said.http, said.code), (status.as_u16(), code), "{error}");
        assert!(
            body.contains(&said.message) && !said.message.is_empty(),
            "{error}"
        );
    }
    // The same, as the lab itself says it.
    let missing = client
        .application(&"default/web".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(ApiError::of(&missing).unwrap().http, 404);
    let hidden = client.application(&"web".parse().unwrap()).await.unwrap_err();
    assert!(hidden.is_not_found() && ApiError::of(&hidden).unwrap().is_bare_denial());
    for (login, advice) in [
        (Login::Anonymous, "no token that the server recognises"),
        (
            Login::Token(Secret::new("e30.e30.c2ln")),
            "expired or was revoked",
        ),
    ] {
        let error = with(login)
            .applications(&ListFilter::default())
            .await
            .unwrap_err();
        assert!(
            error.is_unauthenticated() && error.advice().unwrap().contains(advice),
            "{error}"
        );
    }
}
