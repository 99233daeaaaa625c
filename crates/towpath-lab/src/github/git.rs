//! Bare repositories on disk, through git's plumbing commands.
//!
//! Every command runs with an environment of its own, so that the configuration of the machine cannot change what
//! the lab answers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The name git gives to "no object".
pub(crate) const ZERO: &str = "0000000000000000000000000000000000000000";

/// One bare repository.
#[derive(Clone, Debug)]
pub(crate) struct BareRepo {
    path: PathBuf,
}

/// A git command that did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    #[error("cannot run git: {0}; install git and put it on the PATH")]
    Start(#[from] std::io::Error),
    #[error("git {command}: {stderr}")]
    Failed { command: String, stderr: String },
}

/// Who wrote or committed, and when (seconds since 1970).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) seconds: i64,
}

/// One commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) sha: String,
    pub(crate) tree: String,
    pub(crate) parents: Vec<String>,
    pub(crate) author: Person,
    pub(crate) committer: Person,
    pub(crate) message: String,
}

/// One changed file of a commit or a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileChange {
    pub(crate) path: String,
    /// The letter of `git diff --raw`: `A`, `M`, `D`, `T`.
    pub(crate) letter: char,
    pub(crate) blob: String,
    pub(crate) additions: u64,
    pub(crate) deletions: u64,
}

/// One line of `git ls-tree`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeEntry {
    pub(crate) mode: String,
    pub(crate) kind: String,
    pub(crate) sha: String,
    pub(crate) size: Option<u64>,
    pub(crate) path: String,
}

/// A git command with nothing of the machine in its environment but the PATH.
pub(crate) fn command() -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .kill_on_drop(true)
        .stdin(Stdio::null());
    command
}

const FORMAT: &str = "--format=tformat:%H%x00%T%x00%P%x00%an%x00%ae%x00%at%x00%cn%x00%ce%x00%ct%x00%B";

impl BareRepo {
    /// Makes an empty repository there.
    pub(crate) async fn init(path: PathBuf, default_branch: &str) -> Result<Self, GitError> {
        let mut init = command();
        init.args(["init", "--quiet", "--bare", "--template=", "-b", default_branch])
            .arg(&path);
        finish("init", init.output().await?)?;
        let config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\
                      [http]\n\treceivepack = true\n\
                      [uploadpack]\n\tallowAnySHA1InWant = true\n\tallowFilter = true\n\
                      [receive]\n\tautogc = false\n[gc]\n\tauto = 0\n";
        tokio::fs::write(path.join("config"), config).await?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn command(&self) -> Command {
        let mut git = command();
        git.arg("--git-dir").arg(&self.path);
        git
    }

    /// What the command wrote to its standard output.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<Vec<u8>, GitError> {
        finish(args.first().unwrap_or(&""), self.output(args, &[], None).await?)
    }

    /// The same, as one line of text.
    pub(crate) async fn line(&self, args: &[&str]) -> Result<String, GitError> {
        Ok(String::from_utf8_lossy(&self.run(args).await?).trim().to_owned())
    }

    /// Runs a command with more environment and with these bytes as its standard input, whatever its exit status.
    pub(crate) async fn output(
        &self,
        args: &[&str],
        env: &[(&str, OsString)],
        input: Option<&[u8]>,
    ) -> Result<Output, GitError> {
        let mut git = self.command();
        git.args(args)
            .envs(env.iter().map(|(name, value)| (*name, value)));
        git.stdout(Stdio::piped()).stderr(Stdio::piped());
        let Some(input) = input else {
            return Ok(git.output().await?);
        };
        let mut child = git.stdin(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // A command that ends without reading everything says why on its own.
                let _ = stdin.write_all(input).await;
            }
        };
        let (_, output) = tokio::join!(write, child.wait_with_output());
        Ok(output?)
    }

    async fn piped(&self, args: &[&str], env: &[(&str, OsString)], input: &[u8]) -> Result<String, GitError> {
        let output = self.output(args, env, Some(input)).await?;
        let bytes = finish(args.first().unwrap_or(&""), output)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The object that a revision names, peeled to this kind; `None` where there is none.
    pub(crate) async fn resolve(&self, revision: &str, kind: &str) -> Result<Option<String>, GitError> {
        let wanted = format!("{revision}^{{{kind}}}");
        let output = self
            .output(
                &["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted],
                &[],
                None,
            )
            .await?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((output.status.success() && !text.is_empty()).then_some(text))
    }

    /// Every branch and tag, by its full name.
    pub(crate) async fn refs(&self) -> Result<BTreeMap<String, String>, GitError> {
        let args = [
            "for-each-ref",
            "--format=%(objectname) %(refname)",
            "refs/heads",
            "refs/tags",
        ];
        let text = self.line(&args).await?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(sha, name)| (name.to_owned(), sha.to_owned()))
            .collect())
    }

    /// Moves a ref from one object to another; `false` where somebody else has moved it meanwhile.
    pub(crate) async fn update_ref(&self, name: &str, new: &str, old: &str) -> Result<bool, GitError> {
        let args: &[&str] = if new == ZERO {
            &["update-ref", "-d", name, old]
        } else {
            &["update-ref", name, new, old]
        };
        Ok(self.output(args, &[], None).await?.status.success())
    }

    /// Commits by the arguments of `git log`.
    pub(crate) async fn log(&self, args: &[&str]) -> Result<Vec<Commit>, GitError> {
        let all = [
            &["log", "-z", "--no-show-signature", "--encoding=UTF-8", FORMAT],
            args,
        ]
        .concat();
        let bytes = self.run(&all).await?;
        let text = String::from_utf8_lossy(&bytes);
        let fields: Vec<&str> = text.split('\0').collect();
        Ok(fields.chunks_exact(10).filter_map(commit_from_fields).collect())
    }

    /// One commit.
    pub(crate) async fn commit(&self, sha: &str) -> Result<Option<Commit>, GitError> {
        let Some(sha) = self.resolve(sha, "commit").await? else {
            return Ok(None);
        };
        Ok(self.log(&["-1", &sha]).await?.into_iter().next())
    }

    /// The files that differ between two trees, or that a commit changes against its first parent.
    pub(crate) async fn changed_files(
        &self,
        from: Option<&str>,
        to: &str,
    ) -> Result<Vec<FileChange>, GitError> {
        let mut args = vec![
            "diff-tree",
            "-r",
            "-z",
            "--raw",
            "--numstat",
            "--no-abbrev",
            "--no-renames",
        ];
        match from {
            Some(from) => args.extend([from, to]),
            None => args.extend(["--root", "--no-commit-id", "--diff-merges=first-parent", to]),
        }
        Ok(parse_changes(&String::from_utf8_lossy(&self.run(&args).await?)))
    }

    /// The names of the files that each of these commits changes, with the letter of the change.
    pub(crate) async fn names_changed(
        &self,
        commits: &[Commit],
    ) -> Result<BTreeMap<String, Vec<(char, String)>>, GitError> {
        let input: String = commits.iter().map(|commit| format!("{}\n", commit.sha)).collect();
        let args = [
            "diff-tree",
            "--stdin",
            "-r",
            "-z",
            "--root",
            "--name-status",
            "--no-renames",
            "--diff-merges=first-parent",
        ];
        let text = self.piped(&args, &[], input.as_bytes()).await?;
        let (mut changes, mut current) = (BTreeMap::<String, Vec<_>>::new(), String::new());
        let mut fields = text.split('\0');
        while let Some(field) = fields.next() {
            let mut letters = field.trim().chars();
            match (letters.next(), letters.next()) {
                (Some(letter), None) => {
                    let path = fields.next().unwrap_or_default().to_owned();
                    changes.entry(current.clone()).or_default().push((letter, path));
                }
                (Some(_), Some(_)) => field.trim().clone_into(&mut current),
                _ => {}
            }
        }
        Ok(changes)
    }

    /// The entries of a tree, or the entry at one path.
    pub(crate) async fn tree(&self, tree: &str, options: &[&str]) -> Result<Vec<TreeEntry>, GitError> {
        let (flags, paths): (Vec<&str>, Vec<&str>) =
            options.iter().partition(|option| option.starts_with('-'));
        let args = [
            &["--literal-pathspecs", "ls-tree", "-z", "-l", "--full-tree"],
            &flags[..],
            &[tree, "--"],
            &paths,
        ]
        .concat();
        let bytes = self.run(&args).await?;
        Ok(String::from_utf8_lossy(&bytes)
            .split('\0')
            .filter_map(parse_tree_entry)
            .collect())
    }

    /// The bytes of a blob.
    pub(crate) async fn blob(&self, sha: &str) -> Result<Vec<u8>, GitError> {
        self.run(&["cat-file", "blob", sha]).await
    }

    pub(crate) async fn write_blob(&self, bytes: &[u8]) -> Result<String, GitError> {
        self.piped(&["hash-object", "-w", "--stdin"], &[], bytes).await
    }

    /// A new tree: `base` with these paths set to `(mode, sha)`, or removed where there is none.
    pub(crate) async fn write_tree(
        &self,
        base: Option<&str>,
        changes: &[(String, Option<(String, String)>)],
    ) -> Result<String, GitError> {
        let index = self.path.join(format!("index-{}", uuid::Uuid::new_v4()));
        let env = [("GIT_INDEX_FILE", index.clone().into_os_string())];
        let written = async {
            let read: &[&str] = match &base {
                Some(base) => &["read-tree", base],
                None => &["read-tree", "--empty"],
            };
            finish("read-tree", self.output(read, &env, None).await?)?;
            let mut input = Vec::new();
            for (path, object) in changes {
                let (mode, sha) = match object {
                    Some((mode, sha)) => (mode.as_str(), sha.as_str()),
                    None => ("0", ZERO),
                };
                input.extend_from_slice(format!("{mode} {sha}\t{path}\0").as_bytes());
            }
            self.piped(&["update-index", "-z", "--index-info"], &env, &input)
                .await?;
            let output = self.output(&["write-tree"], &env, None).await?;
            let tree = finish("write-tree", output)?;
            Ok(String::from_utf8_lossy(&tree).trim().to_owned())
        }
        .await;
        let _ = tokio::fs::remove_file(&index).await;
        written
    }

    /// A new commit object; no ref moves.
    pub(crate) async fn write_commit(
        &self,
        tree: &str,
        parents: &[String],
        message: &str,
        author: &Person,
        committer: &Person,
    ) -> Result<String, GitError> {
        let mut args = vec!["commit-tree", tree];
        for parent in parents {
            args.extend(["-p", parent]);
        }
        let date = |person: &Person| OsString::from(format!("{} +0000", person.seconds));
        let env = [
            ("GIT_AUTHOR_NAME", OsString::from(&author.name)),
            ("GIT_AUTHOR_EMAIL", OsString::from(&author.email)),
            ("GIT_AUTHOR_DATE", date(author)),
            ("GIT_COMMITTER_NAME", OsString::from(&committer.name)),
            ("GIT_COMMITTER_EMAIL", OsString::from(&committer.email)),
            ("GIT_COMMITTER_DATE", date(committer)),
        ];
        self.piped(&args, &env, message.as_bytes()).await
    }

    /// The tree that merges `theirs` into `ours`; `None` where they conflict. Needs git 2.40.
    pub(crate) async fn merge_tree(
        &self,
        base: Option<&str>,
        ours: &str,
        theirs: &str,
    ) -> Result<Option<String>, GitError> {
        let base = base.map(|base| format!("--merge-base={base}"));
        let mut args = vec!["merge-tree", "--write-tree"];
        args.extend(base.as_deref());
        args.extend([ours, theirs]);
        let output = self.output(&args, &[], None).await?;
        if output.status.code() == Some(1) {
            return Ok(None);
        }
        let bytes = finish("merge-tree", output)?;
        Ok(String::from_utf8_lossy(&bytes)
            .lines()
            .next()
            .map(ToOwned::to_owned))
    }

    pub(crate) async fn merge_base(&self, left: &str, right: &str) -> Result<Option<String>, GitError> {
        let output = self.output(&["merge-base", left, right], &[], None).await?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((output.status.success() && !text.is_empty()).then_some(text))
    }

    pub(crate) async fn is_ancestor(&self, older: &str, newer: &str) -> Result<bool, GitError> {
        let output = self
            .output(&["merge-base", "--is-ancestor", older, newer], &[], None)
            .await?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => finish("merge-base", output).map(|_| false),
        }
    }
}

fn finish(command: &str, output: Output) -> Result<Vec<u8>, GitError> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(GitError::Failed {
        command: command.to_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn commit_from_fields(fields: &[&str]) -> Option<Commit> {
    let [sha, tree, parents, an, ae, at, cn, ce, ct, message] = fields else {
        return None;
    };
    let person = |name: &str, email: &str, seconds: &str| Person {
        name: name.to_owned(),
        email: email.to_owned(),
        seconds: seconds.parse().unwrap_or_default(),
    };
    Some(Commit {
        sha: sha.trim().to_owned(),
        tree: (*tree).to_owned(),
        parents: parents.split_whitespace().map(ToOwned::to_owned).collect(),
        author: person(an, ae, at),
        committer: person(cn, ce, ct),
        message: message.trim_end_matches('\n').to_owned(),
    })
}

fn parse_changes(text: &str) -> Vec<FileChange> {
    let mut changes: Vec<FileChange> = Vec::new();
    let mut fields = text.split('\0');
    while let Some(field) = fields.next() {
        if let Some(raw) = field.strip_prefix(':') {
            let parts: Vec<&str> = raw.split(' ').collect();
            let (Some(path), [_, _, before, after, letter]) = (fields.next(), parts.as_slice()) else {
                break;
            };
            let letter = letter.chars().next().unwrap_or('M');
            changes.push(FileChange {
                path: path.to_owned(),
                letter,
                blob: if letter == 'D' { *before } else { *after }.to_owned(),
                additions: 0,
                deletions: 0,
            });
        } else if let [additions, deletions, path] = field.splitn(3, '\t').collect::<Vec<_>>()[..]
            && let Some(change) = changes.iter_mut().find(|change| change.path == path)
        {
            // git writes "-" for binary files, which GitHub counts as no lines.
            change.additions = additions.parse().unwrap_or(0);
            change.deletions = deletions.parse().unwrap_or(0);
        }
    }
    changes
}

fn parse_tree_entry(line: &str) -> Option<TreeEntry> {
    let (head, path) = line.split_once('\t')?;
    let mut parts = head.split_whitespace();
    Some(TreeEntry {
        mode: parts.next()?.to_owned(),
        kind: parts.next()?.to_owned(),
        sha: parts.next()?.to_owned(),
        size: parts.next().and_then(|size| size.parse().ok()),
        path: path.to_owned(),
    })
}
