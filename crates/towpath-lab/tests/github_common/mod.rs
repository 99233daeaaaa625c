//! What the tests of GitHub and of Actions share: a started server, real git, plain HTTP.
#![allow(dead_code, reason = "each test file uses its own part")]

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use towpath_core::RepoSlug;
use towpath_lab::github::{GitHub, GitHubConfig, GitHubUser, Run};

pub(crate) struct World {
    pub(crate) github: GitHub,
    pub(crate) slug: RepoSlug,
    pub(crate) folder: tempfile::TempDir,
    client: Client,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(GitHubConfig::default(), true).await
    }

    pub(crate) async fn with(mut config: GitHubConfig, private: bool) -> Self {
        let mut stranger = GitHubUser::new("stranger", "ghp_stranger".to_owned().into());
        stranger.member = false;
        config.users.push(stranger);
        let github = GitHub::start(config).await.unwrap();
        let slug: RepoSlug = "acme/shop".parse().unwrap();
        github.create_repository(&slug, private).await.unwrap();
        let client = Client::builder().no_proxy().user_agent("test").build().unwrap();
        Self {
            github,
            slug,
            folder: tempfile::tempdir().unwrap(),
            client,
        }
    }

    pub(crate) fn token(&self, login: &str) -> String {
        self.github.token(login).unwrap().expose().to_owned()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.github.api_url())
        };
        self.client.request(method, url)
    }

    /// Sends a request as a user and reads the JSON answer.
    pub(crate) async fn ask(
        &self,
        login: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let mut request = self
            .request(method, path)
            .header("Authorization", format!("token {}", self.token(login)));
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("mona", Method::GET, &self.repo(path), Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask("mona", Method::POST, &self.repo(path), body).await
    }

    pub(crate) fn repo(&self, path: &str) -> String {
        format!("/repos/{}{path}", self.slug)
    }

    /// The address of the repository with a user's token in it.
    pub(crate) fn remote(&self, login: &str) -> String {
        let token = self.token(login);
        self.github
            .git_url(&self.slug)
            .replace("http://", &format!("http://x-access-token:{token}@"))
    }

    pub(crate) fn git(&self, folder: &str, args: &[&str]) -> Output {
        git(&self.folder.path().join(folder), args)
    }

    /// Writes files, commits and pushes them to a branch with plain git; returns the commit.
    pub(crate) async fn push(&self, branch: &str, files: &[(&str, &str)]) -> String {
        let folder = self.folder.path().join("work");
        if !folder.exists() {
            std::fs::create_dir(&folder).unwrap();
            done(&git(&folder, &["init", "-q", "-b", "main"]));
            done(&git(&folder, &["remote", "add", "origin", &self.remote("mona")]));
        }
        if branch != "main" {
            done(&git(&folder, &["checkout", "-q", "-B", branch]));
        }
        for (path, text) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        done(&git(&folder, &["add", "-A"]));
        done(&git(
            &folder,
            &["commit", "-q", "-m", &format!("change {}", files[0].0)],
        ));
        let refspec = format!("HEAD:refs/heads/{branch}");
        let folder_of_push = folder.clone();
        let pushed =
            tokio::task::spawn_blocking(move || git(&folder_of_push, &["push", "-q", "origin", &refspec]));
        done(&pushed.await.unwrap());
        String::from_utf8(git(&folder, &["rev-parse", "HEAD"]).stdout)
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Waits until the condition holds; a minute is only for a test that fails.
    pub(crate) async fn until<T>(&self, what: &str, mut condition: impl FnMut(&GitHub) -> Option<T>) -> T {
        for _ in 0..6000 {
            if let Some(value) = condition(&self.github) {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never happened: {what}; runs: {:#?}", self.github.runs());
    }

    pub(crate) async fn completed(&self, count: usize) -> Vec<Run> {
        self.until("the runs complete", |github| {
            let runs = github.runs();
            (runs.len() == count && runs.iter().all(|run| run.status == "completed")).then_some(runs)
        })
        .await
    }
}

pub(crate) fn git(folder: &Path, args: &[&str]) -> Output {
    Command::new("git")
        .current_dir(folder)
        .args([
            "-c",
            "user.name=Mona",
            "-c",
            "user.email=mona@users.noreply.github.com",
        ])
        .args(["-c", "commit.gpgsign=false", "-c", "http.proxy="])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .unwrap()
}

pub(crate) fn done(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
