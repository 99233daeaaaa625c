//! The readers of archives, for fuzzing.

use super::{docker, tar_index};
use std::io::Cursor;

/// Reads the headers of a tar; what it says lies in it does.
pub(crate) fn tar(bytes: &[u8]) {
    let length = bytes.len() as u64;
    if let Ok(entries) = tar_index::index(Cursor::new(bytes), length, "a tar") {
        for (name, place) in tar_index::places(&entries) {
            assert!(
                !name.starts_with('/') && name.split('/').all(|part| part != ".."),
                "{name:?}"
            );
            assert!(
                place.end <= length && place.start <= place.end,
                "{name:?} {place:?}"
            );
        }
    }
}

/// Reads the list of images of a Docker archive.
pub(crate) fn docker(bytes: &[u8]) {
    let _ = docker::read_list(bytes);
    let _ = docker::read_config(bytes);
}

/// Makes the checksum of every block right that may be a header.
#[cfg(test)]
pub(crate) fn mend_checksums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}
