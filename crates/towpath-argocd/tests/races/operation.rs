//! Races about operations: whose they are, whether they have ended, and what they are worth.

use crate::lab_world::{World, app, expected};
use crate::wire::{LONG, eventually};
use serde_json::json;
use std::time::Duration;
use towpath_argocd::{ApiError, DeliveryOutcome, SyncRequest, SyncResource, Trigger};
use towpath_core::Cancellation;
use towpath_elements::Delivery;
use towpath_lab::argocd::SyncWindow;

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata: {{a: b}}\n")
}

#[tokio::test]
async fn r03_a_sync_that_was_accepted_and_not_begun_is_running() {
    let (world, one, first) = World::deployed(false).await;
    let two = world.image("two");
    let second = world.commit(&two);
    world.lab.knobs().set(|knobs| knobs.delay_pickup = LONG);
    let sync = SyncRequest::to(second.as_str());
    world.client().sync_application(&app(), &sync).await.unwrap();
    let seen = world.seen().await;
    // Neither running nor failed, as it seems: there is no state at all.
    assert!(seen["status"].get("operationState").is_none());
    assert_eq!(seen["operation"]["sync"]["revision"], second.as_str());
    world.assert_looks_good_at(&seen, &first);
    let wanted = expected(&second, &two);
    world
        .assert_waits_for(&world.client(), &wanted, "the operation to start")
        .await;
    world.assert_runs(&one);
    world.lab.knobs().set(|knobs| knobs.delay_pickup = Duration::ZERO);
    world.lab.advance(LONG);
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn r05_another_operation_in_the_way_is_waited_for() {
    let (world, ..) = World::deployed(false).await;
    let two = world.image("two");
    let commit = world.commit(&two);
    world.lab.knobs().set(|knobs| knobs.hold_operations = true);
    let client = world.client();
    client
        .sync_application(&app(), &SyncRequest::default())
        .await
        .unwrap();
    let refused = client
        .sync_application(&app(), &SyncRequest::default())
        .await
        .unwrap_err();
    assert!(
        ApiError::of(&refused).unwrap().is_operation_in_progress() && refused.is_conflict(),
        "{refused}"
    );
    world.lab.knobs().set(|knobs| knobs.hold_operations = false);
    world.assert_live(&commit, &two).await;

    // One that has ended by the time that anybody looks.
    world.lab.knobs().set(|knobs| knobs.operation_conflict = 2);
    let three = world.image("three");
    let commit = world.commit(&three);
    let asked = world.syncs_asked();
    world.assert_live(&commit, &three).await;
    assert_eq!(world.syncs_asked() - asked, 3);
}

#[tokio::test]
async fn r05_an_automatic_sync_takes_the_place_of_ours() {
    let (world, ..) = World::deployed(true).await;
    let two = world.image("two");
    let second = world.commit(&two);
    world.lab.knobs().set(|knobs| knobs.hold_operations = true);
    world
        .client()
        .sync_application(&app(), &SyncRequest::default().info("ci/run", "4711"))
        .await
        .unwrap();
    world
        .until("our operation to run", |app| {
            app["status"]["operationState"]["operation"]["info"]
                == json!([{"name": "ci/run", "value": "4711"}])
        })
        .await;
    // A newer commit of the same image, with one pod less.
    let manifest = std::fs::read_to_string(world.repository().join("prod/web.yaml")).unwrap();
    let third = world.commit_text(&manifest.replace("replicas: 2", "replicas: 1"));
    world.lab.knobs().set(|knobs| {
        knobs.hold_comparisons = true;
        knobs.hold_operations = false;
    });
    eventually("a comparison after our operation", async || {
        let ended = world.seen().await.get("operation").is_none();
        (ended && world.lab.held_comparisons() > 0).then_some(())
    })
    .await;
    world.lab.knobs().set(|knobs| {
        knobs.hold_operations = true;
        knobs.hold_comparisons = false;
    });
    let seen = world
        .until("an automatic operation", |app| {
            app["status"]["operationState"]["operation"]["initiatedBy"]["automated"] == true
                && app["status"]["operationState"]["phase"] == "Running"
        })
        .await;
    // Ours has ended well, and only the history still says so.
    let status = &seen["status"];
    let running = &status["operationState"]["operation"]["sync"]["revision"];
    assert_eq!(running, third.as_str());
    assert_eq!(status["history"][1]["revision"], second.as_str());
    let wanted = expected(&second, &two);
    world
        .assert_waits_for(&world.client(), &wanted, "the operation on")
        .await;
    world.lab.knobs().set(|knobs| knobs.hold_operations = false);
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn r06_a_sync_by_hand_is_taken_back_by_the_automatic_one() {
    let (world, one, first) = World::deployed(true).await;
    world.lab.knobs().set(|knobs| knobs.auto_sync_reverts = true);
    let two = world.image("two");
    let second = world.commit(&two);
    world
        .client()
        .sync_application(&app(), &SyncRequest::default())
        .await
        .unwrap();
    let seen = world
        .until("the way back", |app| {
            let status = &app["status"];
            status["history"]
                .as_array()
                .is_some_and(|history| history.len() == 3)
                && status["sync"]["status"] == "Synced"
                && status["health"]["status"] == "Healthy"
        })
        .await;
    // It was deployed, everything is well, and the old one runs.
    world.assert_looks_good_at(&seen, &first);
    assert_eq!(seen["status"]["history"][1]["revision"], second.as_str());
    assert_eq!(seen["status"]["operationState"]["phase"], "Succeeded");
    world.until_runs(&one).await;
    world
        .assert_waits_for(&world.onlooker(), &expected(&second, &two), "to see commit")
        .await;
    // A wait asks for no sync where the application syncs on its own; it has the server look.
    let asked = world.syncs_asked();
    world.assert_live(&second, &two).await;
    assert_eq!(world.syncs_asked(), asked);
}

#[tokio::test]
async fn r07_between_two_attempts_an_operation_has_not_ended() {
    let (world, one, _) = World::deployed(false).await;
    let two = world.image("two");
    let second = world.commit(&two);
    world.lab.knobs().set(|knobs| knobs.fail_attempts = 1);
    let sync = SyncRequest {
        retry_limit: Some(3),
        retry_pause: Some(Duration::from_secs(120)),
        ..SyncRequest::to(second.as_str())
    };
    world.client().sync_application(&app(), &sync).await.unwrap();
    let seen = world
        .until("a pause", |app| {
            app["status"]["operationState"].get("finishedAt").is_some()
        })
        .await;
    // It has a time of end, and goes on.
    let state = &seen["status"]["operationState"];
    assert_eq!(
        (&state["phase"], &state["retryCount"]),
        (&json!("Running"), &json!(1))
    );
    let message = state["message"].as_str().unwrap();
    assert!(message.contains("Retrying attempt #1 at "), "{message}");
    assert!(seen.get("operation").is_some());
    world
        .assert_waits_for(&world.client(), &expected(&second, &two), "retry 1")
        .await;
    world.assert_runs(&one);
    world.lab.advance(Duration::from_secs(120));
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn r07_a_sync_that_fails_for_good_is_told() {
    let (world, one, _) = World::deployed(false).await;
    let two = world.image("two");
    let second = world.commit(&two);
    world.lab.knobs().set(|knobs| knobs.fail_attempts = u32::MAX);
    let report = world.wait(&second, &two).await;
    assert_eq!(report.outcome, DeliveryOutcome::SyncFailed, "{report:?}");
    assert!(report.reason.contains("failed to apply"), "{}", report.reason);
    world.assert_runs(&one);
}

#[tokio::test]
async fn r19_a_closed_window_is_told_before_the_deadline() {
    for automated in [true, false] {
        let (world, one, first) = World::deployed(automated).await;
        // It opens in two hours, by the lab's clock.
        let opening = world.lab.now().saturating_add(LONG * 2).unwrap();
        let opening = opening.strftime("%-M %-H * * *").to_string();
        let window = SyncWindow::allow(&opening, "30m").unwrap();
        world.lab.set_sync_windows("default", vec![window]);
        let two = world.image("two");
        let commit = world.commit(&two);
        world.assert_looks_good_at(&world.seen().await, &first);
        let windows = world.get("/api/v1/applications/web/syncwindows").await;
        assert_eq!(
            (&windows["canSync"], windows.get("activeWindows")),
            (&json!(false), None)
        );
        assert_eq!(windows["assignedWindows"][0]["schedule"], opening);
        let report = world.wait(&commit, &two).await;
        let (outcome, rejected) = (report.outcome, DeliveryOutcome::Rejected);
        assert_eq!(outcome, rejected, "{automated}: {}", report.reason);
        world.assert_runs(&one);

        world.lab.advance(LONG * 2);
        world.assert_live(&commit, &two).await;
    }
}

#[tokio::test]
async fn r19_a_window_that_closes_holds_what_was_accepted() {
    let (world, one, _) = World::deployed(false).await;
    let two = world.image("two");
    let second = world.commit(&two);
    world.lab.knobs().set(|knobs| knobs.hold_operations = true);
    let sync = SyncRequest::to(second.as_str());
    world.client().sync_application(&app(), &sync).await.unwrap();
    let night = SyncWindow::deny("* * * * *", "1h").unwrap();
    world.lab.set_sync_windows("default", vec![night]);
    world.lab.knobs().set(|knobs| knobs.hold_operations = false);
    let seen = world
        .until("the window to hold it", |app| {
            app["status"]["operationState"]["message"] == "Sync operation blocked by sync window"
        })
        .await;
    assert_eq!(seen["status"]["operationState"]["phase"], "Running");
    let report = world.wait(&second, &two).await;
    assert_eq!(report.outcome, DeliveryOutcome::Rejected, "{report:?}");
    world.assert_runs(&one);
    world.lab.set_sync_windows("default", Vec::new());
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn r19_after_a_window_has_ended_the_wait_asks_for_the_comparison_that_syncs() {
    let (world, one, _) = World::deployed(true).await;
    let night = SyncWindow::deny("* * * * *", "1h").unwrap();
    world.lab.set_sync_windows("default", vec![night]);
    let two = world.image("two");
    let second = world.commit(&two);
    let report = world.wait(&second, &two).await;
    assert_eq!(report.outcome, DeliveryOutcome::Rejected, "{report:?}");
    world.assert_runs(&one);
    world.lab.set_sync_windows("default", Vec::new());
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn r20_a_dry_run_and_a_sync_of_a_part_are_no_deployment() {
    let (world, one, _) = World::deployed(false).await;
    world.commit_file("prod/settings.yaml", &config_map("settings"));
    let two = world.image("two");
    let second = world.commit(&two);
    let client = world.client();
    client.refresh(&app()).await.unwrap();
    let dry = SyncRequest {
        dry_run: true,
        ..SyncRequest::to(second.as_str())
    };
    let part = SyncRequest {
        resources: vec![SyncResource {
            kind: "ConfigMap".into(),
            name: "settings".into(),
            ..SyncResource::default()
        }],
        ..SyncRequest::to(second.as_str())
    };
    let looker = world.client_with(|policy| policy.trigger = Trigger::Refresh);
    for sync in [dry, part] {
        client.sync_application(&app(), &sync).await.unwrap();
        let seen = world
            .until("the operation to end", |app| app.get("operation").is_none())
            .await;
        let state = &seen["status"]["operationState"];
        assert_eq!(state["phase"], "Succeeded");
        assert_eq!(state["syncResult"]["revision"], second.as_str());
        assert_eq!(seen["status"]["health"]["status"], "Healthy");
        assert_eq!(seen["status"]["history"].as_array().unwrap().len(), 1);
        let report = looker
            .wait(expected(&second, &two), &Cancellation::new())
            .await
            .unwrap();
        assert_eq!(report.outcome, DeliveryOutcome::AutoSyncOff, "{report:?}");
        world.assert_runs(&one);
    }
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn r21_a_sync_that_left_something_to_prune_did_not_do_it_all() {
    let (world, one, _) = World::deployed(false).await;
    let added = world.commit_file("prod/settings.yaml", &config_map("settings"));
    world.assert_live(&added, &one).await;
    std::fs::remove_file(world.repository().join("prod/settings.yaml")).unwrap();
    let two = world.image("two");
    let second = world.commit(&two);
    let report = world.wait(&second, &two).await;
    assert_eq!(report.outcome, DeliveryOutcome::SyncFailed, "{report:?}");
    assert!(report.reason.contains("ConfigMap settings"), "{}", report.reason);
    let seen = world.seen().await;
    let state = &seen["status"]["operationState"];
    assert_eq!(state["phase"], "Succeeded");
    let results = state["syncResult"]["resources"].as_array().unwrap();
    assert!(
        results.iter().any(|one| one["status"] == "PruneSkipped"),
        "{state:#}"
    );
    assert_eq!(seen["status"]["sync"]["status"], "OutOfSync");

    let sync = SyncRequest {
        prune: true,
        ..SyncRequest::to(second.as_str())
    };
    world.client().sync_application(&app(), &sync).await.unwrap();
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn a_hook_that_fails_keeps_the_new_version_away() {
    for limit in [0, 5] {
        let (world, one, _) = World::deployed(true).await;
        let retry =
            json!({"spec": {"syncPolicy": {"retry": {"limit": limit, "backoff": {"duration": "2m"}}}}});
        world.client().patch(&app(), &retry).await.unwrap();
        let hook = format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: migrate\n  annotations: \
             {{argocd.argoproj.io/hook: PreSync}}\nspec:\n  template:\n    spec:\n      containers:\n      \
             - name: migrate\n        image: {one}\n"
        );
        world.commit_file("prod/migrate.yaml", &hook);
        world.lab.knobs().set(|knobs| knobs.fail_jobs = 1);
        let two = world.image("two");
        let second = world.commit(&two);
        let client = world.client();
        let never = Cancellation::new();
        let scenario = async {
            if limit > 0 {
                world
                    .until("a pause", |app| {
                        app["status"]["operationState"]["retryCount"] == 1
                    })
                    .await;
                world.assert_runs(&one);
                world.lab.advance(Duration::from_secs(120));
            }
        };
        let (report, ()) = tokio::join!(client.wait(expected(&second, &two), &never), scenario);
        let report = report.unwrap();
        if limit > 0 {
            assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
            world.until_runs(&two).await;
        } else {
            assert_eq!(report.outcome, DeliveryOutcome::SyncFailed, "{report:?}");
            assert!(report.reason.contains("Job migrate"), "{}", report.reason);
            world.assert_runs(&one);
        }
    }
}
