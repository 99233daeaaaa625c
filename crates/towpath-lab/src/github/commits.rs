//! "Commits": lists, one commit, comparisons, and what hangs on a commit (statuses, checks, pull requests).

use super::hub::{Caller, Hub};
use super::reply::{ApiError, Paging, Reply, ok};
use super::{pulls, statuses};
use axum::Router;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/repos/{owner}/{repo}/commits", get(list))
        .route("/repos/{owner}/{repo}/commits/{*rest}", get(one))
        .route("/repos/{owner}/{repo}/compare/{*range}", get(compare))
}

#[derive(Debug, Deserialize)]
struct Filter {
    sha: Option<String>,
    path: Option<String>,
    author: Option<String>,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
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
    let git = &repository.git;
    let from = filter.sha.unwrap_or_else(|| repository.default_branch.clone());
    let Some(sha) = git.resolve(&from, "commit").await? else {
        return Err(if git.refs().await?.is_empty() {
            ApiError::conflict("Git Repository is empty.")
        } else {
            ApiError::not_found()
        });
    };
    let mut args: Vec<String> = Vec::new();
    args.extend(filter.since.map(|since| format!("--since={}", since.as_second())));
    args.extend(filter.until.map(|until| format!("--until={}", until.as_second())));
    if let Some(author) = &filter.author {
        let email = hub
            .account(author)
            .map_or_else(|| author.clone(), |account| account.email);
        args.extend(["--fixed-strings".into(), format!("--author={email}")]);
    }
    args.extend([sha, "--".into()]);
    args.extend(filter.path.map(|path| format!(":(literal){path}")));
    let (skip, most) = (
        format!("--skip={}", paging.skip()),
        format!("--max-count={}", paging.size()),
    );
    let rest: Vec<&str> = args.iter().map(String::as_str).collect();
    let count = [&["rev-list", "--count"], &rest[..]].concat();
    let page = [&[skip.as_str(), most.as_str()], &rest[..]].concat();
    let (total, commits) = tokio::try_join!(git.line(&count), git.log(&page))?;
    let body: Value = commits
        .iter()
        .map(|commit| hub.commit_json(&repository, commit))
        .collect();
    Ok(paging.link(ok(&body), &hub.base, &uri, total.parse().unwrap_or(0)))
}

/// A ref may contain slashes, so what is asked about the commit is the last part, if it is one that we know.
async fn one(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, rest)): Path<(String, String, String)>,
    Query(paging): Query<Paging>,
    Query(filter): Query<statuses::CheckFilter>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let (revision, what) = match rest.rsplit_once('/') {
        Some((revision, what @ ("status" | "statuses" | "check-runs" | "pulls"))) => (revision, what),
        _ => (rest.as_str(), ""),
    };
    let commit = repository
        .git
        .commit(revision)
        .await?
        .ok_or_else(|| ApiError::unprocessable(format!("No commit found for SHA: {revision}")))?;
    match what {
        "status" => return Ok(statuses::combined(&hub, &repository, &commit.sha, paging, &uri)),
        "statuses" => return Ok(statuses::list(&hub, &repository, &commit.sha, paging, &uri)),
        "check-runs" => {
            return Ok(statuses::checks(
                &hub,
                &repository,
                &commit.sha,
                &filter,
                paging,
                &uri,
            ));
        }
        "pulls" => return pulls::associated(&hub, &repository, &commit.sha, paging, &uri).await,
        _ => {}
    }
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if accept.contains("sha") {
        return Ok((StatusCode::OK, commit.sha).into_response());
    }
    let files = repository.git.changed_files(None, &commit.sha).await?;
    let mut body = hub.commit_json(&repository, &commit);
    let (added, removed) = files
        .iter()
        .fold((0, 0), |(a, d), file| (a + file.additions, d + file.deletions));
    body["stats"] = json!({"additions": added, "deletions": removed, "total": added + removed});
    body["files"] = files
        .iter()
        .map(|file| hub.file_json(&repository, &commit.sha, file))
        .collect();
    Ok(ok(&body))
}

async fn compare(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, range)): Path<(String, String, String)>,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let git = &repository.git;
    let (base, head) = range.split_once("...").ok_or_else(ApiError::not_found)?;
    let (Some(base), Some(head)) = (git.commit(base).await?, git.commit(head).await?) else {
        return Err(ApiError::not_found());
    };
    let common = git.merge_base(&base.sha, &head.sha).await?.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "No common ancestor between the two commits.",
        )
    })?;
    let symmetric = format!("{}...{}", base.sha, head.sha);
    let counts = git
        .line(&["rev-list", "--left-right", "--count", &symmetric])
        .await?;
    let mut counts = counts
        .split_whitespace()
        .map(|count| count.parse::<usize>().unwrap_or(0));
    let (behind, ahead) = (counts.next().unwrap_or(0), counts.next().unwrap_or(0));
    let status = match (ahead, behind) {
        (0, 0) => "identical",
        (_, 0) => "ahead",
        (0, _) => "behind",
        _ => "diverged",
    };
    let only_head = format!("{}..{}", base.sha, head.sha);
    let mut commits = git.log(&["--topo-order", &only_head]).await?;
    commits.reverse();
    let files = git.changed_files(Some(&common), &head.sha).await?;
    let merge_base = git.commit(&common).await?.ok_or_else(ApiError::not_found)?;
    let html = format!(
        "{}/{}/compare/{}...{}",
        hub.base, repository.slug, base.sha, head.sha
    );
    let body = json!({
        "url": format!("{}/repos/{}/compare/{range}", hub.api(), repository.slug),
        "html_url": html, "permalink_url": html,
        "diff_url": format!("{html}.diff"), "patch_url": format!("{html}.patch"),
        "base_commit": hub.commit_json(&repository, &base),
        "merge_base_commit": hub.commit_json(&repository, &merge_base),
        "status": status, "ahead_by": ahead, "behind_by": behind, "total_commits": ahead,
        "commits": paging.slice(commits).iter().map(|commit| hub.commit_json(&repository, commit)).collect::<Vec<_>>(),
        "files": files.iter().take(300).map(|file| hub.file_json(&repository, &head.sha, file)).collect::<Vec<_>>(),
    });
    Ok(paging.link(ok(&body), &hub.base, &uri, ahead))
}
