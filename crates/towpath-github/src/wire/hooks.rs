//! Webhooks of a repository, and what they delivered.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use towpath_core::Secret;
use url::Url;

/// A webhook of a repository. GitHub never shows its secret.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Hook {
    /// Its number.
    pub id: u64,
    /// Whether it delivers.
    #[serde(default)]
    pub active: bool,
    /// The events it delivers; `*` is all of them.
    #[serde(default)]
    pub events: Vec<String>,
}

/// Where a webhook delivers to, and how it signs.
#[derive(Clone, Debug, Serialize)]
pub struct HookConfig {
    /// Where it delivers to.
    pub url: Url,
    /// What it signs with.
    #[serde(serialize_with = "exposed")]
    pub secret: Secret,
    /// Always `json`.
    content_type: &'static str,
}

impl HookConfig {
    /// Delivers JSON to this URL, signed with this secret.
    pub fn new(url: Url, secret: Secret) -> Self {
        Self {
            url,
            secret,
            content_type: "json",
        }
    }
}

fn exposed<S: Serializer>(secret: &Secret, output: S) -> Result<S::Ok, S::Error> {
    output.serialize_str(secret.expose())
}

/// One delivery of a webhook.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct HookDelivery {
    /// The number of the attempt.
    pub id: u64,
    /// The identifier of the event, as in `X-GitHub-Delivery`.
    pub guid: String,
    /// When it was sent.
    pub delivered_at: Option<Timestamp>,
    /// Whether it was sent again by hand.
    #[serde(default)]
    pub redelivery: bool,
    /// What came of it, such as `OK`.
    #[serde(default)]
    pub status: String,
    /// The receiver's HTTP status; 0 where there was no answer.
    #[serde(default)]
    pub status_code: u16,
    /// The event, such as `push`.
    #[serde(default)]
    pub event: String,
    /// What happened to its subject.
    pub action: Option<String>,
}
