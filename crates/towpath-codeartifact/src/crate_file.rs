//! A `.crate` file: a gzipped tar with everything under `name-version/`, as `cargo package` makes it.

use crate::manifest::{Manifest, Metadata};
use flate2::read::GzDecoder;
use std::io::Read;
use std::path::Path;

/// The most that an archive may hold once unpacked.
const MAX_UNPACKED: u64 = 1024 * 1024 * 1024;
/// The most that a manifest or a readme may hold.
const MAX_TEXT: u64 = 8 * 1024 * 1024;

/// What is wrong with a `.crate` file: a fragment that says what.
pub(crate) type Flaw = String;

/// What Cargo's web API is told about a crate. `index` is the index it is published to, as `sparse+…`.
pub(crate) fn metadata(archive: &[u8], index: &str) -> Result<Metadata, Flaw> {
    let (root, text) = first_text(archive, |path| {
        path.components().count() == 2 && path.ends_with("Cargo.toml")
    })?
    .ok_or("there is no name-version/Cargo.toml in it")?;
    let manifest: Manifest =
        toml::from_str(&text).map_err(|error| format!("its Cargo.toml: {}", error.message()))?;
    if root != manifest.folder() {
        return Err(format!(
            "its Cargo.toml is of {}, and lies in {root}",
            manifest.folder()
        ));
    }
    let readme = match manifest.readme_file() {
        None => None,
        Some(file) => {
            let wanted = Path::new(&root).join(file);
            first_text(archive, |path| path == wanted)?.map(|(_, text)| text)
        }
    };
    manifest.into_metadata(index, readme)
}

/// The first file that is wanted, and the name of its top folder.
fn first_text(archive: &[u8], wanted: impl Fn(&Path) -> bool) -> Result<Option<(String, String)>, Flaw> {
    let broken = |error: std::io::Error| format!("it is not a gzipped tar archive: {error}");
    let mut tar = tar::Archive::new(GzDecoder::new(archive).take(MAX_UNPACKED));
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        if !wanted(&path) || !entry.header().entry_type().is_file() {
            continue;
        }
        let shown = path.display();
        let mut text = String::new();
        let read = (&mut entry).take(MAX_TEXT + 1).read_to_string(&mut text);
        let read = read.map_err(|error| format!("{shown} in it cannot be read: {error}"))?;
        if read as u64 > MAX_TEXT {
            return Err(format!("{shown} in it is larger than {MAX_TEXT} bytes"));
        }
        let root = path
            .components()
            .next()
            .map(|part| part.as_os_str().to_string_lossy().into_owned());
        return Ok(Some((root.unwrap_or_default(), text)));
    }
    Ok(None)
}
