//! The source hydrator: it renders what people commit, and commits the result to the branch that is synchronised
//! (`controller/hydrator` and `commitserver` of Argo CD).

use super::Shared;
use super::model::{Application, Hydrated, Hydration, HydratorSpec};
use serde_json::{Value, json};

/// Hydrates the newest dry commit, unless that is done; `hard` does it again. Says whether there is a new result. What goes
/// wrong stands in the status.
pub(super) async fn run(shared: &Shared, app: &Application, hard: bool) -> bool {
    let Some(spec) = &app.spec.source_hydrator else {
        return false;
    };
    let dry = &spec.dry_source;
    let resolved = shared.repos.resolve_anew(dry, dry.target()).await;
    let done = app.status.source_hydrator.last_successful_operation.as_ref();
    if let (Ok(sha), Some(done), false) = (&resolved, done, hard)
        && done.dry_sha == *sha
        && done.source_hydrator == *spec
    {
        return false;
    }
    let current = Hydration {
        dry_sha: resolved.clone().unwrap_or_default(),
        started_at: shared.clock.now().to_string(),
        phase: "Hydrating".into(),
        source_hydrator: spec.clone(),
        ..Hydration::default()
    };
    show(shared, app, current.clone());
    let result = match resolved {
        Ok(sha) => hydrate(shared, spec, &sha).await,
        Err(why) => Err(format!("Failed to resolve dry source: {why}")),
    };
    let finished_at = Some(shared.clock.now().to_string());
    let succeeded = result.is_ok();
    show(
        shared,
        app,
        match result {
            Ok(hydrated_sha) => Hydration {
                hydrated_sha,
                finished_at,
                phase: "Hydrated".into(),
                ..current
            },
            Err(message) => Hydration {
                finished_at,
                phase: "Failed".into(),
                message,
                ..current
            },
        },
    );
    succeeded
}

fn show(shared: &Shared, app: &Application, current: Hydration) {
    shared.store.update(&app.metadata.name, |app| {
        let status = &mut app.status.source_hydrator;
        if current.phase == "Hydrated" {
            status.last_successful_operation = Some(Hydrated {
                dry_sha: current.dry_sha.clone(),
                hydrated_sha: current.hydrated_sha.clone(),
                source_hydrator: current.source_hydrator.clone(),
                ..Hydrated::default()
            });
        }
        status.current_operation = Some(current);
    });
}

async fn hydrate(shared: &Shared, spec: &HydratorSpec, dry_sha: &str) -> Result<String, String> {
    let (dry, target) = (&spec.dry_source, &spec.sync_source);
    let rendered = shared.repos.render(dry, dry_sha, false).await?;
    let manifests = rendered
        .objects
        .iter()
        .map(serde_yaml_ng::to_string)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("a manifest cannot be written: {error}"))?;
    let metadata: Value = json!({"repoURL": dry.repo_url, "drySha": dry_sha});
    let folder = target.path.trim_matches('/');
    if folder.is_empty() || folder.split('/').any(|part| part == "..") {
        return Err("the path of the sync source must be below the root of the repository".into());
    }
    // The first file decides whether anything has changed: an unchanged result makes no commit, as since 3.3.
    let files = [
        (format!("{folder}/manifest.yaml"), manifests.join("---\n")),
        (format!("{folder}/hydrator.metadata"), format!("{metadata:#}\n")),
    ];
    let message = format!("{dry_sha}: hydrate");
    shared
        .repos
        .commit(&dry.repo_url, &target.target_branch, &files, &message)
        .await
}
