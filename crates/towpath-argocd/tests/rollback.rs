//! Rollback by the service, with automatic sync paused, at the lab's Argo CD.
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
use serde_json::{Value, json};
use std::time::Duration;
use towpath_argocd::{
    ApiError, ArgoCd, CommitSha, DeliveryOutcome, ErrorKind, ImageRef, PausedAutoSync, Refresh,
};
use towpath_core::requests;
use towpath_lab::Fault;
use towpath_lab::argocd::ArgoCdConfig;

const SOON: Duration = Duration::from_secs(20);

/// An application that syncs itself by this policy, live at the second of two images.
struct Twice {
    world: World,
    client: ArgoCd,
    images: [ImageRef; 2],
    newest: CommitSha,
}

impl Twice {
    async fn deployed(automated: Value, change: impl FnOnce(&mut ArgoCdConfig)) -> Self {
        let (world, first, _) = World::start_with(change).await.deploy(true).await;
        let client = world.client();
        // Not merged into the policy that is there, but put in its place.
        let steps = json!([{"op": "replace", "path": "/spec/syncPolicy/automated", "value": automated}]);
        client.json_patch(&app(), &steps).await.unwrap();
        let second = world.image("two");
        let newest = world.commit(&second);
        let report = world.wait(&newest, &second).await;
        assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
        Self {
            world,
            client,
            images: [first, second],
            newest,
        }
    }

    /// The entry of the history with this place, oldest first.
    async fn entry(&self, place: usize) -> i64 {
        let seen = self.client.application(&app()).await.unwrap();
        seen.status.history[place].id
    }

    /// The policy as the service itself has it.
    fn policy(&self) -> Value {
        let application = self.world.lab.application("web").unwrap();
        application["spec"]["syncPolicy"].clone()
    }

    fn annotation(&self) -> Option<String> {
        let application = self.world.lab.application("web").unwrap();
        let text = application["metadata"]["annotations"][PausedAutoSync::ANNOTATION].as_str()?;
        Some(text.to_owned())
    }

    /// Waits until the last operation has ended well.
    async fn ended(&self) {
        for _ in 0..2000 {
            let seen = self.client.application(&app()).await.unwrap();
            let phase = seen.status.operation_state.map(|state| state.phase);
            if seen.operation.is_none()
                && let Some(phase) = phase
            {
                assert_eq!(phase.to_string(), "Succeeded");
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the operation never ends")
    }

    /// Waits until the cluster runs nothing but this image.
    async fn runs(&self, image: &ImageRef) {
        for _ in 0..2000 {
            let running = self.world.lab.cluster().running();
            if !running.is_empty()
                && running
                    .iter()
                    .all(|one| Some(&one.image_digest) == image.digest())
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{image} never runs alone")
    }

    /// Whatever makes the application look again: it stays at this image.
    async fn stays(&self, image: &ImageRef) {
        for refresh in [Refresh::Normal, Refresh::Hard, Refresh::Normal] {
            let seen = self.client.refreshed(&app(), refresh, SOON).await.unwrap();
            assert!(seen.operation.is_none(), "{:?}", seen.operation);
            assert_eq!(seen.status.sync.status.to_string(), "OutOfSync");
            // Longer than the lab's self-heal waits.
            self.world.lab.advance(Duration::from_secs(30));
        }
        self.world.assert_runs(image);
    }

    async fn comes_back(&self) {
        let report = self.world.wait(&self.newest, &self.images[1]).await;
        assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    }
}

#[tokio::test]
async fn a_rollback_stays_until_it_is_resumed() {
    let former = json!({"prune": true, "selfHeal": true, "allowEmpty": true});
    let twice = Twice::deployed(former.clone(), |_| {}).await;
    let [first, second] = &twice.images;
    let policy = twice.policy();
    assert_eq!(policy["automated"], former);
    let id = twice.entry(0).await;
    twice.client.capabilities().await.unwrap();
    let here = app();
    let asked = twice
        .client
        .roll_back_and_pause(&here, id, false, "orders are\ncharged twice");
    let (asked, sent) = requests::count(asked).await;
    assert!(asked.unwrap().operation.is_some());
    assert_eq!(sent, 3, "one look, the pause, the rollback");
    twice.ended().await;
    twice.runs(first).await;
    assert_eq!(
        twice.policy()["automated"],
        json!({"prune": true, "selfHeal": true, "allowEmpty": true, "enabled": false})
    );
    let seen = twice.client.application(&app()).await.unwrap();
    let kept = PausedAutoSync::of(&seen).unwrap().unwrap();
    assert_eq!(kept.reason, "orders are\ncharged twice");
    assert_eq!(serde_json::to_value(&kept.automated).unwrap(), former);
    twice.stays(first).await;

    twice.client.resume_auto_sync(&app()).await.unwrap();
    assert_eq!((twice.policy(), twice.annotation()), (policy.clone(), None));
    twice.comes_back().await;
    twice.runs(second).await;

    let patches = twice.world.lab.requests().count(&Method::PATCH, "");
    twice.client.resume_auto_sync(&app()).await.unwrap();
    assert_eq!(twice.world.lab.requests().count(&Method::PATCH, ""), patches);
    assert_eq!(twice.policy(), policy);
}

#[tokio::test]
async fn a_refusal_leaves_the_policy_as_it_was() {
    let twice = Twice::deployed(json!({"prune": true, "enabled": true}), |_| {}).await;
    let (policy, id) = (twice.policy(), twice.entry(0).await);
    let error = twice
        .client
        .roll_back_and_pause(&app(), 4711, false, "bad")
        .await
        .unwrap_err();
    assert!(
        error.is_not_found() && ApiError::of(&error).is_some_and(ApiError::is_unknown_deployment),
        "{error}"
    );
    assert_eq!((twice.policy(), twice.annotation()), (policy.clone(), None));

    twice.world.lab.knobs().set(|knobs| knobs.operation_conflict = 1);
    let error = twice
        .client
        .roll_back_and_pause(&app(), id, false, "bad")
        .await
        .unwrap_err();
    assert!(
        error.is_conflict() && ApiError::of(&error).is_some_and(ApiError::is_operation_in_progress),
        "{error}"
    );
    assert_eq!((twice.policy(), twice.annotation()), (policy.clone(), None));

    let here = app();
    let nameless = twice.client.roll_back_and_pause(&here, id, false, " ");
    let (error, sent) = requests::count(nameless).await;
    assert_eq!((error.unwrap_err().kind(), sent), (ErrorKind::Invalid, 0));
}

#[tokio::test]
async fn a_lost_answer_leaves_it_paused_and_says_so() {
    let twice = Twice::deployed(json!({"prune": true}), |_| {}).await;
    let (policy, id) = (twice.policy(), twice.entry(0).await);
    let lost = Fault::lose_answer("/rollback").method(Method::POST);
    twice.world.lab.faults().inject(lost);
    let error = twice
        .client
        .roll_back_and_pause(&app(), id, false, "bad")
        .await
        .unwrap_err();
    assert!(
        error.is_unavailable() && error.advice().unwrap().contains("stays paused"),
        "{error}"
    );
    twice.ended().await;
    twice.runs(&twice.images[0]).await;
    twice.stays(&twice.images[0]).await;
    twice.client.resume_auto_sync(&app()).await.unwrap();
    assert_eq!((twice.policy(), twice.annotation()), (policy, None));
}

#[tokio::test]
async fn a_second_pause_keeps_the_first_policy() {
    let twice = Twice::deployed(json!({"selfHeal": true}), |_| {}).await;
    let policy = twice.policy();
    for (place, reason) in [(0, "first"), (1, "second")] {
        let id = twice.entry(place).await;
        twice
            .client
            .roll_back_and_pause(&app(), id, false, reason)
            .await
            .unwrap();
        twice.ended().await;
        twice.runs(&twice.images[place]).await;
        let kept: Value = serde_json::from_str(&twice.annotation().unwrap()).unwrap();
        assert_eq!(kept, json!({"reason": "first", "automated": {"selfHeal": true}}));
    }
    // A refusal does not end a pause that another call began.
    let refused = twice
        .client
        .roll_back_and_pause(&app(), 4711, false, "third")
        .await;
    assert!(refused.unwrap_err().is_not_found());
    assert!(twice.annotation().is_some());
    twice.client.resume_auto_sync(&app()).await.unwrap();
    assert_eq!((twice.policy(), twice.annotation()), (policy, None));
}

#[tokio::test]
async fn a_server_without_the_switch_loses_and_regains_the_whole_policy() {
    let former = json!({"prune": true, "selfHeal": true, "allowEmpty": true});
    let older = |config: &mut ArgoCdConfig| config.version = "v3.0.9+lab".into();
    let twice = Twice::deployed(former.clone(), older).await;
    let id = twice.entry(0).await;
    twice
        .client
        .roll_back_and_pause(&app(), id, true, "bad")
        .await
        .unwrap();
    twice.ended().await;
    twice.runs(&twice.images[0]).await;
    assert_eq!(twice.policy().get("automated"), None);
    twice.stays(&twice.images[0]).await;
    twice.client.resume_auto_sync(&app()).await.unwrap();
    assert_eq!(
        (&twice.policy()["automated"], twice.annotation()),
        (&former, None)
    );
    twice.comes_back().await;
}

#[tokio::test]
async fn what_does_not_sync_itself_is_only_rolled_back() {
    let (world, ..) = World::deployed(false).await;
    let client = world.client();
    let id = client.application(&app()).await.unwrap().status.history[0].id;
    let here = app();
    let (asked, sent) = requests::count(client.roll_back_and_pause(&here, id, false, "bad")).await;
    assert!(asked.unwrap().operation.is_some());
    assert_eq!(sent, 2);
    let kept = client.resume_auto_sync(&app()).await.unwrap();
    assert_eq!(PausedAutoSync::of(&kept).unwrap(), None);
    assert_eq!(world.lab.requests().count(&Method::PATCH, ""), 0);

    // An annotation of somebody else's is not guessed at.
    let odd = json!({"metadata": {"annotations": {(PausedAutoSync::ANNOTATION): "yes"}}});
    client.patch(&app(), &odd).await.unwrap();
    let error = client.resume_auto_sync(&app()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains(PausedAutoSync::ANNOTATION),
        "{error}"
    );
}

#[tokio::test]
async fn a_wait_does_not_undo_a_rollback() {
    let twice = Twice::deployed(json!({"prune": true}), |_| {}).await;
    let first = twice.entry(0).await;
    let reason = "orders are charged twice";
    let app = app();
    let rolled_back = twice.client.roll_back_and_pause(&app, first, false, reason);
    rolled_back.await.unwrap();
    twice.ended().await;
    let report = twice.world.wait(&twice.newest, &twice.images[1]).await;
    assert_eq!(report.outcome, DeliveryOutcome::AutoSyncOff, "{report:?}");
    assert!(report.reason.contains(reason), "{}", report.reason);
    assert!(report.reason.contains("resume it"), "{}", report.reason);

    twice.client.resume_auto_sync(&app).await.unwrap();
    let report = twice.world.wait(&twice.newest, &twice.images[1]).await;
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
}
