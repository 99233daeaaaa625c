//! Code of one's own with a real client; `tests/release.rs` tests it against the lab.

use towpath_ecr::registry::{ScanStatus, Severity};
use towpath_ecr::wait::Policy;
use towpath_ecr::{Cancellation, Error, ErrorKind, ImageRef, Registry, RegistryExt, Result};

/// Makes the tag `live` name an image, once its scan is complete and has found nothing critical.
///
/// # Errors
/// *Denied* where the scan forbids it, *timed out* where there is no result in time, *not found* without the image, and
/// what the registry says.
pub async fn release(registry: &dyn Registry, image: &ImageRef, policy: &Policy) -> Result<ImageRef> {
    let refuse = |kind| Error::new(kind, "release", "release", image);
    let Some(resolved) = registry.resolve(image).await? else {
        return Err(refuse(ErrorKind::NotFound).because("the registry has no such image"));
    };
    let report = registry
        .wait_for_scan(&resolved.image, policy, &Cancellation::new())
        .await?;
    for scan in &report.platforms {
        if !matches!(scan.status, ScanStatus::Complete | ScanStatus::Active) {
            return Err(
                refuse(ErrorKind::Denied).because(format!("its scan has no result: {:?}", scan.status))
            );
        }
        // A finding without a grade ranks above all others.
        if let Some(found) = scan
            .findings
            .iter()
            .find(|found| found.severity >= Severity::Critical)
        {
            return Err(refuse(ErrorKind::Denied).because(format!("{} is {:?}", found.name, found.severity)));
        }
    }
    registry.tag(&resolved.image, &"live".parse()?).await?;
    Ok(resolved.image)
}
