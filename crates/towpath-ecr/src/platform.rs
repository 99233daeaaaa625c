//! The runnable platforms of an image, and which of them a wish means.

use crate::assemble::Platformed;
use crate::client::Ecr;
use crate::oci::copy::digest_of;
use crate::oci::{Descriptor, ImageSource, LARGEST_MANIFEST, Manifest, ManifestContent};
use towpath_core::ImageRef;
use towpath_elements::registry::{Platform, PlatformImage};
use towpath_elements::{Error, ErrorKind, Result};

/// The annotation by which BuildKit marks attestations that stand in an index beside the platforms.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// The platform of a child of an index; `None` for an attestation or an artifact, which nobody runs.
pub(crate) fn runnable(descriptor: &Descriptor) -> Option<Platform> {
    let is_attestation = descriptor
        .annotations()
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(ATTESTATION));
    let platform = descriptor.platform().as_ref()?;
    let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
    let known = |word: &str| !word.is_empty() && word != "unknown";
    (!is_attestation && known(&os) && known(&architecture)).then(|| Platform {
        os,
        architecture,
        variant: platform.variant().clone().filter(|variant| !variant.is_empty()),
    })
}

/// Whether a platform is what was asked for. `linux/arm64` is also asked for where the image says `linux/arm64/v8`.
pub(crate) fn matches(wanted: &Platform, found: &Platform) -> bool {
    let usual = |platform: &Platform| match (&platform.variant, platform.architecture.as_str()) {
        (Some(variant), _) => Some(variant.clone()),
        (None, "arm64") => Some("v8".to_owned()),
        (None, "arm") => Some("v7".to_owned()),
        (None, _) => None,
    };
    wanted.os == found.os && wanted.architecture == found.architecture && usual(wanted) == usual(found)
}

#[derive(serde::Deserialize)]
struct ConfigPlatform {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

/// The runnable platforms of a manifest or index. A single manifest's platform stands in its configuration, if
/// anywhere.
pub(crate) async fn platforms(source: &dyn ImageSource, manifest: &Manifest) -> Result<Vec<PlatformImage>> {
    match &manifest.content {
        ManifestContent::Index(index) => {
            let mut found = Vec::new();
            for descriptor in index.manifests() {
                if let Some(platform) = runnable(descriptor) {
                    found.push(PlatformImage {
                        platform: Some(platform),
                        digest: digest_of(descriptor)?,
                    });
                }
            }
            Ok(found)
        }
        ManifestContent::Image(content) => {
            let config = content.config();
            let is_image = matches!(
                config.media_type().to_string().as_str(),
                "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
            );
            let platform = match is_image {
                true => {
                    let bytes = source.blob(config).await?.bytes(LARGEST_MANIFEST).await?;
                    let said: Option<ConfigPlatform> = serde_json::from_slice(&bytes).ok();
                    said.and_then(|said| {
                        Some(Platform {
                            os: said.os.filter(|os| !os.is_empty())?,
                            architecture: said
                                .architecture
                                .filter(|architecture| !architecture.is_empty())?,
                            variant: said.variant.filter(|variant| !variant.is_empty()),
                        })
                    })
                }
                false => None,
            };
            Ok(vec![PlatformImage {
                platform,
                digest: manifest.digest.clone(),
            }])
        }
    }
}

impl Ecr {
    /// The runnable platforms, each known by name.
    pub(crate) async fn platforms_of(
        &self,
        image: &ImageRef,
        manifest: &Manifest,
    ) -> Result<Vec<Platformed>> {
        let found = platforms(&self.oci.repository(image), manifest).await?;
        found
            .into_iter()
            .map(|part| {
                let platform = part.platform.ok_or_else(|| {
                    Error::new(
                        ErrorKind::Invalid,
                        crate::assemble::SERVICE,
                        "use the image",
                        image,
                    )
                    .because("it does not say which platform it is for")
                })?;
                Ok(Platformed {
                    platform,
                    digest: part.digest,
                })
            })
            .collect()
    }
}
