//! Many waits by one client: one stream, their progress, and applications that come and go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "the tests of one file do not use all of it")]
mod lab_world;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use lab_world::{World, app, expected};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use towpath_argocd::wire::{App, SyncWindows};
use towpath_argocd::{
    Application, Backend, Cancellation, Change, Changes, CommitSha, Deletion, Delivery, DeliveryOutcome,
    DeliveryReport, Digest, Error, ErrorKind, Expected, FailingPod, Result, RunningImage, SyncRequest,
    Trigger, WaitPolicy, Waiter,
};

const STREAM: &str = "/api/v1/stream/applications";

fn called(name: &str) -> Application {
    format!("default/{name}").parse().unwrap()
}

async fn until(reached: impl Fn() -> bool) {
    let reached = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached)
        .await
        .unwrap();
}

/// Applications of these names, that are live at the commit of `world`.
async fn more(world: &World, names: &[String]) {
    for name in names {
        let mut spec = world.spec(true);
        spec.metadata.name.clone_from(name);
        spec.spec.destination.namespace = Some(name.clone());
        world.client().create(&spec).await.unwrap();
    }
}

#[tokio::test]
async fn one_stream_serves_any_number_of_waits() {
    let (world, ..) = World::deployed(true).await;
    let names: Vec<String> = (0..12).map(|number| format!("web-{number}")).collect();
    more(&world, &names).await;
    let streams = || world.lab.requests().count(&"GET".parse().unwrap(), STREAM);
    let before = streams();

    let two = world.image("two");
    let commit = world.commit(&two);
    // The clock alone would be too slow: what ends these waits is the stream.
    let client = world.client_with(|policy| policy.poll = Duration::from_secs(300));
    let all = names.iter().map(|name| Expected {
        application: called(name),
        ..expected(&commit, &two)
    });
    let reports = client.waiter().wait_all(all, &Cancellation::new()).await;
    for report in reports {
        let report = report.unwrap();
        assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    }
    assert_eq!(streams() - before, 1, "streams for twelve waits");
    let wanted = two.digest().cloned().unwrap();
    let ran = world.lab.cluster().running();
    assert!(
        ran.iter()
            .all(|one| one.namespace == "shop" || one.image_digest == wanted)
    );
}

#[tokio::test]
async fn a_listener_that_a_stream_does_not_cover_widens_it() {
    let (world, ..) = World::deployed(true).await;
    more(&world, &["other".to_owned()]).await;
    let streams = || world.lab.requests().count(&"GET".parse().unwrap(), STREAM);
    let client = world.client_with(|policy| {
        policy.poll = Duration::from_secs(300);
        policy.trigger = Trigger::Nothing;
    });
    let two = world.image("two");
    let commit = world.commit(&two);
    let never = Expected {
        within: Duration::from_secs(600),
        ..expected(&commit, &two)
    };
    let before = streams();
    let cancellation = Cancellation::new();
    let (waiting, stop) = (client.clone(), cancellation.clone());
    let long = tokio::spawn(async move { waiting.wait(never, &stop).await });
    until(|| streams() > before).await;
    let other = Expected {
        application: called("other"),
        ..expected(&commit, &two)
    };
    let mut policy = WaitPolicy::default();
    policy.poll = Duration::from_secs(300);
    policy.first_refresh = Duration::from_millis(20);
    let waiter = Waiter::new(Arc::new(client.clone()), policy);
    let report = waiter.wait(other, &Cancellation::new()).await.unwrap();
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    assert!(streams() - before <= 2, "{}", streams() - before);
    cancellation.cancel();
    assert_eq!(long.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn progress_is_told_once_for_each_thing_that_is_waited_for() {
    let (world, ..) = World::deployed(true).await;
    let two = world.image("two");
    let commit = world.commit(&two);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let keep = heard.clone();
    let waiter = world
        .client()
        .waiter()
        .on_progress(move |progress| keep.lock().unwrap().push(progress.waiting_for.clone()));
    let report = waiter
        .wait(expected(&commit, &two), &Cancellation::new())
        .await
        .unwrap();
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    let heard = heard.lock().unwrap();
    assert!(
        heard.iter().any(|text| text.contains(&commit.short()[..7])),
        "{heard:?}"
    );
    assert!(heard.windows(2).all(|pair| pair[0] != pair[1]), "{heard:?}");
}

#[tokio::test]
async fn an_application_that_goes_away_is_missing() {
    let (world, ..) = World::deployed(true).await;
    let two = world.image("two");
    let never = expected(&world.commit(&two), &two);
    let client = world.client_with(|policy| policy.trigger = Trigger::Nothing);
    let waiting = client.clone();
    let streams = || world.lab.requests().count(&"GET".parse().unwrap(), STREAM);
    let before = streams();
    let wait = tokio::spawn(async move { waiting.wait(never, &Cancellation::new()).await });
    until(|| streams() > before).await;
    client.delete(&app(), Deletion::Orphan).await.unwrap();
    let report = wait.await.unwrap().unwrap();
    assert!(
        matches!(
            report.outcome,
            DeliveryOutcome::Missing | DeliveryOutcome::Replaced
        ),
        "{report:?}"
    );
    assert!(report.status.is_some(), "the last state seen: {report:?}");
}

#[tokio::test]
async fn an_application_may_take_its_time_to_appear_where_that_is_allowed() {
    let world = World::start().await;
    let one = world.image("one");
    let commit = world.commit(&one);
    let refused = world
        .client()
        .wait(expected(&commit, &one), &Cancellation::new())
        .await;
    assert!(refused.unwrap_err().is_not_found());

    let patient = world.client_with(|policy| policy.appearance = Duration::from_secs(60));
    let wait = tokio::spawn(async move { patient.wait(expected(&commit, &one), &Cancellation::new()).await });
    let looks = || {
        world
            .lab
            .requests()
            .count(&"GET".parse().unwrap(), "/applications/web")
    };
    until(|| looks() > 2).await;
    world.client().create(&world.spec(true)).await.unwrap();
    let report = wait.await.unwrap().unwrap();
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
}

#[tokio::test]
async fn a_pod_that_cannot_start_is_told_before_its_deployment_gives_up() {
    let (world, one, _) = World::deployed(true).await;
    let missing = one.at(Digest::sha256_of("nobody has pushed it"));
    let commit = world.commit(&missing);
    let report = world.wait(&commit, &missing).await;
    assert_eq!(report.outcome, DeliveryOutcome::Degraded, "{report:?}");
    let digest = missing.digest().unwrap().as_str();
    for part in ["; pod web-", digest, "; mend what they lack"] {
        assert!(report.reason.contains(part), "{}", report.reason);
    }
    world.assert_runs(&one);
}

/// A server that answers each look in turn, and from the last on the same again; *false* fails. It tells of a change after
/// half a second.
#[derive(Debug)]
struct Looks {
    answers: Vec<(bool, &'static str)>,
    asked: AtomicU32,
    pods_read: AtomicU32,
}

impl Looks {
    /// Whether each look is answered, and the health that it then shows.
    fn new(answers: &[(bool, &'static str)]) -> Arc<Self> {
        Arc::new(Self {
            answers: answers.to_vec(),
            asked: AtomicU32::new(0),
            pods_read: AtomicU32::new(0),
        })
    }

    async fn wait(self: &Arc<Self>, settle: Duration, within: Duration) -> DeliveryReport {
        let expected = Expected {
            application: "shop/web".parse().unwrap(),
            revision: "b".repeat(40).parse().unwrap(),
            images: Vec::new(),
            platform_digests: Vec::new(),
            within,
            settle,
        };
        let waiter = Waiter::new(self.clone(), WaitPolicy::default());
        waiter.wait(expected, &Cancellation::new()).await.unwrap()
    }
}

#[async_trait]
impl Backend for Looks {
    async fn application(&self, application: &Application) -> Result<App> {
        let look = self.asked.fetch_add(1, Ordering::SeqCst) as usize;
        let (answered, health) = self.answers[look.min(self.answers.len() - 1)];
        if !answered {
            return Err(Error::new(ErrorKind::Unavailable, "Argo CD", "get", application));
        }
        let source = json!({"repoURL": "https://ghe.example/o/deploy.git", "path": "prod"});
        let destination = json!({"server": "https://kubernetes.default.svc", "namespace": "shop"});
        let app = json!({
            "metadata": {"name": "web"},
            "spec": {"project": "shop", "source": source, "destination": destination},
            "status": {
                "sync": {"status": "Synced", "revision": "b".repeat(40),
                    "comparedTo": {"source": source, "destination": destination}},
                "health": {"status": health},
                "reconciledAt": "2026-08-20T10:00:00Z",
            }
        });
        Ok(serde_json::from_value(app).unwrap())
    }

    async fn refreshed(&self, application: &Application, _: Duration) -> Result<App> {
        self.application(application).await
    }

    async fn sync(&self, _: &Application, _: &SyncRequest) -> Result<App> {
        unreachable!("it is synced")
    }

    async fn sync_windows(&self, _: &Application) -> Result<SyncWindows> {
        unreachable!("it is synced")
    }

    async fn desired_images(&self, _: &Application, _: &CommitSha) -> Result<Vec<String>> {
        unreachable!("no image is expected")
    }

    async fn running_images(&self, _: &Application, _: &BTreeSet<String>) -> Result<Vec<RunningImage>> {
        unreachable!("no image is expected")
    }

    async fn failing_pods(&self, _: &Application) -> Result<Vec<FailingPod>> {
        self.pods_read.fetch_add(1, Ordering::SeqCst);
        Ok(Vec::new())
    }

    fn changes(&self, _: &Application) -> Changes {
        let soon = tokio::time::sleep(Duration::from_millis(500));
        let change = stream::once(soon).map(|()| Ok(Change::default()));
        change.chain(stream::pending()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_could_see_has_not_held() {
    let (policy, settle) = (WaitPolicy::default(), Duration::from_secs(1));
    let server = Looks::new(&[(true, "Healthy"), (false, ""), (true, "Healthy")]);
    let began = tokio::time::Instant::now();
    let report = server.wait(settle, Duration::from_secs(60)).await;
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(500) + policy.first_refresh * 4 / 5 + settle,
        "{took:?}"
    );
    // And the look after the failed one does not wait for the poll.
    assert!(took < policy.poll * 4 / 5, "{took:?}");
    assert_eq!(server.asked.load(Ordering::SeqCst), 4, "looks");
}

#[tokio::test(start_paused = true)]
async fn a_server_is_not_pressed_while_workloads_start() {
    for answers in [
        [(true, "Progressing"), (false, "")],
        [(true, "Missing"), (true, "Missing")],
        [(true, "Suspended"), (false, "")],
    ] {
        let server = Looks::new(&answers);
        let report = server.wait(Duration::ZERO, Duration::from_secs(60)).await;
        assert_eq!(report.outcome, DeliveryOutcome::TimedOut, "{report:?}");
        let looks = server.asked.load(Ordering::SeqCst);
        assert!((3..15).contains(&looks), "{looks} looks in a minute: {answers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pods_are_read_at_growing_pauses_and_not_once_all_is_healthy() {
    let server = Looks::new(&[(true, "Progressing")]);
    server.wait(Duration::ZERO, Duration::from_secs(60)).await;
    let reads = server.pods_read.load(Ordering::SeqCst);
    assert!((3..8).contains(&reads), "{reads} reads in a minute");

    let server = Looks::new(&[(true, "Progressing"), (true, "Healthy")]);
    let report = server.wait(Duration::ZERO, Duration::from_secs(60)).await;
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    assert_eq!(server.pods_read.load(Ordering::SeqCst), 0);
}
