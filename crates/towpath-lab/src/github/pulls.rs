//! Pull requests: their state, their reviews, what a push does to them, and how they are merged.

use super::contents::{move_ref, signature_of, web_flow};
use super::events::{RefMove, add_organization};
use super::git::{GitError, ZERO};
use super::hub::{Account, Hub, Repository};
use super::render::node_id;
use super::reply::{ApiError, Paging, Reply, ok, time};
use axum::http::{StatusCode, Uri};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One pull request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pull {
    /// The number within the repository.
    pub number: u64,
    /// The number on the server.
    pub id: u64,
    /// The title.
    pub title: String,
    /// The text.
    pub body: String,
    /// Who opened it.
    pub author: String,
    /// The branch with the change.
    pub head: String,
    /// The newest commit of that branch while the request was open.
    pub head_sha: String,
    /// The branch that it goes to.
    pub base: String,
    /// The commit of that branch when the request was opened, or merged.
    pub base_sha: String,
    /// Whether it is open.
    pub open: bool,
    /// The commit that its merge made, who merged, and when.
    pub merged: Option<(String, String, jiff::Timestamp)>,
    /// The commits that the merge put on the base branch.
    pub landed: Vec<String>,
    /// When it was opened.
    pub created: jiff::Timestamp,
    /// When it last changed.
    pub updated: jiff::Timestamp,
    /// When it was closed.
    pub closed: Option<jiff::Timestamp>,
    /// Its reviews, oldest first.
    pub reviews: Vec<Review>,
    /// Who was asked for a review and has not given one.
    pub requested: Vec<String>,
    /// Whether it is a draft.
    pub draft: bool,
}

/// One review of a pull request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Review {
    /// The number on the server.
    pub id: u64,
    /// Who wrote it.
    pub user: String,
    /// `APPROVED`, `CHANGES_REQUESTED`, `COMMENTED` or `DISMISSED`.
    pub state: String,
    /// The text.
    pub body: String,
    /// The commit that was reviewed.
    pub commit: String,
    /// When it was written.
    pub submitted: jiff::Timestamp,
}

/// How a merge is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MergeMethod {
    Merge,
    Squash,
    Rebase,
}

impl Pull {
    /// The last word of each reviewer, comments aside: approvals, and demands for changes.
    pub(super) fn verdicts(&self) -> (usize, usize) {
        let mut last = BTreeMap::new();
        for review in self.reviews.iter().filter(|review| review.state != "COMMENTED") {
            last.insert(review.user.to_ascii_lowercase(), review.state.as_str());
        }
        let count = |wanted: &str| last.values().filter(|state| **state == wanted).count();
        (count("APPROVED"), count("CHANGES_REQUESTED"))
    }
}

impl Hub {
    pub(super) fn review_json(&self, repository: &Repository, pull: &Pull, review: &Review) -> Value {
        let html = format!(
            "{}/{}/pull/{}#pullrequestreview-{}",
            self.base, repository.slug, pull.number, review.id
        );
        let api = format!("{}/repos/{}/pulls/{}", self.api(), repository.slug, pull.number);
        json!({
            "id": review.id, "node_id": node_id("PullRequestReview", review.id),
            "user": self.user_json(&self.actor(&review.user)), "body": review.body, "state": review.state,
            "html_url": html, "pull_request_url": api, "author_association": "MEMBER",
            "_links": {"html": {"href": html}, "pull_request": {"href": api}},
            "submitted_at": time(review.submitted), "commit_id": review.commit,
        })
    }

    pub(super) fn pull_json(&self, repository: &Repository, pull: &Pull) -> Value {
        let slug = &repository.slug;
        let api = format!("{}/repos/{slug}/pulls/{}", self.api(), pull.number);
        let issue = format!("{}/repos/{slug}/issues/{}", self.api(), pull.number);
        let html = format!("{}/{slug}/pull/{}", self.base, pull.number);
        let owner = self.user_json(&self.actor(slug.owner()));
        let full = self.repository_json(repository);
        let side = |branch: &str, sha: &str| {
            json!({
                "label": format!("{}:{branch}", slug.owner()), "ref": branch, "sha": sha,
                "user": owner, "repo": full,
            })
        };
        let users = |logins: &[String]| -> Vec<Value> {
            logins
                .iter()
                .map(|login| self.user_json(&self.actor(login)))
                .collect()
        };
        json!({
            "url": api, "id": pull.id, "node_id": node_id("PullRequest", pull.id), "html_url": html,
            "diff_url": format!("{html}.diff"), "patch_url": format!("{html}.patch"), "issue_url": issue,
            "commits_url": format!("{api}/commits"), "review_comments_url": format!("{api}/comments"),
            "review_comment_url": format!("{}/repos/{slug}/pulls/comments{{/number}}", self.api()),
            "comments_url": format!("{issue}/comments"),
            "statuses_url": format!("{}/repos/{slug}/statuses/{}", self.api(), pull.head_sha),
            "number": pull.number, "state": if pull.open { "open" } else { "closed" }, "locked": false,
            "title": pull.title, "body": pull.body, "user": self.user_json(&self.actor(&pull.author)),
            "labels": [], "milestone": null, "active_lock_reason": null, "assignee": null, "assignees": [],
            "created_at": time(pull.created), "updated_at": time(pull.updated),
            "closed_at": pull.closed.map(time),
            "merged_at": pull.merged.as_ref().map(|(_, _, at)| time(*at)),
            "merge_commit_sha": pull.merged.as_ref().map(|(sha, _, _)| sha),
            "requested_reviewers": users(&pull.requested), "requested_teams": [],
            "head": side(&pull.head, &pull.head_sha), "base": side(&pull.base, &pull.base_sha),
            "author_association": "MEMBER", "auto_merge": null, "draft": pull.draft,
            "_links": {
                "self": {"href": api}, "html": {"href": html}, "issue": {"href": issue},
                "comments": {"href": format!("{issue}/comments")},
                "review_comments": {"href": format!("{api}/comments")},
                "review_comment": {"href": format!("{}/repos/{slug}/pulls/comments{{/number}}", self.api())},
                "commits": {"href": format!("{api}/commits")},
                "statuses": {"href": format!("{}/repos/{slug}/statuses/{}", self.api(), pull.head_sha)},
            },
        })
    }

    /// Tells the hooks what happened to a pull request.
    pub(super) fn announce_pull(
        self: &Arc<Self>,
        repository: &Repository,
        pull: &Pull,
        action: &str,
        by: &Account,
    ) {
        let mut payload = json!({
            "action": action, "number": pull.number, "pull_request": self.pull_json(repository, pull),
            "repository": self.repository_json(repository), "sender": self.user_json(by),
        });
        payload["pull_request"]["merged"] = json!(pull.merged.is_some());
        payload["pull_request"]["merged_by"] = json!(
            pull.merged
                .as_ref()
                .map(|(_, login, _)| self.user_json(&self.actor(login)))
        );
        add_organization(self, repository, &mut payload);
        self.emit(repository, "pull_request", &payload);
    }
}

/// A push to a branch moves the head of its open pull requests, and may make their approvals stale.
pub(super) async fn branch_moved(
    hub: &Arc<Hub>,
    repository: &Arc<Repository>,
    moved: &RefMove,
    actor: &Account,
) -> Result<(), GitError> {
    let Some(branch) = moved.branch() else {
        return Ok(());
    };
    let mut touched = Vec::new();
    {
        let mut records = repository.records();
        let protections = records.protections.clone();
        for pull in records
            .pulls
            .iter_mut()
            .filter(|pull| pull.open && pull.head == branch)
        {
            pull.updated = jiff::Timestamp::now();
            if moved.after == ZERO {
                pull.open = false;
                pull.closed = Some(pull.updated);
                touched.push((pull.clone(), "closed"));
                continue;
            }
            moved.after.clone_into(&mut pull.head_sha);
            if protections
                .get(&pull.base)
                .is_some_and(|rules| rules.dismiss_stale_reviews)
            {
                for review in pull
                    .reviews
                    .iter_mut()
                    .filter(|review| review.state == "APPROVED")
                {
                    "DISMISSED".clone_into(&mut review.state);
                }
            }
            touched.push((pull.clone(), "synchronize"));
        }
    }
    for (pull, action) in touched {
        if action == "synchronize" {
            publish_head(repository, &pull).await?;
        }
        hub.announce_pull(repository, &pull, action, actor);
    }
    Ok(())
}

/// Keeps `refs/pull/N/head` where the head of the request is.
pub(super) async fn publish_head(repository: &Repository, pull: &Pull) -> Result<(), GitError> {
    let name = format!("refs/pull/{}/head", pull.number);
    repository
        .git
        .run(&["update-ref", &name, &pull.head_sha])
        .await
        .map(|_| ())
}

/// Why a pull request cannot be merged now, in GitHub's words.
pub(super) fn refusal(repository: &Repository, pull: &Pull) -> Option<String> {
    let rules = repository.records().protections.get(&pull.base).cloned()?;
    let (approvals, objections) = pull.verdicts();
    let required = usize::try_from(rules.required_approvals).unwrap_or(usize::MAX);
    if required > 0 && objections > 0 {
        return Some("Changes must be addressed: a reviewer with write access requested changes.".into());
    }
    if approvals < required {
        return Some(format!(
            "At least {required} approving review is required by reviewers with write access."
        ));
    }
    let missing = super::statuses::unmet(repository, &pull.head_sha, &rules.required_checks);
    (!missing.is_empty()).then(|| {
        format!(
            "Required status check \"{}\" is expected.",
            missing.join("\", \"")
        )
    })
}

/// Merges an open pull request and moves its base branch.
pub(super) async fn merge(
    hub: &Arc<Hub>,
    repository: &Arc<Repository>,
    pull: Pull,
    method: MergeMethod,
    message: String,
    actor: &Account,
) -> Reply<Pull> {
    let git = &repository.git;
    let base_name = format!("refs/heads/{}", pull.base);
    let base = git
        .resolve(&base_name, "commit")
        .await?
        .ok_or_else(ApiError::not_found)?;
    let conflict = || ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Pull Request is not mergeable");
    let (author, committer) = (signature_of(actor), web_flow());
    let (after, landed) = if method == MergeMethod::Rebase {
        let range = format!("{base}..{}", pull.head_sha);
        let mut commits = git.log(&["--topo-order", "--no-merges", &range]).await?;
        commits.reverse();
        let (mut tip, mut landed) = (base.clone(), Vec::new());
        for commit in commits {
            let parent = commit.parents.first().map(String::as_str);
            let tree = git
                .merge_tree(parent, &tip, &commit.sha)
                .await?
                .ok_or_else(conflict)?;
            tip = git
                .write_commit(&tree, &[tip], &commit.message, &commit.author, &committer)
                .await?;
            landed.push(tip.clone());
        }
        (tip, landed)
    } else {
        let tree = git
            .merge_tree(None, &base, &pull.head_sha)
            .await?
            .ok_or_else(conflict)?;
        let mut parents = vec![base.clone()];
        if method == MergeMethod::Merge {
            parents.push(pull.head_sha.clone());
        }
        let sha = git
            .write_commit(&tree, &parents, &message, &author, &committer)
            .await?;
        (sha.clone(), vec![sha])
    };
    let moved = RefMove {
        name: base_name,
        before: base.clone(),
        after: after.clone(),
    };
    let merged = {
        let now = jiff::Timestamp::now();
        let mut records = repository.records();
        let found = records.pulls.iter_mut().find(|other| other.number == pull.number);
        let pull = found.ok_or_else(ApiError::not_found)?;
        (pull.open, pull.updated, pull.closed) = (false, now, Some(now));
        pull.merged = Some((after, actor.login.clone(), now));
        (pull.landed, pull.base_sha) = (landed, base);
        pull.clone()
    };
    if let Err(error) = move_ref(hub, repository, &moved, &actor.login).await {
        if let Some(open) = repository
            .records()
            .pulls
            .iter_mut()
            .find(|other| other.number == pull.number)
        {
            *open = pull;
        }
        return Err(error);
    }
    hub.announce_pull(repository, &merged, "closed", actor);
    Ok(merged)
}

/// `GET /commits/{sha}/pulls`: the merged requests that brought a commit, or the open ones that hold it.
pub(super) async fn associated(
    hub: &Hub,
    repository: &Repository,
    sha: &str,
    paging: Paging,
    uri: &Uri,
) -> Reply {
    let pulls = repository.records().pulls.clone();
    let mut found = Vec::new();
    for pull in pulls {
        let lands = pull.landed.iter().any(|landed| landed == sha);
        if lands
            || repository.git.is_ancestor(sha, &pull.head_sha).await?
                && !repository.git.is_ancestor(sha, &pull.base_sha).await?
        {
            found.push(pull);
        }
    }
    let total = found.len();
    let page: Value = paging
        .slice(found)
        .iter()
        .map(|pull| hub.pull_json(repository, pull))
        .collect();
    Ok(paging.link(ok(&page), &hub.base, uri, total))
}
