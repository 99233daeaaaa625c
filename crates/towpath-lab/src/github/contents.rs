//! "Repository contents": one file at a time, read and written over the same git objects that a push writes.

use super::events::{RefMove, announce};
use super::git::{Commit, Person, TreeEntry, ZERO};
use super::hub::{Account, Caller, Hub, Repository};
use super::reply::{ApiError, Input, Reply, created, ok};
use super::repos::guard;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/repos/{owner}/{repo}/contents", get(read_root))
        .route("/repos/{owner}/{repo}/contents/", get(read_root))
        .route(
            "/repos/{owner}/{repo}/contents/{*path}",
            get(read).put(write).delete(delete),
        )
}

/// Files above this size have no content in the JSON form.
const INLINE: u64 = 1024 * 1024;

#[derive(Debug, Deserialize)]
struct At {
    #[serde(rename = "ref")]
    revision: Option<String>,
}

async fn read_root(
    state: State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    query: Query<At>,
    headers: HeaderMap,
) -> Reply {
    read(state, caller, Path((owner, repo, String::new())), query, headers).await
}

async fn read(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, path)): Path<(String, String, String)>,
    Query(At { revision }): Query<At>,
    headers: HeaderMap,
) -> Reply {
    let repository = hub.readable(&caller, &owner, &repo)?;
    let path = path.trim_matches('/');
    let shown = revision.unwrap_or_else(|| repository.default_branch.clone());
    let commit = repository.git.resolve(&shown, "commit").await?.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("No commit found for the ref {shown}"),
        )
    })?;
    if path.is_empty() {
        let entries = repository.git.tree(&commit, &[]).await?;
        return Ok(ok(&entries
            .iter()
            .map(|entry| entry_json(&hub, &repository, &shown, entry))
            .collect()));
    }
    let entry = entry_at(&repository, &commit, path)
        .await?
        .ok_or_else(ApiError::not_found)?;
    if entry.kind == "tree" {
        let mut entries = repository.git.tree(&entry.sha, &[]).await?;
        for inner in &mut entries {
            inner.path = format!("{path}/{}", inner.path);
        }
        return Ok(ok(&entries
            .iter()
            .map(|entry| entry_json(&hub, &repository, &shown, entry))
            .collect()));
    }
    if entry.kind != "blob" {
        return Ok(ok(&entry_json(&hub, &repository, &shown, &entry)));
    }
    let bytes = repository.git.blob(&entry.sha).await?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if accept.contains("raw") {
        let kind = [(
            header::CONTENT_TYPE,
            "application/vnd.github.raw+json; charset=utf-8",
        )];
        return Ok((kind, bytes).into_response());
    }
    let mut json = entry_json(&hub, &repository, &shown, &entry);
    let inline = entry.size.unwrap_or(0) <= INLINE;
    json["encoding"] = json!(if inline { "base64" } else { "none" });
    json["content"] = json!(if inline { wrapped(&bytes) } else { String::new() });
    Ok(ok(&json))
}

/// Base64 in lines of 60 characters, as GitHub writes it.
pub(super) fn wrapped(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut lines = String::with_capacity(text.len() + text.len() / 60 + 1);
    for chunk in text.as_bytes().chunks(60) {
        lines.extend(chunk.iter().copied().map(char::from));
        lines.push('\n');
    }
    lines
}

/// Base64 as clients send it: with or without line breaks.
pub(super) fn unwrapped(text: &str) -> Option<Vec<u8>> {
    let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(compact).ok()
}

pub(super) async fn entry_at(repository: &Repository, tree: &str, path: &str) -> Reply<Option<TreeEntry>> {
    Ok(repository
        .git
        .tree(tree, &[path])
        .await?
        .into_iter()
        .find(|entry| entry.path == path))
}

fn entry_json(hub: &Hub, repository: &Repository, revision: &str, entry: &TreeEntry) -> Value {
    let slug = &repository.slug;
    let url = format!(
        "{}/repos/{slug}/contents/{}?ref={revision}",
        hub.api(),
        entry.path
    );
    let html = format!("{}/{slug}/blob/{revision}/{}", hub.base, entry.path);
    let git = format!("{}/repos/{slug}/git/{}s/{}", hub.api(), entry.kind, entry.sha);
    let kind = match (entry.kind.as_str(), entry.mode.as_str()) {
        ("tree", _) => "dir",
        ("commit", _) => "submodule",
        (_, "120000") => "symlink",
        _ => "file",
    };
    json!({
        "type": kind, "name": entry.path.rsplit('/').next(), "path": entry.path, "sha": entry.sha,
        "size": entry.size.unwrap_or(0), "url": url, "git_url": git, "html_url": html,
        "download_url": (kind == "file").then(|| format!("{}/raw/{slug}/{revision}/{}", hub.base, entry.path)),
        "_links": {"self": url, "git": git, "html": html},
    })
}

#[derive(Debug, Deserialize)]
struct Write {
    message: String,
    content: Option<String>,
    sha: Option<String>,
    branch: Option<String>,
    author: Option<Signature>,
    committer: Option<Signature>,
}

/// A name, an address and maybe a date, as a request gives them.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Signature {
    name: Option<String>,
    email: Option<String>,
    date: Option<jiff::Timestamp>,
}

impl Signature {
    pub(super) fn person(&self, otherwise: &Person) -> Person {
        Person {
            name: self.name.clone().unwrap_or_else(|| otherwise.name.clone()),
            email: self.email.clone().unwrap_or_else(|| otherwise.email.clone()),
            seconds: self.date.map_or(otherwise.seconds, |date| date.as_second()),
        }
    }
}

async fn write(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, path)): Path<(String, String, String)>,
    Input(body): Input<Write>,
) -> Reply {
    let content = body
        .content
        .as_deref()
        .ok_or_else(|| ApiError::unprocessable("Invalid request.\n\n\"content\" wasn't supplied."))?;
    let bytes = unwrapped(content).ok_or_else(|| ApiError::unprocessable("content is not valid Base64"))?;
    change(&hub, &caller, (&owner, &repo, &path), body, Some(bytes)).await
}

/// A `DELETE` may send its parameters as a body or as a query; clients of today send a body.
async fn delete(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, path)): Path<(String, String, String)>,
    Input(body): Input<Write>,
) -> Reply {
    if body.sha.is_none() {
        return Err(ApiError::unprocessable(
            "Invalid request.\n\n\"sha\" wasn't supplied.",
        ));
    }
    change(&hub, &caller, (&owner, &repo, &path), body, None).await
}

async fn change(
    hub: &Arc<Hub>,
    caller: &Caller,
    (owner, repo, path): (&str, &str, &str),
    body: Write,
    content: Option<Vec<u8>>,
) -> Reply {
    let (repository, actor) = hub.writable(caller, owner, repo, "contents")?;
    if path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == ".." || part == ".git")
    {
        return Err(ApiError::unprocessable(
            "path contains a malformed path component",
        ));
    }
    let branch = body
        .branch
        .clone()
        .unwrap_or_else(|| repository.default_branch.clone());
    let deleting = content.is_none();
    let _one_writer = repository.writing.lock().await;
    guard(&repository, &branch, &actor.login).await?;
    let head = repository
        .git
        .resolve(&format!("refs/heads/{branch}"), "commit")
        .await?;
    if head.is_none() && (branch != repository.default_branch || !repository.git.refs().await?.is_empty()) {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            format!("Branch {branch} not found"),
        ));
    }
    let old = match &head {
        Some(head) => entry_at(&repository, head, path).await?,
        None => None,
    };
    match (&old, &body.sha) {
        (Some(_), None) => {
            return Err(ApiError::unprocessable(
                "Invalid request.\n\n\"sha\" wasn't supplied.",
            ));
        }
        (Some(old), Some(sha)) if old.sha != *sha => {
            return Err(ApiError::conflict(format!("{path} does not match {sha}")));
        }
        (None, _) if deleting => return Err(ApiError::not_found()),
        (None, Some(sha)) => return Err(ApiError::conflict(format!("{path} does not match {sha}"))),
        _ => {}
    }
    let edit = Edit {
        path: path.to_owned(),
        content,
        message: body.message,
        author: body.author,
        committer: body.committer,
    };
    let commit = commit(hub, &repository, &branch, head, edit, &actor).await?;
    let new = entry_at(&repository, &commit.sha, path).await?;
    let answer = json!({
        "content": new.map(|entry| entry_json(hub, &repository, &branch, &entry)),
        "commit": hub.git_commit_json(&repository, &commit),
    });
    Ok(if old.is_none() {
        created(&answer)
    } else {
        ok(&answer)
    })
}

/// One file that one commit changes.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) path: String,
    /// `None` removes the file.
    pub(super) content: Option<Vec<u8>>,
    pub(super) message: String,
    pub(super) author: Option<Signature>,
    pub(super) committer: Option<Signature>,
}

/// Commits an edit on top of `head` and moves the branch. The caller holds the repository's write lock.
pub(super) async fn commit(
    hub: &Arc<Hub>,
    repository: &Arc<Repository>,
    branch: &str,
    head: Option<String>,
    edit: Edit,
    actor: &Account,
) -> Reply<Commit> {
    let git = &repository.git;
    let object = match &edit.content {
        None => None,
        Some(bytes) => {
            let old = match &head {
                Some(head) => entry_at(repository, head, &edit.path).await?,
                None => None,
            };
            let mode = old.map_or_else(|| "100644".to_owned(), |entry| entry.mode);
            Some((mode, git.write_blob(bytes).await?))
        }
    };
    let tree = git.write_tree(head.as_deref(), &[(edit.path, object)]).await?;
    let own = signature_of(actor);
    let committer = edit
        .committer
        .as_ref()
        .map_or_else(web_flow, |given| given.person(&own));
    let author = match (&edit.author, &edit.committer) {
        (Some(given), _) | (None, Some(given)) => given.person(&own),
        (None, None) => own,
    };
    let parents: Vec<String> = head.iter().cloned().collect();
    let sha = git
        .write_commit(&tree, &parents, &edit.message, &author, &committer)
        .await?;
    let moved = RefMove {
        name: format!("refs/heads/{branch}"),
        before: head.unwrap_or_else(|| ZERO.to_owned()),
        after: sha.clone(),
    };
    move_ref(hub, repository, &moved, &actor.login).await?;
    git.commit(&sha).await?.ok_or_else(ApiError::not_found)
}

/// Moves a ref, if it still is where it was, and announces it.
pub(super) async fn move_ref(
    hub: &Arc<Hub>,
    repository: &Arc<Repository>,
    moved: &RefMove,
    login: &str,
) -> Reply<()> {
    if !repository
        .git
        .update_ref(&moved.name, &moved.after, &moved.before)
        .await?
    {
        let now = repository
            .git
            .resolve(&moved.name, "commit")
            .await?
            .unwrap_or_else(|| ZERO.to_owned());
        return Err(ApiError::conflict(format!(
            "is at {now} but expected {}",
            moved.before
        )));
    }
    announce(hub, repository, moved, login).await?;
    Ok(())
}

/// How a commit made through the API is signed off by an account.
pub(super) fn signature_of(actor: &Account) -> Person {
    Person {
        name: if actor.name.is_empty() {
            actor.login.clone()
        } else {
            actor.name.clone()
        },
        email: actor.email.clone(),
        seconds: jiff::Timestamp::now().as_second(),
    }
}

/// GitHub itself, as the committer of what is done on its pages and through its API.
pub(super) fn web_flow() -> Person {
    Person {
        name: "GitHub".into(),
        email: "noreply@github.com".into(),
        seconds: jiff::Timestamp::now().as_second(),
    }
}
