//! What Secrets Manager holds for the pull-through cache: user names and access tokens of upstream registries.
//!
//! The names of such secrets begin with `ecr-pullthroughcache/`. ("Storing your upstream repository credentials in an AWS
//! Secrets Manager secret" in the user guide.)

use super::{Ecr, Service, lock};
use towpath_core::Secret;

/// Why the service cannot use a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFault {
    /// There is none with this ARN.
    NotFound,
    /// Its policy does not let the service read it.
    NotAccessible,
    /// The policy of its key does not let the service decrypt it.
    NotDecryptable,
}

#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) token: Secret,
}

/// A secret, and what is in its way.
#[derive(Debug)]
pub(super) struct Stored {
    login: Login,
    fault: Option<SecretFault>,
}

impl Ecr {
    /// Stores a secret for an upstream, or another value in it.
    pub fn put_secret(&self, arn: &str, username: &str, access_token: &Secret) {
        let login = Login {
            username: username.to_owned(),
            token: access_token.clone(),
        };
        lock(&self.service.secrets).insert(arn.to_owned(), Stored { login, fault: None });
    }

    /// Takes the service's access to a secret away, or gives it back. [`SecretFault::NotFound`] deletes it.
    pub fn spoil_secret(&self, arn: &str, fault: Option<SecretFault>) {
        let mut secrets = lock(&self.service.secrets);
        if fault == Some(SecretFault::NotFound) {
            secrets.remove(arn);
        } else if let Some(stored) = secrets.get_mut(arn) {
            stored.fault = fault;
        }
    }
}

impl Service {
    pub(super) fn secret(&self, arn: &str) -> Result<Login, SecretFault> {
        let secrets = lock(&self.secrets);
        let stored = secrets.get(arn).ok_or(SecretFault::NotFound)?;
        match stored.fault {
            Some(fault) => Err(fault),
            None => Ok(stored.login.clone()),
        }
    }
}

impl SecretFault {
    /// As the service says it.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::NotFound => {
                "The ARN of the secret specified in the pull through cache rule was not found. Update the pull through \
                 cache rule with a valid secret ARN and try again."
            }
            Self::NotAccessible => {
                "The secret is unable to be accessed. Verify the resource permissions for the secret and try again."
            }
            Self::NotDecryptable => {
                "The secret is accessible but is unable to be decrypted. Verify the resource permissions and try again."
            }
        }
    }
}

/// The upstream does not take what the secret holds, or does not let its account read the image.
pub(super) const LOGIN_FAILED: &str = "The authentication to the upstream registry failed. Verify that the credentials \
    provided in the pull through cache rule are correct, and try again.";
