//! Operations on scans and on what is scanned.

use super::super::Service;
use super::super::scan::{Finding, Scan, ScanType, ScannedImage, counts, description, seconds};
use super::super::store::{DAY, ScanRule};
use super::Answer;
use super::error::ApiError;
use super::images::{ImageId, not_found};
use super::pages::{page, with_token};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Instant;
use towpath_core::Digest;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfImage {
    registry_id: Option<String>,
    repository_name: String,
    image_id: ImageId,
    next_token: Option<String>,
    max_results: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PutConfiguration {
    scan_type: Option<String>,
    rules: Option<Vec<RuleInput>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleInput {
    scan_frequency: String,
    repository_filters: Vec<RepositoryFilter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RepositoryFilter {
    filter: String,
    filter_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchGet {
    repository_names: Vec<String>,
}

pub(super) fn start(service: &Service, input: OfImage) -> Answer {
    let name = &input.repository_name;
    let mut store = service.store();
    let by = store.scanning.by;
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    let digest = input
        .image_id
        .find(repository)
        .ok_or_else(|| not_found(service, name, &input.image_id))?;
    let stored = repository.archived(&digest, service.restore());
    let forced = store.forced_status(name, &digest);
    let archived = stored || forced.is_some_and(|status| status == "IMAGE_ARCHIVED");
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    if archived {
        return Err(ApiError::new(
            "ImageArchivedException",
            "The image is archived and cannot be scanned",
        ));
    }
    if by == ScanType::Enhanced {
        return Err(ApiError::new(
            "ValidationException",
            "This feature is disabled: the registry is configured for enhanced scanning",
        ));
    }
    let Some(image) = repository.images.get_mut(&digest) else {
        return Err(not_found(service, name, &input.image_id));
    };
    if image.manifest.is_index() {
        return Err(ApiError::new(
            "UnsupportedImageTypeException",
            "An image index cannot be scanned: name one of its images",
        ));
    }
    if image.scan.as_ref().is_some_and(|scan| scan.asked.elapsed() < DAY) {
        return Err(ApiError::new(
            "LimitExceededException",
            "The scan quota per image has been exceeded. Wait and try again.",
        ));
    }
    image.scan = Some(Scan {
        by,
        continuous: false,
        requested: true,
        supported: image.manifest.is_runnable(),
        asked: Instant::now(),
        asked_at: Timestamp::now(),
    });
    Ok(json!({
        "registryId": service.config.account,
        "repositoryName": name,
        "imageId": id_answer(&input.image_id, &digest),
        "imageScanStatus": {"status": "IN_PROGRESS"},
    }))
}

pub(super) fn describe_findings(service: &Service, input: OfImage) -> Answer {
    let name = &input.repository_name;
    let account = &service.config.account;
    let mut store = service.store();
    let repository = service.find(&mut store, name, input.registry_id.as_deref())?;
    let digest = input
        .image_id
        .find(repository)
        .ok_or_else(|| not_found(service, name, &input.image_id))?;
    let archived = repository.archived(&digest, service.restore());
    let image = repository.images.get(&digest);
    let scan = image.and_then(|image| image.scan.clone());
    let viewed = scan.and_then(|scan| Some((scan.view(store.pace)?, scan)));
    let Some((view, scan)) = viewed else {
        return Err(ApiError::new(
            "ScanNotFoundException",
            format!(
                "Image scan does not exist for the image with '{}' in the repository with name '{name}' in the \
                 registry with id '{account}'",
                input.image_id.shown()
            ),
        ));
    };
    let forced = store.forced_status(name, &digest).cloned();
    let forced = forced.or_else(|| archived.then(|| "IMAGE_ARCHIVED".to_owned()));
    let ended_well = |status: &str| matches!(status, "COMPLETE" | "ACTIVE");
    let visible = view.findings_visible && forced.as_deref().is_none_or(ended_well);
    let described = forced.as_deref().map_or(view.description, description);
    let status = forced.unwrap_or(view.status);
    let mut answer = json!({
        "registryId": account,
        "repositoryName": name,
        "imageId": id_answer(&input.image_id, &digest),
        "imageScanStatus": {"status": status, "description": described},
    });
    let Some(completed) = view.completed_at.filter(|_| ended_well(&status)) else {
        return Ok(answer);
    };
    let (findings, scanned_anew) = match visible {
        true => store.findings_of(name, &digest, &scan),
        false => (Vec::new(), None),
    };
    let completed = scanned_anew.map_or(completed, |again| again.max(completed));
    let scanned = ScannedImage {
        account,
        region: &service.config.region,
        repository: name,
        repository_arn: service.repository_arn(name),
        digest: digest.as_str(),
        scanned_at: completed,
    };
    let (list, shape): (_, &dyn Fn(&Finding) -> Value) = match scan.by {
        ScanType::Basic => ("findings", &Finding::basic),
        ScanType::Enhanced => ("enhancedFindings", &|finding| finding.enhanced(&scanned)),
    };
    let items = findings.iter().enumerate();
    let items = items.map(|(position, finding)| (format!("{position:08}"), shape(finding)));
    let (shown, next) = page(items.collect(), input.max_results, input.next_token.as_deref())?;
    let mut result = json!({"findingSeverityCounts": counts(&findings)});
    result[list] = shown.into();
    // An enhanced scan that has not listed its findings yet has no time of completion either, unless a test wants it.
    if visible || scan.by == ScanType::Basic || store.early_end {
        result["imageScanCompletedAt"] = seconds(completed);
        result["vulnerabilitySourceUpdatedAt"] = seconds(completed);
    }
    answer["imageScanFindings"] = result;
    Ok(with_token(answer, next))
}

pub(super) fn get_configuration(service: &Service) -> Value {
    let store = service.store();
    json!({"registryId": service.config.account, "scanningConfiguration": {
        "scanType": store.scanning.by.as_str(),
        "rules": store.scanning.rules.iter().map(rule_answer).collect::<Vec<_>>(),
    }})
}

pub(super) fn put_configuration(service: &Service, input: PutConfiguration) -> Answer {
    let by = match input.scan_type.as_deref() {
        None => service.store().scanning.by,
        Some("BASIC") => ScanType::Basic,
        Some("ENHANCED") => ScanType::Enhanced,
        Some(_) => {
            return Err(ApiError::invalid(
                "scanType",
                "Member must satisfy enum value set: [BASIC, ENHANCED]",
            ));
        }
    };
    let rules = input.rules.unwrap_or_default();
    check_rules(&rules, by)?;
    let rules: Vec<ScanRule> = rules.into_iter().map(ScanRule::from).collect();
    let mut store = service.store();
    store.scanning.by = by;
    store.scanning.rules = rules;
    Ok(json!({"registryScanningConfiguration": {
        "scanType": by.as_str(),
        "rules": store.scanning.rules.iter().map(rule_answer).collect::<Vec<_>>(),
    }}))
}

/// The bounds of `RegistryScanningRuleList`, and which frequencies a scanner has.
fn check_rules(rules: &[RuleInput], by: ScanType) -> Result<(), ApiError> {
    let allowed: &[&str] = match by {
        ScanType::Basic => &["SCAN_ON_PUSH", "MANUAL"],
        ScanType::Enhanced => &["SCAN_ON_PUSH", "CONTINUOUS_SCAN"],
    };
    let refused = |constraint: &str| Err(ApiError::invalid("rules", constraint));
    if rules.len() > 2 {
        return refused("Member must have length less than or equal to 2");
    }
    for rule in rules {
        if !allowed.contains(&rule.scan_frequency.as_str()) {
            return refused(&format!(
                "{} takes a scan frequency of [{}]",
                by.as_str(),
                allowed.join(", ")
            ));
        }
        if rule.repository_filters.len() > 100 {
            return refused("repositoryFilters must have length less than or equal to 100");
        }
        for filter in &rule.repository_filters {
            if filter.filter_type != "WILDCARD" {
                return refused("filterType must satisfy enum value set: [WILDCARD]");
            }
            if !is_filter(&filter.filter) {
                return refused(
                    "filter must satisfy regular expression '^[a-z0-9*](?:[._\\-/a-z0-9*]?[a-z0-9*]+)*$'",
                );
            }
        }
    }
    Ok(())
}

/// `ScanningRepositoryFilterValue`: no two separators follow each other, and none begins or ends it.
fn is_filter(text: &str) -> bool {
    let is_separator = |byte: &u8| b"._-/".contains(byte);
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'*';
    let bytes = text.as_bytes();
    (1..=255).contains(&bytes.len())
        && bytes.iter().all(|byte| is_letter(byte) || is_separator(byte))
        && bytes.first().is_some_and(is_letter)
        && bytes.last().is_some_and(is_letter)
        && !bytes.windows(2).any(|two| two.iter().all(is_separator))
}

pub(super) fn batch_get_configuration(service: &Service, input: BatchGet) -> Answer {
    if !(1..=25).contains(&input.repository_names.len()) {
        return Err(ApiError::invalid(
            "repositoryNames",
            "Member must have length between 1 and 25",
        ));
    }
    let store = service.store();
    let (mut found, mut failures): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for name in input.repository_names {
        let Some(repository) = store.repositories.get(&name) else {
            failures.push(json!({
                "repositoryName": name,
                "failureCode": "REPOSITORY_NOT_FOUND",
                "failureReason": "The repository does not exist",
            }));
            continue;
        };
        let rule = store.rule_for(&name);
        let frequency = match rule {
            Some(rule) => rule.frequency.as_str(),
            None if repository.scan_on_push && store.scanning.by == ScanType::Basic => "SCAN_ON_PUSH",
            None => "MANUAL",
        };
        found.push(json!({
            "repositoryArn": service.repository_arn(&name),
            "repositoryName": name,
            "scanOnPush": frequency != "MANUAL",
            "scanFrequency": frequency,
            "appliedScanFilters": rule.map(filters_answer).unwrap_or_default(),
        }));
    }
    Ok(json!({"scanningConfigurations": found, "failures": failures}))
}

impl From<RuleInput> for ScanRule {
    fn from(input: RuleInput) -> Self {
        Self {
            frequency: input.scan_frequency,
            filters: input
                .repository_filters
                .into_iter()
                .map(|filter| filter.filter)
                .collect(),
        }
    }
}

fn rule_answer(rule: &ScanRule) -> Value {
    json!({"scanFrequency": rule.frequency, "repositoryFilters": filters_answer(rule)})
}

fn filters_answer(rule: &ScanRule) -> Vec<Value> {
    let filters = rule.filters.iter();
    filters
        .map(|filter| json!({"filter": filter, "filterType": "WILDCARD"}))
        .collect()
}

fn id_answer(asked: &ImageId, digest: &Digest) -> Value {
    let mut id = json!({"imageDigest": digest.as_str()});
    if let Some(tag) = &asked.image_tag {
        id["imageTag"] = json!(tag);
    }
    id
}
