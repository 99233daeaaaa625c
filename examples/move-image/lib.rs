//! Moves an image and everything that refers to it from one account's registry to another's, by digest.

pub mod lab;

use std::time::Duration;
use towpath_ecr::oci::{Copied, CopyOptions, Descriptor, copy};
use towpath_ecr::registry::ScanReport;
use towpath_ecr::wait::Policy;
use towpath_ecr::{
    Cancellation, Ecr, EcrConfig, Error, ErrorKind, ImageRef, Region, Registry, RegistryExt, Result, Secret,
};

/// How to call the program.
pub const USAGE: &str = "\
usage: move-image [IMAGE@DIGEST TARGET[:TAG]]

Without arguments it shows itself between two accounts of the lab. With them, the source's account is in SOURCE_AWS_REGION,
SOURCE_AWS_ACCESS_KEY_ID, SOURCE_AWS_SECRET_ACCESS_KEY and, for a temporary key, SOURCE_AWS_SESSION_TOKEN; the target's in
the same names with TARGET_.";

/// An image that is in the target, with what refers to it.
#[derive(Debug)]
pub struct Moved {
    /// Its name in the target, by digest.
    pub image: ImageRef,
    /// What was sent.
    pub copied: Copied,
    /// Signatures, SBOMs and the like, as the target lists them.
    pub referrers: Vec<Descriptor>,
    /// What the target's scanner found.
    pub scan: ScanReport,
}

/// Moves an image, given by digest, to the repository of `target` and under its tag, and waits until it is scanned there.
///
/// # Errors
/// *Invalid* without a digest, *timed out* where the scan does not end within ten minutes, and what either registry says.
pub async fn move_image(from: &Ecr, image: &ImageRef, to: &Ecr, target: &ImageRef) -> Result<Moved> {
    let Some(digest) = image.digest() else {
        return Err(Error::new(ErrorKind::Invalid, "move-image", "move", image)
            .because("it has no digest: its tag may name another image by now"));
    };
    let place = to.ensure_repository(target.repository()).await?;
    let moved = place.at(digest.clone());
    // Each side has its own client, and so its own credentials.
    let (source, sink) = (from.oci().repository(image), to.oci().repository(&place));
    let mut options = CopyOptions::default();
    options.cosign = true;
    let copied = copy(&source, &digest.clone().into(), &sink, target.tag(), &options).await?;
    let referrers = to.oci().referrers(&place, digest).await?;
    let policy = Policy::every(Duration::from_millis(500)).within(Duration::from_secs(600));
    let scan = to.wait_for_scan(&moved, &policy, &Cancellation::new()).await?;
    Ok(Moved {
        image: moved,
        copied,
        referrers,
        scan,
    })
}

/// The account that the environment variables with this prefix name.
///
/// # Errors
/// *Invalid*, naming the variable that is missing or wrong.
pub async fn account(prefix: &str) -> Result<Ecr> {
    let read = |name: &str| {
        let name = format!("{prefix}{name}");
        std::env::var(&name).map_err(|_| {
            Error::new(ErrorKind::Invalid, "move-image", "read", name).because("the variable is not set")
        })
    };
    let secret = Secret::new(read("AWS_SECRET_ACCESS_KEY")?);
    let session = read("AWS_SESSION_TOKEN").ok().map(Secret::new);
    let config = EcrConfig::from_env()
        .region(Region::new(read("AWS_REGION")?)?)
        .credentials(read("AWS_ACCESS_KEY_ID")?, secret, session);
    Ecr::new(&config).await
}
