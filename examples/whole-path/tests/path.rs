//! The whole path, held to what the lab's services then show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use clap::Parser;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::sync::Arc;
use towpath_core::{Cancellation, PackageId, RepoSlug};
use towpath_elements::Artifacts;
use towpath_flow::toolchain::{Cargo, Toolchain};
use towpath_flow::{Approver, Decision, Question, RunRecord, Step, StepState};
use towpath_lab::Lab;
use whole_path::live::Live;
use whole_path::{Args, Fault, Outcome, Path, Projects, Reach};

struct Says(Option<bool>);

#[async_trait::async_trait]
impl Approver for Says {
    async fn decide(&self, _: &Question) -> Option<Decision> {
        self.0.map(|approved| Decision {
            approved,
            by: "the test".into(),
            note: None,
        })
    }
}

fn args(words: &[&str]) -> Args {
    Args::parse_from([&["whole-path"], words].concat())
}

async fn take(lab: &Lab, args: &Args, answer: Option<bool>) -> (Outcome, RunRecord) {
    let projects = Projects::lay_out(args, lab.ecr().registry_host()).unwrap();
    if let Some(own) = &projects.own_library {
        whole_path::offer_dependencies(own, &projects.library, lab)
            .await
            .unwrap();
    }
    let live = Live::new("test", |_| {});
    let path = Path {
        lab,
        projects: &projects,
        fail: args.fail,
        program: FilePath::new(env!("CARGO_BIN_EXE_whole-path-ci")),
        live: live.clone(),
        approver: Arc::new(Says(answer)),
        cancellation: Cancellation::new(),
    };
    let outcome = path.take().await.unwrap();
    (outcome, live.record())
}

fn evidence<'a>(record: &'a RunRecord, step: Step, name: &str) -> &'a str {
    record
        .step(step)
        .evidence
        .get(name)
        .unwrap_or_else(|| panic!("{step} has no {name}: {record:#?}"))
}

fn slug(name: &str) -> RepoSlug {
    format!("acme/{name}").parse().unwrap()
}

fn commit_of(record: &RunRecord, name: &str) -> String {
    let start = format!("acme/{name}@");
    let commits = evidence(record, Step::Push, "commit");
    commits
        .split("; ")
        .find_map(|commit| commit.strip_prefix(&start))
        .unwrap()
        .to_owned()
}

fn assert_complete(outcome: &Outcome, record: &RunRecord) {
    assert!(matches!(outcome, Outcome::Complete), "{outcome:#?}");
    for step in &record.steps {
        assert_eq!(step.state, StepState::Done, "{step:#?}");
        assert!(!step.evidence.is_empty(), "{step:#?}");
        assert!(step.started <= step.finished, "{step:#?}");
    }
}

/// What a second run must not change.
#[derive(Debug, PartialEq)]
struct World {
    images: Vec<(String, usize)>,
    manifests_put: usize,
    crates_put: usize,
    commits: Vec<(String, usize)>,
    pulls: usize,
    statuses: usize,
    infrastructure_runs: usize,
    running: Vec<String>,
}

async fn world(lab: &Lab, record: &RunRecord) -> World {
    let github = lab.github();
    let mut commits = Vec::new();
    for name in ["library", "service", "deploy", "infra"] {
        commits.push((
            name.to_owned(),
            github.commits(&slug(name), "main").await.unwrap().len(),
        ));
    }
    let statuses =
        ["library", "service"].map(|name| github.statuses(&slug(name), &commit_of(record, name)).len());
    let mut running: Vec<String> = lab
        .argocd()
        .cluster()
        .running()
        .into_iter()
        .map(|container| container.pod)
        .collect();
    running.sort();
    World {
        images: lab
            .ecr()
            .repositories()
            .into_iter()
            .map(|r| (r.name, r.images.len()))
            .collect(),
        manifests_put: lab
            .ecr()
            .registry_requests()
            .count(&http::Method::PUT, "/manifests/"),
        crates_put: lab
            .codeartifact()
            .package_requests()
            .count(&http::Method::PUT, "/crates/new"),
        commits,
        pulls: ["library", "service", "infra"]
            .iter()
            .map(|name| github.pulls(&slug(name)).len())
            .sum(),
        statuses: statuses.iter().sum(),
        infrastructure_runs: lab.spacelift().runs().len(),
        running,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirteen_steps_are_done_and_a_second_run_does_nothing_new() {
    let lab = Lab::start().await.unwrap();
    let (outcome, record) = take(&lab, &args(&[]), Some(true)).await;
    assert_complete(&outcome, &record);
    the_package_is_the_one_cargo_builds(&lab, &record).await;
    the_running_digest_is_the_pushed_one(&lab, &record);
    the_applied_resources_exist(&lab);

    let before = world(&lab, &record).await;
    let (outcome, again) = take(&lab, &args(&[]), Some(true)).await;
    assert_complete(&outcome, &again);
    assert_eq!(world(&lab, &again).await, before);
    for (step, name) in [
        (Step::StoreBuild, "image digest"),
        (Step::StoreBuild, "package digest"),
        (Step::ReportBuild, "deployment commit"),
        (Step::Deliver, "running digest"),
        (Step::TriggerInfrastructure, "run"),
    ] {
        assert_eq!(evidence(&again, step, name), evidence(&record, step, name));
    }
}

/// A fresh clone of the commit, packed by real cargo, has the bytes that CodeArtifact serves.
async fn the_package_is_the_one_cargo_builds(lab: &Lab, record: &RunRecord) {
    let folder = tempfile::tempdir().unwrap();
    let token = lab.github().token("hubot").unwrap();
    let url = lab
        .github()
        .git_url(&slug("library"))
        .replace("http://", &format!("http://hubot:{}@", token.expose()));
    let commit = commit_of(record, "library");
    let project = folder.path().join("clone");
    let clone = project.clone();
    tokio::task::spawn_blocking(move || {
        assert!(
            Command::new("git")
                .args(["clone", "-q", &url])
                .arg(&clone)
                .status()
                .unwrap()
                .success()
        );
        let checkout = ["-c", "advice.detachedHead=false", "checkout", "-q", &commit];
        assert!(
            Command::new("git")
                .current_dir(&clone)
                .args(checkout)
                .status()
                .unwrap()
                .success()
        );
    })
    .await
    .unwrap();
    let artifacts = Reach::new(lab.environment()).codeartifact().await.unwrap();
    let repository = "acme/libraries".parse().unwrap();
    let access = Artifacts::access(&artifacts, &repository, towpath_core::PackageFormat::Cargo)
        .await
        .unwrap();
    let cargo = Cargo::default()
        .with_home(folder.path().join("home"))
        .with_target(folder.path().join("target"));
    cargo.fetch(&project, &access).await.unwrap();
    let packaged = cargo.package(&project, &access).await.unwrap();
    let stored = lab
        .codeartifact()
        .version(
            "acme",
            "libraries",
            packaged.version.package(),
            packaged.version.version(),
        )
        .expect("the version is stored");
    let asset = stored.assets.values().next().expect("it has a file");
    assert_eq!(asset.bytes, std::fs::read(&packaged.file).unwrap());
    assert_eq!(
        asset.sha256.to_string(),
        evidence(record, Step::StoreBuild, "package digest")
    );
}

fn the_running_digest_is_the_pushed_one(lab: &Lab, record: &RunRecord) {
    let pushed = evidence(record, Step::StoreBuild, "image digest");
    let image = lab.ecr().image("shop/web", pushed).expect("the image is stored");
    assert!(
        image
            .tags
            .contains(&commit_of(record, "service")[..10].to_owned()),
        "{image:?}"
    );
    let running = lab.argocd().cluster().running();
    assert_eq!(running.len(), 2, "two replicas: {running:#?}");
    for container in running {
        assert_eq!(container.image_digest.to_string(), pushed);
    }
    assert_eq!(evidence(record, Step::Deliver, "running digest"), pushed);
}

fn the_applied_resources_exist(lab: &Lab) {
    for (stack, addresses) in [
        (
            "shared-services",
            ["terraform_data.network", "terraform_data.registry_access"],
        ),
        (
            "apps",
            ["terraform_data.namespace", "terraform_data.service_account"],
        ),
    ] {
        let applied = lab
            .spacelift()
            .stack(stack)
            .expect("the stack is there")
            .applied
            .resources;
        let mut found: Vec<&str> = applied.iter().map(|resource| resource.address.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, addresses);
    }
    let pools = lab.spacelift().worker_pools();
    for run in lab.spacelift().runs() {
        let pool = pools
            .iter()
            .find(|pool| pool.id == run.stack)
            .expect("a pool of the stack's name");
        let ours = |worker: &String| pool.workers.iter().any(|known| known.id == *worker);
        assert!(
            !run.workers.is_empty() && run.workers.iter().all(ours),
            "{run:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_crate_travels_too_and_another_crate_builds_on_it() {
    let source = unpacked_crate("fnv-");
    let lab = Lab::start().await.unwrap();
    let (outcome, record) = take(&lab, &args(&["--library", source.to_str().unwrap()]), Some(true)).await;
    assert_complete(&outcome, &record);
    let package = evidence(&record, Step::StoreBuild, "package").to_owned();
    let version = package
        .strip_prefix("pkg:cargo/fnv@")
        .expect("the crate that was given");
    assert!(
        lab.codeartifact()
            .version("acme", "libraries", &PackageId::cargo("fnv").unwrap(), version)
            .is_some()
    );

    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("dependent");
    std::fs::create_dir_all(project.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"dependent\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\nfnv = \"={version}\"\n"
    );
    std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(
        project.join("src/main.rs"),
        "fn main() { let _: fnv::FnvHashMap<u8, u8> = Default::default(); }\n",
    )
    .unwrap();
    let artifacts = Reach::new(lab.environment()).codeartifact().await.unwrap();
    let repository = "acme/libraries".parse().unwrap();
    let access = Artifacts::access(&artifacts, &repository, towpath_core::PackageFormat::Cargo)
        .await
        .unwrap();
    let home = folder.path().join("home");
    let build = tokio::task::spawn_blocking(move || {
        Command::new("cargo")
            .current_dir(&project)
            .args([
                "build",
                "--config",
                &format!("registries.lab.index='sparse+{}'", access.endpoint),
            ])
            .args(["--config", "source.crates-io.replace-with='lab'"])
            .args(["--config", "registry.global-credential-providers=['cargo:token']"])
            .env("CARGO_REGISTRIES_LAB_TOKEN", access.token.expose())
            .env("CARGO_HOME", home)
            .env_remove("CARGO_TARGET_DIR")
            .output()
            .unwrap()
    });
    let build = build.await.unwrap();
    assert!(
        build.status.success(),
        "{}",
        String::from_utf8_lossy(&build.stderr)
    );
}

/// The source of a crate that this workspace itself is built with, as cargo unpacked it.
fn unpacked_crate(start: &str) -> PathBuf {
    let home = std::env::var_os("CARGO_HOME")
        .map_or_else(|| std::env::home_dir().unwrap().join(".cargo"), PathBuf::from);
    let registries = std::fs::read_dir(home.join("registry/src")).unwrap();
    registries
        .flatten()
        .flat_map(|registry| std::fs::read_dir(registry.path()).unwrap().flatten())
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(start))
        })
        .expect("cargo has unpacked the crate to build this workspace")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_stops_at_its_step_and_leaves_the_rest_undone() {
    let lab = Lab::start().await.unwrap();
    let (outcome, record) = take(&lab, &args(&["--fail", "plan-rejected"]), Some(false)).await;
    let Outcome::Stopped(problems) = outcome else {
        panic!("{outcome:#?}")
    };
    assert_eq!(problems[0].step, Some(Step::Confirm));
    assert_eq!(record.step(Step::Confirm).state, StepState::Failed);
    assert_eq!(record.step(Step::ApplySharedServices).state, StepState::Pending);
    assert!(
        lab.spacelift()
            .stack("shared-services")
            .unwrap()
            .applied
            .resources
            .is_empty()
    );

    for (fault, step, untouched) in [
        (Fault::ScanCritical, Step::StoreBuild, Step::TriggerDelivery),
        (Fault::RegistryThrottles, Step::StoreBuild, Step::TriggerDelivery),
        (Fault::CiFails, Step::StoreBuild, Step::TriggerDelivery),
        (Fault::ArgocdBlind, Step::TriggerDelivery, Step::Deliver),
    ] {
        let lab = Lab::start().await.unwrap();
        let mut args = args(&[]);
        args.fail = Some(fault);
        let (outcome, record) = take(&lab, &args, Some(true)).await;
        let Outcome::Stopped(problems) = outcome else {
            panic!("{fault:?}: {outcome:#?}")
        };
        assert_eq!(problems[0].step, Some(step), "{fault:?}: {problems:#?}");
        assert!(!problems[0].next.is_empty());
        assert_eq!(record.step(step).state, StepState::Failed, "{fault:?}");
        if fault != Fault::CiFails {
            assert_eq!(record.step(untouched).state, StepState::Pending, "{fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_nothing_is_applied() {
    let lab = Lab::start().await.unwrap();
    let (outcome, record) = take(&lab, &args(&[]), None).await;
    assert!(matches!(outcome, Outcome::Waiting(_)), "{outcome:#?}");
    assert_eq!(record.step(Step::Confirm).state, StepState::Waiting);
    assert!(
        lab.spacelift()
            .stack("shared-services")
            .unwrap()
            .applied
            .resources
            .is_empty()
    );
    assert!(!record.is_complete());
}

#[test]
fn a_wrong_folder_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().to_str().unwrap();
    for (words, reason) in [
        (["--library", "/nowhere/at/all"], "no such folder"),
        (["--library", path], "no Cargo.toml"),
        (["--service", "/nowhere/at/all"], "no such folder"),
        (["--infra", path], "no .tf file"),
    ] {
        let error = Projects::lay_out(&args(&words), "127.0.0.1:1")
            .unwrap_err()
            .to_string();
        assert!(error.contains(words[1]) && error.contains(reason), "{error}");
    }
}
