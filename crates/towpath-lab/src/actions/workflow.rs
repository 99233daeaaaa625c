//! Workflow files, after "Workflow syntax for GitHub Actions". What the lab does not run is refused by name, so that
//! a workflow never seems to have done something that it did not do.

use serde_yaml_ng::{Mapping, Value};
use std::collections::BTreeSet;
use std::time::Duration;

/// One workflow file.
#[derive(Clone, Debug)]
pub(crate) struct Workflow {
    pub(crate) name: Option<String>,
    pub(crate) run_name: Option<String>,
    pub(crate) push: Option<Branches>,
    pub(crate) dispatch: bool,
    pub(crate) env: Pairs,
    pub(crate) jobs: Vec<JobSpec>,
}

pub(crate) type Pairs = Vec<(String, String)>;

/// Which branches a push must be to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Branches {
    only: Option<Vec<String>>,
    ignore: Vec<String>,
    tags_only: bool,
}

/// One job.
#[derive(Clone, Debug)]
pub(crate) struct JobSpec {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) needs: Vec<String>,
    pub(crate) condition: Option<String>,
    pub(crate) env: Pairs,
    pub(crate) outputs: Pairs,
    pub(crate) permissions: Permissions,
    pub(crate) timeout: Duration,
    pub(crate) steps: Vec<StepSpec>,
}

/// What the token of a job may write; `None` is everything but `id-token`, the server's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permissions(pub(crate) Option<BTreeSet<String>>);

/// One step.
#[derive(Clone, Debug)]
pub(crate) struct StepSpec {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) condition: Option<String>,
    pub(crate) env: Pairs,
    pub(crate) what: StepKind,
    pub(crate) directory: Option<String>,
    pub(crate) continue_on_error: bool,
    pub(crate) timeout: Option<Duration>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub(crate) enum StepKind {
    Run { script: String, shell: Option<String> },
    Uses { action: String, with: Pairs },
}

/// Reads a workflow; the error says where and what.
pub(crate) fn parse(text: &str) -> Result<Workflow, String> {
    let value: Value = serde_yaml_ng::from_str(text).map_err(|error| format!("not YAML: {error}"))?;
    let root = value.as_mapping().ok_or("a workflow is a map")?;
    known(
        root,
        "workflow",
        &[
            "name",
            "run-name",
            "on",
            "env",
            "permissions",
            "jobs",
            "defaults",
            "concurrency",
        ],
    )?;
    // A YAML 1.1 reader takes the key `on` for true.
    let on = root
        .get("on")
        .or_else(|| root.get(Value::Bool(true)))
        .ok_or("\"on\" is missing")?;
    let permissions = permissions(root.get("permissions"))?;
    let jobs = root
        .get("jobs")
        .and_then(Value::as_mapping)
        .ok_or("\"jobs\" is missing")?;
    let shell = default_of(root, "shell");
    let directory = default_of(root, "working-directory");
    let mut specs = Vec::new();
    for (id, job) in jobs {
        let id = text_of(id).ok_or("a job's id is a text")?;
        let spec = job_spec(&id, job, permissions.as_ref(), (&shell, &directory));
        specs.push(spec.map_err(|error| format!("job {id}: {error}"))?);
    }
    for job in &specs {
        if let Some(missing) = job
            .needs
            .iter()
            .find(|need| !specs.iter().any(|other| other.id == **need))
        {
            return Err(format!("job {}: it needs {missing}, which is not a job", job.id));
        }
    }
    in_order(&specs)?;
    Ok(Workflow {
        name: root.get("name").and_then(text_of),
        run_name: root.get("run-name").and_then(text_of),
        push: trigger(on, "push")?.map(|filter| branches(&filter)).transpose()?,
        dispatch: trigger(on, "workflow_dispatch")?.is_some(),
        env: pairs(root.get("env"))?,
        jobs: specs,
    })
}

/// Refuses jobs that wait for each other.
fn in_order(jobs: &[JobSpec]) -> Result<(), String> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    while done.len() < jobs.len() {
        let ready: Vec<&str> = jobs
            .iter()
            .filter(|job| {
                !done.contains(job.id.as_str()) && job.needs.iter().all(|need| done.contains(need.as_str()))
            })
            .map(|job| job.id.as_str())
            .collect();
        if ready.is_empty() {
            return Err("the jobs need each other in a circle".into());
        }
        done.extend(ready);
    }
    Ok(())
}

fn known(map: &Mapping, what: &str, keys: &[&str]) -> Result<(), String> {
    match map
        .keys()
        .filter_map(text_of)
        .find(|key| !keys.contains(&key.as_str()) && key != "true")
    {
        Some(key) => Err(format!("{what}: the lab does not run \"{key}\"")),
        None => Ok(()),
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null => Some(String::new()),
        _ => None,
    }
}

fn list(value: Option<&Value>) -> Vec<String> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Sequence(items)) => items.iter().filter_map(text_of).collect(),
        Some(one) => text_of(one).into_iter().collect(),
    }
}

fn pairs(value: Option<&Value>) -> Result<Pairs, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Mapping(map)) => map
            .iter()
            .map(|(key, value)| Some((text_of(key)?, text_of(value)?)))
            .collect::<Option<_>>()
            .ok_or_else(|| "values of a map are texts".into()),
        Some(_) => Err("expected a map of texts".into()),
    }
}

fn default_of(map: &Mapping, key: &str) -> Option<String> {
    map.get("defaults")?.get("run")?.get(key).and_then(text_of)
}

/// The filter of one event, in any of the three forms that `on` has.
fn trigger(on: &Value, event: &str) -> Result<Option<Mapping>, String> {
    match on {
        Value::String(one) => Ok((one == event).then(Mapping::new)),
        Value::Sequence(_) => Ok(list(Some(on)).iter().any(|one| one == event).then(Mapping::new)),
        Value::Mapping(map) => match map.get(event) {
            None => Ok(None),
            Some(Value::Mapping(filter)) => Ok(Some(filter.clone())),
            Some(Value::Null) => Ok(Some(Mapping::new())),
            Some(_) => Err(format!("on.{event} is a map")),
        },
        _ => Err("\"on\" is a text, a list or a map".into()),
    }
}

fn branches(filter: &Mapping) -> Result<Branches, String> {
    known(
        filter,
        "on.push",
        &["branches", "branches-ignore", "tags", "tags-ignore"],
    )?;
    Ok(Branches {
        only: filter.get("branches").map(|value| list(Some(value))),
        ignore: list(filter.get("branches-ignore")),
        tags_only: filter.contains_key("tags") && !filter.contains_key("branches"),
    })
}

impl Branches {
    pub(crate) fn matches(&self, branch: &str) -> bool {
        if self.tags_only || self.ignore.iter().any(|pattern| glob(pattern, branch)) {
            return false;
        }
        let Some(only) = &self.only else {
            return true;
        };
        // The last pattern that matches decides; `!` takes a branch out again.
        only.iter()
            .fold(false, |matched, pattern| match pattern.strip_prefix('!') {
                Some(pattern) => matched && !glob(pattern, branch),
                None => matched || glob(pattern, branch),
            })
    }
}

/// GitHub's filter patterns: `*` within one part, `**` across parts, `?` one optional character is not among them here.
fn glob(pattern: &str, text: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("**") {
        return (0..=text.len()).any(|at| text.is_char_boundary(at) && glob(rest, &text[at..]));
    }
    let mut pattern_chars = pattern.chars();
    match pattern_chars.next() {
        None => text.is_empty(),
        Some('*') => {
            let end = text.find('/').unwrap_or(text.len());
            (0..=end).any(|at| text.is_char_boundary(at) && glob(pattern_chars.as_str(), &text[at..]))
        }
        Some(wanted) => {
            let mut chars = text.chars();
            chars.next() == Some(wanted) && glob(pattern_chars.as_str(), chars.as_str())
        }
    }
}

fn permissions(value: Option<&Value>) -> Result<Option<Permissions>, String> {
    let everything = || Some(Permissions(None));
    match value {
        None => Ok(None),
        Some(Value::String(all)) if all == "write-all" => Ok(everything()),
        Some(Value::String(all)) if all == "read-all" => Ok(Some(Permissions(Some(BTreeSet::new())))),
        Some(Value::Mapping(map)) => {
            let writes = map
                .iter()
                .filter(|(_, level)| level.as_str() == Some("write"))
                .filter_map(|(scope, _)| text_of(scope))
                .collect();
            Ok(Some(Permissions(Some(writes))))
        }
        Some(_) => Err("permissions is a map, read-all or write-all".into()),
    }
}

fn minutes(value: Option<&Value>) -> Result<Option<Duration>, String> {
    match value {
        None => Ok(None),
        Some(value) => value
            .as_f64()
            .filter(|minutes| *minutes > 0.0 && *minutes < 1e6)
            .map(|minutes| Some(Duration::from_secs_f64(minutes * 60.0)))
            .ok_or_else(|| "timeout-minutes is a positive number".into()),
    }
}

fn job_spec(
    id: &str,
    value: &Value,
    inherited: Option<&Permissions>,
    (shell, directory): (&Option<String>, &Option<String>),
) -> Result<JobSpec, String> {
    let map = value.as_mapping().ok_or("it is not a map")?;
    let keys = [
        "name",
        "needs",
        "if",
        "env",
        "outputs",
        "permissions",
        "timeout-minutes",
        "steps",
        "runs-on",
        "defaults",
        "concurrency",
    ];
    known(map, "job", &keys)?;
    if !map.contains_key("runs-on") {
        return Err("\"runs-on\" is missing".into());
    }
    let shell = default_of(map, "shell").or_else(|| shell.clone());
    let directory = default_of(map, "working-directory").or_else(|| directory.clone());
    let steps = map
        .get("steps")
        .and_then(Value::as_sequence)
        .ok_or("\"steps\" is missing")?;
    let steps = steps.iter().enumerate().map(|(at, step)| {
        step_spec(step, &shell, &directory).map_err(|error| format!("step {}: {error}", at + 1))
    });
    Ok(JobSpec {
        id: id.to_owned(),
        name: map.get("name").and_then(text_of),
        needs: list(map.get("needs")),
        condition: map.get("if").and_then(text_of),
        env: pairs(map.get("env"))?,
        outputs: pairs(map.get("outputs"))?,
        permissions: permissions(map.get("permissions"))?
            .or_else(|| inherited.cloned())
            .unwrap_or_default(),
        timeout: minutes(map.get("timeout-minutes"))?.unwrap_or(Duration::from_secs(360 * 60)),
        steps: steps.collect::<Result<_, _>>()?,
    })
}

fn step_spec(value: &Value, shell: &Option<String>, directory: &Option<String>) -> Result<StepSpec, String> {
    let map = value.as_mapping().ok_or("it is not a map")?;
    let keys = [
        "id",
        "name",
        "if",
        "env",
        "run",
        "shell",
        "uses",
        "with",
        "working-directory",
        "continue-on-error",
        "timeout-minutes",
    ];
    known(map, "step", &keys)?;
    let what = match (
        map.get("run").and_then(text_of),
        map.get("uses").and_then(text_of),
    ) {
        (Some(script), None) => StepKind::Run {
            script,
            shell: map.get("shell").and_then(text_of).or_else(|| shell.clone()),
        },
        (None, Some(action)) => StepKind::Uses {
            action,
            with: pairs(map.get("with"))?,
        },
        _ => return Err("it has either \"run\" or \"uses\"".into()),
    };
    Ok(StepSpec {
        id: map.get("id").and_then(text_of),
        name: map.get("name").and_then(text_of),
        condition: map.get("if").and_then(text_of),
        env: pairs(map.get("env"))?,
        what,
        directory: map
            .get("working-directory")
            .and_then(text_of)
            .or_else(|| directory.clone()),
        continue_on_error: map
            .get("continue-on-error")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        timeout: minutes(map.get("timeout-minutes"))?,
    })
}

/// The steps of a composite action (`action.yml`), its inputs' defaults, and its outputs.
pub(crate) fn composite(text: &str) -> Result<(Vec<StepSpec>, Pairs, Pairs), String> {
    let value: Value = serde_yaml_ng::from_str(text).map_err(|error| format!("not YAML: {error}"))?;
    let runs = value.get("runs").ok_or("\"runs\" is missing")?;
    if runs.get("using").and_then(Value::as_str) != Some("composite") {
        return Err("the lab runs composite actions only".into());
    }
    let steps = runs
        .get("steps")
        .and_then(Value::as_sequence)
        .ok_or("\"runs.steps\" is missing")?;
    let steps = steps
        .iter()
        .map(|step| step_spec(step, &None, &None))
        .collect::<Result<_, _>>()?;
    let field = |section: &str, field: &str| -> Pairs {
        let entries = value
            .get(section)
            .and_then(Value::as_mapping)
            .into_iter()
            .flatten();
        entries
            .filter_map(|(name, entry)| {
                Some((
                    text_of(name)?,
                    entry.get(field).and_then(text_of).unwrap_or_default(),
                ))
            })
            .collect()
    };
    Ok((steps, field("inputs", "default"), field("outputs", "value")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_on_and_their_filters() {
        let jobs = "jobs: {a: {runs-on: x, steps: [{run: 'true'}]}}\n";
        let push = |on: &str, branch: &str| {
            let workflow = parse(&format!("on: {on}\n{jobs}")).unwrap();
            workflow.push.is_some_and(|branches| branches.matches(branch))
        };
        assert!(push("push", "any/thing"));
        assert!(push("[push, workflow_dispatch]", "main"));
        assert!(push("{push: {branches: [main, 'release/**']}}", "release/1/2"));
        assert!(!push("{push: {branches: ['release/*']}}", "release/1/2"));
        assert!(!push("{push: {branches: ['**', '!main']}}", "main"));
        assert!(!push("{push: {branches-ignore: [main]}}", "main"));
        assert!(!push("workflow_dispatch", "main"));
    }

    #[test]
    fn what_is_not_run_is_refused_by_name() {
        for (text, reason) in [
            ("jobs: {}", "\"on\""),
            (
                "on: push\njobs: {a: {runs-on: x, strategy: {}, steps: []}}",
                "\"strategy\"",
            ),
            (
                "on: push\njobs: {a: {runs-on: x, needs: b, steps: []}}",
                "needs b",
            ),
            ("on: push\njobs: {a: {runs-on: x, needs: a, steps: []}}", "circle"),
            ("on: push\njobs: {a: {runs-on: x, steps: [{name: x}]}}", "either"),
            ("on: [", "not YAML"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
