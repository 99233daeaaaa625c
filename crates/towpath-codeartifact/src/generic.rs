//! Generic packages: any files, one `PublishPackageVersion` each; the last one finishes the version.

use crate::client::{CodeArtifact, about_package};
use crate::error::failed;
use crate::publish::{MAX_FILE, conflict, error};
use aws_sdk_codeartifact::primitives::ByteStream;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::io::AsyncReadExt as _;
use towpath_core::{Digest, Hasher};
use towpath_elements::artifacts::{Publication, StoredVersion, VersionStatus};
use towpath_elements::{ErrorKind, Result};

struct File<'a> {
    path: &'a PathBuf,
    digest: Digest,
}

impl CodeArtifact {
    pub(crate) async fn publish_generic(&self, publication: &Publication) -> Result<StoredVersion> {
        let Publication {
            repository, version, ..
        } = publication;
        let files = files(publication).await?;
        let stored = self.version(repository, version).await?;
        let mut there = Vec::new();
        if let Some(stored) = &stored {
            for asset in &stored.assets {
                match (files.get(asset.name.as_str()), &asset.digest) {
                    (Some(file), Some(kept)) if file.digest == *kept => there.push(asset.name.as_str()),
                    (Some(file), kept) => {
                        let kept = kept.as_ref().map_or("an unknown digest", Digest::as_str);
                        return Err(conflict(
                            publication,
                            &format!("{} {kept}", asset.name),
                            &file.digest,
                        ));
                    }
                    (None, _) => {
                        return Err(error(ErrorKind::Conflict, publication)
                            .because(format!(
                                "the repository has it with {}, which was not given",
                                asset.name
                            ))
                            .advise("give all files of the version, or release a new one"));
                    }
                }
            }
            if stored.status != VersionStatus::Unfinished && there.len() < files.len() {
                return Err(error(ErrorKind::Conflict, publication)
                    .because(format!("the version is {:?} with fewer files", stored.status))
                    .advise("release a new version; files are added only while a version is unfinished"));
            }
            if stored.status != VersionStatus::Unfinished {
                return self.until_published(repository, version).await;
            }
        }
        let count = files.len();
        for (at, (name, file)) in files.iter().enumerate() {
            let last = at + 1 == count;
            // The last one is sent even where it is there: it finishes the version.
            if last || !there.contains(name) {
                self.put_asset(publication, name, file, !last).await?;
            }
        }
        self.until_published(repository, version).await
    }

    async fn put_asset(
        &self,
        publication: &Publication,
        name: &str,
        file: &File<'_>,
        unfinished: bool,
    ) -> Result<()> {
        let Publication {
            repository, version, ..
        } = publication;
        // In memory, because the SDK signs a streamed body as unsigned, and the service compares the asset's hash with
        // what was signed.
        let content = tokio::fs::read(file.path)
            .await
            .map_err(|source| unreadable(publication, file.path).caused_by(source))?;
        let package = version.package();
        about_package!(self.assets_sdk().publish_package_version(), repository, package)
            .repository(repository.name())
            .package_version(version.version())
            .asset_name(name)
            .asset_sha256(file.digest.encoded())
            .asset_content(ByteStream::from(content))
            .unfinished(unfinished)
            .send()
            .await
            .map_err(|error| failed("publish", format!("{name} of {version} to {repository}"), error))?;
        Ok(())
    }
}

/// The files by asset name, with their digests.
async fn files(publication: &Publication) -> Result<BTreeMap<&str, File<'_>>> {
    let invalid = |detail: String| error(ErrorKind::Invalid, publication).because(detail);
    if publication.files.is_empty() {
        return Err(invalid("no files were given".into()));
    }
    let mut files = BTreeMap::new();
    for path in &publication.files {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| invalid(format!("{} has no name that is UTF-8", path.display())))?;
        let unreadable = |source| unreadable(publication, path).caused_by(source);
        let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
        if size > MAX_FILE {
            return Err(invalid(format!(
                "{} has {size} bytes; at most {MAX_FILE} are taken",
                path.display()
            )));
        }
        let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let mut hasher = Hasher::sha256();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = file.read(&mut buffer).await.map_err(unreadable)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
        }
        let digest = hasher.finish();
        if files.insert(name, File { path, digest }).is_some() {
            return Err(
                invalid(format!("two files are named {name}")).advise("an asset's name is its file's name")
            );
        }
    }
    Ok(files)
}

fn unreadable(publication: &Publication, path: &std::path::Path) -> towpath_elements::Error {
    error(ErrorKind::Invalid, publication).because(format!("{} cannot be read", path.display()))
}
