//! A tar file that is the same bytes every time, and appears whole or not at all.

use super::folder_of;
use crate::oci::layout::write::{unfinished, unwritable};
use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};
use tempfile::NamedTempFile;
use towpath_elements::{Error, ErrorKind, Result};

pub(super) struct TarFile {
    target: PathBuf,
    tar: Builder<BufWriter<NamedTempFile>>,
}

impl TarFile {
    /// Begins a file that will lie at `target`.
    pub(super) fn beside(target: &Path) -> Result<Self> {
        let file = unfinished(&folder_of(target)).map_err(unwritable(target))?;
        Ok(Self {
            target: target.to_owned(),
            tar: Builder::new(BufWriter::new(file)),
        })
    }

    pub(super) fn folder(&mut self, name: &str) -> Result<()> {
        self.append(name, EntryType::Directory, 0o755, 0, std::io::empty())
    }

    pub(super) fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.append(name, EntryType::Regular, 0o644, bytes.len() as u64, bytes)
    }

    /// Adds all of a file.
    pub(super) fn file(&mut self, name: &str, file: File) -> Result<()> {
        let size = file.metadata().map_err(unwritable(&self.target))?.len();
        let mut bytes = file.take(size);
        self.append(name, EntryType::Regular, 0o644, size, &mut bytes)?;
        match bytes.limit() {
            0 => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Conflict,
                super::ARCHIVE,
                "write",
                self.target.display(),
            )
            .because(format!("{name} became shorter while it was read"))),
        }
    }

    fn append(&mut self, name: &str, kind: EntryType, mode: u32, size: u64, bytes: impl Read) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        self.tar
            .append_data(&mut header, name, bytes)
            .map_err(unwritable(&self.target))
    }

    /// Gives the file its name.
    pub(super) fn finish(self) -> Result<()> {
        let refuse = unwritable(&self.target);
        let file = self.tar.into_inner().map_err(&refuse)?;
        let file = file.into_inner().map_err(|error| refuse(error.into_error()))?;
        file.as_file().sync_all().map_err(&refuse)?;
        file.persist(&self.target).map_err(|error| refuse(error.error))?;
        Ok(())
    }
}
