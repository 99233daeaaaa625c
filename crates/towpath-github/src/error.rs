//! What a refusal of GitHub means, after *Troubleshooting the REST API* and *Rate limits for the REST API*.

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use towpath_core::{Retry, Secret};
use towpath_elements::{Error, ErrorKind};
use towpath_http::Answer;

/// How long to wait after a secondary rate limit that names no time: at least a minute, says GitHub.
const UNNAMED_LIMIT: Duration = Duration::from_secs(60);

/// The body of a refusal. Its `documentation_url` is of no use in one line, and is left out.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Value,
}

/// The error that an answer means which is not 2xx.
pub(crate) fn refused(answer: &Answer, token: Option<&Secret>) -> Error {
    // A proxy in front of the server answers with no JSON at all; the status still counts.
    let refusal: Refusal = serde_json::from_slice(answer.body()).unwrap_or_default();
    let status = answer.status().as_u16();
    let limit = rate_limit(answer, &refusal);
    let kind = match limit {
        Some(_) => ErrorKind::RateLimited,
        None => kind(status, &refusal).unwrap_or_else(|| answer.failure().kind()),
    };
    let error = answer.error(kind).because(detail(answer, &refusal, token));
    let error = match limit {
        Some(pause) => error.retrying(Retry::After(pause)),
        None => error,
    };
    match advice(status, kind, answer) {
        Some(advice) => error.advise(advice),
        None => error,
    }
}

/// How long to leave the server alone, where it asks for that: both limits come as 403 or as 429.
fn rate_limit(answer: &Answer, refusal: &Refusal) -> Option<Duration> {
    let status = answer.status().as_u16();
    if status != 403 && status != 429 {
        return None;
    }
    let number = |name: &str| {
        answer
            .header(name)
            .and_then(|value| value.trim().parse::<i64>().ok())
    };
    if let Some(seconds) = number("retry-after") {
        return Some(Duration::from_secs(seconds.unsigned_abs()));
    }
    if number("x-ratelimit-remaining") == Some(0)
        && let Some(reset) = number("x-ratelimit-reset")
    {
        // The server's own clock tells how far the reset is; ours may be off.
        let now = answer
            .header("date")
            .and_then(|date| DateTimeParser::new().parse_timestamp(date).ok())
            .unwrap_or_else(Timestamp::now);
        let seconds = reset.saturating_sub(now.as_second()).max(1);
        return Some(Duration::from_secs(seconds.unsigned_abs()));
    }
    let message = refusal.message.to_ascii_lowercase();
    let limited = message.contains("rate limit") || message.contains("abuse detection");
    (limited || status == 429).then_some(UNNAMED_LIMIT)
}

/// The kind where GitHub's use of a status is more exact than the status.
fn kind(status: u16, refusal: &Refusal) -> Option<ErrorKind> {
    let text = format!("{} {}", refusal.message, refusal.errors).to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match status {
        403 if says(&["already running", "already been"]) => Some(ErrorKind::Conflict),
        // A pull request that cannot be merged as it stands.
        405 => Some(ErrorKind::Conflict),
        // Rules refuse with either status, depending on the endpoint and on the kind of rule.
        409 | 422 if says(&["protected branch", "repository rule", "through a pull request"]) => {
            Some(ErrorKind::Denied)
        }
        422 if says(&["no commit found", "does not exist"]) => Some(ErrorKind::NotFound),
        422 if says(&[
            "already_exists",
            "already exists",
            "fast forward",
            "fast-forward",
            "but expected",
        ]) =>
        {
            Some(ErrorKind::Conflict)
        }
        451 => Some(ErrorKind::Denied),
        _ => None,
    }
}

fn detail(answer: &Answer, refusal: &Refusal, token: Option<&Secret>) -> String {
    let mut text = format!("HTTP {}", answer.status().as_u16());
    if !refusal.message.is_empty() {
        text = format!("{text}: {}", refusal.message);
    }
    let errors: Vec<String> = refusal
        .errors
        .as_array()
        .into_iter()
        .flatten()
        .take(5)
        .map(one_error)
        .collect();
    if !errors.is_empty() {
        text = format!("{text} ({})", errors.join("; "));
    }
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(400)
        .collect();
    let text = token.map_or(text.clone(), |token| token.redact(&text));
    match answer.header("x-github-request-id") {
        Some(id) => format!("{text} [request {id}]"),
        None => text,
    }
}

/// An element of `errors`: a text, or `{resource, field, code, message}`.
fn one_error(error: &Value) -> String {
    if let Some(text) = error.as_str() {
        return text.to_owned();
    }
    let part = |name: &str| error.get(name).and_then(Value::as_str);
    let place: Vec<&str> = [part("resource"), part("field")].into_iter().flatten().collect();
    let what = part("message").or(part("code")).unwrap_or("not accepted");
    if place.is_empty() {
        what.to_owned()
    } else {
        format!("{}: {what}", place.join("."))
    }
}

fn advice(status: u16, kind: ErrorKind, answer: &Answer) -> Option<String> {
    Some(match (kind, status) {
        (ErrorKind::Unauthenticated, _) => {
            "check that the token is whole, not expired and not revoked".into()
        }
        (ErrorKind::Denied, 409 | 422) => {
            "open a pull request instead, or let the rules of the branch be bypassed by this token".into()
        }
        (ErrorKind::Denied, 403) => match answer.header("x-accepted-github-permissions") {
            Some(wanted) => format!("the token needs one of the permissions {wanted}"),
            None => {
                "check the permissions of the token, and whether it is authorised for single sign-on".into()
            }
        },
        (ErrorKind::NotFound, 404) => {
            "check the name, and that the token may see it: GitHub answers the same in both cases".into()
        }
        (ErrorKind::NotFound, 410) => "it is gone or switched off".into(),
        _ => return None,
    })
}
