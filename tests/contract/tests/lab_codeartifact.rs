//! `towpath-codeartifact` at the lab holds the contract.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use flate2::{Compression, write::GzEncoder};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use towpath_codeartifact::{CodeArtifact, CodeArtifactConfig};
use towpath_core::wait::Policy;
use towpath_core::{ArtifactRepository, PackageId, PackageVersion};
use towpath_elements::Artifacts;
use towpath_lab::codeartifact::{CodeArtifact as Lab, CodeArtifactConfig as LabConfig, RepositoryConfig};
use towpath_testkit::contract::artifacts::ArtifactsFixture;

struct Fixture {
    _lab: Lab,
    client: Arc<CodeArtifact>,
    folder: tempfile::TempDir,
    made: AtomicU32,
}

impl Fixture {
    async fn start() -> Self {
        let mut config = LabConfig::default();
        config.repositories.push(RepositoryConfig {
            domain: "acme".into(),
            name: "releases".into(),
            upstreams: Vec::new(),
            external_connection: None,
        });
        let (region, key, secret) = (
            config.region.clone(),
            config.access_key_id.clone(),
            config.secret_access_key.clone(),
        );
        let lab = Lab::start(config).await.unwrap();
        lab.seed_crate(packed("contract-upstream", "1.0.0", "")).unwrap();
        let config = CodeArtifactConfig::from_env()
            .region(region.parse().unwrap())
            .endpoint(lab.api_url().parse().unwrap())
            .credentials(key, secret, None)
            .retries(3, Duration::from_millis(1), Duration::from_secs(2))
            .publish_wait(Policy::every(Duration::from_millis(2)).within(Duration::from_secs(10)));
        Self {
            client: Arc::new(CodeArtifact::new(config).await.unwrap()),
            _lab: lab,
            folder: tempfile::tempdir().unwrap(),
            made: AtomicU32::new(0),
        }
    }
}

/// A crate as `cargo package` packs it.
fn packed(name: &str, version: &str, source: &str) -> Vec<u8> {
    let manifest = format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n");
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, text) in [("Cargo.toml", manifest.as_str()), ("src/lib.rs", source)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{name}-{version}/{path}"), text.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[async_trait]
impl ArtifactsFixture for Fixture {
    fn artifacts(&self) -> Arc<dyn Artifacts> {
        self.client.clone()
    }

    fn repository(&self) -> ArtifactRepository {
        "acme/libraries".parse().unwrap()
    }

    fn other_repository(&self) -> ArtifactRepository {
        "acme/releases".parse().unwrap()
    }

    fn upstream_version(&self) -> Option<PackageVersion> {
        Some(
            PackageId::cargo("contract-upstream")
                .unwrap()
                .at("1.0.0")
                .unwrap(),
        )
    }

    async fn package(&self, name: &str, version: &str, contents: &str) -> (PackageVersion, PathBuf) {
        let number = self.made.fetch_add(1, Ordering::Relaxed).to_string();
        let folder = self.folder.path().join(number);
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join(format!("{name}-{version}.crate"));
        std::fs::write(&file, packed(name, version, &format!("//! {contents}\n"))).unwrap();
        (PackageId::cargo(name).unwrap().at(version).unwrap(), file)
    }
}

mod artifacts {
    use super::*;
    towpath_testkit::artifacts_contract!(Fixture::start().await);
}
