//! The REST endpoints of the server, users, repositories, collaborators and branches.

use super::Protection;
use super::git::ZERO;
use super::hub::{Caller, CreateError, Hub, Repository};
use super::reply::{ApiError, Input, Paging, Reply, VERSION, answer, created, no_content, ok};
use axum::Router;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/meta", get(meta))
        .route("/rate_limit", get(rate_limit))
        .route("/user", get(user))
        .route("/users/{login}", get(account))
        .route("/orgs/{login}", get(organization))
        .route("/user/repos", post(create_for_user))
        .route(
            "/orgs/{org}/repos",
            get(list_of_organization).post(create_for_organization),
        )
        .route("/repos/{owner}/{repo}", get(one))
        .route(
            "/repos/{owner}/{repo}/collaborators/{login}",
            put(add_collaborator),
        )
        .route("/repos/{owner}/{repo}/branches", get(branches))
        .route("/repos/{owner}/{repo}/branches/{*branch}", get(branch))
}

async fn meta(State(hub): State<Arc<Hub>>) -> Reply {
    Ok(ok(&json!({
        "verifiable_password_authentication": true, "installed_version": VERSION,
        "packages": [], "domains": {"website": [hub.base]},
    })))
}

async fn rate_limit(State(hub): State<Arc<Hub>>) -> Reply {
    let limit = hub.config.rate_limit;
    let core = json!({"limit": limit, "used": 0, "remaining": limit, "reset": jiff::Timestamp::now().as_second() + 3600});
    Ok(ok(
        &json!({"resources": {"core": core, "search": core, "graphql": core}, "rate": core}),
    ))
}

async fn user(State(hub): State<Arc<Hub>>, caller: Caller) -> Reply {
    let who = caller.known()?;
    if who.scope.is_some() {
        return Err(ApiError::forbidden("Resource not accessible by integration"));
    }
    Ok(ok(&full_user(&hub, &who.login)))
}

async fn account(State(hub): State<Arc<Hub>>, _caller: Caller, Path(login): Path<String>) -> Reply {
    let account = hub.account(&login).ok_or_else(ApiError::not_found)?;
    Ok(ok(&full_user(&hub, &account.login)))
}

/// Clients build the addresses of an organisation's operations on its `url`, which is not that of a user.
async fn organization(State(hub): State<Arc<Hub>>, _caller: Caller, Path(login): Path<String>) -> Reply {
    let account = hub
        .account(&login)
        .filter(|account| account.organization)
        .ok_or_else(ApiError::not_found)?;
    let url = format!("{}/orgs/{}", hub.api(), account.login);
    let mut json = full_user(&hub, &account.login);
    for (name, path) in [
        ("url", ""),
        ("repos_url", "/repos"),
        ("events_url", "/events"),
        ("hooks_url", "/hooks"),
    ] {
        json[name] = json!(format!("{url}{path}"));
    }
    Ok(ok(&json))
}

fn full_user(hub: &Hub, login: &str) -> Value {
    let account = hub.actor(login);
    let mut json = hub.user_json(&account);
    json["name"] = json!(account.name);
    json["email"] = json!(account.email);
    json["company"] = Value::Null;
    json["public_repos"] = json!(0);
    json["followers"] = json!(0);
    json["following"] = json!(0);
    json["created_at"] = json!("2026-01-01T00:00:00Z");
    json["updated_at"] = json!("2026-01-01T00:00:00Z");
    json
}

#[derive(Debug, Deserialize)]
struct NewRepository {
    name: String,
    #[serde(default)]
    private: bool,
    visibility: Option<String>,
    description: Option<String>,
    #[serde(default)]
    auto_init: bool,
}

async fn create_for_user(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Input(new): Input<NewRepository>,
) -> Reply {
    let who = caller.known()?;
    create(&hub, &caller, who.login.clone(), new).await
}

async fn create_for_organization(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(org): Path<String>,
    Input(new): Input<NewRepository>,
) -> Reply {
    caller.known()?;
    let organization = hub
        .account(&org)
        .filter(|account| account.organization)
        .ok_or_else(ApiError::not_found)?;
    create(&hub, &caller, organization.login, new).await
}

async fn create(hub: &Arc<Hub>, caller: &Caller, owner: String, new: NewRepository) -> Reply {
    let who = caller.known()?;
    let account = hub.account(&who.login);
    let permitted = who.login == owner || account.as_ref().is_some_and(|account| account.member);
    if who.scope.is_some() || !permitted {
        return Err(ApiError::forbidden(
            "You need admin access to the organization before adding a repository to it.",
        ));
    }
    let slug = format!("{owner}/{}", new.name)
        .parse()
        .map_err(|error: towpath_core::ParseError| {
            ApiError::validation("Repository", "name", "custom", error.reason())
        })?;
    let private = new.private || matches!(new.visibility.as_deref(), Some("private" | "internal"));
    let description = new.description.unwrap_or_default();
    let repository = hub
        .create(slug, private, description)
        .await
        .map_err(|error| match error {
            CreateError::Exists => ApiError::validation(
                "Repository",
                "name",
                "custom",
                "name already exists on this account",
            ),
            CreateError::Git(error) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        })?;
    if new.auto_init {
        let readme = format!("# {}\n", repository.slug.name()).into_bytes();
        let edit = super::contents::Edit {
            path: "README.md".into(),
            content: Some(readme),
            message: "Initial commit".into(),
            author: None,
            committer: None,
        };
        let _one_writer = repository.writing.lock().await;
        let actor = hub.actor(&who.login);
        super::contents::commit(hub, &repository, &repository.default_branch, None, edit, &actor).await?;
    }
    Ok(created(&hub.repository_json(&repository)))
}

async fn list_of_organization(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(org): Path<String>,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let mut all = hub.repositories();
    all.retain(|repository| {
        repository.slug.owner().eq_ignore_ascii_case(&org) && hub.allowed(caller.0.as_ref(), repository, None)
    });
    let total = all.len();
    let page: Value = paging
        .slice(all)
        .iter()
        .map(|repository| hub.repository_json(repository))
        .collect();
    Ok(paging.link(ok(&page), &hub.base, &uri, total))
}

async fn one(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let mut json = hub.repository_json(&repository);
    let push = hub.allowed(caller.0.as_ref(), &repository, Some("contents"));
    json["permissions"] =
        json!({"admin": push, "maintain": push, "push": push, "triage": push, "pull": true});
    Ok(ok(&json))
}

async fn add_collaborator(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, login)): Path<(String, String, String)>,
) -> Reply {
    let (repository, _) = hub.writable(&caller, &owner, &repo, "administration")?;
    hub.account(&login)
        .filter(|account| !account.organization)
        .ok_or_else(ApiError::not_found)?;
    repository
        .records()
        .collaborators
        .insert(login.to_ascii_lowercase());
    Ok(no_content())
}

fn short_branch(hub: &Hub, repository: &Repository, name: &str, sha: &str) -> Value {
    let api = format!("{}/repos/{}", hub.api(), repository.slug);
    json!({
        "name": name, "protected": repository.records().protections.contains_key(name),
        "commit": {"sha": sha, "url": format!("{api}/commits/{sha}")},
        "protection_url": format!("{api}/branches/{name}/protection"),
    })
}

async fn branches(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let all: Vec<_> = repository
        .git
        .refs()
        .await?
        .into_iter()
        .filter_map(|(name, sha)| Some((name.strip_prefix("refs/heads/")?.to_owned(), sha)))
        .collect();
    let total = all.len();
    let page: Value = paging
        .slice(all)
        .iter()
        .map(|(name, sha)| short_branch(&hub, &repository, name, sha))
        .collect();
    Ok(paging.link(ok(&page), &hub.base, &uri, total))
}

async fn branch(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, rest)): Path<(String, String, String)>,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    if let Some(name) = rest.strip_suffix("/protection") {
        let protection = repository.records().protections.get(name).cloned();
        return match protection {
            Some(protection) => Ok(ok(&protection_json(&hub, &repository, name, &protection))),
            None => Err(ApiError::new(StatusCode::NOT_FOUND, "Branch not protected")),
        };
    }
    let missing = || ApiError::new(StatusCode::NOT_FOUND, "Branch not found");
    let commit = repository
        .git
        .commit(&format!("refs/heads/{rest}"))
        .await?
        .ok_or_else(missing)?;
    let mut json = short_branch(&hub, &repository, &rest, &commit.sha);
    json["commit"] = hub.commit_json(&repository, &commit);
    let html = format!("{}/{}/tree/{rest}", hub.base, repository.slug);
    json["_links"] =
        json!({"html": html, "self": format!("{}/repos/{}/branches/{rest}", hub.api(), repository.slug)});
    let required = repository
        .records()
        .protections
        .get(&rest)
        .map(|rules| rules.required_checks.clone());
    json["protection"] = json!({
        "enabled": required.is_some(),
        "required_status_checks": {
            "enforcement_level": if required.is_some() { "everyone" } else { "off" },
            "contexts": required.unwrap_or_default(), "checks": [],
        },
    });
    Ok(ok(&json))
}

fn protection_json(hub: &Hub, repository: &Repository, branch: &str, rules: &Protection) -> Value {
    let url = format!(
        "{}/repos/{}/branches/{branch}/protection",
        hub.api(),
        repository.slug
    );
    let mut json = json!({
        "url": url, "enforce_admins": {"url": format!("{url}/enforce_admins"), "enabled": true},
        "required_linear_history": {"enabled": false}, "allow_force_pushes": {"enabled": false},
        "allow_deletions": {"enabled": false}, "block_creations": {"enabled": false},
        "required_conversation_resolution": {"enabled": false}, "lock_branch": {"enabled": false},
        "allow_fork_syncing": {"enabled": false},
        "required_signatures": {"url": format!("{url}/required_signatures"), "enabled": false},
    });
    if rules.required_approvals > 0 {
        json["required_pull_request_reviews"] = json!({
            "url": format!("{url}/required_pull_request_reviews"),
            "dismiss_stale_reviews": rules.dismiss_stale_reviews, "require_code_owner_reviews": false,
            "required_approving_review_count": rules.required_approvals, "require_last_push_approval": false,
        });
    }
    if !rules.required_checks.is_empty() {
        json["required_status_checks"] = json!({
            "url": format!("{url}/required_status_checks"), "strict": false, "contexts": rules.required_checks,
            "contexts_url": format!("{url}/required_status_checks/contexts"),
            "checks": rules.required_checks.iter().map(|context| json!({"context": context, "app_id": null})).collect::<Vec<_>>(),
        });
    }
    json
}

/// Refuses a direct write to a branch that takes changes through pull requests only.
pub(super) async fn guard(repository: &Repository, branch: &str, login: &str) -> Reply<()> {
    let Some(rules) = repository.records().protections.get(branch).cloned() else {
        return Ok(());
    };
    if rules.required_approvals == 0
        || rules
            .may_push
            .iter()
            .any(|other| other.eq_ignore_ascii_case(login))
    {
        return Ok(());
    }
    let name = format!("refs/heads/{branch}");
    match repository.git.resolve(&name, "commit").await? {
        None => Ok(()),
        Some(sha) if sha == ZERO => Ok(()),
        Some(_) => Err(ApiError::conflict(format!(
            "Repository rule violations found\n\nChanges must be made through a pull request. \
             At least {} approving review is required by reviewers with write access.",
            rules.required_approvals
        ))),
    }
}

/// What is not in this part of the API.
pub(super) async fn missing() -> axum::response::Response {
    answer(
        StatusCode::NOT_FOUND,
        &json!({
            "message": "Not Found", "status": "404",
            "documentation_url": "https://docs.github.com/enterprise-server@3.19/rest",
        }),
    )
}
