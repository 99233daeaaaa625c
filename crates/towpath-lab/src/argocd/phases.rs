//! The order in which a sync does its work: phases and waves, by the annotations of the manifests (`sync-waves.md` and
//! `resource_hooks.md` of Argo CD's user guide; `pkg/sync` of its engine).

use super::cluster::{Key, Object};
use serde_json::Value;
use std::collections::BTreeSet;

const HOOK: &str = "argocd.argoproj.io/hook";
const DELETE_POLICY: &str = "argocd.argoproj.io/hook-delete-policy";
const WAVE: &str = "argocd.argoproj.io/sync-wave";

/// A phase of a sync, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    PreSync,
    Sync,
    PostSync,
    SyncFail,
}

impl Phase {
    const ALL: [Self; 4] = [Self::PreSync, Self::Sync, Self::PostSync, Self::SyncFail];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PreSync => "PreSync",
            Self::Sync => "Sync",
            Self::PostSync => "PostSync",
            Self::SyncFail => "SyncFail",
        }
    }
}

/// One thing to apply or to prune.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub(super) key: Key,
    /// What to apply; `None` to prune what is there.
    pub(super) manifest: Option<Value>,
    pub(super) phase: Phase,
    pub(super) wave: i64,
    pub(super) is_hook: bool,
}

fn annotation<'v>(manifest: &'v Value, name: &str) -> &'v str {
    let annotations = manifest.pointer("/metadata/annotations");
    annotations
        .and_then(|annotations| annotations.get(name)?.as_str())
        .unwrap_or_default()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// Whether a manifest is a hook, or is to be skipped: it is then not compared.
pub(super) fn is_hook(manifest: &Value) -> bool {
    !annotation(manifest, HOOK).is_empty()
}

/// Whether a hook is deleted when this has come of it: `HookSucceeded` or `HookFailed`.
pub(super) fn is_deleted_after(manifest: &Value, result: &str) -> bool {
    words(annotation(manifest, DELETE_POLICY)).any(|policy| policy == result)
}

/// The wave of a manifest; 0 where it does not say, or nothing that can be read.
pub(super) fn wave(manifest: &Value) -> i64 {
    annotation(manifest, WAVE).parse().unwrap_or(0)
}

/// What a sync does, in its order. Without `hooks`, the hooks are left out. What is `extra` in the cluster is pruned in
/// the last wave of the sync phase.
pub(super) fn plan(objects: &[(Key, Value)], extra: &[Object], hooks: bool) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (key, manifest) in objects {
        let phases: BTreeSet<Phase> = match is_hook(manifest) {
            false => [Phase::Sync].into(),
            true if !hooks => continue,
            true => Phase::ALL
                .into_iter()
                .filter(|phase| words(annotation(manifest, HOOK)).any(|word| word == phase.name()))
                .collect(),
        };
        tasks.extend(phases.into_iter().map(|phase| Task {
            key: key.clone(),
            manifest: Some(manifest.clone()),
            phase,
            wave: wave(manifest),
            is_hook: is_hook(manifest),
        }));
    }
    let in_sync = tasks.iter().filter(|task| task.phase == Phase::Sync);
    let last = in_sync.map(|task| task.wave).max().unwrap_or(0);
    tasks.extend(extra.iter().map(|object| Task {
        key: object.key.clone(),
        manifest: None,
        phase: Phase::Sync,
        wave: last,
        is_hook: false,
    }));
    // The order within a wave stays that of the manifests.
    tasks.sort_by_key(|task| (task.phase, task.wave));
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, annotations: Value) -> (Key, Value) {
        let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "annotations": annotations}});
        (Key::of(&manifest, "shop").unwrap(), manifest)
    }

    #[test]
    fn phases_and_waves_give_the_order() {
        let objects = [
            object("after", json!({(HOOK): "PostSync"})),
            object("second", json!({(WAVE): "1"})),
            object("first", json!({(WAVE): "-1"})),
            object("plain", json!({})),
            object("odd", json!({(WAVE): "soon"})),
            object("both", json!({(HOOK): "PreSync, SyncFail"})),
            object("never", json!({(HOOK): "Skip"})),
        ];
        let order = |hooks| -> Vec<(Phase, i64, String)> {
            plan(&objects, &[], hooks)
                .into_iter()
                .map(|task| (task.phase, task.wave, task.key.name))
                .collect()
        };
        let of = |phase, wave, name: &str| (phase, wave, name.to_owned());
        let plain = [
            of(Phase::Sync, -1, "first"),
            of(Phase::Sync, 0, "plain"),
            of(Phase::Sync, 0, "odd"),
            of(Phase::Sync, 1, "second"),
        ];
        assert_eq!(order(false), plain);
        let mut whole = vec![of(Phase::PreSync, 0, "both")];
        whole.extend(plain);
        whole.extend([of(Phase::PostSync, 0, "after"), of(Phase::SyncFail, 0, "both")]);
        assert_eq!(order(true), whole);
    }

    #[test]
    fn hooks_say_when_they_go() {
        let (_, hook) = object(
            "a",
            json!({(HOOK): "Sync", (DELETE_POLICY): "HookSucceeded,BeforeHookCreation"}),
        );
        assert!(is_hook(&hook) && is_deleted_after(&hook, "HookSucceeded"));
        assert!(!is_deleted_after(&hook, "HookFailed"));
        assert!(!is_hook(&object("b", json!({})).1));
    }
}
