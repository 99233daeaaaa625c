//! What the handlers, the git endpoint and the runner share: accounts, repositories, and who may do what.

use super::git::BareRepo;
use super::hooks::{Hook, Hooks};
use super::pulls::Pull;
use super::reply::{ApiError, Reply};
use super::statuses::{CheckRun, Status};
use super::{GitHubConfig, Protection};
use crate::LabError;
use crate::actions::Actions;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;
use towpath_core::RepoSlug;

/// The login that acts with the token of a job.
pub(crate) const BOT: &str = "github-actions[bot]";

/// Everything behind one server.
#[derive(Debug)]
pub(crate) struct Hub {
    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub(crate) base: String,
    pub(crate) config: GitHubConfig,
    pub(crate) root: tempfile::TempDir,
    pub(crate) rate: RateLimits,
    pub(crate) hooks: Hooks,
    pub(crate) actions: Actions,
    /// Cancelled when the service is dropped; every task of it ends then.
    pub(crate) stop: CancellationToken,
    pub(crate) backend: tokio::sync::OnceCell<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    accounts: BTreeMap<String, Account>,
    tokens: BTreeMap<String, Identity>,
    repositories: BTreeMap<String, Arc<Repository>>,
    last_id: u64,
}

/// A user or an organisation.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) id: u64,
    pub(crate) login: String,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) organization: bool,
    /// Whether this user belongs to the organisations of the server.
    pub(crate) member: bool,
}

/// Who is asking.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) login: String,
    pub(crate) scope: Option<JobScope>,
}

/// What the token of a job may do.
#[derive(Clone, Debug)]
pub(crate) struct JobScope {
    pub(crate) repository: RepoSlug,
    /// The scopes that it may write; `None` for all of them.
    pub(crate) writes: Option<BTreeSet<String>>,
}

/// One repository.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(crate) id: u64,
    pub(crate) slug: RepoSlug,
    pub(crate) private: bool,
    pub(crate) description: String,
    pub(crate) default_branch: String,
    pub(crate) created: jiff::Timestamp,
    pub(crate) git: BareRepo,
    /// Held while a ref moves, so that each change is seen once and in order.
    pub(crate) writing: tokio::sync::Mutex<()>,
    records: Mutex<Records>,
}

/// What a repository knows beside its git objects.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) pulls: Vec<Pull>,
    pub(crate) statuses: Vec<Status>,
    pub(crate) checks: Vec<CheckRun>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) protections: BTreeMap<String, Protection>,
    pub(crate) collaborators: BTreeSet<String>,
    pub(crate) pushed: Option<jiff::Timestamp>,
}

impl Repository {
    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    pub(crate) fn new(base: String, config: GitHubConfig, root: tempfile::TempDir) -> Self {
        let mut state = State {
            last_id: 1000,
            ..State::default()
        };
        for login in &config.organizations {
            state.add_account(Account {
                id: 0,
                login: login.clone(),
                name: login.clone(),
                email: String::new(),
                organization: true,
                member: false,
            });
        }
        for user in &config.users {
            state.add_account(Account {
                id: 0,
                login: user.login.clone(),
                name: user.name.clone(),
                email: user.email.clone(),
                organization: false,
                member: user.member,
            });
            let identity = Identity {
                login: user.login.clone(),
                scope: None,
            };
            state.tokens.insert(user.token.expose().to_owned(), identity);
        }
        Self {
            rate: RateLimits::new(config.rate_limit),
            hooks: Hooks::new(&config),
            actions: Actions::new(&config),
            stop: CancellationToken::new(),
            backend: tokio::sync::OnceCell::new(),
            state: Mutex::new(state),
            base,
            config,
            root,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs this in the background until it ends or the service is dropped.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// A number that nothing else on this server has.
    pub(crate) fn next_id(&self) -> u64 {
        let mut state = self.state();
        state.last_id += 1;
        state.last_id
    }

    pub(crate) fn api(&self) -> String {
        format!("{}/api/v3", self.base)
    }

    pub(crate) fn account(&self, login: &str) -> Option<Account> {
        self.state().accounts.get(&login.to_ascii_lowercase()).cloned()
    }

    /// The account of whoever acts; the token of a job acts as GitHub's bot.
    pub(crate) fn actor(&self, login: &str) -> Account {
        self.account(login).unwrap_or_else(|| Account {
            id: 41_898_282,
            login: login.to_owned(),
            name: login.to_owned(),
            email: format!("41898282+{login}@users.noreply.github.com"),
            organization: false,
            member: false,
        })
    }

    pub(crate) fn add_token(&self, token: &str, identity: Identity) {
        self.state().tokens.insert(token.to_owned(), identity);
    }

    pub(crate) fn revoke_token(&self, token: &str) {
        self.state().tokens.remove(token);
    }

    pub(crate) fn identity(&self, token: &str) -> Option<Identity> {
        self.state().tokens.get(token).cloned()
    }

    /// A repository by its name in any case, whoever asks.
    pub(crate) fn find(&self, owner: &str, name: &str) -> Option<Arc<Repository>> {
        let key = format!("{owner}/{name}").to_ascii_lowercase();
        self.state().repositories.get(&key).cloned()
    }

    pub(crate) fn repositories(&self) -> Vec<Arc<Repository>> {
        self.state().repositories.values().cloned().collect()
    }

    /// A new repository without a commit. Fails where one of that name is there already or git is missing.
    pub(crate) async fn create(
        &self,
        slug: RepoSlug,
        private: bool,
        description: String,
    ) -> Result<Arc<Repository>, CreateError> {
        let key = slug.to_string().to_ascii_lowercase();
        if self.state().repositories.contains_key(&key) {
            return Err(CreateError::Exists);
        }
        let id = self.next_id();
        let path = self.root.path().join(format!("repositories/{id}.git"));
        let git = BareRepo::init(path, "main").await.map_err(|error| {
            CreateError::Git(LabError::Program {
                program: "git",
                reason: error.to_string(),
            })
        })?;
        let repository = Arc::new(Repository {
            id,
            slug,
            private,
            description,
            default_branch: "main".into(),
            created: jiff::Timestamp::now(),
            git,
            writing: tokio::sync::Mutex::new(()),
            records: Mutex::default(),
        });
        match self.state().repositories.entry(key) {
            std::collections::btree_map::Entry::Occupied(_) => Err(CreateError::Exists),
            std::collections::btree_map::Entry::Vacant(entry) => Ok(Arc::clone(entry.insert(repository))),
        }
    }

    /// Whether this identity may read or write there. `scope` is the permission that the token of a job needs.
    pub(crate) fn allowed(
        &self,
        who: Option<&Identity>,
        repository: &Repository,
        scope: Option<&str>,
    ) -> bool {
        let Some(who) = who else {
            return scope.is_none() && !repository.private;
        };
        if let Some(job) = &who.scope {
            let own = job.repository == repository.slug;
            return match scope {
                None => own || !repository.private,
                Some(scope) => own && job.writes.as_ref().is_none_or(|writes| writes.contains(scope)),
            };
        }
        let owner = repository.slug.owner();
        who.login.eq_ignore_ascii_case(owner)
            || repository
                .records()
                .collaborators
                .contains(&who.login.to_ascii_lowercase())
            || self.account(owner).is_some_and(|owner| owner.organization)
                && self.account(&who.login).is_some_and(|user| user.member)
            || scope.is_none() && !repository.private
    }

    /// The repository, for reading: 404 where it is missing or hidden from this caller.
    pub(crate) fn readable(&self, caller: &Caller, owner: &str, name: &str) -> Reply<Arc<Repository>> {
        let repository = self.find(owner, name).ok_or_else(ApiError::not_found)?;
        if self.allowed(caller.0.as_ref(), &repository, None) {
            Ok(repository)
        } else {
            Err(ApiError::not_found())
        }
    }

    /// The repository, for writing, and who writes.
    pub(crate) fn writable(
        &self,
        caller: &Caller,
        owner: &str,
        name: &str,
        scope: &str,
    ) -> Reply<(Arc<Repository>, Account)> {
        let repository = self.readable(caller, owner, name)?;
        let who = caller.known()?;
        if self.allowed(Some(who), &repository, Some(scope)) {
            return Ok((repository, self.actor(&who.login)));
        }
        Err(ApiError::forbidden(if who.scope.is_some() {
            "Resource not accessible by integration"
        } else {
            "Must have push access to the repository."
        }))
    }
}

impl State {
    fn add_account(&mut self, mut account: Account) {
        self.last_id += 1;
        account.id = self.last_id;
        self.accounts.insert(account.login.to_ascii_lowercase(), account);
    }
}

/// Why a repository was not made.
#[derive(Debug)]
pub(crate) enum CreateError {
    Exists,
    Git(LabError),
}

/// Who sent a request, if they said. A token that nobody has is answered 401 before the handler runs.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Option<Identity>);

impl Caller {
    /// The caller, where the operation needs one.
    pub(crate) fn known(&self) -> Reply<&Identity> {
        self.0
            .as_ref()
            .ok_or_else(|| ApiError::new(StatusCode::UNAUTHORIZED, "Requires authentication"))
    }
}

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
            return Ok(Self(None));
        };
        value
            .to_str()
            .ok()
            .and_then(token_of)
            .and_then(|token| hub.identity(&token))
            .map(|identity| Self(Some(identity)))
            .ok_or_else(|| ApiError::new(StatusCode::UNAUTHORIZED, "Bad credentials"))
    }
}

/// The token in an `Authorization` header: `token T`, `Bearer T`, or `Basic` with the token as the password or,
/// where that is empty or `x-oauth-basic`, as the user.
pub(crate) fn token_of(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("token") || scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(
        if password.is_empty() || password == "x-oauth-basic" {
            user
        } else {
            password
        }
        .to_owned(),
    )
}

/// How many requests each token has left this hour.
#[derive(Debug)]
pub(crate) struct RateLimits {
    limit: u32,
    used: Mutex<BTreeMap<Vec<u8>, (u64, u32)>>,
}

/// What the headers say about one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) limit: u32,
    pub(crate) used: u32,
    pub(crate) remaining: u32,
    pub(crate) reset: u64,
    pub(crate) exceeded: bool,
}

impl RateLimits {
    fn new(limit: u32) -> Self {
        Self {
            limit,
            used: Mutex::default(),
        }
    }

    pub(crate) fn count(&self, who: &[u8]) -> Rate {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry(who.to_vec()).or_insert((now + 3600, 0));
        if entry.0 <= now {
            *entry = (now + 3600, 0);
        }
        let exceeded = entry.1 >= self.limit;
        if !exceeded {
            entry.1 += 1;
        }
        Rate {
            limit: self.limit,
            used: entry.1,
            remaining: self.limit - entry.1,
            reset: entry.0,
            exceeded,
        }
    }

    /// A 304 costs nothing.
    pub(crate) fn give_back(&self, who: &[u8]) {
        if let Some(entry) = self
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(who)
        {
            entry.1 = entry.1.saturating_sub(1);
        }
    }
}
