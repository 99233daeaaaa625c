//! A lab with a repository on disk, and a client that knows nothing but JSON.

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use towpath_lab::spacelift::{Delays, Planner, Run, RunState, Spacelift, SpaceliftConfig, StackSeed};

pub(crate) const SECRET: &str = "webhook-canary";

pub(crate) struct Account {
    pub(crate) spacelift: Spacelift,
    pub(crate) token: String,
    folder: tempfile::TempDir,
}

/// A configuration with short delays and a place for `acme/infra`.
pub(crate) fn config(planner: Planner, stacks: Vec<StackSeed>) -> SpaceliftConfig {
    let millisecond = Duration::from_millis(1);
    SpaceliftConfig {
        planner,
        stacks,
        webhook_secret: SECRET.to_owned().into(),
        delays: Delays {
            pickup: millisecond,
            phase: millisecond,
            blocker_release: millisecond,
        },
        ..SpaceliftConfig::default()
    }
}

impl Account {
    pub(crate) async fn start(mut config: SpaceliftConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("acme")).unwrap();
        git(
            folder.path(),
            &[
                "init",
                "--quiet",
                "--bare",
                "--initial-branch=main",
                "acme/infra.git",
            ],
        );
        git(
            folder.path(),
            &["init", "--quiet", "--initial-branch=main", "work"],
        );
        config.git_base = Some(url::Url::from_directory_path(folder.path()).unwrap());
        let secret = config.api_key_secret.expose().to_owned();
        let id = config.api_key_id.clone();
        let spacelift = Spacelift::start(config).await.unwrap();
        let mut account = Self {
            spacelift,
            token: String::new(),
            folder,
        };
        let document = "mutation($id: ID!, $secret: String!) { apiKeyUser(id: $id, secret: $secret) { jwt validUntil } }";
        let user = account.ask(document, json!({"id": id, "secret": secret})).await;
        account.token = user["apiKeyUser"]["jwt"].as_str().unwrap().to_owned();
        account
    }

    /// Commits files (an empty text removes one) on a branch, pushes, and says the old and the new commit.
    pub(crate) fn commit(&self, branch: &str, files: &[(&str, &str)]) -> (String, String) {
        let work = self.folder.path().join("work");
        let zero = "0".repeat(40);
        let before = Command::new("git")
            .args(["rev-parse", "--verify", "-q", branch])
            .current_dir(&work)
            .output()
            .unwrap();
        let before = String::from_utf8(before.stdout).unwrap().trim().to_owned();
        if before.is_empty() {
            Command::new("git")
                .args(["checkout", "-q", "-b", branch])
                .current_dir(&work)
                .output()
                .unwrap();
        } else {
            git(&work, &["checkout", "-q", branch]);
        }
        for (name, text) in files {
            let path = work.join(name);
            if text.is_empty() {
                std::fs::remove_file(path).unwrap();
            } else {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
        }
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "-q", "-m", "Change the infrastructure"]);
        git(&work, &["push", "-q", "../acme/infra.git", branch]);
        let after = git(&work, &["rev-parse", "HEAD"]).trim().to_owned();
        (if before.is_empty() { zero } else { before }, after)
    }

    /// Commits, and delivers the push with a right signature and no list of files.
    pub(crate) async fn push(&self, branch: &str, files: &[(&str, &str)]) -> String {
        let (before, after) = self.commit(branch, files);
        let body = json!({"ref": format!("refs/heads/{branch}"), "before": before, "after": after,
                          "repository": {"full_name": "acme/infra"}, "commits": []});
        assert_eq!(self.deliver(&body, SECRET).await, 200);
        after
    }

    pub(crate) async fn deliver(&self, body: &Value, secret: &str) -> u16 {
        use hmac::{Hmac, KeyInit as _, Mac as _};
        let text = body.to_string();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        reqwest::Client::new()
            .post(self.spacelift.url().join("webhooks/github").unwrap())
            .header("x-github-event", "push")
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .body(text)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    /// The whole answer to a document.
    pub(crate) async fn answer(&self, document: &str, variables: Value) -> Value {
        self.send(&json!({"query": document, "variables": variables}))
            .await
    }

    pub(crate) async fn send(&self, body: &Value) -> Value {
        let mut request = reqwest::Client::new()
            .post(self.spacelift.url().join("graphql").unwrap())
            .json(body);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// The data; there must be no errors.
    pub(crate) async fn ask(&self, document: &str, variables: Value) -> Value {
        let answer = self.answer(document, variables).await;
        assert_eq!(answer.get("errors"), None, "{document}");
        answer["data"].clone()
    }

    /// The first error's message; there must be one.
    pub(crate) async fn refusal(&self, document: &str, variables: Value) -> String {
        let answer = self.answer(document, variables).await;
        answer["errors"][0]["message"]
            .as_str()
            .unwrap_or_else(|| panic!("no error: {answer}"))
            .to_owned()
    }

    /// Waits for the newest run of a stack to be in a state, and returns it.
    pub(crate) async fn wait(&self, stack: &str, state: RunState) -> Run {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let run = self.spacelift.runs_of(stack).pop();
            match run {
                Some(run) if run.state() == state => return run,
                run => assert!(
                    Instant::now() < deadline,
                    "{stack} never came to {state:?}: {run:#?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn confirm(&self, run: &Run) {
        let document = "mutation($s: ID!, $r: ID!) { runConfirm(stack: $s, run: $r) { state } }";
        let answer = self.ask(document, json!({"s": run.stack, "r": run.id})).await;
        assert_eq!(answer["runConfirm"]["state"], "CONFIRMED");
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let done = Command::new("git")
        .args([
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.com",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap()
}
