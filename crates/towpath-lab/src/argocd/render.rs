//! From the files of a commit to the objects they describe: a plain folder of manifests, or a `kustomization.yaml`
//! that uses `resources` and `images`. Everything else is refused by name, never guessed.

use super::git::Files;
use super::model::{Directory, Source};
use serde::Deserialize as _;
use serde_json::Value;

/// What a folder describes.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    pub(super) source_type: &'static str,
    pub(super) objects: Vec<Value>,
}

const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Renders `source.path` of these files.
pub(super) fn render(files: &Files, source: &Source) -> Result<Rendered, String> {
    supported(source)?;
    let folder =
        normal(&source.path).ok_or_else(|| format!("{}: app path is outside the repository", source.path))?;
    let prefix = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    if !files.keys().any(|path| path.starts_with(&prefix)) {
        return Err(format!("{}: app path does not exist", source.path));
    }
    if files.contains_key(&format!("{prefix}Chart.yaml")) {
        return Err(format!(
            "{}: Helm charts are not supported by the lab",
            source.path
        ));
    }
    if kustomization(files, &prefix).is_some() {
        let objects = kustomize(files, &folder, 0)?;
        return Ok(Rendered {
            source_type: "Kustomize",
            objects,
        });
    }
    Ok(Rendered {
        source_type: "Directory",
        objects: plain(files, &prefix, source.directory.as_ref())?,
    })
}

/// Takes the manifests of a chart as they are.
pub(super) fn chart(source: &Source, manifests: &str) -> Result<Rendered, String> {
    supported(source)?;
    Ok(Rendered {
        source_type: "Helm",
        objects: documents(&source.chart, manifests.as_bytes())?,
    })
}

fn supported(source: &Source) -> Result<(), String> {
    for tool in ["helm", "kustomize", "plugin", "ref"] {
        if source.rest.get(tool).is_some_and(|options| !options.is_null()) {
            return Err(format!("spec.source.{tool} is not supported by the lab"));
        }
    }
    Ok(())
}

fn plain(files: &Files, prefix: &str, directory: Option<&Directory>) -> Result<Vec<Value>, String> {
    if let Some(name) = directory.and_then(|directory| directory.rest.keys().next()) {
        return Err(format!(
            "spec.source.directory.{name} is not supported by the lab"
        ));
    }
    let recurse = directory.is_some_and(|directory| directory.recurse);
    let mut objects = Vec::new();
    for (path, bytes) in files {
        let Some(name) = path.strip_prefix(prefix) else {
            continue;
        };
        let manifest = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
        if manifest && (recurse || !name.contains('/')) {
            objects.extend(documents(path, bytes)?);
        }
    }
    Ok(objects)
}

fn kustomization<'f>(files: &'f Files, prefix: &str) -> Option<(String, &'f [u8])> {
    KUSTOMIZATIONS.iter().find_map(|name| {
        let path = format!("{prefix}{name}");
        files.get(&path).map(|bytes| (path, bytes.as_slice()))
    })
}

fn kustomize(files: &Files, folder: &str, depth: usize) -> Result<Vec<Value>, String> {
    let prefix = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    let (path, bytes) = kustomization(files, &prefix)
        .ok_or_else(|| format!("{folder}: unable to find a kustomization file"))?;
    if depth > 20 {
        return Err(format!("{path}: resources form a circle"));
    }
    let mut description = yaml(&path, bytes)?;
    let description = match &mut description[..] {
        [one] if one.is_object() => one,
        _ => return Err(format!("{path}: must be one YAML mapping")),
    };
    if let Some(field) = description
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.iter())
        .find_map(|(name, value)| {
            let known = ["apiVersion", "kind", "metadata", "resources", "images"].contains(&name.as_str());
            (!known && !value.is_null()).then_some(name)
        })
    {
        return Err(format!(
            "{path}: {field:?} is not supported by the lab; it knows resources and images"
        ));
    }
    let mut objects = Vec::new();
    for resource in list(description, "resources") {
        let resource = resource
            .as_str()
            .ok_or_else(|| format!("{path}: resources must be paths"))?;
        if resource.contains("://") {
            return Err(format!(
                "{path}: remote resource {resource} is not supported by the lab"
            ));
        }
        let target = normal(&format!("{prefix}{resource}"))
            .ok_or_else(|| format!("{path}: {resource} is outside the repository"))?;
        match files.get(&target) {
            Some(bytes) => objects.extend(documents(&target, bytes)?),
            None => objects.extend(kustomize(files, &target, depth + 1)?),
        }
    }
    for image in list(description, "images") {
        let name = image["name"]
            .as_str()
            .ok_or_else(|| format!("{path}: an image has no name"))?;
        for object in &mut objects {
            each_image(object, &mut |reference| replace(reference, name, image));
        }
    }
    Ok(objects)
}

fn list<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Calls `change` on every container's image, wherever a Pod is described.
fn each_image(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if (name == "containers" || name == "initContainers")
                    && let Value::Array(containers) = value
                {
                    for container in containers {
                        if let Some(Value::String(image)) = container.get_mut("image") {
                            change(image);
                        }
                    }
                } else {
                    each_image(value, change);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| each_image(value, change)),
        _ => {}
    }
}

/// Kustomize's image transformer: a new name, and a new tag or digest in place of the old ones.
fn replace(reference: &mut String, name: &str, image: &Value) {
    let (bare, suffix) = split_reference(reference);
    if bare != name {
        return;
    }
    let new_name = image["newName"].as_str().unwrap_or(bare);
    let text = |field: &str| image[field].as_str().filter(|text| !text.is_empty());
    *reference = match (text("newTag"), text("digest")) {
        (Some(tag), Some(digest)) => format!("{new_name}:{tag}@{digest}"),
        (None, Some(digest)) => format!("{new_name}@{digest}"),
        (Some(tag), None) => format!("{new_name}:{tag}"),
        (None, None) => format!("{new_name}{suffix}"),
    };
}

fn split_reference(reference: &str) -> (&str, &str) {
    let end = reference.find('@').unwrap_or(reference.len());
    let start = reference[..end].rfind('/').map_or(0, |slash| slash + 1);
    let end = reference[start..end].find(':').map_or(end, |colon| start + colon);
    reference.split_at(end)
}

/// The objects of one file; an empty document is none, and a `List` is its items.
fn documents(path: &str, bytes: &[u8]) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for mut document in yaml(path, bytes)? {
        match &mut document {
            Value::Null => continue,
            Value::Object(fields) => {
                fields.remove("status");
            }
            _ => return Err(format!("{path}: a document is not a mapping")),
        }
        let is_list = document["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("List"));
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if is_list => objects.extend(items),
            Some(items) => {
                document["items"] = items;
                objects.push(document);
            }
            None => objects.push(document),
        }
    }
    Ok(objects)
}

fn yaml(path: &str, bytes: &[u8]) -> Result<Vec<Value>, String> {
    serde_yaml_ng::Deserializer::from_slice(bytes)
        .map(Value::deserialize)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("Failed to unmarshal {path:?}: {error}"))
}

/// A path without `.` and `..`; `None` where it leaves the repository.
fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn files(entries: &[(&str, &str)]) -> Files {
        entries
            .iter()
            .map(|(path, text)| ((*path).into(), text.as_bytes().to_vec()))
            .collect()
    }

    fn source(path: &str) -> Source {
        Source {
            path: path.into(),
            ..Source::default()
        }
    }

    #[test]
    fn a_kustomization_sets_images() {
        let files = files(&[
            (
                "prod/kustomization.yaml",
                "resources: [../base]\nimages:\n- name: web\n  newName: r:5000/shop/web\n  digest: sha256:ab\n",
            ),
            ("base/kustomization.yaml", "resources:\n- a.yaml\n"),
            (
                "base/a.yaml",
                "kind: A\nspec: {containers: [{image: 'web:1'}, {image: other}]}\n---\n---\nkind: B\n",
            ),
        ]);
        let rendered = render(&files, &source("./prod")).unwrap();
        assert_eq!(rendered.objects.len(), 2);
        assert_eq!(
            rendered.objects[0]["spec"]["containers"],
            json!([{"image": "r:5000/shop/web@sha256:ab"}, {"image": "other"}])
        );
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let files = files(&[
            ("k/kustomization.yaml", "namePrefix: x-\n"),
            ("h/Chart.yaml", "name: x\n"),
            ("loop/kustomization.yaml", "resources: [../loop]\n"),
            ("bad/a.yaml", "a: [1\n"),
            ("text/a.yaml", "just text\n"),
        ]);
        for (path, reason) in [
            ("k", "namePrefix"),
            ("h", "Helm"),
            ("loop", "circle"),
            ("bad", "unmarshal"),
            ("text", "mapping"),
            ("none", "does not exist"),
            ("../x", "outside"),
        ] {
            let error = render(&files, &source(path)).unwrap_err();
            assert!(error.contains(reason), "{path}: {error}");
        }
    }

    #[test]
    fn references_are_split() {
        for (reference, bare) in [
            ("a", "a"),
            ("a:1", "a"),
            ("h:5000/a", "h:5000/a"),
            ("h:5000/a:1@sha256:x", "h:5000/a"),
            ("a@sha256:x", "a"),
        ] {
            assert_eq!(split_reference(reference).0, bare);
        }
    }
}
