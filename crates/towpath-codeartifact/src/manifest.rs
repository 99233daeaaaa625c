//! The manifest of a packed crate, and what Cargo's web API is told of it.
//!
//! Follows "The Manifest Format" and "Web API: Publish" of the Cargo book. `cargo package` has normalised the manifest:
//! nothing is inherited from a workspace, and another registry stands as the URL of its index.

use crate::crate_file::Flaw;
use semver::VersionReq;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What cargo calls the index of the public registry, in every registry's metadata.
const CRATES_IO: &str = "https://github.com/rust-lang/crates.io-index";

type Dependencies = BTreeMap<String, Dependency>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Manifest {
    package: Package,
    #[serde(flatten)]
    tables: Tables,
    #[serde(default)]
    target: BTreeMap<String, Tables>,
    #[serde(default)]
    features: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    badges: BTreeMap<String, BTreeMap<String, toml::Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Package {
    name: String,
    version: String,
    #[serde(default)]
    authors: Vec<String>,
    description: Option<String>,
    documentation: Option<String>,
    homepage: Option<String>,
    #[serde(default)]
    readme: Option<Readme>,
    #[serde(default)]
    keywords: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    license: Option<String>,
    license_file: Option<String>,
    repository: Option<String>,
    links: Option<String>,
    rust_version: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Readme {
    Default(bool),
    File(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Tables {
    #[serde(default)]
    dependencies: Dependencies,
    #[serde(default, alias = "dev_dependencies")]
    dev_dependencies: Dependencies,
    #[serde(default, alias = "build_dependencies")]
    build_dependencies: Dependencies,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Dependency {
    Version(String),
    Detailed(Box<Detailed>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Detailed {
    version: Option<String>,
    registry: Option<String>,
    registry_index: Option<String>,
    package: Option<String>,
    #[serde(default)]
    optional: bool,
    #[serde(alias = "default_features")]
    default_features: Option<bool>,
    #[serde(default)]
    features: Vec<String>,
}

/// What `cargo publish` says about a crate, before the archive.
#[derive(Debug, Serialize)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) vers: String,
    deps: Vec<PublishedDependency>,
    features: BTreeMap<String, Vec<String>>,
    authors: Vec<String>,
    description: Option<String>,
    documentation: Option<String>,
    homepage: Option<String>,
    readme: Option<String>,
    readme_file: Option<String>,
    keywords: Vec<String>,
    categories: Vec<String>,
    license: Option<String>,
    license_file: Option<String>,
    repository: Option<String>,
    badges: BTreeMap<String, BTreeMap<String, toml::Value>>,
    links: Option<String>,
    rust_version: Option<String>,
}

#[derive(Debug, Serialize)]
struct PublishedDependency {
    /// The package's own name; the name in use stands in `explicit_name_in_toml` where it is another.
    name: String,
    version_req: String,
    features: Vec<String>,
    optional: bool,
    default_features: bool,
    target: Option<String>,
    kind: &'static str,
    /// Where it comes from; none means the registry that this crate goes to.
    registry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explicit_name_in_toml: Option<String>,
}

impl Manifest {
    /// The name of the folder that everything in the archive lies in.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.package.name, self.package.version)
    }

    /// The readme's path within the crate.
    pub(crate) fn readme_file(&self) -> Option<&str> {
        match &self.package.readme {
            Some(Readme::File(file)) => Some(file),
            Some(Readme::Default(true)) => Some("README.md"),
            _ => None,
        }
    }

    pub(crate) fn into_metadata(self, index: &str, readme: Option<String>) -> Result<Metadata, Flaw> {
        let readme_file = self.readme_file().map(str::to_owned);
        let mut deps = Vec::new();
        let platforms = self
            .target
            .into_iter()
            .map(|(target, tables)| (Some(target), tables));
        for (target, tables) in std::iter::once((None, self.tables)).chain(platforms) {
            for (kind, dependencies) in [
                ("normal", tables.dependencies),
                ("dev", tables.dev_dependencies),
                ("build", tables.build_dependencies),
            ] {
                for (name, dependency) in dependencies {
                    deps.extend(published(name, dependency, kind, target.clone(), index)?);
                }
            }
        }
        let package = self.package;
        Ok(Metadata {
            name: package.name,
            vers: package.version,
            deps,
            features: self.features,
            authors: package.authors,
            description: package.description,
            documentation: package.documentation,
            homepage: package.homepage,
            readme,
            readme_file,
            keywords: package.keywords,
            categories: package.categories,
            license: package.license,
            license_file: package.license_file,
            repository: package.repository,
            badges: self.badges,
            links: package.links,
            rust_version: package.rust_version,
        })
    }
}

/// A dependency as it is published; none for a development dependency without a version, which cargo leaves out too.
fn published(
    name: String,
    dependency: Dependency,
    kind: &'static str,
    target: Option<String>,
    index: &str,
) -> Result<Option<PublishedDependency>, Flaw> {
    let detailed = match dependency {
        Dependency::Version(version) => Detailed {
            version: Some(version),
            ..Detailed::default()
        },
        Dependency::Detailed(detailed) => *detailed,
    };
    let version = match detailed.version {
        Some(version) => version,
        None if kind == "dev" => return Ok(None),
        None => return Err(format!("its dependency {name} has no version")),
    };
    let requirement =
        VersionReq::parse(&version).map_err(|error| format!("its dependency {name}: {version}: {error}"))?;
    let registry = match detailed.registry_index {
        Some(other) if same_index(&other, index) => None,
        Some(other) => Some(other),
        None if detailed.registry.is_some() => {
            return Err(format!(
                "its dependency {name} names a registry of somebody's configuration; pack it with `cargo package`"
            ));
        }
        None => Some(CRATES_IO.to_owned()),
    };
    let (name, rename) = match detailed.package {
        Some(package) => (package, Some(name)),
        None => (name, None),
    };
    Ok(Some(PublishedDependency {
        name,
        version_req: requirement.to_string(),
        features: detailed.features,
        optional: detailed.optional,
        default_features: detailed.default_features.unwrap_or(true),
        target,
        kind,
        registry,
        explicit_name_in_toml: rename,
    }))
}

fn same_index(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const INDEX: &str = "sparse+https://acme.example/cargo/libraries/";

    fn metadata(text: &str) -> Result<serde_json::Value, Flaw> {
        let manifest: Manifest = toml::from_str(text).map_err(|error| error.to_string())?;
        let metadata = manifest.into_metadata(INDEX, Some("# Demo".into()))?;
        serde_json::to_value(metadata).map_err(|error| error.to_string())
    }

    #[test]
    fn a_manifest_becomes_what_cargo_would_send() {
        let said = metadata(
            r#"
            [package]
            name = "demo"
            version = "0.1.0"
            authors = ["A"]
            readme = "README.md"
            license = "MIT"
            links = "z"
            rust-version = "1.80"
            [features]
            default = ["dep:greeting"]
            [dependencies]
            serde = "1"
            [dependencies.greeting]
            version = "1.2"
            package = "towpath-greeting"
            registry-index = "sparse+https://acme.example/cargo/libraries"
            optional = true
            default-features = false
            [dev-dependencies.local]
            path = "../local"
            [target."cfg(unix)".build-dependencies.cc]
            version = "=1.0.1"
            features = ["parallel"]
            registry-index = "https://other.example/index"
            "#,
        )
        .unwrap();
        let dependency = |name: &str, req: &str, kind: &str, registry: serde_json::Value| {
            json!({ "name": name, "version_req": req, "features": [], "optional": false, "default_features": true,
                    "target": null, "kind": kind, "registry": registry })
        };
        let mut greeting = dependency("towpath-greeting", "^1.2", "normal", json!(null));
        greeting["optional"] = json!(true);
        greeting["default_features"] = json!(false);
        greeting["explicit_name_in_toml"] = json!("greeting");
        let mut cc = dependency("cc", "=1.0.1", "build", json!("https://other.example/index"));
        cc["target"] = json!("cfg(unix)");
        cc["features"] = json!(["parallel"]);
        assert_eq!(
            said,
            json!({
                "name": "demo", "vers": "0.1.0", "authors": ["A"], "description": null, "documentation": null,
                "homepage": null, "readme": "# Demo", "readme_file": "README.md", "keywords": [], "categories": [],
                "license": "MIT", "license_file": null, "repository": null, "badges": {}, "links": "z",
                "rust_version": "1.80", "features": { "default": ["dep:greeting"] },
                "deps": [greeting, dependency("serde", "^1", "normal", json!(CRATES_IO)), cc],
            })
        );
        assert_eq!(said.as_object().unwrap().len(), 18);
    }

    #[test]
    fn what_cannot_be_published_says_why() {
        let package = "[package]\nname=\"a\"\nversion=\"1.0.0\"\n[dependencies]\n";
        for (dependency, words) in [
            ("b = { path = \"../b\" }", "b has no version"),
            ("b = \"one\"", "b: one"),
            ("b = { version = \"1\", registry = \"mine\" }", "cargo package"),
        ] {
            let said = metadata(&format!("{package}{dependency}\n")).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    proptest! {
        #[test]
        fn no_manifest_panics(text in "(\\[package\\]\n)?([a-z]{1,8}(\\.[a-z]{1,8})? = [\"\\[{]?[a-z0-9.]{0,5}[\"\\]}]?\n){0,5}") {
            let _ = metadata(&text);
        }
    }
}
