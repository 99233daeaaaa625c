//! Promotion, rollback, hold and release at the lab's GitHub.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::TryStreamExt;
use std::sync::Arc;
use std::time::Duration;
use towpath_core::{BranchName, CommitSha, Digest, ImageRef, RepoSlug, Secret, requests};
use towpath_elements::source::Change;
use towpath_elements::{Error, Source};
use towpath_flow::effects::{Deployment, RollBack, To, WriteBack, WrittenBack};
use towpath_flow::{Effect, Elements};
use towpath_github::wire::NewRepository;
use towpath_github::{Credential, GitHub, GitHubConfig, RetryPolicy};
use towpath_lab::github as lab;
use towpath_tests_flows::main_branch;

async fn create(client: &GitHub, slug: &RepoSlug) {
    let new = NewRepository {
        auto_init: true,
        ..NewRepository::named(slug.name())
    };
    client.create_repository(slug.owner(), &new).await.unwrap();
}

async fn push(client: &GitHub, repository: &RepoSlug, path: &str, text: &str) -> CommitSha {
    let branch: BranchName = main_branch();
    let expected_head = client.head(repository, &branch).await.unwrap().unwrap();
    let change = Change {
        repository: repository.clone(),
        branch,
        expected_head,
        files: [(path.to_owned(), Some(text.as_bytes().to_vec()))].into(),
        message: "By hand".into(),
    };
    client.commit(change).await.unwrap()
}

async fn make<E: Effect>(elements: &Elements, effect: &E) -> Result<E::Output, Error> {
    match effect.observe(elements).await? {
        Some(output) => Ok(output),
        None => effect.apply(elements).await,
    }
}

fn image(build: usize) -> ImageRef {
    let digest = Digest::sha256_of(build.to_string());
    format!("quay.io/acme/web:v{build}@{digest}").parse().unwrap()
}

fn file(web: &ImageRef, api: &str) -> String {
    format!("spec:\n  containers:\n    - image: {web}  # by the flow\n    - image: {api}\n")
}

#[tokio::test]
async fn a_rollback_holds_until_it_is_released() {
    let config = lab::GitHubConfig {
        users: vec![lab::GitHubUser::new("mona", Secret::new("token-of-mona"))],
        ..lab::GitHubConfig::default()
    };
    let github = lab::GitHub::start(config).await.unwrap();
    let quick = RetryPolicy::default().between(Duration::from_millis(1), Duration::from_millis(10));
    let config = GitHubConfig::new(&github.api_url())
        .unwrap()
        .with_credential(Credential::Token(github.token("mona").unwrap()))
        .with_retries(quick);
    let client = GitHub::new(config).unwrap();
    let elements = Elements::new().with_source(Arc::new(client.clone()));
    let service: RepoSlug = "acme/web".parse().unwrap();
    let deployment = Deployment {
        repository: "acme/deployments".parse().unwrap(),
        branch: main_branch(),
        file: "shop.yaml".into(),
    };
    create(&client, &service).await;
    create(&client, &deployment.repository).await;
    let before: ImageRef = "quay.io/acme/web:before".parse().unwrap();
    push(
        &client,
        &deployment.repository,
        &deployment.file,
        &file(&before, "quay.io/acme/api:1"),
    )
    .await;

    let mut builds = Vec::new();
    for build in 0..3 {
        let commit = push(&client, &service, "src/main.rs", &build.to_string()).await;
        builds.push(WriteBack {
            deployment: deployment.clone(),
            image: image(build),
            source: service.clone(),
            commit,
            release_hold: None,
        });
    }
    make(&elements, &builds[0]).await.unwrap();
    let bad = make(&elements, &builds[1]).await.unwrap();
    push(
        &client,
        &deployment.repository,
        &deployment.file,
        &file(&image(1), "quay.io/acme/api:2"),
    )
    .await;

    let roll_back = RollBack {
        deployment: deployment.clone(),
        image: before,
        undo: bad.commit().clone(),
        to: To::Previous,
        reason: "orders are charged twice".into(),
    };
    let rolled_back = make(&elements, &roll_back).await.unwrap();
    assert_eq!(rolled_back.image, image(0));
    let (again, sent) = requests::count(make(&elements, &roll_back)).await;
    assert_eq!((again.unwrap(), sent), (rolled_back.clone(), 3));
    let text = async || {
        let head = client
            .head(&deployment.repository, &deployment.branch)
            .await
            .unwrap()
            .unwrap();
        let bytes = client.file(&deployment.repository, &head, &deployment.file).await;
        String::from_utf8(bytes.unwrap().unwrap()).unwrap()
    };
    assert_eq!(text().await, file(&image(0), "quay.io/acme/api:2"));

    let (held, sent) = requests::count(make(&elements, &builds[2])).await;
    let held = held.unwrap_err();
    assert!(
        held.is_conflict() && held.detail().contains("orders are charged twice"),
        "{held}"
    );
    assert_eq!(sent, 3, "head, file, history");
    let released = WriteBack {
        release_hold: Some("charges are fixed".into()),
        ..builds[2].clone()
    };
    let written = make(&elements, &released).await.unwrap();
    assert_eq!(text().await, file(&image(2), "quay.io/acme/api:2"));
    let promotions: Vec<_> = deployment
        .promotions(&client, &image(0))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(written, WrittenBack::Promoted(promotions[0].commit.clone()));
    let holds: Vec<_> = promotions.iter().map(|one| one.hold.is_some()).collect();
    assert_eq!(holds, [false, true, false, false]);
}
