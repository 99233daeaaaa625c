//! Applications that are resources of another Application ("app of apps"): applying such a manifest makes one.
//!
//! The parent's health takes no notice of them, as since 1.8: an Application has no health as a resource.

use super::Shared;
use super::cluster::Key;
use super::model::{Application, Metadata};
use super::store::Level;
use serde_json::Value;
use std::sync::Arc;

/// The finalizer that makes a deletion take the resources along.
pub(super) const FINALIZER: &str = "resources-finalizer.argocd.argoproj.io";

pub(super) fn is_application(group: &str, kind: &str) -> bool {
    group == "argoproj.io" && kind == "Application"
}

/// Adds an Application, with the two loops that work on it; `Err` is one that is there already.
pub(super) fn add(shared: &Arc<Shared>, app: Application) -> Result<Arc<Application>, Arc<Application>> {
    let name = app.metadata.name.clone();
    let begun = shared.clone();
    shared.store.insert(app, |loops| {
        loops.ask(Level::ForceResolve);
        let (compared, operated) = (begun.clone(), begun.clone());
        let (one, other) = (name.clone(), name);
        let (first, second) = (loops.clone(), loops);
        begun.tasks.spawn_guarded(async move {
            tokio::join!(
                super::controller::run(compared, one, first),
                super::operation::run(operated, other, second)
            );
        })
    })
}

/// Makes the Application what its applied manifest says; nothing where the manifest is of another kind.
pub(super) fn applied(shared: &Arc<Shared>, manifest: &Value, key: &Key) -> Result<(), String> {
    if !is_application(&key.group, &key.kind) {
        return Ok(());
    }
    let wanted: Application = serde_json::from_value(manifest.clone())
        .map_err(|error| format!("Application.argoproj.io \"{}\" is invalid: {error}", key.name))?;
    if key.namespace != shared.config.namespace {
        // Applications in other namespaces are not enabled: nobody looks at it.
        return Ok(());
    }
    let Metadata {
        labels,
        annotations,
        finalizers,
        ..
    } = wanted.metadata;
    let app = Application {
        metadata: Metadata {
            name: key.name.clone(),
            namespace: key.namespace.clone(),
            labels: labels.clone(),
            annotations: annotations.clone(),
            finalizers: finalizers.clone(),
            ..Metadata::default()
        },
        spec: wanted.spec.clone(),
        ..Application::default()
    };
    if add(shared, app).is_err() {
        shared.store.update(&key.name, |app| {
            app.spec = wanted.spec;
            app.metadata.labels.extend(labels);
            app.metadata.annotations.extend(annotations);
            app.metadata.finalizers = finalizers;
        });
        if let Some(loops) = shared.store.loops(&key.name) {
            loops.ask(Level::Latest);
        }
    }
    Ok(())
}

/// Takes the Application away whose manifest is gone; with the finalizer its resources go along.
pub(super) fn deleted(shared: &Shared, key: &Key) {
    if !is_application(&key.group, &key.kind) || key.namespace != shared.config.namespace {
        return;
    }
    let Some(app) = shared.store.get(&key.name) else {
        return;
    };
    if app.metadata.finalizers.iter().any(|known| known == FINALIZER) {
        for object in shared.cluster.managed(&key.name) {
            shared.cluster.delete(&object.key);
            deleted(shared, &object.key);
        }
    }
    shared.store.remove(&key.name);
}
