//! A lab's Spacelift with two stacks and a git repository on disk, and a client of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use towpath_core::wait::Policy;
use towpath_core::{Cancellation, CommitSha, RunId, Secret, StackId};
use towpath_lab::Fault;
use towpath_lab::spacelift::{Delays, Planner, Spacelift as Lab, SpaceliftConfig, StackSeed};
use towpath_spacelift::{Confirmation, Infrastructure, InfrastructureExt, RetryPolicy, Run, Spacelift};

const KEY: &str = "01LABKEY";

pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) client: Spacelift,
    first: CommitSha,
    folder: TempDir,
}

pub(crate) fn policy() -> Policy {
    Policy::every(Duration::from_millis(5)).within(Duration::from_secs(60))
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut StackSeed)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("acme/infra.git");
        std::fs::create_dir_all(&repository).unwrap();
        git(&repository, &["init", "--quiet", "--initial-branch", "main"]);
        git(&repository, &["config", "receive.denyCurrentBranch", "ignore"]);
        let first = commit(&repository, &main("network"));
        let mut shared = StackSeed::new("shared", "acme/infra").with_worker_pool("shared-services");
        change(&mut shared);
        let apps = StackSeed::new("apps", "acme/infra")
            .with_worker_pool("apps")
            .with_dependency("shared");
        let lab = Lab::start(SpaceliftConfig {
            api_key_id: KEY.into(),
            api_key_secret: Secret::new("secret-of-the-lab"),
            git_base: Some(format!("file://{}", folder.path().display()).parse().unwrap()),
            stacks: vec![shared, apps],
            planner: Planner::BuiltIn,
            delays: Delays {
                pickup: Duration::ZERO,
                phase: Duration::ZERO,
                blocker_release: Duration::from_millis(1),
            },
            run_page: 2,
            log_page: 2,
            ..SpaceliftConfig::default()
        })
        .await
        .unwrap();
        let client = client(&lab, Secret::new("secret-of-the-lab"));
        Self {
            lab,
            client,
            first,
            folder,
        }
    }

    pub(crate) fn client_with(&self, secret: Secret) -> Spacelift {
        client(&self.lab, secret)
    }

    pub(crate) fn stack(&self) -> StackId {
        "shared".parse().unwrap()
    }

    pub(crate) fn commit(&self) -> CommitSha {
        self.first.clone()
    }

    /// One more commit, with one more resource.
    pub(crate) fn push(&self, address: &str) -> CommitSha {
        self.push_text(&main(address.rsplit('.').next().unwrap()))
    }

    pub(crate) fn push_text(&self, text: &str) -> CommitSha {
        commit(&self.folder.path().join("acme/infra.git"), text)
    }

    /// A run of the first commit that waits for a confirmation.
    pub(crate) async fn planned(&self) -> RunId {
        let run = self.client.trigger(&self.stack(), &self.first).await.unwrap();
        self.decided(&run.id).await.id
    }

    pub(crate) async fn decided(&self, run: &RunId) -> Run {
        let (stack, never) = (self.stack(), Cancellation::new());
        self.client
            .wait_for_decision(&stack, run, &policy(), &never)
            .await
            .unwrap()
    }

    pub(crate) async fn ended(&self, run: &RunId) -> Run {
        let (stack, never) = (self.stack(), Cancellation::new());
        self.client
            .wait_for_end(&stack, run, &policy(), &never)
            .await
            .unwrap()
    }

    /// What somebody who looks at the run now would confirm.
    pub(crate) async fn seen(&self, run: &RunId) -> Confirmation {
        let plan = self.client.plan(&self.stack(), run).await.unwrap();
        Confirmation {
            stack: self.stack(),
            run: run.clone(),
            commit: plan.commit.clone(),
            plan: plan.digest(),
            note: "approved by jo".into(),
        }
    }

    /// How many requests were carried out without an answer.
    pub(crate) fn lost_answers(&self) -> usize {
        self.lab
            .requests()
            .all()
            .iter()
            .filter(|seen| seen.status.is_none())
            .count()
    }

    /// The next request is answered, and the one after it is carried out without an answer.
    pub(crate) fn lose_second_answer(&self) {
        self.lab.faults().inject(Fault::delay("graphql", Duration::ZERO));
        self.lab.faults().inject(Fault::lose_answer("graphql"));
    }
}

fn client(lab: &Lab, secret: Secret) -> Spacelift {
    let retry = RetryPolicy::default()
        .attempts(2)
        .between(Duration::from_millis(1), Duration::from_millis(2));
    let builder = Spacelift::with_api_key(lab.url().as_str(), KEY, secret).unwrap();
    builder.retry(retry).build().unwrap()
}

fn main(name: &str) -> String {
    format!(
        "resource \"terraform_data\" \"{name}\" {{\n  input = \"10.0.0.0/16\"\n}}\n\noutput \"vpc\" {{\n  value = \"vpc-1\"\n}}\n"
    )
}

fn commit(repository: &Path, text: &str) -> CommitSha {
    std::fs::write(repository.join("main.tf"), text).unwrap();
    git(repository, &["add", "main.tf"]);
    git(
        repository,
        &["commit", "--quiet", "--message", "Change the network"],
    );
    git(repository, &["rev-parse", "HEAD"]).trim().parse().unwrap()
}

fn git(at: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=jo",
            "-c",
            "user.email=jo@example.com",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .current_dir(at)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
