//! What a worker plans and applies with: the real `terraform` or `tofu`, or the built-in planner.

use super::config::Planner;
use super::planner;
use super::run::{Change, Delta, Plan};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

/// The tool, found once.
#[derive(Clone, Debug)]
pub(super) enum Engine {
    Program(PathBuf),
    BuiltIn,
}

/// One run's checkout.
#[derive(Clone)]
pub(super) struct Workspace {
    /// The clone, and beside it what belongs to the run alone.
    pub(super) folder: PathBuf,
    /// The stack's folder in the repository.
    pub(super) project_root: String,
    pub(super) environment: Vec<(String, String)>,
}

/// Takes one line of log.
pub(super) type Log<'a> = &'a (dyn Fn(&str) + Send + Sync);

impl Workspace {
    pub(super) fn checkout(&self) -> PathBuf {
        self.folder.join("source")
    }

    pub(super) fn root(&self) -> PathBuf {
        self.checkout().join(&self.project_root)
    }

    /// Terraform's local state; copied in before a plan and out after an apply.
    pub(super) fn state(&self) -> PathBuf {
        self.root().join("terraform.tfstate")
    }

    fn plan(&self) -> PathBuf {
        self.folder.join("run.tfplan")
    }
}

impl Engine {
    pub(super) fn find(planner: Planner) -> Self {
        if planner == Planner::BuiltIn {
            return Self::BuiltIn;
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        ["terraform", "tofu"]
            .iter()
            .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
            .find(|program| is_program(program))
            .map_or(Self::BuiltIn, Self::Program)
    }

    pub(super) async fn init(&self, workspace: &Workspace, log: Log<'_>) -> Result<(), String> {
        match self {
            Self::Program(program) => {
                let code = run(program, &["init", "-input=false", "-no-color"], workspace, log).await?;
                expect(code == 0, "init", code)
            }
            Self::BuiltIn => {
                log(planner::NOTICE);
                planner::init(&workspace.root()).map_err(|error| error.to_string())
            }
        }
    }

    pub(super) async fn plan(
        &self,
        workspace: &Workspace,
        targets: &[String],
        destroy: bool,
        log: Log<'_>,
    ) -> Result<Plan, String> {
        let plan_file = workspace.plan();
        let Self::Program(program) = self else {
            log(planner::NOTICE);
            let (root, state) = (workspace.root(), workspace.state());
            let plan = planner::plan(
                &root,
                &workspace.environment,
                targets,
                destroy,
                &state,
                &plan_file,
            );
            let plan = plan.map_err(|error| error.to_string())?;
            for change in &plan.changes {
                log(&format!("{:>8} {}", change.action.to_lowercase(), change.address));
            }
            let Delta {
                add, change, delete, ..
            } = plan.delta;
            log(&format!(
                "Plan: {add} to add, {change} to change, {delete} to destroy."
            ));
            return Ok(plan);
        };
        let out = format!("-out={}", plan_file.display());
        let targets: Vec<String> = targets.iter().map(|target| format!("-target={target}")).collect();
        let mut arguments = vec!["plan", &out, "-input=false", "-no-color", "-detailed-exitcode"];
        arguments.extend(destroy.then_some("-destroy"));
        arguments.extend(targets.iter().map(String::as_str));
        let code = run(program, &arguments, workspace, log).await?;
        expect(code == 0 || code == 2, "plan", code)?;
        let mut show = command(program, workspace);
        let shown = show
            .args(["show", "-json", "-no-color"])
            .arg(&plan_file)
            .output()
            .await;
        let shown = shown.map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        expect(shown.status.success(), "show", shown.status.code().unwrap_or(-1))?;
        let shown = serde_json::from_slice(&shown.stdout);
        let shown: Value = shown.map_err(|error| format!("the plan is not JSON: {error}"))?;
        Ok(summary(&shown, code == 2))
    }

    pub(super) async fn apply(&self, workspace: &Workspace, log: Log<'_>) -> Result<(), String> {
        let plan_file = workspace.plan();
        match self {
            Self::Program(program) => {
                let plan_file = plan_file.display().to_string();
                let arguments = ["apply", "-input=false", "-no-color", &plan_file];
                let code = run(program, &arguments, workspace, log).await?;
                expect(code == 0, "apply", code)
            }
            Self::BuiltIn => {
                log(planner::NOTICE);
                planner::apply(&workspace.root(), &workspace.state(), &plan_file)
                    .map_err(|error| error.to_string())?;
                log("Apply complete!");
                Ok(())
            }
        }
    }
}

fn expect(good: bool, phase: &str, code: i32) -> Result<(), String> {
    if good {
        Ok(())
    } else {
        Err(format!("{phase} ended with exit code {code}"))
    }
}

/// Reads `terraform show -json` of a plan: resources by what happens to them.
fn summary(shown: &Value, has_changes: bool) -> Plan {
    let mut plan = Plan {
        has_changes,
        ..Plan::default()
    };
    for resource in shown["resource_changes"].as_array().into_iter().flatten() {
        if resource["mode"] != "managed" {
            continue;
        }
        let actions = resource["change"]["actions"].as_array().into_iter().flatten();
        let actions: Vec<&str> = actions.filter_map(Value::as_str).collect();
        let (creates, deletes) = (actions.contains(&"create"), actions.contains(&"delete"));
        let updates = actions.contains(&"update");
        plan.delta.add += i64::from(creates);
        plan.delta.change += i64::from(updates);
        plan.delta.delete += i64::from(deletes);
        plan.delta.resources += i64::from(creates || !deletes);
        let action = match (creates, deletes, updates) {
            (true, true, _) => "REPLACE",
            (true, false, _) => "ADD",
            (false, true, _) => "DELETE",
            (false, false, true) => "CHANGE",
            (false, false, false) => continue,
        };
        plan.changes.push(Change {
            address: resource["address"].as_str().unwrap_or_default().to_owned(),
            action,
        });
    }
    plan.changes.sort_by(|a, b| a.address.cmp(&b.address));
    plan
}

/// The program in the project root, with nothing of this process's environment but the `PATH`.
fn command(program: &Path, workspace: &Workspace) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(workspace.root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", &workspace.folder)
        .env("TF_IN_AUTOMATION", "1")
        .env("TF_INPUT", "0")
        .env("CHECKPOINT_DISABLE", "1")
        .envs(workspace.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs it, logs what it writes line by line, and returns its exit code.
async fn run(program: &Path, arguments: &[&str], workspace: &Workspace, log: Log<'_>) -> Result<i32, String> {
    let failed = |error: std::io::Error| format!("cannot run {}: {error}", program.display());
    let mut child = command(program, workspace)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err, status) = tokio::join!(copy(out, log), copy(err, log), child.wait());
    out.and(err).map_err(failed)?;
    Ok(status.map_err(failed)?.code().unwrap_or(-1))
}

async fn copy(from: Option<impl AsyncRead + Unpin>, log: Log<'_>) -> std::io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    let mut lines = BufReader::new(from).split(b'\n');
    while let Some(line) = lines.next_segment().await? {
        log(&String::from_utf8_lossy(&line));
    }
    Ok(())
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}
