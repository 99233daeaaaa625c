//! Stacks: reading, searching, locking, outputs, and the worker pools that run them.

use crate::Spacelift;
use crate::client::{Purpose, failed, is_ambiguous, misnamed};
use crate::documents as d;
use crate::model::{Output, StackDetails, StackSummary, Worker, WorkerPool};
use crate::wire::count;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use towpath_core::{RunId, StackId};
use towpath_elements::{Error, ErrorKind, Result};

/// The most stacks that one page of a search may have.
const PAGE: i64 = 50;

/// Which stacks to find. All that is set must hold; with nothing set, every stack that the caller can see is found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StackSearch {
    /// Text in the id, the name, or a label.
    pub text: Option<String>,
    /// Any of these labels.
    pub labels: Vec<String>,
    /// The repository, without its owner.
    pub repository: Option<String>,
    /// The branch.
    pub branch: Option<String>,
}

impl Spacelift {
    /// A stack with what surrounds it.
    ///
    /// # Errors
    /// *Not found* where there is none, or the caller may not see it: the service does not tell these apart.
    pub async fn get_stack(&self, stack: &StackId) -> Result<StackDetails> {
        let purpose: Purpose<'_> = ("read the stack", stack);
        let variables = d::get_stack::Variables {
            id: stack.to_string(),
        };
        let data = self.query::<d::GetStack>(variables, purpose).await;
        let found = data.map_err(missing_if_denied)?.stack;
        found
            .ok_or_else(|| no_stack(purpose))?
            .try_into()
            .map_err(misnamed(purpose))
    }

    /// The stacks that match, page by page.
    pub fn search_stacks(&self, search: StackSearch) -> BoxStream<'static, Result<StackSummary>> {
        /// Where the next page starts: at the top, after a cursor, or nowhere.
        enum Next {
            Top,
            After(String),
            End,
        }
        let client = self.clone();
        let pages = stream::try_unfold(Next::Top, move |next| {
            let (client, search) = (client.clone(), search.clone());
            async move {
                let after = match next {
                    Next::Top => None,
                    Next::After(cursor) => Some(cursor),
                    Next::End => return Ok::<_, Error>(None),
                };
                let (found, end) = client.search_page(&search, after.clone()).await?;
                let next = match end {
                    // A cursor that does not move would be read for ever.
                    Some(cursor) if after.as_ref() != Some(&cursor) => Next::After(cursor),
                    _ => Next::End,
                };
                Ok(Some((stream::iter(found.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn search_page(
        &self,
        search: &StackSearch,
        after: Option<String>,
    ) -> Result<(Vec<StackSummary>, Option<String>)> {
        use d::search_stacks::{QueryFieldConstraint, QueryPredicate, SearchInput, Variables};
        let purpose: Purpose<'_> = ("search", &"stacks");
        let predicate = |field: &str, any_of: Vec<String>| QueryPredicate {
            field: field.to_owned(),
            constraint: QueryFieldConstraint {
                boolean_equals: None,
                enum_equals: None,
                string_matches: Some(any_of),
            },
            exclude: None,
        };
        let wanted = [
            ("label", search.labels.clone()),
            ("repository", search.repository.iter().cloned().collect()),
            ("branch", search.branch.iter().cloned().collect()),
        ];
        let predicates: Vec<_> = wanted
            .into_iter()
            .filter(|(_, any_of)| !any_of.is_empty())
            .map(|(field, any_of)| predicate(field, any_of))
            .collect();
        let input = SearchInput {
            first: Some(PAGE),
            after,
            full_text_search: search.text.clone(),
            predicates: (!predicates.is_empty()).then_some(predicates),
            order_by: None,
        };
        let found = self
            .query::<d::SearchStacks>(Variables { input }, purpose)
            .await?
            .search_stacks;
        let stacks = found.edges.into_iter().map(|edge| edge.node.try_into());
        let stacks = stacks.collect::<Result<_, _>>().map_err(misnamed(purpose))?;
        let end = found
            .page_info
            .end_cursor
            .filter(|_| found.page_info.has_next_page);
        Ok((stacks, end))
    }

    /// The stack that a run belongs to.
    ///
    /// # Errors
    /// *Not found* where there is no such run, or the caller may not see it.
    pub async fn run_owner(&self, run: &RunId) -> Result<StackId> {
        let purpose: Purpose<'_> = ("find the stack of run", run);
        let variables = d::run_owner::Variables { run: run.to_string() };
        let stack = self.query::<d::RunOwner>(variables, purpose).await?.run_stack;
        stack
            .ok_or_else(|| failed(ErrorKind::NotFound, purpose))?
            .id
            .parse()
            .map_err(misnamed(purpose))
    }

    /// The outputs of a stack, the sensitive ones without a value.
    ///
    /// # Errors
    /// *Not found* like [`get_stack`](Self::get_stack).
    pub async fn stack_outputs(&self, stack: &StackId) -> Result<Vec<Output>> {
        let purpose: Purpose<'_> = ("read the outputs of stack", stack);
        let variables = d::stack_outputs::Variables {
            id: stack.to_string(),
        };
        let data = self.query::<d::StackOutputs>(variables, purpose).await;
        let stack = data.map_err(missing_if_denied)?.stack;
        let outputs = stack
            .ok_or_else(|| no_stack(purpose))?
            .outputs
            .unwrap_or_default();
        let outputs = outputs.into_iter().map(|output| {
            let sensitive = output.sensitive.unwrap_or(false);
            Output {
                name: output.id,
                value: output.value.filter(|_| !sensitive),
                sensitive,
                description: output.description,
            }
        });
        Ok(outputs.collect())
    }

    /// Locks a stack for the caller: nobody else can trigger runs, and nothing is applied without being asked for.
    ///
    /// # Errors
    /// *Conflict* where somebody else holds the lock.
    pub async fn lock_stack(&self, stack: &StackId, note: Option<&str>) -> Result<()> {
        let variables = d::stack_lock::Variables {
            id: stack.to_string(),
            note: note.map(ToOwned::to_owned),
        };
        let locked = self
            .mutate::<d::StackLock>(variables, None, ("lock the stack", stack))
            .await;
        self.settled(stack, locked.map(drop), true).await
    }

    /// Gives a lock back.
    pub async fn unlock_stack(&self, stack: &StackId) -> Result<()> {
        let variables = d::stack_unlock::Variables {
            id: stack.to_string(),
        };
        let unlocked = self
            .mutate::<d::StackUnlock>(variables, None, ("unlock the stack", stack))
            .await;
        self.settled(stack, unlocked.map(drop), false).await
    }

    /// Looks whether a lock was changed although the answer was lost.
    async fn settled(&self, stack: &StackId, changed: Result<()>, locked: bool) -> Result<()> {
        let error = match changed {
            Err(error) if is_ambiguous(&error) => error,
            Err(error) => return Err(self.missing_stack(stack, error).await),
            Ok(()) => return Ok(()),
        };
        let by = self.get_stack(stack).await?.locked_by;
        let ours = match self.credentials().trigger_name() {
            Some(name) => by.as_ref() == Some(&name),
            None => false,
        };
        if locked && ours || !locked && by.is_none() {
            return Ok(());
        }
        Err(error)
    }

    /// A private worker pool with its workers.
    ///
    /// # Errors
    /// *Not found* where there is none, or the caller may not see it.
    pub async fn worker_pool(&self, id: &str) -> Result<WorkerPool> {
        let purpose: Purpose<'_> = ("read the worker pool", &id);
        let variables = d::worker_pool::Variables { id: id.to_owned() };
        let pool = self.query::<d::WorkerPool>(variables, purpose).await?.worker_pool;
        let pool = pool.ok_or_else(|| failed(ErrorKind::NotFound, purpose))?;
        let workers = pool.workers.into_iter().map(|worker| Worker {
            id: worker.id,
            busy: worker.busy,
            drained: worker.drained,
        });
        Ok(WorkerPool {
            id: pool.id,
            name: pool.name,
            pending_runs: count(pool.pending_runs),
            busy_workers: count(pool.busy_workers),
            workers: workers.collect(),
        })
    }

    /// `unauthorized` is also what the service says of a change to a stack that does not exist.
    pub(crate) async fn missing_stack(&self, stack: &StackId, error: Error) -> Error {
        if !error.is_denied() {
            return error;
        }
        match self.get_stack(stack).await {
            Err(missing) if missing.is_not_found() => missing,
            _ => error,
        }
    }
}

/// A stack that one may not see is one that is not found: the service itself says either.
pub(crate) fn missing_if_denied(error: Error) -> Error {
    if !error.is_denied() {
        return error;
    }
    Error::new(
        ErrorKind::NotFound,
        error.service(),
        error.attempted().to_owned(),
        error.subject(),
    )
    .because("the service says unauthorized")
    .advise("there is no such stack, or the caller may not see it")
    .caused_by(error)
}

pub(crate) fn no_stack(purpose: Purpose<'_>) -> Error {
    failed(ErrorKind::NotFound, purpose).advise("there is no such stack, or the caller may not see it")
}
