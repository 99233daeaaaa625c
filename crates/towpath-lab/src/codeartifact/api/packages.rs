//! Packages and their origin controls.

use super::Answer;
use super::call::Call;
use super::error::ApiError;
use crate::codeartifact::model::{Package, Restrictions};
use serde::Deserialize;
use serde_json::{Value, json};
use towpath_core::{PackageFormat, PackageId};

#[derive(Deserialize)]
struct OriginConfiguration {
    restrictions: Option<Wanted>,
}

#[derive(Deserialize)]
struct Wanted {
    publish: Option<String>,
    upstream: Option<String>,
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let format: Option<PackageFormat> = call.choice("format")?;
    let namespace = call.optional("namespace").map(str::to_owned);
    let prefix = call.optional("package-prefix").unwrap_or_default().to_owned();
    let publish = call
        .optional("publish")
        .map(|value| allowed(Some(value)))
        .transpose()?;
    let upstream = call
        .optional("upstream")
        .map(|value| allowed(Some(value)))
        .transpose()?;
    let packages = call.repository()?.packages.clone();
    let wanted = packages.iter().filter(|(id, package)| {
        format.is_none_or(|format| id.format() == format)
            && namespace
                .as_deref()
                .is_none_or(|namespace| id.namespace() == Some(namespace))
            && id.name().starts_with(&prefix)
            && publish.is_none_or(|publish| package.restrictions.publish == publish)
            && upstream.is_none_or(|upstream| package.restrictions.upstream == upstream)
    });
    let (page, next) = call.page(wanted.collect(), |(id, _)| id.to_string())?;
    let packages: Vec<Value> = page
        .into_iter()
        .map(|(id, package)| about(id, package, "package"))
        .collect();
    Ok(json!({ "packages": packages, "nextToken": next }))
}

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let (id, package) = call.package()?;
    Ok(json!({ "package": about(&id, package, "name") }))
}

pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let (id, package) = call.package()?;
    let deleted = about(&id, package, "package");
    call.repository()?.packages.remove(&id);
    Ok(json!({ "deletedPackage": deleted }))
}

/// Sets both controls; a package that is not there yet can be guarded in advance.
pub(super) fn put_origin_configuration(call: &mut Call<'_>) -> Answer {
    let id = call.package_id()?;
    let body: OriginConfiguration = call.json()?;
    let wanted = body
        .restrictions
        .ok_or_else(|| ApiError::invalid("restrictions are required"))?;
    let restrictions = Restrictions {
        publish: allowed(wanted.publish.as_deref())?,
        upstream: allowed(wanted.upstream.as_deref())?,
    };
    let packages = &mut call.repository()?.packages;
    packages
        .entry(id)
        .or_insert_with(|| Package {
            restrictions,
            versions: Vec::new(),
        })
        .restrictions = restrictions;
    Ok(json!({ "originConfiguration": configuration(restrictions) }))
}

fn allowed(value: Option<&str>) -> Result<bool, ApiError> {
    match value {
        Some("ALLOW") => Ok(true),
        Some("BLOCK") => Ok(false),
        _ => Err(ApiError::invalid(
            "publish and upstream must each be ALLOW or BLOCK",
        )),
    }
}

fn configuration(restrictions: Restrictions) -> Value {
    let word = |allowed| if allowed { "ALLOW" } else { "BLOCK" };
    json!({ "restrictions": {
        "publish": word(restrictions.publish),
        "upstream": word(restrictions.upstream),
    } })
}

/// A package as the API writes it. Its name stands in `package` in some answers, and in `name` in others.
fn about(id: &PackageId, package: &Package, name_field: &str) -> Value {
    let mut about = json!({
        "format": id.format().as_str(),
        "namespace": id.namespace(),
        "originConfiguration": configuration(package.restrictions),
    });
    about[name_field] = json!(id.name());
    about
}
