//! Workflows, their runs, and the jobs of these.

use super::{CheckConclusion, CheckStatus, default_on_null};
use jiff::Timestamp;
use serde::Deserialize;
use towpath_core::CommitSha;
use url::Url;

/// A workflow.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Workflow {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its file, such as `.github/workflows/ci.yml`.
    #[serde(default)]
    pub path: String,
    /// `active`, or why it is not.
    #[serde(default)]
    pub state: String,
}

/// A run of a workflow.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct WorkflowRun {
    /// Its number.
    pub id: u64,
    /// The workflow's name.
    pub name: Option<String>,
    /// What people see as its title: the commit's first line, or what the workflow's `run-name` makes.
    pub display_title: Option<String>,
    /// The workflow's file.
    pub path: Option<String>,
    /// The commit.
    pub head_sha: CommitSha,
    /// The branch.
    pub head_branch: Option<String>,
    /// What started it, such as `push`.
    #[serde(default)]
    pub event: String,
    /// Which attempt it is, from 1.
    pub run_attempt: Option<u32>,
    /// How far it is.
    pub status: Option<CheckStatus>,
    /// How it ended.
    pub conclusion: Option<CheckConclusion>,
    /// Where people see it.
    pub html_url: Option<Url>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
}

/// A job of a run.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// How far it is.
    pub status: CheckStatus,
    /// How it ended.
    pub conclusion: Option<CheckConclusion>,
    /// Its steps; none before a runner took it.
    #[serde(default, deserialize_with = "default_on_null")]
    pub steps: Vec<Step>,
    /// Where people see it.
    pub html_url: Option<Url>,
}

/// A step of a job.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Which one it is, from 1.
    #[serde(default)]
    pub number: u64,
    /// How it ended.
    pub conclusion: Option<CheckConclusion>,
}

/// The answer to a dispatch that was asked for details.
#[derive(Debug, Deserialize)]
pub(crate) struct Dispatched {
    pub(crate) workflow_run_id: u64,
}
