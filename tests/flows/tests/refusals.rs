//! What closes a gate, what a human says, and what happens when what was asked about changes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use async_trait::async_trait;
use std::sync::Mutex;
use std::time::Duration;
use towpath_elements::ErrorKind;
use towpath_elements::infrastructure::{Confirmation, RunState};
use towpath_elements::registry::{Finding, Severity};
use towpath_elements::source::ReviewState;
use towpath_flow::{Approver, Decision, MemoryJournal, Question, Runner, Step, Stop};
use towpath_testkit::World;
use towpath_testkit::world::{Merge, ScanScript};
use towpath_tests_flows::{Company, Says, main_branch};

fn kind(stop: &Stop) -> ErrorKind {
    match stop {
        Stop::Failed { failure, .. } => failure.kind,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_critical_finding_keeps_an_image_out_of_the_deployment() {
    let company = Company::new();
    let inputs = company.change();
    let finding = Finding::new("CVE-2026-1", Severity::Critical).in_package("zlib", "1.3");
    let repository = "acme/web".parse().unwrap();
    for script in [
        ScanScript::Finds(vec![finding]),
        ScanScript::Unavailable("unsupported image".into()),
        ScanScript::Uncovered,
    ] {
        company.world.script_scans(&repository, script);
        let before = company.deployment_file();
        let error = Runner::new(company.elements())
            .run("docker", &company.ci_docker(&inputs.service))
            .await
            .unwrap_err();
        assert_eq!(
            (error.stop.step(), kind(&error.stop)),
            (Some(Step::StoreBuild), ErrorKind::Denied)
        );
        assert_eq!(company.deployment_file(), before);
        let reports = company
            .world
            .source()
            .reports(&company.service(), &inputs.service)
            .await;
        assert_eq!(reports.unwrap(), []);
    }
    // The scanner's answer is read again: once the finding is gone, the gate opens.
    company.world.script_scans(&repository, ScanScript::Clean);
    let flow = company.ci_docker(&inputs.service);
    Runner::new(company.elements())
        .run("docker", &flow)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_not_approved_as_it_is_builds_nothing() {
    let company = Company::new();
    let merges = [
        Merge::by("ann", "a", "a"),
        Merge::by("ann", "a", "b").approved_by("ann"),
        Merge::by("ann", "a", "c").with("bob", ReviewState::Approved, false),
        Merge::by("ann", "a", "d")
            .approved_by("bob")
            .with("cy", ReviewState::ChangesRequested, true),
    ];
    for (number, merge) in merges.iter().enumerate() {
        let commit = company.world.merge(&company.library(), &main_branch(), merge);
        let error = Runner::new(company.elements())
            .run(&number.to_string(), &company.ci_library(&commit))
            .await
            .unwrap_err();
        assert_eq!(
            (error.stop.step(), kind(&error.stop)),
            (Some(Step::Push), ErrorKind::Denied)
        );
    }
    assert_eq!(company.world.changes(), []);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_plan_is_discarded_and_nothing_is_applied() {
    let company = Company::new();
    let inputs = company.change();
    let runner = Runner::new(company.elements()).with_approver(Says(false));
    let flow = company.spacelift(&inputs.infrastructure);
    for _ in 0..2 {
        let error = runner.run("infra", &flow).await.unwrap_err();
        assert!(
            matches!(&error.stop, Stop::Rejected { by, .. } if by == "eve"),
            "{error}"
        );
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(
        company.world.run_states(&company.shared())[0].1,
        RunState::Discarded
    );
    assert_eq!(company.world.applied(&company.shared()), [""; 0]);
    for app in company.apps() {
        assert_eq!(company.world.run_states(&app)[0].1, RunState::Skipped);
        assert_eq!(company.world.applied(&app), [""; 0]);
    }
    assert_eq!(company.world.changes().len(), 1, "discarded once");
}

/// Changes the plan while the human thinks, and says yes.
struct SlowYes {
    company: std::sync::Arc<Company>,
    also_confirmed_by_another: bool,
    plan_changes: Mutex<bool>,
    asked: std::sync::Arc<Mutex<Vec<String>>>,
}

impl SlowYes {
    async fn replan(&self, world: &World) {
        let stack = self.company.shared();
        let (run, _) = world.run_states(&stack)[0].clone();
        world.drift(&stack, "terraform_data.drifted");
        world.replan(&stack, &run);
        tokio::time::sleep(Duration::from_secs(60)).await;
        if self.also_confirmed_by_another {
            let infrastructure = world.infrastructure();
            let plan = infrastructure.plan(&stack, &run).await.unwrap();
            let confirmation = Confirmation {
                plan: plan.digest(),
                commit: plan.commit,
                note: "by another".into(),
                stack,
                run,
            };
            infrastructure.confirm(confirmation).await.unwrap();
        }
    }
}

#[async_trait]
impl Approver for SlowYes {
    async fn decide(&self, question_asked: &Question) -> Option<Decision> {
        self.asked.lock().unwrap().push(question_asked.text.clone());
        let changes = std::mem::take(&mut *self.plan_changes.lock().unwrap());
        if changes {
            self.replan(&self.company.world).await;
        }
        Says(true).decide(&question()).await
    }
}

fn question() -> Question {
    Question {
        text: String::new(),
        details: vec![],
        binds: towpath_core::Digest::sha256_of(""),
    }
}

async fn run_while_the_plan_changes(
    also_confirmed_by_another: bool,
) -> (std::sync::Arc<Company>, Result<(), Stop>) {
    let company = std::sync::Arc::new(Company::new());
    let inputs = company.change();
    let approver = SlowYes {
        company: company.clone(),
        also_confirmed_by_another,
        plan_changes: Mutex::new(true),
        asked: std::sync::Arc::default(),
    };
    let asked = approver.asked.clone();
    let runner = Runner::new(company.elements()).with_approver(approver);
    let flow = company.spacelift(&inputs.infrastructure);
    let result = runner.run("infra", &flow).await;
    if result.is_ok() {
        let asked = asked.lock().unwrap();
        let shared = asked
            .iter()
            .filter(|text| text.contains(company.shared().as_str()))
            .count();
        assert_eq!(shared, 2, "the new plan is a new question: {asked:?}");
    }
    (company, result.map(|_| ()).map_err(|error| error.stop))
}

#[tokio::test(start_paused = true)]
async fn an_approval_is_void_once_the_plan_has_changed_and_the_new_plan_is_asked_about() {
    let (company, result) = run_while_the_plan_changes(false).await;
    result.unwrap();
    assert_eq!(
        company.world.applied(&company.shared()),
        ["terraform_data.shared"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_another_confirmed_is_not_taken_for_the_one_that_was_approved() {
    let (_, result) = run_while_the_plan_changes(true).await;
    let stop = result.unwrap_err();
    assert_eq!(
        (stop.step(), kind(&stop)),
        (Some(Step::Confirm), ErrorKind::Conflict)
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_waits_for_its_human_and_goes_on_later() {
    let company = Company::new();
    let inputs = company.change();
    let journal = MemoryJournal::new();
    let flow = company.spacelift(&inputs.infrastructure);
    let alone = Runner::new(company.elements()).with_journal(journal.clone());
    for _ in 0..2 {
        let error = alone.run("infra", &flow).await.unwrap_err();
        assert!(matches!(error.stop, Stop::Waiting { .. }), "{error}");
        tokio::time::sleep(Duration::from_secs(3 * 24 * 3600)).await;
    }
    assert_eq!(company.world.changes(), []);
    let answered = Runner::new(company.elements())
        .with_journal(journal)
        .with_approver(Says(true));
    answered.run("infra", &flow).await.unwrap();
    assert_eq!(
        company.world.applied(&company.shared()),
        ["terraform_data.shared"]
    );
}
