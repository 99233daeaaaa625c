//! The World holds the contracts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use towpath_core::wait::Policy;
use towpath_core::{
    Application, ArtifactRepository, BranchName, CommitSha, Digest, ImageRef, PackageId, PackageVersion,
    RepoSlug, RepositoryName, RunId, StackId,
};
use towpath_elements::registry::{Finding, Severity};
use towpath_elements::source::ReviewState;
use towpath_elements::{Artifacts, Ci, Delivery, Infrastructure, Registry, Source};
use towpath_testkit::World;
use towpath_testkit::contract::artifacts::ArtifactsFixture;
use towpath_testkit::contract::ci::CiFixture;
use towpath_testkit::contract::delivery::{DeliveryFixture, Promoted, Promotion};
use towpath_testkit::contract::infrastructure::InfrastructureFixture;
use towpath_testkit::contract::registry::RegistryFixture;
use towpath_testkit::contract::source::{MergedPullRequest, SourceFixture};
use towpath_testkit::world::{
    ApplicationSetup, CiEnding, Element, ImageSetup, Merge, ScanScript, StackSetup, Timing, Workflow,
};

struct Fixture {
    world: World,
    folder: tempfile::TempDir,
    made: AtomicU32,
}

impl Fixture {
    fn new() -> Self {
        let mut timing = Timing::default();
        timing.scan = Duration::from_secs(30);
        Self {
            world: World::with_timing(timing),
            folder: tempfile::tempdir().unwrap(),
            made: AtomicU32::new(0),
        }
    }

    fn number(&self) -> u32 {
        self.made.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn policy(&self) -> Policy {
        Policy::every(Duration::from_secs(1)).within(Duration::from_secs(600))
    }
}

fn main_branch() -> BranchName {
    "main".parse().unwrap()
}

#[async_trait]
impl SourceFixture for Fixture {
    fn source(&self) -> Arc<dyn Source> {
        self.world.source()
    }

    async fn repository(&self) -> RepoSlug {
        let slug = format!("acme/shop-{}", self.number()).parse().unwrap();
        self.world.create_repository(&slug, &[("README.md", "# Shop\n")]);
        slug
    }

    async fn branch_off(&self, repository: &RepoSlug, branch: &BranchName, at: &CommitSha) {
        self.world.set_branch(repository, branch, at);
    }

    async fn merged_pull_request(&self, repository: &RepoSlug) -> MergedPullRequest {
        let merge = Merge::by("ann", "src/lib.rs", "//! New\n")
            .approved_by("bob")
            .with("cy", ReviewState::Approved, false)
            .with("di", ReviewState::Approved, true)
            .with("di", ReviewState::ChangesRequested, true)
            .commented_by("ed");
        let commit = self.world.merge(repository, &main_branch(), &merge);
        MergedPullRequest {
            commit,
            author: "ann".into(),
            approved_by: "bob".into(),
            approved_too_early: "cy".into(),
            changed_their_mind: "di".into(),
            commented: "ed".into(),
        }
    }
}

mod source {
    use super::*;
    towpath_testkit::source_contract!(Fixture::new(), #[tokio::test(start_paused = true)]);
}

struct CiWorld(Fixture);

impl CiWorld {
    fn new() -> Self {
        let fixture = Fixture::new();
        let slug = "acme/shop".parse().unwrap();
        fixture
            .world
            .create_repository(&slug, &[("README.md", "# Shop\n")]);
        fixture.world.add_workflow(&slug, Workflow::ci());
        Self(fixture)
    }
}

#[async_trait]
impl CiFixture for CiWorld {
    fn ci(&self) -> Arc<dyn Ci> {
        self.0.world.ci()
    }

    fn repository(&self) -> RepoSlug {
        "acme/shop".parse().unwrap()
    }

    async fn push(&self, ends_well: bool) -> CommitSha {
        let ending = match ends_well {
            true => CiEnding::Success,
            false => CiEnding::FailsAt("cargo test".into()),
        };
        self.0.world.next_ci_run(&self.repository(), ending);
        let text = self.0.number().to_string();
        let files = [("src/lib.rs", text.as_str())];
        self.0
            .world
            .push(&self.repository(), &main_branch(), &files, "Change")
    }

    async fn quiet_commit(&self) -> CommitSha {
        let branch = "side".parse().unwrap();
        self.0
            .world
            .push(&self.repository(), &branch, &[("x", "x")], "Aside")
    }

    fn policy(&self) -> Policy {
        self.0.policy()
    }
}

mod ci {
    use super::*;
    towpath_testkit::ci_contract!(CiWorld::new(), #[tokio::test(start_paused = true)]);
}

#[async_trait]
impl RegistryFixture for Fixture {
    fn registry(&self) -> Arc<dyn Registry> {
        self.world.registry()
    }

    async fn upstream_image(&self) -> ImageRef {
        let image: ImageRef = "public.ecr.aws/docker/library/alpine:3.22".parse().unwrap();
        self.world
            .add_pull_through(image.registry(), &"ecr-public".parse().unwrap());
        self.world.add_image(&image, &ImageSetup::linux("alpine"));
        image
    }

    async fn upstream_digest(&self, upstream: &ImageRef) -> Digest {
        Digest::sha256_of(self.world.served(upstream).unwrap())
    }

    async fn upstream_without_a_rule(&self) -> ImageRef {
        let image: ImageRef = "quay.io/acme/tool:1".parse().unwrap();
        self.world.add_image(&image, &ImageSetup::linux("tool"));
        image
    }

    async fn served(&self, image: &ImageRef) -> Option<Vec<u8>> {
        self.world.served(image)
    }

    async fn writes(&self) -> usize {
        let changes = self.world.changes().into_iter();
        changes.filter(|call| call.element == Element::Registry).count()
    }

    async fn make_immutable(&self, repository: &RepositoryName) {
        self.world.make_immutable(repository);
    }

    async fn hold_scans(&self) {
        self.world
            .script_scans(&"contract/scanned".parse().unwrap(), ScanScript::Never);
    }

    async fn release_scans(&self) {
        self.world
            .script_scans(&"contract/scanned".parse().unwrap(), ScanScript::Clean);
    }

    async fn uncover(&self) {
        let repository = "contract/uncovered".parse().unwrap();
        self.world.script_scans(&repository, ScanScript::Uncovered);
    }

    async fn hold_findings(&self) {
        let repository = "contract/unlisted".parse().unwrap();
        self.world.script_scans(&repository, ScanScript::Unlisted);
    }

    async fn release_findings(&self) {
        let repository = "contract/unlisted".parse().unwrap();
        let finding = Finding::new("CVE-2026-1", Severity::Low);
        self.world
            .script_scans(&repository, ScanScript::Finds(vec![finding]));
    }

    fn scratch(&self) -> PathBuf {
        let folder = self.folder.path().join(self.number().to_string());
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    fn policy(&self) -> Policy {
        Fixture::policy(self)
    }
}

mod registry {
    use super::*;
    towpath_testkit::registry_contract!(Fixture::new(), #[tokio::test(start_paused = true)]);
}

struct PackagesWorld(Fixture);

impl PackagesWorld {
    fn new() -> Self {
        let fixture = Self(Fixture::new());
        fixture.0.world.create_packages(&fixture.repository());
        fixture.0.world.create_packages(&fixture.other_repository());
        fixture
    }
}

#[async_trait]
impl ArtifactsFixture for PackagesWorld {
    fn artifacts(&self) -> Arc<dyn Artifacts> {
        self.0.world.artifacts()
    }

    fn repository(&self) -> ArtifactRepository {
        "acme/candidates".parse().unwrap()
    }

    fn other_repository(&self) -> ArtifactRepository {
        "acme/releases".parse().unwrap()
    }

    fn upstream_version(&self) -> Option<PackageVersion> {
        None
    }

    async fn package(&self, name: &str, version: &str, contents: &str) -> (PackageVersion, PathBuf) {
        let folder = self.0.scratch();
        let file = folder.join(format!("{name}-{version}.crate"));
        std::fs::write(&file, format!("{name} {version} {contents}")).unwrap();
        (PackageId::cargo(name).unwrap().at(version).unwrap(), file)
    }

    fn many(&self) -> usize {
        50
    }
}

mod artifacts {
    use super::*;
    towpath_testkit::artifacts_contract!(PackagesWorld::new(), #[tokio::test(start_paused = true)]);
}

const FILE: &str = "apps/web.yaml";

impl Fixture {
    fn image(&self, exists: bool) -> ImageRef {
        let name: ImageRef = format!("{}/shop/web", self.world.registry_host())
            .parse()
            .unwrap();
        let contents = format!("web {}", self.number());
        if exists {
            let digest = self.world.add_image(&name, &ImageSetup::linux(&contents));
            name.at(digest)
        } else {
            name.at(Digest::sha256_of(contents))
        }
    }

    fn deployments(&self, application: &Application) -> RepoSlug {
        format!("acme/deployments-{}", application.name())
            .parse()
            .unwrap()
    }
}

#[async_trait]
impl DeliveryFixture for Fixture {
    fn delivery(&self) -> Arc<dyn Delivery> {
        self.world.delivery()
    }

    async fn deployed(&self) -> Promoted {
        let application: Application = format!("default/web-{}", self.number()).parse().unwrap();
        let repository = self.deployments(&application);
        let image = self.image(true);
        let manifest = format!("image: {image}\n");
        let revision = self.world.create_repository(&repository, &[(FILE, &manifest)]);
        self.world
            .add_application(&application, ApplicationSetup::new(&repository, FILE));
        tokio::time::sleep(Duration::from_secs(120)).await;
        Promoted {
            application,
            revision,
            image,
        }
    }

    async fn hold(&self, application: &Application, held: bool) {
        self.world.set_blind(application, held);
    }

    async fn promote(&self, application: &Application, promotion: Promotion) -> Promoted {
        let image = self.image(promotion != Promotion::WorkloadFails);
        let manifest = match promotion {
            Promotion::ManifestsBroken => "image: not an image\n".to_owned(),
            _ => format!("image: {image}\n"),
        };
        if promotion == Promotion::SyncFails {
            self.world
                .fail_next_sync(application, "the admission webhook said no");
        }
        let repository = self.deployments(application);
        let files = [(FILE, manifest.as_str())];
        let revision = self.world.push(&repository, &main_branch(), &files, "Promote");
        Promoted {
            application: application.clone(),
            revision,
            image,
        }
    }

    async fn take_over(&self, application: &Application) -> CommitSha {
        let repository = self.deployments(application);
        let side = "side".parse().unwrap();
        let manifest = format!("image: {}\n", self.image(true));
        let other = self
            .world
            .push(&repository, &side, &[(FILE, &manifest)], "Another history");
        self.world.set_branch(&repository, &main_branch(), &other);
        tokio::time::sleep(Duration::from_secs(120)).await;
        other
    }

    async fn sync_count(&self, application: &Application) -> usize {
        self.world.sync_count(application)
    }

    fn within(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn in_vain(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn settle(&self) -> Duration {
        Duration::from_secs(3)
    }
}

mod delivery {
    use super::*;
    towpath_testkit::delivery_contract!(Fixture::new(), #[tokio::test(start_paused = true)]);
}

struct StackWorld(Fixture);

impl StackWorld {
    fn new() -> Self {
        let fixture = Self(Fixture::new());
        let repository = fixture.repository();
        fixture
            .0
            .world
            .create_repository(&repository, &[("README.md", "# Infra\n")]);
        fixture
            .0
            .world
            .add_stack(&fixture.stack(), StackSetup::new(&repository, "shared"));
        fixture
    }

    fn repository(&self) -> RepoSlug {
        "acme/infra".parse().unwrap()
    }
}

#[async_trait]
impl InfrastructureFixture for StackWorld {
    fn infrastructure(&self) -> Arc<dyn Infrastructure> {
        self.0.world.infrastructure()
    }

    fn stack(&self) -> StackId {
        "shared".parse().unwrap()
    }

    async fn push(&self, addresses: &[&str]) -> CommitSha {
        let blocks: Vec<String> = addresses
            .iter()
            .map(|address| {
                let (kind, name) = address.split_once('.').unwrap();
                format!("resource \"{kind}\" \"{name}\" {{\n}}\n")
            })
            .collect();
        let code = blocks.concat();
        let files = [("shared/main.tf", code.as_str())];
        self.0
            .world
            .push(&self.repository(), &main_branch(), &files, "Change the code")
    }

    async fn quiet_commit(&self) -> CommitSha {
        let files = [("docs/notes.md", "notes")];
        self.0
            .world
            .push(&self.repository(), &main_branch(), &files, "Write notes")
    }

    async fn replan(&self, run: &RunId) -> bool {
        self.0.world.drift(&self.stack(), "terraform_data.drifted");
        self.0.world.replan(&self.stack(), run);
        true
    }

    async fn fail_next_apply(&self) {
        self.0.world.fail_next_apply(&self.stack(), "no capacity");
    }

    async fn applied(&self) -> Vec<String> {
        self.0.world.applied(&self.stack())
    }

    fn policy(&self) -> Policy {
        self.0.policy()
    }
}

mod infrastructure {
    use super::*;
    towpath_testkit::infrastructure_contract!(StackWorld::new(), #[tokio::test(start_paused = true)]);
}
