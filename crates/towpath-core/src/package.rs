//! Packages, by format. The text form is the package URL (`purl-spec`), such as `pkg:cargo/serde@1.0.0`.

use crate::parse::{ParseError, only, text_traits};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fmt;
use std::str::FromStr;

/// The package formats of CodeArtifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PackageFormat {
    /// Rust crates.
    Cargo,
    /// Any files under a namespace, a name and a version.
    Generic,
    /// Maven artifacts; the namespace is the group.
    Maven,
    /// Node packages; the namespace is the scope, without `@`.
    Npm,
    /// .NET packages.
    Nuget,
    /// Python distributions; names are normalised as PEP 503 says.
    Pypi,
    /// Ruby gems.
    Ruby,
    /// Swift packages; the namespace is the scope.
    Swift,
}

impl PackageFormat {
    const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::Cargo, "cargo", "cargo"),
        (Self::Generic, "generic", "generic"),
        (Self::Maven, "maven", "maven"),
        (Self::Npm, "npm", "npm"),
        (Self::Nuget, "nuget", "nuget"),
        (Self::Pypi, "pypi", "pypi"),
        (Self::Ruby, "ruby", "gem"),
        (Self::Swift, "swift", "swift"),
    ];

    /// The name that CodeArtifact uses, such as `pypi`.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(format, ..)| *format == self)
            .map_or("", |(_, name, _)| name)
    }

    fn purl_type(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(format, ..)| *format == self)
            .map_or("", |(_, _, purl)| purl)
    }
}

impl fmt::Display for PackageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PackageFormat {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .iter()
            .find(|(_, name, _)| *name == text)
            .map(|(format, ..)| *format)
            .ok_or_else(|| {
                let known: Vec<&str> = Self::ALL.iter().map(|(_, name, _)| *name).collect();
                ParseError::new("package format", text, format!("known are {}", known.join(", ")))
            })
    }
}

/// A package, without a version: format, namespace where the format has one, and name.
///
/// ```
/// use towpath_core::{PackageFormat, PackageId};
/// let package = PackageId::new(PackageFormat::Npm, Some("acme"), "ui")?;
/// assert_eq!(package.to_string(), "pkg:npm/%40acme/ui");
/// assert_eq!(PackageId::cargo("serde")?, "pkg:cargo/serde".parse()?);
/// assert!(PackageId::new(PackageFormat::Maven, None, "guava").is_err());
/// # Ok::<(), towpath_core::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PackageId {
    format: PackageFormat,
    namespace: Option<String>,
    name: String,
}

impl PackageId {
    /// A package, checked by the rules of its format.
    pub fn new(format: PackageFormat, namespace: Option<&str>, name: &str) -> Result<Self, ParseError> {
        let shown = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
        let refuse = |reason: String| ParseError::new("package", &shown, format!("{format}: {reason}"));
        let required = matches!(
            format,
            PackageFormat::Maven | PackageFormat::Swift | PackageFormat::Generic
        );
        let allowed = required || format == PackageFormat::Npm;
        match namespace {
            None if required => return Err(refuse("a namespace is needed".into())),
            Some(_) if !allowed => return Err(refuse("there are no namespaces in this format".into())),
            Some(namespace) => part(namespace).map_err(|reason| refuse(format!("namespace: {reason}")))?,
            None => {}
        }
        part(name).map_err(&refuse)?;
        let normalised = match format {
            PackageFormat::Cargo => {
                only(
                    name,
                    1..=64,
                    |c| c.is_ascii_alphanumeric() || c == '-' || c == '_',
                    "letters, digits, - and _",
                )
                .map_err(&refuse)?;
                if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    return Err(refuse("it must start with a letter".into()));
                }
                name.to_owned()
            }
            PackageFormat::Npm => {
                if name.starts_with(['.', '_', '@']) || namespace.is_some_and(|scope| scope.starts_with('@'))
                {
                    return Err(refuse(
                        "write the scope without @, and the name without a leading . or _".into(),
                    ));
                }
                if name.chars().any(|c| c.is_uppercase()) {
                    return Err(refuse("it must be lower case".into()));
                }
                name.to_owned()
            }
            PackageFormat::Pypi => {
                only(
                    name,
                    1..=255,
                    |c| c.is_ascii_alphanumeric() || "._-".contains(c),
                    "letters, digits, ., _ and -",
                )
                .map_err(&refuse)?;
                let parts: Vec<&str> = name
                    .split(['.', '_', '-'])
                    .filter(|part| !part.is_empty())
                    .collect();
                if parts.is_empty() || name.starts_with(['.', '_', '-']) || name.ends_with(['.', '_', '-']) {
                    return Err(refuse("it must start and end with a letter or a digit".into()));
                }
                parts.join("-").to_ascii_lowercase()
            }
            PackageFormat::Nuget => name.to_ascii_lowercase(),
            _ => name.to_owned(),
        };
        Ok(Self {
            format,
            namespace: namespace.map(str::to_owned),
            name: normalised,
        })
    }

    /// A Rust crate.
    pub fn cargo(name: &str) -> Result<Self, ParseError> {
        Self::new(PackageFormat::Cargo, None, name)
    }

    /// The format.
    pub fn format(&self) -> PackageFormat {
        self.format
    }

    /// The namespace: Maven's group, npm's scope without `@`, Swift's scope, or a generic package's namespace.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This package at a version: up to 255 characters without `#`, `/` and white space.
    pub fn at(&self, version: &str) -> Result<PackageVersion, ParseError> {
        part(version).map_err(|reason| ParseError::new("package version", version, reason))?;
        Ok(PackageVersion {
            package: self.clone(),
            version: version.to_owned(),
        })
    }
}

/// What CodeArtifact allows in a namespace, a name and a version, whatever the format.
fn part(text: &str) -> Result<(), String> {
    only(
        text,
        1..=255,
        |c| !c.is_whitespace() && !c.is_control() && c != '#' && c != '/',
        "no white space, # or /",
    )
}

/// The characters that `purl-spec` lets stand unencoded.
const PURL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'-')
    .remove(b'_')
    .remove(b'~');

fn encode(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, PURL)
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
}

impl fmt::Display for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkg:{}/", self.format.purl_type())?;
        if let Some(namespace) = &self.namespace {
            let scope = if self.format == PackageFormat::Npm {
                "%40"
            } else {
                ""
            };
            write!(f, "{scope}{}/", encode(namespace))?;
        }
        write!(f, "{}", encode(&self.name))
    }
}

impl FromStr for PackageId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |reason: &str| ParseError::new("package URL", text, reason);
        let shape = || refuse("write it as pkg:format/name or pkg:format/namespace/name");
        let (kind, path) = text
            .strip_prefix("pkg:")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(shape)?;
        let format = PackageFormat::ALL
            .iter()
            .find(|(_, _, purl)| *purl == kind)
            .map(|(format, ..)| *format)
            .ok_or_else(|| {
                refuse("the format is not one of cargo, gem, generic, maven, npm, nuget, pypi, swift")
            })?;
        let (namespace, name) = match path.split_once('/') {
            Some((namespace, name)) => (Some(decode(namespace).ok_or_else(shape)?), name),
            None => (None, path),
        };
        let name = decode(name).ok_or_else(shape)?;
        let namespace = match (format, &namespace) {
            (PackageFormat::Npm, Some(scope)) => Some(
                scope
                    .strip_prefix('@')
                    .ok_or_else(|| refuse("an npm scope starts with %40"))?,
            ),
            (_, namespace) => namespace.as_deref(),
        };
        Self::new(format, namespace, &name)
    }
}

text_traits!(PackageId);

/// A package at one version.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PackageVersion {
    package: PackageId,
    version: String,
}

impl PackageVersion {
    /// The package.
    pub fn package(&self) -> &PackageId {
        &self.package
    }

    /// The version, as the format writes it.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl fmt::Display for PackageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.package, encode(&self.version))
    }
}

impl FromStr for PackageVersion {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = || ParseError::new("package version", text, "write it as pkg:format/name@version");
        let (package, version) = text.rsplit_once('@').ok_or_else(refuse)?;
        package
            .parse::<PackageId>()?
            .at(&decode(version).ok_or_else(refuse)?)
    }
}

text_traits!(PackageVersion);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normalised_as_their_format_says() {
        assert_eq!(
            PackageId::new(PackageFormat::Pypi, None, "Foo__Bar.baz")
                .unwrap()
                .name(),
            "foo-bar-baz"
        );
        assert_eq!(PackageId::cargo("Foo_bar").unwrap().name(), "Foo_bar");
        assert_eq!(
            PackageId::new(PackageFormat::Nuget, None, "Newtonsoft.Json")
                .unwrap()
                .name(),
            "newtonsoft.json"
        );
    }

    #[test]
    fn what_is_refused_says_why() {
        for (text, reason) in [
            ("serde", "pkg:format/name"),
            ("pkg:deb/x", "not one of"),
            ("pkg:cargo/1abc", "start with a letter"),
            ("pkg:cargo/a/b", "no namespaces"),
            ("pkg:maven/guava", "namespace is needed"),
            ("pkg:npm/scope/x", "%40"),
            ("pkg:npm/UI", "lower case"),
            ("pkg:generic/a/b%2Fc", "not allowed"),
        ] {
            let error = text.parse::<PackageId>().unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!("pkg:cargo/serde".parse::<PackageVersion>().is_err());
        assert!("pkg:cargo/serde@a%20b".parse::<PackageVersion>().is_err());
    }

    fn any_package() -> impl Strategy<Value = PackageId> {
        let free = "[^#/\\s\\p{C}]{1,20}";
        prop_oneof![
            "[A-Za-z][A-Za-z0-9_-]{0,63}".prop_map(|name| PackageId::cargo(&name).unwrap()),
            ("[a-z0-9-]{1,20}", "[a-z0-9~][a-z0-9._~-]{0,20}").prop_map(|(scope, name)| PackageId::new(
                PackageFormat::Npm,
                Some(&scope),
                &name
            )
            .unwrap()),
            (free, free).prop_map(|(a, b)| PackageId::new(PackageFormat::Maven, Some(&a), &b).unwrap()),
            (free, free).prop_map(|(a, b)| PackageId::new(PackageFormat::Generic, Some(&a), &b).unwrap()),
            "[a-z0-9]{1,9}([._-][a-z0-9]{1,9}){0,2}".prop_map(|name| PackageId::new(
                PackageFormat::Pypi,
                None,
                &name
            )
            .unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(package in any_package(), version in "[^#/\\s\\p{C}]{1,20}") {
            prop_assert_eq!(&package.to_string().parse::<PackageId>().unwrap(), &package);
            let version = package.at(&version).unwrap();
            prop_assert_eq!(version.to_string().parse::<PackageVersion>().unwrap(), version);
        }

        #[test]
        fn no_text_panics(text in "(pkg:[a-z]{0,8}/)?.*") {
            let _ = text.parse::<PackageId>();
            let _ = text.parse::<PackageVersion>();
        }
    }
}
