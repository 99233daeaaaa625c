//! What a repository holds, page by page: images, image ids, and the artifacts that refer to an image.

use super::super::Service;
use super::super::scan::{counts, seconds};
use super::super::store::{Image, Repository, Store};
use super::Answer;
use super::error::ApiError;
use super::images::{ImageId, check_count, not_found};
use super::pages::{Page, with_token};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ops::Bound;
use std::time::Duration;
use towpath_core::Digest;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listing {
    registry_id: Option<String>,
    repository_name: String,
    image_ids: Option<Vec<ImageId>>,
    #[serde(default)]
    filter: Filter,
    next_token: Option<String>,
    max_results: Option<i64>,
}

/// The filters of the model. An image status that is not given means `ACTIVE`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    pub(super) tag_status: Option<String>,
    image_status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Referrers {
    registry_id: Option<String>,
    repository_name: String,
    subject_id: Subject,
    #[serde(default)]
    filter: ReferrerFilter,
    next_token: Option<String>,
    max_results: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject {
    image_digest: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferrerFilter {
    #[serde(default)]
    artifact_types: Vec<String>,
    artifact_status: Option<String>,
}

pub(super) fn describe(service: &Service, input: Listing) -> Answer {
    let restore = service.restore();
    let mut store = service.store();
    let name = &input.repository_name;
    service.find(&mut store, name, input.registry_id.as_deref())?;
    let store = &*store;
    let Some(repository) = store.repositories.get(name) else {
        return Ok(json!({"imageDetails": []}));
    };
    let detail = |digest: &Digest, image: &Image| {
        describe_one(service, store, name, repository, digest, image, restore)
    };
    if let Some(ids) = input.image_ids {
        check_count(&ids)?;
        if input.max_results.is_some() || input.next_token.is_some() {
            return Err(ApiError::invalid(
                "imageIds",
                "cannot be used together with maxResults or nextToken",
            ));
        }
        let mut details = Vec::new();
        for id in ids {
            let digest = id.find(repository).ok_or_else(|| not_found(service, name, &id))?;
            if let Some(image) = repository.images.get(&digest) {
                details.push(detail(&digest, image));
            }
        }
        return Ok(json!({"imageDetails": details}));
    }
    input.filter.check()?;
    let page = Page::new(input.max_results, input.next_token.as_deref())?;
    let from = page.after::<Digest>()?.map_or(Bound::Unbounded, Bound::Excluded);
    let images = repository.images.range((from, Bound::Unbounded));
    let admitted = images.filter(|(digest, image)| input.filter.admits(repository, digest, image, restore));
    let items = admitted.map(|(digest, image)| (digest.to_string(), (digest, image)));
    let (taken, next) = page.take(items);
    let details: Vec<Value> = taken
        .into_iter()
        .map(|(digest, image)| detail(digest, image))
        .collect();
    Ok(with_token(json!({"imageDetails": details}), next))
}

pub(super) fn list(service: &Service, input: Listing) -> Answer {
    let restore = service.restore();
    let mut store = service.store();
    let repository = service.find(&mut store, &input.repository_name, input.registry_id.as_deref())?;
    input.filter.check()?;
    let page = Page::new(input.max_results, input.next_token.as_deref())?;
    // The key is the digest, and behind it the tag where there is one.
    let from = page.after::<String>()?.map(|key| {
        let digest = key.split(' ').next().unwrap_or_default().parse::<Digest>();
        digest.map_err(|_| ApiError::invalid("nextToken", "Invalid token"))
    });
    let from = from.transpose()?.map_or(Bound::Unbounded, Bound::Included);
    let images = repository.images.range((from, Bound::Unbounded));
    let admitted = images.filter(|(digest, image)| input.filter.admits(repository, digest, image, restore));
    let items = admitted.flat_map(|(digest, _)| {
        let untagged = (!repository.tags.any(digest))
            .then(|| (digest.to_string(), json!({"imageDigest": digest.as_str()})));
        // One entry for each tag.
        let tagged = repository.tags.of(digest).map(move |tag| {
            let id = json!({"imageDigest": digest.as_str(), "imageTag": tag});
            (format!("{digest} {tag}"), id)
        });
        untagged.into_iter().chain(tagged)
    });
    let (ids, next) = page.take(items);
    Ok(with_token(json!({"imageIds": ids}), next))
}

pub(super) fn referrers(service: &Service, input: Referrers) -> Answer {
    let restore = service.restore();
    let mut store = service.store();
    let repository = service.find(&mut store, &input.repository_name, input.registry_id.as_deref())?;
    let subject = input.subject_id.image_digest.parse::<Digest>();
    let subject = subject.map_err(|_| ApiError::invalid("subjectId.imageDigest", "must be a digest"))?;
    let filter = &input.filter;
    if filter.artifact_types.len() > 5 {
        return Err(ApiError::invalid(
            "filter.artifactTypes",
            "Member must have length less than or equal to 5",
        ));
    }
    check_status("filter.artifactStatus", filter.artifact_status.as_deref())?;
    let page = Page::within(input.max_results, 20, 50, input.next_token.as_deref())?;
    let items = repository.referrers(&subject).filter_map(|(digest, image)| {
        let kind = image.manifest.artifact_type();
        let status = image.storage.status(restore);
        let wanted = filter.artifact_types.is_empty()
            || kind.is_some_and(|kind| filter.artifact_types.iter().any(|wanted| wanted == kind));
        (wanted && admits_status(filter.artifact_status.as_deref(), status)).then(|| {
            let mut referrer = json!({
                "digest": digest.as_str(),
                "mediaType": image.manifest.media_type,
                "size": image.bytes.len(),
                "artifactStatus": status,
            });
            if let Some(kind) = kind {
                referrer["artifactType"] = json!(kind);
            }
            if let Some(annotations) = &image.manifest.annotations {
                referrer["annotations"] = json!(annotations);
            }
            (digest.to_string(), referrer)
        })
    });
    let (referrers, next) = page.take(items);
    Ok(with_token(json!({"referrers": referrers}), next))
}

impl Filter {
    pub(super) fn check(&self) -> Result<(), ApiError> {
        match self.tag_status.as_deref() {
            None | Some("TAGGED" | "UNTAGGED" | "ANY") => {}
            Some(_) => {
                return Err(ApiError::invalid(
                    "filter.tagStatus",
                    "Member must satisfy enum value set: [TAGGED, UNTAGGED, ANY]",
                ));
            }
        }
        check_status("filter.imageStatus", self.image_status.as_deref())
    }

    fn admits(&self, repository: &Repository, digest: &Digest, image: &Image, restore: Duration) -> bool {
        self.admits_tags(repository.tags.any(digest))
            && admits_status(self.image_status.as_deref(), image.storage.status(restore))
    }

    pub(super) fn admits_tags(&self, tagged: bool) -> bool {
        match self.tag_status.as_deref() {
            Some("TAGGED") => tagged,
            Some("UNTAGGED") => !tagged,
            _ => true,
        }
    }
}

fn check_status(parameter: &str, status: Option<&str>) -> Result<(), ApiError> {
    match status {
        None | Some("ACTIVE" | "ARCHIVED" | "ACTIVATING" | "ANY") => Ok(()),
        Some(_) => Err(ApiError::invalid(
            parameter,
            "Member must satisfy enum value set: [ACTIVE, ARCHIVED, ACTIVATING, ANY]",
        )),
    }
}

fn admits_status(wanted: Option<&str>, status: &str) -> bool {
    match wanted {
        None => status == "ACTIVE",
        Some(wanted) => wanted == "ANY" || wanted == status,
    }
}

fn describe_one(
    service: &Service,
    store: &Store,
    name: &str,
    repository: &Repository,
    digest: &Digest,
    image: &Image,
    restore: Duration,
) -> Value {
    let mut detail = json!({
        "registryId": service.config.account,
        "repositoryName": name,
        "imageDigest": digest.as_str(),
        "imageSizeInBytes": size(repository, image),
        "imagePushedAt": seconds(image.pushed_at),
        "imageManifestMediaType": image.manifest.media_type,
        "imageStatus": image.storage.status(restore),
    });
    let tags = repository.tags_of(digest);
    if !tags.is_empty() {
        detail["imageTags"] = json!(tags);
    }
    if let Some(kind) = image.manifest.artifact_type() {
        detail["artifactMediaType"] = json!(kind);
    }
    if let Some(subject) = &image.manifest.subject {
        detail["subjectManifestDigest"] = json!(subject.digest.as_str());
    }
    if let Some(pulled) = image.last_pull {
        detail["lastRecordedPullTime"] = seconds(pulled);
    }
    if let Some(archived) = image.storage.archived_at {
        detail["lastArchivedAt"] = seconds(archived);
    }
    if let Some(activated) = image.storage.activated_at {
        detail["lastActivatedAt"] = seconds(activated);
    }
    let viewed = image
        .scan
        .as_ref()
        .and_then(|scan| Some((scan, scan.view(store.pace)?)));
    if let Some((scan, view)) = viewed {
        let status = store.forced_status(name, digest).cloned().unwrap_or(view.status);
        detail["imageScanStatus"] = json!({"status": status, "description": view.description});
        if let Some(completed) = view.completed_at.filter(|_| view.findings_visible) {
            detail["imageScanFindingsSummary"] = json!({
                "imageScanCompletedAt": seconds(completed),
                "vulnerabilitySourceUpdatedAt": seconds(completed),
                "findingSeverityCounts": counts(&store.findings_of(name, digest, scan).0),
            });
        }
    }
    detail
}

/// The bytes of an image; of an index, those of its largest image.
fn size(repository: &Repository, image: &Image) -> u64 {
    let children = image.manifest.children.iter();
    let sizes = children
        .filter_map(|child| repository.images.get(&child.digest))
        .map(|child| child.manifest.image_size(child.bytes.len()));
    sizes
        .max()
        .unwrap_or_else(|| image.manifest.image_size(image.bytes.len()))
}
