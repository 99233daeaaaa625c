//! Workflows and their runs (`/repos/{owner}/{repo}/actions`).

use crate::client::GitHub;
use crate::connection::Request;
use crate::page::{Items, all};
use crate::wire::{Dispatched, Job, Workflow, WorkflowRun};
use futures_util::TryStreamExt;
use http::{Method, StatusCode};
use serde_json::json;
use std::collections::VecDeque;
use std::time::Duration;
use towpath_core::wait::{self, Judgement, Outcome, Policy};
use towpath_core::{Cancellation, CiRunId, CommitSha, RepoSlug};
use towpath_elements::ci::StartRun;
use towpath_elements::{Error, ErrorKind, Result};

/// How much of one line of a log is kept.
const LONGEST_LINE: usize = 16 * 1024;

impl GitHub {
    /// The workflows of a repository.
    pub async fn workflows(&self, repository: &RepoSlug) -> Result<Vec<Workflow>> {
        let request = Request::repository(Method::GET, repository, ["actions", "workflows"])
            .doing("list the workflows of", repository);
        all(&self.connection, request, Items::Under("workflows")).await
    }

    /// The runs on a commit, newest first.
    pub async fn workflow_runs(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<WorkflowRun>> {
        let request = Request::repository(Method::GET, repository, ["actions", "runs"])
            .query("head_sha", commit.as_str())
            .doing(
                "list the workflow runs of",
                format!("{repository} at {}", commit.short()),
            );
        let mut runs: Vec<WorkflowRun> =
            all(&self.connection, request, Items::Under("workflow_runs")).await?;
        // A server too old to know the filter answers with every run.
        runs.retain(|run| run.head_sha == *commit);
        runs.sort_by_key(|run| std::cmp::Reverse((run.created_at, run.id)));
        Ok(runs)
    }

    /// One run.
    ///
    /// # Errors
    /// *Not found* where there is none.
    pub async fn workflow_run(&self, repository: &RepoSlug, run: CiRunId) -> Result<WorkflowRun> {
        self.connection
            .json(&on_run(Method::GET, repository, run, []).doing("read", named(repository, run)))
            .await
    }

    /// The jobs of a run's latest attempt.
    ///
    /// # Errors
    /// *Not found* where there is no such run.
    pub async fn workflow_jobs(&self, repository: &RepoSlug, run: CiRunId) -> Result<Vec<Job>> {
        let request = on_run(Method::GET, repository, run, ["jobs"])
            .query("filter", "latest")
            .doing("list the jobs of", named(repository, run));
        all(&self.connection, request, Items::Under("jobs")).await
    }

    /// The end of a job's log, at most `lines` lines, each cut at 16 KiB. The log is read as it comes and not kept.
    ///
    /// # Errors
    /// *Not found* where there is no such job, no log yet, or none any more.
    pub async fn job_log(&self, repository: &RepoSlug, job: u64, lines: usize) -> Result<String> {
        // GitHub redirects to a store of its own; the token stays behind.
        let request = Request::repository(
            Method::GET,
            repository,
            ["actions", "jobs", &job.to_string(), "logs"],
        )
        .doing("read the log of", format!("job {job} of {repository}"));
        let answer = self.connection.stream(&request).await?;
        if !answer.status().is_success() {
            return Err(self.connection.refused(&answer.into_answer().await?));
        }
        let mut tail = Tail::new(lines);
        let mut chunks = answer.chunks();
        while let Some(chunk) = chunks.try_next().await? {
            tail.take(&chunk);
        }
        Ok(tail.text())
    }

    /// Runs a finished run again, as a new attempt. It is sent once: look at the attempt before trying again.
    ///
    /// # Errors
    /// *Conflict* where it is still running.
    pub async fn rerun_workflow(&self, repository: &RepoSlug, run: CiRunId) -> Result<()> {
        let request =
            on_run(Method::POST, repository, run, ["rerun"]).doing("run again", named(repository, run));
        self.connection.answer(&request).await.map(drop)
    }

    /// Asks a run to stop; it takes a while to.
    ///
    /// # Errors
    /// *Conflict* where it is over.
    pub async fn cancel_workflow(&self, repository: &RepoSlug, run: CiRunId) -> Result<()> {
        let request =
            on_run(Method::POST, repository, run, ["cancel"]).doing("cancel", named(repository, run));
        self.connection.answer(&request).await.map(drop)
    }

    /// Starts a workflow by hand (`workflow_dispatch`) and finds the run that this started.
    ///
    /// github.com names the run. Enterprise Server up to 3.19 does not: there the new run of this workflow, branch and
    /// event is looked for, for half a minute. Where several people start the same workflow at once, give it an input
    /// whose value the workflow shows in its `run-name`; a run whose title holds a value of `inputs` of at least eight
    /// characters is taken for ours.
    ///
    /// # Errors
    /// *Conflict* where several new runs are there and none can be told to be ours; *timed out* where none appears.
    pub async fn dispatch_workflow(&self, start: &StartRun) -> Result<CiRunId> {
        let subject = format!("workflow {} of {}", start.workflow, start.repository);
        let before = self
            .newest_dispatched(start)
            .await?
            .iter()
            .map(|run| run.id)
            .max()
            .unwrap_or(0);
        let body = json!({ "ref": start.branch, "inputs": start.inputs, "return_run_details": true });
        let path = ["actions", "workflows", &start.workflow, "dispatches"];
        let request = |body| {
            Request::repository(Method::POST, &start.repository, path)
                .doing("start", &subject)
                .body(body)
        };
        let mut answer = self.connection.send(&request(&body)?).await?;
        let unknown_field = matches!(
            answer.status(),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
        ) && String::from_utf8_lossy(answer.body()).contains("return_run_details");
        if unknown_field {
            let body = json!({ "ref": start.branch, "inputs": start.inputs });
            answer = self.connection.send(&request(&body)?).await?;
        }
        if !answer.status().is_success() {
            return Err(self.connection.refused(&answer));
        }
        if answer.status() == StatusCode::OK {
            return Ok(CiRunId(answer.json::<Dispatched>()?.workflow_run_id));
        }
        self.find_dispatched(start, before, &subject).await
    }

    /// The latest hundred runs that were started by hand on the branch.
    async fn newest_dispatched(&self, start: &StartRun) -> Result<Vec<WorkflowRun>> {
        #[derive(serde::Deserialize)]
        struct Runs {
            workflow_runs: Vec<WorkflowRun>,
        }
        let path = ["actions", "workflows", &start.workflow, "runs"];
        let request = Request::repository(Method::GET, &start.repository, path)
            .query("event", "workflow_dispatch")
            .query("branch", start.branch.as_str())
            .query("per_page", "100")
            .doing(
                "start",
                format!("workflow {} of {}", start.workflow, start.repository),
            );
        let runs: Runs = self.connection.json(&request).await?;
        Ok(runs.workflow_runs)
    }

    async fn find_dispatched(&self, start: &StartRun, before: u64, subject: &str) -> Result<CiRunId> {
        let policy = Policy::growing(Duration::from_millis(200), Duration::from_secs(3))
            .within(Duration::from_secs(30));
        let outcome = wait::until(
            &policy,
            &Cancellation::new(),
            || async {
                let mut runs = self.newest_dispatched(start).await?;
                runs.retain(|run| run.id > before);
                Ok(runs)
            },
            Error::retry,
            |runs: &Vec<WorkflowRun>| match ours(runs, start) {
                Some(_) => Judgement::Met,
                None if runs.is_empty() => Judgement::pending("the run to appear"),
                None => Judgement::failed(
                    "several runs were started at the same time, and their titles tell nothing",
                ),
            },
        )
        .await;
        let problem = |kind| Error::new(kind, crate::connection::SERVICE, "find the run of", subject);
        match outcome {
            Outcome::Met(runs) => ours(&runs, start).ok_or_else(|| problem(ErrorKind::Protocol)),
            Outcome::Failed { reason, .. } => Err(problem(ErrorKind::Conflict)
                .because(reason)
                .advise("give the workflow an input that its run-name shows, with a value of your own")),
            Outcome::Blind { error, .. } => Err(error),
            _ => {
                Err(problem(ErrorKind::TimedOut)
                    .because("it was started, and no run of it appeared within 30 s"))
            }
        }
    }
}

/// The run that a dispatch started, among the new ones: the one that shows one of its inputs, or the only one.
fn ours(runs: &[WorkflowRun], start: &StartRun) -> Option<CiRunId> {
    let shows = |run: &&WorkflowRun| {
        let title = run.display_title.as_deref().unwrap_or_default();
        start
            .inputs
            .values()
            .any(|value| value.len() >= 8 && title.contains(value.as_str()))
    };
    let mut shown = runs.iter().filter(shows);
    match (shown.next(), shown.next(), runs) {
        (Some(run), None, _) | (None, None, [run]) => Some(CiRunId(run.id)),
        _ => None,
    }
}

fn on_run<const N: usize>(method: Method, repository: &RepoSlug, run: CiRunId, path: [&str; N]) -> Request {
    let request = Request::repository(method, repository, ["actions", "runs", &run.to_string()]);
    path.into_iter()
        .fold(request, |request, part| request.below(part))
}

fn named(repository: &RepoSlug, run: CiRunId) -> String {
    format!("run {run} of {repository}")
}

/// The last lines of a text that comes in pieces.
struct Tail {
    most: usize,
    lines: VecDeque<Vec<u8>>,
    open: bool,
}

impl Tail {
    fn new(most: usize) -> Self {
        Self {
            most,
            lines: VecDeque::new(),
            open: false,
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            if !self.open {
                if self.lines.len() == self.most {
                    self.lines.pop_front();
                }
                if self.lines.len() < self.most {
                    self.lines.push_back(Vec::new());
                }
            }
            self.open = !piece.ends_with(b"\n");
            if let Some(line) = self.lines.back_mut() {
                let text = piece.strip_suffix(b"\n").unwrap_or(piece);
                let room = LONGEST_LINE.saturating_sub(line.len());
                line.extend_from_slice(&text[..text.len().min(room)]);
            }
        }
    }

    fn text(self) -> String {
        let line = |bytes: &Vec<u8>| {
            // GitHub begins its logs with a byte order mark and may end lines as Windows does.
            String::from_utf8_lossy(bytes)
                .trim_start_matches('\u{feff}')
                .trim_end_matches('\r')
                .to_owned()
        };
        self.lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_same_however_the_text_is_cut() {
        let text = "\u{feff}one\r\ntwo\nthree\n\nfive";
        for size in 1..=text.len() {
            let mut tail = Tail::new(3);
            text.as_bytes().chunks(size).for_each(|chunk| tail.take(chunk));
            assert_eq!(tail.text(), "three\n\nfive");
        }
        let mut all = Tail::new(10);
        all.take(text.as_bytes());
        assert_eq!(all.text(), "one\ntwo\nthree\n\nfive");
        let mut none = Tail::new(0);
        none.take(text.as_bytes());
        assert_eq!(none.text(), "");
        let mut long = Tail::new(1);
        long.take(&vec![b'x'; LONGEST_LINE * 2]);
        assert_eq!(long.text().len(), LONGEST_LINE);
    }
}
