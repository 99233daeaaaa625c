//! A folder as a layer, the same bytes every time: entries sorted, times zero, owner root, modes 0755 and 0644, gzip
//! with a fixed header (*OCI Image Format Specification*, `layer.md`).

use super::{SERVICE, invalid};
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};
use tar::{EntryType, Header};
use tempfile::{NamedTempFile, TempPath};
use towpath_core::{Digest, Hasher};
use towpath_elements::{Error, ErrorKind, Result};

/// A layer in a temporary file, which goes with this value.
#[derive(Debug)]
pub(super) struct PackedLayer {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// The digest of the tar inside.
    pub(super) diff_id: Digest,
    file: TempPath,
}

impl PackedLayer {
    pub(super) fn path(&self) -> &Path {
        &self.file
    }
}

/// Packs a folder so that it lies at `to` in the image. Memory is bounded whatever the folder holds.
pub(super) async fn pack(from: PathBuf, to: String) -> Result<PackedLayer> {
    let subject = from.display().to_string();
    tokio::task::spawn_blocking(move || pack_now(&from, &to))
        .await
        .map_err(|error| Error::new(ErrorKind::Unavailable, SERVICE, "pack", subject).caused_by(error))?
}

fn pack_now(from: &Path, to: &str) -> Result<PackedLayer> {
    let prefix = image_path(to)?;
    let found = fs::metadata(from).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse(from)
            .because("there is no such folder")
            .advise("check the path; it is read on the machine that assembles"),
        _ => unreadable(from)(error),
    })?;
    if !found.is_dir() {
        return Err(refuse(from)
            .because("it is not a folder")
            .advise("name the folder that holds the file"));
    }
    let file = NamedTempFile::new().map_err(unreadable(from))?;
    let compressed = Hashing::new(BufWriter::new(file));
    let gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(compressed, Compression::new(6));
    let mut layer = Folder {
        root: from,
        prefix: &prefix,
        tar: tar::Builder::new(Hashing::new(gzip)),
    };
    if !prefix.as_os_str().is_empty() {
        layer.directory(&prefix)?;
    }
    layer.add(Path::new(""))?;
    layer.finish()
}

fn refuse(path: &Path) -> Error {
    invalid("pack", path.display())
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let error = refuse(path);
    move |cause| error.because(cause.to_string()).caused_by(cause)
}

/// The path in the image, relative to its root.
fn image_path(to: &str) -> Result<PathBuf> {
    let bad = |detail: &str| invalid("put files at", format!("{to:?}")).because(detail.to_owned());
    if !to.starts_with('/') {
        return Err(bad("the path in the image must be absolute"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(to).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => path.push(part),
            Component::ParentDir | Component::Prefix(_) => return Err(bad("the path must not have ..")),
        }
    }
    Ok(path)
}

struct Folder<'a> {
    root: &'a Path,
    prefix: &'a Path,
    tar: tar::Builder<Hashing<GzEncoder<Hashing<BufWriter<NamedTempFile>>>>>,
}

impl Folder<'_> {
    /// Adds what is in a folder, by name.
    fn add(&mut self, below: &Path) -> Result<()> {
        let folder = self.root.join(below);
        let entries: io::Result<Vec<_>> = fs::read_dir(&folder)
            .map_err(unreadable(&folder))?
            .map(|entry| Ok(entry?.file_name()))
            .collect();
        let mut names = entries.map_err(unreadable(&folder))?;
        names.sort_unstable();
        for name in names {
            let below = below.join(&name);
            let path = self.root.join(&below);
            if is_whiteout(&name) {
                return Err(refuse(&path).because("a name that begins with .wh. deletes files of the base"));
            }
            let found = fs::symlink_metadata(&path).map_err(unreadable(&path))?;
            let target = self.prefix.join(&below);
            let kind = found.file_type();
            if kind.is_dir() {
                self.directory(&target)?;
                self.add(&below)?;
            } else if kind.is_file() {
                self.file(&path, &target)?;
            } else if kind.is_symlink() {
                self.link(&path, &target, &below)?;
            } else {
                return Err(refuse(&path).because("it is a device, a socket or a pipe"));
            }
        }
        Ok(())
    }

    fn directory(&mut self, target: &Path) -> Result<()> {
        let mut header = header(EntryType::Directory, 0o755, 0);
        self.tar
            .append_data(&mut header, target, io::empty())
            .map_err(unreadable(target))
    }

    fn file(&mut self, path: &Path, target: &Path) -> Result<()> {
        let file = File::open(path).map_err(unreadable(path))?;
        // Of the file that was opened, which is the one that is read.
        let found = file.metadata().map_err(unreadable(path))?;
        if !found.is_file() {
            return Err(refuse(path).because("it changed while it was read"));
        }
        let mut header = header(EntryType::Regular, mode(&found), found.len());
        let mut content = file.take(found.len());
        self.tar
            .append_data(&mut header, target, &mut content)
            .map_err(unreadable(path))?;
        if content.limit() != 0 {
            return Err(refuse(path).because("it became shorter while it was read"));
        }
        Ok(())
    }

    fn link(&mut self, path: &Path, target: &Path, below: &Path) -> Result<()> {
        let to = fs::read_link(path).map_err(unreadable(path))?;
        if !stays_inside(self.prefix, below, &to) {
            return Err(refuse(path)
                .because(format!("it is a link to {}, outside of the folder", to.display()))
                .advise("replace the link by what it points to"));
        }
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.tar
            .append_link(&mut header, target, &to)
            .map_err(unreadable(path))
    }

    fn finish(self) -> Result<PackedLayer> {
        let root = self.root;
        let tar = self.tar.into_inner().map_err(unreadable(root))?;
        let diff_id = tar.hasher.finish();
        let compressed = tar.inner.finish().map_err(unreadable(root))?;
        let (digest, size) = (compressed.hasher.finish(), compressed.bytes);
        let file = compressed
            .inner
            .into_inner()
            .map_err(|error| unreadable(root)(error.into_error()))?;
        Ok(PackedLayer {
            digest,
            size,
            diff_id,
            file: file.into_temp_path(),
        })
    }
}

fn is_whiteout(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".wh.")
}

/// Whether a link within the folder leads to a place within it, by its words alone. An absolute one counts in the
/// image, so it must lead below the place where the folder lies there.
fn stays_inside(prefix: &Path, below: &Path, to: &Path) -> bool {
    let start = match to.is_absolute() {
        true => PathBuf::new(),
        false => prefix.join(below.parent().unwrap_or(Path::new(""))),
    };
    let mut place = start;
    for component in to.components() {
        match component {
            Component::Normal(part) => place.push(part),
            Component::ParentDir if place.starts_with(prefix) && place != prefix => {
                place.pop();
            }
            Component::ParentDir if to.is_absolute() => {
                place.pop();
            }
            Component::ParentDir | Component::Prefix(_) => return false,
            Component::RootDir | Component::CurDir => {}
        }
    }
    place.starts_with(prefix)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

#[cfg(unix)]
fn mode(found: &Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    if found.permissions().mode() & 0o111 != 0 {
        0o755
    } else {
        0o644
    }
}

#[cfg(not(unix))]
fn mode(_found: &Metadata) -> u32 {
    0o755
}

/// Hashes and counts what is written through it.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::sha256(),
            bytes: 0,
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("b/c")).unwrap();
        fs::write(at("b/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(at("b/run"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(at("a.txt"), "hello").unwrap();
        fs::write(at(&"n".repeat(150)), "long name").unwrap();
        symlink("../a.txt", at("b/link")).unwrap();
        symlink("/srv/app/a.txt", at("b/absolute")).unwrap();
        folder
    }

    #[test]
    fn the_same_files_make_the_same_layer() {
        let (one, two) = (folder(), folder());
        fs::set_permissions(two.path().join("a.txt"), fs::Permissions::from_mode(0o600)).unwrap();
        let first = pack_now(one.path(), "/srv/app").unwrap();
        let second = pack_now(two.path(), "/srv/app").unwrap();
        assert_eq!((&first.digest, &first.diff_id), (&second.digest, &second.diff_id));

        let bytes = fs::read(first.path()).unwrap();
        assert_eq!(
            (bytes.len() as u64, Digest::sha256_of(&bytes)),
            (first.size, first.digest.clone())
        );
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(Digest::sha256_of(&plain), first.diff_id);
        let mut seen = Vec::new();
        for entry in tar::Archive::new(&plain[..]).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap()
                ),
                (0, 0, 0)
            );
            seen.push(format!(
                "{} {:o}",
                entry.path().unwrap().display(),
                header.mode().unwrap()
            ));
        }
        assert_eq!(
            seen,
            [
                "srv/app 755".to_owned(),
                "srv/app/a.txt 644".to_owned(),
                "srv/app/b 755".to_owned(),
                "srv/app/b/absolute 777".to_owned(),
                "srv/app/b/c 755".to_owned(),
                "srv/app/b/link 777".to_owned(),
                "srv/app/b/run 755".to_owned(),
                format!("srv/app/{} 644", "n".repeat(150)),
            ]
        );
    }

    #[test]
    fn what_is_refused_says_why() {
        let error = pack_now(Path::new("/no/such/folder"), "/app").unwrap_err();
        assert!(
            error.to_string().contains("/no/such/folder") && error.to_string().contains("no such folder")
        );
        let folder = tempfile::tempdir().unwrap();
        let with = |to: &str| pack_now(folder.path(), to).unwrap_err().to_string();
        assert!(with("app").contains("absolute"));
        assert!(with("/app/../etc").contains(".."));
        symlink("../../etc/passwd", folder.path().join("x")).unwrap();
        assert!(with("/app").contains("outside"));
        fs::remove_file(folder.path().join("x")).unwrap();
        fs::write(folder.path().join(".wh.etc"), "").unwrap();
        assert!(with("/app").contains(".wh."));
        fs::remove_file(folder.path().join(".wh.etc")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(with("/app").contains("socket"));
    }

    #[test]
    fn links_are_followed_by_their_words() {
        let inside =
            |below: &str, to: &str| stays_inside(Path::new("srv/app"), Path::new(below), Path::new(to));
        assert!(inside("a/b", "../c"));
        assert!(inside("a", "/srv/app/x/../y"));
        assert!(!inside("a", "../c"));
        assert!(!inside("a/b", "../../../app/c"));
        assert!(!inside("a", "/srv/other"));
        assert!(!inside("a", "/srv/app/../other"));
    }
}
