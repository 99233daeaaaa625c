//! The program's own path between two accounts of the lab.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use move_image::lab::{Account, signed_image};
use move_image::move_image;
use towpath_ecr::ImageRef;
use towpath_ecr::registry::ScanStatus;

#[tokio::test]
async fn an_image_moves_once_with_what_refers_to_it() {
    let from = Account::start("111111111111", "AKIASOURCESOURCESOUR")
        .await
        .unwrap();
    let to = Account::start("222222222222", "AKIATARGETTARGETTARG")
        .await
        .unwrap();
    let image = signed_image(&from).await.unwrap();
    let target: ImageRef = format!("{}/mirror/web:1.4", to.lab.registry_host())
        .parse()
        .unwrap();

    let first = move_image(&from.ecr, &image, &to.ecr, &target).await.unwrap();
    assert_eq!(first.image.digest(), image.digest());
    let tagged = to.lab.image("mirror/web", "1.4").unwrap();
    assert_eq!(Some(&tagged.digest), image.digest());
    // Two platforms, a signature, an SBOM, and the index: by its digest, so that the two can refer to it, and by its tag.
    assert_eq!((first.copied.manifests, first.referrers.len()), (6, 2));
    assert!(first.copied.sent > 0 && first.copied.bytes > 0);
    let statuses = first.scan.platforms.iter().map(|part| &part.status);
    assert_eq!(
        statuses.collect::<Vec<_>>(),
        [&ScanStatus::Complete, &ScanStatus::Complete]
    );

    let before = to.lab.registry_requests().len();
    let second = move_image(&from.ecr, &image, &to.ecr, &target).await.unwrap();
    assert_eq!(
        (second.copied.manifests, second.copied.sent, second.copied.bytes),
        (0, 0, 0)
    );
    assert_eq!(second.referrers, first.referrers);
    let log = to.lab.registry_requests().all();
    assert!(
        log[before..]
            .iter()
            .all(|request| ["GET", "HEAD"].contains(&request.method.as_str()))
    );

    assert!(!from.credentials().is_empty() && !to.credentials().is_empty());
    assert!(
        from.credentials().is_disjoint(&to.credentials()),
        "one account has seen the other's"
    );
    let error = move_image(&from.ecr, &image.tagged("1".parse().unwrap()), &to.ecr, &target)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no digest"), "{error}");
}
