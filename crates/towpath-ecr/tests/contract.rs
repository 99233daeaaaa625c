//! Every clause of the trait's contract, against the lab's registry and upstreams.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use http::Method;
use std::time::Duration;
use support::{World, assembly, attach, image, json};
use towpath_core::requests;
use towpath_ecr::registry::{Layer, Platform, ScanStatus, Severity};
use towpath_ecr::wait::Policy;
use towpath_ecr::{Cancellation, Digest, ImageRef, Registry, RegistryExt, WantedRule};
use towpath_lab::ecr::{Finding, ImageSeed};

#[tokio::test]
async fn what_is_not_there_resolves_to_none() {
    let world = World::with_rule().await;
    let there = world.assembled("shop/web", "1").await;
    for missing in [
        there.tagged("2".parse().unwrap()),
        there.at(Digest::sha256_of(b"nothing")),
        ImageRef::new(there.registry().clone(), "no/such".parse().unwrap()),
    ] {
        assert_eq!(world.ecr.resolve(&missing).await.unwrap(), None, "{missing}");
    }
    let found = world
        .ecr
        .resolve(&there.tagged("1".parse().unwrap()))
        .await
        .unwrap()
        .unwrap();
    let stored = world.lab.image("shop/web", "1").unwrap();
    assert_eq!(found.digest, Digest::sha256_of(&stored.manifest));
    assert_eq!(found.platforms.len(), 2);
}

#[tokio::test]
async fn a_push_to_a_missing_repository_says_how_it_is_made() {
    use towpath_ecr::oci::{Blob, Manifest, media};
    let world = World::with_rule().await;
    let there = world.target("shop/web").await;
    let missing = ImageRef::new(there.registry().clone(), "no/such".parse().unwrap());
    let oci = world.ecr.oci();
    let blob = oci.push_blob(&missing, &Blob::from_bytes("a layer")).await;
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    let index = Manifest::read(media::OCI_INDEX, index.into()).unwrap();
    let manifest = oci.put_manifest(&missing, &index).await;
    for error in [blob.unwrap_err(), manifest.unwrap_err()] {
        assert!(error.is_not_found(), "{error}");
        assert!(error.advice().unwrap().contains("ensure_repository"), "{error}");
    }
}

#[tokio::test]
async fn an_assembled_image_is_the_same_every_time() {
    let world = World::with_rule().await;
    let first = world.assembled("shop/web", "1").await;
    let before = world.lab.registry_requests().all().len();
    let (second, count) = requests::count(world.assembled("shop/web", "1")).await;
    assert_eq!(first, second);
    let asked = world.lab.registry_requests().all();
    let writes = asked[before..]
        .iter()
        .filter(|seen| seen.method != Method::GET && seen.method != Method::HEAD);
    assert_eq!(writes.count(), 0);
    assert!(count > 0);
}

#[tokio::test]
async fn an_assembled_image_stands_on_its_base() {
    let world = World::with_rule().await;
    let base = world.base().await;
    let certs = world
        .ecr
        .import(&image("quay.io/acme/certs:1"))
        .await
        .unwrap()
        .cached
        .image;
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("hello"), "x").unwrap();
    let target = world.target("shop/web").await.tagged("1".parse().unwrap());
    let mut wanted = assembly(base.clone(), target, files.path());
    wanted.layers.push(Layer::Image(certs.clone()));
    wanted.config.entrypoint = Some(vec!["/app/hello".into()]);
    wanted.config.labels.insert("team".into(), "shop".into());
    let made = world.ecr.assemble(wanted.clone()).await.unwrap();

    assert_eq!(made.platforms.len(), 2);
    assert_eq!(made.annotations["org.opencontainers.image.version"], "1");
    assert_eq!(
        made.annotations["org.opencontainers.image.base.digest"],
        base.digest().unwrap().to_string()
    );
    let of = async |image: &ImageRef| world.ecr.resolve(image).await.unwrap().unwrap().platforms;
    let (bases, extras) = (of(&base).await, of(&certs).await);
    for part in &made.platforms {
        let layers = |repository: &str, digest: &Digest| {
            let manifest = world.lab.image(repository, digest.as_str()).unwrap().manifest;
            json(&manifest)["layers"].as_array().unwrap().clone()
        };
        let twin = |parts: &[towpath_ecr::registry::PlatformImage]| {
            parts
                .iter()
                .find(|other| other.platform == part.platform)
                .unwrap()
                .digest
                .clone()
        };
        let below = layers("quay/acme/base", &twin(&bases));
        let above = layers("quay/acme/certs", &twin(&extras));
        let all = layers("shop/web", &part.digest);
        assert_eq!(all[..below.len()], below);
        assert_eq!(all[below.len() + 1..], above);
        let manifest = world
            .lab
            .image("shop/web", part.digest.as_str())
            .unwrap()
            .manifest;
        let config: Digest = json(&manifest)["config"]["digest"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let config = json(&world.lab.blob(&config).unwrap());
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), all.len());
        assert_eq!(config["config"]["Labels"]["team"], "shop");
        assert_eq!(config["config"]["Entrypoint"][0], "/app/hello");
    }

    wanted.platforms = vec![Platform::linux("arm64")];
    let one = world.ecr.assemble(wanted.clone()).await.unwrap();
    assert_eq!(one.platforms.len(), 1);
    wanted.platforms = vec![Platform::linux("s390x")];
    let error = world.ecr.assemble(wanted.clone()).await.unwrap_err();
    assert!(
        error.to_string().contains("no linux/s390x; it has linux/amd64"),
        "{error}"
    );
    wanted.platforms = vec![];
    wanted.layers = vec![Layer::files("/no/such/folder", "/app")];
    let error = world.ecr.assemble(wanted).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}

#[tokio::test]
async fn tags_stay_or_conflict() {
    let world = World::with_rule().await;
    let (one, two) = (world.assembled("shop/web", "1").await, {
        let base = world.base().await;
        let files = tempfile::tempdir().unwrap();
        let target = world.target("shop/web").await;
        world
            .ecr
            .assemble(assembly(base, target, files.path()))
            .await
            .unwrap()
            .image
    });
    assert_ne!(one, two);
    let latest = "latest".parse().unwrap();
    world.ecr.tag(&one, &latest).await.unwrap();
    world.ecr.tag(&two, &latest).await.unwrap();
    assert_eq!(
        &world.lab.image("shop/web", "latest").unwrap().digest,
        two.digest().unwrap()
    );

    let call = world
        .ecr
        .api()
        .put_image_tag_mutability()
        .repository_name("shop/web");
    let immutable = aws_sdk_ecr::types::ImageTagMutability::Immutable;
    call.image_tag_mutability(immutable).send().await.unwrap();
    world.ecr.tag(&two, &latest).await.unwrap();
    let error = world.ecr.tag(&one, &latest).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    assert!(
        error.to_string().contains(two.digest().unwrap().as_str()),
        "{error}"
    );
    assert_eq!(
        &world.lab.image("shop/web", "latest").unwrap().digest,
        two.digest().unwrap()
    );
    // A whole assembly over an immutable tag that is right already succeeds, too.
    assert_eq!(world.assembled("shop/web", "1").await, one);
    // By tag is not by digest.
    assert!(
        world
            .ecr
            .tag(&one.tagged("1".parse().unwrap()), &latest)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_import_is_what_the_upstream_has() {
    let world = World::with_rule().await;
    let imported = world.ecr.import(&image("quay.io/acme/base:1")).await.unwrap();
    assert_eq!(
        Some(&imported.cached.digest),
        world.quay.digest("acme/base", "1").as_ref()
    );
    assert_eq!(imported.cached.image.repository().as_str(), "quay/acme/base");
    for part in &imported.cached.platforms {
        let manifest = world
            .lab
            .image("quay/acme/base", part.digest.as_str())
            .unwrap()
            .manifest;
        let manifest = json(&manifest);
        for blob in manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .chain([&manifest["config"]])
        {
            let digest: Digest = blob["digest"].as_str().unwrap().parse().unwrap();
            assert_eq!(world.lab.blob(&digest), world.quay.blob(&digest));
        }
    }
    // The upstream's tag moves on; the cache does not look for a day. That is told, not passed over.
    let moved = ImageSeed::new().file("new", "bytes");
    let new = world.quay.seed_image("acme/base", "1", &moved).unwrap();
    let error = world.ecr.import(&image("quay.io/acme/base:1")).await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains(new.as_str()),
        "{error}"
    );
    let by_digest = image("quay.io/acme/base").at(new.clone());
    assert_eq!(world.ecr.import(&by_digest).await.unwrap().cached.digest, new);
    let error = world
        .ecr
        .import(&image("quay.io/acme/nothing:1"))
        .await
        .unwrap_err();
    // Quay.io does not say whether an image is missing or private.
    assert!(
        error.is_denied() && error.to_string().contains("check the name"),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_rule_is_told_apart() {
    let world = World::start().await;
    let error = world.ecr.cached(&image("quay.io/acme/base:1")).await.unwrap_err();
    assert!(error.is_not_found());
    assert!(
        error
            .to_string()
            .contains("no pull-through cache rule is for quay.io"),
        "{error}"
    );
    assert!(
        error.advice().unwrap().contains("Ecr::ensure_cache_rule"),
        "{error}"
    );
    let rule = WantedRule::new("quay", "quay.io");
    world.ecr.ensure_cache_rule(&rule).await.unwrap();
    world.ecr.ensure_cache_rule(&rule).await.unwrap();
    let cached = world.ecr.cached(&image("quay.io/acme/base:1")).await.unwrap();
    assert_eq!(
        cached.to_string(),
        format!("{}/quay/acme/base:1", world.lab.registry_host())
    );
    let other = WantedRule::new("quay", "public.ecr.aws");
    let error = world.ecr.ensure_cache_rule(&other).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
}

#[tokio::test]
async fn a_scan_is_reported_per_platform() {
    let world = World::with_rule().await;
    world
        .lab
        .set_scan_delays(Duration::from_secs(3600), Duration::ZERO);
    let pushed = world.assembled("shop/web", "1").await;
    let report = world.ecr.scan(&pushed).await.unwrap();
    assert_eq!(report.platforms.len(), 2);
    for scan in &report.platforms {
        assert!(
            matches!(scan.status, ScanStatus::Pending | ScanStatus::InProgress),
            "{:?}",
            scan.status
        );
    }
    let finding = Finding::new("CVE-2026-1", "CRITICAL", "openssl", "3.0").fixed_in("3.1");
    world.lab.set_findings("shop/web", vec![finding]);
    world
        .lab
        .set_scan_delays(Duration::from_millis(1), Duration::ZERO);
    let policy = Policy::every(Duration::from_millis(2)).within(Duration::from_secs(20));
    let report = world
        .ecr
        .wait_for_scan(&pushed, &policy, &Cancellation::new())
        .await
        .unwrap();
    let parts = world.ecr.resolve(&pushed).await.unwrap().unwrap().platforms;
    assert_eq!(
        report
            .platforms
            .iter()
            .map(|scan| scan.image.clone())
            .collect::<Vec<_>>(),
        parts
    );
    for scan in &report.platforms {
        assert_eq!(scan.status, ScanStatus::Complete);
        assert!(scan.completed.is_some());
        assert_eq!(scan.findings[0].severity, Severity::Critical);
        assert_eq!(scan.findings[0].package.as_deref(), Some("openssl"));
    }
    world.lab.set_scan_status("shop/web", Some("UNSUPPORTED_IMAGE"));
    let report = world.ecr.scan(&pushed).await.unwrap();
    assert!(
        matches!(&report.platforms[0].status, ScanStatus::Unavailable(why) if why.contains("UNSUPPORTED_IMAGE"))
    );
    assert!(
        world
            .ecr
            .scan(&image("quay.io/acme/base").at(Digest::sha256_of(b"")))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_enhanced_scan_is_not_done_before_its_findings_arrive_and_all_pages_are_read() {
    use towpath_ecr::registry::Scanner;
    use towpath_ecr::{ScanFrequency, ScanRule, ScanningConfiguration};
    let world = World::with_rule().await;
    let rule = ScanRule::new(ScanFrequency::Continuous, ["*"]);
    let wanted = ScanningConfiguration::new(Scanner::Enhanced, vec![rule]);
    world.ecr.set_scanning_configuration(&wanted).await.unwrap();
    assert_eq!(world.ecr.scanning_configuration().await.unwrap(), wanted);
    world
        .lab
        .set_scan_delays(Duration::from_millis(1), Duration::from_secs(3600));
    let findings = (0..250)
        .map(|at| Finding::new(format!("CVE-2026-{at}"), "MEDIUM", "zlib", "1").fixed_in("2"))
        .collect();
    world.lab.set_findings("shop/web", findings);
    let pushed = world.assembled("shop/web", "1").await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        for scan in world.ecr.scan(&pushed).await.unwrap().platforms {
            assert!(
                matches!(scan.status, ScanStatus::Pending | ScanStatus::InProgress),
                "{scan:?}"
            );
        }
    }
    world
        .lab
        .set_scan_delays(Duration::from_millis(1), Duration::ZERO);
    let policy = Policy::every(Duration::from_millis(2)).within(Duration::from_secs(20));
    let report = world
        .ecr
        .wait_for_scan(&pushed, &policy, &Cancellation::new())
        .await
        .unwrap();
    for scan in &report.platforms {
        assert!(matches!(scan.status, ScanStatus::Active | ScanStatus::Complete));
        assert_eq!(scan.findings.len(), 250);
        assert_eq!(scan.findings[0].fixed_in.as_deref(), Some("2"));
    }
}

#[tokio::test]
async fn a_docker_image_of_one_platform_becomes_an_oci_image() {
    use towpath_ecr::oci::{Blob, Manifest, media};
    let world = World::start().await;
    let target = world.target("shop/web").await;
    let oci = world.ecr.oci();
    let layer = Blob::from_bytes("a layer");
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Healthcheck": {"Test": ["CMD", "true"]}},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]}, "history": [{"created_by": "docker"}],
    });
    let config = Blob::from_bytes(config.to_string());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::DOCKER_MANIFEST,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config.digest,
            "size": config.size},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": layer.digest,
            "size": layer.size}],
    });
    let base = Manifest::read(media::DOCKER_MANIFEST, manifest.to_string().into()).unwrap();
    oci.push_blobs(&target, vec![layer.clone(), config])
        .await
        .unwrap();
    oci.put_manifest(&target, &base).await.unwrap();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("hello"), "x").unwrap();
    let made = assembly(
        target.at(base.digest),
        target.tagged("1".parse().unwrap()),
        files.path(),
    );
    let made = world.ecr.assemble(made).await.unwrap();
    assert_eq!(made.media_type, media::OCI_MANIFEST);
    assert_eq!(made.platforms[0].platform, Some(Platform::linux("amd64")));
    let stored = json(&world.lab.image("shop/web", "1").unwrap().manifest);
    assert_eq!(
        stored["layers"][0]["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    assert_eq!(stored["layers"][0]["digest"], layer.digest.as_str());
    assert_eq!(
        stored["config"]["mediaType"],
        "application/vnd.oci.image.config.v1+json"
    );
    let config = stored["config"]["digest"].as_str().unwrap().parse().unwrap();
    let config = json(&world.lab.blob(&config).unwrap());
    assert_eq!(config["config"]["Healthcheck"]["Test"][1], "true");
    assert_eq!(config["history"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_copy_has_the_same_digest() {
    let world = World::with_rule().await;
    let from = world.assembled("shop/web", "1").await;
    let to = world.target("prod/web").await.tagged("stable".parse().unwrap());
    // What refers to the image goes with it.
    let artifact = attach(&world, &from).await;
    let copied = world.ecr.copy(&from, &to).await.unwrap();
    assert_eq!(Some(&copied.digest), from.digest());
    for reference in ["stable", copied.digest.as_str(), artifact.as_str()]
        .into_iter()
        .chain(copied.platforms.iter().map(|part| part.digest.as_str()))
    {
        let (one, two) = (
            world.lab.image("shop/web", reference),
            world.lab.image("prod/web", reference),
        );
        let two = two.unwrap_or_else(|| panic!("{reference} is missing"));
        if let Some(one) = one {
            assert_eq!(one.manifest, two.manifest);
        }
    }
    let found = world.ecr.oci().referrers(&to, &copied.digest).await.unwrap();
    assert_eq!(found[0].digest().to_string(), artifact.to_string());
    // Once more sends no blob and no image again.
    let sent = || {
        world
            .lab
            .registry_requests()
            .count(&Method::POST, "blobs/uploads")
    };
    let before = sent();
    world.ecr.copy(&from, &to).await.unwrap();
    assert_eq!(sent(), before);
}
