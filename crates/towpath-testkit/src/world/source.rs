//! Elements A and B on top of the repositories.

use super::faults::Element;
use super::repositories::Repository;
use super::{World, refusal};
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use towpath_core::{BranchName, CommitSha, RepoSlug};
use towpath_elements::source::{Ancestry, Change, Commit, Report, Review};
use towpath_elements::{Error, ErrorKind, Result, RevisionOracle, Source};

#[async_trait]
impl Source for World {
    async fn head(&self, repository: &RepoSlug, branch: &BranchName) -> Result<Option<CommitSha>> {
        self.call(
            Element::Source,
            "head",
            format!("{repository} {branch}"),
            |state, _| {
                let repository = state.source.get(repository)?;
                Ok(repository.branches.get(branch).map(|branch| branch.head.clone()))
            },
        )
        .await
    }

    async fn ancestry(&self, repository: &RepoSlug, base: &CommitSha, head: &CommitSha) -> Result<Ancestry> {
        self.call(
            Element::Source,
            "ancestry",
            format!("{base}...{head}"),
            |state, _| {
                let repository = state.source.get(repository)?;
                repository.commit(base)?;
                repository.commit(head)?;
                Ok(
                    match (repository.contains(head, base), repository.contains(base, head)) {
                        (true, true) => Ancestry::Identical,
                        (true, false) => Ancestry::Ahead,
                        (false, true) => Ancestry::Behind,
                        (false, false) => Ancestry::Diverged,
                    },
                )
            },
        )
        .await
    }

    async fn review(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Review> {
        self.call(Element::Source, "review", commit, |state, _| {
            let repository = state.source.get(repository)?;
            repository.commit(commit)?;
            let brought_in = repository
                .pull_requests
                .iter()
                .filter(|(_, commits)| commits.contains(commit));
            Ok(Review {
                commit: commit.clone(),
                pull_requests: brought_in.map(|(pull_request, _)| pull_request.clone()).collect(),
            })
        })
        .await
    }

    async fn file(&self, repository: &RepoSlug, commit: &CommitSha, path: &str) -> Result<Option<Vec<u8>>> {
        self.call(
            Element::Source,
            "file",
            format!("{repository} {path}"),
            |state, _| {
                let commit = state.source.get(repository)?.commit(commit)?;
                Ok(commit.files.get(path).cloned())
            },
        )
        .await
    }

    async fn commit(&self, change: Change) -> Result<CommitSha> {
        let subject = format!("{} {}", change.repository, change.branch);
        self.call(Element::Source, "commit", &subject, |state, moment| {
            let repository = state.source.get(&change.repository)?;
            let head = repository.branches.get(&change.branch).map(|branch| &branch.head);
            if head != Some(&change.expected_head) {
                let found = head.map_or("gone".to_owned(), |head| format!("at {}", head.short()));
                let detail = format!("the branch is {found}, not at {}", change.expected_head.short());
                return Err(refusal(ErrorKind::Conflict, "commit to", &subject, detail));
            }
            state.push(
                &change.repository,
                &change.branch,
                &change.files,
                &change.message,
                moment,
            )
        })
        .await
    }

    fn history(
        &self,
        repository: &RepoSlug,
        branch: &BranchName,
        path: Option<String>,
    ) -> BoxStream<'static, Result<Commit>> {
        let (world, repository, branch) = (self.clone(), repository.clone(), branch.clone());
        stream::once(async move {
            let subject = format!("{repository} {branch}");
            let commits = world
                .call(Element::Source, "history", &subject, |state, _| {
                    let repository = state.source.get(&repository)?;
                    let head = repository.branches.get(&branch).ok_or_else(|| {
                        refusal(ErrorKind::NotFound, "list", &subject, "there is no such branch")
                    })?;
                    Ok(commits(repository, &head.head, path.as_deref()))
                })
                .await?;
            Ok::<_, Error>(stream::iter(commits.into_iter().map(Ok)))
        })
        .try_flatten()
        .boxed()
    }

    async fn report(&self, report: Report) -> Result<()> {
        self.call(
            Element::Source,
            "report",
            format!("{} {}", report.commit, report.context),
            |state, _| {
                let repository = state.source.get_mut(&report.repository)?;
                repository.commit(&report.commit)?;
                let same = |other: &&mut Report| {
                    (&other.commit, &other.context) == (&report.commit, &report.context)
                };
                match repository.reports.iter_mut().find(same) {
                    Some(before) if *before == report => {}
                    Some(before) => {
                        *before = report.clone();
                        state.changed = true;
                    }
                    None => {
                        repository.reports.push(report.clone());
                        state.changed = true;
                    }
                }
                Ok(())
            },
        )
        .await
    }

    async fn reports(&self, repository: &RepoSlug, commit: &CommitSha) -> Result<Vec<Report>> {
        self.call(Element::Source, "reports", commit, |state, _| {
            let repository = state.source.get(repository)?;
            repository.commit(commit)?;
            let of_the_commit = repository
                .reports
                .iter()
                .filter(|report| report.commit == *commit);
            Ok(of_the_commit.cloned().collect())
        })
        .await
    }
}

/// The commits of a branch, newest first; with a path, those that changed it against every parent.
fn commits(repository: &Repository, head: &CommitSha, path: Option<&str>) -> Vec<Commit> {
    let contents = |sha: &CommitSha| {
        let commit = repository.commits.get(sha)?;
        path.and_then(|path| commit.files.get(path))
    };
    let mut found: Vec<_> = repository
        .ancestors(head)
        .into_iter()
        .filter_map(|sha| Some((repository.commits.get(&sha)?, sha)))
        .filter(|(commit, sha)| {
            let here = contents(sha);
            let changed = commit.parents.iter().all(|parent| contents(parent) != here);
            path.is_none() || (changed && (here.is_some() || !commit.parents.is_empty()))
        })
        .collect();
    found.sort_by_key(|(commit, _)| std::cmp::Reverse(commit.number));
    found
        .into_iter()
        .map(|(commit, sha)| Commit {
            sha,
            message: commit.message.clone(),
            at: Some(commit.at),
        })
        .collect()
}

#[async_trait]
impl RevisionOracle for World {
    /// The repository is told by the end of the URL, `…/owner/name` or `…/owner/name.git`.
    async fn contains(
        &self,
        repository_url: &str,
        revision: &CommitSha,
        expected: &CommitSha,
    ) -> Result<bool> {
        let path = repository_url.trim_end_matches('/').trim_end_matches(".git");
        let mut parts = path.rsplit(['/', ':']);
        let slug: RepoSlug = match (parts.next(), parts.next()) {
            (Some(name), Some(owner)) => format!("{owner}/{name}").parse()?,
            _ => {
                let detail = "it does not end in owner/name";
                return Err(refusal(
                    ErrorKind::Invalid,
                    "find the repository of",
                    repository_url,
                    detail,
                ));
            }
        };
        self.call(Element::Source, "ancestry", revision, |state, _| {
            let repository = state.source.get(&slug)?;
            repository.commit(revision)?;
            Ok(repository.contains(revision, expected))
        })
        .await
    }
}
