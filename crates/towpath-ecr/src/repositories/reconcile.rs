//! A repository as it is wanted: what differs, and how it is changed. Only what is named is read, and only what differs is
//! written.

use super::settings::{listed, write_tags};
use super::{RepositoryDetail, RepositorySettings};
use crate::client::Ecr;
use crate::differences::{Difference, Differences, Reconciled};
use crate::error::{SERVICE, failed};
use crate::policy::PolicyDocument;
use aws_sdk_ecr::types::ImageScanningConfiguration;
use towpath_core::RepositoryName;
use towpath_elements::{Error, ErrorKind, Result};

const TAG_MUTABILITY: &str = "tag mutability";
const SCAN_ON_PUSH: &str = "scan on push";
const ENCRYPTION: &str = "encryption";
const RESOURCE_TAGS: &str = "resource tags";
const POLICY: &str = "repository policy";
const LIFECYCLE: &str = "lifecycle policy";

const ATTEMPTED: &str = "reconcile the repository";

impl Ecr {
    /// What keeps a repository from being as it is wanted. Changes nothing.
    ///
    /// # Errors
    /// *Invalid* for settings that the service cannot have, and what the service says to the reading operations.
    pub async fn compare_repository(
        &self,
        name: &RepositoryName,
        settings: &RepositorySettings,
    ) -> Result<Differences> {
        settings.check("compare the repository", name)?;
        match self.repository(name).await? {
            None => Ok(Differences {
                missing: true,
                settings: Vec::new(),
            }),
            Some(repository) => Ok(Differences {
                missing: false,
                settings: self.repository_differences(&repository, settings).await?,
            }),
        }
    }

    /// Makes a repository that is as it is wanted, or changes what differs in the one that is there. A second run only
    /// reads. Of two that make it at once both succeed, and one says that it did. A new repository has no `changed`
    /// settings: it is `created` with all that are wanted.
    ///
    /// ```no_run
    /// # async fn example(ecr: towpath_ecr::Ecr) -> towpath_ecr::Result<()> {
    /// use towpath_ecr::{RepositorySettings, TagMutability};
    /// let settings = RepositorySettings::new().tag_mutability(TagMutability::Immutable).scan_on_push(true);
    /// let outcome = ecr.reconcile_repository(&"shop/web".parse().unwrap(), &settings).await?;
    /// for change in &outcome.changed {
    ///     println!("{change}"); // tag mutability: MUTABLE, wanted IMMUTABLE
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// *Invalid* for settings that the service cannot have; *conflict* where the encryption differs, which cannot be
    /// changed: nothing has been changed then. Else what the service says to the operations that are needed: what was
    /// changed before such a failure stays changed, and another run does the rest.
    pub async fn reconcile_repository(
        &self,
        name: &RepositoryName,
        settings: &RepositorySettings,
    ) -> Result<Reconciled<RepositoryDetail>> {
        settings.check(ATTEMPTED, name)?;
        let found = match self.repository(name).await? {
            Some(repository) => repository,
            None => match self.create_repository(name, settings).await? {
                Some(repository) => {
                    // The policies are not for creation to set.
                    self.put_policies(name, settings, |_| true).await?;
                    return Ok(Reconciled {
                        now: repository,
                        created: true,
                        changed: Vec::new(),
                    });
                }
                // Somebody was faster: what is there now is compared like any other.
                None => self.required_repository(name).await?,
            },
        };
        let changed = self.repository_differences(&found, settings).await?;
        if let Some(difference) = changed.iter().find(|difference| difference.unchangeable) {
            return Err(Error::new(ErrorKind::Conflict, SERVICE, ATTEMPTED, name)
                .because(difference)
                .advise("make another repository and copy the images, or want what is there"));
        }
        self.change_repository(&found, settings, &changed).await?;
        let described = [TAG_MUTABILITY, SCAN_ON_PUSH];
        let now = match changed
            .iter()
            .any(|difference| described.contains(&difference.setting))
        {
            true => self.required_repository(name).await?,
            false => found,
        };
        Ok(Reconciled {
            now,
            created: false,
            changed,
        })
    }

    /// Creates a repository where it is missing, with the service's defaults. One that is there is left as it is.
    ///
    /// # Errors
    /// What the service says to `DescribeRepositories` and `CreateRepository`.
    pub async fn create_repository_if_missing(&self, name: &RepositoryName) -> Result<RepositoryDetail> {
        let reconciled = self
            .reconcile_repository(name, &RepositorySettings::new())
            .await?;
        Ok(reconciled.now)
    }

    /// A new repository; `None` where there is one of this name.
    async fn create_repository(
        &self,
        name: &RepositoryName,
        settings: &RepositorySettings,
    ) -> Result<Option<RepositoryDetail>> {
        const ATTEMPTED: &str = "create the repository";
        let mutability = settings.tag_mutability.as_ref();
        let scanning = settings.scan_on_push;
        let call = self
            .api
            .create_repository()
            .repository_name(name.as_str())
            .set_image_tag_mutability(mutability.map(|mutability| mutability.word()))
            .set_image_tag_mutability_exclusion_filters(
                mutability.and_then(|mutability| mutability.filters()),
            )
            .set_image_scanning_configuration(scanning.map(scanning_configuration))
            .set_encryption_configuration(
                settings
                    .encryption
                    .as_ref()
                    .and_then(|encryption| encryption.written()),
            )
            .set_tags(settings.resource_tags.as_ref().map(write_tags));
        match call.send().await {
            Ok(output) => match output.repository() {
                Some(repository) => RepositoryDetail::read(repository).map(Some),
                None => Err(Error::new(ErrorKind::Protocol, SERVICE, ATTEMPTED, name)
                    .because("the answer has no repository")),
            },
            Err(error) => {
                let failed = failed(ATTEMPTED, name, error);
                match failed.code.as_str() {
                    "RepositoryAlreadyExistsException" => Ok(None),
                    _ => Err(failed.error),
                }
            }
        }
    }

    async fn required_repository(&self, name: &RepositoryName) -> Result<RepositoryDetail> {
        self.repository(name).await?.ok_or_else(|| {
            Error::new(ErrorKind::Conflict, SERVICE, ATTEMPTED, name)
                .because("it was there a moment ago: somebody else deletes it")
        })
    }

    async fn repository_differences(
        &self,
        found: &RepositoryDetail,
        settings: &RepositorySettings,
    ) -> Result<Vec<Difference>> {
        let mut differences = Vec::new();
        if let Some(wanted) = &settings.tag_mutability {
            let wanted = wanted.clone().sorted();
            differences.extend(Difference::between(
                TAG_MUTABILITY,
                Some(&found.tag_mutability),
                &wanted,
            ));
        }
        if let Some(wanted) = &settings.scan_on_push {
            differences.extend(Difference::between(
                SCAN_ON_PUSH,
                Some(&found.scan_on_push),
                wanted,
            ));
        }
        if let Some(wanted) = &settings.encryption
            && !found.encryption.satisfies(wanted)
        {
            differences.push(Difference {
                setting: ENCRYPTION,
                found: Some(found.encryption.to_string()),
                wanted: wanted.to_string(),
                unchangeable: true,
            });
        }
        if let Some(wanted) = &settings.resource_tags {
            let tags = self.resource_tags(found).await?;
            if tags != *wanted {
                differences.push(Difference {
                    setting: RESOURCE_TAGS,
                    found: Some(listed(&tags)),
                    wanted: listed(wanted),
                    unchangeable: false,
                });
            }
        }
        if let Some(wanted) = &settings.policy {
            let policy = self.repository_policy(&found.name).await?;
            differences.extend(Difference::between(POLICY, policy.as_ref(), wanted));
        }
        if let Some(wanted) = &settings.lifecycle {
            let stored = self.lifecycle_policy(&found.name).await?;
            let policy = stored.map(|stored| PolicyDocument::from(stored.policy));
            differences.extend(Difference::between(LIFECYCLE, policy.as_ref(), wanted));
        }
        Ok(differences)
    }

    async fn change_repository(
        &self,
        found: &RepositoryDetail,
        settings: &RepositorySettings,
        differences: &[Difference],
    ) -> Result<()> {
        let name = &found.name;
        let differs = |setting: &str| differences.iter().any(|difference| difference.setting == setting);
        if let Some(wanted) = &settings.tag_mutability
            && differs(TAG_MUTABILITY)
        {
            let call = self
                .api
                .put_image_tag_mutability()
                .repository_name(name.as_str())
                .image_tag_mutability(wanted.word())
                .set_image_tag_mutability_exclusion_filters(wanted.filters());
            let output = call.send().await;
            output.map_err(|error| failed("set the tag mutability of", name, error).error)?;
        }
        if let Some(wanted) = settings.scan_on_push
            && differs(SCAN_ON_PUSH)
        {
            let call = self
                .api
                .put_image_scanning_configuration()
                .repository_name(name.as_str())
                .image_scanning_configuration(scanning_configuration(wanted));
            let output = call.send().await;
            output.map_err(|error| failed("set scanning on push of", name, error).error)?;
        }
        if let Some(wanted) = &settings.resource_tags
            && differs(RESOURCE_TAGS)
        {
            self.put_tags(found, wanted).await?;
        }
        self.put_policies(name, settings, differs).await
    }

    async fn put_policies(
        &self,
        name: &RepositoryName,
        settings: &RepositorySettings,
        differs: impl Fn(&str) -> bool,
    ) -> Result<()> {
        if let Some(wanted) = &settings.policy
            && differs(POLICY)
        {
            self.put_repository_policy(name, wanted).await?;
        }
        if let Some(wanted) = &settings.lifecycle
            && differs(LIFECYCLE)
        {
            let call = self
                .api
                .put_lifecycle_policy()
                .repository_name(name.as_str())
                .lifecycle_policy_text(wanted.as_str());
            let output = call.send().await;
            output.map_err(|error| failed("set the lifecycle policy of", name, error).error)?;
        }
        Ok(())
    }

    /// Adds before it takes away, so that a failure in between leaves too many tags and not too few. Where the service
    /// takes no more than fifty, a full repository may need the other order: what goes is then taken away first.
    async fn put_tags(
        &self,
        found: &RepositoryDetail,
        wanted: &std::collections::BTreeMap<String, String>,
    ) -> Result<()> {
        const ATTEMPTED: &str = "set the resource tags of";
        let there = self.resource_tags(found).await?;
        let added = wanted
            .iter()
            .filter(|(key, value)| there.get(*key) != Some(*value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let added = write_tags(&added);
        let removed: Vec<String> = there
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .cloned()
            .collect();
        let untag = async {
            if removed.is_empty() {
                return Ok(());
            }
            let call = self
                .api
                .untag_resource()
                .resource_arn(&found.arn)
                .set_tag_keys(Some(removed));
            let output = call.send().await.map(drop);
            output.map_err(|error| failed(ATTEMPTED, &found.name, error).error)
        };
        let tag = async {
            if added.is_empty() {
                return Ok(());
            }
            let call = self
                .api
                .tag_resource()
                .resource_arn(&found.arn)
                .set_tags(Some(added));
            let output = call.send().await.map(drop);
            output.map_err(|error| failed(ATTEMPTED, &found.name, error).error)
        };
        match there.len() + wanted.len() > 50 {
            true => {
                untag.await?;
                tag.await
            }
            false => {
                tag.await?;
                untag.await
            }
        }
    }
}

fn scanning_configuration(scan_on_push: bool) -> ImageScanningConfiguration {
    ImageScanningConfiguration::builder()
        .scan_on_push(scan_on_push)
        .build()
}
