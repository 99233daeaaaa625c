//! The transport against small servers that misbehave on purpose.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{any, get};
use futures_util::{StreamExt, TryStreamExt};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use towpath_core::{Retry, Secret, requests};
use towpath_elements::{ErrorKind, Result};
use towpath_http::{
    Authorization, Bearer, Call, HeaderName, HeaderValue, Idempotency, Method, RetryPolicy, Transport,
    TransportBuilder,
};

/// What a server was asked, and what it answers to the first, the second, … request; the last answer stays.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Vec<Response<String>>>,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Script {
    fn requests(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|(line, _)| line.clone())
            .collect()
    }

    fn header(&self, request: usize, name: &str) -> Option<String> {
        let value = self.seen.lock().unwrap()[request].1.get(name).cloned();
        value.map(|value| value.to_str().unwrap().to_owned())
    }
}

async fn play(State(script): State<Script>, request: Request) -> Response<Body> {
    let at = {
        let mut seen = script.seen.lock().unwrap();
        seen.push((
            format!("{} {}", request.method(), request.uri()),
            request.headers().clone(),
        ));
        seen.len() - 1
    };
    script.answers[at.min(script.answers.len() - 1)]
        .clone()
        .map(Body::from)
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Response<String> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.to_owned()).unwrap()
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn script(answers: Vec<Response<String>>) -> (String, Script) {
    let script = Script {
        answers: Arc::new(answers),
        ..Script::default()
    };
    let router = Router::new().fallback(any(play)).with_state(script.clone());
    (serve(router).await, script)
}

fn builder(base: &str) -> TransportBuilder {
    let quick = RetryPolicy::default()
        .attempts(3)
        .between(Duration::from_millis(1), Duration::from_millis(4))
        .seeded(1);
    Transport::builder("the server", base.parse().unwrap()).retry(quick)
}

fn canary() -> Bearer {
    Bearer::new(Secret::new("canary")).unwrap()
}

#[tokio::test]
async fn an_unavailable_server_is_asked_again_only_where_that_is_safe() {
    let busy = || answer(503, &[], "");
    let (base, seen) = script(vec![busy(), busy(), answer(200, &[], "done")]).await;
    let transport = builder(&base).build().unwrap();
    let (answer, sent) = requests::count(transport.send(Call::get("x"))).await;
    assert_eq!((answer.unwrap().body().as_ref(), sent), (&b"done"[..], 3));
    assert_eq!(seen.requests().len(), 3);

    let (base, seen) = script(vec![busy()]).await;
    let transport = builder(&base).build().unwrap();
    let error = transport
        .send(Call::post("x"))
        .await
        .unwrap()
        .success()
        .unwrap_err();
    assert_eq!((seen.requests().len(), error.retry()), (1, Retry::Later));
    let error = transport
        .send(Call::post("x").idempotent())
        .await
        .unwrap()
        .success()
        .unwrap_err();
    assert_eq!((seen.requests().len(), error.retry()), (4, Retry::Spent));
    assert!(error.is_unavailable(), "{error}");
}

#[tokio::test]
async fn a_refusal_before_any_work_is_safe_for_every_method() {
    for refusal in [answer(429, &[], ""), answer(503, &[("retry-after", "0")], "")] {
        let (base, seen) = script(vec![refusal, answer(201, &[], "")]).await;
        let transport = builder(&base).build().unwrap();
        assert_eq!(transport.send(Call::post("x")).await.unwrap().status(), 201);
        assert_eq!(seen.requests().len(), 2);
    }
}

#[tokio::test]
async fn more_time_than_the_policy_gives_is_the_callers_to_spend() {
    let (base, seen) = script(vec![answer(429, &[("retry-after", "3600")], "")]).await;
    let error = builder(&base)
        .build()
        .unwrap()
        .send(Call::get("x"))
        .await
        .unwrap()
        .failure();
    assert_eq!(error.retry(), Retry::After(Duration::from_secs(3600)));
    assert!(error.is_rate_limited());
    assert_eq!(seen.requests().len(), 1);
}

/// Accepts connections and, after reading something of each, drops them; counts them.
async fn hangs_up() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = connection.read(&mut [0; 64]).await;
        }
    });
    (base, count)
}

#[tokio::test]
async fn a_lost_connection_is_retried_unless_the_request_may_have_arrived() {
    let (base, connections) = hangs_up().await;
    let transport = builder(&base).build().unwrap();
    let error = transport.send(Call::get("x")).await.unwrap_err();
    assert_eq!(
        (connections.load(Ordering::SeqCst), error.retry()),
        (3, Retry::Spent)
    );
    let error = transport.send(Call::post("x")).await.unwrap_err();
    assert_eq!(
        (connections.load(Ordering::SeqCst), error.retry()),
        (4, Retry::Spent)
    );
    assert!(error.detail().contains("not known"), "{error}");

    // Nothing listens here: no request ever arrived, so that even a POST may try again.
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let transport = builder(&format!("http://{closed}")).build().unwrap();
    let (error, sent) = requests::count(transport.send(Call::post("x"))).await;
    let error = error.unwrap_err();
    assert_eq!(sent, 3);
    assert!(
        error.is_unavailable() && error.detail().contains("3 times"),
        "{error}"
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_is_fetched_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for body in ["half", "whole body"] {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 1024]).await;
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{body}");
            connection.write_all(text.as_bytes()).await.unwrap();
        }
    });
    let answer = builder(&base)
        .build()
        .unwrap()
        .send(Call::get("x"))
        .await
        .unwrap();
    assert_eq!(answer.body().as_ref(), b"whole body");
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_on() {
    let router = Router::new().fallback(any(std::future::pending::<&'static str>));
    let transport = builder(&serve(router).await).build().unwrap();
    let call = Call::get("x").timeout(Duration::from_millis(20)).attempts(2);
    let (error, sent) = requests::count(transport.send(call)).await;
    let error = error.unwrap_err();
    assert!(error.is_timed_out() && sent == 2, "{error}");
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let (other, at_other) = script(vec![answer(200, &[], "log")]).await;
    let (base, at_base) = script(vec![
        answer(307, &[("location", "/moved?x=1")], ""),
        answer(302, &[("location", &format!("{other}/log"))], ""),
    ])
    .await;
    let transport = builder(&base)
        .authorization(canary())
        .header(
            HeaderName::from_static("x-access"),
            HeaderValue::from_static("canary2"),
        )
        .build()
        .unwrap();
    let call = Call::get("start").header(
        HeaderName::from_static("cookie"),
        HeaderValue::from_static("a=canary3"),
    );
    assert_eq!(transport.send(call).await.unwrap().body().as_ref(), b"log");
    assert_eq!(at_base.requests(), ["GET /start", "GET /moved?x=1"]);
    for request in [0, 1] {
        assert_eq!(at_base.header(request, "authorization").unwrap(), "Bearer canary");
        assert_eq!(at_base.header(request, "x-access").unwrap(), "canary2");
    }
    transport.send(Call::get(format!("{other}/log"))).await.unwrap();
    for request in [0, 1] {
        for name in ["authorization", "x-access", "cookie"] {
            assert_eq!(at_other.header(request, name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn redirects_keep_or_drop_the_body_and_end() {
    let (base, seen) = script(vec![
        answer(303, &[("location", "/done")], ""),
        answer(200, &[], ""),
    ])
    .await;
    let transport = builder(&base).build().unwrap();
    transport
        .send(Call::post("x").body("text/plain", "hello"))
        .await
        .unwrap();
    assert_eq!(seen.requests(), ["POST /x", "GET /done"]);
    assert_eq!(seen.header(1, "content-type"), None);

    let (base, seen) = script(vec![answer(302, &[("location", "/again")], "")]).await;
    let error = builder(&base)
        .build()
        .unwrap()
        .send(Call::get("x"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), seen.requests().len()),
        (ErrorKind::Protocol, 6),
        "{error}"
    );

    let (other, at_other) = script(vec![answer(200, &[], "")]).await;
    let (base, _) = script(vec![answer(307, &[("location", &other)], "")]).await;
    let call = Call::put("x").body("text/plain", "secret");
    let error = builder(&base).build().unwrap().send(call).await.unwrap_err();
    assert!(
        error.detail().contains("another origin") && at_other.requests().is_empty(),
        "{error}"
    );

    for target in ["http://remote.example/", "file:///etc/passwd"] {
        let (base, _) = script(vec![answer(302, &[("location", target)], "")]).await;
        let error = builder(&base)
            .build()
            .unwrap()
            .send(Call::get("x"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
}

#[derive(Debug, Default)]
struct Minted(AtomicUsize);

#[async_trait]
impl Authorization for Minted {
    async fn authorization(&self) -> Result<HeaderValue> {
        Ok(HeaderValue::try_from(format!("Bearer t{}", self.0.load(Ordering::SeqCst))).unwrap())
    }

    async fn invalidate(&self, refused: &HeaderValue) -> bool {
        if *refused == self.authorization().await.unwrap() {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        true
    }
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let (base, seen) = script(vec![answer(401, &[], ""), answer(200, &[], "")]).await;
    let transport = builder(&base).authorization(Minted::default()).build().unwrap();
    assert_eq!(transport.send(Call::post("x")).await.unwrap().status(), 200);
    assert_eq!(seen.header(0, "authorization").unwrap(), "Bearer t0");
    assert_eq!(seen.header(1, "authorization").unwrap(), "Bearer t1");

    let (base, seen) = script(vec![answer(401, &[], "")]).await;
    let transport = builder(&base).authorization(Minted::default()).build().unwrap();
    assert!(
        transport
            .send(Call::get("x"))
            .await
            .unwrap()
            .failure()
            .is_unauthenticated()
    );
    assert_eq!(seen.requests().len(), 2);
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let (base, _) = hangs_up().await;
    let transport = builder(&base).authorization(canary()).build().unwrap();
    let call = Call::get("x?token=canary").query("key", "canary");
    let error = transport.send(call).await.unwrap_err();
    let seen = format!("{transport:?} {error} {error:?} {:?}", canary());
    assert!(!seen.contains("canary"), "{seen}");
    let error = Transport::builder("s", "https://me:canary@host/".parse().unwrap())
        .build()
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_set_up_says_why() {
    let refused = |base: &str| {
        let error = Transport::builder("s", base.parse().unwrap())
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    assert!(refused("http://cd.example.com").contains("use https://"));
    assert!(refused("ftp://cd.example.com").contains("https://"));
    let error = builder("https://cd.example.com")
        .root_certificates("no pem")
        .build()
        .unwrap_err();
    assert!(error.detail().contains("certificate"), "{error}");
    assert!(
        Transport::builder("s", "http://cd.example.com".parse().unwrap())
            .allow_plain_http(true)
            .build()
            .is_ok()
    );
}

#[tokio::test]
async fn a_long_answer_is_refused() {
    let (base, _) = script(vec![answer(200, &[], "0123456789")]).await;
    let transport = builder(&base).build().unwrap();
    assert!(transport.send(Call::get("x").longest_body(10)).await.is_ok());
    let error = transport.send(Call::get("x").longest_body(9)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    let chunked = || async {
        let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>("0123")).take(100);
        Body::from_stream(chunks)
    };
    let transport = builder(&serve(Router::new().route("/x", get(chunked))).await)
        .build()
        .unwrap();
    assert!(transport.send(Call::get("x").longest_body(399)).await.is_err());
    assert_eq!(transport.send(Call::get("x")).await.unwrap().body().len(), 400);
}

#[tokio::test]
async fn pages_are_followed_within_the_origin_and_never_in_a_circle() {
    let link = |target: &str| format!("<{target}>; rel=\"next\"");
    let page = |target: &str, body: &str| answer(200, &[("link", &link(target))], body);
    let (base, seen) = script(vec![
        page("/list?page=2", "a"),
        page("/list?page=3", "b"),
        answer(200, &[], "c"),
    ])
    .await;
    let transport = builder(&base).authorization(canary()).build().unwrap();
    let bodies: Vec<_> = transport
        .pages(Call::get("list").query("per", "1"), 10)
        .map_ok(|answer| String::from_utf8_lossy(answer.body()).into_owned())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(bodies, ["a", "b", "c"]);
    assert_eq!(
        seen.requests(),
        ["GET /list?per=1", "GET /list?page=2", "GET /list?page=3"]
    );

    for (target, why) in [
        ("/list?page=1", "circle"),
        ("https://other.example/", "another origin"),
    ] {
        let (base, _) = script(vec![page(target, "")]).await;
        let pages = builder(&base)
            .build()
            .unwrap()
            .pages(Call::get("list?page=1"), 10);
        let error = pages.try_collect::<Vec<_>>().await.unwrap_err();
        assert!(error.detail().contains(why), "{error}");
    }
    let (base, _) = script(vec![page("?page=2", ""), page("?page=3", "")]).await;
    let pages = builder(&base).build().unwrap().pages(Call::get("list"), 1);
    let error = pages.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(error.detail().contains("more than 1"), "{error}");
}

#[tokio::test]
async fn lines_and_events_come_as_they_are_sent_and_a_silence_ends_them() {
    let text = ["{\"a\"", ":1}\r\n{\"a\":2}", "\nlast"];
    let router = Router::new().route(
        "/lines",
        get(move || async move {
            Body::from_stream(futures_util::stream::iter(text.map(Ok::<_, std::io::Error>)))
        }),
    );
    let router = router.route(
        "/events",
        get(|| async {
            let first =
                futures_util::stream::iter([Ok::<_, std::io::Error>(": hi\n\ndata: 1\n\ndata: 2 \n\n\nda")]);
            (
                [("content-type", "text/event-stream")],
                Body::from_stream(first.chain(futures_util::stream::pending())),
            )
        }),
    );
    let transport = builder(&serve(router).await)
        .idle_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let lines: Vec<_> = transport
        .stream(Call::get("lines"))
        .await
        .unwrap()
        .lines()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(lines, ["{\"a\":1}", "{\"a\":2}", "last"]);

    let answer = transport.stream(Call::get("events")).await.unwrap();
    assert!(answer.is("text/event-stream"));
    let events: Vec<_> = answer.events().collect().await;
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].as_ref().unwrap().data, "1");
    assert!(events[2].as_ref().unwrap_err().is_timed_out());

    let missing = transport
        .stream(Call::get("none"))
        .await
        .unwrap()
        .into_answer()
        .await
        .unwrap();
    assert!(missing.failure().is_not_found());
}

#[tokio::test]
async fn requests_of_the_http_crate_go_the_same_way() {
    let (base, seen) = script(vec![answer(502, &[], ""), answer(200, &[("x-a", "1")], "ok")]).await;
    let transport = builder(&base).authorization(canary()).build().unwrap();
    let request = axum::http::Request::builder()
        .method(Method::GET)
        .uri("/repos?x=1")
        .header("host", "ignored.example")
        .body(Default::default())
        .unwrap();
    let response = transport.execute(request, Idempotency::ByMethod).await.unwrap();
    assert_eq!(
        (response.status(), response.headers()["x-a"].to_str().unwrap()),
        (StatusCode::OK, "1")
    );
    assert_eq!(seen.requests(), ["GET /repos?x=1", "GET /repos?x=1"]);
    assert_ne!(seen.header(0, "host").unwrap(), "ignored.example");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_what_is_secret() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let base = format!("http://{address}/root").parse().unwrap();
    let transport = Transport::builder("s", base)
        .retry(RetryPolicy::none())
        .build()
        .unwrap();
    let call = Call::get("path")
        .query("token", "hunter2")
        .attempting("read", "it");
    let error = transport.send(call).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let server = format!("no connection to http://{address}: ");
    assert!(error.detail().contains(&server), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}
