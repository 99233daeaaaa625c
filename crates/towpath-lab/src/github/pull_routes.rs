//! The REST endpoints of pull requests and their reviews.

use super::hub::{Account, Caller, Hub, Repository};
use super::pulls::{self, MergeMethod, Pull, Review};
use super::reply::{ApiError, Input, Paging, Reply, created, ok};
use axum::Router;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Hub>> {
    let one_pull = "/repos/{owner}/{repo}/pulls/{number}";
    Router::new()
        .route("/repos/{owner}/{repo}/pulls", get(list).post(open))
        .route(one_pull, get(one))
        .route(&format!("{one_pull}/commits"), get(commits))
        .route(&format!("{one_pull}/files"), get(files))
        .route(&format!("{one_pull}/reviews"), get(reviews).post(review))
        .route(&format!("{one_pull}/reviews/{{id}}/dismissals"), put(dismiss))
        .route(
            &format!("{one_pull}/requested_reviewers"),
            post(request_reviewers).get(requested),
        )
        .route(&format!("{one_pull}/merge"), get(is_merged).put(merge))
}

type At = Path<(String, String, u64)>;

fn find(repository: &Repository, number: u64) -> Reply<Pull> {
    let records = repository.records();
    records
        .pulls
        .iter()
        .find(|pull| pull.number == number)
        .cloned()
        .ok_or_else(ApiError::not_found)
}

/// Changes a pull request, and returns it as it is then.
fn change(repository: &Repository, number: u64, edit: impl FnOnce(&mut Pull)) -> Reply<Pull> {
    let mut records = repository.records();
    let pull = records
        .pulls
        .iter_mut()
        .find(|pull| pull.number == number)
        .ok_or_else(ApiError::not_found)?;
    edit(pull);
    pull.updated = jiff::Timestamp::now();
    Ok(pull.clone())
}

#[derive(Debug, Deserialize)]
struct NewPull {
    title: String,
    head: String,
    base: String,
    body: Option<String>,
    #[serde(default)]
    draft: bool,
}

async fn open(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Input(new): Input<NewPull>,
) -> Reply {
    let (repository, actor) = hub.writable(&caller, &owner, &repo, "pull-requests")?;
    let git = &repository.git;
    let head = match new.head.split_once(':') {
        Some((of, branch)) if of.eq_ignore_ascii_case(repository.slug.owner()) => branch.to_owned(),
        _ => new.head,
    };
    let invalid = |field: &str| {
        ApiError::validation(
            "PullRequest",
            field,
            "invalid",
            &format!("{field} is not a branch"),
        )
    };
    let sha = async |branch: &str| git.resolve(&format!("refs/heads/{branch}"), "commit").await;
    let head_sha = sha(&head).await?.ok_or_else(|| invalid("head"))?;
    let base_sha = sha(&new.base).await?.ok_or_else(|| invalid("base"))?;
    if git.is_ancestor(&head_sha, &base_sha).await? {
        let message = format!("No commits between {} and {head}", new.base);
        return Err(ApiError::validation("PullRequest", "head", "custom", &message));
    }
    let id = hub.next_id();
    let pull = {
        let mut records = repository.records();
        if records
            .pulls
            .iter()
            .any(|other| other.open && other.head == head && other.base == new.base)
        {
            let message = format!(
                "A pull request already exists for {}:{head}.",
                repository.slug.owner()
            );
            return Err(ApiError::validation("PullRequest", "head", "custom", &message));
        }
        let now = jiff::Timestamp::now();
        let pull = Pull {
            number: records.pulls.len() as u64 + 1,
            id,
            title: new.title,
            body: new.body.unwrap_or_default(),
            author: actor.login.clone(),
            head,
            head_sha,
            base: new.base,
            base_sha,
            open: true,
            merged: None,
            landed: Vec::new(),
            created: now,
            updated: now,
            closed: None,
            reviews: Vec::new(),
            requested: Vec::new(),
            draft: new.draft,
        };
        records.pulls.push(pull.clone());
        pull
    };
    pulls::publish_head(&repository, &pull).await?;
    hub.announce_pull(&repository, &pull, "opened", &actor);
    Ok(created(&full(&hub, &repository, &pull).await?))
}

/// What one pull request shows beyond what a list of them does.
async fn full(hub: &Hub, repository: &Repository, pull: &Pull) -> Reply<Value> {
    let git = &repository.git;
    let mut json = hub.pull_json(repository, pull);
    let mergeable = if pull.open {
        Some(
            git.merge_tree(None, &pull.base_sha_now(git).await?, &pull.head_sha)
                .await?
                .is_some(),
        )
    } else {
        None
    };
    let state = match mergeable {
        None => "unknown",
        Some(false) => "dirty",
        Some(true) if pull.draft => "draft",
        Some(true) if pulls::refusal(repository, pull).is_some() => "blocked",
        Some(true) => "clean",
    };
    let range = format!("{}..{}", pull.base_sha, pull.head_sha);
    let count = git.line(&["rev-list", "--count", &range]).await?;
    let files = git
        .changed_files(Some(&fork_point(repository, pull).await?), &pull.head_sha)
        .await?;
    json["merged"] = json!(pull.merged.is_some());
    json["mergeable"] = json!(mergeable);
    json["rebaseable"] = json!(mergeable);
    json["mergeable_state"] = json!(state);
    json["merged_by"] = json!(
        pull.merged
            .as_ref()
            .map(|(_, login, _)| hub.user_json(&hub.actor(login)))
    );
    json["comments"] = json!(0);
    json["review_comments"] = json!(0);
    json["maintainer_can_modify"] = json!(false);
    json["commits"] = json!(count.parse::<u64>().unwrap_or(0));
    json["additions"] = json!(files.iter().map(|file| file.additions).sum::<u64>());
    json["deletions"] = json!(files.iter().map(|file| file.deletions).sum::<u64>());
    json["changed_files"] = json!(files.len());
    Ok(json)
}

impl Pull {
    async fn base_sha_now(&self, git: &super::git::BareRepo) -> Reply<String> {
        let now = git
            .resolve(&format!("refs/heads/{}", self.base), "commit")
            .await?;
        Ok(now.unwrap_or_else(|| self.base_sha.clone()))
    }
}

async fn fork_point(repository: &Repository, pull: &Pull) -> Reply<String> {
    let common = repository.git.merge_base(&pull.base_sha, &pull.head_sha).await?;
    Ok(common.unwrap_or_else(|| pull.base_sha.clone()))
}

#[derive(Debug, Deserialize)]
struct Filter {
    state: Option<String>,
    head: Option<String>,
    base: Option<String>,
}

async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Query(filter): Query<Filter>,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let mut all = repository.records().pulls.clone();
    all.retain(|pull| {
        let label = format!("{}:{}", repository.slug.owner(), pull.head);
        let state = filter.state.as_deref().unwrap_or("open");
        (state == "all" || (state == "open") == pull.open)
            && filter.base.as_ref().is_none_or(|base| *base == pull.base)
            && filter
                .head
                .as_ref()
                .is_none_or(|head| head.eq_ignore_ascii_case(&label))
    });
    all.reverse();
    let total = all.len();
    let page: Value = paging
        .slice(all)
        .iter()
        .map(|pull| hub.pull_json(&repository, pull))
        .collect();
    Ok(paging.link(ok(&page), &hub.base, &uri, total))
}

async fn one(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, number)): At) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let pull = find(&repository, number)?;
    Ok(ok(&full(&hub, &repository, &pull).await?))
}

async fn commits(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, number)): At,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let pull = find(&repository, number)?;
    let range = format!("{}..{}", pull.base_sha, pull.head_sha);
    let mut all = repository.git.log(&["--topo-order", &range]).await?;
    all.reverse();
    let total = all.len();
    let page: Value = paging
        .slice(all)
        .iter()
        .map(|commit| hub.commit_json(&repository, commit))
        .collect();
    Ok(paging.link(ok(&page), &hub.base, &uri, total))
}

async fn files(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, number)): At,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let pull = find(&repository, number)?;
    let from = fork_point(&repository, &pull).await?;
    let all = repository.git.changed_files(Some(&from), &pull.head_sha).await?;
    let total = all.len();
    let page: Value = paging
        .slice(all)
        .iter()
        .map(|file| hub.file_json(&repository, &pull.head_sha, file))
        .collect();
    Ok(paging.link(ok(&page), &hub.base, &uri, total))
}

async fn reviews(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, number)): At,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let pull = find(&repository, number)?;
    let page: Value = paging
        .slice(pull.reviews.clone())
        .iter()
        .map(|review| hub.review_json(&repository, &pull, review))
        .collect();
    Ok(paging.link(ok(&page), &hub.base, &uri, pull.reviews.len()))
}

#[derive(Debug, Deserialize)]
struct NewReview {
    body: Option<String>,
    event: Option<String>,
    commit_id: Option<String>,
}

async fn review(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, number)): At,
    Input(new): Input<NewReview>,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let actor: Account = hub.actor(&caller.known()?.login);
    let pull = find(&repository, number)?;
    let own = pull.author.eq_ignore_ascii_case(&actor.login);
    let state = match new.event.as_deref() {
        Some("APPROVE") if own => {
            return Err(ApiError::unprocessable(
                "Unprocessable Entity: Can not approve your own pull request",
            ));
        }
        Some("REQUEST_CHANGES") if own => {
            return Err(ApiError::unprocessable(
                "Unprocessable Entity: Can not request changes on your own pull request",
            ));
        }
        Some("APPROVE") => "APPROVED",
        Some("REQUEST_CHANGES") => "CHANGES_REQUESTED",
        Some("COMMENT") => "COMMENTED",
        _ => {
            return Err(ApiError::unprocessable(
                "event must be APPROVE, REQUEST_CHANGES or COMMENT; the lab keeps no pending reviews",
            ));
        }
    };
    let body = new.body.unwrap_or_default();
    if body.trim().is_empty() && state != "APPROVED" {
        return Err(ApiError::unprocessable(
            "body is required for REQUEST_CHANGES and COMMENT",
        ));
    }
    if let Some(commit) = &new.commit_id
        && !repository
            .git
            .is_ancestor(commit, &pull.head_sha)
            .await
            .unwrap_or(false)
    {
        return Err(ApiError::unprocessable(
            "commit_id is not part of the pull request",
        ));
    }
    let review = Review {
        id: hub.next_id(),
        user: actor.login.clone(),
        state: state.into(),
        body,
        commit: new.commit_id.unwrap_or_else(|| pull.head_sha.clone()),
        submitted: jiff::Timestamp::now(),
    };
    let pull = change(&repository, number, |pull| {
        pull.requested
            .retain(|login| !login.eq_ignore_ascii_case(&actor.login));
        pull.reviews.push(review.clone());
    })?;
    let json = hub.review_json(&repository, &pull, &review);
    let mut shown = json.clone();
    shown["state"] = json!(state.to_ascii_lowercase());
    let payload = json!({
        "action": "submitted", "review": shown, "pull_request": hub.pull_json(&repository, &pull),
        "repository": hub.repository_json(&repository), "sender": hub.user_json(&actor),
    });
    hub.emit(&repository, "pull_request_review", &payload);
    Ok(ok(&json))
}

async fn dismiss(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, number, id)): Path<(String, String, u64, u64)>,
) -> Reply {
    let (repository, _) = hub.writable(&caller, &owner, &repo, "pull-requests")?;
    let pull = change(&repository, number, |pull| {
        for review in pull.reviews.iter_mut().filter(|review| review.id == id) {
            "DISMISSED".clone_into(&mut review.state);
        }
    })?;
    let review = pull
        .reviews
        .iter()
        .find(|review| review.id == id)
        .ok_or_else(ApiError::not_found)?;
    Ok(ok(&hub.review_json(&repository, &pull, review)))
}

#[derive(Debug, Deserialize)]
struct Reviewers {
    #[serde(default)]
    reviewers: Vec<String>,
}

async fn request_reviewers(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, number)): At,
    Input(body): Input<Reviewers>,
) -> Reply {
    let (repository, actor) = hub.writable(&caller, &owner, &repo, "pull-requests")?;
    let pull = find(&repository, number)?;
    for login in &body.reviewers {
        if hub.account(login).is_none_or(|account| account.organization) {
            return Err(ApiError::unprocessable(format!(
                "Could not resolve to a node with the login of '{login}'."
            )));
        }
        if pull.author.eq_ignore_ascii_case(login) {
            return Err(ApiError::unprocessable(
                "Review cannot be requested from pull request author.",
            ));
        }
    }
    let pull = change(&repository, number, |pull| {
        for login in body.reviewers {
            if !pull.requested.contains(&login) {
                pull.requested.push(login);
            }
        }
    })?;
    hub.announce_pull(&repository, &pull, "review_requested", &actor);
    Ok(created(&hub.pull_json(&repository, &pull)))
}

async fn requested(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, number)): At) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let pull = hub.pull_json(&repository, &find(&repository, number)?);
    Ok(ok(&json!({"users": pull["requested_reviewers"], "teams": []})))
}

async fn is_merged(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, number)): At) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    match find(&repository, number)?.merged {
        Some(_) => Ok(super::reply::no_content()),
        None => Err(ApiError::not_found()),
    }
}

#[derive(Debug, Deserialize)]
struct Merge {
    commit_title: Option<String>,
    commit_message: Option<String>,
    sha: Option<String>,
    merge_method: Option<MergeMethod>,
}

async fn merge(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, number)): At,
    Input(body): Input<Merge>,
) -> Reply {
    let (repository, actor) = hub.writable(&caller, &owner, &repo, "contents")?;
    let _one_writer = repository.writing.lock().await;
    let pull = find(&repository, number)?;
    let refused = |message: String| ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message);
    if !pull.open || pull.draft {
        return Err(refused("Pull Request is not mergeable".into()));
    }
    if body.sha.as_ref().is_some_and(|sha| *sha != pull.head_sha) {
        return Err(ApiError::conflict(
            "Head branch was modified. Review and try the merge again.",
        ));
    }
    if let Some(reason) = pulls::refusal(&repository, &pull) {
        return Err(refused(reason));
    }
    let method = body.merge_method.unwrap_or(MergeMethod::Merge);
    let title = body.commit_title.unwrap_or_else(|| match method {
        MergeMethod::Squash => format!("{} (#{number})", pull.title),
        _ => format!(
            "Merge pull request #{number} from {}/{}",
            repository.slug.owner(),
            pull.head
        ),
    });
    let text = body.commit_message.unwrap_or_else(|| pull.title.clone());
    let message = if text.is_empty() {
        title
    } else {
        format!("{title}\n\n{text}")
    };
    let merged = pulls::merge(&hub, &repository, pull, method, message, &actor).await?;
    let sha = merged.merged.map(|(sha, _, _)| sha);
    Ok(ok(
        &json!({"sha": sha, "merged": true, "message": "Pull Request successfully merged"}),
    ))
}
