//! Image scans, basic and enhanced (*Amazon ECR User Guide*, "Scan images for software vulnerabilities").
//!
//! The service has no single answer to "is the scan done". A scan that is not there yet is an error,
//! `ScanNotFoundException`; the enhanced scanner says `COMPLETE` or `ACTIVE` before its findings arrive; an index is never
//! scanned, its images are. What is asked here, and in which order, follows from that.

mod configuration;
mod findings;
mod look;

pub use configuration::{ScanFrequency, ScanRule, ScanningConfiguration};

use crate::client::Ecr;
use crate::element::require_digest;
use crate::platform::platforms;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use look::Look;
use std::collections::BTreeMap;
use std::time::Duration;
use towpath_core::{Digest, ImageRef};
use towpath_elements::registry::{
    Coverage, NoResult, PlatformImage, PlatformScan, ScanReport, ScanStatus, Scanner,
};
use towpath_elements::{ErrorKind, Result};

/// How patient a client is with the scanner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanSettings {
    /// How old an enhanced scan must be for one look to be enough, and an empty result to be believed; a minute unless
    /// set. A younger result must have findings, and be the same twice.
    pub settle: Duration,
    /// How long after a push a scan may begin; 15 minutes unless set. An image that was pushed longer ago and has no scan
    /// will not get one by itself.
    pub grace: Duration,
}

impl Default for ScanSettings {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(60),
            grace: Duration::from_secs(15 * 60),
        }
    }
}

/// What one look at the registry knows of it.
struct Known {
    configured: Option<Scanner>,
    coverage: Coverage,
    now: Timestamp,
}

impl Ecr {
    pub(crate) async fn first_scan_report(&self, image: &ImageRef) -> Result<ScanReport> {
        const ATTEMPTED: &str = "read the scan of";
        require_digest(image, ATTEMPTED)?;
        self.require_own(image, ATTEMPTED).await?;
        let (parts, configured) = tokio::try_join!(
            async {
                let manifest = self.oci.required_manifest(image).await?;
                platforms(&self.oci.repository(image), &manifest).await
            },
            self.configured(image),
        )?;
        let looks = self.looks(image, &parts).await?;
        let absent: Vec<&Digest> = parts
            .iter()
            .zip(&looks)
            .filter(|(_, look)| look.is_none())
            .map(|(part, _)| &part.digest)
            .collect();
        // Only where a scan is missing does it matter whether it will come.
        let (coverage, pushed) = match absent.is_empty() {
            true => (Coverage::Unknown, BTreeMap::new()),
            false => tokio::try_join!(self.covered(image), self.pushed(image, &absent))?,
        };
        let known = Known {
            configured,
            coverage,
            now: Timestamp::now(),
        };
        let scans = parts.into_iter().zip(looks).map(|(part, look)| match look {
            Some(look) => self.judged(part, look, None, &known),
            None => {
                let pushed = pushed.get(&part.digest).copied();
                self.without_a_scan(part, pushed, &known)
            }
        });
        let mut report = ScanReport::new(image.clone(), scans.collect());
        report.configured = known.configured;
        report.coverage = known.coverage;
        Ok(report)
    }

    pub(crate) async fn next_scan_report(&self, before: &ScanReport) -> Result<ScanReport> {
        let image = &before.image;
        let parts: Vec<PlatformImage> = before
            .platforms
            .iter()
            .filter(|scan| !scan.has_ended())
            .map(|scan| scan.image.clone())
            .collect();
        let mut looks = self.looks(image, &parts).await?.into_iter();
        let known = Known {
            configured: before.configured.clone(),
            coverage: before.coverage.clone(),
            now: Timestamp::now(),
        };
        let mut report = before.clone();
        for scan in report.platforms.iter_mut().filter(|scan| !scan.has_ended()) {
            let part = scan.image.clone();
            *scan = match looks.next().flatten() {
                Some(look) => self.judged(part, look, Some(scan), &known),
                None => self.without_a_scan(part, scan.pushed, &known),
            };
        }
        Ok(report)
    }

    /// What the scanner says of each, several at a time; `None` where there is no scan.
    async fn looks(&self, image: &ImageRef, parts: &[PlatformImage]) -> Result<Vec<Option<Look>>> {
        let images: Vec<ImageRef> = parts.iter().map(|part| image.at(part.digest.clone())).collect();
        stream::iter(images)
            .map(|image| async move { self.look(&image).await })
            .buffered(self.oci.settings().parallel.max(1))
            .try_collect::<Vec<Option<Look>>>()
            .await
    }

    fn judged(
        &self,
        part: PlatformImage,
        look: Look,
        before: Option<&PlatformScan>,
        known: &Known,
    ) -> PlatformScan {
        let (status, description) =
            look.status(known.configured.as_ref(), before, known.now, self.scanning.settle);
        let mut scan = PlatformScan::new(part, status);
        scan.no_result = look.word.as_deref().and_then(NoResult::from_word);
        scan.scanner = look.scanner(known.configured.as_ref());
        scan.word = look.word;
        scan.description = description.or(look.description);
        scan.completed = look.completed;
        scan.findings = look.findings;
        scan
    }

    /// A platform that the scanner does not know: not yet, or never.
    fn without_a_scan(&self, part: PlatformImage, pushed: Option<Timestamp>, known: &Known) -> PlatformScan {
        let age = pushed.map(|pushed| known.now.duration_since(pushed));
        let grace = self.scanning.grace;
        let overdue = age.is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age > grace));
        let request = match known.configured {
            Some(Scanner::Enhanced) => "",
            _ => ", or ask for a scan with start_scan",
        };
        let mut scan = match (&known.coverage, pushed) {
            (Coverage::Uncovered, _) => PlatformScan::without_result(
                part,
                NoResult::NotCovered,
                format!(
                    "no rule of the registry's scanning configuration covers the repository, and scan on push is off; add \
                     a rule and push again{request}"
                ),
            ),
            (_, Some(at)) if overdue => PlatformScan::without_result(
                part,
                NoResult::NeverBegan,
                format!(
                    "it was pushed at {at}, and no scan began within {grace:?}, as where the rule is younger than the \
                     push; push it again{request}"
                ),
            ),
            _ => {
                let mut scan = PlatformScan::new(part, ScanStatus::Pending);
                scan.description = Some("the scanner does not know it yet".to_owned());
                scan
            }
        };
        scan.scanner = known.configured.clone();
        scan.pushed = pushed;
        scan
    }

    /// How the image's registry scans; `None` where this caller may not know.
    async fn configured(&self, image: &ImageRef) -> Result<Option<Scanner>> {
        if !self.is_own_account(image).await? {
            return Ok(None);
        }
        let configuration = unless_denied(self.scanning_configuration().await, image)?;
        Ok(configuration.map(|configuration| configuration.scanner))
    }

    async fn covered(&self, image: &ImageRef) -> Result<Coverage> {
        if !self.is_own_account(image).await? {
            return Ok(Coverage::Unknown);
        }
        let coverage = unless_denied(self.scan_coverage(image.repository()).await, image)?;
        Ok(coverage.unwrap_or_default())
    }

    /// The service tells of its caller's own registry only how it scans.
    async fn is_own_account(&self, image: &ImageRef) -> Result<bool> {
        let Some(account) = Self::account(image) else {
            return Ok(true);
        };
        let own = self.registry().await?;
        Ok(own.ecr().is_none_or(|host| *host.account() == account))
    }

    async fn pushed(&self, image: &ImageRef, digests: &[&Digest]) -> Result<BTreeMap<Digest, Timestamp>> {
        Ok(unless_denied(self.pushed_at(image, digests).await, image)?.unwrap_or_default())
    }
}

/// What only makes an answer sooner is not needed: without the permission the wait goes on to its deadline.
fn unless_denied<T>(result: Result<T>, image: &ImageRef) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::Denied => {
            tracing::warn!(%image, %error, "what is known of the scan is less than it could be");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
