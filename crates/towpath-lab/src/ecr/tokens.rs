//! Authorization tokens: who may use `/v2/`, and until when.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The tokens a registry has given out. Expired ones stay known, since the service answers them differently.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<String, Token>>);

#[derive(Clone, Debug)]
struct Token {
    ends: Instant,
    /// What it is good for; empty where it is good for everything.
    scope: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good { scope: String },
    Expired,
    Unknown,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

impl Tokens {
    /// A new token, and when it ends.
    pub(super) fn issue(&self, life: Duration, scope: &str) -> (String, Timestamp) {
        let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 48]>());
        let now = Instant::now();
        let token = Token {
            ends: now.checked_add(life).unwrap_or(now),
            scope: scope.to_owned(),
        };
        self.lock().insert(text.clone(), token);
        let ends = Timestamp::now().checked_add(life).unwrap_or(Timestamp::MAX);
        (text, ends)
    }

    pub(super) fn check(&self, text: &str) -> Standing {
        match self.lock().get(text) {
            None => Standing::Unknown,
            Some(token) if token.ends <= Instant::now() => Standing::Expired,
            Some(token) => Standing::Good {
                scope: token.scope.clone(),
            },
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
