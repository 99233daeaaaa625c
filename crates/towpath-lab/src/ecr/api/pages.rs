//! Pages by `maxResults` and `nextToken`. A token names the last item that was sent, so that a page stays right while
//! items come and go.

use super::error::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::str::FromStr;

/// Where a page begins and how long it may be.
pub(super) struct Page {
    limit: usize,
    after: Option<String>,
}

impl Page {
    pub(super) fn new(max_results: Option<i64>, next_token: Option<&str>) -> Result<Self, ApiError> {
        Self::within(max_results, 100, 1000, next_token)
    }

    /// A page of `usual` items, or of as many as are asked for up to `most`.
    pub(super) fn within(
        max_results: Option<i64>,
        usual: usize,
        most: usize,
        next_token: Option<&str>,
    ) -> Result<Self, ApiError> {
        let asked = max_results.map(|limit| usize::try_from(limit).unwrap_or(0));
        let limit = asked.unwrap_or(usual);
        if !(1..=most).contains(&limit) {
            let constraint = format!("Member must have value between 1 and {most}");
            return Err(ApiError::invalid("maxResults", &constraint));
        }
        let after = match next_token {
            None => None,
            Some(token) => {
                let key = STANDARD
                    .decode(token)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok());
                Some(key.ok_or_else(invalid_token)?)
            }
        };
        Ok(Self { limit, after })
    }

    /// The key of the last item of the page before, as what it stands for.
    pub(super) fn after<T: FromStr>(&self) -> Result<Option<T>, ApiError> {
        let parsed = self.after.as_ref().map(|after| after.parse());
        parsed.transpose().map_err(|_| invalid_token())
    }

    /// Takes the page from items that are sorted by their key and may begin before it. What is behind the page is not
    /// looked at, except for whether there is anything.
    pub(super) fn take<T>(&self, items: impl IntoIterator<Item = (String, T)>) -> (Vec<T>, Option<String>) {
        let mut rest = items
            .into_iter()
            .filter(|(key, _)| self.after.as_ref().is_none_or(|after| key > after));
        let mut last = None;
        let taken: Vec<T> = rest
            .by_ref()
            .take(self.limit)
            .map(|(key, item)| {
                last = Some(key);
                item
            })
            .collect();
        let next = last.filter(|_| rest.next().is_some());
        (taken, next.map(|key| STANDARD.encode(key)))
    }
}

fn invalid_token() -> ApiError {
    ApiError::invalid("nextToken", "Invalid token")
}

/// One page of items that are sorted by their key, and the token of the next page.
pub(super) fn page<T>(
    items: Vec<(String, T)>,
    max_results: Option<i64>,
    next_token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    Ok(Page::new(max_results, next_token)?.take(items))
}

/// An answer with the token of the next page, where there is one.
pub(super) fn with_token(mut answer: serde_json::Value, next: Option<String>) -> serde_json::Value {
    if let Some(next) = next {
        answer["nextToken"] = next.into();
    }
    answer
}
