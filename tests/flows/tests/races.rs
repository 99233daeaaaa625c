//! Two builds, and people, race on one deployment repository.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;
use towpath_flow::Runner;
use towpath_flow::effects::WrittenBack;
use towpath_testkit::world::Element;
use towpath_tests_flows::{Company, main_branch};

#[tokio::test(start_paused = true)]
async fn no_commit_is_lost_and_no_older_build_wins() {
    let mut overtaken = 0;
    for seed in 0..100 {
        let company = Company::new();
        company.world.jitter(seed);
        let older = company.ci_docker(&company.change().service);
        let newer = company.ci_docker(&company.change().service);
        let (one, two) = (Runner::new(company.elements()), Runner::new(company.elements()));
        let people = async {
            for number in 0..60 {
                tokio::time::sleep(Duration::from_millis(331)).await;
                let text = number.to_string();
                let files = [("notes.md", text.as_str())];
                company
                    .world
                    .push(&company.deployments(), &main_branch(), &files, "Write a note");
            }
        };
        let (older, newer, ()) =
            futures_util::join!(one.run("older", &older), two.run("newer", &newer), people);
        let (older, newer) = (older.unwrap(), newer.unwrap());
        let file = company.deployment_file();
        assert!(file.contains(newer.digest.as_str()), "seed {seed}: {file}");
        assert!(
            matches!(newer.written_back, WrittenBack::Promoted(_)),
            "seed {seed}"
        );
        overtaken += usize::from(matches!(older.written_back, WrittenBack::Newer(_)));
        let promotions = company
            .world
            .changes()
            .iter()
            .filter(|call| (call.element, call.method) == (Element::Source, "commit"))
            .count();
        let commits = company.world.commit_count(&company.deployments(), &main_branch());
        assert_eq!(commits, 1 + 60 + promotions, "seed {seed}: no commit is lost");
        let notes = company
            .world
            .text(&company.deployments(), &main_branch(), "notes.md");
        assert_eq!(
            notes.as_deref(),
            Some("59"),
            "seed {seed}: nobody's change is undone"
        );
    }
    assert!(
        (5..95).contains(&overtaken),
        "both orders happen: {overtaken} of 100"
    );
}
