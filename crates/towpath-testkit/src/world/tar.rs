//! A layer of an image: the files below a folder as a POSIX ustar archive, the same bytes every time.

use super::refusal;
use std::path::{Path, PathBuf};
use towpath_elements::registry::{Files, FilesFrom, Platform};
use towpath_elements::{Error, ErrorKind, Result};

const BLOCK: usize = 512;

/// The files of a layer for a platform. Times and owners are as the layer says, the order is by path.
pub(super) fn of_files(files: &Files, platform: Option<&Platform>) -> Result<Vec<u8>> {
    let from = match &files.from {
        FilesFrom::Everywhere(from) => from,
        FilesFrom::PerPlatform(all) => {
            let mine = all.iter().find(|(named, _)| Some(named) == platform);
            mine.map(|(_, from)| from).ok_or_else(|| {
                let detail = format!(
                    "there are none for {}",
                    platform.map_or_else(String::new, ToString::to_string)
                );
                refusal(ErrorKind::Invalid, "put files at", &files.to, detail)
            })?
        }
    };
    files.check_patterns()?;
    let unreadable = |path: &Path, source: std::io::Error| -> Error {
        refusal(
            ErrorKind::Invalid,
            "read the layer's files in",
            path.display(),
            "they cannot be read",
        )
        .caused_by(source)
    };
    let to = files.to.trim_matches('/');
    let mut found = Vec::new();
    if from.is_file() {
        let name = match files.to.ends_with('/') {
            true => format!("{to}/{}", from.file_name().unwrap_or_default().to_string_lossy()),
            false => to.to_owned(),
        };
        found.push((name, from.clone()));
    } else {
        collect(from, "", files, &mut found).map_err(|error| unreadable(from, error))?;
        for (name, _) in &mut found {
            *name = format!("{to}/{name}");
        }
    }
    found.sort();
    let mut archive = Vec::new();
    for (name, path) in found {
        let bytes = std::fs::read(&path).map_err(|error| unreadable(&path, error))?;
        let name = name.trim_start_matches('/');
        let header = header(name, bytes.len(), files).ok_or_else(|| {
            refusal(
                ErrorKind::Invalid,
                "put into a layer",
                name,
                "the path is longer than 100 bytes, or a number too large for a ustar header",
            )
        })?;
        archive.extend_from_slice(&header);
        archive.extend_from_slice(&bytes);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

/// The files below a folder that are not left out, each with its path below the first one.
fn collect(
    folder: &Path,
    below: &str,
    files: &Files,
    found: &mut Vec<(String, PathBuf)>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if files.excludes(&name) {
            continue;
        }
        match entry.path().is_dir() {
            true => collect(&entry.path(), &format!("{name}/"), files, found)?,
            false => found.push((name, entry.path())),
        }
    }
    Ok(())
}

fn header(name: &str, size: usize, files: &Files) -> Option<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    if name.len() > 100 {
        return None;
    }
    put(0, name);
    let (user, group) = files.owner.unwrap_or_default();
    let modified = files.modified.map_or(0, |modified| modified.as_second());
    put(100, &octal(files.file_mode.unwrap_or(0o755).into(), 7)?);
    put(108, &octal(user.into(), 7)?);
    put(116, &octal(group.into(), 7)?);
    put(124, &format!("{size:011o}"));
    put(136, &octal(u64::try_from(modified).ok()?, 11)?);
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    header[148..156].copy_from_slice(sum.as_bytes());
    Some(header)
}

/// A number in so many octal digits; `None` where it needs more.
fn octal(number: u64, digits: usize) -> Option<String> {
    let text = format!("{number:0digits$o}");
    (text.len() == digits).then_some(text)
}
