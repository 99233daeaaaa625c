//! The pull-through cache at wire level: rules with secrets, upstreams with accounts, and what is answered where something
//! is in the way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ecr_common;

use ecr_common::{INDEX, Lab, code, code_of, error_of};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use std::time::Duration;
use towpath_core::{Digest, Secret};
use towpath_lab::ecr::{
    EcrConfig, ImageSeed, SecretFault, Upstream, UpstreamConfig, UpstreamKind, UpstreamTrouble,
};

const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ecr-pullthroughcache/hub-a1B2c3";

async fn world(kind: UpstreamKind) -> (Lab, Upstream) {
    let upstream = Upstream::start(UpstreamConfig::new(kind)).await.unwrap();
    upstream
        .seed_image("library/nginx", "1", &ImageSeed::base())
        .unwrap();
    upstream.add_account("acme", &Secret::new("access-token"));
    let config = EcrConfig {
        upstreams: vec![(kind.host().to_owned(), upstream.address())],
        ..EcrConfig::default()
    };
    let lab = Lab::start(config).await;
    lab.ecr.put_secret(SECRET, "acme", &Secret::new("access-token"));
    (lab, upstream)
}

fn hub(more: Value) -> Value {
    let mut rule = json!({"ecrRepositoryPrefix": "hub", "upstreamRegistryUrl": "registry-1.docker.io"});
    rule.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    rule
}

async fn with_rule() -> (Lab, Upstream) {
    let (lab, upstream) = world(UpstreamKind::DockerHub).await;
    lab.call(
        "CreatePullThroughCacheRule",
        hub(json!({"credentialArn": SECRET})),
    )
    .await;
    (lab, upstream)
}

fn children(index: &Value) -> Vec<Digest> {
    let listed = index["manifests"].as_array().unwrap();
    listed
        .iter()
        .map(|child| child["digest"].as_str().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test]
async fn rules_are_checked_as_the_model_says() {
    let (lab, _hub) = world(UpstreamKind::DockerHub).await;
    let short = "arn:aws:secretsmanager:a:1:secret:ecr-pullthroughcache/x";
    let peer = "210987654321.dkr.ecr.eu-west-1.amazonaws.com";
    let own = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    for (rule, kind) in [
        (hub(json!({})), "UnsupportedUpstreamRegistryException"),
        (
            hub(json!({"credentialArn": short.replace("ecr-pullthroughcache", "other")})),
            "InvalidParameterException",
        ),
        (
            hub(json!({"credentialArn": SECRET.replace("hub", "none")})),
            "SecretNotFoundException",
        ),
        (
            hub(json!({"upstreamRegistry": "quay", "credentialArn": SECRET})),
            "InvalidParameterException",
        ),
        (
            hub(json!({"ecrRepositoryPrefix": "a", "credentialArn": SECRET})),
            "InvalidParameterException",
        ),
        (
            hub(json!({"upstreamRepositoryPrefix": "_", "credentialArn": SECRET})),
            "InvalidParameterException",
        ),
        (
            hub(
                json!({"ecrRepositoryPrefix": "ROOT", "upstreamRepositoryPrefix": "library", "credentialArn": SECRET}),
            ),
            "ValidationException",
        ),
        (
            hub(json!({"upstreamRegistryUrl": "gcr.io"})),
            "UnsupportedUpstreamRegistryException",
        ),
        (
            hub(json!({"upstreamRegistryUrl": peer})),
            "UnsupportedUpstreamRegistryException",
        ),
    ] {
        assert_eq!(
            lab.refused("CreatePullThroughCacheRule", rule.clone()).await,
            kind,
            "{rule}"
        );
    }
    for (fault, kind) in [
        (SecretFault::NotAccessible, "UnableToAccessSecretException"),
        (SecretFault::NotDecryptable, "UnableToDecryptSecretValueException"),
    ] {
        lab.ecr.spoil_secret(SECRET, Some(fault));
        let rule = hub(json!({"credentialArn": SECRET}));
        assert_eq!(lab.refused("CreatePullThroughCacheRule", rule).await, kind);
    }
    lab.ecr.spoil_secret(SECRET, None);
    let role = "arn:aws:iam::123456789012:role/cache";
    for rule in [
        hub(json!({"credentialArn": SECRET})),
        hub(json!({"ecrRepositoryPrefix": "own", "upstreamRegistryUrl": own})),
        hub(json!({"ecrRepositoryPrefix": "peer", "upstreamRegistryUrl": peer, "customRoleArn": role})),
    ] {
        lab.call("CreatePullThroughCacheRule", rule).await;
    }
    let update = |arn: &str| json!({"ecrRepositoryPrefix": "hub", "credentialArn": arn});
    let none = SECRET.replace("hub", "none");
    assert_eq!(
        lab.refused("UpdatePullThroughCacheRule", update(&none)).await,
        "SecretNotFoundException"
    );
    lab.ecr.put_secret(&none, "acme", &Secret::new("other"));
    assert_eq!(
        lab.call("UpdatePullThroughCacheRule", update(&none)).await["credentialArn"],
        none.as_str()
    );
    for at in 3..50 {
        let rule = json!({"ecrRepositoryPrefix": format!("quay-{at}"), "upstreamRegistryUrl": "quay.io"});
        lab.call("CreatePullThroughCacheRule", rule).await;
    }
    let one_more = json!({"ecrRepositoryPrefix": "one-more", "upstreamRegistryUrl": "quay.io"});
    assert_eq!(
        lab.refused("CreatePullThroughCacheRule", one_more).await,
        "LimitExceededException"
    );
}

#[tokio::test]
async fn a_rule_is_valid_where_its_secret_opens_the_upstream() {
    let (lab, upstream) = with_rule().await;
    let validate = async || {
        let answer = lab
            .call(
                "ValidatePullThroughCacheRule",
                json!({"ecrRepositoryPrefix": "hub"}),
            )
            .await;
        (
            answer["isValid"].as_bool().unwrap(),
            answer["failure"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(validate().await, (true, String::new()));
    upstream.add_account("acme", &Secret::new("rotated"));
    let (valid, failure) = validate().await;
    assert!(
        !valid && failure.contains("authentication to the upstream registry failed"),
        "{failure}"
    );
    lab.ecr.spoil_secret(SECRET, Some(SecretFault::NotAccessible));
    let (valid, failure) = validate().await;
    assert!(!valid && failure.contains("unable to be accessed"), "{failure}");
    lab.ecr.put_secret(SECRET, "acme", &Secret::new("rotated"));
    upstream.set_trouble(Some(UpstreamTrouble::Down));
    let (valid, failure) = validate().await;
    assert!(!valid && failure.contains("cannot be reached"), "{failure}");
    upstream.set_trouble(None);
    assert_eq!(validate().await, (true, String::new()));
}

#[tokio::test]
async fn an_upstream_with_accounts_is_read_with_the_secret() {
    let (lab, upstream) = with_rule().await;
    upstream
        .seed_image("acme/private", "1", &ImageSeed::base())
        .unwrap();
    upstream.make_private("acme/private");
    for path in ["hub/library/nginx/manifests/1", "hub/acme/private/manifests/1"] {
        assert_eq!(lab.get(path).await.status(), StatusCode::OK, "{path}");
    }
    // A short name has no `library/` in front of it here; Docker Hub does not tell that from a private image.
    let (status, short, message) = error_of(lab.get("hub/nginx/manifests/1").await).await;
    assert_eq!((status, short.as_str()), (403, "DENIED"));
    assert!(
        message.contains("authentication to the upstream registry failed"),
        "{message}"
    );
    let ids = json!({"repositoryName": "hub/library/nginx", "imageIds": [{"imageTag": "none"}]});
    let failure = async || {
        let answer = lab.call("BatchGetImage", ids.clone()).await;
        answer["failures"][0]["failureCode"].as_str().unwrap().to_owned()
    };
    assert_eq!(failure().await, "ImageNotFound");
    lab.ecr.put_secret(SECRET, "acme", &Secret::new("wrong"));
    assert_eq!(failure().await, "UpstreamAccessDenied");
    assert_eq!(
        code_of(lab.get("hub/library/nginx/manifests/none").await).await,
        code(403, "DENIED")
    );
    // What is cached is served whatever becomes of the secret.
    assert_eq!(
        lab.get("hub/library/nginx/manifests/1").await.status(),
        StatusCode::OK
    );
    lab.ecr.put_secret(SECRET, "acme", &Secret::new("access-token"));
    for (trouble, named) in [
        (UpstreamTrouble::Denied, "UpstreamAccessDenied"),
        (UpstreamTrouble::Down, "UpstreamUnavailable"),
    ] {
        upstream.set_trouble(Some(trouble));
        assert_eq!(failure().await, named);
    }
    let pause = Duration::from_secs(120);
    upstream.set_trouble(Some(UpstreamTrouble::RateLimited {
        retry_after: Some(pause),
    }));
    // Looking whether a tag has moved counts as no pull.
    assert_eq!(failure().await, "ImageNotFound");
    upstream
        .seed_image("library/nginx", "none", &ImageSeed::certificates())
        .unwrap();
    assert_eq!(failure().await, "UpstreamTooManyRequests");
}

#[tokio::test]
async fn token_servers_take_right_logins_only() {
    let upstream = Upstream::start(UpstreamConfig::new(UpstreamKind::GitHub))
        .await
        .unwrap();
    upstream.seed_image("acme/web", "1", &ImageSeed::base()).unwrap();
    upstream.make_private("acme/web");
    upstream.add_account("acme", &Secret::new("access-token"));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let base = format!("http://{}", upstream.address());
    let url = format!("{base}/v2/acme/web/manifests/1");
    let challenge = http.get(&url).send().await.unwrap();
    assert_eq!(challenge.status(), StatusCode::UNAUTHORIZED);
    let challenge = challenge.headers()[header::WWW_AUTHENTICATE]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        challenge.contains("service=\"ghcr.io\",scope=\"repository:acme/web:pull\""),
        "{challenge}"
    );
    let token = async |login: Option<(&str, &str)>| {
        let mut request = http.get(format!("{base}/token?scope=repository:acme/web:pull"));
        if let Some((name, token)) = login {
            request = request.basic_auth(name, Some(token));
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        (status, answer["token"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(token(Some(("acme", "wrong"))).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(
        token(Some(("nobody", "access-token"))).await.0,
        StatusCode::UNAUTHORIZED
    );
    for (login, expected) in [
        (None, StatusCode::UNAUTHORIZED),
        (Some(("acme", "access-token")), StatusCode::OK),
    ] {
        let (status, token) = token(login).await;
        assert_eq!(status, StatusCode::OK);
        let response = http.get(&url).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), expected, "{login:?}");
    }
    let open = Upstream::start(UpstreamConfig::new(UpstreamKind::Kubernetes))
        .await
        .unwrap();
    open.seed_image("pause", "3", &ImageSeed::base()).unwrap();
    let url = format!("http://{}/v2/pause/manifests/3", open.address());
    assert_eq!(http.get(url).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn layers_may_come_later_and_what_is_lost_comes_again() {
    let (lab, upstream) = with_rule().await;
    lab.ecr.cache_layers_lazily(true);
    let index: Value = lab
        .get("hub/library/nginx/manifests/1")
        .await
        .json()
        .await
        .unwrap();
    let child = &children(&index)[0];
    let manifest = async || lab.get(&format!("hub/library/nginx/manifests/{child}")).await;
    let image: Value = manifest().await.json().await.unwrap();
    let layer: Digest = image["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    let check = json!({"repositoryName": "hub/library/nginx", "layerDigests": [layer]});
    let availability = async || {
        let answer = lab.call("BatchCheckLayerAvailability", check.clone()).await;
        answer["layers"][0]["layerAvailability"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let path = format!("hub/library/nginx/blobs/{layer}");
    assert_eq!(availability().await, "UNAVAILABLE");
    assert_eq!(
        lab.v2(Method::HEAD, &path).send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    assert!(layer.matches(lab.get(&path).await.bytes().await.unwrap()));
    assert_eq!(availability().await, "AVAILABLE");
    assert!(lab.ecr.lose("hub/library/nginx", &layer));
    assert!(lab.ecr.lose("hub/library/nginx", child));
    assert_eq!(manifest().await.status(), StatusCode::OK);
    assert!(layer.matches(lab.get(&path).await.bytes().await.unwrap()));
    // A blob that no image of the repository names is not looked for upstream.
    let before = upstream.requests().len();
    let other = format!("hub/library/nginx/blobs/{}", Digest::sha256_of("other"));
    assert_eq!(code_of(lab.get(&other).await).await, code(404, "BLOB_UNKNOWN"));
    assert_eq!(upstream.requests().len(), before);
}

#[tokio::test]
async fn an_index_is_cached_without_what_its_upstream_lacks() {
    let (lab, upstream) = with_rule().await;
    let index = upstream.digest("library/nginx", "1").unwrap();
    let gone = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [
            {"mediaType": INDEX, "digest": index, "size": 1},
            {"mediaType": INDEX, "digest": Digest::sha256_of("gone"), "size": 1},
        ],
    });
    upstream.put_manifest(
        "library/nginx",
        Some("sparse"),
        INDEX,
        gone.to_string().as_bytes(),
    );
    let found: Value = lab
        .get("hub/library/nginx/manifests/sparse")
        .await
        .json()
        .await
        .unwrap();
    let found = children(&found);
    let get = async |digest: &Digest| lab.get(&format!("hub/library/nginx/manifests/{digest}")).await;
    assert_eq!(get(&found[0]).await.status(), StatusCode::OK);
    assert_eq!(code_of(get(&found[1]).await).await, code(404, "MANIFEST_UNKNOWN"));
}

#[tokio::test]
async fn a_repository_made_before_is_filled_and_what_was_pushed_stays() {
    let (lab, upstream) = with_rule().await;
    lab.repository("hub/library/nginx").await;
    assert_eq!(
        lab.get("hub/library/nginx/manifests/1").await.status(),
        StatusCode::OK
    );
    let pushed = lab.push_image("hub/library/nginx", "own", b"a layer").await;
    upstream
        .seed_image("library/nginx", "own", &ImageSeed::certificates())
        .unwrap();
    let served = lab.get("hub/library/nginx/manifests/own").await;
    assert_eq!(served.headers()["docker-content-digest"], pushed.as_str());
    // Digests may be left out of what is brought in.
    lab.ecr.cache_digests(false);
    let digest = upstream.digest("library/nginx", "own").unwrap();
    let path = format!("hub/library/nginx/manifests/{digest}");
    assert_eq!(code_of(lab.get(&path).await).await, code(404, "MANIFEST_UNKNOWN"));
    lab.ecr.cache_digests(true);
    assert_eq!(lab.get(&path).await.status(), StatusCode::OK);
}
