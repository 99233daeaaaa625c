//! Two accounts of the lab, and an image with a signature and an SBOM in the first.

use std::collections::BTreeSet;
use towpath_ecr::oci::{Artifact, Blob};
use towpath_ecr::registry::{Assembly, Layer, Platform};
use towpath_ecr::{Digest, Ecr, EcrConfig, ImageRef, Region, Registry, Secret};
use towpath_lab::ecr;

/// What goes wrong while the lab is prepared.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// One account: its registry, and a client with its credentials.
#[derive(Debug)]
pub struct Account {
    /// The registry.
    pub lab: ecr::Ecr,
    /// The client.
    pub ecr: Ecr,
}

impl Account {
    /// Starts the registry of an account with an access key of its own.
    ///
    /// # Errors
    /// The lab or the client cannot be started.
    pub async fn start(account: &str, key: &str) -> Result<Self, Error> {
        let known = ecr::EcrConfig {
            account: account.into(),
            access_key_id: key.into(),
            secret_access_key: Secret::new(format!("secret of {account}")),
            ..ecr::EcrConfig::default()
        };
        let lab = ecr::Ecr::start(known.clone()).await?;
        let config = EcrConfig::from_env()
            .region(Region::new(known.region)?)
            .endpoint(lab.api_url().parse()?)
            .credentials(known.access_key_id, known.secret_access_key, None);
        let ecr = Ecr::new(&config).await?;
        Ok(Self { lab, ecr })
    }

    /// Fingerprints of all credentials that the registry was shown.
    pub fn credentials(&self) -> BTreeSet<Digest> {
        let seen = self.lab.registry_requests().all();
        seen.into_iter()
            .filter_map(|request| request.authorization)
            .collect()
    }
}

/// Makes an image of two platforms, signs it, and says what it is made of.
///
/// # Errors
/// What the registry says.
pub async fn signed_image(account: &Account) -> Result<ImageRef, Error> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("hello"), "hello\n")?;
    let target = account.ecr.ensure_repository(&"shop/web".parse()?).await?;
    let platforms = [Platform::linux("amd64"), Platform::linux("arm64")];
    let mut assembly = Assembly::from_scratch(target, platforms);
    assembly.layers = vec![Layer::files(folder.path(), "/srv")];
    let image = account.ecr.assemble(assembly).await?.image;
    for (kind, content) in [
        (
            "application/vnd.dev.sigstore.bundle.v0.3+json",
            "{\"signature\":\"of the image\"}",
        ),
        ("application/spdx+json", "{\"spdxVersion\":\"SPDX-2.3\"}"),
    ] {
        let artifact = Artifact::new(kind).part(kind, Blob::from_bytes(content));
        account.ecr.oci().attach(&image, &artifact).await?;
    }
    Ok(image)
}
