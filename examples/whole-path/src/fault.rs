//! The failures that can be asked for, as faults of the lab.

use crate::Fault;
use std::path::Path;
use towpath_lab::Lab;
use towpath_lab::ecr::Finding;
use towpath_lab::github::DeliveryFault;

/// The image's repository in the sample.
const REPOSITORY: &str = "shop/web";

/// Prepares the lab for a failure that lies in a service.
pub(crate) fn prepare(fault: Fault, lab: &Lab) {
    match fault {
        Fault::ScanCritical => {
            let finding = Finding::new("CVE-2026-10001", "CRITICAL", "libexample", "1.0.0").fixed_in("1.0.1");
            lab.ecr().set_findings(REPOSITORY, vec![finding]);
        }
        Fault::RegistryThrottles => {
            let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}"#;
            let status = http::StatusCode::TOO_MANY_REQUESTS;
            lab.ecr()
                .registry_faults()
                .inject(towpath_lab::Fault::respond("/blobs/uploads/", status, body).always());
        }
        Fault::ArgocdBlind | Fault::PlanRejected | Fault::CiFails => {}
    }
}

/// Makes Argo CD blind, once it has seen everything but the promotion.
pub(crate) fn blind(lab: &Lab) {
    lab.github()
        .inject_delivery_fault(lab.argocd().url(), DeliveryFault::Drop, u32::MAX);
    lab.argocd().knobs().set(|knobs| knobs.lose_refresh = u32::MAX);
}

/// Breaks a library's source, so that it does not compile.
pub(crate) fn break_source(project: &Path) -> std::io::Result<()> {
    std::fs::write(project.join("src/lib.rs"), "pub fn greet() -> String { 42 }\n")
}
