//! What a test sees when it looks into a registry.

use super::Ecr;
use super::store::{Reference, Repository, Store};
use bytes::Bytes;
use jiff::Timestamp;
use towpath_core::Digest;

/// A repository as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryState {
    /// Its name.
    pub name: String,
    /// `MUTABLE`, `IMMUTABLE`, `IMMUTABLE_WITH_EXCLUSION` or `MUTABLE_WITH_EXCLUSION`.
    pub mutability: String,
    /// The prefix of the pull-through rule that made it, if one did.
    pub pull_through: Option<String>,
    /// Its images, by digest.
    pub images: Vec<ImageState>,
}

/// An image, an index or an artifact as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageState {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// The media type of its manifest.
    pub media_type: String,
    /// The manifest, byte for byte as it was pushed.
    pub manifest: Bytes,
    /// When it was pushed.
    pub pushed_at: Timestamp,
    /// When its manifest was last pulled.
    pub last_pull: Option<Timestamp>,
    /// The status of its scan; `None` where there is none, or none yet.
    pub scan: Option<String>,
}

/// A pull-through cache rule as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullThroughRuleState {
    /// The prefix of repository names, without the slash.
    pub prefix: String,
    /// The host it pulls through from.
    pub upstream_url: String,
}

impl Ecr {
    /// Every repository, by name.
    pub fn repositories(&self) -> Vec<RepositoryState> {
        let store = self.service.store();
        let repositories = store.repositories.iter();
        repositories
            .map(|(name, repository)| RepositoryState {
                name: name.clone(),
                mutability: repository.mutability.name().into(),
                pull_through: repository.pull_through.clone(),
                images: repository
                    .images
                    .keys()
                    .filter_map(|digest| image(&store, name, repository, digest))
                    .collect(),
            })
            .collect()
    }

    /// The image that a tag or a digest of a repository names.
    pub fn image(&self, repository: &str, reference: &str) -> Option<ImageState> {
        let store = self.service.store();
        let found = store.repositories.get(repository)?;
        let digest = found.resolve(&Reference::parse(reference)?)?;
        image(&store, repository, found, &digest)
    }

    /// The bytes of a blob, read into memory; `None` where the registry has none with this digest.
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.service.blobs.read(digest)
    }

    /// Every pull-through cache rule, by prefix.
    pub fn pull_through_rules(&self) -> Vec<PullThroughRuleState> {
        let store = self.service.store();
        let rules = store.rules.iter();
        rules
            .map(|(prefix, rule)| PullThroughRuleState {
                prefix: prefix.clone(),
                upstream_url: rule.upstream_url.clone(),
            })
            .collect()
    }
}

fn image(store: &Store, name: &str, repository: &Repository, digest: &Digest) -> Option<ImageState> {
    let image = repository.images.get(digest)?;
    let scan = image.scan.as_ref().and_then(|scan| {
        let forced = store.forced_status(name, digest).cloned();
        forced.or_else(|| scan.view(store.pace).map(|view| view.status))
    });
    Some(ImageState {
        digest: digest.clone(),
        tags: repository.tags_of(digest),
        media_type: image.manifest.media_type.clone(),
        manifest: image.bytes.clone(),
        pushed_at: image.pushed_at,
        last_pull: image.last_pull,
        scan,
    })
}
