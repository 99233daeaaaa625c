//! Operations and resources at the lab's Argo CD: every call, with what comes of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "each test uses its part of the world")]
mod lab_world;

use lab_world::{World, app};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;
use towpath_argocd::{ApiError, Login, ManifestsRequest, Refresh, Strategy, SyncRequest, SyncResource, wire};
use towpath_core::{Cancellation, requests};
use towpath_elements::ErrorKind;

const SOON: Duration = Duration::from_secs(20);

fn refusal(error: &towpath_argocd::Error) -> &ApiError {
    ApiError::of(error).unwrap_or_else(|| panic!("no refusal of the service: {error}"))
}

/// The application once nothing is going on any more.
async fn at_rest(client: &towpath_argocd::ArgoCd) -> wire::App {
    for _ in 0..2000 {
        let seen = client.application(&app()).await.unwrap();
        let ended = seen
            .status
            .operation_state
            .as_ref()
            .is_some_and(|state| state.phase.has_ended());
        if seen.operation.is_none() && ended {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the operation never ends")
}

async fn node(client: &towpath_argocd::ArgoCd, kind: &str) -> wire::ResourceNode {
    let tree = client.resource_tree(&app()).await.unwrap();
    tree.nodes.into_iter().find(|node| node.kind == kind).unwrap()
}

#[tokio::test]
async fn a_sync_takes_every_option_and_a_rollback_is_tried() {
    let (world, _, first) = World::deployed(false).await;
    let client = world.client();
    world.commit(&world.image("two"));
    world.lab.knobs().set(|knobs| knobs.hold_operations = true);
    let request = SyncRequest {
        prune: true,
        strategy: Some(Strategy::Apply { force: true }),
        resources: vec![SyncResource {
            group: "apps".into(),
            kind: "Deployment".into(),
            name: "web".into(),
            namespace: None,
        }],
        options: Some(vec!["ServerSideApply=true".into()]),
        retry_limit: Some(2),
        retry_pause: Some(Duration::from_secs(1)),
        retry_factor: Some(3),
        retry_longest_pause: Some(Duration::from_secs(9)),
        retry_refresh: true,
        ..SyncRequest::to(first.as_str())
    };
    let asked = client
        .sync_application(&app(), &request.info("ci/run", "4711"))
        .await
        .unwrap();
    assert!(asked.operation.unwrap().carries("ci/run", "4711"));
    let operation = world.lab.application("web").unwrap()["operation"].clone();
    let sync = &operation["sync"];
    assert_eq!(
        (&sync["prune"], &sync["revision"]),
        (&json!(true), &json!(first.as_str()))
    );
    assert_eq!(sync["syncStrategy"], json!({"apply": {"force": true}}));
    assert_eq!(
        sync["resources"],
        json!([{"group": "apps", "kind": "Deployment", "name": "web"}])
    );
    assert_eq!(sync["syncOptions"], json!(["ServerSideApply=true"]));
    assert_eq!(
        operation["retry"],
        json!({"limit": 2, "refresh": true, "backoff": {"duration": "1000ms", "factor": 3, "maxDuration": "9000ms"}})
    );
    // Until the controller has taken it up, there is nothing to terminate.
    while !client.terminate(&app()).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.lab.knobs().set(|knobs| knobs.hold_operations = false);
    at_rest(&client).await;

    let manifest =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "local"}}).to_string();
    let local = SyncRequest {
        dry_run: true,
        manifests: vec![manifest],
        ..SyncRequest::default()
    };
    client.sync_application(&app(), &local).await.unwrap();
    let seen = at_rest(&client).await;
    let state = seen.status.operation_state.as_ref().unwrap();
    assert!(!state.is_deployment());
    assert_eq!(state.sync_result.as_ref().unwrap().resources[0].name, "local");
    assert!(world.lab.cluster().object("ConfigMap", "shop", "local").is_none());

    let id = seen.status.history[0].id;
    client.rollback_dry_run(&app(), id, false).await.unwrap();
    let tried = at_rest(&client).await;
    assert_eq!(tried.status.history.len(), seen.status.history.len());
    assert!(
        tried
            .status
            .operation_state
            .unwrap()
            .operation
            .sync
            .unwrap()
            .dry_run
    );
    let error = client.rollback(&app(), 4711, false).await.unwrap_err();
    assert!(
        error.is_not_found() && refusal(&error).is_unknown_deployment(),
        "{error}"
    );
    client.upsert(&world.spec(true)).await.unwrap();
    for error in [
        client.rollback(&app(), id, false).await.unwrap_err(),
        client
            .sync_application(&app(), &SyncRequest::to("v9"))
            .await
            .unwrap_err(),
    ] {
        assert!(error.is_conflict() && refusal(&error).is_auto_sync(), "{error}");
    }
    let (here, odd) = (
        app(),
        SyncRequest {
            source_positions: vec![0],
            ..SyncRequest::to("main")
        },
    );
    let (error, sent) = requests::count(client.sync_application(&here, &odd)).await;
    assert_eq!((error.unwrap_err().kind(), sent), (ErrorKind::Invalid, 0));
}

#[tokio::test]
async fn a_sync_waits_for_others() {
    let (world, ..) = World::deployed(false).await;
    let client = world.client();
    let syncs = || world.lab.requests().count(&Method::POST, "/sync");
    let before = syncs();
    let go_on = Cancellation::new();
    let mine = SyncRequest::default().info("turn", "mine");
    let here = app();
    let at_once = client.sync_after_others(&here, &mine, SOON, &go_on);
    let (accepted, sent) = requests::count(at_once).await;
    assert!(
        accepted.unwrap().operation.unwrap().carries("turn", "mine") && sent == 1,
        "{sent}"
    );
    at_rest(&client).await;

    world.lab.knobs().set(|knobs| knobs.hold_operations = true);
    client
        .sync_application(&app(), &SyncRequest::default())
        .await
        .unwrap();
    let soon = Duration::from_millis(900);
    let error = client
        .sync_after_others(&app(), &mine, soon, &go_on)
        .await
        .unwrap_err();
    assert!(
        error.kind() == ErrorKind::TimedOut && error.detail().contains("operation"),
        "{error}"
    );
    let release = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.lab.knobs().set(|knobs| knobs.hold_operations = false);
    };
    let (accepted, ()) = tokio::join!(client.sync_after_others(&here, &mine, SOON, &go_on), release);
    assert!(accepted.unwrap().operation.unwrap().carries("turn", "mine"));
    // Refused once, then looked at until it was free: no sync is asked for in vain twice.
    // Two were taken at once, two refused, and the last was taken.
    assert_eq!(syncs() - before, 5);
    go_on.cancel();
    assert!(
        client
            .sync_after_others(&app(), &mine, SOON, &go_on)
            .await
            .unwrap_err()
            .is_cancelled()
    );
    let missing = "default/none".parse().unwrap();
    let error = client
        .sync_after_others(&missing, &mine, SOON, &Cancellation::new())
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn resources_and_what_can_be_done_to_them() {
    let world = World::start_with(|config| {
        config.application_links = vec![("Runbook".into(), "https://wiki.example/web".into())];
    })
    .await;
    let (world, image, commit) = world.deploy(false).await;
    let client = world.client();
    let deployment = node(&client, "Deployment").await;
    let live = client.live_resource(&app(), &deployment).await.unwrap();
    assert_eq!(live["spec"]["replicas"], 2);
    let nowhere = wire::ResourceNode {
        name: "none".into(),
        ..deployment.clone()
    };
    for error in [
        client.live_resource(&app(), &nowhere).await.unwrap_err(),
        client.resource_events(&app(), &nowhere).await.unwrap_err(),
        client.resource_actions(&app(), &nowhere).await.unwrap_err(),
    ] {
        assert!(
            error.is_not_found() && refusal(&error).is_no_part_of_application(),
            "{error}"
        );
    }

    let managed = client.managed_resources(&app()).await.unwrap();
    let web = managed
        .iter()
        .find(|resource| resource.kind == "Deployment")
        .unwrap();
    assert!(!web.modified && !web.resource_version.is_empty());
    assert_eq!(web.target().unwrap().unwrap()["kind"], "Deployment");
    assert_eq!(web.live().unwrap().unwrap()["spec"]["replicas"], 2);
    assert_eq!(web.normalized_live().unwrap(), web.predicted_live().unwrap());
    std::fs::remove_file(world.repository().join("prod/web.yaml")).unwrap();
    std::fs::write(
        world.repository().join("prod/other.yaml"),
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: other}}",
    )
    .unwrap();
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=other"]);
    client.refreshed(&app(), Refresh::Normal, SOON).await.unwrap();
    let managed = client.managed_resources(&app()).await.unwrap();
    let states: Vec<_> = managed
        .iter()
        .map(|one| {
            (
                one.kind.as_str(),
                one.target().unwrap().is_some(),
                one.live().unwrap().is_some(),
            )
        })
        .collect();
    assert_eq!(states, [("ConfigMap", true, false), ("Deployment", false, true)]);

    let manifests = client.manifests(&app(), Some(commit.as_str())).await.unwrap();
    assert!(
        manifests.objects().unwrap()[0]
            .to_string()
            .contains(image.digest().unwrap().as_str())
    );
    let fresh = ManifestsRequest {
        no_cache: true,
        ..ManifestsRequest::default()
    };
    assert_eq!(
        client
            .manifests_of(&app(), &fresh)
            .await
            .unwrap()
            .objects()
            .unwrap()[0]["kind"],
        "ConfigMap"
    );
    let odd = ManifestsRequest {
        revisions: vec!["a".into(), "b".into()],
        ..ManifestsRequest::default()
    };
    assert_eq!(
        client.manifests_of(&app(), &odd).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        client
            .revision_metadata(&app(), commit.as_str())
            .await
            .unwrap()
            .message,
        "deploy"
    );
    let first = client
        .revision_metadata_of_source(&app(), commit.as_str(), 0)
        .await
        .unwrap();
    assert_eq!(first.message, "deploy");

    let pod = node(&client, "Pod").await;
    let events = client.resource_events(&app(), &pod).await.unwrap();
    assert!(events.iter().any(|event| event.reason == "Started"), "{events:?}");
    assert!(!client.events(&app()).await.unwrap().is_empty());
    assert_eq!(client.links(&app()).await.unwrap()[0].title, "Runbook");
    assert!(client.can_sync(&app()).await.unwrap());
    world.lab.knobs().set(|knobs| knobs.sync_window_closed = true);
    assert!(!client.can_sync(&app()).await.unwrap());
    assert_eq!(client.sync_windows(&app()).await.unwrap().active_windows.len(), 1);

    let actions = client.resource_actions(&app(), &deployment).await.unwrap();
    assert_eq!(actions[0].name, "restart");
    assert!(client.resource_actions(&app(), &pod).await.unwrap().is_empty());
    client
        .run_resource_action(&app(), &deployment, "restart", &[])
        .await
        .unwrap();
    assert_restarted(&world);
    let error = client
        .run_resource_action(&app(), &deployment, "explode", &[("at", "once")])
        .await
        .unwrap_err();
    assert!(error.detail().contains("script does not exist"), "{error}");
    let reader = world.with(Login::Token(world.lab.project_token("default", "ci", &["get"])));
    let error = reader
        .run_resource_action(&app(), &deployment, "restart", &[])
        .await
        .unwrap_err();
    assert!(
        error.is_denied() && error.detail().contains("action/apps/Deployment/restart"),
        "{error}"
    );

    let nothing = client.server_side_diff(&app(), &[]).await.unwrap();
    assert!(nothing.items.is_empty() && !nothing.modified);
    let error = client.server_side_diff(&app(), &[live]).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Unsupported && error.detail().contains("REST"),
        "{error}"
    );
}

fn assert_restarted(world: &World) {
    let object = world.lab.cluster().object("Deployment", "shop", "web").unwrap();
    let annotations = &object["spec"]["template"]["metadata"]["annotations"];
    assert!(
        annotations["kubectl.kubernetes.io/restartedAt"].is_string(),
        "{annotations}"
    );
}

#[tokio::test]
async fn an_older_server_is_asked_for_what_it_has() {
    let world = World::start_with(|config| config.version = "v3.0.9+lab".into()).await;
    let (world, ..) = world.deploy(false).await;
    let client = world.client();
    let asked = (0..8).map(|_| client.capabilities());
    for capabilities in futures_util::future::join_all(asked).await {
        assert_eq!(capabilities.unwrap().release(), Some((3, 0)));
    }
    assert_eq!(world.lab.requests().count(&Method::GET, "/api/version"), 1);

    let deployment = node(&client, "Deployment").await;
    client
        .run_resource_action(&app(), &deployment, "restart", &[])
        .await
        .unwrap();
    assert_restarted(&world);
    assert_eq!(world.lab.requests().count(&Method::POST, "actions/v2"), 0);
    let retry = SyncRequest {
        retry_limit: Some(1),
        retry_refresh: true,
        ..SyncRequest::default()
    };
    let scale = [("replicas", "3")];
    let mut switched = world.spec(true);
    switched
        .spec
        .sync_policy
        .as_mut()
        .unwrap()
        .automated
        .as_mut()
        .unwrap()
        .enabled = Some(false);
    let (errors, sent) = requests::count(async {
        [
            client
                .run_resource_action(&app(), &deployment, "scale", &scale)
                .await
                .unwrap_err(),
            client
                .sync_application(&app(), &retry)
                .await
                .map(|_| ())
                .unwrap_err(),
            client
                .server_side_diff(&app(), &[])
                .await
                .map(|_| ())
                .unwrap_err(),
            client.upsert(&switched).await.map(|_| ()).unwrap_err(),
        ]
    })
    .await;
    for (error, version) in errors.iter().zip(["3.1", "3.2", "3.2", "3.1"]) {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(
            error.detail().contains(version) && error.detail().contains("v3.0.9"),
            "{error}"
        );
    }
    assert_eq!(sent, 0);

    // The routes are really not there.
    for path in ["resource/actions/v2", "server-side-diff"] {
        let url = format!("{}/api/v1/applications/web/{path}", world.lab.url());
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .get(url)
            .send()
            .await
            .unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.text().await.unwrap()),
            (404, "Not Found\n".into())
        );
    }
}
