//! What the diagnosis makes of each thing that can be wrong with a pull, against the lab.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use http::StatusCode;
use support::{World, config, image};
use towpath_ecr::{
    AppliedFor, Checked, CreationTemplate, Diagnosis, Ecr, Encryption, ImageRef, KmsKey, Outcome, Registry,
    RepositorySettings, Secret,
};
use towpath_lab::Fault;

const UPSTREAM: &str = "quay.io/acme/base:1";

/// What was found, in order.
fn found(diagnosis: &Diagnosis) -> Vec<(Checked, Outcome)> {
    let findings = diagnosis.findings.iter();
    findings
        .map(|finding| (finding.checked, finding.outcome))
        .collect()
}

/// The one problem, and its text with its advice.
fn problem(diagnosis: &Diagnosis) -> (Checked, Outcome, String) {
    let problems: Vec<_> = diagnosis.problems().collect();
    assert_eq!(problems.len(), 1, "{diagnosis}");
    let advice = problems[0].advice.as_deref().unwrap_or_default();
    let text = format!("{} -> {advice}", problems[0].detail);
    (problems[0].checked, problems[0].outcome, text)
}

fn own(world: &World, name: &str) -> ImageRef {
    image(&format!("{}/{name}", world.lab.registry_host()))
}

async fn pushed() -> (World, ImageRef) {
    let world = World::with_rule().await;
    let pushed = world.assembled("shop/web", "1").await;
    (world, pushed)
}

#[tokio::test]
async fn a_good_image_is_good() {
    let (world, pushed) = pushed().await;
    let diagnosis = world.ecr.diagnose(&pushed).await;
    assert!(diagnosis.is_healthy(), "{diagnosis}");
    let looked_at = [
        Checked::Credentials,
        Checked::Repository,
        Checked::Image,
        Checked::Pull,
        Checked::Layers,
        Checked::Download,
    ];
    assert_eq!(found(&diagnosis), looked_at.map(|checked| (checked, Outcome::Ok)));
    let text = diagnosis.to_string();
    assert_eq!(text.lines().count(), 7, "{text}");
    assert!(text.starts_with(&pushed.to_string()));
    let json = serde_json::to_value(&diagnosis).unwrap();
    assert_eq!(json["findings"][0]["checked"], "credentials");
}

#[tokio::test]
async fn a_missing_repository_and_a_missing_image_are_told_apart() {
    let (world, _) = pushed().await;
    let (checked, outcome, text) = problem(&world.ecr.diagnose(&own(&world, "shop/none:1")).await);
    assert_eq!((checked, outcome), (Checked::Repository, Outcome::Missing));
    assert!(text.contains("shop/none") && text.contains("create it"), "{text}");
    let (checked, outcome, text) = problem(&world.ecr.diagnose(&own(&world, "shop/web:2")).await);
    assert_eq!((checked, outcome), (Checked::Image, Outcome::Missing));
    assert!(text.contains("shop/web has no image 2"), "{text}");
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let (world, pushed) = pushed().await;
    for (action, checked) in [
        ("ecr:GetAuthorizationToken", Checked::Credentials),
        ("ecr:DescribePullThroughCacheRules", Checked::PullThroughRule),
        ("ecr:DescribeRepositories", Checked::Repository),
        ("ecr:DescribeImages", Checked::Image),
        ("ecr:BatchGetImage", Checked::Pull),
        ("ecr:BatchCheckLayerAvailability", Checked::Layers),
        ("ecr:GetDownloadUrlForLayer", Checked::Download),
    ] {
        world.lab.deny_action(action);
        let fresh = Ecr::new(&config(&world.lab)).await.unwrap();
        let diagnosis = fresh.diagnose(&pushed).await;
        let finding = diagnosis
            .finding(checked)
            .unwrap_or_else(|| panic!("{action}: {diagnosis}"));
        assert_eq!(finding.outcome, Outcome::Denied, "{diagnosis}");
        assert!(finding.detail.contains(action), "{diagnosis}");
        assert!(finding.advice.as_deref().unwrap().contains(action), "{diagnosis}");
        world.lab.allow_action(action);
    }
}

#[tokio::test]
async fn an_image_that_the_api_has_and_the_registry_hides_is_a_missing_permission() {
    let (world, pushed) = pushed().await;
    let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"Requested image not found"}]}"#;
    let hidden = Fault::respond("/manifests/", StatusCode::NOT_FOUND, body).always();
    world.lab.registry_faults().inject(hidden);
    let (checked, outcome, text) = problem(&world.ecr.diagnose(&pushed).await);
    assert_eq!((checked, outcome), (Checked::Pull, Outcome::Denied));
    assert!(text.contains("ecr:BatchGetImage"), "{text}");
}

#[tokio::test]
async fn wrong_credentials_and_another_region_end_the_search() {
    let (world, pushed) = pushed().await;
    let stranger = config(&world.lab).credentials("AKIALABLABLABLABLAB0", Secret::new("wrong"), None);
    let stranger = Ecr::new(&stranger).await.unwrap();
    let diagnosis = stranger.diagnose(&pushed).await;
    let (checked, outcome, text) = problem(&diagnosis);
    assert_eq!((checked, outcome), (Checked::Credentials, Outcome::Missing));
    assert!(!text.contains("wrong"), "{text}");
    assert_eq!(diagnosis.findings.len(), 1);

    let elsewhere = image("123456789012.dkr-ecr.us-east-1.on.aws/shop/web:1");
    let (checked, outcome, text) = problem(&world.ecr.diagnose(&elsewhere).await);
    assert_eq!((checked, outcome), (Checked::Region, Outcome::Missing));
    assert!(text.contains("make a client for us-east-1"), "{text}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_told() {
    let (world, pushed) = pushed().await;
    // Every token has run out the moment it is given out, as with a clock that is far off.
    world.lab.expire_tokens();
    world.lab.set_token_life(std::time::Duration::ZERO);
    let diagnosis = world.ecr.diagnose(&pushed).await;
    let problem = diagnosis.problems().next().unwrap();
    assert!(problem.detail.contains("expired"), "{diagnosis}");
    assert!(
        matches!(problem.checked, Checked::Credentials | Checked::Pull),
        "{diagnosis}"
    );
}

#[tokio::test]
async fn an_archived_image_is_told() {
    let (world, pushed) = pushed().await;
    let digest = pushed.digest().unwrap();
    let body = format!(r#"{{"imageDetails":[{{"imageDigest":"{digest}","imageStatus":"ARCHIVED"}}]}}"#);
    world
        .lab
        .api_faults()
        .inject(Fault::respond("DescribeImages", StatusCode::OK, body));
    let diagnosis = world.ecr.diagnose(&pushed).await;
    let archive = diagnosis.finding(Checked::Archive).unwrap();
    assert_eq!(archive.outcome, Outcome::Missing);
    assert!(archive.detail.contains("ARCHIVED"), "{diagnosis}");
    assert!(
        archive
            .advice
            .as_deref()
            .unwrap()
            .contains("UpdateImageStorageClass")
    );
}

#[tokio::test]
async fn a_layer_that_is_gone_is_named() {
    let (world, pushed) = pushed().await;
    let lost = towpath_ecr::Digest::sha256_of("lost");
    let body = format!(
        r#"{{"layers":[{{"layerDigest":"{lost}","layerAvailability":"UNAVAILABLE"}}],"failures":[]}}"#
    );
    let fault = Fault::respond("BatchCheckLayerAvailability", StatusCode::OK, body);
    world.lab.api_faults().inject(fault);
    let (checked, outcome, text) = problem(&world.ecr.diagnose(&pushed).await);
    assert_eq!((checked, outcome), (Checked::Layers, Outcome::Missing));
    assert!(text.contains(lost.as_str()), "{text}");
}

#[tokio::test]
async fn an_upstream_without_a_rule_is_told() {
    let world = World::start().await;
    let diagnosis = world.ecr.diagnose(&image(UPSTREAM)).await;
    let (checked, outcome, text) = problem(&diagnosis);
    assert_eq!((checked, outcome), (Checked::PullThroughRule, Outcome::Missing));
    assert!(text.contains("quay.io"), "{text}");
    world.lab.deny_action("ecr:DescribePullThroughCacheRules");
    let (checked, outcome, _) = problem(&world.ecr.diagnose(&image(UPSTREAM)).await);
    assert_eq!((checked, outcome), (Checked::PullThroughRule, Outcome::Denied));
}

#[tokio::test]
async fn a_first_pull_through_the_cache_is_looked_into_without_pulling() {
    let world = World::with_rule().await;
    let diagnosis = world.ecr.diagnose(&image(UPSTREAM)).await;
    assert_eq!(
        found(&diagnosis),
        [
            (Checked::Credentials, Outcome::Ok),
            (Checked::Repository, Outcome::Missing),
            (Checked::PullThroughRule, Outcome::Ok),
            (Checked::UpstreamImage, Outcome::Ok),
            (Checked::CreationTemplate, Outcome::Ok),
            (Checked::Import, Outcome::Unknown),
        ]
    );
    let import = diagnosis.finding(Checked::Import).unwrap();
    let advice = import.advice.as_deref().unwrap();
    assert!(advice.contains("ecr:BatchImportUpstreamImage and ecr:CreateRepository"));
    assert!(world.lab.repositories().is_empty(), "nothing was pulled");
    assert!(diagnosis.to_string().contains(", cached as "));

    world.ecr.import(&image(UPSTREAM)).await.unwrap();
    let diagnosis = world.ecr.diagnose(&image(UPSTREAM)).await;
    assert!(diagnosis.is_healthy(), "{diagnosis}");
}

#[tokio::test]
async fn an_image_that_the_upstream_lacks_is_told() {
    let world = World::with_rule().await;
    let diagnosis = world.ecr.diagnose(&image("quay.io/acme/base:none")).await;
    let upstream = diagnosis.finding(Checked::UpstreamImage).unwrap();
    assert_eq!(upstream.outcome, Outcome::Missing, "{diagnosis}");
    assert!(diagnosis.finding(Checked::Import).is_none(), "{diagnosis}");
}

#[tokio::test]
async fn a_template_without_a_role_is_told() {
    let world = World::with_rule().await;
    let settings = RepositorySettings::new()
        .encryption(Encryption::Kms(KmsKey::Service))
        .resource_tag("from", "quay");
    let template = CreationTemplate::new("quay", [AppliedFor::PullThroughCache], settings);
    let role = "arn:aws:iam::123456789012:role/templates";
    world
        .ecr
        .put_creation_template(&template.role(role))
        .await
        .unwrap();
    assert_eq!(
        world
            .ecr
            .diagnose(&image(UPSTREAM))
            .await
            .finding(Checked::CreationTemplate)
            .unwrap()
            .outcome,
        Outcome::Ok
    );
    // Whoever wrote the template by other means forgot the role.
    let update = world.ecr.api().update_repository_creation_template();
    update.prefix("quay").custom_role_arn("").send().await.unwrap();
    let diagnosis = world.ecr.diagnose(&image(UPSTREAM)).await;
    let finding = diagnosis.finding(Checked::CreationTemplate).unwrap();
    assert_eq!(finding.outcome, Outcome::Denied, "{diagnosis}");
    assert!(finding.advice.as_deref().unwrap().contains("role"));
    assert!(world.ecr.import(&image(UPSTREAM)).await.is_err());
}
