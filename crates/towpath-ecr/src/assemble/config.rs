//! Changing an image's configuration (*OCI Image Format Specification*, `config.md`). It is edited as JSON, so that
//! what this version has no words for (a health check, a shell) stays as the base has it.

use super::{SERVICE, invalid};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use towpath_core::ImageRef;
use towpath_elements::registry::{ConfigChange, Platform};
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

/// The configuration of an image that stands on nothing.
pub(super) fn scratch(platform: &Platform) -> Value {
    let mut config = json!({
        "os": platform.os,
        "architecture": platform.architecture,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
        "history": [],
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = json!(variant);
    }
    config
}

/// Refuses words that no runtime would understand.
pub(super) fn check(change: &ConfigChange) -> Result<()> {
    let bad = |word: &str, detail: &str| {
        Err(invalid("configure the image with", format!("{word:?}")).because(detail.to_owned()))
    };
    for name in change.environment.keys().chain(&change.remove_environment) {
        if name.is_empty() || name.contains(['=', '\0']) {
            return bad(name, "it is no name of an environment variable");
        }
    }
    if change.labels.contains_key("") {
        return bad("", "a label needs a name");
    }
    for port in &change.ports {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        if number.parse::<u16>().is_err() || !matches!(protocol, "tcp" | "udp" | "sctp") {
            return bad(
                port,
                "a port is a number up to 65535, with /tcp, /udp or /sctp behind it or nothing",
            );
        }
    }
    for volume in &change.volumes {
        if !volume.starts_with('/') && volume.get(1..3) != Some(":\\") {
            return bad(volume, "a volume is an absolute path in the image");
        }
    }
    match &change.stop_signal {
        Some(signal) if !signal.starts_with("SIG") && signal.parse::<u8>().is_err() => {
            bad(signal, "a signal is a name such as SIGTERM, or a number")
        }
        _ => Ok(()),
    }
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
    if !change.environment.is_empty() || !change.remove_environment.is_empty() {
        change_environment(run, change);
    }
    if !change.labels.is_empty() || !change.remove_labels.is_empty() {
        with_object(run, "Labels", |labels| {
            labels.retain(|name, _| !change.remove_labels.contains(name));
            labels.extend(
                change
                    .labels
                    .iter()
                    .map(|(name, value)| (name.clone(), json!(value))),
            );
        });
    }
    if !change.ports.is_empty() {
        with_object(run, "ExposedPorts", |ports| {
            for port in &change.ports {
                let protocol = if port.contains('/') { "" } else { "/tcp" };
                ports.insert(format!("{port}{protocol}"), json!({}));
            }
        });
    }
    if !change.volumes.is_empty() {
        with_object(run, "Volumes", |volumes| {
            volumes.extend(change.volumes.iter().map(|path| (path.clone(), json!({}))));
        });
    }
    if let Some(signal) = &change.stop_signal {
        run.insert("StopSignal".into(), json!(signal));
    }
}

fn change_environment(run: &mut Map<String, Value>, change: &ConfigChange) {
    let name_of = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut variables: Vec<String> = run
        .get("Env")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.as_str().map(str::to_owned))
        .filter(|entry| !change.remove_environment.contains(&name_of(entry)))
        .collect();
    for (name, value) in &change.environment {
        let entry = format!("{name}={value}");
        match variables.iter_mut().find(|old| name_of(old) == *name) {
            Some(old) => *old = entry,
            None => variables.push(entry),
        }
    }
    run.insert("Env".into(), json!(variables));
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
                "Env": ["PATH=/bin", "A=1", "C=1"], "Cmd": ["sh"], "Labels": {"a": "1"},
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
            remove_environment: ["C".to_owned()].into(),
            remove_labels: ["a".to_owned()].into(),
            ports: ["8080".to_owned(), "53/udp".to_owned()].into(),
            volumes: ["/data".to_owned()].into(),
            stop_signal: Some("SIGINT".into()),
            ..ConfigChange::default()
        };
        change(&mut config, &wanted, Timestamp::UNIX_EPOCH);
        assert_eq!(
            config,
            json!({
                "architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
                "config": {
                    "Entrypoint": ["/app/run"], "Env": ["PATH=/bin", "A=2", "B=3"], "User": "65532:65532",
                    "Labels": {"b": "2"}, "Healthcheck": {"Test": ["CMD", "true"]},
                    "ExposedPorts": {"8080/tcp": {}, "53/udp": {}}, "Volumes": {"/data": {}}, "StopSignal": "SIGINT",
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

    #[test]
    fn words_that_no_runtime_understands_are_refused() {
        let with = |edit: fn(&mut ConfigChange)| {
            let mut change = ConfigChange::default();
            edit(&mut change);
            check(&change).unwrap_err().to_string()
        };
        assert!(
            with(|change| drop(change.environment.insert("A=B".into(), String::new()))).contains("\"A=B\"")
        );
        assert!(with(|change| change.remove_environment = [String::new()].into()).contains("environment"));
        assert!(with(|change| drop(change.labels.insert(String::new(), String::new()))).contains("label"));
        assert!(with(|change| change.ports = ["65536".to_owned()].into()).contains("65536"));
        assert!(with(|change| change.ports = ["80/http".to_owned()].into()).contains("80/http"));
        assert!(with(|change| change.volumes = ["data".to_owned()].into()).contains("absolute"));
        assert!(with(|change| change.stop_signal = Some("TERM".into())).contains("SIGTERM"));
    }
}
