//! Tar archives written block by block, so that they can be wrong.

use std::path::Path;

/// An archive without its end.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// A header alone, with a size that nobody checks.
    pub(crate) fn header(mut self, name: &[u8], kind: u8, link: &[u8], size: u64) -> Self {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name);
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        match size < 1 << 33 {
            true => header[124..135].copy_from_slice(format!("{size:011o}").as_bytes()),
            // GNU tar's way to write large numbers.
            false => {
                header[124] = 0x80;
                header[128..136].copy_from_slice(&size.to_be_bytes());
            }
        }
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link);
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self
    }

    /// An entry with its content.
    pub(crate) fn entry(self, name: &str, kind: u8, content: &[u8]) -> Self {
        let mut tar = self.header(name.as_bytes(), kind, b"", content.len() as u64);
        tar.0.extend_from_slice(content);
        tar.0.resize(tar.0.len().next_multiple_of(512), 0);
        tar
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, b'0', content)
    }

    pub(crate) fn link(self, name: &str, kind: u8, to: &str) -> Self {
        self.header(name.as_bytes(), kind, to.as_bytes(), 0)
    }

    /// A pax header for the entry behind it.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits.
            let length = (1..)
                .map(|digits| rest + digits)
                .find(|length| length.to_string().len() + rest == *length);
            text.push_str(&format!("{} {key}={value}\n", length.unwrap()));
        }
        self.entry("pax", b'x', text.as_bytes())
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    pub(crate) fn write(self, path: &Path) {
        std::fs::write(path, self.end()).unwrap();
    }
}

/// Every file of a folder as an archive.
pub(crate) fn of_folder(root: &Path) -> Tar {
    let mut tar = Tar::default();
    for name in super::made::files(root) {
        tar = tar.file(&name, &std::fs::read(root.join(&name)).unwrap());
    }
    tar
}
