//! Writing an OCI image layout so that every file in it is whole at every moment: a file appears under its name by one
//! rename, and the list of images is changed under a lock.

use super::read::{INDEX, MARK, VERSION, check_mark, read_index};
use super::{LAYOUT, REF_NAME, broken};
use crate::oci::copy::digest_of;
use crate::oci::range::{blocking, failed};
use crate::oci::{BlobStream, LARGEST_MANIFEST, Manifest, media};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind as Io, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use towpath_core::Digest;
use towpath_elements::{Error, ErrorKind, Result};

/// How the name of a file begins that is being written. It lies beside its target, so that a rename is enough.
pub(crate) const UNFINISHED: &str = ".towpath-";
/// How long another writer may hold the list of images: it takes milliseconds.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// Makes a folder a layout, where it is none yet.
pub(crate) fn create(root: &Path) -> Result<()> {
    let refuse = unwritable(root);
    fs::create_dir_all(root.join("blobs").join("sha256")).map_err(&refuse)?;
    match fs::read(root.join(MARK)) {
        Ok(mark) => return check_mark(&mark, &root.join(MARK).display().to_string()),
        Err(error) if error.kind() == Io::NotFound => {}
        Err(error) => return Err(unreadable(&root.join(MARK))(error)),
    }
    let empty = json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [] });
    // The mark comes last: what has it has the list too.
    for (name, content) in [(INDEX, empty), (MARK, json!({ "imageLayoutVersion": VERSION }))] {
        let file = written(root, &crate::json::canonical(content)?).map_err(&refuse)?;
        match file.persist_noclobber(root.join(name)) {
            Ok(_) => {}
            // Another writer was first.
            Err(error) if error.error.kind() == Io::AlreadyExists => {}
            Err(error) => return Err(refuse(error.error)),
        }
    }
    Ok(())
}

/// Refuses a folder that holds something else: a layout is not made among other files.
pub(crate) fn check_vacant(root: &Path) -> Result<()> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == Io::NotFound => return Ok(()),
        Err(error) => return Err(unwritable(root)(error)),
    };
    let mut foreign = None;
    for entry in entries {
        let name = entry.map_err(unwritable(root))?.file_name();
        match name.to_str() {
            Some(MARK) => return Ok(()),
            // What another writer has made of it so far.
            Some("blobs" | INDEX) => {}
            Some(name) if name.starts_with(UNFINISHED) => {}
            _ => foreign = Some(name),
        }
    }
    match foreign {
        None => Ok(()),
        Some(name) => Err(Error::new(ErrorKind::Conflict, LAYOUT, "write", root.display())
            .because(format!("it holds {} and is no layout", name.display()))
            .advise("name an empty folder, or one that is not there yet")),
    }
}

/// Writes a file whole, under its name at once.
pub(crate) async fn store(target: PathBuf, bytes: bytes::Bytes) -> Result<()> {
    blocking(target.clone(), LAYOUT, move || store_now(&target, &bytes)).await
}

fn store_now(target: &Path, bytes: &[u8]) -> Result<()> {
    let refuse = unwritable(target);
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(&refuse)?;
    let file = written(folder, bytes).map_err(&refuse)?;
    file.persist(target).map_err(|error| refuse(error.error))?;
    Ok(())
}

fn written(folder: &Path, bytes: &[u8]) -> std::io::Result<NamedTempFile> {
    let mut file = unfinished(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// A file that goes away unless it is given its name. Readable by all that the process lets: an image is no secret.
pub(crate) fn unfinished(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Writes a blob from its bytes, and gives it its name once they are known to be its own.
pub(crate) async fn receive(target: PathBuf, mut bytes: BlobStream) -> Result<()> {
    let folder = target.parent().unwrap_or(Path::new(".")).to_owned();
    let (unfinished, file) = blocking(target.clone(), LAYOUT, move || {
        fs::create_dir_all(&folder)
            .and_then(|()| unfinished(&folder))
            .and_then(|unfinished| unfinished.reopen().map(|file| (unfinished, file)))
            .map_err(unwritable(&folder))
    })
    .await?;
    let refuse = unwritable(&target);
    let mut file = tokio::fs::File::from_std(file);
    while let Some(piece) = bytes.next().await {
        file.write_all(&piece?).await.map_err(&refuse)?;
    }
    file.sync_all().await.map_err(&refuse)?;
    blocking(target.clone(), LAYOUT, move || {
        let persisted = unfinished.persist(&target);
        persisted.map_err(|error| refuse(error.error)).map(drop)
    })
    .await
}

/// A manifest that comes into the list of images.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    entry: Value,
    name: Option<String>,
    /// What is reached through it, and need not be listed any more.
    parts: Vec<Digest>,
}

impl Change {
    pub(crate) fn new(manifest: &Manifest, name: Option<&str>) -> Result<Self> {
        let mut entry = json!({
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": manifest.bytes.len(),
        });
        if let Some(name) = name {
            entry["annotations"] = json!({ REF_NAME: name });
        }
        let parts: Result<_> = manifest.children().iter().map(digest_of).collect();
        Ok(Self {
            entry,
            name: name.map(str::to_owned),
            parts: parts?,
        })
    }

    fn apply(self, entries: &mut Vec<Value>) {
        let digest = self.entry["digest"].clone();
        let is_it = |other: &Value| other["digest"] == digest && named(other) == self.name.as_deref();
        // An entry that is right stays as it is, whatever else it says.
        let mut is_listed = match self.name {
            None => entries.iter().any(|other| other["digest"] == digest),
            Some(_) => false,
        };
        entries.retain(|other| match named(other) {
            Some(name) if Some(name) == self.name.as_deref() => {
                is_it(other) && !std::mem::replace(&mut is_listed, true)
            }
            Some(_) => true,
            None if other["digest"] == digest => self.name.is_none(),
            None => !self.parts.iter().any(|part| other["digest"] == part.as_str()),
        });
        if !is_listed {
            entries.push(self.entry);
        }
    }
}

fn named(entry: &Value) -> Option<&str> {
    entry["annotations"][REF_NAME].as_str()
}

/// Changes the list of images while no other writer does.
pub(crate) async fn change(root: &Path, change: Change) -> Result<()> {
    let lock = lock(root).await?;
    let root = root.to_owned();
    blocking(root.clone(), LAYOUT, move || {
        let changed = change_now(&root, change);
        drop(lock);
        changed
    })
    .await
}

fn change_now(root: &Path, change: Change) -> Result<()> {
    let path = root.join(INDEX);
    let subject = path.display().to_string();
    let found = fs::metadata(&path).map_err(unreadable(&path))?;
    if !found.is_file() || found.len() > LARGEST_MANIFEST {
        return Err(broken(subject).because(format!("it is no file of at most {LARGEST_MANIFEST} bytes")));
    }
    let bytes = fs::read(&path).map_err(unreadable(&path))?;
    read_index(bytes.clone().into(), &subject)?;
    // As it stands and not as the types have it, so that what they have no words for is kept.
    let mut index: Value = serde_json::from_slice(&bytes)
        .map_err(|error| broken(&subject).because(error.to_string()).caused_by(error))?;
    let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
        return Err(broken(subject).because("it has no list of manifests"));
    };
    let before = entries.clone();
    change.apply(entries);
    if *entries == before {
        return Ok(());
    }
    let bytes = crate::json::canonical(index)?;
    if bytes.len() as u64 > LARGEST_MANIFEST {
        return Err(Error::new(ErrorKind::Invalid, LAYOUT, "write", subject)
            .because(format!("it would have more than {LARGEST_MANIFEST} bytes"))
            .advise("use another layout"));
    }
    store_now(&path, &bytes)
}

/// Changes a list of images that may be anything: the list stays one, and names the image once.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_change(bytes: &[u8]) {
    let Ok(mut index) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    if let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) {
        let change = Change {
            entry: json!({ "digest": "d", "annotations": { REF_NAME: "1.4" } }),
            name: Some("1.4".into()),
            parts: Vec::new(),
        };
        change.apply(entries);
        assert_eq!(
            entries.iter().filter(|entry| named(entry) == Some("1.4")).count(),
            1
        );
    }
}

/// The lock of a layout is on its mark, the one file that never changes. It ends with the value, or with the process.
async fn lock(root: &Path) -> Result<File> {
    let path = root.join(MARK);
    let file = File::open(&path).map_err(unreadable(&path))?;
    let deadline = Instant::now() + LONGEST_HOLD;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(ErrorKind::Conflict, LAYOUT, "write", root.display())
                    .because(format!(
                        "another writer has held it for {} seconds",
                        LONGEST_HOLD.as_secs()
                    ))
                    .advise("end the other process, or try again"));
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(&path)(error)),
        }
    }
}

pub(crate) fn unwritable(path: &Path) -> impl Fn(std::io::Error) -> Error + Send + Sync + 'static {
    failed(LAYOUT, "write", path)
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Error + Send + Sync + 'static {
    failed(LAYOUT, "read", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(change: Change, entries: &Value) -> Value {
        let mut entries = entries.as_array().unwrap().clone();
        change.apply(&mut entries);
        Value::Array(entries)
    }

    fn named_entry(digest: &str, name: &str) -> Value {
        json!({ "digest": digest, "annotations": { REF_NAME: name } })
    }

    #[test]
    fn a_name_moves_and_leaves_the_rest() {
        let before =
            json!([named_entry("a", "v1"), named_entry("a", "v2"), { "digest": "b" }, { "digest": "c" }]);
        let change = Change {
            entry: named_entry("b", "v1"),
            name: Some("v1".into()),
            parts: Vec::new(),
        };
        assert_eq!(
            applied(change, &before),
            json!([named_entry("a", "v2"), { "digest": "c" }, named_entry("b", "v1")])
        );
        let right =
            json!([{ "digest": "b", "more": 1, "annotations": { REF_NAME: "v1" } }, named_entry("x", "v1")]);
        let change = Change {
            entry: named_entry("b", "v1"),
            name: Some("v1".into()),
            parts: Vec::new(),
        };
        assert_eq!(
            applied(change, &right),
            json!([{ "digest": "b", "more": 1, "annotations": { REF_NAME: "v1" } }])
        );
    }

    #[test]
    fn an_index_takes_the_place_of_its_parts() {
        let part = Digest::sha256_of("part");
        let before = json!([{ "digest": part }, named_entry(part.as_str(), "amd64")]);
        let change = Change {
            entry: json!({ "digest": "index" }),
            name: None,
            parts: vec![part.clone()],
        };
        assert_eq!(
            applied(change, &before),
            json!([named_entry(part.as_str(), "amd64"), { "digest": "index" }])
        );
    }
}
