//! The program's own path against the lab: a deployment that comes, an image that it never asked for, and a commit that
//! nobody has pushed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use towpath_argocd::{ArgoCd, Cancellation, Delivery, Digest, ImageRef, Login, Secret, WaitPolicy};
use towpath_ecr::{Ecr, EcrConfig, Region, Registry};
use towpath_lab::{AUTHOR, Lab};
use wait_for_argocd::{arguments, exit_code};

#[tokio::test]
async fn the_exit_code_says_whether_it_is_live() {
    let lab = Lab::start().await.unwrap();
    let image = stored_image(&lab).await;
    let commit = pushed_deployment(&lab, &image).await;
    let argo = client(&lab);
    let app = json!({"metadata": {"name": "web"}, "spec": {
        "project": "default",
        "source": {"repoURL": lab.github().git_url(&"acme/deploy".parse().unwrap()), "path": "prod", "targetRevision": "main"},
        "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
        "syncPolicy": {"automated": {}}}});
    argo.create(&serde_json::from_value(app).unwrap()).await.unwrap();

    let line = |image: &ImageRef| format!("default/web {commit} {image} --within 60 --settle 0");
    let expected = arguments(line(&image).split(' ').map(str::to_owned)).unwrap();
    let result = argo.wait(expected, &Cancellation::new()).await;
    assert_eq!(exit_code(&result), 0, "{result:?}");

    let other = image.at(Digest::sha256_of("another image"));
    let expected = arguments(line(&other).split(' ').map(str::to_owned)).unwrap();
    let result = argo.wait(expected, &Cancellation::new()).await;
    assert_eq!(exit_code(&result), 1, "{result:?}");

    let unseen = line(&image).replace(&commit, &"f".repeat(40));
    let mut expected = arguments(unseen.split(' ').map(str::to_owned)).unwrap();
    expected.within = Duration::from_millis(300);
    let result = argo.wait(expected, &Cancellation::new()).await;
    assert_eq!(exit_code(&result), 4, "{result:?}");

    let missing = line(&image).replace("default/web", "default/nothing");
    let expected = arguments(missing.split(' ').map(str::to_owned)).unwrap();
    let result = argo.wait(expected, &Cancellation::new()).await;
    assert_eq!(exit_code(&result), 5, "{result:?}");
}

fn client(lab: &Lab) -> ArgoCd {
    let mut policy = WaitPolicy::default();
    policy.poll = Duration::from_millis(100);
    policy.first_refresh = Duration::from_millis(20);
    let login = Login::Token(lab.argocd().token().clone());
    let builder = ArgoCd::builder(lab.argocd().url(), login).unwrap();
    builder.wait_policy(policy).build().unwrap()
}

/// Puts the gallery's base image into the private registry, so that the cluster has something to run.
async fn stored_image(lab: &Lab) -> ImageRef {
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
    ecr.copy(&base.image, &target).await.unwrap().image
}

async fn pushed_deployment(lab: &Lab, image: &ImageRef) -> String {
    let repository = "acme/deploy".parse().unwrap();
    lab.github().create_repository(&repository, true).await.unwrap();
    let token = lab.github().token(AUTHOR).unwrap();
    let credentials = format!("http://{AUTHOR}:{}@", token.expose());
    let remote = lab.github().git_url(&repository).replace("http://", &credentials);
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": image}]}}}});
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("prod")).unwrap();
    std::fs::write(folder.path().join("prod/web.json"), deployment.to_string()).unwrap();
    // The lab serves the push from this runtime: it must not be blocked.
    tokio::task::spawn_blocking(move || {
        git(folder.path(), &["init", "--quiet", "--initial-branch=main"]);
        git(folder.path(), &["add", "--all"]);
        git(folder.path(), &["commit", "--quiet", "--message=deploy"]);
        git(folder.path(), &["push", "--quiet", &remote, "main"]);
        git(folder.path(), &["rev-parse", "HEAD"])
    })
    .await
    .unwrap()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
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
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
