//! What becomes of one image: its copies in other Regions, its signatures, its storage class (*Amazon ECR API
//! Reference*, `DescribeImageReplicationStatus`, `DescribeImageSigningStatus`, `UpdateImageStorageClass`).

use crate::client::{Ecr, image_id};
use crate::error::{SERVICE, failed};
use crate::images::ImageStatus;
use crate::waiting::settle;
use aws_sdk_ecr::types::{self, TargetStorageClass};
use std::fmt;
use towpath_core::wait::{self, Judgement};
use towpath_core::{Cancellation, ImageRef};
use towpath_elements::{Error, ErrorKind, Result};

/// A copy of an image in a Region of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replication {
    /// The Region, such as `eu-central-1`.
    pub region: String,
    /// The account, which is the id of the registry there.
    pub account: String,
    /// How far it is.
    pub progress: Progress,
}

/// A signature of an image by a signing profile.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signing {
    /// The ARN of the profile.
    pub profile: String,
    /// How far it is.
    pub progress: Progress,
}

/// How far a copy or a signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// It is on its way.
    InProgress,
    /// It is there.
    Complete,
    /// It will not come.
    Failed {
        /// The service's word for it; empty where it gives none.
        code: String,
        /// What the service says; empty where it says nothing.
        reason: String,
    },
    /// A word that this version does not know.
    Other(String),
}

impl Ecr {
    /// The copies of an image that the replication settings ask for. There are none where the image was pushed before
    /// the settings were made, and none yet right after a push.
    ///
    /// # Errors
    /// What the service says to `DescribeImageReplicationStatus`.
    pub async fn replications(&self, image: &ImageRef) -> Result<Vec<Replication>> {
        let call = self
            .api
            .describe_image_replication_status()
            .repository_name(image.repository().as_str())
            .image_id(image_id(image));
        let output = call.send().await;
        let output = output.map_err(|error| failed("read the replication of", image, error).error)?;
        let statuses = output.replication_statuses.unwrap_or_default().into_iter();
        Ok(statuses
            .map(|status| Replication {
                region: status.region.unwrap_or_default(),
                account: status.registry_id.unwrap_or_default(),
                progress: Progress::read(
                    status.status.as_ref().map(types::ReplicationStatus::as_str),
                    status.failure_code,
                    None,
                ),
            })
            .collect())
    }

    /// Waits until an image is in all these Regions, and every other copy that the service knows of is there too.
    ///
    /// ```no_run
    /// # async fn example(ecr: towpath_ecr::Ecr, image: towpath_ecr::ImageRef) -> towpath_ecr::Result<()> {
    /// use std::time::Duration;
    /// use towpath_ecr::{Cancellation, wait::Policy};
    /// let half_an_hour = Policy::default().within(Duration::from_secs(1800));
    /// ecr.wait_until_replicated(&image, &["eu-central-1"], &half_an_hour, &Cancellation::new()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// *Conflict* where a copy has failed, with the service's reason; *timed out*; *cancelled*; what the service says.
    pub async fn wait_until_replicated(
        &self,
        image: &ImageRef,
        regions: &[&str],
        policy: &wait::Policy,
        cancellation: &Cancellation,
    ) -> Result<Vec<Replication>> {
        let outcome = wait::until(
            policy,
            cancellation,
            || self.replications(image),
            Error::retry,
            |copies| {
                let found = copies.iter().map(|copy| (copy.region.as_str(), &copy.progress));
                judge(found.collect(), regions)
            },
        )
        .await;
        settle(outcome, "wait for the replication of", &image.to_string())
    }

    /// The signatures that the signing settings ask for: one for each profile. There are none yet right after a push.
    ///
    /// # Errors
    /// What the service says to `DescribeImageSigningStatus`.
    pub async fn signings(&self, image: &ImageRef) -> Result<Vec<Signing>> {
        let call = self
            .api
            .describe_image_signing_status()
            .repository_name(image.repository().as_str())
            .image_id(image_id(image));
        let output = call.send().await;
        let output = output.map_err(|error| failed("read the signing of", image, error).error)?;
        let statuses = output.signing_statuses.unwrap_or_default().into_iter();
        Ok(statuses
            .map(|status| Signing {
                profile: status.signing_profile_arn.unwrap_or_default(),
                progress: Progress::read(
                    status.status.as_ref().map(types::SigningStatus::as_str),
                    status.failure_code,
                    status.failure_reason,
                ),
            })
            .collect())
    }

    /// Waits until an image is signed by all these profiles, and by every other that the service knows of.
    ///
    /// # Errors
    /// *Conflict* where signing has failed, with the service's reason; *timed out*; *cancelled*; what the service says.
    pub async fn wait_until_signed(
        &self,
        image: &ImageRef,
        profiles: &[&str],
        policy: &wait::Policy,
        cancellation: &Cancellation,
    ) -> Result<Vec<Signing>> {
        let outcome = wait::until(
            policy,
            cancellation,
            || self.signings(image),
            Error::retry,
            |signings| {
                let found = signings
                    .iter()
                    .map(|signing| (signing.profile.as_str(), &signing.progress));
                judge(found.collect(), profiles)
            },
        )
        .await;
        settle(outcome, "wait for the signing of", &image.to_string())
    }

    /// Puts an image into the archive, where it is cheaper and cannot be pulled, for at least 90 days. An image that
    /// an index holds cannot go before the index. One that is there already stays there.
    ///
    /// # Errors
    /// *Unsupported* where the service refuses; what else it says to `UpdateImageStorageClass`.
    pub async fn archive_image(&self, image: &ImageRef) -> Result<ImageStatus> {
        self.set_storage_class(image, TargetStorageClass::Archive).await
    }

    /// Brings an image back from the archive. This takes a while; [`wait_until_active`](Self::wait_until_active).
    ///
    /// # Errors
    /// *Unsupported* where the service refuses; what else it says to `UpdateImageStorageClass`.
    pub async fn restore_image(&self, image: &ImageRef) -> Result<ImageStatus> {
        self.set_storage_class(image, TargetStorageClass::Standard).await
    }

    async fn set_storage_class(&self, image: &ImageRef, class: TargetStorageClass) -> Result<ImageStatus> {
        const ATTEMPTED: &str = "change the storage class of";
        // The service refuses what is done already; a repeated call is not an error here.
        let status = self.image_status(image).await?;
        let done = match class {
            TargetStorageClass::Archive => status == ImageStatus::Archived,
            _ => matches!(status, ImageStatus::Active | ImageStatus::Activating),
        };
        if done {
            return Ok(status);
        }
        let call = self
            .api
            .update_image_storage_class()
            .repository_name(image.repository().as_str())
            .image_id(image_id(image))
            .target_storage_class(class);
        match call.send().await {
            Ok(output) => {
                let status = output.image_status.as_ref().map(types::ImageStatus::as_str);
                Ok(ImageStatus::read(status.unwrap_or_default()))
            }
            Err(error) => {
                let failed = failed(ATTEMPTED, image, error);
                Err(match failed.code.as_str() {
                    "ImageStorageClassUpdateNotSupportedException" => {
                        Error::new(ErrorKind::Unsupported, SERVICE, ATTEMPTED, image)
                            .because(failed.error.detail())
                            .advise("archive the index that holds it, or wait until it has come back")
                    }
                    _ => failed.error,
                })
            }
        }
    }

    /// Where an image is kept. Look before pulling what may be archived: the registry answers that it is not there.
    ///
    /// # Errors
    /// *Not found* where there is no such image; what the service says to `DescribeImages`.
    pub async fn image_status(&self, image: &ImageRef) -> Result<ImageStatus> {
        const ATTEMPTED: &str = "read the status of";
        let found = self.image(image).await?;
        let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, SERVICE, ATTEMPTED, image))?;
        // Registries that know no archive do not say.
        Ok(found
            .image_status()
            .map_or(ImageStatus::Active, |status| ImageStatus::read(status.as_str())))
    }

    /// Waits until an image can be pulled. One that is in the archive does not come back by itself.
    ///
    /// # Errors
    /// *Conflict* where it is archived; *timed out*; *cancelled*; what the service says to `DescribeImages`.
    pub async fn wait_until_active(
        &self,
        image: &ImageRef,
        policy: &wait::Policy,
        cancellation: &Cancellation,
    ) -> Result<()> {
        let outcome = wait::until(
            policy,
            cancellation,
            || self.image_status(image),
            Error::retry,
            |status| match status {
                ImageStatus::Active => Judgement::Met,
                ImageStatus::Archived => Judgement::failed("it is archived: restore it first"),
                other => Judgement::pending(format!("it to be active (it is {other})")),
            },
        )
        .await;
        settle(outcome, "wait for the return of", &image.to_string()).map(drop)
    }
}

fn judge(found: Vec<(&str, &Progress)>, wanted: &[&str]) -> Judgement {
    for (name, progress) in &found {
        if let Progress::Failed { code, reason } = progress {
            return Judgement::failed(match reason.is_empty() {
                true => format!("{name} failed: {code}"),
                false => format!("{name} failed: {code}: {reason}"),
            });
        }
    }
    // Right after a push the service lists nothing, which is no success, whoever named nothing to wait for.
    if found.is_empty() && wanted.is_empty() {
        return Judgement::pending("the service to list any");
    }
    if let Some(missing) = wanted
        .iter()
        .find(|name| !found.iter().any(|(found, _)| found == *name))
    {
        return Judgement::pending(format!("{missing} to begin"));
    }
    match found
        .iter()
        .find(|(_, progress)| **progress != Progress::Complete)
    {
        Some((name, progress)) => Judgement::pending(format!("{name}, which is {progress}")),
        None => Judgement::Met,
    }
}

impl Progress {
    fn read(word: Option<&str>, code: Option<String>, reason: Option<String>) -> Self {
        match word.unwrap_or_default() {
            "IN_PROGRESS" => Self::InProgress,
            "COMPLETE" => Self::Complete,
            "FAILED" => Self::Failed {
                code: code.unwrap_or_default(),
                reason: reason.unwrap_or_default(),
            },
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProgress => f.write_str("in progress"),
            Self::Complete => f.write_str("complete"),
            Self::Failed { code, .. } => write!(f, "failed ({code})"),
            Self::Other(word) => f.write_str(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_listed_is_no_success() {
        let is_met = |judgement| matches!(judgement, Judgement::Met);
        assert!(!is_met(judge(Vec::new(), &[])));
        assert!(!is_met(judge(Vec::new(), &["eu-central-1"])));
        assert!(is_met(judge(vec![("eu-central-1", &Progress::Complete)], &[])));
    }
}
