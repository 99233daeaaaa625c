//! `towpath-spacelift` at the lab holds the contract: GitHub tells Spacelift of each push by its webhook, and the
//! workers clone from GitHub and plan with the built-in planner.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hub;

use async_trait::async_trait;
use hub::{Hub, LOGIN, main};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use towpath_core::wait::Policy;
use towpath_core::{CommitSha, RepoSlug, RunId, Secret, StackId};
use towpath_elements::Infrastructure;
use towpath_lab::spacelift::{self as lab, Delays, Planner, SpaceliftConfig, StackSeed};
use towpath_spacelift::{RetryPolicy, Spacelift};
use towpath_testkit::contract::infrastructure::InfrastructureFixture;

struct Fixture {
    lab: lab::Spacelift,
    hub: Hub,
    client: Arc<Spacelift>,
    fail_next: AtomicBool,
}

impl Fixture {
    async fn start() -> Self {
        let hub = Hub::start(&[]).await;
        hub.create(&repository()).await;
        let webhook_secret = Secret::new("secret-of-the-webhook");
        let key = Secret::new("secret-of-the-key");
        let known = SpaceliftConfig {
            api_key_id: "01CONTRACT".into(),
            api_key_secret: key.clone(),
            git_base: Some(hub.lab.server_url().parse().unwrap()),
            git_credentials: Some((LOGIN.into(), hub.lab.token(LOGIN).unwrap())),
            webhook_secret: webhook_secret.clone(),
            stacks: vec![StackSeed::new("shared", repository().to_string()).with_project_root("shared")],
            planner: Planner::BuiltIn,
            delays: Delays {
                pickup: Duration::ZERO,
                phase: Duration::ZERO,
                blocker_release: Duration::from_millis(1),
            },
            ..SpaceliftConfig::default()
        };
        let lab = lab::Spacelift::start(known).await.unwrap();
        let receiver = lab.url().join("webhooks/github").unwrap();
        hub.lab
            .add_hook(&repository(), receiver.as_str(), Some(webhook_secret), &["push"]);
        let quick = RetryPolicy::default().between(Duration::from_millis(1), Duration::from_millis(10));
        let client = Spacelift::with_api_key(lab.url().as_str(), "01CONTRACT", key)
            .unwrap()
            .retry(quick)
            .build()
            .unwrap();
        Self {
            lab,
            hub,
            client: Arc::new(client),
            fail_next: AtomicBool::new(false),
        }
    }
}

fn repository() -> RepoSlug {
    "acme/infra".parse().unwrap()
}

#[async_trait]
impl InfrastructureFixture for Fixture {
    fn infrastructure(&self) -> Arc<dyn Infrastructure> {
        self.client.clone()
    }

    fn stack(&self) -> StackId {
        "shared".parse().unwrap()
    }

    async fn push(&self, addresses: &[&str]) -> CommitSha {
        let block = |address: &&str| {
            let (kind, name) = address.split_once('.').unwrap();
            format!("resource \"{kind}\" \"{name}\" {{\n  input = \"{name}\"\n}}\n")
        };
        let mut code: String = addresses.iter().map(block).collect();
        if self.fail_next.swap(false, Ordering::Relaxed) {
            // What a resource puts out is known after it was applied only, and a string has no attributes.
            let first = addresses[0];
            code += &format!("output \"broken\" {{\n  value = {first}.output.missing\n}}\n");
        }
        self.hub
            .push(&repository(), &main(), &[("shared/main.tf", &code)])
            .await
    }

    async fn quiet_commit(&self) -> CommitSha {
        self.hub
            .push(&repository(), &main(), &[("docs/notes.md", "notes")])
            .await
    }

    async fn replan(&self, run: &RunId) -> bool {
        let runs = self.lab.runs_of("shared");
        let run = runs.iter().find(|known| known.id == run.as_str()).unwrap();
        let first = &run.plan.as_ref().unwrap().changes[0].address;
        self.lab.replan("shared", &run.id, &[first]).unwrap();
        true
    }

    async fn fail_next_apply(&self) {
        self.fail_next.store(true, Ordering::Relaxed);
    }

    async fn applied(&self) -> Vec<String> {
        let applied = self.lab.stack("shared").unwrap().applied;
        applied
            .resources
            .into_iter()
            .map(|resource| resource.address)
            .collect()
    }

    fn policy(&self) -> Policy {
        Policy::every(Duration::from_millis(5)).within(Duration::from_secs(120))
    }
}

mod infrastructure {
    use super::*;
    towpath_testkit::infrastructure_contract!(Fixture::start().await);
}
