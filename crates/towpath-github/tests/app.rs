//! A GitHub App's installation: its tokens are made once for all who ask, and anew when they are refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod fixture;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fixture::{Fixture, json};
use serde_json::json;
use towpath_github::{AppInstallation, Credential, GitHub, Secret};

/// A key in the form in which GitHub gives one out: PKCS #1 (RFC 8017), in PEM.
fn key() -> Secret {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    // Within PKCS #8 that form is the last field, after 26 bytes that are the same for every key of this size.
    let pkcs1 = STANDARD.encode(&pkcs8.as_ref()[26..]);
    let lines: Vec<_> = pkcs1
        .as_bytes()
        .chunks(64)
        .map(str::from_utf8)
        .collect::<Result<_, _>>()
        .unwrap();
    Secret::new(format!(
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n",
        lines.join("\n")
    ))
}

fn app(server: &Fixture) -> GitHub {
    let app = AppInstallation {
        app: 7,
        private_key: key(),
        installation: 9,
    };
    GitHub::new(server.config().with_credential(Credential::App(app))).unwrap()
}

#[tokio::test]
async fn callers_who_need_a_token_at_once_share_one() {
    let server = Fixture::serve(|seen, before| match seen.line().as_str() {
        "POST /app/installations/9/access_tokens" => json(
            201,
            json!({"token": format!("ghs_canary{before}"), "expires_at": "2999-01-01T00:00:00Z"}),
        ),
        // The first token is refused once, as one is that the server has not heard of everywhere yet.
        _ if seen.headers["authorization"] == "Bearer ghs_canary0" => {
            json(401, json!({"message": "Bad credentials"}))
        }
        _ => json(200, json!({})),
    })
    .await;
    let github = app(&server);
    let other = github.clone();
    let (a, b, c) = tokio::join!(github.meta(), github.meta(), other.meta());
    assert!(a.is_ok() && b.is_ok() && c.is_ok(), "{a:?} {b:?} {c:?}");
    let minted: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|seen| seen.method == "POST")
        .collect();
    assert_eq!(minted.len(), 2, "one at first, one after the refusal");
    let jwt = minted[0].headers["authorization"].to_str().unwrap();
    assert_eq!(jwt.trim_start_matches("Bearer ").split('.').count(), 3);
    assert!(!format!("{github:?}").contains("canary"));
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_and_not_shown() {
    let server = Fixture::serve(|_, _| json(200, json!({}))).await;
    let app = AppInstallation {
        app: 7,
        private_key: Secret::new("-----BEGIN canary"),
        installation: 9,
    };
    let error = GitHub::new(server.config().with_credential(Credential::App(app))).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    assert!(server.seen().is_empty());
}
