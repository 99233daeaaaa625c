//! Publishing: look first, upload what is missing, and wait until the service says that it is published.

use crate::client::CodeArtifact;
use crate::crate_file;
use crate::error::SERVICE;
use crate::registry::Upload;
use bytes::Bytes;
use towpath_core::wait::{self, Judgement, Outcome};
use towpath_core::{ArtifactRepository, Cancellation, Digest, PackageFormat, PackageVersion, Retry};
use towpath_elements::artifacts::{Publication, StoredVersion, VersionStatus};
use towpath_elements::{Error, ErrorKind, Result};

/// The largest file that is taken, in bytes: it is sent as one body from memory.
pub(crate) const MAX_FILE: u64 = 256 * 1024 * 1024;

impl CodeArtifact {
    /// Stores a version, and returns it once it is published.
    ///
    /// Cargo: the one `.crate` file that `cargo package` made, through Cargo's web API. Generic: any files, through
    /// `PublishPackageVersion`. The same bytes once more succeed without an upload.
    ///
    /// # Errors
    /// *Conflict* where the version is there with other bytes, with both digests; *invalid* where the file is of another
    /// crate or version; *denied* where origin controls block it; *unsupported* for the other formats.
    pub async fn publish(&self, publication: &Publication) -> Result<StoredVersion> {
        match publication.version.package().format() {
            PackageFormat::Cargo => self.publish_crate(publication).await,
            PackageFormat::Generic => self.publish_generic(publication).await,
            format => Err(error(ErrorKind::Unsupported, publication)
                .because(format!(
                    "publishing {format} packages is not built in; cargo and generic are"
                ))
                .advise("use the format's own tool with the endpoint and token of `access`")),
        }
    }

    async fn publish_crate(&self, publication: &Publication) -> Result<StoredVersion> {
        let Publication {
            repository, version, ..
        } = publication;
        let archive = read_crate(publication).await?;
        let digest = Digest::sha256_of(&archive);
        let endpoint = self.repository_endpoint(repository, PackageFormat::Cargo).await?;
        let body = crate_body(publication, archive, format!("sparse+{endpoint}")).await?;
        let look = || async { self.stored_crate(publication, &digest).await };
        if look().await?.is_none() {
            let upload = Upload {
                repository,
                version,
                endpoint: &endpoint,
                body,
            };
            self.upload_crate(upload, look).await?;
        }
        self.until_published(repository, version).await
    }

    /// Whether the version is there with these bytes. With other bytes it is a conflict.
    async fn stored_crate(&self, publication: &Publication, digest: &Digest) -> Result<Option<()>> {
        let Publication {
            repository, version, ..
        } = publication;
        let Some(stored) = self.version(repository, version).await? else {
            return Ok(None);
        };
        if let VersionStatus::Archived | VersionStatus::Disposed = stored.status {
            return Err(error(ErrorKind::Conflict, publication)
                .because(format!(
                    "the version is there and cannot be installed ({:?})",
                    stored.status
                ))
                .advise("restore it, or release a new version"));
        }
        let kept = stored.assets.iter().find(|asset| asset.name.ends_with(".crate"));
        match kept.map(|asset| asset.digest.as_ref()) {
            None => Ok(None),
            Some(Some(kept)) if kept == digest => Ok(Some(())),
            Some(kept) => {
                let kept = kept.map_or("an unknown digest", Digest::as_str);
                Err(conflict(publication, kept, digest))
            }
        }
    }

    /// Waits until a version that was stored can be installed.
    pub(crate) async fn until_published(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<StoredVersion> {
        let error = |kind| Error::new(kind, SERVICE, "publish", format!("{version} to {repository}"));
        let outcome = wait::until(
            &self.config().publish_wait,
            &Cancellation::new(),
            || self.version(repository, version),
            Error::retry,
            |seen| match seen.as_ref().map(|stored| &stored.status) {
                Some(VersionStatus::Published | VersionStatus::Unlisted) => Judgement::Met,
                None => Judgement::pending("the version to appear"),
                Some(VersionStatus::Unfinished) => Judgement::pending("the version to be finished"),
                Some(other) => Judgement::failed(format!("the version is {other:?}")),
            },
        )
        .await;
        match outcome {
            Outcome::Met(Some(stored)) => Ok(stored),
            Outcome::Failed { reason, .. } => Err(error(ErrorKind::Conflict).because(reason)),
            Outcome::Blind { error, .. } => Err(error),
            Outcome::TimedOut {
                waiting_for, elapsed, ..
            } => Err(error(ErrorKind::TimedOut)
                .because(format!(
                    "uploaded, and then waited {elapsed:.0?} for {waiting_for}"
                ))
                .advise("publish again: what is stored is not sent twice")),
            _ => Err(error(ErrorKind::Cancelled)),
        }
    }
}

pub(crate) fn error(kind: ErrorKind, publication: &Publication) -> Error {
    let subject = format!("{} to {}", publication.version, publication.repository);
    Error::new(kind, SERVICE, "publish", subject)
}

pub(crate) fn conflict(publication: &Publication, kept: &str, given: &Digest) -> Error {
    error(ErrorKind::Conflict, publication)
        .because(format!(
            "the repository has it as {kept}, and the file is {given}"
        ))
        .advise("release a new version; a version is not replaced")
}

async fn read_crate(publication: &Publication) -> Result<Bytes> {
    let invalid = || error(ErrorKind::Invalid, publication);
    let [file] = &publication.files[..] else {
        return Err(invalid()
            .because(format!(
                "a crate is one file, and {} were given",
                publication.files.len()
            ))
            .advise("give the .crate file that `cargo package` made"));
    };
    let unreadable = |source| {
        invalid()
            .because(format!("{} cannot be read", file.display()))
            .caused_by(source)
    };
    let size = tokio::fs::metadata(file).await.map_err(unreadable)?.len();
    if size > MAX_FILE {
        return Err(invalid().because(format!(
            "{} has {size} bytes; at most {MAX_FILE} are taken",
            file.display()
        )));
    }
    Ok(tokio::fs::read(file).await.map_err(unreadable)?.into())
}

/// The body of the publish request: metadata and archive, each behind its length.
async fn crate_body(publication: &Publication, archive: Bytes, index: String) -> Result<Bytes> {
    let invalid = |flaw: String| {
        let file = publication.files.first().map(|file| file.display().to_string());
        error(ErrorKind::Invalid, publication)
            .because(format!("{}: {flaw}", file.unwrap_or_default()))
            .advise("give the .crate file that `cargo package` made of this version")
    };
    let unpacked = archive.clone();
    let metadata = tokio::task::spawn_blocking(move || crate_file::metadata(&unpacked, &index))
        .await
        .map_err(|error| invalid(error.to_string()).retrying(Retry::Never))?
        .map_err(invalid)?;
    let asked = &publication.version;
    if metadata.name != asked.package().name() || metadata.vers != asked.version() {
        return Err(invalid(format!("it is {} {}", metadata.name, metadata.vers)));
    }
    let json = serde_json::to_vec(&metadata).map_err(|error| invalid(error.to_string()))?;
    let mut body = Vec::with_capacity(json.len() + archive.len() + 8);
    for part in [json.as_slice(), &archive] {
        let length = u32::try_from(part.len()).map_err(|_| invalid("it is too large".into()))?;
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(part);
    }
    Ok(body.into())
}
