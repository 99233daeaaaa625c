//! `PublishPackageVersion`: one asset of a generic package.

use super::Answer;
use super::call::Call;
use super::error::ApiError;
use super::versions::{asset_summary, of_version};
use crate::codeartifact::model::{Asset, Metadata, Origin, Version};
use crate::codeartifact::store::PublishError;
use serde_json::json;
use towpath_core::PackageFormat;

pub(super) fn publish(call: &mut Call<'_>) -> Answer {
    let id = call.package_id()?;
    if id.format() != PackageFormat::Generic {
        return Err(ApiError::invalid(
            "the only format of PublishPackageVersion is generic",
        ));
    }
    let version = call.required("version")?.to_owned();
    id.at(&version)
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    let name = call.required("asset")?.to_owned();
    if name.len() > 255 || name.chars().any(|c| c.is_control() || c == '/') {
        return Err(ApiError::invalid(
            "asset must be at most 255 characters without / and control characters",
        ));
    }
    let unfinished = call.choice::<bool>("unfinished")?.unwrap_or(false);
    let asset = Asset::new(call.body.clone());
    let said = call
        .headers
        .get("x-amz-content-sha256")
        .and_then(|value| value.to_str().ok());
    if said != Some(asset.sha256.encoded()) {
        return Err(ApiError::invalid(
            "assetSHA256 must be the SHA-256 of the asset's content",
        ));
    }
    let repository = call.repository()?;
    let origin = Origin::Internal {
        repository: repository.name.clone(),
    };
    let new = Version::new(&version, origin, Metadata::default());
    let published = match repository.publish(&id, new, &name, asset.clone(), unfinished) {
        Ok(published) => published,
        Err(PublishError::Blocked) => {
            return Err(ApiError::denied(format!(
                "the origin controls of {id} block publishing to {}",
                repository.name
            )));
        }
        Err(PublishError::Conflict(why)) => {
            return Err(ApiError::conflict(
                "package-version",
                &format!("{id}@{version}"),
                why,
            ));
        }
    };
    let mut answer = of_version(&id, published);
    answer["status"] = json!(published.status.to_string());
    answer["asset"] = asset_summary(&name, &asset);
    Ok(answer)
}
