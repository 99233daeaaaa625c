//! Lists, page by page, after *Using pagination in the REST API*.
//!
//! Of the `Link` to the next page only the query is taken: the server may write a host and a prefix into it that are
//! not those it is reached by, and no credential follows it anywhere else.

use crate::connection::{Connection, Request};
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt, try_unfold};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use towpath_elements::{ErrorKind, Result};
use towpath_http::Answer;
use url::Url;

/// How many pages of a hundred one list may have before it counts as endless.
const MOST_PAGES: usize = 10_000;

/// Where the items of a page are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Items {
    /// The page is an array.
    Whole,
    /// The page is an object, and this field of it is the array.
    Under(&'static str),
}

/// The items of a list, each page requested when it is needed. An empty repository has an empty list.
pub(crate) fn pages<T: DeserializeOwned + Send + 'static>(
    connection: Arc<Connection>,
    request: Request,
    items: Items,
) -> BoxStream<'static, Result<T>> {
    let first = Some((request.query("per_page", "100"), HashSet::new()));
    try_unfold((connection, first), move |(connection, next)| async move {
        let Some((request, mut seen)) = next else {
            return Ok(None);
        };
        let answer = connection.send(&request).await?;
        if answer.status() == StatusCode::CONFLICT && is_empty_repository(&answer) {
            return Ok(Some((Vec::new(), (connection, None))));
        }
        if !answer.status().is_success() {
            return Err(connection.refused(&answer));
        }
        let page = read(&answer, items)?;
        let endless = |why: &str| request.error(ErrorKind::Protocol).because(why);
        let next = match next_query(&answer).map_err(endless)? {
            None => None,
            Some(query) if !seen.insert(query.clone()) => {
                return Err(endless("the list links to a page that it has shown before"));
            }
            Some(_) if seen.len() > MOST_PAGES => return Err(endless("the list does not end")),
            Some(query) => Some((request.with_query(query), seen)),
        };
        Ok(Some((page, (connection, next))))
    })
    .map_ok(|page: Vec<T>| futures_util::stream::iter(page.into_iter().map(Ok)))
    .try_flatten()
    .boxed()
}

/// The whole of a list.
pub(crate) async fn all<T: DeserializeOwned + Send + 'static>(
    connection: &Arc<Connection>,
    request: Request,
    items: Items,
) -> Result<Vec<T>> {
    pages(Arc::clone(connection), request, items).try_collect().await
}

fn read<T: DeserializeOwned>(answer: &Answer, items: Items) -> Result<Vec<T>> {
    let Items::Under(field) = items else {
        return answer.json();
    };
    let misfit = |why: String| answer.error(ErrorKind::Protocol).because(why);
    let mut object: Value = answer.json()?;
    let list = object
        .get_mut(field)
        .map(Value::take)
        .ok_or_else(|| misfit(format!("the answer has no {field}")))?;
    serde_json::from_value(list)
        .map_err(|cause| misfit(format!("{field} is not as expected")).caused_by(cause))
}

/// GitHub answers 409 to questions about the commits of a repository that has none.
pub(crate) fn is_empty_repository(answer: &Answer) -> bool {
    answer
        .body()
        .windows(8)
        .any(|part| part.eq_ignore_ascii_case(b"is empty"))
}

/// The query of the link to the next page.
fn next_query(answer: &Answer) -> Result<Option<Vec<(String, String)>>, &'static str> {
    let mut links = String::new();
    for value in answer.headers().get_all("link") {
        links.push_str(value.to_str().map_err(|_| "its Link header is no text")?);
        links.push(',');
    }
    let Some(target) = next_link(&links)? else {
        return Ok(None);
    };
    let base = answer.url();
    let url: Url = base.join(target).map_err(|_| "its Link header holds no URL")?;
    Ok(Some(url.query_pairs().into_owned().collect()))
}

/// The target of the link with the relation `next` (RFC 8288).
fn next_link(mut links: &str) -> Result<Option<&str>, &'static str> {
    while let Some(start) = links.find('<') {
        let rest = &links[start + 1..];
        let end = rest.find('>').ok_or("its Link header breaks off")?;
        let (target, after) = (&rest[..end], &rest[end + 1..]);
        let parameters = after.split('<').next().unwrap_or_default();
        let is_next = parameters.split([';', ',']).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split_whitespace()
                        .any(|word| word.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            return Ok(Some(target));
        }
        links = after;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_the_links() {
        let links = r#"<https://x/a?page=1>; rel="prev", <https://x/a?page=3>; rel="next", <https://x/a?page=9>; rel="last""#;
        assert_eq!(next_link(links), Ok(Some("https://x/a?page=3")));
        assert_eq!(
            next_link(r#"</a?page=2>; title="a;b"; rel=next"#),
            Ok(Some("/a?page=2"))
        );
        assert_eq!(next_link(r#"<https://x/a?page=1>; rel="last""#), Ok(None));
        assert_eq!(next_link(""), Ok(None));
        assert!(next_link("<https://x").is_err());
    }
}
