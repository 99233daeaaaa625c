//! `towpath-ecr` at the lab holds the contract; and where `/v2/` is a docker-registry instead of the lab's, the clauses
//! about what `/v2/` does. `tests/peers/run` starts that one, and by itself `cargo test` leaves it out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod front;

use async_trait::async_trait;
use front::Front;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use towpath_core::wait::Policy;
use towpath_core::{Digest, ImageRef, Region, RepositoryName};
use towpath_ecr::oci::OciSettings;
use towpath_ecr::registry::Scanner;
use towpath_ecr::{Ecr, EcrConfig, ScanFrequency, ScanRule, ScanningConfiguration, WantedRule};
use towpath_elements::Registry;
use towpath_lab::ecr::{self as lab, ImageSeed, Upstream, UpstreamConfig, UpstreamKind};
use towpath_testkit::contract::registry::RegistryFixture;

static FILLING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Fixture {
    lab: lab::Ecr,
    quay: Upstream,
    client: Arc<Ecr>,
    folder: tempfile::TempDir,
    made: AtomicU32,
    /// The docker-registry that serves `/v2/`, where that is not the lab.
    other: Option<Front>,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(None).await
    }

    async fn on_docker_registry() -> Self {
        let fixture = Self::with(Some(Front::start().await)).await;
        // Nothing is pulled through docker-registry under the prefix of a rule: it is given what the rule would bring in,
        // and the control plane, which is asked what there is, brings it in itself.
        let upstream = fixture.upstream_image().await;
        let cached = fixture.client.cached(&upstream).await.unwrap();
        let tag = cached.tag().unwrap().as_str();
        let tag = aws_sdk_ecr::types::ImageIdentifier::builder()
            .image_tag(tag)
            .build();
        let import = fixture.client.api().batch_get_image().image_ids(tag);
        let import = import.repository_name(cached.repository().as_str()).send();
        assert_eq!(import.await.unwrap().images().len(), 1);
        let upstream = upstream.at(fixture.upstream_digest(&upstream).await);
        // All tests fill the same repository. docker-registry reads a manifest that another request is still writing, and
        // then refuses it.
        let _turn = FILLING.lock().await;
        fixture.client.oci().copy_image(&upstream, &cached).await.unwrap();
        fixture
    }

    async fn with(other: Option<Front>) -> Self {
        let quay = Upstream::start(UpstreamConfig::new(UpstreamKind::Quay))
            .await
            .unwrap();
        quay.seed_image("acme/base", "1", &ImageSeed::base()).unwrap();
        let known = lab::EcrConfig::default();
        let lab = lab::Ecr::start(lab::EcrConfig {
            upstreams: vec![("quay.io".into(), quay.address())],
            ..lab::EcrConfig::default()
        })
        .await
        .unwrap();
        let mut wire = OciSettings::default();
        wire.first_pause = Duration::from_millis(2);
        wire.longest_pause = Duration::from_millis(20);
        if let Some(other) = &other {
            let host = lab.registry_host().parse().unwrap();
            wire.endpoints.insert(host, other.url().parse().unwrap());
        }
        let upstream = format!("http://{}", quay.address()).parse().unwrap();
        let config = EcrConfig::from_env()
            .region(Region::new(&known.region).unwrap())
            .endpoint(lab.api_url().parse().unwrap())
            .credentials(known.access_key_id, known.secret_access_key, None)
            .wire(wire)
            .upstream("quay.io".parse().unwrap(), upstream);
        let client = Ecr::new(&config).await.unwrap();
        client
            .ensure_cache_rule(&WantedRule::new("quay", "quay.io"))
            .await
            .unwrap();
        Self {
            lab,
            quay,
            client: Arc::new(client),
            folder: tempfile::tempdir().unwrap(),
            made: AtomicU32::new(0),
            other,
        }
    }
}

#[async_trait]
impl RegistryFixture for Fixture {
    fn registry(&self) -> Arc<dyn Registry> {
        self.client.clone()
    }

    async fn upstream_image(&self) -> ImageRef {
        "quay.io/acme/base:1".parse().unwrap()
    }

    async fn upstream_digest(&self, _: &ImageRef) -> Digest {
        self.quay.digest("acme/base", "1").unwrap()
    }

    async fn upstream_without_a_rule(&self) -> ImageRef {
        "public.ecr.aws/docker/library/alpine:3".parse().unwrap()
    }

    async fn served(&self, image: &ImageRef) -> Option<Vec<u8>> {
        if let Some(other) = &self.other {
            return other.served(image.repository().as_str(), image.reference()).await;
        }
        let found = self.lab.image(image.repository().as_str(), image.reference())?;
        Some(found.manifest.to_vec())
    }

    async fn writes(&self) -> usize {
        if let Some(other) = &self.other {
            return other.writes();
        }
        let requests = self.lab.registry_requests();
        let writing = ["POST", "PUT", "PATCH"].map(|method| method.parse().unwrap());
        writing.iter().map(|method| requests.count(method, "/v2/")).sum()
    }

    async fn make_immutable(&self, repository: &RepositoryName) {
        self.client
            .api()
            .put_image_tag_mutability()
            .repository_name(repository.as_str())
            .image_tag_mutability(aws_sdk_ecr::types::ImageTagMutability::Immutable)
            .send()
            .await
            .unwrap();
    }

    async fn hold_scans(&self) {
        self.lab
            .set_scan_delays(Duration::from_secs(3600), Duration::from_secs(3600));
    }

    async fn release_scans(&self) {
        self.lab
            .set_scan_delays(Duration::from_millis(1), Duration::from_millis(1));
    }

    async fn uncover(&self) {
        let nothing = ScanningConfiguration::new(Scanner::Basic, Vec::new());
        self.client.set_scanning_configuration(&nothing).await.unwrap();
    }

    async fn hold_findings(&self) {
        let rule = ScanRule::new(ScanFrequency::Continuous, ["*"]);
        let enhanced = ScanningConfiguration::new(Scanner::Enhanced, vec![rule]);
        self.client.set_scanning_configuration(&enhanced).await.unwrap();
        self.lab.complete_before_findings(true);
        self.lab
            .set_scan_delays(Duration::ZERO, Duration::from_secs(3600));
        let finding = lab::Finding::new("CVE-2026-1", "LOW", "zlib", "1.3");
        self.lab.set_findings("contract/unlisted", vec![finding]);
    }

    async fn release_findings(&self) {
        self.lab.set_scan_delays(Duration::ZERO, Duration::ZERO);
    }

    fn scratch(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed).to_string();
        let folder = self.folder.path().join(number);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    fn policy(&self) -> Policy {
        Policy::every(Duration::from_millis(5)).within(Duration::from_secs(20))
    }
}

mod registry {
    use super::*;
    towpath_testkit::registry_contract!(Fixture::start().await);
}

mod docker_registry {
    use super::*;
    towpath_testkit::registry_data_plane_contract!(
        Fixture::on_docker_registry().await,
        #[tokio::test]
        #[ignore = "needs the registry that tests/peers/run starts"]
    );
}
