//! The repositories as they are stored: commits, branches, pull requests, and news of builds.

use super::{Moment, State, World, commit_sha, refusal};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use towpath_core::{BranchName, CommitSha, Digest, RepoSlug};
use towpath_elements::source::{PullRequest, Report, ReviewState, ReviewVerdict};
use towpath_elements::{ErrorKind, Result};

pub(super) type Files = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
pub(super) struct Repositories {
    by_slug: HashMap<RepoSlug, Repository>,
    commits_made: u64,
}

#[derive(Default)]
pub(super) struct Repository {
    pub(super) commits: HashMap<CommitSha, StoredCommit>,
    pub(super) branches: BTreeMap<BranchName, Branch>,
    pub(super) pull_requests: Vec<(PullRequest, BTreeSet<CommitSha>)>,
    pub(super) reports: Vec<Report>,
}

pub(super) struct Branch {
    pub(super) head: CommitSha,
    /// When it moved last, since the world began.
    pub(super) moved: Duration,
}

pub(super) struct StoredCommit {
    pub(super) parents: Vec<CommitSha>,
    pub(super) files: Arc<Files>,
    pub(super) message: String,
    pub(super) at: Timestamp,
    /// Commits are numbered in the order in which they were made.
    pub(super) number: u64,
}

/// One review of a pull request, for [`Merge`].
#[derive(Clone, Debug)]
pub struct PullReview {
    /// The reviewer.
    pub by: String,
    /// The verdict; `None` for a mere comment.
    pub verdict: Option<ReviewState>,
    /// Whether they said it of the last commit, or of the one before.
    pub of_the_last_commit: bool,
}

/// A pull request that is opened, reviewed and merged in one go.
#[derive(Clone, Debug)]
pub struct Merge {
    /// Who opened it.
    pub author: String,
    /// What its last commit changes; `None` deletes a file.
    pub files: BTreeMap<String, Option<Vec<u8>>>,
    /// What the reviewers said, in that order. The last verdict of each of them counts.
    pub reviews: Vec<PullReview>,
}

impl Merge {
    /// By `author`, changing one file.
    pub fn by(author: &str, path: &str, contents: &str) -> Self {
        Self {
            author: author.to_owned(),
            files: BTreeMap::from([(path.to_owned(), Some(contents.as_bytes().to_vec()))]),
            reviews: Vec::new(),
        }
    }

    /// Approved by this reviewer as it was merged.
    #[must_use]
    pub fn approved_by(self, reviewer: &str) -> Self {
        self.with(reviewer, ReviewState::Approved, true)
    }

    /// With this verdict, given after those so far.
    #[must_use]
    pub fn with(self, reviewer: &str, state: ReviewState, of_the_last_commit: bool) -> Self {
        self.review(reviewer, Some(state), of_the_last_commit)
    }

    /// With a comment on the last commit that is no verdict.
    #[must_use]
    pub fn commented_by(self, reviewer: &str) -> Self {
        self.review(reviewer, None, true)
    }

    fn review(mut self, reviewer: &str, verdict: Option<ReviewState>, of_the_last_commit: bool) -> Self {
        self.reviews.push(PullReview {
            by: reviewer.to_owned(),
            verdict,
            of_the_last_commit,
        });
        self
    }

    /// The last verdict of each reviewer.
    fn verdicts(&self, first: &CommitSha, head: &CommitSha, at: Timestamp) -> Vec<ReviewVerdict> {
        let mut latest: Vec<ReviewVerdict> = Vec::new();
        for review in &self.reviews {
            let Some(state) = review.verdict.clone() else {
                continue;
            };
            latest.retain(|earlier| earlier.by != review.by);
            latest.push(ReviewVerdict {
                by: review.by.clone(),
                state,
                commit: Some(if review.of_the_last_commit { head } else { first }.clone()),
                at: Some(at),
            });
        }
        latest
    }
}

impl Repositories {
    pub(super) fn get(&self, slug: &RepoSlug) -> Result<&Repository> {
        self.by_slug
            .get(slug)
            .ok_or_else(|| refusal(ErrorKind::NotFound, "find", slug, "there is no such repository"))
    }

    pub(super) fn get_mut(&mut self, slug: &RepoSlug) -> Result<&mut Repository> {
        self.by_slug
            .get_mut(slug)
            .ok_or_else(|| refusal(ErrorKind::NotFound, "find", slug, "there is no such repository"))
    }

    pub(super) fn snapshot(&self) -> Value {
        let repositories: BTreeMap<String, Value> = self
            .by_slug
            .iter()
            .map(|(slug, repository)| (slug.to_string(), repository.snapshot()))
            .collect();
        json!(repositories)
    }
}

impl Repository {
    pub(super) fn commit(&self, sha: &CommitSha) -> Result<&StoredCommit> {
        self.commits
            .get(sha)
            .ok_or_else(|| refusal(ErrorKind::NotFound, "read", sha, "there is no such commit"))
    }

    /// The commit and everything it stands on.
    pub(super) fn ancestors(&self, head: &CommitSha) -> BTreeSet<CommitSha> {
        let mut seen = BTreeSet::new();
        let mut next = vec![head.clone()];
        while let Some(sha) = next.pop() {
            if let Some(commit) = self.commits.get(&sha)
                && seen.insert(sha)
            {
                next.extend(commit.parents.iter().cloned());
            }
        }
        seen
    }

    pub(super) fn contains(&self, head: &CommitSha, base: &CommitSha) -> bool {
        self.ancestors(head).contains(base)
    }

    fn snapshot(&self) -> Value {
        let heads: BTreeMap<_, _> = self
            .branches
            .iter()
            .map(|(name, branch)| {
                let files: BTreeMap<_, _> = self
                    .commits
                    .get(&branch.head)
                    .into_iter()
                    .flat_map(|commit| commit.files.iter())
                    .map(|(path, bytes)| (path, Digest::sha256_of(bytes)))
                    .collect();
                let commits = self.ancestors(&branch.head).len();
                (
                    name.as_str(),
                    json!({"head": branch.head, "files": files, "commits": commits}),
                )
            })
            .collect();
        let mut reports: Vec<String> = self.reports.iter().map(|report| format!("{report:?}")).collect();
        reports.sort();
        json!({"branches": heads, "reports": reports, "commits": self.commits.len()})
    }
}

impl State {
    /// Stores a commit; no branch moves.
    fn store_commit(
        &mut self,
        slug: &RepoSlug,
        parents: Vec<CommitSha>,
        files: Files,
        message: &str,
        moment: Moment<'_>,
    ) -> Result<CommitSha> {
        let digests: BTreeMap<_, _> = files
            .iter()
            .map(|(path, bytes)| (path, Digest::sha256_of(bytes)))
            .collect();
        let sha = commit_sha(&json!([slug, parents, digests, message]))?;
        self.source.commits_made += 1;
        let number = self.source.commits_made;
        let commit = StoredCommit {
            parents,
            files: Arc::new(files),
            message: message.to_owned(),
            at: moment.stamp(moment.now),
            number,
        };
        self.source
            .get_mut(slug)?
            .commits
            .entry(sha.clone())
            .or_insert(commit);
        Ok(sha)
    }

    /// Makes a branch point to a commit, and lets everybody who watches it know.
    fn move_branch(
        &mut self,
        slug: &RepoSlug,
        branch: &BranchName,
        to: &CommitSha,
        moment: Moment<'_>,
    ) -> Result<()> {
        let repository = self.source.get_mut(slug)?;
        let moved = moment.now;
        let before = repository
            .branches
            .insert(
                branch.clone(),
                Branch {
                    head: to.clone(),
                    moved,
                },
            )
            .map(|branch| branch.head);
        self.changed = true;
        super::ci::pushed(self, slug, branch, to, moment);
        super::infrastructure::pushed(self, slug, branch, before.as_ref(), to, moment)
    }

    /// Adds a commit on top of a branch, or begins the branch with it.
    pub(super) fn push(
        &mut self,
        slug: &RepoSlug,
        branch: &BranchName,
        changes: &BTreeMap<String, Option<Vec<u8>>>,
        message: &str,
        moment: Moment<'_>,
    ) -> Result<CommitSha> {
        let repository = self.source.get(slug)?;
        let head = repository.branches.get(branch).map(|branch| branch.head.clone());
        let before = match &head {
            Some(head) => repository.commit(head)?.files.as_ref().clone(),
            None => Files::new(),
        };
        let files = changed(before, changes);
        let sha = self.store_commit(slug, head.into_iter().collect(), files, message, moment)?;
        self.move_branch(slug, branch, &sha, moment)?;
        Ok(sha)
    }

    fn merge(
        &mut self,
        slug: &RepoSlug,
        branch: &BranchName,
        merge: &Merge,
        moment: Moment<'_>,
    ) -> Result<CommitSha> {
        let repository = self.source.get(slug)?;
        let number = repository.pull_requests.len() as u64 + 1;
        let base = match repository.branches.get(branch) {
            Some(branch) => branch.head.clone(),
            None => {
                return Err(refusal(
                    ErrorKind::NotFound,
                    "merge into",
                    branch,
                    "no such branch",
                ));
            }
        };
        let before = repository.commit(&base)?.files.as_ref().clone();
        let first = self.store_commit(
            slug,
            vec![base.clone()],
            before.clone(),
            &format!("Begin pull request {number}"),
            moment,
        )?;
        let files = changed(before, &merge.files);
        let message = format!(
            "Change {}",
            merge.files.keys().cloned().collect::<Vec<_>>().join(", ")
        );
        let head = self.store_commit(slug, vec![first.clone()], files.clone(), &message, moment)?;
        let message = format!("Merge pull request #{number} by {}", merge.author);
        let merged = self.store_commit(slug, vec![base, head.clone()], files, &message, moment)?;
        let verdicts = merge.verdicts(&first, &head, moment.stamp(moment.now));
        let pull_request = PullRequest {
            number,
            url: None,
            author: merge.author.clone(),
            head: head.clone(),
            verdicts,
        };
        let brought_in = BTreeSet::from([first, head, merged.clone()]);
        self.source
            .get_mut(slug)?
            .pull_requests
            .push((pull_request, brought_in));
        self.move_branch(slug, branch, &merged, moment)?;
        Ok(merged)
    }
}

fn changed(mut files: Files, changes: &BTreeMap<String, Option<Vec<u8>>>) -> Files {
    for (path, contents) in changes {
        match contents {
            Some(bytes) => files.insert(path.clone(), bytes.clone()),
            None => files.remove(path),
        };
    }
    files
}

fn text_changes(files: &[(&str, &str)]) -> BTreeMap<String, Option<Vec<u8>>> {
    files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), Some(text.as_bytes().to_vec())))
        .collect()
}

/// The branch that [`World::create_repository`] makes.
pub(super) fn main_branch() -> BranchName {
    #[expect(clippy::unwrap_used, reason = "the name is a constant")]
    BranchName::new("main").unwrap()
}

/// Preparing repositories. These panic where the world is asked for what it does not have: a test that is prepared wrong
/// shall fail where it is.
#[expect(clippy::expect_used, reason = "see above")]
impl World {
    /// Makes a repository whose branch `main` has one commit with these files, and returns that commit.
    ///
    /// # Panics
    /// Where there is such a repository already.
    pub fn create_repository(&self, repository: &RepoSlug, files: &[(&str, &str)]) -> CommitSha {
        let first = self.with(|state, moment| {
            if state.source.by_slug.contains_key(repository) {
                return None;
            }
            state
                .source
                .by_slug
                .insert(repository.clone(), Repository::default());
            let changes = text_changes(files);
            state
                .push(repository, &main_branch(), &changes, "Begin", moment)
                .ok()
        });
        first.expect("this world has the repository already")
    }

    /// Pushes a commit with these files onto a branch; where there is no such branch, it begins with it.
    ///
    /// # Panics
    /// Where there is no such repository.
    pub fn push(
        &self,
        repository: &RepoSlug,
        branch: &BranchName,
        files: &[(&str, &str)],
        message: &str,
    ) -> CommitSha {
        self.with(|state, moment| state.push(repository, branch, &text_changes(files), message, moment))
            .expect("push to a repository of this world")
    }

    /// Opens, reviews and merges a pull request, and returns the merge commit.
    ///
    /// # Panics
    /// Where there is no such repository or branch.
    pub fn merge(&self, repository: &RepoSlug, branch: &BranchName, merge: &Merge) -> CommitSha {
        self.with(|state, moment| state.merge(repository, branch, merge, moment))
            .expect("merge into a branch of this world")
    }

    /// Makes a branch point to a commit, whatever it pointed to before.
    ///
    /// # Panics
    /// Where there is no such repository or commit.
    pub fn set_branch(&self, repository: &RepoSlug, branch: &BranchName, commit: &CommitSha) {
        self.with(|state, moment| {
            state.source.get(repository)?.commit(commit)?;
            state.move_branch(repository, branch, commit, moment)
        })
        .expect("point a branch to a commit of this world");
    }

    /// The text of a file at the head of a branch, where there is one.
    pub fn text(&self, repository: &RepoSlug, branch: &BranchName, path: &str) -> Option<String> {
        self.with(|state, _| {
            let repository = state.source.get(repository).ok()?;
            let head = &repository.branches.get(branch)?.head;
            let bytes = repository.commits.get(head)?.files.get(path)?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        })
    }

    /// How many commits a branch has.
    pub fn commit_count(&self, repository: &RepoSlug, branch: &BranchName) -> usize {
        self.with(|state, _| {
            let repository = state.source.get(repository).ok()?;
            Some(repository.ancestors(&repository.branches.get(branch)?.head).len())
        })
        .unwrap_or_default()
    }
}
