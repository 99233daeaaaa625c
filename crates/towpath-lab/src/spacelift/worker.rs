//! The workers: each takes one run at a time of its pool, and clones, plans and applies for real.

use super::Shared;
use super::engine::Workspace;
use super::machine::apply_state;
use super::run::{Run, RunState, RunType};
use std::path::PathBuf;
use std::sync::Arc;

/// Why a phase did not go on.
enum Interrupted {
    Stopped,
    Failed(String),
}

/// Takes runs for ever.
pub(super) async fn work(shared: Arc<Shared>, pool: Option<String>, worker: String) {
    let mut changes = shared.changed.subscribe();
    loop {
        changes.mark_unchanged();
        let claimed = shared.update_if(|world| world.claim(pool.as_deref(), &worker));
        let Some(run) = claimed else {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::time::sleep(shared.config.delays.pickup).await;
        let done = execute(&shared, &run).await;
        shared.update(|world| {
            match done {
                Ok(()) => {}
                Err(Interrupted::Stopped) => world.transition(&run.id, RunState::Stopped, None, None),
                Err(Interrupted::Failed(reason)) => {
                    world.log(&run.id, &reason);
                    world.transition(&run.id, RunState::Failed, Some(reason), None);
                }
            }
            let pool = world.pool_mut(pool.as_deref());
            if let Some(worker) =
                pool.and_then(|pool| pool.workers.iter_mut().find(|known| known.id == worker))
            {
                worker.run = None;
            }
        });
        let ended = shared.read(|world| world.run(&run.id).is_some_and(|run| run.state().is_terminal()));
        let folder = shared.run_folder(&run.id);
        if ended
            && let Err(error) = tokio::fs::remove_dir_all(&folder).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "a finished run's folder stays");
        }
    }
}

async fn execute(shared: &Arc<Shared>, run: &Run) -> Result<(), Interrupted> {
    if run.state() == RunState::PreparingApply {
        phase(shared).await;
        shared.log(&run.id, "Fetching the workspace of the plan");
        shared.enter(&run.id, apply_state(run.kind));
        return apply(shared, run).await;
    }
    tokio::select! {
        planned = plan(shared, run) => planned?,
        () = stop_asked(shared, &run.id) => return Err(Interrupted::Stopped),
    }
    let now = shared.read(|world| world.run(&run.id).map(Run::state));
    if now == Some(apply_state(run.kind)) {
        return apply(shared, run).await;
    }
    Ok(())
}

/// From PREPARING (or PREPARING_REPLAN) to the plan.
async fn plan(shared: &Arc<Shared>, run: &Run) -> Result<(), Interrupted> {
    let failed = Interrupted::Failed;
    let log = |line: &str| shared.log(&run.id, line);
    phase(shared).await;
    if !run.missing_inputs.is_empty() {
        let missing = run.missing_inputs.join(", ");
        return Err(failed(format!(
            "job assignment failed: the following inputs are missing: {missing}"
        )));
    }
    let workspace = prepare(shared, run).await.map_err(failed)?;
    if run.state() == RunState::Preparing {
        shared.enter(&run.id, RunState::Initializing);
        phase(shared).await;
        shared.engine.init(&workspace, &log).await.map_err(failed)?;
    }
    shared.enter(&run.id, RunState::Planning);
    phase(shared).await;
    let destroy = run.kind == RunType::Destroy;
    let plan = shared
        .engine
        .plan(&workspace, &run.targets, destroy, &log)
        .await
        .map_err(failed)?;
    shared.update(|world| world.planned(&run.id, plan));
    Ok(())
}

/// Clones the commit where that has not been done, and brings the stack's state in.
async fn prepare(shared: &Arc<Shared>, run: &Run) -> Result<Workspace, String> {
    let stack = shared
        .read(|world| world.stack(&run.stack).cloned())
        .ok_or("the stack is gone")?;
    let folder = shared.run_folder(&run.id);
    let workspace = Workspace {
        folder: folder.clone(),
        project_root: run.project_root.clone().unwrap_or(stack.project_root),
        environment: run.environment.0.clone().into_iter().collect(),
    };
    let parts = std::path::Path::new(&workspace.project_root).components();
    if !parts
        .into_iter()
        .all(|part| matches!(part, std::path::Component::Normal(_)))
    {
        return Err(format!(
            "the project root {} leaves the repository",
            workspace.project_root
        ));
    }
    let checkout = workspace.checkout();
    if !checkout.exists() {
        shared.log(&run.id, &format!("Cloning {}", stack.repository));
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(|error| format!("cannot make the workspace: {error}"))?;
        let (git, repository) = (shared.git.clone(), stack.repository.clone());
        let branch = run.branch.clone().unwrap_or(stack.branch);
        let commit = run.commit.as_ref().map(|commit| commit.hash.clone());
        let cloned = tokio::task::spawn_blocking(move || {
            git.fetch(&repository, &branch, commit.as_deref(), &checkout)
        });
        let commit = cloned
            .await
            .map_err(|error| format!("the clone was cut off: {error}"))??;
        shared.log(&run.id, &format!("Checked out {}", commit.hash));
        shared.update(|world| {
            if let Some(run) = world.run_mut(&run.id) {
                let told = run.commit.take();
                run.commit = Some(super::run::Commit {
                    author_login: told.as_ref().and_then(|told| told.author_login.clone()),
                    url: told.and_then(|told| told.url),
                    ..commit
                });
                run.workspace = Some(folder);
            }
        });
    }
    if !workspace.root().is_dir() {
        return Err(format!("the commit has no folder {}", workspace.project_root));
    }
    let state = shared.state_file(&run.stack);
    if state.exists() {
        copy(state, workspace.state()).await?;
    }
    Ok(workspace)
}

/// Applies the plan, and takes the state out whether it worked or not.
async fn apply(shared: &Arc<Shared>, run: &Run) -> Result<(), Interrupted> {
    phase(shared).await;
    let root = shared.read(|world| world.stack(&run.stack).map(|stack| stack.project_root.clone()));
    let project_root = run.project_root.clone().or(root);
    let workspace = Workspace {
        folder: shared.run_folder(&run.id),
        project_root: project_root.ok_or_else(|| Interrupted::Failed("the stack is gone".into()))?,
        environment: run.environment.0.clone().into_iter().collect(),
    };
    let applied = shared
        .engine
        .apply(&workspace, &|line| shared.log(&run.id, line))
        .await;
    let state = shared.state_file(&run.stack);
    if workspace.state().exists() {
        copy(workspace.state(), state.clone())
            .await
            .map_err(Interrupted::Failed)?;
    }
    let left = super::state_file::read(&state).map_err(Interrupted::Failed)?;
    shared.update(|world| {
        if let Some(stack) = world.stack_mut(&run.stack) {
            stack.applied = left;
        }
        if applied.is_ok() {
            world.log(&run.id, "Changes applied, outputs uploaded");
            world.transition(&run.id, RunState::Finished, None, None);
        }
    });
    applied.map_err(Interrupted::Failed)
}

async fn phase(shared: &Shared) {
    tokio::time::sleep(shared.config.delays.phase).await;
}

async fn stop_asked(shared: &Shared, run: &str) {
    let mut changes = shared.changed.subscribe();
    while !shared.read(|world| world.run(run).is_some_and(|run| run.stop)) {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn copy(from: PathBuf, to: PathBuf) -> Result<(), String> {
    let done = tokio::fs::copy(&from, &to).await;
    done.map(drop)
        .map_err(|error| format!("cannot copy the state to {}: {error}", to.display()))
}
