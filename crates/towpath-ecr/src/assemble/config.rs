//! Changing an image's configuration (*OCI Image Format Specification*, `config.md`). It is edited as JSON, so that
//! what this version has no words for (a health check, a shell) stays as the base has it.

use super::{SERVICE, invalid};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use towpath_core::ImageRef;
use towpath_elements::registry::ConfigChange;
use towpath_elements::{Error, ErrorKind, Result};

/// Reads a configuration and checks that it describes as many layers as the manifest has.
pub(super) fn read(bytes: &[u8], layers: usize, image: &ImageRef) -> Result<Value> {
    let broken = |detail: String| {
        Error::new(ErrorKind::Protocol, SERVICE, "read the configuration of", image).because(detail)
    };
    let mut config: Value =
        serde_json::from_slice(bytes).map_err(|error| broken(format!("it is not JSON: {error}")))?;
    let Some(diff_ids) = config.pointer("/rootfs/diff_ids").and_then(Value::as_array) else {
        return Err(invalid("use the image", image)
            .because("its configuration has no rootfs.diff_ids: it is an artifact, not an image"));
    };
    if diff_ids.len() != layers {
        let found = diff_ids.len();
        return Err(broken(format!(
            "it describes {found} layers, the manifest has {layers}"
        )));
    }
    // A history that does not fit the layers cannot be carried on: without one, every reader is content.
    let described = config.get("history").and_then(Value::as_array).map(|history| {
        let has_layer = |entry: &&Value| entry.get("empty_layer") != Some(&Value::Bool(true));
        history.iter().filter(has_layer).count()
    });
    if let Some(object) = config.as_object_mut()
        && described != Some(layers)
    {
        object.remove("history");
        if layers == 0 {
            object.insert("history".into(), json!([]));
        }
    }
    Ok(config)
}

/// Describes further layers.
pub(super) fn append(config: &mut Value, diff_ids: Vec<Value>, history: Vec<Value>) {
    if let Some(list) = config
        .pointer_mut("/rootfs/diff_ids")
        .and_then(Value::as_array_mut)
    {
        list.extend(diff_ids);
    }
    if let Some(list) = config.get_mut("history").and_then(Value::as_array_mut) {
        list.extend(history);
    }
}

/// Applies what the caller changes.
pub(super) fn change(config: &mut Value, change: &ConfigChange, created: Timestamp) {
    let Some(top) = config.as_object_mut() else { return };
    top.insert("created".into(), json!(created.to_string()));
    // What Docker noted of the container that the base was built in is not true of this image.
    for key in ["container", "container_config", "id", "parent"] {
        top.remove(key);
    }
    with_object(top, "config", |run| change_run(run, change));
}

fn change_run(run: &mut Map<String, Value>, change: &ConfigChange) {
    if let Some(entrypoint) = &change.entrypoint {
        run.insert("Entrypoint".into(), json!(entrypoint));
        run.remove("Cmd");
    }
    if let Some(command) = &change.command {
        run.insert("Cmd".into(), json!(command));
    }
    if let Some(directory) = &change.working_directory {
        run.insert("WorkingDir".into(), json!(directory));
    }
    if let Some(user) = &change.user {
        run.insert("User".into(), json!(user));
    }
    if !change.environment.is_empty() {
        let old = run
            .get("Env")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let mut variables: Vec<String> = old
            .iter()
            .filter_map(|entry| entry.as_str().map(str::to_owned))
            .collect();
        for (name, value) in &change.environment {
            let entry = format!("{name}={value}");
            match variables
                .iter_mut()
                .find(|old| old.split('=').next() == Some(name))
            {
                Some(old) => *old = entry,
                None => variables.push(entry),
            }
        }
        run.insert("Env".into(), json!(variables));
    }
    if !change.labels.is_empty() {
        with_object(run, "Labels", |labels| {
            for (name, value) in &change.labels {
                labels.insert(name.clone(), json!(value));
            }
        });
    }
}

/// Changes the object at a key; an empty one where there is none.
fn with_object(parent: &mut Map<String, Value>, key: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut object = match parent.remove(key) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    };
    change(&mut object);
    parent.insert(key.to_owned(), Value::Object(object));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let bytes = json!({
            "architecture": "amd64", "os": "linux", "container": "x",
            "config": {
                "Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "Labels": {"a": "1"},
                "Healthcheck": {"Test": ["CMD", "true"]},
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
            "history": [{"created_by": "a"}, {"created_by": "b", "empty_layer": true}],
        })
        .to_string();
        let image: ImageRef = "quay.io/x/y".parse().unwrap();
        let mut config = read(bytes.as_bytes(), 1, &image).unwrap();
        append(
            &mut config,
            vec![json!("sha256:2")],
            vec![json!({"created_by": "c"})],
        );
        let wanted = ConfigChange {
            entrypoint: Some(vec!["/app/run".into()]),
            environment: [("A".to_owned(), "2".to_owned()), ("B".to_owned(), "3".to_owned())].into(),
            labels: [("b".to_owned(), "2".to_owned())].into(),
            user: Some("65532:65532".into()),
            ..ConfigChange::default()
        };
        change(&mut config, &wanted, Timestamp::UNIX_EPOCH);
        assert_eq!(
            config,
            json!({
                "architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
                "config": {
                    "Entrypoint": ["/app/run"], "Env": ["PATH=/bin", "A=2", "B=3"], "User": "65532:65532",
                    "Labels": {"a": "1", "b": "2"}, "Healthcheck": {"Test": ["CMD", "true"]},
                },
                "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:2"]},
                "history": [{"created_by": "a"}, {"created_by": "b", "empty_layer": true}, {"created_by": "c"}],
            })
        );
        assert!(
            read(bytes.as_bytes(), 2, &image)
                .unwrap_err()
                .to_string()
                .contains("describes 1 layers")
        );
        assert!(
            read(b"{}", 0, &image)
                .unwrap_err()
                .to_string()
                .contains("artifact")
        );
    }
}
