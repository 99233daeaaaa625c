//! What builds a library on this machine.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use towpath_core::{Digest, PackageId, PackageVersion};
use towpath_elements::artifacts::Access;
use towpath_elements::{Error, ErrorKind, Result};

/// Builds libraries. The flows use [`Cargo`]; a test can give another one.
#[async_trait]
pub trait Toolchain: Debug + Send + Sync {
    /// What the project is.
    async fn describe(&self, project: &Path) -> Result<PackageVersion>;

    /// Fetches every dependency of the project from the repository and nowhere else, and lists what was fetched.
    async fn fetch(&self, project: &Path, repository: &Access) -> Result<Vec<PackageVersion>>;

    /// Builds the project with what was fetched, and packs it for publishing.
    async fn package(&self, project: &Path, repository: &Access) -> Result<Packaged>;
}

/// A package that is ready to be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packaged {
    /// What it is.
    pub version: PackageVersion,
    /// The file.
    pub file: PathBuf,
    /// The file's SHA-256 digest.
    pub digest: Digest,
}

/// The name under which cargo knows the repository while a flow runs.
const REGISTRY: &str = "towpath";

/// The real `cargo`, found on the `PATH`.
///
/// The repository takes the place of the public one for the time of each command: dependencies come from it or not at all.
/// The token goes to cargo in its environment, never in an argument or a file. See *Registries* and *Source
/// Replacement* in the Cargo book.
#[derive(Clone, Debug)]
pub struct Cargo {
    program: PathBuf,
    home: Option<PathBuf>,
    target: Option<PathBuf>,
}

impl Default for Cargo {
    fn default() -> Self {
        Self {
            program: "cargo".into(),
            home: None,
            target: None,
        }
    }
}

impl Cargo {
    /// Uses this program.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Keeps cargo's own configuration and its downloads in this folder (`CARGO_HOME`) instead of the user's.
    #[must_use]
    pub fn with_home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// Builds into this folder instead of the project's `target`.
    #[must_use]
    pub fn with_target(mut self, target: impl Into<PathBuf>) -> Self {
        self.target = Some(target.into());
        self
    }

    async fn run(&self, project: &Path, arguments: &[&str], repository: Option<&Access>) -> Result<Vec<u8>> {
        let error = |kind| {
            let verb = arguments.first().copied().unwrap_or_default();
            Error::new(kind, "cargo", format!("{verb} the crate in"), project.display())
        };
        let mut command = tokio::process::Command::new(&self.program);
        command
            .current_dir(project)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(Access { endpoint, token, .. }) = repository {
            command
                .args([
                    "--config",
                    &format!("registries.{REGISTRY}.index='sparse+{endpoint}'"),
                ])
                .args(["--config", &format!("source.crates-io.replace-with='{REGISTRY}'")])
                .args(["--config", "registry.global-credential-providers=['cargo:token']"])
                .env(
                    format!("CARGO_REGISTRIES_{}_TOKEN", REGISTRY.to_ascii_uppercase()),
                    token.expose(),
                );
        }
        if let Some(home) = &self.home {
            command.env("CARGO_HOME", home);
        }
        if let Some(target) = &self.target {
            command.env("CARGO_TARGET_DIR", target);
        }
        command.args(arguments);
        let output = command.output().await.map_err(|source| {
            error(ErrorKind::Invalid)
                .because(format!("{} cannot be started", self.program.display()))
                .advise("install Rust, or say where cargo is")
                .caused_by(source)
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = repository.map_or_else(|| said.to_string(), |access| access.token.redact(&said));
        Err(error(ErrorKind::Invalid).because(format!("{}: {}", output.status, essence(&said))))
    }
}

/// The part of cargo's words that says what is wrong: from the first line that begins with an error, at most 20 lines.
fn essence(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    let from = lines.iter().position(|line| line.starts_with("error"));
    let wrong = lines.iter().skip(from.unwrap_or_default()).take(20);
    wrong.copied().collect::<Vec<_>>().join("\n")
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    target_directory: PathBuf,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct MetadataPackage {
    id: String,
    name: String,
    version: String,
    source: Option<String>,
    manifest_path: PathBuf,
}

impl Cargo {
    async fn metadata(
        &self,
        project: &Path,
        arguments: &[&str],
        repository: Option<&Access>,
    ) -> Result<Metadata> {
        let all = [&["metadata", "--format-version", "1"], arguments].concat();
        let output = self.run(project, &all, repository).await?;
        serde_json::from_slice(&output).map_err(|source| {
            Error::new(
                ErrorKind::Protocol,
                "cargo",
                "read the metadata of",
                project.display(),
            )
            .caused_by(source)
        })
    }
}

fn own<'a>(metadata: &'a Metadata, project: &Path) -> Result<&'a MetadataPackage> {
    let manifest = project.join("Cargo.toml");
    let manifest = manifest.canonicalize().unwrap_or(manifest);
    let here = |package: &&MetadataPackage| {
        package
            .manifest_path
            .canonicalize()
            .is_ok_and(|path| path == manifest)
            && metadata.workspace_members.contains(&package.id)
    };
    metadata.packages.iter().find(here).ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            "cargo",
            "find a package in",
            project.display(),
        )
        .because("its Cargo.toml has no [package]")
        .advise("name the folder of the crate itself, not of its workspace")
    })
}

#[async_trait]
impl Toolchain for Cargo {
    async fn describe(&self, project: &Path) -> Result<PackageVersion> {
        if !project.join("Cargo.toml").is_file() {
            return Err(
                Error::new(ErrorKind::Invalid, "cargo", "find a crate in", project.display())
                    .because("there is no Cargo.toml")
                    .advise("name the folder of a crate"),
            );
        }
        let metadata = self.metadata(project, &["--no-deps", "--offline"], None).await?;
        let package = own(&metadata, project)?;
        Ok(PackageId::cargo(&package.name)?.at(&package.version)?)
    }

    async fn fetch(&self, project: &Path, repository: &Access) -> Result<Vec<PackageVersion>> {
        self.run(project, &["fetch"], Some(repository)).await?;
        let metadata = self.metadata(project, &["--offline"], Some(repository)).await?;
        let fetched = metadata
            .packages
            .iter()
            .filter(|package| package.source.is_some());
        fetched
            .map(|package| Ok(PackageId::cargo(&package.name)?.at(&package.version)?))
            .collect()
    }

    async fn package(&self, project: &Path, repository: &Access) -> Result<Packaged> {
        // Verification builds the packed crate from its own files, with the dependencies that were fetched.
        self.run(
            project,
            &["package", "--offline", "--registry", REGISTRY],
            Some(repository),
        )
        .await?;
        let metadata = self.metadata(project, &["--no-deps", "--offline"], None).await?;
        let package = own(&metadata, project)?;
        let version = PackageId::cargo(&package.name)?.at(&package.version)?;
        let file = metadata
            .target_directory
            .join("package")
            .join(format!("{}-{}.crate", package.name, package.version));
        let bytes = tokio::fs::read(&file).await.map_err(|source| {
            Error::new(
                ErrorKind::Protocol,
                "cargo",
                "read the packed crate",
                file.display(),
            )
            .caused_by(source)
        })?;
        Ok(Packaged {
            version,
            digest: Digest::sha256_of(&bytes),
            file,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_begins_at_an_error_and_not_at_a_crate_of_that_name() {
        let said = "  Downloaded thiserror v2.0.0\nerror: no matching package\n  help: look";
        assert_eq!(essence(said), "error: no matching package\n  help: look");
        assert_eq!(essence("killed"), "killed");
    }
}
