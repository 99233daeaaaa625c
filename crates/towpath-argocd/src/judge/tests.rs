//! The race catalogue, R1 to R21, as snapshots. Each test shows what a naive waiter would see, and what is said instead.

use super::*;
use serde_json::{Value, json};

const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const NEW: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const NEXT: &str = "cccccccccccccccccccccccccccccccccccccccc";
const ID: &str = "our-operation";

/// A time within the minute in which it all happens.
fn at(second: u32) -> String {
    format!("2026-08-20T10:00:{second:02}Z")
}

/// An application that is live at a revision: synced by itself from second 1 to 3, compared at 5.
fn live(revision: &str) -> Value {
    let source =
        json!({"repoURL": "https://ghe.example/o/deploy.git", "path": "prod", "targetRevision": "main"});
    let destination = json!({"server": "https://kubernetes.default.svc", "namespace": "shop"});
    json!({
        "metadata": {"name": "web", "uid": "u1", "resourceVersion": "7"},
        "spec": {"project": "shop", "source": source, "destination": destination,
            "syncPolicy": {"automated": {"prune": true}}},
        "status": {
            "sync": {"status": "Synced", "revision": revision,
                "comparedTo": {"source": source, "destination": destination}},
            "health": {"status": "Healthy"},
            "reconciledAt": at(5),
            "operationState": {"phase": "Succeeded", "startedAt": at(1), "finishedAt": at(3),
                "operation": {"sync": {"revision": revision}, "initiatedBy": {"automated": true}},
                "syncResult": {"revision": revision}},
        }
    })
}

/// The same, but it does not sync on its own.
fn manual(revision: &str) -> Value {
    with(live(revision), "/spec/syncPolicy", json!({}))
}

fn with(mut app: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    app.pointer_mut(parent).unwrap()[key] = value;
    app
}

fn image(of: char) -> ImageRef {
    format!("r.example/web@sha256:{}", of.to_string().repeat(64))
        .parse()
        .unwrap()
}

use towpath_core::ImageRef;

fn runs(of: char, ready: bool) -> RunningImage {
    RunningImage {
        pod: format!("shop/web-{of}"),
        image: "r.example/web:1".parse().unwrap(),
        digest: image(of).digest().cloned(),
        ready,
    }
}

fn expected() -> Expected {
    Expected {
        application: "shop/web".parse().unwrap(),
        revision: NEW.parse().unwrap(),
        images: vec![image('b')],
        platform_digests: vec![],
        within: Duration::from_secs(60),
        settle: Duration::ZERO,
    }
}

fn patience() -> Patience {
    Patience {
        degraded: Duration::from_secs(30),
        comparison: Duration::from_secs(20),
        outage: Duration::from_secs(300),
        accept_suspended: false,
    }
}

fn facts() -> Facts {
    Facts {
        uid: Some("u1".into()),
        baseline: vec![OLD.into()],
        ..Facts::default()
    }
}

fn told(app: Value, facts: &Facts) -> Verdict {
    let snapshot = Snapshot {
        app: serde_json::from_value(app).unwrap(),
        running: Some(vec![runs('b', true)]),
    };
    judge(&snapshot, &expected(), facts, &patience())
}

#[track_caller]
fn waits(app: Value, facts: &Facts, unmet: Unmet) {
    match told(app, facts) {
        Verdict::Pending(found, _) => assert_eq!(found, unmet),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn ends(app: Value, facts: &Facts, outcome: DeliveryOutcome, why: &str) {
    match told(app, facts) {
        Verdict::Ended(found, reason) => {
            assert_eq!(found, outcome, "{reason}");
            assert!(reason.contains(why), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_live_is_live() {
    assert_eq!(told(live(NEW), &facts()), Verdict::Live);
    assert_eq!(told(manual(NEW), &facts()), Verdict::Live);
}

#[test]
fn r01_the_commit_was_not_noticed_yet() {
    waits(live(OLD), &facts(), Unmet::Revision);
}

#[test]
fn r02_a_refresh_that_was_dropped_changes_nothing() {
    let refreshed = Facts {
        refreshes_since_operation: 9,
        ..facts()
    };
    waits(live(OLD), &refreshed, Unmet::Revision);
}

#[test]
fn r03_a_sync_that_was_accepted_and_has_not_begun() {
    let app = with(manual(NEW), "/operation", json!({"sync": {"revision": NEW}}));
    waits(
        with(app, "/status/operationState", Value::Null),
        &facts(),
        Unmet::Operation,
    );
}

#[test]
fn r04_no_comparison_since_the_sync() {
    waits(
        with(live(NEW), "/status/reconciledAt", json!(at(2))),
        &facts(),
        Unmet::Reconciled,
    );
    waits(
        with(live(NEW), "/status/reconciledAt", Value::Null),
        &facts(),
        Unmet::Reconciled,
    );
    let same_second = with(live(NEW), "/status/reconciledAt", json!(at(3)));
    let no_images = Expected {
        images: Vec::new(),
        ..expected()
    };
    let snapshot = Snapshot {
        app: serde_json::from_value(same_second.clone()).unwrap(),
        running: None,
    };
    for (refreshes, live) in [(0, false), (1, false), (2, true)] {
        let facts = Facts {
            refreshes_since_operation: refreshes,
            ..facts()
        };
        let verdict = judge(&snapshot, &no_images, &facts, &patience());
        assert_eq!(verdict == Verdict::Live, live, "{refreshes}: {verdict:?}");
    }
    // The pods bear it out, if the operation brought what is expected.
    assert_eq!(told(same_second.clone(), &facts()), Verdict::Live);
    let of_another = with(
        with(
            same_second.clone(),
            "/status/operationState/syncResult/revision",
            json!(OLD),
        ),
        "/status/operationState/operation/sync/revision",
        json!(OLD),
    );
    waits(of_another, &facts(), Unmet::Reconciled);
    // Nor is it believed that there is something to sync.
    waits(
        with(same_second, "/status/sync/status", json!("OutOfSync")),
        &facts(),
        Unmet::Reconciled,
    );
}

#[test]
fn r05_a_newer_operation_replaced_ours() {
    let ours = Facts {
        operation_id: Some(ID.into()),
        expected_seen: true,
        ..facts()
    };
    let failed = with(manual(NEXT), "/status/operationState/phase", json!("Failed"));
    // Somebody else's operation on another revision failed: that is not our failure, but ours is no longer what runs.
    ends(failed, &ours, DeliveryOutcome::Superseded, "cccccccccc took over");
    let theirs = with(manual(NEW), "/operation", json!({"sync": {"revision": NEXT}}));
    waits(theirs, &ours, Unmet::Operation);
}

#[test]
fn r06_an_automatic_sync_back_to_the_old_commit() {
    let after = Facts {
        expected_seen: true,
        ..facts()
    };
    waits(live(OLD), &after, Unmet::Revision);
}

#[test]
fn r07_a_retry_that_waits_looks_finished() {
    let state = json!({"phase": "Running", "startedAt": at(1), "finishedAt": at(3), "retryCount": 2,
        "message": "one or more objects failed. Retrying attempt #3", "operation": {"sync": {"revision": NEW}},
        "syncResult": {"revision": NEW}});
    let app = with(live(NEW), "/operation", json!({"sync": {"revision": NEW}}));
    waits(
        with(app, "/status/operationState", state),
        &facts(),
        Unmet::Operation,
    );
}

#[test]
fn r08_the_verdict_is_about_an_older_spec() {
    waits(
        with(live(NEW), "/spec/source/path", json!("staging")),
        &facts(),
        Unmet::Spec,
    );
    waits(
        with(live(NEW), "/spec/destination/namespace", json!("other")),
        &facts(),
        Unmet::Spec,
    );
    waits(
        with(live(NEW), "/status/sync/comparedTo", Value::Null),
        &facts(),
        Unmet::Spec,
    );
    // The server may fill in the cluster's address for its name.
    let named = with(
        live(NEW),
        "/spec/destination",
        json!({"name": "in-cluster", "namespace": "shop"}),
    );
    let both = json!({"name": "in-cluster", "server": "https://kubernetes.default.svc", "namespace": "shop"});
    assert_eq!(
        told(with(named, "/status/sync/comparedTo/destination", both), &facts()),
        Verdict::Live
    );
}

#[test]
fn r09_an_outage_of_the_repository() {
    waits(live(OLD), &facts(), Unmet::Revision);
    let broken = with(
        live(OLD),
        "/status/conditions",
        json!([{"type": "ComparisonError", "message": "no route"}]),
    );
    let broken = with(
        with(broken, "/status/sync/status", json!("Unknown")),
        "/status/sync/revision",
        json!("main"),
    );
    waits(broken.clone(), &facts(), Unmet::Comparison);
    let long = Facts {
        comparison_error_for: Duration::from_secs(20),
        comparisons_failed: 1,
        ..facts()
    };
    ends(
        broken.clone(),
        &long,
        DeliveryOutcome::ComparisonError,
        "mend what the repository says",
    );

    // A repository that cannot be reached is waited for much longer than one that says what cannot be read.
    let unreachable = with(
        broken,
        "/status/conditions",
        json!([{"type": "ComparisonError", "message": "rpc error: code = Unavailable desc = connection refused"}]),
    );
    waits(unreachable.clone(), &long, Unmet::Comparison);
    let longer = Facts {
        comparison_error_for: Duration::from_secs(300),
        ..long
    };
    ends(
        unreachable,
        &longer,
        DeliveryOutcome::ComparisonError,
        "connection refused",
    );
}

#[test]
fn r10_health_has_not_turned_yet() {
    let settled = Expected {
        settle: Duration::from_secs(10),
        ..expected()
    };
    let snapshot = Snapshot {
        app: serde_json::from_value(live(NEW)).unwrap(),
        running: Some(vec![runs('b', true)]),
    };
    for (held, looks, live) in [(0, 0, false), (9, 3, false), (10, 0, false), (10, 1, true)] {
        let facts = Facts {
            held_for: Duration::from_secs(held),
            held_looks: looks,
            ..facts()
        };
        let verdict = judge(&snapshot, &settled, &facts, &patience());
        assert_eq!(verdict == Verdict::Live, live, "{held} {looks}: {verdict:?}");
    }
    for (health, unmet) in [
        ("Progressing", Unmet::Health),
        ("Missing", Unmet::Health),
        ("Askew", Unmet::Health),
    ] {
        waits(
            with(live(NEW), "/status/health/status", json!(health)),
            &facts(),
            unmet,
        );
    }
}

#[test]
fn r11_another_commit_came_before_the_comparison() {
    let asked = |ancestry| Facts {
        has_oracle: true,
        ancestry: HashMap::from([(NEXT.to_owned(), ancestry)]),
        ..facts()
    };
    let ask = Unmet::Ancestry {
        revision: NEXT.into(),
        repository: "https://ghe.example/o/deploy.git".into(),
    };
    waits(
        live(NEXT),
        &Facts {
            has_oracle: true,
            ..facts()
        },
        ask,
    );
    assert_eq!(told(live(NEXT), &asked(Ancestry::Descendant)), Verdict::Live);
    waits(live(NEXT), &asked(Ancestry::Ancestor), Unmet::Revision);
    ends(
        live(NEXT),
        &asked(Ancestry::Unrelated),
        DeliveryOutcome::Superseded,
        "does not contain bbbbbbbbbb",
    );
    // Without an oracle nobody knows: it may be older.
    waits(live(NEXT), &facts(), Unmet::Revision);
}

#[test]
fn r12_a_webhook_that_the_path_filter_dropped() {
    waits(live(OLD), &facts(), Unmet::Revision);
}

#[test]
fn r11_a_newer_commit_that_nobody_has_synced_is_not_synced_for_him() {
    let newer = "c".repeat(40);
    let seen = Facts {
        ancestry: [(newer.clone(), Ancestry::Descendant)].into(),
        has_oracle: true,
        may_sync: true,
        ..facts()
    };
    let app = with(
        with(manual(NEW), "/status/sync/revision", json!(newer)),
        "/status/sync/status",
        json!("OutOfSync"),
    );
    ends(
        app,
        &seen,
        DeliveryOutcome::Superseded,
        "changes the application again",
    );
}

#[test]
fn r13_a_commit_that_changes_nothing_needs_no_operation() {
    let app = with(
        live(NEW),
        "/status/operationState/syncResult/revision",
        json!(OLD),
    );
    let app = with(app, "/status/operationState/operation/sync/revision", json!(OLD));
    assert_eq!(told(app, &facts()), Verdict::Live);
    let never = with(live(NEW), "/status/operationState", Value::Null);
    assert_eq!(told(never, &facts()), Verdict::Live);
}

#[test]
fn r14_revisions_of_charts_are_no_commits() {
    let git = live(NEW)["spec"]["source"].clone();
    let chart = json!({"repoURL": "https://charts.example", "chart": "web", "targetRevision": "1.*"});
    let multi = |git_revision: &str| {
        let app = with(live(NEW), "/spec/source", Value::Null);
        let app = with(app, "/spec/sources", json!([chart, git]));
        let app = with(app, "/status/sync/revisions", json!(["1.4.2", git_revision]));
        let app = with(app, "/status/sync/comparedTo/sources", json!([chart, git]));
        with(
            app,
            "/status/operationState/syncResult/revisions",
            json!(["1.4.2", git_revision]),
        )
    };
    assert_eq!(told(multi(NEW), &facts()), Verdict::Live);
    waits(multi(OLD), &facts(), Unmet::Revision);
}

#[test]
fn r14_a_commit_has_arrived_with_the_last_source_that_follows_its_branch() {
    let source = |path: &str, target: &str| json!({"repoURL": "https://ghe.example/o/deploy.git", "path": path, "targetRevision": target});
    let multi = |sources: Value, revisions: [&str; 2]| {
        let app = with(live(NEW), "/spec/source", Value::Null);
        let app = with(app, "/spec/sources", sources.clone());
        let app = with(app, "/status/sync/revisions", json!(revisions));
        let app = with(app, "/status/sync/comparedTo/sources", sources);
        with(
            app,
            "/status/operationState/syncResult/revisions",
            json!(revisions),
        )
    };
    let same = || json!([source("prod", "main"), source("values", "main")]);
    assert_eq!(told(multi(same(), [NEW, NEW]), &facts()), Verdict::Live);
    waits(multi(same(), [NEW, OLD]), &facts(), Unmet::Revision);
    waits(multi(same(), [OLD, NEW]), &facts(), Unmet::Revision);

    let pinned = json!([source("prod", "main"), source("values", "v1")]);
    assert_eq!(told(multi(pinned, [NEW, OLD]), &facts()), Verdict::Live);

    let mut asked = Facts {
        has_oracle: true,
        ..facts()
    };
    let question = Unmet::Ancestry {
        revision: NEXT.into(),
        repository: "https://ghe.example/o/deploy.git".into(),
    };
    waits(multi(same(), [NEW, NEXT]), &asked, question);
    asked.ancestry.insert(NEXT.into(), Ancestry::Descendant);
    assert_eq!(told(multi(same(), [NEW, NEXT]), &asked), Verdict::Live);
}

#[test]
fn r15_the_hydrated_commit_is_another_than_peoples() {
    let hydrator = json!({"drySource": {"repoURL": "https://ghe.example/o/deploy.git", "path": "base"},
        "syncSource": {"targetBranch": "env/prod", "path": "prod"}});
    let compared =
        json!({"repoURL": "https://ghe.example/o/deploy.git", "path": "prod", "targetRevision": "env/prod"});
    let app = |dry: &str| {
        let app = with(live(NEXT), "/spec/source", Value::Null);
        let app = with(app, "/spec/sourceHydrator", hydrator.clone());
        let app = with(app, "/status/sync/comparedTo/source", compared.clone());
        let done = json!({"drySHA": dry, "hydratedSHA": NEXT, "phase": "Hydrated"});
        with(
            app,
            "/status/sourceHydrator",
            json!({"lastSuccessfulOperation": done}),
        )
    };
    assert_eq!(told(app(NEW), &facts()), Verdict::Live);
    waits(app(OLD), &facts(), Unmet::Revision);
    let failed = json!({"drySHA": NEW, "phase": "Failed", "message": "kustomize"});
    let failed = with(app(OLD), "/status/sourceHydrator/currentOperation", failed);
    ends(failed, &facts(), DeliveryOutcome::ComparisonError, "kustomize");
}

#[test]
fn r16_deleted_and_made_anew() {
    ends(
        with(live(NEW), "/metadata/uid", json!("u2")),
        &facts(),
        DeliveryOutcome::Replaced,
        "made anew",
    );
    let going = with(live(NEW), "/metadata/deletionTimestamp", json!(at(9)));
    ends(going, &facts(), DeliveryOutcome::Missing, "being deleted");
}

#[test]
fn r19_a_window_holds_the_operation() {
    let state =
        json!({"phase": "Running", "message": "Sync operation blocked by sync window", "startedAt": at(1)});
    let app = with(live(NEW), "/operation", json!({"sync": {"revision": NEW}}));
    ends(
        with(app, "/status/operationState", state),
        &facts(),
        DeliveryOutcome::Rejected,
        "window",
    );
}

#[test]
fn r20_a_dry_run_and_a_partial_sync_are_no_deployment() {
    let out = with(manual(NEW), "/status/sync/status", json!("OutOfSync"));
    let may = Facts {
        may_sync: true,
        ..facts()
    };
    let dry = with(
        out.clone(),
        "/status/operationState/operation/sync/dryRun",
        json!(true),
    );
    waits(dry, &may, Unmet::Sync);
    let partial = json!([{"kind": "Service", "name": "web"}]);
    waits(
        with(
            out,
            "/status/operationState/operation/sync/resources",
            partial.clone(),
        ),
        &may,
        Unmet::Sync,
    );
    // Nor are their failures the outcome.
    let failed = with(
        live(NEW),
        "/status/operationState/operation/sync/resources",
        partial,
    );
    assert_eq!(
        told(
            with(failed, "/status/operationState/phase", json!("Failed")),
            &facts()
        ),
        Verdict::Live
    );
}

#[test]
fn r21_succeeded_without_pruning() {
    let left = json!([{"kind": "Service", "name": "old", "status": "OutOfSync", "requiresPruning": true}]);
    let app = with(manual(NEW), "/status/sync/status", json!("OutOfSync"));
    let ours = Facts {
        operation_id: Some(ID.into()),
        ..facts()
    };
    ends(
        with(app, "/status/resources", left),
        &ours,
        DeliveryOutcome::SyncFailed,
        "Service old must be pruned",
    );
}

#[test]
fn a_failed_sync_is_an_outcome_only_when_it_is_about_the_expected_revision() {
    let failed = |app: Value| {
        let app = with(app, "/status/sync/status", json!("OutOfSync"));
        let app = with(app, "/status/operationState/phase", json!("Failed"));
        let results =
            json!([{"kind": "Deployment", "name": "web", "status": "SyncFailed", "message": "quota"}]);
        with(app, "/status/operationState/syncResult/resources", results)
    };
    ends(
        failed(live(NEW)),
        &facts(),
        DeliveryOutcome::SyncFailed,
        "Deployment web: quota",
    );
    waits(failed(live(OLD)), &facts(), Unmet::Revision);
    // An application that does not sync on its own can be asked again, but not after our own sync has failed.
    waits(
        failed(manual(NEW)),
        &Facts {
            may_sync: true,
            ..facts()
        },
        Unmet::Sync,
    );
    let info = json!([{"name": OPERATION_MARK, "value": ID}]);
    let ours = with(failed(manual(NEW)), "/status/operationState/operation/info", info);
    let after = Facts {
        operation_id: Some(ID.into()),
        may_sync: true,
        ..facts()
    };
    ends(ours, &after, DeliveryOutcome::SyncFailed, "ended as Failed");
    let message = format!("Failed last sync attempt to {NEW}: quota");
    let tried = with(
        live(NEW),
        "/status/conditions",
        json!([{"type": "SyncError", "message": message}]),
    );
    ends(
        with(tried, "/status/operationState", Value::Null),
        &facts(),
        DeliveryOutcome::SyncFailed,
        "again on its own",
    );
}

#[test]
fn degraded_counts_after_its_grace_and_only_for_the_expected_revision() {
    let degraded = |revision| {
        with(
            live(revision),
            "/status/health",
            json!({"status": "Degraded", "message": "crash"}),
        )
    };
    let long = Facts {
        degraded_for: Duration::from_secs(30),
        ..facts()
    };
    waits(degraded(NEW), &facts(), Unmet::Health);
    ends(degraded(NEW), &long, DeliveryOutcome::Degraded, "crash");
    waits(degraded(OLD), &long, Unmet::Revision);
}

#[test]
fn nobody_syncs_what_does_not_sync_on_its_own() {
    let out = with(manual(NEW), "/status/sync/status", json!("OutOfSync"));
    let out = with(out, "/status/operationState", Value::Null);
    ends(out.clone(), &facts(), DeliveryOutcome::AutoSyncOff, "sync it");
    waits(
        out.clone(),
        &Facts {
            may_sync: true,
            ..facts()
        },
        Unmet::Sync,
    );
    waits(
        with(out, "/spec/syncPolicy", json!({"automated": {}})),
        &facts(),
        Unmet::InSync,
    );
}

#[test]
fn only_the_expected_digest_ready_and_alone_is_live() {
    let cases: [(&[RunningImage], bool); 6] = [
        (&[], false),
        (&[runs('b', true)], true),
        (&[runs('b', false)], false),
        (&[runs('b', true), runs('a', true)], false),
        (&[runs('b', true), runs('d', true)], true),
        (
            &[RunningImage {
                digest: None,
                ..runs('b', true)
            }],
            false,
        ),
    ];
    let platform = Expected {
        platform_digests: image('d').digest().cloned().into_iter().collect(),
        ..expected()
    };
    for (running, live) in cases {
        let snapshot = Snapshot {
            app: serde_json::from_value(self::live(NEW)).unwrap(),
            running: Some(running.to_vec()),
        };
        let verdict = judge(&snapshot, &platform, &facts(), &patience());
        assert_eq!(verdict == Verdict::Live, live, "{running:?}: {verdict:?}");
    }
}
