//! Workflow commands on the step's output: `::name key=value,key=value::data`.
//!
//! Follows *Workflow commands for GitHub Actions* and the escaping of `@actions/core`.

use std::fmt::Write as _;

/// One line that the runner reads as a command, without the newline.
pub(crate) fn line(name: &str, properties: &[(&str, String)], data: &str) -> String {
    let mut line = format!("::{name}");
    for (at, (key, value)) in properties.iter().enumerate() {
        let before = if at == 0 { ' ' } else { ',' };
        // Writing to a String cannot fail.
        let _ = write!(line, "{before}{key}={}", escape_property(value));
    }
    line + "::" + &escape_data(data)
}

/// Percent first, or the other escapes would be escaped again.
fn escape_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Name, properties and data.
    type Read = (String, Vec<(String, String)>, String);

    /// What the runner makes of a line: the reverse, written from its documents.
    fn read(line: &str) -> Option<Read> {
        let (head, data) = line.strip_prefix("::")?.split_once("::")?;
        let unescape = |text: &str| {
            text.replace("%0D", "\r")
                .replace("%0A", "\n")
                .replace("%3A", ":")
                .replace("%2C", ",")
                .replace("%25", "%")
        };
        let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
        let properties = properties
            .split(',')
            .filter_map(|property| property.split_once('='))
            .map(|(key, value)| (key.to_owned(), unescape(value)))
            .collect();
        Some((name.to_owned(), properties, unescape(data)))
    }

    #[test]
    fn commands_look_as_the_toolkit_writes_them() {
        assert_eq!(line("endgroup", &[], ""), "::endgroup::");
        assert_eq!(
            line(
                "error",
                &[("title", "a: b, 100%".into()), ("line", "3".into())],
                "1\r\n50%: x"
            ),
            "::error title=a%3A b%2C 100%25,line=3::1%0D%0A50%25: x"
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_command(data in ".*(\r|\n|::|%0A)?.*", title in "(?s).*") {
            let line = line("error", &[("title", title.clone()), ("line", "1".into())], &data);
            prop_assert!(!line.contains(['\r', '\n']));
            let (name, properties, said) = read(&line).unwrap();
            prop_assert_eq!(name, "error");
            prop_assert_eq!(properties, vec![("title".to_owned(), title), ("line".to_owned(), "1".to_owned())]);
            prop_assert_eq!(said, data);
        }
    }
}
