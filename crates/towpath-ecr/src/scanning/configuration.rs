//! Which images a registry scans, when, and by what; scans on request.

use crate::client::{Ecr, image_id};
use crate::element::require_digest;
use crate::error::{SERVICE, failed};
use crate::platform::platforms;
use aws_sdk_ecr::error::BuildError;
use aws_sdk_ecr::types::{
    ImageIdentifier, RegistryScanningConfiguration, RegistryScanningRule, ScanFrequency as Word, ScanType,
    ScanningRepositoryFilter, ScanningRepositoryFilterType,
};
use futures_util::future::join_all;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use towpath_core::{Digest, ImageRef, RepositoryName, Retry};
use towpath_elements::registry::{Coverage, PlatformImage, Scanner};
use towpath_elements::{Error, ErrorKind, Result};

/// How a registry scans: by what, which repositories, when.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanningConfiguration {
    /// What scans.
    pub scanner: Scanner,
    /// Which repositories are scanned, and when; at most two rules. Without a match nothing is scanned by itself.
    pub rules: Vec<ScanRule>,
}

impl ScanningConfiguration {
    /// A configuration of these rules.
    pub fn new(scanner: Scanner, rules: Vec<ScanRule>) -> Self {
        Self { scanner, rules }
    }
}

/// When the repositories that match a filter are scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanRule {
    /// When.
    pub frequency: ScanFrequency,
    /// Names of repositories in which `*` stands for anything; at most 100.
    pub filters: Vec<String>,
}

impl ScanRule {
    /// A rule for the repositories that match one of these filters.
    pub fn new(frequency: ScanFrequency, filters: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            frequency,
            filters: filters.into_iter().map(Into::into).collect(),
        }
    }
}

/// When an image is scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanFrequency {
    /// Once, when it is pushed.
    OnPush,
    /// When it is pushed, and whenever a vulnerability becomes known; the enhanced scanner only.
    Continuous,
    /// Only where somebody asks.
    Manual,
    /// A word of the service that this version does not know.
    Other(String),
}

impl ScanFrequency {
    fn read(word: &Word) -> Self {
        match word.as_str() {
            "SCAN_ON_PUSH" => Self::OnPush,
            "CONTINUOUS_SCAN" => Self::Continuous,
            "MANUAL" => Self::Manual,
            other => Self::Other(other.to_owned()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::OnPush => "SCAN_ON_PUSH",
            Self::Continuous => "CONTINUOUS_SCAN",
            Self::Manual => "MANUAL",
            Self::Other(word) => word,
        }
    }
}

impl fmt::Display for ScanFrequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Ecr {
    /// How the registry scans.
    ///
    /// # Errors
    /// What the service says to `GetRegistryScanningConfiguration`.
    pub async fn scanning_configuration(&self) -> Result<ScanningConfiguration> {
        const ATTEMPTED: &str = "read the scanning configuration of";
        let output = self.api.get_registry_scanning_configuration().send().await;
        let output = output.map_err(|error| failed(ATTEMPTED, "the registry", error).error)?;
        let said = output.scanning_configuration;
        said.as_ref()
            .map(read)
            .ok_or_else(|| protocol(ATTEMPTED, "the registry", "the answer has none"))
    }

    /// Says how the registry is to scan from now on, and returns what the service made of it. What is stored is scanned
    /// by the new rules only where the service does so: the basic scanner does not.
    ///
    /// # Errors
    /// What the service says to `PutRegistryScanningConfiguration`.
    pub async fn set_scanning_configuration(
        &self,
        wanted: &ScanningConfiguration,
    ) -> Result<ScanningConfiguration> {
        const ATTEMPTED: &str = "set the scanning configuration of";
        let kind = match &wanted.scanner {
            Scanner::Basic => ScanType::Basic,
            Scanner::Enhanced => ScanType::Enhanced,
            other => ScanType::from(other.to_string().as_str()),
        };
        let rules: Vec<RegistryScanningRule> = wanted
            .rules
            .iter()
            .map(write)
            .collect::<Result<_, BuildError>>()
            .map_err(|error| {
                Error::new(ErrorKind::Invalid, SERVICE, ATTEMPTED, "the registry").caused_by(error)
            })?;
        let call = self.api.put_registry_scanning_configuration().scan_type(kind);
        let output = call.set_rules(Some(rules)).send().await;
        let output = output.map_err(|error| failed(ATTEMPTED, "the registry", error).error)?;
        let made = output.registry_scanning_configuration;
        made.as_ref()
            .map(read)
            .ok_or_else(|| protocol(ATTEMPTED, "the registry", "the answer has none"))
    }

    /// Whether the registry's rules, or the repository's own setting, have its images scanned by themselves.
    ///
    /// # Errors
    /// *Not found* without the repository, or what the service says to `BatchGetRepositoryScanningConfiguration`.
    pub async fn scan_coverage(&self, repository: &RepositoryName) -> Result<Coverage> {
        const ATTEMPTED: &str = "read the scanning configuration of";
        let call = self.api.batch_get_repository_scanning_configuration();
        let output = call.repository_names(repository.as_str()).send().await;
        let output = output.map_err(|error| failed(ATTEMPTED, repository, error).error)?;
        if let Some(failure) = output.failures().first() {
            let code = failure.failure_code().map_or("no code", |code| code.as_str());
            let kind = match code {
                "REPOSITORY_NOT_FOUND" => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            };
            let reason = failure.failure_reason().unwrap_or_default();
            return Err(Error::new(kind, SERVICE, ATTEMPTED, repository).because(format!("{code}: {reason}")));
        }
        let found = output.scanning_configurations();
        let Some(found) = found
            .iter()
            .find(|one| one.repository_name() == Some(repository.as_str()))
        else {
            return Err(protocol(
                ATTEMPTED,
                repository,
                "the answer does not have the repository",
            ));
        };
        Ok(match found.scan_frequency().map(ScanFrequency::read) {
            Some(ScanFrequency::Manual) | None if !found.scan_on_push() => Coverage::Uncovered,
            Some(ScanFrequency::Manual) | None => Coverage::Covered(ScanFrequency::OnPush.to_string()),
            Some(frequency) => Coverage::Covered(frequency.to_string()),
        })
    }

    /// Asks the basic scanner for a scan of an image, given by digest; of each runnable platform of an index. Returns
    /// what is being scanned. [`wait_for_scan`](towpath_elements::RegistryExt::wait_for_scan) waits for the result.
    ///
    /// An image is scanned once in 24 hours, the scan of its push included, and an account 100,000 times.
    ///
    /// # Errors
    /// *Rate limited* where one of these quotas is spent, for which no retry is made, *unsupported* where the registry
    /// scans by Amazon Inspector, or what the service says to `StartImageScan`. Of several platforms every one is asked
    /// for first.
    pub async fn start_scan(&self, image: &ImageRef) -> Result<Vec<PlatformImage>> {
        const ATTEMPTED: &str = "start a scan of";
        require_digest(image, ATTEMPTED)?;
        self.require_own(image, ATTEMPTED).await?;
        let manifest = self.oci.required_manifest(image).await?;
        let parts = platforms(&self.oci.repository(image), &manifest).await?;
        if parts.is_empty() {
            let error = Error::new(ErrorKind::Unsupported, SERVICE, ATTEMPTED, image);
            return Err(error.because("it has no runnable platform"));
        }
        let started = parts.iter().map(|part| async {
            let image = image.at(part.digest.clone());
            let call = self
                .api
                .start_image_scan()
                .set_registry_id(Self::account(&image).map(|account| account.to_string()))
                .repository_name(image.repository().as_str())
                .image_id(image_id(&image));
            let Err(error) = call.send().await else {
                return Ok(());
            };
            let failed = failed(ATTEMPTED, &image, error);
            let told = failed.error.detail().to_owned();
            let new = |kind| Error::new(kind, SERVICE, ATTEMPTED, &image).because(told);
            Err(match failed.code.as_str() {
                "LimitExceededException" => new(ErrorKind::RateLimited)
                    .retrying(Retry::Never)
                    .advise("an image is scanned once in 24 hours, its push included: wait for the scan there is"),
                "UnsupportedImageTypeException" => new(ErrorKind::Unsupported),
                "ImageArchivedException" => new(ErrorKind::Conflict).advise("restore the image first"),
                "ValidationException" => new(ErrorKind::Unsupported)
                    .advise("a registry that scans by Amazon Inspector takes no requests: cover the repository by a rule"),
                _ => failed.error,
            })
        });
        join_all(started).await.into_iter().collect::<Result<()>>()?;
        Ok(parts)
    }

    /// When images were pushed.
    pub(super) async fn pushed_at(
        &self,
        image: &ImageRef,
        digests: &[&Digest],
    ) -> Result<BTreeMap<Digest, Timestamp>> {
        let mut pushed = BTreeMap::new();
        for digests in digests.chunks(100) {
            let ids = digests
                .iter()
                .map(|digest| ImageIdentifier::builder().image_digest(digest.as_str()).build());
            let call = self
                .api
                .describe_images()
                .set_registry_id(Self::account(image).map(|account| account.to_string()))
                .repository_name(image.repository().as_str())
                .set_image_ids(Some(ids.collect()));
            let output = call.send().await;
            let output = output.map_err(|error| failed("describe", image, error).error)?;
            for detail in output.image_details() {
                let digest = detail.image_digest().and_then(|digest| digest.parse().ok());
                let at = detail.image_pushed_at().and_then(super::look::timestamp);
                pushed.extend(digest.zip(at));
            }
        }
        Ok(pushed)
    }
}

fn read(said: &RegistryScanningConfiguration) -> ScanningConfiguration {
    let scanner = match said.scan_type().map(ScanType::as_str) {
        Some("BASIC") | None => Scanner::Basic,
        Some("ENHANCED") => Scanner::Enhanced,
        Some(other) => Scanner::Other(other.to_owned()),
    };
    let rules = said.rules().iter().map(|rule| {
        let filters = rule.repository_filters().iter();
        ScanRule::new(
            ScanFrequency::read(rule.scan_frequency()),
            filters.map(|filter| filter.filter()),
        )
    });
    ScanningConfiguration::new(scanner, rules.collect())
}

fn write(rule: &ScanRule) -> Result<RegistryScanningRule, BuildError> {
    let filters = rule.filters.iter().map(|filter| {
        ScanningRepositoryFilter::builder()
            .filter(filter)
            .filter_type(ScanningRepositoryFilterType::Wildcard)
            .build()
    });
    RegistryScanningRule::builder()
        .scan_frequency(Word::from(rule.frequency.as_str()))
        .set_repository_filters(Some(filters.collect::<Result<_, _>>()?))
        .build()
}

fn protocol(attempted: &'static str, subject: impl fmt::Display, detail: &str) -> Error {
    Error::new(ErrorKind::Protocol, SERVICE, attempted, subject).because(detail)
}
