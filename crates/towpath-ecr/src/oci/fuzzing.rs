//! Every reader of bytes from outside, for fuzzing: each takes any bytes, and panics only where the reader breaks its
//! promise. For nobody else; it may change at any time.

use super::archive::fuzzing as archive;
use super::challenge::TokenServer;
use super::layout::read::{check_mark, read_index, references};
use super::{ImagePlace, Manifest, media, referrers, upload};
use std::str::from_utf8;
use towpath_core::{Digest, ImageRef};

/// A reader and its name, which is the folder of its corpus too.
pub type Target = (&'static str, fn(&[u8]));

/// All readers.
pub const TARGETS: [Target; 7] = [
    ("reference", reference),
    ("manifest", manifest),
    ("challenge", challenge),
    ("headers", headers),
    ("tar", tar),
    ("docker_archive", docker_archive),
    ("layout", layout),
];

/// Image references, digests and places. What is shown is read back as the same.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = from_utf8(bytes) else { return };
    if let Ok(image) = text.parse::<ImageRef>() {
        assert_eq!(image.to_string().parse().as_ref(), Ok(&image));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        let path = super::layout::blob_path(&digest);
        assert!(path.split('/').count() == 3 && path.split('/').all(|part| !matches!(part, "" | "." | "..")));
    }
    if let Ok(place) = text.parse::<ImagePlace>() {
        let again = place.to_string().parse::<ImagePlace>();
        assert!(again.is_ok_and(|again| again == place));
    }
}

/// Manifests and indexes. Their bytes stay as they are.
pub fn manifest(bytes: &[u8]) {
    for media_type in [
        media::OCI_MANIFEST,
        media::OCI_INDEX,
        media::DOCKER_MANIFEST,
        media::DOCKER_LIST,
    ] {
        if let Ok(manifest) = Manifest::read(media_type, bytes.to_vec().into()) {
            assert!(manifest.bytes == bytes && manifest.digest.matches(bytes));
            assert!(manifest.blobs().is_empty() || manifest.children().is_empty());
        }
    }
}

/// `WWW-Authenticate`.
pub fn challenge(bytes: &[u8]) {
    if let Ok(text) = from_utf8(bytes) {
        let _ = TokenServer::read(text);
    }
}

/// `Link` and `Range`.
pub fn headers(bytes: &[u8]) {
    let Ok(text) = from_utf8(bytes) else { return };
    if let Some(next) = referrers::next_page(text) {
        assert!(text.contains(&next));
    }
    let _ = upload::received(text);
}

/// The headers of a tar. What it says lies in it does.
pub fn tar(bytes: &[u8]) {
    archive::tar(bytes);
}

/// `manifest.json` of a Docker archive.
pub fn docker_archive(bytes: &[u8]) {
    archive::docker(bytes);
}

/// `oci-layout` and `index.json`.
pub fn layout(bytes: &[u8]) {
    let _ = check_mark(bytes, "oci-layout");
    if let Ok(index) = read_index(bytes.to_vec().into(), "index.json") {
        assert!(references(&index).len() <= index.children().len());
    }
    super::layout::write::fuzz_change(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    /// The files that fuzzing starts from.
    fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fuzz/corpus")
            .join(target);
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{target} has no corpus");
        files
    }

    #[test]
    fn every_file_of_the_corpora_is_read() {
        for (target, read) in TARGETS {
            for (path, bytes) in corpus(target) {
                println!("{path}");
                read(&bytes);
            }
        }
    }

    /// What a fuzzer does to a file: bytes that change, go, come again or are put between.
    #[derive(Clone, Debug)]
    enum Mutation {
        Set(usize, u8),
        Cut(usize, usize),
        Double(usize, usize),
        Insert(usize, Vec<u8>),
    }

    fn mutation() -> impl Strategy<Value = Mutation> {
        prop_oneof![
            (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
            (any::<usize>(), 0..600_usize).prop_map(|(at, length)| Mutation::Cut(at, length)),
            (any::<usize>(), 0..600_usize).prop_map(|(at, length)| Mutation::Double(at, length)),
            (any::<usize>(), prop::collection::vec(any::<u8>(), 1..9))
                .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
            (any::<usize>(), "[0-9]{1,20}|[\"{}\\[\\],:/@.=-]|\\.\\./|null|é")
                .prop_map(|(at, text)| Mutation::Insert(at, text.into_bytes())),
        ]
    }

    fn mutated(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
        for mutation in mutations {
            let place = |at: usize| at % (bytes.len() + 1);
            let range = |at: usize, length: usize| place(at)..(place(at) + length).min(bytes.len());
            match mutation {
                Mutation::Set(at, byte) => {
                    let at = place(*at);
                    if let Some(old) = bytes.get_mut(at) {
                        *old = *byte;
                    }
                }
                Mutation::Cut(at, length) => drop(bytes.drain(range(*at, *length))),
                Mutation::Double(at, length) => {
                    let range = range(*at, *length);
                    let (end, part) = (range.end, bytes[range].to_vec());
                    drop(bytes.splice(end..end, part));
                }
                Mutation::Insert(at, new) => {
                    let at = place(*at);
                    drop(bytes.splice(at..at, new.iter().copied()));
                }
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn no_mutation_of_the_corpora_panics(
            chosen: prop::sample::Index,
            mutations in prop::collection::vec(mutation(), 1..8),
            sums: bool,
        ) {
            for (target, read) in TARGETS {
                let mut files = corpus(target);
                let (_, bytes) = files.swap_remove(chosen.index(files.len()));
                let mut bytes = mutated(bytes, &mutations);
                // Most of what is interesting stands behind the checksum of a tar's header.
                if sums && target == "tar" {
                    archive::mend_checksums(&mut bytes);
                }
                read(&bytes);
            }
        }
    }
}
