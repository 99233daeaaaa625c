//! The client: the server itself, its repositories, branches, commits and files.

use crate::auth::AppTokens;
use crate::config::{Credential, GitHubConfig};
use crate::connection::{Connection, RAW, Request, SERVICE};
use crate::page::{Items, all, is_empty_repository, pages};
use crate::wire::{Branch, Commit, Comparison, GitRef, Meta, NewRepository, Repository, User};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{Method, StatusCode};
use std::sync::Arc;
use towpath_core::{BranchName, CommitSha, RepoSlug};
use towpath_elements::{ErrorKind, Result};
use towpath_http::{Bearer, Transport};
use url::Url;

/// The largest file that is read: GitHub's own bound for raw contents.
const LARGEST_FILE: usize = 100 << 20;

/// A GitHub server: github.com, or an Enterprise Server. Cheap to clone; clones share connections and tokens.
///
/// Its methods are GitHub's own operations and return GitHub's own things. As an element it is a
/// [`Source`](crate::Source), a [`Ci`](crate::Ci) and a [`RevisionOracle`](crate::RevisionOracle).
#[derive(Clone, Debug)]
pub struct GitHub {
    pub(crate) connection: Arc<Connection>,
}

impl GitHub {
    /// A client of this server. Nothing is sent yet.
    ///
    /// # Errors
    /// *Invalid* where the token cannot stand in a header, the App's key is no key, or the address is not secure.
    pub fn new(config: GitHubConfig) -> Result<Self> {
        let builder = || {
            Transport::builder(SERVICE, config.api().clone())
                .retry(config.retries.clone())
                .timeout(config.timeout)
        };
        let (transport, token) = match &config.credential {
            Credential::Anonymous => (builder().build()?, None),
            Credential::Token(token) => (
                builder().authorization(Bearer::new(token.clone())?).build()?,
                Some(token.clone()),
            ),
            Credential::App(app) => {
                let tokens = AppTokens::new(builder().build()?, app)?;
                (builder().authorization(tokens).build()?, None)
            }
        };
        Ok(Self {
            connection: Arc::new(Connection::new(transport, config.api().clone(), token)),
        })
    }

    /// A client of the server that `GITHUB_API_URL` and `GITHUB_TOKEN` name, as a step of GitHub Actions has them.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn from_env() -> Result<Self> {
        Self::new(GitHubConfig::from_env()?)
    }

    /// The base of the REST API.
    pub fn api(&self) -> &Url {
        self.connection.base()
    }

    /// What the server says about itself; Enterprise Server names its version (`GET /meta`).
    pub async fn meta(&self) -> Result<Meta> {
        self.connection
            .json(&Request::new(Method::GET, ["meta"]).doing("read", "the server's version"))
            .await
    }

    /// Who the token belongs to (`GET /user`); an App's installation is nobody, and is refused.
    pub async fn user(&self) -> Result<User> {
        self.connection
            .json(&Request::new(Method::GET, ["user"]).doing("read", "the token's user"))
            .await
    }

    /// A repository; `None` where it does not exist or may not be seen.
    pub async fn repository(&self, repository: &RepoSlug) -> Result<Option<Repository>> {
        let request = Request::repository(Method::GET, repository, []).doing("read", repository);
        self.connection.find(&request).await
    }

    /// Creates a repository in an organisation.
    ///
    /// # Errors
    /// *Conflict* where the name is taken.
    pub async fn create_repository(&self, organisation: &str, new: &NewRepository) -> Result<Repository> {
        let request = Request::new(Method::POST, ["orgs", organisation, "repos"])
            .doing("create", format!("{organisation}/{}", new.name))
            .body(new)?;
        self.connection.json(&request).await
    }

    /// Creates a repository that belongs to the token's own user.
    ///
    /// # Errors
    /// *Conflict* where the name is taken.
    pub async fn create_user_repository(&self, new: &NewRepository) -> Result<Repository> {
        let request = Request::new(Method::POST, ["user", "repos"])
            .doing("create", &new.name)
            .body(new)?;
        self.connection.json(&request).await
    }

    /// The branches of a repository.
    pub async fn branches(&self, repository: &RepoSlug) -> Result<Vec<Branch>> {
        let request = Request::repository(Method::GET, repository, ["branches"])
            .doing("list the branches of", repository);
        all(&self.connection, request, Items::Whole).await
    }

    /// Where a branch points; `None` where there is no such branch, as in an empty repository.
    ///
    /// # Errors
    /// *Not found* where there is no such repository: a missing branch costs a second request, which tells these apart.
    pub async fn branch_head(&self, repository: &RepoSlug, branch: &BranchName) -> Result<Option<CommitSha>> {
        let request = Request::repository(Method::GET, repository, ["git", "ref", "heads"])
            .below(branch.as_str())
            .doing("read", format!("branch {branch} of {repository}"));
        let answer = self.connection.send(&request).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => {
                self.must_exist(repository, "read").await?;
                Ok(None)
            }
            StatusCode::CONFLICT if is_empty_repository(&answer) => Ok(None),
            status if status.is_success() => Ok(Some(answer.json::<GitRef>()?.object.sha)),
            _ => Err(self.connection.refused(&answer)),
        }
    }

    /// Creates a branch at a commit.
    ///
    /// # Errors
    /// *Conflict* where the branch exists.
    pub async fn create_branch(
        &self,
        repository: &RepoSlug,
        branch: &BranchName,
        at: &CommitSha,
    ) -> Result<()> {
        let body = serde_json::json!({ "ref": format!("refs/heads/{branch}"), "sha": at });
        let request = Request::repository(Method::POST, repository, ["git", "refs"])
            .doing("create", format!("branch {branch} of {repository}"))
            .body(&body)?;
        self.connection.answer(&request).await.map(drop)
    }

    /// Deletes a branch.
    ///
    /// # Errors
    /// *Not found* where there is none.
    pub async fn delete_branch(&self, repository: &RepoSlug, branch: &BranchName) -> Result<()> {
        let request = Request::repository(Method::DELETE, repository, ["git", "refs", "heads"])
            .below(branch.as_str())
            .doing("delete", format!("branch {branch} of {repository}"));
        self.connection.answer(&request).await.map(drop)
    }

    /// The commits that lead to `head` (a branch, a tag or a commit), newest first, of one path only where one is given.
    /// Pages of a hundred are requested as the stream is read.
    pub fn commits(
        &self,
        repository: &RepoSlug,
        head: &str,
        path: Option<&str>,
    ) -> BoxStream<'static, Result<Commit>> {
        let mut request = Request::repository(Method::GET, repository, ["commits"])
            .query("sha", head)
            .doing("list the commits of", format!("{repository} at {head}"));
        if let Some(path) = path {
            request = request.query("path", path);
        }
        pages(Arc::clone(&self.connection), request, Items::Whole)
    }

    /// One commit, by its name, a branch or a tag; `None` where there is none.
    pub async fn commit_of(&self, repository: &RepoSlug, reference: &str) -> Result<Option<Commit>> {
        let request = Request::repository(Method::GET, repository, ["commits"])
            .below(reference)
            .doing("read", format!("{reference} of {repository}"));
        match self.connection.find(&request).await {
            Err(error) if error.is_not_found() => Ok(None),
            found => found,
        }
    }

    /// How `head` stands to `base`.
    ///
    /// # Errors
    /// *Not found* where one of the two is no commit of the repository.
    pub async fn compare(
        &self,
        repository: &RepoSlug,
        base: &CommitSha,
        head: &CommitSha,
    ) -> Result<Comparison> {
        // One commit per page: only the status is wanted, and the files come with the first page.
        let request = Request::repository(Method::GET, repository, ["compare", &format!("{base}...{head}")])
            .query("per_page", "1")
            .doing(
                "compare",
                format!("{} with {} of {repository}", base.short(), head.short()),
            );
        self.connection.json(&request).await
    }

    /// The bytes of a file at a commit, a branch or a tag, up to 100 MiB; `None` where there is no such file.
    ///
    /// # Errors
    /// *Not found* where there is no such commit: a missing file costs a second request, which tells these apart.
    pub async fn contents(
        &self,
        repository: &RepoSlug,
        reference: &str,
        path: &str,
    ) -> Result<Option<Bytes>> {
        let request = Request::repository(Method::GET, repository, ["contents"])
            .below(path)
            .query("ref", reference)
            .accept(RAW)
            .longest_body(LARGEST_FILE)
            .doing("read", format!("{path} of {repository} at {reference}"));
        let answer = self.connection.send(&request).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return match self.commit_of(repository, reference).await? {
                Some(_) => Ok(None),
                None => Err(self.connection.refused(&answer)),
            };
        }
        if !answer.status().is_success() {
            return Err(self.connection.refused(&answer));
        }
        // A directory has no raw form: it comes as the JSON list of its entries, and is not a file.
        let is_list = answer
            .header("content-type")
            .is_some_and(|media_type| media_type.to_ascii_lowercase().starts_with("application/json"));
        Ok((!is_list).then(|| answer.into_body()))
    }

    /// Tells a repository without the thing from no repository.
    pub(crate) async fn must_exist(&self, repository: &RepoSlug, attempted: &'static str) -> Result<()> {
        match self.repository(repository).await? {
            Some(_) => Ok(()),
            None => Err(Request::repository(Method::GET, repository, [])
                .doing(attempted, repository)
                .error(ErrorKind::NotFound)
                .advise(
                    "check the name, and that the token may see it: GitHub answers the same in both cases",
                )),
        }
    }
}
