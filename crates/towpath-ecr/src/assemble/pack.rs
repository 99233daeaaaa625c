//! Writing a layer, the same bytes every time: times, owners and modes are given, gzip has a fixed header, Zstandard one
//! thread (*OCI Image Format Specification*, `layer.md`).

use flate2::GzBuilder;
use flate2::write::GzEncoder;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use tar::{EntryType, Header};
use tempfile::{NamedTempFile, TempPath};
use towpath_core::{Digest, Hasher};
use towpath_elements::registry::Compression;

/// A layer in a temporary file, which goes with this value.
#[derive(Debug)]
pub(super) struct PackedLayer {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// The digest of the tar inside.
    pub(super) diff_id: Digest,
    pub(super) media_type: &'static str,
    file: TempPath,
}

impl PackedLayer {
    pub(super) fn path(&self) -> &Path {
        &self.file
    }
}

/// What all entries of a layer have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    pub(super) owner: (u32, u32),
    pub(super) file_mode: Option<u32>,
    pub(super) folder_mode: Option<u32>,
    /// In seconds since 1970.
    pub(super) modified: u64,
}

/// A layer that is being written. Memory is bounded whatever goes in.
pub(super) struct Packer {
    tar: tar::Builder<Hashing<Compressor>>,
    look: Look,
    media_type: &'static str,
}

impl Packer {
    pub(super) fn new(compression: Compression, look: Look) -> io::Result<Self> {
        let out = Hashing::new(BufWriter::new(NamedTempFile::new()?));
        let (compressor, media_type) = match compression {
            Compression::Zstd => (
                Compressor::Zstd(zstd::Encoder::new(out, 3)?),
                "application/vnd.oci.image.layer.v1.tar+zstd",
            ),
            Compression::None => (Compressor::None(out), "application/vnd.oci.image.layer.v1.tar"),
            _ => (
                Compressor::Gzip(
                    GzBuilder::new()
                        .mtime(0)
                        .operating_system(255)
                        .write(out, flate2::Compression::new(6)),
                ),
                "application/vnd.oci.image.layer.v1.tar+gzip",
            ),
        };
        Ok(Self {
            tar: tar::Builder::new(Hashing::new(compressor)),
            look,
            media_type,
        })
    }

    pub(super) fn directory(&mut self, target: &str) -> io::Result<()> {
        let mode = self.look.folder_mode.unwrap_or(0o755);
        let mut header = self.header(EntryType::Directory, mode, 0);
        self.tar.append_data(&mut header, target, io::empty())
    }

    /// Adds a file of exactly this size; how many bytes the content was short of it.
    pub(super) fn file(
        &mut self,
        target: &str,
        executable: bool,
        size: u64,
        content: impl Read,
    ) -> io::Result<u64> {
        let usual = if executable { 0o755 } else { 0o644 };
        let mut header = self.header(EntryType::Regular, self.look.file_mode.unwrap_or(usual), size);
        let mut content = content.take(size);
        self.tar.append_data(&mut header, target, &mut content)?;
        Ok(content.limit())
    }

    pub(super) fn link(&mut self, target: &str, to: &str) -> io::Result<()> {
        let mut header = self.header(EntryType::Symlink, 0o777, 0);
        self.tar.append_link(&mut header, target, to)
    }

    fn header(&self, kind: EntryType, mode: u32, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.look.owner.0.into());
        header.set_gid(self.look.owner.1.into());
        header.set_mtime(self.look.modified);
        header.set_size(size);
        header
    }

    pub(super) fn finish(self) -> io::Result<PackedLayer> {
        let tar = self.tar.into_inner()?;
        let diff_id = tar.hasher.finish();
        let out = tar.inner.finish()?;
        let (digest, size) = (out.hasher.finish(), out.bytes);
        let file = out.inner.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(PackedLayer {
            digest,
            size,
            diff_id,
            media_type: self.media_type,
            file: file.into_temp_path(),
        })
    }
}

type Out = Hashing<BufWriter<NamedTempFile>>;

enum Compressor {
    Gzip(GzEncoder<Out>),
    Zstd(zstd::Encoder<'static, Out>),
    None(Out),
}

impl Compressor {
    fn finish(self) -> io::Result<Out> {
        match self {
            Self::Gzip(gzip) => gzip.finish(),
            Self::Zstd(zstd) => zstd.finish(),
            Self::None(out) => Ok(out),
        }
    }
}

impl Write for Compressor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(gzip) => gzip.write(bytes),
            Self::Zstd(zstd) => zstd.write(bytes),
            Self::None(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.flush(),
            Self::Zstd(zstd) => zstd.flush(),
            Self::None(out) => out.flush(),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Content of a given length that notes how much it was asked for at once.
    struct Measured {
        left: u64,
        widest: usize,
    }

    impl Read for Measured {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.widest = self.widest.max(buffer.len());
            let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            buffer[..length].fill(7);
            self.left -= length as u64;
            Ok(length)
        }
    }

    #[test]
    fn a_large_file_streams() {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let size = 32 << 20;
            let mut content = Measured {
                left: size,
                widest: 0,
            };
            let mut packer = Packer::new(compression, Look::default()).unwrap();
            assert_eq!(packer.file("large", false, size, &mut content).unwrap(), 0);
            let layer = packer.finish().unwrap();
            assert!(content.widest <= 64 << 10, "{} bytes at once", content.widest);
            assert_eq!(std::fs::metadata(layer.path()).unwrap().len(), layer.size);
        }
    }

    #[test]
    fn a_size_of_ten_gigabytes_is_written_down() {
        let packer = Packer::new(Compression::Gzip, Look::default()).unwrap();
        let header = packer.header(EntryType::Regular, 0o644, 10 << 30);
        assert_eq!(header.entry_size().unwrap(), 10 << 30);
        let look = Look {
            owner: (4_000_000_000, 65532),
            ..Look::default()
        };
        let header = Packer::new(Compression::None, look)
            .unwrap()
            .header(EntryType::Regular, 0o644, 0);
        assert_eq!(
            (header.uid().unwrap(), header.gid().unwrap()),
            (4_000_000_000, 65532)
        );
    }

    #[test]
    fn a_short_content_is_told() {
        let mut packer = Packer::new(Compression::None, Look::default()).unwrap();
        assert_eq!(packer.file("a", false, 10, &b"1234"[..]).unwrap(), 6);
    }
}
