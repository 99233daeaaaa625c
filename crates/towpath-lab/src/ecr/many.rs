//! Repositories full of synthetic images, for what has to be tried at scale, and clocks that a test turns back.

use super::Ecr;
use super::archive::Storage;
use super::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST};
use super::names::is_repository_name;
use super::seed::ImageSeed;
use super::store::{Image, Reference, Repository};
use crate::LabError;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use towpath_core::Digest;

impl Ecr {
    /// Fills a repository, which is made where it is missing, with this many more images. They share one layer and one
    /// configuration, differ in an annotation, and are tagged `seed-0`, `seed-1`, … in the order of their push, one a
    /// second up to now. None is scanned.
    ///
    /// ```
    /// use towpath_lab::ecr::{Ecr, EcrConfig};
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let ecr = Ecr::start(EcrConfig::default()).await?;
    /// ecr.seed_images("shop/web", 1000)?;
    /// assert!(ecr.image("shop/web", "seed-999").is_some());
    /// # Ok::<(), towpath_lab::LabError>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The name is none of a repository, or the shared blobs cannot be written.
    pub fn seed_images(&self, repository: &str, count: usize) -> Result<(), LabError> {
        let write_failed = |source| LabError::File {
            action: "write a blob of",
            path: repository.into(),
            source,
        };
        if !is_repository_name(repository) {
            return Err(write_failed(std::io::Error::other(
                "this is no name of a repository",
            )));
        }
        let built = ImageSeed::new().file("etc/motd", "many\n").build()?;
        let describe = |media_type: &str, bytes: &[u8]| Descriptor {
            media_type: media_type.into(),
            digest: Digest::sha256_of(bytes),
            size: bytes.len() as u64,
        };
        let (layer_bytes, config_bytes) = match &built.blobs[..] {
            [layer, _, config, ..] => (layer, config),
            _ => return Ok(()),
        };
        for blob in [layer_bytes, config_bytes] {
            self.service.blobs.put(blob).map_err(write_failed)?;
        }
        let layer = describe(OCI_LAYER_GZIP, layer_bytes);
        let config = describe(OCI_CONFIG, config_bytes);
        let mut store = self.service.store();
        let found = store
            .repositories
            .entry(repository.to_owned())
            .or_insert_with(Repository::new);
        found.blobs.extend([layer.digest.clone(), config.digest.clone()]);
        let (first, now) = (found.images.len(), Timestamp::now());
        for number in first..first + count {
            let bytes = format!(
                "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"config\":{{\"mediaType\":\"{OCI_CONFIG}\",\
                 \"digest\":\"{}\",\"size\":{}}},\"layers\":[{{\"mediaType\":\"{OCI_LAYER_GZIP}\",\"digest\":\"{}\",\
                 \"size\":{}}}],\"annotations\":{{\"number\":\"{number}\"}}}}",
                config.digest, config.size, layer.digest, layer.size
            );
            let digest = Digest::sha256_of(&bytes);
            let age = SignedDuration::from_secs((first + count - number) as i64);
            found.add(&digest, || Image {
                bytes: bytes.into(),
                manifest: Manifest::of_parts(config.clone(), layer.clone()),
                pushed_at: now - age,
                last_pull: None,
                scan: None,
                storage: Storage::default(),
            });
            found.tags.insert(format!("seed-{number}"), digest);
        }
        Ok(())
    }

    /// Makes an image older: as if it had been pushed this long ago. False where there is no such image.
    pub fn set_age(&self, repository: &str, reference: &str, age: Duration) -> bool {
        let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        self.with_image(repository, reference, |image| {
            image.pushed_at = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
        })
    }

    /// Says that an image was last pulled this long ago. False where there is no such image.
    pub fn set_last_pull(&self, repository: &str, reference: &str, ago: Duration) -> bool {
        let ago = SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX);
        self.with_image(repository, reference, |image| {
            image.last_pull = Some(Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::MIN));
        })
    }

    /// Sets how long it takes to restore an image from the archive; no time from the start.
    pub fn set_restore_time(&self, restore: Duration) {
        *super::lock(&self.service.restore) = restore;
    }

    fn with_image(&self, repository: &str, reference: &str, change: impl FnOnce(&mut Image)) -> bool {
        let mut store = self.service.store();
        let Some(repository) = store.repositories.get_mut(repository) else {
            return false;
        };
        let digest = Reference::parse(reference).and_then(|reference| repository.resolve(&reference));
        let image = digest.and_then(|digest| repository.images.get_mut(&digest));
        image.map(change).is_some()
    }
}
