//! Local accounts and their tokens, after `server/account/account.go`.

use super::Shared;
use super::access::Caller;
use super::error::Status;
use super::request::body;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use towpath_core::Secret;

/// The accounts by name, with what is known of their tokens.
#[derive(Debug)]
pub(super) struct Accounts(Mutex<BTreeMap<String, Account>>);

#[derive(Debug)]
struct Account {
    capabilities: &'static [&'static str],
    tokens: Vec<Issued>,
}

#[derive(Debug)]
struct Issued {
    id: String,
    at: i64,
    expires: i64,
}

impl Accounts {
    /// `admin`, who logs in with a password, and an account that has tokens.
    pub(super) fn new(account: &str) -> Self {
        let with = |capabilities| Account {
            capabilities,
            tokens: Vec::new(),
        };
        Self(Mutex::new(BTreeMap::from([
            ("admin".to_owned(), with(&["login"])),
            (account.to_owned(), with(&["apiKey"])),
        ])))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn json(&self, name: &str) -> Value {
        let mut tokens: Vec<&Issued> = self.tokens.iter().collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(token.at));
        let tokens: Vec<Value> = tokens
            .into_iter()
            .map(|token| {
                let mut shown = json!({"id": token.id, "issuedAt": token.at});
                if token.expires != 0 {
                    shown["expiresAt"] = json!(token.expires);
                }
                shown
            })
            .collect();
        let mut account = json!({"name": name, "enabled": true, "capabilities": self.capabilities});
        if !tokens.is_empty() {
            account["tokens"] = json!(tokens);
        }
        account
    }
}

/// Makes a token of an account, and writes it down where the account is known.
pub(super) fn issue(
    shared: &Shared,
    account: &str,
    lifetime: Option<Duration>,
    id: Option<String>,
) -> Secret {
    issue_among(&mut shared.accounts.lock(), shared, account, lifetime, id)
}

fn issue_among(
    accounts: &mut BTreeMap<String, Account>,
    shared: &Shared,
    account: &str,
    lifetime: Option<Duration>,
    id: Option<String>,
) -> Secret {
    let subject = format!("{account}:apiKey");
    let (token, claims) = shared.tokens.mint(&subject, lifetime, shared.clock.now(), id);
    if let Some(known) = accounts.get_mut(account) {
        known.tokens.push(Issued {
            id: claims.jti,
            at: claims.iat,
            expires: claims.exp.unwrap_or(0),
        });
    }
    token
}

/// An account has access to itself; project roles have none.
fn allow(caller: &Caller, action: &str, account: &str) -> Result<(), Status> {
    if caller.name() == account {
        return Ok(());
    }
    caller.require_on("accounts", action, account).map_err(|denied| {
        Status::denied_because(format!(
            "permission denied for account {account} with action {action}: {}",
            denied.as_go()
        ))
    })
}

fn missing(account: &str) -> Status {
    Status::missing(format!("account '{account}' does not exist"))
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, caller: Caller) -> Json<Value> {
    let accounts = shared.accounts.lock();
    let items: Vec<Value> = accounts
        .iter()
        .filter(|(name, _)| allow(&caller, "get", name).is_ok())
        .map(|(name, account)| account.json(name))
        .collect();
    Json(json!({"items": items}))
}

pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Status> {
    allow(&caller, "get", &name)
        .map_err(|denied| denied.wrapped(format!("permission denied to get account {name}")))?;
    let accounts = shared.accounts.lock();
    let account = accounts
        .get(&name)
        .ok_or_else(|| missing(&name).wrapped(format!("failed to get account {name}")))?;
    Ok(Json(account.json(&name)))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NewToken {
    pub(super) expires_in: u64,
    pub(super) id: Option<String>,
}

impl NewToken {
    pub(super) fn lifetime(&self) -> Option<Duration> {
        (self.expires_in > 0).then(|| Duration::from_secs(self.expires_in))
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref().filter(|id| !id.is_empty())
    }
}

pub(super) async fn create_token(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<Value>, Status> {
    let wanted: NewToken = body(&bytes)?;
    allow(&caller, "update", &name)
        .map_err(|denied| denied.wrapped(format!("permission denied to create token for account {name}")))?;
    let refused = |status: Status| status.wrapped("failed to update account with new token".into());
    let mut accounts = shared.accounts.lock();
    let account = accounts.get(&name).ok_or_else(|| refused(missing(&name)))?;
    if let Some(id) = wanted.id()
        && account.tokens.iter().any(|token| token.id == id)
    {
        let why = format!("account already has token with id '{id}'");
        return Err(refused(Status::unknown(why)));
    }
    if !account.capabilities.contains(&"apiKey") {
        let why = format!("account '{name}' does not have apiKey capability");
        return Err(refused(Status::unknown(why)));
    }
    let id = wanted.id().map(str::to_owned);
    let token = issue_among(&mut accounts, &shared, &name, wanted.lifetime(), id);
    Ok(Json(json!({"token": token.expose()})))
}

pub(super) async fn delete_token(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<Value>, Status> {
    allow(&caller, "update", &name)
        .map_err(|denied| denied.wrapped(format!("permission denied to delete account {name}")))?;
    let refused = |status: Status| status.wrapped(format!("failed to delete account {name}"));
    let mut accounts = shared.accounts.lock();
    let account = accounts.get_mut(&name).ok_or_else(|| refused(missing(&name)))?;
    let at = account
        .tokens
        .iter()
        .position(|token| token.id == id)
        .ok_or_else(|| refused(Status::missing(format!("token with id '{id}' does not exist"))))?;
    account.tokens.remove(at);
    shared.tokens.revoke(&id);
    Ok(Json(json!({})))
}
