//! What follows when a ref moves, by whatever way: the `push` webhook, the pull requests on it, the workflows.

use super::git::{Commit, GitError, Person, ZERO};
use super::hub::{Account, Hub, Repository};
use super::pulls;
use super::reply::time_of;
use crate::actions;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// GitHub names at most this many commits in one push event.
const MOST_COMMITS: usize = 2048;

/// One ref that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefMove {
    /// Its full name.
    pub(crate) name: String,
    /// Where it was; [`ZERO`] where it is new.
    pub(crate) before: String,
    /// Where it is; [`ZERO`] where it is gone.
    pub(crate) after: String,
}

impl RefMove {
    pub(crate) fn branch(&self) -> Option<&str> {
        self.name.strip_prefix("refs/heads/")
    }
}

/// Compares all refs before and after, and announces each that moved.
pub(crate) async fn refs_moved(
    hub: &Arc<Hub>,
    repository: &Arc<Repository>,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    actor: &str,
) -> Result<(), GitError> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let sha = |refs: &BTreeMap<String, String>| refs.get(name).map_or(ZERO, String::as_str).to_owned();
        let moved = RefMove {
            name: name.clone(),
            before: sha(before),
            after: sha(after),
        };
        if moved.before != moved.after {
            announce(hub, repository, &moved, actor).await?;
        }
    }
    Ok(())
}

/// Announces one ref that moved.
pub(crate) async fn announce(
    hub: &Arc<Hub>,
    repository: &Arc<Repository>,
    moved: &RefMove,
    actor: &str,
) -> Result<(), GitError> {
    repository.records().pushed = Some(jiff::Timestamp::now());
    let actor = hub.actor(actor);
    let payload = push_payload(hub, repository, moved, &actor).await?;
    hub.emit(repository, "push", &payload);
    pulls::branch_moved(hub, repository, moved, &actor).await?;
    actions::pushed(hub, repository, moved, payload, &actor).await
}

async fn push_payload(
    hub: &Hub,
    repository: &Repository,
    moved: &RefMove,
    actor: &Account,
) -> Result<Value, GitError> {
    let git = &repository.git;
    let (created, deleted) = (moved.before == ZERO, moved.after == ZERO);
    let mut commits = Vec::new();
    if !deleted {
        let limit = format!("-{MOST_COMMITS}");
        let not_before = format!("^{}", moved.before);
        // A new branch lists what no other branch has, as GitHub does.
        let others = format!("--exclude={}", moved.branch().unwrap_or_default());
        let args: Vec<&str> = if created {
            vec![&limit, &moved.after, "--not", &others, "--branches", "--tags"]
        } else {
            vec![&limit, &moved.after, &not_before]
        };
        commits = git.log(&args).await?;
        commits.reverse();
    }
    let head = if deleted {
        None
    } else {
        git.commit(&moved.after).await?
    };
    let mut described = commits.clone();
    if let Some(head) = head
        .as_ref()
        .filter(|head| !described.iter().any(|commit| commit.sha == head.sha))
    {
        described.push(head.clone());
    }
    let changes = git.names_changed(&described).await?;
    let render = |commit: &Commit| commit_json(hub, repository, commit, changes.get(&commit.sha));
    let forced = !created && !deleted && !git.is_ancestor(&moved.before, &moved.after).await?;
    let compare = format!(
        "{}/{}/compare/{}...{}",
        hub.base,
        repository.slug,
        &moved.before[..12],
        &moved.after[..12]
    );
    let mut payload = json!({
        "ref": moved.name, "before": moved.before, "after": moved.after,
        "created": created, "deleted": deleted, "forced": forced, "base_ref": null, "compare": compare,
        "commits": commits.iter().map(render).collect::<Vec<_>>(),
        "head_commit": head.as_ref().map(render),
        "repository": push_repository(hub, repository),
        "pusher": {"name": actor.login, "email": actor.email},
        "sender": hub.user_json(actor),
    });
    add_organization(hub, repository, &mut payload);
    Ok(payload)
}

/// Payloads of an organisation's repositories say whose they are.
pub(crate) fn add_organization(hub: &Hub, repository: &Repository, payload: &mut Value) {
    let owner = hub.actor(repository.slug.owner());
    if owner.organization {
        payload["organization"] = json!({
            "login": owner.login, "id": owner.id,
            "url": format!("{}/orgs/{}", hub.api(), owner.login),
        });
    }
}

/// A push shows its repository a little differently from every other event: times in seconds, the owner's name.
fn push_repository(hub: &Hub, repository: &Repository) -> Value {
    let mut json = hub.repository_json(repository);
    let owner = hub.actor(repository.slug.owner());
    let pushed = repository.records().pushed.unwrap_or(repository.created);
    json["created_at"] = json!(repository.created.as_second());
    json["pushed_at"] = json!(pushed.as_second());
    json["master_branch"] = json!(repository.default_branch);
    json["url"] = json["html_url"].clone();
    json["owner"]["name"] = json!(owner.login);
    json["owner"]["email"] = json!(owner.email);
    json
}

fn commit_json(
    hub: &Hub,
    repository: &Repository,
    commit: &Commit,
    files: Option<&Vec<(char, String)>>,
) -> Value {
    let person = |person: &Person| {
        let username = hub.account_of(person).map(|account| account.login);
        json!({"name": person.name, "email": person.email, "username": username})
    };
    let with = |letters: &[char]| -> Vec<&String> {
        files
            .into_iter()
            .flatten()
            .filter(|(letter, _)| letters.contains(letter))
            .map(|(_, path)| path)
            .collect()
    };
    json!({
        "id": commit.sha, "tree_id": commit.tree, "distinct": true, "message": commit.message,
        "timestamp": time_of(commit.committer.seconds), "url": hub.commit_html(repository, &commit.sha),
        "author": person(&commit.author), "committer": person(&commit.committer),
        "added": with(&['A']), "removed": with(&['D']), "modified": with(&['M', 'T']),
    })
}
