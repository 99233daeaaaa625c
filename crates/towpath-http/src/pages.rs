//! Lists in pages: `Link` headers, by RFC 8288.

use crate::origin::{same, showable};
use crate::{Answer, Call, Transport};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::HeaderMap;
use http::header::LINK;
use std::collections::HashSet;
use towpath_elements::{ErrorKind, Result};

struct Walk {
    transport: Transport,
    next: Option<Call>,
    seen: HashSet<String>,
    at_most: usize,
}

pub(crate) fn pages(transport: Transport, call: Call, at_most: usize) -> BoxStream<'static, Result<Answer>> {
    let walk = Walk {
        transport,
        next: Some(call),
        seen: HashSet::new(),
        at_most,
    };
    stream::try_unfold(walk, |mut walk| async move {
        let Some(call) = walk.next.take() else {
            return Ok(None);
        };
        if walk.seen.len() >= walk.at_most {
            return Err(walk
                .transport
                .purpose(&call)
                .error(ErrorKind::Protocol)
                .because(format!("there are more than {} pages", walk.at_most))
                .advise("narrow the list down"));
        }
        let answer = walk.transport.send(call.clone()).await?;
        walk.seen.insert(answer.url().to_string());
        if answer.status().is_success() {
            walk.next = following(&walk, &call, &answer)?;
        }
        Ok(Some((answer, walk)))
    })
    .boxed()
}

/// The call for the page after this one.
fn following(walk: &Walk, call: &Call, answer: &Answer) -> Result<Option<Call>> {
    let Some(target) = next_link(answer.headers()) else {
        return Ok(None);
    };
    let refuse = |why: String| Err(answer.error(ErrorKind::Protocol).because(why));
    let url = match answer.url().join(&target) {
        Ok(url) => url,
        Err(cause) => return refuse(format!("the link to the next page is not a URL: {cause}")),
    };
    if !same(&url, walk.transport.base()) {
        return refuse(format!("the next page is on another origin: {}", showable(&url))).map_err(
            |error: towpath_elements::Error| {
                error.advise("check the base address; the server names its own by another")
            },
        );
    }
    if walk.seen.contains(url.as_str()) {
        return refuse("the list of pages runs in a circle".into());
    }
    let mut next = call.clone();
    next.target = url.into();
    next.segments.clear();
    next.query.clear();
    Ok(Some(next))
}

/// The target of the first link whose relations include `next`.
fn next_link(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(next_of)
}

fn next_of(mut rest: &str) -> Option<String> {
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        // The parameters reach to the comma in front of the next link; quoted values may hold commas.
        let mut quoted = false;
        let end = after
            .find(|c| {
                quoted ^= c == '"';
                c == ',' && !quoted
            })
            .unwrap_or(after.len());
        let is_next = after[..end].split(';').any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split_ascii_whitespace()
                        .any(|relation| relation.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            return Some(target.to_owned());
        }
        rest = &after[end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        for (text, next) in [
            (
                r#"<https://h/a?p=1>; rel="prev", <https://h/a?p=3>; rel="next""#,
                Some("https://h/a?p=3"),
            ),
            (
                "</a,b>; title=\"x, <y>; rel=next\"; rel=\"last Next\"",
                Some("/a,b"),
            ),
            ("<a>; rel=next", Some("a")),
            ("<a>; rel=prev", None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next_of(text).as_deref(), next, "{text}");
        }
    }
}
