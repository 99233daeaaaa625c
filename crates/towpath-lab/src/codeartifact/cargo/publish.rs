//! `cargo publish`: metadata and archive in one body, each behind its length.

use super::archive::{self, CrateError};
use super::index::Published;
use super::{Call, Refused, refuse};
use crate::codeartifact::model::{Asset, Origin, Version};
use crate::codeartifact::public::asset_name;
use crate::codeartifact::store::{PublishError, Store};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use serde_json::json;
use towpath_core::{PackageFormat, PackageId};

impl From<CrateError> for Refused {
    fn from(error: CrateError) -> Self {
        Self(StatusCode::BAD_REQUEST, error.to_string())
    }
}

pub(super) fn publish(store: &mut Store, call: &Call<'_>) -> Result<Response, Refused> {
    let (published, archive) = parse(call.body.clone())?;
    let (name, version) = (published.name.clone(), published.vers.clone());
    let package =
        PackageId::cargo(&name).map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))?;
    semver::Version::parse(&version)
        .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("the version {version}: {error}")))?;
    if archive::identity(&archive::manifest(&archive)?)? != (name.clone(), version.clone()) {
        return refuse(
            StatusCode::BAD_REQUEST,
            format!("the archive does not hold {name} {version}"),
        );
    }
    let Some(repository) = store.repository_mut(call.domain, call.repository) else {
        return refuse(
            StatusCode::NOT_FOUND,
            format!("there is no repository {}", call.repository),
        );
    };
    let taken = repository.packages.iter().find_map(|(known, kept)| {
        if known.format() != PackageFormat::Cargo || canonical(known.name()) != canonical(&name) {
            return None;
        }
        if *known != package {
            return Some(format!("the crate {} has a name too like {name}", known.name()));
        }
        let same = kept
            .versions
            .iter()
            .find(|kept| kept.version != version && without_build(&kept.version) == without_build(&version));
        same.map(|same| {
            format!(
                "{name} {} differs from {version} in build metadata only",
                same.version
            )
        })
    });
    if let Some(taken) = taken {
        return refuse(StatusCode::CONFLICT, taken);
    }
    let asset = Asset::new(archive);
    let metadata = published.into_metadata(asset.sha256.encoded())?;
    let origin = Origin::Internal {
        repository: call.repository.into(),
    };
    let new = Version::new(&version, origin, metadata);
    match repository.publish(&package, new, &asset_name(&name, &version), asset, false) {
        Ok(_) => {
            let none: [&str; 0] = [];
            let warnings = json!({ "invalid_categories": none, "invalid_badges": none, "other": none });
            Ok(axum::Json(json!({ "warnings": warnings })).into_response())
        }
        Err(PublishError::Blocked) => refuse(
            StatusCode::FORBIDDEN,
            format!(
                "the origin controls of {name} block publishing to {}",
                call.repository
            ),
        ),
        Err(PublishError::Conflict(why)) => refuse(StatusCode::CONFLICT, why),
    }
}

/// Two crates of one registry may not have names that differ only in this.
fn canonical(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn without_build(version: &str) -> &str {
    version.split('+').next().unwrap_or(version)
}

fn parse(mut body: Bytes) -> Result<(Published, Bytes), Refused> {
    let metadata = part(&mut body, "the metadata")?;
    let archive = part(&mut body, "the archive")?;
    if !body.is_empty() {
        return refuse(
            StatusCode::BAD_REQUEST,
            format!("{} bytes follow the archive", body.len()),
        );
    }
    let published = serde_json::from_slice(&metadata)
        .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("the metadata: {error}")))?;
    Ok((published, archive))
}

/// A part of the body, behind its length as a little-endian 32-bit number.
fn part(body: &mut Bytes, what: &str) -> Result<Bytes, Refused> {
    let short = || Refused(StatusCode::BAD_REQUEST, format!("the body ends within {what}"));
    let length = body.try_get_u32_le().map_err(|_| short())? as usize;
    if body.len() < length {
        return Err(short());
    }
    Ok(body.split_to(length))
}
