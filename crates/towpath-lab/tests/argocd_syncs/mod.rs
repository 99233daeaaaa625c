//! What a sync does, step by step: waves, hooks, and the Applications that an Application is made of.

use crate::APP;
use crate::argocd_world::{Image, World, eventually};
use serde_json::{Value, json};
use std::time::Duration;
use towpath_lab::argocd::{HealthFlap, SyncWindow};

/// Less than the progress deadline that these tests set.
const SOME_MINUTES: Duration = Duration::from_secs(300);

async fn start() -> World {
    let world = World::start().await;
    world.argocd.cluster().set_delays(|delays| {
        delays.progress_deadline = 2 * SOME_MINUTES;
    });
    world
}

fn config_map(name: &str, annotation: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  annotations: {{{annotation}}}\ndata: {{a: b}}\n"
    )
}

fn job(world: &World, image: &Image, name: &str, annotations: &str) -> String {
    let image = world.reference(image);
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: {name}\n  annotations: {{{annotations}}}\nspec:\n  \
         template:\n    spec:\n      containers:\n      - name: work\n        image: {image}\n"
    )
}

fn results(app: &Value) -> Vec<(String, String, String)> {
    let results = app.pointer("/status/operationState/syncResult/resources");
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    results
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|one| (text(one, "name"), text(one, "syncPhase"), text(one, "hookPhase")))
        .collect()
}

fn result(name: &str, phase: &str, hook_phase: &str) -> (String, String, String) {
    (name.into(), phase.into(), hook_phase.into())
}

#[tokio::test]
async fn waves_wait_for_the_health_of_those_before_and_not_for_their_own() {
    let world = start().await;
    let cluster = world.argocd.cluster();
    cluster.set_delays(|delays| delays.start = SOME_MINUTES);
    let image = world.image("one");
    let wave = "argocd.argoproj.io/sync-wave: '1'";
    world.commit_text("later.yaml", &config_map("later", wave));
    let first = world.commit_image(&image);
    world.create_app(false).await;
    world.send("POST", &format!("{APP}/sync"), &json!({})).await;
    let seen = eventually("the first wave", async || {
        let app = world.get(APP).await.1;
        let message = &app["status"]["operationState"]["message"];
        (message == "waiting for healthy state of apps/Deployment/web").then_some(app)
    })
    .await;
    assert_eq!(seen["status"]["operationState"]["phase"], "Running");
    assert!(cluster.object("ConfigMap", "shop", "later").is_none());
    cluster.set_delays(|delays| delays.start = Duration::ZERO);
    world.argocd.advance(SOME_MINUTES);
    let app = world.until_healthy(&first).await;
    assert_eq!(
        results(&app),
        [
            result("web", "Sync", "Succeeded"),
            result("later", "Sync", "Running")
        ]
    );
    let waves = app["status"]["resources"].as_array().unwrap();
    assert!(waves.iter().any(|one| one["syncWave"] == 1), "{waves:#?}");

    // Of a sync with one wave, the operation has succeeded before anything runs.
    cluster.set_delays(|delays| delays.start = SOME_MINUTES);
    world.commit_text("later.yaml", &config_map("later", "a: b"));
    world.commit_image(&world.image("two"));
    world.send("POST", &format!("{APP}/sync"), &json!({})).await;
    let app = eventually("the operation to end", async || {
        let app = world.get(APP).await.1;
        app.get("operation").is_none().then_some(app)
    })
    .await;
    assert_eq!(app["status"]["operationState"]["phase"], "Succeeded");
    let running = cluster.running();
    assert!(running.iter().all(|one| one.image_digest == image.index));
}

#[tokio::test]
async fn hooks_run_in_their_phases_and_are_not_compared() {
    let world = start().await;
    let image = world.image("one");
    let hook = |name: &str, phase: &str, more: &str| {
        let annotations = format!("argocd.argoproj.io/hook: {phase}{more}");
        world.commit_text(&format!("{name}.yaml"), &job(&world, &image, name, &annotations));
    };
    hook("before", "PreSync", "");
    hook("never", "Skip", "");
    hook("rescue", "SyncFail", "");
    let gone = ", argocd.argoproj.io/hook-delete-policy: HookSucceeded";
    hook("after", "PostSync", gone);
    let first = world.commit_image(&image);
    world.create_app(false).await;
    world.send("POST", &format!("{APP}/sync"), &json!({})).await;
    let app = world.until_healthy(&first).await;
    assert_eq!(
        results(&app),
        [
            result("before", "PreSync", "Succeeded"),
            // With a phase behind it, the last wave is waited for too.
            result("web", "Sync", "Succeeded"),
            result("after", "PostSync", "Succeeded"),
        ]
    );
    let hooks = &app["status"]["operationState"]["syncResult"]["resources"];
    assert_eq!(hooks[0]["hookType"], "PreSync");
    assert_eq!(app["status"]["resources"].as_array().unwrap().len(), 1);
    let cluster = world.argocd.cluster();
    let left = cluster.object("Job", "shop", "before").unwrap();
    assert_eq!(left["status"]["succeeded"], 1);
    assert!(cluster.object("Job", "shop", "after").is_none());
    assert_eq!(cluster.running().len(), 2);

    // One that fails keeps the new version away; and the hooks for that case run.
    world.argocd.knobs().set(|knobs| knobs.fail_jobs = 1);
    world.commit_image(&world.image("two"));
    world.send("POST", &format!("{APP}/sync"), &json!({})).await;
    let app = world.until_operation("Failed").await;
    let message = app["status"]["operationState"]["message"].as_str().unwrap();
    assert!(
        message.ends_with("Job has reached the specified backoff limit"),
        "{message}"
    );
    assert_eq!(
        results(&app),
        [
            result("before", "PreSync", "Failed"),
            result("rescue", "SyncFail", "Succeeded"),
        ]
    );
    let running = cluster.running();
    assert!(running.iter().all(|one| one.image_digest == image.index));

    // A rollback runs no hooks.
    let (status, _) = world
        .send("POST", &format!("{APP}/rollback"), &json!({"id": 0}))
        .await;
    assert_eq!(status, 200);
    let app = world.until_operation("Succeeded").await;
    assert_eq!(results(&app), [result("web", "Sync", "Running")]);
}

#[tokio::test]
async fn an_application_makes_others_and_takes_them_along() {
    let world = start().await;
    let image = world.image("one");
    let first = world.commit_image(&image);
    world.create_app(true).await;
    let mut child = world.until_healthy(&first).await;
    assert_eq!(world.send("DELETE", APP, &json!({})).await.0, 200);
    eventually("it is gone", async || {
        (world.get(&format!("{APP}?project=default")).await.0 == 404).then_some(())
    })
    .await;

    // The same as a manifest in git.
    let mut parent = child.clone();
    for field in ["status", "operation"] {
        child.as_object_mut().unwrap().remove(field);
    }
    child["apiVersion"] = json!("argoproj.io/v1alpha1");
    child["kind"] = json!("Application");
    child["metadata"] = json!({"name": "web", "namespace": "argocd",
        "finalizers": ["resources-finalizer.argocd.argoproj.io"]});
    world.commit_text("apps/web.yaml", &child.to_string());
    parent["metadata"] = json!({"name": "parent"});
    parent["spec"]["source"]["path"] = json!("prod/apps");
    let (status, body) = world.send("POST", "/api/v1/applications", &parent).await;
    assert_eq!(status, 200, "{body}");
    eventually("the child runs", async || {
        (world.argocd.cluster().running().len() == 2).then_some(())
    })
    .await;
    let own = world.argocd.application("parent").unwrap();
    assert_eq!(own["status"]["resources"].as_array().unwrap().len(), 1);
    assert!(own["status"]["resources"][0].get("health").is_none());

    let path = "/api/v1/applications/parent";
    assert_eq!(world.send("DELETE", path, &json!({})).await.0, 200);
    eventually("all of it is gone", async || {
        let gone = world.argocd.applications().is_empty();
        (gone && world.argocd.cluster().running().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn time_passes_when_it_is_put_forward() {
    let world = start().await;
    let first = world.commit_image(&world.image("one"));
    world.create_app(true).await;
    world.until_healthy(&first).await;

    // Two minutes later there is a poll.
    let second = world.commit_image(&world.image("two"));
    world.argocd.advance(Duration::from_secs(120));
    world.until_healthy(&second).await;

    // Health that flaps does so by the same clock.
    let flap = HealthFlap {
        times: 1,
        healthy_for: SOME_MINUTES,
        degraded_for: SOME_MINUTES,
    };
    world.argocd.knobs().set(|knobs| knobs.health_flap = Some(flap));
    let third = world.commit_image(&world.image("three"));
    world.get(&format!("{APP}?refresh=normal")).await;
    world.until_healthy(&third).await;
    for health in ["Degraded", "Healthy"] {
        world.argocd.advance(SOME_MINUTES);
        eventually(health, async || {
            (world.get(APP).await.1["status"]["health"]["status"] == health).then_some(())
        })
        .await;
    }

    // And windows open by it.
    let opening = world.argocd.now().saturating_add(2 * SOME_MINUTES).unwrap();
    let opening = opening.strftime("%-M %-H * * *").to_string();
    let window = SyncWindow::allow(&opening, "1h")
        .unwrap()
        .with_applications(&["web"])
        .with_manual_sync(true);
    world.argocd.set_sync_windows("default", vec![window]);
    let path = format!("{APP}/syncwindows");
    // By hand it may be synchronised, on its own it may not.
    let (_, windows) = world.get(&path).await;
    assert_eq!(windows["canSync"], true);
    assert!(windows.get("activeWindows").is_none());
    let fourth = world.commit_image(&world.image("four"));
    let (_, app) = world.get(&format!("{APP}?refresh=normal")).await;
    assert_eq!(app["status"]["sync"]["status"], "OutOfSync");
    assert!(app.get("operation").is_none());
    world.argocd.advance(2 * SOME_MINUTES);
    assert_eq!(world.get(&path).await.1["activeWindows"][0]["kind"], "allow");
    world.until_healthy(&fourth).await;
}
