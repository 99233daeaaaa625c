//! The step inside GitHub Actions: builds what is checked out, with the flow that fits it.

use crate::Reach;
use crate::live::Reporter;
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use towpath_actions::Step;
use towpath_core::{
    ArtifactRepository, BranchName, Cancellation, ImageRef, RepoSlug, RepositoryName, Secret, Tag,
};
use towpath_elements::registry::{ConfigChange, ScanPolicy};
use towpath_elements::{Error, ErrorKind, Result};
use towpath_flow::effects::Deployment;
use towpath_flow::flows::ImageRecipe;
use towpath_flow::gate::ReviewPolicy;
use towpath_flow::toolchain::Cargo;
use towpath_flow::{CiDocker, CiLibrary, Runner, SqliteJournal};

/// Where packages come from and go to, in the lab's CodeArtifact.
pub(crate) const PACKAGES: &str = "acme/libraries";

/// Does the step, and tells GitHub and whoever watches how it went.
pub async fn main() -> ExitCode {
    let step = match Step::from_env() {
        Ok(step) => step,
        Err(error) => return refused(&error.to_string()),
    };
    let reach = Reach::of_process();
    let reporter = Reporter::connect(reach.get("TOWPATH_EVENTS").ok()).await;
    let result = build(&step, &reach, &reporter).await;
    reporter.finish().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = step.error(error.as_str());
            refused(&error)
        }
    }
}

#[expect(clippy::print_stderr, reason = "a CI step speaks to its log")]
fn refused(error: &str) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

async fn build(step: &Step, reach: &Reach, reporter: &Reporter) -> std::result::Result<(), String> {
    let context = step.context().map_err(|error| error.to_string())?;
    let token = Secret::new(reach.get("GITHUB_TOKEN").map_err(|error| error.to_string())?);
    step.mask(&token).map_err(|error| error.to_string())?;
    let github = Arc::new(reach.github(token).map_err(|error| error.to_string())?);
    let cancellation = Cancellation::new();
    let stop = cancellation.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    let job = Job {
        project: context.workspace.clone(),
        temporary: PathBuf::from(reach.get("RUNNER_TEMP").map_err(|error| error.to_string())?),
        context: &context,
        reach,
        reporter,
        github,
        cancellation,
        step,
    };
    match job.project.join("towpath.toml").is_file() {
        true => job.service().await,
        false => job.library().await,
    }
}

struct Job<'a> {
    project: PathBuf,
    temporary: PathBuf,
    context: &'a towpath_actions::Context,
    reach: &'a Reach,
    reporter: &'a Reporter,
    github: Arc<towpath_github::GitHub>,
    cancellation: Cancellation,
    step: &'a Step,
}

impl Job<'_> {
    /// A journal of this attempt: a new attempt asks the world, which is what makes a re-run harmless.
    fn journal(&self) -> std::result::Result<SqliteJournal, String> {
        SqliteJournal::open(self.temporary.join("towpath.db")).map_err(|error| error.to_string())
    }

    fn run_name(&self) -> String {
        format!("{}-{}", self.context.run_id, self.context.attempt)
    }

    async fn library(&self) -> std::result::Result<(), String> {
        let text = |error: Error| error.to_string();
        let artifacts = self.reach.codeartifact().await.map_err(text)?;
        let toolchain = Cargo::default()
            .with_target(self.temporary.join("target"))
            .with_home(self.temporary.join("cargo-home"));
        let elements = self
            .reach
            .elements(&self.github, &self.cancellation)
            .with_artifacts(Arc::new(artifacts))
            .with_toolchain(Arc::new(toolchain));
        let flow = CiLibrary {
            repository: self.context.repository.clone(),
            commit: self.context.sha.clone(),
            ci_run: Some(self.context.run_id),
            project: self.project.clone(),
            packages: PACKAGES
                .parse::<ArtifactRepository>()
                .map_err(|error| error.to_string())?,
            review: ReviewPolicy::default(),
            details: None,
        };
        let runner = Runner::new(elements)
            .with_journal(self.journal()?)
            .with_progress(self.reporter.progress());
        let built = runner
            .run(&self.run_name(), &flow)
            .await
            .map_err(|error| error.to_string())?;
        self.publish_outputs(&[
            ("package", built.version.to_string()),
            ("package-digest", built.digest.to_string()),
        ])
    }

    async fn service(&self) -> std::result::Result<(), String> {
        let text = |error: Error| error.to_string();
        let registry = self.reach.ecr().await.map_err(text)?;
        let elements = self
            .reach
            .elements(&self.github, &self.cancellation)
            .with_registry(Arc::new(registry));
        let file = self.project.join("towpath.toml");
        let service = Service::read(&file).map_err(text)?;
        let flow = self.image_flow(service).await.map_err(text)?;
        let runner = Runner::new(elements)
            .with_journal(self.journal()?)
            .with_progress(self.reporter.progress());
        let built = runner
            .run(&self.run_name(), &flow)
            .await
            .map_err(|error| error.to_string())?;
        self.publish_outputs(&[
            ("image", built.image.to_string()),
            ("image-digest", built.digest.to_string()),
            ("deployment-commit", built.written_back.commit().to_string()),
        ])
    }

    async fn image_flow(&self, service: Service) -> Result<CiDocker> {
        let Service { image, deployment } = service;
        let commit = self.context.sha.clone();
        Ok(CiDocker {
            repository: self.context.repository.clone(),
            ci_run: Some(self.context.run_id),
            image: ImageRecipe {
                repository: image.repository,
                tag: Tag::new(commit.short())?,
                base: image.base,
                add: image.add,
                files: self.project.join(&image.files),
                to: image.to,
                platforms: Vec::new(),
                config: ConfigChange {
                    entrypoint: image.entrypoint,
                    environment: image.environment,
                    ..ConfigChange::default()
                },
                created: committed_at(&self.project).await?,
            },
            commit,
            deployment: Deployment {
                repository: deployment.repository,
                branch: deployment.branch,
                file: deployment.file,
            },
            review: ReviewPolicy::default(),
            scan: ScanPolicy::default(),
            details: None,
            release_hold: None,
        })
    }

    fn publish_outputs(&self, outputs: &[(&str, String)]) -> std::result::Result<(), String> {
        let mut summary = String::from("| what | value |\n|---|---|\n");
        for (name, value) in outputs {
            self.step.output(name, value).map_err(|error| error.to_string())?;
            summary.push_str(&format!("| {name} | `{value}` |\n"));
        }
        self.step.summary(&summary).map_err(|error| error.to_string())
    }
}

/// The time of the commit that is checked out: what every build of it writes into the image.
async fn committed_at(project: &Path) -> Result<Timestamp> {
    let error = || {
        Error::new(
            ErrorKind::Invalid,
            "git",
            "read the time of the commit in",
            project.display(),
        )
    };
    let output = tokio::process::Command::new("git")
        .current_dir(project)
        .args(["log", "-1", "--format=%ct"])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| error().caused_by(source))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let seconds = printed
        .trim()
        .parse::<i64>()
        .map_err(|_| error().because("git did not print a time"))?;
    Timestamp::from_second(seconds).map_err(|source| error().because(source))
}

/// `towpath.toml` of a service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: Image,
    deployment: DeploymentFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    repository: RepositoryName,
    base: ImageRef,
    #[serde(default)]
    add: Vec<ImageRef>,
    files: PathBuf,
    to: String,
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeploymentFile {
    repository: RepoSlug,
    branch: BranchName,
    file: String,
}

impl Service {
    fn read(file: &Path) -> Result<Self> {
        let error = || Error::new(ErrorKind::Invalid, "whole-path", "read", file.display());
        let text = std::fs::read_to_string(file).map_err(|source| error().because(source))?;
        toml::from_str(&text).map_err(|source| error().because(source.to_string().trim_end()))
    }
}
