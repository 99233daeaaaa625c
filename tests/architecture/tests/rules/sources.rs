//! How the sources read.

use crate::workspace::rust_files;

/// Where code may pause by itself, and why. Everything else waits through `towpath_core::wait`.
const PAUSES: [(&str, &str); 13] = [
    (
        "crates/towpath-core/src/wait.rs",
        "it is the one place that waits",
    ),
    ("crates/towpath-http/src/", "retries of the shared transport"),
    (
        "crates/towpath-ecr/src/oci/",
        "retries of the registry's transport, and of a blob that was cut off",
    ),
    (
        "crates/towpath-ecr/src/pacing.rs",
        "the turns of a token bucket, in front of every request",
    ),
    (
        "crates/towpath-codeartifact/src/registry.rs",
        "retries of the package endpoint's transport",
    ),
    (
        "crates/towpath-argocd/src/watch.rs",
        "the pause before a stream is opened again",
    ),
    (
        "crates/towpath-argocd/src/hub.rs",
        "the moment in which listeners that come together gather for one stream",
    ),
    (
        "crates/towpath-argocd/src/wait/engine.rs",
        "the server's stream and the clock both wake it; it keeps to the deadline and the cancellation itself",
    ),
    (
        "crates/towpath-spacelift/src/logs.rs",
        "the pause between two looks at a log that is still being written",
    ),
    (
        "crates/towpath-actions/src/oidc.rs",
        "retries of the runner's token endpoint",
    ),
    (
        "crates/towpath-flow/src/runner.rs",
        "a flow's own sleep, which outlasts a restart",
    ),
    ("crates/towpath-lab/", "it plays services that take their time"),
    (
        "crates/towpath-testkit/",
        "it plays services that take their time",
    ),
];

/// Files of more than 600 lines, and why they are one file.
const LONG: [(&str, &str); 8] = [
    (
        "crates/towpath-argocd/src/wire.rs",
        "the service's documents, one type after the other; nothing to hold in mind",
    ),
    (
        "crates/towpath-argocd/src/judge.rs",
        "one judgement, whose guards stand in the order in which a deployment comes to be",
    ),
    (
        "crates/towpath-argocd/src/judge/tests.rs",
        "the race catalogue: a list of independent tests",
    ),
    (
        "crates/towpath-codeartifact/tests/lab.rs",
        "a list of independent tests",
    ),
    (
        "crates/towpath-github/tests/client.rs",
        "a list of independent tests",
    ),
    (
        "crates/towpath-github/tests/lab.rs",
        "a list of independent tests",
    ),
    ("crates/towpath-lab/tests/ecr.rs", "a list of independent tests"),
    (
        "crates/towpath-lab/tests/ecr_v2.rs",
        "a list of independent tests",
    ),
];

const MOST_LINES: usize = 600;

#[test]
fn only_named_places_pause() {
    for (path, text) in rust_files() {
        let is_source = path.contains("/src/") && !path.starts_with("tests/");
        if !is_source || PAUSES.iter().any(|(place, _)| path.starts_with(place)) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (index, line) in code.lines().enumerate() {
            let pauses =
                line.contains("time::") && line.contains("sleep") && !line.trim_start().starts_with("//");
            assert!(
                !pauses,
                "{path}:{}: pauses by itself: wait with towpath_core::wait, which has a deadline, says what it waits for \
                 and can be cancelled; or add the file to PAUSES with a reason",
                index + 1
            );
        }
    }
}

#[test]
fn files_are_short() {
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        assert!(
            lines <= MOST_LINES || LONG.iter().any(|(long, _)| *long == path),
            "{path} has {lines} lines: split it where its reader would pause (most files stay under 300), or add it to \
             LONG with a reason"
        );
    }
}

#[test]
fn modules_say_what_they_are_for() {
    for (path, text) in rust_files() {
        let is_ours = path.starts_with("crates/") && path.contains("/src/");
        let first = text
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        let says = first.starts_with("//!") || first.starts_with("#![doc = include_str!");
        let is_tests = path.ends_with("tests.rs") || path.contains("/tests/");
        assert!(
            !is_ours || is_tests || says,
            "{path}: begin it with a //! line that says what it is for, and which document of the service it follows"
        );
    }
}

#[test]
fn every_crate_takes_the_lints() {
    for package in crate::workspace::crates(&crate::workspace::metadata()) {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} does not take the workspace's lints: add `[lints]` with `workspace = true`",
            package.name,
        );
    }
}
