//! Elements D1 and D2: base images, the image made from them, and what the scanner found.

use crate::effect::evidence;
use crate::{Effect, Elements, Evidence};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use towpath_core::{CommitSha, Digest, ImageRef, RepositoryName, Tag};
use towpath_elements::registry::{
    Assembly, ConfigChange, Fate, ImportedImage, Layer, Platform, PlatformImage, PlatformVerdict,
    ResolvedImage, ScanPolicy, ScanVerdict,
};
use towpath_elements::{Error, ErrorKind, RegistryExt, Result};

/// Annotation keys of the OCI image specification, `annotations.md`.
const REVISION: &str = "org.opencontainers.image.revision";
const SOURCE: &str = "org.opencontainers.image.source";
const CREATED: &str = "org.opencontainers.image.created";

/// Brings an upstream image into the pull-through cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportImage {
    /// The image at its upstream.
    pub upstream: ImageRef,
}

#[async_trait]
impl Effect for ImportImage {
    const NAME: &'static str = "registry.import";
    type Output = ImportedImage;

    fn title(&self) -> String {
        format!("cache {}", self.upstream)
    }

    fn evidence(&self, imported: &ImportedImage) -> Evidence {
        evidence([(
            "cached",
            format!("{} as {}", imported.upstream, imported.cached.image),
        )])
    }

    async fn observe(&self, _: &Elements) -> Result<Option<ImportedImage>> {
        // Only going through the cache shows that it is whole, and changes nothing where it is.
        Ok(None)
    }

    async fn apply(&self, elements: &Elements) -> Result<ImportedImage> {
        elements.registry()?.import(&self.upstream).await
    }
}

/// Makes an image for a commit on a base, and stores it. An image of the same tag that was made for the same commit is
/// there already; one that was made for another commit is a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssembleImage {
    /// The repository in the private registry.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// The commit it is made for.
    pub commit: CommitSha,
    /// Where the commit is, for the image's annotations.
    pub source: String,
    /// The base, by digest.
    pub base: ImageRef,
    /// Images whose layers come next, by digest.
    pub add: Vec<ImageRef>,
    /// The folder whose files come last.
    pub files: PathBuf,
    /// Where the files go.
    pub to: String,
    /// The platforms; empty makes every platform of the base.
    pub platforms: Vec<Platform>,
    /// What changes in the configuration.
    pub config: ConfigChange,
    /// The time written into the image: the commit's own, so that every build of it is the same.
    pub created: Timestamp,
}

/// An image that is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// The image by digest.
    pub image: ImageRef,
    /// Its digest.
    pub digest: Digest,
    /// Its runnable platforms.
    pub platforms: Vec<PlatformImage>,
}

impl From<ResolvedImage> for StoredImage {
    fn from(
        ResolvedImage {
            image,
            digest,
            platforms,
            ..
        }: ResolvedImage,
    ) -> Self {
        Self {
            image,
            digest,
            platforms,
        }
    }
}

impl AssembleImage {
    fn assembly(&self, located: &ImageRef) -> Assembly {
        let annotations = BTreeMap::from([
            (REVISION.to_owned(), self.commit.to_string()),
            (SOURCE.to_owned(), self.source.clone()),
            (CREATED.to_owned(), self.created.to_string()),
        ]);
        let mut layers: Vec<Layer> = self.add.iter().cloned().map(Layer::Image).collect();
        layers.push(Layer::files(&self.files, &self.to));
        let mut config = self.config.clone();
        config.labels.extend(annotations.clone());
        let mut assembly = Assembly::on(self.base.clone(), located.tagged(self.tag.clone()));
        assembly.platforms = self.platforms.clone();
        assembly.layers = layers;
        assembly.config = config;
        assembly.annotations = annotations;
        assembly.created = self.created;
        assembly
    }
}

#[async_trait]
impl Effect for AssembleImage {
    const NAME: &'static str = "registry.assemble";
    type Output = StoredImage;

    fn title(&self) -> String {
        format!("store image {}:{}", self.repository, self.tag)
    }

    fn evidence(&self, stored: &StoredImage) -> Evidence {
        evidence([
            ("image", stored.image.name() + ":" + self.tag.as_str()),
            ("image digest", stored.digest.to_string()),
            ("base", self.base.to_string()),
        ])
    }

    async fn observe(&self, elements: &Elements) -> Result<Option<StoredImage>> {
        let registry = elements.registry()?;
        let target = registry.locate(&self.repository).await?.tagged(self.tag.clone());
        let Some(found) = registry.resolve(&target).await? else {
            return Ok(None);
        };
        match found.annotations.get(REVISION) {
            Some(revision) if *revision == self.commit.as_str() => Ok(Some(found.into())),
            other => Err(Error::new(ErrorKind::Conflict, "registry", "store", &target)
                .because(format!(
                    "the tag names {}, made for {}",
                    found.digest,
                    other.map_or("an unknown commit", String::as_str)
                ))
                .advise("use a tag of this commit's own")),
        }
    }

    async fn apply(&self, elements: &Elements) -> Result<StoredImage> {
        let registry = elements.registry()?;
        let located = registry.ensure_repository(&self.repository).await?;
        registry.assemble(self.assembly(&located)).await.map(Into::into)
    }
}

/// Waits for the scan of an image and judges it. The gate opens only on a complete, good result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanImage {
    /// The image by digest.
    pub image: ImageRef,
    /// What the scan may find.
    pub policy: ScanPolicy,
}

#[async_trait]
impl Effect for ScanImage {
    const NAME: &'static str = "registry.scan";
    const FRESH: bool = true;
    type Output = ScanVerdict;

    fn title(&self) -> String {
        format!("check the scan of {}", self.image.repository())
    }

    fn evidence(&self, verdict: &ScanVerdict) -> Evidence {
        let counts: Vec<String> = verdict
            .counts
            .iter()
            .rev()
            .map(|(severity, count)| format!("{count} {severity}"))
            .collect();
        let mut found = if counts.is_empty() {
            "nothing found".to_owned()
        } else {
            counts.join(", ")
        };
        let allowed = verdict.count(|fate| matches!(fate, Fate::Allowed { .. }));
        if allowed > 0 {
            found.push_str(&format!(" ({allowed} allowed)"));
        }
        let platforms: Vec<String> = match verdict.scans.is_empty() {
            // A verdict of an older version has their names alone.
            true => verdict.platforms.clone(),
            false => verdict.scans.iter().map(judged).collect(),
        };
        evidence([("scan", format!("{found} on {}", platforms.join(", ")))])
    }

    async fn observe(&self, _: &Elements) -> Result<Option<ScanVerdict>> {
        // A scan that was good yesterday may not be good now: it is always read again.
        Ok(None)
    }

    async fn apply(&self, elements: &Elements) -> Result<ScanVerdict> {
        let report = elements
            .registry()?
            .wait_for_scan(&self.image, elements.policy(), elements.cancellation())
            .await?;
        let verdict = self.policy.judge(&report, Timestamp::now());
        if verdict.passed {
            return Ok(verdict);
        }
        Err(
            Error::new(ErrorKind::Denied, "scan gate", "let through", &self.image)
                .because(told(&verdict.reasons))
                .advise("mend it in a new commit, or allow the finding by name, with a reason and an end"),
        )
    }
}

/// A platform, what scanned it, and what let it through where nothing could.
fn judged(scan: &PlatformVerdict) -> String {
    match (&scan.accepted, &scan.scanner) {
        (Some(allowance), _) => format!("{} (without a result: {})", scan.platform, allowance.reason),
        (None, Some(scanner)) => format!("{} ({scanner})", scan.platform),
        (None, None) => scan.platform.clone(),
    }
}

/// The first reasons, and how many more there are: an error is for reading.
fn told(reasons: &[String]) -> String {
    const MOST: usize = 20;
    let mut text = reasons
        .iter()
        .take(MOST)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("; ");
    if reasons.len() > MOST {
        text.push_str(&format!("; and {} more", reasons.len() - MOST));
    }
    text
}
