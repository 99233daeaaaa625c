//! Repositories: to describe, list, make and delete them, and to keep one as it is wanted (*Amazon ECR User Guide*,
//! "Private repositories").

mod reconcile;
mod settings;

pub use settings::{Encryption, KmsKey, RepositorySettings, TagMutability};
pub(crate) use settings::{listed, read_tags, write_tags};

use crate::client::Ecr;
use crate::error::{SERVICE, failed};
use crate::images::timestamp;
use crate::pages::{Page, items};
use crate::policy::PolicyDocument;
use aws_sdk_ecr::types::Repository as Described;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use std::collections::BTreeMap;
use towpath_core::{AccountId, ImageRef, RepositoryName};
use towpath_elements::{Error, ErrorKind, Result};

/// The largest page that the service gives.
const A_PAGE: i32 = 1000;

/// A repository, as the service describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryDetail {
    /// Its name.
    pub name: RepositoryName,
    /// Its address: the registry and its name, without tag or digest.
    pub address: ImageRef,
    /// Its ARN, by which tags and policies name it.
    pub arn: String,
    /// The account that owns the registry.
    pub account: AccountId,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether a tag may be given to another image.
    pub tag_mutability: TagMutability,
    /// Whether the basic scanner looks at every image that is pushed.
    pub scan_on_push: bool,
    /// How images are encrypted.
    pub encryption: Encryption,
}

/// What may be deleted together with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteRepository {
    /// The repository only: with images in it, it stays.
    IfEmpty,
    /// The repository with all images in it.
    WithImages,
}

impl RepositoryDetail {
    pub(crate) fn read(described: &Described) -> Result<Self> {
        let uri = described.repository_uri().unwrap_or_default();
        let name = described.repository_name().unwrap_or_default();
        let broken = |error: towpath_core::ParseError| {
            let error =
                Error::new(ErrorKind::Protocol, SERVICE, "read the description of", name).caused_by(error);
            error.because("its name, address or account is none")
        };
        let encryption = described.encryption_configuration();
        Ok(Self {
            name: RepositoryName::new(name).map_err(broken)?,
            address: uri.parse().map_err(broken)?,
            arn: described.repository_arn().unwrap_or_default().to_owned(),
            account: AccountId::new(described.registry_id().unwrap_or_default()).map_err(broken)?,
            created: timestamp(described.created_at().copied()),
            tag_mutability: TagMutability::read(
                described.image_tag_mutability(),
                described.image_tag_mutability_exclusion_filters(),
            ),
            scan_on_push: described
                .image_scanning_configuration()
                .is_some_and(|scanning| scanning.scan_on_push()),
            encryption: Encryption::read(
                encryption.map(|encryption| encryption.encryption_type()),
                encryption.and_then(|encryption| encryption.kms_key()),
            ),
        })
    }
}

impl Ecr {
    /// A repository; `None` where there is none of this name.
    ///
    /// # Errors
    /// What the service says to `DescribeRepositories`.
    pub async fn repository(&self, name: &RepositoryName) -> Result<Option<RepositoryDetail>> {
        let call = self.api.describe_repositories().repository_names(name.as_str());
        match call.send().await {
            Ok(output) => output
                .repositories()
                .first()
                .map(RepositoryDetail::read)
                .transpose(),
            Err(error) => {
                let failed = failed("read the repository", name, error);
                match failed.code.as_str() {
                    "RepositoryNotFoundException" => Ok(None),
                    _ => Err(failed.error),
                }
            }
        }
    }

    /// All repositories of the registry, by name, a thousand with a call. An error ends the stream.
    ///
    /// ```no_run
    /// # async fn example(ecr: towpath_ecr::Ecr) -> towpath_ecr::Result<()> {
    /// use futures_util::TryStreamExt;
    /// let mut repositories = ecr.repositories();
    /// while let Some(repository) = repositories.try_next().await? {
    ///     println!("{} {}", repository.name, repository.tag_mutability);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What the service says to `DescribeRepositories`.
    pub fn repositories(&self) -> BoxStream<'static, Result<RepositoryDetail>> {
        const ATTEMPTED: &str = "list the repositories of";
        let api = self.api.clone();
        items(ATTEMPTED, "the registry", move |token| {
            let call = api
                .describe_repositories()
                .max_results(A_PAGE)
                .set_next_token(token);
            async move {
                let page = call.send().await;
                let page = page.map_err(|error| failed(ATTEMPTED, "the registry", error).error)?;
                let repositories = page.repositories().iter();
                Ok(Page {
                    items: repositories.map(RepositoryDetail::read).collect::<Result<_>>()?,
                    next: page.next_token,
                })
            }
        })
    }

    /// Deletes a repository. False where there is none of this name.
    ///
    /// # Errors
    /// *Conflict* where it has images and they are not to be deleted, and what the service says to `DeleteRepository`.
    pub async fn delete_repository(&self, name: &RepositoryName, what: DeleteRepository) -> Result<bool> {
        let call = self
            .api
            .delete_repository()
            .repository_name(name.as_str())
            .force(what == DeleteRepository::WithImages);
        let Err(error) = call.send().await else {
            return Ok(true);
        };
        let failed = failed("delete the repository", name, error);
        match failed.code.as_str() {
            "RepositoryNotFoundException" => Ok(false),
            "RepositoryNotEmptyException" => Err(failed
                .error
                .advise("delete its images first, or ask for them to be deleted with it")),
            _ => Err(failed.error),
        }
    }

    /// The policy of a repository; `None` where it has none.
    ///
    /// # Errors
    /// *Not found* where there is no such repository, and what the service says to `GetRepositoryPolicy`.
    pub async fn repository_policy(&self, name: &RepositoryName) -> Result<Option<PolicyDocument>> {
        const ATTEMPTED: &str = "read the policy of the repository";
        match self
            .api
            .get_repository_policy()
            .repository_name(name.as_str())
            .send()
            .await
        {
            Ok(output) => output.policy_text.map(PolicyDocument::permissions).transpose(),
            Err(error) => {
                let failed = failed(ATTEMPTED, name, error);
                match failed.code.as_str() {
                    "RepositoryPolicyNotFoundException" => Ok(None),
                    _ => Err(failed.error),
                }
            }
        }
    }

    /// Gives a repository this policy, in place of the one that it has.
    ///
    /// # Errors
    /// *Invalid* where the service does not take it, and what else it says to `SetRepositoryPolicy`.
    pub async fn put_repository_policy(&self, name: &RepositoryName, policy: &PolicyDocument) -> Result<()> {
        let call = self
            .api
            .set_repository_policy()
            .repository_name(name.as_str())
            .policy_text(policy.as_str());
        let output = call.send().await;
        output.map_err(|error| failed("set the policy of the repository", name, error).error)?;
        Ok(())
    }

    /// Takes its policy from a repository. False where it has none.
    ///
    /// # Errors
    /// *Not found* where there is no such repository, and what the service says to `DeleteRepositoryPolicy`.
    pub async fn delete_repository_policy(&self, name: &RepositoryName) -> Result<bool> {
        let call = self.api.delete_repository_policy().repository_name(name.as_str());
        let Err(error) = call.send().await else {
            return Ok(true);
        };
        let failed = failed("delete the policy of the repository", name, error);
        match failed.code.as_str() {
            "RepositoryPolicyNotFoundException" => Ok(false),
            _ => Err(failed.error),
        }
    }

    /// The resource tags of a repository, those of AWS itself (`aws:…`) left out.
    ///
    /// # Errors
    /// What the service says to `ListTagsForResource`.
    pub async fn resource_tags(&self, repository: &RepositoryDetail) -> Result<BTreeMap<String, String>> {
        let call = self.api.list_tags_for_resource().resource_arn(&repository.arn);
        let output = call.send().await;
        let output =
            output.map_err(|error| failed("read the resource tags of", &repository.name, error).error)?;
        Ok(read_tags(output.tags()))
    }
}
