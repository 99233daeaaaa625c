//! The operations on several versions at once: copy, change of status, disposal, deletion. Each version succeeds or
//! fails by itself, and the answer is 200 either way.

use super::Answer;
use super::call::Call;
use super::error::ApiError;
use crate::codeartifact::model::{Restrictions, Status, Version};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How many versions one call may name.
const MAX_VERSIONS: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    version_revisions: BTreeMap<String, String>,
    expected_status: Option<String>,
    target_status: Option<String>,
    #[serde(default)]
    allow_overwrite: bool,
    #[serde(default)]
    include_from_upstream: bool,
}

/// Why one version failed: a code, and a sentence.
type Failure = (&'static str, String);

/// The results so far.
#[derive(Default)]
struct Results {
    successful: Map<String, Value>,
    failed: Map<String, Value>,
}

impl Results {
    fn add(&mut self, version: &str, result: Result<(String, String), Failure>) {
        match result {
            Ok((revision, status)) => {
                self.successful
                    .insert(version.into(), json!({ "revision": revision, "status": status }));
            }
            Err((code, message)) => {
                self.failed.insert(
                    version.into(),
                    json!({ "errorCode": code, "errorMessage": message }),
                );
            }
        }
    }

    fn answer(self) -> Answer {
        Ok(json!({ "successfulVersions": self.successful, "failedVersions": self.failed }))
    }
}

impl Batch {
    fn of(call: &Call<'_>) -> Result<Self, ApiError> {
        let batch: Self = call.json()?;
        let count = batch.versions.len().max(batch.version_revisions.len());
        if !(1..=MAX_VERSIONS).contains(&count) {
            return Err(ApiError::invalid(format!("name 1 to {MAX_VERSIONS} versions")));
        }
        Ok(batch)
    }

    /// The versions that `versions` names; the revisions beside it are conditions.
    fn named(&self) -> Result<&[String], ApiError> {
        if self.versions.is_empty() {
            Err(ApiError::invalid("versions is required"))
        } else {
            Ok(&self.versions)
        }
    }

    /// Whether the version is the one that the caller thinks it is.
    fn check(&self, version: &Version) -> Result<(), Failure> {
        if let Some(expected) = self.version_revisions.get(&version.version)
            && *expected != version.revision
        {
            return Err((
                "MISMATCHED_REVISION",
                format!("the revision is {}", version.revision),
            ));
        }
        match &self.expected_status {
            Some(expected) if *expected != version.status.to_string() => {
                Err(("MISMATCHED_STATUS", format!("the status is {}", version.status)))
            }
            _ => Ok(()),
        }
    }
}

fn missing() -> Failure {
    ("NOT_FOUND", "there is no such version".into())
}

pub(super) fn copy(call: &mut Call<'_>) -> Answer {
    let batch = Batch::of(call)?;
    if batch.versions.is_empty() == batch.version_revisions.is_empty() {
        return Err(ApiError::invalid("give either versions or versionRevisions"));
    }
    let (domain, id) = (call.domain_name()?, call.package_id()?);
    let source = call.repository_in("source-repository")?.name.clone();
    let destination = call.repository_in("destination-repository")?.name.clone();
    if source == destination {
        return Err(ApiError::invalid(
            "source-repository and destination-repository must differ",
        ));
    }
    let known: Vec<Version> = if batch.include_from_upstream {
        let visible = call.store.visible(&domain, &source, &id);
        visible.into_iter().map(|visible| visible.version).collect()
    } else {
        let package = call.repository_in("source-repository")?.packages.get(&id);
        package
            .map(|package| package.versions.clone())
            .unwrap_or_default()
    };
    if known.is_empty() {
        return Err(ApiError::not_found("package", &id.to_string()));
    }
    let into = call.repository_in("destination-repository")?;
    let mut results = Results::default();
    for name in batch.versions.iter().chain(batch.version_revisions.keys()) {
        let found = known
            .iter()
            .find(|version| version.version == *name)
            .ok_or_else(missing);
        let copied = found.and_then(|version| {
            batch.check(version)?;
            if matches!(version.status, Status::Unfinished | Status::Disposed) {
                return Err((
                    "NOT_ALLOWED",
                    format!("a version that is {} is not copied", version.status),
                ));
            }
            if into.version(&id, name).is_some() && !batch.allow_overwrite {
                return Err(("ALREADY_EXISTS", format!("{} has this version", into.name)));
            }
            into.keep(&id, version.clone(), Restrictions::copied(&version.origin));
            Ok((version.revision.clone(), version.status.to_string()))
        });
        results.add(name, copied);
    }
    results.answer()
}

pub(super) fn update_status(call: &mut Call<'_>) -> Answer {
    let batch = Batch::of(call)?;
    let target = batch
        .target_status
        .as_deref()
        .and_then(|status| status.parse().ok());
    let target = target
        .filter(|target| matches!(target, Status::Published | Status::Unlisted | Status::Archived))
        .ok_or_else(|| ApiError::invalid("targetStatus must be Published, Unlisted or Archived"))?;
    each(call, &batch, |version| {
        if version.status == Status::Disposed {
            return Err(("NOT_ALLOWED", "a version that is Disposed stays so".into()));
        }
        version.status = target;
        Ok(())
    })
}

pub(super) fn dispose(call: &mut Call<'_>) -> Answer {
    let batch = Batch::of(call)?;
    each(call, &batch, |version| {
        version.status = Status::Disposed;
        version.assets.clear();
        Ok(())
    })
}

pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let batch = Batch::of(call)?;
    let (_, package) = call.package()?;
    let mut results = Results::default();
    for name in batch.named()? {
        let found = package
            .versions
            .iter()
            .position(|version| version.version == *name)
            .ok_or_else(missing);
        let deleted = found.and_then(|at| {
            batch.check(&package.versions[at])?;
            Ok((package.versions.remove(at).revision, "Deleted".into()))
        });
        results.add(name, deleted);
    }
    results.answer()
}

/// Does something to each named version that is there and is what the caller expects.
fn each(call: &mut Call<'_>, batch: &Batch, change: impl Fn(&mut Version) -> Result<(), Failure>) -> Answer {
    let (_, package) = call.package()?;
    let mut results = Results::default();
    for name in batch.named()? {
        let found = package
            .versions
            .iter_mut()
            .find(|version| version.version == *name)
            .ok_or_else(missing);
        let changed = found.and_then(|version| {
            batch.check(version)?;
            change(version)?;
            Ok((version.revision.clone(), version.status.to_string()))
        });
        results.add(name, changed);
    }
    results.answer()
}
