//! The package endpoint for Cargo: `/{domain}-{owner}/cargo/{repository}/`, a sparse index with its web API.
//!
//! Follows "Using CodeArtifact with Cargo" of the CodeArtifact user guide, and "Registry index", "Running a registry",
//! "Registry authentication" and "Web API" of the Cargo book.

pub(crate) mod archive;
pub(crate) mod index;
mod publish;

use super::Service;
use super::model::{Status, Version};
use super::public::asset_name;
use super::store::Store;
use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};
use towpath_core::PackageId;

/// What is wrong with a request to the registry, as Cargo shows it to its user.
#[derive(Debug)]
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({ "errors": [{ "detail": self.1 }] });
        (self.0, axum::Json(body)).into_response()
    }
}

fn refuse<T>(status: StatusCode, detail: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(status, detail.into()))
}

/// One request to the Cargo endpoint of one repository.
pub(super) struct Call<'a> {
    pub(super) domain: &'a str,
    pub(super) repository: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
}

/// Answers a request whose token has been found good.
pub(super) fn answer(service: &Service, method: &Method, call: Call<'_>) -> Response {
    let mut store = service.store();
    if store.repository(call.domain, call.repository).is_none() {
        let detail = format!(
            "there is no repository {} in the domain {}",
            call.repository, call.domain
        );
        return Refused(StatusCode::NOT_FOUND, detail).into_response();
    }
    let parts: Vec<&str> = call.path.split('/').collect();
    let result = match (method, parts.as_slice()) {
        (&Method::GET, ["config.json"]) => Ok(config(service, &store, &call)),
        (&Method::PUT, ["api", "v1", "crates", "new"]) => publish::publish(&mut store, &call),
        (&Method::GET, ["api", "v1", "crates", name, version, "download"]) => {
            download(&mut store, &call, name, version)
        }
        (&Method::DELETE, ["api", "v1", "crates", name, version, "yank"]) => {
            set_yanked(&mut store, &call, name, version, true)
        }
        (&Method::PUT, ["api", "v1", "crates", name, version, "unyank"]) => {
            set_yanked(&mut store, &call, name, version, false)
        }
        (&Method::GET, _) => entries(&store, &call),
        _ => refuse(StatusCode::NOT_FOUND, "there is no such part of a registry"),
    };
    result.unwrap_or_else(IntoResponse::into_response)
}

fn config(service: &Service, store: &Store, call: &Call<'_>) -> Response {
    let endpoint = service.endpoint(&store.account, call.domain, "cargo", call.repository);
    let api = endpoint.trim_end_matches('/');
    let config = json!({ "dl": format!("{api}/api/v1/crates"), "api": api, "auth-required": true });
    axum::Json(config).into_response()
}

/// The index file of a crate: a line for each version that may be resolved.
fn entries(store: &Store, call: &Call<'_>) -> Result<Response, Refused> {
    let name = call.path.rsplit('/').next().unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let package = if index_path(&lower).as_deref() == Some(call.path) {
        store.spelled(call.domain, call.repository, &lower)
    } else {
        None
    };
    let versions = package.map(|package| store.visible(call.domain, call.repository, &package));
    let mut lines = String::new();
    for version in versions.unwrap_or_default() {
        if let Some(line) = line(&version.version) {
            lines.push_str(&line);
            lines.push('\n');
        }
    }
    if lines.is_empty() {
        return refuse(StatusCode::NOT_FOUND, format!("there is no crate {name}"));
    }
    let tag = format!("\"{}\"", hex::encode(Sha256::digest(&lines)));
    let known = call
        .headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let headers = [(header::ETAG, tag), (header::CONTENT_TYPE, "text/plain".into())];
    Ok((headers, lines).into_response())
}

/// A version's line; none for a version that a package manager does not see.
fn line(version: &Version) -> Option<String> {
    let yanked = match version.status {
        Status::Published => false,
        Status::Unlisted => true,
        _ => return None,
    };
    let mut entry = version.metadata.index_entry.clone()?;
    entry["yanked"] = json!(yanked);
    Some(entry.to_string())
}

/// Where the index has a crate.
fn index_path(lower: &str) -> Option<String> {
    if !lower.is_ascii() {
        return None;
    }
    match lower.len() {
        0 => None,
        1 => Some(format!("1/{lower}")),
        2 => Some(format!("2/{lower}")),
        3 => Some(format!("3/{}/{lower}", &lower[..1])),
        _ => Some(format!("{}/{}/{lower}", &lower[..2], &lower[2..4])),
    }
}

fn download(store: &mut Store, call: &Call<'_>, name: &str, version: &str) -> Result<Response, Refused> {
    let missing = || Refused(StatusCode::NOT_FOUND, format!("there is no {name} {version}"));
    let package = PackageId::cargo(name).map_err(|_| missing())?;
    let visible = store.visible(call.domain, call.repository, &package);
    let wanted = visible
        .iter()
        .find(|candidate| candidate.version.version == version);
    if wanted.is_none_or(|wanted| line(&wanted.version).is_none()) {
        return Err(missing());
    }
    let found = store
        .fetch(call.domain, call.repository, &package, version)
        .ok_or_else(missing)?;
    let asset = found.assets.get(&asset_name(name, version)).ok_or_else(missing)?;
    let content = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((content, Body::from(asset.bytes.clone())).into_response())
}

/// Yanking is the status Unlisted: resolvable where a lock file names it, and not offered.
fn set_yanked(
    store: &mut Store,
    call: &Call<'_>,
    name: &str,
    version: &str,
    yanked: bool,
) -> Result<Response, Refused> {
    let found = PackageId::cargo(name).ok().and_then(|package| {
        let repository = store.repository_mut(call.domain, call.repository)?;
        let package = repository.packages.get_mut(&package)?;
        package.versions.iter_mut().find(|known| known.version == version)
    });
    let Some(found) = found.filter(|found| line(found).is_some()) else {
        return refuse(
            StatusCode::NOT_FOUND,
            format!("there is no {name} {version} in this repository"),
        );
    };
    found.status = if yanked {
        Status::Unlisted
    } else {
        Status::Published
    };
    Ok(axum::Json(json!({ "ok": true })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_paths_are_those_of_the_book() {
        let of = |name| index_path(name).unwrap();
        assert_eq!(
            [of("a"), of("ab"), of("abc"), of("abcd"), of("cargo")],
            ["1/a", "2/ab", "3/a/abc", "ab/cd/abcd", "ca/rg/cargo"]
        );
        assert_eq!((index_path(""), index_path("ééé")), (None, None));
    }
}
