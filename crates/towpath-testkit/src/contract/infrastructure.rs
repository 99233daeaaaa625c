//! The contract of [`Infrastructure`].

use super::{refused, until, word};
use async_trait::async_trait;
use std::sync::Arc;
use towpath_core::wait::Policy;
use towpath_core::{Cancellation, CommitSha, RunId, StackId};
use towpath_elements::infrastructure::{Confirmation, Plan, Run, RunState};
use towpath_elements::{ErrorKind, Infrastructure, InfrastructureExt};

/// Makes one test of each clause of [`Infrastructure`](towpath_elements::Infrastructure)'s contract.
#[macro_export]
macro_rules! infrastructure_contract {
    ($fixture:expr) => { $crate::infrastructure_contract!($fixture, #[tokio::test]); };
    ($fixture:expr, $($attribute:tt)+) => {
        $crate::contract_suite!(infrastructure, [$($attribute)+], $fixture,
            a_commit_without_a_run_is_none
            a_plan_is_what_the_run_would_do
            equal_plans_have_equal_digests
            only_what_was_seen_is_confirmed
            confirming_twice_succeeds
            a_discarded_run_changes_nothing
            only_finished_is_success
            an_unknown_stack_is_not_found
        );
    };
}

/// Prepares a stack that asks before it applies, for the clauses.
#[async_trait]
pub trait InfrastructureFixture: Send + Sync {
    /// The implementation.
    fn infrastructure(&self) -> Arc<dyn Infrastructure>;

    /// The stack. Nothing is applied yet.
    fn stack(&self) -> StackId;

    /// Pushes a commit with exactly these resources, given by address such as `terraform_data.network`, which starts a
    /// run of the stack.
    async fn push(&self, addresses: &[&str]) -> CommitSha;

    /// A commit of the stack's repository that started no run of it.
    async fn quiet_commit(&self) -> CommitSha;

    /// Makes the plan of a run that waits for confirmation anew, so that it is another plan; it creates two resources, so
    /// that one can be left out. `false` where the world behind the implementation cannot do that; the part of the clause
    /// is left out then.
    async fn replan(&self, run: &RunId) -> bool;

    /// Makes the apply of the stack's next confirmed run fail.
    async fn fail_next_apply(&self);

    /// The addresses that are applied, read past the implementation.
    async fn applied(&self) -> Vec<String>;

    /// How often to look at a run, and for how long.
    fn policy(&self) -> Policy;
}

async fn unconfirmed(fixture: &dyn InfrastructureFixture, commit: &CommitSha) -> Run {
    let (infrastructure, stack, cancellation) =
        (fixture.infrastructure(), fixture.stack(), Cancellation::new());
    let found = infrastructure
        .wait_for_run(&stack, commit, &fixture.policy(), &cancellation)
        .await
        .unwrap();
    let waiting = infrastructure
        .wait_for_decision(&stack, &found.id, &fixture.policy(), &cancellation)
        .await
        .unwrap();
    assert_eq!(waiting.state, RunState::Unconfirmed, "{waiting:?}");
    waiting
}

async fn planned(fixture: &dyn InfrastructureFixture, commit: &CommitSha) -> Plan {
    let run = unconfirmed(fixture, commit).await;
    fixture
        .infrastructure()
        .plan(&fixture.stack(), &run.id)
        .await
        .unwrap()
}

fn confirmation(plan: &Plan) -> Confirmation {
    Confirmation {
        stack: plan.stack.clone(),
        run: plan.run.clone(),
        commit: plan.commit.clone(),
        plan: plan.digest(),
        note: "confirmed by the contract".into(),
    }
}

async fn ended(fixture: &dyn InfrastructureFixture, run: &RunId) -> Run {
    let infrastructure = fixture.infrastructure();
    infrastructure
        .wait_for_end(&fixture.stack(), run, &fixture.policy(), &Cancellation::new())
        .await
        .unwrap()
}

/// Clause 1.
pub async fn a_commit_without_a_run_is_none(fixture: &dyn InfrastructureFixture) {
    let (infrastructure, stack) = (fixture.infrastructure(), fixture.stack());
    let commit = fixture.push(&["terraform_data.one"]).await;
    let run = unconfirmed(fixture, &commit).await;
    assert_eq!(run.commit.as_ref(), Some(&commit));
    let found = infrastructure.find_run(&stack, &commit).await.unwrap().unwrap();
    assert_eq!(found.id, run.id);
    let quiet = fixture.quiet_commit().await;
    assert_eq!(infrastructure.find_run(&stack, &quiet).await.unwrap(), None);
    let elsewhere: CommitSha = word(&"5".repeat(40));
    assert_eq!(infrastructure.find_run(&stack, &elsewhere).await.unwrap(), None);
}

/// Clause 2.
pub async fn a_plan_is_what_the_run_would_do(fixture: &dyn InfrastructureFixture) {
    let (infrastructure, stack) = (fixture.infrastructure(), fixture.stack());
    let commit = fixture.push(&["terraform_data.one", "terraform_data.two"]).await;
    let plan = planned(fixture, &commit).await;
    assert_eq!((&plan.stack, &plan.commit), (&stack, &commit));
    let mut addresses: Vec<_> = plan
        .changes
        .iter()
        .map(|change| change.address.as_str())
        .collect();
    addresses.sort_unstable();
    assert_eq!(addresses, ["terraform_data.one", "terraform_data.two"]);
    assert_eq!(
        (plan.counts.add, plan.counts.change, plan.counts.delete),
        (2, 0, 0)
    );
    // The stack is held by the first run, so that the second one has no plan yet.
    let second = fixture.push(&["terraform_data.three"]).await;
    let second = infrastructure
        .wait_for_run(&stack, &second, &fixture.policy(), &Cancellation::new())
        .await
        .unwrap();
    let early = infrastructure.plan(&stack, &second.id).await;
    refused(early, ErrorKind::Conflict, "a plan that is not made yet");
}

/// Clause 3.
pub async fn equal_plans_have_equal_digests(fixture: &dyn InfrastructureFixture) {
    let commit = fixture.push(&["terraform_data.one"]).await;
    let first = planned(fixture, &commit).await;
    let again = planned(fixture, &commit).await;
    assert_eq!(first.digest(), again.digest());
    let stack = fixture.stack();
    fixture
        .infrastructure()
        .discard(&stack, &first.run, "for the next plan")
        .await
        .unwrap();
    let other = fixture.push(&["terraform_data.one", "terraform_data.two"]).await;
    let other = planned(fixture, &other).await;
    assert_ne!(first.digest(), other.digest());
}

/// Clause 4.
pub async fn only_what_was_seen_is_confirmed(fixture: &dyn InfrastructureFixture) {
    let (infrastructure, stack) = (fixture.infrastructure(), fixture.stack());
    let commit = fixture.push(&["terraform_data.one", "terraform_data.two"]).await;
    let plan = planned(fixture, &commit).await;
    let seen = confirmation(&plan);
    let mut wrong = vec![
        Confirmation {
            plan: towpath_core::Digest::sha256_of("another plan"),
            ..seen.clone()
        },
        Confirmation {
            commit: word(&"5".repeat(40)),
            ..seen.clone()
        },
    ];
    if fixture.replan(&plan.run).await {
        let look = || infrastructure.run(&stack, &plan.run);
        let waits = |run: &Run| run.state == RunState::Unconfirmed;
        until(&fixture.policy(), "the plan to be made anew", look, waits).await;
        wrong.push(seen);
    }
    let before = fixture.applied().await;
    for confirmation in wrong {
        let result = infrastructure.confirm(confirmation).await;
        refused(result, ErrorKind::Conflict, "a confirmation of something else");
        let run = infrastructure.run(&stack, &plan.run).await.unwrap();
        assert_eq!(run.state, RunState::Unconfirmed, "it confirms nothing");
    }
    infrastructure
        .discard(&stack, &plan.run, "done with it")
        .await
        .unwrap();
    let now = infrastructure.confirm(confirmation(&plan)).await;
    refused(
        now,
        ErrorKind::Conflict,
        "a confirmation of a run that no longer waits",
    );
    assert_eq!(fixture.applied().await, before);
}

/// Clause 5.
pub async fn confirming_twice_succeeds(fixture: &dyn InfrastructureFixture) {
    let infrastructure = fixture.infrastructure();
    let commit = fixture.push(&["terraform_data.one"]).await;
    let seen = confirmation(&planned(fixture, &commit).await);
    for _ in 0..2 {
        infrastructure.confirm(seen.clone()).await.unwrap();
    }
    let run = ended(fixture, &seen.run).await;
    assert_eq!(run.state, RunState::Finished, "{run:?}");
    infrastructure.confirm(seen).await.unwrap();
    assert_eq!(fixture.applied().await, ["terraform_data.one"]);
}

/// Clause 6.
pub async fn a_discarded_run_changes_nothing(fixture: &dyn InfrastructureFixture) {
    let infrastructure = fixture.infrastructure();
    let commit = fixture.push(&["terraform_data.one"]).await;
    let run = unconfirmed(fixture, &commit).await;
    infrastructure
        .discard(&fixture.stack(), &run.id, "not today")
        .await
        .unwrap();
    let run = ended(fixture, &run.id).await;
    assert_eq!(run.state, RunState::Discarded, "{run:?}");
    assert_eq!(fixture.applied().await, [""; 0]);
}

/// Clause 7.
pub async fn only_finished_is_success(fixture: &dyn InfrastructureFixture) {
    let infrastructure = fixture.infrastructure();
    fixture.fail_next_apply().await;
    let commit = fixture.push(&["terraform_data.one"]).await;
    let seen = confirmation(&planned(fixture, &commit).await);
    infrastructure.confirm(seen.clone()).await.unwrap();
    let run = ended(fixture, &seen.run).await;
    assert_eq!(run.state, RunState::Failed, "{run:?}");
    let log = infrastructure.log(&fixture.stack(), &run.id, 50).await.unwrap();
    assert!(!log.trim().is_empty(), "a failed run has a log");
    let ends = [
        RunState::Failed,
        RunState::Canceled,
        RunState::Discarded,
        RunState::Stopped,
        RunState::Skipped,
    ];
    for end in ends {
        assert!(end.is_terminal() && !end.is_past_confirmation(), "{end}");
    }
    assert!(!RunState::Other("NEW".into()).is_terminal());
}

/// Clause 8.
pub async fn an_unknown_stack_is_not_found(fixture: &dyn InfrastructureFixture) {
    let infrastructure = fixture.infrastructure();
    let nowhere: StackId = word("towpath-no-such-stack");
    let commit: CommitSha = word(&"5".repeat(40));
    let what = "an unknown stack";
    refused(infrastructure.stack(&nowhere).await, ErrorKind::NotFound, what);
    refused(
        infrastructure.find_run(&nowhere, &commit).await,
        ErrorKind::NotFound,
        what,
    );
    refused(
        infrastructure.run(&nowhere, &word("RUN1")).await,
        ErrorKind::NotFound,
        what,
    );
}
