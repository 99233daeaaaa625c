//! Lifecycle policies and their previews, and what else becomes of an image: copies, signatures, the archive.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use aws_sdk_ecr::types as aws;
use futures_util::TryStreamExt;
use std::collections::BTreeSet;
use std::time::Duration;
use support::{config, image};
use towpath_ecr::wait::Policy;
use towpath_ecr::{
    Cancellation, Ecr, ErrorKind, ImageFilter, ImageRef, ImageStatus, LifecycleAction, LifecyclePolicy,
    LifecyclePreview, LifecycleRule, Progress, RepositoryName, Result,
};
use towpath_lab::ecr as lab;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PROFILE: &str = "arn:aws:signer:eu-west-1:123456789012:/signing-profiles/release";

async fn seeded(count: usize) -> (lab::Ecr, Ecr, RepositoryName) {
    let lab = lab::Ecr::start(lab::EcrConfig::default()).await.unwrap();
    lab.seed_images("shop/web", count).unwrap();
    let ecr = Ecr::new(&config(&lab)).await.unwrap();
    (lab, ecr, "shop/web".parse().unwrap())
}

fn quickly() -> Policy {
    Policy::every(Duration::from_millis(5)).within(Duration::from_secs(30))
}

async fn previewed(
    ecr: &Ecr,
    repository: &RepositoryName,
    policy: Option<&LifecyclePolicy>,
) -> Result<LifecyclePreview> {
    ecr.preview_lifecycle(repository, policy, &quickly(), &Cancellation::new())
        .await
}

fn keep(count: u32) -> LifecyclePolicy {
    LifecyclePolicy::new(vec![LifecycleRule::any(1).expire_beyond(count)]).unwrap()
}

#[tokio::test]
async fn a_policy_is_put_read_and_deleted_as_it_was_written() {
    let (_lab, ecr, repository) = seeded(1).await;
    assert_eq!(ecr.lifecycle_policy(&repository).await.unwrap(), None);
    assert_eq!(ecr.delete_lifecycle_policy(&repository).await.unwrap(), None);
    let text = "{ \"rules\": [ {\"rulePriority\": 7, \"selection\": {\"tagStatus\": \"untagged\",\n \"countType\": \
                \"sinceImagePushed\", \"countUnit\": \"days\", \"countNumber\": 14},\n \"action\": {\"type\": \
                \"expire\"} } ] }";
    let policy = LifecyclePolicy::from_json(text).unwrap();
    ecr.put_lifecycle_policy(&repository, &policy).await.unwrap();
    let stored = ecr.lifecycle_policy(&repository).await.unwrap().unwrap();
    assert_eq!((stored.policy.as_str(), stored.evaluated), (text, None));
    assert_eq!(
        stored.policy.rules().unwrap(),
        [LifecycleRule::untagged(7).expire_after_days(14)]
    );
    let deleted = ecr.delete_lifecycle_policy(&repository).await.unwrap();
    assert_eq!(deleted, Some(policy));
}

#[tokio::test]
async fn what_a_preview_shows_is_what_goes() {
    let (lab, ecr, repository) = seeded(250).await;
    lab.set_preview_delay(Duration::from_millis(30));
    let policy = keep(20);
    let preview = previewed(&ecr, &repository, Some(&policy)).await.unwrap();
    assert_eq!(preview.images.len(), 230);
    assert_eq!(preview.expiring().count(), 230);
    assert!(preview.images.iter().all(|image| image.priority == Some(1)));
    let kept: Vec<String> = (230..250).map(|number| format!("seed-{number}")).collect();
    assert!(preview.images.iter().all(|image| !kept.contains(&image.tags[0])));
    assert_eq!(
        lab.repositories()[0].images.len(),
        250,
        "a preview changes nothing"
    );
    ecr.apply_preview(&preview).await.unwrap();
    ecr.apply_preview(&preview).await.unwrap();
    let expired: BTreeSet<_> = lab.run_lifecycle("shop/web").into_iter().collect();
    let shown: BTreeSet<_> = preview.images.into_iter().map(|image| image.digest).collect();
    assert_eq!(expired, shown);
    let stored = ecr.lifecycle_policy(&repository).await.unwrap().unwrap();
    assert!(stored.evaluated.is_some());
    // What is in force is previewed where nothing else is given.
    let again = previewed(&ecr, &repository, None).await.unwrap();
    assert_eq!((again.images.len(), again.policy), (0, policy));
}

#[tokio::test]
async fn a_preview_is_not_applied_over_a_policy_that_came_in_between() {
    let (_lab, ecr, repository) = seeded(3).await;
    let preview = previewed(&ecr, &repository, Some(&keep(1))).await.unwrap();
    ecr.put_lifecycle_policy(&repository, &keep(2)).await.unwrap();
    let error = ecr.apply_preview(&preview).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let stored = ecr.lifecycle_policy(&repository).await.unwrap().unwrap();
    assert_eq!(stored.policy, keep(2));
}

#[tokio::test]
async fn a_preview_that_does_not_come_is_told_apart() {
    let (lab, ecr, repository) = seeded(3).await;
    let none = previewed(&ecr, &repository, None).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
    for (status, said) in [("FAILED", "could not evaluate"), ("EXPIRED", "expired")] {
        lab.set_preview_status(Some(status));
        let error = previewed(&ecr, &repository, Some(&keep(1))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains(said), "{error}");
    }
    lab.set_preview_status(Some("IN_PROGRESS"));
    let soon = Policy::every(Duration::from_millis(5)).within(Duration::from_millis(60));
    let late = ecr
        .preview_lifecycle(&repository, Some(&keep(1)), &soon, &Cancellation::new())
        .await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    // One that is under way is waited for.
    lab.set_preview_status(None);
    lab.set_preview_delay(Duration::from_millis(100));
    let (keep_one, keep_two) = (keep(1), keep(2));
    let first = previewed(&ecr, &repository, Some(&keep_one));
    let second = previewed(&ecr, &repository, Some(&keep_two));
    let (first, second) = tokio::join!(first, second);
    let outcomes = [first, second];
    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    for outcome in outcomes {
        match outcome {
            Ok(preview) => assert_eq!(
                preview.images.len(),
                if preview.policy == keep_one { 2 } else { 1 }
            ),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
}

#[tokio::test]
async fn images_go_to_the_archive_by_rule_and_by_hand_and_come_back() {
    let (lab, ecr, repository) = seeded(3).await;
    lab.set_age("shop/web", "seed-0", 100 * DAY);
    lab.set_restore_time(Duration::from_millis(50));
    let rule = LifecycleRule::any(1).archive_when_not_pulled_for_days(90);
    let policy = LifecyclePolicy::new(vec![rule]).unwrap();
    let preview = previewed(&ecr, &repository, Some(&policy)).await.unwrap();
    let [old] = &preview.images[..] else {
        panic!("{preview:?}")
    };
    assert_eq!(
        (&old.tags[..], &old.action),
        (&["seed-0".to_owned()][..], &LifecycleAction::Archive)
    );
    ecr.apply_preview(&preview).await.unwrap();
    assert!(lab.run_lifecycle("shop/web").is_empty());

    let named = |tag: &str| image(&format!("{}/shop/web:{tag}", lab.registry_host()));
    let old = named("seed-0");
    assert_eq!(ecr.image_status(&old).await.unwrap(), ImageStatus::Archived);
    assert!(ecr.oci().manifest(&old).await.unwrap().is_none());
    let archived = ImageFilter::new().status(ImageStatus::Archived);
    let archived: Vec<_> = ecr.images(&repository, archived).try_collect().await.unwrap();
    assert_eq!(archived.len(), 1);
    assert!(archived[0].archived.is_some());
    let never = ecr
        .wait_until_active(&old, &quickly(), &Cancellation::new())
        .await;
    assert_eq!(never.unwrap_err().kind(), ErrorKind::Conflict);

    assert_eq!(ecr.restore_image(&old).await.unwrap(), ImageStatus::Activating);
    ecr.wait_until_active(&old, &quickly(), &Cancellation::new())
        .await
        .unwrap();
    assert!(ecr.oci().manifest(&old).await.unwrap().is_some());
    assert_eq!(ecr.restore_image(&old).await.unwrap(), ImageStatus::Active);
    let young = named("seed-2");
    for _ in 0..2 {
        assert_eq!(ecr.archive_image(&young).await.unwrap(), ImageStatus::Archived);
    }
}

/// Settings that copy and sign what is pushed, and an image pushed after they were made.
async fn spread() -> (lab::Ecr, Ecr, ImageRef) {
    let (lab, ecr, repository) = seeded(1).await;
    let destinations = ["eu-central-1", "us-east-1"].map(|region| {
        let destination = aws::ReplicationDestination::builder();
        destination
            .region(region)
            .registry_id("123456789012")
            .build()
            .unwrap()
    });
    let rule = aws::ReplicationRule::builder()
        .set_destinations(Some(destinations.into()))
        .build()
        .unwrap();
    let replication = aws::ReplicationConfiguration::builder()
        .rules(rule)
        .build()
        .unwrap();
    ecr.api()
        .put_replication_configuration()
        .replication_configuration(replication)
        .send()
        .await
        .unwrap();
    let rule = aws::SigningRule::builder()
        .signing_profile_arn(PROFILE)
        .build()
        .unwrap();
    let signing = aws::SigningConfiguration::builder().rules(rule).build().unwrap();
    ecr.api()
        .put_signing_configuration()
        .signing_configuration(signing)
        .send()
        .await
        .unwrap();
    let old = image(&format!("{}/{repository}:seed-0", lab.registry_host()));
    assert!(
        ecr.replications(&old).await.unwrap().is_empty(),
        "it was pushed before"
    );
    // The same image under a new tag is a push.
    let manifest = ecr.oci().manifest(&old).await.unwrap().unwrap();
    let tag = "new".parse().unwrap();
    ecr.oci().put_tag(&old, &tag, &manifest).await.unwrap();
    let new = old.tagged(tag);
    (lab, ecr, new)
}

#[tokio::test]
async fn copies_and_signatures_are_waited_for() {
    let (lab, ecr, new) = spread().await;
    lab.set_spread_delay(Duration::from_secs(3600));
    let copies = ecr.replications(&new).await.unwrap();
    assert_eq!(copies.len(), 2);
    assert!(copies.iter().all(|copy| copy.progress == Progress::InProgress));
    let (cancellation, soon) = (
        Cancellation::new(),
        Policy::every(Duration::from_millis(5)).within(Duration::from_millis(60)),
    );
    let late = ecr.wait_until_replicated(&new, &["eu-central-1"], &soon, &cancellation);
    let late = late.await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::TimedOut);
    assert!(late.to_string().contains("in progress"), "{late}");
    lab.set_spread_delay(Duration::ZERO);
    let copies = ecr
        .wait_until_replicated(&new, &["eu-central-1", "us-east-1"], &quickly(), &cancellation)
        .await
        .unwrap();
    assert!(copies.iter().all(|copy| copy.progress == Progress::Complete));
    let signed = ecr
        .wait_until_signed(&new, &[PROFILE], &quickly(), &cancellation)
        .await
        .unwrap();
    assert_eq!(signed[0].profile, PROFILE);
    let elsewhere = ecr.wait_until_replicated(&new, &["ap-south-1"], &soon, &cancellation);
    let elsewhere = elsewhere.await.unwrap_err();
    assert!(
        elsewhere.to_string().contains("ap-south-1 to begin"),
        "{elsewhere}"
    );
}

#[tokio::test]
async fn a_copy_or_a_signature_that_failed_says_why() {
    let (lab, ecr, new) = spread().await;
    let cancellation = Cancellation::new();
    lab.fail_spread("us-east-1", Some(("KmsError", "")));
    let error = ecr
        .wait_until_replicated(&new, &[], &quickly(), &cancellation)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error.to_string().contains("us-east-1 failed: KmsError"),
        "{error}"
    );
    lab.fail_spread(PROFILE, Some(("AccessDenied", "the pusher may not sign")));
    let error = ecr
        .wait_until_signed(&new, &[PROFILE], &quickly(), &cancellation)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the pusher may not sign"), "{error}");
    lab.fail_spread("us-east-1", None);
    ecr.wait_until_replicated(&new, &["us-east-1"], &quickly(), &cancellation)
        .await
        .unwrap();
}
