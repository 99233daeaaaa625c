//! The client against registries that somebody else wrote. `tests/peers/run` starts them and says where they are; by
//! itself `cargo test` leaves this out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use towpath_core::{ImageRef, RegistryHost, Secret};
use towpath_ecr::Result;
use towpath_ecr::oci::{
    Blob, BlobSource, Manifest, OciClient, OciSettings, Pushed, RegistryCredentials, media,
};

/// A password for one registry, none for the others.
#[derive(Debug)]
struct Password {
    registry: RegistryHost,
    pair: String,
}

#[async_trait]
impl RegistryCredentials for Password {
    async fn basic(&self, registry: &RegistryHost, _refused: Option<&Secret>) -> Result<Option<Secret>> {
        Ok((*registry == self.registry).then(|| Secret::new(STANDARD.encode(&self.pair))))
    }
}

fn from_environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run tests/peers/run"))
}

fn image(registry: &str, rest: &str) -> ImageRef {
    format!("{registry}/{rest}").parse().unwrap()
}

fn client(registry: &str, password: &str) -> OciClient {
    let credentials = Password {
        registry: image(registry, "any").registry().clone(),
        pair: format!("peer:{password}"),
    };
    OciClient::new("the registry", Arc::new(credentials), OciSettings::default()).unwrap()
}

/// An image whose two layers are no archives: a registry does not look into them.
fn manifest_of(config: &Blob, layers: &[Blob]) -> Manifest {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.digest, "size": layer.size,
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.size,
        },
        "layers": layers,
    });
    Manifest::read(media::OCI_MANIFEST, manifest.to_string().into()).unwrap()
}

#[tokio::test]
#[ignore = "needs the registries that tests/peers/run starts"]
async fn docker_registry_takes_serves_and_copies_images() {
    let open = from_environment("TOWPATH_PEER_REGISTRY_OPEN");
    let closed = from_environment("TOWPATH_PEER_REGISTRY_CLOSED");
    let oci = client(&closed, &from_environment("TOWPATH_PEER_REGISTRY_PASSWORD"));
    let target = image(&open, "towpath/app");
    let tag = "1".parse().unwrap();

    // Push: one layer from memory, one of several megabytes from a file, and nothing twice.
    let folder = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..6_000_000_u32).flat_map(u32::to_le_bytes).step_by(3).collect();
    let path = folder.path().join("layer");
    std::fs::write(&path, &large).unwrap();
    let small = Blob::from_bytes("a layer");
    let large = Blob {
        source: BlobSource::File(path),
        ..Blob::from_bytes(large)
    };
    let config = Blob::from_bytes(
        serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [small.digest, large.digest] },
        })
        .to_string(),
    );
    assert_eq!(
        oci.manifest_digest(&target.tagged("1".parse().unwrap()))
            .await
            .unwrap(),
        None
    );
    assert_eq!(oci.blob_size(&target, &small.digest).await.unwrap(), None);
    let blobs = vec![small.clone(), large.clone(), config.clone()];
    let pushed = oci.push_blobs(&target, blobs.clone()).await.unwrap();
    assert_eq!(pushed, [Pushed::Sent, Pushed::Sent, Pushed::Sent]);
    let again = oci.push_blobs(&target, blobs).await.unwrap();
    assert_eq!(again, [Pushed::Present, Pushed::Present, Pushed::Present]);
    let manifest = manifest_of(&config, &[small.clone(), large.clone()]);
    oci.put_manifest(&target, &manifest).await.unwrap();
    oci.put_tag(&target, &tag, &manifest).await.unwrap();

    // Pull: the same bytes by tag and by digest, and the verified blob.
    let served = oci.manifest(&target.tagged(tag.clone())).await.unwrap().unwrap();
    assert_eq!(
        (&served.digest, &served.bytes),
        (&manifest.digest, &manifest.bytes)
    );
    let read = oci
        .small_blob(&target, &small.digest, small.size, 1 << 10)
        .await
        .unwrap();
    assert_eq!(read, "a layer");
    assert_eq!(
        oci.blob_size(&target, &large.digest).await.unwrap(),
        Some(large.size)
    );

    // Within the registry blobs are mounted, not sent.
    let from = Blob {
        source: BlobSource::Registry(oci.repository(&target)),
        ..large.clone()
    };
    let mounted = oci
        .push_blob(&image(&open, "towpath/other"), &from)
        .await
        .unwrap();
    assert_eq!(mounted, Pushed::Mounted);

    // Copy to the registry with a password: our own image, and an index that another client has pushed.
    for name in ["towpath/app", "peers/base"] {
        let from = oci
            .manifest(&image(&open, &format!("{name}:1")))
            .await
            .unwrap()
            .unwrap();
        let source = image(&open, name).at(from.digest.clone());
        let to = image(&closed, &format!("{name}:1"));
        let copied = oci.copy_image(&source, &to).await.unwrap();
        assert_eq!(copied.manifest.digest, from.digest);
        let kept = oci.manifest(&to).await.unwrap().unwrap();
        assert_eq!(kept.bytes, from.bytes);
        for child in kept.children() {
            let child = to.at(child.digest().to_string().parse().unwrap());
            assert!(
                oci.manifest(&child).await.unwrap().is_some(),
                "{child} was not copied"
            );
        }
    }

    // With a wrong password nothing is there.
    let stranger = client(&closed, "wrong");
    let refused = stranger
        .manifest(&image(&closed, "towpath/app:1"))
        .await
        .unwrap_err();
    assert!(refused.is_unauthenticated() || refused.is_denied(), "{refused:?}");
}
