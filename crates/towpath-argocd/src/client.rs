//! The client: one server, one set of credentials, one pool of connections.

use crate::RevisionOracle;
use crate::config::{ArgoCdBuilder, Login, WaitPolicy};
use crate::hub::Hub;
use crate::wait::Waiter;
use crate::wire::{Settings, UserInfo, Version};
use crate::{Capabilities, error};
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use towpath_elements::Result;
use towpath_http::{Call, Transport};

/// A client of an Argo CD server's REST API (2.12 to 3.5). Cheap to clone; clones share their connections.
///
/// Its inherent methods are the service's own calls. The element's trait, [`Delivery`](crate::Delivery), with the wait, is
/// implemented on top of them.
///
/// ```no_run
/// # async fn example() -> Result<(), towpath_argocd::Error> {
/// use towpath_argocd::{ArgoCd, Login, Secret};
/// let argo = ArgoCd::builder("https://cd.example.com", Login::Token(Secret::new("eyJ….eyJ….sig")))?.build()?;
/// let app = argo.application(&"shop/web".parse()?).await?;
/// println!("{} {}", app.status.sync.status, app.status.health.status);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ArgoCd(Arc<Inner>);

struct Inner {
    transport: Transport,
    wait: WaitPolicy,
    oracle: Option<Arc<dyn RevisionOracle>>,
    refreshes: Semaphore,
    looks: Semaphore,
    hub: Hub,
    capabilities: OnceCell<Capabilities>,
}

/// How many refreshes go on at a time: each costs the server a look at the repository, past its caches.
const MOST_REFRESHES: usize = 4;
/// How many looks of waits go on at a time, so that thousands of waits do not open thousands of connections.
const MOST_LOOKS: usize = 32;

impl fmt::Debug for ArgoCd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ArgoCd").field(self.transport()).finish()
    }
}

impl ArgoCd {
    /// Sets up a client of the server at an address: `https://host`, with a root path where the server has one; without a
    /// scheme it is taken for `https`.
    pub fn builder(server: &str, login: Login) -> Result<ArgoCdBuilder> {
        ArgoCdBuilder::new(server, login)
    }

    /// Sets up a client from `ARGOCD_SERVER` and `ARGOCD_AUTH_TOKEN`, as the `argocd` program takes them. What that takes
    /// as options, such as `--insecure`, `--server-crt`, `--client-crt` and `--header`, the builder has methods for.
    pub fn from_env() -> Result<ArgoCdBuilder> {
        ArgoCdBuilder::from_env(|name| std::env::var(name).ok())
    }

    pub(crate) fn new(
        transport: Transport,
        wait: WaitPolicy,
        oracle: Option<Arc<dyn RevisionOracle>>,
    ) -> Self {
        Self(Arc::new(Inner {
            transport,
            wait,
            oracle,
            refreshes: Semaphore::new(MOST_REFRESHES),
            looks: Semaphore::new(MOST_LOOKS),
            hub: Hub::default(),
            capabilities: OnceCell::new(),
        }))
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    pub(crate) fn wait_policy(&self) -> &WaitPolicy {
        &self.0.wait
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Waits by this client, with its [`WaitPolicy`] and its [`RevisionOracle`]. All waits by one client, and by its
    /// clones, share one stream of changes.
    pub fn waiter(&self) -> Waiter {
        let waiter = Waiter::new(Arc::new(self.clone()), self.0.wait.clone());
        match &self.0.oracle {
            Some(oracle) => waiter.revision_oracle(oracle.clone()),
            None => waiter,
        }
    }

    pub(crate) fn capabilities_cell(&self) -> &OnceCell<Capabilities> {
        &self.0.capabilities
    }

    /// A turn to refresh; given back when it is dropped. `None` never happens: nobody closes the semaphore.
    pub(crate) async fn refresh_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.0.refreshes.acquire().await.ok()
    }

    pub(crate) async fn look_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.0.looks.acquire().await.ok()
    }

    /// The server's version, such as `v3.5.1+9f…`. The server tells strangers too, but a client with a password logs in first.
    pub async fn version(&self) -> Result<Version> {
        // This route alone is without the v1.
        self.read(Call::get("api/version").attempting("read the version of", "the server"))
            .await
    }

    /// The server's configuration. Strangers see part of it.
    pub async fn settings(&self) -> Result<Settings> {
        self.read(Call::get("api/v1/settings").attempting("read the settings of", "the server"))
            .await
    }

    /// Whom the server takes the caller for. It answers strangers too, with `logged_in: false`, and takes whoever has a token
    /// that it does not accept for one.
    pub async fn user_info(&self) -> Result<UserInfo> {
        self.read(Call::get("api/v1/session/userinfo").attempting("ask who is", "the caller"))
            .await
    }

    /// Whether the caller may do `action` (such as `sync`) to `subject` (such as `project/name`) of a `resource` (such as
    /// `applications`).
    pub async fn can_i(&self, resource: &str, action: &str, subject: &str) -> Result<bool> {
        #[derive(serde::Deserialize)]
        struct May {
            value: String,
        }
        // The subject's slashes are part of the route.
        let mut call = Call::get("api/v1/account/can-i")
            .attempting("ask for the permissions on", format!("{resource} {subject}"))
            .segment(resource)
            .segment(action);
        for part in subject.split('/') {
            call = call.segment(part);
        }
        Ok(self.read::<May>(call).await?.value == "yes")
    }

    /// Sends a call that is not about one application, and reads its JSON.
    pub(crate) async fn read<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        error::accept(self.transport().send(call).await?, false)?.json()
    }

    /// Sends a call about one application, and reads its JSON.
    pub(crate) async fn read_of<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        error::accept(self.transport().send(call).await?, true)?.json()
    }

    /// Sends a call that takes something of an application away, whose answer says nothing.
    pub(crate) async fn drop_of(&self, call: Call) -> Result<()> {
        let answer = self.transport().send(call.body(JSON, "")).await?;
        error::accept(answer, true).map(|_| ())
    }

    /// The same for what is not about one application.
    pub(crate) async fn drop(&self, call: Call) -> Result<()> {
        let answer = self.transport().send(call.body(JSON, "")).await?;
        error::accept(answer, false).map(|_| ())
    }
}

/// The type of every body, which the server wants even where there is none, and compares for equality: no parameters.
const JSON: &str = "application/json";
