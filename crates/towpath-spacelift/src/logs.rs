//! Logs and transitions of a run.
//!
//! Logs belong to one visit of one state, and are read from its top. A page without a token does not mean the top again:
//! the last token that was there stays.

use crate::client::{Purpose, failed};
use crate::documents as d;
use crate::model::Transition;
use crate::runs::{Named, run_of};
use crate::stacks::{missing_if_denied, no_stack};
use crate::wire::WireState;
use crate::{RunState, Spacelift};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use std::collections::VecDeque;
use towpath_core::wait::Policy;
use towpath_core::{RunId, StackId};
use towpath_elements::{Error, ErrorKind, Result};

/// How often an answer may promise more without giving any.
const MOST_EMPTY_PAGES: u32 = 20;

impl Spacelift {
    /// What was logged in one visit of a state so far: pieces of text, which bring their own line ends. `version` is the
    /// [`Transition::version`]; without one, it is the newest visit.
    ///
    /// Logs that the service no longer keeps (60 days by default) are empty.
    pub fn run_logs(
        &self,
        stack: &StackId,
        run: &RunId,
        state: RunState,
        version: Option<i64>,
    ) -> BoxStream<'static, Result<String>> {
        let from = Cursor {
            client: self.clone(),
            stack: stack.clone(),
            run: run.clone(),
            state,
            version,
            token: None,
            empty: 0,
        };
        stream::try_unfold(Some(from), |cursor| async move {
            match cursor {
                Some(cursor) => cursor.page().await.map(Some),
                None => Ok::<_, Error>(None),
            }
        })
        .try_flatten()
        .boxed()
    }

    /// The end of everything a run has logged, over all its states: at most `lines` lines. No more than that is kept in
    /// memory, and no state is read that is not needed for it.
    ///
    /// # Errors
    /// *Not found* where there is no such run.
    pub async fn tail(&self, stack: &StackId, run: &RunId, lines: usize) -> Result<String> {
        let history = self.run_history(stack, run).await?;
        let mut parts = VecDeque::new();
        let mut left = lines;
        for step in history.iter().rev().filter(|step| step.has_logs) {
            if left == 0 {
                break;
            }
            let mut tail = Tail::new(left);
            let mut logs = self.run_logs(stack, run, step.state.clone(), Some(step.version));
            while let Some(text) = logs.try_next().await? {
                tail.push(&text);
            }
            left -= tail.lines.len();
            parts.push_front(tail.text());
        }
        Ok(Vec::from(parts).concat())
    }

    /// The transitions of a run as they happen, from its first one to its last, each once, by version. Looks in the
    /// rhythm of `policy` and ends with the run; dropping the stream stops it.
    ///
    /// # Errors
    /// The first error is the last item. *Timed out* after the policy's limit.
    pub fn watch(
        &self,
        stack: &StackId,
        run: &RunId,
        policy: Policy,
    ) -> BoxStream<'static, Result<Transition>> {
        struct Watch {
            seen: i64,
            looks: u32,
            deadline: towpath_core::Deadline,
        }
        let (client, stack, run) = (self.clone(), stack.clone(), run.clone());
        let start = Watch {
            seen: i64::MIN,
            looks: 0,
            deadline: towpath_core::Deadline::after(policy.limit()),
        };
        let batches = stream::try_unfold(Some(start), move |watch| {
            let (client, stack, run, policy) = (client.clone(), stack.clone(), run.clone(), policy.clone());
            async move {
                let Some(mut watch) = watch else {
                    return Ok::<_, Error>(None);
                };
                loop {
                    let mut news = client.run_history(&stack, &run).await?;
                    let over = news.iter().any(|step| step.terminal);
                    news.retain(|step| step.version > watch.seen);
                    if let Some(last) = news.last() {
                        watch.seen = last.version;
                        watch.looks = 0;
                    }
                    if over || !news.is_empty() {
                        let next = (!over).then_some(watch);
                        return Ok(Some((stream::iter(news.into_iter().map(Ok)), next)));
                    }
                    if watch.deadline.has_passed() {
                        return Err(failed(ErrorKind::TimedOut, ("watch", &Named(&stack, &run)))
                            .because("it is not over yet"));
                    }
                    watch.looks = watch.looks.saturating_add(1);
                    let pause = policy.delay_after(watch.looks).min(watch.deadline.remaining());
                    tokio::time::sleep(pause).await;
                }
            }
        });
        batches.try_flatten().boxed()
    }
}

/// Where the reading of a log stands.
struct Cursor {
    client: Spacelift,
    stack: StackId,
    run: RunId,
    state: RunState,
    version: Option<i64>,
    token: Option<String>,
    empty: u32,
}

type Page = stream::Iter<std::vec::IntoIter<Result<String>>>;

impl Cursor {
    async fn page(mut self) -> Result<(Page, Option<Self>)> {
        let named = Named(&self.stack, &self.run);
        let purpose: Purpose<'_> = ("read the logs of", &named);
        let variables = d::run_logs::Variables {
            stack: self.stack.to_string(),
            run: self.run.to_string(),
            state: WireState(self.state.clone()),
            state_version: self.version,
            token: self.token.clone(),
        };
        let logs = run_of!(self.client, d::RunLogs, variables, purpose)?.logs;
        let Some(logs) = logs.filter(|logs| logs.exists && logs.expired != Some(true)) else {
            return Ok((stream::iter(Vec::new()), None));
        };
        let texts: Vec<_> = logs.messages.into_iter().map(|line| Ok(line.message)).collect();
        let moved = logs.next_token.is_some() && logs.next_token != self.token;
        // More that is read from the same place again would be the same again.
        let next = if !logs.has_more || logs.finished || !moved && !texts.is_empty() {
            None
        } else {
            self.empty = if texts.is_empty() { self.empty + 1 } else { 0 };
            if self.empty > MOST_EMPTY_PAGES {
                return Err(failed(ErrorKind::Protocol, purpose).because(format!(
                    "{MOST_EMPTY_PAGES} pages in a row promise more and hold nothing"
                )));
            }
            self.token = logs.next_token.or(self.token);
            Some(self)
        };
        Ok((stream::iter(texts), next))
    }
}

/// The last lines of a text that comes in pieces.
struct Tail {
    most: usize,
    lines: VecDeque<String>,
}

impl Tail {
    fn new(most: usize) -> Self {
        Self {
            most,
            lines: VecDeque::new(),
        }
    }

    fn push(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            match self.lines.back_mut() {
                Some(last) if !last.ends_with('\n') => last.push_str(piece),
                _ => self.lines.push_back(piece.to_owned()),
            }
            if self.lines.len() > self.most {
                self.lines.pop_front();
            }
        }
    }

    /// The lines; the last one is ended, so that another state's can follow.
    fn text(self) -> String {
        let mut text: String = self.lines.into_iter().collect();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_whole_lines_however_they_come() {
        let mut tail = Tail::new(2);
        for piece in ["one\ntw", "o\nth", "", "ree"] {
            tail.push(piece);
        }
        assert_eq!(tail.text(), "two\nthree\n");
    }
}
