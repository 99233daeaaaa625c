//! Answers of the GraphQL endpoint, and what their errors mean.
//!
//! The service has no error codes; every public client of it matches messages. An answer with data and errors is an error.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use towpath_core::Secret;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::Answer;

/// More of an error's text than this is not shown.
const LONGEST: usize = 600;

/// An answer in the shape of GraphQL.
#[derive(Debug)]
pub(crate) struct Reply {
    answer: Answer,
    envelope: Envelope,
    messages: String,
}

/// What an answer says about whether the caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is.
    Known,
    /// It is not.
    Unknown,
    /// It does not say, and it looks as it would to somebody who is not.
    Doubtful,
}

#[derive(Debug, Default, Deserialize)]
struct Envelope {
    /// Which fields of the root are there and not null.
    #[serde(default)]
    data: Option<BTreeMap<String, Option<IgnoredAny>>>,
    #[serde(default, deserialize_with = "null_is_none")]
    errors: Vec<GraphQlError>,
}

/// One of `errors`, as far as anything can be said of it.
#[derive(Debug, Deserialize)]
struct GraphQlError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    path: Option<Vec<Value>>,
    #[serde(default)]
    extensions: Option<Value>,
}

fn null_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<GraphQlError>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Reply {
    /// Reads an answer; texts of errors lose the secrets. An answer that is not GraphQL is an error by its status.
    pub(crate) fn read(answer: Answer, secrets: &[&Secret]) -> Result<Self> {
        let envelope = if answer.status().is_success() {
            answer.json::<Envelope>()?
        } else {
            // Some servers say 400 or 422 beside the errors of a document they refuse.
            match serde_json::from_slice::<Envelope>(answer.body()) {
                Ok(envelope) if !envelope.errors.is_empty() && answer.status().is_client_error() => envelope,
                _ => return Err(answer.failure()),
            }
        };
        let mut messages = envelope
            .errors
            .iter()
            .map(GraphQlError::text)
            .collect::<Vec<_>>()
            .join("; ");
        for secret in secrets {
            messages = secret.redact(&messages);
        }
        if messages.len() > LONGEST {
            let end = messages.floor_char_boundary(LONGEST);
            messages.truncate(end);
            messages.push('…');
        }
        Ok(Self {
            answer,
            envelope,
            messages,
        })
    }

    /// Whether the caller is known, by this answer.
    pub(crate) fn standing(&self) -> Standing {
        let data = self.envelope.data.as_ref();
        match data.and_then(|data| data.get("viewer")) {
            Some(Some(_)) => return Standing::Known,
            Some(None) => return Standing::Unknown,
            None => {}
        }
        let nothing = data.is_none_or(|data| data.values().all(Option::is_none));
        if self.is_unauthorized() || nothing && self.envelope.errors.is_empty() {
            Standing::Doubtful
        } else {
            Standing::Known
        }
    }

    /// Whether an error says `unauthorized`: of an unknown caller, and of one who may not.
    pub(crate) fn is_unauthorized(&self) -> bool {
        let mut errors = self.envelope.errors.iter();
        errors.any(|error| error.message.to_ascii_lowercase().contains("unauthorized"))
    }

    /// What the errors say.
    pub(crate) fn messages(&self) -> &str {
        &self.messages
    }

    /// An error about this call.
    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        self.answer.error(kind)
    }

    /// The data of an answer to a caller who is known. `changes` says whether the operation was a mutation.
    pub(crate) fn data<T: DeserializeOwned>(&self, changes: bool) -> Result<T> {
        #[derive(Deserialize)]
        struct Data<T> {
            data: T,
        }
        if !self.envelope.errors.is_empty() {
            return Err(self.failure(changes));
        }
        if self.envelope.data.is_none() {
            return Err(self
                .error(ErrorKind::Protocol)
                .because("the answer has neither data nor errors"));
        }
        Ok(self.answer.json::<Data<T>>()?.data)
    }

    fn failure(&self, changes: bool) -> Error {
        let kinds = self.envelope.errors.iter().map(|error| error.kind(changes));
        // Several errors tend to follow from one: the first says it.
        let kind = kinds.into_iter().next().unwrap_or(ErrorKind::Protocol);
        let error = self.error(kind).because(&self.messages);
        match kind {
            ErrorKind::Denied => error.advise("check the caller's access to the space of the stack"),
            ErrorKind::Unsupported => error.advise(
                "this version of Spacelift does not know the request; a self-hosted one may be too old",
            ),
            _ => error,
        }
    }
}

impl GraphQlError {
    fn kind(&self, changes: bool) -> ErrorKind {
        let message = self.message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if says(&["unauthorized"]) {
            ErrorKind::Denied
        } else if says(&["not found"]) {
            ErrorKind::NotFound
        } else if says(&["rate limit", "too many requests"]) {
            ErrorKind::RateLimited
        } else if self.refuses_document(&message) {
            ErrorKind::Unsupported
        } else if says(&["internal server error", "internal system error"]) {
            ErrorKind::Unavailable
        } else if changes {
            // Whatever else stands against a change is the state that things are in.
            ErrorKind::Conflict
        } else {
            ErrorKind::Invalid
        }
    }

    /// Whether the server did not understand the document: it then ran no part of it, so that there is no path.
    fn refuses_document(&self, message: &str) -> bool {
        let code = self
            .extensions
            .as_ref()
            .and_then(|extensions| extensions["code"].as_str());
        let words = [
            "cannot query field",
            "does not have a field",
            "unknown argument",
            "unknown type",
            "is not supported by",
            "is not defined",
            "not implemented",
        ];
        code == Some("GRAPHQL_VALIDATION_FAILED") || words.iter().any(|word| message.contains(word))
    }

    /// The message, where in the answer it belongs, and the fields that `extensions` names.
    fn text(&self) -> String {
        let mut text = if self.message.is_empty() {
            "an error without a message".to_owned()
        } else {
            self.message.replace(['\n', '\r'], " ")
        };
        if let Some(path) = self.path.as_ref().filter(|path| path.len() > 1) {
            let parts: Vec<String> = path
                .iter()
                .map(|part| part.as_str().map_or_else(|| part.to_string(), ToOwned::to_owned))
                .collect();
            text = format!("{text} (at {})", parts.join("."));
        }
        for (name, value) in self.extensions.iter().filter_map(Value::as_object).flatten() {
            if let Some(value) = value.as_str() {
                text = format!("{text}, {name}: {value}");
            }
        }
        text
    }
}
