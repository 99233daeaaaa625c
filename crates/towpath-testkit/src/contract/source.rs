//! The contract of [`Source`].

use super::{refused, word};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use towpath_core::{BranchName, CommitSha, RepoSlug};
use towpath_elements::source::{Ancestry, Change, Commit, Report, ReportState, ReviewState};
use towpath_elements::{ErrorKind, Source};

/// Makes one test of each clause of [`Source`](towpath_elements::Source)'s contract.
#[macro_export]
macro_rules! source_contract {
    ($fixture:expr) => { $crate::source_contract!($fixture, #[tokio::test]); };
    ($fixture:expr, $($attribute:tt)+) => {
        $crate::contract_suite!(source, [$($attribute)+], $fixture,
            head_of_a_missing_branch_is_none
            a_commit_moves_the_head_from_where_it_was_expected
            a_moved_head_is_a_conflict_and_nothing_is_written
            a_file_is_read_at_its_commit
            ancestry_is_told_from_history
            a_report_replaces_the_one_before
            a_review_names_who_approved_what
            history_is_newest_first
        );
    };
}

/// Prepares repositories for the clauses.
#[async_trait]
pub trait SourceFixture: Send + Sync {
    /// The implementation.
    fn source(&self) -> Arc<dyn Source>;

    /// A repository of its own for each call, whose branch `main` has at least one commit and a file `README.md`.
    async fn repository(&self) -> RepoSlug;

    /// Makes a new branch that points to a commit.
    async fn branch_off(&self, repository: &RepoSlug, branch: &BranchName, at: &CommitSha);

    /// Opens, reviews and merges a pull request into `main`.
    async fn merged_pull_request(&self, repository: &RepoSlug) -> MergedPullRequest;
}

/// A pull request that a fixture has had merged.
#[derive(Clone, Debug)]
pub struct MergedPullRequest {
    /// The commit on `main` that it brought in.
    pub commit: CommitSha,
    /// Who opened it.
    pub author: String,
    /// Who approved its last commit, and said nothing after that.
    pub approved_by: String,
    /// Who approved the commit before the last one only.
    pub approved_too_early: String,
    /// Who approved first and then asked for changes, both of the last commit.
    pub changed_their_mind: String,
    /// Who only commented.
    pub commented: String,
}

fn main() -> BranchName {
    word("main")
}

async fn head(source: &dyn Source, repository: &RepoSlug) -> CommitSha {
    source.head(repository, &main()).await.unwrap().unwrap()
}

async fn history(source: &dyn Source, repository: &RepoSlug, path: Option<&str>) -> Vec<Commit> {
    let history = source.history(repository, &main(), path.map(ToOwned::to_owned));
    history.try_collect().await.unwrap()
}

fn change(repository: &RepoSlug, expected_head: &CommitSha, path: &str, contents: &[u8]) -> Change {
    Change {
        repository: repository.clone(),
        branch: main(),
        expected_head: expected_head.clone(),
        files: BTreeMap::from([(path.to_owned(), Some(contents.to_vec()))]),
        message: format!("Write {path}"),
    }
}

/// Clause 1.
pub async fn head_of_a_missing_branch_is_none(fixture: &dyn SourceFixture) {
    let (source, repository) = (fixture.source(), fixture.repository().await);
    let missing = source.head(&repository, &word("no/such-branch")).await.unwrap();
    assert_eq!(missing, None);
    let nowhere = word::<RepoSlug>("towpath-contract/no-such-repository");
    let result = source.head(&nowhere, &main()).await;
    refused(result, ErrorKind::NotFound, "the head in a missing repository");
}

/// Clause 2.
pub async fn a_commit_moves_the_head_from_where_it_was_expected(fixture: &dyn SourceFixture) {
    let (source, repository) = (fixture.source(), fixture.repository().await);
    let first = head(&*source, &repository).await;
    let untouched = source.file(&repository, &first, "README.md").await.unwrap();
    let mut adding = change(&repository, &first, "a/new.txt", b"new\n");
    adding
        .files
        .insert("a/other.txt".into(), Some(b"other\n".to_vec()));
    adding.message = "Add two files\n\nSource-Commit: of the contract\n".into();
    let second = source.commit(adding).await.unwrap();
    assert_eq!(
        head(&*source, &repository).await,
        second,
        "commit returns the new head"
    );

    let mut removing = change(&repository, &second, "a/new.txt", b"newer\n");
    removing.files.insert("a/other.txt".into(), None);
    let third = source.commit(removing).await.unwrap();
    let at = async |path: &str| source.file(&repository, &third, path).await.unwrap();
    assert_eq!(at("a/new.txt").await.as_deref(), Some(&b"newer\n"[..]));
    assert_eq!(at("a/other.txt").await, None, "None deletes");
    assert_eq!(at("README.md").await, untouched, "what is not named stays");

    let commits = history(&*source, &repository, None).await;
    let names: Vec<_> = commits.iter().take(3).map(|commit| commit.sha.clone()).collect();
    assert_eq!(names, [third, second, first], "each adds exactly one commit");
    assert_eq!(commits[1].trailer("Source-Commit"), Some("of the contract"));
}

/// Clause 3.
pub async fn a_moved_head_is_a_conflict_and_nothing_is_written(fixture: &dyn SourceFixture) {
    let (source, repository) = (fixture.source(), fixture.repository().await);
    let first = head(&*source, &repository).await;
    let racing = (0..4).map(|racer| {
        let change = change(&repository, &first, &format!("racer-{racer}"), b"here");
        source.commit(change)
    });
    let results = futures_util::future::join_all(racing).await;
    let won: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(won.len(), 1, "one of them wins: {results:?}");
    let winner = won[0].clone();
    for result in results.into_iter().filter(Result::is_err) {
        refused(result, ErrorKind::Conflict, "a commit that lost the race");
    }
    let late = source.commit(change(&repository, &first, "late", b"late")).await;
    refused(late, ErrorKind::Conflict, "a commit on an old head");
    assert_eq!(
        head(&*source, &repository).await,
        winner,
        "the branch is untouched"
    );
    assert_eq!(source.file(&repository, &winner, "late").await.unwrap(), None);
}

/// Clause 4.
pub async fn a_file_is_read_at_its_commit(fixture: &dyn SourceFixture) {
    let (source, repository) = (fixture.source(), fixture.repository().await);
    let first = head(&*source, &repository).await;
    let bytes = b"\xff\x00no text\r\n, no line end";
    let second = source
        .commit(change(&repository, &first, "dir/data.bin", bytes))
        .await
        .unwrap();
    let third = source
        .commit(change(&repository, &second, "dir/data.bin", b""))
        .await
        .unwrap();
    let at = async |commit| source.file(&repository, commit, "dir/data.bin").await.unwrap();
    assert_eq!(at(&first).await, None);
    assert_eq!(at(&second).await.as_deref(), Some(&bytes[..]));
    assert_eq!(
        at(&third).await.as_deref(),
        Some(&b""[..]),
        "an empty file is a file"
    );
    let nowhere = source.file(&repository, &third, "dir/none").await.unwrap();
    assert_eq!(nowhere, None);
}

/// Clause 5.
pub async fn ancestry_is_told_from_history(fixture: &dyn SourceFixture) {
    let (source, repository) = (fixture.source(), fixture.repository().await);
    let base = head(&*source, &repository).await;
    let ours = source
        .commit(change(&repository, &base, "ours", b"1"))
        .await
        .unwrap();
    let side = word::<BranchName>("side");
    fixture.branch_off(&repository, &side, &base).await;
    // Made after ours, and yet not ahead of it.
    let theirs = source
        .commit(Change {
            branch: side,
            ..change(&repository, &base, "theirs", b"2")
        })
        .await
        .unwrap();
    let how = async |base, head| source.ancestry(&repository, base, head).await.unwrap();
    assert_eq!(how(&ours, &ours).await, Ancestry::Identical);
    assert_eq!(how(&base, &ours).await, Ancestry::Ahead);
    assert_eq!(how(&ours, &base).await, Ancestry::Behind);
    assert_eq!(how(&ours, &theirs).await, Ancestry::Diverged);
    assert_eq!(how(&theirs, &ours).await, Ancestry::Diverged);
}

/// Clause 6.
pub async fn a_report_replaces_the_one_before(fixture: &dyn SourceFixture) {
    let (source, repository) = (fixture.source(), fixture.repository().await);
    let commit = head(&*source, &repository).await;
    let report = |context: &str, state, description: &str| Report {
        repository: repository.clone(),
        commit: commit.clone(),
        context: context.into(),
        state,
        description: description.into(),
        url: None,
    };
    let pending = report("contract/image", ReportState::Pending, "building");
    let done = report("contract/image", ReportState::Success, "stored");
    let other = report("contract/package", ReportState::Failure, "no");
    for report in [&pending, &done, &done, &other] {
        source.report(report.clone()).await.unwrap();
    }
    let mut reports = source.reports(&repository, &commit).await.unwrap();
    reports.sort_by(|a, b| a.context.cmp(&b.context));
    assert_eq!(reports, [done, other]);
}

/// Clause 7.
pub async fn a_review_names_who_approved_what(fixture: &dyn SourceFixture) {
    let (source, repository) = (fixture.source(), fixture.repository().await);
    let direct = head(&*source, &repository).await;
    let merged = fixture.merged_pull_request(&repository).await;
    let review = source.review(&repository, &merged.commit).await.unwrap();
    assert_eq!(review.commit, merged.commit);
    let [pull_request] = review.pull_requests.as_slice() else {
        assert_eq!(review.pull_requests.len(), 1, "{review:?}");
        return;
    };
    assert_eq!(pull_request.author, merged.author);
    assert_eq!(pull_request.approvers(), [merged.approved_by.as_str()]);
    assert_eq!(pull_request.objectors(), [merged.changed_their_mind.as_str()]);
    let by = |who: &str| {
        let verdicts = pull_request.verdicts.iter().filter(|verdict| verdict.by == who);
        verdicts.collect::<Vec<_>>()
    };
    let early = by(&merged.approved_too_early);
    assert_eq!(early.len(), 1, "{early:?}");
    assert_eq!(early[0].state, ReviewState::Approved);
    assert_ne!(early[0].commit.as_ref(), Some(&pull_request.head));
    assert_eq!(by(&merged.changed_their_mind).len(), 1, "the latest verdict only");
    assert!(by(&merged.commented).is_empty(), "a comment is no verdict");
    let unreviewed = source.review(&repository, &direct).await.unwrap();
    assert!(unreviewed.pull_requests.is_empty(), "{unreviewed:?}");
}

/// Clause 8.
pub async fn history_is_newest_first(fixture: &dyn SourceFixture) {
    let (source, repository) = (fixture.source(), fixture.repository().await);
    let mut made = vec![head(&*source, &repository).await];
    for path in ["watched", "other", "watched"] {
        let before = made.last().unwrap().clone();
        let contents = format!("after {before}");
        let next = source.commit(change(&repository, &before, path, contents.as_bytes()));
        made.push(next.await.unwrap());
    }
    made.reverse();
    let all = history(&*source, &repository, None).await;
    let names: Vec<_> = all.iter().map(|commit| commit.sha.clone()).collect();
    assert_eq!(names[..4], made[..]);
    let watched = history(&*source, &repository, Some("watched")).await;
    let names: Vec<_> = watched.iter().map(|commit| &commit.sha).collect();
    assert_eq!(names, [&made[0], &made[2]], "of one path only");
}
