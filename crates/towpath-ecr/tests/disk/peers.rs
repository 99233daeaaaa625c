//! Copies that `tests/peers/run` asks for, between places that other tools wrote or are to read; by itself `cargo test`
//! leaves this out.

use std::sync::Arc;
use towpath_ecr::oci::{Anonymous, CopyOptions, ImagePlace, OciClient, OciSettings};
use towpath_ecr::registry::Platform;

/// `FROM TO`, one pair a line.
const PAIRS: &str = "TOWPATH_PEER_COPIES";

#[tokio::test]
#[ignore = "needs the places that tests/peers/run makes"]
async fn images_are_copied_between_places() {
    let pairs = std::env::var(PAIRS).unwrap_or_else(|_| panic!("{PAIRS} is not set; run tests/peers/run"));
    let oci = OciClient::new("the registry", Arc::new(Anonymous), OciSettings::default()).unwrap();
    for pair in pairs.lines().filter(|line| !line.trim().is_empty()) {
        let (from, to) = pair.trim().split_once(' ').unwrap();
        let (from, to): (ImagePlace, ImagePlace) = (from.parse().unwrap(), to.parse().unwrap());
        let mut options = CopyOptions::default();
        if let ImagePlace::DockerArchive { .. } = to {
            options.platforms = vec![Platform::linux("amd64")];
            options.referrers = false;
        }
        let copied = from.copy_to(&to, &oci, &options).await.unwrap();
        println!(
            "{from} to {to}: {}, {} blobs sent",
            copied.manifest.digest, copied.sent
        );
    }
}
