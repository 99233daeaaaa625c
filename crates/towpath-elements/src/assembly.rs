//! What an image is made of: a base, layers, and a configuration.

use crate::registry::Platform;
use crate::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use towpath_core::ImageRef;

/// An image to be made.
///
/// ```
/// use towpath_elements::registry::{Assembly, Files, Layer, Platform};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let target = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/web:1.4".parse()?;
/// let mut assembly = Assembly::from_scratch(target, [Platform::linux("amd64"), Platform::linux("arm64")]);
/// let binaries = [
///     (Platform::linux("amd64"), "target/x86_64-unknown-linux-musl/release/web".into()),
///     (Platform::linux("arm64"), "target/aarch64-unknown-linux-musl/release/web".into()),
/// ];
/// assembly.layers = vec![Layer::files("assets", "/srv"), Layer::Files(Files::per_platform(binaries, "/bin/web"))];
/// assembly.config.entrypoint = Some(vec!["/bin/web".into()]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Assembly {
    /// Where it goes; the tag, where one is given, is set last.
    pub target: ImageRef,
    /// What it stands on, by digest, in a registry that the client can read; `None` for nothing at all (`scratch`).
    #[serde(default)]
    pub base: Option<ImageRef>,
    /// The platforms to make; empty makes every platform of the base. Without a base at least one must be named, and
    /// more than one makes an index.
    pub platforms: Vec<Platform>,
    /// What comes on top of the base, bottom first.
    pub layers: Vec<Layer>,
    /// What changes in the base's configuration.
    pub config: ConfigChange,
    /// Annotations of every manifest and the index, with the keys of the OCI image specification.
    pub annotations: BTreeMap<String, String>,
    /// The time written as the creation time, so that the same input gives the same digest.
    pub created: Timestamp,
    /// How layers of files are compressed that do not say so themselves.
    #[serde(default)]
    pub compression: Compression,
}

impl Assembly {
    /// An image on a base, given by digest, for every platform of it. Its creation time is 1970 until another is set.
    pub fn on(base: ImageRef, target: ImageRef) -> Self {
        Self {
            target,
            base: Some(base),
            platforms: Vec::new(),
            layers: Vec::new(),
            config: ConfigChange::default(),
            annotations: BTreeMap::new(),
            created: Timestamp::UNIX_EPOCH,
            compression: Compression::default(),
        }
    }

    /// An image on nothing, for these platforms. Its creation time is 1970 until another is set.
    pub fn from_scratch(target: ImageRef, platforms: impl IntoIterator<Item = Platform>) -> Self {
        Self {
            base: None,
            platforms: platforms.into_iter().collect(),
            ..Self::on(target.clone(), target)
        }
    }
}

/// One part of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Files of this machine. Times, order and owners are fixed.
    Files(Files),
    /// All layers of another image, given by digest, of the same platform where it has several.
    Image(ImageRef),
}

impl Layer {
    /// A folder or a file, put at a path in the image.
    pub fn files(from: impl Into<FilesFrom>, to: impl Into<String>) -> Self {
        Self::Files(Files::new(from, to))
    }
}

/// Files of this machine that become a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Files {
    /// The folder or the single file.
    pub from: FilesFrom,
    /// The absolute path in the image where the folder's content lies, or which the file has. A file whose path ends
    /// with `/` lies below it under its own name.
    pub to: String,
    /// What of a folder is left out: `*.map` is a name at any depth, `/target` and `docs/*.md` are paths below the
    /// folder. `*` and `?` stand within one name, `**` for any number of folders. What is left out of a folder is left
    /// out with everything in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// The user and the group, by number, that own all of it; 0 and 0 where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// The permissions of every file, such as `0o555`. Where `None` they are 755 for what can be executed, else 644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// The permissions of every folder; 755 where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder_mode: Option<u32>,
    /// The time of change that all of it gets, in whole seconds since 1970; 1970 itself where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
    /// How the layer is compressed; as the assembly says where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

impl Files {
    /// A folder or a file, put at a path in the image.
    pub fn new(from: impl Into<FilesFrom>, to: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            exclude: Vec::new(),
            owner: None,
            file_mode: None,
            folder_mode: None,
            modified: None,
            compression: None,
        }
    }

    /// A folder or a file for each platform, put at the same path: how binaries come into an image.
    pub fn per_platform(from: impl IntoIterator<Item = (Platform, PathBuf)>, to: impl Into<String>) -> Self {
        Self::new(FilesFrom::PerPlatform(from.into_iter().collect()), to)
    }

    /// Whether a path below the folder, with `/` between its names, is left out.
    pub fn excludes(&self, below: &str) -> bool {
        self.exclude.iter().any(|pattern| excludes(pattern, below))
    }

    /// Whether every pattern can be understood.
    ///
    /// # Errors
    /// *Invalid*, naming the pattern.
    pub fn check_patterns(&self) -> Result<()> {
        let bad = |pattern: &String| {
            pattern.trim_matches('/').is_empty() || pattern.contains(['[', ']', '{', '}', '!', '\\'])
        };
        match self.exclude.iter().find(|pattern| bad(pattern)) {
            None => Ok(()),
            Some(pattern) => {
                Err(
                    Error::new(ErrorKind::Invalid, "Towpath", "leave out", format!("{pattern:?}"))
                        .because("a pattern has names, *, ? and ** only"),
                )
            }
        }
    }
}

/// Where the files of a layer are on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FilesFrom {
    /// The same for every platform.
    Everywhere(PathBuf),
    /// Another one for each platform; a platform that is made and not named here is an error.
    PerPlatform(Vec<(Platform, PathBuf)>),
}

impl<T: AsRef<Path> + ?Sized> From<&T> for FilesFrom {
    fn from(path: &T) -> Self {
        Self::Everywhere(path.as_ref().to_owned())
    }
}

impl From<PathBuf> for FilesFrom {
    fn from(path: PathBuf) -> Self {
        Self::Everywhere(path)
    }
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Compression {
    /// Gzip, which everything reads.
    #[default]
    Gzip,
    /// Zstandard: smaller, and several times faster both ways. Read by containerd 1.5, Docker 23 and their successors.
    Zstd,
    /// None: for what is compressed already.
    None,
}

/// What changes in the configuration of the base. What is `None` or empty stays as the base has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// The program that runs. Setting it clears the base's arguments, as a Dockerfile's `ENTRYPOINT` does.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments.
    pub command: Option<Vec<String>>,
    /// Environment variables that are added or replaced.
    pub environment: BTreeMap<String, String>,
    /// Labels that are added or replaced.
    pub labels: BTreeMap<String, String>,
    /// The working directory.
    pub working_directory: Option<String>,
    /// The user, and the group behind a colon.
    pub user: Option<String>,
    /// Environment variables of the base that go away, before others are added.
    #[serde(default)]
    pub remove_environment: BTreeSet<String>,
    /// Labels of the base that go away, before others are added.
    #[serde(default)]
    pub remove_labels: BTreeSet<String>,
    /// Ports that are added, such as `8080` or `53/udp`.
    #[serde(default)]
    pub ports: BTreeSet<String>,
    /// Absolute paths that are added as volumes.
    #[serde(default)]
    pub volumes: BTreeSet<String>,
    /// The signal that asks a container to stop, such as `SIGINT`.
    #[serde(default)]
    pub stop_signal: Option<String>,
}

/// Whether a pattern of [`Files::exclude`] means this path.
fn excludes(pattern: &str, path: &str) -> bool {
    let names: Vec<&str> = path.split('/').collect();
    let anchored = pattern.trim_end_matches('/');
    if !anchored.contains('/') {
        return names.last().is_some_and(|name| is_like(anchored, name));
    }
    let parts: Vec<&str> = anchored.trim_start_matches('/').split('/').collect();
    leads_to(&parts, &names)
}

/// Whether the parts of a pattern stand for exactly these names. Each step back gives `**` one name more, so the work
/// is bounded by the product of both lengths.
fn leads_to(parts: &[&str], names: &[&str]) -> bool {
    wildcard(
        parts,
        names,
        |part| *part == "**",
        |part, name| is_like(part, name),
    )
}

/// Whether one name is like one part of a pattern.
fn is_like(part: &str, name: &str) -> bool {
    let (part, name): (Vec<char>, Vec<char>) = (part.chars().collect(), name.chars().collect());
    wildcard(&part, &name, |c| *c == '*', |c, found| *c == '?' || c == found)
}

fn wildcard<T>(
    pattern: &[T],
    items: &[T],
    is_any: impl Fn(&T) -> bool,
    fits: impl Fn(&T, &T) -> bool,
) -> bool {
    let (mut at, mut item) = (0, 0);
    // Where the last wildcard stands, and how many items it has taken.
    let mut back: Option<(usize, usize)> = None;
    while item < items.len() {
        if pattern.get(at).is_some_and(&is_any) {
            back = Some((at, item));
            at += 1;
        } else if pattern.get(at).is_some_and(|part| fits(part, &items[item])) {
            at += 1;
            item += 1;
        } else if let Some((star, taken)) = back {
            back = Some((star, taken + 1));
            at = star + 1;
            item = taken + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_names_or_paths() {
        for (pattern, path, wanted) in [
            ("*.map", "js/app.js.map", true),
            ("*.map", "js/app.js", false),
            ("target", "a/target", true),
            ("/target", "a/target", false),
            ("/target", "target", true),
            ("target/", "a/target", true),
            ("docs/*.md", "docs/a.md", true),
            ("docs/*.md", "docs/a/b.md", false),
            ("docs/**", "docs/a/b.md", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b/c", false),
            ("**/x/y", "q/x/y", true),
            ("?.txt", "ä.txt", true),
            ("?.txt", "ab.txt", false),
            ("a*a*a*a*b", &"a".repeat(200), false),
        ] {
            assert_eq!(excludes(pattern, path), wanted, "{pattern} {path}");
        }
        let mut files = Files::new("a", "/a");
        for bad in ["", "/", "[ab]", "!a", "a\\b", "{a,b}"] {
            files.exclude = vec![bad.to_owned()];
            assert!(
                files
                    .check_patterns()
                    .unwrap_err()
                    .to_string()
                    .contains("pattern"),
                "{bad}"
            );
        }
        files.exclude = vec!["a/**/*.b?".into()];
        files.check_patterns().unwrap();
    }

    #[test]
    fn what_was_journalled_before_is_still_read() {
        let old = serde_json::json!({
            "target": "reg.example/shop/web:1",
            "base": format!("reg.example/base@{}", towpath_core::Digest::sha256_of("base")),
            "platforms": [],
            "layers": [{"files": {"from": "dist", "to": "/srv"}}],
            "config": {
                "entrypoint": null, "command": null, "environment": {}, "labels": {"a": "b"},
                "working_directory": null, "user": null,
            },
            "annotations": {},
            "created": "2026-01-02T03:04:05Z",
        });
        let read: Assembly = serde_json::from_value(old).unwrap();
        assert_eq!(read.layers, [Layer::files("dist", "/srv")]);
        assert_eq!(read.compression, Compression::Gzip);
        assert!(read.base.is_some() && read.config.stop_signal.is_none());

        let mut new = Assembly::from_scratch(read.target.clone(), [Platform::linux("arm64")]);
        let mut files = Files::per_platform([(Platform::linux("arm64"), "a".into())], "/bin/");
        files.owner = Some((65532, 65532));
        files.compression = Some(Compression::Zstd);
        new.layers.push(Layer::Files(files));
        let text = serde_json::to_string(&new).unwrap();
        assert_eq!(serde_json::from_str::<Assembly>(&text).unwrap(), new);
    }
}
