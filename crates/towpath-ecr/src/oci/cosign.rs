//! Signatures, attestations and SBOMs as cosign stores them without referrers: each an image of its own in the same
//! repository, whose tag is made of the digest it speaks of (`sha256-<digits>.sig`, `.att`, `.sbom`).

use super::copy::{Copied, CopyOptions, copy};
use super::referrers::fallback_tag;
use super::source::{ImageSink, ImageSource};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use towpath_core::{Digest, Tag};
use towpath_elements::{Error, Result};

const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// The tags under which cosign stores what it says of a digest.
fn tags(subject: &Digest) -> Result<Vec<Tag>> {
    let base = fallback_tag(subject)?;
    SUFFIXES
        .iter()
        .map(|suffix| Ok(Tag::new(format!("{base}.{suffix}"))?))
        .collect()
}

/// Copies what cosign has tagged for these digests, under the same tags.
pub(super) fn copy_tagged<'a>(
    source: &'a dyn ImageSource,
    sink: &'a dyn ImageSink,
    subjects: Vec<Digest>,
    options: &'a CopyOptions,
) -> BoxFuture<'a, Result<Vec<Copied>>> {
    let alone = CopyOptions {
        platforms: Vec::new(),
        referrers: false,
        cosign: false,
        ..options.clone()
    };
    Box::pin(async move {
        let mut found = Vec::new();
        for subject in &subjects {
            found.extend(tags(subject)?);
        }
        let copied: Vec<Option<Copied>> = stream::iter(found)
            .map(|tag| {
                let alone = alone.clone();
                async move {
                    let Some(manifest) = source.manifest(&tag.clone().into()).await? else {
                        return Ok::<_, Error>(None);
                    };
                    copy(source, &manifest.digest.into(), sink, Some(&tag), &alone)
                        .await
                        .map(Some)
                }
            })
            .buffered(options.parallel.max(1))
            .try_collect()
            .await?;
        Ok(copied.into_iter().flatten().collect())
    })
}
