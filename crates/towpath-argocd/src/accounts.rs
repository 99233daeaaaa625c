//! Local accounts and their tokens: `/api/v1/account`, and the end of a session.

use crate::ArgoCd;
use crate::wire::Account;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use towpath_core::Secret;
use towpath_elements::Result;
use towpath_http::Call;

const PATH: &str = "api/v1/account";

impl ArgoCd {
    /// Has the server forget the session's cookie, which is all that it does: the token stays good until it expires.
    pub async fn log_out(&self) -> Result<()> {
        self.drop(Call::delete("api/v1/session").attempting("end the session of", "the caller"))
            .await
    }

    /// The local accounts that the caller may see.
    pub async fn accounts(&self) -> Result<Vec<Account>> {
        self.list(Call::get(PATH).attempting("list", "accounts")).await
    }

    /// A local account.
    ///
    /// # Errors
    /// *Not found* where there is none of this name; *denied* where the caller may not see it.
    pub async fn account(&self, name: &str) -> Result<Account> {
        self.read(Call::get(PATH).segment(name).attempting("read the account", name))
            .await
    }

    /// Makes a token for an account, which must have the capability `apiKey`. It is good for `lifetime`, in whole seconds
    /// and at least one; without one it never expires. The server makes up an id where none is given, by which the token can
    /// be deleted; [`TokenClaims`](crate::TokenClaims) has it.
    ///
    /// It is not sent twice: each call makes another token.
    pub async fn create_account_token(
        &self,
        account: &str,
        lifetime: Option<Duration>,
        id: Option<&str>,
    ) -> Result<Secret> {
        let call = Call::post(PATH)
            .attempting("make a token for the account", account)
            .segment(account)
            .segment("token");
        let body = json!({"name": account, "expiresIn": seconds(lifetime)});
        self.new_token(call, body, id).await
    }

    /// Deletes a token of an account; it is refused from then on.
    ///
    /// # Errors
    /// *Not found* where the account has no token of this id.
    pub async fn delete_account_token(&self, account: &str, id: &str) -> Result<()> {
        let call = Call::delete(PATH)
            .attempting("delete a token of the account", account)
            .segment(account)
            .segment("token")
            .segment(id);
        self.drop(call).await
    }

    pub(crate) async fn new_token(&self, call: Call, mut body: Value, id: Option<&str>) -> Result<Secret> {
        #[derive(Deserialize)]
        struct Made {
            token: String,
        }
        if let Some(id) = id {
            body["id"] = id.into();
        }
        let made: Made = self.read(call.json(&body)?).await?;
        Ok(Secret::new(made.token))
    }

    /// The items of a list that is not about one application.
    pub(crate) async fn list<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<Vec<T>> {
        #[derive(Deserialize)]
        struct Items<T> {
            #[serde(default = "Option::default")]
            items: Option<Vec<T>>,
        }
        Ok(self.read::<Items<T>>(call).await?.items.unwrap_or_default())
    }
}

/// A lifetime as the server wants it: whole seconds, of which 0 means for ever.
pub(crate) fn seconds(lifetime: Option<Duration>) -> u64 {
    lifetime.map_or(0, |lifetime| lifetime.as_secs().max(1))
}
