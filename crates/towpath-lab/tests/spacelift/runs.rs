//! Runs from the push to the applied resource.

use super::support::{Account, config};
use serde_json::{Value, json};
use std::time::Duration;
use towpath_lab::spacelift::{Delta, Planner, RunState, RunType, StackSeed};

const CREATED: &str = r#"
variable "size" {
  type    = string
  default = "small"
}

resource "terraform_data" "queue" {
  input = "orders-${var.size}"
}

resource "terraform_data" "topic" {
  input            = { name = "events", queue = terraform_data.queue.input }
  triggers_replace = [1]
}

output "queue" {
  value = terraform_data.queue.output
}
"#;

fn network() -> StackSeed {
    StackSeed::new("network", "acme/infra")
        .with_project_root("network")
        .with_worker_pool("shared-services")
}

fn shop() -> StackSeed {
    StackSeed::new("shop", "acme/infra")
        .with_project_root("shop")
        .with_worker_pool("apps")
}

fn delta(add: i64, change: i64, delete: i64, resources: i64) -> Delta {
    let mut delta = Delta::default();
    (delta.add, delta.change, delta.delete, delta.resources) = (add, change, delete, resources);
    delta
}

/// Create, change in place, replace, delete: what each plan says, and what is then applied.
async fn life(planner: Planner) -> Vec<(Delta, Vec<(String, &'static str)>, Value)> {
    let account = Account::start(config(planner, vec![network()])).await;
    let changed = CREATED.replace("small", "large");
    let replaced = changed.replace("[1]", "[2]");
    let deleted = "output \"queue\" {\n  value = null\n}\n";
    let mut seen = Vec::new();
    for text in [CREATED, &changed, &replaced, deleted] {
        account.push("main", &[("network/main.tf", text)]).await;
        let run = account.wait("network", RunState::Unconfirmed).await;
        account.confirm(&run).await;
        let run = account.wait("network", RunState::Finished).await;
        let plan = run.plan.clone().unwrap();
        let changes = plan
            .changes
            .iter()
            .map(|change| (change.address.clone(), change.action))
            .collect();
        let stack = account.spacelift.stack("network").unwrap();
        let inputs = stack
            .applied
            .resources
            .iter()
            .map(|one| (one.address.clone(), one.values["input"].clone()));
        let mut left: serde_json::Map<String, Value> = inputs.collect();
        left.insert(
            "queue".into(),
            stack
                .applied
                .outputs
                .get("queue")
                .map_or(Value::Null, |output| output.value.clone()),
        );
        seen.push((plan.delta, changes, Value::Object(left)));
    }
    seen
}

#[tokio::test]
async fn the_built_in_planner_follows_a_resource_through_its_life() {
    let seen = life(Planner::BuiltIn).await;
    let deltas: Vec<Delta> = seen.iter().map(|(delta, ..)| *delta).collect();
    assert_eq!(
        deltas,
        [
            delta(2, 0, 0, 2),
            delta(0, 2, 0, 2),
            delta(1, 0, 1, 2),
            delta(0, 0, 2, 0)
        ]
    );
    assert_eq!(seen[2].1, [("terraform_data.topic".to_owned(), "REPLACE")]);
    let applied = json!({"terraform_data.queue": "orders-large", "queue": "orders-large",
                         "terraform_data.topic": {"name": "events", "queue": "orders-large"}});
    assert_eq!(seen[1].2, applied);
}

#[tokio::test]
async fn a_tool_on_the_path_and_the_built_in_planner_agree() {
    // Without terraform or tofu both are the built-in planner, and this shows nothing.
    let (real, built_in) = (life(Planner::FromPath).await, life(Planner::BuiltIn).await);
    assert_eq!(real, built_in);
}

#[tokio::test]
async fn a_tracked_run_goes_through_the_documented_states_and_shows_them() {
    let mut config = config(Planner::BuiltIn, vec![network()]);
    config.log_page = 1;
    let account = Account::start(config).await;
    let sha = account.push("main", &[("network/main.tf", CREATED)]).await;
    let run = account.wait("network", RunState::Unconfirmed).await;
    assert_eq!(
        (run.commit.clone().unwrap().hash, run.triggered_by.clone()),
        (sha.clone(), None)
    );
    account.confirm(&run).await;
    let run = account.wait("network", RunState::Finished).await;
    use RunState::{
        Applying, Confirmed, Finished, Initializing, Planning, Preparing, PreparingApply, Queued, Ready,
        Unconfirmed,
    };
    let states = [
        Queued,
        Ready,
        Preparing,
        Initializing,
        Planning,
        Unconfirmed,
        Confirmed,
        PreparingApply,
        Applying,
        Finished,
    ];
    assert_eq!(run.states(), states);
    let pool = &account.spacelift.worker_pools()[0];
    assert!(pool.id == "shared-services" && run.workers.iter().all(|worker| *worker == pool.workers[0].id));

    let document = "query($r: ID!, $token: String) { stack(id: \"network\") { state outputs { id value } run(id: $r) {
        delta { addCount changeCount } title finished history { state stateVersion terminal hasLogs note }
        changesV3(input: {}) { resources { address metadata { type } } }
        logs(state: PLANNING, token: $token) { exists finished hasMore nextToken messages { message } } } } }";
    let stack = account.ask(document, json!({"r": run.id})).await["stack"].clone();
    let shown = &stack["run"];
    assert_eq!(
        stack["outputs"],
        json!([{"id": "queue", "value": "\"orders-small\""}])
    );
    assert_eq!(shown["title"], "Change the infrastructure");
    assert_eq!(
        shown["history"][0],
        json!({"state": "FINISHED", "stateVersion": 10, "terminal": true, "hasLogs": false, "note": null})
    );
    assert_eq!(shown["history"][4]["note"], "Autodeploy is off");
    assert_eq!(
        shown["changesV3"][0]["resources"][0],
        json!({"address": "terraform_data.queue", "metadata": {"type": "ADD"}})
    );
    let (mut log, mut token, mut pages) = (String::new(), Value::Null, 0);
    loop {
        let page =
            account.ask(document, json!({"r": run.id, "token": token})).await["stack"]["run"]["logs"].clone();
        pages += 1;
        if page["finished"] == true {
            break;
        }
        log.push_str(page["messages"][0]["message"].as_str().unwrap());
        token = page["nextToken"].clone();
    }
    assert_eq!(log, run.log(Planning));
    assert!(
        pages == log.lines().count() + 1 && log.ends_with("Plan: 2 to add, 0 to change, 0 to destroy.\n"),
        "{log}"
    );

    // Nothing changed: the run ends without asking, and the same push again makes no run.
    let before = account.spacelift.runs().len();
    let trigger =
        "mutation($sha: String) { runTrigger(stack: \"network\", commitSha: $sha) { id state triggeredBy } }";
    let made = account.ask(trigger, json!({"sha": sha})).await["runTrigger"].clone();
    assert!(made["triggeredBy"].as_str().unwrap().starts_with("api::"));
    let idle = account.wait("network", RunState::Finished).await;
    assert!(!idle.states().contains(&Unconfirmed) && !idle.plan.unwrap().has_changes);
    let again = json!({"ref": "refs/heads/main", "before": "0".repeat(40), "after": sha, "repository": {"full_name": "acme/infra"}});
    assert_eq!(account.deliver(&again, super::support::SECRET).await, 200);
    assert_eq!(account.spacelift.runs().len(), before + 1);
}

#[tokio::test]
async fn a_run_can_only_be_confirmed_while_it_waits() {
    let account = Account::start(config(Planner::BuiltIn, vec![network()])).await;
    account.push("main", &[("network/main.tf", CREATED)]).await;
    let run = account.wait("network", RunState::Unconfirmed).await;
    let discard = "mutation($r: ID!) { runDiscard(stack: \"network\", run: $r, note: \"no\") { state } }";
    let discarded = account.ask(discard, json!({"r": run.id})).await;
    assert_eq!(discarded["runDiscard"]["state"], "DISCARDED");
    let confirm = "mutation($r: ID!) { runConfirm(stack: \"network\", run: $r) { id } }";
    let refusal = account.refusal(confirm, json!({"r": run.id})).await;
    assert_eq!(refusal, "run in state DISCARDED cannot be confirmed");
    let all = "mutation { runDiscardAll(stack: \"network\") { discardedRuns { id } } }";
    assert_eq!(
        account.refusal(all, json!({})).await,
        "no runs found that can be discarded"
    );
    assert!(
        account
            .spacelift
            .stack("network")
            .unwrap()
            .applied
            .resources
            .is_empty()
    );
}

#[tokio::test]
async fn downstream_waits_for_upstream_and_gets_its_output() {
    let stacks = vec![
        network(),
        shop()
            .with_autodeploy()
            .with_reference("network", "queue", "TF_VAR_queue"),
    ];
    let account = Account::start(config(Planner::BuiltIn, stacks)).await;
    let shop = "variable \"queue\" {}\nresource \"terraform_data\" \"shop\" {\n  input = var.queue\n}\n";
    account
        .push("main", &[("network/main.tf", CREATED), ("shop/main.tf", shop)])
        .await;
    let upstream = account.wait("network", RunState::Unconfirmed).await;
    let waiting = account.wait("shop", RunState::Queued).await;
    assert_eq!(waiting.waits_for, std::slice::from_ref(&upstream.id));
    account.confirm(&upstream).await;
    let run = account.wait("shop", RunState::Finished).await;
    let pools = account.spacelift.worker_pools();
    assert!(pools[1].id == "apps" && pools[1].workers.iter().any(|worker| worker.id == run.workers[0]));
    let applied = account.spacelift.stack("shop").unwrap().applied;
    assert_eq!(applied.resources[0].values["input"], "orders-small");

    // Upstream alone is triggered: the cascade queues downstream, which is skipped, for no output it refers to changed.
    let batch = "mutation { runTriggerBatch(input: {stacks: [{stack: \"network\"}]}) { runs { runId run { stackId triggeredBy } } } }";
    let runs = account.ask(batch, json!({})).await["runTriggerBatch"]["runs"].clone();
    assert_eq!(
        runs[1]["run"],
        json!({"stackId": "shop", "triggeredBy": "network"})
    );
    let skipped = account.wait("shop", RunState::Skipped).await;
    let note = skipped.history.last().unwrap().note.clone().unwrap();
    assert!(note.contains("(network.queue) which have not changed"), "{note}");

    // A failed upstream skips it too.
    account
        .push(
            "main",
            &[
                ("network/main.tf", "resource \"aws_sqs_queue\" \"q\" {}\n"),
                ("shop/x.tf", "locals {}\n"),
            ],
        )
        .await;
    let failed = account.wait("network", RunState::Failed).await;
    assert_eq!(
        failed.history.last().unwrap().note.as_deref(),
        Some("main.tf:1: block \"resource aws_sqs_queue q\" is not understood")
    );
    account.wait("shop", RunState::Skipped).await;
}

#[tokio::test]
async fn other_branches_are_proposed_and_other_folders_ignored() {
    let account = Account::start(config(Planner::BuiltIn, vec![network(), shop()])).await;
    account.push("main", &[("README.md", "hello")]).await;
    assert!(account.spacelift.runs().is_empty());
    account.push("feature", &[("network/main.tf", CREATED)]).await;
    let run = account.wait("network", RunState::Finished).await;
    assert_eq!(
        (run.kind, run.plan.unwrap().delta, account.spacelift.runs().len()),
        (RunType::Proposed, delta(2, 0, 0, 2), 1)
    );
    assert!(
        account
            .spacelift
            .stack("network")
            .unwrap()
            .applied
            .resources
            .is_empty()
    );
    let promote = "mutation($r: ID!) { runPromote(stack: \"network\", run: $r) { type } }";
    assert_eq!(
        account.ask(promote, json!({"r": run.id})).await["runPromote"]["type"],
        "TRACKED"
    );
    account.wait("network", RunState::Unconfirmed).await;
}

#[tokio::test]
async fn an_approval_is_needed_first_and_a_replan_makes_another_plan() {
    let mut seed = network();
    seed.approval = true;
    let account = Account::start(config(Planner::BuiltIn, vec![seed])).await;
    account.push("main", &[("network/main.tf", CREATED)]).await;
    let run = account.wait("network", RunState::Unconfirmed).await;
    assert!(run.needs_approval());
    let confirm = "mutation($r: ID!) { runConfirm(stack: \"network\", run: $r) { id } }";
    assert!(
        account
            .refusal(confirm, json!({"r": run.id}))
            .await
            .contains("needs approval")
    );
    let review =
        "mutation($r: ID!) { runReview(stack: \"network\", run: $r, decision: APPROVE) { decision author } }";
    assert_eq!(
        account.ask(review, json!({"r": run.id})).await["runReview"]["decision"],
        "APPROVE"
    );

    account
        .spacelift
        .set_environment("network", "TF_VAR_size", "huge");
    account
        .spacelift
        .replan("network", &run.id, &["terraform_data.queue"])
        .unwrap();
    let replanned = account.wait("network", RunState::Unconfirmed).await;
    assert_eq!(replanned.plan.as_ref().unwrap().delta, delta(1, 0, 0, 1));
    assert_eq!(
        replanned
            .history
            .iter()
            .filter(|step| step.state == RunState::Unconfirmed)
            .count(),
        2
    );
    account.confirm(&replanned).await;
    account.wait("network", RunState::Finished).await;
    let applied = account.spacelift.stack("network").unwrap().applied;
    assert_eq!(applied.resources.len(), 1);
    assert_eq!(applied.resources[0].values["input"], "orders-huge");
}

#[tokio::test]
async fn without_a_free_worker_a_run_stays_ready_and_can_be_canceled() {
    let account = Account::start(config(Planner::BuiltIn, vec![network(), shop()])).await;
    let worker = account.spacelift.worker_pools()[0].workers[0].id.clone();
    let drain = "mutation($w: ID!, $d: Boolean!) { workerDrainSet(workerPool: \"shared-services\", id: $w, drain: $d) { drained status } }";
    assert_eq!(
        account.ask(drain, json!({"w": worker, "d": true})).await["workerDrainSet"]["status"],
        "DRAINED"
    );
    account.spacelift.pause_workers("apps", true);
    account
        .push("main", &[("network/main.tf", CREATED), ("shop/main.tf", CREATED)])
        .await;
    account.wait("network", RunState::Ready).await;
    let paused = account.wait("shop", RunState::Ready).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let pools = account
        .ask(
            "{ workerPool(id: \"shared-services\") { pendingRuns busyWorkers } }",
            json!({}),
        )
        .await;
    assert_eq!(pools["workerPool"], json!({"pendingRuns": 1, "busyWorkers": 0}));
    let cancel = "mutation($r: ID!) { runCancel(stack: \"shop\", run: $r) { state } }";
    assert_eq!(
        account.ask(cancel, json!({"r": paused.id})).await["runCancel"]["state"],
        "CANCELED"
    );
    account.ask(drain, json!({"w": worker, "d": false})).await;
    account.wait("network", RunState::Unconfirmed).await;
}

#[tokio::test]
async fn an_external_dependency_holds_a_run_back() {
    let mut seed = network();
    seed.external_dependencies = vec!["{sha}-image".into()];
    let account = Account::start(config(Planner::BuiltIn, vec![seed])).await;
    let sha = account.push("main", &[("network/main.tf", CREATED)]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    account.wait("network", RunState::Queued).await;
    let done = "mutation($d: ID!) { runExternalDependencyMarkAsCompleted(dependency: $d, status: FINISHED) { phantom } }";
    assert_eq!(
        account.ask(done, json!({"d": format!("{sha}-image")})).await["runExternalDependencyMarkAsCompleted"]
            ["phantom"],
        false
    );
    account.wait("network", RunState::Unconfirmed).await;
}

#[tokio::test]
async fn a_destroy_run_leaves_nothing() {
    let account = Account::start(config(Planner::BuiltIn, vec![network().with_autodeploy()])).await;
    account.push("main", &[("network/main.tf", CREATED)]).await;
    account.wait("network", RunState::Finished).await;
    account
        .ask(
            "mutation { runTrigger(stack: \"network\", runType: DESTROY) { id } }",
            json!({}),
        )
        .await;
    let run = account.wait("network", RunState::Finished).await;
    assert!(run.states().contains(&RunState::Destroying));
    assert!(
        account
            .spacelift
            .stack("network")
            .unwrap()
            .applied
            .resources
            .is_empty()
    );
}

#[tokio::test]
async fn a_run_that_is_under_way_can_be_stopped() {
    let mut slow = config(Planner::BuiltIn, vec![network()]);
    slow.delays.phase = Duration::from_secs(600);
    let account = Account::start(slow).await;
    account.push("main", &[("network/main.tf", CREATED)]).await;
    let run = account.wait("network", RunState::Preparing).await;
    let stop = "mutation($r: ID!) { runStop(stack: \"network\", run: $r) { state } }";
    assert_eq!(
        account.ask(stop, json!({"r": run.id})).await["runStop"]["state"],
        "PREPARING"
    );
    account.wait("network", RunState::Stopped).await;
    let blocker = "{ stack(id: \"network\") { blocker { id } } }";
    while !account.ask(blocker, json!({})).await["stack"]["blocker"].is_null() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn an_input_that_upstream_never_gave_fails_the_run() {
    let stacks = vec![
        network(),
        shop().with_reference("network", "queue", "TF_VAR_queue"),
    ];
    let account = Account::start(config(Planner::BuiltIn, stacks)).await;
    account.push("main", &[("shop/main.tf", CREATED)]).await;
    let run = account.wait("shop", RunState::Failed).await;
    let expected = "job assignment failed: the following inputs are missing: network.queue => TF_VAR_queue";
    assert_eq!(run.history.last().unwrap().note.as_deref(), Some(expected));
    assert!(run.log(RunState::Preparing).contains(expected));
}

#[tokio::test]
async fn a_project_root_cannot_leave_the_checkout() {
    let mut seed = network();
    seed.project_root = "network/../..".into();
    let account = Account::start(config(Planner::BuiltIn, vec![seed])).await;
    account.commit("main", &[("network/main.tf", CREATED)]);
    account
        .ask("mutation { runTrigger(stack: \"network\") { id } }", json!({}))
        .await;
    let run = account.wait("network", RunState::Failed).await;
    let note = run.history.last().unwrap().note.clone().unwrap();
    assert!(note.contains("leaves the repository"), "{note}");
}
