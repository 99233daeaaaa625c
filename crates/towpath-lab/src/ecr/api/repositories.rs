//! Operations on repositories.

use super::super::Service;
use super::super::creation::Encryption;
use super::super::scan::seconds;
use super::super::store::{Mutability, Repository};
use super::Answer;
use super::error::ApiError;
use super::pages::{page, with_token};
use super::tags::{self, ResourceTag};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Create {
    registry_id: Option<String>,
    repository_name: String,
    #[serde(default)]
    tags: Vec<ResourceTag>,
    image_tag_mutability: Option<String>,
    #[serde(default)]
    image_tag_mutability_exclusion_filters: Vec<ExclusionFilter>,
    image_scanning_configuration: Option<ScanningConfiguration>,
    encryption_configuration: Option<EncryptionConfiguration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExclusionFilter {
    filter: String,
    filter_type: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EncryptionConfiguration {
    encryption_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScanningConfiguration {
    #[serde(default)]
    scan_on_push: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Describe {
    registry_id: Option<String>,
    repository_names: Option<Vec<String>>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delete {
    registry_id: Option<String>,
    repository_name: String,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PutMutability {
    registry_id: Option<String>,
    repository_name: String,
    image_tag_mutability: String,
    #[serde(default)]
    image_tag_mutability_exclusion_filters: Vec<ExclusionFilter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PutScanning {
    registry_id: Option<String>,
    repository_name: String,
    image_scanning_configuration: ScanningConfiguration,
}

pub(super) fn create(service: &Service, input: Create) -> Answer {
    let name = input.repository_name;
    service.check_name(&name, input.registry_id.as_deref())?;
    let mutability = input.image_tag_mutability.as_deref().unwrap_or("MUTABLE");
    let mut repository = Repository::new();
    repository.mutability = mutability_of(mutability, input.image_tag_mutability_exclusion_filters)?;
    repository.scan_on_push = input
        .image_scanning_configuration
        .is_some_and(|scanning| scanning.scan_on_push);
    repository.resource_tags = tags::check(input.tags)?;
    if let Some(encryption) = input.encryption_configuration {
        repository.encryption = service.with_key(encryption.check()?);
    }
    let mut store = service.store();
    if store.repositories.contains_key(&name) {
        return Err(ApiError::new(
            "RepositoryAlreadyExistsException",
            format!(
                "The repository with name '{name}' already exists in the registry with id '{}'",
                service.config.account
            ),
        ));
    }
    let answer = json!({"repository": describe_one(service, &name, &repository)});
    store.repositories.insert(name, repository);
    Ok(answer)
}

pub(super) fn describe(service: &Service, input: Describe) -> Answer {
    let mut store = service.store();
    let Some(names) = input.repository_names else {
        let all = store.repositories.iter();
        let items = all.map(|(name, repository)| (name.clone(), describe_one(service, name, repository)));
        let (repositories, next) = page(items.collect(), input.max_results, input.next_token.as_deref())?;
        return Ok(with_token(json!({"repositories": repositories}), next));
    };
    if input.max_results.is_some() || input.next_token.is_some() {
        return Err(ApiError::new(
            "InvalidParameterException",
            "maxResults and nextToken cannot be used when you specify repositories with repositoryNames",
        ));
    }
    let mut repositories = Vec::new();
    for name in names {
        let repository = service.find(&mut store, &name, input.registry_id.as_deref())?;
        repositories.push(describe_one(service, &name, repository));
    }
    Ok(json!({"repositories": repositories}))
}

pub(super) fn delete(service: &Service, input: Delete) -> Answer {
    let name = input.repository_name;
    let mut store = service.store();
    let repository = service.find(&mut store, &name, input.registry_id.as_deref())?;
    if !repository.images.is_empty() && !input.force {
        return Err(ApiError::new(
            "RepositoryNotEmptyException",
            format!(
                "The repository with name '{name}' in registry with id '{}' cannot be deleted because it still \
                 contains images",
                service.config.account
            ),
        ));
    }
    let answer = json!({"repository": describe_one(service, &name, repository)});
    store.repositories.remove(&name);
    Ok(answer)
}

pub(super) fn put_mutability(service: &Service, input: PutMutability) -> Answer {
    let mutability = mutability_of(
        &input.image_tag_mutability,
        input.image_tag_mutability_exclusion_filters,
    )?;
    let mut store = service.store();
    let repository = service.find(&mut store, &input.repository_name, input.registry_id.as_deref())?;
    repository.mutability = mutability;
    let mut answer = json!({
        "registryId": service.config.account,
        "repositoryName": input.repository_name,
        "imageTagMutability": repository.mutability.name(),
    });
    add_filters(&mut answer, &repository.mutability);
    Ok(answer)
}

pub(super) fn put_scanning(service: &Service, input: PutScanning) -> Answer {
    let mut store = service.store();
    let repository = service.find(&mut store, &input.repository_name, input.registry_id.as_deref())?;
    repository.scan_on_push = input.image_scanning_configuration.scan_on_push;
    Ok(json!({
        "registryId": service.config.account,
        "repositoryName": input.repository_name,
        "imageScanningConfiguration": {"scanOnPush": repository.scan_on_push},
    }))
}

fn describe_one(service: &Service, name: &str, repository: &Repository) -> Value {
    let mut answer = json!({
        "repositoryArn": service.repository_arn(name),
        "registryId": service.config.account,
        "repositoryName": name,
        "repositoryUri": format!("{}/{name}", service.registry_host),
        "createdAt": seconds(repository.created_at),
        "imageTagMutability": repository.mutability.name(),
        "imageScanningConfiguration": {"scanOnPush": repository.scan_on_push},
        "encryptionConfiguration": EncryptionConfiguration::written(&repository.encryption),
    });
    add_filters(&mut answer, &repository.mutability);
    answer
}

pub(super) fn add_filters(answer: &mut Value, mutability: &Mutability) {
    if !mutability.except.is_empty() {
        let filters = mutability.except.iter();
        let filters: Vec<Value> = filters
            .map(|filter| json!({"filterType": "WILDCARD", "filter": filter}))
            .collect();
        answer["imageTagMutabilityExclusionFilters"] = filters.into();
    }
}

pub(super) fn mutability_of(name: &str, filters: Vec<ExclusionFilter>) -> Result<Mutability, ApiError> {
    if filters.iter().any(|filter| filter.filter_type != "WILDCARD") {
        return Err(ApiError::invalid(
            "filterType",
            "Member must satisfy enum value set: [WILDCARD]",
        ));
    }
    let except: Vec<String> = filters.into_iter().map(|filter| filter.filter).collect();
    let (immutable, with_filters) = match name {
        "MUTABLE" => (false, false),
        "IMMUTABLE" => (true, false),
        "IMMUTABLE_WITH_EXCLUSION" => (true, true),
        "MUTABLE_WITH_EXCLUSION" => (false, true),
        _ => {
            return Err(ApiError::invalid(
                "imageTagMutability",
                "Member must satisfy enum value set: [MUTABLE, IMMUTABLE, IMMUTABLE_WITH_EXCLUSION, MUTABLE_WITH_EXCLUSION]",
            ));
        }
    };
    let allowed = |filter: &String| {
        (1..=128).contains(&filter.len())
            && filter
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._*-".contains(&byte))
    };
    if with_filters == except.is_empty() || except.len() > 5 || !except.iter().all(allowed) {
        return Err(ApiError::invalid(
            "imageTagMutabilityExclusionFilters",
            "1 to 5 filters of '[0-9a-zA-Z._*-]{1,128}' with an exclusion, none without",
        ));
    }
    Ok(Mutability { immutable, except })
}

impl EncryptionConfiguration {
    /// The encryption that is asked for, where its words are right.
    pub(super) fn check(self) -> Result<Encryption, ApiError> {
        let by_key = match self.encryption_type.as_str() {
            "AES256" => false,
            "KMS" | "KMS_DSSE" => true,
            _ => {
                return Err(ApiError::invalid(
                    "encryptionType",
                    "Member must satisfy enum value set: [AES256, KMS, KMS_DSSE]",
                ));
            }
        };
        let key = self.kms_key.filter(|key| !key.is_empty());
        if key.as_ref().is_some_and(|key| key.len() > 2048 || !by_key) {
            return Err(ApiError::invalid(
                "kmsKey",
                "a key of at most 2048 characters with the encryption types KMS and KMS_DSSE, none with AES256",
            ));
        }
        Ok(Encryption {
            by: self.encryption_type,
            key,
        })
    }

    pub(super) fn written(encryption: &Encryption) -> Self {
        Self {
            encryption_type: encryption.by.clone(),
            kms_key: encryption.key.clone(),
        }
    }
}

impl Service {
    /// Keys stand in a repository by their ARN. Without one it is the key that the service has in the account.
    fn with_key(&self, mut encryption: Encryption) -> Encryption {
        let (region, account) = (&self.config.region, &self.config.account);
        if encryption.by != "AES256" {
            let key = encryption.key.unwrap_or_else(|| "alias/aws/ecr".into());
            encryption.key = Some(match key.as_str() {
                arn if arn.starts_with("arn:") => key,
                alias if alias.starts_with("alias/") => format!("arn:aws:kms:{region}:{account}:{alias}"),
                id => format!("arn:aws:kms:{region}:{account}:key/{id}"),
            });
        }
        encryption
    }
}
