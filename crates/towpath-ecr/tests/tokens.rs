//! The registry's token against the lab: minted once for all, renewed in time, and never shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use futures_util::future::join_all;
use http::StatusCode;
use support::{World, config};
use towpath_ecr::{Ecr, ErrorKind, ImageRef, Registry};
use towpath_lab::Fault;

const CALLERS: usize = 64;

fn minted(world: &World) -> usize {
    let all = world.lab.api_requests().all();
    let targets = all.iter().filter_map(|seen| seen.target.as_deref());
    targets
        .filter(|target| target.ends_with("GetAuthorizationToken"))
        .count()
}

fn no_image(world: &World) -> ImageRef {
    format!("{}/shop/web:1", world.lab.registry_host())
        .parse()
        .unwrap()
}

async fn all_look(world: &World, ecr: &Ecr) -> Vec<towpath_ecr::Result<bool>> {
    let image = no_image(world);
    let looks = (0..CALLERS).map(|_| ecr.resolve(&image));
    let found = join_all(looks).await.into_iter();
    found.map(|found| found.map(|found| found.is_some())).collect()
}

fn refusal() -> Fault {
    let body = r#"{"__type":"AccessDeniedException","message":"no ecr:GetAuthorizationToken"}"#;
    Fault::respond("GetAuthorizationToken", StatusCode::BAD_REQUEST, body)
}

#[tokio::test]
async fn many_callers_share_one_token() {
    let world = World::start().await;
    let ecr = Ecr::new(&config(&world.lab)).await.unwrap();
    for found in all_look(&world, &ecr).await {
        assert!(!found.unwrap());
    }
    assert_eq!(minted(&world), 1);
}

#[tokio::test]
async fn many_callers_share_one_failure() {
    let world = World::start().await;
    world.lab.api_faults().inject(refusal().always());
    for found in all_look(&world, &world.ecr).await {
        let error = found.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.detail().contains("ecr:GetAuthorizationToken"), "{error}");
    }
    assert_eq!(minted(&world), 1);
    // Who comes later tries again.
    world.lab.api_faults().clear();
    assert!(
        all_look(&world, &world.ecr)
            .await
            .into_iter()
            .all(|found| found.is_ok())
    );
    assert_eq!(minted(&world), 2);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_for_all() {
    let world = World::start().await;
    assert!(world.ecr.resolve(&no_image(&world)).await.is_ok());
    for round in 2..4 {
        world.lab.expire_tokens();
        assert!(
            all_look(&world, &world.ecr)
                .await
                .into_iter()
                .all(|found| found.is_ok())
        );
        assert_eq!(minted(&world), round);
    }
    // Where there is no new one, a refused token is not used on.
    world.lab.expire_tokens();
    world.lab.api_faults().inject(refusal().always());
    let error = world.ecr.resolve(&no_image(&world)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}
