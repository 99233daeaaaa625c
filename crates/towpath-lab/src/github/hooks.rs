//! Webhooks: who is told what, signed, with a log of every delivery. After "Webhook events and payloads" and
//! "Validating webhook deliveries": no retry of its own, ten seconds for an answer, no promise of order.

use super::GitHubConfig;
use super::hub::{Hub, Repository};
use super::reply::VERSION;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use towpath_core::Secret;

/// One webhook, as it was registered.
#[derive(Clone, Debug)]
pub(crate) struct Hook {
    pub(crate) id: u64,
    pub(crate) url: String,
    pub(crate) secret: Option<Secret>,
    pub(crate) events: Vec<String>,
    pub(crate) form: bool,
    pub(crate) active: bool,
    pub(crate) created: jiff::Timestamp,
    /// The organisation that has the hook; `None` for a hook of one repository.
    pub(crate) organization: Option<String>,
}

/// One attempt to tell one receiver about one event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The number of this attempt.
    pub id: u64,
    /// `X-GitHub-Delivery`: the same for a redelivery.
    pub guid: String,
    /// The number of the webhook.
    pub hook: u64,
    /// `X-GitHub-Event`.
    pub event: String,
    /// `action` of the payload, where it has one.
    pub action: Option<String>,
    /// Where it went.
    pub url: String,
    /// The status of the answer; `None` while there is none, and where there never was one.
    pub status: Option<u16>,
    /// Why there is no answer, once that is known.
    pub error: Option<String>,
    /// Whether somebody asked for this attempt.
    pub redelivery: bool,
    /// When it was sent.
    pub delivered: jiff::Timestamp,
    /// How long the answer took.
    pub duration: Duration,
    /// `owner/name` of the repository that the event is about.
    pub repository: String,
    /// The payload.
    pub payload: Value,
}

/// What happens to the next deliveries to some address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryFault {
    /// It is never sent, and the log says so.
    Drop,
    /// It is sent twice, with the same GUID.
    Duplicate,
    /// It is sent later.
    Delay(Duration),
}

/// The hooks of organisations, the log, and the faults.
#[derive(Debug)]
pub(crate) struct Hooks {
    organizations: Mutex<Vec<Hook>>,
    log: Mutex<Vec<Delivery>>,
    faults: Mutex<Vec<(String, DeliveryFault, u32)>>,
    client: OnceLock<reqwest::Client>,
    delay: Duration,
    patience: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hooks {
    pub(crate) fn new(config: &GitHubConfig) -> Self {
        Self {
            organizations: Mutex::default(),
            log: Mutex::default(),
            faults: Mutex::default(),
            client: OnceLock::new(),
            delay: config.webhook_delay,
            patience: config.webhook_timeout,
        }
    }

    pub(crate) fn add_for_organization(&self, hook: Hook) {
        lock(&self.organizations).push(hook);
    }

    pub(crate) fn of_organization(&self, login: &str) -> Vec<Hook> {
        let same = |hook: &&Hook| {
            hook.organization
                .as_deref()
                .is_some_and(|owner| owner.eq_ignore_ascii_case(login))
        };
        lock(&self.organizations).iter().filter(same).cloned().collect()
    }

    pub(crate) fn log(&self) -> Vec<Delivery> {
        lock(&self.log).clone()
    }

    pub(crate) fn inject(&self, url_contains: &str, fault: DeliveryFault, times: u32) {
        lock(&self.faults).push((url_contains.to_owned(), fault, times));
    }

    fn fault(&self, url: &str) -> Option<DeliveryFault> {
        let mut faults = lock(&self.faults);
        let (_, fault, left) = faults
            .iter_mut()
            .find(|(part, _, left)| *left > 0 && url.contains(part.as_str()))?;
        *left -= 1;
        Some(*fault)
    }

    fn record(&self, id: u64, change: impl FnOnce(&mut Delivery)) {
        if let Some(delivery) = lock(&self.log).iter_mut().find(|delivery| delivery.id == id) {
            change(delivery);
        }
    }

    /// The client is made when the first delivery needs it, since it reads the certificates of the machine.
    fn client(&self) -> Result<reqwest::Client, reqwest::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("GitHub-Hookshot/lab")
            .build()?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

impl Hub {
    /// Tells every hook of the repository and of its organisation that listens to this event.
    pub(crate) fn emit(self: &Arc<Self>, repository: &Repository, event: &str, payload: &Value) {
        let mut hooks = repository.records().hooks.clone();
        hooks.extend(self.hooks.of_organization(repository.slug.owner()));
        for hook in hooks {
            if hook.active && hook.events.iter().any(|wanted| wanted == event || wanted == "*") {
                self.deliver(&hook, event, repository, payload, None);
            }
        }
    }

    /// Sends one payload to one hook. A redelivery keeps the GUID of the first attempt.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        hook: &Hook,
        event: &str,
        repository: &Repository,
        payload: &Value,
        again: Option<String>,
    ) -> u64 {
        let id = self.next_id();
        let delivery = Delivery {
            id,
            redelivery: again.is_some(),
            guid: again.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            hook: hook.id,
            event: event.to_owned(),
            action: payload["action"].as_str().map(ToOwned::to_owned),
            url: hook.url.clone(),
            status: None,
            error: None,
            delivered: jiff::Timestamp::now(),
            duration: Duration::ZERO,
            repository: repository.slug.to_string(),
            payload: payload.clone(),
        };
        lock(&self.hooks.log).push(delivery.clone());
        let target = match &hook.organization {
            Some(login) => ("organization", self.actor(login).id),
            None => ("repository", repository.id),
        };
        let (hub, hook) = (Arc::clone(self), hook.clone());
        self.spawn(async move {
            tokio::time::sleep(hub.hooks.delay).await;
            match hub.hooks.fault(&hook.url) {
                Some(DeliveryFault::Drop) => {
                    let why = "dropped by a scripted fault".to_owned();
                    hub.hooks.record(delivery.id, |entry| entry.error = Some(why));
                    return;
                }
                Some(DeliveryFault::Duplicate) => hub.hooks.send(&delivery, &hook, target).await,
                Some(DeliveryFault::Delay(delay)) => tokio::time::sleep(delay).await,
                None => {}
            }
            hub.hooks.send(&delivery, &hook, target).await;
        });
        id
    }
}

impl Hooks {
    async fn send(&self, delivery: &Delivery, hook: &Hook, target: (&str, u64)) {
        let started = Instant::now();
        let sent = self.request(delivery, hook, target).await;
        let duration = started.elapsed();
        self.record(delivery.id, |entry| {
            entry.duration = duration;
            match sent {
                Ok(status) => entry.status = Some(status),
                Err(error) => entry.error = Some(error.to_string()),
            }
        });
    }

    async fn request(
        &self,
        delivery: &Delivery,
        hook: &Hook,
        target: (&str, u64),
    ) -> Result<u16, reqwest::Error> {
        let text = delivery.payload.to_string();
        let (kind, body) = if hook.form {
            let form: String = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("payload", &text)
                .finish();
            ("application/x-www-form-urlencoded", form)
        } else {
            ("application/json", text)
        };
        let body = Bytes::from(body);
        let mut request = self
            .client()?
            .post(&hook.url)
            .timeout(self.patience)
            .header("Content-Type", kind)
            .header("Accept", "*/*")
            .header("X-GitHub-Event", &delivery.event)
            .header("X-GitHub-Delivery", &delivery.guid)
            .header("X-GitHub-Hook-ID", hook.id)
            .header("X-GitHub-Hook-Installation-Target-Type", target.0)
            .header("X-GitHub-Hook-Installation-Target-ID", target.1)
            .header("X-GitHub-Enterprise-Host", "127.0.0.1")
            .header("X-GitHub-Enterprise-Version", VERSION);
        if let Some(secret) = hook.secret.as_ref().filter(|secret| !secret.is_empty()) {
            request = request
                .header("X-Hub-Signature", format!("sha1={}", hmac_sha1(secret, &body)))
                .header(
                    "X-Hub-Signature-256",
                    format!("sha256={}", hmac_sha256(secret, &body)),
                );
        }
        Ok(request.body(body).send().await?.status().as_u16())
    }
}

/// The hexadecimal HMAC-SHA256 of a body.
fn hmac_sha256(secret: &Secret, body: &[u8]) -> String {
    // HMAC takes a key of any length, so the error cannot happen; an empty signature would be refused.
    Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).map_or_else(
        |_| String::new(),
        |mut mac| {
            mac.update(body);
            hex::encode(mac.finalize().into_bytes())
        },
    )
}

impl Hook {
    /// "Webhook", without its secret.
    pub(crate) fn json(&self, owner_api: &str) -> Value {
        let url = format!("{owner_api}/hooks/{}", self.id);
        json!({
            "type": if self.organization.is_some() { "Organization" } else { "Repository" },
            "id": self.id, "name": "web", "active": self.active, "events": self.events,
            "config": {
                "url": self.url, "content_type": if self.form { "form" } else { "json" },
                "insecure_ssl": "0", "secret": self.secret.as_ref().map(|_| "********"),
            },
            "created_at": super::reply::time(self.created), "updated_at": super::reply::time(self.created),
            "url": url, "ping_url": format!("{url}/pings"), "test_url": format!("{url}/tests"),
            "deliveries_url": format!("{url}/deliveries"),
            "last_response": {"code": null, "status": "unused", "message": null},
        })
    }
}

/// The signature that GitHub still sends for old receivers.
fn hmac_sha1(secret: &Secret, body: &[u8]) -> String {
    use aws_lc_rs::hmac;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
    hex::encode(hmac::sign(&key, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of "Validating webhook deliveries".
    #[test]
    fn the_signature_is_the_one_in_the_documents() {
        let secret = Secret::new("It's a Secret to Everybody");
        assert_eq!(
            hmac_sha256(&secret, b"Hello, World!"),
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }
}
