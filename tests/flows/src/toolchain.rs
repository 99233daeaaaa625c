//! A toolchain whose packages are the project's files, without a compiler.

use async_trait::async_trait;
use std::path::{Path, PathBuf};
use towpath_core::{Digest, PackageId, PackageVersion};
use towpath_elements::artifacts::Access;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_flow::toolchain::{Packaged, Toolchain};

/// Reads `name version` from the project's file `package`, and packs the file itself.
#[derive(Debug)]
pub struct Pretend {
    /// Where packages are written.
    pub target: PathBuf,
}

fn unreadable(project: &Path, source: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Invalid,
        "toolchain",
        "read the project in",
        project.display(),
    )
    .caused_by(source)
}

#[async_trait]
impl Toolchain for Pretend {
    async fn describe(&self, project: &Path) -> Result<PackageVersion> {
        let text =
            std::fs::read_to_string(project.join("package")).map_err(|error| unreadable(project, error))?;
        let mut words = text.split_whitespace();
        let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok(PackageId::cargo(name)?.at(version)?)
    }

    async fn fetch(&self, project: &Path, repository: &Access) -> Result<Vec<PackageVersion>> {
        if repository.token.is_empty() {
            return Err(Error::new(
                ErrorKind::Unauthenticated,
                "toolchain",
                "fetch for",
                project.display(),
            ));
        }
        Ok(vec![PackageId::cargo("dependency")?.at("0.3.1")?])
    }

    async fn package(&self, project: &Path, _: &Access) -> Result<Packaged> {
        let version = self.describe(project).await?;
        let bytes = std::fs::read(project.join("package")).map_err(|error| unreadable(project, error))?;
        let name = format!("{}-{}.crate", version.package().name(), version.version());
        let file = self.target.join(name);
        std::fs::write(&file, &bytes).map_err(|error| unreadable(&self.target, error))?;
        Ok(Packaged {
            version,
            file,
            digest: Digest::sha256_of(bytes),
        })
    }
}
