//! What anybody sees on the wire, and how a test waits for it.

use crate::lab_world::{World, app, expected};
use reqwest::Method;
use serde_json::Value;
use std::time::Duration;
use towpath_argocd::{ArgoCd, CommitSha, DeliveryOutcome, Expected, ImageRef, Trigger, wire};
use towpath_core::Cancellation;
use towpath_elements::Delivery;

/// A time of the lab's clock that nothing waits for in earnest.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// Less than any rollout's deadline, and more than a machine takes for anything.
pub(crate) const SOME_MINUTES: Duration = Duration::from_secs(300);

/// Asks until there is an answer, for at most two minutes.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}")
}

impl World {
    pub(crate) async fn get(&self, path: &str) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(format!("{}{path}", self.lab.url()));
        let request = request.bearer_auth(self.lab.token().expose());
        request.send().await.unwrap().json().await.unwrap()
    }

    /// The application as a GET shows it.
    pub(crate) async fn seen(&self) -> Value {
        self.get("/api/v1/applications/web?project=default").await
    }

    /// The application as soon as it is so.
    pub(crate) async fn until(&self, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || Some(self.seen().await).filter(&reached)).await
    }

    /// The cluster runs this image and no other.
    pub(crate) async fn until_runs(&self, image: &ImageRef) {
        let digest = image.digest().unwrap();
        eventually("the cluster to run it", async || {
            let running = self.lab.cluster().running();
            (running.len() == 2 && running.iter().all(|one| one.image_digest == *digest)).then_some(())
        })
        .await;
    }

    /// A poll of the controller brings this image, and another one compares in a later second.
    pub(crate) async fn two_polls(&self, image: &ImageRef) {
        self.lab.advance(SOME_MINUTES);
        self.until_runs(image).await;
        self.until("the operation to end", |app| app.get("operation").is_none())
            .await;
        self.lab.advance(SOME_MINUTES);
    }

    /// A wait at this application does not say *live*, and says what it waits for. However slow the machine is, it gets
    /// the time to find out.
    pub(crate) async fn assert_waits_for(&self, client: &ArgoCd, expected: &Expected, what: &str) {
        let mut last = String::new();
        for within in [300, 1_000, 5_000, 20_000] {
            let short = Expected {
                within: Duration::from_millis(within),
                ..expected.clone()
            };
            let report = client.wait(short, &Cancellation::new()).await.unwrap();
            assert_eq!(report.outcome, DeliveryOutcome::TimedOut, "{report:?}");
            last = report.reason;
            if last.contains(what) {
                return;
            }
        }
        panic!("it waits for something else than {what:?}: {last}")
    }

    /// A client whose waits only look.
    pub(crate) fn onlooker(&self) -> ArgoCd {
        self.client_with(|policy| policy.trigger = Trigger::Nothing)
    }

    /// Asks for a refresh that stays held, and gives back what answers it.
    pub(crate) async fn held_refresh(&self) -> tokio::task::JoinHandle<wire::App> {
        self.lab.knobs().set(|knobs| knobs.hold_comparisons = true);
        let client = self.client();
        let refresh = tokio::spawn(async move {
            let how = towpath_argocd::Refresh::Normal;
            client
                .refreshed(&app(), how, Duration::from_secs(120))
                .await
                .unwrap()
        });
        eventually("a held comparison", async || {
            (self.lab.held_comparisons() > 0).then_some(())
        })
        .await;
        refresh
    }

    /// It is live in the end.
    pub(crate) async fn assert_live(&self, commit: &CommitSha, image: &ImageRef) {
        let report = self.wait(commit, image).await;
        assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
    }

    pub(crate) fn syncs_asked(&self) -> usize {
        self.lab.requests().count(&Method::POST, "/sync")
    }

    /// Whoever looks at these two only takes the application for deployed.
    pub(crate) fn assert_looks_good_at(&self, app: &Value, revision: &CommitSha) {
        let status = &app["status"];
        assert_eq!(status["sync"]["revision"], revision.as_str(), "{app:#}");
        assert_eq!(
            (&status["sync"]["status"], &status["health"]["status"]),
            (&"Synced".into(), &"Healthy".into()),
            "{app:#}"
        );
    }
}

/// The same without looking at images.
pub(crate) fn expected_commit(commit: &CommitSha, image: &ImageRef) -> Expected {
    Expected {
        images: Vec::new(),
        ..expected(commit, image)
    }
}
