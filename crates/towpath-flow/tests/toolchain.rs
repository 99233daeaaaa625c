//! The real cargo, with the lab's CodeArtifact in place of the public registry.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use towpath_codeartifact::{
    Access, ArtifactRepository, Artifacts, CodeArtifact, CodeArtifactConfig, PackageFormat, PackageId,
    Publication,
};
use towpath_flow::toolchain::{Cargo, Toolchain};
use towpath_lab::codeartifact::{CodeArtifact as Lab, CodeArtifactConfig as LabConfig};

struct Workshop {
    lab: Lab,
    client: CodeArtifact,
    root: TempDir,
}

impl Workshop {
    async fn new() -> Self {
        let known = LabConfig::default();
        let lab = Lab::start(known.clone()).await.unwrap();
        let config = CodeArtifactConfig::from_env()
            .region(known.region.parse().unwrap())
            .endpoint(lab.api_url().parse().unwrap())
            .credentials(known.access_key_id, known.secret_access_key, None);
        Self {
            lab,
            client: CodeArtifact::new(config).await.unwrap(),
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn cargo(&self) -> Cargo {
        Cargo::default()
            .with_home(self.root.path().join("home"))
            .with_target(self.root.path().join("target"))
    }

    async fn access(&self) -> Access {
        self.client
            .access(&libraries(), PackageFormat::Cargo)
            .await
            .unwrap()
    }

    /// A crate that depends on `dependency`, committed to a git repository.
    fn project(&self, name: &str, dependency: &str, source: &str) -> PathBuf {
        let project = self.root.path().join(name);
        std::fs::create_dir_all(project.join("src")).unwrap();
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\nlicense = \"MIT\"\n\
             description = \"For a test\"\n[dependencies]\n{dependency}\n"
        );
        std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
        std::fs::write(project.join("src/lib.rs"), source).unwrap();
        std::fs::write(project.join(".gitignore"), "Cargo.lock\n").unwrap();
        git(&project, &["init", "-q"]);
        git(&project, &["add", "-A"]);
        let who = [
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.com",
            "-c",
            "commit.gpgsign=false",
        ];
        git(&project, &[&who[..], &["commit", "-q", "-m", "Begin"]].concat());
        project
    }
}

fn git(folder: &Path, arguments: &[&str]) {
    let done = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .status()
        .unwrap();
    assert!(done.success(), "git {arguments:?}");
}

fn libraries() -> ArtifactRepository {
    "acme/libraries".parse().unwrap()
}

#[tokio::test]
async fn a_library_is_fetched_built_packed_published_and_depended_on() {
    let workshop = Workshop::new().await;
    let (cargo, access) = (workshop.cargo(), workshop.access().await);
    let source = "pub fn hello() -> String { towpath_greeting::greet(\"flow\") }\n";
    let project = workshop.project("demo-flow", "towpath-greeting = \"1\"", source);
    let version = PackageId::cargo("demo-flow").unwrap().at("0.1.0").unwrap();
    let greeting = PackageId::cargo("towpath-greeting").unwrap().at("1.0.0").unwrap();

    assert_eq!(cargo.describe(&project).await.unwrap(), version);
    assert_eq!(
        cargo.fetch(&project, &access).await.unwrap(),
        std::slice::from_ref(&greeting)
    );
    let held = workshop
        .lab
        .version("acme", "libraries", greeting.package(), "1.0.0");
    assert!(held.is_some(), "it came through the repository");

    let packaged = cargo.package(&project, &access).await.unwrap();
    assert_eq!(packaged.version, version);
    let again = cargo.package(&project, &access).await.unwrap();
    assert_eq!(packaged, again, "the same commit gives the same bytes");
    let publication = Publication {
        repository: libraries(),
        version: version.clone(),
        files: vec![packaged.file],
    };
    let stored = Artifacts::publish(&workshop.client, publication).await.unwrap();
    assert_eq!(stored.assets[0].digest, Some(packaged.digest));

    // What our client published, real cargo resolves and builds.
    let source = "pub fn twice() -> String { demo_flow::hello() + &demo_flow::hello() }\n";
    let dependent = workshop.project("dependent", "demo-flow = \"0.1\"", source);
    let fetched = cargo.fetch(&dependent, &access).await.unwrap();
    assert!(
        fetched.contains(&version) && fetched.contains(&greeting),
        "{fetched:?}"
    );
    cargo.package(&dependent, &access).await.unwrap();
}

#[tokio::test]
async fn what_cargo_says_is_passed_on_without_the_token() {
    let workshop = Workshop::new().await;
    let (cargo, access) = (workshop.cargo(), workshop.access().await);
    let project = workshop.project("lost", "no-such-crate-anywhere = \"1\"", "");
    let error = cargo.fetch(&project, &access).await.unwrap_err();
    assert!(error.to_string().contains("no-such-crate-anywhere"), "{error}");
    workshop.lab.expire_tokens();
    let error = cargo.fetch(&project, &access).await.unwrap_err();
    assert!(!format!("{error:?}").contains(access.token.expose()), "{error:?}");
    let error = cargo.describe(workshop.root.path()).await.unwrap_err();
    assert!(error.to_string().contains("no Cargo.toml"), "{error}");
}
