//! Repositories as they are wanted, against the lab: what is made, changed, left alone and refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use http::StatusCode;
use std::collections::{BTreeMap, BTreeSet};
use support::{World, config};
use towpath_core::requests;
use towpath_ecr::{
    DeleteRepository, Ecr, Encryption, ErrorKind, KmsKey, PolicyDocument, RepositoryName, RepositorySettings,
    TagMutability,
};
use towpath_lab::Fault;
use towpath_lab::ecr as lab;

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn policy(account: &str) -> PolicyDocument {
    let statement = format!(
        r#"{{"Effect":"Allow","Principal":{{"AWS":"{account}"}},"Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"]}}"#
    );
    PolicyDocument::permissions(format!(r#"{{"Version":"2012-10-17","Statement":[{statement}]}}"#)).unwrap()
}

fn wanted() -> RepositorySettings {
    RepositorySettings::new()
        .tag_mutability(TagMutability::ImmutableExcept(vec![
            "latest".into(),
            "dev-*".into(),
        ]))
        .scan_on_push(true)
        .encryption(Encryption::Kms(KmsKey::Service))
        .resource_tag("team", "web")
        .policy(policy("210987654321"))
}

#[tokio::test]
async fn a_repository_becomes_what_is_wanted_and_stays_it() {
    let world = World::start().await;
    let shop = name("shop/web");
    let missing = world.ecr.compare_repository(&shop, &wanted()).await.unwrap();
    assert!(missing.missing && !missing.is_empty());
    assert_eq!(missing.to_string(), "missing");

    let made = world.ecr.reconcile_repository(&shop, &wanted()).await.unwrap();
    assert!(made.created && made.changed.is_empty());
    assert_eq!(made.now.name, shop);
    assert!(made.now.scan_on_push);
    assert!(made.now.created.is_some());
    assert!(made.now.arn.ends_with(":repository/shop/web"));
    assert_eq!(made.now.address.repository(), &shop);
    assert_eq!(
        made.now.tag_mutability,
        TagMutability::ImmutableExcept(vec!["dev-*".into(), "latest".into()])
    );
    let tags = world.ecr.resource_tags(&made.now).await.unwrap();
    assert_eq!(tags, BTreeMap::from([("team".into(), "web".into())]));
    assert_eq!(
        world.ecr.repository_policy(&shop).await.unwrap(),
        Some(policy("210987654321"))
    );

    // A second run reads: the repository, its tags, its policy.
    let before = world.lab.api_requests().len();
    let (again, sent) = requests::count(world.ecr.reconcile_repository(&shop, &wanted())).await;
    assert!(!again.unwrap().is_changed());
    assert_eq!(sent, 3);
    let asked: BTreeSet<String> = world.lab.api_requests().all()[before..]
        .iter()
        .map(|seen| seen.target.clone().unwrap())
        .map(|target| target.rsplit('.').next().unwrap().to_owned())
        .collect();
    let reads = [
        "DescribeRepositories",
        "GetRepositoryPolicy",
        "ListTagsForResource",
    ];
    assert_eq!(asked, reads.map(String::from).into());

    let other = RepositorySettings::new()
        .tag_mutability(TagMutability::Mutable)
        .scan_on_push(false)
        .resource_tag("cost", "7")
        .policy(policy("111111111111"));
    let differences = world.ecr.compare_repository(&shop, &other).await.unwrap();
    let settings: Vec<&str> = differences.settings.iter().map(|one| one.setting).collect();
    assert_eq!(
        settings,
        [
            "tag mutability",
            "scan on push",
            "resource tags",
            "repository policy"
        ]
    );
    assert!(
        differences
            .to_string()
            .starts_with("tag mutability: IMMUTABLE_WITH_EXCLUSION (dev-*, latest), wanted MUTABLE; ")
    );
    let changed = world.ecr.reconcile_repository(&shop, &other).await.unwrap();
    assert!(!changed.created);
    assert_eq!(changed.changed, differences.settings);
    assert_eq!(changed.now.tag_mutability, TagMutability::Mutable);
    assert!(!changed.now.scan_on_push);
    assert!(
        world
            .ecr
            .compare_repository(&shop, &other)
            .await
            .unwrap()
            .is_empty()
    );
    // What is not named is left alone.
    let nothing = RepositorySettings::new();
    let (left, sent) = requests::count(world.ecr.reconcile_repository(&shop, &nothing)).await;
    assert!(!left.unwrap().is_changed());
    assert_eq!(sent, 1);
}

#[tokio::test]
async fn a_lifecycle_policy_is_compared_by_what_it_says() {
    let world = World::start().await;
    let shop = name("shop/web");
    let rule = |days: u32| {
        format!(
            r#"{{"rulePriority":1,"description":"old ones","selection":{{"tagStatus":"untagged",
            "countType":"sinceImagePushed","countUnit":"days","countNumber":{days}}},"action":{{"type":"expire"}}}}"#
        )
    };
    let policy = |days| PolicyDocument::lifecycle(format!(r#"{{"rules":[{}]}}"#, rule(days))).unwrap();
    let settings = |days| RepositorySettings::new().lifecycle(policy(days));
    assert!(
        world
            .ecr
            .reconcile_repository(&shop, &settings(14))
            .await
            .unwrap()
            .created
    );
    let spaced = policy(14).to_string().replace(',', " ,\n");
    let spaced = RepositorySettings::new().lifecycle(PolicyDocument::lifecycle(spaced).unwrap());
    let (again, sent) = requests::count(world.ecr.reconcile_repository(&shop, &spaced)).await;
    assert!(!again.unwrap().is_changed());
    assert_eq!(sent, 2);
    let changed = world.ecr.reconcile_repository(&shop, &settings(7)).await.unwrap();
    assert_eq!(changed.changed[0].setting, "lifecycle policy");
    assert!(
        world
            .ecr
            .compare_repository(&shop, &settings(7))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn what_cannot_be_changed_is_said_before_anything_is_changed() {
    let world = World::start().await;
    let shop = name("shop/web");
    world.ecr.create_repository_if_missing(&shop).await.unwrap();
    let key = "0a1b2c3d-1111-2222-3333-444455556666";
    let settings = wanted().encryption(Encryption::KmsDsse(KmsKey::Key(key.into())));
    let differences = world.ecr.compare_repository(&shop, &settings).await.unwrap();
    let encryption = differences
        .settings
        .iter()
        .find(|one| one.setting == "encryption")
        .unwrap();
    assert!(encryption.unchangeable);
    assert_eq!(encryption.found.as_deref(), Some("AES256"));
    let error = world
        .ecr
        .reconcile_repository(&shop, &settings)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.detail().contains("AES256, wanted KMS_DSSE with"), "{error}");
    assert!(error.advice().is_some());
    let now = world.ecr.repository(&shop).await.unwrap().unwrap();
    assert_eq!(now.tag_mutability, TagMutability::Mutable);
    assert!(!now.scan_on_push);

    // A key is the same by its id and by its ARN; the service writes the latter.
    let twice = name("shop/twice");
    for _ in 0..2 {
        let settings = RepositorySettings::new().encryption(Encryption::KmsDsse(KmsKey::Key(key.into())));
        let outcome = world.ecr.reconcile_repository(&twice, &settings).await.unwrap();
        let arn = format!("arn:aws:kms:eu-west-1:123456789012:key/{key}");
        assert_eq!(outcome.now.encryption, Encryption::KmsDsse(KmsKey::Key(arn)));
    }
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_before_anything_is_sent() {
    let world = World::start().await;
    let many: Vec<String> = (0..6).map(|n| format!("v{n}")).collect();
    let tagged = |key: &str, value: &str| RepositorySettings::new().resource_tag(key, value);
    let mutability = |mutability| RepositorySettings::new().tag_mutability(mutability);
    let encrypted = |encryption| RepositorySettings::new().encryption(encryption);
    let mut crowd = RepositorySettings::new();
    for n in 0..51 {
        crowd = crowd.resource_tag(n.to_string(), "");
    }
    let wrong = [
        mutability(TagMutability::ImmutableExcept(vec![])),
        mutability(TagMutability::MutableExcept(many)),
        mutability(TagMutability::ImmutableExcept(vec!["a/b".into()])),
        mutability(TagMutability::ImmutableExcept(vec!["a".repeat(129)])),
        mutability(TagMutability::Other("SOMETIMES".into())),
        encrypted(Encryption::Kms(KmsKey::Key("alias/images".into()))),
        encrypted(Encryption::Kms(KmsKey::Key(String::new()))),
        encrypted(Encryption::Other("ROT13".into())),
        tagged("aws:made-by", "us"),
        tagged("", "empty"),
        tagged("key", &"v".repeat(257)),
        crowd,
    ];
    let before = world.lab.api_requests().len();
    for settings in wrong {
        for error in [
            world
                .ecr
                .compare_repository(&name("shop/web"), &settings)
                .await
                .unwrap_err(),
            world
                .ecr
                .reconcile_repository(&name("shop/web"), &settings)
                .await
                .unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{settings:?}");
            assert!(!error.detail().is_empty());
        }
    }
    assert_eq!(world.lab.api_requests().len(), before);
}

#[tokio::test]
async fn of_many_who_make_a_repository_one_does_and_all_have_it() {
    let world = World::start().await;
    let shop = name("shop/web");
    let settings = wanted();
    let makers = (0..8).map(|_| world.ecr.reconcile_repository(&shop, &settings));
    let outcomes: Vec<_> = join_all(makers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.created).count(), 1);
    assert!(
        world
            .ecr
            .compare_repository(&shop, &settings)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_creator_that_comes_second_takes_what_is_there() {
    let world = World::start().await;
    let shop = name("shop/web");
    world.ecr.create_repository_if_missing(&shop).await.unwrap();
    // The first look finds nothing, as if the other one were just about to create it.
    world.lab.api_faults().inject(Fault::respond(
        "DescribeRepositories",
        StatusCode::BAD_REQUEST,
        r#"{"__type":"RepositoryNotFoundException","message":"not yet"}"#,
    ));
    let settings = RepositorySettings::new().scan_on_push(true);
    let outcome = world.ecr.reconcile_repository(&shop, &settings).await.unwrap();
    assert!(!outcome.created);
    assert_eq!(outcome.changed.len(), 1);
    assert!(outcome.now.scan_on_push);
}

#[tokio::test]
async fn every_repository_is_listed_once() {
    let world = World::start().await;
    assert_eq!(
        world.ecr.repositories().try_collect::<Vec<_>>().await.unwrap(),
        []
    );
    let names: Vec<RepositoryName> = (0..1005).map(|n| name(&format!("shop/app-{n:04}"))).collect();
    for some in names.chunks(64) {
        let making = some
            .iter()
            .map(|name| world.ecr.create_repository_if_missing(name));
        join_all(making)
            .await
            .into_iter()
            .for_each(|made| drop(made.unwrap()));
    }
    let (listed, sent) = requests::count(world.ecr.repositories().try_collect::<Vec<_>>()).await;
    let listed: Vec<RepositoryName> = listed.unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(listed, names);
    assert_eq!(sent, 2);
}

#[tokio::test]
async fn a_repository_with_images_is_deleted_only_on_purpose() {
    let world = World::with_rule().await;
    world.assembled("shop/web", "1").await;
    let shop = name("shop/web");
    let error = world
        .ecr
        .delete_repository(&shop, DeleteRepository::IfEmpty)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        world
            .ecr
            .delete_repository(&shop, DeleteRepository::WithImages)
            .await
            .unwrap()
    );
    assert!(
        !world
            .ecr
            .delete_repository(&shop, DeleteRepository::IfEmpty)
            .await
            .unwrap()
    );
    assert_eq!(world.ecr.repository(&shop).await.unwrap(), None);
}

#[tokio::test]
async fn the_policy_of_a_repository_comes_and_goes() {
    let world = World::start().await;
    let shop = name("shop/web");
    let error = world
        .ecr
        .put_repository_policy(&shop, &policy("1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    world.ecr.create_repository_if_missing(&shop).await.unwrap();
    assert_eq!(world.ecr.repository_policy(&shop).await.unwrap(), None);
    world
        .ecr
        .put_repository_policy(&shop, &policy("210987654321"))
        .await
        .unwrap();
    let kept = world.ecr.repository_policy(&shop).await.unwrap().unwrap();
    assert_eq!(kept, policy("210987654321"));
    assert_ne!(kept.as_str(), policy("210987654321").as_str());
    assert!(world.ecr.delete_repository_policy(&shop).await.unwrap());
    assert!(!world.ecr.delete_repository_policy(&shop).await.unwrap());
}

#[tokio::test]
async fn the_most_resource_tags_can_be_exchanged_for_others() {
    let world = World::start().await;
    let shop = name("shop/web");
    let tags = |kind: &str| {
        let all = (0..50).map(|n| (format!("{kind}-{n}"), String::new()));
        let mut settings = RepositorySettings::new();
        settings.resource_tags = Some(all.collect());
        settings
    };
    for kind in ["old", "new"] {
        let outcome = world.ecr.reconcile_repository(&shop, &tags(kind)).await.unwrap();
        let now = world.ecr.resource_tags(&outcome.now).await.unwrap();
        assert_eq!(Some(now), tags(kind).resource_tags);
    }
}

#[tokio::test]
async fn a_quota_is_told_at_once_and_throttling_is_waited_out() {
    let world = World::start().await;
    let shop = name("shop/web");
    let answer = |code: &str| format!(r#"{{"__type":"{code}","message":"no"}}"#);
    let fault = |code: &str| Fault::respond("CreateRepository", StatusCode::BAD_REQUEST, answer(code));
    world
        .lab
        .api_faults()
        .inject(fault("LimitExceededException").always());
    let (made, sent) = requests::count(world.ecr.create_repository_if_missing(&shop)).await;
    let error = made.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(!error.retry().can_help());
    assert_eq!(sent, 2, "one look and one try");

    world.lab.api_faults().clear();
    world
        .lab
        .api_faults()
        .inject(fault("ThrottlingException").times(2));
    let (made, sent) = requests::count(world.ecr.create_repository_if_missing(&shop)).await;
    assert_eq!(made.unwrap().name, shop);
    assert_eq!(sent, 4);
}

#[tokio::test]
async fn variants_of_the_endpoint_and_an_endpoint_exclude_each_other() {
    let lab = lab::Ecr::start(lab::EcrConfig::default()).await.unwrap();
    for config in [config(&lab).fips(true), config(&lab).dual_stack(true)] {
        let error = Ecr::new(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.detail().contains("FIPS"), "{error}");
    }
    assert!(
        Ecr::new(&config(&lab).fips(false).dual_stack(false))
            .await
            .is_ok()
    );
}
