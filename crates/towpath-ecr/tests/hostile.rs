//! Registries that want something of the client: its credentials, its memory, its time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/serve.rs"]
mod serve;

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use serve::{Canary, Nobody, Seen, client, client_with, reply, repository, serve};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towpath_ecr::Digest;

/// A token server: Basic, or nothing, for `t0ken`.
async fn token_server() -> (SocketAddr, Seen) {
    serve(|_, _, headers, _| match headers.get("authorization") {
        Some(_) => reply(200, &[], r#"{"token":"t0ken","expires_in":300}"#),
        None => reply(401, &[], "who are you"),
    })
    .await
}

/// A registry whose tokens come from `elsewhere`, or from itself.
async fn registry(elsewhere: Option<SocketAddr>) -> (SocketAddr, Seen) {
    serve(move |_, path, headers, _| {
        let own: SocketAddr = headers["host"].to_str().unwrap().parse().unwrap();
        let authorization = headers.get("authorization").map(|value| value.to_str().unwrap());
        if path.starts_with("/token") {
            return match authorization {
                Some(basic) if basic.starts_with("Basic ") => {
                    reply(200, &[], r#"{"token":"t0ken","expires_in":300}"#)
                }
                _ => reply(401, &[], "who are you"),
            };
        }
        if authorization == Some("Bearer t0ken") {
            return reply(
                200,
                &[("docker-content-digest", Digest::sha256_of("x").as_str())],
                "",
            );
        }
        let realm = elsewhere.unwrap_or(own);
        let challenge =
            format!("Basic realm=\"old, clients\", Bearer realm=\"http://{realm}/token\",service=\"reg\"");
        reply(401, &[("www-authenticate", &challenge)], "")
    })
    .await
}

#[tokio::test]
async fn the_registrys_own_token_server_is_given_its_credentials_once() {
    let (address, seen) = registry(None).await;
    let client = client(Canary);
    let image = repository(address);
    let looks = (0..8).map(|_| client.manifest_digest(&image));
    for found in futures_util::future::join_all(looks).await {
        assert!(found.unwrap().is_some());
    }
    let tokens = |seen: &Seen| {
        let seen = seen.lock().unwrap();
        seen.iter()
            .filter(|(_, path, ..)| path.starts_with("/token"))
            .count()
    };
    assert_eq!(tokens(&seen), 1);
    // Another repository needs another token, and no refusal to know it.
    let before = seen.lock().unwrap().len();
    let other = format!("{address}/shop/api").parse().unwrap();
    client.manifest_digest(&other).await.unwrap();
    assert_eq!((tokens(&seen), seen.lock().unwrap().len()), (2, before + 2));
}

#[tokio::test]
async fn a_token_server_elsewhere_is_given_credentials_only_where_the_caller_names_it() {
    let (tokens, asked) = token_server().await;
    let (address, _) = registry(Some(tokens)).await;
    let image = repository(address);
    let error = client(Canary).manifest_digest(&image).await.unwrap_err();
    assert!(error.is_unauthenticated(), "{error}");
    assert!(error.advice().unwrap().contains("token_servers"), "{error:?}");
    {
        let asked = asked.lock().unwrap();
        assert!(!asked.is_empty());
        assert!(
            asked
                .iter()
                .all(|(_, _, headers, _)| !headers.contains_key("authorization"))
        );
    }
    let named = client_with(Canary, |settings| {
        let server = format!("http://{tokens}/").parse().unwrap();
        settings.token_servers.insert(image.registry().clone(), server);
    });
    assert!(named.manifest_digest(&image).await.unwrap().is_some());
}

#[tokio::test]
async fn a_token_server_cannot_send_the_credentials_on() {
    let (stranger, asked) = token_server().await;
    let (address, _) = serve(move |_, path, _, _| match path.starts_with("/token") {
        true => reply(307, &[("location", &format!("http://{stranger}/token"))], ""),
        false => reply(
            401,
            &[("www-authenticate", "Bearer realm=\"http://127.0.0.1/token\"")],
            "",
        ),
    })
    .await;
    // The realm names another port than the registry's, and the caller vouches for the registry only.
    let (home, _) = serve(move |_, path, _, _| match path.starts_with("/token") {
        true => reply(307, &[("location", &format!("http://{address}/token"))], ""),
        false => reply(
            401,
            &[(
                "www-authenticate",
                &format!("Bearer realm=\"http://{address}/token\""),
            )],
            "",
        ),
    })
    .await;
    for at in [address, home] {
        client(Canary).manifest_digest(&repository(at)).await.unwrap_err();
    }
    let asked = asked.lock().unwrap();
    assert!(
        asked
            .iter()
            .all(|(_, _, headers, _)| !headers.contains_key("authorization"))
    );
}

/// Answers every connection with `head` and then with `more` for ever.
async fn endless(head: &'static str, more: &'static str) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(head.as_bytes()).await;
                let more = more.repeat(1 << 10);
                while socket.write_all(more.as_bytes()).await.is_ok() {}
            });
        }
    });
    address
}

#[tokio::test]
async fn what_never_ends_is_ended() {
    let digest = Digest::sha256_of("x");
    let few = |address| {
        let client = client_with(Nobody, |settings| settings.attempts = 2);
        (client, repository(address))
    };
    let (client, image) = few(endless("HTTP/1.1 200 OK\r\n", "x-more: and more\r\n").await);
    assert!(client.manifest(&image).await.unwrap_err().is_unavailable());
    let (client, image) = few(endless(
        "HTTP/1.1 404 Not Found\r\ncontent-length: 9999999999\r\n\r\n",
        "no ",
    )
    .await);
    assert!(client.manifest(&image).await.unwrap().is_none());
    let (client, image) = few(endless("HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n", "{}").await);
    let error = client.manifest(&image).await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    let error = client
        .small_blob(&image, &digest, 1_000, 1_000)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("more bytes than its descriptor"),
        "{error}"
    );
    let error = client.referrers(&image, &digest).await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let (address, seen) = serve(|_, path, _, _| reply(307, &[("location", path)], "")).await;
    let error = client(Nobody).manifest(&repository(address)).await.unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
    assert!(seen.lock().unwrap().len() <= 6);
}

#[tokio::test]
async fn a_refusal_that_drips_does_not_hold_the_client() {
    let (address, _) = serve(|_, _, _, _| {
        let drips = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(b" ")));
        let drips = drips.then(|drip| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            drip
        });
        reply(403, &[], Body::from_stream(drips))
    })
    .await;
    let client = client_with(Nobody, |settings| {
        settings.idle_timeout = Duration::from_millis(50)
    });
    let error = client.manifest(&repository(address)).await.unwrap_err();
    assert!(error.is_denied(), "{error}");
}

#[tokio::test]
async fn a_part_that_begins_elsewhere_is_refused() {
    let content = b"0123456789".repeat(1_000);
    let digest = Digest::sha256_of(&content);
    let (address, _) = serve(move |_, _, headers, _| match headers.get("range") {
        None => {
            let pieces = [
                Ok(Bytes::from_static(b"0123456789")),
                Err(std::io::Error::other("cut")),
            ];
            let pieces = futures_util::stream::iter(pieces).then(|piece| async {
                if piece.is_err() {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                piece
            });
            reply(200, &[("content-length", "10000")], Body::from_stream(pieces))
        }
        Some(_) => reply(206, &[("content-range", "bytes 20-9999/10000")], "x"),
    })
    .await;
    let error = client(Nobody)
        .small_blob(&repository(address), &digest, 10_000, 10_000)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("begins at byte 20"), "{error}");
}
