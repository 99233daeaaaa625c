//! The contract of `Infrastructure`, clause by clause, and the client's own promises, against the lab's Spacelift with a
//! real git repository and its built-in planner.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod world;

use futures_util::TryStreamExt;
use std::time::Duration;
use towpath_core::wait::Policy;
use towpath_core::{Cancellation, RunId, Secret, StackId};
use towpath_lab::Fault;
use towpath_lab::spacelift::RunState as LabState;
use towpath_spacelift::{ErrorKind, Infrastructure, InfrastructureExt, RunRequest, RunState, StackSearch};
use world::{World, policy};

#[tokio::test]
async fn a_commit_without_a_run_is_none() {
    let world = World::start().await;
    let (stack, commit) = (world.stack(), world.commit());
    assert_eq!(world.client.find_run(&stack, &commit).await.unwrap(), None);
    // More runs than one page holds, of another commit, and two of this one.
    let other = world.push("terraform_data.other");
    let first = world.client.trigger(&stack, &commit).await.unwrap();
    let newest = world.client.trigger(&stack, &commit).await.unwrap();
    for _ in 0..4 {
        world.client.trigger(&stack, &other).await.unwrap();
    }
    let found = world.client.find_run(&stack, &commit).await.unwrap().unwrap();
    assert_eq!((found.id, found.commit), (newest.id.clone(), Some(commit)));
    assert_ne!(newest.id, first.id);
    assert_eq!(
        world
            .client
            .list_runs(&stack)
            .try_collect::<Vec<_>>()
            .await
            .unwrap()
            .len(),
        6
    );
}

#[tokio::test]
async fn a_plan_is_what_the_run_would_do() {
    let world = World::start().await;
    world.lab.pause_workers("shared-services", true);
    let run = world
        .client
        .trigger(&world.stack(), &world.commit())
        .await
        .unwrap();
    let early = world.client.plan(&world.stack(), &run.id).await.unwrap_err();
    assert!(early.is_conflict(), "{early}");
    world.lab.pause_workers("shared-services", false);
    let run = world.decided(&run.id).await;
    assert_eq!(
        (run.state, run.counts.map(|counts| counts.add)),
        (RunState::Unconfirmed, Some(1))
    );
    assert_eq!(run.note.as_deref(), Some("Autodeploy is off"));
    let plan = world.client.plan(&world.stack(), &run.id).await.unwrap();
    assert_eq!(plan.commit, world.commit());
    let changes: Vec<_> = plan
        .changes
        .iter()
        .map(|c| (c.address.as_str(), c.action.as_str()))
        .collect();
    assert_eq!(changes, [("terraform_data.network", "add")]);
}

#[tokio::test]
async fn equal_plans_have_equal_digests() {
    let world = World::start().await;
    let run = world.planned().await;
    let plan = world.client.plan(&world.stack(), &run).await.unwrap();
    assert_eq!(
        plan.digest(),
        world.client.plan(&world.stack(), &run).await.unwrap().digest()
    );
}

#[tokio::test]
async fn only_what_was_seen_is_confirmed() {
    let world = World::start().await;
    let (stack, run) = (world.stack(), world.planned().await);
    let seen = world.seen(&run).await;
    let mut other = seen.clone();
    other.plan = towpath_core::Digest::sha256_of("another plan");
    let error = world.client.confirm(other).await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("not the one that was seen"),
        "{error}"
    );
    let mut other = seen.clone();
    other.commit = world.push("terraform_data.third");
    assert!(world.client.confirm(other).await.unwrap_err().is_conflict());
    assert_eq!(world.lab.runs()[0].state(), LabState::Unconfirmed);
    // And a run that does not wait.
    world.client.discard(&stack, &run, "").await.unwrap();
    let error = world.client.confirm(seen).await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("discarded"),
        "{error}"
    );
}

#[tokio::test]
async fn a_plan_that_was_made_anew_is_not_confirmed() {
    let world = World::start().await;
    let one = |name: &str| format!("resource \"terraform_data\" \"{name}\" {{\n  input = \"x\"\n}}\n");
    let two = world.push_text(&format!("{}{}", one("a"), one("b")));
    let run = world.client.trigger(&world.stack(), &two).await.unwrap().id;
    world.decided(&run).await;
    let seen = world.seen(&run).await;
    world
        .lab
        .replan("shared", run.as_str(), &["terraform_data.a"])
        .unwrap();
    world.decided(&run).await;
    let error = world.client.confirm(seen).await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("1 to add"),
        "{error}"
    );
    assert_eq!(world.lab.runs_of("shared")[0].state(), LabState::Unconfirmed);
}

#[tokio::test]
async fn a_missing_approval_is_named() {
    let world = World::with(|stack| stack.approval = true).await;
    let run = world.planned().await;
    let seen = world.seen(&run).await;
    let error = world.client.confirm(seen.clone()).await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("approval"),
        "{error}"
    );
    let approve = towpath_spacelift::model::ReviewDecision::Approve;
    world
        .client
        .review_run(&world.stack(), &run, approve, Some("fine"))
        .await
        .unwrap();
    world.client.confirm(seen).await.unwrap();
}

#[tokio::test]
async fn confirming_twice_succeeds() {
    let world = World::start().await;
    let run = world.planned().await;
    let seen = world.seen(&run).await;
    world.client.confirm(seen.clone()).await.unwrap();
    world.client.confirm(seen.clone()).await.unwrap();
    let end = world.ended(&run).await;
    assert_eq!(end.state, RunState::Finished);
    world.client.confirm(seen).await.unwrap();
    let confirmed = world.lab.runs()[0]
        .states()
        .into_iter()
        .filter(|state| *state == LabState::Confirmed);
    assert_eq!(confirmed.count(), 1);
    let outputs = world.client.outputs(&world.stack()).await.unwrap();
    assert_eq!(
        outputs.into_iter().collect::<Vec<_>>(),
        [("vpc".to_owned(), "\"vpc-1\"".to_owned())]
    );
    let all = world.client.log(&world.stack(), &run, 1_000).await.unwrap();
    assert!(
        all.contains("Checked out") && all.contains("Changes applied"),
        "{all}"
    );
    let tail = world.client.log(&world.stack(), &run, 2).await.unwrap();
    assert!(all.ends_with(&tail) && tail.lines().count() == 2, "{tail}");
}

#[tokio::test]
async fn a_lost_answer_to_a_confirmation_is_looked_up() {
    let world = World::start().await;
    let run = world.planned().await;
    let seen = world.seen(&run).await;
    // The first request of `confirm` reads; the second is the mutation.
    world.lose_second_answer();
    world.client.confirm(seen).await.unwrap();
    assert_eq!(world.lost_answers(), 1);
    assert_eq!(world.ended(&run).await.state, RunState::Finished);
}

#[tokio::test]
async fn a_lost_answer_to_a_trigger_starts_one_run() {
    let world = World::start().await;
    world.client.viewer().await.unwrap();
    world.lose_second_answer();
    let run = world
        .client
        .trigger_run(&world.stack(), RunRequest::of(&world.commit()))
        .await
        .unwrap();
    assert_eq!(world.lost_answers(), 1);
    let runs = world.lab.runs_of("shared");
    assert_eq!((runs.len(), runs[0].id.as_str()), (1, run.id.as_str()));
}

#[tokio::test]
async fn a_discarded_run_changes_nothing() {
    let world = World::start().await;
    let run = world.planned().await;
    world
        .client
        .discard(&world.stack(), &run, "not today")
        .await
        .unwrap();
    world
        .client
        .discard(&world.stack(), &run, "not today")
        .await
        .unwrap();
    assert_eq!(world.ended(&run).await.state, RunState::Discarded);
    assert!(world.lab.stack("shared").unwrap().applied.resources.is_empty());
    assert_eq!(
        world
            .client
            .discard_all_runs(&world.stack(), None)
            .await
            .unwrap()
            .discarded,
        []
    );
}

#[tokio::test]
async fn only_finished_is_success() {
    let world = World::start().await;
    let broken = world.push_text("resource \"terraform_data\" \"network\" {\n  input = var.nothing\n}\n");
    let run = world.client.trigger(&world.stack(), &broken).await.unwrap();
    assert_eq!(world.ended(&run.id).await.state, RunState::Failed);
    assert!(
        world
            .client
            .plan(&world.stack(), &run.id)
            .await
            .unwrap_err()
            .is_conflict()
    );
    world
        .client
        .cancel_run(&world.stack(), &run.id, None)
        .await
        .unwrap_err();
}

#[tokio::test]
async fn an_unknown_stack_is_not_found() {
    let world = World::start().await;
    let (nowhere, run): (StackId, RunId) = ("nowhere".parse().unwrap(), "01J".parse().unwrap());
    let client = &world.client;
    for error in [
        client.stack(&nowhere).await.unwrap_err(),
        client.find_run(&nowhere, &world.commit()).await.unwrap_err(),
        client.run(&nowhere, &run).await.unwrap_err(),
        client.plan(&nowhere, &run).await.unwrap_err(),
        client.trigger(&nowhere, &world.commit()).await.unwrap_err(),
        client.discard(&nowhere, &run, "").await.unwrap_err(),
        client.log(&nowhere, &run, 3).await.unwrap_err(),
        client.outputs(&nowhere).await.unwrap_err(),
        client.lock_stack(&nowhere, None).await.unwrap_err(),
        client.run(&world.stack(), &run).await.unwrap_err(),
        client.run_owner(&run).await.unwrap_err(),
    ] {
        assert!(error.is_not_found(), "{error:?}");
    }
}

#[tokio::test]
async fn a_stack_shows_what_surrounds_it() {
    let world = World::start().await;
    let shared = world.client.stack(&world.stack()).await.unwrap();
    assert_eq!(shared.worker_pool.as_deref(), Some("shared-services"));
    assert_eq!(shared.dependents, ["apps".parse().unwrap()]);
    let run = world.planned().await;
    assert!(world.lab.lock("shared", Some("alice")));
    let shared = world.client.stack(&world.stack()).await.unwrap();
    assert_eq!(
        (shared.blocked_by, shared.locked.as_deref()),
        (Some(run), Some("alice"))
    );
    let locked = world
        .client
        .trigger(&world.stack(), &world.commit())
        .await
        .unwrap_err();
    assert!(
        locked.is_conflict() && locked.to_string().contains("alice"),
        "{locked}"
    );
    let found: Vec<_> = world
        .client
        .search_stacks(StackSearch::default())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(found.len(), 2);
    assert!(
        world
            .client
            .worker_pool("shared-services")
            .await
            .unwrap()
            .takes_runs()
    );
    assert_eq!(world.client.instance_version().await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_sees_a_state_that_comes_again() {
    let world = World::start().await;
    let run = world.planned().await;
    let watched = world.client.watch(&world.stack(), &run, policy());
    world.lab.replan("shared", run.as_str(), &[]).unwrap();
    let waiting = || {
        world.lab.runs()[0]
            .states()
            .iter()
            .filter(|s| **s == LabState::Unconfirmed)
            .count()
    };
    while waiting() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.client.discard(&world.stack(), &run, "").await.unwrap();
    let steps: Vec<_> = watched.try_collect().await.unwrap();
    assert_eq!(
        steps
            .iter()
            .filter(|step| step.state == RunState::Unconfirmed)
            .count(),
        2
    );
    assert_eq!(steps.last().unwrap().state, RunState::Discarded);
}

#[tokio::test]
async fn an_expired_token_is_renewed_once_and_never_looks_like_nothing() {
    let world = World::start().await;
    world.client.viewer().await.unwrap();
    world.lab.expire_tokens();
    let found: Vec<_> = world
        .client
        .search_stacks(StackSearch::default())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(found.len(), 2);
    world.lab.expire_tokens();
    world.client.stack(&world.stack()).await.unwrap();
    world.lab.expire_tokens();
    world
        .client
        .trigger(&world.stack(), &world.commit())
        .await
        .unwrap();
    world.lab.expire_tokens();
    world.client.discard_all_runs(&world.stack(), None).await.unwrap();
}

#[tokio::test]
async fn many_callers_make_one_exchange() {
    let world = World::start().await;
    let before = world.lab.requests().len();
    let calls = (0..8).map(|_| world.client.viewer());
    futures_util::future::try_join_all(calls).await.unwrap();
    assert_eq!(world.lab.requests().len() - before, 9);
}

#[tokio::test]
async fn a_wrong_key_is_named_and_its_secret_is_not() {
    let world = World::start().await;
    let client = world.client_with(Secret::new("canary-of-the-key"));
    let error = client.stack(&world.stack()).await.unwrap_err();
    assert!(
        error.is_unauthenticated() && error.to_string().contains("01LABKEY"),
        "{error}"
    );
    assert!(!format!("{error:?} {client:?}").contains("canary"));
}

#[tokio::test]
async fn a_rate_limit_without_a_body_is_known() {
    let world = World::start().await;
    world.client.viewer().await.unwrap();
    let limit = Fault::respond("graphql", http::StatusCode::TOO_MANY_REQUESTS, "");
    world.lab.faults().inject(limit.clone());
    world.client.viewer().await.unwrap();
    world.lab.faults().inject(limit.always());
    let error = world.client.viewer().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry().can_help()),
        (ErrorKind::RateLimited, false),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_run_is_waited_for() {
    let world = World::start().await;
    let never = Policy::every(Duration::from_millis(1)).within(Duration::from_millis(20));
    let waited = world
        .client
        .wait_for_run(&world.stack(), &world.commit(), &never, &Cancellation::new())
        .await;
    assert!(waited.unwrap_err().is_timed_out());
}
