//! The lab's GitHub, and a client of it, for the tests whose worlds are pushed to.

use std::time::Duration;
use towpath_core::{BranchName, CommitSha, RepoSlug, Secret};
use towpath_elements::Source;
use towpath_elements::source::Change;
use towpath_github::wire::NewRepository;
use towpath_github::{Credential, GitHub, GitHubConfig, RetryPolicy};
use towpath_lab::github as lab;

/// Who the client acts as.
pub(crate) const LOGIN: &str = "mona";

pub(crate) struct Hub {
    pub(crate) lab: lab::GitHub,
    pub(crate) client: GitHub,
}

impl Hub {
    /// With these users beside [`LOGIN`], all members of the organisation `acme`.
    pub(crate) async fn start(others: &[&str]) -> Self {
        let users = [LOGIN].iter().chain(others);
        let users = users.map(|login| lab::GitHubUser::new(*login, Secret::new(format!("token-of-{login}"))));
        let config = lab::GitHubConfig {
            users: users.collect(),
            ..lab::GitHubConfig::default()
        };
        let lab = lab::GitHub::start(config).await.unwrap();
        let client = client(&lab, LOGIN);
        Self { lab, client }
    }

    /// Makes a repository with a README.
    pub(crate) async fn create(&self, repository: &RepoSlug) {
        let new = NewRepository {
            auto_init: true,
            ..NewRepository::named(repository.name())
        };
        self.client
            .create_repository(repository.owner(), &new)
            .await
            .unwrap();
    }

    /// Puts a commit with these files on top of a branch.
    pub(crate) async fn push(
        &self,
        repository: &RepoSlug,
        branch: &BranchName,
        files: &[(&str, &str)],
    ) -> CommitSha {
        push(&self.client, repository, branch, files).await
    }
}

/// Puts a commit with these files on top of a branch, as the user of the client.
pub(crate) async fn push(
    client: &GitHub,
    repository: &RepoSlug,
    branch: &BranchName,
    files: &[(&str, &str)],
) -> CommitSha {
    let head = client.head(repository, branch).await.unwrap().unwrap();
    let files = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), Some(text.as_bytes().to_vec())));
    let change = Change {
        repository: repository.clone(),
        branch: branch.clone(),
        expected_head: head,
        files: files.collect(),
        message: "Change".into(),
    };
    client.commit(change).await.unwrap()
}

/// A client that acts as this user and loses no time.
pub(crate) fn client(lab: &lab::GitHub, login: &str) -> GitHub {
    let quick = RetryPolicy::default().between(Duration::from_millis(1), Duration::from_millis(10));
    let config = GitHubConfig::new(&lab.api_url())
        .unwrap()
        .with_credential(Credential::Token(lab.token(login).unwrap()))
        .with_retries(quick);
    GitHub::new(config).unwrap()
}

pub(crate) fn main() -> BranchName {
    "main".parse().unwrap()
}
