//! What a run is about, from the runner's default variables (*Variables reference* of GitHub Actions).

use crate::{Environment, Error, Result};
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use towpath_core::{BranchName, CiRunId, CommitSha, RepoSlug};
use url::Url;

const ADVICE: &str = "the runner sets it for each step; run inside GitHub Actions, and hand it on where a container or sudo drops it";

/// What a run is about, and where its services are.
///
/// On GitHub Enterprise Server the URLs are the server's own: use them, never a fixed host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// The repository (`GITHUB_REPOSITORY`).
    pub repository: RepoSlug,
    /// The commit (`GITHUB_SHA`). For a pull request it is the trial merge; see [`head_sha`](Self::head_sha).
    pub sha: CommitSha,
    /// The full reference (`GITHUB_REF`), such as `refs/heads/main`, `refs/tags/v1` or `refs/pull/7/merge`.
    pub reference: String,
    /// The branch that was pushed, or the source branch of the pull request; `None` for a tag.
    pub branch: Option<BranchName>,
    /// The run (`GITHUB_RUN_ID`). It stays the same when the run is tried again.
    pub run_id: CiRunId,
    /// Which try of the run this is, from 1 (`GITHUB_RUN_ATTEMPT`).
    pub attempt: u32,
    /// The event that started the run (`GITHUB_EVENT_NAME`), such as `push`.
    pub event_name: String,
    /// The event itself, as the webhook would have brought it (the file that `GITHUB_EVENT_PATH` names).
    pub event: Value,
    /// The base of the REST API (`GITHUB_API_URL`).
    pub api_url: Url,
    /// The base of the web pages (`GITHUB_SERVER_URL`).
    pub server_url: Url,
    /// The folder that the repository is checked out into (`GITHUB_WORKSPACE`).
    pub workspace: PathBuf,
    /// The user who started the run (`GITHUB_ACTOR`).
    pub actor: String,
    /// The id of the job in the workflow file (`GITHUB_JOB`).
    pub job: String,
}

impl Context {
    pub(crate) fn read(environment: &Environment) -> Result<Self> {
        let text = |name| environment.require(name, ADVICE).map(str::to_owned);
        let reference = text("GITHUB_REF")?;
        let branch = match reference.strip_prefix("refs/heads/") {
            Some(branch) => Some(check("GITHUB_REF", branch)?),
            None => environment
                .get("GITHUB_HEAD_REF")?
                .map(|branch| check("GITHUB_HEAD_REF", branch))
                .transpose()?,
        };
        Ok(Self {
            repository: parse(environment, "GITHUB_REPOSITORY")?,
            sha: parse(environment, "GITHUB_SHA")?,
            reference,
            branch,
            run_id: CiRunId(parse(environment, "GITHUB_RUN_ID")?),
            attempt: parse(environment, "GITHUB_RUN_ATTEMPT")?,
            event_name: text("GITHUB_EVENT_NAME")?,
            event: event(environment)?,
            api_url: parse(environment, "GITHUB_API_URL")?,
            server_url: parse(environment, "GITHUB_SERVER_URL")?,
            workspace: PathBuf::from(text("GITHUB_WORKSPACE")?),
            actor: text("GITHUB_ACTOR")?,
            job: text("GITHUB_JOB")?,
        })
    }

    /// The commit that was pushed or proposed: the head of the pull request where there is one, else [`sha`](Self::sha).
    ///
    /// # Errors
    /// [`Error::Malformed`] where the event names a head that is not a commit.
    pub fn head_sha(&self) -> Result<CommitSha> {
        match self
            .event
            .pointer("/pull_request/head/sha")
            .and_then(Value::as_str)
        {
            Some(sha) => check("GITHUB_EVENT_PATH", sha),
            None => Ok(self.sha.clone()),
        }
    }
}

fn parse<T: FromStr<Err: fmt::Display>>(environment: &Environment, name: &'static str) -> Result<T> {
    check(name, environment.require(name, ADVICE)?)
}

fn check<T: FromStr<Err: fmt::Display>>(name: &'static str, value: &str) -> Result<T> {
    value.parse().map_err(|error: T::Err| Error::Malformed {
        name: name.to_owned(),
        reason: error.to_string(),
    })
}

fn event(environment: &Environment) -> Result<Value> {
    const VARIABLE: &str = "GITHUB_EVENT_PATH";
    let path = PathBuf::from(environment.require(VARIABLE, ADVICE)?);
    let bytes = std::fs::read(&path).map_err(|source| Error::File {
        action: "read",
        variable: VARIABLE,
        path: path.clone(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
        name: VARIABLE.to_owned(),
        reason: format!("the file {} is not JSON: {error}", path.display()),
    })
}
