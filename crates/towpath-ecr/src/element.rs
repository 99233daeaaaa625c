//! The element's trait, thin over the client.

use crate::cache::WarmOptions;
use crate::client::Ecr;
use crate::error::SERVICE;
use crate::oci::{Manifest, ManifestContent};
use crate::platform::platforms;
use async_trait::async_trait;
use std::collections::BTreeMap;
use towpath_core::{ImageRef, RepositoryName, Tag};
use towpath_elements::registry::{Assembly, ImportedImage, PlatformImage, ResolvedImage, ScanReport};
use towpath_elements::{Error, ErrorKind, Registry, Result};

#[async_trait]
impl Registry for Ecr {
    async fn locate(&self, repository: &RepositoryName) -> Result<ImageRef> {
        Ok(ImageRef::new(self.registry().await?, repository.clone()))
    }

    async fn ensure_repository(&self, repository: &RepositoryName) -> Result<ImageRef> {
        Ok(self.create_repository_if_missing(repository).await?.address)
    }

    async fn resolve(&self, image: &ImageRef) -> Result<Option<ResolvedImage>> {
        match self.oci.manifest(image).await? {
            Some(manifest) => self.resolved(image, &manifest).await.map(Some),
            None => Ok(None),
        }
    }

    async fn cached(&self, upstream: &ImageRef) -> Result<ImageRef> {
        self.cached_reference(upstream).await
    }

    async fn import(&self, upstream: &ImageRef) -> Result<ImportedImage> {
        let options = WarmOptions::default();
        let (warmed, manifest) = self.warm_image(upstream, &options, "import").await?;
        Ok(ImportedImage {
            upstream: warmed.upstream,
            cached: described(&warmed.cached, &manifest, warmed.platforms),
        })
    }

    async fn assemble(&self, assembly: Assembly) -> Result<ResolvedImage> {
        let manifest = self.assemble_image(&assembly).await?;
        self.resolved(&assembly.target, &manifest).await
    }

    async fn tag(&self, image: &ImageRef, tag: &Tag) -> Result<()> {
        require_digest(image, "tag")?;
        self.oci.retag(image, tag).await
    }

    async fn copy(&self, from: &ImageRef, to: &ImageRef) -> Result<ResolvedImage> {
        let copied = self.oci.copy_image(from, to).await?;
        self.resolved(to, &copied.manifest).await
    }

    async fn scan(&self, image: &ImageRef) -> Result<ScanReport> {
        self.first_scan_report(image).await
    }

    async fn scan_again(&self, before: &ScanReport) -> Result<ScanReport> {
        self.next_scan_report(before).await
    }
}

impl Ecr {
    async fn resolved(&self, image: &ImageRef, manifest: &Manifest) -> Result<ResolvedImage> {
        let image = image.at(manifest.digest.clone());
        let parts = platforms(&self.oci.repository(&image), manifest).await?;
        Ok(described(&image, manifest, parts))
    }
}

fn described(image: &ImageRef, manifest: &Manifest, platforms: Vec<PlatformImage>) -> ResolvedImage {
    let annotations = match &manifest.content {
        ManifestContent::Image(content) => content.annotations(),
        ManifestContent::Index(index) => index.annotations(),
    };
    let annotations: BTreeMap<String, String> = annotations.iter().flatten().map(owned).collect();
    ResolvedImage {
        image: image.clone(),
        digest: manifest.digest.clone(),
        media_type: manifest.media_type.clone(),
        platforms,
        annotations,
    }
}

fn owned((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

pub(crate) fn require_digest(image: &ImageRef, attempted: &'static str) -> Result<()> {
    match image.digest() {
        Some(_) => Ok(()),
        None => Err(Error::new(ErrorKind::Invalid, SERVICE, attempted, image)
            .because("it is not given by digest")
            .advise("resolve it first")),
    }
}
