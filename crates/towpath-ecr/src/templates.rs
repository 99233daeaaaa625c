//! Repository creation templates: what a repository is like that the registry makes by itself (*Amazon ECR User Guide*,
//! "Templates to control repositories created during a pull through cache, create on push, or replication action").

use crate::client::Ecr;
use crate::differences::{Difference, Reconciled};
use crate::error::{SERVICE, failed};
use crate::images::timestamp;
use crate::lifecycle::LifecyclePolicy;
use crate::pages::{Page, items};
use crate::policy::PolicyDocument;
use crate::repositories::{Encryption, RepositorySettings, TagMutability, listed, read_tags, write_tags};
use aws_sdk_ecr::types::{
    EncryptionConfigurationForRepositoryCreationTemplate, RctAppliedFor, RepositoryCreationTemplate,
};
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use std::fmt;
use towpath_elements::{Error, ErrorKind, Result};

/// The prefix of the template for every repository that has no nearer one.
const ROOT: &str = "ROOT";
const A_PAGE: i32 = 1000;
const ATTEMPTED: &str = "put the repository creation template";

/// A template for repositories that the registry makes by itself. It counts at that moment only: repositories that are
/// there do not change with it.
///
/// ```
/// use towpath_ecr::{AppliedFor, CreationTemplate, RepositorySettings, TagMutability};
/// let settings = RepositorySettings::new().tag_mutability(TagMutability::Immutable);
/// let template = CreationTemplate::new("shop", [AppliedFor::CreateOnPush], settings);
/// assert_eq!(template.prefix, "shop");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreationTemplate {
    /// The beginning of the names that it is for, without the slash behind it; `ROOT` for all that have no nearer one.
    pub prefix: String,
    /// When it counts. Not empty.
    pub applied_for: Vec<AppliedFor>,
    /// What repositories are to be like. `scan_on_push` is none of a template's settings. What is `None` is left as it
    /// is in a template that is there.
    pub settings: RepositorySettings,
    /// What it is for, in at most 256 characters.
    pub description: Option<String>,
    /// The role with which the registry sets tags and keys. Without it a template with either makes no repository.
    pub role_arn: Option<String>,
    /// When it was made, as the service says.
    pub created: Option<Timestamp>,
    /// When it was last changed, as the service says.
    pub updated: Option<Timestamp>,
}

/// What makes the registry create a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum AppliedFor {
    /// The first pull of an image through the cache.
    PullThroughCache,
    /// An image that comes by replication.
    Replication,
    /// A push to a repository that is not there.
    CreateOnPush,
    /// A word of the service that this version does not know.
    Other(String),
}

impl CreationTemplate {
    /// A template without description or role.
    pub fn new(
        prefix: impl Into<String>,
        applied_for: impl IntoIterator<Item = AppliedFor>,
        settings: RepositorySettings,
    ) -> Self {
        Self {
            prefix: prefix.into(),
            applied_for: applied_for.into_iter().collect(),
            settings,
            description: None,
            role_arn: None,
            created: None,
            updated: None,
        }
    }

    /// Sets the role with which the registry sets tags and keys.
    #[must_use]
    pub fn role(mut self, arn: impl Into<String>) -> Self {
        self.role_arn = Some(arn.into());
        self
    }

    /// Whether the registry could not make a repository by this: tags and keys need a role.
    pub fn lacks_role(&self) -> bool {
        let tagged = self
            .settings
            .resource_tags
            .as_ref()
            .is_some_and(|tags| !tags.is_empty());
        let encrypted = matches!(
            self.settings.encryption,
            Some(Encryption::Kms(_) | Encryption::KmsDsse(_))
        );
        self.role_arn.is_none() && (tagged || encrypted)
    }

    /// Whether the prefix is above a repository, and by how many characters; 0 for `ROOT`.
    pub(crate) fn reach(&self, repository: &str) -> Option<usize> {
        if self.prefix == ROOT {
            return Some(0);
        }
        let prefix = self.prefix.trim_end_matches('/');
        repository
            .strip_prefix(prefix)?
            .strip_prefix('/')
            .map(|_| prefix.len())
    }

    fn check(&self) -> Result<()> {
        let invalid = |detail: &str| {
            Err(Error::new(ErrorKind::Invalid, SERVICE, ATTEMPTED, &self.prefix).because(detail))
        };
        self.settings.check(ATTEMPTED, &self.prefix)?;
        if self.settings.scan_on_push.is_some() {
            return invalid(
                "a template cannot set scanning on push: the scanning configuration of the registry does",
            );
        }
        if self.applied_for.is_empty() {
            return invalid("it is applied for nothing");
        }
        if self
            .description
            .as_ref()
            .is_some_and(|text| text.chars().count() > 256)
        {
            return invalid("its description is longer than 256 characters");
        }
        Ok(())
    }

    fn read(template: &RepositoryCreationTemplate) -> Result<Self> {
        let encryption = template.encryption_configuration();
        let policy = template.repository_policy().filter(|text| !text.is_empty());
        let lifecycle = template.lifecycle_policy().filter(|text| !text.is_empty());
        Ok(Self {
            prefix: template.prefix().unwrap_or_default().to_owned(),
            applied_for: sorted(template.applied_for().iter().map(AppliedFor::read).collect()),
            settings: RepositorySettings {
                tag_mutability: Some(TagMutability::read(
                    template.image_tag_mutability(),
                    template.image_tag_mutability_exclusion_filters(),
                )),
                scan_on_push: None,
                encryption: Some(Encryption::read(
                    encryption.map(|encryption| encryption.encryption_type()),
                    encryption.and_then(|encryption| encryption.kms_key()),
                )),
                resource_tags: Some(read_tags(template.resource_tags())),
                policy: policy.map(PolicyDocument::permissions).transpose()?,
                lifecycle: lifecycle.map(|text| LifecyclePolicy::stored(Some(text.to_owned())).into()),
            },
            description: template.description().map(str::to_owned),
            role_arn: template.custom_role_arn().map(str::to_owned),
            created: timestamp(template.created_at().copied()),
            updated: timestamp(template.updated_at().copied()),
        })
    }

    /// What differs in this, which is there, from what is wanted.
    fn differences(&self, wanted: &Self) -> Vec<Difference> {
        let mut all = Vec::new();
        let (found, settings) = (&self.settings, &wanted.settings);
        let (uses, wanted_uses) = (Uses(&self.applied_for), sorted(wanted.applied_for.clone()));
        all.extend(Difference::between(
            "applied for",
            Some(&uses),
            &Uses(&wanted_uses),
        ));
        if let Some(wanted) = &settings.tag_mutability {
            let wanted = wanted.clone().sorted();
            all.extend(Difference::between(
                "tag mutability",
                found.tag_mutability.as_ref(),
                &wanted,
            ));
        }
        if let (Some(wanted), Some(found)) = (&settings.encryption, &found.encryption)
            && !found.satisfies(wanted)
        {
            all.extend(Difference::between("encryption", Some(found), wanted));
        }
        if let Some(wanted) = &settings.resource_tags
            && found.resource_tags.as_ref() != Some(wanted)
        {
            let found = found.resource_tags.as_ref().map(listed);
            all.extend(Difference::between(
                "resource tags",
                found.as_ref(),
                &listed(wanted),
            ));
        }
        if let Some(wanted) = &settings.policy {
            all.extend(Difference::between(
                "repository policy",
                found.policy.as_ref(),
                wanted,
            ));
        }
        if let Some(wanted) = &settings.lifecycle {
            all.extend(Difference::between(
                "lifecycle policy",
                found.lifecycle.as_ref(),
                wanted,
            ));
        }
        if let Some(text) = &wanted.description {
            all.extend(Difference::between(
                "description",
                self.description.as_ref(),
                text,
            ));
        }
        if let Some(role) = &wanted.role_arn {
            all.extend(Difference::between("role", self.role_arn.as_ref(), role));
        }
        all
    }

    fn encryption(&self) -> Option<EncryptionConfigurationForRepositoryCreationTemplate> {
        let encryption = self.settings.encryption.as_ref()?;
        EncryptionConfigurationForRepositoryCreationTemplate::builder()
            .encryption_type(encryption.word())
            .set_kms_key(encryption.key())
            .build()
            .ok()
    }
}

impl AppliedFor {
    fn read(word: &RctAppliedFor) -> Self {
        match word.as_str() {
            "PULL_THROUGH_CACHE" => Self::PullThroughCache,
            "REPLICATION" => Self::Replication,
            "CREATE_ON_PUSH" => Self::CreateOnPush,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The service's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::PullThroughCache => "PULL_THROUGH_CACHE",
            Self::Replication => "REPLICATION",
            Self::CreateOnPush => "CREATE_ON_PUSH",
            Self::Other(word) => word,
        }
    }
}

/// Uses in one line.
#[derive(PartialEq)]
struct Uses<'a>(&'a [AppliedFor]);

impl fmt::Display for Uses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(AppliedFor::as_str).collect();
        f.write_str(&words.join(", "))
    }
}

fn sorted(mut uses: Vec<AppliedFor>) -> Vec<AppliedFor> {
    uses.sort();
    uses.dedup();
    uses
}

impl Ecr {
    /// All repository creation templates. An error ends the stream.
    ///
    /// # Errors
    /// What the service says to `DescribeRepositoryCreationTemplates`.
    pub fn creation_templates(&self) -> BoxStream<'static, Result<CreationTemplate>> {
        const ATTEMPTED: &str = "list the repository creation templates of";
        let api = self.api.clone();
        items(ATTEMPTED, "the registry", move |token| {
            let call = api
                .describe_repository_creation_templates()
                .max_results(A_PAGE)
                .set_next_token(token);
            async move {
                let page = call.send().await;
                let page = page.map_err(|error| failed(ATTEMPTED, "the registry", error).error)?;
                let templates = page.repository_creation_templates().iter();
                Ok(Page {
                    items: templates.map(CreationTemplate::read).collect::<Result<_>>()?,
                    next: page.next_token,
                })
            }
        })
    }

    /// The template of a prefix; `None` where there is none.
    ///
    /// # Errors
    /// What the service says to `DescribeRepositoryCreationTemplates`.
    pub async fn creation_template(&self, prefix: &str) -> Result<Option<CreationTemplate>> {
        const ATTEMPTED: &str = "read the repository creation template";
        let call = self.api.describe_repository_creation_templates().prefixes(prefix);
        match call.send().await {
            Ok(output) => {
                let templates = output.repository_creation_templates();
                templates.first().map(CreationTemplate::read).transpose()
            }
            Err(error) => {
                let failed = failed(ATTEMPTED, prefix, error);
                match failed.code.as_str() {
                    "TemplateNotFoundException" => Ok(None),
                    _ => Err(failed.error),
                }
            }
        }
    }

    /// Makes a template, or changes what differs in the one that is there. A second run only reads.
    ///
    /// # Errors
    /// *Invalid* for what the service cannot have, and for tags or a key without a role to set them with. Else what it
    /// says to the operations that are needed.
    pub async fn put_creation_template(
        &self,
        wanted: &CreationTemplate,
    ) -> Result<Reconciled<CreationTemplate>> {
        wanted.check()?;
        let found = self.creation_template(&wanted.prefix).await?;
        let has_role = found.as_ref().is_some_and(|found| found.role_arn.is_some());
        if wanted.lacks_role() && !has_role {
            return Err(Error::new(ErrorKind::Invalid, SERVICE, ATTEMPTED, &wanted.prefix)
                .because("the registry needs a role to set tags or a key")
                .advise("name a role of this account that ECR may assume"));
        }
        let found = match found {
            Some(found) => found,
            None => match self.create_template(wanted).await? {
                Some(now) => {
                    return Ok(Reconciled {
                        now,
                        created: true,
                        changed: Vec::new(),
                    });
                }
                // Somebody was faster: what is there now is compared like any other.
                None => self.creation_template(&wanted.prefix).await?.ok_or_else(|| {
                    Error::new(ErrorKind::Conflict, SERVICE, ATTEMPTED, &wanted.prefix)
                        .because("it was there a moment ago: somebody else deletes it")
                })?,
            },
        };
        let changed = found.differences(wanted);
        if changed.is_empty() {
            return Ok(Reconciled::unchanged(found));
        }
        let settings = &wanted.settings;
        let mutability = settings.tag_mutability.as_ref();
        let call = self
            .api
            .update_repository_creation_template()
            .prefix(&wanted.prefix)
            .set_description(wanted.description.clone())
            .set_encryption_configuration(wanted.encryption())
            .set_resource_tags(settings.resource_tags.as_ref().map(write_tags))
            .set_image_tag_mutability(mutability.map(TagMutability::word))
            .set_image_tag_mutability_exclusion_filters(mutability.and_then(TagMutability::filters))
            .set_repository_policy(settings.policy.as_ref().map(ToString::to_string))
            .set_lifecycle_policy(settings.lifecycle.as_ref().map(ToString::to_string))
            .set_applied_for(Some(wanted.words()))
            .set_custom_role_arn(wanted.role_arn.clone());
        let output = call.send().await;
        let output = output.map_err(|error| failed(ATTEMPTED, &wanted.prefix, error).error)?;
        Ok(Reconciled {
            now: required(output.repository_creation_template(), &wanted.prefix)?,
            created: false,
            changed,
        })
    }

    async fn create_template(&self, wanted: &CreationTemplate) -> Result<Option<CreationTemplate>> {
        let settings = &wanted.settings;
        let mutability = settings.tag_mutability.as_ref();
        let call = self
            .api
            .create_repository_creation_template()
            .prefix(&wanted.prefix)
            .set_description(wanted.description.clone())
            .set_encryption_configuration(wanted.encryption())
            .set_resource_tags(settings.resource_tags.as_ref().map(write_tags))
            .set_image_tag_mutability(mutability.map(TagMutability::word))
            .set_image_tag_mutability_exclusion_filters(mutability.and_then(TagMutability::filters))
            .set_repository_policy(settings.policy.as_ref().map(ToString::to_string))
            .set_lifecycle_policy(settings.lifecycle.as_ref().map(ToString::to_string))
            .set_applied_for(Some(wanted.words()))
            .set_custom_role_arn(wanted.role_arn.clone());
        match call.send().await {
            Ok(output) => required(output.repository_creation_template(), &wanted.prefix).map(Some),
            Err(error) => {
                let failed = failed(ATTEMPTED, &wanted.prefix, error);
                match failed.code.as_str() {
                    "TemplateAlreadyExistsException" => Ok(None),
                    _ => Err(failed.error),
                }
            }
        }
    }

    /// Deletes the template of a prefix. False where there is none. Repositories that were made by it stay.
    ///
    /// # Errors
    /// What the service says to `DeleteRepositoryCreationTemplate`.
    pub async fn delete_creation_template(&self, prefix: &str) -> Result<bool> {
        let call = self.api.delete_repository_creation_template().prefix(prefix);
        let Err(error) = call.send().await else {
            return Ok(true);
        };
        let failed = failed("delete the repository creation template", prefix, error);
        match failed.code.as_str() {
            "TemplateNotFoundException" => Ok(false),
            _ => Err(failed.error),
        }
    }
}

impl CreationTemplate {
    fn words(&self) -> Vec<RctAppliedFor> {
        let uses = self.applied_for.iter();
        uses.map(|word| RctAppliedFor::from(word.as_str())).collect()
    }
}

fn required(template: Option<&RepositoryCreationTemplate>, prefix: &str) -> Result<CreationTemplate> {
    match template {
        Some(template) => CreationTemplate::read(template),
        None => {
            Err(Error::new(ErrorKind::Protocol, SERVICE, ATTEMPTED, prefix)
                .because("the answer has no template"))
        }
    }
}
