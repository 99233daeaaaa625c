//! A layer of an image: the files below a folder as a POSIX ustar archive, the same bytes every time.

use super::refusal;
use std::path::{Path, PathBuf};
use towpath_elements::{Error, ErrorKind, Result};

const BLOCK: usize = 512;

/// The files below `from`, put below `to`. Times and owners are zero, the order is by path.
pub(super) fn of_folder(from: &Path, to: &str) -> Result<Vec<u8>> {
    let unreadable = |path: &Path, source: std::io::Error| -> Error {
        refusal(
            ErrorKind::Invalid,
            "read the layer's files in",
            path.display(),
            "they cannot be read",
        )
        .caused_by(source)
    };
    let mut files = Vec::new();
    collect(from, &mut files).map_err(|error| unreadable(from, error))?;
    files.sort();
    let mut archive = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).map_err(|error| unreadable(&file, error))?;
        let below = file.strip_prefix(from).unwrap_or(&file).to_string_lossy();
        let name = format!("{}/{below}", to.trim_matches('/'));
        let name = name.trim_start_matches('/');
        let header = header(name, bytes.len()).ok_or_else(|| {
            refusal(
                ErrorKind::Invalid,
                "put into a layer",
                name,
                "the path is longer than 100 bytes",
            )
        })?;
        archive.extend_from_slice(&header);
        archive.extend_from_slice(&bytes);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn header(name: &str, size: usize) -> Option<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    if name.len() > 100 {
        return None;
    }
    put(0, name);
    put(100, "0000755");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    header[148..156].copy_from_slice(sum.as_bytes());
    Some(header)
}
