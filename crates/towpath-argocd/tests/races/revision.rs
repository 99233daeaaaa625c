//! Races about which revision the status speaks of, and about health that is too early or too late.

use crate::lab_world::{World, app, expected};
use crate::wire::{LONG, SOME_MINUTES, eventually, expected_commit};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;
use towpath_argocd::{DeliveryOutcome, Expected, SyncRequest};
use towpath_core::Cancellation;
use towpath_elements::Delivery;
use towpath_lab::argocd::{HealthFlap, SummaryImages};

#[tokio::test]
async fn r01_a_commit_that_nobody_noticed_is_not_live() {
    let (world, one, first) = World::deployed(true).await;
    let two = world.image("two");
    let second = world.commit(&two);
    world.assert_looks_good_at(&world.seen().await, &first);
    let wanted = expected(&second, &two);
    world
        .assert_waits_for(&world.onlooker(), &wanted, "to see commit")
        .await;
    world.assert_runs(&one);

    // The next poll notices it.
    let onlooker = world.onlooker();
    let never = Cancellation::new();
    let wait = onlooker.wait(wanted, &never);
    let (report, ()) = tokio::join!(wait, world.two_polls(&two));
    assert_eq!(report.unwrap().outcome, DeliveryOutcome::Live);
    world.assert_runs(&two);
}

#[tokio::test]
async fn r02_a_refresh_is_no_proof_that_the_newest_commit_was_looked_at() {
    let (world, one, first) = World::deployed(true).await;
    // A refresh that comes back after the commit was made, and had looked before.
    let refresh = world.held_refresh().await;
    let two = world.image("two");
    let second = world.commit(&two);
    world.lab.knobs().set(|knobs| {
        knobs.hold_comparisons = false;
        knobs.lose_refresh = 3;
    });
    let answered = refresh.await.unwrap();
    assert_eq!(answered.status.sync.revision, first.as_str());
    world.assert_looks_good_at(&world.seen().await, &first);

    // And one that is lost altogether.
    let path = "/api/v1/applications/web?project=default&refresh=normal";
    world.assert_looks_good_at(&world.get(path).await, &first);
    world.assert_runs(&one);
    let before = world.lab.requests().count(&Method::GET, "refresh=normal");
    world.assert_live(&second, &two).await;
    let asked = world.lab.requests().count(&Method::GET, "refresh=normal") - before;
    assert!(asked >= 3, "two of them are lost: {asked}");
}

#[tokio::test]
async fn r04_a_comparison_of_the_same_second_may_be_an_older_one() {
    let (world, one, first) = World::deployed(false).await;
    world
        .lab
        .cluster()
        .set_delays(|delays| delays.start = SOME_MINUTES);
    world.lab.knobs().set(|knobs| {
        knobs.same_second_reconcile = true;
        knobs.stale_health_after_sync = LONG;
    });
    let two = world.image("two");
    let second = world.commit(&two);
    let sync = SyncRequest::to(second.as_str());
    world.client().sync_application(&app(), &sync).await.unwrap();
    let seen = world
        .until("the operation to end", |app| app.get("operation").is_none())
        .await;
    let status = &seen["status"];
    let operation = &status["operationState"];
    assert_eq!(operation["phase"], "Succeeded");
    assert_eq!(operation["syncResult"]["revision"], second.as_str());
    assert_eq!(operation["finishedAt"], status["reconciledAt"]);
    world.assert_looks_good_at(&seen, &first);
    world.assert_runs(&one);

    let wanted = expected(&second, &two);
    world
        .assert_waits_for(&world.client(), &wanted, "to be healthy")
        .await;
    world.assert_runs(&one);
    world
        .lab
        .cluster()
        .set_delays(|delays| delays.start = Duration::ZERO);
    world.lab.advance(SOME_MINUTES);
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn r04_an_operation_that_succeeded_says_nothing_of_the_comparison() {
    for automated in [true, false] {
        let (world, ..) = World::deployed(automated).await;
        world.lab.knobs().set(|knobs| {
            knobs.same_second_reconcile = true;
            knobs.stale_health_after_sync = LONG;
        });
        let two = world.image("two");
        let second = world.commit(&two);
        world.client().refresh(&app()).await.unwrap();
        if !automated {
            let sync = SyncRequest::to(second.as_str());
            world.client().sync_application(&app(), &sync).await.unwrap();
        }
        // The comparison that is reported is older than the sync: it says that there is something to do yet.
        let seen = world
            .until("the operation to end", |app| {
                app["status"]["history"][1]["revision"] == second.as_str()
            })
            .await;
        let status = &seen["status"];
        assert_eq!(status["operationState"]["phase"], "Succeeded");
        assert_eq!(status["sync"]["status"], "OutOfSync");
        assert_eq!(status["health"]["status"], "Healthy");
        world.assert_live(&second, &two).await;
    }
}

#[tokio::test]
async fn r08_a_status_of_an_older_spec_is_not_believed() {
    let (world, one, _) = World::deployed(true).await;
    let two = world.image("two");
    let staging = std::fs::read_to_string(world.repository().join("prod/web.yaml")).unwrap();
    let staging = staging.replace(&one.to_string(), &two.to_string());
    let both = world.commit_file("staging/web.yaml", &staging);
    world.assert_live(&both, &one).await;

    // The spec changes while a comparison is going on, and the next one does not come to its end.
    let refresh = world.held_refresh().await;
    let client = world.client();
    let patch = json!({"spec": {"source": {"path": "staging"}}});
    client.patch(&app(), &patch).await.unwrap();
    world.lab.knobs().set(|knobs| knobs.pass_comparisons = 1);
    refresh.await.unwrap();
    let seen = world.seen().await;
    world.assert_looks_good_at(&seen, &both);
    assert_eq!(seen["spec"]["source"]["path"], "staging");
    assert_eq!(seen["status"]["sync"]["comparedTo"]["source"]["path"], "prod");
    let wanted = expected_commit(&both, &two);
    world.assert_waits_for(&client, &wanted, "present spec").await;
    world.assert_runs(&one);
    world.lab.knobs().set(|knobs| knobs.hold_comparisons = false);
    world.assert_live(&both, &two).await;
}

#[tokio::test]
async fn r09_an_outage_of_the_repository_is_hidden_for_a_while() {
    let (world, one, first) = World::deployed(true).await;
    let two = world.image("two");
    let second = world.commit(&two);
    let refused = Some("connection refused".to_owned());
    world.lab.knobs().set(|knobs| knobs.repo_error = refused);
    let wanted = expected(&second, &two);
    world.lab.advance(Duration::from_secs(120));
    world.assert_looks_good_at(&world.seen().await, &first);
    world
        .assert_waits_for(&world.onlooker(), &wanted, "to see commit")
        .await;
    // One poll after the other fails, and in the end it shows.
    let seen = eventually("an error that shows", async || {
        world.lab.advance(Duration::from_secs(120));
        let seen = world.seen().await;
        (seen["status"]["sync"]["status"] == "Unknown").then_some(seen)
    })
    .await;
    assert_eq!(seen["status"]["conditions"][0]["type"], "ComparisonError");
    assert_eq!(seen["status"]["health"]["status"], "Healthy");
    assert_eq!(seen["status"]["sync"]["revision"], "main");
    world.assert_runs(&one);

    // Who asks is told at once.
    let report = world.wait(&second, &two).await;
    assert_eq!(report.outcome, DeliveryOutcome::ComparisonError, "{report:?}");
    assert!(report.reason.contains("connection refused"), "{}", report.reason);
    world.lab.knobs().set(|knobs| knobs.repo_error = None);
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn r10_a_status_from_before_the_sync_is_not_believed() {
    for stale in [20, 400] {
        let (world, ..) = World::deployed(true).await;
        world
            .lab
            .knobs()
            .set(|knobs| knobs.stale_health_after_sync = Duration::from_millis(stale));
        let two = world.image("two");
        let commit = world.commit(&two);
        world.assert_live(&commit, &two).await;
    }
}

#[tokio::test]
async fn r10_health_that_is_good_too_early_has_to_hold() {
    let (world, ..) = World::deployed(true).await;
    let flap = HealthFlap {
        times: 1,
        healthy_for: LONG,
        degraded_for: LONG,
    };
    world.lab.knobs().set(|knobs| knobs.health_flap = Some(flap));
    let two = world.image("two");
    let second = world.commit(&two);
    let patient = world.client_with(|policy| policy.degraded_grace = LONG);
    let settled = Expected {
        settle: LONG,
        within: LONG * 2,
        ..expected(&second, &two)
    };
    let stop = Cancellation::new();
    let scenario = async {
        let is = |health: &'static str| {
            let second = second.clone();
            move |app: &serde_json::Value| {
                let status = &app["status"];
                status["sync"]["revision"] == second.as_str()
                    && status["sync"]["status"] == "Synced"
                    && status["health"]["status"] == health
            }
        };
        let good = world.until("good health", is("Healthy")).await;
        world.assert_looks_good_at(&good, &second);
        world.lab.advance(LONG);
        world.until("bad health", is("Degraded")).await;
        world.lab.advance(LONG);
        world.until("good health again", is("Healthy")).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(patient.wait(settled, &stop), scenario);
    assert!(ended.unwrap_err().is_cancelled());
    let settled = Expected {
        settle: Duration::from_millis(50),
        ..expected(&second, &two)
    };
    let report = patient.wait(settled, &Cancellation::new()).await.unwrap();
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    world.assert_runs(&two);
}

#[tokio::test]
async fn r10_bad_health_is_borne_for_a_while_and_then_told() {
    for patience in [LONG, Duration::from_millis(50)] {
        let (world, ..) = World::deployed(true).await;
        let flap = HealthFlap {
            times: 1,
            healthy_for: Duration::ZERO,
            degraded_for: LONG,
        };
        world.lab.knobs().set(|knobs| knobs.health_flap = Some(flap));
        let two = world.image("two");
        let second = world.commit(&two);
        let client = world.client_with(|policy| policy.degraded_grace = patience);
        let scenario = async {
            world
                .until("bad health", |app| {
                    app["status"]["sync"]["revision"] == second.as_str()
                        && app["status"]["health"]["status"] == "Degraded"
                })
                .await;
            if patience == LONG {
                world.lab.advance(LONG);
            }
        };
        let never = Cancellation::new();
        let (report, ()) = tokio::join!(client.wait(expected(&second, &two), &never), scenario);
        let report = report.unwrap();
        if patience == LONG {
            assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
            world.assert_runs(&two);
        } else {
            assert_eq!(report.outcome, DeliveryOutcome::Degraded, "{report:?}");
            assert!(report.reason.contains("Deployment web"), "{}", report.reason);
        }
    }
}

#[tokio::test]
async fn r10_bad_health_of_the_version_before_is_no_outcome() {
    let (world, one, _) = World::deployed(true).await;
    let missing = one.at(towpath_core::Digest::sha256_of("nowhere"));
    let bad = world.commit(&missing);
    let client = world.client();
    let scenario = async {
        world
            .until("a sync of the bad version", |app| {
                app["status"]["sync"]["revision"] == bad.as_str()
                    && app["status"]["sync"]["status"] == "Synced"
            })
            .await;
        // The rollout makes no progress for longer than it may.
        world.lab.advance(LONG);
    };
    let never = Cancellation::new();
    let (report, ()) = tokio::join!(client.wait(expected(&bad, &missing), &never), scenario);
    assert_eq!(report.unwrap().outcome, DeliveryOutcome::Degraded);
    world.assert_runs(&one);

    world.lab.knobs().set(|knobs| {
        knobs.same_second_reconcile = true;
        knobs.stale_health_after_sync = LONG;
    });
    let two = world.image("two");
    let second = world.commit(&two);
    let seen = world.seen().await;
    assert_eq!(seen["status"]["health"]["status"], "Degraded");
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn r10_the_summary_of_images_is_no_evidence() {
    for (summary, misleading) in [
        (SummaryImages::Stale, vec!["one"]),
        (SummaryImages::Doubled, vec!["one", "two"]),
        (SummaryImages::Empty, vec![]),
    ] {
        let (world, ..) = World::deployed(true).await;
        world.lab.knobs().set(|knobs| knobs.summary_images = summary);
        let two = world.image("two");
        let second = world.commit(&two);
        world.assert_live(&second, &two).await;
        let mut misleading: Vec<String> = misleading
            .into_iter()
            .map(|text| world.image(text).to_string())
            .collect();
        misleading.sort();
        let seen = world.seen().await;
        let images = seen["status"]["summary"].get("images");
        assert_eq!(images.unwrap_or(&json!([])), &json!(misleading), "{summary:?}");
    }
}

#[tokio::test]
async fn r11_a_commit_that_took_over_is_told_from_one_that_contains_ours() {
    let (world, _, first) = World::deployed(true).await;
    let two = world.image("two");
    let ours = world.commit(&two);
    // The next commit comes in while the comparison that has seen ours is still going on.
    let refresh = world.held_refresh().await;
    world.git(&["commit", "--quiet", "--allow-empty", "--message=later"]);
    world.assert_looks_good_at(&world.seen().await, &first);
    world.lab.knobs().set(|knobs| knobs.hold_comparisons = false);
    assert_eq!(refresh.await.unwrap().status.sync.revision, ours.as_str());
    world.assert_live(&ours, &two).await;
    world.client().refresh(&app()).await.unwrap();
    let seen = world.seen().await;
    assert_ne!(seen["status"]["sync"]["revision"], ours.as_str());
    world.assert_live(&ours, &two).await;

    world.git(&["reset", "--quiet", "--hard", "HEAD~2"]);
    world.commit(&world.image("three"));
    // Until Argo CD has looked, what it last saw of our commit is live.
    world.client().refresh(&app()).await.unwrap();
    let report = world.wait(&ours, &two).await;
    assert_eq!(report.outcome, DeliveryOutcome::Superseded, "{report:?}");
}

#[tokio::test]
async fn r12_a_push_that_the_path_filter_keeps_away_is_asked_for() {
    let (world, one, first) = World::deployed(true).await;
    let client = world.client();
    let paths = json!({"metadata": {"annotations": {"argocd.argoproj.io/manifest-generate-paths": "."}}});
    client.patch(&app(), &paths).await.unwrap();
    let second = world.commit_file("docs/readme", "nothing to deploy");
    let push = json!({
        "ref": "refs/heads/main", "commits": [{"added": ["docs/readme"]}],
        "repository": {"html_url": format!("file://{}", world.repository().display()), "default_branch": "main"},
    });
    let hook = reqwest::Client::builder().no_proxy().build().unwrap();
    let hook = hook.post(format!("{}/api/webhook", world.lab.url()));
    let answer = hook.header("x-github-event", "push").body(push.to_string());
    assert_eq!(answer.send().await.unwrap().status(), 200);
    world.assert_looks_good_at(&world.seen().await, &first);
    world
        .assert_waits_for(&world.onlooker(), &expected(&second, &one), "to see commit")
        .await;
    world.assert_live(&second, &one).await;
}

#[tokio::test]
async fn r13_a_commit_that_changes_nothing_needs_no_operation() {
    for automated in [true, false] {
        let (world, one, first) = World::deployed(automated).await;
        let asked = world.syncs_asked();
        world.git(&["commit", "--quiet", "--allow-empty", "--message=empty"]);
        let second = world.git(&["rev-parse", "HEAD"]).parse().unwrap();
        world.assert_live(&second, &one).await;
        let seen = world.seen().await;
        world.assert_looks_good_at(&seen, &second);
        let status = &seen["status"];
        // Who waits for an operation on the new commit waits for ever.
        let last = &status["operationState"]["syncResult"]["revision"];
        assert_eq!(last, first.as_str());
        assert_eq!(status["history"].as_array().unwrap().len(), 1);
        assert_eq!(world.syncs_asked(), asked);
    }
}
