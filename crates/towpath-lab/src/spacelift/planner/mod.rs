//! The built-in planner: plans and applies `terraform_data` where neither Terraform nor OpenTofu is installed.
//!
//! It follows the resource's own documentation: `input` is kept and comes back as `output`, a change of
//! `triggers_replace` replaces the resource. Its state file has the form of Terraform's version 4, its plan file is its
//! own. Values that exist only after the apply are unknown while planning, as in Terraform.

mod config;

use super::run::{Change, Plan};
use config::{Expr, Kind, Module};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the planner says first in every phase.
pub(super) const NOTICE: &str = "built-in planner: no terraform or tofu on the PATH";

/// Why a configuration could not be planned: file, line and what is not understood.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotUnderstood(String);

/// What is written into the plan file: what happens to each resource, and what it was planned from.
#[derive(Serialize, Deserialize)]
struct SavedPlan {
    serial: u64,
    environment: Vec<(String, String)>,
    actions: BTreeMap<String, Action>,
    destroy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Action {
    Keep,
    Create,
    Update,
    Replace,
    Delete,
}

/// The state file. Terraform keeps more in it; the reader of state files needs this much.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    version: u64,
    serial: u64,
    outputs: BTreeMap<String, Value>,
    resources: Vec<Value>,
}

/// A value, or that it exists only after the apply.
type Known = Option<Value>;

/// Evaluates expressions of a module against a state and what was decided so far.
struct Evaluation<'a> {
    module: &'a Module,
    environment: &'a [(String, String)],
    prior: &'a BTreeMap<String, Value>,
    /// The attributes of the resources decided so far.
    decided: BTreeMap<String, BTreeMap<&'static str, Known>>,
    actions: BTreeMap<String, Action>,
    open: Vec<String>,
    /// The actions of a saved plan: values are then made instead of being unknown.
    applying: Option<&'a BTreeMap<String, Action>>,
    only: Option<BTreeSet<String>>,
}

/// Checks that the folder holds a configuration the planner understands.
pub(super) fn init(folder: &Path) -> Result<(), NotUnderstood> {
    Module::read(folder).map(drop)
}

/// Plans the folder against its state file, and saves the plan.
pub(super) fn plan(
    folder: &Path,
    environment: &[(String, String)],
    targets: &[String],
    destroy: bool,
    state_file: &Path,
    plan_file: &Path,
) -> Result<Plan, NotUnderstood> {
    let module = Module::read(folder)?;
    let state = State::read(state_file)?;
    let prior = state.attributes();
    let mut evaluation = Evaluation::new(&module, environment, &prior);
    evaluation.only = module.with_needs(targets);
    let mut outputs_change = false;
    if destroy {
        evaluation.actions = prior.keys().map(|name| (name.clone(), Action::Delete)).collect();
        outputs_change = !state.outputs.is_empty();
    } else {
        for name in module.resources.keys() {
            evaluation.decide(name)?;
        }
        for (name, output) in &module.outputs {
            let value = evaluation.value(&output.value)?;
            let before = state.outputs.get(name).map(|output| &output["value"]);
            outputs_change |= evaluation.only.is_none() && (value.is_none() || value.as_ref() != before);
        }
        outputs_change |= evaluation.only.is_none()
            && state
                .outputs
                .keys()
                .any(|name| !module.outputs.contains_key(name));
        for name in prior.keys().filter(|name| !module.resources.contains_key(*name)) {
            if evaluation.only.as_ref().is_none_or(|only| only.contains(name)) {
                evaluation.actions.insert(name.clone(), Action::Delete);
            }
        }
    }
    let saved = SavedPlan {
        serial: state.serial,
        environment: environment.to_vec(),
        actions: evaluation.actions,
        destroy,
    };
    write(plan_file, &saved)?;
    Ok(saved.summary(outputs_change))
}

/// Applies a saved plan; refuses it where the state has moved on since.
pub(super) fn apply(folder: &Path, state_file: &Path, plan_file: &Path) -> Result<(), NotUnderstood> {
    let saved: SavedPlan = read(plan_file)?.ok_or_else(|| NotUnderstood("there is no saved plan".into()))?;
    let mut state = State::read(state_file)?;
    if state.serial != saved.serial {
        return Err(NotUnderstood(
            "the saved plan is stale: the state has changed since".into(),
        ));
    }
    let prior = state.attributes();
    state.serial += 1;
    state.version = 4;
    if saved.destroy {
        state.resources.clear();
        state.outputs.clear();
        return write(state_file, &state);
    }
    let module = Module::read(folder)?;
    let mut evaluation = Evaluation::new(&module, &saved.environment, &prior);
    evaluation.applying = Some(&saved.actions);
    let mut resources = BTreeMap::new();
    for (name, action) in &saved.actions {
        match action {
            Action::Delete => {}
            Action::Keep => drop(
                prior
                    .get(name)
                    .map(|before| resources.insert(name.clone(), before.clone())),
            ),
            Action::Create | Action::Update | Action::Replace => {
                evaluation.decide(name)?;
                let attributes = evaluation.decided.get(name).into_iter().flatten();
                let attributes =
                    attributes.map(|(key, value)| ((*key).to_owned(), value.clone().unwrap_or_default()));
                resources.insert(name.clone(), Value::Object(attributes.collect()));
            }
        }
    }
    state.outputs.clear();
    for (name, output) in &module.outputs {
        if let Some(value) = evaluation.value(&output.value)? {
            state.outputs.insert(
                name.clone(),
                json!({"value": value, "sensitive": output.sensitive}),
            );
        }
    }
    state.resources = resources
        .into_iter()
        .map(|(name, attributes)| {
            json!({"mode": "managed", "type": "terraform_data", "name": name, "instances": [{"attributes": attributes}]})
        })
        .collect();
    write(state_file, &state)
}

impl SavedPlan {
    fn summary(&self, outputs_change: bool) -> Plan {
        let mut plan = Plan::default();
        for (name, action) in &self.actions {
            let delta = &mut plan.delta;
            delta.resources += i64::from(*action != Action::Delete);
            let shown = match action {
                Action::Keep => continue,
                Action::Create => "ADD",
                Action::Update => "CHANGE",
                Action::Replace => "REPLACE",
                Action::Delete => "DELETE",
            };
            delta.add += i64::from(matches!(action, Action::Create | Action::Replace));
            delta.change += i64::from(*action == Action::Update);
            delta.delete += i64::from(matches!(action, Action::Delete | Action::Replace));
            plan.changes.push(Change {
                address: format!("terraform_data.{name}"),
                action: shown,
            });
        }
        plan.has_changes = outputs_change || !plan.changes.is_empty();
        plan
    }
}

impl Module {
    /// The names of the targets and of everything they refer to; `None` where there are no targets.
    fn with_needs(&self, targets: &[String]) -> Option<BTreeSet<String>> {
        if targets.is_empty() {
            return None;
        }
        let named = |target: &String| {
            target
                .strip_prefix("terraform_data.")
                .unwrap_or(target)
                .to_owned()
        };
        let mut open: Vec<String> = targets.iter().map(named).collect();
        let mut needed = BTreeSet::new();
        while let Some(name) = open.pop() {
            if let Some(resource) = self.resources.get(&name)
                && !needed.contains(&name)
            {
                let arguments = [&resource.input, &resource.triggers_replace];
                open.extend(
                    arguments
                        .into_iter()
                        .flatten()
                        .flat_map(|e| e.resources())
                        .map(ToOwned::to_owned),
                );
            }
            needed.insert(name);
        }
        Some(needed)
    }
}

impl<'a> Evaluation<'a> {
    fn new(
        module: &'a Module,
        environment: &'a [(String, String)],
        prior: &'a BTreeMap<String, Value>,
    ) -> Self {
        Self {
            module,
            environment,
            prior,
            decided: BTreeMap::new(),
            actions: BTreeMap::new(),
            open: Vec::new(),
            applying: None,
            only: None,
        }
    }

    /// Decides what happens to a resource, and what its attributes then are.
    fn decide(&mut self, name: &str) -> Result<(), NotUnderstood> {
        if self.decided.contains_key(name) {
            return Ok(());
        }
        let Some(resource) = self.module.resources.get(name) else {
            return Err(NotUnderstood(format!(
                "terraform_data.{name} is referred to but not declared"
            )));
        };
        if self.open.iter().any(|open| open == name) {
            return Err(NotUnderstood(format!("terraform_data.{name} depends on itself")));
        }
        let before = self.prior.get(name);
        let out_of_plan = match (self.applying, &self.only) {
            (Some(actions), _) => matches!(actions.get(name), None | Some(Action::Keep)),
            (None, only) => only.as_ref().is_some_and(|only| !only.contains(name)),
        };
        if out_of_plan {
            let keep = |key| before.map(|before| before[key].clone());
            let attributes = ["id", "input", "output", "triggers_replace"].map(|key| (key, keep(key)));
            self.decided.insert(name.into(), attributes.into());
            if before.is_some() {
                self.actions.insert(name.into(), Action::Keep);
            }
            return Ok(());
        }
        self.open.push(name.into());
        let mut argument = |expr: &Option<Expr>| match expr {
            Some(expr) => self.value(expr),
            None => Ok(Some(Value::Null)),
        };
        let input = argument(&resource.input)?;
        let triggers = argument(&resource.triggers_replace)?;
        self.open.pop();
        let differs =
            |value: &Known, key: &str| before.is_some_and(|before| value.as_ref() != Some(&before[key]));
        let planned = self.applying.and_then(|actions| actions.get(name)).copied();
        let action = planned.unwrap_or(match before {
            None => Action::Create,
            Some(_) if differs(&triggers, "triggers_replace") => Action::Replace,
            Some(_) if differs(&input, "input") => Action::Update,
            Some(_) => Action::Keep,
        });
        let fresh = matches!(action, Action::Create | Action::Replace);
        let applying = self.applying.is_some();
        let id = match before {
            Some(before) if !fresh => Some(before["id"].clone()),
            _ => applying.then(|| uuid::Uuid::new_v4().to_string().into()),
        };
        let output = match action {
            Action::Keep => before.map(|before| before["output"].clone()),
            _ if applying || input == Some(Value::Null) => input.clone(),
            _ => None,
        };
        let attributes = [
            ("id", id),
            ("input", input),
            ("output", output),
            ("triggers_replace", triggers),
        ];
        self.decided.insert(name.into(), attributes.into());
        self.actions.insert(name.into(), action);
        Ok(())
    }

    fn value(&mut self, expr: &Expr) -> Result<Known, NotUnderstood> {
        match expr {
            Expr::Literal(value) => Ok(Some(value.clone())),
            Expr::List(items) => {
                let items: Result<Vec<Known>, _> = items.iter().map(|item| self.value(item)).collect();
                Ok(items?.into_iter().collect::<Option<Vec<_>>>().map(Value::from))
            }
            Expr::Object(fields) => {
                let mut object = serde_json::Map::new();
                for (name, field) in fields {
                    match self.value(field)? {
                        Some(value) => drop(object.insert(name.clone(), value)),
                        None => return Ok(None),
                    }
                }
                Ok(Some(Value::Object(object)))
            }
            Expr::Template(parts) => {
                let mut text = String::new();
                for part in parts {
                    match self.value(part)? {
                        Some(Value::String(part)) => text.push_str(&part),
                        Some(part @ (Value::Bool(_) | Value::Number(_))) => text.push_str(&part.to_string()),
                        Some(_) => {
                            return Err(NotUnderstood(
                                "a template can only hold strings, numbers and bools".into(),
                            ));
                        }
                        None => return Ok(None),
                    }
                }
                Ok(Some(text.into()))
            }
            Expr::Reference(path, place) => {
                let parts: Vec<&str> = path.iter().map(String::as_str).collect();
                let (value, rest) = match &parts[..] {
                    ["var", name, rest @ ..] => {
                        (Some(self.variable(name).map_err(|e| place.refuse(e))?), rest)
                    }
                    ["local", name, rest @ ..] => {
                        let module = self.module;
                        let local = module.locals.get(*name);
                        let local =
                            local.ok_or_else(|| place.refuse(format!("local.{name} is not declared")))?;
                        let mark = format!("local.{name}");
                        if self.open.contains(&mark) {
                            return Err(place.refuse(format!("{mark} depends on itself")));
                        }
                        self.open.push(mark);
                        let value = self.value(local)?;
                        self.open.pop();
                        (value, rest)
                    }
                    [
                        "terraform_data",
                        name,
                        attribute @ ("id" | "input" | "output" | "triggers_replace"),
                        rest @ ..,
                    ] => {
                        self.decide(name)?;
                        let found = self
                            .decided
                            .get(*name)
                            .and_then(|attributes| attributes.get(attribute));
                        (found.cloned().flatten(), rest)
                    }
                    _ => return Err(place.refuse(format!("{} is not understood", path.join(".")))),
                };
                let Some(mut value) = value else { return Ok(None) };
                for part in rest {
                    let field = value.get_mut(*part).map(Value::take);
                    value = field
                        .ok_or_else(|| place.refuse(format!("{} has no such attribute", path.join("."))))?;
                }
                Ok(Some(value))
            }
        }
    }

    fn variable(&self, name: &str) -> Result<Value, String> {
        let variable = self
            .module
            .variables
            .get(name)
            .ok_or(format!("var.{name} is not declared"))?;
        let given = self
            .environment
            .iter()
            .find(|(key, _)| key.strip_prefix("TF_VAR_") == Some(name));
        match (given, &variable.default, variable.kind) {
            (Some((_, text)), _, Kind::Text) => Ok(text.clone().into()),
            (Some((_, text)), _, kind) => {
                let value = serde_json::from_str::<Value>(text.trim()).ok();
                let fits = |value: &Value| {
                    if kind == Kind::Bool {
                        value.is_boolean()
                    } else {
                        value.is_number()
                    }
                };
                value
                    .filter(fits)
                    .ok_or(format!("TF_VAR_{name} does not have the type of the variable"))
            }
            (None, Some(default), _) => Ok(default.clone()),
            (None, None, _) => Err(format!(
                "var.{name} has no value: set TF_VAR_{name} or give it a default"
            )),
        }
    }
}

impl State {
    fn read(path: &Path) -> Result<Self, NotUnderstood> {
        Ok(read(path)?.unwrap_or_default())
    }

    /// The attributes of the `terraform_data` resources by name.
    fn attributes(&self) -> BTreeMap<String, Value> {
        let named = |resource: &Value| {
            let name = resource["name"].as_str()?.to_owned();
            Some((name, resource["instances"][0]["attributes"].clone()))
        };
        self.resources.iter().filter_map(named).collect()
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, NotUnderstood> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(NotUnderstood(format!("cannot read the state or plan: {error}"))),
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed
        .map(Some)
        .map_err(|error| NotUnderstood(format!("the state or plan is not readable: {error}")))
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), NotUnderstood> {
    let failed =
        |error: &dyn std::fmt::Display| NotUnderstood(format!("cannot write the state or plan: {error}"));
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| failed(&error))?;
    std::fs::write(path, bytes).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("main.tf"), text).unwrap();
        let planned = plan(folder.path(), &[], &[], false, &file("state"), &file("plan"));
        planned.unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_understood_is_named_by_file_and_line() {
        for (text, said) in [
            (
                "\nresource \"aws_instance\" \"a\" {}\n",
                "main.tf:2: block \"resource aws_instance a\" is not understood",
            ),
            (
                "resource \"terraform_data\" \"a\" {\n  count = 2\n}\n",
                "main.tf:2: argument \"count\" is not understood",
            ),
            (
                "output \"a\" {\n  value = upper(\"a\")\n}\n",
                "main.tf:2: only literals, templates and references",
            ),
            (
                "output \"a\" {\n  value = var.b\n}\n",
                "main.tf:2: var.b is not declared",
            ),
            (
                "variable \"b\" {}\noutput \"a\" {\n  value = var.b\n}\n",
                "main.tf:3: var.b has no value",
            ),
            (
                "locals {\n  a = local.b\n  b = local.a\n}\noutput \"a\" {\n  value = local.a\n}\n",
                "main.tf:2: local.b",
            ),
            ("output \"a\" {", "main.tf:1: "),
        ] {
            let refusal = refusal(text);
            assert!(
                refusal.starts_with(said)
                    || (said.ends_with("local.b") && refusal.contains("depends on itself")),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_plan_that_the_state_has_left_behind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("main.tf"), "resource \"terraform_data\" \"a\" {}\n").unwrap();
        plan(folder.path(), &[], &[], false, &file("state"), &file("plan")).unwrap();
        apply(folder.path(), &file("state"), &file("plan")).unwrap();
        let again = apply(folder.path(), &file("state"), &file("plan")).unwrap_err();
        assert!(again.to_string().contains("stale"), "{again}");
    }
}
