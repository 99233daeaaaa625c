//! Which images a deployment file runs: the values of its `image:` lines, as far as a cluster needs to know.

use towpath_core::ImageRef;

/// The images of a file, in order; the error says which line is not one.
pub(super) fn images(file: &[u8]) -> Result<Vec<ImageRef>, String> {
    let text = std::str::from_utf8(file).map_err(|_| "the file is not UTF-8 text".to_owned())?;
    let values = text.lines().enumerate().filter_map(|(at, line)| {
        let value = line
            .trim_start()
            .trim_start_matches("- ")
            .trim_start()
            .strip_prefix("image:")?;
        let value = value.split(" #").next().unwrap_or_default();
        Some((at + 1, value.trim().trim_matches(['"', '\''])))
    });
    values
        .map(|(at, value)| {
            value
                .parse()
                .map_err(|error| format!("line {at} does not name an image: {error}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::images;

    #[test]
    fn images_are_read_as_yaml_writes_them() {
        let file = b"spec:\n  - image: 'quay.io/a/b:1' # pinned\n    name: b\n    image: quay.io/c/d\n";
        let found: Vec<String> = images(file).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["quay.io/a/b:1", "quay.io/c/d"]);
        assert!(images(b"image: http://x").unwrap_err().contains("line 1"));
    }
}
