//! What lies behind `public:crates-io` in the lab: crates that were put there, and nothing else.

use super::cargo::archive::{self, CrateError};
use super::cargo::index;
use super::model::{Asset, ExternalConnection, Origin, Status, Version};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use towpath_core::PackageId;

/// The crates, by lower-case name: the index knows no other spelling.
#[derive(Debug, Default)]
pub(super) struct PublicCrates(BTreeMap<String, (PackageId, Vec<Version>)>);

impl PublicCrates {
    /// Takes a `.crate` file in, in place of one of the same name and version.
    pub(super) fn seed(&mut self, archive: Bytes) -> Result<(), CrateError> {
        let manifest = archive::manifest(&archive)?;
        let (name, version) = archive::identity(&manifest)?;
        let package = PackageId::cargo(&name)
            .map_err(|error| CrateError::new(format!("{name}-{version}"), error.to_string()))?;
        let asset = Asset::new(archive);
        let metadata = index::from_manifest(&manifest, asset.sha256.encoded())?;
        let connection = ExternalConnection::CRATES_IO.name().into();
        let mut new = Version::new(&version, Origin::External { connection }, metadata);
        new.add(&asset_name(&name, &version), asset);
        new.status = Status::Published;
        let (_, versions) = self
            .0
            .entry(name.to_ascii_lowercase())
            .or_insert_with(|| (package, Vec::new()));
        versions.retain(|known| known.version != version);
        versions.push(new);
        Ok(())
    }

    /// Takes the wanted crates from a Cargo home's download cache; returns those that are not there.
    pub(super) fn seed_from_cargo_home(
        &mut self,
        cargo_home: &Path,
        wanted: &[(String, String)],
    ) -> Result<Vec<(String, String)>, CrateError> {
        let cache = cargo_home.join("registry").join("cache");
        let broken = |error: std::io::Error| CrateError::new(cache.display().to_string(), error.to_string());
        let mut sources = Vec::new();
        for source in std::fs::read_dir(&cache).map_err(broken)? {
            sources.push(source.map_err(broken)?.path());
        }
        sources.sort();
        let mut missing = Vec::new();
        for (name, version) in wanted {
            let file = asset_name(name, version);
            match sources
                .iter()
                .map(|source| source.join(&file))
                .find(|path| path.is_file())
            {
                Some(path) => self.seed(std::fs::read(path).map_err(broken)?.into())?,
                None => missing.push((name.clone(), version.clone())),
            }
        }
        Ok(missing)
    }

    pub(super) fn versions(&self, package: &PackageId) -> &[Version] {
        match self.0.get(&package.name().to_ascii_lowercase()) {
            Some((spelled, versions)) if spelled == package => versions,
            _ => &[],
        }
    }

    /// The crate whose name is this in lower case.
    pub(super) fn spelled(&self, lower: &str) -> Option<&PackageId> {
        self.0.get(lower).map(|(package, _)| package)
    }
}

/// The file name of a crate's archive.
pub(super) fn asset_name(name: &str, version: &str) -> String {
    format!("{name}-{version}.crate")
}
