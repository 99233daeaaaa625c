//! From the generated types of `documents` to the public ones of `model`, and the words of `RunState`.
//!
//! graphql_client makes the types of a fragment anew for each document, so the conversions are macros over its modules.

use crate::documents as d;
use crate::model;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use towpath_core::ParseError;
use towpath_elements::infrastructure::RunState;

/// [`RunState`] in the words of the wire.
#[derive(Clone, Debug)]
pub(crate) struct WireState(pub(crate) RunState);

const STATES: [(&str, RunState); 20] = [
    ("QUEUED", RunState::Queued),
    ("READY", RunState::Ready),
    ("PREPARING", RunState::Preparing),
    ("INITIALIZING", RunState::Initializing),
    ("PLANNING", RunState::Planning),
    ("UNCONFIRMED", RunState::Unconfirmed),
    ("PENDING_REVIEW", RunState::PendingReview),
    ("CONFIRMED", RunState::Confirmed),
    ("PREPARING_APPLY", RunState::PreparingApply),
    ("APPLYING", RunState::Applying),
    ("REPLAN_REQUESTED", RunState::ReplanRequested),
    ("PREPARING_REPLAN", RunState::PreparingReplan),
    ("PERFORMING", RunState::Performing),
    ("DESTROYING", RunState::Destroying),
    ("FINISHED", RunState::Finished),
    ("FAILED", RunState::Failed),
    ("CANCELED", RunState::Canceled),
    ("DISCARDED", RunState::Discarded),
    ("STOPPED", RunState::Stopped),
    ("SKIPPED", RunState::Skipped),
];

impl Serialize for WireState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let known = STATES.iter().find(|(_, state)| *state == self.0);
        match (known, &self.0) {
            (Some((word, _)), _) => serializer.serialize_str(word),
            (None, other) => serializer.serialize_str(&other.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for WireState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let known = STATES.iter().find(|(known, _)| *known == word);
        Ok(Self(match known {
            Some((_, state)) => state.clone(),
            None => {
                tracing::debug!(state = word, "a run state that this version does not know");
                RunState::Other(word)
            }
        }))
    }
}

/// Unix seconds.
pub(crate) fn time(seconds: Option<i64>) -> Option<Timestamp> {
    seconds.and_then(|seconds| Timestamp::from_second(seconds).ok())
}

pub(crate) fn count(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

macro_rules! runs {
    ($($module:ident)*) => {$(
        impl TryFrom<d::$module::RunSummary> for model::RunSummary {
            type Error = ParseError;

            fn try_from(run: d::$module::RunSummary) -> Result<Self, ParseError> {
                Ok(Self {
                    id: run.id.parse()?,
                    kind: run.type_,
                    state: run.state.0,
                    title: run.title,
                    branch: run.branch,
                    created_at: time(run.created_at),
                    triggered_by: run.triggered_by,
                    needs_approval: run.needs_approval.unwrap_or(false),
                    drift_detection: run.drift_detection.unwrap_or(false),
                    commit: run.commit.map(|commit| model::Commit {
                        hash: commit.hash,
                        message: commit.message,
                        author: commit.author_name,
                        url: commit.url,
                    }),
                    delta: run.delta.map(|delta| model::Delta {
                        add: count(delta.add_count),
                        change: count(delta.change_count),
                        delete: count(delta.delete_count),
                        resources: count(delta.resources),
                    }),
                })
            }
        }
    )*};
}

runs! { list_runs list_proposed_runs get_run run_plan run_trigger run_trigger_force run_retry run_promote }

macro_rules! transitions {
    ($($module:ident)*) => {$(
        impl From<d::$module::Transition> for model::Transition {
            fn from(step: d::$module::Transition) -> Self {
                Self {
                    state: step.state.0,
                    version: step.state_version,
                    terminal: step.terminal,
                    has_logs: step.has_logs,
                    at: time(Some(step.timestamp)),
                    note: step.note,
                    by: step.username,
                }
            }
        }
    )*};
}

transitions! { get_run run_plan run_history }

/// Oldest first, whatever the order of the server.
pub(crate) fn history<T: Into<model::Transition>>(steps: Vec<T>) -> Vec<model::Transition> {
    let mut steps: Vec<model::Transition> = steps.into_iter().map(Into::into).collect();
    steps.sort_by_key(|step| step.version);
    steps
}

macro_rules! stacks {
    ($($module:ident)*) => {$(
        impl TryFrom<d::$module::StackSummary> for model::StackSummary {
            type Error = ParseError;

            fn try_from(stack: d::$module::StackSummary) -> Result<Self, ParseError> {
                Ok(Self {
                    id: stack.id.parse()?,
                    name: stack.name,
                    state: stack.state.0,
                    branch: stack.branch,
                    repository: stack.repository,
                    project_root: stack.project_root,
                    space: stack.space,
                    labels: stack.labels.unwrap_or_default(),
                    autodeploy: stack.autodeploy.unwrap_or(false),
                    administrative: stack.administrative.unwrap_or(false),
                    is_disabled: stack.is_disabled.unwrap_or(false),
                })
            }
        }
    )*};
}

stacks! { get_stack search_stacks }

impl TryFrom<d::get_stack::GetStackStack> for model::StackDetails {
    type Error = ParseError;

    fn try_from(stack: d::get_stack::GetStackStack) -> Result<Self, ParseError> {
        use d::get_stack::GetStackStackVendorConfig as Vendor;
        let mut depends_on = Vec::new();
        for edge in stack.depends_on.unwrap_or_default() {
            let Some(id) = edge.depends_on_stack_id else {
                continue;
            };
            depends_on.push(dependency(
                edge.id,
                &id,
                edge.reference_count,
                edge.trigger_always,
            )?);
        }
        let mut dependents = Vec::new();
        for edge in stack.is_depended_on_by.unwrap_or_default() {
            let Some(id) = edge.stack_id else { continue };
            dependents.push(dependency(
                edge.id,
                &id,
                edge.reference_count,
                edge.trigger_always,
            )?);
        }
        Ok(Self {
            summary: stack.stack_summary.try_into()?,
            locked_by: stack.locked_by,
            locked_at: time(stack.locked_at),
            lock_note: stack.lock_note,
            blocker: stack.blocker.map(|run| run.id.parse()).transpose()?,
            tracked_commit: stack.tracked_commit.map(|commit| model::Commit {
                hash: commit.hash,
                message: commit.message,
                author: commit.author_name,
                url: commit.url,
            }),
            worker_pool: stack.worker_pool.map(|pool| model::PoolName {
                id: pool.id,
                name: pool.name,
            }),
            depends_on,
            dependents,
            vendor: stack.vendor_config.map(|vendor| match vendor {
                Vendor::StackConfigVendorTerraform(one) => model::Vendor::Terraform {
                    version: one.version,
                    workspace: one.workspace,
                },
                Vendor::StackConfigVendorOpenTofu(one) => model::Vendor::OpenTofu {
                    version: one.open_tofu_version,
                    workspace: one.open_tofu_workspace,
                },
                _ => model::Vendor::Other,
            }),
        })
    }
}

fn dependency(
    id: String,
    stack: &str,
    references: Option<i64>,
    always: Option<bool>,
) -> Result<model::Dependency, ParseError> {
    Ok(model::Dependency {
        id,
        stack: stack.parse()?,
        references: count(references),
        trigger_always: always.unwrap_or(false),
    })
}
