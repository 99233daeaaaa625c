//! What can be read of a version: its description, its assets, its dependencies.

use super::call::Call;
use super::error::ApiError;
use super::{Answer, epoch, file};
use crate::codeartifact::model::{Asset, Origin, Status, Version};
use axum::response::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use towpath_core::PackageId;

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let status: Option<Status> = call.choice("status")?;
    let origin = call.optional("originType").map(str::to_owned);
    let by_time = match call.optional("sortBy") {
        None => false,
        Some("PUBLISHED_TIME") => true,
        Some(other) => return Err(ApiError::invalid(format!("{other:?} is not a value of sortBy"))),
    };
    let (id, package) = call.package()?;
    let mut versions = package.versions.clone();
    let newest = versions
        .iter()
        .rev()
        .find(|version| version.status == Status::Published);
    let newest = newest.map(|version| version.version.clone());
    versions.retain(|version| {
        status.is_none_or(|status| version.status == status)
            && origin
                .as_deref()
                .is_none_or(|origin| origin_type(version) == origin)
    });
    if by_time {
        versions.reverse();
    } else {
        versions.sort_by(|a, b| a.version.cmp(&b.version));
    }
    let (versions, next) = call.page(versions, |version| version.version.clone())?;
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            json!({
                "version": version.version,
                "revision": version.revision,
                "status": version.status.to_string(),
                "origin": origin_of(version),
            })
        })
        .collect();
    let mut answer = coordinates(&id);
    answer["defaultDisplayVersion"] = json!(newest);
    answer["versions"] = json!(versions);
    answer["nextToken"] = json!(next);
    Ok(answer)
}

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let (id, version) = found(call)?;
    let metadata = &version.metadata;
    let licenses: Option<Vec<Value>> = metadata
        .license
        .as_ref()
        .map(|license| vec![json!({ "name": license })]);
    let published = (version.status != Status::Unfinished).then(|| epoch(version.published));
    Ok(json!({ "packageVersion": {
        "format": id.format().as_str(),
        "namespace": id.namespace(),
        "packageName": id.name(),
        "displayName": id.name(),
        "version": version.version,
        "summary": metadata.summary,
        "homePage": metadata.home_page,
        "sourceCodeRepository": metadata.source_repository,
        "publishedTime": published,
        "licenses": licenses,
        "revision": version.revision,
        "status": version.status.to_string(),
        "origin": origin_of(&version),
    } }))
}

pub(super) fn assets(call: &mut Call<'_>) -> Answer {
    let (id, version) = found(call)?;
    let (assets, next) = call.page(version.assets.iter().collect(), |(name, _)| (*name).clone())?;
    let assets: Vec<Value> = assets
        .into_iter()
        .map(|(name, asset)| asset_summary(name, asset))
        .collect();
    let mut answer = of_version(&id, &version);
    answer["assets"] = json!(assets);
    answer["nextToken"] = json!(next);
    Ok(answer)
}

pub(super) fn dependencies(call: &mut Call<'_>) -> Answer {
    let (id, version) = found(call)?;
    let entry = version.metadata.index_entry.as_ref();
    let dependencies = entry
        .and_then(|entry| entry["deps"].as_array())
        .cloned()
        .unwrap_or_default();
    let dependencies: Vec<Value> = dependencies
        .iter()
        .map(|dependency| {
            let package = dependency.get("package").unwrap_or(&dependency["name"]);
            let kind = match dependency["kind"].as_str() {
                Some("normal") => "regular",
                Some(kind) => kind,
                None => "regular",
            };
            json!({ "package": package, "dependencyType": kind, "versionRequirement": dependency["req"] })
        })
        .collect();
    let mut answer = of_version(&id, &version);
    answer["dependencies"] = json!(dependencies);
    Ok(answer)
}

pub(super) fn asset(call: &mut Call<'_>) -> Result<Response, ApiError> {
    let (_, version) = found(call)?;
    let name = call.required("asset")?;
    if let Some(revision) = call.optional("revision")
        && revision != version.revision
    {
        return Err(ApiError::not_found("package-version-revision", revision));
    }
    if !version.status.is_readable() {
        return Err(ApiError::conflict(
            "package-version",
            &version.version,
            format!(
                "the assets of a version that is {} cannot be fetched",
                version.status
            ),
        ));
    }
    let asset = version
        .assets
        .get(name)
        .ok_or_else(|| ApiError::not_found("asset", name))?;
    let about = [
        ("x-assetname", name),
        ("x-packageversion", version.version.as_str()),
        ("x-packageversionrevision", version.revision.as_str()),
    ];
    Ok(file(asset.bytes.clone(), about))
}

/// The version that the query names.
fn found(call: &mut Call<'_>) -> Result<(PackageId, Version), ApiError> {
    let version = call.required("version")?.to_owned();
    let (id, package) = call.package()?;
    match package.version(&version) {
        Some(version) => Ok((id, version.clone())),
        None => Err(ApiError::not_found("package-version", &format!("{id}@{version}"))),
    }
}

fn coordinates(id: &PackageId) -> Value {
    json!({ "format": id.format().as_str(), "namespace": id.namespace(), "package": id.name() })
}

/// The fields that answers about one version begin with.
pub(super) fn of_version(id: &PackageId, version: &Version) -> Value {
    let mut about = coordinates(id);
    about["version"] = json!(version.version);
    about["versionRevision"] = json!(version.revision);
    about
}

/// An asset with two of the hashes that the service gives; MD5 and SHA-1 are good for nothing here.
pub(super) fn asset_summary(name: &str, asset: &Asset) -> Value {
    json!({
        "name": name,
        "size": asset.bytes.len(),
        "hashes": {
            "SHA-256": hex::encode(Sha256::digest(&asset.bytes)),
            "SHA-512": hex::encode(Sha512::digest(&asset.bytes)),
        },
    })
}

fn origin_type(version: &Version) -> &'static str {
    match version.origin {
        Origin::Internal { .. } => "INTERNAL",
        Origin::External { .. } => "EXTERNAL",
    }
}

fn origin_of(version: &Version) -> Value {
    let entry = match &version.origin {
        Origin::Internal { repository } => json!({ "repositoryName": repository }),
        Origin::External { connection } => json!({ "externalConnectionName": connection }),
    };
    json!({ "originType": origin_type(version), "domainEntryPoint": entry })
}
