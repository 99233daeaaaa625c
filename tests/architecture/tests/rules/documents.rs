//! What is written about each crate.

use crate::workspace::{crates, metadata, root};

#[test]
fn every_crate_has_a_readme_and_a_description() {
    let metadata = metadata();
    for package in crates(&metadata) {
        let folder = package
            .manifest_path
            .parent()
            .expect("a manifest stands in a folder");
        let readme = std::fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        assert!(
            readme.starts_with(&format!("# {}\n", package.name)),
            "{}: give it a README.md whose first line is `# {}`; registries and documentation sites show it first",
            package.name,
            package.name
        );
        assert!(
            package.description.as_deref().is_some_and(|text| text.len() > 20),
            "{}: give it a `description` of one line in its Cargo.toml",
            package.name
        );
    }
}

#[test]
fn every_crate_is_in_the_documents() {
    let metadata = metadata();
    for document in ["docs/architecture.md", "README.md"] {
        let text = std::fs::read_to_string(root().join(document))
            .unwrap_or_else(|error| panic!("cannot read {document}: {error}"));
        for package in crates(&metadata) {
            assert!(
                text.contains(&format!("`{}`", package.name)),
                "{document} does not name `{}`: add it to the table of crates",
                package.name
            );
        }
    }
}

#[test]
fn every_step_and_element_is_in_the_design() {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    let named: Vec<String> = rows
        .iter()
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split(", "))
        .map(|cell| cell.trim().to_owned())
        .collect();
    let steps = (1..=13).map(|step| step.to_string());
    let elements = [
        "A", "B", "C", "D1", "D2", "D3", "E1", "E2", "F", "G", "H", "I", "J", "K",
    ];
    for name in steps.chain(elements.into_iter().map(str::to_owned)) {
        assert!(
            named.contains(&name),
            "docs/architecture.md has no row for {name}: the letters and numbers are the project's vocabulary"
        );
    }
}
