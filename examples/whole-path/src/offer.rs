//! A caller's crate builds in a lab that reaches nothing outside: what it depends on has to be there.

use crate::project::invalid;
use std::path::{Path, PathBuf};
use towpath_elements::Result;

/// Puts what a crate of the caller's depends on into the lab's public source, from what this machine's cargo has: the lab
/// reaches nothing outside.
///
/// # Errors
/// *Invalid* where cargo cannot say or has not what the crate needs.
pub(crate) async fn offer_dependencies(library: &Path, lab: &towpath_lab::Lab) -> Result<()> {
    let output = tokio::process::Command::new("cargo")
        .current_dir(library)
        .args(["metadata", "--format-version", "1"])
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .map_err(|error| invalid(library, error).advise("install Rust"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(invalid(library, format!("cargo cannot read it: {}", said.trim())));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| invalid(library, error))?;
    let text = |package: &serde_json::Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let wanted: Vec<(String, String)> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|package| package["source"].is_string())
        .map(|package| (text(package, "name"), text(package, "version")))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    // What cargo could resolve it can fetch: the files are then on this machine.
    let fetched = tokio::process::Command::new("cargo")
        .current_dir(library)
        .arg("fetch")
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .map_err(|error| invalid(library, error))?;
    if !fetched.status.success() {
        let said = String::from_utf8_lossy(&fetched.stderr);
        return Err(invalid(
            library,
            format!("cargo cannot fetch what it depends on: {}", said.trim()),
        ));
    }
    let missing = lab
        .codeartifact()
        .seed_from_cargo_home(&cargo_home(), &wanted)
        .map_err(|error| invalid(library, error))?;
    match missing.as_slice() {
        [] => Ok(()),
        some => {
            let list: Vec<String> = some
                .iter()
                .map(|(name, version)| format!("{name} {version}"))
                .collect();
            Err(invalid(
                library,
                format!("cargo has no file of {}", list.join(", ")),
            ))
        }
    }
}

fn cargo_home() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_default().join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}
