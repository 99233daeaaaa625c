//! Authorization tokens: who may use `/v2/`, and until when.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The tokens a registry has given out. Expired ones stay known, since the service answers them differently.
#[derive(Default)]
pub(super) struct Tokens {
    known: Mutex<HashMap<String, Token>>,
    /// The private registry that these are the tokens of. An upstream's do not say whose they are.
    registry: Option<Registry>,
}

struct Registry {
    account: String,
    region: String,
}

/// What the kind of the tokens of ECR says of itself, within them.
const KIND: &str = "DATA_KEY";

#[derive(Clone, Debug)]
struct Token {
    ends: Instant,
    /// What it is good for; empty where it is good for everything.
    scope: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good {
        scope: String,
    },
    Expired,
    /// A token of another private registry: of another region, or of another account.
    Foreign,
    Unknown,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

impl Tokens {
    /// The tokens of a private registry: documents in base64, in which only `payload` is secret.
    pub(super) fn of(account: &str, region: &str) -> Self {
        let registry = Registry {
            account: account.to_owned(),
            region: region.to_owned(),
        };
        Self {
            registry: Some(registry),
            ..Self::default()
        }
    }

    /// A new token, and when it ends.
    pub(super) fn issue(&self, life: Duration, scope: &str) -> (String, Timestamp) {
        let ends = Timestamp::now().checked_add(life).unwrap_or(Timestamp::MAX);
        let payload = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 48]>());
        let text = match &self.registry {
            None => payload,
            Some(Registry { account, region }) => {
                let document = json!({
                    "payload": payload, "account": account, "region": region, "version": "2", "type": KIND,
                    "expiration": ends.as_second(),
                });
                STANDARD.encode(document.to_string())
            }
        };
        let now = Instant::now();
        let token = Token {
            ends: now.checked_add(life).unwrap_or(now),
            scope: scope.to_owned(),
        };
        self.lock().insert(text.clone(), token);
        (text, ends)
    }

    pub(super) fn check(&self, text: &str) -> Standing {
        match self.lock().get(text) {
            None if self.is_foreign(text) => Standing::Foreign,
            None => Standing::Unknown,
            Some(token) if token.ends <= Instant::now() => Standing::Expired,
            Some(token) => Standing::Good {
                scope: token.scope.clone(),
            },
        }
    }

    fn is_foreign(&self, text: &str) -> bool {
        let document = STANDARD.decode(text).ok();
        let document = document.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        match (&self.registry, document) {
            (Some(own), Some(token)) => {
                token["type"] == KIND && (token["account"] != own.account || token["region"] != own.region)
            }
            _ => false,
        }
    }

    /// Ends every token that was given out so far.
    pub(super) fn expire_all(&self) {
        let now = Instant::now();
        for token in self.lock().values_mut() {
            token.ends = token.ends.min(now);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Token>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
