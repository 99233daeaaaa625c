//! The distribution protocol against registries that misbehave: small servers of this file, written from the
//! specification and from what is known of Amazon ECR.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/serve.rs"]
mod serve;

use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use futures_util::{StreamExt, TryStreamExt};
use serve::{Canary, Nobody, Seen, client, client_with, reply, repository, serve};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use towpath_ecr::Digest;
use towpath_ecr::oci::{Blob, BlobSource, OciClient, OciSettings, Pushed};

fn credentials_seen(seen: &Seen) -> usize {
    let seen = seen.lock().unwrap();
    seen.iter()
        .filter(|(_, _, headers, _)| headers.contains_key("authorization"))
        .count()
}

#[tokio::test]
async fn credentials_do_not_follow_elsewhere() {
    let blob = Bytes::from_static(b"layer");
    let digest = Digest::sha256_of(&blob);
    let stored = blob.clone();
    let (elsewhere, stranger) = serve(move |method, path, _, _| match method.as_str() {
        "GET" if path.starts_with("/token") => reply(200, &[], r#"{"token":"from-a-stranger"}"#),
        "GET" => reply(200, &[], stored.clone()),
        _ => reply(201, &[], ""),
    })
    .await;
    let (home, own) = serve(move |method, path, _, _| {
        let to = |path: &str| format!("http://{elsewhere}{path}");
        match (method.as_str(), path) {
            ("GET", path) if path.contains("/blobs/") => reply(307, &[("location", &to("/bucket"))], ""),
            ("POST", _) => reply(202, &[("location", &to("/upload?state=1"))], ""),
            ("HEAD", path) if path.contains("/blobs/") => reply(404, &[], ""),
            _ => {
                let challenge = format!("Bearer realm=\"{}\",service=\"x\"", to("/token"));
                reply(401, &[("www-authenticate", &challenge)], "Not Authorized\n")
            }
        }
    })
    .await;
    let (client, repository) = (client(Canary), repository(home));
    let read = client.small_blob(&repository, &digest, 5, 100).await.unwrap();
    assert_eq!(read, blob);
    let pushed = client
        .push_blob(&repository, &Blob::from_bytes("new"))
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Sent);
    let error = client.manifest(&repository).await.unwrap_err();
    assert!(error.is_unauthenticated(), "{error}");
    assert!(credentials_seen(&own) >= 3);
    assert!(stranger.lock().unwrap().len() >= 3);
    assert_eq!(credentials_seen(&stranger), 0);
    assert!(!format!("{error} {error:?} {client:?}").contains("Y2Fu"));
}

#[tokio::test]
async fn a_challenge_is_answered_with_a_token_that_is_kept() {
    let (address, seen) = serve(|_, path, headers, _| {
        let host = headers["host"].to_str().unwrap();
        if path.starts_with("/token?service=reg&scope=repository%3Ashop%2Fweb%3Apull") {
            return reply(200, &[], r#"{"access_token":"t0ken","expires_in":300}"#);
        }
        match headers.get("authorization").map(|value| value.to_str().unwrap()) {
            Some("Bearer t0ken") => reply(
                200,
                &[("docker-content-digest", Digest::sha256_of("x").as_str())],
                "",
            ),
            _ => {
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"reg\"");
                reply(401, &[("www-authenticate", &challenge)], "")
            }
        }
    })
    .await;
    let client = client(Nobody);
    for _ in 0..3 {
        assert!(
            client
                .manifest_digest(&repository(address))
                .await
                .unwrap()
                .is_some()
        );
    }
    assert_eq!(seen.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn manifests_that_lie_are_refused() {
    let good = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let index = "application/vnd.oci.image.index.v1+json";
    let (address, _) = serve(move |_, path, _, _| match path.rsplit('/').next().unwrap() {
        "other-digest" => reply(
            200,
            &[
                ("content-type", index),
                ("docker-content-digest", Digest::sha256_of("x").as_str()),
            ],
            good,
        ),
        "other-type" => reply(
            200,
            &[("content-type", "application/vnd.oci.image.manifest.v1+json")],
            good,
        ),
        "endless" => reply(200, &[("content-type", index)], vec![b' '; (4 << 20) + 1]),
        "broken" => reply(200, &[("content-type", index)], "{\"schemaVersion\":"),
        "old" => reply(
            200,
            &[(
                "content-type",
                "application/vnd.docker.distribution.manifest.v1+json",
            )],
            "{}",
        ),
        digest if digest.starts_with("sha256:") => reply(200, &[("content-type", index)], good),
        _ => reply(
            200,
            &[(
                "content-type",
                "application/vnd.oci.image.index.v1+json; charset=utf-8",
            )],
            good,
        ),
    })
    .await;
    let (client, repository) = (client(Nobody), repository(address));
    let read = async |tag: &str| client.manifest(&repository.tagged(tag.parse().unwrap())).await;
    for (tag, reason) in [
        ("other-digest", "the bytes have the digest"),
        ("other-type", "was served as"),
        ("endless", "longer than"),
        ("broken", "not JSON"),
        ("old", "media type"),
    ] {
        let error = read(tag).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{tag}: {error}");
    }
    assert!(
        client
            .manifest(&repository.at(Digest::sha256_of("y")))
            .await
            .is_err()
    );
    assert_eq!(
        read("fine").await.unwrap().unwrap().digest,
        Digest::sha256_of(good)
    );
}

#[tokio::test]
async fn blobs_that_lie_are_refused() {
    let (address, _) = serve(|_, _, _, _| reply(200, &[], "0123456789")).await;
    let (client, repository) = (client(Nobody), repository(address));
    let right = Digest::sha256_of("0123456789");
    for (digest, size, reason) in [
        (right.clone(), 9, "more bytes than its descriptor"),
        (right.clone(), 11, "has 10 bytes, its descriptor says 11"),
        (Digest::sha256_of("x"), 10, "the bytes have the digest"),
    ] {
        let error = client
            .small_blob(&repository, &digest, size, 100)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert_eq!(
        client.small_blob(&repository, &right, 10, 100).await.unwrap(),
        "0123456789"
    );
    assert!(client.small_blob(&repository, &right, 10, 9).await.is_err());
}

#[tokio::test]
async fn a_cut_upload_goes_on_from_the_offset_and_sends_no_byte_twice() {
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let blob = Blob::from_bytes(content.clone());
    let had = 150_000;
    for chunk_status in [201, 202] {
        let (address, seen) = serve(move |method, path, headers, _| match method.as_str() {
            "HEAD" => reply(404, &[], ""),
            "POST" => reply(202, &[("location", "/v2/shop/web/blobs/uploads/7?state=a")], ""),
            "PUT" if headers["content-length"] != "0" => reply(502, &[], ""),
            "GET" => reply(204, &[("range", &format!("0-{}", had - 1))], ""),
            "PATCH" => reply(chunk_status, &[("location", "7?state=b")], ""),
            "PUT" if path.contains("state=b") && path.contains("digest=") => reply(201, &[], ""),
            _ => reply(400, &[], ""),
        })
        .await;
        let pushed = client(Nobody)
            .push_blob(&repository(address), &blob)
            .await
            .unwrap();
        assert_eq!(pushed, Pushed::Sent);
        let seen = seen.lock().unwrap();
        let methods: Vec<&str> = seen.iter().map(|(method, ..)| method.as_str()).collect();
        assert_eq!(methods, ["HEAD", "POST", "PUT", "GET", "PATCH", "PUT"]);
        let (_, _, headers, body) = &seen[4];
        assert_eq!(headers["content-range"], format!("{had}-{}", content.len() - 1));
        assert_eq!(body[..], content[had..]);
    }
}

#[tokio::test]
async fn a_session_that_is_gone_is_begun_anew_and_416_asks_again() {
    let blob = Blob::from_bytes(vec![7_u8; 1000]);
    let (address, seen) = serve(move |method, _, _, _| match method.as_str() {
        "HEAD" => reply(404, &[], ""),
        "POST" => reply(202, &[("location", "/v2/shop/web/blobs/uploads/7")], ""),
        "GET" => reply(404, &[], r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#),
        "PUT" => reply(
            416,
            &[],
            r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"First byte of the layer part is 0 instead of 5"}]}"#,
        ),
        _ => reply(400, &[], ""),
    })
    .await;
    let error = client(Nobody)
        .push_blob(&repository(address), &blob)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("instead of 5"), "{error}");
    let seen = seen.lock().unwrap();
    let begun = seen.iter().filter(|(method, ..)| *method == Method::POST).count();
    assert_eq!(begun, 5);
}

#[tokio::test]
async fn a_source_that_lies_is_named_and_not_tried_again() {
    let (lying, _) = serve(|_, _, _, _| reply(200, &[], "0123456789")).await;
    let (target, seen) = serve(|method, _, _, _| match method.as_str() {
        "HEAD" => reply(404, &[], ""),
        "POST" => reply(202, &[("location", "/v2/shop/web/blobs/uploads/7")], ""),
        _ => reply(400, &[], "cut"),
    })
    .await;
    let blob = Blob {
        digest: Digest::sha256_of("something else"),
        size: 10,
        source: BlobSource::Registry(client(Nobody).repository(&repository(lying))),
    };
    let error = client(Nobody)
        .push_blob(&repository(target), &blob)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the bytes have the digest"), "{error}");
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .filter(|(method, ..)| *method == Method::POST)
            .count()
            <= 1
    );
}

#[tokio::test]
async fn a_pull_that_breaks_goes_on_where_it_was() {
    let content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::sha256_of(&content);
    for ranges in [true, false] {
        let whole = content.clone();
        let (address, seen) = serve(move |_, _, headers, _| {
            let Some(range) = headers.get("range") else {
                // The first answer breaks in the middle.
                let half = Bytes::copy_from_slice(&whole[..70_000]);
                let pieces = [Ok(half), Err(std::io::Error::other("cut"))];
                let body = Body::from_stream(futures_util::stream::iter(pieces).then(|piece| async {
                    if piece.is_err() {
                        tokio::time::sleep(Duration::from_millis(30)).await;
                    }
                    piece
                }));
                return reply(200, &[("content-length", &whole.len().to_string())], body);
            };
            let from: usize = range
                .to_str()
                .unwrap()
                .trim_start_matches("bytes=")
                .trim_end_matches('-')
                .parse()
                .unwrap();
            match ranges {
                true => reply(206, &[], whole[from..].to_vec()),
                false => reply(200, &[], whole.clone()),
            }
        })
        .await;
        let client = client(Nobody);
        let stream = client
            .blob(&repository(address), &digest, content.len() as u64)
            .await
            .unwrap();
        let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(pieces.concat(), content);
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1].2["range"], "bytes=70000-");
    }
}

#[tokio::test]
async fn silence_ends_a_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            open.push(socket);
        }
    });
    let mut settings = OciSettings::default();
    settings.attempts = 2;
    settings.first_pause = Duration::from_millis(1);
    settings.idle_timeout = Duration::from_millis(20);
    let client = OciClient::new("the registry", Arc::new(Nobody), settings).unwrap();
    let error = client.manifest(&repository(address)).await.unwrap_err();
    assert!(error.is_timed_out() && !error.retry().can_help(), "{error:?}");
}

#[tokio::test]
async fn an_identical_digest_on_an_immutable_tag_is_success_even_when_looks_race() {
    let manifest = towpath_ecr::oci::Manifest::read(
        "application/vnd.oci.image.index.v1+json",
        Bytes::from_static(br#"{"schemaVersion":2,"manifests":[]}"#),
    )
    .unwrap();
    let digest = manifest.digest.to_string();
    let looks = Arc::new(Mutex::new(0));
    let (address, _) = serve(move |method, _, _, _| {
        if method == Method::HEAD {
            let mut looks = looks.lock().unwrap();
            *looks += 1;
            return match *looks {
                1 => StatusCode::NOT_FOUND.into_response(),
                _ => reply(200, &[("docker-content-digest", &digest)], ""),
            };
        }
        let refusal = r#"{"errors":[{"code":"TAG_INVALID","message":"The image tag '1' already exists"}]}"#;
        reply(400, &[], refusal)
    })
    .await;
    let tag = "1".parse().unwrap();
    client(Nobody)
        .put_tag(&repository(address), &tag, &manifest)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_blob_goes_in_parts_where_it_should() {
    let content: Vec<u8> = (0..25_000_u32).flat_map(u32::to_le_bytes).collect();
    let blob = Blob::from_bytes(content.clone());
    // What is set, what the registry wants at least, and the parts that follow from both.
    for (chunk, least, parts) in [
        (40_000, "", vec![40_000, 40_000, 20_000]),
        (40_000, "60000", vec![60_000, 40_000]),
        (100_000, "", vec![]),
    ] {
        let (address, seen) = serve(move |method, _, _, _| match method.as_str() {
            "HEAD" => reply(404, &[], ""),
            "POST" => reply(
                202,
                &[("location", "/up/7?a=b"), ("oci-chunk-min-length", least)],
                "",
            ),
            // As Amazon ECR does it: 201, and the same place for the whole session.
            "PATCH" => reply(201, &[], ""),
            "PUT" => reply(201, &[], ""),
            _ => reply(400, &[], ""),
        })
        .await;
        let client = client_with(Nobody, |settings| settings.chunk = Some(chunk));
        client.push_blob(&repository(address), &blob).await.unwrap();
        let seen = seen.lock().unwrap();
        let patches: Vec<_> = seen
            .iter()
            .filter(|(method, ..)| *method == Method::PATCH)
            .collect();
        let sizes: Vec<usize> = patches.iter().map(|(_, _, _, body)| body.len()).collect();
        assert_eq!(sizes, parts);
        let mut all: Vec<u8> = patches.iter().flat_map(|(_, _, _, body)| body.to_vec()).collect();
        let mut at = 0;
        for (_, _, headers, body) in patches {
            assert_eq!(headers["content-range"], format!("{at}-{}", at + body.len() - 1));
            at += body.len();
        }
        let (method, path, _, body) = seen.last().unwrap();
        assert!(
            *method == Method::PUT && path.starts_with("/up/7?a=b&digest=sha256%3A"),
            "{path}"
        );
        all.extend_from_slice(body);
        assert_eq!(all, content);
    }
}

#[tokio::test]
async fn a_part_that_is_taken_in_part_goes_on_there() {
    let content: Vec<u8> = (0..10_000_u32).flat_map(u32::to_le_bytes).collect();
    let (address, seen) = serve(move |method, _, headers, _| match method.as_str() {
        "HEAD" => reply(404, &[], ""),
        "POST" => reply(202, &[("location", "/up/7")], ""),
        "PATCH" if headers["content-range"] == "0-29999" => {
            reply(202, &[("location", "/up/7"), ("range", "0-9999")], "")
        }
        "PATCH" => reply(202, &[("location", "/up/7")], ""),
        "PUT" => reply(201, &[], ""),
        _ => reply(400, &[], ""),
    })
    .await;
    let client = client_with(Nobody, |settings| settings.chunk = Some(30_000));
    client
        .push_blob(&repository(address), &Blob::from_bytes(content))
        .await
        .unwrap();
    let seen = seen.lock().unwrap();
    let ranges: Vec<&str> = seen
        .iter()
        .filter_map(|(_, _, headers, _)| headers.get("content-range")?.to_str().ok())
        .collect();
    assert_eq!(ranges, ["0-29999", "10000-39999"]);
}

#[tokio::test]
async fn a_front_that_takes_no_large_body_is_explained() {
    let (address, _) = serve(|method, _, _, _| match method.as_str() {
        "HEAD" => reply(404, &[], ""),
        "POST" => reply(202, &[("location", "/up/7")], ""),
        _ => reply(413, &[], "<html>too large</html>"),
    })
    .await;
    let error = client(Nobody)
        .push_blob(&repository(address), &Blob::from_bytes("x"))
        .await
        .unwrap_err();
    assert!(error.advice().unwrap().contains("OciSettings::chunk"), "{error}");
}
