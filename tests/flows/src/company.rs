//! A small company: a library, a service, its deployment, and its infrastructure, with the inputs of the four flows.

use crate::Pretend;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use towpath_core::wait::Policy;
use towpath_core::{Application, ArtifactRepository, BranchName, CommitSha, ImageRef, RepoSlug, StackId};
use towpath_elements::registry::{ConfigChange, ScanPolicy};
use towpath_flow::effects::Deployment;
use towpath_flow::flows::{ImageBuilt, ImageRecipe};
use towpath_flow::gate::ReviewPolicy;
use towpath_flow::{Approver, Cd, CiDocker, CiLibrary, Decision, Elements, Question, Spacelift};
use towpath_testkit::World;
use towpath_testkit::world::{ApplicationSetup, ImageSetup, Merge, StackSetup, Workflow};

/// A world that is set up, and the folders that the flows work in.
#[derive(Debug)]
pub struct Company {
    /// The world.
    pub world: World,
    folder: TempDir,
}

/// What the flows of one change are given.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The reviewed commit of the library.
    pub library: CommitSha,
    /// The reviewed commit of the service.
    pub service: CommitSha,
    /// The commit of the infrastructure.
    pub infrastructure: CommitSha,
}

const HOUR: Duration = Duration::from_secs(3600);

/// The branch that everybody works on.
pub fn main_branch() -> BranchName {
    "main".parse().unwrap()
}

impl Default for Company {
    fn default() -> Self {
        Self::new()
    }
}

impl Company {
    /// Sets it up: repositories, registries, an application and three stacks.
    pub fn new() -> Self {
        let company = Self {
            world: World::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        let world = &company.world;
        for folder in ["library", "service", "target"] {
            std::fs::create_dir(company.folder.path().join(folder)).unwrap();
        }
        std::fs::write(company.path("library").join("package"), "acme-math 1.4.0\n").unwrap();
        std::fs::write(company.path("service").join("web"), "#!/bin/sh\n").unwrap();

        for slug in [company.library(), company.service()] {
            world.create_repository(&slug, &[("README.md", "# Acme\n")]);
            world.add_workflow(&slug, Workflow::ci());
        }
        for upstream in [company.base(), company.tools()] {
            let prefix = upstream
                .registry()
                .host()
                .split('.')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            world.add_pull_through(upstream.registry(), &prefix);
            world.add_image(&upstream, &ImageSetup::linux(&upstream.to_string()));
        }
        world.create_packages(&company.packages());

        let first: ImageRef = format!("{}/acme/web", world.registry_host()).parse().unwrap();
        let digest = world.add_image(&first, &ImageSetup::linux("the web before"));
        let manifest = format!(
            "# The web.\nspec:\n  containers:\n    - name: web\n      image: {}  # by the flow\n",
            first.at(digest)
        );
        world.create_repository(&company.deployments(), &[(FILE, &manifest)]);
        world.add_application(
            &company.application(),
            ApplicationSetup::new(&company.deployments(), FILE),
        );

        let infra = company.infra();
        world.create_repository(&infra, &[("README.md", "# Infrastructure\n")]);
        let shared = company.shared();
        world.add_stack(&shared, StackSetup::new(&infra, "shared"));
        for app in company.apps() {
            world.add_stack(&app, StackSetup::new(&infra, app.as_str()).after(&shared));
        }
        company
    }

    /// Merges an approved change of everything.
    pub fn change(&self) -> Inputs {
        let main = main_branch();
        let merge = |slug: &RepoSlug, path: &str| {
            let merge = Merge::by("ann", path, "new\n").approved_by("bob");
            self.world.merge(slug, &main, &merge)
        };
        let mut files = BTreeMap::new();
        for folder in ["shared", "app-one", "app-two"] {
            let code = format!("resource \"terraform_data\" \"{folder}\" {{\n  input = 1\n}}\n");
            files.insert(format!("{folder}/main.tf"), code);
        }
        let files: Vec<_> = files
            .iter()
            .map(|(path, code)| (path.as_str(), code.as_str()))
            .collect();
        Inputs {
            library: merge(&self.library(), "src/lib.rs"),
            service: merge(&self.service(), "src/main.rs"),
            infrastructure: self.world.push(&self.infra(), &main, &files, "Add the resources"),
        }
    }

    /// The elements that the flows work on.
    pub fn elements(&self) -> Elements {
        let world = &self.world;
        let target = self.path("target");
        Elements::new()
            .with_source(world.source())
            .with_ci(world.ci())
            .with_registry(world.registry())
            .with_artifacts(world.artifacts())
            .with_delivery(world.delivery())
            .with_infrastructure(world.infrastructure())
            .with_toolchain(Arc::new(Pretend { target }))
            .with_policy(Policy::every(Duration::from_secs(1)).within(HOUR))
    }

    /// The CI run that a commit started.
    fn ci_run(&self, slug: &RepoSlug, commit: &CommitSha) -> Option<towpath_core::CiRunId> {
        self.world.ci_run_of(slug, commit)
    }

    /// The input of the library's flow.
    pub fn ci_library(&self, commit: &CommitSha) -> CiLibrary {
        CiLibrary {
            repository: self.library(),
            commit: commit.clone(),
            ci_run: self.ci_run(&self.library(), commit),
            project: self.path("library"),
            packages: self.packages(),
            review: ReviewPolicy::default(),
            details: None,
        }
    }

    /// The input of the service's flow.
    pub fn ci_docker(&self, commit: &CommitSha) -> CiDocker {
        CiDocker {
            repository: self.service(),
            commit: commit.clone(),
            ci_run: self.ci_run(&self.service(), commit),
            image: ImageRecipe {
                repository: "acme/web".parse().unwrap(),
                tag: commit.short().parse().unwrap(),
                base: self.base(),
                add: vec![self.tools()],
                files: self.path("service"),
                to: "/srv".into(),
                platforms: Vec::new(),
                config: ConfigChange::default(),
                created: jiff::Timestamp::UNIX_EPOCH,
            },
            deployment: Deployment {
                repository: self.deployments(),
                branch: main_branch(),
                file: FILE.into(),
            },
            review: ReviewPolicy::default(),
            scan: ScanPolicy::default(),
            details: None,
            release_hold: None,
        }
    }

    /// The input of the delivery's flow.
    pub fn cd(&self, built: &ImageBuilt) -> Cd {
        Cd {
            application: self.application(),
            repository: self.deployments(),
            revision: built.written_back.commit().clone(),
            images: vec![built.image.at(built.digest.clone())],
            platform_digests: built.platform_digests.clone(),
            within: HOUR,
            settle: Duration::from_secs(2),
        }
    }

    /// The input of the infrastructure's flow.
    pub fn spacelift(&self, commit: &CommitSha) -> Spacelift {
        Spacelift {
            commit: commit.clone(),
            shared_services: self.shared(),
            apps: self.apps(),
            within: HOUR,
        }
    }

    /// A folder of this company's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The library's repository.
    pub fn library(&self) -> RepoSlug {
        "acme/math".parse().unwrap()
    }

    /// The service's repository.
    pub fn service(&self) -> RepoSlug {
        "acme/web".parse().unwrap()
    }

    /// The deployment repository.
    pub fn deployments(&self) -> RepoSlug {
        "acme/deployments".parse().unwrap()
    }

    /// The text of the deployment file.
    pub fn deployment_file(&self) -> String {
        self.world
            .text(&self.deployments(), &main_branch(), FILE)
            .unwrap()
    }

    /// The infrastructure's repository.
    pub fn infra(&self) -> RepoSlug {
        "acme/infra".parse().unwrap()
    }

    /// Where packages are.
    pub fn packages(&self) -> ArtifactRepository {
        "acme/releases".parse().unwrap()
    }

    /// The base image, in the public gallery.
    pub fn base(&self) -> ImageRef {
        "public.ecr.aws/docker/library/alpine:3.22".parse().unwrap()
    }

    /// An image whose layers are added, at Quay.
    pub fn tools(&self) -> ImageRef {
        "quay.io/acme/tools:2".parse().unwrap()
    }

    /// The application.
    pub fn application(&self) -> Application {
        "default/web".parse().unwrap()
    }

    /// The stack of Shared Services.
    pub fn shared(&self) -> StackId {
        "shared".parse().unwrap()
    }

    /// The stacks of the apps.
    pub fn apps(&self) -> Vec<StackId> {
        ["app-one", "app-two"].map(|name| name.parse().unwrap()).into()
    }
}

/// The deployment file.
const FILE: &str = "apps/web.yaml";

/// Says the same to every question.
#[derive(Clone, Copy, Debug)]
pub struct Says(pub bool);

#[async_trait]
impl Approver for Says {
    async fn decide(&self, _: &Question) -> Option<Decision> {
        Some(Decision {
            approved: self.0,
            by: "eve".into(),
            note: None,
        })
    }
}

/// What a company's world looks like once everything that goes on by itself has come to rest.
pub async fn at_rest(company: &Company) -> String {
    tokio::time::sleep(HOUR).await;
    let snapshot = company.world.snapshot().to_string();
    snapshot.replace(&*company.folder.path().to_string_lossy(), "")
}

/// How often each method changed the world, by element and method.
pub fn effects(company: &Company) -> BTreeMap<String, usize> {
    let mut effects = BTreeMap::new();
    for call in company.world.changes() {
        *effects
            .entry(format!("{:?}.{}", call.element, call.method))
            .or_default() += 1;
    }
    effects
}
