//! Races in which the wait does not say live too early, and does not end as it should.

use crate::lab_world::{World, expected};
use crate::sources::hydrated;
use std::time::Duration;
use towpath_argocd::{DeliveryOutcome, Expected};
use towpath_core::Cancellation;
use towpath_elements::Delivery;

#[tokio::test]
async fn r15_the_hydrated_commit_is_what_a_sync_is_asked_for() {
    let world = World::start().await;
    let one = world.image("one");
    let first = world.commit(&one);
    world.client().create(&hydrated(&world, false)).await.unwrap();
    world.assert_live(&first, &one).await;
    let two = world.image("two");
    let second = world.commit(&two);
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn r21_what_automatic_syncs_leave_to_prune_is_told() {
    let (world, one, _) = World::deployed(true).await;
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata: {a: b}\n";
    let added = world.commit_file("prod/settings.yaml", settings);
    world.assert_live(&added, &one).await;
    let keep = serde_json::json!({"spec": {"syncPolicy": {"automated": {"prune": false}}}});
    let client = world.client();
    client.patch(&crate::lab_world::app(), &keep).await.unwrap();
    std::fs::remove_file(world.repository().join("prod/settings.yaml")).unwrap();
    let second = world.commit(&one);
    let soon = Expected {
        within: Duration::from_secs(10),
        ..expected(&second, &one)
    };
    let report = client.wait(soon, &Cancellation::new()).await.unwrap();
    assert_eq!(report.outcome, DeliveryOutcome::SyncFailed, "{report:?}");
    assert!(report.reason.contains("ConfigMap settings"), "{}", report.reason);
}
