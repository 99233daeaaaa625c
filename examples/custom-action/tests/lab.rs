//! The action in the lab's GitHub: a push starts the workflow, whose step runs the real program against the lab's ECR.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use towpath_ecr::{Digest, Ecr, EcrConfig, Region, Registry, Secret};
use towpath_lab::github::Run;
use towpath_lab::{AUTHOR, Lab, LabConfig};

#[tokio::test]
async fn the_action_gives_the_digest_and_hides_the_registry() {
    let lab = start().await;
    let digest = store(&lab).await;
    let run = pushed(&lab).await;
    let job = &run.jobs[0];
    assert_eq!(run.conclusion.as_deref(), Some("success"), "{}", job.log);
    assert_eq!(job.outputs["digest"], digest.as_str());
    assert!(job.log.contains("Looking for ***/shop/web:1.4"), "{}", job.log);
    assert!(!job.log.contains(lab.ecr().registry_host()), "{}", job.log);
    assert!(job.log.contains("may be moved"), "{}", job.log);
    let summary = &job.steps[1].summary;
    assert!(
        summary.contains(digest.as_str()) && summary.contains("| linux/arm64 |"),
        "{summary}"
    );
}

#[tokio::test]
async fn a_tag_that_is_not_there_fails_the_run_and_says_so() {
    let lab = start().await;
    let run = pushed(&lab).await;
    let job = &run.jobs[0];
    assert_eq!(run.conclusion.as_deref(), Some("failure"), "{}", job.log);
    assert!(
        job.log.contains("shop/web has no image with the tag 1.4"),
        "{}",
        job.log
    );
    assert!(!job.outputs.contains_key("digest") || job.outputs["digest"].is_empty());
}

/// A lab whose runner has the program installed.
async fn start() -> Lab {
    let mut config = LabConfig::default();
    let program = env!("CARGO_BIN_EXE_promote-check").to_owned();
    config.github.runner.env = vec![("PROMOTE_CHECK".into(), program)];
    Lab::with(config).await.unwrap()
}

/// Puts the gallery's base image into the private registry as `shop/web:1.4`.
async fn store(lab: &Lab) -> Digest {
    let environment: HashMap<_, _> = lab.environment().into_iter().collect();
    let gallery = format!("http://{}", environment["TOWPATH_LAB_ECR_PUBLIC"]);
    let config = EcrConfig::from_env()
        .region(Region::new(&environment["AWS_REGION"]).unwrap())
        .endpoint(environment["AWS_ENDPOINT_URL_ECR"].parse().unwrap())
        .credentials(
            &environment["AWS_ACCESS_KEY_ID"],
            Secret::new(&environment["AWS_SECRET_ACCESS_KEY"]),
            None,
        )
        .upstream("public.ecr.aws".parse().unwrap(), gallery.parse().unwrap());
    let ecr = Ecr::new(&config).await.unwrap();
    let base = "public.ecr.aws/docker/library/alpine:3.20".parse().unwrap();
    let base = ecr.resolve(&base).await.unwrap().unwrap();
    let target = ecr.ensure_repository(&"shop/web".parse().unwrap()).await.unwrap();
    let target = target.tagged("1.4".parse().unwrap());
    ecr.copy(&base.image, &target).await.unwrap().digest
}

/// Pushes the action and its workflow with plain git, and waits for the run.
async fn pushed(lab: &Lab) -> Run {
    let repository = "acme/promote-check".parse().unwrap();
    lab.github().create_repository(&repository, true).await.unwrap();
    let token = lab.github().token(AUTHOR).unwrap();
    let credentials = format!("http://{AUTHOR}:{}@", token.expose());
    let remote = lab.github().git_url(&repository).replace("http://", &credentials);
    let folder = tempfile::tempdir().unwrap();
    let workflows = folder.path().join(".github/workflows");
    std::fs::create_dir_all(&workflows).unwrap();
    std::fs::write(workflows.join("promote.yml"), include_str!("../workflow.yml")).unwrap();
    std::fs::write(folder.path().join("action.yml"), include_str!("../action.yml")).unwrap();
    // The lab serves the push from this runtime: it must not be blocked.
    tokio::task::spawn_blocking(move || {
        git(folder.path(), &["init", "--quiet", "--initial-branch=main"]);
        git(folder.path(), &["add", "--all"]);
        git(folder.path(), &["commit", "--quiet", "--message=promote"]);
        git(folder.path(), &["push", "--quiet", &remote, "main"]);
    })
    .await
    .unwrap();
    // A minute is only for a test that fails.
    for _ in 0..6000 {
        if let Some(run) = lab
            .github()
            .runs()
            .into_iter()
            .find(|run| run.status == "completed")
        {
            return run;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the run did not end: {:#?}", lab.github().runs());
}

fn git(folder: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=Mona", "-c", "user.email=mona@acme.example"];
    let mut command = Command::new("git");
    let output = command
        .args(identity)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
