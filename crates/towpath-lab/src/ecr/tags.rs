//! The tags of a repository, looked up by name and by image. A tag names one image; an image has any number of tags.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use towpath_core::Digest;

/// Both directions are indexed, so that a page of a listing costs its own length and not that of the repository.
#[derive(Clone, Debug, Default)]
pub(super) struct Tags {
    by_name: BTreeMap<String, Digest>,
    by_image: BTreeSet<(Digest, String)>,
}

impl Tags {
    pub(super) fn get(&self, tag: &str) -> Option<&Digest> {
        self.by_name.get(tag)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    pub(super) fn insert(&mut self, tag: String, digest: Digest) {
        self.remove(&tag);
        self.by_image.insert((digest.clone(), tag.clone()));
        self.by_name.insert(tag, digest);
    }

    pub(super) fn remove(&mut self, tag: &str) {
        if let Some(digest) = self.by_name.remove(tag) {
            self.by_image.remove(&(digest, tag.to_owned()));
        }
    }

    /// The tags of an image, sorted.
    pub(super) fn of(&self, digest: &Digest) -> impl Iterator<Item = &String> {
        let from = Bound::Included((digest.clone(), String::new()));
        let range = self.by_image.range((from, Bound::Unbounded));
        range
            .take_while(move |(tagged, _)| tagged == digest)
            .map(|(_, tag)| tag)
    }

    pub(super) fn any(&self, digest: &Digest) -> bool {
        self.of(digest).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_moves_leaves_its_old_image() {
        let (one, two) = (Digest::sha256_of("1"), Digest::sha256_of("2"));
        let mut tags = Tags::default();
        tags.insert("b".into(), one.clone());
        tags.insert("a".into(), one.clone());
        assert!(tags.of(&one).eq(["a", "b"]));
        tags.insert("a".into(), two.clone());
        assert!(tags.of(&one).eq(["b"]) && tags.of(&two).eq(["a"]));
        tags.remove("b");
        assert!(!tags.any(&one) && tags.get("b").is_none());
        assert_eq!(tags.get("a"), Some(&two));
    }
}
