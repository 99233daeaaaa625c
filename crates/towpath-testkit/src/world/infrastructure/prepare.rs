//! Preparing stacks, and looking into them.

use super::super::World;
use super::super::repositories::main_branch;
use super::StoredStack;
use std::collections::BTreeMap;
use towpath_core::{BranchName, Digest, RepoSlug, RunId, StackId};
use towpath_elements::Result;
use towpath_elements::infrastructure::RunState;

/// A stack to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackSetup {
    /// Its name, for people.
    pub name: String,
    /// The repository its code is in.
    pub repository: RepoSlug,
    /// The branch it follows.
    pub branch: BranchName,
    /// The folder of its code; empty for the whole repository.
    pub project_root: String,
    /// Its private worker pool.
    pub worker_pool: Option<String>,
    /// The stacks that must be applied before it.
    pub depends_on: Vec<StackId>,
    /// Whether it applies without asking.
    pub autodeploy: bool,
}

impl StackSetup {
    /// Follows a folder on `main`, and asks before it applies.
    pub fn new(repository: &RepoSlug, project_root: &str) -> Self {
        Self {
            name: project_root.to_owned(),
            repository: repository.clone(),
            branch: main_branch(),
            project_root: project_root.to_owned(),
            worker_pool: None,
            depends_on: Vec::new(),
            autodeploy: false,
        }
    }

    /// Is applied only after this stack.
    #[must_use]
    pub fn after(mut self, stack: &StackId) -> Self {
        self.depends_on.push(stack.clone());
        self
    }

    pub(super) fn owns(&self, path: &str) -> bool {
        let root = self.project_root.trim_matches('/');
        root.is_empty()
            || path
                .strip_prefix(root)
                .is_some_and(|below| below.starts_with('/'))
    }
}

impl World {
    /// Makes a stack with nothing applied.
    pub fn add_stack(&self, stack: &StackId, setup: StackSetup) {
        let stored = StoredStack {
            setup,
            applied: BTreeMap::new(),
            outputs: BTreeMap::new(),
            locked: None,
            next_apply_fails: None,
        };
        self.with(|state, _| state.infrastructure.stacks.insert(stack.clone(), stored));
    }

    /// Makes the next apply of a stack fail with this message.
    ///
    /// # Panics
    /// Where there is no such stack.
    pub fn fail_next_apply(&self, stack: &StackId, message: &str) {
        self.change_stack(stack, |stack| stack.next_apply_fails = Some(message.to_owned()));
    }

    /// Locks a stack, so that its runs stay queued, or unlocks it.
    ///
    /// # Panics
    /// Where there is no such stack.
    pub fn lock_stack(&self, stack: &StackId, reason: Option<&str>) {
        self.change_stack(stack, |stack| stack.locked = reason.map(ToOwned::to_owned));
    }

    /// Gives a stack an output that is not sensitive, as JSON text.
    ///
    /// # Panics
    /// Where there is no such stack.
    pub fn set_output(&self, stack: &StackId, name: &str, json: &str) {
        self.change_stack(stack, |stack| {
            stack.outputs.insert(name.to_owned(), json.to_owned())
        });
    }

    /// Adds a resource that no code declares to what is applied: the next plan will delete it.
    ///
    /// # Panics
    /// Where there is no such stack.
    pub fn drift(&self, stack: &StackId, address: &str) {
        self.change_stack(stack, |stack| {
            stack
                .applied
                .insert(address.to_owned(), Digest::sha256_of("drift"))
        });
    }

    /// Makes the plan of a run that waits for confirmation anew.
    ///
    /// # Panics
    /// Where there is no such run, or it does not wait for confirmation.
    #[expect(
        clippy::expect_used,
        reason = "a test that is prepared wrong shall fail where it is"
    )]
    pub fn replan(&self, stack: &StackId, run: &RunId) {
        let waited = self
            .with(|state, moment| -> Result<bool> {
                let run = state.infrastructure.run_mut(stack, run)?;
                let waits = run.state == RunState::Unconfirmed;
                if waits {
                    run.replan(moment);
                }
                Ok(waits)
            })
            .expect("a run of this world");
        assert!(waited, "the run does not wait for confirmation");
    }

    /// The addresses of the resources that are applied.
    ///
    /// # Panics
    /// Where there is no such stack.
    pub fn applied(&self, stack: &StackId) -> Vec<String> {
        self.change_stack(stack, |stack| stack.applied.keys().cloned().collect())
    }

    /// How each run of a stack stands, oldest first.
    pub fn run_states(&self, stack: &StackId) -> Vec<(RunId, RunState)> {
        self.with(|state, _| {
            let runs = state.infrastructure.runs.iter();
            runs.filter(|run| run.stack == *stack)
                .map(|run| (run.id.clone(), run.state.clone()))
                .collect()
        })
    }

    #[expect(
        clippy::expect_used,
        reason = "a test that is prepared wrong shall fail where it is"
    )]
    fn change_stack<T>(&self, stack: &StackId, change: impl FnOnce(&mut StoredStack) -> T) -> T {
        self.with(|state, _| state.infrastructure.stack_mut(stack).map(change))
            .expect("a stack of this world")
    }
}
