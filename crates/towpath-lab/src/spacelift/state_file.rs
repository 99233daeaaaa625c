//! Reads a Terraform state file (version 4): what is applied, and the outputs.

use super::world::{Applied, AppliedResource, Output};
use serde_json::Value;
use std::path::Path;

/// What the state file at `path` says; nothing where there is none.
pub(super) fn read(path: &Path) -> Result<Applied, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Applied::default()),
        Err(error) => return Err(format!("cannot read the state file: {error}")),
    };
    let state: Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("the state file is not JSON: {error}"))?;
    Ok(parse(&state))
}

fn parse(state: &Value) -> Applied {
    let mut applied = Applied::default();
    for resource in state["resources"].as_array().into_iter().flatten() {
        if resource["mode"] != "managed" {
            continue;
        }
        let text = |key: &str| resource[key].as_str().unwrap_or_default();
        let module = resource["module"]
            .as_str()
            .map_or_else(String::new, |module| format!("{module}."));
        for instance in resource["instances"].as_array().into_iter().flatten() {
            let key = match &instance["index_key"] {
                Value::Null => String::new(),
                key => format!("[{key}]"),
            };
            applied.resources.push(AppliedResource {
                address: format!("{module}{}.{}{key}", text("type"), text("name")),
                kind: text("type").to_owned(),
                values: plain(&instance["attributes"]),
            });
        }
    }
    applied.resources.sort_by(|a, b| a.address.cmp(&b.address));
    for (name, output) in state["outputs"].as_object().into_iter().flatten() {
        let output = Output {
            value: output["value"].clone(),
            sensitive: output["sensitive"] == true,
        };
        applied.outputs.insert(name.clone(), output);
    }
    applied
}

/// Attributes of a dynamic type stand in the file as `{"value": …, "type": …}`; only the value is kept.
fn plain(attributes: &Value) -> Value {
    let Some(fields) = attributes.as_object() else {
        return attributes.clone();
    };
    let unwrap = |value: &Value| match value.as_object() {
        Some(object) if object.len() == 2 && object.contains_key("type") && object.contains_key("value") => {
            object["value"].clone()
        }
        _ => value.clone(),
    };
    fields
        .iter()
        .map(|(name, value)| (name.clone(), unwrap(value)))
        .collect()
}
