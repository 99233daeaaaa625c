//! The files through which a step speaks to the runner: `GITHUB_OUTPUT`, `GITHUB_ENV`, `GITHUB_STATE`, `GITHUB_PATH`.
//!
//! A record is `name<<delimiter`, the value, and the delimiter on a line of its own. A delimiter that the value contains
//! would let the value end the record early and begin others. So it is random, and a collision is refused.

use crate::{Environment, Error, Result};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use uuid::Uuid;

/// The file that a variable names.
pub(crate) fn path(environment: &Environment, variable: &'static str) -> Result<PathBuf> {
    environment
        .require(
            variable,
            "the runner sets it for each step; run inside GitHub Actions",
        )
        .map(PathBuf::from)
}

/// Appends to a file of the runner in one write, and makes it where it does not exist yet.
pub(crate) fn append(environment: &Environment, variable: &'static str, text: &str) -> Result<()> {
    let path = path(environment, variable)?;
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| Error::File {
        action: "append to",
        variable,
        path,
        source,
    })
}

/// The record of one value; `kind` is for the error, as in `the output "digest"`.
pub(crate) fn record(kind: &str, name: &str, value: &str) -> Result<String> {
    record_with(&format!("ghadelimiter_{}", Uuid::new_v4()), kind, name, value)
}

fn record_with(delimiter: &str, kind: &str, name: &str, value: &str) -> Result<String> {
    let refuse = |reason: &str| {
        Err(Error::Refused {
            what: format!("the {kind} {name:?}"),
            reason: reason.to_owned(),
        })
    };
    if name.trim().is_empty() {
        return refuse("its name is empty");
    }
    // The runner ends the name at the first `=` or `<<`, whichever comes first.
    if name.contains('=') || name.contains("<<") || name.ends_with('<') || name.contains(char::is_control) {
        return refuse("its name must not contain =, << or control characters, nor end with <");
    }
    if name.contains(delimiter) || value.contains(delimiter) {
        return refuse(
            "it contains the delimiter that was to end it; this is no accident, look where it comes from",
        );
    }
    Ok(format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the runner reads from such a file, written from the rules of its documents.
    fn read(text: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut lines = text.split('\n');
        while let Some(line) = lines.next() {
            match (line.find('='), line.find("<<")) {
                (Some(equals), heredoc) if heredoc.is_none_or(|at| equals < at) => {
                    found.push((line[..equals].to_owned(), line[equals + 1..].to_owned()));
                }
                (_, Some(at)) => {
                    let delimiter = &line[at + 2..];
                    let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
                    found.push((line[..at].to_owned(), value.join("\n")));
                }
                _ => {}
            }
        }
        found
    }

    #[test]
    fn a_value_with_the_delimiter_is_refused() {
        let error = record_with("EOF", "output", "notes", "a\nEOF\nadmin=true").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot hand the output \"notes\" to the runner"),
            "{error}"
        );
        for name in ["", " ", "a=b", "a<<b", "a<", "a\nb"] {
            assert!(record("output", name, "x").is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn one_value_is_one_record(
            name in "[a-zA-Z_<][ -;>-~]{0,10}",
            value in "(?s).*|(.*\n(ghadelimiter_|EOF|admin=true|x<<y)\r?\n?){0,4}",
        ) {
            if let Ok(record) = record("output", &name, &value) {
                prop_assert_eq!(read(&record), vec![(name, value)]);
            }
        }
    }
}
