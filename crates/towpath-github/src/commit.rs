//! A commit of several files at once, through the Git database API: either all of it is on the branch, or nothing.
//!
//! The branch moves last, without force, so that a branch that moved meanwhile refuses the commit. No author and no
//! committer are sent: GitHub then signs commits of Apps and bots, and shows them as verified.

use crate::client::GitHub;
use crate::connection::{Request, SERVICE};
use crate::wire::{GitCommit, GitTree, GitTreeEntry, Sha};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use towpath_core::{BranchName, CommitSha, RepoSlug};
use towpath_elements::source::Change;
use towpath_elements::{Error, ErrorKind, Result};

impl GitHub {
    /// Adds one commit on top of `expected_head` that changes exactly the given files, and moves the branch to it.
    ///
    /// A file keeps its mode; a new one is an ordinary file. Deleting a file that is not there changes nothing.
    ///
    /// If the answer to the last request is lost, the branch is read to find out whether the commit is on it.
    ///
    /// # Errors
    /// *Conflict* where the branch is no longer at `expected_head`; it is untouched then. *Denied* where rules guard the
    /// branch. *Invalid* for a path that git does not take.
    pub async fn create_commit(&self, change: &Change) -> Result<CommitSha> {
        let Change {
            repository,
            branch,
            expected_head,
            files,
            message,
        } = change;
        let subject = format!("{} file(s) to {branch} of {repository}", files.len());
        let problem = |kind| Error::new(kind, SERVICE, "commit", &subject);
        if let Some(path) = files.keys().find(|path| !is_path(path)) {
            return Err(problem(ErrorKind::Invalid)
                .because(format!("{path:?} is no path of a file in a repository"))
                .advise("give it relative to the root, with / between its parts"));
        }
        let moved = |to: Option<&CommitSha>| {
            let now = to.map_or("gone".to_owned(), |head| format!("at {}", head.short()));
            problem(ErrorKind::Conflict)
                .because(format!(
                    "the branch was expected at {} and is {now}",
                    expected_head.short()
                ))
                .advise("read the branch again and apply the change to what is there now")
        };
        let head = self.branch_head(repository, branch).await?;
        if head.as_ref() != Some(expected_head) {
            return Err(moved(head.as_ref()));
        }
        let base: GitCommit = self
            .connection
            .json(
                &Request::repository(
                    Method::GET,
                    repository,
                    ["git", "commits", expected_head.as_str()],
                )
                .doing("commit", &subject),
            )
            .await?;
        let tree = self
            .write_tree(repository, &base.tree.sha, files, &subject)
            .await?;
        let body = json!({ "message": message, "tree": tree, "parents": [expected_head] });
        let made: GitCommit = self
            .connection
            .json(&self.object(repository, "commits", &body, &subject)?)
            .await?;

        let moving = Request::repository(Method::PATCH, repository, ["git", "refs", "heads"])
            .below(branch.as_str())
            .doing("commit", &subject)
            // A branch that is already there stays there.
            .idempotent()
            .body(&json!({ "sha": made.sha, "force": false }))?;
        match self.connection.answer(&moving).await {
            Ok(_) => Ok(made.sha),
            Err(refused) if refused.is_denied() || refused.is_unauthenticated() => Err(refused),
            Err(refused) => match self.landed(repository, branch, expected_head, &made.sha).await {
                Ok(Landed::Yes) => Ok(made.sha),
                Ok(Landed::No) => Err(refused),
                Ok(Landed::Moved(head)) => Err(moved(head.as_ref()).caused_by(refused)),
                Err(blind) => Err(problem(ErrorKind::Unavailable)
                    .because(
                        "the branch may or may not have moved: its answer was lost, and it cannot be read",
                    )
                    .advise(format!(
                        "look whether {} is on the branch before trying again",
                        made.sha.short()
                    ))
                    .retrying(blind.retry())
                    .caused_by(refused)),
            },
        }
    }

    /// Whether a commit whose answer was lost, or refused after an attempt that was lost, is on the branch.
    async fn landed(
        &self,
        repository: &RepoSlug,
        branch: &BranchName,
        expected: &CommitSha,
        ours: &CommitSha,
    ) -> Result<Landed> {
        match self.branch_head(repository, branch).await? {
            Some(head) if head == *ours => Ok(Landed::Yes),
            Some(head) if head == *expected => Ok(Landed::No),
            Some(head) => Ok(
                match crate::element::ancestry(self, repository, ours, &head).await? {
                    found if found.contains_base() => Landed::Yes,
                    _ => Landed::Moved(Some(head)),
                },
            ),
            None => Ok(Landed::Moved(None)),
        }
    }

    /// The tree that `base` becomes by the changes.
    async fn write_tree(
        &self,
        repository: &RepoSlug,
        base: &str,
        files: &BTreeMap<String, Option<Vec<u8>>>,
        subject: &str,
    ) -> Result<String> {
        let existing = self.entries(repository, base, files, subject).await?;
        let mut entries = Vec::new();
        for (path, content) in files {
            let old = existing.get(path.as_str());
            let mode = old.map_or("100644", |entry| entry.mode.as_str());
            entries.push(match content {
                None if old.is_none() => continue,
                None => json!({ "path": path, "mode": mode, "type": "blob", "sha": null }),
                Some(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => json!({ "path": path, "mode": mode, "type": "blob", "content": text }),
                    Err(_) => {
                        let sha = self.write_blob(repository, bytes, subject).await?;
                        json!({ "path": path, "mode": mode, "type": "blob", "sha": sha })
                    }
                },
            });
        }
        if entries.is_empty() {
            return Ok(base.to_owned());
        }
        let body = json!({ "base_tree": base, "tree": entries });
        let made: Sha = self
            .connection
            .json(&self.object(repository, "trees", &body, subject)?)
            .await?;
        Ok(made.sha)
    }

    async fn write_blob(&self, repository: &RepoSlug, bytes: &[u8], subject: &str) -> Result<String> {
        let body = json!({ "content": STANDARD.encode(bytes), "encoding": "base64" });
        let made: Sha = self
            .connection
            .json(&self.object(repository, "blobs", &body, subject)?)
            .await?;
        Ok(made.sha)
    }

    /// The entries of the changed paths that exist. A tree too large for one answer is walked down to each path.
    async fn entries(
        &self,
        repository: &RepoSlug,
        root: &str,
        files: &BTreeMap<String, Option<Vec<u8>>>,
        subject: &str,
    ) -> Result<BTreeMap<String, GitTreeEntry>> {
        let whole = self.tree(repository, root, true, subject).await?;
        let file = |entry: &GitTreeEntry| entry.kind == "blob";
        if !whole.truncated {
            let changed = |entry: &GitTreeEntry| file(entry) && files.contains_key(&entry.path);
            return Ok(whole
                .tree
                .into_iter()
                .filter(changed)
                .map(|entry| (entry.path.clone(), entry))
                .collect());
        }
        let mut found = BTreeMap::new();
        let mut read: BTreeMap<String, Vec<GitTreeEntry>> = BTreeMap::new();
        for path in files.keys() {
            let mut sha = root.to_owned();
            let parts: Vec<&str> = path.split('/').collect();
            for (at, part) in parts.iter().enumerate() {
                if !read.contains_key(&sha) {
                    let listed = self.tree(repository, &sha, false, subject).await?;
                    read.insert(sha.clone(), listed.tree);
                }
                let entry = read
                    .get(&sha)
                    .and_then(|entries| entries.iter().find(|entry| entry.path == *part));
                match entry {
                    Some(entry) if entry.kind == "tree" => match &entry.sha {
                        Some(below) => sha.clone_from(below),
                        None => break,
                    },
                    Some(entry) if file(entry) && at + 1 == parts.len() => {
                        found.insert(path.clone(), entry.clone());
                        break;
                    }
                    _ => break,
                }
            }
        }
        Ok(found)
    }

    async fn tree(&self, repository: &RepoSlug, sha: &str, whole: bool, subject: &str) -> Result<GitTree> {
        let mut request =
            Request::repository(Method::GET, repository, ["git", "trees", sha]).doing("commit", subject);
        if whole {
            request = request.query("recursive", "1");
        }
        self.connection.json(&request).await
    }

    /// A request that writes a git object. An object that nothing points to does no harm, so it may be sent twice.
    fn object(&self, repository: &RepoSlug, kind: &str, body: &Value, subject: &str) -> Result<Request> {
        Request::repository(Method::POST, repository, ["git", kind])
            .doing("commit", subject)
            .idempotent()
            .body(body)
    }
}

enum Landed {
    Yes,
    No,
    Moved(Option<CommitSha>),
}

/// Whether git takes this as the path of a file.
fn is_path(path: &str) -> bool {
    !path.contains('\0')
        && path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.eq_ignore_ascii_case(".git"))
}

#[cfg(test)]
mod tests {
    use super::is_path;

    #[test]
    fn a_path_stays_in_the_repository() {
        for path in [
            "a",
            "deploy/live/kustomization.yaml",
            "ü/a b",
            ".github/workflows/ci.yml",
        ] {
            assert!(is_path(path), "{path}");
        }
        for path in [
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/./b",
            ".git/config",
            "a/.GIT/x",
            "a\0b",
        ] {
            assert!(!is_path(path), "{path:?}");
        }
    }
}
