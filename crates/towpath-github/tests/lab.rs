//! The contracts of `Source` and `Ci`, clause by clause, against the lab's GitHub Enterprise Server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use axum::body::Bytes;
use axum::http::{HeaderMap, Method};
use futures_util::TryStreamExt;
use std::collections::BTreeMap;
use std::time::Duration;
use towpath_core::wait::Policy;
use towpath_github::ci::{CiState, Conclusion, StartRun};
use towpath_github::source::{Ancestry, Change, Report, ReportState, ReviewState};
use towpath_github::webhook::{Payload, Verifier};
use towpath_github::wire::{
    HookConfig, Merge, MergeMethod, NewPullRequest, NewRepository, NewReview, ReviewEvent,
};
use towpath_github::{
    BranchName, Cancellation, Ci, CiExt, CiRunId, CommitSha, Credential, ErrorKind, GitHub, GitHubConfig,
    RepoSlug, RetryPolicy, RevisionOracle, Secret, Source,
};
use towpath_lab::github as lab;
use towpath_lab::{Fault, github::GitHub as Lab};

/// The lab, a client of it as `mona`, and a repository with one commit.
struct World {
    lab: Lab,
    mona: GitHub,
    slug: RepoSlug,
    main: BranchName,
    first: CommitSha,
}

fn client(lab: &Lab, login: &str) -> GitHub {
    let config = GitHubConfig::new(&lab.api_url())
        .unwrap()
        .with_credential(Credential::Token(lab.token(login).unwrap()))
        .with_retries(
            RetryPolicy::default()
                .attempts(3)
                .between(Duration::from_millis(1), Duration::from_millis(4)),
        );
    GitHub::new(config).unwrap()
}

async fn world() -> World {
    let lab = Lab::start(lab::GitHubConfig::default()).await.unwrap();
    let mona = client(&lab, "mona");
    let new = NewRepository {
        auto_init: true,
        ..NewRepository::named("shop")
    };
    mona.create_repository("acme", &new).await.unwrap();
    let slug: RepoSlug = "acme/shop".parse().unwrap();
    let main: BranchName = "main".parse().unwrap();
    let first = mona.head(&slug, &main).await.unwrap().unwrap();
    World {
        lab,
        mona,
        slug,
        main,
        first,
    }
}

impl World {
    fn change(&self, head: &CommitSha, files: &[(&str, Option<&[u8]>)]) -> Change {
        Change {
            repository: self.slug.clone(),
            branch: self.main.clone(),
            expected_head: head.clone(),
            files: files
                .iter()
                .map(|(path, bytes)| ((*path).to_owned(), bytes.map(<[u8]>::to_vec)))
                .collect(),
            message: "Change\n\nBuild-Id: 7".into(),
        }
    }

    async fn put(&self, head: &CommitSha, files: &[(&str, Option<&[u8]>)]) -> CommitSha {
        self.mona.commit(self.change(head, files)).await.unwrap()
    }

    fn report(&self, state: ReportState, description: &str) -> Report {
        Report {
            repository: self.slug.clone(),
            commit: self.first.clone(),
            context: "towpath/image".into(),
            state,
            description: description.into(),
            url: Some("https://ci.acme.example/7".parse().unwrap()),
        }
    }
}

#[tokio::test]
async fn head_of_a_missing_branch_is_none() {
    let world = world().await;
    let missing = "feature/none".parse().unwrap();
    assert_eq!(world.mona.head(&world.slug, &missing).await.unwrap(), None);
    let error = world
        .mona
        .head(&"acme/none".parse().unwrap(), &world.main)
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    world
        .mona
        .create_repository("acme", &NewRepository::named("empty"))
        .await
        .unwrap();
    assert_eq!(
        world
            .mona
            .head(&"acme/empty".parse().unwrap(), &world.main)
            .await
            .unwrap(),
        None
    );
    let nested = "feature/x".parse().unwrap();
    world
        .mona
        .create_branch(&world.slug, &nested, &world.first)
        .await
        .unwrap();
    assert_eq!(
        world.mona.head(&world.slug, &nested).await.unwrap(),
        Some(world.first.clone())
    );
    assert!(world.mona.meta().await.unwrap().installed_version.is_some());
    assert_eq!(world.mona.user().await.unwrap().login, "mona");
}

#[tokio::test]
async fn a_commit_moves_the_head_from_where_it_was_expected() {
    let world = world().await;
    let binary: &[u8] = &[0, 159, 146, 150, 255];
    let second = world
        .put(
            &world.first,
            &[
                ("a b/ü.yaml", Some("x: 1\n".as_bytes())),
                ("logo.bin", Some(binary)),
                ("gone", Some(b"x")),
            ],
        )
        .await;
    let third = world
        .put(
            &second,
            &[("a b/ü.yaml", Some(b"x: 2\r\n")), ("gone", None), ("never", None)],
        )
        .await;
    assert_eq!(
        world.mona.head(&world.slug, &world.main).await.unwrap(),
        Some(third.clone())
    );
    let commits = world.lab.commits(&world.slug, "main").await.unwrap();
    let names: Vec<&str> = commits.iter().map(|(sha, _)| sha.as_str()).collect();
    assert_eq!(names, [third.as_str(), second.as_str(), world.first.as_str()]);
    for (path, expected) in [
        ("a b/ü.yaml", Some(&b"x: 2\r\n"[..])),
        ("logo.bin", Some(binary)),
        ("gone", None),
    ] {
        let stored = world.lab.file(&world.slug, "main", path).await.unwrap();
        assert_eq!(stored.as_deref(), expected, "{path}");
    }
    assert!(
        world
            .lab
            .file(&world.slug, "main", "README.md")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn a_moved_head_is_a_conflict_and_nothing_is_written() {
    let world = world().await;
    let second = world.put(&world.first, &[("a", Some(b"1"))]).await;
    let error = world
        .mona
        .commit(world.change(&world.first, &[("a", Some(b"2"))]))
        .await
        .unwrap_err();
    assert!(error.is_conflict(), "{error}");
    assert_eq!(
        world.mona.head(&world.slug, &world.main).await.unwrap(),
        Some(second)
    );
    // Two at once: one of them wins, and the other one is told.
    let head = world.mona.head(&world.slug, &world.main).await.unwrap().unwrap();
    let (left, right) = (
        world.change(&head, &[("l", Some(b"l"))]),
        world.change(&head, &[("r", Some(b"r"))]),
    );
    let (left, right) = tokio::join!(world.mona.commit(left), world.mona.commit(right));
    let won = [&left, &right].iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1, "{left:?} {right:?}");
    assert!(
        [left, right]
            .into_iter()
            .filter_map(Result::err)
            .all(|error| error.is_conflict())
    );
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_and_not_repeated() {
    let world = world().await;
    let refs = Fault::lose_answer("/git/refs/heads/main").method(Method::PATCH);
    world.lab.faults().inject(refs.times(3));
    let second = world.put(&world.first, &[("a", Some(b"1"))]).await;
    assert_eq!(
        world.lab.commits(&world.slug, "main").await.unwrap()[0].0,
        second.as_str()
    );
    world.lab.faults().clear();
    world
        .lab
        .faults()
        .inject(Fault::lose_answer("/statuses/").method(Method::POST));
    world
        .mona
        .report(world.report(ReportState::Success, "good"))
        .await
        .unwrap();
    assert_eq!(world.lab.statuses(&world.slug, world.first.as_str()).len(), 1);
}

#[tokio::test]
async fn a_guarded_branch_is_denied() {
    let world = world().await;
    let rules = lab::Protection {
        required_approvals: 1,
        ..lab::Protection::default()
    };
    world.lab.protect(&world.slug, "main", rules).await.unwrap();
    let error = world
        .mona
        .commit(world.change(&world.first, &[("a", Some(b"1"))]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn a_file_is_read_at_its_commit() {
    let world = world().await;
    let second = world.put(&world.first, &[("dir/a", Some(b"1\r\n\0"))]).await;
    let third = world.put(&second, &[("dir/a", Some(b"2"))]).await;
    let file = async |commit: &CommitSha, path: &str| world.mona.file(&world.slug, commit, path).await;
    assert_eq!(file(&second, "dir/a").await.unwrap(), Some(b"1\r\n\0".to_vec()));
    assert_eq!(file(&third, "dir/a").await.unwrap(), Some(b"2".to_vec()));
    assert_eq!(file(&world.first, "dir/a").await.unwrap(), None);
    assert_eq!(file(&third, "dir").await.unwrap(), None);
    let unknown = "1".repeat(40).parse().unwrap();
    assert!(file(&unknown, "dir/a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn ancestry_is_told_from_history() {
    let world = world().await;
    let second = world.put(&world.first, &[("a", Some(b"1"))]).await;
    let side: BranchName = "side".parse().unwrap();
    world
        .mona
        .create_branch(&world.slug, &side, &world.first)
        .await
        .unwrap();
    let other = world.mona.commit(Change {
        branch: side,
        ..world.change(&world.first, &[("b", Some(b"1"))])
    });
    let other = other.await.unwrap();
    for (base, head, expected) in [
        (&world.first, &world.first, Ancestry::Identical),
        (&world.first, &second, Ancestry::Ahead),
        (&second, &world.first, Ancestry::Behind),
        (&second, &other, Ancestry::Diverged),
    ] {
        assert_eq!(
            world.mona.ancestry(&world.slug, base, head).await.unwrap(),
            expected
        );
    }
    let url = world.lab.git_url(&world.slug);
    assert!(world.mona.contains(&url, &second, &world.first).await.unwrap());
    assert!(!world.mona.contains(&url, &other, &second).await.unwrap());
}

#[tokio::test]
async fn a_report_replaces_the_one_before() {
    let world = world().await;
    world
        .mona
        .report(world.report(ReportState::Pending, "building"))
        .await
        .unwrap();
    world
        .mona
        .report(world.report(ReportState::Success, &"ü".repeat(300)))
        .await
        .unwrap();
    world
        .mona
        .report(world.report(ReportState::Success, &"ü".repeat(300)))
        .await
        .unwrap();
    assert_eq!(
        world.lab.statuses(&world.slug, world.first.as_str()).len(),
        2,
        "the same one was not written again"
    );
    let reports = world.mona.reports(&world.slug, &world.first).await.unwrap();
    assert_eq!((reports.len(), reports[0].state), (1, ReportState::Success));
    assert_eq!(reports[0].description.chars().count(), 140);
    let unknown = Report {
        commit: "1".repeat(40).parse().unwrap(),
        ..world.report(ReportState::Success, "x")
    };
    assert!(world.mona.report(unknown).await.unwrap_err().is_not_found());
    let verdicts = world.mona.verdicts(&world.slug, &world.first).await.unwrap();
    assert_eq!((verdicts.len(), verdicts[0].passed), (1, Some(true)));
}

#[tokio::test]
async fn a_review_names_who_approved_what() {
    let world = world().await;
    let hubot = client(&world.lab, "hubot");
    let branch: BranchName = "feature/x".parse().unwrap();
    world
        .mona
        .create_branch(&world.slug, &branch, &world.first)
        .await
        .unwrap();
    let change = Change {
        branch: branch.clone(),
        ..world.change(&world.first, &[("a", Some(b"1"))])
    };
    let head = world.mona.commit(change).await.unwrap();
    let new = NewPullRequest {
        title: "X".into(),
        body: None,
        head: branch.to_string(),
        base: "main".into(),
    };
    let pull = world.mona.create_pull_request(&world.slug, &new).await.unwrap();
    assert!(
        world
            .mona
            .create_pull_request(&world.slug, &new)
            .await
            .unwrap_err()
            .is_conflict()
    );
    let says = |event, body: Option<&str>| NewReview {
        event,
        body: body.map(Into::into),
        commit_id: None,
    };
    hubot
        .create_review(
            &world.slug,
            pull.number,
            &says(ReviewEvent::RequestChanges, Some("no")),
        )
        .await
        .unwrap();
    hubot
        .create_review(&world.slug, pull.number, &says(ReviewEvent::Approve, None))
        .await
        .unwrap();
    hubot
        .create_review(
            &world.slug,
            pull.number,
            &says(ReviewEvent::Comment, Some("nice")),
        )
        .await
        .unwrap();
    assert!(
        world
            .mona
            .review(&world.slug, &head)
            .await
            .unwrap()
            .pull_requests
            .is_empty(),
        "not merged yet"
    );

    let stale = Merge {
        sha: world.first.clone(),
        merge_method: MergeMethod::Squash,
        commit_title: None,
    };
    assert!(
        world
            .mona
            .merge_pull_request(&world.slug, pull.number, &stale)
            .await
            .unwrap_err()
            .is_conflict()
    );
    let merge = Merge {
        sha: head.clone(),
        ..stale
    };
    let merged = world
        .mona
        .merge_pull_request(&world.slug, pull.number, &merge)
        .await
        .unwrap();
    let review = world.mona.review(&world.slug, &merged.sha).await.unwrap();
    assert_eq!(review.pull_requests.len(), 1);
    let found = &review.pull_requests[0];
    assert_eq!(
        (found.number, found.author.as_str(), &found.head),
        (pull.number, "mona", &head)
    );
    assert_eq!(found.approvers(), ["hubot"]);
    assert_eq!(found.verdicts.len(), 1);
    assert_eq!(
        (&found.verdicts[0].state, &found.verdicts[0].commit),
        (&ReviewState::Approved, &Some(head))
    );
    let unknown = "1".repeat(40).parse().unwrap();
    assert!(
        world
            .mona
            .review(&world.slug, &unknown)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn history_is_newest_first() {
    let world = world().await;
    let mut head = world.first.clone();
    for n in 0..4u8 {
        let path = if n % 2 == 0 { "even" } else { "odd" };
        head = world.put(&head, &[(path, Some(&[b'0' + n]))]).await;
    }
    let all: Vec<_> = world
        .mona
        .history(&world.slug, &world.main, None)
        .try_collect()
        .await
        .unwrap();
    assert_eq!((all.len(), &all[0].sha, &all[4].sha), (5, &head, &world.first));
    assert_eq!(all[0].trailer("Build-Id"), Some("7"));
    let even: Vec<_> = world
        .mona
        .history(&world.slug, &world.main, Some("even".into()))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(even.len(), 2);
}

const WORKFLOW: &[u8] = br#"
name: CI
on:
  push: {branches: [main]}
  workflow_dispatch: {inputs: {word: {required: false, default: nothing}}}
jobs:
  build:
    runs-on: self-hosted
    steps:
      - uses: actions/checkout@v4
      - name: speak
        run: echo one && echo two
      - name: judge
        run: test ! -e broken
"#;

#[tokio::test]
async fn ci_keeps_its_contract() {
    let world = world().await;
    let policy = Policy::every(Duration::from_millis(20)).within(Duration::from_secs(60));
    let wait = async |commit: &CommitSha| {
        world
            .mona
            .wait_for_commit(&world.slug, commit, Some("CI"), &policy, &Cancellation::new())
            .await
    };
    assert!(
        world
            .mona
            .runs(&world.slug, &world.first)
            .await
            .unwrap()
            .is_empty()
    );
    let good = world
        .put(&world.first, &[(".github/workflows/ci.yml", Some(WORKFLOW))])
        .await;
    let run = wait(&good).await.unwrap();
    assert_eq!(
        (run.state, run.event.as_str(), run.attempt),
        (CiState::Completed(Conclusion::Success), "push", 1)
    );
    let jobs = world.mona.jobs(&world.slug, run.id).await.unwrap();
    assert_eq!((jobs.len(), &jobs[0].failed_step), (1, &None));
    assert!(
        world
            .mona
            .log(&world.slug, jobs[0].id, 100)
            .await
            .unwrap()
            .contains("two")
    );

    let bad = world.put(&good, &[("broken", Some(b""))]).await;
    let failed = wait(&bad).await.unwrap();
    assert_eq!(failed.state, CiState::Completed(Conclusion::Failure));
    let jobs = world.mona.jobs(&world.slug, failed.id).await.unwrap();
    assert_eq!(jobs[0].failed_step.as_deref(), Some("judge"));
    let runs = world.mona.runs(&world.slug, &bad).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.id).collect::<Vec<_>>(), [failed.id]);

    let missing = CiRunId(u64::from(u32::MAX));
    assert!(
        world
            .mona
            .run(&world.slug, missing)
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(
        world
            .mona
            .jobs(&world.slug, missing)
            .await
            .unwrap_err()
            .is_not_found()
    );

    world.mona.rerun(&world.slug, failed.id).await.unwrap();
    assert_eq!(world.mona.run(&world.slug, failed.id).await.unwrap().attempt, 2);
    wait(&bad).await.unwrap();

    let start = StartRun {
        repository: world.slug.clone(),
        workflow: "ci.yml".into(),
        branch: world.main.clone(),
        inputs: BTreeMap::from([("word".to_owned(), "hello".to_owned())]),
    };
    let started = world.mona.start(start).await.unwrap();
    assert_eq!(
        world.mona.run(&world.slug, started).await.unwrap().event,
        "workflow_dispatch"
    );
}

#[tokio::test]
async fn a_webhook_of_the_server_passes_the_verifier() {
    let world = world().await;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
        let sender = sender.clone();
        async move { sender.send((headers, body)).unwrap() }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let config = HookConfig::new(url.parse().unwrap(), Secret::new("s3cret"));
    let hook = world
        .mona
        .create_hook(&world.slug, &config, &["push"])
        .await
        .unwrap();
    let second = world.put(&world.first, &[("a", Some(b"1"))]).await;
    let verifier = Verifier::new([Secret::new("the next one"), Secret::new("s3cret")]);
    let push = loop {
        let (headers, body) = receiver.recv().await.unwrap();
        let delivery = verifier.receive(&headers, &body).unwrap();
        assert!(
            Verifier::new([Secret::new("other")])
                .receive(&headers, &body)
                .is_err()
        );
        if let Payload::Push(push) = delivery.event.payload {
            assert_eq!(delivery.hook, Some(hook.id));
            break push;
        }
    };
    assert_eq!(
        (push.branch(), push.after.as_ref()),
        (Some("main"), Some(&second))
    );
    assert_eq!(world.mona.hooks(&world.slug).await.unwrap().len(), 1);
    let deliveries: Vec<_> = world
        .mona
        .hook_deliveries(&world.slug, hook.id)
        .try_collect()
        .await
        .unwrap();
    assert!(
        deliveries.iter().any(|delivery| delivery.event == "push"),
        "{deliveries:?}"
    );
}

#[tokio::test]
async fn a_wrong_token_is_told_from_a_missing_right() {
    let world = world().await;
    let config = GitHubConfig::new(&world.lab.api_url())
        .unwrap()
        .with_credential(Credential::Token(Secret::new("ghp_canary")));
    let stranger = GitHub::new(config).unwrap();
    let error = stranger.head(&world.slug, &world.main).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(!format!("{error:?} {stranger:?}").contains("canary"));
}
