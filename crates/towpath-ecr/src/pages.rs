//! Lists that the service hands out page by page, as streams that are one page ahead of whoever reads them.

use crate::error::SERVICE;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use tokio_util::task::AbortOnDropHandle;
use towpath_core::requests;
use towpath_elements::{Error, ErrorKind, Result};
use tracing::Instrument;

/// One page, and the token of the next one.
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<String>,
}

enum Next<T> {
    First,
    UnderWay {
        token: String,
        page: AbortOnDropHandle<Result<Page<T>>>,
    },
    None,
}

/// The items of every page, in the order of the service. While one page is read, the next one is fetched, and no other.
/// An error ends the stream. Nothing is sent before the stream is polled.
pub(crate) fn items<T, F, Fetching>(
    attempted: &'static str,
    subject: impl ToString,
    fetch: F,
) -> BoxStream<'static, Result<T>>
where
    T: Send + 'static,
    F: Fn(Option<String>) -> Fetching + Send + Sync + 'static,
    Fetching: Future<Output = Result<Page<T>>> + Send + 'static,
{
    let subject = subject.to_string();
    let pages = stream::try_unfold((Next::First, fetch), move |(next, fetch)| {
        let subject = subject.clone();
        async move {
            let (asked, page) = match next {
                Next::None => return Ok(None),
                Next::First => (None, fetch(None).await?),
                Next::UnderWay { token, page } => {
                    let page = page.await.map_err(|error| {
                        Error::new(ErrorKind::Unavailable, SERVICE, attempted, &subject).caused_by(error)
                    })?;
                    (Some(token), page?)
                }
            };
            let next = match page.next.filter(|token| !token.is_empty()) {
                None => Next::None,
                Some(token) if asked.as_ref() == Some(&token) => {
                    return Err(Error::new(ErrorKind::Protocol, SERVICE, attempted, subject)
                        .because("the token of the next page is that of this one"));
                }
                Some(token) => {
                    let fetching = requests::carried(fetch(Some(token.clone()))).in_current_span();
                    let page = AbortOnDropHandle::new(tokio::spawn(fetching));
                    Next::UnderWay { token, page }
                }
            };
            Ok(Some((page.items, (next, fetch))))
        }
    });
    pages
        .map_ok(|page| stream::iter(page.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn numbers(pages: u32) -> (BoxStream<'static, Result<u32>>, Arc<AtomicU32>) {
        let fetched = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&fetched);
        let stream = items("count", "numbers", move |token: Option<String>| {
            count.fetch_add(1, Ordering::SeqCst);
            let page: u32 = token.map_or(0, |token| token.parse().unwrap());
            async move {
                Ok(Page {
                    items: (page * 10..page * 10 + 10).collect(),
                    next: (page + 1 < pages).then(|| (page + 1).to_string()),
                })
            }
        });
        (stream, fetched)
    }

    #[tokio::test]
    async fn every_item_comes_once_and_in_order() {
        let (stream, fetched) = numbers(5);
        assert_eq!(
            fetched.load(Ordering::SeqCst),
            0,
            "nothing is sent before it is polled"
        );
        let all: Vec<u32> = stream.try_collect().await.unwrap();
        assert!(all.into_iter().eq(0..50));
        assert_eq!(fetched.load(Ordering::SeqCst), 5);
    }

    #[tokio::test]
    async fn it_is_one_page_ahead_and_never_two() {
        let (mut stream, fetched) = numbers(5);
        for page in 0..4 {
            for item in 0..10 {
                assert_eq!(stream.try_next().await.unwrap(), Some(page * 10 + item));
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(fetched.load(Ordering::SeqCst), page + 2);
            }
        }
    }

    #[tokio::test]
    async fn an_error_ends_the_stream() {
        let stream = items("count", "numbers", |token: Option<String>| async move {
            match token {
                None => Ok(Page {
                    items: vec![1, 2],
                    next: Some("2".into()),
                }),
                Some(_) => Err(Error::new(ErrorKind::Unavailable, SERVICE, "count", "numbers")),
            }
        });
        let seen: Vec<Result<i32>> = stream.collect().await;
        assert_eq!(seen.len(), 3);
        assert!(seen[..2].iter().all(Result::is_ok) && seen[2].is_err());
    }

    #[tokio::test]
    async fn a_token_that_leads_nowhere_is_refused() {
        let stream = items("count", "numbers", |_| async {
            Ok(Page {
                items: vec![1],
                next: Some("again".into()),
            })
        });
        let seen: Vec<Result<i32>> = stream.collect().await;
        let error = seen.into_iter().last().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }
}
