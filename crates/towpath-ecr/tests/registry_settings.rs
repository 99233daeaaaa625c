//! The settings of the registry as a whole, and its templates, against the lab.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use futures_util::TryStreamExt;
use support::World;
use towpath_core::{AccountId, requests};
use towpath_ecr::{
    AccountSetting, AppliedFor, CreationTemplate, Encryption, ErrorKind, KmsKey, PolicyDocument, Registry,
    ReplicationConfiguration, ReplicationDestination, ReplicationRule, RepositorySettings,
    SigningConfiguration, SigningRule, TagMutability,
};

const ROLE: &str = "arn:aws:iam::123456789012:role/templates";

fn to(region: &str) -> ReplicationDestination {
    ReplicationDestination {
        region: region.parse().unwrap(),
        account: AccountId::new("123456789012").unwrap(),
    }
}

#[tokio::test]
async fn replication_is_set_where_it_differs() {
    let world = World::start().await;
    assert!(world.ecr.replication().await.unwrap().rules.is_empty());
    let rule = |prefixes: [&str; 2], regions: [&str; 2]| ReplicationRule::new(regions.map(to), prefixes);
    let wanted = ReplicationConfiguration::new([rule(["prod/", "shop/"], ["us-east-1", "us-west-2"])]);
    let set = world.ecr.put_replication(&wanted).await.unwrap();
    assert_eq!(set.changed.len(), 1);
    assert_eq!(set.now, wanted);
    assert_eq!(
        set.changed[0].to_string(),
        "replication: none, wanted prod/, shop/ to 123456789012 in us-east-1, 123456789012 in us-west-2"
    );
    // Order has no meaning.
    let turned = ReplicationConfiguration::new([rule(["shop/", "prod/"], ["us-west-2", "us-east-1"])]);
    let (again, sent) = requests::count(world.ecr.put_replication(&turned)).await;
    assert!(!again.unwrap().is_changed());
    assert_eq!(sent, 1);
    let none = ReplicationConfiguration::new([]);
    assert!(world.ecr.put_replication(&none).await.unwrap().is_changed());
    assert_eq!(world.ecr.replication().await.unwrap(), none);
}

#[tokio::test]
async fn more_replication_than_the_service_takes_is_not_sent() {
    let world = World::start().await;
    let every = || ReplicationRule::new([to("us-east-1")], Vec::<String>::new());
    let regions = |n: usize| (0..n).map(|n| to(&format!("us-north-{n}")));
    let prefixed = |prefix: &str| ReplicationRule::new([to("us-east-1")], [prefix]);
    let before = world.lab.api_requests().len();
    for wrong in [
        vec![every(); 11],
        vec![ReplicationRule::new([], ["prod/"])],
        vec![ReplicationRule::new(regions(26), ["prod/"])],
        vec![ReplicationRule::new([to("us-east-1")], vec!["prod/"; 101])],
        vec![prefixed("p")],
        vec![prefixed("Prod/")],
        vec![prefixed("/prod")],
    ] {
        let wrong = ReplicationConfiguration::new(wrong);
        let error = world.ecr.put_replication(&wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}");
    }
    assert_eq!(world.lab.api_requests().len(), before);
    // Neither does the registry replicate to itself, which the service says.
    let own = ReplicationConfiguration::new([ReplicationRule::new([to("eu-west-1")], ["prod/"])]);
    assert_eq!(
        world.ecr.put_replication(&own).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn signing_comes_and_goes() {
    let world = World::start().await;
    assert_eq!(world.ecr.signing().await.unwrap(), None);
    let profile = "arn:aws:signer:eu-west-1:123456789012:/signing-profiles/images";
    let wanted = SigningConfiguration::new([SigningRule::new(profile, ["shop/*", "prod/*"])]);
    let set = world.ecr.put_signing(&wanted).await.unwrap();
    assert!(set.created && set.changed.is_empty());
    let (again, sent) = requests::count(world.ecr.put_signing(&wanted)).await;
    assert!(!again.unwrap().is_changed());
    assert_eq!(sent, 1);
    let other = SigningConfiguration::new([SigningRule::new(profile, Vec::<String>::new())]);
    let changed = world.ecr.put_signing(&other).await.unwrap();
    assert_eq!(changed.changed[0].wanted, format!("everything with {profile}"));
    assert_eq!(world.ecr.signing().await.unwrap(), Some(other));
    for wrong in [
        SigningConfiguration::new([SigningRule::new("images", ["*"])]),
        SigningConfiguration::new(vec![SigningRule::new(profile, ["*"]); 11]),
        SigningConfiguration::new([SigningRule::new(profile, vec!["*"; 101])]),
    ] {
        let error = world.ecr.put_signing(&wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    assert!(world.ecr.delete_signing().await.unwrap());
    assert!(!world.ecr.delete_signing().await.unwrap());
}

#[tokio::test]
async fn the_policy_of_the_registry_comes_and_goes() {
    let world = World::start().await;
    assert_eq!(world.ecr.registry_policy().await.unwrap(), None);
    let text = r#"{"Version":"2012-10-17","Statement":[{"Sid":"copies","Effect":"Allow",
        "Principal":{"AWS":"210987654321"},"Action":"ecr:ReplicateImage",
        "Resource":"arn:aws:ecr:eu-west-1:123456789012:repository/*"}]}"#;
    let policy = PolicyDocument::permissions(text).unwrap();
    world.ecr.put_registry_policy(&policy).await.unwrap();
    assert_eq!(world.ecr.registry_policy().await.unwrap(), Some(policy));
    let nonsense = PolicyDocument::permissions("{}").unwrap();
    let error = world.ecr.put_registry_policy(&nonsense).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(world.ecr.delete_registry_policy().await.unwrap());
    assert!(!world.ecr.delete_registry_policy().await.unwrap());
}

#[tokio::test]
async fn account_settings_take_their_own_values() {
    let world = World::start().await;
    let mounting = AccountSetting::BlobMounting;
    assert_eq!(
        world.ecr.account_setting(&mounting).await.unwrap().as_deref(),
        Some("DISABLED")
    );
    let set = world.ecr.put_account_setting(&mounting, "ENABLED").await.unwrap();
    assert_eq!(set.changed[0].to_string(), "value: DISABLED, wanted ENABLED");
    let (again, sent) = requests::count(world.ecr.put_account_setting(&mounting, "ENABLED")).await;
    assert!(!again.unwrap().is_changed());
    assert_eq!(sent, 1);
    for (setting, value) in [
        (AccountSetting::BlobMounting, "SOMETIMES"),
        (AccountSetting::RegistryPolicyScope, "V1"),
        (AccountSetting::BasicScanTypeVersion, "CLAIR"),
        (AccountSetting::Other("COLOUR".into()), "RED"),
    ] {
        let error = world.ecr.put_account_setting(&setting, value).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{setting}");
    }
    for setting in [
        AccountSetting::RegistryPolicyScope,
        AccountSetting::BasicScanTypeVersion,
    ] {
        let value = setting.values().unwrap()[0];
        world.ecr.put_account_setting(&setting, value).await.unwrap();
    }
}

#[tokio::test]
async fn a_template_is_made_changed_and_applied() {
    let world = World::with_rule().await;
    let settings = || {
        RepositorySettings::new()
            .tag_mutability(TagMutability::Immutable)
            .encryption(Encryption::Kms(KmsKey::Service))
            .resource_tag("from", "quay")
    };
    let template = || CreationTemplate::new("quay", [AppliedFor::PullThroughCache], settings());
    let error = world.ecr.put_creation_template(&template()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "tags and keys need a role");
    let wanted = template().role(ROLE);
    let made = world.ecr.put_creation_template(&wanted).await.unwrap();
    assert!(made.created);
    assert_eq!(made.now.settings.resource_tags, wanted.settings.resource_tags);
    let (again, sent) = requests::count(world.ecr.put_creation_template(&wanted)).await;
    assert!(!again.unwrap().is_changed());
    assert_eq!(sent, 1);

    let mut more = CreationTemplate::new(
        "quay",
        [AppliedFor::PullThroughCache, AppliedFor::Replication],
        RepositorySettings::new().tag_mutability(TagMutability::Mutable),
    );
    more.description = Some("caches of Quay.io".into());
    let changed = world.ecr.put_creation_template(&more).await.unwrap();
    let settings: Vec<&str> = changed.changed.iter().map(|one| one.setting).collect();
    assert_eq!(settings, ["applied for", "tag mutability", "description"]);
    // What is not named is left as it is.
    assert_eq!(changed.now.role_arn.as_deref(), Some(ROLE));
    assert_eq!(changed.now.settings.resource_tags, wanted.settings.resource_tags);

    let cached = world
        .ecr
        .import(&support::image("quay.io/acme/base:1"))
        .await
        .unwrap();
    let repository = world
        .ecr
        .repository(cached.cached.image.repository())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(repository.encryption, Encryption::Kms(_)));
    let tags = world.ecr.resource_tags(&repository).await.unwrap();
    assert_eq!(Some(tags), wanted.settings.resource_tags);

    for prefix in ["ROOT", "shop"] {
        let template = CreationTemplate::new(prefix, [AppliedFor::CreateOnPush], RepositorySettings::new());
        world.ecr.put_creation_template(&template).await.unwrap();
    }
    let all: Vec<CreationTemplate> = world.ecr.creation_templates().try_collect().await.unwrap();
    let prefixes: Vec<&str> = all.iter().map(|template| template.prefix.as_str()).collect();
    assert_eq!(prefixes, ["ROOT", "quay", "shop"]);
    assert!(world.ecr.delete_creation_template("shop").await.unwrap());
    assert!(!world.ecr.delete_creation_template("shop").await.unwrap());
    assert_eq!(world.ecr.creation_template("shop").await.unwrap(), None);
}

#[tokio::test]
async fn a_template_that_cannot_be_is_refused() {
    let world = World::start().await;
    let on_push = || [AppliedFor::CreateOnPush];
    let mut wordy = CreationTemplate::new("shop", on_push(), RepositorySettings::new());
    wordy.description = Some("x".repeat(257));
    for wrong in [
        wordy,
        CreationTemplate::new("shop", [], RepositorySettings::new()),
        CreationTemplate::new("shop", on_push(), RepositorySettings::new().scan_on_push(true)),
        CreationTemplate::new("Shop", on_push(), RepositorySettings::new()),
        CreationTemplate::new(
            "shop",
            [AppliedFor::Other("SUNDAYS".into())],
            RepositorySettings::new(),
        ),
    ] {
        let error = world.ecr.put_creation_template(&wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong:?}");
    }
    assert_eq!(
        world
            .ecr
            .creation_templates()
            .try_collect::<Vec<_>>()
            .await
            .unwrap(),
        []
    );
}
