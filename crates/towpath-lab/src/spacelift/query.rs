//! Queries, and the objects they answer with.
//!
//! With a missing or expired token Spacelift does not answer alike everywhere: `viewer` is null, lists are empty, single
//! objects are an `unauthorized` error.

use super::graphql::{Context, Resolved, arguments};
use super::run::{Run, RunState, RunType};
use super::world::{ConfigElement, Dependency, Pool, Reference, Stack, Worker, World};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The most edges that one page of a search has.
const SEARCH_PAGE: usize = 50;

pub(super) fn root(context: Context<'_>, field: &str, args: &Value) -> Resolved {
    let id = args["id"].as_str().unwrap_or_default();
    let user = context.user();
    match field {
        "debugInfo" => return Ok(Some(json!({"selfHostedVersion": ""}))),
        "viewer" => {
            let viewer = json!({"id": user, "name": user, "login": user, "type": "API_KEY"});
            return Ok(Some(if context.caller.known { viewer } else { Value::Null }));
        }
        "stacks" | "workerPools" if !context.caller.known => return Ok(Some(json!([]))),
        "searchStacks" | "searchWorkerPools" if !context.caller.known => {
            return Ok(Some(connection(Vec::new(), None, false)));
        }
        "contexts" | "policies" | "spaces" if !context.caller.known => return Ok(Some(json!([]))),
        _ if !context.caller.known => return Err("unauthorized".into()),
        _ => {}
    }
    context.shared.read(|world| {
        Ok(Some(match field {
            "stack" => world.stack(id).map_or(Value::Null, |found| stack(world, found)),
            "stacks" => world.stacks.iter().map(|found| stack(world, found)).collect(),
            "searchStacks" => search_stacks(world, &args["input"])?,
            "runStack" => {
                let run = args["runId"].as_str().and_then(|id| world.run(id));
                let found = run.and_then(|run| world.stack(&run.stack));
                stack(world, found.ok_or("not found")?)
            }
            "workerPool" => world
                .pool(Some(id))
                .map_or(Value::Null, |found| pool(world, found)),
            "workerPools" => world.pools.iter().map(|found| pool(world, found)).collect(),
            "publicWorkerPool" => {
                let waiting = world.schedulable(None).len();
                let busy = world
                    .public
                    .workers
                    .iter()
                    .filter(|worker| worker.run.is_some())
                    .count();
                json!({"parallelism": world.public.workers.len(), "busyWorkers": busy, "pendingRuns": waiting,
                       "schedulableRunsCount": waiting})
            }
            _ => return Ok(None),
        }))
    })
}

/// Fields that take arguments.
pub(super) fn field(
    context: Context<'_>,
    kind: &str,
    object: &Map<String, Value>,
    name: &str,
    args: &Value,
) -> Resolved {
    let own = object.get("id").and_then(Value::as_str).unwrap_or_default();
    let wanted = args["id"].as_str().unwrap_or_default();
    let page = |world: &World, kinds: &[RunType]| {
        let newest_first = world
            .runs
            .iter()
            .rev()
            .filter(|run| run.stack == own && kinds.contains(&run.kind));
        let before = args["before"].as_str();
        let rest = newest_first.skip_while(|run| before.is_some_and(|before| run.id != before));
        let rest = rest
            .skip(usize::from(before.is_some()))
            .take(context.shared.config.run_page);
        rest.map(run).collect::<Value>()
    };
    context.shared.read(|world| {
        let found = world.run(wanted).filter(|run| run.stack == own);
        Ok(Some(match (kind, name) {
            ("Stack", "runs") => page(world, &[RunType::Tracked, RunType::Destroy]),
            ("Stack", "proposedRuns") => page(world, &[RunType::Proposed]),
            ("Stack", "tasks") => page(world, &[RunType::Task]),
            ("Stack", "run") => found.map_or(Value::Null, run),
            ("Stack", "runResourceState") => found.map_or(Value::Null, |run| {
                json!({"id": run.id, "state": run.state(), "finished": run.state().is_terminal()})
            }),
            ("Stack", "configElement") => {
                let stack = world.stack(own);
                let element = stack.and_then(|stack| stack.config.iter().find(|element| element.id == wanted));
                stack.zip(element).map_or(Value::Null, |(stack, element)| config_element(stack, element))
            }
            ("Stack", "dependency") => {
                let edges = world.dependencies.iter().filter(|edge| edge.stack == own && edge.id == wanted);
                edges.map(|edge| dependency(world, edge)).next().unwrap_or_default()
            }
            ("StackDependency", "reference") => {
                let edge = world.dependencies.iter().find(|edge| edge.id == own);
                let mut references = edge.into_iter().flat_map(|edge| &edge.references);
                let matches = |one: &&Reference| args["id"] == one.id.as_str() || args["inputName"] == one.input.as_str();
                references.find(matches).map_or(Value::Null, reference)
            }
            ("Run", "logs") => logs(world.run(own), args, context.shared.config.log_page)?,
            ("Run", "changesV3") => {
                let changes = world.run(own).and_then(|run| run.plan.as_ref()).into_iter().flat_map(|plan| &plan.changes);
                let resources: Value = changes
                    .map(|change| json!({"address": change.address, "previousAddress": null, "metadata": {"type": change.action}}))
                    .collect();
                json!([{ "resources": resources }])
            }
            ("WorkerPool", "searchSchedulableRuns") => schedulable(world, Some(own)),
            ("PublicWorkerPool", "searchSchedulableRuns") => schedulable(world, None),
            _ => return Ok(None),
        }))
    })
}

impl Context<'_> {
    /// The name that Spacelift gives a request of the API key.
    pub(super) fn user(&self) -> String {
        format!("api::{}", self.shared.config.api_key_id)
    }
}

pub(super) fn stack(world: &World, stack: &Stack) -> Value {
    let latest = world
        .runs
        .iter()
        .rev()
        .find(|run| run.stack == stack.id && run.kind.is_blocking());
    let state = latest.map_or(RunState::None, Run::state);
    let blocker = stack.blocker.as_deref().and_then(|id| world.run(id));
    let edges = |keep: &dyn Fn(&Dependency) -> bool| -> Value {
        let kept = world.dependencies.iter().filter(|edge| keep(edge));
        kept.map(|edge| dependency(world, edge)).collect()
    };
    let outputs: Value = stack
        .applied
        .outputs
        .iter()
        .map(|(name, output)| {
            let value = if output.sensitive {
                Value::Null
            } else {
                output.value.to_string().into()
            };
            json!({"id": name, "value": value, "sensitive": output.sensitive, "description": null})
        })
        .collect();
    let applied = world
        .runs
        .iter()
        .rev()
        .filter(|run| run.stack == stack.id)
        .find_map(|run| {
            let applied = run
                .history
                .iter()
                .any(|step| matches!(step.state, RunState::Applying | RunState::Destroying));
            run.history
                .last()
                .filter(|last| applied && last.state == RunState::Finished)
                .map(|last| last.at)
        });
    let mut settings = json!({
        "id": stack.id, "name": stack.name, "description": stack.description, "labels": stack.labels, "space": "root",
        "repository": stack.repository.split_once('/').map(|(_, name)| name),
        "namespace": stack.repository.split_once('/').map(|(owner, _)| owner),
        "provider": "GITHUB_ENTERPRISE", "branch": stack.branch, "projectRoot": stack.project_root,
        "additionalProjectGlobs": [], "vcsDetached": false,
        "administrative": stack.administrative, "autodeploy": stack.autodeploy, "autoretry": false,
        "githubActionDeploy": stack.promotion, "isDisabled": stack.disabled, "managesStateFile": true,
        "enableSensitiveOutputUpload": stack.sensitive_outputs,
        "vendorConfig": {"__typename": "StackConfigVendorTerraform", "version": null, "workspace": "default",
                         "workflowTool": "TERRAFORM_FOSS", "useSmartSanitization": false,
                         "externalStateAccessEnabled": false},
    });
    let standing = json!({
        "workerPool": stack.worker_pool.as_deref().and_then(|id| world.pool(Some(id))).map(|found| pool(world, found)),
        "state": state, "stateIsTerminal": state.is_terminal(),
        "stateSetAt": latest.and_then(|run| run.history.last()).map(|last| last.at),
        "stateSetBy": latest.and_then(|run| run.history.last()).and_then(|last| last.by.clone()),
        "lastApplyAt": applied, "blocked": blocker.is_some(), "blocker": blocker.map(run),
        "needsApproval": blocker.is_some_and(Run::needs_approval), "entityCount": stack.applied.resources.len(),
        "canWrite": true, "starred": false, "createdAt": stack.created_at, "deleted": false, "deleting": false,
        "lockedAt": stack.lock.as_ref().map(|lock| lock.1), "lockedBy": stack.lock.as_ref().map(|lock| &lock.0),
        "lockNote": stack.lock.as_ref().and_then(|lock| lock.2.as_ref()),
        "trackedCommit": stack.tracked_commit,
        "config": stack.config.iter().map(|element| config_element(stack, element)).collect::<Value>(),
        "outputs": outputs, "attachedContexts": [], "attachedPolicies": [],
        "dependsOn": edges(&|edge| edge.stack == stack.id), "isDependedOnBy": edges(&|edge| edge.depends_on == stack.id),
        "entities": stack.applied.resources.iter().map(|resource| {
            let name = resource.address.rsplit('.').next();
            json!({"id": resource.address, "address": resource.address, "type": resource.kind, "name": name})
        }).collect::<Value>(),
        "integrations": {"webhooks": stack.webhooks.iter().map(|webhook| {
            json!({"id": webhook.id, "deleted": false, "enabled": webhook.enabled, "endpoint": webhook.endpoint})
        }).collect::<Value>()},
    });
    if let (Some(settings), Value::Object(standing)) = (settings.as_object_mut(), standing) {
        settings.extend(standing);
    }
    settings
}

pub(super) fn run(run: &Run) -> Value {
    let delta = run.plan.as_ref().map(|plan| {
        let delta = plan.delta;
        json!({"addCount": delta.add, "changeCount": delta.change, "deleteCount": delta.delete,
               "resources": delta.resources})
    });
    let history = run.history.iter().rev().map(|step| {
        json!({"state": step.state, "stateVersion": step.version, "terminal": step.state.is_terminal(),
               "hasLogs": step.state.has_logs(), "timestamp": step.at, "note": step.note, "username": step.by})
    });
    let comments = run
        .comments
        .iter()
        .map(|(by, at, body)| json!({"username": by, "createdAt": at, "body": body}));
    let title = run.commit.as_ref().and_then(|commit| commit.message.clone());
    json!({
        "id": run.id, "type": run.kind, "state": run.state(), "title": title, "branch": run.branch, "command": null,
        "commit": run.commit, "createdAt": run.created_at, "updatedAt": run.history.last().map(|last| last.at),
        "triggeredBy": run.triggered_by, "stackId": run.stack, "finished": run.state().is_terminal(),
        "expired": false, "needsApproval": run.needs_approval(),
        "canRetry": run.kind == RunType::Proposed && run.state().is_terminal(), "driftDetection": false,
        "delta": delta, "history": history.collect::<Value>(), "comments": comments.collect::<Value>(),
    })
}

/// One page of the logs of a state. The token is the number of lines read so far. An empty page has no token, and only an
/// empty page after the state has been left says `finished`.
fn logs(run: Option<&Run>, args: &Value, page: usize) -> Result<Value, String> {
    let state: RunState = arguments(&args["state"])?;
    let version = args["stateVersion"].as_i64();
    let mut steps = run.into_iter().flat_map(|run| run.history.iter());
    let step =
        steps.rfind(|step| step.state == state && version.is_none_or(|version| step.version == version));
    let Some((run, step)) = run.zip(step).filter(|_| state.has_logs()) else {
        return Ok(
            json!({"exists": false, "finished": false, "hasMore": false, "expired": false, "nextToken": null,
                         "messages": []}),
        );
    };
    let from: usize = match args["token"].as_str() {
        None => 0,
        Some(token) => token.parse().map_err(|_| "invalid token")?,
    };
    let lines: Vec<_> = step.log.iter().skip(from).take(page).collect();
    let next = from.saturating_add(lines.len());
    let left = run
        .history
        .last()
        .is_some_and(|last| last.version != step.version);
    let messages = lines
        .iter()
        .map(|(at, line)| json!({"timestamp": at, "message": line}));
    Ok(json!({
        "exists": true, "finished": left && lines.is_empty(), "hasMore": next < step.log.len(), "expired": false,
        "nextToken": (!lines.is_empty()).then(|| next.to_string()), "messages": messages.collect::<Value>(),
    }))
}

pub(super) fn dependency(world: &World, edge: &Dependency) -> Value {
    let detail = |id: &str| {
        world
            .stack(id)
            .map(|stack| json!({"id": stack.id, "name": stack.name}))
    };
    json!({
        "id": edge.id, "stackId": edge.stack, "dependsOnStackId": edge.depends_on, "stack": detail(&edge.stack),
        "dependsOnStack": detail(&edge.depends_on), "referenceCount": edge.references.len(),
        "triggerAlways": edge.trigger_always, "references": edge.references.iter().map(reference).collect::<Value>(),
    })
}

pub(super) fn reference(reference: &Reference) -> Value {
    json!({"id": reference.id, "outputName": reference.output, "inputName": reference.input,
           "type": "ENVIRONMENT_VARIABLE", "triggerAlways": reference.trigger_always})
}

pub(super) fn config_element(stack: &Stack, element: &ConfigElement) -> Value {
    let value = (!element.write_only).then(|| stack.environment.get(&element.id));
    json!({"id": element.id, "value": value, "writeOnly": element.write_only, "description": element.description,
           "type": "ENVIRONMENT_VARIABLE", "createdAt": element.created_at, "runtime": false})
}

pub(super) fn pool(world: &World, pool: &Pool) -> Value {
    let busy = pool.workers.iter().filter(|worker| worker.run.is_some()).count();
    json!({
        "id": pool.id, "name": pool.name, "description": pool.description, "labels": pool.labels, "space": "root",
        "createdAt": pool.created_at, "deleted": false, "workersCount": pool.workers.len(), "busyWorkers": busy,
        "pendingRuns": world.schedulable(Some(&pool.id)).len(),
        "workers": pool.workers.iter().map(worker).collect::<Value>(),
    })
}

pub(super) fn worker(worker: &Worker) -> Value {
    let busy = worker.run.is_some();
    let status = if worker.drained {
        "DRAINED"
    } else if busy {
        "BUSY"
    } else {
        "IDLE"
    };
    json!({"id": worker.id, "busy": busy, "drained": worker.drained, "status": status, "metadata": "{}",
           "createdAt": worker.created_at})
}

fn schedulable(world: &World, pool: Option<&str>) -> Value {
    let runs = world.schedulable(pool).into_iter().enumerate();
    let nodes =
        runs.map(|(at, found)| json!({"stackId": found.stack, "run": run(found), "position": at + 1}));
    connection(nodes.collect(), None, false)
}

fn connection(nodes: Vec<Value>, end: Option<String>, more: bool) -> Value {
    let edges: Value = nodes
        .into_iter()
        .map(|node| json!({"cursor": node["id"], "node": node}))
        .collect();
    json!({"edges": edges, "pageInfo": {"endCursor": end, "hasNextPage": more, "hasPreviousPage": false}})
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Search {
    first: Option<usize>,
    after: Option<String>,
    full_text_search: Option<String>,
    predicates: Option<Vec<Predicate>>,
    order_by: Option<Order>,
}

#[derive(Deserialize)]
struct Predicate {
    field: String,
    constraint: Constraint,
    exclude: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Constraint {
    boolean_equals: Option<Vec<bool>>,
    enum_equals: Option<Vec<String>>,
    string_matches: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Order {
    field: String,
    direction: String,
}

/// Predicates must all hold; within one, any value will do. A cursor is the id of the last stack of a page.
fn search_stacks(world: &World, input: &Value) -> Result<Value, String> {
    let search: Search = arguments(input)?;
    let mut found = Vec::new();
    for candidate in &world.stacks {
        let shown = stack(world, candidate);
        let mut fits = search.full_text_search.as_ref().is_none_or(|text| {
            let text = text.to_lowercase();
            let labels = candidate.labels.iter();
            [&candidate.id, &candidate.name]
                .into_iter()
                .chain(labels)
                .any(|field| field.to_lowercase().contains(&text))
        });
        for predicate in search.predicates.iter().flatten() {
            fits &= predicate.holds(candidate, &shown)? != predicate.exclude.unwrap_or(false);
        }
        if fits {
            found.push(shown);
        }
    }
    if let Some(order) = &search.order_by {
        match order.field.as_str() {
            "name" => found.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str())),
            "createdAt" => found.sort_by_key(|stack| stack["createdAt"].as_i64()),
            "starred" => {}
            field => {
                return Err(format!(
                    "ordering stacks by {field} is not implemented by this lab"
                ));
            }
        }
        if order.direction == "DESC" && order.field != "starred" {
            found.reverse();
        }
    }
    let after = search.after.as_deref();
    let start = after
        .and_then(|after| found.iter().position(|stack| stack["id"] == after))
        .map_or(0, |at| at + 1);
    let size = search.first.unwrap_or(SEARCH_PAGE).min(SEARCH_PAGE);
    let more = found.len() > start + size;
    let page: Vec<Value> = found.into_iter().skip(start).take(size).collect();
    let end = page
        .last()
        .and_then(|last| last["id"].as_str())
        .map(ToOwned::to_owned);
    let mut answer = connection(page, end, more);
    answer["pageInfo"]["hasPreviousPage"] = (start > 0).into();
    Ok(answer)
}

impl Predicate {
    fn holds(&self, stack: &Stack, shown: &Value) -> Result<bool, String> {
        let state = shown["state"].as_str().unwrap_or_default();
        let texts: Vec<&str> = match self.field.as_str() {
            "name" => vec![&stack.name],
            "label" => stack.labels.iter().map(String::as_str).collect(),
            "branch" => vec![&stack.branch],
            "repository" => shown["repository"]
                .as_str()
                .into_iter()
                .chain([stack.repository.as_str()])
                .collect(),
            "projectRoot" => vec![&stack.project_root],
            "workerPool" => stack.worker_pool.as_deref().into_iter().collect(),
            "commit" => stack
                .tracked_commit
                .iter()
                .map(|commit| commit.hash.as_str())
                .collect(),
            "state" => vec![state],
            "vendor" => vec!["TERRAFORM"],
            "administrative" | "locked" => Vec::new(),
            field => {
                return Err(format!(
                    "searching stacks by {field} is not implemented by this lab"
                ));
            }
        };
        let flag = if self.field == "locked" {
            stack.lock.is_some()
        } else {
            stack.administrative
        };
        let flags = self.constraint.boolean_equals.iter().flatten();
        let wanted = [&self.constraint.enum_equals, &self.constraint.string_matches];
        let mut wanted = wanted.into_iter().flatten().flatten();
        let root = self.field == "projectRoot";
        let same = |wanted: &str, text: &str| {
            if root {
                wanted.trim_matches('/') == text
            } else {
                wanted == text
            }
        };
        Ok(flags.into_iter().any(|wanted| *wanted == flag)
            || wanted.any(|wanted| texts.iter().any(|text| same(wanted, text))))
    }
}
