//! Receiving webhooks, after *Validating webhook deliveries* and *Webhook events and payloads* of GitHub's documents.
//!
//! A delivery is checked before it is read: its size, then its signature over the raw bytes, then its JSON. What comes
//! out is an [`Event`] that names the few fields a delivery flow uses and keeps the whole payload beside them.
//!
//! Events come late, twice, and out of order. Take one as a hint to read the current state, not as the truth, and
//! answer within 10 seconds: check it, note it, answer 202, and work afterwards.
//!
//! ```
//! use towpath_github::Secret;
//! use towpath_github::webhook::{Event, Verifier, WebhookError};
//!
//! let verifier = Verifier::new([Secret::new("It's a Secret to Everybody")]);
//! let body = b"Hello, World!";
//! let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
//! assert!(verifier.verify(Some(signature.as_bytes()), body).is_ok());
//! assert!(matches!(verifier.verify(None, body), Err(WebhookError::Unsigned)));
//! ```

mod dedupe;
mod event;

pub use dedupe::{Deduplicator, DeliveryKey, MemoryDeduplicator};
pub use event::{
    Check, CheckEvent, DeploymentEvent, Event, Payload, PullRequestEvent, PushCommit, PushEvent, ReviewEvent,
    StatusEvent, WorkflowRunEvent,
};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use percent_encoding::percent_decode;
use sha2::Sha256;
use std::fmt;
use towpath_core::Secret;

/// GitHub sends no payload above 25 MiB; larger events are not delivered at all.
pub const LARGEST_PAYLOAD: usize = 25 * 1024 * 1024;

/// Checks that a delivery was signed with one of the hook's secrets, and reads it.
///
/// Several secrets are accepted at once, so that a secret can be replaced without losing a delivery: add the new one,
/// change the hook, remove the old one.
#[derive(Clone, Debug)]
pub struct Verifier {
    secrets: Vec<Secret>,
    largest: usize,
}

impl Verifier {
    /// Accepts what is signed with any of these secrets. An empty secret is never accepted.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        Self {
            secrets: secrets.into_iter().filter(|secret| !secret.is_empty()).collect(),
            largest: LARGEST_PAYLOAD,
        }
    }

    /// Refuses bodies above this many bytes; [`LARGEST_PAYLOAD`] is the default.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.largest = bytes;
        self
    }

    /// Checks the value of `X-Hub-Signature-256` against the raw body, in constant time.
    ///
    /// # Errors
    /// [`WebhookError::TooLarge`], [`Unsigned`](WebhookError::Unsigned),
    /// [`MalformedSignature`](WebhookError::MalformedSignature), [`NoSecret`](WebhookError::NoSecret) or
    /// [`WrongSignature`](WebhookError::WrongSignature).
    pub fn verify(&self, signature: Option<&[u8]>, body: &[u8]) -> Result<(), WebhookError> {
        if body.len() > self.largest {
            return Err(WebhookError::TooLarge {
                bytes: body.len(),
                largest: self.largest,
            });
        }
        let signature = signature.ok_or(WebhookError::Unsigned)?;
        let digits = signature
            .strip_prefix(b"sha256=")
            .ok_or(WebhookError::MalformedSignature)?;
        let mut claimed = [0; 32];
        hex::decode_to_slice(digits, &mut claimed).map_err(|_| WebhookError::MalformedSignature)?;
        if self.secrets.is_empty() {
            return Err(WebhookError::NoSecret);
        }
        let signed_with = |secret: &Secret| {
            Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
                .is_ok_and(|mac| mac.chain_update(body).verify_slice(&claimed).is_ok())
        };
        // Every secret is tried, so that the time taken does not tell which of them matched.
        let matching = self.secrets.iter().filter(|secret| signed_with(secret)).count();
        if matching > 0 {
            Ok(())
        } else {
            Err(WebhookError::WrongSignature)
        }
    }

    /// Checks a request and reads the event in it. The body must be the bytes as they came.
    ///
    /// # Errors
    /// What [`verify`](Self::verify) says, and [`WebhookError::MissingHeader`],
    /// [`UnsupportedMediaType`](WebhookError::UnsupportedMediaType) or [`Unreadable`](WebhookError::Unreadable).
    pub fn receive(&self, headers: &HeaderMap, body: &Bytes) -> Result<Delivery, WebhookError> {
        self.verify(
            headers.get("x-hub-signature-256").map(|value| value.as_bytes()),
            body,
        )?;
        let header = |name: &'static str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .filter(|value| !value.is_empty())
                .ok_or(WebhookError::MissingHeader(name))
        };
        let kind = header("x-github-event")?;
        let json = json_of(header("content-type")?, body)?;
        Ok(Delivery {
            id: header("x-github-delivery")?.to_owned(),
            hook: header("x-github-hook-id").ok().and_then(|id| id.parse().ok()),
            event: Event::read(kind, &json)?,
        })
    }
}

/// A delivery whose signature was right.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The identifier of the event. A redelivery carries the same one, and so does every other hook that gets it.
    pub id: String,
    /// The hook that it came through, where the server says so.
    pub hook: Option<u64>,
    /// What happened.
    pub event: Event,
}

impl Delivery {
    /// What tells this delivery from every other one, for a [`Deduplicator`].
    pub fn key(&self) -> DeliveryKey {
        DeliveryKey {
            hook: self.hook,
            delivery: self.id.clone(),
            event: self.event.kind.clone(),
        }
    }
}

/// Why a delivery was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum WebhookError {
    /// The body is larger than is accepted. Answer 413.
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        largest: usize,
    },
    /// There is no `X-Hub-Signature-256`. Answer 401.
    Unsigned,
    /// The signature is not `sha256=` and 64 hexadecimal digits. Answer 401.
    MalformedSignature,
    /// The receiver has no secret, so it can accept nothing.
    NoSecret,
    /// The signature fits none of the secrets. Answer 401.
    WrongSignature,
    /// A header that every delivery carries is missing. Answer 400.
    MissingHeader(&'static str),
    /// The body is neither JSON nor a form. Answer 415.
    UnsupportedMediaType(String),
    /// The body is signed, and is not what the event's document says. Answer 400.
    Unreadable {
        /// Which event it was to be.
        event: String,
        /// Where it goes wrong.
        reason: String,
    },
}

impl fmt::Display for WebhookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, largest } => {
                write!(f, "the webhook body has {bytes} bytes, at most {largest} are accepted")
            }
            Self::Unsigned => {
                f.write_str("the webhook has no X-Hub-Signature-256 header; give the hook a secret on GitHub")
            }
            Self::MalformedSignature => {
                f.write_str("X-Hub-Signature-256 is not sha256= and 64 hexadecimal digits")
            }
            Self::NoSecret => f.write_str("no webhook secret is configured, so no webhook can be accepted"),
            Self::WrongSignature => f.write_str(
                "the webhook's signature fits no configured secret; compare the hook's secret with the receiver's",
            ),
            Self::MissingHeader(name) => write!(f, "the webhook has no readable {name} header"),
            Self::UnsupportedMediaType(found) => write!(
                f,
                "the webhook's content type is {found:?}; choose application/json in the hook's settings"
            ),
            Self::Unreadable { event, reason } => {
                write!(f, "the payload of the webhook event {event:?} cannot be read: {reason}")
            }
        }
    }
}

impl std::error::Error for WebhookError {}

/// The JSON of a body, which a hook may also send as the field `payload` of a form.
fn json_of(content_type: &str, body: &Bytes) -> Result<Bytes, WebhookError> {
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match media_type.as_str() {
        "application/json" => Ok(body.clone()),
        "application/x-www-form-urlencoded" => body
            .split(|byte| *byte == b'&')
            .find_map(|field| field.strip_prefix(b"payload="))
            .map(|value| {
                let spaced: Vec<u8> = value
                    .iter()
                    .map(|byte| if *byte == b'+' { b' ' } else { *byte })
                    .collect();
                percent_decode(&spaced).collect::<Vec<u8>>().into()
            })
            .ok_or_else(|| WebhookError::Unreadable {
                event: "form".into(),
                reason: "the form has no field named payload".into(),
            }),
        _ => Err(WebhookError::UnsupportedMediaType(
            content_type.chars().take(80).collect(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const SECRET: &str = "It's a Secret to Everybody";

    fn sign(secret: &str, body: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
            .unwrap()
            .chain_update(body);
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    }

    fn headers(signature: &str, event: &str, content_type: &str) -> HeaderMap {
        [
            ("x-hub-signature-256", signature),
            ("x-github-event", event),
            ("x-github-delivery", "0b989ba4-242f-11e5-81e1-c7b6966d2516"),
            ("x-github-hook-id", "292430182"),
            ("content-type", content_type),
        ]
        .into_iter()
        .map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
    }

    #[test]
    fn the_published_vector_holds() {
        let published = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(sign(SECRET, b"Hello, World!"), published);
        let verifier = Verifier::new([Secret::new("the new one"), Secret::new(SECRET)]);
        verifier
            .verify(Some(published.as_bytes()), b"Hello, World!")
            .unwrap();
        let refused = verifier
            .verify(Some(published.as_bytes()), b"Hello, World?")
            .unwrap_err();
        assert!(matches!(refused, WebhookError::WrongSignature));
    }

    #[test]
    fn what_is_not_signed_properly_is_refused_before_it_is_read() {
        let verifier = Verifier::new([Secret::new(SECRET)]).at_most(16);
        let refuse = |signature: Option<&[u8]>, body: &[u8]| verifier.verify(signature, body).unwrap_err();
        assert!(matches!(refuse(None, b""), WebhookError::Unsigned));
        for malformed in [
            "",
            "sha1=00",
            "sha256=",
            "sha256=zz",
            &format!("sha256={}", "g".repeat(64)),
            &"a".repeat(64),
        ] {
            let refused = refuse(Some(malformed.as_bytes()), b"");
            assert!(matches!(refused, WebhookError::MalformedSignature), "{malformed}");
        }
        assert!(matches!(
            refuse(None, &[0; 17]),
            WebhookError::TooLarge {
                bytes: 17,
                largest: 16
            }
        ));
        let none = Verifier::new([Secret::new("")]);
        let refused = none.verify(Some(sign("", b"").as_bytes()), b"").unwrap_err();
        assert!(matches!(refused, WebhookError::NoSecret));
        assert!(!format!("{verifier:?}").contains("Everybody"));
    }

    #[test]
    fn json_and_forms_are_read() {
        let verifier = Verifier::new([Secret::new(SECRET)]);
        let json = r#"{"zen":"a + b = 100%"}"#;
        let form = "a=b&payload=%7B%22zen%22%3A%22a+%2B+b+%3D+100%25%22%7D";
        for (body, content_type) in [
            (json, "application/json; charset=utf-8"),
            (form, "application/x-www-form-urlencoded"),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            let headers = headers(&sign(SECRET, &body), "ping", content_type);
            let delivery = verifier.receive(&headers, &body).unwrap();
            assert_eq!(delivery.hook, Some(292_430_182));
            assert_eq!(delivery.event.raw["zen"], "a + b = 100%");
            assert!(matches!(delivery.event.payload, Payload::Ping));
        }
    }

    #[test]
    fn a_signed_body_that_makes_no_sense_is_an_error_that_says_where() {
        let verifier = Verifier::new([Secret::new(SECRET)]);
        let body = Bytes::from_static(b"{\"ref\": ");
        let refuse = |event: &str, content_type: &str, body: &Bytes| {
            verifier
                .receive(&headers(&sign(SECRET, body), event, content_type), body)
                .unwrap_err()
                .to_string()
        };
        assert!(refuse("push", "application/json", &body).contains("line 1"));
        assert!(refuse("push", "text/plain", &body).contains("text/plain"));
        assert!(refuse("push", "application/x-www-form-urlencoded", &body).contains("payload"));
        let wrong = Bytes::from_static(b"{\"ref\": 7}");
        assert!(refuse("push", "application/json", &wrong).contains("push"));
    }
}
