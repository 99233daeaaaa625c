//! What CodeArtifact keeps: domains, repositories, packages, versions, assets. These are also what a test reads.
//!
//! Follows the data types of the CodeArtifact API reference.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use towpath_core::{Digest, PackageFormat, PackageId};

/// A domain: repositories that share their assets and their tokens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The ARN of the key that its assets would be encrypted with.
    pub encryption_key: String,
    /// Its repositories, by name.
    pub repositories: BTreeMap<String, Repository>,
}

/// A repository: packages of any format, and where else to look for them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// What its maker said about it.
    pub description: Option<String>,
    /// The repositories of the same domain that are searched after it, in order.
    pub upstreams: Vec<String>,
    /// The public repository that is searched last.
    pub external_connection: Option<ExternalConnection>,
    /// When it was made.
    pub created: Timestamp,
    /// Its packages.
    pub packages: BTreeMap<PackageId, Package>,
}

/// A public repository that CodeArtifact can fetch from. The lab has content for `public:crates-io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalConnection {
    name: &'static str,
    format: PackageFormat,
}

/// A package of a repository.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Package {
    /// How new versions may come.
    pub restrictions: Restrictions,
    /// Its versions, oldest first.
    pub versions: Vec<Version>,
}

/// How new versions of a package may come into a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restrictions {
    /// Whether they may be published to it.
    pub publish: bool,
    /// Whether they may come from an upstream or the external connection.
    pub upstream: bool,
}

/// A version of a package.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Version {
    /// The version, as its format writes it.
    pub version: String,
    /// Names exactly this set of assets and metadata.
    pub revision: String,
    /// What may be done with it.
    pub status: Status,
    /// When it came to the domain.
    pub published: Timestamp,
    /// Where it came from.
    pub origin: Origin,
    /// Its files, by name.
    pub assets: BTreeMap<String, Asset>,
    /// What its format says about it.
    pub metadata: Metadata,
}

/// The first entry of a version into the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// It was published to this repository.
    Internal {
        /// The repository.
        repository: String,
    },
    /// It was fetched through this external connection.
    External {
        /// The connection, such as `public:crates-io`.
        connection: String,
    },
}

/// A file of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asset {
    /// What is in it.
    pub bytes: Bytes,
    /// The SHA-256 of that.
    pub sha256: Digest,
}

/// What a package's own format says about a version; empty for generic packages.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// One line about it.
    pub summary: Option<String>,
    /// Its home page.
    pub home_page: Option<String>,
    /// Where its source is.
    pub source_repository: Option<String>,
    /// Its licence.
    pub license: Option<String>,
    /// For Cargo: its line in the index, without `yanked`.
    pub index_entry: Option<Value>,
}

/// What may be done with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// It is listed and can be fetched.
    Published,
    /// Its assets are not all there yet.
    Unfinished,
    /// It can be fetched, but is not offered. Cargo says "yanked".
    Unlisted,
    /// It cannot be fetched, but can be brought back.
    Archived,
    /// Its assets are gone.
    Disposed,
}

impl ExternalConnection {
    const ALL: [Self; 10] = [
        Self::to("public:npmjs", PackageFormat::Npm),
        Self::to("public:nuget-org", PackageFormat::Nuget),
        Self::to("public:pypi", PackageFormat::Pypi),
        Self::to("public:maven-central", PackageFormat::Maven),
        Self::to("public:maven-googleandroid", PackageFormat::Maven),
        Self::to("public:maven-gradleplugins", PackageFormat::Maven),
        Self::to("public:maven-commonsware", PackageFormat::Maven),
        Self::to("public:maven-clojars", PackageFormat::Maven),
        Self::to("public:ruby-gems-org", PackageFormat::Ruby),
        Self::CRATES_IO,
    ];
    /// The public registry of Rust crates.
    pub const CRATES_IO: Self = Self::to("public:crates-io", PackageFormat::Cargo);

    const fn to(name: &'static str, format: PackageFormat) -> Self {
        Self { name, format }
    }

    /// The connection of this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|connection| connection.name == name)
    }

    /// Its name, such as `public:crates-io`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The format of what it brings.
    pub fn format(&self) -> PackageFormat {
        self.format
    }
}

impl Restrictions {
    /// What a package starts with whose first version was published here.
    pub(crate) const PUBLISHED: Self = Self {
        publish: true,
        upstream: false,
    };
    /// What one starts with whose first version came through an upstream or the external connection.
    pub(crate) const INGESTED: Self = Self {
        publish: false,
        upstream: true,
    };

    /// What one starts with whose first version was copied here: as where the version came into the domain.
    pub(crate) fn copied(origin: &Origin) -> Self {
        match origin {
            Origin::Internal { .. } => Self::PUBLISHED,
            Origin::External { .. } => Self::INGESTED,
        }
    }
}

impl Package {
    /// A version of it.
    pub fn version(&self, version: &str) -> Option<&Version> {
        self.versions.iter().find(|known| known.version == version)
    }
}

impl Version {
    pub(crate) fn new(version: &str, origin: Origin, metadata: Metadata) -> Self {
        Self {
            version: version.into(),
            revision: String::new(),
            status: Status::Unfinished,
            published: Timestamp::now(),
            origin,
            assets: BTreeMap::new(),
            metadata,
        }
    }

    /// Adds an asset, which makes another revision.
    pub(crate) fn add(&mut self, name: &str, asset: Asset) {
        self.assets.insert(name.into(), asset);
        let mut hasher = towpath_core::Hasher::sha256();
        hasher.update(self.version.as_bytes());
        for (name, asset) in &self.assets {
            hasher.update(&[0]);
            hasher.update(name.as_bytes());
            hasher.update(asset.sha256.encoded().as_bytes());
        }
        self.revision = hasher.finish().encoded().to_ascii_uppercase();
    }
}

impl Asset {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self {
            sha256: Digest::sha256_of(&bytes),
            bytes,
        }
    }
}

impl Status {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Published, "Published"),
        (Self::Unfinished, "Unfinished"),
        (Self::Unlisted, "Unlisted"),
        (Self::Archived, "Archived"),
        (Self::Disposed, "Disposed"),
    ];

    /// Whether its assets may be fetched.
    pub(crate) fn is_readable(self) -> bool {
        matches!(self, Self::Published | Self::Unlisted | Self::Unfinished)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(status, _)| status == self)
            .map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Status {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(status, _)| *status)
            .ok_or(())
    }
}
