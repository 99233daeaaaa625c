//! The JSON of accounts, repositories and commits, as the REST API and the webhooks show them.

use super::git::{Commit, FileChange, Person};
use super::hub::{Account, Hub, Repository};
use super::reply::{time, time_of};
use serde_json::{Value, json};

/// The node id of GraphQL: base64 of a type and a number.
pub(crate) fn node_id(kind: &str, id: u64) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(format!("0{}:{kind}{id}", kind.len()))
}

impl Hub {
    /// "Simple User".
    pub(crate) fn user_json(&self, account: &Account) -> Value {
        let (api, login) = (format!("{}/users/{}", self.api(), account.login), &account.login);
        let kind = match (account.organization, login.ends_with("[bot]")) {
            (true, _) => "Organization",
            (_, true) => "Bot",
            _ => "User",
        };
        json!({
            "login": login, "id": account.id, "node_id": node_id(kind, account.id),
            "avatar_url": format!("{}/avatars/u/{}", self.base, account.id), "gravatar_id": "",
            "url": api, "html_url": format!("{}/{login}", self.base),
            "followers_url": format!("{api}/followers"),
            "following_url": format!("{api}/following{{/other_user}}"),
            "gists_url": format!("{api}/gists{{/gist_id}}"),
            "starred_url": format!("{api}/starred{{/owner}}{{/repo}}"),
            "subscriptions_url": format!("{api}/subscriptions"),
            "organizations_url": format!("{api}/orgs"), "repos_url": format!("{api}/repos"),
            "events_url": format!("{api}/events{{/privacy}}"),
            "received_events_url": format!("{api}/received_events"),
            "type": kind, "site_admin": false,
        })
    }

    /// "Full Repository", without what belongs to issues, forks and licences.
    pub(crate) fn repository_json(&self, repository: &Repository) -> Value {
        let slug = &repository.slug;
        let html = format!("{}/{slug}", self.base);
        let api = format!("{}/repos/{slug}", self.api());
        let created = time(repository.created);
        let pushed = repository
            .records()
            .pushed
            .map(time)
            .unwrap_or_else(|| created.clone());
        json!({
            "id": repository.id, "node_id": node_id("Repository", repository.id),
            "name": slug.name(), "full_name": slug.to_string(), "private": repository.private,
            "owner": self.user_json(&self.actor(slug.owner())), "html_url": html,
            "description": (!repository.description.is_empty()).then_some(&repository.description),
            "fork": false, "url": api, "archived": false, "disabled": false,
            "visibility": if repository.private { "private" } else { "public" },
            "default_branch": repository.default_branch,
            "clone_url": format!("{html}.git"), "git_url": format!("{html}.git"),
            "ssh_url": format!("git@127.0.0.1:{slug}.git"), "svn_url": html, "mirror_url": null,
            "homepage": null, "language": null, "license": null, "topics": [], "size": 0,
            "forks": 0, "forks_count": 0, "stargazers_count": 0, "watchers": 0, "watchers_count": 0,
            "open_issues": 0, "open_issues_count": 0, "is_template": false, "allow_forking": true,
            "has_issues": true, "has_projects": false, "has_wiki": false, "has_pages": false,
            "has_downloads": true, "has_discussions": false, "web_commit_signoff_required": false,
            "allow_merge_commit": true, "allow_squash_merge": true, "allow_rebase_merge": true,
            "allow_auto_merge": false, "delete_branch_on_merge": false,
            "created_at": created, "updated_at": pushed, "pushed_at": pushed,
            "permissions": {"admin": true, "maintain": true, "push": true, "triage": true, "pull": true},
            "hooks_url": format!("{api}/hooks"), "statuses_url": format!("{api}/statuses/{{sha}}"),
            "commits_url": format!("{api}/commits{{/sha}}"), "pulls_url": format!("{api}/pulls{{/number}}"),
            "branches_url": format!("{api}/branches{{/branch}}"), "tags_url": format!("{api}/tags"),
            "contents_url": format!("{api}/contents/{{+path}}"),
            "compare_url": format!("{api}/compare/{{base}}...{{head}}"),
            "git_refs_url": format!("{api}/git/refs{{/sha}}"), "trees_url": format!("{api}/git/trees{{/sha}}"),
            "git_commits_url": format!("{api}/git/commits{{/sha}}"),
            "blobs_url": format!("{api}/git/blobs{{/sha}}"), "events_url": format!("{api}/events"),
        })
    }

    /// The account whose address wrote a commit, if there is one.
    pub(crate) fn account_of(&self, person: &Person) -> Option<Account> {
        let local = person.email.split('@').next().unwrap_or_default();
        let login = local.split_once('+').map_or(local, |(_, login)| login);
        self.config
            .users
            .iter()
            .find(|user| user.email.eq_ignore_ascii_case(&person.email))
            .and_then(|user| self.account(&user.login))
            .or_else(|| {
                person
                    .email
                    .ends_with("@users.noreply.github.com")
                    .then(|| self.actor(login))
            })
    }

    /// "Git Commit": what `/git/commits` shows.
    pub(crate) fn git_commit_json(&self, repository: &Repository, commit: &Commit) -> Value {
        let api = format!("{}/repos/{}/git", self.api(), repository.slug);
        json!({
            "sha": commit.sha, "node_id": format!("C_{}", commit.sha),
            "url": format!("{api}/commits/{}", commit.sha),
            "html_url": self.commit_html(repository, &commit.sha),
            "author": person_json(&commit.author), "committer": person_json(&commit.committer),
            "message": commit.message,
            "tree": {"sha": commit.tree, "url": format!("{api}/trees/{}", commit.tree)},
            "parents": commit.parents.iter().map(|sha| json!({
                "sha": sha, "url": format!("{api}/commits/{sha}"),
                "html_url": self.commit_html(repository, sha),
            })).collect::<Vec<_>>(),
            "verification": unsigned(),
        })
    }

    /// "Commit": what `/commits` shows.
    pub(crate) fn commit_json(&self, repository: &Repository, commit: &Commit) -> Value {
        let api = format!("{}/repos/{}", self.api(), repository.slug);
        let account = |person| self.account_of(person).map(|account| self.user_json(&account));
        json!({
            "sha": commit.sha, "node_id": format!("C_{}", commit.sha),
            "commit": {
                "author": person_json(&commit.author), "committer": person_json(&commit.committer),
                "message": commit.message, "comment_count": 0,
                "tree": {"sha": commit.tree, "url": format!("{api}/git/trees/{}", commit.tree)},
                "url": format!("{api}/git/commits/{}", commit.sha), "verification": unsigned(),
            },
            "url": format!("{api}/commits/{}", commit.sha),
            "html_url": self.commit_html(repository, &commit.sha),
            "comments_url": format!("{api}/commits/{}/comments", commit.sha),
            "author": account(&commit.author), "committer": account(&commit.committer),
            "parents": commit.parents.iter().map(|sha| json!({
                "sha": sha, "url": format!("{api}/commits/{sha}"),
                "html_url": self.commit_html(repository, sha),
            })).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn commit_html(&self, repository: &Repository, sha: &str) -> String {
        format!("{}/{}/commit/{sha}", self.base, repository.slug)
    }

    /// "Diff Entry".
    pub(crate) fn file_json(&self, repository: &Repository, sha: &str, file: &FileChange) -> Value {
        let path = percent_encoding::utf8_percent_encode(&file.path, percent_encoding::NON_ALPHANUMERIC)
            .to_string()
            .replace("%2F", "/");
        let html = format!("{}/{}", self.base, repository.slug);
        json!({
            "sha": file.blob, "filename": file.path,
            "status": match file.letter { 'A' => "added", 'D' => "removed", _ => "modified" },
            "additions": file.additions, "deletions": file.deletions,
            "changes": file.additions + file.deletions,
            "blob_url": format!("{html}/blob/{sha}/{path}"), "raw_url": format!("{html}/raw/{sha}/{path}"),
            "contents_url": format!("{}/repos/{}/contents/{path}?ref={sha}", self.api(), repository.slug),
        })
    }
}

pub(crate) fn person_json(person: &Person) -> Value {
    json!({"name": person.name, "email": person.email, "date": time_of(person.seconds)})
}

/// The lab has no signing key of GitHub's, and says so as GitHub does.
fn unsigned() -> Value {
    json!({"verified": false, "reason": "unsigned", "signature": null, "payload": null, "verified_at": null})
}
