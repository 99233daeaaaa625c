//! Each flow comes to its end, and a second run over the same commit does nothing new and succeeds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use towpath_core::{Digest, PackageId};
use towpath_elements::infrastructure::RunState;
use towpath_flow::effects::WrittenBack;
use towpath_flow::flows::ImageBuilt;
use towpath_flow::{MemoryJournal, Runner};
use towpath_tests_flows::{Company, Says, main_branch};

fn runner(company: &Company) -> Runner {
    Runner::new(company.elements()).with_approver(Says(true))
}

#[tokio::test(start_paused = true)]
async fn a_library_is_stored_and_reported() {
    let company = Company::new();
    let inputs = company.change();
    let built = runner(&company)
        .run("library", &company.ci_library(&inputs.library))
        .await
        .unwrap();
    let version = PackageId::cargo("acme-math").unwrap().at("1.4.0").unwrap();
    assert_eq!(built.version, version);
    let stored = company.world.package(&company.packages(), &version);
    assert_eq!(Digest::sha256_of(&stored["acme-math-1.4.0.crate"]), built.digest);
    let reports = company
        .world
        .source()
        .reports(&company.library(), &inputs.library)
        .await;
    assert_eq!(reports.unwrap()[0].context, "towpath/package");
}

async fn docker_and_delivery(company: &Company, commit: &towpath_core::CommitSha) -> ImageBuilt {
    let built = runner(company)
        .run("docker", &company.ci_docker(commit))
        .await
        .unwrap();
    runner(company).run("cd", &company.cd(&built)).await.unwrap();
    built
}

#[tokio::test(start_paused = true)]
async fn a_service_runs_by_digest() {
    let company = Company::new();
    let inputs = company.change();
    let before = company.deployment_file();
    let built = docker_and_delivery(&company, &inputs.service).await;
    let running = company
        .world
        .delivery()
        .running(&company.application())
        .await
        .unwrap();
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].digest.as_ref(), Some(&built.digest));
    assert!(matches!(built.written_back, WrittenBack::Promoted(_)));
    assert_eq!(
        company.world.commit_count(&company.deployments(), &main_branch()),
        2
    );

    // Not one byte more than the image has changed.
    let image_of = |text: &str| {
        text.split("image: ")
            .nth(1)
            .unwrap()
            .split("  #")
            .next()
            .unwrap()
            .to_owned()
    };
    let after = company.deployment_file();
    assert_eq!(before.replace(&image_of(&before), &image_of(&after)), after);
    assert_eq!(image_of(&after), built.image.to_string());
}

#[tokio::test(start_paused = true)]
async fn infrastructure_is_applied_in_order() {
    let company = Company::new();
    let inputs = company.change();
    let flow = company.spacelift(&inputs.infrastructure);
    let applied = runner(&company).run("infra", &flow).await.unwrap();
    assert_eq!(applied.shared_services.state, RunState::Finished);
    assert_eq!(
        company.world.applied(&company.shared()),
        ["terraform_data.shared"]
    );
    for (app, run) in company.apps().iter().zip(&applied.apps) {
        assert_eq!(company.world.applied(app), [format!("terraform_data.{app}")]);
        assert!(run.since > applied.shared_services.since, "Shared Services first");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_run_changes_nothing_and_succeeds() {
    let company = Company::new();
    let inputs = company.change();
    let flow = company.spacelift(&inputs.infrastructure);
    let library = company.ci_library(&inputs.library);
    for round in 0..2 {
        // Another journal each time: what has been done is told by the world alone.
        let runner = runner(&company).with_journal(MemoryJournal::new());
        runner.run("library", &library).await.unwrap();
        docker_and_delivery(&company, &inputs.service).await;
        runner.run("infra", &flow).await.unwrap();
        let changes = company.world.changes();
        assert_eq!(changes.is_empty(), round == 1, "round {round}: {changes:#?}");
        company.world.forget_calls();
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_run_asks_only_for_what_may_have_changed() {
    let company = Company::new();
    let inputs = company.change();
    let runner = runner(&company).with_journal(MemoryJournal::new());
    let flow = company.ci_docker(&inputs.service);
    let first = runner.run("docker", &flow).await.unwrap();
    company.world.forget_calls();
    assert_eq!(runner.run("docker", &flow).await.unwrap(), first);
    // A weakness may have been found since: the scan is judged again, and nothing else is asked for.
    let methods: Vec<_> = company
        .world
        .calls()
        .into_iter()
        .map(|call| call.method)
        .collect();
    assert_eq!(methods, ["scan"]);
}
