//! The index entry of a crate: one line of JSON per version, made from what `cargo publish` sends or from the manifest
//! in a `.crate` file.
//!
//! Follows "Registry index" and "Web API" of the Cargo book, and for features the way the public registry splits them.

use super::archive::{CrateError, identity};
use crate::codeartifact::model::Metadata;
use semver::VersionReq;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use toml::Table;

/// What `cargo publish` says about a crate, before the archive.
#[derive(Debug, Deserialize)]
pub(super) struct Published {
    pub(super) name: String,
    pub(super) vers: String,
    #[serde(default)]
    deps: Vec<PublishedDependency>,
    #[serde(default)]
    features: Features,
    description: Option<String>,
    homepage: Option<String>,
    repository: Option<String>,
    license: Option<String>,
    links: Option<String>,
    rust_version: Option<String>,
}

/// A dependency as `cargo publish` writes it: the name is the package's, and a rename stands beside it.
#[derive(Debug, Deserialize)]
struct PublishedDependency {
    name: String,
    version_req: String,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default = "yes")]
    default_features: bool,
    target: Option<String>,
    kind: Option<String>,
    registry: Option<String>,
    explicit_name_in_toml: Option<String>,
}

/// A dependency as the index writes it: the name is the one in use, and the package's stands beside it.
#[derive(Debug, Serialize)]
struct Dependency {
    name: String,
    req: String,
    features: Vec<String>,
    optional: bool,
    default_features: bool,
    target: Option<String>,
    kind: String,
    registry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<String>,
}

type Features = BTreeMap<String, Vec<String>>;

fn yes() -> bool {
    true
}

impl Published {
    /// The entry, and what the service's API shows of it.
    pub(super) fn into_metadata(self, checksum: &str) -> Result<Metadata, CrateError> {
        let mut dependencies = Vec::new();
        for dependency in self.deps {
            VersionReq::parse(&dependency.version_req).map_err(|error| {
                CrateError::new(format!("the dependency {}", dependency.name), error.to_string())
            })?;
            let (name, package) = match dependency.explicit_name_in_toml {
                Some(rename) => (rename, Some(dependency.name)),
                None => (dependency.name, None),
            };
            dependencies.push(Dependency {
                name,
                req: dependency.version_req,
                features: dependency.features,
                optional: dependency.optional,
                default_features: dependency.default_features,
                target: dependency.target,
                kind: dependency.kind.unwrap_or_else(|| "normal".into()),
                registry: dependency.registry,
                package,
            });
        }
        let index_entry = entry(
            (&self.name, &self.vers),
            dependencies,
            self.features,
            checksum,
            self.links,
            self.rust_version,
        );
        Ok(Metadata {
            summary: self.description,
            home_page: self.homepage,
            source_repository: self.repository,
            license: self.license,
            index_entry: Some(index_entry),
        })
    }
}

/// The same, from the manifest in an archive.
pub(crate) fn from_manifest(manifest: &Table, checksum: &str) -> Result<Metadata, CrateError> {
    let (name, version) = identity(manifest)?;
    let package = manifest.get("package").and_then(toml::Value::as_table);
    let text = |field: &str| package?.get(field)?.as_str().map(str::to_owned);
    let mut dependencies = Vec::new();
    tables(manifest, None, &mut dependencies)?;
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        for (target, table) in targets {
            if let Some(table) = table.as_table() {
                tables(table, Some(target), &mut dependencies)?;
            }
        }
    }
    let features = match manifest.get("features") {
        None => Features::new(),
        Some(features) => features
            .clone()
            .try_into()
            .map_err(|error| CrateError::new(format!("{name}-{version}: [features]"), error.message()))?,
    };
    let index_entry = entry(
        (&name, &version),
        dependencies,
        features,
        checksum,
        text("links"),
        text("rust-version"),
    );
    Ok(Metadata {
        summary: text("description"),
        home_page: text("homepage"),
        source_repository: text("repository"),
        license: text("license"),
        index_entry: Some(index_entry),
    })
}

/// The dependency tables of a manifest, or of one of its targets.
fn tables(table: &Table, target: Option<&str>, into: &mut Vec<Dependency>) -> Result<(), CrateError> {
    let kinds = [
        ("dependencies", "normal"),
        ("build-dependencies", "build"),
        ("dev-dependencies", "dev"),
    ];
    for (section, kind) in kinds {
        let Some(section) = table.get(section).and_then(toml::Value::as_table) else {
            continue;
        };
        for (name, value) in section {
            into.push(dependency(name, value, kind, target)?);
        }
    }
    Ok(())
}

fn dependency(
    name: &str,
    value: &toml::Value,
    kind: &str,
    target: Option<&str>,
) -> Result<Dependency, CrateError> {
    let refuse = |reason: String| CrateError::new(format!("the dependency {name}"), reason);
    let text = |field: &str| value.get(field).and_then(toml::Value::as_str).map(str::to_owned);
    let flag = |field: &str| value.get(field).and_then(toml::Value::as_bool);
    let version = match value.as_str() {
        Some(version) => version.to_owned(),
        None => text("version").unwrap_or_else(|| "*".into()),
    };
    let req = VersionReq::parse(&version).map_err(|error| refuse(error.to_string()))?;
    let features = match value.get("features") {
        None => Vec::new(),
        Some(features) => features
            .clone()
            .try_into()
            .map_err(|error| refuse(error.message().to_owned()))?,
    };
    Ok(Dependency {
        name: name.into(),
        req: req.to_string(),
        features,
        optional: flag("optional").unwrap_or(false),
        // Older crates are packaged with the older spelling.
        default_features: flag("default-features")
            .or_else(|| flag("default_features"))
            .unwrap_or(true),
        target: target.map(str::to_owned),
        kind: kind.into(),
        registry: text("registry-index"),
        package: text("package"),
    })
}

fn entry(
    (name, version): (&str, &str),
    dependencies: Vec<Dependency>,
    features: Features,
    checksum: &str,
    links: Option<String>,
    rust_version: Option<String>,
) -> Value {
    // Values of the newer syntax would break older Cargos, which read only `features`.
    let newer = |values: &Vec<String>| {
        values
            .iter()
            .any(|value| value.starts_with("dep:") || value.contains("?/"))
    };
    let (features2, features): (Features, Features) =
        features.into_iter().partition(|(_, values)| newer(values));
    let mut entry = json!({
        "name": name,
        "vers": version,
        "deps": dependencies,
        "cksum": checksum,
        "features": features,
        "links": links,
    });
    if !features2.is_empty() {
        entry["features2"] = json!(features2);
        entry["v"] = json!(2);
    }
    if let Some(rust_version) = rust_version {
        entry["rust_version"] = json!(rust_version);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        [package]
        name = "a"
        version = "1.0.0"
        rust-version = "1.80"
        links = "z"
        [dependencies]
        short = "1.2"
        [dependencies.used]
        version = ">=0.3, <0.5"
        package = "real"
        optional = true
        default-features = false
        features = ["x"]
        [dev-dependencies.d]
        version = "2"
        default_features = false
        [target.'cfg(unix)'.build-dependencies.b]
        version = "=3.0.0"
        [features]
        default = ["std"]
        std = []
        extra = ["dep:used"]
    "#;

    #[test]
    fn a_manifest_and_a_publish_request_give_the_same_entry() {
        let from_manifest = from_manifest(&MANIFEST.parse().unwrap(), "00")
            .unwrap()
            .index_entry
            .unwrap();
        let published: Published = serde_json::from_value(json!({
            "name": "a", "vers": "1.0.0", "links": "z", "rust_version": "1.80", "authors": [],
            "features": { "default": ["std"], "std": [], "extra": ["dep:used"] },
            "deps": [
                { "name": "short", "version_req": "^1.2", "kind": "normal" },
                { "name": "real", "version_req": ">=0.3, <0.5", "explicit_name_in_toml": "used", "optional": true,
                  "default_features": false, "features": ["x"], "kind": "normal" },
                { "name": "d", "version_req": "^2", "kind": "dev", "default_features": false },
                { "name": "b", "version_req": "=3.0.0", "kind": "build", "target": "cfg(unix)" },
            ],
        }))
        .unwrap();
        assert_eq!(
            published.into_metadata("00").unwrap().index_entry.unwrap(),
            from_manifest
        );
        assert_eq!(from_manifest["v"], 2);
        assert_eq!(from_manifest["features2"], json!({ "extra": ["dep:used"] }));
        assert_eq!(
            from_manifest["features"],
            json!({ "default": ["std"], "std": [] })
        );
        assert_eq!(from_manifest["deps"][1]["package"], "real");
        assert_eq!(from_manifest["deps"][3]["target"], "cfg(unix)");
    }
}
