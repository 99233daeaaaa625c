//! Pages by `maxResults` and `nextToken`. A token names the last item that was sent, so that a page stays right while
//! items come and go.

use super::error::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One page of items that are sorted by their key, and the token of the next page.
pub(super) fn page<T>(
    items: Vec<(String, T)>,
    max_results: Option<i64>,
    next_token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let limit = match max_results {
        None => 100,
        Some(limit) => usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=1000).contains(limit))
            .ok_or_else(|| ApiError::invalid("maxResults", "Member must have value between 1 and 1000"))?,
    };
    let after = match next_token {
        None => None,
        Some(token) => {
            let key = STANDARD
                .decode(token)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            Some(key.ok_or_else(|| ApiError::invalid("nextToken", "Invalid token"))?)
        }
    };
    let mut rest = items
        .into_iter()
        .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
    let taken: Vec<(String, T)> = rest.by_ref().take(limit).collect();
    let next = match (rest.next(), taken.last()) {
        (Some(_), Some((key, _))) => Some(STANDARD.encode(key)),
        _ => None,
    };
    Ok((taken.into_iter().map(|(_, item)| item).collect(), next))
}

/// An answer with the token of the next page, where there is one.
pub(super) fn with_token(mut answer: serde_json::Value, next: Option<String>) -> serde_json::Value {
    if let Some(next) = next {
        answer["nextToken"] = next.into();
    }
    answer
}
