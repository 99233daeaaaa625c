//! Changing the image in a deployment file, and not one byte more.
//!
//! The file may be any stream of YAML documents (YAML 1.2). Every scalar under a key `image` that names the image's
//! repository is replaced where it stands; comments, order, quotes and line ends stay as they are. The result is read
//! again with the parser, and anything else that would have changed is an error instead.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use std::ops::Range;
use towpath_core::ImageRef;

/// Why an image could not be changed in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file is not text.
    #[error("it is not UTF-8 text (byte {0} is not)")]
    NotText(usize),
    /// The file is not YAML.
    #[error("it is not YAML: line {line}, column {column}: {problem}")]
    NotYaml {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What the parser says.
        problem: String,
    },
    /// The file has no such image.
    #[error("no `image:` in it names {wanted}; found {}", found_or_none(found))]
    NoSuchImage {
        /// The repository that was looked for.
        wanted: String,
        /// The images that are there.
        found: Vec<String>,
    },
    /// The image is written in a way that cannot be replaced in place.
    #[error("the image on line {line} is not a plain or quoted scalar on one line; write it as one")]
    NotReplaceable {
        /// The line, from 1.
        line: usize,
    },
    /// Replacing the text would change something else, such as an alias of it.
    #[error("changing the image would also change {0}; write the image out where it is used")]
    SideEffect(String),
}

fn found_or_none(found: &[String]) -> String {
    if found.is_empty() {
        "no image at all".to_owned()
    } else {
        found.join(", ")
    }
}

/// The images in a file that name the same repository as `image`, as they are written now.
///
/// # Errors
/// As for [`with_image`].
pub fn images_of(file: &[u8], image: &ImageRef) -> Result<Vec<ImageRef>, ManifestError> {
    Ok(places(text(file)?, image)?
        .into_iter()
        .map(|place| place.current)
        .collect())
}

/// The file with `image` in the place of every image of the same repository.
///
/// ```
/// let file = b"# the web\nspec:\n  containers:\n    - image: 'quay.io/shop/web:1'  # pinned\n";
/// let image = "quay.io/shop/web:2".parse()?;
/// let edited = towpath_flow::manifest::with_image(file, &image)?;
/// assert_eq!(edited, b"# the web\nspec:\n  containers:\n    - image: 'quay.io/shop/web:2'  # pinned\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Where the file is not YAML, has no such image, or cannot be changed without changing something else.
pub fn with_image(file: &[u8], image: &ImageRef) -> Result<Vec<u8>, ManifestError> {
    let before = text(file)?;
    let mut places = places(before, image)?;
    places.sort_by_key(|place| std::cmp::Reverse(place.bytes.start));
    places.dedup_by_key(|place| place.bytes.start);
    let mut after = before.to_owned();
    for place in &places {
        let quote = before[place.bytes.clone()]
            .chars()
            .next()
            .filter(|c| matches!(c, '"' | '\''));
        let quote = quote.map_or_else(String::new, String::from);
        after.replace_range(place.bytes.clone(), &format!("{quote}{image}{quote}"));
    }
    verify(before, &after, image)?;
    Ok(after.into_bytes())
}

struct Place {
    bytes: Range<usize>,
    current: ImageRef,
}

fn text(file: &[u8]) -> Result<&str, ManifestError> {
    std::str::from_utf8(file).map_err(|error| ManifestError::NotText(error.valid_up_to()))
}

fn parse(text: &str) -> Result<Vec<MarkedYaml<'_>>, ManifestError> {
    MarkedYaml::load_from_str(text).map_err(|error| ManifestError::NotYaml {
        line: error.marker().line(),
        column: error.marker().col() + 1,
        problem: error.info().to_owned(),
    })
}

fn places(text: &str, image: &ImageRef) -> Result<Vec<Place>, ManifestError> {
    let mut found = Vec::new();
    for document in &parse(text)? {
        scalars(document, &mut String::new(), &mut |path, value, node| {
            if path.ends_with(".image") {
                found.push((value.to_owned(), node.span));
            }
        });
    }
    let mut places = Vec::new();
    for (value, span) in &found {
        let Some(current) = value
            .parse::<ImageRef>()
            .ok()
            .filter(|found| found.name() == image.name())
        else {
            continue;
        };
        let start = byte_of(text, span.start.index());
        let written = ["", "\"", "'"].map(|quote| format!("{quote}{value}{quote}"));
        let Some(written) = written
            .iter()
            .find(|written| text[start..].starts_with(written.as_str()))
        else {
            return Err(ManifestError::NotReplaceable {
                line: span.start.line(),
            });
        };
        places.push(Place {
            bytes: start..start + written.len(),
            current,
        });
    }
    if places.is_empty() {
        let found = found.into_iter().map(|(value, _)| value).collect();
        return Err(ManifestError::NoSuchImage {
            wanted: image.name(),
            found,
        });
    }
    Ok(places)
}

/// The parser counts characters; a file is made of bytes.
fn byte_of(text: &str, character: usize) -> usize {
    text.char_indices()
        .nth(character)
        .map_or(text.len(), |(byte, _)| byte)
}

/// Calls `see` with the path, the text and the node of every scalar.
fn scalars<'a, 'b>(
    node: &'b MarkedYaml<'a>,
    path: &mut String,
    see: &mut impl FnMut(&str, &str, &'b MarkedYaml<'a>),
) {
    match &node.data {
        YamlData::Mapping(mapping) => {
            for (key, value) in mapping.iter() {
                let length = path.len();
                path.push('.');
                path.push_str(&shown(&key.data));
                scalars(value, path, see);
                path.truncate(length);
            }
        }
        YamlData::Sequence(items) => {
            for (at, item) in items.iter().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{at}]"));
                scalars(item, path, see);
                path.truncate(length);
            }
        }
        YamlData::Tagged(_, inner) => scalars(inner, path, see),
        scalar => see(path, &shown(scalar), node),
    }
}

fn shown<'a>(data: &YamlData<'a, MarkedYaml<'a>>) -> String {
    match data {
        YamlData::Value(Scalar::String(text)) => text.to_string(),
        YamlData::Representation(text, ..) => text.to_string(),
        other => format!("{other:?}"),
    }
}

fn verify(before: &str, after: &str, image: &ImageRef) -> Result<(), ManifestError> {
    let list = |text: &str| -> Result<Vec<(String, String)>, ManifestError> {
        let mut all = Vec::new();
        for (at, document) in parse(text)?.iter().enumerate() {
            scalars(
                document,
                &mut format!("document {at}: "),
                &mut |path, value, _| {
                    all.push((path.to_owned(), value.to_owned()));
                },
            );
        }
        Ok(all)
    };
    let (old, new) = (list(before)?, list(after)?);
    if old.len() != new.len() {
        return Err(ManifestError::SideEffect("the shape of the file".to_owned()));
    }
    for ((old_path, old_value), (new_path, new_value)) in old.iter().zip(&new) {
        let meant = old_path.ends_with(".image")
            && old_value
                .parse::<ImageRef>()
                .is_ok_and(|found| found.name() == image.name());
        let expected = if meant {
            image.to_string()
        } else {
            old_value.clone()
        };
        if old_path != new_path || *new_value != expected {
            return Err(ManifestError::SideEffect(old_path.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(text: &str) -> ImageRef {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_image_changes() {
        let file = "# café ☕\r\napiVersion: apps/v1 # keep\r\nspec:\r\n  containers:\r\n  - {name: web, image: \"127.0.0.1:5000/shop/web:old\", args: [a,  b]}\r\n  - name: side\r\n    image: quay.io/other/side:1   # not ours\r\n---\r\nimage: 127.0.0.1:5000/shop/web\r\ntext: |\r\n  image: 127.0.0.1:5000/shop/web:doc\r\n";
        let edited = with_image(file.as_bytes(), &image("127.0.0.1:5000/shop/web:new")).unwrap();
        let expected = file
            .replace(
                "\"127.0.0.1:5000/shop/web:old\"",
                "\"127.0.0.1:5000/shop/web:new\"",
            )
            .replace(
                "image: 127.0.0.1:5000/shop/web\r\n",
                "image: 127.0.0.1:5000/shop/web:new\r\n",
            );
        // A top-level `image` has a path that ends with .image too.
        assert_eq!(String::from_utf8(edited).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_changed_is_said() {
        let wanted = image("quay.io/shop/web:2");
        let said = |file: &[u8]| with_image(file, &wanted).unwrap_err().to_string();
        assert!(said(b"\xff\xfe").contains("UTF-8"));
        assert!(said(b"a: [1").contains("line"));
        assert!(said(b"image: quay.io/shop/api:1").contains("found quay.io/shop/api:1"));
        assert!(said(b"kind: ConfigMap").contains("no image at all"));
        assert!(said(b"image: \"quay.io/shop/\\\n  web:1\"\n").contains("line"));
    }

    #[test]
    fn an_alias_of_the_image_is_not_changed_behind_the_users_back() {
        let file = b"image: &web quay.io/shop/web:1\nnote: *web\n";
        assert!(with_image(file, &image("quay.io/shop/web:2")).is_err());
    }

    proptest! {
        #[test]
        fn nothing_else_changes(lines in proptest::collection::vec("(#[ -~]{0,20}|[a-z]{1,6}: ('[a-z #:]{0,10}'|[a-z0-9]{1,9}))?", 0..8)) {
            let mut keys = std::collections::HashSet::new();
            let lines: Vec<_> = lines.into_iter().filter(|l| keys.insert(l.split(':').next().map(str::to_owned)) && !l.starts_with("image")).collect();
            let head = lines.join("\n");
            let file = format!("{head}\nimage: quay.io/shop/web:1 # x\n{}", "zzzzzzz: 1\n");
            let edited = with_image(file.as_bytes(), &image("quay.io/shop/web:22")).unwrap();
            prop_assert_eq!(String::from_utf8(edited).unwrap(), file.replace("image: quay.io/shop/web:1 ", "image: quay.io/shop/web:22 "));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[ -~\n]{0,60}") {
            let _ = with_image(&bytes, &image("quay.io/shop/web:1"));
            let _ = with_image(text.as_bytes(), &image("quay.io/shop/web:1"));
        }
    }
}
