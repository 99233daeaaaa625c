//! The client: versions and their assets, and copies of them.

use crate::access::Known;
use crate::config::CodeArtifactConfig;
use crate::error::{ORIGIN_CONTROLS, SERVICE, chain, failed};
use aws_sdk_codeartifact::types::{
    AssetSummary, HashAlgorithm, PackageVersionErrorCode, PackageVersionStatus,
};
use aws_smithy_types::timeout::TimeoutConfig;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use towpath_core::{ArtifactRepository, Digest, PackageId, PackageVersion, Retry};
use towpath_elements::artifacts::{Asset, StoredVersion, VersionStatus};
use towpath_elements::{Error, ErrorKind, Result};

/// A client of AWS CodeArtifact. Cheap to clone; clones share connections, tokens and endpoints.
#[derive(Clone)]
pub struct CodeArtifact(Arc<Inner>);

struct Inner {
    sdk: aws_sdk_codeartifact::Client,
    assets: aws_sdk_codeartifact::Client,
    http: reqwest::Client,
    config: CodeArtifactConfig,
    known: Known,
}

/// Says to an operation which package of which domain it is about. The SDK has a type for each operation, and no trait
/// over them: hence a macro.
macro_rules! about_package {
    ($operation:expr, $repository:expr, $package:expr) => {
        $operation
            .domain($repository.domain().as_str())
            .set_domain_owner($repository.owner().map(ToString::to_string))
            .format($package.format().as_str().into())
            .set_namespace($package.namespace().map(str::to_owned))
            .package($package.name())
    };
}
pub(crate) use about_package;

impl CodeArtifact {
    /// Makes a client. Nothing is sent yet, but credentials may be looked for.
    ///
    /// # Errors
    /// *Invalid* where no Region is known, or the endpoint is plain http on another machine.
    pub async fn new(config: CodeArtifactConfig) -> Result<Self> {
        let builder = config.sdk().await?;
        let connect = TimeoutConfig::builder().connect_timeout(config.connect_timeout);
        let bounded = connect
            .clone()
            .operation_timeout(config.operation_timeout)
            .build();
        // An asset may take long to come; that it keeps coming is what the SDK's stalled stream protection sees to.
        let unbounded = connect.read_timeout(config.operation_timeout).build();
        let client = |timeouts| {
            aws_sdk_codeartifact::Client::from_conf(builder.clone().timeout_config(timeouts).build())
        };
        let http = reqwest::Client::builder()
            .connect_timeout(config.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Invalid, SERVICE, "make", "a client").caused_by(chain(&error))
            })?;
        Ok(Self(Arc::new(Inner {
            sdk: client(bounded),
            assets: client(unbounded),
            http,
            config,
            known: Known::default(),
        })))
    }

    /// The SDK's client with this configuration, for the operations that this crate does not wrap.
    pub fn sdk(&self) -> &aws_sdk_codeartifact::Client {
        &self.0.sdk
    }

    /// The same, without a limit on how long an operation takes.
    pub(crate) fn assets_sdk(&self) -> &aws_sdk_codeartifact::Client {
        &self.0.assets
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.0.http
    }

    pub(crate) fn config(&self) -> &CodeArtifactConfig {
        &self.0.config
    }

    pub(crate) fn known(&self) -> &Known {
        &self.0.known
    }

    /// A version as the repository itself holds it (`DescribePackageVersion`, `ListPackageVersionAssets`); `None` where
    /// it holds none, whatever an upstream could give.
    pub async fn version(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<Option<StoredVersion>> {
        // The two answers belong together only where the version did not change in between.
        for _ in 0..3 {
            let Some((status, revision)) = self.status(repository, version).await? else {
                return Ok(None);
            };
            let Some((assets, seen)) = self.assets(repository, version).await? else {
                continue;
            };
            if seen.is_none() || revision.is_none() || seen == revision {
                return Ok(Some(StoredVersion {
                    version: version.clone(),
                    status,
                    revision,
                    assets,
                }));
            }
        }
        Err(Error::new(ErrorKind::Conflict, SERVICE, "read", version)
            .because(format!("it keeps changing in {repository}"))
            .retrying(Retry::Later))
    }

    /// The status and the revision of a version.
    pub(crate) async fn status(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<Option<(VersionStatus, Option<String>)>> {
        let package = version.package();
        let answer = about_package!(self.sdk().describe_package_version(), repository, package)
            .repository(repository.name())
            .package_version(version.version())
            .send()
            .await;
        let answer = match answer.map_err(|error| failed("read", version, error)) {
            Ok(answer) => answer,
            Err(failed) if failed.is_missing_in_repository() => return Ok(None),
            Err(failed) => return Err(failed.into()),
        };
        let described = answer.package_version().ok_or_else(|| {
            Error::new(ErrorKind::Protocol, SERVICE, "read", version)
                .because("the answer describes no version")
        })?;
        Ok(Some((
            status_of(described.status()),
            described.revision().map(str::to_owned),
        )))
    }

    /// The assets of a version, over all pages, and the revision they belong to.
    async fn assets(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<Option<(Vec<Asset>, Option<String>)>> {
        let package = version.package();
        let mut pages = about_package!(self.sdk().list_package_version_assets(), repository, package)
            .repository(repository.name())
            .package_version(version.version())
            .set_max_results(self.config().page_size)
            .into_paginator()
            .send();
        let mut assets = Vec::new();
        let mut revision = None;
        while let Some(page) = pages.next().await {
            match page.map_err(|error| failed("list the assets of", version, error)) {
                Ok(page) => {
                    revision = page.version_revision().map(str::to_owned);
                    assets.extend(page.assets().iter().map(asset_of));
                }
                Err(failed) if failed.is_missing_in_repository() => return Ok(None),
                Err(failed) => return Err(failed.into()),
            }
        }
        Ok(Some((assets, revision)))
    }

    /// Every version of a package that the repository itself holds, whatever its status (`ListPackageVersions`).
    pub fn versions(
        &self,
        repository: &ArtifactRepository,
        package: &PackageId,
    ) -> BoxStream<'static, Result<PackageVersion>> {
        let items = about_package!(self.sdk().list_package_versions(), repository, package)
            .repository(repository.name())
            .set_max_results(self.config().page_size)
            .into_paginator()
            .items()
            .send();
        let start = Some((items, package.clone()));
        stream::unfold(start, |state| async {
            let (mut items, package) = state?;
            match items.next().await? {
                Ok(item) => {
                    let version = package.at(item.version()).map_err(Error::from);
                    Some((version, Some((items, package))))
                }
                Err(error) => {
                    let failed = failed("list the versions of", &package, error);
                    (!failed.is_missing_in_repository()).then(|| (Err(failed.into()), None))
                }
            }
        })
        .boxed()
    }

    /// The bytes of an asset, as they come (`GetPackageVersionAsset`).
    pub async fn asset(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
        asset: &str,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let package = version.package();
        let subject = format!("{asset} of {version}");
        let answer = about_package!(self.assets_sdk().get_package_version_asset(), repository, package)
            .repository(repository.name())
            .package_version(version.version())
            .asset(asset)
            .send()
            .await
            .map_err(|error| failed("read", &subject, error))?;
        let start = Some((answer.asset, subject));
        let bytes = stream::unfold(start, |state| async {
            let (mut body, subject) = state?;
            match body.next().await? {
                Ok(bytes) => Some((Ok(bytes), Some((body, subject)))),
                Err(error) => {
                    let broken = Error::new(ErrorKind::Unavailable, SERVICE, "read", subject)
                        .because("the bytes stopped coming")
                        .caused_by(chain(&error));
                    Some((Err(broken), None))
                }
            }
        });
        Ok(bytes.boxed())
    }

    /// Copies a version from one repository of a domain to another, on the service's side (`CopyPackageVersions`).
    ///
    /// # Errors
    /// *Conflict* where the other repository has the version with other assets; *not found* where this one has none;
    /// *denied* where origin controls block it; *invalid* across domains.
    pub async fn promote(
        &self,
        from: &ArtifactRepository,
        to: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<StoredVersion> {
        let error = |kind| Error::new(kind, SERVICE, "promote", format!("{version} from {from} to {to}"));
        if from.domain() != to.domain() || from.owner() != to.owner() {
            return Err(error(ErrorKind::Invalid)
                .because("the repositories belong to different domains")
                .advise("copy within one domain, or publish to the other one"));
        }
        let source = self.version(from, version).await?.ok_or_else(|| {
            error(ErrorKind::NotFound)
                .because(format!("{from} itself does not hold it"))
                .advise("publish it there first")
        })?;
        let package = version.package();
        let answer = about_package!(self.sdk().copy_package_versions(), from, package)
            .source_repository(from.name())
            .destination_repository(to.name())
            .versions(version.version())
            .send()
            .await
            .map_err(|error| failed("promote", format!("{version} from {from} to {to}"), error))?;
        let failure = answer
            .failed_versions()
            .and_then(|failed| failed.get(version.version()));
        if let Some(failure) = failure {
            let said = failure.error_message().unwrap_or_default();
            let code = failure.error_code();
            let because = |kind| {
                error(kind).because(format!(
                    "{}: {said}",
                    code.map_or("no code", |code| code.as_str())
                ))
            };
            match code {
                // Copied before, perhaps by an attempt whose answer was lost: the assets decide.
                Some(PackageVersionErrorCode::AlreadyExists) => {}
                Some(PackageVersionErrorCode::NotFound) => return Err(because(ErrorKind::NotFound)),
                Some(PackageVersionErrorCode::NotAllowed) => {
                    return Err(because(ErrorKind::Denied).advise(ORIGIN_CONTROLS));
                }
                _ => return Err(because(ErrorKind::Conflict)),
            }
        }
        let target = self.version(to, version).await?.ok_or_else(|| {
            error(ErrorKind::Protocol).because("the service said that it copied it, and it is not there")
        })?;
        if digests(&source) != digests(&target) {
            return Err(error(ErrorKind::Conflict)
                .because(format!(
                    "{to} has it with other assets: {} there, {} here",
                    shown(&target),
                    shown(&source)
                ))
                .advise("release a new version; a version is not replaced"));
        }
        Ok(target)
    }
}

fn digests(version: &StoredVersion) -> BTreeMap<&str, (Option<&Digest>, Option<u64>)> {
    version
        .assets
        .iter()
        .map(|asset| (asset.name.as_str(), (asset.digest.as_ref(), asset.size)))
        .collect()
}

fn shown(version: &StoredVersion) -> String {
    let assets = version.assets.iter().map(|asset| match &asset.digest {
        Some(digest) => format!("{} {digest}", asset.name),
        None => asset.name.clone(),
    });
    assets.collect::<Vec<_>>().join(", ")
}

fn asset_of(summary: &AssetSummary) -> Asset {
    let sha256 = summary
        .hashes()
        .and_then(|hashes| hashes.get(&HashAlgorithm::Sha256));
    Asset {
        name: summary.name().to_owned(),
        size: summary.size().and_then(|size| u64::try_from(size).ok()),
        digest: sha256.and_then(|hex| Digest::new(format!("sha256:{}", hex.to_ascii_lowercase())).ok()),
    }
}

fn status_of(status: Option<&PackageVersionStatus>) -> VersionStatus {
    match status {
        Some(PackageVersionStatus::Published) => VersionStatus::Published,
        Some(PackageVersionStatus::Unfinished) => VersionStatus::Unfinished,
        Some(PackageVersionStatus::Unlisted) => VersionStatus::Unlisted,
        Some(PackageVersionStatus::Archived) => VersionStatus::Archived,
        Some(PackageVersionStatus::Disposed) => VersionStatus::Disposed,
        Some(other) => VersionStatus::Other(other.as_str().to_owned()),
        None => VersionStatus::Other("none".into()),
    }
}

impl fmt::Debug for CodeArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CodeArtifact").field(&self.0.config).finish()
    }
}
