//! What Spacelift asks of git: clone a commit, find the head of a branch, list what a push changed. All of it blocks.

use super::config::SpaceliftConfig;
use super::run::Commit;
use base64::Engine as _;
use std::path::Path;
use std::process::{Command, Stdio};
use towpath_core::{CommitSha, Secret};
use url::Url;

/// Where repositories are, and how to get in.
#[derive(Clone, Debug)]
pub(super) struct Git {
    base: Option<Url>,
    credentials: Option<(String, Secret)>,
}

impl Git {
    pub(super) fn new(config: &SpaceliftConfig) -> Self {
        Self {
            base: config.git_base.clone(),
            credentials: config.git_credentials.clone(),
        }
    }

    /// The commit that a branch points to.
    pub(super) fn head(&self, repository: &str, branch: &str) -> Result<CommitSha, String> {
        let url = self.url(repository)?;
        let listed = self.run(None, &["ls-remote", &url, &format!("refs/heads/{branch}")])?;
        let sha = listed.split_whitespace().next();
        let sha = sha.ok_or_else(|| format!("branch {branch} of {repository} does not exist"))?;
        sha.parse()
            .map_err(|error: towpath_core::ParseError| error.to_string())
    }

    /// Clones into `folder` and checks out `commit`, or the head of `branch`; returns the commit.
    pub(super) fn fetch(
        &self,
        repository: &str,
        branch: &str,
        commit: Option<&str>,
        folder: &Path,
    ) -> Result<Commit, String> {
        let url = self.url(repository)?;
        let folder = folder.to_string_lossy();
        self.run(None, &["clone", "--quiet", "--no-checkout", &url, &folder])?;
        let folder = Path::new(folder.as_ref());
        let wanted = commit.map_or_else(|| format!("origin/{branch}"), ToOwned::to_owned);
        let known = self.run(Some(folder), &["cat-file", "-e", &format!("{wanted}^{{commit}}")]);
        if let (Err(_), Some(commit)) = (known, commit) {
            self.run(Some(folder), &["fetch", "--quiet", "origin", commit])?;
        }
        self.run(Some(folder), &["checkout", "--quiet", "--detach", &wanted])?;
        let told = self.run(Some(folder), &["log", "-1", "--format=%H%n%an%n%ct%n%s"])?;
        let mut lines = told.lines();
        let mut commit = Commit::bare(lines.next().unwrap_or_default());
        commit.author_name = lines.next().map(ToOwned::to_owned);
        commit.timestamp = lines.next().and_then(|seconds| seconds.parse().ok());
        commit.message = lines.next().map(ToOwned::to_owned);
        Ok(commit)
    }

    /// The files that differ between two commits; all files of `after` where there is no `before`.
    pub(super) fn changed(
        &self,
        repository: &str,
        before: Option<&str>,
        after: &str,
    ) -> Result<Vec<String>, String> {
        let url = self.url(repository)?;
        let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
        let at = Some(folder.path());
        self.run(
            None,
            &[
                "clone",
                "--quiet",
                "--bare",
                &url,
                &folder.path().to_string_lossy(),
            ],
        )?;
        let listed = match before {
            Some(before) => self.run(at, &["diff", "--name-only", "-z", "--no-renames", before, after])?,
            None => self.run(at, &["ls-tree", "-r", "--name-only", "-z", after])?,
        };
        Ok(listed
            .split('\0')
            .filter(|file| !file.is_empty())
            .map(ToOwned::to_owned)
            .collect())
    }

    fn url(&self, repository: &str) -> Result<String, String> {
        let base = self.base.as_ref().ok_or("no git base is configured")?;
        let slug: towpath_core::RepoSlug = repository
            .parse()
            .map_err(|error: towpath_core::ParseError| error.to_string())?;
        Ok(format!(
            "{}/{}/{}.git",
            base.as_str().trim_end_matches('/'),
            slug.owner(),
            slug.name()
        ))
    }

    /// Runs git away from the user's configuration. Credentials travel in the environment, never in an argument.
    fn run(&self, folder: Option<&Path>, arguments: &[&str]) -> Result<String, String> {
        let mut git = Command::new("git");
        git.env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .args(arguments);
        if let Some(folder) = folder {
            git.current_dir(folder);
        }
        if let (Some((user, password)), Some(base)) = (&self.credentials, &self.base) {
            let pair = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{}", password.expose()));
            git.env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", format!("http.{base}.extraHeader"))
                .env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {pair}"));
        }
        let done = git
            .output()
            .map_err(|error| format!("cannot start git: {error}"))?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        let action = arguments.first().copied().unwrap_or_default();
        Err(format!(
            "git {action} failed: {}",
            said.trim().replace('\n', "; ")
        ))
    }
}
