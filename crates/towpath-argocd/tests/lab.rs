//! The client and its wait at the lab's Argo CD, whose cluster really pulls. What it runs is asked of the cluster itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod lab_world;

use futures_util::StreamExt;
use lab_world::{World, app, expected};
use serde_json::json;
use std::time::Duration;
use towpath_argocd::{
    ArgoCd, Deletion, DeliveryOutcome, Expected, ListFilter, Login, Refresh, Secret, SyncState, Trigger,
    WatchEvent, WatchFilter,
};
use towpath_core::{Cancellation, requests};
use towpath_elements::{Delivery, ErrorKind};

#[tokio::test]
async fn a_commit_goes_live_and_so_does_the_next() {
    let (world, one, first) = World::deployed(true).await;
    let client = world.client();
    let running = client.running(&app()).await.unwrap();
    assert_eq!(running.len(), 2);
    assert!(
        running
            .iter()
            .all(|container| container.digest.as_ref() == one.digest() && container.ready)
    );
    assert_eq!(client.status(&app()).await.unwrap().sync, SyncState::Synced);

    // Nobody told Argo CD about the commit: the wait asks it to look.
    let two = world.image("two");
    let second = world.commit(&two);
    let report = world.wait(&second, &two).await;
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");

    // What is live costs no change; and few requests, once a comparison is a second younger than the sync.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.refresh(&app()).await.unwrap();
    let (report, sent) = requests::count(world.wait(&second, &two)).await;
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    assert!(sent <= 4, "{sent}");

    // The first commit is contained in the second, and its image is gone.
    let report = world.wait(&first, &one).await;
    assert_eq!(report.outcome, DeliveryOutcome::Superseded);
    assert!(
        report.reason.contains("its manifests ask for"),
        "{}",
        report.reason
    );

    // The second commit is live, and never asked for the first image.
    let report = world.wait(&second, &one).await;
    assert_eq!(report.outcome, DeliveryOutcome::NotDesired, "{report:?}");
}

#[tokio::test]
async fn an_application_that_does_not_sync_on_its_own_is_synced_once() {
    let (world, ..) = World::deployed(false).await;
    let two = world.image("two");
    let commit = world.commit(&two);
    let report = world.wait(&commit, &two).await;
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    let synced = world.client().application(&app()).await.unwrap();
    assert_eq!(synced.status.history.len(), 2);
    let operation = synced.status.operation_state.unwrap().operation;
    assert_eq!(operation.info[0].name, "towpath/operation");

    let three = world.image("three");
    let commit = world.commit(&three);
    let client = world.client_with(|policy| policy.trigger = Trigger::Refresh);
    let report = client
        .wait(expected(&commit, &three), &Cancellation::new())
        .await
        .unwrap();
    assert_eq!(report.outcome, DeliveryOutcome::AutoSyncOff, "{report:?}");
    world.assert_runs(&two);
}

#[tokio::test]
async fn a_workload_that_cannot_start_is_degraded_and_says_why() {
    let (world, one, _) = World::deployed(true).await;
    let soon = Duration::from_millis(300);
    world
        .lab
        .cluster()
        .set_delays(|delays| delays.progress_deadline = soon);
    let missing = one.at(towpath_core::Digest::sha256_of("nowhere"));
    let commit = world.commit(&missing);
    let report = world.wait(&commit, &missing).await;
    assert_eq!(report.outcome, DeliveryOutcome::Degraded, "{report:?}");
    assert!(report.reason.contains("Deployment"), "{}", report.reason);
}

#[tokio::test]
async fn a_wait_that_is_cancelled_ends_at_once() {
    let (world, ..) = World::deployed(true).await;
    let two = world.image("two");
    let commit = world.commit(&two);
    world.lab.knobs().set(|knobs| knobs.refresh_hangs = true);
    let client = world.client();
    let cancellation = Cancellation::new();
    let wait = client.wait(expected(&commit, &two), &cancellation);
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancellation.cancel();
    };
    let (result, ()) = tokio::join!(wait, cancel);
    assert!(result.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn a_settle_window_is_waited_out() {
    let (world, one, first) = World::deployed(true).await;
    let settle = Duration::from_millis(150);
    let began = std::time::Instant::now();
    let settled = Expected {
        settle,
        ..expected(&first, &one)
    };
    let report = world.client().wait(settled, &Cancellation::new()).await.unwrap();
    assert_eq!(report.outcome, DeliveryOutcome::Live);
    assert!(began.elapsed() >= settle);
}

#[tokio::test]
async fn what_is_missing_is_not_found_with_and_without_a_project() {
    let world = World::start().await;
    let client = world.client();
    for name in ["nothing", "default/nothing"] {
        let error = client.application(&name.parse().unwrap()).await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
    let image = world.image("one");
    let commit = world.commit(&image);
    let error = client
        .wait(expected(&commit, &image), &Cancellation::new())
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let tagged = Expected {
        images: vec!["r.example/web:1".parse().unwrap()],
        ..expected(&commit, &image)
    };
    assert_eq!(
        client
            .wait(tagged, &Cancellation::new())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn the_calls_of_the_service_are_answered() {
    let (world, one, first) = World::deployed(true).await;
    let client = world.client();
    assert!(client.version().await.unwrap().version.starts_with("v3.5"));
    client.settings().await.unwrap();
    assert!(client.user_info().await.unwrap().logged_in);
    assert!(client.can_i("applications", "get", "default/web").await.unwrap());
    assert_eq!(client.project("default").await.unwrap().metadata.name, "default");

    let named = ListFilter {
        name: Some("web".into()),
        fields: vec!["items.metadata.name".into()],
        ..ListFilter::default()
    };
    assert_eq!(
        client.applications(&named).await.unwrap().items[0].metadata.name,
        "web"
    );
    let none = ListFilter {
        name: Some("none".into()),
        ..named
    };
    assert!(client.applications(&none).await.unwrap().items.is_empty());

    let manifests = client.manifests(&app(), Some(first.as_str())).await.unwrap();
    assert!(manifests.manifests[0].contains(one.digest().unwrap().as_str()));
    assert_eq!(
        client
            .revision_metadata(&app(), first.as_str())
            .await
            .unwrap()
            .message,
        "deploy"
    );
    assert!(!client.managed_resources(&app()).await.unwrap().is_empty());
    client.events(&app()).await.unwrap();
    assert!(client.sync_windows(&app()).await.unwrap().can_sync);
    client
        .refreshed(&app(), Refresh::Hard, Duration::from_secs(5))
        .await
        .unwrap();

    // Making it again is no change; making another of it is a conflict, unless it may be replaced.
    client.create(&world.spec(true)).await.unwrap();
    let error = client.create(&world.spec(false)).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    client.upsert(&world.spec(false)).await.unwrap();
    client
        .patch(&app(), &json!({"metadata": {"labels": {"team": "shop"}}}))
        .await
        .unwrap();
    let patched = client.application(&app()).await.unwrap();
    assert_eq!(patched.metadata.labels["team"], "shop");
    assert!(!client.terminate(&app()).await.unwrap());

    let two = world.image("two");
    let second = world.commit(&two);
    assert_eq!(world.wait(&second, &two).await.outcome, DeliveryOutcome::Live);
    client
        .rollback(&app(), patched.status.history[0].id, false)
        .await
        .unwrap();

    client.delete(&app(), Deletion::Foreground).await.unwrap();
    for _ in 0..500 {
        match client.application(&app()).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => return assert!(error.is_not_found(), "{error}"),
        }
    }
    panic!("it was never deleted");
}

#[tokio::test]
async fn a_watch_goes_on_over_cut_connections() {
    let (world, ..) = World::deployed(true).await;
    world.lab.knobs().set(|knobs| knobs.cut_stream_after = Some(1));
    let client = world.client();
    let mut events = client.watch(WatchFilter::of(&app()));
    let Some(Ok(WatchEvent::Changed(first))) = events.next().await else {
        panic!("no first event")
    };
    client
        .patch(&app(), &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .unwrap();
    let change = async {
        while let Some(event) = events.next().await {
            if let WatchEvent::Changed(app) = event.unwrap()
                && app.metadata.labels.contains_key("a")
            {
                return app;
            }
        }
        panic!("the stream ended")
    };
    let changed = tokio::time::timeout(Duration::from_secs(10), change)
        .await
        .unwrap();
    assert!(changed.metadata.version_number() > first.metadata.version_number());
}

#[tokio::test]
async fn a_password_opens_a_session_and_wrong_credentials_are_told() {
    let world = World::start().await;
    let with = |login| ArgoCd::builder(world.lab.url(), login).unwrap().build().unwrap();
    let password = |text: &str| Login::Password {
        username: "admin".into(),
        password: Secret::new(text),
    };
    let admin = with(password("lab-admin"));
    assert!(
        admin
            .applications(&ListFilter::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(admin.user_info().await.unwrap().username, "admin");
    for login in [
        password("canary"),
        Login::Token(Secret::new("can.ary.canary")),
        Login::Anonymous,
    ] {
        let error = with(login)
            .applications(&ListFilter::default())
            .await
            .unwrap_err();
        assert!(error.is_unauthenticated(), "{error}");
        assert!(!format!("{error:?}").contains("canary"));
    }
}
