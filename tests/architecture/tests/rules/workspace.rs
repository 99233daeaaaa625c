//! What the rules are held against: the workspace as cargo sees it, and its files.

use cargo_metadata::{Metadata, MetadataCommand, Package};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate stands two folders below the root")
        .to_owned()
}

/// What `cargo metadata` says of the workspace's own packages. The registry is not asked.
pub(crate) fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata")
}

/// The packages below `crates/`.
pub(crate) fn crates(metadata: &Metadata) -> Vec<&Package> {
    let folder = root().join("crates");
    metadata
        .packages
        .iter()
        .filter(|package| package.manifest_path.as_std_path().starts_with(&folder))
        .collect()
}

/// Everything that a normal build of these packages takes, as `name version`. It comes from `cargo tree`: other than
/// the resolve graph of `cargo metadata`, it leaves out the features that only tests switch on.
pub(crate) fn normal_build(arguments: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(arguments)
        .output()
        .expect("cargo tree runs");
    assert!(
        output.status.success(),
        "cargo tree {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("cargo tree writes UTF-8")
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some(format!(
                "{} {}",
                words.next()?,
                words.next()?.trim_start_matches('v')
            ))
        })
        .collect()
}

/// Every package in `Cargo.lock`, as `name version`.
pub(crate) fn locked() -> Vec<String> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let value = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
    let mut packages = Vec::new();
    let mut name = String::new();
    for line in lock.lines() {
        if line.starts_with("name = ") {
            name = value(line);
        } else if line.starts_with("version = ") && !name.is_empty() {
            packages.push(format!("{} {}", std::mem::take(&mut name), value(line)));
        }
    }
    assert!(packages.len() > 100, "Cargo.lock could not be read");
    packages
}

/// Every Rust file of ours, by its path from the root with `/`, and its text.
pub(crate) fn rust_files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["crates", "examples", "tests"] {
        collect(&root().join(folder), &mut files);
    }
    files.sort();
    files
}

fn collect(folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "target" {
            collect(&path, files);
        } else if name.ends_with(".rs") {
            let from_root = path.strip_prefix(root()).expect("below the root");
            let parts: Vec<_> = from_root.iter().map(|part| part.to_string_lossy()).collect();
            files.push((
                parts.join("/"),
                std::fs::read_to_string(&path).expect("a source file"),
            ));
        }
    }
}
