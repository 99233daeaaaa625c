//! Argo CD and its cluster, asked over the wire with plain requests, real git, and a small registry.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod argocd_syncs;
mod argocd_world;

use argocd_world::{Image, World, eventually};
use futures_util::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use towpath_lab::Fault;
use towpath_lab::argocd::{ArgoCd, ArgoCdConfig};

const APP: &str = "/api/v1/applications/web";

#[tokio::test]
async fn a_commit_goes_live_and_a_push_brings_the_next_one() {
    let world = World::start().await;
    let (one, two) = (world.image("one"), world.image("two"));
    let first = world.commit_image(&one);
    world.create_app(true).await;
    let app = world.until_healthy(&first).await;

    assert_eq!(app["status"]["sync"]["status"], "Synced");
    assert_eq!(
        app["status"]["operationState"]["operation"]["initiatedBy"]["automated"],
        true
    );
    assert_eq!(app["status"]["history"][0]["id"], 0);
    assert_eq!(
        app["status"]["sync"]["comparedTo"]["source"],
        app["spec"]["source"]
    );
    assert_eq!(
        app["status"]["reconciledAt"].as_str().unwrap().len(),
        "2026-01-01T00:00:00Z".len()
    );
    let running = world.argocd.cluster().running();
    assert_eq!(running.len(), 2);
    for container in &running {
        assert_eq!(container.image_digest, one.index);
        assert_eq!(container.manifest_digest, one.manifest);
        assert_eq!(container.blobs, one.blobs);
        assert_eq!(
            (container.namespace.as_str(), container.workload.as_str()),
            ("shop", "web")
        );
    }

    let second = world.commit_image(&two);
    world
        .argocd
        .cluster()
        .set_delays(|delays| delays.start = Duration::from_secs(1));
    assert_eq!(world.push_webhook("hook-secret").await, StatusCode::OK);
    eventually("old and new side by side", async || {
        let app = world.get(APP).await.1;
        (app["status"]["summary"]["images"].as_array()?.len() == 2).then_some(())
    })
    .await;
    let app = world.until_healthy(&second).await;
    assert_eq!(app["status"]["summary"]["images"], json!([world.reference(&two)]));
    assert!(
        world
            .argocd
            .cluster()
            .running()
            .iter()
            .all(|container| container.image_digest == two.index)
    );

    // The Pod says what it runs, as the kubelet does.
    let (_, tree) = world.get(&format!("{APP}/resource-tree?kind=Pod")).await;
    let pod = &tree["nodes"][0];
    assert_eq!(pod["images"], json!([world.reference(&two)]));
    let name = pod["name"].as_str().unwrap();
    let path = format!("{APP}/resource?namespace=shop&resourceName={name}&version=v1&kind=Pod&group=");
    let (_, answer) = world.get(&path).await;
    let live: Value = serde_json::from_str(answer["manifest"].as_str().unwrap()).unwrap();
    let status = &live["status"]["containerStatuses"][0];
    assert_eq!(
        status["imageID"],
        format!("{}/shop/web@{}", world.registry(), two.index)
    );
    assert_eq!(status["ready"], true);

    // Any revision can be rendered, and says what it is.
    let (_, manifests) = world.get(&format!("{APP}/manifests?revision={first}")).await;
    assert!(
        manifests["manifests"][0]
            .as_str()
            .unwrap()
            .contains(one.index.as_str())
    );
    let (_, metadata) = world.get(&format!("{APP}/revisions/{second}/metadata")).await;
    assert_eq!(metadata["message"], "deploy");
    let (_, managed) = world.get(&format!("{APP}/managed-resources")).await;
    assert_eq!(managed["items"][0]["modified"], false);
    let (_, events) = world.get(&format!("{APP}/events")).await;
    assert!(
        events["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|event| event["reason"] == "Pulled")
    );
}

#[tokio::test]
async fn what_cannot_be_pulled_never_runs() {
    let world = World::start().await;
    let deadline = std::time::Duration::from_millis(300);
    world
        .argocd
        .cluster()
        .set_delays(|delays| delays.progress_deadline = deadline);
    let image = world.image("one");
    let wrong = Image {
        index: towpath_core::Digest::sha256_of("elsewhere"),
        ..image.clone()
    };
    world.commit_image(&wrong);
    world.create_app(true).await;
    let app = eventually("the deployment is given up", async || {
        let app = world.get(APP).await.1;
        (app["status"]["health"]["status"] == "Degraded").then_some(app)
    })
    .await;
    assert_eq!(
        app["status"]["resources"][0]["health"]["message"],
        "Deployment \"web\" exceeded its progress deadline"
    );
    assert_eq!(app["status"]["sync"]["status"], "Synced");
    let (_, tree) = world.get(&format!("{APP}/resource-tree?kind=Pod")).await;
    assert_eq!(tree["nodes"][0]["health"]["status"], "Degraded");
    assert!(
        tree["nodes"][0]["health"]["message"]
            .as_str()
            .unwrap()
            .contains("not found")
    );
    assert!(world.argocd.cluster().running().is_empty());

    // A layer with other bytes, and an image for another machine, do not run either.
    for (broken, why) in [
        (world.broken_image("bytes"), "unexpected commit digest"),
        (world.arm_image(), "exec format"),
    ] {
        world.commit_image(&broken);
        world.push_webhook("hook-secret").await;
        eventually(why, async || {
            let (_, tree) = world.get(&format!("{APP}/resource-tree?kind=Pod")).await;
            tree.to_string().contains(why).then_some(())
        })
        .await;
        assert!(world.argocd.cluster().running().is_empty());
    }
    // And what comes right, comes up.
    let sha = world.commit_image(&image);
    world.push_webhook("hook-secret").await;
    world.until_healthy(&sha).await;
}

#[tokio::test]
async fn missing_and_forbidden_are_told_apart_only_with_a_project() {
    let world = World::start().await;
    world.commit_image(&world.image("one"));
    world.create_app(false).await;
    let ci = world.argocd.project_token("default", "ci", &["get"]);
    let other = world.argocd.project_token("other", "ci", &["get", "sync"]);
    let missing = "applications.argoproj.io \"web\" not found";
    for (token, query, status, message) in [
        (None, "web?project=other", 404, missing),
        (None, "web?appNamespace=elsewhere", 403, "permission denied"),
        (None, "none", 403, "permission denied"),
        (
            None,
            "none?project=default",
            404,
            "applications.argoproj.io \"none\" not found",
        ),
        (Some(&other), "web", 403, "permission denied"),
        (Some(&other), "web?project=default", 403, "permission denied"),
        (Some(&other), "web?project=other", 404, missing),
    ] {
        let token = token.unwrap_or(world.argocd.token());
        let path = format!("/api/v1/applications/{query}");
        let answer = world.request("GET", &path).bearer_auth(token.expose());
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let body: Value = answer.json().await.unwrap();
        let code = if status == 404 { 5 } else { 7 };
        assert_eq!(body, json!({"error": message, "code": code, "message": message}));
    }
    let sync = world.request("POST", &format!("{APP}/sync")).json(&json!({}));
    let answer = sync.bearer_auth(ci.expose()).send().await.unwrap();
    let body: Value = answer.json().await.unwrap();
    let denial = body["message"].as_str().unwrap();
    let expected = "permission denied: applications, sync, default/web, sub: proj:default:ci, iat: ";
    assert!(denial.starts_with(expected), "{denial}");
    let (_, can) = world
        .get("/api/v1/account/can-i/applications/sync/default/web")
        .await;
    assert_eq!(can, json!({"value": "yes"}));
}

#[tokio::test]
async fn the_gateway_refuses_in_its_own_words() {
    let argocd = ArgoCd::start(ArgoCdConfig::default()).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let at = |path: &str| format!("{}{path}", argocd.url());
    for content_type in [None, Some("application/json; charset=utf-8")] {
        let mut request = client.delete(at(APP)).bearer_auth(argocd.token().expose());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 415);
        let kind = answer.headers()["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/plain"));
        assert!(answer.text().await.unwrap().starts_with("Invalid content type"));
    }
    let answer = client.get(at("/api/v1/nothing")).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    let put = client
        .put(at("/api/version"))
        .header("content-type", "application/json");
    assert_eq!(put.send().await.unwrap().status(), 405);
    let answer = client
        .get(at("/wrong/root/api/v1/applications"))
        .send()
        .await
        .unwrap();
    assert!(answer.status() == 200 && answer.text().await.unwrap().contains("<html>"));

    let expired = argocd.account_token("towpath", Duration::ZERO);
    for (token, message) in [
        (None, "no session information"),
        (Some("no-jwt"), "no session information"),
        (Some("a.b.c"), "invalid session: "),
        (
            Some(expired.expose()),
            "invalid session: token has invalid claims: token is expired",
        ),
    ] {
        let mut request = client.get(at("/api/v1/applications"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"], 16);
        assert!(body["message"].as_str().unwrap().starts_with(message), "{body}");
    }
    assert_eq!(argocd.token().expose().split('.').count(), 3);
    let body = json!({"username": "admin", "password": "lab-admin"});
    let session = client
        .post(at("/api/v1/session"))
        .json(&body)
        .send()
        .await
        .unwrap();
    let session: Value = session.json().await.unwrap();
    let who = client.get(at("/api/v1/session/userinfo"));
    let who = who
        .bearer_auth(session["token"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    let who: Value = who.json().await.unwrap();
    assert_eq!(
        who,
        json!({"loggedIn": true, "username": "admin", "iss": "argocd"})
    );
    let version = client.get(at("/api/version")).send().await.unwrap();
    assert_eq!(
        version.json::<Value>().await.unwrap(),
        json!({"Version": "v3.5.1+lab"})
    );
    let down = Fault::respond("/api/version", StatusCode::BAD_GATEWAY, "down");
    argocd.faults().inject(down);
    assert_eq!(client.get(at("/api/version")).send().await.unwrap().status(), 502);
}

#[tokio::test]
async fn operations_run_one_at_a_time_and_can_be_ended() {
    let world = World::start().await;
    let first = world.commit_image(&world.image("one"));
    world.create_app(false).await;
    let compared = eventually("the first comparison", async || {
        let app = world.get(APP).await.1;
        (app["status"]["sync"]["status"] == "OutOfSync").then_some(app)
    })
    .await;
    assert_eq!(compared["status"]["health"]["status"], "Missing");
    let (status, body) = world
        .send("DELETE", &format!("{APP}/operation"), &json!({}))
        .await;
    assert_eq!((status, &body["code"]), (400, &json!(3)));

    world.argocd.knobs().set(|knobs| knobs.hold_operations = true);
    let request = json!({"revision": first, "infos": [{"name": "id", "value": "7"}], "prune": true});
    let (status, accepted) = world.send("POST", &format!("{APP}/sync"), &request).await;
    assert_eq!(status, 200);
    assert_eq!(accepted["operation"]["sync"]["revision"], first);
    assert!(accepted["status"].get("operationState").is_none());
    let (status, body) = world.send("POST", &format!("{APP}/sync"), &json!({})).await;
    assert_eq!((status, &body["code"]), (400, &json!(9)));
    assert_eq!(body["message"], "another operation is already in progress");
    world.until_operation("Running").await;
    let (status, _) = world
        .send("DELETE", &format!("{APP}/operation"), &json!({}))
        .await;
    assert_eq!(status, 200);
    let ended = world.until_operation("Failed").await;
    assert_eq!(
        ended["status"]["operationState"]["message"],
        "Operation terminated"
    );
    assert!(ended.get("operation").is_none());

    world.argocd.knobs().set(|knobs| knobs.hold_operations = false);
    world.send("POST", &format!("{APP}/sync"), &request).await;
    let app = world.until_healthy(&first).await;
    let operation = &app["status"]["operationState"]["operation"];
    assert_eq!(operation["info"], json!([{"name": "id", "value": "7"}]));
    assert_eq!(operation["initiatedBy"]["username"], "towpath");

    // Back to the first deployment, and not under automatic synchronisation.
    let second = world.commit_image(&world.image("two"));
    world.send("POST", &format!("{APP}/sync"), &json!({})).await;
    world.until_healthy(&second).await;
    let back = json!({"id": 0});
    let (status, _) = world.send("POST", &format!("{APP}/rollback"), &back).await;
    assert_eq!(status, 200);
    let one = world.image("one").index;
    eventually("the first image again", async || {
        let running = world.argocd.cluster().running();
        (running.len() == 2 && running.iter().all(|container| container.image_digest == one)).then_some(())
    })
    .await;
    world.argocd.knobs().set(|knobs| knobs.sync_window_closed = true);
    let patch = json!({"patchType": "merge", "patch": r#"{"spec":{"syncPolicy":{"automated":{}}}}"#});
    assert_eq!(world.send("PATCH", APP, &patch).await.0, 200);
    let (status, body) = world.send("POST", &format!("{APP}/rollback"), &back).await;
    assert_eq!((status, &body["code"]), (400, &json!(9)));
    assert_eq!(
        body["message"],
        "rollback cannot be initiated when auto-sync is enabled"
    );
    let (status, body) = world.send("POST", &format!("{APP}/sync"), &json!({})).await;
    assert_eq!(
        (status, &body["message"]),
        (403, &json!("cannot sync: blocked by sync window"))
    );
    assert_eq!(world.get(&format!("{APP}/syncwindows")).await.1["canSync"], false);
    world.argocd.knobs().set(|knobs| knobs.sync_window_closed = false);
    let (_, body) = world
        .send("POST", &format!("{APP}/sync"), &json!({"revision": first}))
        .await;
    assert_eq!(
        body["message"],
        format!("Cannot sync to {first}: auto-sync currently set to main")
    );
}

#[tokio::test]
async fn refreshes_look_again_unless_they_are_lost() {
    let world = World::start().await;
    let image = world.image("one");
    let first = world.commit_image(&image);
    world.create_app(true).await;
    world.until_healthy(&first).await;
    let refresh = format!("{APP}?refresh=normal");

    let second = world.commit_text("web.yaml", &world.deployment(&image, 1));
    world.argocd.knobs().set(|knobs| knobs.lose_refresh = 1);
    let (_, lost) = world.get(&refresh).await;
    assert_eq!(lost["status"]["sync"]["revision"], first);
    let (_, seen) = world.get(&refresh).await;
    assert_eq!(seen["status"]["sync"]["revision"], second);
    assert!(seen["metadata"].get("annotations").is_none());
    world.until_healthy(&second).await;

    // What cannot be read is a condition, with the revision unresolved; health is another matter.
    world.commit_text("web.yaml", "kind: [");
    let (_, broken) = world.get(&format!("{APP}?refresh=hard")).await;
    let status = &broken["status"];
    assert_eq!(status["sync"]["status"], "Unknown");
    assert_eq!(status["sync"]["revision"], "main");
    assert_eq!(status["conditions"][0]["type"], "ComparisonError");
    assert!(
        status["conditions"][0]["message"]
            .as_str()
            .unwrap()
            .contains("web.yaml")
    );
    assert_eq!(status["health"]["status"], "Healthy");

    // A live object that is changed by hand is put back.
    let third = world.commit_text("web.yaml", &world.deployment(&image, 1));
    world.get(&refresh).await;
    world.until_healthy(&third).await;
    let drift = json!({"spec": {"replicas": 3}});
    assert!(world.argocd.cluster().edit("Deployment", "shop", "web", &drift));
    eventually("the drift is healed", async || {
        let live = world.argocd.cluster().object("Deployment", "shop", "web")?;
        let synced = world.get(APP).await.1["status"]["sync"]["status"] == "Synced";
        let healed = live["spec"]["replicas"] == 1 && world.argocd.cluster().running().len() == 1;
        (synced && healed).then_some(())
    })
    .await;

    world.argocd.knobs().set(|knobs| knobs.refresh_hangs = true);
    let hanging = tokio::time::timeout(Duration::from_millis(200), world.get(&refresh)).await;
    assert!(hanging.is_err());
}

#[tokio::test]
async fn webhooks_are_checked_and_matched() {
    let world = World::start().await;
    let image = world.image("one");
    let first = world.commit_image(&image);
    world.create_app(true).await;
    world.until_healthy(&first).await;
    let second = world.commit_text("web.yaml", &world.deployment(&image, 1));
    assert_eq!(world.push_webhook("wrong").await, StatusCode::BAD_REQUEST);
    let hook = || world.request("POST", "/api/webhook").body("{}");
    assert_eq!(hook().send().await.unwrap().status(), 400);
    let issues = hook().header("x-github-event", "issues");
    assert_eq!(issues.send().await.unwrap().status(), 400);
    let app = world.get(APP).await.1;
    assert_eq!(app["status"]["sync"]["revision"], first);
    assert_eq!(world.push_webhook("hook-secret").await, StatusCode::OK);
    world.until_healthy(&second).await;
}

#[tokio::test]
async fn streams_start_with_what_is_there_and_keep_alive() {
    let world = World::start().await;
    let first = world.commit_image(&world.image("one"));
    world.create_app(true).await;
    world.until_healthy(&first).await;

    let watch = |name: &str, accept: &str| {
        let path = format!("/api/v1/stream/applications?name={name}");
        let request = world.request("GET", &path).header("accept", accept);
        request.bearer_auth(world.argocd.token().expose()).send()
    };
    let mut events = watch("web", "text/event-stream").await.unwrap().bytes_stream();
    let mut seen = String::new();
    while !seen.contains("\n:\n") {
        seen.push_str(std::str::from_utf8(&events.next().await.unwrap().unwrap()).unwrap());
    }
    let (added, _) = seen
        .strip_prefix("data: ")
        .unwrap()
        .split_once(" \n\n\n")
        .unwrap();
    let event: Value = serde_json::from_str(added).unwrap();
    assert_eq!(event["result"]["type"], "ADDED");
    assert_eq!(event["result"]["application"]["metadata"]["name"], "web");

    world.argocd.knobs().set(|knobs| knobs.cut_stream_after = Some(1));
    let lines = watch("web", "*/*").await.unwrap().text().await.unwrap();
    assert_eq!(lines.lines().count(), 1);
    serde_json::from_str::<Value>(&lines).unwrap();

    let mut silent = watch("none", "*/*").await.unwrap().bytes_stream();
    world.get(&format!("{APP}?refresh=normal")).await;
    let nothing = tokio::time::timeout(Duration::from_millis(100), silent.next()).await;
    assert!(nothing.is_err());

    // A list gives the fields that are named, and says nothing as null.
    let (_, list) = world
        .get("/api/v1/applications?name=none&fields=items.metadata.name")
        .await;
    assert_eq!(list["items"], Value::Null);
    let (_, list) = world.get("/api/v1/applications?fields=items.metadata.name").await;
    assert_eq!(list["items"], json!([{"metadata": {"name": "web"}}]));

    assert_eq!(world.send("DELETE", APP, &json!({})).await.0, 200);
    eventually("it is gone with all it had", async || {
        let (status, _) = world.get(&format!("{APP}?project=default")).await;
        (status == 404 && world.argocd.cluster().running().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn knobs_make_it_late_and_broken() {
    let world = World::start().await;
    let first = world.commit_image(&world.image("one"));
    world.create_app(false).await;
    let knobs = world.argocd.knobs();

    knobs.set(|knobs| knobs.delay_pickup = Duration::from_millis(200));
    let (_, accepted) = world.send("POST", &format!("{APP}/sync"), &json!({})).await;
    assert!(accepted.get("operation").is_some());
    let (_, early) = world.get(APP).await;
    assert!(early.get("operation").is_some() && early["status"].get("operationState").is_none());
    world.until_healthy(&first).await;

    // A refresh shows an unreachable repository at once.
    knobs.set(|knobs| knobs.repo_error = Some("connection refused".into()));
    let (_, broken) = world.get(&format!("{APP}?refresh=normal")).await;
    assert_eq!(broken["status"]["sync"]["status"], "Unknown");
    let message = broken["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("connection refused"));
    knobs.set(|knobs| knobs.repo_error = None);
    let (_, mended) = world.get(&format!("{APP}?refresh=normal")).await;
    assert_eq!(mended["status"]["sync"]["revision"], first);
    assert!(mended["status"].get("conditions").is_none());

    // With the controller down the API still answers, and nothing is looked at until it is back.
    knobs.set(|knobs| knobs.controller_down = true);
    let second = world.commit_image(&world.image("two"));
    assert_eq!(world.push_webhook("hook-secret").await, StatusCode::OK);
    let (status, app) = world.get(APP).await;
    assert_eq!((status, &app["status"]["sync"]["revision"]), (200, &json!(first)));
    knobs.set(|knobs| knobs.controller_down = false);
    eventually("the controller catches up", async || {
        let app = world.get(APP).await.1;
        (app["status"]["sync"]["revision"] == second).then_some(())
    })
    .await;
}
