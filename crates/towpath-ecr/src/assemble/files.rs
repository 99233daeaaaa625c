//! Files of this machine as a layer: what is read, in which order, and what has no place in an image.

use super::pack::{Look, PackedLayer, Packer};
use super::{SERVICE, invalid};
use crate::platform;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use towpath_elements::registry::{Assembly, Compression, Files, FilesFrom, Layer, Platform};
use towpath_elements::{Error, ErrorKind, Result};

/// The layers of files of an assembly, each packed once however many platforms have it.
pub(super) struct Packed(HashMap<Files, PackedLayer>);

impl Packed {
    /// Packs what these platforms need, as many at once as there are processors.
    pub(super) async fn of(assembly: &Assembly, platforms: &[Platform]) -> Result<Self> {
        let mut wanted = Vec::new();
        for layer in &assembly.layers {
            let Layer::Files(files) = layer else { continue };
            for platform in platforms {
                let files = on_platform(files, platform, assembly.compression)?;
                if !wanted.contains(&files) {
                    wanted.push(files);
                }
            }
        }
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let packed = stream::iter(wanted)
            .map(|files| async move { Ok::<_, Error>((files.clone(), pack(files).await?)) })
            .buffered(at_once)
            .try_collect()
            .await?;
        Ok(Self(packed))
    }

    /// What a layer of files is for a platform.
    pub(super) fn layer(
        &self,
        files: &Files,
        platform: &Platform,
        assembly: &Assembly,
    ) -> Result<&PackedLayer> {
        let files = on_platform(files, platform, assembly.compression)?;
        self.0
            .get(&files)
            .ok_or_else(|| invalid("pack", &files.to).because(format!("it was not packed for {platform}")))
    }
}

/// The same files with one place that they come from.
fn on_platform(files: &Files, platform: &Platform, compression: Compression) -> Result<Files> {
    let from = match &files.from {
        FilesFrom::Everywhere(from) => from,
        FilesFrom::PerPlatform(all) => {
            let mine = all.iter().find(|(named, _)| named == platform);
            let near = || all.iter().find(|(named, _)| platform::matches(named, platform));
            mine.or_else(near).map(|(_, from)| from).ok_or_else(|| {
                invalid("put files at", format!("{:?}", files.to))
                    .because(format!("there are none for {platform}"))
                    .advise("name a folder or a file for every platform that is made")
            })?
        }
    };
    let mut files = files.clone();
    files.from = FilesFrom::Everywhere(from.clone());
    files.compression = Some(files.compression.unwrap_or(compression));
    Ok(files)
}

async fn pack(files: Files) -> Result<PackedLayer> {
    let subject = files.to.clone();
    tokio::task::spawn_blocking(move || pack_now(&files))
        .await
        .map_err(|error| Error::new(ErrorKind::Unavailable, SERVICE, "pack", subject).caused_by(error))?
}

fn pack_now(files: &Files) -> Result<PackedLayer> {
    let FilesFrom::Everywhere(root) = &files.from else {
        return Err(invalid("pack", &files.to).because("the platform is not known"));
    };
    files.check_patterns()?;
    let prefix = image_path(&files.to)?;
    let look = look(files)?;
    let found = fs::metadata(root).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse(root)
            .because("there is no such folder or file")
            .advise("check the path; it is read on the machine that assembles"),
        _ => unreadable(root)(error),
    })?;
    let packer = Packer::new(files.compression.unwrap_or_default(), look).map_err(unreadable(root))?;
    let mut tree = Tree {
        root,
        prefix,
        files,
        packer,
    };
    if found.is_dir() {
        if !tree.prefix.is_empty() {
            let target = tree.prefix.clone();
            tree.packer.directory(&target).map_err(unreadable(root))?;
        }
        tree.walk()?;
    } else if found.is_file() {
        tree.single(&found)?;
    } else {
        return Err(refuse(root).because("it is a device, a socket or a pipe"));
    }
    tree.packer.finish().map_err(unreadable(root))
}

fn refuse(path: &Path) -> Error {
    invalid("pack", path.display())
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let error = refuse(path);
    move |cause| error.because(cause.to_string()).caused_by(cause)
}

/// The path in the image, relative to its root.
fn image_path(to: &str) -> Result<String> {
    let bad = |detail: &str| invalid("put files at", format!("{to:?}")).because(detail.to_owned());
    if !to.starts_with('/') {
        return Err(bad("the path in the image must be absolute"));
    }
    let names: Vec<&str> = to.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    for name in &names {
        if *name == ".." {
            return Err(bad("the path must not have .."));
        }
        if is_whiteout(name) {
            return Err(bad("a name that begins with .wh. deletes files of the base"));
        }
    }
    Ok(names.join("/"))
}

fn look(files: &Files) -> Result<Look> {
    let bad = |detail: String| invalid("put files at", format!("{:?}", files.to)).because(detail);
    for mode in [files.file_mode, files.folder_mode].into_iter().flatten() {
        if mode > 0o7777 {
            return Err(bad(format!("{mode:o} is no mode: it has at most four digits")));
        }
    }
    let modified = files.modified.map_or(0, |modified| modified.as_second());
    Ok(Look {
        owner: files.owner.unwrap_or_default(),
        file_mode: files.file_mode,
        folder_mode: files.folder_mode,
        modified: u64::try_from(modified)
            .map_err(|_| bad("a time before 1970 has no place in a tar".into()))?,
    })
}

/// A folder or file on its way into a layer.
struct Tree<'a> {
    root: &'a Path,
    /// Where it lies in the image.
    prefix: String,
    files: &'a Files,
    packer: Packer,
}

impl Tree<'_> {
    /// Adds everything below the folder, by name. Folders wait on a list, not on the stack: they may be nested deep.
    fn walk(&mut self) -> Result<()> {
        let mut open = vec![(String::new(), self.names("")?)];
        while let Some((folder, names)) = open.last_mut() {
            let Some(name) = names.pop_first() else {
                open.pop();
                continue;
            };
            let Some(name) = name.to_str() else {
                return Err(refuse(&self.root.join(folder).join(&name)).because("its name is not UTF-8"));
            };
            let below = join(folder, name);
            if self.files.excludes(&below) {
                continue;
            }
            let path = self.root.join(&below);
            if is_whiteout(name) {
                return Err(refuse(&path).because("a name that begins with .wh. deletes files of the base"));
            }
            let found = fs::symlink_metadata(&path).map_err(unreadable(&path))?;
            let target = join(&self.prefix, &below);
            let kind = found.file_type();
            if kind.is_dir() {
                self.packer.directory(&target).map_err(unreadable(&path))?;
                let names = self.names(&below)?;
                open.push((below, names));
            } else if kind.is_file() {
                self.file(&path, &target, &found)?;
            } else if kind.is_symlink() {
                self.link(&path, &target, &below)?;
            } else {
                return Err(refuse(&path).because("it is a device, a socket or a pipe"));
            }
        }
        Ok(())
    }

    fn names(&self, below: &str) -> Result<BTreeSet<OsString>> {
        let folder = self.root.join(below);
        let entries = fs::read_dir(&folder).map_err(unreadable(&folder))?;
        entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()
            .map_err(unreadable(&folder))
    }

    /// The root itself, which is a file.
    fn single(&mut self, found: &Metadata) -> Result<()> {
        let path = self.root;
        if !self.files.exclude.is_empty() {
            return Err(refuse(path).because("of a single file nothing can be left out"));
        }
        let target = match self.files.to.ends_with('/') {
            false => self.prefix.clone(),
            true => {
                let name = path.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| refuse(path).because("its name is not UTF-8"))?;
                if is_whiteout(name) {
                    return Err(
                        refuse(path).because("a name that begins with .wh. deletes files of the base")
                    );
                }
                join(&self.prefix, name)
            }
        };
        self.file(path, &target, found)
    }

    fn file(&mut self, path: &Path, target: &str, seen: &Metadata) -> Result<()> {
        let changed = || refuse(path).because("it changed while it was read");
        let file = File::open(path).map_err(unreadable(path))?;
        // Of the file that was opened, which is the one that is read: a link may have taken its place since.
        let found = file.metadata().map_err(unreadable(path))?;
        if !found.is_file() || !is_same(seen, &found) {
            return Err(changed());
        }
        let missing = self
            .packer
            .file(target, is_executable(&found), found.len(), &file)
            .map_err(unreadable(path))?;
        if missing > 0 {
            return Err(refuse(path).because("it became shorter while it was read"));
        }
        let after = file.metadata().map_err(unreadable(path))?;
        if after.len() != found.len() || after.modified().ok() != found.modified().ok() {
            return Err(changed());
        }
        Ok(())
    }

    fn link(&mut self, path: &Path, target: &str, below: &str) -> Result<()> {
        let to = fs::read_link(path).map_err(unreadable(path))?;
        if !stays_inside(Path::new(&self.prefix), Path::new(below), &to) {
            return Err(refuse(path)
                .because(format!("it is a link to {}, outside of the folder", to.display()))
                .advise("replace the link by what it points to"));
        }
        let Some(to) = to.to_str() else {
            return Err(refuse(path).because("what it points to is not UTF-8"));
        };
        self.packer.link(target, to).map_err(unreadable(path))
    }
}

fn join(folder: &str, name: &str) -> String {
    match folder.is_empty() {
        true => name.to_owned(),
        false => format!("{folder}/{name}"),
    }
}

fn is_whiteout(name: &str) -> bool {
    name.starts_with(".wh.")
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

#[cfg(unix)]
fn is_executable(found: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    found.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_found: &Metadata) -> bool {
    true
}

#[cfg(unix)]
fn is_same(seen: &Metadata, opened: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (seen.dev(), seen.ino()) == (opened.dev(), opened.ino())
}

#[cfg(not(unix))]
fn is_same(seen: &Metadata, opened: &Metadata) -> bool {
    seen.len() == opened.len()
}

#[cfg(unix)]
#[cfg(test)]
mod tests;
