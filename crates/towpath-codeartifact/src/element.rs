//! The element's trait, thin over the client.

use crate::client::CodeArtifact;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use towpath_core::{ArtifactRepository, PackageFormat, PackageId, PackageVersion};
use towpath_elements::artifacts::{Access, Publication, StoredVersion};
use towpath_elements::{Artifacts, Result};
use tracing::Instrument;

#[async_trait]
impl Artifacts for CodeArtifact {
    async fn access(&self, repository: &ArtifactRepository, format: PackageFormat) -> Result<Access> {
        let span = tracing::debug_span!("codeartifact.access", %repository, %format);
        Self::access(self, repository, format).instrument(span).await
    }

    async fn version(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<Option<StoredVersion>> {
        let span = tracing::debug_span!("codeartifact.version", %repository, package = %version);
        Self::version(self, repository, version).instrument(span).await
    }

    fn versions(
        &self,
        repository: &ArtifactRepository,
        package: &PackageId,
    ) -> BoxStream<'static, Result<PackageVersion>> {
        Self::versions(self, repository, package)
    }

    async fn publish(&self, publication: Publication) -> Result<StoredVersion> {
        let span = tracing::debug_span!(
            "codeartifact.publish",
            repository = %publication.repository,
            package = %publication.version
        );
        Self::publish(self, &publication).instrument(span).await
    }

    async fn asset(
        &self,
        repository: &ArtifactRepository,
        version: &PackageVersion,
        asset: &str,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let span = tracing::debug_span!("codeartifact.asset", %repository, package = %version, asset);
        Self::asset(self, repository, version, asset)
            .instrument(span)
            .await
    }

    async fn promote(
        &self,
        from: &ArtifactRepository,
        to: &ArtifactRepository,
        version: &PackageVersion,
    ) -> Result<StoredVersion> {
        let span = tracing::debug_span!("codeartifact.promote", %from, %to, package = %version);
        Self::promote(self, from, to, version).instrument(span).await
    }
}
