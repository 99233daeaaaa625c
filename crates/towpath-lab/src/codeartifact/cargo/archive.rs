//! `.crate` files: gzipped tar archives with everything under `name-version/`.

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

/// How much of an archive is unpacked in search of its manifest.
const MAX_UNPACKED: u64 = 1 << 30;
/// A manifest larger than this is not one.
const MAX_MANIFEST: u64 = 1 << 20;
/// The modification time of every packed file, so that the same files give the same bytes.
const MODIFIED: u64 = 1_000_000_000;

/// Why something is no crate. Says which file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{what} is not a crate that a registry can take: {reason}")]
pub struct CrateError {
    what: String,
    reason: String,
}

impl CrateError {
    pub(crate) fn new(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

/// The name and the version that a manifest gives its package.
pub(crate) fn identity(manifest: &toml::Table) -> Result<(String, String), CrateError> {
    let field = |field: &str| {
        let value = manifest
            .get("package")
            .and_then(|package| package.get(field))
            .and_then(toml::Value::as_str);
        value
            .map(str::to_owned)
            .ok_or_else(|| CrateError::new("Cargo.toml", format!("[package] has no text in `{field}`")))
    };
    Ok((field("name")?, field("version")?))
}

/// The manifest in a `.crate` file, which must lie in the folder that its own name and version say.
pub(crate) fn manifest(archive: &[u8]) -> Result<toml::Table, CrateError> {
    let broken = |error: std::io::Error| CrateError::new("the archive", error.to_string());
    let mut tar = tar::Archive::new(GzDecoder::new(archive).take(MAX_UNPACKED));
    for entry in tar.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let parts: Vec<Component<'_>> = path.components().collect();
        let [Component::Normal(folder), Component::Normal(file)] = parts[..] else {
            continue;
        };
        if file != "Cargo.toml" {
            continue;
        }
        let mut text = String::new();
        entry
            .take(MAX_MANIFEST)
            .read_to_string(&mut text)
            .map_err(broken)?;
        let manifest: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| CrateError::new("Cargo.toml", error.message()))?;
        let (name, version) = identity(&manifest)?;
        if folder != format!("{name}-{version}").as_str() {
            return Err(CrateError::new(
                "the archive",
                format!("it holds {} in {}", name, path.display()),
            ));
        }
        return Ok(manifest);
    }
    Err(CrateError::new(
        "the archive",
        "there is no name-version/Cargo.toml in it",
    ))
}

/// Packs source files, with paths relative to the crate's root, as `cargo package` would name them.
pub(crate) fn pack(files: &[(&str, &[u8])]) -> Result<Bytes, CrateError> {
    let manifest = files
        .iter()
        .find(|(path, _)| *path == "Cargo.toml")
        .ok_or_else(|| CrateError::new("the source", "there is no Cargo.toml in it"))?;
    let manifest: toml::Table = String::from_utf8_lossy(manifest.1)
        .parse()
        .map_err(|error: toml::de::Error| CrateError::new("Cargo.toml", error.message()))?;
    let (name, version) = identity(&manifest)?;
    let broken = |error: std::io::Error| CrateError::new(format!("{name}-{version}"), error.to_string());
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(MODIFIED);
        tar.append_data(&mut header, format!("{name}-{version}/{path}"), *bytes)
            .map_err(broken)?;
    }
    let mut gzip = tar.into_inner().map_err(broken)?;
    gzip.flush().map_err(broken)?;
    Ok(gzip.finish().map_err(broken)?.into())
}

/// Packs a folder of source, without `target` and hidden files.
pub(crate) fn pack_folder(root: &Path) -> Result<Bytes, CrateError> {
    let mut files = Vec::new();
    collect(root, PathBuf::new(), &mut files)?;
    files.sort();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
        .collect();
    pack(&files)
}

fn collect(root: &Path, below: PathBuf, files: &mut Vec<(String, Vec<u8>)>) -> Result<(), CrateError> {
    let folder = root.join(&below);
    let broken = |error: std::io::Error| CrateError::new(folder.display().to_string(), error.to_string());
    for entry in std::fs::read_dir(&folder).map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let name = entry.file_name().into_string().map_err(|name| {
            CrateError::new(
                folder.display().to_string(),
                format!("the file name {name:?} is not UTF-8"),
            )
        })?;
        if name.starts_with('.') || (below.as_os_str().is_empty() && name == "target") {
            continue;
        }
        if entry.file_type().map_err(broken)?.is_dir() {
            collect(root, below.join(&name), files)?;
        } else {
            let bytes = std::fs::read(entry.path()).map_err(broken)?;
            let path: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
            let path = if path.is_empty() {
                name
            } else {
                format!("{}/{name}", path.join("/"))
            };
            files.push((path, bytes));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &[u8] = b"[package]\nname = \"a\"\nversion = \"1.0.0\"\n";

    #[test]
    fn what_is_packed_is_read_and_the_same_files_give_the_same_bytes() {
        let files: [(&str, &[u8]); 2] = [("Cargo.toml", MANIFEST), ("src/lib.rs", b"")];
        let packed = pack(&files).unwrap();
        assert_eq!(
            identity(&manifest(&packed).unwrap()).unwrap(),
            ("a".into(), "1.0.0".into())
        );
        assert_eq!(packed, pack(&files).unwrap());
    }

    #[test]
    fn what_is_no_crate_is_refused() {
        for bytes in [
            &b""[..],
            b"not gzip",
            &pack(&[("Cargo.toml", MANIFEST)]).unwrap()[..20],
        ] {
            assert!(manifest(bytes).is_err());
        }
        assert!(pack(&[("src/lib.rs", b"")]).is_err());
        assert!(pack(&[("Cargo.toml", b"[package")]).is_err());
    }
}
