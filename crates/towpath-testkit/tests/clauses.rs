//! Every clause of every trait's contract has its test: the numbered list in the documentation is the list of functions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

#[test]
fn every_clause_has_its_function_and_is_in_its_macro() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for element in [
        "source",
        "ci",
        "registry",
        "artifacts",
        "delivery",
        "infrastructure",
    ] {
        let read = |path: String| std::fs::read_to_string(here.join(path)).unwrap();
        let folder = format!("../towpath-elements/src/{element}/mod.rs");
        let docs = match here.join(&folder).exists() {
            true => read(folder),
            false => read(format!("../towpath-elements/src/{element}.rs")),
        };
        let suite = read(format!("src/contract/{element}.rs"));
        let clauses: Vec<&str> = docs
            .lines()
            .filter_map(|line| {
                let (number, rest) = line.strip_prefix("/// ")?.split_once(". `")?;
                number.parse::<u32>().ok()?;
                rest.split_once('`').map(|(name, _)| name)
            })
            .collect();
        assert!(
            clauses.len() >= 4,
            "{element}: the contract was not found: {clauses:?}"
        );
        // A suite may come in parts, each a macro with its own list.
        let lists = suite.split("$fixture,\n").skip(1);
        let mut listed: Vec<&str> = lists
            .flat_map(|list| list.split_once(");").unwrap().0.split_whitespace())
            .collect();
        let mut sorted = clauses.clone();
        listed.sort_unstable();
        sorted.sort_unstable();
        assert_eq!(listed, sorted, "{element}: the macros' lists");
        for clause in clauses {
            let function = format!("pub async fn {clause}(fixture: &dyn ");
            assert!(suite.contains(&function), "{element}: no function {clause}");
        }
    }
}
