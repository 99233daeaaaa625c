//! What a push does, by Spacelift's default rule: a push to the tracked branch that touches the project root makes a
//! tracked run, one to any other branch a proposed run. One run per stack, commit and type.

use super::Shared;
use super::machine::NewRun;
use super::run::{Commit, RunType};
use serde::Deserialize;

/// The part of GitHub's `push` event that is read.
#[derive(Debug, Deserialize)]
pub(super) struct Push {
    #[serde(rename = "ref")]
    reference: String,
    before: String,
    after: String,
    #[serde(default)]
    deleted: bool,
    repository: Repository,
    #[serde(default)]
    commits: Vec<PushedCommit>,
    head_commit: Option<PushedCommit>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Debug, Deserialize)]
struct PushedCommit {
    message: Option<String>,
    url: Option<String>,
    timestamp: Option<jiff::Timestamp>,
    author: Option<Author>,
    #[serde(default)]
    added: Vec<String>,
    #[serde(default)]
    modified: Vec<String>,
    #[serde(default)]
    removed: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Author {
    name: Option<String>,
    username: Option<String>,
}

/// GitHub lists no more commits than this in one event.
const MOST_COMMITS: usize = 20;

/// Makes the runs of a push; says their ids, those of dependent stacks included.
pub(super) fn receive(shared: &Shared, push: &Push) -> Result<Vec<String>, String> {
    let Some(branch) = push.reference.strip_prefix("refs/heads/") else {
        return Ok(Vec::new());
    };
    let ours = |repository: &str| repository.eq_ignore_ascii_case(&push.repository.full_name);
    if push.deleted || !shared.read(|world| world.stacks.iter().any(|stack| ours(&stack.repository))) {
        return Ok(Vec::new());
    }
    let sha: towpath_core::CommitSha = push
        .after
        .parse()
        .map_err(|error: towpath_core::ParseError| error.to_string())?;
    let files = push.files(shared)?;
    let commit = push.commit(sha.as_str());
    shared.update(|world| {
        let stacks: Vec<_> = world
            .stacks
            .iter()
            .filter(|stack| ours(&stack.repository) && !stack.disabled)
            .cloned()
            .collect();
        let mut runs = Vec::new();
        for stack in stacks {
            if !files.iter().any(|file| stack.covers(file)) {
                continue;
            }
            let tracked = stack.branch == branch;
            let kind = if tracked {
                RunType::Tracked
            } else {
                RunType::Proposed
            };
            let same = |run: &&super::run::Run| {
                run.stack == stack.id
                    && run.kind == kind
                    && run.commit.as_ref().is_some_and(|known| known.hash == commit.hash)
            };
            if world.runs.iter().any(|run| same(&run)) {
                continue;
            }
            let mut new = NewRun::new(&stack.id, kind, Some(commit.clone()));
            new.branch = Some(branch.to_owned());
            if tracked {
                new.external = stack
                    .external
                    .iter()
                    .map(|name| name.replace("{sha}", &commit.hash))
                    .collect();
                if let Some(stack) = world.stack_mut(&stack.id) {
                    stack.tracked_commit = Some(commit.clone());
                }
            } else {
                world.supersede(&stack.id, branch);
            }
            runs.push(world.create_run(new, None));
        }
        Ok(world.cascade(runs))
    })
}

impl Push {
    /// The files it touched: those the event lists, or, where that list may be short, those git tells.
    fn files(&self, shared: &Shared) -> Result<Vec<String>, String> {
        let commits = self.commits.iter();
        let listed = commits
            .flat_map(|commit| [&commit.added, &commit.modified, &commit.removed])
            .flatten();
        let listed: Vec<String> = listed.cloned().collect();
        if !listed.is_empty() && self.commits.len() < MOST_COMMITS {
            return Ok(listed);
        }
        let existed = !self.before.bytes().all(|byte| byte == b'0');
        let before = if existed {
            let before: towpath_core::CommitSha = self
                .before
                .parse()
                .map_err(|error: towpath_core::ParseError| error.to_string())?;
            Some(before)
        } else {
            None
        };
        shared.git.changed(
            &self.repository.full_name,
            before.as_ref().map(towpath_core::CommitSha::as_str),
            &self.after,
        )
    }

    fn commit(&self, sha: &str) -> Commit {
        let mut commit = Commit::bare(sha);
        if let Some(head) = &self.head_commit {
            commit.message = head
                .message
                .as_deref()
                .and_then(|text| text.lines().next())
                .map(ToOwned::to_owned);
            commit.author_name = head.author.as_ref().and_then(|author| author.name.clone());
            commit.author_login = head.author.as_ref().and_then(|author| author.username.clone());
            commit.timestamp = head.timestamp.map(jiff::Timestamp::as_second);
            commit.url = head.url.clone();
        }
        commit
    }
}
