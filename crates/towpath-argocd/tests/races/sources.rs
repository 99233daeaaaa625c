//! Races about where manifests come from: several sources, charts, the hydrator, Applications of Applications.

use crate::lab_world::{World, expected};
use crate::wire::eventually;
use serde_json::{Value, json};
use towpath_argocd::{DeliveryOutcome, wire};
use towpath_lab::argocd::ChartVersion;

const CHARTS: &str = "https://charts.example.com";

fn chart(version: &str) -> ChartVersion {
    ChartVersion {
        repository: CHARTS.into(),
        chart: "settings".into(),
        version: version.into(),
        manifests: format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata: {{version: '{version}'}}\n"
        ),
    }
}

/// The application with another spec than the one that everybody else uses.
fn with_spec(world: &World, automated: bool, change: impl FnOnce(&mut Value)) -> wire::App {
    let mut app = serde_json::to_value(world.spec(automated)).unwrap();
    change(&mut app["spec"]);
    serde_json::from_value(app).unwrap()
}

/// With a hydrator that writes to a branch of its own.
pub(crate) fn hydrated(world: &World, automated: bool) -> wire::App {
    with_spec(world, automated, |spec| {
        let dry = spec["source"].take();
        spec.as_object_mut().unwrap().remove("source");
        spec["sourceHydrator"] = json!({
            "drySource": dry, "syncSource": {"targetBranch": "env/prod", "path": "web"},
        });
    })
}

#[tokio::test]
async fn r14_the_revision_of_a_chart_is_no_commit() {
    for automated in [true, false] {
        let world = World::start_with(|config| {
            config.charts = ["1.2.0", "1.10.0", "2.0.0"].map(chart).into();
        })
        .await;
        let one = world.image("one");
        let first = world.commit(&one);
        let several = with_spec(&world, automated, |spec| {
            let git = spec["source"].take();
            spec.as_object_mut().unwrap().remove("source");
            spec["sources"] = json!([
                {"repoURL": CHARTS, "chart": "settings", "targetRevision": "^1"}, git,
            ]);
        });
        world.client().create(&several).await.unwrap();
        world.assert_live(&first, &one).await;
        let seen = world.seen().await;
        let status = &seen["status"];
        assert_eq!(status["sync"]["revisions"], json!(["1.10.0", first]));
        assert!(status["sync"].get("revision").is_none());
        assert_eq!(status["sourceTypes"], json!(["Helm", "Directory"]));
        assert_eq!(status["sync"]["comparedTo"]["sources"], seen["spec"]["sources"]);
        let result = &status["operationState"]["syncResult"];
        assert_eq!(result["revisions"], json!(["1.10.0", first]));

        let two = world.image("two");
        let second = world.commit(&two);
        world
            .assert_waits_for(&world.onlooker(), &expected(&second, &two), "to see commit")
            .await;
        world.assert_live(&second, &two).await;
    }
}

#[tokio::test]
async fn r15_the_hydrated_commit_is_another_than_the_one_that_people_made() {
    let world = World::start().await;
    let one = world.image("one");
    let first = world.commit(&one);
    world.client().create(&hydrated(&world, true)).await.unwrap();
    world.assert_live(&first, &one).await;
    let seen = world.seen().await;
    let done = &seen["status"]["sourceHydrator"]["lastSuccessfulOperation"];
    assert_eq!(done["drySHA"], first.as_str());
    // The revision that is compared never equals the commit that people made.
    assert_eq!(done["hydratedSHA"], seen["status"]["sync"]["revision"]);
    assert_ne!(done["hydratedSHA"], first.as_str());
    assert_eq!(
        seen["status"]["sourceHydrator"]["currentOperation"]["phase"],
        "Hydrated"
    );

    let two = world.image("two");
    let second = world.commit(&two);
    world
        .assert_waits_for(&world.onlooker(), &expected(&second, &two), "to be hydrated")
        .await;
    world.assert_runs(&one);
    world.assert_live(&second, &two).await;
    let before = world.git(&["rev-parse", "env/prod"]);

    // What renders to the same makes no new commit.
    world.git(&["commit", "--quiet", "--allow-empty", "--message=empty"]);
    let third = world.git(&["rev-parse", "HEAD"]).parse().unwrap();
    world.assert_live(&third, &two).await;
    assert_eq!(world.git(&["rev-parse", "env/prod"]), before);
    let seen = world.seen().await;
    let done = &seen["status"]["sourceHydrator"]["lastSuccessfulOperation"];
    assert_eq!(
        (&done["drySHA"], &done["hydratedSHA"]),
        (&json!(third), &json!(before))
    );

    // What cannot be rendered is told.
    let broken = world.commit_text("kind: [");
    let report = world.wait(&broken, &two).await;
    assert_eq!(report.outcome, DeliveryOutcome::ComparisonError, "{report:?}");
    assert!(report.reason.contains("hydrator"), "{}", report.reason);
}

#[tokio::test]
async fn an_application_of_applications_says_nothing_of_its_children() {
    let world = World::start().await;
    let one = world.image("one");
    let mut child = serde_json::to_value(world.spec(true)).unwrap();
    child["apiVersion"] = json!("argoproj.io/v1alpha1");
    child["kind"] = json!("Application");
    child["metadata"] = json!({"name": "web", "namespace": "argocd"});
    let (commit, missing) = (
        world.commit_file("apps/web.json", &child.to_string()),
        one.at(towpath_core::Digest::sha256_of("nowhere")),
    );
    let second = world.commit(&missing);
    let mut parent = serde_json::to_value(world.spec(true)).unwrap();
    parent["metadata"] = json!({"name": "parent"});
    parent["spec"]["source"]["path"] = json!("apps");
    parent["spec"]["destination"]["namespace"] = json!("argocd");
    let parent: wire::App = serde_json::from_value(parent).unwrap();
    world.client().create(&parent).await.unwrap();
    let seen = eventually("a parent that looks good", async || {
        let seen = world.get("/api/v1/applications/parent?project=default").await;
        let status = &seen["status"];
        let good = status["sync"]["status"] == "Synced" && status["health"]["status"] == "Healthy";
        (good && seen.get("operation").is_none()).then_some(seen)
    })
    .await;
    assert_eq!(seen["status"]["summary"]["isAppOfApps"], true);
    assert!(commit != second && world.lab.cluster().running().is_empty());
    // The child is there, and nothing of it runs.
    let report = world.wait(&second, &missing).await;
    assert_eq!(report.outcome, DeliveryOutcome::Degraded, "{report:?}");
    let third = world.commit(&one);
    world.assert_live(&third, &one).await;
}
