//! The operations that are sent, each from its own file under `graphql/`, checked against `graphql/schema.graphql` when
//! this crate is built.
//!
//! One operation to a file: the whole file goes out with every call, and a server refuses a document that names a field
//! it does not know. Queries ask for `viewer` too, so that an empty answer to an expired token is known for what it is.

#![allow(
    unreachable_pub,
    missing_docs,
    non_camel_case_types,
    clippy::all,
    reason = "graphql_client writes these modules"
)]

use crate::model::{ForceApply as ForceApplyMode, ReviewDecision as RunReviewDecision, RunType};
use crate::wire::WireState as RunState;
use graphql_client::GraphQLQuery;

macro_rules! documents {
    ($($name:ident $file:tt)*) => {$(
        #[derive(Debug, GraphQLQuery)]
        #[graphql(
            schema_path = "graphql/schema.graphql",
            query_path = $file,
            response_derives = "Debug",
            extern_enums("RunState", "RunType", "ForceApplyMode", "RunReviewDecision"),
            fragments_other_variant = "true",
            skip_serializing_none
        )]
        pub struct $name;
    )*};
}

documents! {
    ApiKeyUser "graphql/account/api_key_user.graphql"
    ViewerProbe "graphql/account/viewer.graphql"
    InstanceVersion "graphql/account/instance_version.graphql"
    GetStack "graphql/stacks/get_stack.graphql"
    SearchStacks "graphql/stacks/search_stacks.graphql"
    StackOutputs "graphql/stacks/stack_outputs.graphql"
    RunOwner "graphql/stacks/run_owner.graphql"
    StackLock "graphql/stacks/stack_lock.graphql"
    StackUnlock "graphql/stacks/stack_unlock.graphql"
    ListRuns "graphql/runs/list_runs.graphql"
    ListProposedRuns "graphql/runs/list_proposed_runs.graphql"
    GetRun "graphql/runs/get_run.graphql"
    RunPlan "graphql/runs/run_plan.graphql"
    RunHistory "graphql/runs/run_history.graphql"
    RunLogs "graphql/runs/run_logs.graphql"
    RunTrigger "graphql/runs/run_trigger.graphql"
    RunTriggerForce "graphql/runs/run_trigger_force.graphql"
    RunConfirm "graphql/runs/run_confirm.graphql"
    RunDiscard "graphql/runs/run_discard.graphql"
    RunDiscardAll "graphql/runs/run_discard_all.graphql"
    RunCancel "graphql/runs/run_cancel.graphql"
    RunStop "graphql/runs/run_stop.graphql"
    RunRetry "graphql/runs/run_retry.graphql"
    RunPromote "graphql/runs/run_promote.graphql"
    RunReview "graphql/runs/run_review.graphql"
    WorkerPool "graphql/workers/worker_pool.graphql"
}
