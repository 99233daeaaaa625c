//! Mutations. All but the exchange of a key need a token: without a good one they are an `unauthorized` error.

use super::graphql::{Context, Resolved, arguments};
use super::machine::NewRun;
use super::query;
use super::run::{Commit, Environment, ForceApply, RunType};
use super::world::{Dependency, Pool, Reference, Stack, Webhook, World, now, ulid};
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use towpath_core::{CommitSha, ParseError, Secret};

pub(super) fn root(context: Context<'_>, field: &str, args: &Value) -> Resolved {
    if field == "apiKeyUser" {
        return Ok(Some(exchange(context, args)));
    }
    if !context.caller.known {
        return Err("unauthorized".into());
    }
    match field {
        "runTrigger" | "runTriggerBatch" | "runRetry" | "runPromote" => start(context, field, args),
        _ if field.starts_with("run") => act(context, field, args),
        _ if field.starts_with("stackDep") => depend(context, field, args),
        _ => arrange(context, field, args),
    }
}

fn exchange(context: Context<'_>, args: &Value) -> Value {
    let config = &context.shared.config;
    let same = |given: &Value, wanted: &str| {
        let given = given.as_str().unwrap_or_default();
        bool::from(given.as_bytes().ct_eq(wanted.as_bytes()))
    };
    if !(same(&args["id"], &config.api_key_id) && same(&args["secret"], config.api_key_secret.expose())) {
        return Value::Null;
    }
    let (jwt, valid_until) = context
        .shared
        .auth
        .issue(&config.api_key_id, config.token_lifetime);
    json!({"id": context.user(), "jwt": jwt, "validUntil": valid_until})
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trigger {
    stack: String,
    commit_sha: Option<String>,
    run_type: Option<RunType>,
    runtime_config: Option<RuntimeConfig>,
    force_apply: Option<ForceApply>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuntimeConfig {
    environment: Option<Vec<Pair>>,
    project_root: Option<String>,
}

#[derive(Deserialize)]
struct Pair {
    key: String,
    value: String,
}

/// Mutations that make runs.
fn start(context: Context<'_>, field: &str, args: &Value) -> Resolved {
    if field == "runRetry" || field == "runPromote" {
        return again(context, field, args);
    }
    let batch = field == "runTriggerBatch";
    let triggers: Vec<Trigger> = if batch {
        let mut triggers: Vec<Trigger> = arguments(&args["input"]["stacks"])?;
        let force: Option<ForceApply> = arguments(&args["input"]["forceApply"])?;
        triggers
            .iter_mut()
            .for_each(|trigger| trigger.force_apply = force);
        triggers
    } else {
        if let Some(set) = args["runtimeConfig"].as_object() {
            let known = |name: &&String| !matches!(name.as_str(), "environment" | "projectRoot");
            if let Some(name) = set.keys().find(known) {
                return Err(format!(
                    "RuntimeConfigInput.{name} is not implemented by this lab"
                ));
            }
        }
        vec![arguments(args)?]
    };
    let runs: Result<Vec<NewRun>, String> = triggers
        .into_iter()
        .map(|trigger| trigger.prepare(context))
        .collect();
    let runs = runs?;
    context.shared.update(|world| {
        let made: Vec<String> = runs.into_iter().map(|run| world.create_run(run, None)).collect();
        let all = world.cascade(made);
        let shown = |id: &String| world.run(id).map(query::run);
        if batch {
            let runs: Value = all
                .iter()
                .map(|id| json!({"runId": id, "run": shown(id)}))
                .collect();
            return Ok(Some(json!({ "runs": runs })));
        }
        Ok(all.first().and_then(shown))
    })
}

impl Trigger {
    fn prepare(self, context: Context<'_>) -> Result<NewRun, String> {
        let shared = context.shared;
        let stack = shared
            .read(|world| world.stack(&self.stack).cloned())
            .ok_or("unauthorized")?;
        may_run(&stack, &context.user())?;
        let kind = self.run_type.unwrap_or(RunType::Tracked);
        if matches!(kind, RunType::Task | RunType::Testing) {
            return Err("runs of type TASK and TESTING are not implemented by this lab".into());
        }
        let commit = match (self.commit_sha, &stack.tracked_commit) {
            (Some(sha), _) => Commit::bare(
                sha.parse::<CommitSha>()
                    .map_err(|e: ParseError| e.to_string())?
                    .as_str(),
            ),
            (None, Some(tracked)) => tracked.clone(),
            (None, None) => Commit::bare(shared.git.head(&stack.repository, &stack.branch)?.as_str()),
        };
        let runtime = self.runtime_config;
        let (environment, project_root) =
            runtime.map_or((None, None), |given| (given.environment, given.project_root));
        let environment = environment
            .into_iter()
            .flatten()
            .map(|pair| (pair.key, pair.value));
        Ok(NewRun {
            branch: Some(stack.branch),
            triggered_by: Some(context.user()),
            force: self.force_apply,
            environment: Environment(environment.collect()),
            project_root: project_root.map(|root| root.trim_matches('/').to_owned()),
            metadata: context.caller.metadata.iter().cloned().collect(),
            ..NewRun::new(&self.stack, kind, Some(commit))
        })
    }
}

fn may_run(stack: &Stack, user: &str) -> Result<(), String> {
    match &stack.lock {
        Some((by, ..)) if by != user => return Err(format!("stack is locked by {by}")),
        _ => {}
    }
    if stack.disabled {
        Err("stack is disabled".into())
    } else {
        Ok(())
    }
}

/// A proposed run once more, or as a tracked run of the same commit.
fn again(context: Context<'_>, field: &str, args: &Value) -> Resolved {
    let (stack, run) = (text(args, "stack"), text(args, "run"));
    let user = context.user();
    context.shared.update(|world| {
        let old = world
            .run(run)
            .filter(|run| run.stack == stack)
            .cloned()
            .ok_or("not found")?;
        let owner = world.stack(stack).cloned().ok_or("unauthorized")?;
        may_run(&owner, &user)?;
        if old.kind != RunType::Proposed {
            return Err(format!(
                "only a proposed run can be {}",
                if field == "runRetry" {
                    "retried"
                } else {
                    "promoted"
                }
            ));
        }
        if field == "runRetry" && !old.state().is_terminal() {
            return Err("the run cannot be retried: it has not finished".into());
        }
        if field == "runPromote" && !owner.promotion {
            return Err("run promotion is not enabled for this stack".into());
        }
        let kind = if field == "runRetry" {
            RunType::Proposed
        } else {
            RunType::Tracked
        };
        let new = world.create_run(
            NewRun {
                branch: old.branch,
                triggered_by: Some(user.clone()),
                ..NewRun::new(stack, kind, old.commit)
            },
            None,
        );
        let made = world.cascade(vec![new]);
        Ok(made.first().and_then(|id| world.run(id)).map(query::run))
    })
}

/// Mutations that act on runs.
fn act(context: Context<'_>, field: &str, args: &Value) -> Resolved {
    let (stack, run) = (text(args, "stack"), args["run"].as_str());
    let named = run.unwrap_or_default();
    let note = args["note"].as_str().map(ToOwned::to_owned);
    let by = &context.user();
    let metadata = context.caller.metadata.clone();
    context.shared.update(|world| {
        let changed = match field {
            "runConfirm" => world.confirm(stack, run, note, by)?,
            "runDiscard" => world.discard(stack, run, note, by)?,
            "runCancel" => world.cancel(stack, named, note, by)?,
            "runStop" => world.stop(stack, named, note, by)?,
            "runTargetedReplan" => world.replan(stack, named, arguments(&args["targets"])?, by)?,
            "runDiscardAll" => {
                let runs = world.discard_all(stack, note.as_deref(), by)?;
                let runs: Value = runs
                    .iter()
                    .filter_map(|id| world.run(id))
                    .map(query::run)
                    .collect();
                return Ok(Some(json!({"discardedRuns": runs, "failedDiscarding": []})));
            }
            "runReview" => {
                let review = world.review(stack, run, args["decision"] == "APPROVE", note, by)?;
                return Ok(Some(
                    json!({"id": review.id, "author": review.author, "decision": args["decision"],
                                      "note": review.note, "state": review.state, "timestamp": review.at}),
                ));
            }
            "runComment" => {
                let found = world
                    .run_mut(named)
                    .filter(|run| run.stack == stack)
                    .ok_or("not found")?;
                let (at, body) = (now(), text(args, "body"));
                found.comments.push((by.clone(), at, body.to_owned()));
                return Ok(Some(json!({"body": body, "createdAt": at, "username": by})));
            }
            "runExternalDependencyMarkAsCompleted" => {
                let name = text(args, "dependency");
                let phantom = !world
                    .runs
                    .iter()
                    .any(|run| run.external.iter().any(|known| known == name));
                world.external.insert(name.into(), text(args, "status").into());
                return Ok(Some(json!({"phantom": phantom, "status": args["status"]})));
            }
            _ => return Ok(None),
        };
        if field == "runConfirm"
            && let Some(run) = world.run_mut(&changed)
        {
            run.metadata.extend(metadata);
        }
        Ok(world.run(&changed).map(query::run))
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferenceInput {
    output_name: String,
    input_name: String,
    trigger_always: bool,
}

/// Mutations of stack dependencies.
fn depend(context: Context<'_>, field: &str, args: &Value) -> Resolved {
    let id = text(args, "id");
    context.shared.update(|world| {
        let changed = match field {
            "stackDependencyCreate" => {
                let input = &args["input"];
                let (stack, on) = (text(input, "stackId"), text(input, "dependsOnStackId"));
                if world.stack(stack).is_none() || world.stack(on).is_none() {
                    return Err("unauthorized".into());
                }
                if world.depends(on, stack) {
                    return Err("stack dependency would make a cycle".into());
                }
                let edges = &world.dependencies;
                if edges
                    .iter()
                    .any(|edge| edge.stack == stack && edge.depends_on == on)
                {
                    return Err("stack dependency already exists".into());
                }
                let id = ulid();
                world.dependencies.push(Dependency {
                    id: id.clone(),
                    stack: stack.into(),
                    depends_on: on.into(),
                    trigger_always: input["triggerAlways"] == true,
                    references: Vec::new(),
                });
                id
            }
            "stackDependencyUpdate" => {
                let input = &args["input"];
                let edge = world
                    .dependencies
                    .iter_mut()
                    .find(|edge| edge.id == text(input, "id"));
                let edge = edge.ok_or("not found")?;
                edge.trigger_always = input["triggerAlways"].as_bool().unwrap_or(edge.trigger_always);
                edge.id.clone()
            }
            "stackDependencyDelete" => {
                let edge = world
                    .dependencies
                    .iter()
                    .find(|edge| edge.id == id)
                    .ok_or("not found")?;
                let shown = query::dependency(world, edge);
                world.dependencies.retain(|edge| edge.id != id);
                return Ok(Some(shown));
            }
            "stackDependenciesAddReference" => {
                let on = text(args, "stackDependencyID");
                let input: ReferenceInput = arguments(&args["reference"])?;
                let edge = world
                    .dependencies
                    .iter_mut()
                    .find(|edge| edge.id == on)
                    .ok_or("not found")?;
                let reference = Reference::new(input.output_name, input.input_name, input.trigger_always);
                let shown = query::reference(&reference);
                edge.references.push(reference);
                return Ok(Some(shown));
            }
            "stackDependenciesDeleteReference" => {
                let edges = world.dependencies.iter_mut();
                let holds =
                    |edge: &&mut Dependency| edge.references.iter().any(|reference| reference.id == id);
                let edge = edges.into_iter().find(holds).ok_or("not found")?;
                let shown = edge
                    .references
                    .iter()
                    .find(|reference| reference.id == id)
                    .map(query::reference);
                edge.references.retain(|reference| reference.id != id);
                return Ok(shown);
            }
            _ => return Ok(None),
        };
        let edge = world.dependencies.iter().find(|edge| edge.id == changed);
        Ok(edge.map(|edge| query::dependency(world, edge)))
    })
}

/// Mutations of stacks and worker pools.
fn arrange(context: Context<'_>, field: &str, args: &Value) -> Resolved {
    let id = text(args, "id");
    let user = context.user();
    if field == "stackSyncCommit" {
        let stack = context
            .shared
            .read(|world| world.stack(id).cloned())
            .ok_or("unauthorized")?;
        let head = context.shared.git.head(&stack.repository, &stack.branch)?;
        return context
            .shared
            .update(|world| set_commit(world, id, head.as_str()));
    }
    context.shared.update(|world| {
        match field {
            "stackCreate" => return create_stack(world, args),
            "stackUpdate" => {
                let stack = world.stack_mut(id).ok_or("unauthorized")?;
                apply_input(stack, &args["input"])?;
            }
            "stackDelete" => {
                if args["destroyResources"] == true {
                    return Err("stackDelete with destroyResources is not implemented by this lab".into());
                }
                let shown = query::stack(world, world.stack(id).ok_or("unauthorized")?);
                world.stacks.retain(|stack| stack.id != id);
                world.dependencies.retain(|edge| edge.stack != id && edge.depends_on != id);
                return Ok(Some(shown));
            }
            "stackLock" => {
                let stack = world.stack_mut(id).ok_or("unauthorized")?;
                if let Some((by, ..)) = &stack.lock {
                    return Err(format!("stack is already locked by {by}"));
                }
                stack.lock = Some((user, now(), args["note"].as_str().map(ToOwned::to_owned)));
            }
            "stackUnlock" => {
                let stack = world.stack_mut(id).ok_or("unauthorized")?;
                may_run(&Stack { disabled: false, ..stack.clone() }, &user)?;
                stack.lock = None;
            }
            "stackEnable" | "stackDisable" => {
                world.stack_mut(id).ok_or("unauthorized")?.disabled = field == "stackDisable";
            }
            "stackSetCurrentCommit" => {
                let sha: CommitSha = text(args, "sha").parse().map_err(|error: ParseError| error.to_string())?;
                return set_commit(world, id, sha.as_str());
            }
            "stackConfigAdd" => {
                let config = &args["config"];
                if config["type"] != "ENVIRONMENT_VARIABLE" {
                    return Err("config of type FILE_MOUNT is not implemented by this lab".into());
                }
                let stack = world.stack_mut(text(args, "stack")).ok_or("unauthorized")?;
                let (name, value) = (text(config, "id"), text(config, "value"));
                let description = config["description"].as_str().map(ToOwned::to_owned);
                let element = stack.set_environment(name, value, config["writeOnly"] == true, description);
                return Ok(Some(query::config_element(stack, &element)));
            }
            "stackConfigDelete" => {
                let stack = world.stack_mut(text(args, "stack")).ok_or("unauthorized")?;
                let element = stack.config.iter().find(|element| element.id == id);
                let element = element.map(|element| query::config_element(stack, element));
                stack.config.retain(|element| element.id != id);
                stack.environment.0.remove(id);
                return Ok(Some(element.unwrap_or_default()));
            }
            "webhooksIntegrationCreate" => {
                let input = &args["input"];
                let webhook = Webhook {
                    id: ulid(),
                    endpoint: text(input, "endpoint").into(),
                    enabled: input["enabled"] == true,
                    secret: Secret::new(text(input, "secret")),
                };
                let shown = json!({"id": webhook.id, "enabled": webhook.enabled, "endpoint": webhook.endpoint, "deleted": false});
                world.stack_mut(text(args, "stack")).ok_or("unauthorized")?.webhooks.push(webhook);
                return Ok(Some(shown));
            }
            "workerPoolCreate" => {
                let pool = Pool {
                    id: ulid(),
                    name: text(args, "name").into(),
                    description: args["description"].as_str().map(ToOwned::to_owned),
                    labels: arguments::<Option<Vec<String>>>(&args["labels"])?.unwrap_or_default(),
                    created_at: now(),
                    ..Pool::default()
                };
                world.pools.push(pool);
                return Ok(world.pools.last().map(|pool| query::pool(world, pool)));
            }
            "workerDrainSet" => {
                let pool = world.pool_mut(Some(text(args, "workerPool"))).ok_or("not found")?;
                let worker = pool.workers.iter_mut().find(|worker| worker.id == id).ok_or("not found")?;
                worker.drained = args["drain"] == true;
                return Ok(Some(query::worker(worker)));
            }
            _ => return Ok(None),
        }
        Ok(world.stack(id).map(|stack| query::stack(world, stack)))
    })
}

fn set_commit(world: &mut World, stack: &str, sha: &str) -> Resolved {
    world.stack_mut(stack).ok_or("unauthorized")?.tracked_commit = Some(Commit::bare(sha));
    Ok(world.stack(stack).map(|stack| query::stack(world, stack)))
}

fn create_stack(world: &mut World, args: &Value) -> Resolved {
    let name = text(&args["input"], "name");
    let slug: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let slug = args["slug"].as_str().map_or(slug, ToOwned::to_owned);
    let slug = towpath_core::StackId::new(slug).map_err(|error| error.to_string())?;
    if world.stack(slug.as_str()).is_some() {
        return Err(format!("stack {slug} already exists"));
    }
    let mut stack = Stack {
        id: slug.to_string(),
        created_at: now(),
        ..Stack::default()
    };
    apply_input(&mut stack, &args["input"])?;
    world.stacks.push(stack);
    Ok(world.stacks.last().map(|stack| query::stack(world, stack)))
}

/// Takes a whole `StackInput` over; what is not given in it goes back to its default.
fn apply_input(stack: &mut Stack, input: &Value) -> Result<(), String> {
    let optional = |name: &str| input[name].as_str().map(ToOwned::to_owned);
    let repository = text(input, "repository");
    stack.name = text(input, "name").into();
    stack.branch = text(input, "branch").into();
    stack.repository =
        optional("namespace").map_or_else(|| repository.into(), |owner| format!("{owner}/{repository}"));
    stack.administrative = input["administrative"] == true;
    stack.autodeploy = input["autodeploy"] == true;
    stack.description = optional("description");
    stack.labels = arguments::<Option<Vec<String>>>(&input["labels"])?.unwrap_or_default();
    stack.project_root = text(input, "projectRoot").trim_matches('/').into();
    stack.worker_pool = optional("workerPool");
    stack.promotion = input["githubActionDeploy"] == true;
    stack.sensitive_outputs = input["enableSensitiveOutputUpload"] == true;
    Ok(())
}

fn text<'a>(args: &'a Value, name: &str) -> &'a str {
    args[name].as_str().unwrap_or_default()
}
