//! "Git database": refs, blobs, trees and commits, one object at a time.

use super::contents::{Signature, move_ref, signature_of, unwrapped, wrapped};
use super::events::RefMove;
use super::git::{TreeEntry, ZERO};
use super::hub::{Caller, Hub, Repository};
use super::reply::{ApiError, Input, Reply, created, no_content, ok};
use super::repos::guard;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use towpath_core::BranchName;

pub(super) fn routes() -> Router<Arc<Hub>> {
    let git = "/repos/{owner}/{repo}/git";
    Router::new()
        .route(&format!("{git}/ref/{{*name}}"), get(one_ref))
        .route(&format!("{git}/refs"), post(create_ref))
        .route(
            &format!("{git}/refs/{{*name}}"),
            get(one_ref).patch(update_ref).delete(delete_ref),
        )
        .route(&format!("{git}/matching-refs/{{*name}}"), get(matching_refs))
        .route(&format!("{git}/blobs"), post(create_blob))
        .route(&format!("{git}/blobs/{{sha}}"), get(blob))
        .route(&format!("{git}/trees"), post(create_tree))
        .route(&format!("{git}/trees/{{*sha}}"), get(tree))
        .route(&format!("{git}/commits"), post(create_commit))
        .route(&format!("{git}/commits/{{sha}}"), get(commit))
}

type At = Path<(String, String, String)>;

fn ref_json(hub: &Hub, repository: &Repository, name: &str, sha: &str) -> Value {
    let api = format!("{}/repos/{}/git", hub.api(), repository.slug);
    json!({
        "ref": name, "node_id": format!("REF_{name}"), "url": format!("{api}/{name}"),
        "object": {"sha": sha, "type": "commit", "url": format!("{api}/commits/{sha}")},
    })
}

async fn one_ref(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, name)): At) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let name = format!("refs/{name}");
    let sha = repository
        .git
        .refs()
        .await?
        .remove(&name)
        .ok_or_else(ApiError::not_found)?;
    Ok(ok(&ref_json(&hub, &repository, &name, &sha)))
}

async fn matching_refs(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, name)): At) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let prefix = format!("refs/{name}");
    let refs = repository.git.refs().await?;
    let matching = refs.iter().filter(|(name, _)| name.starts_with(&prefix));
    Ok(ok(&matching
        .map(|(name, sha)| ref_json(&hub, &repository, name, sha))
        .collect()))
}

#[derive(Debug, Deserialize)]
struct NewRef {
    #[serde(rename = "ref")]
    name: String,
    sha: String,
}

async fn create_ref(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Input(new): Input<NewRef>,
) -> Reply {
    let (repository, actor) = hub.writable(&caller, &owner, &repo, "contents")?;
    let short = new
        .name
        .strip_prefix("refs/heads/")
        .or_else(|| new.name.strip_prefix("refs/tags/"));
    if short.is_none_or(|short| short.parse::<BranchName>().is_err()) {
        return Err(ApiError::unprocessable(format!(
            "Reference name is invalid: {}",
            new.name
        )));
    }
    let _one_writer = repository.writing.lock().await;
    let git = &repository.git;
    let after = git.resolve(&new.sha, "commit").await?;
    let after = after.ok_or_else(|| ApiError::unprocessable("Object does not exist"))?;
    if git.resolve(&new.name, "object").await?.is_some() {
        return Err(ApiError::unprocessable("Reference already exists"));
    }
    let moved = RefMove {
        name: new.name,
        before: ZERO.into(),
        after,
    };
    move_ref(&hub, &repository, &moved, &actor.login).await?;
    Ok(created(&ref_json(&hub, &repository, &moved.name, &moved.after)))
}

#[derive(Debug, Deserialize)]
struct MoveRef {
    sha: String,
    #[serde(default)]
    force: bool,
}

async fn update_ref(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, name)): At,
    Input(body): Input<MoveRef>,
) -> Reply {
    let (repository, actor) = hub.writable(&caller, &owner, &repo, "contents")?;
    let name = format!("refs/{name}");
    let _one_writer = repository.writing.lock().await;
    let git = &repository.git;
    let missing = || ApiError::unprocessable("Reference does not exist");
    let before = git.refs().await?.remove(&name).ok_or_else(missing)?;
    let after = git.resolve(&body.sha, "commit").await?;
    let after = after.ok_or_else(|| ApiError::unprocessable("Object does not exist"))?;
    if !body.force && !git.is_ancestor(&before, &after).await? {
        return Err(ApiError::unprocessable("Update is not a fast forward"));
    }
    if let Some(branch) = name.strip_prefix("refs/heads/") {
        guard(&repository, branch, &actor.login).await?;
    }
    let moved = RefMove { name, before, after };
    if moved.before != moved.after {
        move_ref(&hub, &repository, &moved, &actor.login).await?;
    }
    Ok(ok(&ref_json(&hub, &repository, &moved.name, &moved.after)))
}

async fn delete_ref(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, name)): At) -> Reply {
    let (repository, actor) = hub.writable(&caller, &owner, &repo, "contents")?;
    let name = format!("refs/{name}");
    let _one_writer = repository.writing.lock().await;
    let missing = || ApiError::unprocessable("Reference does not exist");
    let before = repository.git.refs().await?.remove(&name).ok_or_else(missing)?;
    if let Some(branch) = name.strip_prefix("refs/heads/") {
        guard(&repository, branch, &actor.login).await?;
    }
    let moved = RefMove {
        name,
        before,
        after: ZERO.into(),
    };
    move_ref(&hub, &repository, &moved, &actor.login).await?;
    Ok(no_content())
}

#[derive(Debug, Deserialize)]
struct NewBlob {
    content: String,
    encoding: Option<String>,
}

async fn create_blob(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Input(new): Input<NewBlob>,
) -> Reply {
    let (repository, _) = hub.writable(&caller, &owner, &repo, "contents")?;
    let bytes = match new.encoding.as_deref() {
        None | Some("utf-8") => new.content.into_bytes(),
        Some("base64") => {
            unwrapped(&new.content).ok_or_else(|| ApiError::unprocessable("content is not valid Base64"))?
        }
        Some(other) => {
            return Err(ApiError::unprocessable(format!(
                "encoding {other} is not utf-8 or base64"
            )));
        }
    };
    let sha = repository.git.write_blob(&bytes).await?;
    let url = format!("{}/repos/{}/git/blobs/{sha}", hub.api(), repository.slug);
    Ok(created(&json!({"sha": sha, "url": url})))
}

async fn blob(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, sha)): At) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let sha = repository
        .git
        .resolve(&sha, "blob")
        .await?
        .ok_or_else(ApiError::not_found)?;
    let bytes = repository.git.blob(&sha).await?;
    Ok(ok(&json!({
        "sha": sha, "node_id": format!("B_{sha}"), "size": bytes.len(), "content": wrapped(&bytes),
        "encoding": "base64", "url": format!("{}/repos/{}/git/blobs/{sha}", hub.api(), repository.slug),
    })))
}

#[derive(Debug, Deserialize)]
struct NewTree {
    base_tree: Option<String>,
    tree: Vec<NewEntry>,
}

#[derive(Debug, Deserialize)]
struct NewEntry {
    path: String,
    mode: Option<String>,
    /// `Some(Value::Null)` removes the file; absent means that `content` is given.
    #[serde(default, deserialize_with = "present")]
    sha: Option<Value>,
    content: Option<String>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

async fn create_tree(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Input(new): Input<NewTree>,
) -> Reply {
    let (repository, _) = hub.writable(&caller, &owner, &repo, "contents")?;
    let git = &repository.git;
    let base = match &new.base_tree {
        None => None,
        Some(base) => {
            let found = git.resolve(base, "tree").await?;
            Some(found.ok_or_else(|| ApiError::unprocessable("base_tree is not a valid tree oid"))?)
        }
    };
    let mut changes = Vec::new();
    for entry in new.tree {
        if entry.path.is_empty()
            || entry.path.contains('\0')
            || entry.path.split('/').any(|part| part == "..")
        {
            return Err(ApiError::unprocessable(
                "tree.path contains a malformed path component",
            ));
        }
        let mode = entry.mode.unwrap_or_else(|| "100644".into());
        let object = match (entry.sha, entry.content) {
            (Some(Value::Null), None) => None,
            (Some(Value::String(sha)), None) => {
                let found = git.resolve(&sha, "object").await?;
                Some((
                    mode,
                    found.ok_or_else(|| ApiError::unprocessable(format!("tree.sha {sha} does not exist")))?,
                ))
            }
            (None, Some(content)) => Some((mode, git.write_blob(content.as_bytes()).await?)),
            _ => {
                return Err(ApiError::unprocessable(
                    "Must supply either tree.sha or tree.content",
                ));
            }
        };
        changes.push((entry.path, object));
    }
    let sha = git.write_tree(base.as_deref(), &changes).await?;
    let entries = git.tree(&sha, &["-t"]).await?;
    Ok(created(&tree_json(&hub, &repository, &sha, &entries)))
}

async fn tree(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, sha)): At,
    Query(query): Query<BTreeMap<String, String>>,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let sha = repository
        .git
        .resolve(&sha, "tree")
        .await?
        .ok_or_else(ApiError::not_found)?;
    // GitHub takes any value as yes, even 0.
    let options: &[&str] = if query.contains_key("recursive") {
        &["-r", "-t"]
    } else {
        &[]
    };
    let entries = repository.git.tree(&sha, options).await?;
    Ok(ok(&tree_json(&hub, &repository, &sha, &entries)))
}

fn tree_json(hub: &Hub, repository: &Repository, sha: &str, entries: &[TreeEntry]) -> Value {
    let api = format!("{}/repos/{}/git", hub.api(), repository.slug);
    let entry = |entry: &TreeEntry| {
        let mut json = json!({
            "path": entry.path, "mode": entry.mode, "type": entry.kind, "sha": entry.sha,
            "url": format!("{api}/{}s/{}", entry.kind, entry.sha),
        });
        if let Some(size) = entry.size {
            json["size"] = json!(size);
        }
        json
    };
    json!({
        "sha": sha, "url": format!("{api}/trees/{sha}"), "truncated": false,
        "tree": entries.iter().map(entry).collect::<Vec<_>>(),
    })
}

#[derive(Debug, Deserialize)]
struct NewCommit {
    message: String,
    tree: String,
    #[serde(default)]
    parents: Vec<String>,
    author: Option<Signature>,
    committer: Option<Signature>,
}

async fn create_commit(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Input(new): Input<NewCommit>,
) -> Reply {
    let (repository, actor) = hub.writable(&caller, &owner, &repo, "contents")?;
    let git = &repository.git;
    let tree = git.resolve(&new.tree, "tree").await?;
    let tree = tree.ok_or_else(|| ApiError::unprocessable("Tree SHA does not exist"))?;
    let mut parents = Vec::new();
    for parent in &new.parents {
        let found = git.resolve(parent, "commit").await?;
        parents.push(
            found.ok_or_else(|| {
                ApiError::unprocessable("Parent SHA does not exist or is not a commit object")
            })?,
        );
    }
    let own = signature_of(&actor);
    let author = new.author.map_or_else(|| own.clone(), |given| given.person(&own));
    let committer = new
        .committer
        .map_or_else(|| author.clone(), |given| given.person(&own));
    let sha = git
        .write_commit(&tree, &parents, &new.message, &author, &committer)
        .await?;
    let commit = git.commit(&sha).await?.ok_or_else(ApiError::not_found)?;
    Ok(created(&hub.git_commit_json(&repository, &commit)))
}

async fn commit(State(hub): State<Arc<Hub>>, caller: Caller, Path((owner, repo, sha)): At) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let commit = repository
        .git
        .commit(&sha)
        .await?
        .ok_or_else(ApiError::not_found)?;
    Ok(ok(&hub.git_commit_json(&repository, &commit)))
}
