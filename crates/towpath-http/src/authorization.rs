//! Where the `Authorization` header of a request comes from.

use async_trait::async_trait;
use http::HeaderValue;
use std::fmt::Debug;
use towpath_core::Secret;
use towpath_elements::{Error, ErrorKind, Result};

/// Gives the value of the `Authorization` header. The transport sends it to the origin of its base address only.
#[async_trait]
pub trait Authorization: Debug + Send + Sync {
    /// The value to send now. It is marked sensitive before it is used.
    async fn authorization(&self) -> Result<HeaderValue>;

    /// The server answered 401 to `refused`. Forgets that value, and says whether asking again can give another one; the
    /// transport then sends the request once more. Several requests may report the same value.
    async fn invalidate(&self, refused: &HeaderValue) -> bool {
        let _ = refused;
        false
    }
}

/// A token that does not change: `Authorization: Bearer …`.
#[derive(Clone, Debug)]
pub struct Bearer(HeaderValue);

impl Bearer {
    /// Takes the token; refused where it is empty or holds characters that no header may.
    pub fn new(token: Secret) -> Result<Self> {
        Self::with_scheme("Bearer", token)
    }

    /// The same with another scheme in front, such as `token`.
    pub fn with_scheme(scheme: &str, token: Secret) -> Result<Self> {
        let refuse = |why: &str| {
            Error::new(ErrorKind::Invalid, "Towpath", "use", "the access token")
                .because(why)
                .advise("check that it was copied whole, without line breaks")
        };
        if token.expose().trim().is_empty() {
            return Err(refuse("it is empty"));
        }
        let mut value = HeaderValue::try_from(format!("{scheme} {}", token.expose().trim()))
            .map_err(|_| refuse("it holds characters that an HTTP header cannot carry"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

#[async_trait]
impl Authorization for Bearer {
    async fn authorization(&self) -> Result<HeaderValue> {
        Ok(self.0.clone())
    }
}
