//! The repository server's git: references are resolved with `git ls-remote`, and one commit is fetched into a bare
//! cache when its files are asked for. It runs the real `git`.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;
use towpath_core::{CommitSha, Digest, Secret};

/// `ARGOCD_EXEC_TIMEOUT`.
const TIMEOUT: Duration = Duration::from_secs(90);
const LARGEST_FILE: u64 = 4 << 20;

/// Credentials for every repository whose URL starts with a prefix: Argo CD's repository credential template.
#[derive(Clone, Debug)]
pub struct GitCredentials {
    /// The start of the URLs, such as `http://127.0.0.1:3000/`.
    pub url_prefix: String,
    /// The user name.
    pub username: String,
    /// The password or token.
    pub password: Secret,
}

/// The files of one commit, by path.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// What a commit says of itself.
#[derive(Debug)]
pub(super) struct CommitInfo {
    pub(super) author: String,
    pub(super) date: String,
    pub(super) message: String,
    pub(super) tags: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Git {
    folder: TempDir,
    credentials: Vec<GitCredentials>,
    /// One fetch at a time for each repository.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Git {
    pub(super) fn new(credentials: Vec<GitCredentials>) -> std::io::Result<Self> {
        Ok(Self {
            folder: tempfile::Builder::new().prefix("towpath-lab-argocd-").tempdir()?,
            credentials,
            locks: Mutex::default(),
        })
    }

    /// The commit that a branch, tag or `HEAD` names now; a full SHA names itself.
    pub(super) async fn resolve(&self, url: &str, revision: &str) -> Result<String, String> {
        if let Ok(sha) = revision.parse::<CommitSha>() {
            return Ok(sha.to_string());
        }
        let output = self.git(url, None, &["ls-remote", "--", url]).await?;
        let listing = String::from_utf8_lossy(&output.stdout);
        let references: HashMap<&str, &str> = listing
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(sha, name)| (name, sha))
            .collect();
        let candidates = [
            revision.to_owned(),
            format!("refs/heads/{revision}"),
            format!("refs/tags/{revision}^{{}}"),
            format!("refs/tags/{revision}"),
        ];
        candidates
            .iter()
            .find_map(|name| references.get(name.as_str()))
            .map(|sha| (*sha).to_owned())
            .ok_or_else(|| format!("unable to resolve '{revision}' to a commit SHA"))
    }

    /// The files of a commit that can be manifests: YAML and JSON, and the marks of other tools.
    pub(super) async fn files(&self, url: &str, sha: &str) -> Result<Files, String> {
        let folder = self.fetch(url, sha).await?;
        let archive = self
            .git(url, Some(&folder), &["archive", "--format=tar", sha])
            .await?;
        unpack(&archive.stdout).map_err(|error| format!("cannot read the files of {sha}: {error}"))
    }

    /// The author, the time, the message and the tags of a commit.
    pub(super) async fn info(&self, url: &str, sha: &str) -> Result<CommitInfo, String> {
        let folder = self.fetch(url, sha).await?;
        let log = self
            .git(
                url,
                Some(&folder),
                &["log", "-1", "--format=%an <%ae>%x00%ct%x00%B", sha],
            )
            .await?;
        let text = String::from_utf8_lossy(&log.stdout).into_owned();
        let mut parts = text.splitn(3, '\0');
        let mut part = || parts.next().unwrap_or_default().trim();
        let (author, seconds, message) = (part().to_owned(), part().to_owned(), part().to_owned());
        let date = seconds
            .parse()
            .ok()
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
            .ok_or_else(|| format!("commit {sha} has no readable date"))?;
        let listing = self.git(url, None, &["ls-remote", "--tags", "--", url]).await?;
        let listing = String::from_utf8_lossy(&listing.stdout);
        let tags = listing
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter(|(commit, _)| *commit == sha)
            .filter_map(|(_, name)| name.strip_prefix("refs/tags/"))
            .map(|tag| tag.trim_end_matches("^{}").to_owned())
            .collect();
        Ok(CommitInfo {
            author,
            date: date.to_string(),
            message,
            tags,
        })
    }

    /// Commits these files to a branch, which is made where there is none; answers its newest commit. Where the first file
    /// is in it already, nothing is committed.
    pub(super) async fn commit(
        &self,
        url: &str,
        branch: &str,
        files: &[(String, String)],
        message: &str,
    ) -> Result<String, String> {
        let tip = self.resolve(url, &format!("refs/heads/{branch}")).await.ok();
        let folder = match &tip {
            Some(tip) => self.fetch(url, tip).await?,
            None => self.cache(url).await?,
        };
        let work = tempfile::Builder::new()
            .tempdir_in(self.folder.path())
            .map_err(|error| format!("cannot make a folder: {error}"))?;
        let index = work.path().join("index");
        let run = async |arguments: &[&str]| {
            let mut command = self.command(url, Some(&folder), arguments);
            command
                .env("GIT_INDEX_FILE", &index)
                .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "Argo CD")))
                .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "argo-cd@example.com")));
            let output = finished(command, url, arguments).await?;
            Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        if let Some(tip) = &tip {
            run(&["read-tree", tip]).await?;
        }
        for (number, (path, text)) in files.iter().enumerate() {
            let file = work.path().join("file");
            std::fs::write(&file, text).map_err(|error| format!("cannot write {path}: {error}"))?;
            let blob = run(&["hash-object", "-w", "--", &file.to_string_lossy()]).await?;
            if let (0, Some(tip)) = (number, &tip)
                && run(&["rev-parse", "--quiet", "--verify", &format!("{tip}:{path}")])
                    .await
                    .is_ok_and(|there| there == blob)
            {
                return Ok(tip.clone());
            }
            run(&[
                "update-index",
                "--add",
                "--cacheinfo",
                &format!("100644,{blob},{path}"),
            ])
            .await?;
        }
        let tree = run(&["write-tree"]).await?;
        let parent = tip.iter().flat_map(|tip| ["-p", tip.as_str()]);
        let arguments: Vec<&str> = ["commit-tree", &tree, "-m", message]
            .into_iter()
            .chain(parent)
            .collect();
        let commit = run(&arguments).await?;
        run(&[
            "push",
            "--quiet",
            "--",
            url,
            &format!("{commit}:refs/heads/{branch}"),
        ])
        .await?;
        Ok(commit)
    }

    /// The bare cache.
    async fn cache(&self, url: &str) -> Result<PathBuf, String> {
        let folder = self.folder.path().join(Digest::sha256_of(url).encoded());
        if !folder.join("HEAD").exists() {
            let path = folder.to_string_lossy().into_owned();
            self.git(url, None, &["init", "--quiet", "--bare", "--", &path])
                .await?;
        }
        Ok(folder)
    }

    /// The bare cache, with this commit in it.
    async fn fetch(&self, url: &str, sha: &str) -> Result<PathBuf, String> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.entry(url.to_owned()).or_default().clone()
        };
        let _one_at_a_time = lock.lock().await;
        let folder = self.cache(url).await?;
        let commit = format!("{sha}^{{commit}}");
        if self
            .git(url, Some(&folder), &["cat-file", "-e", &commit])
            .await
            .is_err()
        {
            let fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", url, sha];
            self.git(url, Some(&folder), &fetch).await?;
        }
        Ok(folder)
    }

    async fn git(&self, url: &str, folder: Option<&Path>, arguments: &[&str]) -> Result<Output, String> {
        finished(self.command(url, folder, arguments), url, arguments).await
    }

    fn command(&self, url: &str, folder: Option<&Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        if let Some(folder) = folder {
            command.arg("--git-dir").arg(folder);
        }
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "TMPDIR"))
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*");
        if let Some(credentials) = self
            .credentials
            .iter()
            .find(|known| url.starts_with(&known.url_prefix))
        {
            // In the environment and not among the arguments, which every process can read.
            let pair = format!("{}:{}", credentials.username, credentials.password.expose());
            use base64::Engine as _;
            let basic = base64::engine::general_purpose::STANDARD.encode(pair);
            command
                .env("GIT_CONFIG_COUNT", "2")
                .env(
                    "GIT_CONFIG_KEY_1",
                    format!("http.{}.extraHeader", credentials.url_prefix),
                )
                .env("GIT_CONFIG_VALUE_1", format!("Authorization: Basic {basic}"));
        }
        command
    }
}

/// What a command gives, where it succeeds.
async fn finished(mut command: Command, url: &str, arguments: &[&str]) -> Result<Output, String> {
    if url.starts_with('-') {
        return Err(format!("{url:?} is not a repository URL"));
    }
    let subcommand = arguments.first().copied().unwrap_or_default();
    let output = tokio::time::timeout(TIMEOUT, command.output())
        .await
        .map_err(|_| format!("`git {subcommand}` timed out after {} s", TIMEOUT.as_secs()))?
        .map_err(|error| format!("`git {subcommand}` could not be run: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().replace('\n', "; ");
    Err(format!(
        "`git {subcommand} {url}` failed: {}: {said}",
        output.status
    ))
}

fn unpack(archive: &[u8]) -> std::io::Result<Files> {
    let mut files = Files::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().into_owned();
        let name = path.rsplit('/').next().unwrap_or_default();
        let wanted =
            [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end)) || name == "Kustomization";
        // Other files only show that their folder exists.
        let mut bytes = Vec::new();
        if wanted {
            entry.by_ref().take(LARGEST_FILE).read_to_end(&mut bytes)?;
        }
        files.insert(path, bytes);
    }
    Ok(files)
}
