//! Images that nothing holds on to (*Amazon ECR API Reference*, `DescribeImages`, `BatchGetImage`). Not every image
//! without a tag is one: a child of an index has none, and neither has a signature or an SBOM.

use crate::batch::FailureCode;
use crate::client::Ecr;
use crate::error::SERVICE;
use crate::images::{ImageFilter, ImageKey, StoredImage};
use crate::oci::{Manifest, digest_of};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use towpath_core::{Digest, RepositoryName};
use towpath_elements::{Error, ErrorKind, Result};

impl Ecr {
    /// The images of a repository that can be deleted because nothing holds on to them: they have no tag, are no child
    /// of an index that stays, and are no referrer (signature, SBOM, attestation) of another image. By digest.
    ///
    /// A referrer is never among them, even where its subject is, or is gone already. Neither is what is archived. An
    /// index is among them together with its children, which [`delete_images`](Self::delete_images) takes in whatever
    /// order.
    ///
    /// An image that is being pushed has no tag until its last step. Leave young images alone, as the example does.
    ///
    /// ```no_run
    /// # async fn example(ecr: towpath_ecr::Ecr) -> towpath_ecr::Result<()> {
    /// use futures_util::TryStreamExt;
    /// use std::{future::ready, time::Duration};
    /// use towpath_ecr::Timestamp;
    /// let repository = "shop/web".parse()?;
    /// let yesterday = Timestamp::now() - Duration::from_secs(24 * 60 * 60);
    /// let old = ecr
    ///     .unreferenced_images(&repository)
    ///     .try_filter(move |image| ready(image.pushed.is_some_and(|pushed| pushed < yesterday)))
    ///     .map_ok(|image| image.digest);
    /// let mut outcomes = ecr.delete_images(&repository, old);
    /// while let Some(batch) = outcomes.try_next().await? {
    ///     for failure in batch.failed {
    ///         eprintln!("{failure}");
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// The whole repository is listed, and the manifests of its indexes are read, 100 with a call, before the first
    /// image comes; memory holds the images without a tag. Reading an index counts as a pull of it. The manifest of an
    /// archived index cannot be read, so its children are among the images; the service refuses to delete them.
    ///
    /// # Errors
    /// What the service says to `DescribeImages` and `BatchGetImage`; *protocol* where a manifest is not what its digest
    /// says. Nothing comes before an error.
    pub fn unreferenced_images(
        &self,
        repository: &RepositoryName,
    ) -> BoxStream<'static, Result<StoredImage>> {
        let (ecr, repository) = (self.clone(), repository.clone());
        stream::once(async move { ecr.unreferenced(&repository).await })
            .map_ok(|images| stream::iter(images.into_values().map(Ok)))
            .try_flatten()
            .boxed()
    }

    async fn unreferenced(&self, repository: &RepositoryName) -> Result<BTreeMap<Digest, StoredImage>> {
        let mut loose = BTreeMap::new();
        let mut indexes = Vec::new();
        let mut images = self.images(repository, ImageFilter::new());
        while let Some(image) = images.try_next().await? {
            if image.tags.is_empty() && image.subject.is_none() {
                loose.insert(image.digest.clone(), image);
            } else if may_be_index(&image) {
                indexes.push(image.digest);
            }
        }
        // Whatever an index that stays names stays, too. No image is taken out twice, so this ends.
        while !indexes.is_empty() && !loose.is_empty() {
            let mut below = Vec::new();
            for child in self.children_of(repository, indexes).await? {
                if let Some(child) = loose.remove(&child).filter(may_be_index) {
                    below.push(child.digest);
                }
            }
            indexes = below;
        }
        Ok(loose)
    }

    async fn children_of(&self, repository: &RepositoryName, indexes: Vec<Digest>) -> Result<Vec<Digest>> {
        const ATTEMPTED: &str = "read the indexes of";
        let keys = stream::iter(indexes.into_iter().map(ImageKey::Digest));
        let mut batches = self.image_manifests(repository, keys, &[]);
        let mut children = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            for failure in batch.failed {
                match failure.code {
                    // Deleted, or archived, since it was listed.
                    FailureCode::ImageNotFound | FailureCode::ImageInaccessible => {}
                    _ => {
                        return Err(Error::new(ErrorKind::Unavailable, SERVICE, ATTEMPTED, repository)
                            .because(failure)
                            .advise(
                                "nothing was chosen: what an unread index holds is not known; try again",
                            ));
                    }
                }
            }
            for found in batch.done {
                let Some(media_type) = &found.media_type else {
                    return Err(
                        Error::new(ErrorKind::Protocol, SERVICE, ATTEMPTED, repository).because(format!(
                            "the answer does not give the media type of {}",
                            found.digest
                        )),
                    );
                };
                if Manifest::is_index(media_type) {
                    let index = Manifest::read(media_type, found.bytes)?;
                    for child in index.children() {
                        children.push(digest_of(child)?);
                    }
                }
            }
        }
        Ok(children)
    }
}

/// Whether an image is an index, as far as the service says.
fn may_be_index(image: &StoredImage) -> bool {
    image.media_type.as_deref().is_none_or(Manifest::is_index)
}
