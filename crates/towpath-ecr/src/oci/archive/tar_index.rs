//! Where the files of a tar archive lie in it (POSIX.1-2017 *pax*, "ustar Interchange Format" and "pax Header Block";
//! GNU tar's long names). The archive is read once, headers only, and nothing is unpacked.
//!
//! The headers are read here and not by the `tar` crate's iterator, which takes a long name of any length into memory.

use super::{ARCHIVE, broken};
use crate::oci::range::{FileRange, blocking, failed};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};
use towpath_elements::{Error, ErrorKind, Result};

/// More entries than this are refused.
const MOST_ENTRIES: usize = 65_536;
/// The longest name, in bytes.
const LONGEST_NAME: usize = 1024;
/// All names together, in bytes.
const MOST_NAMES: usize = 16 << 20;
/// The longest extended header, in bytes.
const LONGEST_EXTENSION: u64 = 64 * 1024;
/// A link to a link, deeper than this, is refused.
const DEEPEST_LINK: usize = 8;
const BLOCK: u64 = 512;

/// The files of a tar archive, by name.
#[derive(Debug)]
pub(crate) struct TarIndex {
    path: PathBuf,
    entries: HashMap<String, Found>,
}

#[derive(Debug)]
pub(super) enum Found {
    File { start: u64, size: u64 },
    Link(String),
}

impl TarIndex {
    /// Reads the headers of an archive.
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        blocking(path.clone(), ARCHIVE, move || Self::open_now(path)).await
    }

    fn open_now(path: PathBuf) -> Result<Self> {
        let refuse = failed(ARCHIVE, "read", &path);
        let found = std::fs::metadata(&path).map_err(&refuse)?;
        if !found.is_file() {
            return Err(Error::new(ErrorKind::Invalid, ARCHIVE, "read", path.display())
                .because("it is not a file")
                .advise("name the archive; a folder is read as an OCI layout"));
        }
        let file = File::open(&path).map_err(&refuse)?;
        let entries = index(file, found.len(), &path.display().to_string())?;
        Ok(Self { path, entries })
    }

    /// The archive.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file lies; `None` where the archive has none of this name. Links within the archive are followed.
    pub(crate) fn find(&self, name: &str) -> Result<Option<FileRange>> {
        let mut at = name;
        for _ in 0..DEEPEST_LINK {
            match self.entries.get(at) {
                None if at == name => return Ok(None),
                None => return Err(self.broken(format!("{name} is a link to {at}, which is not there"))),
                Some(Found::File { start, size }) => {
                    return Ok(Some(FileRange {
                        path: self.path.clone(),
                        start: *start,
                        size: *size,
                    }));
                }
                Some(Found::Link(to)) => at = to,
            }
        }
        Err(self.broken(format!("{name} is a link that leads nowhere")))
    }

    fn broken(&self, detail: String) -> Error {
        broken(self.path.display()).because(detail)
    }
}

/// What extended headers say of the entry behind them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Reads all headers. The size of an entry counts only where the archive holds that much.
pub(super) fn index(mut tar: impl Read + Seek, length: u64, subject: &str) -> Result<HashMap<String, Found>> {
    let refuse = |detail: String| broken(subject).because(detail);
    let failed = failed(ARCHIVE, "read", Path::new(subject));
    let mut head = Vec::new();
    tar.by_ref().take(8).read_to_end(&mut head).map_err(&failed)?;
    refuse_compressed(&head, subject)?;
    let mut entries = HashMap::new();
    let mut extended = Extended::default();
    let mut at = 0;
    let (mut headers, mut names) = (0, 0);
    loop {
        if length.saturating_sub(at) < BLOCK {
            return Err(refuse(
                "it ends without the mark of an end: it was cut off".into(),
            ));
        }
        let mut block = [0; BLOCK as usize];
        tar.seek(SeekFrom::Start(at)).map_err(&failed)?;
        tar.read_exact(&mut block).map_err(&failed)?;
        if block == [0; BLOCK as usize] {
            return Ok(entries);
        }
        headers += 1;
        if headers > MOST_ENTRIES {
            return Err(refuse(format!("it has more than {MOST_ENTRIES} entries")));
        }
        let header = Header::from_byte_slice(&block);
        if header.cksum().ok() != Some(checksum(&block)) {
            return Err(refuse(match at {
                0 => "it is not a tar archive".into(),
                _ => format!("the header at byte {at} is damaged"),
            }));
        }
        let kind = header.entry_type();
        let start = at + BLOCK;
        let is_extension = matches!(
            kind,
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        );
        let own = header
            .entry_size()
            .map_err(|_| refuse(format!("the header at byte {at} has no size")))?;
        let size = match is_extension {
            true => own,
            false => extended.size.take().unwrap_or(own),
        };
        if size > length - start {
            return Err(refuse(format!(
                "the entry at byte {at} says it has {size} bytes, and {} are left: it was cut off or lies",
                length - start
            )));
        }
        // No overflow: the size is no larger than the archive, and that is a file's length.
        at = start + size.div_ceil(BLOCK) * BLOCK;
        if is_extension {
            if size > LONGEST_EXTENSION {
                return Err(refuse(format!("an extended header of {size} bytes")));
            }
            let mut bytes = vec![0; size as usize];
            tar.read_exact(&mut bytes).map_err(&failed)?;
            extend(&mut extended, kind, bytes).map_err(refuse)?;
            continue;
        }
        let Extended { path, link, .. } = std::mem::take(&mut extended);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let name = name(&path).map_err(refuse)?;
        let found = match kind {
            // What tar was before it had a type for folders.
            EntryType::Regular if path.ends_with(b"/") => continue,
            EntryType::Regular | EntryType::Continuous => Found::File { start, size },
            EntryType::Directory => continue,
            EntryType::Link | EntryType::Symlink => {
                let to = link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
                let to = to.unwrap_or_default();
                Found::Link(target(&name, &to, kind).map_err(refuse)?)
            }
            EntryType::GNUSparse => {
                return Err(unsupported(subject)
                    .because(format!("{name} is a sparse file"))
                    .advise("write the archive without --sparse"));
            }
            other => {
                return Err(refuse(format!(
                    "{name} is neither file, folder nor link (type {:?})",
                    char::from(other.as_byte())
                )));
            }
        };
        names += name.len() + if let Found::Link(to) = &found { to.len() } else { 0 };
        if names > MOST_NAMES {
            return Err(refuse(format!("its names have more than {MOST_NAMES} bytes")));
        }
        match entries.entry(name) {
            Entry::Occupied(taken) => {
                return Err(refuse(format!("{} is in it twice", taken.key())));
            }
            Entry::Vacant(free) => free.insert(found),
        };
    }
}

/// The names of files and links, and where the files lie.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn places(entries: &HashMap<String, Found>) -> impl Iterator<Item = (&str, std::ops::Range<u64>)> {
    entries.iter().map(|(name, found)| match found {
        Found::File { start, size } => (name.as_str(), *start..start + size),
        Found::Link(to) => (to.as_str(), 0..0),
    })
}

fn unsupported(subject: &str) -> Error {
    Error::new(ErrorKind::Unsupported, ARCHIVE, "read", subject)
}

/// A compressed archive has no places to read from. Unpacking it is left to the caller, who knows how much disk there is.
fn refuse_compressed(head: &[u8], subject: &str) -> Result<()> {
    let by = match head {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => "bzip2",
        _ => return Ok(()),
    };
    Err(unsupported(subject)
        .because(format!("it is compressed by {by}, and blobs are read in place"))
        .advise(format!("decompress it first: {by} -d")))
}

fn checksum(block: &[u8; BLOCK as usize]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    // The checksum's own field counts as eight spaces.
    sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..])
}

fn extend(extended: &mut Extended, kind: EntryType, mut bytes: Vec<u8>) -> Result<(), String> {
    let is_text = |bytes: &[u8]| bytes.iter().take_while(|byte| **byte != 0).count();
    match kind {
        EntryType::GNULongName | EntryType::GNULongLink => {
            bytes.truncate(is_text(&bytes));
            match kind {
                EntryType::GNULongName => extended.path = Some(bytes),
                _ => extended.link = Some(bytes),
            }
        }
        _ => {
            for (key, value) in pax_records(&bytes)? {
                match key {
                    b"path" | b"linkpath" | b"size" if kind == EntryType::XGlobalHeader => {
                        return Err("a global header gives all entries one name or size".into());
                    }
                    b"path" => extended.path = Some(value.to_vec()),
                    b"linkpath" => extended.link = Some(value.to_vec()),
                    b"size" => {
                        let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                        extended.size = Some(size.ok_or("an extended header has a size that is no number")?);
                    }
                    _ if key.starts_with(b"GNU.sparse.") => {
                        return Err("it has sparse files; write it without --sparse".into());
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// A key and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// `LENGTH KEY=VALUE\n`, where the length counts all of the record. A value may hold line ends.
fn pax_records(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, String> {
    const BROKEN: &str = "an extended header is damaged";
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes
            .iter()
            .take(20)
            .position(|byte| *byte == b' ')
            .ok_or(BROKEN)?;
        let length: usize = std::str::from_utf8(&bytes[..space])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(BROKEN)?;
        if length <= space + 1 || length > bytes.len() {
            return Err(BROKEN.into());
        }
        let record = bytes[space + 1..length].strip_suffix(b"\n").ok_or(BROKEN)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(BROKEN)?;
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Ok(records)
}

/// A name within the archive: relative, and without ways up.
fn name(bytes: &[u8]) -> Result<String, String> {
    if bytes.len() > LONGEST_NAME {
        return Err(format!("a name of {} bytes", bytes.len()));
    }
    let shown = format!("the name {:?}", String::from_utf8_lossy(bytes));
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Err(format!("{shown} has a zero byte")),
        Ok(text) if text.starts_with('/') => Err(format!("{shown} is absolute")),
        Ok(text) if text.split('/').any(|part| part == "..") => {
            Err(format!("{shown} leads out of the archive"))
        }
        Ok(text) => walk(Vec::new(), text).ok_or_else(|| format!("{shown} leads out of the archive")),
        Err(_) => Err(format!("{shown} is not UTF-8 text")),
    }
}

/// Where a link leads, as a name within the archive. A symbolic link starts from its own folder, a hard link from the top.
fn target(name: &str, to: &[u8], kind: EntryType) -> Result<String, String> {
    let shown = format!("{name} is a link to {:?}", String::from_utf8_lossy(to));
    let folder = match (kind, name.rsplit_once('/')) {
        (EntryType::Symlink, Some((folder, _))) => folder.split('/').collect(),
        _ => Vec::new(),
    };
    std::str::from_utf8(to)
        .ok()
        .filter(|text| !text.is_empty() && text.len() <= LONGEST_NAME && !text.contains('\0'))
        .filter(|text| !text.starts_with('/'))
        .and_then(|text| walk(folder, text))
        .ok_or_else(|| format!("{shown}, out of the archive"))
}

/// A path from a folder; `None` where it leads above the top.
fn walk<'a>(mut folder: Vec<&'a str>, path: &'a str) -> Option<String> {
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(folder.pop()?),
            part => folder.push(part),
        }
    }
    Some(folder.join("/"))
}
