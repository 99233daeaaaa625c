//! What a repository is to be like (*Amazon ECR API Reference*, `CreateRepository` and the operations that change one of
//! its settings).

use crate::error::SERVICE;
use crate::policy::PolicyDocument;
use aws_sdk_ecr::types::{
    EncryptionConfiguration, EncryptionType, ImageTagMutability, ImageTagMutabilityExclusionFilter as Filter,
    ImageTagMutabilityExclusionFilterType, Tag,
};
use std::collections::BTreeMap;
use std::fmt;
use towpath_elements::{Error, ErrorKind, Result};

/// The most exclusion filters of a repository.
const MOST_FILTERS: usize = 5;
/// The most resource tags of a repository.
const MOST_TAGS: usize = 50;

/// What a repository is to be like. What is `None` is left as it is.
///
/// ```
/// use towpath_ecr::{LifecyclePolicy, LifecycleRule, RepositorySettings, TagMutability};
/// let fifty = LifecyclePolicy::new(vec![LifecycleRule::any(1).expire_beyond(50)])?;
/// let settings = RepositorySettings::new()
///     .tag_mutability(TagMutability::ImmutableExcept(vec!["latest".into(), "dev-*".into()]))
///     .scan_on_push(true)
///     .lifecycle(fifty)
///     .resource_tag("team", "web");
/// assert!(settings.encryption.is_none());
/// # Ok::<(), towpath_ecr::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositorySettings {
    /// Whether a tag may be given to another image.
    pub tag_mutability: Option<TagMutability>,
    /// Whether the basic scanner looks at every image that is pushed. A scanning configuration of the registry goes
    /// before it.
    pub scan_on_push: Option<bool>,
    /// How images are encrypted. It is settled when the repository is made.
    pub encryption: Option<Encryption>,
    /// The resource tags: these, and no other but those of AWS itself (`aws:…`). At most 50.
    pub resource_tags: Option<BTreeMap<String, String>>,
    /// Who may do what with the repository.
    pub policy: Option<PolicyDocument>,
    /// Which images are expired or archived.
    pub lifecycle: Option<PolicyDocument>,
}

/// Whether a tag may be given to another image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TagMutability {
    /// Every tag may move.
    Mutable,
    /// No tag may move.
    Immutable,
    /// Every tag may move but those that match a filter. Filters are 1 to 5, of 1 to 128 letters, digits and `._*-`,
    /// where `*` stands for any text.
    MutableExcept(Vec<String>),
    /// No tag may move but those that match a filter.
    ImmutableExcept(Vec<String>),
    /// A word of the service that this version does not know.
    Other(String),
}

/// How images are encrypted at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encryption {
    /// With a key of the service, `AES256`.
    Aes256,
    /// With a key of KMS.
    Kms(KmsKey),
    /// Twice, with a key of KMS.
    KmsDsse(KmsKey),
    /// A word of the service that this version does not know.
    Other(String),
}

/// A key of KMS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KmsKey {
    /// The key that the service has in the account (`aws/ecr`). The service does not say that a key is this one, so that
    /// a repository with any key is taken to have it.
    Service,
    /// A key by its ARN, or by its id. The service names keys by ARN; an alias cannot be compared with it and is refused.
    Key(String),
}

impl RepositorySettings {
    /// Settings that leave everything as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether tags may move.
    #[must_use]
    pub fn tag_mutability(mut self, mutability: TagMutability) -> Self {
        self.tag_mutability = Some(mutability);
        self
    }

    /// Sets whether images are scanned when they are pushed.
    #[must_use]
    pub fn scan_on_push(mut self, scan: bool) -> Self {
        self.scan_on_push = Some(scan);
        self
    }

    /// Sets how images are encrypted.
    #[must_use]
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = Some(encryption);
        self
    }

    /// Adds a resource tag to those that are wanted.
    #[must_use]
    pub fn resource_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let tags = self.resource_tags.get_or_insert_default();
        tags.insert(key.into(), value.into());
        self
    }

    /// Sets the policy.
    #[must_use]
    pub fn policy(mut self, policy: PolicyDocument) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Sets the lifecycle policy, a [`LifecyclePolicy`](crate::LifecyclePolicy) or its text.
    #[must_use]
    pub fn lifecycle(mut self, policy: impl Into<PolicyDocument>) -> Self {
        self.lifecycle = Some(policy.into());
        self
    }

    /// Refuses what the service would refuse, and what could not be compared.
    pub(crate) fn check(&self, attempted: &'static str, subject: &dyn fmt::Display) -> Result<()> {
        let problem = self
            .tag_mutability
            .as_ref()
            .and_then(TagMutability::problem)
            .or_else(|| self.encryption.as_ref().and_then(Encryption::problem))
            .or_else(|| self.resource_tags.as_ref().and_then(tags_problem));
        match problem {
            None => Ok(()),
            Some(problem) => {
                Err(Error::new(ErrorKind::Invalid, SERVICE, attempted, subject).because(problem))
            }
        }
    }
}

impl TagMutability {
    fn problem(&self) -> Option<String> {
        let filters = match self {
            Self::Mutable | Self::Immutable => return None,
            Self::Other(word) => return Some(format!("{word:?} is no tag mutability that can be set")),
            Self::MutableExcept(filters) | Self::ImmutableExcept(filters) => filters,
        };
        if filters.is_empty() || filters.len() > MOST_FILTERS {
            return Some(format!(
                "there are 1 to {MOST_FILTERS} exclusion filters, not {}",
                filters.len()
            ));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._*-".contains(&byte);
        let wrong = filters
            .iter()
            .find(|filter| !(1..=128).contains(&filter.len()) || !filter.bytes().all(allowed))?;
        Some(format!(
            "the exclusion filter {wrong:?} is not of 1 to 128 letters, digits and ._*-"
        ))
    }

    pub(crate) fn read(word: Option<&ImageTagMutability>, filters: &[Filter]) -> Self {
        let filters = filters.iter().map(|filter| filter.filter().to_owned()).collect();
        match word {
            // The service's default; it always says the word.
            None | Some(ImageTagMutability::Mutable) => Self::Mutable,
            Some(ImageTagMutability::Immutable) => Self::Immutable,
            Some(ImageTagMutability::MutableWithExclusion) => Self::MutableExcept(filters),
            Some(ImageTagMutability::ImmutableWithExclusion) => Self::ImmutableExcept(filters),
            Some(other) => Self::Other(other.to_string()),
        }
        .sorted()
    }

    /// The same with its filters in order, which has no meaning.
    pub(crate) fn sorted(mut self) -> Self {
        if let Self::MutableExcept(filters) | Self::ImmutableExcept(filters) = &mut self {
            filters.sort();
            filters.dedup();
        }
        self
    }

    pub(crate) fn word(&self) -> ImageTagMutability {
        ImageTagMutability::from(match self {
            Self::Mutable => "MUTABLE",
            Self::Immutable => "IMMUTABLE",
            Self::MutableExcept(_) => "MUTABLE_WITH_EXCLUSION",
            Self::ImmutableExcept(_) => "IMMUTABLE_WITH_EXCLUSION",
            Self::Other(word) => word,
        })
    }

    pub(crate) fn filters(&self) -> Option<Vec<Filter>> {
        let (Self::MutableExcept(filters) | Self::ImmutableExcept(filters)) = self else {
            return None;
        };
        let filters = filters.iter();
        let kind = ImageTagMutabilityExclusionFilterType::Wildcard;
        // Both fields are set, so none can be missing.
        Some(
            filters
                .filter_map(|filter| {
                    Filter::builder()
                        .filter_type(kind.clone())
                        .filter(filter)
                        .build()
                        .ok()
                })
                .collect(),
        )
    }
}

impl Encryption {
    fn problem(&self) -> Option<String> {
        match self {
            Self::Kms(KmsKey::Key(key)) | Self::KmsDsse(KmsKey::Key(key)) => {
                if key.starts_with("alias/") || key.contains(":alias/") {
                    return Some(format!(
                        "{key:?} is an alias of a key: give its ARN or its id, by which the service names it"
                    ));
                }
                let fits = (1..=2048).contains(&key.len());
                (!fits).then(|| "the name of a key has 1 to 2,048 characters".to_owned())
            }
            Self::Other(word) => Some(format!("{word:?} is no encryption that can be set")),
            _ => None,
        }
    }

    pub(crate) fn read(word: Option<&EncryptionType>, key: Option<&str>) -> Self {
        let key = || match key {
            Some(key) if !key.is_empty() => KmsKey::Key(key.to_owned()),
            _ => KmsKey::Service,
        };
        match word {
            None | Some(EncryptionType::Aes256) => Self::Aes256,
            Some(EncryptionType::Kms) => Self::Kms(key()),
            Some(EncryptionType::KmsDsse) => Self::KmsDsse(key()),
            Some(other) => Self::Other(other.to_string()),
        }
    }

    /// Whether this, which the service says, is what is wanted.
    pub(crate) fn satisfies(&self, wanted: &Self) -> bool {
        let key = |found: &KmsKey, wanted: &KmsKey| match (found, wanted) {
            (_, KmsKey::Service) => true,
            (KmsKey::Key(found), KmsKey::Key(wanted)) => {
                found == wanted || found.ends_with(&format!(":key/{wanted}"))
            }
            (KmsKey::Service, KmsKey::Key(_)) => false,
        };
        match (self, wanted) {
            (Self::Kms(found), Self::Kms(wanted)) | (Self::KmsDsse(found), Self::KmsDsse(wanted)) => {
                key(found, wanted)
            }
            (found, wanted) => found == wanted,
        }
    }

    pub(crate) fn word(&self) -> EncryptionType {
        EncryptionType::from(match self {
            Self::Aes256 => "AES256",
            Self::Kms(_) => "KMS",
            Self::KmsDsse(_) => "KMS_DSSE",
            Self::Other(word) => word,
        })
    }

    pub(crate) fn key(&self) -> Option<String> {
        match self {
            Self::Kms(KmsKey::Key(key)) | Self::KmsDsse(KmsKey::Key(key)) => Some(key.clone()),
            _ => None,
        }
    }

    pub(crate) fn written(&self) -> Option<EncryptionConfiguration> {
        EncryptionConfiguration::builder()
            .encryption_type(self.word())
            .set_kms_key(self.key())
            .build()
            .ok()
    }
}

impl fmt::Display for TagMutability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word().as_str())?;
        match self {
            Self::MutableExcept(filters) | Self::ImmutableExcept(filters) => {
                write!(f, " ({})", filters.join(", "))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word().as_str())?;
        match self.key() {
            Some(key) => write!(f, " with {key}"),
            None => Ok(()),
        }
    }
}

fn tags_problem(tags: &BTreeMap<String, String>) -> Option<String> {
    if tags.len() > MOST_TAGS {
        return Some(format!(
            "there are at most {MOST_TAGS} resource tags, not {}",
            tags.len()
        ));
    }
    let long = |text: &str, most: usize| text.chars().count() > most;
    let wrong = tags
        .iter()
        .find(|(key, value)| key.is_empty() || long(key, 128) || long(value, 256) || is_reserved(key))?;
    Some(format!(
        "the resource tag {:?} is not right: a key has 1 to 128 characters and does not begin with aws:, a value at most \
         256",
        wrong.0
    ))
}

/// Whether a tag is one that AWS itself sets, and nobody else may.
fn is_reserved(key: &str) -> bool {
    key.get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
}

/// The tags that are ours to set, of those that the service lists.
pub(crate) fn read_tags(tags: &[Tag]) -> BTreeMap<String, String> {
    let tags = tags.iter().filter(|tag| !is_reserved(tag.key()));
    tags.map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
        .collect()
}

pub(crate) fn write_tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    let tags = tags.iter();
    tags.filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok())
        .collect()
}

/// Tags in one line, for differences.
pub(crate) fn listed(tags: &BTreeMap<String, String>) -> String {
    let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("[{}]", tags.join(", "))
}
