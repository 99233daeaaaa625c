//! `towpath-github` at the lab holds the contracts: of the source, and of CI by the runner of the lab's Actions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hub;

use async_trait::async_trait;
use hub::{Hub, client, main, push};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use towpath_core::wait::Policy;
use towpath_core::{BranchName, CommitSha, RepoSlug};
use towpath_elements::{Ci, Source};
use towpath_github::GitHub;
use towpath_github::wire::{Merge, MergeMethod, NewPullRequest, NewReview, ReviewEvent};
use towpath_testkit::contract::ci::CiFixture;
use towpath_testkit::contract::source::{MergedPullRequest, SourceFixture};

struct SourceHub {
    hub: Hub,
    client: Arc<GitHub>,
    made: AtomicU32,
}

impl SourceHub {
    async fn start() -> Self {
        let hub = Hub::start(&["ann", "bob", "cy", "di", "ed"]).await;
        Self {
            client: Arc::new(hub.client.clone()),
            hub,
            made: AtomicU32::new(0),
        }
    }

    async fn says(&self, repository: &RepoSlug, number: u64, who: &str, event: ReviewEvent) {
        let review = NewReview {
            event,
            body: Some("I have read it".into()),
            commit_id: None,
        };
        let client = client(&self.hub.lab, who);
        client.create_review(repository, number, &review).await.unwrap();
    }
}

#[async_trait]
impl SourceFixture for SourceHub {
    fn source(&self) -> Arc<dyn Source> {
        self.client.clone()
    }

    async fn repository(&self) -> RepoSlug {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let slug = format!("acme/shop-{number}").parse().unwrap();
        self.hub.create(&slug).await;
        slug
    }

    async fn branch_off(&self, repository: &RepoSlug, branch: &BranchName, at: &CommitSha) {
        self.client.create_branch(repository, branch, at).await.unwrap();
    }

    async fn merged_pull_request(&self, repository: &RepoSlug) -> MergedPullRequest {
        let branch: BranchName = "feature".parse().unwrap();
        let head = self.client.head(repository, &main()).await.unwrap().unwrap();
        self.branch_off(repository, &branch, &head).await;
        let ann = client(&self.hub.lab, "ann");
        push(&ann, repository, &branch, &[("src/lib.rs", "//! First\n")]).await;
        let new = NewPullRequest {
            title: "A feature".into(),
            body: None,
            head: branch.to_string(),
            base: main().to_string(),
        };
        let number = ann.create_pull_request(repository, &new).await.unwrap().number;
        self.says(repository, number, "cy", ReviewEvent::Approve).await;
        let last = push(&ann, repository, &branch, &[("src/lib.rs", "//! Last\n")]).await;
        for (who, event) in [
            ("bob", ReviewEvent::Approve),
            ("di", ReviewEvent::Approve),
            ("di", ReviewEvent::RequestChanges),
            ("ed", ReviewEvent::Comment),
        ] {
            self.says(repository, number, who, event).await;
        }
        let merge = Merge {
            sha: last,
            merge_method: MergeMethod::Merge,
            commit_title: None,
        };
        let merged = self.client.merge_pull_request(repository, number, &merge);
        MergedPullRequest {
            commit: merged.await.unwrap().sha,
            author: "ann".into(),
            approved_by: "bob".into(),
            approved_too_early: "cy".into(),
            changed_their_mind: "di".into(),
            commented: "ed".into(),
        }
    }
}

mod source {
    use super::*;
    towpath_testkit::source_contract!(SourceHub::start().await);
}

const WORKFLOW: &str = "
name: CI
on:
  push: {branches: [main]}
jobs:
  build:
    runs-on: self-hosted
    steps:
      - uses: actions/checkout@v4
      - run: grep -q good verdict
";

struct CiHub {
    hub: Hub,
    client: Arc<GitHub>,
    made: AtomicU32,
}

impl CiHub {
    async fn start() -> Self {
        let hub = Hub::start(&[]).await;
        hub.create(&slug()).await;
        Self {
            client: Arc::new(hub.client.clone()),
            hub,
            made: AtomicU32::new(0),
        }
    }
}

fn slug() -> RepoSlug {
    "acme/shop".parse().unwrap()
}

#[async_trait]
impl CiFixture for CiHub {
    fn ci(&self) -> Arc<dyn Ci> {
        self.client.clone()
    }

    fn repository(&self) -> RepoSlug {
        slug()
    }

    async fn push(&self, ends_well: bool) -> CommitSha {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let verdict = format!("{} {number}", if ends_well { "good" } else { "bad" });
        let files = [(".github/workflows/ci.yml", WORKFLOW), ("verdict", &verdict)];
        self.hub.push(&slug(), &main(), &files).await
    }

    async fn quiet_commit(&self) -> CommitSha {
        let side: BranchName = "side".parse().unwrap();
        let head = self.client.head(&slug(), &main()).await.unwrap().unwrap();
        self.client.create_branch(&slug(), &side, &head).await.unwrap();
        self.hub.push(&slug(), &side, &[("aside", "aside")]).await
    }

    fn policy(&self) -> Policy {
        Policy::every(Duration::from_millis(5)).within(Duration::from_secs(120))
    }
}

mod ci {
    use super::*;
    towpath_testkit::ci_contract!(CiHub::start().await);
}
