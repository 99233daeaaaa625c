//! The events a delivery flow listens to. Each model holds the fields that flows use; everything else is in
//! [`Event::raw`]. An event that this version does not know is [`Payload::Other`], not an error.

use super::WebhookError;
use crate::wire::{
    CheckConclusion, CheckStatus, Deployment, DeploymentStatus, PullRequest, PullRequestReview, Repository,
    StatusState, User, WorkflowRun, commit_or_none, default_on_null,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use towpath_core::CommitSha;
use url::Url;

/// Something that happened, as a webhook tells it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The kind, as in `X-GitHub-Event`, such as `push`.
    pub kind: String,
    /// What happened to the subject, such as `completed`; some events have none.
    pub action: Option<String>,
    /// The repository, where the event belongs to one.
    pub repository: Option<Repository>,
    /// Who did it.
    pub sender: Option<User>,
    /// The installation of the GitHub App that the event was sent to.
    pub installation: Option<u64>,
    /// The subject.
    pub payload: Payload,
    /// The whole payload.
    pub raw: Value,
}

/// The subject of an event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Payload {
    /// The hook was created.
    Ping,
    /// A branch or a tag moved.
    Push(Box<PushEvent>),
    /// A pull request was opened, changed, closed.
    PullRequest(Box<PullRequestEvent>),
    /// A pull request was reviewed.
    PullRequestReview(Box<ReviewEvent>),
    /// A workflow run was requested, started or completed.
    WorkflowRun(Box<WorkflowRunEvent>),
    /// A check run was created or changed.
    CheckRun(Box<CheckEvent>),
    /// A check suite was requested or completed.
    CheckSuite(Box<CheckEvent>),
    /// A commit status was written.
    Status(Box<StatusEvent>),
    /// A deployment was created.
    Deployment(Box<DeploymentEvent>),
    /// A deployment's status was written.
    DeploymentStatus(Box<DeploymentEvent>),
    /// Any other event; look at [`Event::raw`].
    Other,
}

impl Event {
    /// Reads an event from its kind and its JSON.
    ///
    /// # Errors
    /// [`WebhookError::Unreadable`] where the JSON is not JSON, or lacks what its kind cannot be without.
    pub fn read(kind: &str, json: &[u8]) -> Result<Self, WebhookError> {
        let unreadable = |error: serde_json::Error| WebhookError::Unreadable {
            event: kind.chars().take(80).collect(),
            reason: error.to_string(),
        };
        let raw: Value = serde_json::from_slice(json).map_err(unreadable)?;
        let common = Common::deserialize(&raw).map_err(unreadable)?;
        let payload = match kind {
            "ping" => Ok(Payload::Ping),
            "push" => boxed(&raw, Payload::Push),
            "pull_request" => boxed(&raw, Payload::PullRequest),
            "pull_request_review" => boxed(&raw, Payload::PullRequestReview),
            "workflow_run" => boxed(&raw, Payload::WorkflowRun),
            "check_run" => boxed(&raw, Payload::CheckRun),
            "check_suite" => boxed(&raw, Payload::CheckSuite),
            "status" => boxed(&raw, Payload::Status),
            "deployment" => boxed(&raw, Payload::Deployment),
            "deployment_status" => boxed(&raw, Payload::DeploymentStatus),
            _ => Ok(Payload::Other),
        }
        .map_err(unreadable)?;
        Ok(Self {
            kind: kind.to_owned(),
            action: common.action,
            repository: common.repository,
            sender: common.sender,
            installation: common.installation.map(|installation| installation.id),
            payload,
            raw,
        })
    }
}

fn boxed<'a, T: Deserialize<'a>>(
    raw: &'a Value,
    payload: fn(Box<T>) -> Payload,
) -> Result<Payload, serde_json::Error> {
    T::deserialize(raw).map(|event| payload(Box::new(event)))
}

#[derive(Deserialize)]
struct Common {
    action: Option<String>,
    repository: Option<Repository>,
    sender: Option<User>,
    installation: Option<Installation>,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

/// A branch or a tag moved.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct PushEvent {
    /// The full name of what moved, such as `refs/heads/main`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Where it was; `None` if it was created.
    #[serde(default, deserialize_with = "commit_or_none")]
    pub before: Option<CommitSha>,
    /// Where it is; `None` if it was deleted.
    #[serde(default, deserialize_with = "commit_or_none")]
    pub after: Option<CommitSha>,
    /// Whether it moved to a commit that does not contain the one before.
    #[serde(default)]
    pub forced: bool,
    /// The commits that came in, oldest first, at most 2,048.
    #[serde(default, deserialize_with = "default_on_null")]
    pub commits: Vec<PushCommit>,
}

impl PushEvent {
    /// The branch that moved; `None` for a tag.
    pub fn branch(&self) -> Option<&str> {
        self.reference.strip_prefix("refs/heads/")
    }
}

/// A commit of a push.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct PushCommit {
    /// Its name.
    pub id: CommitSha,
    /// Its message.
    #[serde(default)]
    pub message: String,
    /// When it was committed.
    pub timestamp: Option<Timestamp>,
    /// The files it adds.
    #[serde(default)]
    pub added: Vec<String>,
    /// The files it changes.
    #[serde(default)]
    pub modified: Vec<String>,
    /// The files it removes.
    #[serde(default)]
    pub removed: Vec<String>,
}

/// A pull request was opened, changed, closed.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct PullRequestEvent {
    /// The pull request as it stands.
    pub pull_request: PullRequest,
}

/// A pull request was reviewed.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct ReviewEvent {
    /// The review. Its `state` is in lower case here and in upper case in the API.
    pub review: PullRequestReview,
    /// The pull request, without the fields that only the API has.
    pub pull_request: PullRequest,
}

/// A workflow run was requested, started or completed.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct WorkflowRunEvent {
    /// The run as it stood.
    pub workflow_run: WorkflowRun,
}

/// A check run or a check suite was created or changed.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct CheckEvent {
    /// The run or the suite.
    #[serde(alias = "check_run", alias = "check_suite")]
    pub check: Check,
}

/// What check runs and check suites have in common.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Check {
    /// Its number.
    pub id: u64,
    /// Its name; a suite has none.
    pub name: Option<String>,
    /// The commit.
    pub head_sha: CommitSha,
    /// How it stands.
    pub status: Option<CheckStatus>,
    /// How it ended.
    pub conclusion: Option<CheckConclusion>,
}

/// A commit status was written.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct StatusEvent {
    /// The commit.
    pub sha: CommitSha,
    /// Which status of it.
    #[serde(default)]
    pub context: String,
    /// How it stands.
    pub state: StatusState,
    /// One line about it.
    pub description: Option<String>,
    /// Where to read more.
    pub target_url: Option<Url>,
}

/// A deployment, or its status, was written.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct DeploymentEvent {
    /// The deployment.
    pub deployment: Deployment,
    /// Its status, in a `deployment_status` event.
    pub deployment_status: Option<DeploymentStatus>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(kind: &str, payload: Value) -> Event {
        Event::read(kind, payload.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_push_tells_a_new_branch_from_a_moved_one() {
        let sha = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c";
        let event = read(
            "push",
            json!({
                "ref": "refs/heads/feature/x", "before": "0".repeat(40), "after": sha, "created": true, "forced": false,
                "repository": {"id": 1, "full_name": "acme/shop", "pushed_at": 1_730_000_000},
                "sender": {"login": "ann", "id": 2},
                "commits": [{"id": sha, "message": "x", "timestamp": "2026-11-01T10:00:00+02:00", "added": ["a"]}],
            }),
        );
        let Payload::Push(push) = event.payload else {
            panic!()
        };
        assert_eq!((push.branch(), push.before.clone()), (Some("feature/x"), None));
        assert_eq!(push.after.unwrap().as_str(), sha);
        assert_eq!(push.commits[0].added, ["a"]);
        assert_eq!(event.repository.unwrap().full_name, "acme/shop");
        let deleted = read(
            "push",
            json!({"ref": "refs/tags/v1", "before": sha, "after": "0".repeat(40), "commits": null}),
        );
        let Payload::Push(push) = deleted.payload else {
            panic!()
        };
        assert_eq!((push.branch(), push.after.clone()), (None, None));
    }

    #[test]
    fn a_deployment_made_through_the_api_has_no_workflow() {
        let sha = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c";
        let event = read(
            "deployment",
            json!({"action": "created", "deployment": {"id": 7, "sha": sha, "ref": "main", "environment": "live"}, "workflow": null}),
        );
        assert!(matches!(event.payload, Payload::Deployment(deployment) if deployment.deployment.id == 7));
        let suite = read(
            "check_suite",
            json!({"action": "completed", "check_suite": {"id": 1, "head_sha": sha, "status": "completed", "conclusion": "made_up"}}),
        );
        let Payload::CheckSuite(suite) = suite.payload else {
            panic!()
        };
        assert_eq!(
            suite.check.conclusion,
            Some(CheckConclusion::Other("made_up".into()))
        );
    }

    #[test]
    fn an_unknown_event_is_kept_whole() {
        let event = read(
            "deployment_review",
            json!({"action": "approved", "approver": {"login": "cy"}}),
        );
        assert!(matches!(event.payload, Payload::Other));
        assert_eq!(event.raw["approver"]["login"], "cy");
        assert!(Event::read("x", b"[1]").is_err());
    }
}
