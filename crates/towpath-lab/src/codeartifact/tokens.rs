//! The tokens of the package endpoint: opaque, good for every repository of one domain, until they expire.

use jiff::Timestamp;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use uuid::Uuid;

/// The tokens handed out so far.
#[derive(Default)]
pub(super) struct Tokens {
    known: HashMap<String, Token>,
    /// What a test wants every new token to live for, whatever was asked.
    lifetime: Option<Duration>,
}

struct Token {
    domain: String,
    expires: Timestamp,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.known.len())
    }
}

impl Tokens {
    /// A new token for a domain, and when it ends.
    pub(super) fn mint(&mut self, domain: &str, lifetime: Duration) -> (String, Timestamp) {
        let lifetime = self.lifetime.unwrap_or(lifetime);
        let expires = Timestamp::now().checked_add(lifetime).unwrap_or(Timestamp::MAX);
        let token = format!("lab{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        self.known.insert(
            token.clone(),
            Token {
                domain: domain.into(),
                expires,
            },
        );
        (token, expires)
    }

    /// Whether a request with this token may use this domain now.
    pub(super) fn allow(&self, token: &str, domain: &str) -> bool {
        let now = Timestamp::now();
        self.known
            .get(token)
            .is_some_and(|token| token.domain == domain && token.expires > now)
    }

    pub(super) fn set_lifetime(&mut self, lifetime: Option<Duration>) {
        self.lifetime = lifetime;
    }

    pub(super) fn expire_all(&mut self) {
        self.known.clear();
    }
}
