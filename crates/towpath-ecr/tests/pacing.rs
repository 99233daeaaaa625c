//! Pacing in front of the API and of the registry's protocol.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, StatusCode};
use std::time::{Duration, Instant};
use support::{config, image};
use towpath_ecr::{Ecr, ImageRef, Pacing, Rate};
use towpath_lab::{Fault, ecr as lab};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// A client that knows the lab by the name of a registry of ECR.
async fn paced(pacing: Pacing) -> (lab::Ecr, Ecr) {
    let lab = lab::Ecr::start(lab::EcrConfig::default()).await.unwrap();
    lab.seed_images("shop/web", 1).unwrap();
    let settings = config(&lab).pacing(pacing);
    let mut wire = support::fast();
    wire.attempts = 1;
    let endpoint = format!("http://{}/", lab.registry_host()).parse().unwrap();
    wire.endpoints.insert(HOST.parse().unwrap(), endpoint);
    let ecr = Ecr::new(&settings.wire(wire)).await.unwrap();
    (lab, ecr)
}

fn web(reference: &str) -> ImageRef {
    image(&format!("{HOST}/shop/web{reference}"))
}

// A test can see that something takes at least as long as its turns, on a machine of any speed.

#[tokio::test]
async fn calls_of_the_api_wait_for_their_turn() {
    let (_lab, ecr) = paced(Pacing::off().limit("DescribeImages", Rate::per_second(20).burst(1))).await;
    let (ecr, image) = (&ecr, &web(":seed-0"));
    let start = Instant::now();
    let calls = (0..9).map(|_| async move { ecr.image(image).await.unwrap().unwrap() });
    join_all(calls).await;
    assert!(start.elapsed() >= Duration::from_millis(8 * 50));
    // Other actions go as they come, and no slower one is waited for.
    assert!(ecr.repository(image.repository()).await.unwrap().is_some());
}

#[tokio::test]
async fn requests_of_the_registry_wait_as_the_actions_that_they_are() {
    let (lab, ecr) = paced(Pacing::off().limit("PutImage", Rate::per_second(20).burst(1))).await;
    let target = web(":seed-0");
    let manifest = ecr.oci().manifest(&target).await.unwrap().unwrap();
    let start = Instant::now();
    for number in 0..5 {
        let tag = format!("paced-{number}").parse().unwrap();
        ecr.oci().put_tag(&target, &tag, &manifest).await.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(4 * 50));
    assert!(
        lab.registry_requests()
            .count(&http::Method::PUT, "/manifests/paced-")
            == 5
    );
}

#[tokio::test]
async fn a_throttled_action_is_held_back_as_long_as_the_service_asks() {
    let (lab, ecr) = paced(Pacing::off().limit("DescribeImages", Rate::per_second(1000))).await;
    let image = web(":seed-0");
    ecr.image(&image).await.unwrap().unwrap();
    lab.api_faults().inject(
        Fault::respond(
            "/",
            StatusCode::BAD_REQUEST,
            r#"{"__type":"ThrottlingException"}"#,
        )
        .header(
            HeaderName::from_static("x-amz-retry-after"),
            HeaderValue::from_static("400"),
        ),
    );
    let start = Instant::now();
    assert!(ecr.image(&image).await.is_err());
    // The next call, of whoever shares the client, is the one that is held back.
    ecr.clone().image(&image).await.unwrap().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(400));
}
