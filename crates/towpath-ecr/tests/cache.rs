//! The pull-through cache against the lab's registry, with one upstream that is open and one that wants credentials.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod cache_world;
mod support;

use cache_world::{BASE, IMPORT, NGINX, World, credential, problem, secret};
use serde_json::json;
use support::image;
use towpath_core::requests;
use towpath_ecr::oci::media;
use towpath_ecr::registry::Platform;
use towpath_ecr::{
    CacheProblem, CredentialFault, Digest, ImageRef, Registry, RuleChange, RuleCredentials, RuleValidity,
    Secret, Upstream as Kind, Verification, Verify, WantedRule, WarmOptions,
};
use towpath_lab::ecr::{ImageSeed, SecretFault, UpstreamTrouble};

#[tokio::test]
async fn a_rule_is_created_once_and_gets_the_credentials_it_should_have() {
    let world = World::start().await;
    let quay = WantedRule::new("quay", "https://Quay.io/");
    assert_eq!(world.rule(&quay).await, RuleChange::Created);
    assert_eq!(world.rule(&quay).await, RuleChange::Nothing);
    for other in [
        WantedRule::new("quay", "public.ecr.aws"),
        WantedRule::new("quay", "quay.io").upstream_prefix("acme"),
    ] {
        let error = world.ecr.ensure_cache_rule(&other).await.unwrap_err();
        assert!(
            error.is_conflict() && error.to_string().contains("quay.io"),
            "{error}"
        );
    }
    let error = world.ecr.create_cache_rule(&quay).await.unwrap_err();
    assert!(
        error.is_conflict() && error.advice().unwrap().contains("another prefix"),
        "{error}"
    );

    // What can be known to be wrong is not sent.
    let (error, sent) =
        requests::count(world.ecr.ensure_cache_rule(&WantedRule::new("hub", "docker.io"))).await;
    assert!(error.unwrap_err().to_string().contains("requires authentication"));
    assert_eq!(sent, 0);

    let arn = secret("other");
    let hub = World::hub_rule("other");
    let refused = async || problem(&world.ecr.ensure_cache_rule(&hub).await.unwrap_err());
    assert_eq!(refused().await, credential(CredentialFault::NotFound));
    world.lab.put_secret(&arn, "acme", &Secret::new("wrong"));
    for (fault, found) in [
        (SecretFault::NotAccessible, CredentialFault::NotAccessible),
        (SecretFault::NotDecryptable, CredentialFault::NotDecryptable),
    ] {
        world.lab.spoil_secret(&arn, Some(fault));
        assert_eq!(refused().await, credential(found));
    }
    world.lab.spoil_secret(&arn, None);
    assert_eq!(world.rule(&hub).await, RuleChange::Created);
    let RuleValidity::Invalid(words) = world.ecr.validate_cache_rule("docker-hub").await.unwrap() else {
        panic!("a wrong token is taken");
    };
    assert!(
        words.contains("authentication to the upstream registry failed"),
        "{words}"
    );
    let ensured = world
        .ecr
        .ensure_cache_rule(&World::hub_rule("hub"))
        .await
        .unwrap();
    assert_eq!(
        ensured.change,
        RuleChange::Credentials(RuleCredentials::secret(&arn))
    );
    assert_eq!(
        world.ecr.validate_cache_rule("docker-hub").await.unwrap(),
        RuleValidity::Valid
    );

    let rules = world.ecr.pull_through_rules().await.unwrap();
    let names: Vec<_> = rules
        .iter()
        .map(|rule| (rule.name(), rule.kind().clone()))
        .collect();
    assert_eq!(names, [("docker-hub", Kind::DockerHub), ("quay", Kind::Quay)]);
    let rule = world.ecr.cache_rule("docker-hub/").await.unwrap().unwrap();
    assert_eq!(rule.credentials(), ensured.rule.credentials());
    assert!(rule.updated() >= rule.created());
    assert!(rule.created().is_some() && rule.upstream().as_str() == "docker.io");

    let missing = world
        .ecr
        .update_cache_rule_credentials("none", &RuleCredentials::secret(secret("hub")))
        .await;
    assert!(missing.unwrap_err().is_not_found());
    assert!(
        world
            .ecr
            .validate_cache_rule("none")
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(world.ecr.delete_cache_rule("quay").await.unwrap());
    assert!(!world.ecr.delete_cache_rule("quay").await.unwrap());
    assert_eq!(world.ecr.cache_rule("quay").await.unwrap(), None);
}

#[tokio::test]
async fn the_limit_of_rules_is_told_and_not_tried_again() {
    let world = World::start().await;
    for at in 0..50 {
        world
            .rule(&WantedRule::new(format!("quay-{at}"), "quay.io"))
            .await;
    }
    let one_more = WantedRule::new("one-more", "quay.io");
    let (error, sent) = requests::count(world.ecr.create_cache_rule(&one_more)).await;
    let error = error.unwrap_err();
    assert!(error.is_rate_limited() && !error.retry().can_help(), "{error:?}");
    assert_eq!(sent, 1);
    assert_eq!(world.ecr.pull_through_rules().await.unwrap().len(), 50);
}

#[tokio::test]
async fn rules_are_read_once_for_many_names() {
    let world = World::with_rules().await;
    let (names, sent) = requests::count(async {
        let mut names = Vec::new();
        for upstream in [
            BASE,
            "quay.io/acme/certs@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            NGINX,
        ] {
            names.push(world.ecr.cached_reference(&image(upstream)).await.unwrap());
        }
        names
    })
    .await;
    // One listing, and one token, which says which registry it is.
    assert!(sent <= 2, "{sent} requests");
    let paths: Vec<_> = names.iter().map(|name| name.repository().as_str()).collect();
    assert_eq!(
        paths,
        ["quay/acme/base", "quay/acme/certs", "docker-hub/library/nginx"]
    );
    let (back, sent) = requests::count(async {
        let mut back = Vec::new();
        for name in &names {
            back.push(world.ecr.upstream_of(name).await.unwrap().unwrap().to_string());
        }
        back
    })
    .await;
    assert_eq!(sent, 0);
    assert_eq!(back[0], BASE);
    assert_eq!(back[2], format!("docker.io/library/{NGINX}"));
    let ours = names[0].renamed(names[0].registry().clone(), "shop/web".parse().unwrap());
    assert_eq!(world.ecr.upstream_of(&ours).await.unwrap(), None);
    assert_eq!(world.ecr.upstream_of(&image(BASE)).await.unwrap(), None);

    // A rule that somebody else has just made is found all the same.
    let gallery = image("public.ecr.aws/nginx/nginx:1");
    let missing = world.ecr.cached_reference(&gallery).await.unwrap_err();
    assert!(matches!(problem(&missing), CacheProblem::MissingRule { .. }));
    let other = world.elsewhere().await;
    other
        .ensure_cache_rule(&WantedRule::new("ecr-public", "public.ecr.aws"))
        .await
        .unwrap();
    assert_eq!(
        world
            .ecr
            .cached_reference(&gallery)
            .await
            .unwrap()
            .repository()
            .as_str(),
        "ecr-public/nginx/nginx"
    );
}

#[tokio::test]
async fn a_closure_is_brought_in_whole_and_only_once() {
    let world = World::with_rules().await;
    world.lab.cache_layers_lazily(true);
    let options = WarmOptions::default();
    let warmed = world.ecr.warm(&image(BASE), &options).await.unwrap();
    assert_eq!(Some(&warmed.digest), world.quay.digest("acme/base", "1").as_ref());
    assert_eq!(warmed.cached.digest(), Some(&warmed.digest));
    assert_eq!(warmed.verification, Verification::ByUpstream);
    // An index and two images; two layers of their own, one that they share, two configurations.
    assert_eq!((warmed.manifests, warmed.blobs, warmed.filled), (3, 5, 5));
    assert_eq!(warmed.platforms.len(), 2);
    assert!(warmed.bytes_read > 0 && warmed.arriving.is_empty());
    for blob in world.parts().1 {
        assert_eq!(world.lab.blob(&blob), world.quay.blob(&blob));
    }

    let (again, sent) = requests::count(world.ecr.warm(&image(BASE), &options)).await;
    let again = again.unwrap();
    assert_eq!((again.filled, again.bytes_read, again.blobs), (0, 0, 5));
    // Three manifests, one question to the upstream, one about the blobs.
    assert_eq!(sent, 5);

    let by_digest = image(&format!("quay.io/acme/base@{}", warmed.digest));
    let by_digest = world.ecr.warm(&by_digest, &options).await.unwrap();
    assert_eq!(by_digest.verification, Verification::ByDigest);
    let never = WarmOptions::default().verify(Verify::Never);
    assert_eq!(
        world.ecr.warm(&image(BASE), &never).await.unwrap().verification,
        Verification::NotAsked
    );
    // The upstream that wants credentials, which this client has no way to.
    let nginx = world.ecr.warm(&image(NGINX), &options).await.unwrap();
    assert_eq!(nginx.cached.repository().as_str(), "docker-hub/library/nginx");
    assert_eq!((nginx.filled, nginx.verification), (5, Verification::NotAsked));
}

#[tokio::test]
async fn chosen_platforms_alone_are_filled() {
    let world = World::with_rules().await;
    world.lab.cache_layers_lazily(true);
    let arm = WarmOptions::default().platforms([Platform::linux("arm64")]);
    let warmed = world.ecr.warm(&image(BASE), &arm).await.unwrap();
    assert_eq!((warmed.manifests, warmed.blobs, warmed.filled), (2, 3, 3));
    assert_eq!(warmed.platforms.len(), 1);
    let other = WarmOptions::default().platforms([Platform::linux("s390x")]);
    let error = world.ecr.warm(&image(BASE), &other).await.unwrap_err();
    assert!(
        error.to_string().contains("no linux/s390x; it has linux/amd64"),
        "{error}"
    );
    let rest = world
        .ecr
        .warm(&image(BASE), &WarmOptions::default())
        .await
        .unwrap();
    assert_eq!((rest.blobs, rest.filled), (5, 2));
}

#[tokio::test]
async fn an_index_within_an_index_comes_whole() {
    let world = World::with_rules().await;
    let other = world
        .quay
        .seed_image("acme/base", "2", &ImageSeed::certificates())
        .unwrap();
    let first = world.quay.digest("acme/base", "1").unwrap();
    let nest = |children: &[&Digest]| {
        let listed: Vec<_> = children
            .iter()
            .map(|digest| json!({"mediaType": media::OCI_INDEX, "digest": digest, "size": 1}))
            .collect();
        json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": listed}).to_string()
    };
    let put = |tag: &str, text: String| {
        world
            .quay
            .put_manifest("acme/base", Some(tag), media::OCI_INDEX, text.as_bytes())
    };
    let inner = put("inner", nest(&[&first, &other]));
    put("outer", nest(&[&inner, &first]));
    let upstream = image("quay.io/acme/base:outer");
    let warmed = world.ecr.warm(&upstream, &WarmOptions::default()).await.unwrap();
    // Four indexes and four images, none twice.
    assert_eq!((warmed.manifests, warmed.platforms.len()), (8, 4));
    let arm = WarmOptions::default().platforms([Platform::linux("arm64")]);
    let warmed = world.ecr.warm(&upstream, &arm).await.unwrap();
    assert_eq!((warmed.manifests, warmed.platforms.len()), (6, 2));
    let imported = world.ecr.import(&upstream).await.unwrap();
    assert_eq!(imported.cached.platforms.len(), 4);
}

#[tokio::test]
async fn a_half_filled_cache_is_completed_or_told() {
    let world = World::with_rules().await;
    let options = WarmOptions::default();
    world.ecr.warm(&image(BASE), &options).await.unwrap();
    world.lab.cache_layers_lazily(true);
    let (children, layers) = world.parts();
    assert!(world.lab.lose("quay/acme/base", &children[1]));
    assert!(world.lab.lose("quay/acme/base", &layers[0]));
    let completed = world.ecr.warm(&image(BASE), &options).await.unwrap();
    assert_eq!((completed.manifests, completed.filled), (3, 1));
    assert!(world.lab.image("quay/acme/base", children[1].as_str()).is_some());

    // What the upstream has lost too does not come.
    for part in [&children[1], &layers[0]] {
        assert!(world.lab.lose("quay/acme/base", part));
        assert!(world.quay.remove("acme/base", part.as_str()));
    }
    let error = world.ecr.warm(&image(BASE), &options).await.unwrap_err();
    let CacheProblem::HalfFilled { missing } = problem(&error) else {
        panic!("{error}");
    };
    assert_eq!(missing, [children[1].clone(), layers[0].clone()]);
    // So it is where the first pull finds the upstream in that state.
    let fresh = World::with_rules().await;
    fresh.quay.remove("acme/base", layers[0].as_str());
    assert_eq!(
        fresh.problem(BASE).await,
        CacheProblem::HalfFilled {
            missing: vec![layers[0].clone()]
        }
    );
}

#[tokio::test]
async fn a_tag_that_is_behind_is_told_from_one_that_is_wrong() {
    let world = World::with_rules().await;
    let old = world
        .ecr
        .warm(&image(BASE), &WarmOptions::default())
        .await
        .unwrap()
        .digest;
    let new = world
        .quay
        .seed_image("acme/base", "1", &ImageSeed::new().file("new", "bytes"))
        .unwrap();
    let stale = CacheProblem::StaleTag {
        cached: old.clone(),
        upstream: new.clone(),
    };
    assert_eq!(world.problem(BASE).await, stale);
    let by_digest = image(&format!("quay.io/acme/base@{new}"));
    assert_eq!(
        world
            .ecr
            .warm(&by_digest, &WarmOptions::default())
            .await
            .unwrap()
            .digest,
        new
    );

    world.quay.remove("acme/base", old.as_str());
    let mismatch = CacheProblem::Mismatch {
        cached: old.clone(),
        upstream: new,
    };
    assert_eq!(world.problem(BASE).await, mismatch);
    world.quay.remove("acme/base", "1");
    assert_eq!(
        world.problem(BASE).await,
        CacheProblem::UpstreamRemoved { cached: old }
    );

    // No answer is no failure, unless one was required.
    world.quay.set_trouble(Some(UpstreamTrouble::Down));
    let warmed = world
        .ecr
        .warm(&image(BASE), &WarmOptions::default())
        .await
        .unwrap();
    assert!(
        matches!(warmed.verification, Verification::NoAnswer(_)),
        "{warmed:?}"
    );
    let required = WarmOptions::default().verify(Verify::Required);
    assert!(
        world
            .ecr
            .warm(&image(BASE), &required)
            .await
            .unwrap_err()
            .is_unavailable()
    );
}

#[tokio::test]
async fn a_tag_brings_in_the_digest_beside_it() {
    let world = World::with_rules().await;
    world.lab.cache_digests(false);
    let digest = world.quay.digest("acme/base", "1").unwrap();
    let alone = format!("quay.io/acme/base@{digest}");
    assert!(matches!(
        world.problem(&alone).await,
        CacheProblem::NotThere { .. }
    ));
    let both = image(&format!("{BASE}@{digest}"));
    let warmed = world.ecr.warm(&both, &WarmOptions::default()).await.unwrap();
    assert_eq!(
        (warmed.digest, warmed.verification),
        (digest, Verification::ByDigest)
    );
    world
        .ecr
        .warm(&image(&alone), &WarmOptions::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_the_upstream_says_is_told_apart() {
    let world = World::with_rules().await;
    assert_eq!(
        world.problem("quay.io/acme/base:none").await,
        CacheProblem::UpstreamNotFound
    );
    assert_eq!(
        world.problem("ghcr.io/acme/base:1").await,
        CacheProblem::MissingRule {
            upstream: "ghcr.io".parse().unwrap()
        }
    );
    // With the repository there and without it, the service says it differently.
    for there in [false, true] {
        if there {
            world.quay.set_trouble(None);
            world.hub.set_trouble(None);
            world
                .ecr
                .warm(&image(BASE), &WarmOptions::default())
                .await
                .unwrap();
            world
                .ecr
                .warm(&image(NGINX), &WarmOptions::default())
                .await
                .unwrap();
        }
        let (quay, hub) = ("quay.io/acme/base:other", "nginx:other");
        for (trouble, expected) in [
            (UpstreamTrouble::Denied, CacheProblem::UpstreamDenied),
            (
                UpstreamTrouble::RateLimited { retry_after: None },
                CacheProblem::UpstreamRateLimited { retry_after: None },
            ),
        ] {
            world.quay.set_trouble(Some(trouble));
            world.hub.set_trouble(Some(trouble));
            assert_eq!(world.problem(quay).await, expected, "there: {there}");
            if trouble == UpstreamTrouble::Denied {
                assert_eq!(world.problem(hub).await, expected, "there: {there}");
            }
        }
        world.quay.set_trouble(Some(UpstreamTrouble::Down));
        let down = world.problem(quay).await;
        assert!(
            matches!(down, CacheProblem::UpstreamUnavailable { .. }),
            "{down:?}"
        );
        let found = world.ecr.cache_problem(&image(quay)).await.unwrap().unwrap();
        assert!(
            matches!(found, CacheProblem::UpstreamUnavailable { .. }),
            "{found:?}"
        );
    }
    // What is cached is served meanwhile.
    let elsewhere = world.elsewhere().await;
    elsewhere.import(&image(BASE)).await.unwrap();
    assert_eq!(elsewhere.cache_problem(&image(BASE)).await.unwrap(), None);
}

#[tokio::test]
async fn credentials_that_are_no_good_are_told_apart() {
    let world = World::with_rules().await;
    let refused = |words: &str| {
        let words = words.to_owned();
        move |problem: CacheProblem| match problem {
            CacheProblem::Credential {
                fault: CredentialFault::Refused(said),
                ..
            } => assert!(said.contains(&words), "{said}"),
            other => panic!("{other:?}"),
        }
    };
    world
        .lab
        .put_secret(&secret("hub"), "acme", &Secret::new("wrong"));
    refused("authentication to the upstream registry failed")(world.problem(NGINX).await);
    world
        .lab
        .spoil_secret(&secret("hub"), Some(SecretFault::NotDecryptable));
    refused("unable to be decrypted")(world.problem(NGINX).await);
    world
        .lab
        .spoil_secret(&secret("hub"), Some(SecretFault::NotFound));
    refused("was not found")(world.problem(NGINX).await);
    // A private image comes with the account that may read it.
    world
        .lab
        .put_secret(&secret("hub"), "acme", &Secret::new("access-token"));
    world
        .hub
        .seed_image("acme/private", "1", &ImageSeed::base())
        .unwrap();
    world.hub.make_private("acme/private");
    world
        .ecr
        .warm(&image("docker.io/acme/private:1"), &WarmOptions::default())
        .await
        .unwrap();
    // One that does not exist is not told from a private one, by Docker Hub.
    assert_eq!(
        world.problem("docker.io/acme/none:1").await,
        CacheProblem::UpstreamDenied
    );
    let shown = format!(
        "{:?}",
        world
            .ecr
            .warm(&image("docker.io/acme/none:1"), &WarmOptions::default())
            .await
    );
    assert!(!shown.contains("access-token"), "{shown}");
}

#[tokio::test]
async fn a_missing_permission_is_told_from_a_missing_image() {
    let world = World::with_rules().await;
    world.lab.deny_action(IMPORT);
    let CacheProblem::MissingPermission { actions } = world.problem(BASE).await else {
        panic!("the upstream has it, and the caller may not import it");
    };
    assert_eq!(actions, [IMPORT, "ecr:CreateRepository"]);
    assert_eq!(
        world.problem("quay.io/acme/base:none").await,
        CacheProblem::UpstreamNotFound
    );
    // Who cannot ask the upstream is told both.
    let elsewhere = world.elsewhere().await;
    let error = elsewhere.import(&image(BASE)).await.unwrap_err();
    assert_eq!(
        problem(&error),
        CacheProblem::NotThere {
            repository_exists: false
        }
    );
    assert!(error.to_string().contains(IMPORT), "{error}");
    world.lab.allow_action(IMPORT);
    world
        .ecr
        .warm(&image(BASE), &WarmOptions::default())
        .await
        .unwrap();
    world.lab.deny_action(IMPORT);
    world
        .quay
        .seed_image("acme/base", "2", &ImageSeed::certificates())
        .unwrap();
    assert_eq!(
        world.problem("quay.io/acme/base:2").await,
        CacheProblem::MissingPermission {
            actions: vec![IMPORT]
        }
    );
    world.lab.allow_action(IMPORT);

    // Without the permission to ask for blobs, all are read.
    world.lab.deny_action("ecr:BatchCheckLayerAvailability");
    let read = world
        .ecr
        .warm(&image(BASE), &WarmOptions::default())
        .await
        .unwrap();
    assert_eq!((read.blobs, read.filled), (5, 5));
    assert!(read.arriving.is_empty());
}

#[tokio::test]
async fn a_repository_without_a_rule_is_no_cache() {
    let world = World::with_rules().await;
    let cached = world
        .ecr
        .warm(&image(BASE), &WarmOptions::default())
        .await
        .unwrap()
        .cached;
    assert_eq!(world.ecr.cache_problem(&cached).await.unwrap(), None);
    world.ecr.delete_cache_rule("quay").await.unwrap();
    assert_eq!(
        world.ecr.cache_problem(&cached).await.unwrap(),
        Some(CacheProblem::NotACache)
    );
    let nowhere = ImageRef::new(cached.registry().clone(), "no/such".parse().unwrap());
    assert_eq!(
        world.ecr.cache_problem(&nowhere).await.unwrap(),
        Some(CacheProblem::NotThere {
            repository_exists: false
        })
    );
}
