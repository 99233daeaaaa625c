//! `release` with the real client against the lab: what it does to the registry, and what a bad day does to it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::time::Duration;
use test_against_lab::release;
use towpath_core::requests;
use towpath_ecr::oci::OciSettings;
use towpath_ecr::wait::Policy;
use towpath_ecr::{Ecr, EcrConfig, ImageRef, Region, Registry, Secret};
use towpath_lab::ecr::Finding;
use towpath_lab::{Fault, Lab};

/// A lab with `shop/web:1.4` in its registry, and a client that does not wait long.
async fn start() -> (Lab, Ecr, ImageRef) {
    let lab = Lab::start().await.unwrap();
    let environment: HashMap<_, _> = lab.environment().into_iter().collect();
    let mut wire = OciSettings::default();
    wire.first_pause = Duration::from_millis(2);
    wire.longest_pause = Duration::from_millis(20);
    let gallery = format!("http://{}", environment["TOWPATH_LAB_ECR_PUBLIC"]);
    let config = EcrConfig::from_env()
        .region(Region::new(&environment["AWS_REGION"]).unwrap())
        .endpoint(environment["AWS_ENDPOINT_URL_ECR"].parse().unwrap())
        .credentials(
            &environment["AWS_ACCESS_KEY_ID"],
            Secret::new(&environment["AWS_SECRET_ACCESS_KEY"]),
            None,
        )
        .upstream("public.ecr.aws".parse().unwrap(), gallery.parse().unwrap())
        .wire(wire);
    let ecr = Ecr::new(&config).await.unwrap();
    let base = "public.ecr.aws/docker/library/alpine:3.20".parse().unwrap();
    let base = ecr.resolve(&base).await.unwrap().unwrap();
    let target = ecr.ensure_repository(&"shop/web".parse().unwrap()).await.unwrap();
    let image = target.tagged("1.4".parse().unwrap());
    ecr.copy(&base.image, &image).await.unwrap();
    (lab, ecr, image)
}

fn policy() -> Policy {
    Policy::every(Duration::from_millis(10)).within(Duration::from_secs(20))
}

fn live(lab: &Lab) -> Option<towpath_ecr::Digest> {
    lab.ecr().image("shop/web", "live").map(|image| image.digest)
}

#[tokio::test]
async fn a_clean_image_is_released_through_throttling() {
    let (lab, ecr, image) = start().await;
    let released = release(&ecr, &image, &policy()).await.unwrap();
    assert_eq!(live(&lab).as_ref(), released.digest());

    // Released already and its scan complete, it always costs the same; two answers of 429 cost two requests more.
    let (_, calm) = requests::count(release(&ecr, &image, &policy())).await;
    lab.ecr().registry_faults().inject(throttling().times(2));
    let (released, throttled) = requests::count(release(&ecr, &image, &policy())).await;
    assert!(released.is_ok(), "{released:?}");
    assert_eq!(throttled, calm + 2);
}

#[tokio::test]
async fn throttling_that_stays_is_an_error_and_nothing_is_released() {
    let (lab, ecr, image) = start().await;
    lab.ecr().registry_faults().inject(throttling().always());
    let error = release(&ecr, &image, &policy()).await.unwrap_err();
    // The client has tried again already: an outer loop must not.
    assert!(error.is_rate_limited() && !error.retry().can_help(), "{error:?}");
    assert_eq!(live(&lab), None);
}

#[tokio::test]
async fn a_critical_finding_keeps_it_back() {
    let (lab, ecr, image) = start().await;
    let finding = Finding::new("CVE-2026-0001", "CRITICAL", "musl", "1.2.5");
    lab.ecr().set_findings("shop/web", vec![finding]);
    let error = release(&ecr, &image, &policy()).await.unwrap_err();
    assert!(
        error.is_denied() && error.detail().contains("CVE-2026-0001"),
        "{error}"
    );
    assert_eq!(live(&lab), None);
}

fn throttling() -> Fault {
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}"#;
    Fault::respond("manifests", 429.try_into().unwrap(), body)
}
